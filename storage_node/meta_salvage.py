"""Makes a new meta file out of whatever is intact in a damaged one, and remembers what may be gone.

Records have no hash that could tell a right one from an old one. What the intact pages of the last
transaction hold is taken as it is. Only for keys that damage may have taken the newest readable copy counts,
so that pins which were removed, or values which were replaced, may return there. What can be made again from
the rest is left out: indexes and counters of pins. As long as pins or roots may be missing, nobody collects:
blocks that seem to be garbage may be all that is left of them.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from merkledag.cid import CID
from merkledag.errors import DecodeError, InvalidCID
from storage_node import pin_jobs, pins
from storage_node.blockstore.environment import STATE
from storage_node.blockstore.page_entries import Trust, entries, worth_reading
from storage_node.blockstore.page_survey import KeyRange, Survey
from storage_node.blockstore.pages import Big, Damage, Leaf, PageFile
from storage_node.blockstore.replacing import Replaced, replace_file
from storage_node.blockstore.salvage import Writer
from storage_node.errors import BlockRefused, CorruptStore
from storage_node.meta import Meta, Table

LOSS_KEY: Final = b"records-lost"  # in Table.RECORDS: when, and in which file, while nobody may collect
MAX_UNREAD: Final = 10_000  # long values that are looked for among older copies

_DERIVED: Final = frozenset((Table.PIN_NAMES, Table.PIN_EDGES, Table.PIN_NODES, Table.PIN_QUEUE))
# Computed again when they are missing.
_REPEATABLE: Final = frozenset((Table.COMMITMENTS, Table.KZG_COMMITMENTS))
_ROOTS: Final = (Table.PINS, Table.RECORDS, Table.PIN_JOBS, Table.PIN_MOVES)  # what a collection goes by
# Of records that are not certain: what is found out again, and would not fit together.
_STALE: Final = (b"damaged", b"scrub-round/", b"gc-journal", b"maintenance")
_TABLES: Final = {each.value: each for each in Table}


@dataclass(slots=True)
class MetaSalvaged:
    """What came out of the meta file: `old` of the records from where the file no longer used them.

    `may_lack` says that pins, files, names or jobs may be missing or old, `dropped` how many were unreadable.
    """

    records: int = 0
    pins: int = 0
    old: int = 0
    dropped: int = 0
    may_lack: bool = False


def salvage_meta(folder: Path, now_s: int) -> tuple[Replaced, MetaSalvaged]:
    """Replace the damaged file of the meta store in `folder`. Raises FileInUse, StoreFull, StoreFailed."""

    def fill(source: PageFile, found: Survey, fresh: Writer, _: Writer) -> MetaSalvaged:
        return _Salvage(source, found, fresh).run(now_s)

    return replace_file(folder / "meta-00", fill)


def loss(meta: Meta) -> str | None:
    """Which file lost records that a collection would have to know, None if none did."""
    record = meta.get(Table.RECORDS, LOSS_KEY)
    return None if record is None else str(json.loads(record)["file"])


def accept_loss(meta: Meta) -> None:
    """Whoever looked has pinned again what was missing: collections may go on."""
    meta.delete(Table.RECORDS, LOSS_KEY)


class _Salvage:
    """One salvage; `fresh` becomes the new file."""

    def __init__(self, file: PageFile, found: Survey, fresh: Writer) -> None:
        self._file = file
        self._found = found
        self._fresh = fresh
        self._unread: set[bytes] = set()
        self._last_job = 0
        self._result = MetaSalvaged()

    def run(self, now_s: int) -> MetaSalvaged:
        """Copy everything, the most certain first: what is there already is not replaced."""
        trusts = worth_reading(self._file, self._found)
        for trust in trusts:
            for entry in entries(self._file, self._found, trust):
                self._take(entry, trust)
        if self._unread and Trust.OLD not in trusts:
            for entry in entries(self._file, self._found, Trust.OLD):
                self._take(entry, Trust.OLD)
        result = self._result
        for key in sorted(self._unread):
            if key[:1] == Table.PINS.value and (bare := _bare_pin(key[1:])) is not None:
                self._fresh.put(key, bare)
                self._unread.discard(key)
                result.records, result.pins = result.records + 1, result.pins + 1
        result.dropped += len(self._unread)
        result.may_lack = result.dropped > 0 or (
            Trust.OLD in trusts and any(self._found.has_lost_of(_range(table)) for table in _ROOTS)
        )
        self._count_jobs()
        if result.may_lack:
            document = {"at_s": now_s, "file": self._file.path.name}
            self._fresh.put(Table.RECORDS.value + LOSS_KEY, json.dumps(document).encode())
        return result

    def _take(self, entry: Leaf, trust: Trust) -> None:
        table = _TABLES.get(entry.key[:1])
        key = entry.key[1:]
        certain = self._found.knows_newest and trust <= Trust.CUT_OFF
        if trust is not Trust.NOW and not (self._found.may_have_lost(entry.key) or entry.key in self._unread):
            return
        if entry.key[:1] == STATE or table in _DERIVED or entry.key == Table.RECORDS.value + pins.COUNTS_KEY:
            return
        if not certain and (table is None or table in _REPEATABLE or self._is_stale(table, key)):
            return
        if not key or self._fresh.txn.get(entry.key) is not None:
            return
        try:
            value = self._value(entry)
            also = _CHECKS[table](key, value) if table in _CHECKS else None
        except (Damage, CorruptStore, BlockRefused):
            self._miss(entry.key, trust)
            return
        self._unread.discard(entry.key)
        self._fresh.put(entry.key, value)
        if also is not None:
            self._fresh.put(also, b"")
        self._result.records += 1
        self._result.pins += table is Table.PINS
        self._result.old += trust is Trust.OLD
        if table is Table.PIN_JOBS:
            self._last_job = max(self._last_job, int.from_bytes(key))

    def _value(self, entry: Leaf) -> bytes:
        return self._file.big_value(entry.value) if isinstance(entry.value, Big) else entry.value

    def _miss(self, key: bytes, trust: Trust) -> None:
        """A record that cannot be read: perhaps an older copy of it can."""
        if trust > Trust.CUT_OFF:
            return
        if len(self._unread) < MAX_UNREAD:
            self._unread.add(key)
        else:
            self._result.dropped += 1

    def _is_stale(self, table: Table, key: bytes) -> bool:
        return table is Table.RECORDS and key.startswith(_STALE)

    def _count_jobs(self) -> None:
        """No number of a pin job is given away twice."""
        key = Table.RECORDS.value + pin_jobs.NUMBER_KEY
        last = self._fresh.txn.get(key)
        if self._last_job > (0 if last is None else int.from_bytes(last)):
            self._fresh.put(key, self._last_job.to_bytes(8))


def _range(table: Table) -> KeyRange:
    return KeyRange(table.value, bytes((table.value[0] + 1,)))


def _check_pin(key: bytes, value: bytes) -> bytes | None:
    """The pin's key in the index by name."""
    pin = pins.decode_pin(key, value)
    if pins.pin_key(pin.cid) != key:
        raise CorruptStore("a pin under another's key")
    name = pins.name_key(pin)
    return None if name is None else Table.PIN_NAMES.value + name


def _bare_pin(key: bytes) -> bytes | None:
    """A pin of which nothing but its key is known: it keeps as much as one can."""
    try:
        return pins.encode_pin(pins.Pin(CID.decode(key), pins.PinMode.RECURSIVE))
    except (DecodeError, InvalidCID):
        return None


def damaged_pins(meta: Meta) -> list[bytes]:
    """The keys of pins that cannot be read."""
    found = []
    for key, value in meta.items(Table.PINS):
        try:
            _check_pin(key, value)
        except (CorruptStore, BlockRefused):
            found.append(key)
    return found


def repair_pins(meta: Meta, keys: list[bytes]) -> None:
    """Let pins that cannot be read go on as recursive ones without a name; their keys are their CIDs."""
    with meta.write() as write:
        for key in keys:
            bare = _bare_pin(key)
            if bare is None:
                write.delete(Table.PINS, key)
            else:
                write.put(Table.PINS, key, bare)
        write.delete(Table.RECORDS, pins.COUNTS_KEY)  # counted when they are asked for


def _check_job(key: bytes, value: bytes) -> None:
    pin_jobs.decode_job(key, value)


_CHECKS: Final[dict[Table | None, Callable[[bytes, bytes], bytes | None]]] = {
    Table.PINS: _check_pin,
    Table.PIN_JOBS: partial(_check_job),
}
