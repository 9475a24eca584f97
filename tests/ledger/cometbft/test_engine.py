"""The engine on CometBFT, asked as CometBFT asks: handshake, blocks, commits, and what its clients see."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from ledger.engine.cometbft.abci import convert, messages
from ledger.engine.cometbft.abci.framing import frame
from ledger.engine.cometbft.errors import Disagreement
from ledger.engine.errors import EngineStopped
from ledger.events import Event
from ledger.keys import address
from merkledag.cid import CID
from merkledag.peer import peer_text
from tests.ledger.cometbft.abci import connection
from tests.ledger.cometbft.application import (
    CHAIN,
    genesis,
    open_storage,
    rerun,
    signer,
    transfer,
)
from tests.ledger.cometbft.lone import Setting, init_chain

START_S = 1_700_000_000
FOUR = 4


@pytest.fixture
async def setting(tmp_path: Path) -> AsyncIterator[Setting]:
    made = Setting(tmp_path, genesis(START_S, FOUR))
    await made.engine.start()
    yield made
    await made.close()


def evidence(number: int) -> Any:
    """That a validator has voted twice."""
    validator = messages.AbciValidator(address=address(signer(f"consensus-{number}").public_key), power=10)
    return messages.Misbehavior(type=1, validator=validator, height=1)


# -- the handshake -----------------------------------------------------------------------------------------


async def test_info_reports_what_the_last_commit_wrote(setting: Setting) -> None:
    ask = messages.RequestInfo(version="0.39.4", block_version=11, p2p_version=8, abci_version="2.0.0")
    new = await setting.engine.info(ask)
    assert (new.last_block_height, new.last_block_app_hash, new.data) == (0, b"", CHAIN)
    # Given a block that was run, when it is not committed, then Info does not know of it
    setting.node.time_s += 1
    txs = await setting.node.propose()
    result = await setting.node.finalize(txs)
    assert (await setting.engine.info(ask)).last_block_height == 0
    assert setting.storage.height() == 0
    # and once it is, Info reports height and app hash, also after the application was loaded anew
    await setting.node.commit(txs)
    await setting.close()
    setting.open()
    await setting.engine.start()
    again = await setting.engine.info(ask)
    assert (again.last_block_height, again.last_block_app_hash) == (1, result.app_hash)


@pytest.mark.parametrize(
    ("version", "block", "abci", "reason"),
    [
        ("0.39.4", 11, "1.0.0", "speaks ABCI 1.0.0"),
        ("0.39.3", 11, "2.0.0", "this cometbft is 0.39.3"),
        ("0.37.2", 11, "2.0.0", "this cometbft is 0.37.2"),
        ("1.0.1", 11, "2.0.0", "use CometBFT 0.39"),
        ("0.39.4", 12, "2.0.0", "blocks of version 12"),
        ("nightly", 11, "2.0.0", "this cometbft is nightly"),
    ],
)
async def test_a_cometbft_of_another_kind_is_refused(
    setting: Setting, version: str, block: int, abci: str, reason: str
) -> None:
    with pytest.raises(Disagreement, match=reason):
        await setting.engine.info(
            messages.RequestInfo(version=version, block_version=block, abci_version=abci)
        )


@pytest.mark.parametrize("version", ["0.39.4", "0.40.1", "0.39.0"])
async def test_the_releases_that_it_works_with_are_answered(setting: Setting, version: str) -> None:
    """0.40.0 says 0.39.0 of itself."""
    asked = messages.RequestInfo(version=version, block_version=11, p2p_version=9, abci_version="2.0.0")
    assert (await setting.engine.info(asked)).app_version == 1


async def test_tools_that_do_not_say_what_they_are_are_answered(setting: Setting) -> None:
    assert (await setting.engine.info(messages.RequestInfo())).app_version == 1


async def query(setting: Setting, path: bytes, data: bytes, **more: Any) -> tuple[int, str]:
    """Code and codespace of the answer, which has a value or says why it has none."""
    answer = await setting.engine.query(messages.RequestQuery(path=path, data=data, **more))
    assert bool(answer.value) is (answer.code == 0)
    assert bool(answer.log) is (answer.code != 0)
    return answer.code, answer.codespace


async def test_queries_are_answered_with_codes_of_their_own(setting: Setting) -> None:
    key = b"/store/state/key"
    assert (await query(setting, key, b"chain"))[0] == 3  # there is no block yet
    for _ in range(2):
        await setting.node.block()
    assert await query(setting, key, b"chain") == (0, "")
    assert await query(setting, b"/state/key", b"chain", prove=True, height=1) == (0, "")
    assert await query(setting, b"/store", b"chain", prove=True) == (0, "")
    for asked in (b"/p2p/filter/addr/127.0.0.1:26656", b"/p2p/filter/id/" + b"ab" * 20):
        assert (await setting.engine.query(messages.RequestQuery(path=asked))).code == 0
    for path in (b"", b"/", b"/store/", b"/store/state/key/", b"/app/version", b"\xff"):
        assert await query(setting, path, b"chain") == (1, "holdfast-query")
    for data in (b"", bytes(512)):
        assert await query(setting, key, data) == (2, "holdfast-query")
    for height in (-1, -(2**63), 3, 2**63 - 1):
        assert await query(setting, key, b"chain", height=height) == (3, "holdfast-query")
    assert await query(setting, key, b"nothing", prove=True) == (4, "holdfast-query")
    # A snapshot that is refused takes no state away
    offered = await setting.engine.offer_snapshot(messages.RequestOfferSnapshot())
    assert offered.result == messages.OfferSnapshotResult.REJECT_FORMAT
    assert await query(setting, key, b"chain") == (0, "")


async def test_init_chain_gives_the_genesis_state_and_the_validators(setting: Setting) -> None:
    request = init_chain(setting.genesis)
    for _ in ("the same in CometBFT's genesis", "none there"):
        answer = await setting.engine.init_chain(request)
        assert answer.app_hash == setting.engine.app.app_hash
        assert {each.pub_key.ed25519: each.power for each in answer.validators} == {
            signer(f"consensus-{number}").public_key: 10 for number in range(FOUR)
        }
        del request.validators[:]
    assert setting.storage.height() == 0


def _other_power(request: Any) -> None:
    request.validators[1].power += 1


def _other_state(request: Any) -> None:
    request.app_state_bytes = request.app_state_bytes.replace(b'"period_s": 4', b'"period_s": 6')


CHANGES: dict[str, Callable[[Any], object]] = {
    "is of chain other": lambda r: setattr(r, "chain_id", "other"),
    "begins at block 7": lambda r: setattr(r, "initial_height", 7),
    "is of 1700000001 s": lambda r: setattr(r.time, "seconds", START_S + 1),
    "is of 1700000000 s": lambda r: setattr(r.time, "nanos", 1),
    "other validators \\(3\\)": lambda r: r.validators.pop(),
    "gives them other power": _other_power,
    "another genesis than the ledger's": _other_state,
    "is no genesis of a ledger": lambda r: setattr(r, "app_state_bytes", b'{"chain_id": 1}'),
    "app_state in CometBFT's genesis is no genesis": lambda r: setattr(r, "app_state_bytes", b"{"),
    "block.max_bytes 1, not": lambda r: setattr(r.consensus_params.block, "max_bytes", 1),
    "vote_extensions_enable_height 1": lambda r: setattr(
        r.consensus_params.abci, "vote_extensions_enable_height", 1
    ),
}


@pytest.mark.parametrize("reason", CHANGES)
async def test_a_genesis_that_differs_from_the_ledgers_is_refused(setting: Setting, reason: str) -> None:
    request = init_chain(setting.genesis)
    await setting.engine.init_chain(request)
    CHANGES[reason](request)
    with pytest.raises(Disagreement, match=reason):
        await setting.engine.init_chain(request)


async def test_a_cometbft_that_begins_anew_beside_a_state_is_refused(setting: Setting) -> None:
    await setting.node.block()
    with pytest.raises(Disagreement, match="the ledger's state is of block 1"):
        await setting.engine.init_chain(init_chain(setting.genesis))


# -- blocks ------------------------------------------------------------------------------------------------


async def test_a_block_that_is_given_again_before_its_commit_has_the_same_result(setting: Setting) -> None:
    setting.node.pool = [transfer(0), transfer(1)]
    setting.node.time_s += 1
    txs = await setting.node.propose()
    first = await setting.node.finalize(txs)
    assert [each.code for each in first.tx_results] == [0, 0, 0]
    assert await setting.node.finalize(txs) == first
    await setting.node.commit(txs)
    assert setting.engine.app.app_hash == first.app_hash == setting.storage.app_hash()


async def test_what_cannot_follow_the_state_ends_with_the_reason(setting: Setting) -> None:
    node = setting.node
    with pytest.raises(Disagreement, match="Commit without a block"):
        await setting.engine.commit(messages.RequestCommit())
    txs = await node.propose()
    request = node.request(messages.RequestFinalizeBlock, txs)
    for name, value, reason in (
        ("height", 5, "the next block is 1, not 5"),
        ("proposer_address", bytes(20), "whom the ledger's state does not know"),
        ("proposer_address", address(signer("consensus-1").public_key), "cannot follow block 0"),
    ):
        changed = messages.RequestFinalizeBlock.FromString(request.SerializeToString())
        setattr(changed, name, value)
        with pytest.raises(Disagreement, match=reason):
            await setting.engine.finalize_block(changed)
    for height in (0, 2):
        proposal = messages.RequestPrepareProposal(height=height, proposer_address=node.proposer)
        with pytest.raises(Disagreement, match=f"block {height}, and the ledger's next is 1"):
            await setting.engine.prepare_proposal(proposal)
    assert (await setting.engine.finalize_block(request)).app_hash


async def test_a_disagreement_over_the_socket_ends_the_engine_with_its_reason(setting: Setting) -> None:
    reader, writer = await asyncio.open_unix_connection(str(setting.folder / "abci.sock"))
    waiting = asyncio.create_task(setting.engine.submit(transfer(0)))
    await asyncio.sleep(0)
    writer.write(frame(messages.Request(commit=messages.RequestCommit()).SerializeToString()))
    with pytest.raises(EngineStopped, match="a Commit without a block"):
        await setting.engine.wait_ended()
    with pytest.raises(EngineStopped, match="a Commit without a block"):
        await waiting
    assert b"a Commit without a block" in await reader.read()
    writer.close()


async def test_a_damaged_state_ends_with_the_reason(setting: Setting) -> None:
    await setting.node.block()
    await setting.close()
    storage = open_storage(setting.folder)
    with storage._begin(write=True) as txn, txn.cursor(storage._tables[b"state"]) as cursor:
        assert cursor.set_range(b"account/")
        key, value = cursor.item()
        txn.put(key, value[:-1], db=storage._tables[b"state"])
    storage.close()
    setting.open()
    await setting.engine.start()
    setting.node.time_s += 1
    beacon = (await setting.node.propose())[0]
    with pytest.raises(Disagreement, match="state is damaged"):
        await setting.node.finalize([beacon, transfer(0)])


async def test_a_full_disk_holds_the_commit_up_and_loses_nothing(setting: Setting) -> None:
    setting.left = 3
    setting.node.pool = [transfer(0)]
    result = await setting.node.block()
    assert setting.now_s == pytest.approx(3.0)
    assert setting.engine.status.trouble == ""
    assert setting.storage.app_hash() == result.app_hash


async def test_a_cometbft_that_comes_back_in_the_middle_of_a_commit_waits_for_it(
    setting: Setting, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was told of a block that was not there yet, gave it again, and ended the node with its Commit."""
    full, is_empty = asyncio.Event(), asyncio.Event()

    async def sleep(_seconds: float) -> None:
        full.set()
        await is_empty.wait()

    monkeypatch.setattr(setting.engine._disk, "_rest", sleep)
    setting.left = 1
    setting.node.time_s += 1
    txs = await setting.node.propose()
    async with connection(setting.engine.server) as first:
        decided = setting.node.request(messages.RequestFinalizeBlock, txs)
        await first.ask("finalize_block", decided)
        first.send(("commit", messages.RequestCommit()))
        await full.wait()
    async with connection(setting.engine.server) as second:
        second.send(("echo", messages.RequestEcho(message="here")), ("info", messages.RequestInfo()))
        assert await second.receive() == ("echo", messages.ResponseEcho(message="here"))
        is_empty.set()
        found = await second.receive()
        assert found is not None
        info = found[1]
        assert info.last_block_height == setting.engine.app.height == setting.storage.height() == 1
    await setting.node.block()


async def test_a_connection_that_breaks_in_the_middle_of_a_block_leaves_nothing_of_it(
    setting: Setting, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, may_go_on = asyncio.Event(), asyncio.Event()
    plain = setting.engine._submissions.verify_ahead

    async def verify_ahead(raws: Sequence[bytes]) -> None:
        begun.set()
        await may_go_on.wait()
        await plain(raws)

    setting.node.pool = [transfer(0)]
    setting.node.time_s += 1
    txs = await setting.node.propose()
    decided = setting.node.request(messages.RequestFinalizeBlock, txs)
    other = setting.node.request(messages.RequestFinalizeBlock, txs[:1])
    whole = frame(messages.Request(finalize_block=other).SerializeToString())
    monkeypatch.setattr(setting.engine._submissions, "verify_ahead", verify_ahead)
    async with connection(setting.engine.server) as first, connection(setting.engine.server) as half:
        half.writer.write(whole[:-1])
        first.send(("finalize_block", other))
        await begun.wait()
    may_go_on.set()
    async with connection(setting.engine.server) as second:
        assert (await second.ask("info", messages.RequestInfo())).last_block_height == 0
        result = await second.ask("finalize_block", decided)
        await second.ask("commit", messages.RequestCommit())
    assert [each.code for each in result.tx_results] == [0, 0]
    assert setting.storage.app_hash() == result.app_hash == rerun(setting.storage, setting.genesis).app_hash


async def test_blocks_are_the_same_on_every_validator(setting: Setting, tmp_path: Path) -> None:
    other = Setting(tmp_path / "other", setting.genesis)
    for height in range(1, 4):
        setting.node.pool = [transfer(height - 1)]
        await setting.node.block()
        given = setting.engine.history.given(height)
        other.node.time_s = given.block.block_time_s
        await other.node.finalize(given.txs)
        await other.node.commit(given.txs)
        assert other.storage.block(height) == given.raw
        assert (given.block.prev, given.block.sig) == (None, b"")
    again = rerun(setting.storage, setting.genesis)
    assert again.app_hash == other.storage.app_hash() == setting.storage.app_hash()
    await other.close()


async def test_evidence_names_accounts_each_once(setting: Setting) -> None:
    unknown = messages.Misbehavior(validator=messages.AbciValidator(address=bytes(20)))
    accused = [evidence(2), unknown, evidence(1), evidence(2)]
    found = convert.accounts_of(setting.engine.app, accused)
    assert found == (signer("validator-2").public_key, signer("validator-1").public_key)


async def test_a_validator_that_voted_twice_is_out_by_the_block_with_the_evidence(setting: Setting) -> None:
    result = await setting.node.block(misbehavior=[evidence(2), evidence(2)])
    (update,) = result.validator_updates
    assert (update.pub_key.ed25519, update.power) == (signer("consensus-2").public_key, 0)
    left = {info.account for info in setting.engine.app.validators()}
    assert left == {signer(name).public_key for name in ("operator", "validator-1", "validator-3")}
    # The same evidence once more changes nothing
    assert not (await setting.node.block(misbehavior=[evidence(2)])).validator_updates


# -- what others see ---------------------------------------------------------------------------------------


async def test_events_go_to_subscribers_and_to_cometbft(setting: Setting) -> None:
    subscription = setting.engine.subscribe()
    setting.node.pool = [transfer(0)]
    result = await setting.node.block()
    published = await subscription.next()
    assert published is not None
    assert published.height == 1
    (sent,) = (each for each in published.events if each.kind == "transfer")
    assert not result.events  # no event of the block's own: the transaction did it
    named, told = result.tx_results[1].events
    assert (named.type, told.type) == ("transaction", "transfer")
    shown = {each.key: each.value for each in told.attributes}
    assert shown == {name: str(value) for name, value in sent.shown().items()}
    assert shown["to"] == peer_text(signer("alice").public_key)
    sender = peer_text(signer("operator").public_key)
    assert {each.key: each.value for each in named.attributes}["account"] == sender
    assert not result.tx_results[0].events  # the beacon's is nobody's


def test_attributes_keep_their_order_and_are_all_indexed() -> None:
    deal = CID.of(b"\xa0", codec=0x71)
    made = convert.event(Event("told", {"deal": deal, "provider": bytes(32), "amount": 5, "clean": True}))
    assert all(each.index for each in made.attributes)
    assert [(each.key, each.value) for each in made.attributes] == [
        ("deal", str(deal)),
        ("provider", peer_text(bytes(32))),
        ("amount", "5"),
        ("clean", "true"),
    ]


async def test_the_status_says_when_the_chain_stands_still_or_is_ahead(setting: Setting) -> None:
    engine = setting.engine
    assert engine.status.trouble == ""
    setting.now_s = 31.0
    assert engine.status.trouble.startswith("no block for 31 s")
    await setting.node.block()
    setting.now_s = 0.0
    await setting.node.block()
    assert engine.status.trouble == ""
    # Blocks come, but the last one is old
    setting.node.time_s += 100
    assert engine.status.trouble == "catching up: the last block here, 2, is 100 s old"
    # or is not to come for a while: a clock that was an hour ahead was put right, or is an hour behind
    setting.node.time_s -= 3_700
    assert engine.status.trouble.startswith("this machine's clock is 3600 s behind the time of block 2")


async def test_vote_extensions_are_empty_and_no_others_are_taken(setting: Setting) -> None:
    made = await setting.engine.extend_vote(messages.RequestExtendVote(height=1))
    assert made.vote_extension == b""
    for extension, status in ((b"", messages.VerifyStatus.ACCEPT), (b"x", messages.VerifyStatus.REJECT)):
        asked = messages.RequestVerifyVoteExtension(height=1, vote_extension=extension)
        assert (await setting.engine.verify_vote_extension(asked)).status == status


async def test_a_validator_without_its_bls_key_proposes_nothing(setting: Setting) -> None:
    setting.node.proposer = address(signer("consensus-3").public_key)
    assert await setting.node.propose() == []
    request = setting.node.request(messages.RequestProcessProposal, [])
    answer = await setting.engine.process_proposal(request)
    assert answer.status == messages.ProposalStatus.REJECT
