"""Random transactions and time: after every block the money adds up and the stored state restores."""

from __future__ import annotations

import os
from typing import Any, ClassVar

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from ledger.genesis import HOLD, Params
from ledger.records import Phase, ShardStatus
from ledger.records_governance import ProposalStatus
from ledger.result import Code
from ledger.rules_datasets import dataset_of
from ledger.rules_providers import takes
from ledger.transactions import (
    Accept,
    Answer,
    Ask,
    Body,
    DeclareFault,
    EndDeal,
    GiveUp,
    HandOver,
    Propose,
    Prove,
    Register,
    Renew,
    Settle,
    Spot,
    Stay,
    TopUp,
    Transfer,
    Vote,
    Withdraw,
)
from merkledag.cid import CID
from tests.ledger.naive.spots import challenge
from tests.ledger.naive.twin import TwinWorld
from tests.ledger.world import GIB, Piece, answer, key

PEOPLE = ("ann", "bob", "cy")
PARAMS = Params(
    period_s=8,
    window_s=4,
    accept_timeout_s=6,
    max_rounds=3,
    min_stake=HOLD,
    grace_periods=2,
    retention_periods=4,
    max_step_s=20,
    proposal_deposit=HOLD,
    vote_s=12,
    timelock_s=6,
)
CHANGES = (
    {"period_s": 12, "window_s": 5},
    {"fault_fee_percent": 50, "terminate_after": 1},
    {"vote_s": 5, "max_rounds": 1, "retention_periods": 1},
    {"window_s": 6},  # with a period of 8 it is no proposal, with one of 12 it is
)
WHO = st.sampled_from(PEOPLE)
PICK = st.integers(0, 7)
SHARE = st.integers(0, 120)


class Ledger(RuleBasedStateMachine):
    """Three people who transfer, keep, prove or neglect each other's pieces."""

    world_of: ClassVar[type[TwinWorld]] = TwinWorld

    @initialize()
    def begin(self) -> None:
        self.world = self.world_of(PARAMS)
        self.world.fund(*PEOPLE, amount=500 * HOLD)
        self.world.provider(*PEOPLE[:2])
        deal, _ = self.world.active("cy", "ann", periods=6, price=10**6)
        self.deals = [deal]
        self.world.do("ann", Propose(CHANGES[1], 0, ""))

    def send(self, name: str, body: Body, step: int = 0) -> bool:
        return self.world.block(self.world.tx(name, body), step=step).tx_results[1].ok

    @rule(name=WHO, to=st.sampled_from((*PEOPLE, "new")), percent=SHARE)
    def transfer(self, name: str, to: str, percent: int) -> None:
        self.send(name, Transfer(key(to), self.world.balance(name) * percent // 100))

    @rule(name=WHO, stake=SHARE, capacity=st.sampled_from((1, 4_000, GIB)))
    def register(self, name: str, stake: int, capacity: int) -> None:
        self.send(name, Register("http://x.example", capacity, key(name), stake * HOLD))

    @rule(name=WHO, is_open=st.booleans(), price=st.sampled_from((0, 10**9, 10**13)))
    def ask(self, name: str, is_open: bool, price: int) -> None:
        self.send(name, Ask(price, 0, GIB, is_open))

    @rule(name=WHO, percent=SHARE)
    def withdraw(self, name: str, percent: int) -> None:
        found = self.world.app.provider(key(name))
        self.send(name, Withdraw((found.unlocked if found else 5) * percent // 100))

    @rule(
        name=WHO,
        shards=st.integers(1, 3),
        periods=st.integers(1, 6),
        price=st.sampled_from((4_200, 10**6, HOLD)),
        named=st.booleans(),
    )
    def deal(self, name: str, shards: int, periods: int, price: int, named: bool) -> None:
        if self.world.balance(name) < 20 * HOLD:
            return
        some = self.world.app.providers()[:shards]
        names = [each for record in some for each in PEOPLE if key(each) == record.account]
        chosen = names if named and len(names) == shards else []
        pieces = [Piece.random(self.world.rng, 1) for _ in range(shards)]
        body = self.world.deal_body(pieces, periods=periods, price=price, providers=chosen)
        result = self.world.try_(name, body)
        if chosen and not all(
            takes(record, piece.commitment, price) for record, piece in zip(some, pieces, strict=True)
        ):
            assert result.code is Code.TERMS_NOT_TAKEN
            return
        assert result.ok
        assert result.tx_id is not None
        self.deals.append(result.tx_id)
        self.world.pieces |= {(result.tx_id, index): piece for index, piece in enumerate(pieces)}

    @rule(step=st.integers(0, 3))
    def accept_all(self, step: int) -> None:
        self.world.block(step=step)
        for deal, index, shard in self.shards():
            asked = shard.successor or (shard.provider if shard.status.is_offered else b"")
            if asked:
                self.send(self.name_of(asked), Accept(deal, index))

    @rule(name=WHO, step=st.integers(1, 4))
    def prove_all(self, name: str, step: int) -> None:
        """One provider proves what it can, a little later."""
        self.world.pass_time(step)
        for info in self.world.app.datasets(provider=key(name)):
            if info.challenge is not None and not info.record.proven:
                body = self.world.proof(info.id)
                if self.world.app.time <= info.closes_at:
                    assert self.send(name, body)
                assert not self.send(name, body)
            else:
                assert not self.send(name, Prove(info.id, info.record.period, b"\xa0"))

    @rule(name=WHO)
    def settle_all(self, name: str) -> None:
        for deal, index, shard in self.shards():
            if shard.status is ShardStatus.ACTIVE:
                self.send(name, Settle(deal, index))

    @rule(pick=PICK, periods=st.integers(1, 3))
    def renew(self, pick: int, periods: int) -> None:
        for deal, _, _ in self.one(pick):
            self.send(self.client_of(deal), Renew(deal, periods))

    @rule(pick=PICK)
    def end_deal(self, pick: int) -> None:
        for deal, _, _ in self.one(pick):
            self.send(self.client_of(deal), EndDeal(deal))

    @rule(name=WHO, pick=PICK, amount=st.sampled_from((1, HOLD)))
    def top_up(self, name: str, pick: int, amount: int) -> None:
        waiting = [each for each in self.shards() if each[2].status is ShardStatus.REPAIR]
        for deal, index, _ in waiting[pick : pick + 1]:
            self.send(name, TopUp(deal, index, amount))

    @rule(pick=PICK, form=st.sampled_from((GiveUp, HandOver, Stay)))
    def leave(self, pick: int, form: type[GiveUp | HandOver | Stay]) -> None:
        for deal, index, shard in self.one(pick):
            if shard.provider:
                self.send(self.name_of(shard.provider), form(deal, index))

    @rule(pick=PICK)
    def declare(self, pick: int) -> None:
        for info in self.world.app.datasets()[pick : pick + 1]:
            self.send(self.name_of(info.record.provider), DeclareFault(info.id, info.record.period))

    @rule(name=WHO, pick=PICK)
    def spot(self, name: str, pick: int) -> None:
        for deal, index, _ in self.one(pick):
            self.send(name, Spot(deal, index))

    @rule(name=WHO)
    def answer_all(self, name: str) -> None:
        """One provider answers what it is asked; a wrong answer and a second one are refused."""
        for found in self.world.app.spots(key(name)):
            place = (found.deal, found.shard)
            assert not self.send(name, Answer(*place, b"\xa0"))
            asked = self.world.app.spot(*place)
            if asked is not None and asked.seed and self.world.app.time <= asked.closes_at:
                proof = answer(challenge(self.world.plain, place), {0: self.world.pieces[place]})
                assert self.send(name, Answer(*place, proof))
                assert not self.send(name, Answer(*place, proof))

    @rule(name=WHO, changes=st.sampled_from(CHANGES))
    def propose(self, name: str, changes: dict[str, int]) -> None:
        self.send(name, Propose(changes, 0, ""))

    @rule(name=WHO, approve=st.sampled_from((True, True, False)))
    def vote_on_all(self, name: str, approve: bool) -> None:
        for info in self.world.app.proposals():
            self.send(name, Vote(info.id, approve))
            assert not self.send(name, Vote(info.id, approve))

    @rule(seconds=st.integers(1, 20))
    def pass_time(self, seconds: int) -> None:
        self.world.pass_time(seconds)

    @rule(seconds=st.integers(1, 60))
    def sleep(self, seconds: int) -> None:
        self.world.block(step=seconds)

    @rule()
    def abort(self) -> None:
        """A block that is not kept leaves no trace."""
        from ledger.application import BlockInput

        before = self.world.app.app_hash
        raw = self.world.tx("operator", Transfer(key("ann"), HOLD))
        height = self.world.app.height + 1
        block = BlockInput(height, self.world.now + 5, key("operator"), (self.world.beacon(), raw))
        self.world.app.finalize_block(block)
        self.world.app.abort()
        assert self.world.app.app_hash == before
        assert dict(self.world.app.items()) == self.world.stored

    def shards(self) -> list[tuple[CID, int, Any]]:
        return [
            (info.id, index, shard)
            for info in self.world.app.deals(active=True)
            for index, shard in enumerate(info.shards)
        ]

    def one(self, pick: int) -> list[tuple[CID, int, Any]]:
        """A list of one open shard; of none if there is none."""
        every = self.shards()
        return [every[pick % len(every)]] if every else []

    def client_of(self, deal: CID) -> str:
        info = self.world.app.deal(deal)
        assert info is not None
        return self.name_of(info.record.client)

    def name_of(self, account: bytes) -> str:
        return next(name for name in PEOPLE if key(name) == account)

    def expected(self, dataset: bytes) -> int:
        """How many shards will join a dataset once they are handed over."""
        count = 0
        for deal, _, shard in self.shards():
            found = self.world.app.deal(deal)
            if shard.successor_accepted and found is not None:
                count += dataset_of(found.record, shard.successor) == dataset
        return count

    def check_votes(self) -> None:
        """Votes sum to what is counted, and each is by stake that is bound; one open proposal an account."""
        app = self.world.app
        ongoing = [info for info in app.proposals() if info.record.status is ProposalStatus.OPEN]
        assert len({info.record.proposer for info in ongoing}) == len(ongoing)
        for info in ongoing:
            votes = [(name, found) for name in PEOPLE if (found := app.vote_of(info.id, key(name)))]
            cast = {
                flag: sum(each.weight for _, each in votes if each.approve is flag) for flag in (True, False)
            }
            assert (info.record.yes, info.record.no) == (cast[True], cast[False])
            assert info.record.yes + info.record.no <= info.record.total
            for name, _ in votes:
                voter = app.provider(key(name))
                assert voter is not None
                assert voter.bound_until >= info.record.closes_at

    @invariant()
    def restores(self) -> None:
        """Every block was audited when it was made; here the rest that must always hold."""
        self.world.check_restores()
        app = self.world.app
        assert app.has_live_deals() is bool(app.deals(active=True))
        for info in app.datasets():
            record, slots = info.record, app.dataset_slots(info.id)
            joined = [slot for slot in slots if slot.slot is not None]
            assert len(joined) == record.pieces
            assert len(slots) - len(joined) == record.joining
            assert record.expected == self.expected(info.id)
            deals = [found for slot in joined if (found := app.deal(slot.deal))]
            pieces = [deal.shards[slot.shard].piece for deal, slot in zip(deals, joined, strict=True)]
            assert sum(piece.data_leaves for piece in pieces) == record.data_leaves
            assert sum(piece.meta_leaves for piece in pieces) == record.meta_leaves
            assert slots or record.expected or record.phase is Phase.TURNING
            assert sum(deal.record.price for deal in deals) == record.price_total
        self.check_votes()
        for deal, index, shard in self.shards():
            found = app.deal(deal)
            assert found is not None
            assert found.record.holders[index] == shard.provider
            assert found.record.successors[index] == shard.successor
            if shard.status.is_closed:
                assert shard.escrow == shard.reward == shard.bounty == shard.collateral == 0
            else:
                assert shard.paid + shard.escrow == found.record.price * found.record.periods
            assert bool(shard.next_collateral) == shard.successor_accepted


TestLedger = Ledger.TestCase
TestLedger.settings = settings(
    max_examples=10 * int(os.environ.get("HOLDFAST_NAIVE_TIMES", "1")),
    stateful_step_count=25,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
