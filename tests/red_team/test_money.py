"""Money under attack: neither chance, amounts, missed windows nor clocks mint or lock a unit."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass, field, replace

import pytest

from ledger import keys, limits
from ledger.genesis import HOLD, Params
from ledger.records import DatasetRecord, Phase, ProviderRecord, ShardStatus
from ledger.result import Code
from ledger.transactions import Accept, Ask, Body, Register, Settle, Transfer, Withdraw, decode
from merkledag.cid import CID
from tests.ledger.world import FEE, GIB, PARAMS, START_S, Piece, World, all_of, key, last

PARTIES = ("alice", "both", "north", "south", "west")
HUGE = limits.MAX_UINT
PRICE = 100_000


@dataclass
class Turmoil:
    """Random transactions of everybody, valid and not, over blocks with jumping clocks."""

    seed: int
    rng: random.Random = field(init=False)
    world: World = field(init=False)
    deals: list[CID] = field(default_factory=list)
    codes: Counter[Code] = field(default_factory=Counter)
    batch: list[bytes] = field(default_factory=list)
    sent: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        rng = self.rng = random.Random(self.seed)
        period_s = rng.choice([2, 4, 10, 40])
        self.world = World(
            Params(
                period_s=period_s,
                window_s=rng.randint(1, period_s // 2),
                max_step_s=rng.choice([3, 30, 300]),
                accept_timeout_s=rng.choice([1, 5, 15, 60]),
                min_stake=rng.choice([0, 1_000, HOLD]),
                collateral_periods=rng.choice([1, 2, 20]),
                fault_fee_percent=rng.choice([0, 100, 500]),
                grace_periods=rng.choice([1, 3, 30]),
                terminate_after=rng.choice([1, 2, 3]),
                repair_reward_periods=rng.choice([0, 1, 10, 1_000]),
                max_rounds=rng.choice([1, 2, 4]),
                retention_periods=rng.choice([1, 3]),
                challenges=rng.choice([1, 3, 30]),
                deposit=rng.choice([1, HOLD // 1_000]),
            ),
            rng=rng,
        )
        self.lazy = {name: rng.choice([0.0, 0.1, 0.5, 1.0]) for name in PARTIES}
        self.world.fund(*PARTIES, amount=rng.choice([5 * HOLD, 1_000 * HOLD]))
        for name in PARTIES[1:]:
            stake = self.world.params.min_stake + rng.choice([10, 5_000_000, 2 * HOLD])
            self.world.try_(name, Register("http://a.example", rng.choice([10_000, GIB]), key(name), stake))
            self.world.try_(name, Ask(rng.choice([0, 1_000]), 0, GIB, True))

    def send(self, name: str, body: Body, fee: int | None = None) -> bytes:
        nonce = self.world.app.account(key(name)).nonce + self.sent[name]
        raw = self.world.tx(name, body, nonce=nonce, fee=fee)
        self.sent[name] += 1
        self.batch.append(raw)
        return raw

    def someone(self, account: bytes) -> str:
        return next(name for name in PARTIES if key(name) == account)

    def make_deal(self, name: str) -> None:
        rng = self.rng
        pieces = [Piece.random(rng, 1, 3_000, rng.randint(0, 1)) for _ in range(rng.randint(1, 3))]
        named = rng.sample(PARTIES[1:], len(pieces)) if rng.random() < 0.5 else []
        price = rng.choice([2_000, 2_001, PRICE, HOLD // 10, HOLD, 2**62, HUGE])
        body = self.world.deal_body(pieces, periods=rng.choice([1, 1, 2, 3, 8]), price=price, providers=named)
        deal = decode(self.send(name, body)).id
        self.world.pieces |= {(deal, index): piece for index, piece in enumerate(pieces)}
        self.deals.append(deal)

    def mischief(self, name: str) -> None:
        rng, world = self.rng, self.world
        balance = world.balance(name)
        provider = world.app.provider(key(name))
        stake = provider.stake if provider else 1
        match rng.randrange(5):
            case 0:
                self.make_deal(name)
            case 1:
                amount = rng.choice([1, HOLD, HUGE, balance])
                self.send(name, Transfer(key(rng.choice(PARTIES)), amount), rng.choice([None, HUGE, balance]))
            case 2:
                payout = key(rng.choice([name, "cold"]))
                capacity = rng.choice([0, 10_000, GIB, HUGE])
                self.send(
                    name, Register("http://a.example", capacity, payout, rng.choice([0, 1, HOLD, balance]))
                )
            case 3:
                self.send(
                    name, Ask(rng.choice([0, 1, HUGE]), 0, rng.choice([0, GIB, HUGE]), rng.random() < 0.9)
                )
            case 4:
                self.send(name, Withdraw(rng.choice([1, HOLD, stake])))

    def duties(self) -> None:
        """Most accept what they are offered and prove what is open; settling is anybody's."""
        rng, app = self.rng, self.world.app
        for deal in self.deals[-20:]:
            info = app.deal(deal)
            for index, shard in enumerate(info.shards if info else ()):
                offered = shard.status in (ShardStatus.OFFERED, ShardStatus.REPAIR)
                if shard.provider and offered and rng.random() < 0.6:
                    self.send(self.someone(shard.provider), Accept(deal, index))
                if rng.random() < 0.1:
                    self.send(rng.choice(PARTIES), Settle(deal, index))
        for name, _ in list(app.items()):
            info_ = app.dataset(name[len(keys.DATASET) :]) if name.startswith(keys.DATASET) else None
            if info_ is None or info_.record.phase is not Phase.OPEN or info_.record.proven:
                continue
            provider = self.someone(info_.record.provider)
            if rng.random() >= self.lazy[provider]:
                self.send(provider, self.world.proof(name[len(keys.DATASET) :]))

    def turn(self) -> None:
        """One block; `World.block` audits all money after it."""
        rng, world = self.rng, self.world
        self.batch, self.sent = [], Counter()
        for _ in range(rng.randint(0, 4)):
            self.mischief(rng.choice(PARTIES))
        self.duties()
        if rng.random() < 0.1:
            rng.shuffle(self.batch)
        due = world.app.next_due()
        step = rng.choice([0, 0, 1, 2, 5, 30, 400])
        if due is not None and rng.random() < 0.6:
            step = max(0, min(due - world.app.time, world.params.max_step_s))
        self.codes.update(one.code for one in world.block(*self.batch, step=step).tx_results)

    def run_down(self) -> None:
        """Nobody does anything any more: every deal must come to its end by itself."""
        world = self.world
        for _ in range(4_000):
            due = world.app.next_due()
            if due is None:
                return
            world.block(step=max(0, min(due - world.app.time, world.params.max_step_s)))
        raise AssertionError("deals that never end")


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("due_per_block", [limits.MAX_DUE_PER_BLOCK, 3])
def test_no_turmoil_mints_or_locks_money(
    seed: int, due_per_block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Red team 10, 11, 12, 17 and 19: whatever is sent, whenever, money adds up and comes free again."""
    monkeypatch.setattr(limits, "MAX_DUE_PER_BLOCK", due_per_block)
    turmoil = Turmoil(100 * seed + due_per_block)
    world = turmoil.world
    for _ in range(40):
        turmoil.turn()
    assert turmoil.codes[Code.OK] > 40
    world.check_restores()
    turmoil.run_down()
    assert not world.app.has_live_deals()
    deposits = 0
    for name, raw in world.app.items():
        assert not name.startswith(
            (keys.DEAL, keys.SHARD, keys.DUE, keys.DRAW, keys.SLOT, keys.JOIN, keys.END)
        )
        if name.startswith(keys.DATASET):
            dataset = DatasetRecord.decode(raw)
            deposits += dataset.deposit
            assert (dataset.phase, dataset.pieces, dataset.price_total) == (Phase.IDLE, 0, 0)
        if name.startswith(keys.PROVIDER):
            provider = ProviderRecord.decode(raw)
            deposits += provider.deposit
            assert (provider.locked, provider.used_bytes) == (0, 0)
    assert world.app.totals().escrow == deposits
    for name_ in PARTIES[1:]:
        found = world.app.provider(key(name_))
        if found is not None and found.stake and world.balance(name_) >= world.params.base_fee:
            world.do(name_, Withdraw(found.stake))
    world.check_restores()


def test_a_self_deal_costs_its_fees_and_the_faults() -> None:
    """Red team 19: client and node in one hand get back all but the fees and what was burned."""
    world = World()
    world.provider("both")
    provider = world.app.provider(key("both"))
    assert provider is not None
    before, burned = world.balance("both") + provider.stake, world.app.totals().burned
    deal = world.deal("both", periods=4, price=PRICE, providers=("both",))
    world.do("both", Accept(deal, 0))
    dataset = world.shard(deal).dataset
    world.prove("both", dataset)
    world.pass_time(PARAMS.period_s * (12 + PARAMS.retention_periods))
    after = world.app.provider(key("both"))
    assert after is not None
    lost = before - world.balance("both") - after.stake
    assert lost == world.app.totals().burned - burned


def test_a_self_repair_is_a_loss() -> None:
    """Red team 19: who drops a shard and repairs it under another name loses half the forfeit."""
    world = World()
    world.fund("client")
    world.provider("first", "second")
    rich = sum(map(world.balance, ("first", "second")))
    deal, dataset = world.active("client", "first", periods=14, price=PRICE)
    for _ in range(PARAMS.terminate_after):
        world.open_window(dataset)
        world.pass_until(world.dataset(dataset).closes_at + 1)
    while world.shard(deal).provider != key("second"):
        world.pass_time(1)
    world.do("second", Accept(deal, 0))
    other = world.shard(deal).dataset
    world.prove("second", other)
    world.settle("second", deal)
    reward = last(world.events, "paid")["reward"]
    forfeited = last(world.events, "shard_terminated")["forfeited"]
    assert isinstance(reward, int)
    assert isinstance(forfeited, int)
    assert 0 < reward < forfeited
    assert sum(map(world.balance, ("first", "second"))) < rich + reward + PRICE


@pytest.mark.parametrize("late", [False, True])
def test_one_period_is_paid_once_however_late_the_ledger_is(late: bool) -> None:
    """Red team 10 and 32: one period, settled twice, its end reached on time or in one jump."""
    world = World(replace(PARAMS, max_step_s=300))
    world.fund("client")
    world.provider("node")
    client = world.balance("client")
    deal, dataset = world.active("client", "node", periods=1, price=PRICE)
    world.prove("node", dataset)
    assert world.settle("node", deal) == PRICE
    world.refuses("node", Settle(deal, 0), Code.NOTHING_DUE)
    closes_at = world.dataset(dataset).closes_at
    if late:
        world.block(step=300)
    else:
        world.pass_until(closes_at + 1)
    assert world.shard(deal).status is ShardStatus.ENDED
    world.refuses("node", Settle(deal, 0), Code.NOTHING_DUE)
    assert world.balance("client") == client - PRICE - FEE
    assert sum(int(str(paid["amount"])) for paid in all_of(world.events, "paid")) == PRICE


def test_two_deals_in_one_dataset_are_paid_and_ended_apart() -> None:
    """Red team 10 and 17: a piece that joins, and one that leaves, changes nothing of the other's pay."""
    world = World()
    world.fund("client")
    world.provider("node")
    short, dataset = world.active("client", "node", periods=1, price=PRICE)
    long = world.deal("client", periods=3, price=3 * PRICE, providers=("node",))
    world.do("node", Accept(long, 0))
    for _ in range(4):
        world.prove("node", dataset)
    world.pass_until(world.dataset(dataset).closes_at + 1)
    paid = Counter[object]()
    for event in all_of(world.events, "paid"):
        paid[event["deal"]] += int(str(event["amount"]))
    assert (paid[short], paid[long]) == (PRICE, 9 * PRICE)
    assert world.app.dataset(dataset) is None


def test_what_no_balance_covers_is_refused_without_a_trace() -> None:
    """Red team 11 and 12: fees, transfers, stakes and escrows beyond the balance, up to 2⁶³ − 1."""
    world = World()
    world.fund("client", amount=HOLD)
    piece = Piece.random(world.rng)
    world.refuses("client", Transfer(key("x"), HUGE), Code.INSUFFICIENT_FUNDS)
    world.refuses("client", Register("http://a.example", 1, key("client"), HUGE), Code.INSUFFICIENT_FUNDS)
    for price, periods in ((HUGE, 1), (HUGE, 1 << 20), (HOLD, 1), (HOLD // 2, 2)):
        body = world.deal_body([piece], price=price, periods=periods)
        world.refuses("client", body, Code.INSUFFICIENT_FUNDS)
    for fee in (HOLD + 1, HUGE):
        result = world.try_("client", Transfer(key("x"), 10_000), fee=fee)
        assert result.code is Code.FEE_NOT_COVERED
    assert world.balance("client") == HOLD
    assert world.app.time == START_S
