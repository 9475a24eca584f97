"""Strategies against the ledger, played with the real state machine, real proofs and signed transactions.

A strategy and its honest baseline run in two worlds that are equal but for it. What it gains is what its
side owns at the end (balances and stakes, everything closed), less what the baseline's side owns. Time is
simulated, every block audited.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from ledger.application import Application
from ledger.fees import small_fee
from ledger.fields import specs
from ledger.genesis import Params
from ledger.records import Phase, ShardStatus
from ledger.rules_providers import price_floor
from ledger.rules_spot import challenge_of
from ledger.transactions import (
    Accept,
    Answer,
    Ask,
    DeclareFault,
    EndDeal,
    GiveUp,
    HandOver,
    Register,
    Spot,
    TopUp,
    Transfer,
)
from ledger.views_datasets import DatasetInfo
from merkledag.cid import CID
from proofs.challenge import detection
from tests.ledger.world import GIB, World, all_of, answer, genesis, key

# Seconds decide nothing here but how many blocks a period takes. The others come from all of their bounds.
CLOCK = {"period_s": 40, "window_s": 20, "max_step_s": 300, "accept_timeout_s": 15, "retention_periods": 1}
IN_TIME = {"vote_s", "timelock_s", "proposal_deposit"}  # what no deal meets
ISSUED = 9 * 10**18
PURSE = 3 * 10**17
MAX_STEPS = 5_000

Proves = Callable[[DatasetInfo], bool]


def always(_: DatasetInfo) -> bool:
    return True


def draw_params(rng: random.Random) -> Params:
    """Parameters from the whole of their bounds: a third at the low end, a third at the high one."""
    while True:
        values = {}
        for name, spec in specs(Params):
            assert spec.bounds is not None
            low, high = spec.bounds
            among = round((low + 1) * ((high + 1) / (low + 1)) ** rng.random()) - 1
            values[name] = CLOCK.get(name, rng.choice([low, high, max(low, min(high, among))]))
        values["fault_limit"] = min(values["fault_limit"], values["fault_window"])
        if values["period_s"] >= 2 * values["window_s"]:
            return Params(**values).check()


@dataclass
class Play(World):
    """A ledger with a client, a stranger and providers that have all the money they need."""

    price: int = 0
    joined: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.app = Application(genesis(self.params, ISSUED))
        self.stored = dict(self.app.items())
        for name in ("client", "eve", "a", "b"):
            self.do("operator", Transfer(key(name), PURSE))

    def join(self, *names: str, stake: int = PURSE // 3) -> None:
        """Providers that take anything."""
        for name in names:
            self.do(name, Register(f"http://{name}.example", GIB, key(name), stake))
            self.do(name, Ask(0, 0, GIB, True))
        self.joined |= set(names)

    def owns(self, *names: str) -> int:
        """Balances and stakes."""
        stakes = [found.stake for name in names if (found := self.app.provider(key(name)))]
        return sum(map(self.balance, names)) + sum(stakes)

    def accept(self) -> None:
        """Everyone takes what is offered."""
        names = {key(name): name for name in self.joined}
        for deal in {deal for deal, _ in self.pieces}:
            info = self.app.deal(deal)
            for index, shard in enumerate(info.shards if info else ()):
                if shard.status.is_offered and shard.provider in names and shard.expires_at:
                    self.try_(names[shard.provider], Accept(deal, index))
                if shard.successor in names and not shard.successor_accepted and shard.expires_at:
                    self.try_(names[shard.successor], Accept(deal, index))

    def live(self, proves: Proves = always, act: Callable[[], None] = lambda: None) -> None:
        """Goes on, one due instant after the other, until every deal is over; `act` comes after each."""
        names = {key(name): name for name in self.joined}
        for _ in range(MAX_STEPS):
            if not self.app.has_live_deals():
                return
            self.accept()
            for info in self.app.datasets():
                if info.challenge is not None and not info.record.proven and proves(info):
                    self.do(names[info.record.provider], self.proof(info.id))
            act()
            due = self.app.next_due()
            assert due is not None
            self.block(step=min(due - self.app.time, self.params.max_step_s))
        raise AssertionError("a deal that never ends")

    def proven(self) -> int:
        """Shard-periods of the first deal that were paid."""
        return self.summed("paid", "amount") // self.price

    def summed(self, kind: str, attribute: str) -> int:
        """The sum of an attribute over all events of a kind."""
        return sum(amount for each in all_of(self.events, kind) if isinstance(amount := each[attribute], int))


@dataclass(frozen=True)
class Outcome:
    """What a strategy gained against its baseline, and at most, by its formula."""

    name: str
    gain: int
    most: int
    price: int

    @property
    def holds(self) -> bool:
        """Whether it lost, and at least as much as is claimed."""
        return self.gain <= self.most and self.most < 0


@dataclass
class Case:
    """One set of parameters, and the terms of the deal that is played under it."""

    params: Params
    seed: int
    rng: random.Random = field(init=False)
    periods: int = field(init=False)
    price: int = field(init=False)

    def __post_init__(self) -> None:
        self.rng = random.Random(self.seed)
        self.periods = self.rng.choice([4, 6, 9])
        floor = price_floor(self.params, self.periods)
        self.price = self.rng.choice([floor, floor + self.rng.randrange(10**9), 10**12])

    @property
    def fee(self) -> int:
        return small_fee(self.params)

    @property
    def net(self) -> int:
        """What a proven period leaves of the price."""
        return self.price - self.params.proof_fee

    def world(self, *providers: str) -> Play:
        made = Play(self.params, price=self.price, rng=random.Random(self.seed))
        made.join(*providers)
        return made

    def deal(self, world: Play, provider: str = "a", *, blocks: int = 2) -> CID:
        """A deal for a named provider, which has accepted it."""
        deal = world.deal(
            "client", providers=(provider,), periods=self.periods, price=self.price, blocks=blocks
        )
        world.do(provider, Accept(deal, 0))
        return deal

    def outcome(self, name: str, gain: int, most: int) -> Outcome:
        return Outcome(name, gain, most, self.price)

    # The strategies.

    def drop_leaves(self) -> Outcome:
        """Keep some leaves only, and prove when none of the others is drawn.

        On the ledger each period without a proof costs at least what it would have left.
        """
        gain, unproven, _ = self.dropped(self.rng.choice([0.02, 0.3, 1.0]), blocks=12)
        if not unproven:  # got away with it: that it was likely not to is another claim
            return self.outcome("drop leaves", gain - self.net, -self.net)
        return self.outcome("drop leaves", gain, -unproven * self.net)

    def dropped(self, share: float, blocks: int) -> tuple[int, int, float]:
        """What dropping a share of the leaves gained, unpaid periods, the odds of being caught in one."""
        honest, cheat = self.world("a"), self.world("a")
        deal = self.deal(honest, blocks=blocks)
        self.deal(cheat, blocks=blocks)
        leaves = honest.pieces[deal, 0].data.root.sum
        lost = set(self.rng.sample(range(leaves), max(1, round(share * leaves))))

        def can(info: DatasetInfo) -> bool:
            assert info.challenge is not None
            return lost.isdisjoint(info.challenge.data_leaves())

        honest.live()
        cheat.live(can)
        caught = detection(leaves, len(lost), self.params.challenges)
        return cheat.owns("a") - honest.owns("a"), honest.proven() - cheat.proven(), caught

    def be_both(self) -> Outcome:
        """Client and provider in one hand, against doing nothing: all fees are burned, nothing is made."""
        world = self.world("a")
        before = world.owns("client", "a")
        self.deal(world)
        world.live()
        most = -2 * self.fee - self.periods * self.params.proof_fee
        return self.outcome("deal with oneself", world.owns("client", "a") - before, most)

    def repair_oneself(self) -> Outcome:
        """Be terminated; an accomplice, the only other provider, takes the reward and their own bounty."""
        honest, cheat = self.world("a", "b"), self.world("a", "b")
        self.deal(honest)
        deal = self.deal(cheat)

        def top_up() -> None:
            shard = cheat.shard(deal)
            if shard.status is ShardStatus.REPAIR and not shard.bounty:
                cheat.do("a", TopUp(deal, 0, self.price))

        honest.live()
        cheat.live(lambda info: info.record.provider == key("b"), top_up)
        # A bounty for a repair that nobody makes is the client's.
        most = -(honest.proven() - cheat.proven()) * self.net
        return self.outcome("repair oneself", cheat.owns("a", "b") - honest.owns("a", "b"), most)

    def give_up(self) -> Outcome:
        """Give up what was lost, and let an accomplice repair it."""
        honest, cheat = self.world("a", "b"), self.world("a", "b")
        self.deal(honest)
        deal = self.deal(cheat)
        fee = self.price * self.params.fault_fee_percent // 200

        def act() -> None:
            shard = cheat.shard(deal)
            if shard.status is ShardStatus.ACTIVE and shard.provider == key("a") and not shard.giving_up:
                cheat.do("a", GiveUp(deal, 0))

        honest.live()
        cheat.live(act=act)
        unproven = honest.proven() - cheat.proven()
        gain = cheat.owns("a", "b") - honest.owns("a", "b")
        return self.outcome("give up", gain, -unproven * self.net - self.fee - fee)

    def take_holidays(self) -> Outcome:
        """Declare the fault of every other period."""
        honest, cheat = self.world("a"), self.world("a")
        self.deal(honest)
        self.deal(cheat)

        def act() -> None:
            for info in cheat.app.datasets():
                if (
                    info.record.phase is Phase.WAITING
                    and info.record.period % 2
                    and cheat.app.time < info.opens_at
                ):
                    cheat.do("a", DeclareFault(info.id, info.record.period))

        honest.live()
        cheat.live(act=act)
        unproven = honest.proven() - cheat.proven()
        most = -unproven * self.net - self.fee * len(all_of(cheat.events, "fault_declared"))
        return self.outcome("take holidays", cheat.owns("a") - honest.owns("a"), most)

    def hand_to_and_fro(self) -> Outcome:
        """Two providers in one hand pass a shard back and forth."""
        honest, cheat = self.world("a", "b"), self.world("a", "b")
        self.deal(honest)
        deal = self.deal(cheat)

        def act() -> None:
            shard = cheat.shard(deal)
            if shard.status is ShardStatus.ACTIVE and not shard.handing_over:
                cheat.try_("a" if shard.provider == key("a") else "b", HandOver(deal, 0))

        honest.live()
        cheat.live(act=act)
        started = len(all_of(cheat.events, "handover_started"))
        over = len(all_of(cheat.events, "shard_handed_over"))
        most = -(honest.proven() - cheat.proven()) * self.net - (started + over) * self.fee
        return self.outcome("hand to and fro", cheat.owns("a", "b") - honest.owns("a", "b"), most)

    def keep_nothing(self) -> Outcome:
        """Accept without having the piece, against doing nothing: the fee and the collateral are lost."""
        world = self.world("a")
        before = world.owns("a")
        self.deal(world)
        world.live(lambda info: False)
        lost = world.summed("shard_terminated", "forfeited")
        return self.outcome("accept and keep nothing", world.owns("a") - before, -self.fee - lost)

    def give_notice(self) -> Outcome:
        """A client ends its deal right after acceptance: it pays, and the provider has its fees back."""
        world = self.world("a")
        before, provider = world.owns("client"), world.owns("a")
        deal = self.deal(world)
        world.do("client", EndDeal(deal))
        world.live()
        missing = min(0, world.owns("a") - provider)
        most = -2 * self.fee - self.params.proof_fee
        return self.outcome("notice at once", world.owns("client") - before - missing, most)

    def knock_out(self) -> Outcome:
        """A client keeps its node from proving: it has its own money back, never more than it put in."""
        world = self.world("a")
        before = world.owns("client")
        self.deal(world)
        world.live(lambda info: False)
        return self.outcome("knock a node out", world.owns("client") - before, -self.fee)

    def call(self) -> Outcome:
        """A stranger's spot challenges: answered, they cost it both fees and the provider nothing."""
        world = self.world("a")
        deal = self.deal(world)
        world.pass_until(world.dataset(world.shard(deal).dataset).closes_at + 1)
        stranger, provider = world.owns("eve"), world.owns("a")
        world.do("eve", Spot(deal, 0))
        world.block()
        world.do("a", self.answer(world, deal))
        harm = world.owns("a") - provider
        gain = world.owns("eve") - stranger
        return self.outcome("spot challenges", gain - min(0, harm), -self.fee - self.params.proof_fee)

    def call_absent(self) -> Outcome:
        """A stranger calls a node that is away: the call costs it its fee, and brings it nothing."""
        world = self.world("a")
        deal = self.deal(world)
        world.pass_until(world.dataset(world.shard(deal).dataset).closes_at + 1)
        before = world.owns("eve")
        world.do("eve", Spot(deal, 0))
        world.live(lambda info: False)
        return self.outcome("call who is away", world.owns("eve") - before, -self.fee)

    def answer(self, world: Play, deal: CID) -> Answer:
        """What the open spot challenge of the deal's shard asks for."""
        info, record = world.app.deal(deal), world.app.spot(deal, 0)
        assert info is not None
        assert record is not None
        asked = challenge_of(info.record, info.shards[0], record, self.params)
        return Answer(deal, 0, answer(asked, {0: world.pieces[deal, 0]}))


STRATEGIES: tuple[Callable[[Case], Outcome], ...] = (
    Case.drop_leaves,
    Case.be_both,
    Case.repair_oneself,
    Case.give_up,
    Case.take_holidays,
    Case.hand_to_and_fro,
    Case.keep_nothing,
    Case.give_notice,
    Case.knock_out,
    Case.call,
    Case.call_absent,
)


def corners() -> list[Params]:
    """Each parameter of a deal's money at each end of its bounds, the others as by default; then all."""
    base = replace(Params(), **CLOCK)
    found = [base]
    lows, highs = {}, {}
    for name, spec in specs(Params):
        assert spec.bounds is not None
        if name in CLOCK or name in IN_TIME:
            continue
        lows[name], highs[name] = spec.bounds
        for value in spec.bounds:
            changed = {name: value}
            if name == "fault_window":
                changed["fault_limit"] = min(base.fault_limit, value)
            if name == "fault_limit":
                changed["fault_window"] = max(base.fault_window, value)
            found.append(replace(base, **changed).check())
    return [*found, replace(base, **lows).check(), replace(base, **highs).check()]
