"""Spot challenges: the plain form of that section."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from ledger import limits
from ledger.result import Code
from ledger.transactions import Answer, Spot
from merkledag.cid import CID
from proofs.challenge import Challenge, spot_seed
from proofs.commitment import SumNode
from proofs.kinds import ProofKind
from tests.ledger.naive import offers
from tests.ledger.naive.proofs import is_full, points, shows
from tests.ledger.naive.state import Map, Place, Plain, blocks_ahead, place_bytes

SEED = 8
Does = Callable[[], None]


def spot(s: Plain, sender: bytes, body: Spot, _: CID) -> Iterator[Code | Does]:
    if s.spots_opened >= limits.MAX_SPOTS_PER_BLOCK:
        yield Code.BLOCK_FULL
    if body.deal not in s.deals:
        yield Code.UNKNOWN_DEAL
    place = (body.deal, body.shard)
    if place not in s.shards:
        yield Code.UNKNOWN_SHARD
        return
    shard, fee = s.shards[place], s.params.proof_fee
    if shard["status"] != "active" or shard["struck"]:
        yield Code.NOT_ACTIVE
    if s.time < shard["spared_until"]:
        yield Code.TOO_EARLY
    if place in s.spots:
        yield Code.SPOT_OPEN
    if fee > s.balance(sender):
        yield Code.INSUFFICIENT_FUNDS

    def do() -> None:
        s.spots_opened += 1
        s.give(sender, -fee)
        s.spots[place] = {
            "challenger": sender,
            "provider": shard["provider"],
            "opened_at": s.time,
            "height": s.height,
            "seed": b"",
            "closes_at": 0,
            "fee": fee,
            "stalled_s": 0,
            "seed_height": s.height + blocks_ahead(s, s.terms(place).window_s),
        }
        s.seeds.add((s.spots[place]["seed_height"], SEED, place_bytes(place)))

    yield do


def challenge(s: Plain, place: Place) -> Challenge:
    piece, deal = s.shards[place]["piece"], s.deals[place[0]]
    data, meta = (SumNode(piece[of + "_root"], piece[of + "_leaves"]) for of in ("data", "meta"))
    most, kind = s.terms(place).meta_challenges, ProofKind(deal["proof"])
    return Challenge(s.spots[place]["seed"], data, 0, meta, 0, deal["challenges"], most, kind)


def answer(s: Plain, sender: bytes, body: Answer, _: CID) -> Iterator[Code | Does]:
    if body.deal not in s.deals:
        yield Code.UNKNOWN_DEAL
    place = (body.deal, body.shard)
    shard = s.shards.get(place)
    if shard is None:
        yield Code.UNKNOWN_SHARD
        return
    piece = shard["piece"]
    least = s.terms(place).meta_challenges
    cost = points(s.deals[place[0]], piece["data_leaves"], piece["meta_leaves"], least)
    if is_full(s, cost):
        yield Code.BLOCK_FULL
        return
    if shard["provider"] != sender:
        yield Code.NOT_YOURS
        return
    record = s.spots.get(place)
    if record is None or not record["seed"]:
        yield Code.NO_SPOT
        return
    if s.time > record["closes_at"]:
        yield Code.TOO_LATE
        return
    s.kzg_points += cost
    if not shows(challenge(s, place), body.proof):
        yield Code.INVALID_PROOF

    def do() -> None:
        shard["missed"] = 0
        offers.end_spot(s, place, sender)
        s.emit("spot_answered", deal=place[0], shard=place[1], provider=sender)

    yield do


def who(record: Map, place: Place) -> Map:
    return {"deal": place[0], "shard": place[1], "provider": record["provider"]}


def draw_seed(s: Plain, place: Place) -> None:
    """A block after the one that asked, drawn by that one's beacon: its own is the seed's."""
    record, chain = s.spots[place], s.genesis.chain_id
    seed = spot_seed(chain, bytes(place[0]), place[1], record["provider"], record["height"], s.beacon)
    closes_at = s.time + s.terms(place).window_s
    record.update(seed=seed, closes_at=closes_at, stalled_s=s.stalled_s, seed_height=s.height)
    s.alarms.add((closes_at + 1, offers.SPOT, place_bytes(place)))
    asked = s.deals[place[0]]["challenges"]
    s.emit("spot_opened", **who(record, place), seed=seed, closes_at=closes_at, challenges=asked)


def spot_due(s: Plain, place: Place) -> None:
    """A challenge's time is over."""
    record, p = s.spots[place], s.terms(place)
    offers.end_spot(s, place, record["challenger"])
    if 2 * (s.stalled_s - record["stalled_s"]) >= p.window_s:
        s.emit("spot_void", **who(record, place))
    else:
        miss(s, place)
        s.shards[place]["spared_until"] = record["opened_at"] + p.period_s


def miss(s: Plain, place: Place) -> None:
    shard, p = s.shards[place], s.terms(place)
    stake = s.providers[shard["provider"]]["stake"]
    fee = min(stake, s.price(place) * p.fault_fee_percent // 100)
    s.stake(shard["provider"], -fee)
    s.burned += fee
    shard["missed"] += 1
    s.emit(
        "spot_missed",
        deal=place[0],
        shard=place[1],
        provider=shard["provider"],
        missed=shard["missed"],
        fee=fee,
    )
    if shard["missed"] >= p.terminate_after:
        offers.pay(s, place)
        shard["struck"] = True
        shard["last"] = min(shard["last"], s.datasets[shard["dataset"]]["period"])
