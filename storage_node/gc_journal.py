"""Where a collection keeps what it has found, so that the next one can go on if it is stopped or killed.

A folder with four files: `state` (a small JSON document, replaced as a whole), `marks` (a FingerprintTable)
and two queues of nodes whose links are still to be read. What is written, and in which order, makes every
moment a good one to be killed at:

- a node goes into a queue before it is marked as queued, so what is marked is in a queue or was there;
- the head of a queue moves in `state`, after everything that its nodes link to is queued or marked.

A power cut may lose writes in any order, so while marks are being made the folder counts for this boot of the
machine alone; once they are complete they are brought to the disk, and after a boot compared with their hash.
"""

from __future__ import annotations

import errno
import fcntl
import io
import json
import os
import secrets
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from enum import IntEnum
from pathlib import Path

from merkledag.cid import CID
from merkledag.errors import InvalidCID
from storage_node.blockstore.disk import write_durably
from storage_node.errors import CorruptStore, LockHeld, StoreFull
from storage_node.fingerprints import FingerprintTable
from storage_node.meta import Meta, Table

JOURNAL_KEY = b"gc-journal"  # in Table.RECORDS: the ID of the collection that the folder belongs to
QUEUES = ("whole", "partial")
DRY = "dry"
MAX_STATE_BYTES = 1 << 16
TAKE_BYTES = 16 * 1024
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


class Phase(IntEnum):
    """How far a collection is: which roots it reads, or that it frees."""

    PINS = 0
    ROOTS = 1
    PARTIAL = 2
    SWEEP = 3


@dataclass(slots=True)
class State:
    """A collection between two of its steps. CIDs and multihashes are hexadecimal, "" is none yet."""

    id: str
    boot: str
    limit: int  # stamps below this one may be freed
    phase: Phase = Phase.PINS
    pin: str = ""  # the last pin that was read
    heads: list[int] = field(default_factory=lambda: [0, 0])  # where the queues go on
    ends: list[int] = field(default_factory=lambda: [0, 0])  # up to where at least they are whole
    marked: int = 0  # at least so many keys have marks
    marks: str = ""  # what the complete marks hash to
    cursor: str = ""  # the last multihash that the sweep has passed
    kept: list[int] = field(default_factory=lambda: [0, 0])  # blocks, bytes
    freed: dict[str, list[int]] = field(default_factory=dict)  # blocks, bytes by the name of their class
    to_deal: int = 0


class Queue:
    """CIDs in the order in which they came, in a file that only grows.

    `head` is where `take` goes on; up to `end` records are whole.
    """

    def __init__(self, file: io.FileIO | io.BytesIO, head: int = 0, end: int = 0) -> None:
        """The queue in a file, which is known to be whole up to `end`. Raises CorruptStore if it is not."""
        if file.seek(0, os.SEEK_END) < end or not 0 <= head <= end:
            raise CorruptStore("a queue of the collection lost its end")
        self._file = file
        self.head = head
        self._next = self.end = end
        while self.take():
            continue
        self.end = self._next
        self._next = head
        file.truncate(self.end)  # a record that was cut off

    def push(self, cids: Iterable[CID]) -> None:
        """Append; what this returned from is in the file. Raises OSError for no room."""
        records = bytearray()
        for cid in cids:
            raw = bytes(cid)
            records += len(raw).to_bytes(2, "big") + raw
        self._file.seek(self.end)
        view = memoryview(records)
        while view:
            view = view[self._file.write(view) :]
        self.end += len(records)

    def take(self) -> list[tuple[CID, int]]:
        """The next ones, a bounded number, each with the place behind it; empty at the end.

        Raises CorruptStore.
        """
        self._file.seek(self._next)
        data = self._file.read(TAKE_BYTES)
        found: list[tuple[CID, int]] = []
        at = 0
        while at + 2 <= len(data):
            end = at + 2 + int.from_bytes(data[at : at + 2], "big")
            if end > len(data):
                break
            try:
                found.append((CID.decode(data[at + 2 : end]), self._next + end))
            except InvalidCID as error:
                raise CorruptStore(f"a queue of the collection is damaged: {error}") from error
            at = end
        if at == 0 and self._next < self.end:
            raise CorruptStore("a queue of the collection is damaged")
        self._next += at
        return found

    def done(self, to: int) -> None:
        """What was taken up to that place need not be taken again."""
        self.head = to

    def close(self) -> None:
        """Close the file."""
        self._file.close()


class Workspace:
    """What one collection works with: its state, marks and queues of nodes, of whole and of partial DAGs."""

    def __init__(self, state: State, marks: FingerprintTable, queues: list[Queue], path: Path | None) -> None:
        self.state = state
        self.marks = marks
        self.queues = queues
        self._path = path

    @classmethod
    def unrecorded(cls, limit: int, keys: int) -> Workspace:
        """One that nothing is left of, in memory; it cannot be resumed."""
        return cls(
            State("", "", limit),
            FingerprintTable(None, keys),
            [Queue(io.BytesIO()), Queue(io.BytesIO())],
            None,
        )

    def save(self) -> None:
        """Let the next collection begin here if this one is killed now."""
        if self._path is None:
            return
        self.state.heads = [queue.head for queue in self.queues]
        self.state.ends = [queue.end for queue in self.queues]
        self.state.marked = len(self.marks)
        text = json.dumps(asdict(self.state)).encode()
        partial = self._path.with_name("state.tmp")
        partial.write_bytes(text)
        partial.replace(self._path)

    def begin_sweep(self) -> None:
        """The marks are complete: bring them to the disk."""
        self.state.phase = Phase.SWEEP
        if self._path is not None:
            self.marks.sync()
            self.state.marks = self.marks.digest().hex()
            write_durably(self._path, json.dumps(asdict(self.state)).encode())

    def close(self) -> None:
        """Let go of files and memory."""
        self.marks.close()
        for queue in self.queues:
            queue.close()


class GcJournal:
    """The folder of the collections of one store, for one process at a time (`with`).

    Raises LockHeld at the entry, OSError where the disk has no room.
    """

    def __init__(self, folder: Path, meta: Meta) -> None:
        self._folder = folder
        self._meta = meta
        self._state = folder / "state"
        self._lock = -1

    def __enter__(self) -> GcJournal:
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._lock = os.open(self._folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._lock)
            raise LockHeld(f"{self._folder}: another process collects here", None) from None
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._lock)

    def begin(self, limit: int, keys: int) -> Workspace:
        """A new collection of a store with so many blocks; what an earlier one left goes."""
        self.discard()
        state = State(secrets.token_hex(16), _boot(), limit)
        marks = FingerprintTable(self._folder / "marks", keys)
        queues = [Queue(self._open(name, "w+b")) for name in QUEUES]
        # A copy of the folder beside other records (a restored backup) must not be taken for theirs.
        work = Workspace(state, marks, queues, self._state)
        try:
            self._meta.put(Table.RECORDS, JOURNAL_KEY, state.id.encode())
        except StoreFull as error:
            work.close()
            raise OSError(errno.ENOSPC, str(error)) from error
        return work

    def resume(self) -> Workspace | None:
        """The collection that was stopped or killed, None if there is none or it cannot go on."""
        try:
            with self._state.open("rb") as source:
                state = State(**json.loads(source.read(MAX_STATE_BYTES)))
            state.phase = Phase(state.phase)
            _ = bytes.fromhex(state.cursor), bytes.fromhex(state.pin)
            if self._meta.get(Table.RECORDS, JOURNAL_KEY) != state.id.encode():
                return None
            same_boot = bool(state.boot) and state.boot == _boot()
            if not same_boot and state.phase is not Phase.SWEEP:
                return None
            with ExitStack() as opened:
                marks = FingerprintTable.open(self._folder / "marks")
                opened.callback(marks.close)
                if state.phase is Phase.SWEEP:
                    intact = marks.digest().hex() == state.marks
                else:
                    intact = marks.recount() >= state.marked
                if not intact:
                    return None
                state.boot = _boot()
                queues: list[Queue] = []
                for name, head, end in zip(QUEUES, state.heads, state.ends, strict=True):
                    file = opened.enter_context(self._open(name, "r+b"))
                    queues.append(Queue(file, head, end))
                opened.pop_all()
        except (FileNotFoundError, ValueError, TypeError, AttributeError, RecursionError, CorruptStore):
            return None
        return Workspace(state, marks, queues, self._state)

    def unfinished(self) -> bool:
        """Whether there is something to go on with."""
        return self._state.exists()

    def discard(self) -> None:
        """Forget what is recorded: first the state, without which the rest counts for nothing."""
        for name in ("state", "state.tmp", "marks", "marks.new", *QUEUES):
            (self._folder / name).unlink(missing_ok=True)

    def aside(self, limit: int, keys: int) -> Workspace:
        """A workspace that leaves the recorded one alone and nothing behind, for a dry run."""
        marks = FingerprintTable(self._folder / DRY, keys, keep=False)
        queues = [Queue(self._open(f"{DRY}-{name}", "w+b")) for name in QUEUES]
        for name in QUEUES:
            (self._folder / f"{DRY}-{name}").unlink()  # it goes when it is closed
        return Workspace(State("", "", limit), marks, queues, None)

    def _open(self, name: str, mode: str) -> io.FileIO:
        return io.FileIO(self._folder / name, mode)


def _boot() -> str:
    """What tells this run of the machine from others, "" where that is not known."""
    try:
        return _BOOT_ID.read_text().strip()
    except OSError:
        return ""
