"""What the servers of a home do for its store by themselves, as duties of `storage_node.maintenance`."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Final

from cli.healing import finder
from cli.servers import known_ledger
from storage_node.errors import StoreFull
from storage_node.gc_policy import LastCollection, Watermarks, plan
from storage_node.maintenance import COMPACTION, GC, HEAL, INDEX, SCRUB, Duty, DutyRecords
from storage_node.pin_index import PinIndex
from storage_node.scrub import Damaged, Healed, Pace, Rounds, heal_listed, scrub

if TYPE_CHECKING:
    from cli.home import Home
    from storage_node.maintenance import Stop

LOOK_EVERY_S: Final = 30.0
NOTICE_S: Final = 5.0
HEAL_AGAIN_S: Final = 900.0
DAY_S: Final = 86_400
EVICTED_AT_ONCE_BYTES: Final = 1 << 30
COMPACT_EVERY_S: Final = 300.0
INDEX_AGAIN_S: Final = 600.0

Nap = Callable[[float], object]


def duties(home: Home, nap: Nap) -> list[Duty]:
    """All of them; `nap` sleeps and is woken when the process is to end."""
    found = [
        Duty(HEAL, _heal(home), locked=False),
        Duty(GC, _make_room(home), locked=True),
        Duty(COMPACTION, _compact(home), locked=True),
        Duty(INDEX, _index_pins(home), locked=False),
    ]
    if days := home.config.number("storage.scrub_days"):
        found.append(Duty(SCRUB, _scrub(home, days * DAY_S, nap), locked=False))
    return found


def _scrub(home: Home, period_s: int, nap: Nap) -> Callable[[Stop], float]:
    store, meta = home.open_store(), home.open_meta()
    rounds, damaged = Rounds(meta, SCRUB), Damaged(meta)
    pace = Pace(home.config.number("storage.scrub_rate") or None, time.monotonic, nap)

    def work(stop: Stop) -> float:
        last = rounds.last()
        if rounds.current() is None and last is not None and last.ended_s is not None:
            left_s = last.ended_s + period_s - time.time()
            if 0 < left_s <= period_s:
                return min(left_s, LOOK_EVERY_S)
        # One thread: this runs beside everything else, and nobody waits for it.
        scrub(store, rounds, damaged, clock=time.time, pace=pace, threads=1, stop=stop)
        return 0.0

    return work


def _heal(home: Home) -> Callable[[Stop], float]:
    store, meta = home.open_store(), home.open_meta()
    damaged, records = Damaged(meta), DutyRecords(meta)
    after: bytes | None = None

    def work(stop: Stop) -> float:
        nonlocal after
        if not damaged.count():
            return NOTICE_S
        with finder(home, known_ledger(home)) as find:
            done = heal_listed(store, damaged, find, stop, after)
        after = done.after
        records.note(HEAL, healing_facts(done))
        return 0.0 if after is not None else HEAL_AGAIN_S if done.lost else NOTICE_S

    return work


def _make_room(home: Home) -> Callable[[Stop], float]:
    """Evicts cache and collects garbage when `gc_policy` says so, and goes on with what was interrupted."""
    config = home.config
    marks = Watermarks(
        config.number("storage.gc_high_percent"),
        config.number("storage.gc_low_percent"),
        config.number("storage.cache_bytes"),
    )
    store, rows, collects = home.open_store(), home.open_rows(), home.open_collector()
    records = DutyRecords(home.open_meta())

    def forget(multihashes: list[bytes]) -> None:
        with suppress(StoreFull):  # what makes room must not end for lack of it; a row too many does no harm
            rows.forget(multihashes)

    def work(stop: Stop) -> float:
        stat, noted = store.stat(), records.last(GC)
        last = None if noted is None else LastCollection(noted["at_s"], noted["kept_bytes"])
        now = plan(stat, marks, last, time.time())
        left = stat.cache_bytes
        while now.evict_to_bytes is not None and left > now.evict_to_bytes and not stop():
            left = max(now.evict_to_bytes, left - EVICTED_AT_ONCE_BYTES)
            home.freeing(partial(store.evict, left, forget))
        if now.collect or collects.unfinished():
            collect = partial(collects.collect, anew=False, stop=stop)
            done = home.freeing(collect, partial(collect, recorded=False))
            return LOOK_EVERY_S if done.complete else 0.0
        home.keep_ballast()
        return LOOK_EVERY_S

    return work


def _compact(home: Home) -> Callable[[Stop], float]:
    """Compacts files that hold much free space; and frees what killed processes left behind."""
    store, records = home.open_store(), DutyRecords(home.open_meta())

    def work(stop: Stop) -> float:
        store.tidy()
        if store.wants_compaction():
            began_s = time.monotonic()
            shrunk_bytes = store.compact(only_wasteful=True, stop=stop)
            records.note(COMPACTION, compaction_facts(shrunk_bytes, time.monotonic() - began_s))
        return COMPACT_EVERY_S

    return work


def _index_pins(home: Home) -> Callable[[Stop], float]:
    """Brings new pins into the index, so that whoever asks which pins need a block need not wait for that."""
    index = PinIndex(home.open_meta(), home.open_pins(), home.open_store())
    after = b""
    unfinished = 0

    def work(stop: Stop) -> float:
        nonlocal after, unfinished
        before, caught = after, index.catch_up(stop, after)
        unfinished += caught.unfinished
        if caught.after is not None:
            after = caught.after
            return 0.0 if after != before else LOOK_EVERY_S  # in a DAG that is larger than a slice
        pause_s = INDEX_AGAIN_S if unfinished else LOOK_EVERY_S
        after, unfinished = b"", 0
        return pause_s

    return work


def healing_facts(done: Healed) -> dict[str, int]:
    """What `repo stat` says of the last healing."""
    return {
        "at_s": int(time.time()),
        "healed": done.healed,
        "dropped": done.dropped,
        "not_found": len(done.lost),
    }


def compaction_facts(shrunk_bytes: int, took_s: float) -> dict[str, int | float]:
    """What `repo stat` says of the last compaction."""
    return {"at_s": int(time.time()), "seconds": round(took_s, 3), "freed_bytes": shrunk_bytes}
