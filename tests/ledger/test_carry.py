"""A chain that goes on from another one's end: whose money, deals and time it has, and what is void."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ledger import money
from ledger.application import Application, BlockInput, BlockResult
from ledger.carry import carried_items, check_origin, successor
from ledger.errors import CorruptState, InvalidGenesis
from ledger.genesis import HOLD, Genesis, GenesisValidator
from ledger.genesis_state import genesis_items
from ledger.ingest import memory_store
from ledger.records import Phase, ShardStatus
from ledger.result import Code
from ledger.rules_spot import challenge_of
from ledger.store import MemoryStore
from ledger.transactions import Accept, Answer, Beacon, Body, Spot, Transaction, Transfer, sign
from merkledag.cid import CID
from proofs.beacon.seeds import past_period
from proofs.bls.signatures import BlsSigner
from tests.ledger.test_past_seeds import Header
from tests.ledger.world import FAR_S, FEE, Piece, World, answer, key, kinds, last, seed, signer

NEW = "new-chain"
TIP = CID.of(b"the last block", codec=0x71)


def bls() -> BlsSigner:
    return BlsSigner.from_seed(seed("new beacon"))


def ended(world: World) -> MemoryStore:
    """The state that a world ended with."""
    return memory_store(world.app.items())


def next_genesis(world: World, validators: tuple[GenesisValidator, ...] = ()) -> Genesis:
    made = bls()
    keys = key("steward"), made.public_key, made.prove_possession()
    return successor(NEW, TIP, ended(world).state, world.app.app_hash, *keys, validators)


class Moved(World):
    """A world that goes on from another one, on a new chain of another operator."""

    def __init__(self, before: World, validators: tuple[GenesisValidator, ...] = ()) -> None:
        super().__init__(before.params)
        self.genesis = next_genesis(before, validators)
        rows = ended(before).state
        check_origin(self.genesis, rows, before.app.app_hash, TIP)
        self.app = Application(self.genesis, memory_store(carried_items(self.genesis, rows)))
        self.now, self.pieces = before.now, before.pieces
        self.stored = dict(self.app.items())
        money.audit(self.app.items())

    def block(self, *txs: bytes, step: int = 0) -> BlockResult:
        self.now += step
        head = self.app.height + 1, self.now, key("steward")
        result = self.app.finalize_block(BlockInput(*head, (self.beacon(), *txs)))
        self.app.commit()
        self.events += result.events
        self.check_journal(result)
        money.audit(self.app.items())
        return result

    def beacon(self) -> bytes:
        height = self.app.height + 1
        message = self.app.beacon_transaction_message(height)
        return Beacon(NEW, height, bls().sign(message)).encode()

    def tx(
        self, name: str, body: Body, *, nonce: int | None = None, fee: int | None = None, expiry: int = FAR_S
    ) -> bytes:
        nonce = self.app.account(key(name)).nonce if nonce is None else nonce
        return sign(
            Transaction(NEW, key(name), nonce, 10 * FEE if fee is None else fee, expiry, body), signer(name)
        ).encode()


def test_balances_nonces_stakes_deals_time_and_beacon_pass_over() -> None:
    old = World()
    old.fund("client")
    old.provider("node")
    deal, dataset = old.active("client", "node", periods=4)
    old.prove("node", dataset)
    new = Moved(old)
    assert (new.app.height, new.app.chain_id) == (0, NEW)
    assert (new.app.time, new.app.beacon, new.app.params) == (old.app.time, old.app.beacon, old.app.params)
    for name in ("operator", "client", "node"):
        assert new.app.account(key(name)) == old.app.account(key(name))
    assert new.app.totals() == old.app.totals()
    assert new.shard(deal) == old.shard(deal)
    new.pass_until(new.dataset(dataset).closes_at + 1)
    assert new.settle("node", deal) == 100_000  # what was proven on the old chain is paid on the new one
    new.prove("node", dataset)
    new.pass_until(new.dataset(dataset).closes_at + 1)
    assert new.settle("node", deal) == 100_000
    new.pass_until(new.shard(deal).ends_at + 2 * new.params.period_s)
    info = new.app.deal(deal)
    assert info is None or info.record.ended_at


def test_an_open_window_is_void_and_nobodys_fault() -> None:
    old = World()
    old.fund("client")
    old.provider("node")
    deal, dataset = old.active("client", "node")
    info = old.open_window(dataset)
    stake = old.app.provider(key("node"))
    new = Moved(old)
    assert new.dataset(dataset).record.phase is Phase.VOID
    new.pass_until(info.closes_at + 1)
    record = new.dataset(dataset).record
    assert (record.fault_total, record.proven_total) == (0, 0)
    assert new.app.provider(key("node")) == stake
    new.prove("node", dataset)
    new.pass_until(new.dataset(dataset).closes_at + 1)
    assert new.settle("node", deal) == 100_000


def test_a_window_without_a_seed_gets_it_from_the_new_chains_second_beacon() -> None:
    old = World()
    old.fund("client")
    old.provider("node")
    deal, dataset = old.active("client", "node")
    info = old.dataset(dataset)
    old.pass_until(info.opens_at - 1)
    old.block(step=1)
    assert old.dataset(dataset).record.phase is Phase.OPENING
    new = Moved(old)
    headers = []
    for _ in range(2):
        new.block()
        headers.append(Header(new.app.height, new.app.time, new.app.beacon))
    record = new.dataset(dataset).record
    assert past_period(
        NEW, dataset, key("node"), record.period, info.opens_at, new.params.window_s, headers
    ) == (2, record.seed)
    new.do("node", new.proof(dataset))
    new.pass_until(info.closes_at + 1)
    assert new.settle("node", deal) == 100_000


def test_a_shard_that_waits_for_the_draw_is_drawn_by_the_new_chains_beacon() -> None:
    old = World()
    old.fund("client")
    old.provider("node")
    for _ in range(5):
        old.block()
    body = old.deal_body([Piece.random(old.rng)])
    deal = old.do("client", body)
    new = Moved(old)
    new.block()
    assert new.shard(deal).status is ShardStatus.OFFERED
    assert new.shard(deal).provider == key("node")
    new.do("node", Accept(deal, 0))


@pytest.mark.parametrize("drawn", [False, True])
def test_an_open_spot_challenge_is_drawn_anew(drawn: bool) -> None:
    old = World()
    old.fund("client")
    old.provider("node")
    deal, _ = old.active("client", "node")
    old.do("client", Spot(deal, 0))
    if drawn:
        old.block(step=1)
    new = Moved(old)
    new.block(step=1)
    opened = last(new.events, "spot_opened")
    assert opened["closes_at"] == new.app.time + new.params.window_s
    info, record = new.app.deal(deal), new.app.spot(deal, 0)
    assert info is not None
    assert record is not None
    challenge = challenge_of(info.record, info.shards[0], record, new.params)
    piece = new.pieces[deal, 0]
    new.do("node", Answer(deal, 0, answer(challenge, {0: piece})))
    assert kinds(new.events).count("spot_answered") == 1
    new.pass_time(2 * new.params.window_s)
    assert "spot_missed" not in kinds(new.events)
    assert new.shard(deal).missed == 0


def test_what_was_signed_for_the_old_chain_is_void() -> None:
    old = World()
    old.fund("client")
    new = Moved(old)
    nonce = new.app.account(key("client")).nonce
    stale = old.tx("client", Transfer(key("operator"), HOLD))
    assert new.block(stale).tx_results[1].code is Code.WRONG_CHAIN
    assert new.app.account(key("client")).nonce == nonce
    new.do("client", Transfer(key("operator"), HOLD))


def test_the_genesis_fixes_what_it_goes_on_from() -> None:
    old = World()
    old.fund("client")
    rows, app_hash = ended(old).state, old.app.app_hash
    genesis = next_genesis(old)
    check_origin(genesis, rows, app_hash, TIP)
    assert Genesis.loads(genesis.dumps()) == genesis
    assert Genesis.decode(genesis.encode()) == genesis
    for wrong in (
        replace(genesis, beacon=bytes(32)),
        replace(genesis, issued=genesis.issued + 1),
        replace(genesis, time_s=genesis.time_s + 1),
        replace(genesis, params=replace(genesis.params, base_fee=1)),
        replace(genesis, origin=None),
    ):
        with pytest.raises(CorruptState):
            check_origin(wrong, rows, app_hash, TIP)
    with pytest.raises(CorruptState):
        check_origin(genesis, rows, bytes(32), TIP)
    with pytest.raises(InvalidGenesis, match="a name of its own"):
        replace(genesis, chain_id=old.app.chain_id).validated()
    with pytest.raises(InvalidGenesis, match="import it"):
        genesis_items(genesis)
