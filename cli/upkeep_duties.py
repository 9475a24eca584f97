"""What the servers of a home do for its store by themselves, as duties of `storage_node.maintenance`."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from cli.healing import finder
from cli.servers import known_ledger
from storage_node.maintenance import Duty, Journal
from storage_node.maintenance_room import Watermarks
from storage_node.scrub import Damaged, Pace, Rounds, heal_listed, scrub

if TYPE_CHECKING:
    from cli.home import Home
    from storage_node.maintenance import Stop

LOOK_EVERY_S: Final = 30.0
NOTICE_S: Final = 5.0
HEAL_AGAIN_S: Final = 900.0
DAY_S: Final = 86_400
COLLECT_AGAIN_S: Final = 3600.0
WORK_SHARE: Final = 0.02  # of the time, at most, goes into collections that do not bring the use down
EVICTED_AT_ONCE_BYTES: Final = 1 << 30
SCRUB: Final = "scrub"
HEAL: Final = "heal"
ROOM: Final = "room"

Nap = Callable[[float], object]


def duties(home: Home, nap: Nap) -> list[Duty]:
    """All of them; `nap` sleeps and is woken when the process is to end."""
    found = [Duty(HEAL, _heal(home), locked=False), Duty(ROOM, _make_room(home), locked=True)]
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
    damaged, journal = Damaged(meta), Journal(meta)
    after: bytes | None = None

    def work(stop: Stop) -> float:
        nonlocal after
        if not damaged.count():
            return NOTICE_S
        with finder(home, known_ledger(home)) as find:
            done = heal_listed(store, damaged, find, stop, after)
        after = done.after
        journal.note(
            HEAL,
            {
                "at_s": int(time.time()),
                "healed": done.healed,
                "dropped": done.dropped,
                "not_found": len(done.lost),
            },
        )
        return 0.0 if after is not None else HEAL_AGAIN_S if done.lost else NOTICE_S

    return work


def _make_room(home: Home) -> Callable[[Stop], float]:
    """Keeps the cache within its bound; above the high mark evicts cache, then collects garbage."""
    from cli.commands_repo_gc import collector

    config = home.config
    store, rows, collects = home.open_store(), home.open_rows(), collector(home)
    journal = Journal(home.open_meta())
    high, low = (config.number(f"storage.gc_{mark}_percent") for mark in ("high", "low"))
    marks = Watermarks(config.number("storage.cache_bytes"), high, low)
    again_s = 0.0  # on the clock below: when the next collection may begin

    def evict(stop: Stop) -> None:
        stat = store.stat()
        target, left = marks.cache_target(stat), stat.cache_bytes
        while left > target and not stop():
            left = max(target, left - EVICTED_AT_ONCE_BYTES)
            store.evict(left, rows.forget)

    def work(stop: Stop) -> float:
        nonlocal again_s
        evict(stop)
        if collects.unfinished() or (marks.is_high(store.stat()) and time.monotonic() >= again_s):
            if not collects.collect(anew=False, stop=stop).complete:
                return 0.0
            last = journal.last("gc") or {}
            rest_s = float(last.get("seconds", 0)) / WORK_SHARE
            again_s = time.monotonic() + max(COLLECT_AGAIN_S, rest_s)
        return LOOK_EVERY_S

    return work
