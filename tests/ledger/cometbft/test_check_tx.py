"""CheckTx, proposals and blocks: verified once, in threads; mistakes stop nobody, and bytes are counted."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ledger import execute, limits, proof_checker, transactions
from ledger.application import Application, BlockInput
from ledger.engine.cometbft import proposals, submissions
from ledger.engine.cometbft.abci import messages
from ledger.engine.cometbft.submissions import Submissions
from ledger.engine.intake import VERIFY_BATCH
from ledger.genesis import HOLD
from ledger.proof_checker import Claim
from ledger.result import Code
from ledger.transactions import Transaction
from proofs.kzg import proof as kzg_proof
from tests.ledger.cometbft.application import genesis, transfer
from tests.ledger.cometbft.lone import NoMempool, Setting
from tests.ledger.engine.conftest import until
from tests.ledger.test_kinds import Several
from tests.ledger.world import key

START_S = 1_700_000_000
ACCEPT, REJECT = messages.ProposalStatus.ACCEPT, messages.ProposalStatus.REJECT
PREPARE = messages.RequestPrepareProposal


@pytest.fixture
async def setting(tmp_path: Path) -> AsyncIterator[Setting]:
    made = Setting(tmp_path, genesis(START_S))
    await made.engine.start()
    yield made
    await made.close()


@pytest.fixture
def verified(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, bool]]:
    """Every signature that is verified: its transaction's nonce, and whether the event loop waited for it."""
    found: list[tuple[int, bool]] = []
    plain = transactions.verify

    def verify(tx: Transaction, unsigned: bytes) -> bool:
        found.append((tx.nonce, threading.current_thread() is threading.main_thread()))
        return plain(tx, unsigned)

    monkeypatch.setattr(transactions, "verify", verify)
    return found


def forged(nonce: int) -> bytes:
    """A transfer whose amount was changed after it was signed."""
    tx = transactions.decode(transfer(nonce))
    return replace(tx, body=replace(tx.body, amount=HOLD + 1)).encode()  # type: ignore[arg-type]


async def status_of(setting: Setting, txs: list[bytes]) -> int:
    """What ProcessProposal says of a block."""
    request = setting.node.request(messages.RequestProcessProposal, txs)
    return int((await setting.engine.process_proposal(request)).status)


async def head(setting: Setting) -> bytes:
    """The beacon of the next block."""
    pool, setting.node.pool = setting.node.pool, []
    made = (await setting.node.propose())[0]
    setting.node.pool = pool
    return made


async def test_a_transaction_is_verified_once_from_submit_to_commit(
    setting: Setting, verified: list[tuple[int, bool]]
) -> None:
    tasks = [asyncio.create_task(setting.engine.submit(transfer(number))) for number in range(5)]
    await until(lambda: len(setting.node.pool) == 5)
    peers = [transfer(number) for number in range(5, 9)]
    answers = [setting.engine.check_tx(messages.RequestCheckTx(tx=raw)) for raw in peers]
    assert [answer.code for answer in await asyncio.gather(*answers)] == [0] * 4
    setting.node.pool += peers
    await setting.node.block()
    assert [(await task).code for task in tasks] == [0] * 5
    assert sorted(verified) == [(number, False) for number in range(9)]


async def test_a_block_of_what_was_never_seen_is_verified_in_threads(
    setting: Setting, verified: list[tuple[int, bool]]
) -> None:
    txs = [await head(setting), *(transfer(number) for number in range(VERIFY_BATCH + 2))]
    assert await status_of(setting, txs) == ACCEPT
    await setting.node.finalize(txs)
    await setting.node.commit(txs)
    assert sorted(verified) == [(number, False) for number in range(VERIFY_BATCH + 2)]


async def test_a_block_with_a_bad_signature_is_refused_before_all_others_are_verified(
    setting: Setting, verified: list[tuple[int, bool]]
) -> None:
    part = VERIFY_BATCH * submissions.BATCHES_AT_ONCE
    txs = [await head(setting), forged(0), *(transfer(number) for number in range(1, 3 * part))]
    assert await status_of(setting, txs) == REJECT
    assert len(verified) <= part + 1


async def test_a_block_of_more_than_is_taken_is_refused_before_anything_is_verified(
    setting: Setting, verified: list[tuple[int, bool]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(proposals, "MAX_TXS_TAKEN", 4)
    txs = [await head(setting), *map(transfer, range(4))]
    assert await status_of(setting, txs) == REJECT
    assert verified == []
    assert await status_of(setting, txs[:4]) == ACCEPT


@pytest.mark.parametrize("txs", [[], [b""], [b"\xff" * 99], [b"", b""], [b"\xa1" * 300_000]])
async def test_a_block_of_any_bytes_is_refused(setting: Setting, txs: list[bytes]) -> None:
    assert await status_of(setting, txs) == REJECT
    assert await status_of(setting, [await head(setting), *txs]) == (REJECT if txs else ACCEPT)


async def test_a_block_of_who_is_no_validator_is_refused(setting: Setting) -> None:
    request = setting.node.request(messages.RequestProcessProposal, [await head(setting)])
    request.proposer_address = bytes(20)
    assert (await setting.engine.process_proposal(request)).status == REJECT
    request.proposer_address = b""
    assert (await setting.engine.process_proposal(request)).status == REJECT


@pytest.mark.parametrize("raw", [b"", b"\x00", b"\xa0", b"\xff" * 1_000, bytes(300_000), b"\x9f" * 5_000])
async def test_check_tx_answers_any_bytes(setting: Setting, raw: bytes) -> None:
    for kind in messages.CheckTxType:
        answer = await setting.engine.check_tx(messages.RequestCheckTx(tx=raw, type=kind))
        assert answer.code in {Code.MALFORMED, Code.TOO_LARGE}


async def test_a_proposal_has_no_more_bytes_than_cometbft_gives_it(setting: Setting) -> None:
    txs = [transfer(number) for number in range(60)]
    for raw in txs:
        assert (await setting.engine.check_tx(messages.RequestCheckTx(tx=raw))).code == 0
    (lone,) = (await setting.engine.prepare_proposal(setting.node.request(PREPARE, [], max_tx_bytes=999))).txs
    least = messages.Data(txs=[lone]).ByteSize()
    for room in (0, least - 1, least, least + 1, 4_200, 4_500, 6_000, 9_000, 12_345):
        request = setting.node.request(PREPARE, txs, max_tx_bytes=room)
        chosen = list((await setting.engine.prepare_proposal(request)).txs)
        assert messages.Data(txs=chosen).ByteSize() <= room
        assert bool(chosen) is (room > least)
        assert chosen[1:] == txs[: max(0, len(chosen) - 1)]
    assert len(chosen) > 20


async def test_a_mistake_in_the_rules_ends_no_validator_and_proposes_an_empty_block(
    setting: Setting, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    poison, plain = transfer(0), execute.run

    def run(ctx: Any, raw: bytes, reader: Any) -> Any:
        if raw == poison:
            raise RecursionError("a mistake that no list of mistakes has")
        return plain(ctx, raw, reader)

    assert (await setting.engine.check_tx(messages.RequestCheckTx(tx=poison))).code == 0
    setting.node.pool = [poison]
    monkeypatch.setattr(execute, "run", run)
    with caplog.at_level(logging.CRITICAL + 1):
        assert await status_of(setting, [await head(setting), poison]) == REJECT
        result = await setting.node.block()
    assert len(result.tx_results) == 1  # the beacon
    monkeypatch.undo()
    await setting.node.block()
    assert setting.node.pool == []


class Looking:
    """Submissions of an application, and how many proofs were looked at, never in the event loop's thread."""

    def __init__(self, app: Application, verifiers: Executor, monkeypatch: pytest.MonkeyPatch) -> None:
        self.submissions = Submissions(app, verifiers, lambda _tx: None, NoMempool())
        self.looked = 0
        plain = kzg_proof.verify_many

        def verify_many(claims: Sequence[Claim]) -> Any:
            assert threading.current_thread() is not threading.main_thread()
            self.looked += len(claims)
            return plain(claims)

        monkeypatch.setattr(proof_checker, "verify_many", verify_many)


async def test_proofs_are_looked_at_in_a_thread_before_a_block_has_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    several = Several(3)
    app, txs = several.world.app, several.txs(spoiled=[1])
    with ThreadPoolExecutor(1) as verifiers:
        looking = Looking(app, verifiers, monkeypatch)
        running = asyncio.create_task(looking.submissions.run())
        assert [(await looking.submissions.check(raw)).code for raw in txs] == [0] * 3
        await until(lambda: not any(app.unverified_proofs(txs)))
        running.cancel()
        await asyncio.wait({running})
    assert looking.looked == 3
    assert several.world.propose(txs) == [txs[0], txs[2]]
    assert app.dropped[txs[1]].code is Code.INVALID_PROOF
    assert looking.looked == 3


async def test_a_proposer_waits_for_no_proofs(setting: Setting, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that wait would take longer than the others wait for its proposal."""

    def never(_app: Application, _raws: Sequence[bytes]) -> Any:
        raise AssertionError("it looks at proofs")

    setting.node.pool = [transfer(0)]
    monkeypatch.setattr(Application, "unverified_proofs", never)
    assert (await setting.node.propose())[1:] == [transfer(0)]


async def test_those_of_anothers_block_too_and_none_after_the_first_bad_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    several = Several(3)
    app, txs = several.world.app, several.txs(spoiled=[1])
    monkeypatch.setattr(limits, "KZG_BATCH", 1)
    with ThreadPoolExecutor(1) as verifiers:
        looking = Looking(app, verifiers, monkeypatch)
        await looking.submissions.verify_ahead(txs)
    head = several.world.beacon()
    given = BlockInput(app.height + 1, several.world.now, key("operator"), (head, *txs))
    assert app.process_proposal(given).code is Code.INVALID_PROOF
    assert looking.looked == 2
