"""Datasets and their periods: the plain form of "The life of a period"."""

from __future__ import annotations

from ledger import limits
from ledger.genesis import Params
from proofs.challenge import Challenge, period_seed
from proofs.commitment import EMPTY, SumNode
from proofs.kinds import ProofKind
from proofs.slot_tree import MemoryNodes, root, set_slot
from tests.ledger.naive.offers import close, cover, give_up, let_go, pass_on, pay, terminate
from tests.ledger.naive.state import Map, Place, Plain, blocks_ahead, offset

DATASET, SEED = 0, 5
KEPT_PERIODS = 32


def period_at(p: Params, dataset: bytes, time: int) -> int:
    return (time + offset(dataset, p.period_s)) // p.period_s


def starts_at(p: Params, dataset: bytes, period: int) -> int:
    return period * p.period_s - offset(dataset, p.period_s)


def opens_at(p: Params, dataset: bytes, period: int) -> int:
    return starts_at(p, dataset, period + 1) - p.window_s


def closes_at(p: Params, dataset: bytes, period: int) -> int:
    return starts_at(p, dataset, period + 1) - 1


def ends_at(p: Params, dataset: bytes, period: int) -> int:
    return starts_at(p, dataset, period + 1)


def terms(s: Plain, dataset: bytes) -> Params:
    """The parameters of a dataset's deals."""
    return s.versions[s.datasets[dataset]["terms"]]


def next_start(s: Plain, p: Params, dataset: bytes) -> int:
    """When a piece that is accepted now joins."""
    current = period_at(p, dataset, s.time)
    known = s.datasets.get(dataset)
    if known is not None and known["period"] < current:
        return starts_at(p, dataset, current)  # the turn to this period is still under way
    return starts_at(p, dataset, current + 1)


def start_after(p: Params, dataset: bytes, time: int) -> int:
    """The first start of a period later than a time."""
    return starts_at(p, dataset, period_at(p, dataset, time) + 1)


def make(s: Plain, dataset: bytes, deal: Map, provider: bytes) -> None:
    """The first piece of a dataset: its provider pays the deposit; it joins at the next period."""
    p = s.versions[deal["terms"]]
    period = period_at(p, dataset, s.time)
    s.give(provider, -p.deposit)
    s.datasets[dataset] = {
        "client": deal["client"],
        "provider": provider,
        "challenges": deal["challenges"],
        "terms": deal["terms"],
        "proof": deal["proof"],
        "deposit": p.deposit,
        "phase": "resting",
        "period": period,
        "seed": b"",
        "seed_time": 0,
        "seed_height": 0,
        "stalled_s": 0,
        "proven": False,
        "proven_total": 0,
        "fault_total": 0,
        "in_a_row": 0,
        "clean": 0,
        "history": 0,
        "faults": 0,
        "faulted": False,
        "terminating": False,
        "slots": 0,
        "pieces": 0,
        "price_total": 0,
        "depth": 0,
        "data_root": EMPTY.hash,
        "data_leaves": 0,
        "meta_root": EMPTY.hash,
        "meta_leaves": 0,
        "joins": 0,
        "joining": 0,
        "expected": 0,
    }
    s.joining[dataset] = {}
    s.alarms.add((starts_at(p, dataset, period + 1), DATASET, dataset))


def challenge(s: Plain, dataset: bytes) -> Challenge:
    """What the open window asks, from the pieces that stand in the trees."""
    record = s.datasets[dataset]
    data, meta = (tree(s, dataset, of) for of in ("data", "meta"))
    depth = record["depth"]
    least, kind = terms(s, dataset).meta_challenges, ProofKind(record["proof"])
    return Challenge(record["seed"], data, depth, meta, depth, record["challenges"], least, kind)


def tree(s: Plain, dataset: bytes, of: str) -> SumNode:
    """The root of one of the two slot trees, made anew."""
    nodes, depth = MemoryNodes(), s.datasets[dataset]["depth"]
    for place in s.in_dataset(dataset):
        piece = s.shards[place]["piece"]
        set_slot(nodes, depth, s.shards[place]["slot"], SumNode(piece[of + "_root"], piece[of + "_leaves"]))
    return root(nodes, depth)


def wake(s: Plain, dataset: bytes) -> None:
    """What the dataset waited for is here: its window, or the end of its period."""
    record = s.datasets[dataset]
    if record["phase"] == "waiting":
        if is_late(s, dataset, record):
            no_seed(s, dataset, record)
        else:
            height = s.height + blocks_ahead(s, terms(s, dataset).window_s)
            record.update(phase="opening", seed_height=height)
            s.seeds.add((height, SEED, dataset))
        return
    if record["phase"] == "open" and not record["proven"]:
        if 2 * (s.stalled_s - record["stalled_s"]) >= terms(s, dataset).window_s:
            void(s, dataset, record["period"], record["period"])
        else:
            fault(s, dataset, record, declared=False)
    if record["phase"] == "declared":
        fault(s, dataset, record, declared=True)
    others = max(0, s.budget - limits.MAX_TURN_STEP)
    s.budget -= others
    turn(s, dataset, record)
    s.budget += others


def void(s: Plain, dataset: bytes, first: int, last: int) -> None:
    provider = s.datasets[dataset]["provider"]
    s.emit("period_void", dataset=dataset, provider=provider, period=first, until=last)


def is_late(s: Plain, dataset: bytes, record: Map) -> bool:
    p = terms(s, dataset)
    return 2 * (s.time - opens_at(p, dataset, record["period"])) > p.window_s


def no_seed(s: Plain, dataset: bytes, record: Map) -> None:
    record.update(phase="void", seed_height=0)
    s.alarms.add((ends_at(terms(s, dataset), dataset, record["period"]), DATASET, dataset))
    void(s, dataset, record["period"], record["period"])


def draw_seed(s: Plain, dataset: bytes) -> None:
    """A block after the one that opened the window, drawn by that one's beacon: its own is the seed's."""
    record = s.datasets[dataset]
    if is_late(s, dataset, record):
        no_seed(s, dataset, record)
        return
    period = record["period"]
    s.alarms.add((ends_at(terms(s, dataset), dataset, period), DATASET, dataset))
    seed = period_seed(s.genesis.chain_id, dataset, record["provider"], period, s.beacon)
    record.update(phase="open", seed=seed, seed_time=s.time, seed_height=s.height, stalled_s=s.stalled_s)
    s.emit(
        "window_opened",
        dataset=dataset,
        provider=record["provider"],
        period=period,
        seed=seed,
        closes_at=closes_at(terms(s, dataset), dataset, period),
    )


def fault(s: Plain, dataset: bytes, record: Map, *, declared: bool) -> None:
    provider = s.providers[record["provider"]]
    free = record["clean"] >= terms(s, dataset).grace_periods
    price = sum(s.price(place) for place in s.in_dataset(dataset))
    fee = price * terms(s, dataset).fault_fee_percent // (200 if declared else 100)
    fee = 0 if free else min(provider["stake"], fee)
    s.stake(record["provider"], -fee)
    s.burned += fee
    record["in_a_row"] += 1
    record["fault_total"] += 1
    record["clean"] = 0
    record["faulted"] = True
    provider["fault_total"] += 1
    p = terms(s, dataset)
    before = sum(record["faults"] >> i & 1 for i in range(p.fault_window - 1))
    record["terminating"] = record["in_a_row"] >= p.terminate_after or before + 1 >= p.fault_limit
    s.emit(
        "fault",
        dataset=dataset,
        provider=record["provider"],
        period=record["period"],
        fee=fee,
        in_a_row=record["in_a_row"],
        declared=declared,
    )


def turn(s: Plain, dataset: bytes, record: Map) -> None:
    """Pieces leave and join, each a piece of work; what is too much waits until others had their turn."""
    record["phase"] = "turning"
    current = period_at(terms(s, dataset), dataset, s.time)
    before = (s.in_dataset(dataset), dict(s.joining[dataset]))
    if record["terminating"]:
        for place in s.in_dataset(dataset)[: max(0, s.budget)]:
            s.budget -= 1
            terminate(s, place)
        if not s.in_dataset(dataset):
            record.update(terminating=False, in_a_row=0, faults=0, faulted=False)
    for place in over(s, dataset, current)[: max(0, s.budget)]:
        s.budget -= 1
        if s.shards[place]["struck"]:
            terminate(s, place)
            continue
        pay(s, place)
        let_go(s, place)
        if s.shards[place]["successor_accepted"]:
            pass_on(s, place)
        else:
            cover(s, place)
            close(s, place, "ended")
    if record["proven"]:
        for place in given_up(s, dataset)[: max(0, s.budget)]:
            s.budget -= 1
            give_up(s, place)
    for number, place in sorted(s.joining[dataset].items())[: max(0, s.budget)]:
        s.budget -= 1
        del s.joining[dataset][number]
        join(s, dataset, record, place, current)
    measure(s, dataset)
    if before != (s.in_dataset(dataset), s.joining[dataset]):
        s.emit(
            "dataset_changed",
            dataset=dataset,
            provider=record["provider"],
            period=current,
            pieces=record["pieces"],
        )
    left = record["terminating"] or s.joining[dataset] or over(s, dataset, current)
    left = left or (record["proven"] and given_up(s, dataset))
    if s.budget <= 0 and left:
        s.alarms.add((s.time, DATASET, dataset))
    elif record["pieces"] == record["expected"] == 0:
        drop(s, dataset, record)
    else:
        begin(s, dataset, record, current)


def over(s: Plain, dataset: bytes, current: int) -> list[Place]:
    """Pieces whose last period is before `current`, in the order in which they leave."""
    gone = [place for place in s.in_dataset(dataset) if s.shards[place]["last"] < current]
    return sorted(gone, key=lambda place: (s.shards[place]["last"], s.shards[place]["slot"]))


def given_up(s: Plain, dataset: bytes) -> list[Place]:
    return [place for place in s.in_dataset(dataset) if s.shards[place]["giving_up"]]


def join(s: Plain, dataset: bytes, record: Map, place: Place, current: int) -> None:
    shard, period_s = s.shards[place], terms(s, dataset).period_s
    begins = starts_at(terms(s, dataset), dataset, current)
    periods = s.deals[place[0]]["periods"]
    if shard["ends_at"]:
        periods = (shard["ends_at"] - begins) // period_s
    ends = shard["ends_at"] or begins + periods * period_s
    if s.deals[place[0]]["ending"] and periods > 1:
        periods, ends = 1, begins + period_s
    if periods <= 0:
        let_go(s, place)
        close(s, place, "terminated")
        return
    taken = {s.shards[each]["slot"] for each in s.in_dataset(dataset)}
    slot = next(number for number in range(len(taken) + 1) if number not in taken)
    record["slots"] = max(record["slots"], slot + 1)
    record["depth"] = max(record["depth"], slot.bit_length())
    shard.update(
        status="active",
        slot=slot,
        first=current,
        last=current + periods - 1,
        mark=record["proven_total"],
        ends_at=ends,
    )


def measure(s: Plain, dataset: bytes) -> None:
    """What the record says of its pieces."""
    record, pieces = s.datasets[dataset], s.in_dataset(dataset)
    data, meta = tree(s, dataset, "data"), tree(s, dataset, "meta")
    record.update(pieces=len(pieces), price_total=sum(s.price(place) for place in pieces))
    record.update(data_root=data.hash, data_leaves=data.sum, meta_root=meta.hash, meta_leaves=meta.sum)
    record["joining"] = len(s.joining[dataset])


def begin(s: Plain, dataset: bytes, record: Map, current: int) -> None:
    """The next period, or, if periods have passed between two blocks, a later one; those are void."""
    skipped = current - record["period"] - 1
    if skipped:
        void(s, dataset, record["period"] + 1, current - 1)
    phase = "waiting" if record["pieces"] else "resting"
    record.update(phase=phase, period=current, seed=b"", seed_time=0, seed_height=0, stalled_s=0)
    for of, row in (("proven", "history"), ("faulted", "faults")):
        bits = [record[of], *(record[row] >> i & 1 for i in range(KEPT_PERIODS))]
        bits = [*[0] * min(skipped, KEPT_PERIODS), *bits][:KEPT_PERIODS]
        record.update({of: False, row: sum(bit << i for i, bit in enumerate(bits))})
    wakes = opens_at if record["pieces"] else ends_at
    s.alarms.add((wakes(terms(s, dataset), dataset, current), DATASET, dataset))


def drop(s: Plain, dataset: bytes, record: Map) -> None:
    """Nothing is left: the slots are forgotten, highest first, each a piece of work; then the record."""
    count = min(record["slots"], max(0, s.budget))
    s.budget -= count
    record["slots"] -= count
    if record["slots"]:
        s.alarms.add((s.time, DATASET, dataset))
        return
    s.give(record["provider"], record["deposit"])
    del s.datasets[dataset], s.joining[dataset]
