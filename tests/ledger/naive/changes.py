"""Changes of deals that run: renewal, notice, bounties, handovers, giving up, declared faults."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from ledger import limits
from ledger.result import Code
from ledger.transactions import DeclareFault, EndDeal, GiveUp, HandOver, Renew, Stay, TopUp
from merkledag.cid import CID
from tests.ledger.naive import offers, periods
from tests.ledger.naive.state import CLOSED, LOOKING, Place, Plain

Does = Callable[[], None]


def open_shards(s: Plain, deal: CID) -> list[Place]:
    found = [place for place, shard in s.shards.items() if place[0] == deal and shard["status"] not in CLOSED]
    return sorted(found, key=lambda place: place[1])


def renew(s: Plain, sender: bytes, body: Renew, _: CID) -> Iterator[Code | Does]:
    deal = s.deals.get(body.deal)
    if deal is None:
        yield Code.UNKNOWN_DEAL
        return
    if s.shards_changed + len(deal["holders"]) > limits.MAX_SHARDS_PER_BLOCK:
        yield Code.BLOCK_FULL
    if deal["client"] != sender:
        yield Code.NOT_YOURS
    if deal["status"] != "open" or deal["ending"] or deal["periods"] + body.periods > 2**20:
        yield Code.INVALID_TERMS
    p = s.versions[deal["terms"]]
    for place in open_shards(s, body.deal):
        left_s = (
            s.shards[place]["ends_at"] - s.time
            if s.shards[place]["ends_at"]
            else deal["periods"] * p.period_s
        )
        if left_s + body.periods * p.period_s > p.renewal_periods * p.period_s:
            yield Code.INVALID_TERMS
    if deal["price"] < s.params.proof_fee:
        yield Code.PRICE_TOO_LOW
    places = open_shards(s, body.deal)
    for place in places:
        shard = s.shards[place]
        if shard["provider"] and (
            shard["handing_over"]
            or shard["struck"]
            or shard["giving_up"]
            or not offers.agrees(s, shard["provider"], s.size(place), deal["price"])
        ):
            yield Code.TERMS_NOT_TAKEN
    each = deal["price"] * body.periods
    if each * len(places) > s.balance(sender):
        yield Code.INSUFFICIENT_FUNDS

    def do() -> None:
        s.shards_changed += len(deal["holders"])
        deal["periods"] += body.periods
        for place in places:
            shard = s.shards[place]
            s.give(sender, -each)
            shard["escrow"] += each
            if shard["status"] == "active":
                shard["last"] += body.periods
            if shard["ends_at"]:
                shard["ends_at"] += body.periods * s.terms(place).period_s
        s.emit("deal_renewed", deal=body.deal, periods=body.periods, shards=len(places))

    yield do


def end_deal(s: Plain, sender: bytes, body: EndDeal, _: CID) -> Iterator[Code | Does]:
    deal = s.deals.get(body.deal)
    if deal is None:
        yield Code.UNKNOWN_DEAL
        return
    if s.shards_changed + len(deal["holders"]) > limits.MAX_SHARDS_PER_BLOCK:
        yield Code.BLOCK_FULL
    if deal["client"] != sender:
        yield Code.NOT_YOURS
    if deal["status"] != "open" or deal["ending"]:
        yield Code.NOTHING_TO_DO

    def do() -> None:
        s.shards_changed += len(deal["holders"])
        deal["ending"] = True
        s.emit("deal_ending", deal=body.deal)
        for place in open_shards(s, body.deal):
            shard = s.shards[place]
            if shard["status"] in LOOKING:
                offers.name(s, place, b"")
                offers.close(s, place, "refunded" if shard["status"] == "offered" else "terminated")
            elif shard["status"] == "active":
                if shard["handing_over"] and not shard["successor_accepted"]:
                    offers.keep(s, place)
                shard["last"] = min(shard["last"], s.datasets[shard["dataset"]]["period"] + 1)
                if not shard["successor_accepted"]:
                    ends_at = periods.ends_at(s.terms(place), shard["dataset"], shard["last"])
                    shard["ends_at"] = min(shard["ends_at"], ends_at)

    yield do


def top_up(s: Plain, sender: bytes, body: TopUp, _: CID) -> Iterator[Code | Does]:
    if body.amount == 0:
        yield Code.AMOUNT_OUT_OF_RANGE
    if body.deal not in s.deals:
        yield Code.UNKNOWN_DEAL
    shard = s.shards.get((body.deal, body.shard))
    if shard is None:
        yield Code.UNKNOWN_SHARD
        return
    if shard["status"] != "repair-offered":
        yield Code.NOT_OFFERED
    is_others = shard["bounty"] > 0 and shard["backer"] != sender
    if is_others and shard["bounty"] >= body.amount:
        yield Code.AMOUNT_OUT_OF_RANGE
    if body.amount > s.balance(sender):
        yield Code.INSUFFICIENT_FUNDS

    def do() -> None:
        if is_others:
            s.give(shard["backer"], shard["bounty"])
            shard["bounty"] = 0
        s.give(sender, -body.amount)
        shard["bounty"] += body.amount
        shard["backer"] = sender
        s.emit("topped_up", deal=body.deal, shard=body.shard, amount=body.amount)

    yield do


def leave(s: Plain, sender: bytes, body: HandOver | GiveUp) -> Iterator[Code]:
    """What a provider that wants to be rid of a shard is refused with."""
    if body.deal not in s.deals:
        yield Code.UNKNOWN_DEAL
    shard = s.shards.get((body.deal, body.shard))
    if shard is None:
        yield Code.UNKNOWN_SHARD
        return
    if shard["provider"] != sender:
        yield Code.NOT_YOURS
    if shard["status"] != "active" or shard["struck"]:
        yield Code.NOT_ACTIVE
    if shard["handing_over"]:
        yield Code.HANDOVER_RUNS
    if shard["giving_up"]:
        yield Code.NOTHING_TO_DO


def hand_over(s: Plain, sender: bytes, body: HandOver, _: CID) -> Iterator[Code | Does]:
    yield from leave(s, sender, body)
    place = (body.deal, body.shard)
    shard = s.shards.get(place)
    stays = shard and shard["status"] == "active" and not shard["handing_over"]
    if shard and stays and shard["last"] < s.datasets[shard["dataset"]]["period"] + 2:
        yield Code.OFFER_EXPIRED

    def do() -> None:
        s.shards[place].update(handing_over=True, round=0, expires_at=0, tried=[])
        offers.put_up(s, place)
        s.emit("handover_started", deal=body.deal, shard=body.shard, provider=sender)

    yield do


def give_up(s: Plain, sender: bytes, body: GiveUp, _: CID) -> Iterator[Code | Does]:
    yield from leave(s, sender, body)
    shard = s.shards.get((body.deal, body.shard))
    if shard and shard["status"] == "active" and shard["first"] > s.datasets[shard["dataset"]]["period"]:
        yield Code.NOT_ACTIVE
    yield lambda: s.shards[body.deal, body.shard].update(giving_up=True)


def stay(s: Plain, sender: bytes, body: Stay, _: CID) -> Iterator[Code | Does]:
    place = (body.deal, body.shard)
    if body.deal not in s.deals:
        yield Code.UNKNOWN_DEAL
    if place not in s.shards:
        yield Code.UNKNOWN_SHARD
        return
    shard = s.shards[place]
    if shard["provider"] != sender:
        yield Code.NOT_YOURS
    if shard["successor_accepted"]:
        yield Code.HANDOVER_RUNS
    if not shard["handing_over"] and not shard["giving_up"]:
        yield Code.NOTHING_TO_DO
    yield lambda: offers.keep(s, place) if shard["handing_over"] else shard.update(giving_up=False)


def declare_fault(s: Plain, sender: bytes, body: DeclareFault, _: CID) -> Iterator[Code | Does]:
    record = s.datasets.get(body.dataset)
    if record is None:
        yield Code.UNKNOWN_DATASET
        return
    if record["provider"] != sender:
        yield Code.NOT_YOURS
    p = periods.terms(s, body.dataset)
    opens_at = periods.opens_at(p, body.dataset, record["period"])
    if body.period > record["period"]:
        yield Code.TOO_EARLY
    elif body.period == record["period"] and record["phase"] == "declared":
        yield Code.NOTHING_TO_DO
    elif body.period < record["period"] or record["phase"] != "waiting" or s.time >= opens_at:
        yield Code.TOO_LATE

    def do() -> None:
        record["phase"] = "declared"
        s.alarms.discard((opens_at, periods.DATASET, body.dataset))
        s.alarms.add((periods.ends_at(p, body.dataset, body.period), periods.DATASET, body.dataset))
        s.emit("fault_declared", dataset=body.dataset, provider=sender, period=body.period)

    yield do
