"""People who do right and wrong at random, from a seed: what they send, and how time passes."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass, field, replace
from typing import Any

from ledger.genesis import HOLD, Params
from ledger.records import ShardStatus
from ledger.result import Code
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
    Resign,
    Settle,
    Spot,
    Stay,
    TopUp,
    Transfer,
    Vote,
    Withdraw,
    decode,
)
from merkledag.cid import CID
from proofs.kinds import ProofKind
from tests.ledger.naive import candidates
from tests.ledger.naive.spots import challenge
from tests.ledger.naive.twin import TwinWorld
from tests.ledger.world import GIB, Piece, answer, key

PEOPLE = ("ann", "bob", "cy", "dee", "eve", "flo")
HUGE = 2**63 - 1


def random_params(rng: random.Random) -> Params:
    """Parameters with which much happens in few blocks."""
    period_s = rng.choice([4, 10, 40])
    return Params(
        period_s=period_s,
        window_s=rng.randint(1, period_s // 2),
        max_step_s=rng.choice([3, 30]),
        accept_timeout_s=rng.choice([1, 5, 15]),
        max_rounds=rng.choice([1, 2, 4]),
        min_stake=rng.choice([0, 1_000, HOLD]),
        collateral_periods=rng.choice([1, 2, 20]),
        fault_fee_percent=rng.choice([0, 33, 100, 500]),
        grace_periods=rng.choice([1, 3, 30]),
        terminate_after=rng.choice([1, 2, 3]),
        repair_reward_periods=rng.choice([0, 1, 10, 1_000]),
        retention_periods=rng.choice([1, 3]),
        renewal_periods=rng.choice([4, 12, 365]),
        fault_limit=rng.choice([1, 2, 3]),
        fault_window=rng.choice([3, 6, 32]),
        challenges=rng.choice([1, 3]),
        deposit=rng.choice([1, HOLD // 1_000]),
        proposal_deposit=rng.choice([0, HOLD // 100]),
        vote_s=rng.choice([2, 10, 40]),
        timelock_s=rng.choice([1, 10]),
        unbonding_s=rng.choice([1, 20, 200]),
        misbehaviour_percent=rng.choice([0, 5, 100]),
    )


@dataclass
class Crowd:
    """`step` makes one block of what these people send; both ledgers of `world` must agree on it."""

    seed: int
    params: Params | None = None
    rng: random.Random = field(init=False)
    world: TwinWorld = field(init=False)
    deals: list[CID] = field(default_factory=list)
    proposals: list[CID] = field(default_factory=list)
    codes: Counter[tuple[str, Code]] = field(default_factory=Counter)
    seen: Counter[str] = field(default_factory=Counter)
    batch: list[bytes] = field(default_factory=list)
    nonces: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        rng = self.rng = random.Random(self.seed)
        self.world = TwinWorld(self.params or random_params(rng), rng=rng)
        self.world.fund(*PEOPLE, amount=rng.choice([5 * HOLD, *[1_000 * HOLD] * 3]))
        self.lazy = {name: rng.choice([0.0, 0.0, 0.0, 0.1, 0.4, 1.0]) for name in PEOPLE}
        for name in PEOPLE[2:]:
            stake = self.world.params.min_stake + rng.choice([10, 5_000_000, 2 * HOLD, 2 * HOLD])
            payout = key(rng.choice([name, "purse"]))
            self.send(name, Register("http://a.example", rng.choice([10_000, GIB, GIB]), payout, stake))
            self.send(name, Ask(rng.choice([0, 0, 1_000]), 0, GIB, True))
        self.flush(0)

    def send(self, name: str, body: Body, **how: int) -> bytes:
        """Puts a transaction into the next block."""
        nonce = self.world.app.account(key(name)).nonce + self.nonces[name]
        raw = self.world.tx(name, body, **{"nonce": nonce, **how})
        self.nonces[name] += 1
        self.batch.append(raw)
        return raw

    def flush(self, step: int) -> None:
        """One block of what was sent."""
        batch, self.batch, self.nonces = self.batch, [], Counter()
        result = self.world.block(*batch, step=step)
        self.seen.update(event.kind for event in result.events)
        for raw, done in zip(batch, result.tx_results[1:], strict=True):
            kind = decode(raw).body.kind if done.code not in (Code.MALFORMED, Code.TOO_LARGE) else "none"
            self.codes[kind, done.code] += 1

    def name_of(self, account: bytes) -> str:
        return next(name for name in PEOPLE if key(name) == account)

    # What they send.

    def transfer(self, name: str) -> None:
        balance = self.world.balance(name)
        to = key(self.rng.choice([*PEOPLE, f"new {self.rng.randrange(9)}"]))
        to = self.rng.choice([to, to, to, key(name), bytes(32)])
        self.send(name, Transfer(to, self.rng.choice([0, 1, 10_000, HOLD // 7, balance, balance + 1, HUGE])))

    def envelope(self, name: str) -> None:
        """Something is wrong with the envelope."""
        rng, world = self.rng, self.world
        nonce = world.app.account(key(name)).nonce + self.nonces[name]
        how = rng.choice(
            [
                {"fee": 0},
                {"fee": HUGE},
                {"expiry": world.app.time - rng.randint(-1, 1)},
                {"nonce": nonce + 1},
                {"nonce": max(0, nonce - 1)},
            ]
        )
        raw = self.send(name, Transfer(key(rng.choice(PEOPLE)), 1), **how)
        tx = decode(raw)
        forged = [raw, raw[:-1], raw + b"\0", replace(tx, chain="other").encode()]
        self.batch[-1] = rng.choice([raw, raw, *forged, replace(tx, sig=bytes(64)).encode()])

    def register(self, name: str) -> None:
        rng = self.rng
        endpoint = rng.choice(
            ["http://b.example", "https://c", "ftp://d", "http://", "http://é", "http://a b"]
        )
        payout = rng.choice([key(name), key("purse"), key(rng.choice(PEOPLE)), bytes(32)])
        stake = rng.choice([0, 1, 1_000, HOLD, self.world.balance(name)])
        self.send(name, Register(endpoint, rng.choice([0, 10_000, GIB, HUGE]), payout, stake))

    def ask(self, name: str) -> None:
        rng = self.rng
        least, most = rng.choice([(0, GIB), (0, GIB), (0, GIB), (0, 0), (5_000, GIB), (2, 1), (0, HUGE)])
        self.send(name, Ask(rng.choice([0, 1, 10**9, HUGE]), least, most, rng.random() < 0.9))

    def withdraw(self, name: str) -> None:
        found = self.world.app.provider(key(name))
        stake, free = (found.stake, found.unlocked) if found else (3, 1)
        exact = max(0, free - 100_000 * self.world.params.collateral_periods * self.rng.randint(1, 2))
        self.send(name, Withdraw(self.rng.choice([0, 1, free, free + 1, stake, stake + 1, exact, exact])))

    def deal(self, name: str) -> None:
        rng = self.rng
        kind = rng.choice([*[ProofKind.MERKLE] * 3, ProofKind.KZG])
        pieces = [self.piece(kind) for _ in range(rng.randint(1, 3))]
        named = rng.choices(PEOPLE[1:], k=len(pieces)) if rng.random() < 0.2 else []
        price = rng.choice(
            [2_000, 2_001, 2_110, 2_600, *[4_200, 100_000, 100_000] * 3, HOLD // 10, HOLD, 2**62, HUGE]
        )
        body = self.world.deal_body(
            pieces, k=1, periods=rng.choice([1, 2, 3, 4, 8, 20]), price=price, providers=named, proof=kind
        )
        if rng.random() < 0.15:
            wrong: list[dict[str, Any]] = [{"k": 9}, {"challenges": 65}, {"challenges": 0}, {"m": 9}]
            body = replace(body, **rng.choice(wrong))
        if rng.random() < 0.05:
            wrong = [{"meta_leaves": 0}, {"data_bytes": 1 << 30}, {"data_bytes": 100_000}]
            body = replace(body, pieces=(replace(body.pieces[0], **rng.choice(wrong)), *body.pieces[1:]))
        if rng.random() < 0.1:
            body = replace(body, k=2, m=len(pieces) + 1, replicated=True)
        deal = decode(self.send(name, body)).id
        self.world.pieces |= {(deal, index): piece for index, piece in enumerate(pieces)}
        self.deals.append(deal)

    def piece(self, kind: ProofKind) -> Piece:
        """KZG pieces are mostly zeros, whose proofs cost little to make."""
        rng = self.rng
        if kind is ProofKind.MERKLE or rng.random() < 0.05:
            return Piece.random(rng, 1, 3_000, rng.randint(0, 1), kind)
        blocks = [bytes(rng.randint(1, 300_000)) for _ in range(rng.randint(1, 2))]
        return Piece.of(blocks[:1], blocks[1:], kind)

    def some_shard(self) -> tuple[CID, int]:
        live = [deal for deal in self.deals if self.world.app.deal(deal)]
        if self.rng.random() < 0.1 or not live:
            return self.rng.choice([*self.deals, CID.of(b"none")]), 0
        deal = self.rng.choice(live)
        return deal, self.rng.choice([0, 0, 0, 1, 2, 3, 2**40])

    def wrong_accept(self, name: str) -> None:
        self.send(name, Accept(*self.some_shard()))

    def wrong_prove(self, name: str) -> None:
        sets = self.world.app.datasets()
        if not sets:
            return
        info = self.rng.choice(sets)
        dataset = self.rng.choice([info.id, info.id, info.id, bytes(32)])
        period = info.record.period + self.rng.choice([-1, 0, 0, 1])
        sender = self.rng.choice([name, self.name_of(info.record.provider)])
        self.send(sender, Prove(dataset, period, b"\xa0"))

    def settle(self, name: str) -> None:
        self.send(name, Settle(*self.some_shard()))

    def change(self, name: str) -> None:
        """Renewal, notice, bounty, handover, giving up: mostly by whom it concerns."""
        rng, app = self.rng, self.world.app
        deal, shard = self.some_shard()
        info = app.deal(deal)
        client = provider = name
        if info and rng.random() < 0.9:
            client = self.name_of(info.record.client)
            shard = rng.randrange(len(info.shards))
            provider = self.name_of(info.shards[shard].provider or key(name))
        match rng.randrange(13):
            case 0 | 1 | 2:
                self.send(client, Renew(deal, rng.choice([1, 1, 2, 2**20])))
            case 3:
                self.send(client, EndDeal(deal))
            case 4 | 5:
                self.send(name, TopUp(deal, shard, rng.choice([0, 1, HOLD // 9, HUGE])))
            case 6 | 7 | 8 | 9:
                self.send(provider, HandOver(deal, shard))
            case 10 | 11:
                self.send(provider, GiveUp(deal, shard))
            case _:
                leaving = [
                    each
                    for each, record in self.world.plain.shards.items()
                    if record["giving_up"] or record["handing_over"]
                ]
                place = rng.choice([(deal, shard), *leaving])
                record = self.world.plain.shards.get(place)
                staying = record["provider"] if record else b""
                self.send(self.name_of(staying) if staying and rng.random() < 0.9 else name, Stay(*place))

    def declare(self, name: str) -> None:
        sets = self.world.app.datasets()
        if sets:
            info = self.rng.choice(sets)
            sender = self.rng.choice([name, *[self.name_of(info.record.provider)] * 5])
            period = info.record.period + self.rng.choice([-1, 0, 0, 0, 0, 1])
            self.send(sender, DeclareFault(info.id, period))

    def propose(self, name: str) -> None:
        rng = self.rng
        period_s = rng.choice([4, 10, 30])
        changes = rng.choice(
            [
                {"period_s": period_s, "window_s": rng.randint(1, period_s // 2)},
                {"period_s": period_s},
                {"base_fee": rng.choice([1, 2_000]), "proof_fee": rng.choice([1, 3_000])},
                {"fault_fee_percent": rng.choice([0, 50, 501]), "terminate_after": 2},
                {"max_step_s": rng.choice([3, 30]), "deposit": rng.choice([1, 10**6])},
                {"accept_timeout_s": 3, "max_rounds": rng.choice([0, 1, 3]), "retention_periods": 2},
                {"vote_s": rng.choice([1, 5]), "collateral_periods": 3, "account_minimum": 5},
                {"challenges": rng.choice([1, 2, 65]), "meta_challenges": rng.choice([0, 1, 4])},
                {"nonsense": 1},
                {},
            ]
        )
        who = candidates.powers(rng, self.world, PEOPLE) if rng.random() < 0.5 else {}
        raw = self.send(name, Propose({} if who else changes, rng.choice([0, 0, 0, 0, 1]), "why not", who))
        self.proposals.append(decode(raw).id)

    def validate(self, name: str) -> None:
        who = self.rng.choice([name, name, "operator"])
        self.send(who, candidates.registration(self.rng, self.world, who))

    def resign(self, name: str) -> None:
        self.send(self.rng.choice([name, name, "operator"]), Resign())

    def vote(self, name: str) -> None:
        proposal = self.rng.choice([*self.proposals[-3:], CID.of(b"none")])
        self.send(name, Vote(proposal, self.rng.random() < 0.8))

    def spot(self, name: str) -> None:
        self.send(name, Spot(*self.some_shard()))

    def answer(self, name: str) -> None:
        """A wrong answer, or one from the wrong provider."""
        place = self.rng.choice([*self.world.plain.spots, self.some_shard()])
        info = self.world.app.deal(place[0])
        mine = info is not None and place[1] < len(info.shards) and info.shards[place[1]].provider
        self.send(self.name_of(mine) if mine else name, Answer(*place, b"\xa0"))

    # What they ought to do.

    def duties(self) -> None:
        """Most accept what they are offered and prove what is open."""
        rng, app = self.rng, self.world.app
        for deal in self.deals[-20:]:
            info = app.deal(deal)
            for index, shard in enumerate(info.shards if info else ()):
                offered = shard.status in (ShardStatus.OFFERED, ShardStatus.REPAIR)
                if shard.provider and offered and rng.random() < 0.85:
                    self.send(self.name_of(shard.provider), Accept(deal, index))
                if shard.successor and not shard.successor_accepted and rng.random() < 0.6:
                    self.send(self.name_of(shard.successor), Accept(deal, index))
                if rng.random() < 0.05:
                    self.send(rng.choice(PEOPLE), Settle(deal, index))
        for place, spot in self.world.plain.spots.items():
            provider = self.name_of(spot["provider"])
            if spot["seed"] and rng.random() >= self.lazy[provider]:
                proof = answer(challenge(self.world.plain, place), {0: self.world.pieces[place]})
                self.send(provider, Answer(*place, proof))
        for proposal, record in self.world.plain.proposals.items():
            for name in PEOPLE[2:]:
                voted = key(name) in self.world.plain.votes[proposal] and rng.random() < 0.95
                if record["status"] == "open" and not voted and rng.random() < 0.3:
                    self.send(name, Vote(proposal, rng.random() < 0.85))
        for info_ in app.datasets():
            if info_.challenge is None or info_.record.proven:
                continue
            provider = self.name_of(info_.record.provider)
            if rng.random() >= self.lazy[provider]:
                self.send(provider, self.world.proof(info_.id))

    def step(self) -> None:
        """One block."""
        rng, app = self.rng, self.world.app
        often = [*[self.change] * 8, *[self.deal] * 4, *[self.propose] * 3, *[self.spot] * 4]
        often += [*[self.declare] * 2, *[self.validate] * 3, self.resign]
        acts = [*often, self.transfer, self.envelope, self.register, self.ask, self.withdraw, self.settle]
        acts += [self.wrong_accept, self.wrong_prove, self.vote, self.answer]
        self.duties()
        done = bool(self.batch)
        for _ in range(rng.choice([0, 0, 1, 1, 2])):
            rng.choice(acts)(rng.choice(PEOPLE))
        if rng.random() < 0.1:
            rng.shuffle(self.batch)
        due = app.next_due()
        step = rng.choice([0, 0, 0, 1, 1, 2, 2, 5, 30, 400])
        if due is not None and rng.random() < 0.75:
            step = max(0, min(due - app.time, self.world.params.max_step_s))
        self.world.accused = candidates.accused(rng, self.world, PEOPLE)
        self.flush(0 if done and rng.random() < 0.8 else step)

    def take_deals(self, count: int) -> None:
        """Deals of both kinds of proof for named providers, which accept them."""
        for index in range(count):
            kind = list(ProofKind)[index % 2]
            name = PEOPLE[2 + self.rng.randrange(len(PEOPLE) - 2)]
            piece = self.piece(kind)
            body = self.world.deal_body([piece], periods=9, providers=[name], proof=kind)
            deal = decode(self.send("ann", body)).id
            self.world.pieces[deal, 0] = piece
            self.flush(0)
            self.send(name, Accept(deal, 0))
            self.deals.append(deal)
        self.flush(0)

    def prove_rightly_or_not(self) -> None:
        """One block: providers send what they should, or one proof that was changed or is another's."""
        rng, world = self.rng, self.world
        due: dict[str, list[Prove | Answer]] = {}
        for info in world.app.datasets():
            if info.challenge is not None and not info.record.proven:
                due.setdefault(self.name_of(info.record.provider), []).append(world.proof(info.id))
        for place, spot in world.plain.spots.items():
            if spot["seed"]:
                proof = answer(challenge(world.plain, place), {0: world.pieces[place]})
                due.setdefault(self.name_of(spot["provider"]), []).append(Answer(*place, proof))
        every = [body for bodies in due.values() for body in bodies]
        for name, bodies in due.items():
            if rng.random() < 0.6:
                for body in bodies:
                    self.send(name, body)
                continue
            spoiled = bytearray(rng.choice(every).proof)
            if rng.random() < 0.6:
                spoiled[-rng.randrange(min(100, len(spoiled))) - 1] ^= rng.randint(1, 255)
            self.send(name, replace(rng.choice(bodies), proof=bytes(spoiled)))
        self.flush(0)

    def run_down(self) -> None:
        """Nobody does anything any more: every deal comes to its end by itself."""
        app = self.world.app
        for _ in range(3_000):
            due = app.next_due()
            if due is None:
                return
            self.flush(max(0, min(due - app.time, self.world.params.max_step_s)))
        raise AssertionError("deals that never end")
