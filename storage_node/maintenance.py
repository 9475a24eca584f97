"""What a server does for its store by itself: duties that take turns, one short slice of work at a time.

Nothing here knows what the duties do. Each works in slices; between them, and as soon as somebody else
waits for it, the lock of the maintenance is free, so that no command waits for long. What each did last, or
why it could not, is kept in the meta store for `repo stat`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Final

from storage_node.errors import LockHeld, StorageNodeError
from storage_node.meta import Meta, Table

SLICE_S: Final = 5.0
LOCKED_SLICE_S: Final = 60.0  # of work that costs something to take up again; it yields to who waits
BREATH_S: Final = 0.1  # the lock stays free for so long: longer than the pauses of who waits for it
RETRY_S: Final = 600.0
LOCKED_S: Final = 1.0
LONGEST_NAP_S: Final = 60.0
HEAL: Final = "heal"  # the names of a server's duties, also where others note that they did one
GC: Final = "gc"
COMPACTION: Final = "compaction"
SCRUB: Final = "scrub"
INDEX: Final = "index"
BACKUP: Final = "backup"  # these no server does, but people ask when they were done last
VERIFY: Final = "verify"
_KEY: Final = b"maintenance/"
_PROBLEM: Final = b"maintenance-problem/"

Stop = Callable[[], bool]


@dataclass(frozen=True, slots=True)
class Duty:
    """One kind of work. `work(stop)` does a slice, ending soon after `stop` says so.

    It returns after how many seconds it wants to be called again; 0 means that there is more to do now.
    `locked`: it is called with the lock of the maintenance held.
    """

    name: str
    work: Callable[[Stop], float]
    locked: bool


class DutyRecords:
    """What each duty did last, and what stood in its way since, as small documents."""

    def __init__(self, meta: Meta) -> None:
        self._meta = meta

    def note(self, duty: str, facts: Mapping[str, int | float | str]) -> None:
        """A duty did its work; nothing stands in its way any more."""
        with self._meta.write() as write:
            write.put(Table.RECORDS, _KEY + duty.encode(), json.dumps(dict(facts)).encode())
            write.delete(Table.RECORDS, _PROBLEM + duty.encode())

    def problem(self, duty: str, at_s: int, text: str) -> None:
        """A duty could not do its work."""
        document = {"at_s": at_s, "problem": text}
        self._meta.put(Table.RECORDS, _PROBLEM + duty.encode(), json.dumps(document).encode())

    def solved(self, duty: str) -> None:
        """Nothing stands in a duty's way any more."""
        if self._meta.get(Table.RECORDS, _PROBLEM + duty.encode()) is not None:
            self._meta.delete(Table.RECORDS, _PROBLEM + duty.encode())

    def last(self, duty: str) -> dict[str, Any] | None:
        """What a duty did last."""
        record = self._meta.get(Table.RECORDS, _KEY + duty.encode())
        return None if record is None else json.loads(record)

    def problems(self) -> dict[str, dict[str, Any]]:
        """What stands in the way of which duties."""
        rows = self._meta.items(Table.RECORDS, _PROBLEM)
        return {key.removeprefix(_PROBLEM).decode(): json.loads(value) for key, value in rows}


class Maintenance:
    """Runs duties, the first that is due first. `clock` is monotonic, `wall_clock` Unix seconds.

    `lock` takes the lock of the maintenance and may raise LockHeld, `is_wanted` says whether somebody waits
    for it, `nap` sleeps for at most so many seconds and returns early when `stop` has come true.
    """

    def __init__(
        self,
        duties: Sequence[Duty],
        records: DutyRecords,
        *,
        lock: Callable[[], AbstractContextManager[None]],
        is_wanted: Stop,
        clock: Callable[[], float],
        wall_clock: Callable[[], float],
        nap: Callable[[float], object],
        stop: Stop,
        tell: Callable[[str], object],
    ) -> None:
        self._duties = duties
        self._records = records
        self._lock = lock
        self._is_wanted = is_wanted
        self._clock = clock
        self._wall_clock = wall_clock
        self._nap = nap
        self._stop = stop
        self._tell = tell
        self._due_s = {duty.name: clock() for duty in duties}
        self._told: dict[str, str] = {}

    def run(self) -> None:
        """Work until `stop`."""
        while not self._stop():
            duty = min(self._duties, key=lambda each: self._due_s[each.name])
            wait_s = self._due_s[duty.name] - self._clock()
            if wait_s > 0:
                self._nap(min(wait_s, LONGEST_NAP_S))
            else:
                self._due_s[duty.name] = self._slice(duty) + self._clock()
                self._nap(BREATH_S)

    def _slice(self, duty: Duty) -> float:
        """One slice of a duty; in how many seconds it wants the next one."""
        ends_s = self._clock() + (LOCKED_SLICE_S if duty.locked else SLICE_S)

        def over() -> bool:
            return self._stop() or self._clock() >= ends_s or (duty.locked and self._is_wanted())

        try:
            with self._lock() if duty.locked else nullcontext():
                rest_s = duty.work(over)
            self._records.solved(duty.name)  # it may have been another process that had the problem
        except LockHeld:
            return LOCKED_S
        except (StorageNodeError, OSError) as error:
            return self._failed(duty, str(error))
        self._told.pop(duty.name, None)
        return rest_s

    def _failed(self, duty: Duty, problem: str) -> float:
        """Say it, once, and try again later: most of what can happen passes, or waits for somebody."""
        if self._told.get(duty.name) != problem:
            self._told[duty.name] = problem
            self._tell(f"{duty.name}: {problem}")
            try:
                self._records.problem(duty.name, int(self._wall_clock()), problem)
            except StorageNodeError as error:
                self._tell(f"{duty.name}: this could not be recorded: {error}")
        return RETRY_S
