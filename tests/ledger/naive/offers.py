"""Looking for providers, paying them, letting them go: the plain form of "The life of a deal"."""

from __future__ import annotations

import hashlib

from ledger import limits
from tests.ledger.naive.state import (
    CLOSED,
    LOOKING,
    NOBODY,
    Place,
    Plain,
    blocks_ahead,
    dataset_id,
    place_bytes,
)

GIB = 1 << 30
OFFER, FORGET, SPOT = 1, 2, 4


def takes(s: Plain, provider: bytes, size: int, price: int) -> bool:
    """Whether a provider's ask is met: open, sizes, price (which is for a GiB)."""
    ask = s.providers[provider]
    return agrees(s, provider, size, price) and ask["min_piece_bytes"] <= size <= ask["max_piece_bytes"]


def agrees(s: Plain, provider: bytes, size: int, price: int) -> bool:
    """Whether a provider is open and the price enough: its consent to a renewal."""
    ask = s.providers[provider]
    return ask["open"] is True and int(ask["price_per_gib_period"]) * size <= price * GIB


def collateral(s: Plain, place: Place) -> int:
    return min(2**63 - 1, s.price(place) * s.terms(place).collateral_periods)


def may_be_drawn(s: Plain, provider: bytes, place: Place) -> bool:
    price = s.price(place)
    return (
        takes(s, provider, s.size(place), price)
        and s.size(place) <= s.free_bytes(provider)
        and s.unlocked(provider) > 0
        and s.unlocked(provider) >= collateral(s, place)
        and provider not in s.deals[place[0]]["holders"]
        and provider not in s.deals[place[0]]["successors"]
        and provider != s.shards[place]["given_up_by"]
    )


def put_up(s: Plain, place: Place) -> None:
    """For the draw by a later block, which this one's beacon draws."""
    s.put_up.add((s.height + blocks_ahead(s, s.terms(place).accept_timeout_s) - 1, place))


def draw_all(s: Plain) -> None:
    """Draws for the shards that were put up in earlier blocks, those that have waited longest first."""
    waiting = sorted((height, place_bytes(place), place) for height, place in s.put_up if height < s.height)
    for height, _, place in waiting[: limits.MAX_DRAWS_PER_BLOCK]:
        if s.looked >= limits.MAX_DRAW_LOOKS_PER_BLOCK:
            return
        s.put_up.remove((height, place))
        if not waits(s, place):
            s.looked += 1
            continue
        shard = s.shards[place]
        if shard["handing_over"]:
            if shard["ends_at"] - s.time < 2 * s.terms(place).period_s:
                keep(s, place)
                s.looked += 1
                continue
        elif shard["status"] == "repair-offered" and s.time + s.terms(place).period_s > shard["ends_at"]:
            close(s, place, "terminated")
            s.looked += 1
            continue
        offer(s, place, pick(s, place))


def waits(s: Plain, place: Place) -> bool:
    """Whether a shard that was put up is still to be drawn."""
    shard = s.shards.get(place)
    if shard is None or shard["expires_at"] or shard["successor_accepted"]:
        return False
    return bool(shard["handing_over"] or shard["status"] in LOOKING)


def weigh(s: Plain) -> None:
    """At the end of a block: who weighs something in the next block's draws has a seat, and no one else."""
    weights = {each: s.unlocked(each) if s.providers[each]["open"] else 0 for each in s.providers}
    for leaves in sorted(each for each in s.seats if not weights[each]):
        last = s.seats.pop()
        if last != leaves:
            s.seats[s.seats.index(leaves)] = last
    s.seats += sorted(each for each in weights if weights[each] and each not in s.seats)
    s.weights = [weights[each] for each in s.seats]


def ticket(s: Plain, place: Place, number: int, total: int) -> int:
    round_ = s.shards[place]["round"].to_bytes(2, "big")
    seed = b"holdfast/draw/1\0" + s.beacon + place_bytes(place) + round_ + number.to_bytes(2, "big")
    return int.from_bytes(hashlib.sha256(seed).digest(), "big") % total


def falls_to(tickets: int, weights: list[int]) -> int:
    """The first place up to which all weights together exceed the ticket."""
    return next(place for place in range(len(weights)) if sum(weights[: place + 1]) > tickets)


def pick(s: Plain, place: Place) -> bytes:
    if not any(s.weights):
        return NOBODY
    tried = s.shards[place]["tried"]
    for number in range(limits.MAX_DRAW_TRIES):
        s.looked += 1
        seat = falls_to(ticket(s, place, number, sum(s.weights)), s.weights)
        if may_be_drawn(s, s.seats[seat], place) and s.seats[seat] not in tried:
            return s.seats[seat]
    ahead = [*range(seat, len(s.seats)), *range(seat)][: limits.MAX_DRAW_SEATS]
    s.looked += len(ahead)
    fit = [each for each in ahead if may_be_drawn(s, s.seats[each], place)]
    fit = [each for each in fit if s.seats[each] not in tried] or fit
    if not fit:
        return NOBODY
    weights = [s.weights[each] for each in fit]
    drawn: bytes = s.seats[fit[falls_to(ticket(s, place, limits.MAX_DRAW_TRIES, sum(weights)), weights)]]
    return drawn


def offer(s: Plain, place: Place, provider: bytes) -> None:
    """A round begins; without a provider it only passes."""
    shard = s.shards[place]
    name(s, place, provider)
    shard["round"] += 1
    shard["expires_at"] = s.time + s.terms(place).accept_timeout_s
    s.alarms.add((shard["expires_at"] + 1, OFFER, place_bytes(place)))
    if provider:
        s.emit(
            "shard_assigned",
            deal=place[0],
            shard=place[1],
            provider=provider,
            repair=shard["status"] == "repair-offered",
            handover=shard["handing_over"],
            expires_at=shard["expires_at"],
        )


def name(s: Plain, place: Place, provider: bytes) -> None:
    """Whom a shard is offered to: as its provider, or as the successor of the one that it has."""
    of, where = ("successor", "successors") if s.shards[place]["handing_over"] else ("provider", "holders")
    s.shards[place][of] = provider
    s.deals[place[0]][where][place[1]] = provider


def keep(s: Plain, place: Place) -> None:
    """A handover that came to nothing: the provider keeps the shard."""
    name(s, place, NOBODY)
    shard = s.shards[place]
    shard.update(handing_over=False, round=0, expires_at=0, tried=[])
    s.emit("handover_failed", deal=place[0], shard=place[1], provider=shard["provider"])


def round_over(s: Plain, place: Place) -> None:
    """An offer's time may be over: another round, or the end of the search."""
    shard = s.shards.get(place)
    if shard is None or not 0 < shard["expires_at"] < s.time:
        return
    provider = shard["successor"] if shard["handing_over"] else shard["provider"]
    s.emit("offer_expired", deal=place[0], shard=place[1], provider=provider)
    if provider and provider not in shard["tried"]:
        shard["tried"].append(provider)
    name(s, place, NOBODY)
    shard["expires_at"] = 0
    repair = shard["status"] == "repair-offered"
    if shard["handing_over"]:
        if shard["round"] >= s.terms(place).max_rounds:
            keep(s, place)
        else:
            put_up(s, place)
    elif not repair and s.deals[place[0]]["named"]:
        close(s, place, "refunded")
    elif shard["round"] >= s.terms(place).max_rounds:
        close(s, place, "terminated" if repair else "refunded")
    else:
        put_up(s, place)


def unpaid(s: Plain, place: Place) -> int:
    shard = s.shards[place]
    if shard["struck"]:
        return 0
    return int(s.datasets[shard["dataset"]]["proven_total"] - shard["mark"])


def pay(s: Plain, place: Place) -> None:
    """Proven periods, and with the first the reward of a repair, to the payout account."""
    shard, count = s.shards[place], unpaid(s, place)
    if not count:
        return
    amount, reward, bounty = count * s.price(place), shard["reward"], shard["bounty"]
    shard["mark"] += count
    shard["paid"] += amount
    shard["escrow"] -= amount
    shard["reward"] = shard["bounty"] = 0
    shard["backer"] = NOBODY
    s.providers[shard["provider"]]["served"] += count
    assert shard["escrow"] >= 0
    s.give(s.providers[shard["provider"]]["payout"], amount + reward + bounty)
    s.emit(
        "paid",
        deal=place[0],
        shard=place[1],
        provider=shard["provider"],
        amount=amount,
        reward=reward,
        bounty=bounty,
    )


def cover(s: Plain, place: Place) -> None:
    """After notice: what the periods have not earned of the fee of one acceptance."""
    shard, p, price = s.shards[place], s.terms(place), s.price(place)
    missing = p.base_fee + p.fee_per_kib
    for _ in range(shard["first"], shard["last"] + 1):
        missing = max(0, missing - (price - p.proof_fee))
    missing = min(missing, shard["escrow"])
    if not s.deals[place[0]]["ending"] or not missing:
        return
    shard["escrow"] -= missing
    shard["paid"] += missing
    s.give(s.providers[shard["provider"]]["payout"], missing)
    who = {"deal": place[0], "shard": place[1], "provider": shard["provider"]}
    s.emit("paid", **who, amount=missing, reward=0, bounty=0)


def let_go(s: Plain, place: Place) -> None:
    """A provider is rid of a shard: collateral and room are free, an open spot challenge is forgotten."""
    shard = s.shards[place]
    if place in s.spots:
        end_spot(s, place, s.spots[place]["challenger"])
    provider = s.providers[shard["provider"]]
    provider["locked"] -= shard["collateral"]
    provider["used_bytes"] -= s.size(place)
    shard["collateral"] = 0


def terminate(s: Plain, place: Place) -> None:
    """A provider loses a shard and its collateral; the shard is put up for repair."""
    pay(s, place)
    shard, loser = s.shards[place], s.shards[place]["provider"]
    lost = min(shard["collateral"], s.providers[loser]["stake"])
    most = s.price(place) * s.terms(place).repair_reward_periods
    reward = min(lost, max(0, most - shard["reward"]))
    s.stake(loser, -lost)
    s.providers[loser]["terminated_total"] += 1
    shard["reward"] += reward
    s.burned += lost - reward
    let_go(s, place)
    s.emit(
        "shard_terminated",
        deal=place[0],
        shard=place[1],
        provider=loser,
        forfeited=lost,
        reward=shard["reward"],
    )
    lose(s, place)


def lose(s: Plain, place: Place) -> None:
    """A shard has lost its provider: to the successor that has accepted it, or to be repaired, or over."""
    shard, loser = s.shards[place], s.shards[place]["provider"]
    if shard["successor_accepted"]:
        pass_on(s, place)
        return
    if shard["handing_over"]:
        name(s, place, NOBODY)
        shard["handing_over"] = False
    shard.update(status="repair-offered", provider=NOBODY, round=0, expires_at=0, tried=[loser])
    shard.update(dataset=NOBODY, slot=0, first=0, last=0, mark=0, giving_up=False, struck=False, missed=0)
    shard["spared_until"] = 0
    s.deals[place[0]]["holders"][place[1]] = NOBODY
    if s.deals[place[0]]["ending"]:
        close(s, place, "terminated")
    else:
        put_up(s, place)


def give_up(s: Plain, place: Place) -> None:
    """The provider is rid of a shard after a proven period, at half of a fault's fee."""
    pay(s, place)
    shard = s.shards[place]
    provider = s.providers[shard["provider"]]
    fee = min(provider["stake"], s.price(place) * s.terms(place).fault_fee_percent // 200)
    s.stake(shard["provider"], -fee)
    s.burned += fee
    let_go(s, place)
    s.emit("shard_given_up", deal=place[0], shard=place[1], provider=shard["provider"], fee=fee)
    shard["given_up_by"] = shard["provider"]
    lose(s, place)


def pass_on(s: Plain, place: Place) -> None:
    """The successor has the shard now: it joins its dataset at that one's next period."""
    shard, deal = s.shards[place], s.deals[place[0]]
    old, new = shard["provider"], shard["successor"]
    dataset = dataset_id(deal["client"], new, deal["proof"], deal["challenges"], deal["terms"])
    shard.update(status="accepted", provider=new, dataset=dataset, collateral=shard["next_collateral"])
    shard.update(handing_over=False, successor=NOBODY, successor_accepted=False, next_collateral=0)
    shard.update(slot=0, first=0, last=0, mark=0, round=0, giving_up=False)
    shard.update(struck=False, missed=0, spared_until=0)
    deal["holders"][place[1]], deal["successors"][place[1]] = new, NOBODY
    s.datasets[dataset]["expected"] -= 1
    queue(s, dataset, place)
    s.emit("shard_handed_over", deal=place[0], shard=place[1], from_=old, to=new)


def queue(s: Plain, dataset: bytes, place: Place) -> None:
    record = s.datasets[dataset]
    s.joining[dataset][record["joins"]] = place
    record["joins"] += 1
    record["joining"] += 1


def end_spot(s: Plain, place: Place, payee: bytes) -> None:
    """An open spot challenge is forgotten, what waits for it too; somebody gets what was prepaid."""
    record = s.spots.pop(place)
    s.give(payee, record["fee"])
    s.alarms.discard((record["closes_at"] + 1, SPOT, place_bytes(place)))
    s.seeds = {each for each in s.seeds if each[2] != place_bytes(place)}


def close(s: Plain, place: Place, status: str) -> None:
    """A shard is over, and with the last one its deal."""
    shard, deal = s.shards[place], s.deals[place[0]]
    refund = shard["escrow"]
    if shard["bounty"] and shard["backer"] == deal["client"]:
        refund += shard["bounty"]
    elif shard["bounty"]:
        s.give(shard["backer"], shard["bounty"])
    s.give(deal["client"], refund)
    s.burned += shard["reward"]
    if shard["handing_over"]:
        name(s, place, NOBODY)
    shard.update(expires_at=0, handing_over=False, giving_up=False, struck=False)
    shard.update(escrow=0, reward=0, bounty=0, status=status, dataset=NOBODY, backer=NOBODY)
    s.emit("shard_closed", deal=place[0], shard=place[1], status=status, refund=refund)
    deal["refunded"] += refund
    deal["open_shards"] = sum(
        each["status"] not in CLOSED for (of, _), each in s.shards.items() if of == place[0]
    )
    if deal["open_shards"]:
        return
    s.give(deal["client"], deal["deposit"])
    s.emit("deal_ended", deal=place[0], client=deal["client"], refund=deal["refunded"] + deal["deposit"])
    deal.update(status="ended", ended_at=s.time, deposit=0)
    kept_s = s.terms(place).retention_periods * s.terms(place).period_s
    s.alarms.add((s.time + kept_s, FORGET, bytes(place[0])))
