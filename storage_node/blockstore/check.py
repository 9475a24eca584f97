"""Whether a store is consistent in itself, and its repair; `verify.py` looks at hashes, this does not.

Each shard is looked at in one read transaction, so blocks that come and go meanwhile are no findings; pages
that are freed meanwhile are not reused before it ends. Memory is bounded: a bitmap of data IDs and a bounded
number of findings of each kind; a repair looks again until it finds nothing that it can repair.
"""

from __future__ import annotations

import enum
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from merkledag import multihash as mh
from merkledag import varint
from merkledag.errors import MerkledagError
from storage_node.blockstore.environment import Environment, Txn
from storage_node.blockstore.interface import BlockClass
from storage_node.blockstore.layout import is_ours
from storage_node.blockstore.store import Store
from storage_node.blockstore.tables import (
    DATA,
    LOST,
    ROWS,
    USES,
    Counters,
    Row,
    data_id,
    data_key,
    epoch_of,
    pack_row,
    recount,
    split_use_key,
    unpack_row,
    use_key,
)
from storage_node.errors import CorruptStore

MAX_FINDINGS = 1000  # of a kind in a shard that are listed, and repaired in one transaction; all are counted
WINDOW_IDS = 1 << 26  # data IDs that are looked at in one pass over the rows: a bitmap of 8 MiB
ROWS_PER_STEP = 8192  # between two calls of `progress`


class Kind(enum.Enum):
    """What can be wrong."""

    FILE = "file"  # its pages are damaged: salvage takes what is intact into a new one (`salvage.py`)
    ROW = "row"  # cannot be decoded; repaired with the block's bytes if they are here, else it becomes LOST
    NO_BYTES = "no_bytes"  # a row whose bytes are missing or of another length; repaired like ROW
    LOST = "lost"  # a block that was here and whose bytes are lost: heal it, put it, or drop it (`verify.py`)
    NO_ROW = "no_row"  # bytes that no row refers to; repaired: they come back under their hash, or go
    SHARED = "shared"  # two rows refer to the same bytes: `verify` says which block is damaged
    INDEX = "index"  # the index of cached blocks and their rows differ; repaired
    COUNTERS = "counters"  # differ from the rows; repaired
    STRAY = "stray"  # a file left by something that was killed; repaired by deletion
    FOREIGN = "foreign"  # a file that is none of ours; left alone
    ASIDE = "aside"  # a damaged file that a salvage has left: for whoever misses something
    LEASE = "lease"  # of a process that is gone; repaired by deletion
    PIECE = "piece"  # a held piece's file; repaired from the blocks (`piece_repair.py`), or by its node
    PIN = "pin"  # cannot be read; repaired: its key says what was pinned (`meta_salvage.py`)


REPAIRABLE = frozenset(Kind) - {Kind.FILE, Kind.LOST, Kind.SHARED, Kind.FOREIGN, Kind.ASIDE}
HARMLESS = frozenset((Kind.STRAY, Kind.FOREIGN, Kind.ASIDE, Kind.LEASE))


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong in a file; `key` is LMDB's where it is about one entry."""

    kind: Kind
    file: str
    message: str
    key: bytes = b""

    @property
    def repairable(self) -> bool:
        """Whether `repair` takes it away."""
        return self.kind in REPAIRABLE


@dataclass(frozen=True, slots=True)
class CheckReport:
    """What was looked at, up to MAX_FINDINGS findings of each kind and shard, and how many there are of each.

    `repaired` is how many a repair took away before this last look.
    """

    blocks: int
    bytes: int
    findings: tuple[Finding, ...]
    counts: dict[Kind, int]
    repaired: int = 0

    @property
    def clean(self) -> bool:
        """Whether nothing was found."""
        return not self.counts


def check(store: Store, progress: Callable[[int], None] | None = None) -> CheckReport:
    """Look at everything and change nothing; `progress` is told the number of rows so far, now and then."""
    notes = _Notes(progress)
    for shard in store.shards:
        _check_shard(notes, shard.environment)
    _check_files(notes, store)
    for lease in store.leases.dead():
        notes.add(Kind.LEASE, lease.name, "the lease of a process that is gone")
    return CheckReport(notes.counted.blocks, notes.counted.bytes, tuple(notes.findings), dict(notes.counts))


def repair(store: Store, progress: Callable[[int], None] | None = None) -> CheckReport:
    """Take away what can be repaired; returns how the store is then.

    Blocks whose bytes are nowhere are noted as LOST, cached ones forgotten. Writers of a shard wait while it
    is repaired. Run it alone: under `run/daemon.lock`. Raises StoreFull, StoreFailed.
    """
    repaired = 0
    before = check(store, progress)
    while any(kind in REPAIRABLE for kind in before.counts):
        for shard in store.shards:
            mine = [each for each in before.findings if each.file == shard.environment.path.name]
            if any(each.repairable for each in mine):
                _repair_shard(shard.environment, mine, shard.number, len(store.shards))
        _remove_strays(store)
        store.leases.oldest()  # removes those of dead processes
        after = check(store)
        done = set(before.findings).difference(after.findings)
        before = after
        if not done:
            break
        repaired += len(done)
    return CheckReport(before.blocks, before.bytes, before.findings, before.counts, repaired)


@dataclass(slots=True)
class _Notes:
    """What a check has seen so far."""

    progress: Callable[[int], None] | None
    findings: list[Finding] = field(default_factory=list)
    counts: Counter[Kind] = field(default_factory=Counter)
    listed: Counter[tuple[Kind, str]] = field(default_factory=Counter)
    counted: Counters = field(default_factory=Counters)
    rows: int = 0

    def add(self, kind: Kind, file: str, message: str, key: bytes = b"") -> None:
        """Count a finding, and list it unless there are enough."""
        self.counts[kind] += 1
        self.listed[kind, file] += 1
        if self.listed[kind, file] <= MAX_FINDINGS:
            self.findings.append(Finding(kind, file, message, key))

    def count_row(self) -> None:
        """A row was looked at."""
        self.rows += 1
        if self.progress is not None and self.rows % ROWS_PER_STEP == 0:
            self.progress(self.rows)


# --- one shard ---


def _check_shard(notes: _Notes, environment: Environment) -> None:
    name = environment.path.name
    try:
        with environment.read_settled() as txn:
            counted = _check_rows(notes, name, txn)
            for block_class, of_class in zip(BlockClass, counted.by_class, strict=True):
                notes.counted.add(of_class.blocks, of_class.bytes, block_class)
            _check_counters(notes, name, txn, counted)
            _check_index(notes, name, txn)
            _check_data(notes, name, txn)
    except CorruptStore as error:
        notes.add(Kind.FILE, name, str(error))


def _check_rows(notes: _Notes, name: str, txn: Txn) -> Counters:
    counted = Counters()
    for view, value in _items(txn, ROWS):
        notes.count_row()
        key, row = bytes(view), unpack_row(value)
        block = f"block {key[1:].hex()}"
        if value == LOST:
            notes.add(Kind.LOST, name, f"{block} is lost", key)
            continue
        if row is None:
            notes.add(Kind.ROW, name, f"the row of {block} is damaged", key)
            continue
        counted.add(1, row.length, row.block_class)
        data = txn.get(row.data_key)
        if data is None or len(data) != row.length:
            what = "no bytes" if data is None else f"{len(data)} bytes instead of {row.length}"
            notes.add(Kind.NO_BYTES, name, f"{block} has {what}", key)
        if row.block_class is BlockClass.CACHE:
            listed = use_key(key[1:], row.used_s)
            if txn.get(listed) is None:
                notes.add(Kind.INDEX, name, f"{block} is cached and not in the index", listed)
    return counted


def _check_counters(notes: _Notes, name: str, txn: Txn, counted: Counters) -> None:
    try:
        kept = Counters.read(txn)
    except CorruptStore as error:
        notes.add(Kind.COUNTERS, name, str(error))
        return
    if kept != counted:
        notes.add(
            Kind.COUNTERS,
            name,
            f"counters say {_text(kept)}; rows say {_text(counted)}",
        )


def _text(counters: Counters) -> str:
    return ", ".join(
        f"{block_class.name} {of_class.blocks} blocks of {of_class.bytes} bytes"
        for block_class, of_class in zip(BlockClass, counters.by_class, strict=True)
    )


def _check_index(notes: _Notes, name: str, txn: Txn) -> None:
    for view, _ in _items(txn, USES):
        key = bytes(view)
        if not _is_right_use(txn, key):
            block = f"block {split_use_key(key)[1].hex()}"
            notes.add(Kind.INDEX, name, f"the index has {block}, which is not cached or was used later", key)


def _is_right_use(txn: Txn, key: bytes) -> bool:
    used_s, multihash = split_use_key(key)
    row = unpack_row(txn.get(ROWS + multihash))
    return row is not None and row.block_class is BlockClass.CACHE and row.used_s == used_s


def _check_data(notes: _Notes, name: str, txn: Txn) -> None:
    """Bytes without a row, and rows with the same bytes, a window of data IDs at a time."""
    first = _next_data_id(txn, 0)
    while first is not None:
        beyond = first + WINDOW_IDS
        used = _used_ids(notes, name, txn, first)
        for orphan in _unused(txn, used, first):
            notes.add(Kind.NO_ROW, name, f"bytes {orphan} belong to no block", data_key(orphan))
        first = _next_data_id(txn, beyond)


def _used_ids(notes: _Notes, name: str, txn: Txn, first: int) -> bytearray:
    """A bit for each data ID from `first` on that a row refers to."""
    used = bytearray(WINDOW_IDS // 8)
    for key, value in _items(txn, ROWS):
        row = unpack_row(value)
        at = -1 if row is None else data_id(row.data_key) - first
        if not 0 <= at < WINDOW_IDS:
            continue
        if used[at >> 3] >> (at & 7) & 1:
            block = f"block {key[1:].hex()}"
            notes.add(Kind.SHARED, name, f"{block} has the bytes of another one", bytes(key))
        used[at >> 3] |= 1 << (at & 7)
    return used


def _unused(txn: Txn, used: bytearray, first: int) -> Iterator[int]:
    """The data IDs of the window that are there and have no bit."""
    with txn.cursor() as cursor:
        if not cursor.set_range(data_key(first)):
            return
        for key in cursor.iternext(keys=True, values=False):
            at = data_id(key) - first if key[:1] == DATA else WINDOW_IDS
            if at >= WINDOW_IDS:
                return
            if not used[at >> 3] >> (at & 7) & 1:
                yield first + at


def _next_data_id(txn: Txn, first: int) -> int | None:
    with txn.cursor() as cursor:
        if not cursor.set_range(data_key(first)) or cursor.key()[:1] != DATA:
            return None
        return data_id(cursor.key())


def _items(txn: Txn, prefix: bytes) -> Iterator[tuple[memoryview, memoryview]]:
    with txn.cursor() as cursor:
        if cursor.set_range(prefix):
            for key, value in cursor.iternext():
                if key[: len(prefix)] != prefix:
                    return
                yield key, value


# --- files ---


def _check_files(notes: _Notes, store: Store) -> None:
    expected = {shard.environment.path.name for shard in store.shards}
    for entry in sorted(store.folder.iterdir()):
        if not is_ours(entry.name):
            notes.add(Kind.FOREIGN, entry.name, "not a file of a Holdfast store")
        elif entry.name.endswith(".damaged"):
            notes.add(Kind.ASIDE, entry.name, "kept when it was salvaged; delete it when nothing is missed")
        elif _is_stray(entry, expected):
            notes.add(Kind.STRAY, entry.name, "left by something that was killed")


def _is_stray(entry: Path, expected: set[str]) -> bool:
    if entry.name.endswith(".tmp"):
        return True
    return ".mdb" in entry.name and entry.name.removesuffix("-lock") not in expected


def _remove_strays(store: Store) -> None:
    for shard in store.shards:
        shard.environment.remove_leftovers()
    for name in ("format.json.tmp", "ballast.tmp"):
        (store.folder / name).unlink(missing_ok=True)


# --- repair ---


def _repair_shard(environment: Environment, findings: list[Finding], number: int, shards: int) -> None:
    """Repair what was found in a shard, if it is still so, in one transaction."""
    keys = {kind: [each.key for each in findings if each.kind is kind] for kind in Kind}
    with environment.write() as txn:
        for key in (*keys[Kind.ROW], *keys[Kind.NO_BYTES]):
            _lose_bytes(txn, key)
        orphans = set(keys[Kind.NO_ROW])
        if orphans:
            codes = {mh.SHA2_256}
            for view, value in _items(txn, ROWS):
                row = unpack_row(value)
                if row is not None:
                    orphans.discard(row.data_key)
                codes.add(_code(view))
            for key in orphans:
                data = bytes(txn.get(key) or b"")
                names = [name for name in _names(data, codes) if name[-1] % shards == number]
                names.sort(key=lambda name: txn.get(ROWS + name) is None)  # a block that misses them first
                if not any(_adopt(txn, name, key, data) for name in names):
                    txn.delete(key)
        for key in keys[Kind.INDEX]:
            if _is_right_use(txn, key):
                txn.put(key, b"")
            else:
                txn.delete(key)
        recount(txn).write(txn)


def _lose_bytes(txn: Txn, key: bytes) -> None:
    """Note that a block whose row is of no use is lost; a cached one is forgotten."""
    value = txn.get(key)
    row = unpack_row(value)
    data = None if row is None else txn.get(row.data_key)
    if value is None or (row is not None and data is not None and len(data) == row.length):
        return
    if row is not None and row.block_class is BlockClass.CACHE:
        txn.delete(key)
        txn.delete(use_key(key[1:], row.used_s))
    else:
        txn.put(key, LOST)


def _code(key: memoryview) -> int:
    """The hash function of a row's block."""
    try:
        return varint.decode(key, 1)[0]
    except MerkledagError:
        return mh.SHA2_256


def _names(data: bytes, codes: Iterable[int]) -> Iterator[bytes]:
    """The multihashes of a block under hash functions, as far as they are known."""
    for code in codes:
        with suppress(MerkledagError):
            yield mh.digest(data, code)


def _adopt(txn: Txn, multihash: bytes, key: bytes, data: bytes) -> bool:
    """Give bytes without a row back to the block that they are, unless it has its bytes."""
    row = unpack_row(txn.get(ROWS + multihash))
    if row is None:
        row = Row(key, epoch_of(txn), len(data), BlockClass.OWN)
    elif txn.get(row.data_key) == data:
        return False
    txn.put(ROWS + multihash, pack_row(*row._replace(data_key=key, length=len(data))))
    return True
