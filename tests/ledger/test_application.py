"""The application as an engine and its clients see it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ledger import keys, limits
from ledger.application import Application, BlockInput
from ledger.errors import InvalidBlock
from ledger.fees import fee_of, with_least_fee
from ledger.genesis import HOLD
from ledger.ingest import memory_store
from ledger.result import Code
from ledger.state_tree import verify
from ledger.store import MemoryRows
from ledger.transactions import Accept, Beacon, Prove, Register, Transaction, Transfer, decode, sign
from proofs.bls import signatures as bls
from proofs.errors import InvalidBeacon
from tests.ledger.world import (
    CHAIN,
    CONTENT,
    FAR_S,
    PARAMS,
    START_S,
    Piece,
    World,
    beacon_signer,
    genesis,
    key,
    signer,
)


def test_a_new_chain_gives_all_money_to_the_operator() -> None:
    world = World()
    app = world.app
    assert (app.height, app.time, app.block_time_s) == (0, START_S, START_S)
    assert app.account(key("operator")).balance == app.totals().issued
    assert app.next_due() is None
    raw = world.tx("operator", Transfer(key("a"), HOLD))
    assert app.check_tx(raw).ok
    assert world.propose([raw]) == [raw]
    result = world.block(raw)
    assert keys.account(key("a")) in result.writes.state
    world.check_restores()


def test_deals_are_found_by_client_provider_content_and_activity() -> None:
    world = World()
    world.fund("ann", "bob")
    world.provider("node")
    mine = world.deal("ann", providers=("node",))
    other = world.deal("bob")
    world.block()
    world.block()

    def found(**conditions: object) -> set[str]:
        return {str(info.id) for info in world.app.deals(**conditions)}  # type: ignore[arg-type]

    both = {str(mine), str(other)}
    assert found() == found(content=CONTENT) == found(active=True) == both
    assert found(client=key("ann")) == {str(mine)}
    assert found(provider=key("node")) == both
    assert found(provider=key("node"), client=key("bob")) == {str(other)}
    assert found(active=False) == found(client=key("node")) == set()
    world.pass_time(PARAMS.accept_timeout_s + 2)
    assert found(active=False) == {str(mine)}  # refunded
    assert {str(info.id) for info in world.restored().deals(active=False)} == {str(mine)}


def test_queries_answer_from_the_last_commit_while_a_block_waits() -> None:
    world = World()
    world.fund("ann")
    raw = world.tx("operator", Transfer(key("new"), HOLD))
    before = dict(world.app.items())
    totals, root = world.app.totals(), world.app.app_hash
    block = BlockInput(world.app.height + 1, world.now + 1, key("operator"), (world.beacon(), raw))
    result = world.app.finalize_block(block)
    assert result.app_hash != root
    for name in (keys.account(key("new")), keys.account(key("ann")), keys.CHAIN):
        proof = world.app.prove(name)
        assert proof.value == before.get(name)
        assert verify(proof, root)
    assert (world.app.height, world.app.totals(), world.app.app_hash) == (block.height - 1, totals, root)
    assert world.app.account(key("new")).balance == 0
    world.app.commit()
    assert world.app.app_hash == result.app_hash
    proof = world.app.prove(keys.account(key("new")))
    assert proof.value is not None
    assert verify(proof, result.app_hash)
    assert not verify(proof, root)


def test_the_same_blocks_give_the_same_state() -> None:
    """Run, run again from genesis, and run after a restore in the middle."""
    world = World()
    blocks: list[BlockInput] = []
    finalize = world.app.finalize_block

    def recording(block: BlockInput):  # type: ignore[no-untyped-def]
        blocks.append(block)
        return finalize(block)

    world.app.finalize_block = recording  # type: ignore[method-assign]
    world.fund("client")
    world.provider("node", "other")
    deal = world.deal("client", shards=2, periods=2)
    world.block(step=1)
    for index in range(2):
        holder = next(name for name in ("node", "other") if key(name) == world.shard(deal, index).provider)
        world.do(holder, Accept(deal, index))
    world.pass_time(4 * PARAMS.period_s)
    again = Application(genesis(PARAMS))
    for block in blocks:
        if block.height == len(blocks) // 2:
            again = Application(genesis(PARAMS), memory_store(again.items()))
        again.finalize_block(block)
        again.commit()
    assert again.app_hash == world.app.app_hash
    assert dict(again.items()) == world.stored


def test_cost_of_a_block_does_not_grow_with_the_deals(monkeypatch: pytest.MonkeyPatch) -> None:
    """Counted in state reads, which do not depend on the machine."""
    world = World()
    world.fund("client", amount=100_000 * HOLD)
    world.provider("node")
    counted = [0]
    get = MemoryRows.get

    def counting(self: MemoryRows, name: bytes) -> bytes | None:
        counted[0] += 1
        return get(self, name)

    monkeypatch.setattr(MemoryRows, "get", counting)

    def reads() -> int:
        counted[0] = 0
        tx = world.tx("client", Transfer(key("node"), HOLD))
        world.app.finalize_block(
            BlockInput(world.app.height + 1, world.now + 1, key("operator"), (world.beacon(), tx))
        )
        found = counted[0]
        world.app.abort()
        return found

    few = reads()
    for _ in range(30):
        world.deal("client", providers=("node",), blocks=1)
    assert reads() <= few + 2


def test_a_fee_grows_with_the_size_and_a_proof_costs_the_same_at_any() -> None:
    world = World()
    world.fund("ann")
    world.provider("node")
    small = world.tx("ann", Transfer(key("node"), 1))
    large = world.tx("ann", world.deal_body([Piece.random(world.rng, 1) for _ in range(14)]))
    for raw, body in ((small, Transfer(key("node"), 1)), (large, decode(large).body)):
        least = PARAMS.base_fee + PARAMS.fee_per_kib * -(-len(raw) // 1_024)
        assert decode(raw).fee == least
        assert fee_of(body, CHAIN, PARAMS) == least
        assert world.app.check_tx(world.tx("ann", body, fee=least - 1)).code is Code.FEE_TOO_LOW
        assert world.try_("ann", body, fee=least - 1).code is Code.FEE_TOO_LOW
        assert world.try_("ann", body).ok
    assert len(large) > 2 * 1_024 > 1_024 > len(small)
    short, long = (Prove(bytes(32), 1, bytes(size)) for size in (10, 100_000))
    assert fee_of(short, CHAIN, PARAMS) == fee_of(long, CHAIN, PARAMS) == PARAMS.proof_fee


def test_the_least_fee_covers_the_bytes_that_it_takes_itself() -> None:
    """At every length of an envelope around a KiB, the fee's own digits included."""
    params = replace(PARAMS, base_fee=1, fee_per_kib=HOLD)
    sizes = set()
    for chars in range(700, 800):
        body = Register("http://" + "n" * chars, 1, key("ann"), HOLD)
        made = with_least_fee(Transaction(CHAIN, key("ann"), 0, 0, FAR_S, body), params)
        size = len(sign(made, signer("ann")).encode())
        assert made.fee == 1 + HOLD * -(-size // 1_024)
        sizes.add(size)
    assert min(sizes) < 1_000
    assert max(sizes) > 1_040


def test_32_half_of_a_proposed_block_is_kept_for_proofs(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World()
    world.fund("ann")
    raws = [world.tx("ann", Transfer(key("node"), HOLD), nonce=nonce) for nonce in range(4)]
    monkeypatch.setattr(limits, "MAX_BLOCK_BYTES", 2 * sum(map(len, raws[:3])))

    def verdict(*txs: bytes) -> Code:
        block = BlockInput(world.app.height + 1, world.now, key("operator"), (world.beacon(), *txs))
        return world.app.process_proposal(block).code

    assert world.propose(raws, max_bytes=10**9) == raws[:3]
    assert verdict(*raws[:3]) is Code.OK
    assert verdict(*raws[:3], world.tx("ann", Prove(bytes(32), 1, bytes(9)), nonce=3)) is Code.UNKNOWN_DATASET
    assert verdict(*raws) is Code.TOO_LARGE


def test_a_beacon_that_was_checked_ahead_is_not_verified_again(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World()
    verified: list[int] = []
    real = bls.verify

    def verify(public_key: bytes, message: bytes, signature: bytes) -> bool:
        verified.append(1)
        return real(public_key, message, signature)

    monkeypatch.setattr(bls, "verify", verify)
    signature = beacon_signer().sign(world.app.beacon_transaction_message(1))
    value = world.app.beacon_check(key("operator"))(signature)
    given = BlockInput(1, START_S, key("operator"), (Beacon(CHAIN, 1, signature).encode(),))
    for _ in range(2):
        world.app.finalize_block(given)
        world.app.abort()
    assert len(verified) == 1
    world.app.finalize_block(given)
    world.app.commit()
    assert world.app.beacon == value

    with pytest.raises(InvalidBlock):
        world.app.beacon_check(key("stranger"))
    for _ in range(2):  # what does not verify is not remembered as if it did
        with pytest.raises(InvalidBeacon):
            world.app.beacon_check(key("operator"))(signature)
        with pytest.raises(InvalidBlock):
            world.app.finalize_block(
                BlockInput(2, START_S, key("operator"), (Beacon(CHAIN, 2, signature).encode(),))
            )
    assert len(verified) == 5
