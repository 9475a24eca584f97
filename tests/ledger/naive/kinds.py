"""Each kind of transaction: all result codes that it earns, and, if it earns none, what it does."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from ledger import limits
from ledger.result import Code
from ledger.transactions import Accept, Ask, CreateDeal, Prove, Register, Settle, Transfer, Withdraw
from merkledag.cid import CID
from merkledag.ed25519 import is_usable_key
from tests.ledger.naive import offers, periods
from tests.ledger.naive.changes import declare_fault, end_deal, give_up, hand_over, renew, stay, top_up
from tests.ledger.naive.governance import propose, vote
from tests.ledger.naive.proofs import is_full, points, shows
from tests.ledger.naive.spots import answer, spot
from tests.ledger.naive.state import LOOKING, NOBODY, Plain, dataset_id
from tests.ledger.naive.validators import register_validator, resign

Does = Callable[[], None]


def transfer(s: Plain, sender: bytes, body: Transfer, _: CID) -> Iterator[Code | Does]:
    if body.amount == 0 or (body.to not in s.accounts and body.amount < s.params.account_minimum):
        yield Code.AMOUNT_OUT_OF_RANGE
    if not is_usable_key(body.to):
        yield Code.INVALID_TERMS
    if body.amount > s.balance(sender):
        yield Code.INSUFFICIENT_FUNDS

    def do() -> None:
        s.give(sender, -body.amount)
        s.give(body.to, body.amount)
        s.emit("transfer", from_=sender, to=body.to, amount=body.amount)

    yield do


def register(s: Plain, sender: bytes, body: Register, _: CID) -> Iterator[Code | Does]:
    known = s.providers.get(sender)
    scheme, _slashes, host = body.endpoint.partition("://")
    if scheme not in ("http", "https") or not host or not all("!" <= char <= "~" for char in body.endpoint):
        yield Code.INVALID_TERMS
    if not is_usable_key(body.payout):
        yield Code.INVALID_TERMS
    if known and known["payout"] != sender and known["payout"] != body.payout:
        yield Code.PAYOUT_FIXED
    if known is None and body.stake < s.params.min_stake:
        yield Code.INSUFFICIENT_STAKE
    deposit = 0 if known else s.params.deposit
    if body.stake + deposit > s.balance(sender):
        yield Code.INSUFFICIENT_FUNDS

    def do() -> None:
        if known is None:
            s.providers[sender] = {
                "account": sender,
                "used_bytes": 0,
                "stake": 0,
                "locked": 0,
                "deposit": deposit,
                "price_per_gib_period": 0,
                "min_piece_bytes": 0,
                "max_piece_bytes": 0,
                "open": False,
                "registered_at": s.time,
                **dict.fromkeys(("proven_total", "fault_total", "terminated_total", "served"), 0),
                **dict.fromkeys(("stake_mark", "proposed", "bound_until"), 0),
            }
        record = s.providers[sender]
        record.update(payout=body.payout, endpoint=body.endpoint, capacity_bytes=body.capacity_bytes)
        s.stake(sender, body.stake)
        s.give(sender, -body.stake - deposit)
        s.emit("provider_registered", provider=sender, stake=record["stake"])

    yield do


def ask(s: Plain, sender: bytes, body: Ask, _: CID) -> Iterator[Code | Does]:
    if sender not in s.providers:
        yield Code.NOT_REGISTERED
    if body.min_piece_bytes > body.max_piece_bytes:
        yield Code.INVALID_TERMS

    def do() -> None:
        s.providers[sender].update(
            price_per_gib_period=body.price_per_gib_period,
            min_piece_bytes=body.min_piece_bytes,
            max_piece_bytes=body.max_piece_bytes,
            open=body.open,
        )
        s.emit("provider_asked", provider=sender, open=body.open)

    yield do


def withdraw(s: Plain, sender: bytes, body: Withdraw, _: CID) -> Iterator[Code | Does]:
    if body.amount == 0:
        yield Code.AMOUNT_OUT_OF_RANGE
    known = s.providers.get(sender)
    if known is None:
        yield Code.NOT_REGISTERED
        return
    validator = s.validators.get(sender)
    if s.time < known["bound_until"] or (validator and (validator["granted"] or validator["power"])):
        yield Code.STAKE_LOCKED
    if body.amount > known["stake"]:
        yield Code.INSUFFICIENT_STAKE
    elif body.amount > s.unlocked(sender):
        yield Code.STAKE_LOCKED

    def do() -> None:
        s.stake(sender, -body.amount)
        s.give(known["payout"], body.amount)
        s.emit("stake_withdrawn", provider=sender, payout=known["payout"], amount=body.amount)

    yield do


def create_deal(s: Plain, sender: bytes, body: CreateDeal, deal: CID) -> Iterator[Code | Does]:
    pieces = len(body.pieces)
    if s.shards_changed + pieces > limits.MAX_SHARDS_PER_BLOCK:
        yield Code.BLOCK_FULL
    if any(provider not in s.providers for provider in body.providers):
        yield Code.NOT_REGISTERED
    if pieces != (body.m - body.k + 1 if body.replicated else body.m) or body.k > body.m:
        yield Code.INVALID_TERMS
    if body.providers and len(body.providers) != pieces:
        yield Code.INVALID_TERMS
    if not s.params.challenges <= body.challenges <= 64:
        yield Code.INVALID_TERMS
    leaf_bytes = 4096 * 31 if body.proof == "kzg" else 1024
    for piece in body.pieces:
        no_meta = piece.meta_leaves == 0 and (piece.meta_root != bytes(32) or piece.meta_bytes > 0)
        if (
            no_meta
            or piece.data_bytes > leaf_bytes * piece.data_leaves
            or piece.meta_bytes > leaf_bytes * piece.meta_leaves
        ):
            yield Code.INVALID_TERMS
    small = s.params.base_fee + s.params.fee_per_kib
    if body.price * body.periods < s.params.proof_fee * body.periods + 2 * small:
        yield Code.PRICE_TOO_LOW
    if len(set(body.providers)) < len(body.providers):
        yield Code.DUPLICATE_PROVIDER
    for provider, piece in zip(body.providers, body.pieces, strict=False):
        size = piece.data_bytes + piece.meta_bytes
        if provider in s.providers and not offers.takes(s, provider, size, body.price):
            yield Code.TERMS_NOT_TAKEN
    locked, deposit = body.price * body.periods, s.params.deposit * (1 + pieces)
    if locked * pieces + deposit > s.balance(sender):
        yield Code.INSUFFICIENT_FUNDS

    def do() -> None:
        s.shards_changed += pieces
        s.give(sender, -locked * pieces - deposit)
        s.deals[deal] = {
            **body.to_map(),
            "client": sender,
            "named": bool(body.providers),
            "deposit": deposit,
            "created_at": s.time,
            "ended_at": 0,
            "status": "open",
            "open_shards": pieces,
            "refunded": 0,
            "holders": [NOBODY] * pieces,
            "successors": [NOBODY] * pieces,
            "terms": s.version,
            "ending": False,
        }
        del s.deals[deal]["pieces"], s.deals[deal]["providers"]
        s.emit("deal_created", deal=deal, client=sender, shards=pieces)
        for index, piece in enumerate(body.pieces):
            s.shards[deal, index] = {
                "piece": piece.to_map(),
                "status": "offered",
                "provider": NOBODY,
                "tried": [],
                "dataset": NOBODY,
                "escrow": locked,
                **dict.fromkeys(("round", "expires_at", "slot", "first", "last", "mark", "ends_at"), 0),
                **dict.fromkeys(("reward", "collateral", "paid", "bounty", "missed", "spared_until"), 0),
                **dict.fromkeys(("handing_over", "successor_accepted", "giving_up", "struck"), False),
                "successor": NOBODY,
                "backer": NOBODY,
                "given_up_by": NOBODY,
                "next_collateral": 0,
            }
            if body.providers:
                offers.offer(s, (deal, index), body.providers[index])
            else:
                s.put_up.add((s.height, (deal, index)))

    yield do


def accept(s: Plain, sender: bytes, body: Accept, _: CID) -> Iterator[Code | Does]:
    if sender not in s.providers:
        yield Code.NOT_REGISTERED
    place = (body.deal, body.shard)
    if body.deal not in s.deals:
        yield Code.UNKNOWN_DEAL
    if place not in s.shards:
        yield Code.UNKNOWN_SHARD
        return
    shard, deal = s.shards[place], s.deals[body.deal]
    taking_over = shard["handing_over"] and shard["successor"] == sender
    if shard["provider"] != sender and not taking_over:
        yield Code.NOT_YOURS
        return
    if shard["successor_accepted"] if taking_over else shard["status"] not in LOOKING:
        yield Code.NOT_OFFERED
    p = s.terms(place)
    dataset = dataset_id(deal["client"], sender, deal["proof"], deal["challenges"], deal["terms"])
    joins_at = periods.next_start(s, p, dataset)
    if taking_over and not shard["successor_accepted"]:
        old = s.datasets[shard["dataset"]]
        turns_at = periods.ends_at(p, shard["dataset"], old["period"])
        joins_at = periods.start_after(p, dataset, max(s.time, turns_at))
    late = shard["ends_at"] and joins_at + p.period_s > shard["ends_at"]
    if s.time > shard["expires_at"] or late:
        yield Code.OFFER_EXPIRED
    if s.size(place) > s.free_bytes(sender):
        yield Code.NO_CAPACITY
    known = s.datasets.get(dataset)
    if known and known["pieces"] + known["joining"] + known["expected"] >= limits.MAX_DATASET_PIECES:
        yield Code.DATASET_FULL
    locks = offers.collateral(s, place)
    if s.unlocked(sender) < locks:
        yield Code.INSUFFICIENT_STAKE
    if known is None and s.balance(sender) < p.deposit:
        yield Code.INSUFFICIENT_FUNDS

    def do() -> None:
        if known is None:
            periods.make(s, dataset, deal, sender)
        s.providers[sender]["locked"] += locks
        s.providers[sender]["used_bytes"] += s.size(place)
        shard.update(expires_at=0, tried=[])
        if taking_over:
            shard.update(successor_accepted=True, next_collateral=locks)
            shard["last"] = s.datasets[shard["dataset"]]["period"]
            s.datasets[dataset]["expected"] += 1
        else:
            shard.update(status="accepted", dataset=dataset, collateral=locks)
            offers.queue(s, dataset, place)
        s.emit("shard_accepted", deal=body.deal, shard=body.shard, provider=sender, dataset=dataset)

    yield do


def prove(s: Plain, sender: bytes, body: Prove, _: CID) -> Iterator[Code | Does]:
    record = s.datasets.get(body.dataset)
    if record is None:
        yield Code.UNKNOWN_DATASET
        return
    least = periods.terms(s, body.dataset).meta_challenges
    cost = points(record, record["data_leaves"], record["meta_leaves"], least)
    if is_full(s, cost):
        yield Code.BLOCK_FULL
        return
    if record["provider"] != sender:
        yield Code.NOT_YOURS
        return
    now = (record["period"], record["phase"])
    if body.period > record["period"] or now in ((body.period, "waiting"), (body.period, "opening")):
        yield Code.TOO_EARLY
        return
    closed = s.time > periods.closes_at(periods.terms(s, body.dataset), body.dataset, body.period)
    if now != (body.period, "open") or closed:
        yield Code.TOO_LATE
        return
    if record["proven"]:
        yield Code.ALREADY_PROVEN
        return
    s.kzg_points += cost
    if not shows(periods.challenge(s, body.dataset), body.proof):
        yield Code.INVALID_PROOF

    def do() -> None:
        record["proven"] = True
        record["proven_total"] += 1
        s.providers[sender]["proven_total"] += 1
        record["clean"] += 1
        record["in_a_row"] = 0
        s.emit("proof_accepted", dataset=body.dataset, provider=sender, period=body.period)

    yield do


def settle(s: Plain, sender: bytes, body: Settle, _: CID) -> Iterator[Code | Does]:
    place = (body.deal, body.shard)
    if body.deal not in s.deals:
        yield Code.UNKNOWN_DEAL
    if place not in s.shards:
        yield Code.UNKNOWN_SHARD
        return
    if s.shards[place]["status"] != "active" or not offers.unpaid(s, place):
        yield Code.NOTHING_DUE
    yield lambda: offers.pay(s, place)


KINDS: dict[str, Callable[[Plain, bytes, Any, CID], Iterator[Code | Does]]] = {
    "transfer": transfer,
    "register": register,
    "ask": ask,
    "withdraw": withdraw,
    "register_validator": register_validator,
    "resign": resign,
    "create_deal": create_deal,
    "accept": accept,
    "prove": prove,
    "settle": settle,
    "renew": renew,
    "end_deal": end_deal,
    "top_up": top_up,
    "hand_over": hand_over,
    "give_up": give_up,
    "stay": stay,
    "declare_fault": declare_fault,
    "propose": propose,
    "vote": vote,
    "spot": spot,
    "answer": answer,
}
