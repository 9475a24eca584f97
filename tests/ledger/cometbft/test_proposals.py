"""Proposals: what a proposer chose is what the block does, and what no honest proposer makes is refused."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from ledger import limits, transactions
from ledger.application import Application, BlockInput, BlockResult
from ledger.context import Context
from ledger.errors import InvalidBlock
from ledger.genesis import HOLD
from ledger.result import Code, TxResult
from ledger.transactions import Beacon, Transfer
from proofs.bls.signatures import BlsSigner
from tests.ledger.world import CHAIN, START_S, World, key, kinds, signer

SEED = 20_261


def block_of(world: World, *txs: bytes, step: int = 0) -> BlockInput:
    """The next block, with its beacon."""
    return BlockInput(world.app.height + 1, world.now + step, key("operator"), (world.beacon(), *txs))


def watch_runs(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """What is run from now on, in its order."""
    runs: list[bytes] = []
    plain = Application._run_tx

    def run_tx(app: Application, ctx: Context, raw: bytes) -> TxResult:
        runs.append(raw)
        return plain(app, ctx, raw)

    monkeypatch.setattr(Application, "_run_tx", run_tx)
    return runs


def decide(world: World, block: BlockInput) -> None:
    """Commits a block that was run, keeping the world's books."""
    world.now = block.block_time_s
    for name, value in world.app.finalize_block(block).writes.state.items():
        if value is None:
            del world.stored[name]
        else:
            world.stored[name] = value
    world.app.commit()


def candidates(world: World, rng: random.Random) -> list[bytes]:
    """What may lie in a mempool: what passes, what fails, gaps, doubles, garbage, another's beacon."""
    found: list[bytes] = []
    for name in ("ann", "bob", "cy"):
        first = world.app.account(key(name)).nonce
        for nonce in range(first, first + rng.randrange(6)):
            amount = rng.choice([1, HOLD, 10**9 * HOLD])
            target = key(rng.choice(["ann", "bob", "new" + str(rng.random())]))
            found.append(world.tx(name, Transfer(target, amount), nonce=nonce + (rng.random() < 0.1)))
    found += rng.choices(found, k=2) if found else []
    found += [rng.randbytes(rng.randrange(80)), world.beacon()]
    if rng.random() < 0.5:
        rng.shuffle(found)
    return found


def test_what_was_chosen_is_what_a_fresh_application_makes_of_the_block() -> None:
    rng = random.Random(SEED)
    world = World()
    world.fund("ann", "bob", "cy")
    chosen_in_all = 0
    for _ in range(25):
        offered = candidates(world, rng)
        step = rng.randrange(4)
        given_block = block_of(world, *offered, step=step)
        size, places = rng.choice([(400, 99), (10**6, 3), (10**6, 99)])
        chosen = world.app.prepare_proposal(given_block, max_bytes=size, max_txs=places)
        assert sum(map(len, chosen)) <= size
        assert len(chosen) <= places
        positions = iter(offered)
        assert all(raw in positions for raw in chosen)  # in their order
        chosen_in_all += len(chosen)
        block = block_of(world, *chosen, step=step)
        fresh = world.restored()
        assert fresh.process_proposal(block).ok
        assert fresh.finalize_block(block) == world.app.finalize_block(block)
        assert world.restored().finalize_block(block) == world.app.finalize_block(block)
        decide(world, block)
    assert chosen_in_all > 25


class ProposingWorld(World):
    """Has every block proposed before it is made, with what does not pass among it."""

    proposals = 0

    def block(self, *txs: bytes, step: int = 0) -> BlockResult:
        offered = (self.tx("client", Transfer(key("bob"), 10**9 * HOLD)), *txs, b"noise")
        chosen = self.app.prepare_proposal(block_of(self, *offered, step=step), max_bytes=10**6, max_txs=99)
        block = block_of(self, *chosen, step=step)
        assert self.restored().process_proposal(block).ok
        assert self.restored().finalize_block(block) == self.app.finalize_block(block)
        self.app.abort()
        self.proposals += 1
        return super().block(*txs, step=step)


def test_proposals_of_a_life_of_deals_and_proofs_are_what_a_fresh_application_makes_of_them() -> None:
    world = ProposingWorld()
    world.fund("client")
    world.provider("node", "other")
    _, proven = world.active("client", "node", periods=6, blocks=4)
    world.active("client", "other", periods=3, blocks=4)  # which proves nothing
    for _ in range(3):
        window = world.open_window(proven)
        world.do("node", world.proof(proven))
        world.pass_until(window.closes_at + 1)
    world.pass_time(200)
    found = kinds(world.events)
    assert {"proof_accepted", "fault", "deal_ended"} <= set(found), sorted(set(found))
    assert world.proposals > 20


def test_a_proposal_is_run_once_and_another_block_is_run_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World()
    world.fund("ann")
    txs = [world.tx("ann", Transfer(key("bob"), HOLD + n), nonce=n) for n in range(3)]
    runs = watch_runs(monkeypatch)
    first, second = block_of(world, *txs[:2]), block_of(world, *txs)
    assert world.app.prepare_proposal(second, max_bytes=10**6, max_txs=2) == txs[:2]
    assert world.app.process_proposal(first).ok  # of its own
    proposed = world.app.finalize_block(first)
    assert runs == txs[:2]
    assert world.app.finalize_block(first) is proposed  # CometBFT came back and asks again
    decided = world.app.finalize_block(second)
    assert runs == [*txs[:2], *txs]
    assert decided == world.restored().finalize_block(second)
    decide(world, second)
    assert world.app.account(key("ann")).nonce == 3


def test_what_was_proposed_only_leaves_no_trace() -> None:
    world = World()
    world.fund("ann")
    tx = world.tx("ann", Transfer(key("bob"), HOLD))
    too_much = world.tx("ann", Transfer(key("bob"), 10**9 * HOLD), nonce=1)
    root = world.app.app_hash
    assert world.app.prepare_proposal(block_of(world, tx), max_bytes=10**6, max_txs=9) == [tx]
    assert world.app.process_proposal(block_of(world, tx)).ok
    assert not world.app.process_proposal(block_of(world, tx, too_much)).ok
    assert world.app.process_proposal(block_of(world, tx, step=3)).ok
    with pytest.raises(AssertionError, match="proposed only"):
        world.app.commit()
    assert world.app.app_hash == root
    assert world.app.account(key("bob")).balance == 0
    world.block(step=1)
    assert world.app.account(key("bob")).balance == 0
    assert world.restored().app_hash == world.app.app_hash


def test_proposals_that_break_a_rule_are_refused() -> None:
    world = World()
    world.fund("ann")
    tx = world.tx("ann", Transfer(key("bob"), HOLD))
    good = block_of(world, tx)
    head, height = good.txs[0], good.height
    other_key = BlsSigner.from_seed(bytes(range(32)))
    message = world.app.beacon_transaction_message(height)
    stolen = Beacon(CHAIN, height, other_key.sign(message)).encode()
    elsewhere = Beacon("another", height, signature_in(head)).encode()
    later = Beacon(CHAIN, height + 1, signature_in(head)).encode()
    poor = world.tx("ann", Transfer(key("bob"), 10**9 * HOLD))
    bent = replace(transactions.decode(tx), fee=9_999_999).encode()
    refused = {
        "no transactions": replace(good, txs=()),
        "no beacon": replace(good, txs=(tx,)),
        "beacon last": replace(good, txs=(tx, head)),
        "two beacons": replace(good, txs=(head, head)),
        "another key's beacon": replace(good, txs=(stolen, tx)),
        "another chain's beacon": replace(good, txs=(elsewhere, tx)),
        "a later block's beacon": replace(good, txs=(later, tx)),
        "no signature": replace(good, txs=(Beacon(CHAIN, height, bytes(96)).encode(), tx)),
        "a proposer without a key": replace(good, proposer=key("ann")),
        "another height": replace(good, height=height + 1),
        "time before the last block's": replace(good, block_time_s=START_S - 1),
        "a time that is none": replace(good, block_time_s=-1),
        "a time out of range": replace(good, block_time_s=2**62),
        "the same transaction twice": replace(good, txs=(head, tx, tx)),
        "a nonce too early": replace(good, txs=(head, world.tx("ann", Transfer(key("b"), HOLD), nonce=1))),
        "one that fails": replace(good, txs=(head, poor)),
        "one that fails after one that passes": replace(good, txs=(head, tx, replaced_nonce(poor))),
        "a signature of something else": replace(good, txs=(head, bent)),
        "bytes": replace(good, txs=(head, b"bytes")),
        "nothing": replace(good, txs=(head, b"")),
        "trailing bytes": replace(good, txs=(head, tx + b"\x00")),
        "too many": replace(good, txs=(head, *[b""] * limits.MAX_BLOCK_TXS)),
        "too large": replace(good, txs=(head, bytes(limits.MAX_BLOCK_BYTES))),
    }
    for name, block in refused.items():
        assert not world.app.process_proposal(block).ok, name
    assert world.app.process_proposal(good).ok
    assert world.app.finalize_block(good).tx_results[1].ok


def signature_in(head: bytes) -> bytes:
    """The signature of a beacon transaction."""
    return transactions.decode_beacon(head).beacon


def replaced_nonce(raw: bytes) -> bytes:
    """The same with the next nonce."""
    tx = transactions.decode(raw)
    return transactions.sign(replace(tx, nonce=tx.nonce + 1), signer("ann")).encode()


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.binary(max_size=200), max_size=5), st.booleans(), st.data())
def test_no_bytes_make_it_stumble(
    one_world: World, txs: list[bytes], has_head: bool, data: st.DataObject
) -> None:
    """Random bytes, and a beacon or transaction with some of them changed."""
    world = one_world
    right = world.tx("ann", Transfer(key("bob"), HOLD)) if has_head else world.beacon()
    good = bytearray(right)
    for _ in range(data.draw(st.integers(1, 4))):
        good[data.draw(st.integers(0, len(good) - 1))] ^= data.draw(st.integers(1, 255))
    assume(good != right)  # one change may undo another one
    heads = (world.beacon(), bytes(good)) if has_head else (bytes(good),)
    block = BlockInput(world.app.height + 1, world.now, key("operator"), (*heads, *txs))
    assert not world.app.process_proposal(block).ok
    offered = (world.beacon(), bytes(good), *txs)
    assert world.app.prepare_proposal(replace(block, txs=offered), max_bytes=10**6, max_txs=99) == []
    if not has_head:
        with pytest.raises(InvalidBlock):
            world.app.finalize_block(block)


@pytest.fixture(name="one_world")
def _one_world() -> World:
    world = World()
    world.fund("ann")
    return world


def test_a_transaction_is_verified_once_whatever_way_it_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World()
    world.fund("ann")
    seen = [world.tx("ann", Transfer(key("bob"), HOLD), nonce=n) for n in range(3)]
    unseen = [
        world.tx("operator", Transfer(key("bob"), HOLD), nonce=world.app.account(key("operator")).nonce)
    ]
    verified: list[transactions.Transaction] = []
    plain = transactions.verify

    def verify(tx: transactions.Transaction, unsigned: bytes) -> bool:
        verified.append(tx)
        return plain(tx, unsigned)

    monkeypatch.setattr(transactions, "verify", verify)
    for raw in seen:
        assert world.app.verify_signature(raw).ok
        assert world.app.is_verified(raw)
        assert world.app.check_tx(raw).ok
        assert world.app.recheck_tx(raw).ok
    assert not world.app.is_verified(unseen[0])
    block = block_of(world, *seen, *unseen)
    assert world.app.prepare_proposal(block, max_bytes=10**6, max_txs=99) == [*seen, *unseen]
    assert world.app.process_proposal(block_of(world, *seen[:1], *unseen)).ok
    world.app.finalize_block(block)
    world.app.commit()
    assert [world.app.check_tx(raw).code for raw in [*seen, *unseen]] == [Code.NONCE_USED] * 4
    assert len(verified) == 4


def test_others_may_have_all_the_room_that_no_proof_wants() -> None:
    world = World()
    world.fund("ann")
    txs = [world.tx("ann", Transfer(key("bob"), HOLD), nonce=n) for n in range(10)]
    assert world.propose(txs, max_txs=8) == txs[:8]
    assert world.propose(txs, max_bytes=len(txs[0]) * 8 + 8) == txs[:8]
    assert world.propose(txs, max_txs=0) == world.propose(txs, max_bytes=0) == []


def test_a_mempool_of_what_fails_takes_bounded_time(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World()
    world.fund("ann")
    poor = [world.tx("ann", Transfer(key("bob"), 10**9 * HOLD + n)) for n in range(40)]
    runs = watch_runs(monkeypatch)
    assert world.propose(poor, max_txs=10) == []
    assert runs == poor[:20]
    assert list(world.app.dropped) == poor[:20]


def test_32_no_flood_of_what_fails_keeps_a_proof_out(world: World) -> None:
    _, dataset = world.active("client", "node", periods=4, blocks=10)
    world.open_window(dataset)
    proof = world.tx("node", world.proof(dataset))
    poor = [world.tx("client", Transfer(key("bob"), 10**9 * HOLD + n)) for n in range(40)]
    assert world.propose([*poor, proof], max_txs=2) == [proof]


class Ticking:
    """A clock that moves on with each look at it: `looks` of them are a proposer's time."""

    def __init__(self, looks: int) -> None:
        self._now_ns, self._step_ns = 0, limits.MAX_PROPOSING_NS // looks

    def __call__(self) -> int:
        self._now_ns += self._step_ns
        return self._now_ns


def test_a_proposer_that_is_out_of_time_leaves_the_rest_to_later_blocks() -> None:
    world = World()
    world.fund("ann")
    offered = [world.tx("ann", Transfer(key("operator"), 1), nonce=nonce) for nonce in range(30)]
    taken: list[bytes] = []
    while left := [raw for raw in offered if raw not in taken]:
        clock = Ticking(looks=8)
        block = block_of(world, *left)
        chosen = world.app.prepare_proposal(block, max_bytes=10**6, max_txs=99, clock_ns=clock)
        assert chosen == left[:7]
        assert not world.app.dropped
        taken += chosen
        block = block_of(world, *chosen)
        assert world.restored().process_proposal(block).ok
        decide(world, block)
    assert world.app.account(key("ann")).nonce == 30


def test_half_of_a_proposers_time_is_for_proofs(world: World) -> None:
    _, dataset = world.active("client", "node", periods=9)
    world.open_window(dataset)
    world.fund("ann")
    dear = [world.tx("ann", Transfer(key("operator"), 1), nonce=nonce) for nonce in range(30)]
    proof = world.tx("node", world.proof(dataset))

    def chosen(*offered: bytes) -> list[bytes]:
        clock, block = Ticking(looks=40), block_of(world, *offered)
        return world.app.prepare_proposal(block, max_bytes=10**6, max_txs=99, clock_ns=clock)

    assert chosen(*dear, proof) == [*dear[:19], proof]
    assert chosen(*dear) == dear
