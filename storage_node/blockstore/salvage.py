"""Makes a new file of a shard out of whatever is intact in a damaged one.

A block is its hash: bytes that hash to the multihash of a row that was found are right, wherever in the file
they lie and however old they are. So rows are gathered first, then bytes from all pages are hashed and held
against them. Bytes that are in use and whose row is gone come back under their own hash. A row whose bytes
are nowhere becomes a note that the block is lost: `verify` lists it, `heal` or a put brings it back.
Rows whose state is not certain become OWN, the class that nothing evicts; a collection sorts them out.
Memory is bounded: what is known meanwhile lies in a scratch file of LMDB.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import lmdb

from merkledag import multihash as mh
from merkledag.errors import MerkledagError, UnsupportedHash
from storage_node.blockstore.interface import MAX_MULTIHASH_BYTES, BlockClass
from storage_node.blockstore.lmdb_file import MAP_BYTES
from storage_node.blockstore.page_entries import Trust, entries, worth_reading
from storage_node.blockstore.page_survey import Bitmap, KeyRange, Survey
from storage_node.blockstore.pages import Big, Damage, Leaf, PageFile
from storage_node.blockstore.tables import (
    COUNTERS_KEY,
    DATA,
    EPOCH_KEY,
    LOST,
    ROWS,
    Counters,
    Row,
    data_key,
    pack_epoch,
    pack_row,
    recount,
    unpack_epoch,
    unpack_row,
    use_key,
)
from storage_node.errors import CorruptStore

EPOCHS_AHEAD: Final = 1 << 20  # more than there were collections: what is not known may be no older than this
MAX_LENGTHS: Final = 1 << 16  # of blocks looked for, that are told apart
MAX_LISTED: Final = 10_000  # lost blocks
MAX_GUESSES: Final = 1024  # lengths that are counted, of blocks of as many pages
GUESSES: Final = 4  # of them, the most common, that bytes without row and entry may have
WRITES_AT_ONCE: Final = 4096
BYTES_AT_ONCE: Final = 4 * 1024 * 1024

_BY_DATA: Final = b"\x03"  # scratch: key of the bytes in the damaged file ‖ multihash
_WANTED: Final = b"\x04"  # scratch: multihash of a row whose bytes are still to be found
_NO_DATA: Final = data_key(0)

ALL_ROWS: Final = KeyRange(ROWS, DATA)

Progress = Callable[[int], None]  # so many blocks were found so far


@dataclass(slots=True)
class Salvaged:
    """What came out of a shard. `old` of the blocks were found where the file no longer used them; `adopted`
    came back by their hash, without a row. `lost` are multihashes whose bytes were not found, MAX_LISTED at
    most of `lost_count`; cached blocks that were lost are only counted. At least `unaccounted` more were
    counted in the file, and nothing of them was found.
    """

    blocks: int = 0
    size_bytes: int = 0
    old: int = 0
    adopted: int = 0
    lost: list[bytes] = field(default_factory=list)
    lost_count: int = 0
    lost_cached: int = 0
    unaccounted: int = 0


class Writer:
    """A new LMDB file that nobody else sees: many writes in each of its transactions, synced at the end."""

    def __init__(self, path: Path) -> None:
        path.unlink(missing_ok=True)
        self._raw = lmdb.open(
            str(path), subdir=False, map_size=MAP_BYTES, lock=False, sync=False, mode=0o600, create=True
        )
        self._writes = self._bytes = 0
        self.txn: Any = self._raw.begin(write=True)

    def put(self, key: bytes, value: bytes) -> None:
        """Set a value."""
        self._wrote(len(value))
        self.txn.put(key, value)

    def delete(self, key: bytes) -> None:
        """Remove a key."""
        self._wrote(0)
        self.txn.delete(key)

    def keys(self, table: bytes, prefix: bytes = b"") -> Iterator[bytes]:
        """The keys of a table that begin so, without its byte; others may be written meanwhile."""
        at = table + prefix
        while True:
            with self.txn.cursor() as cursor:
                if not cursor.set_range(at) or not cursor.key().startswith(table + prefix):
                    return
                key = bytes(cursor.key())
            yield key[1:]
            at = key + b"\0"

    def _wrote(self, size: int) -> None:
        self._writes += 1
        self._bytes += size
        if self._writes >= WRITES_AT_ONCE or self._bytes >= BYTES_AT_ONCE:
            self.txn.commit()
            self.txn = self._raw.begin(write=True)
            self._writes = self._bytes = 0

    def finish(self) -> None:
        """Bring everything to the disk."""
        self.txn.commit()
        self._raw.sync(True)
        self._raw.close()

    def give_up(self) -> None:
        """Close it as it is."""
        with suppress(lmdb.Error):
            self.txn.abort()
        self._raw.close()


class ShardSalvage:
    """The salvage of one file: `file` and what a survey `found` in it, as shard `number` of `shards`.

    `fresh` becomes the new file; `scratch` is of no use afterwards.
    """

    def __init__(
        self,
        file: PageFile,
        found: Survey,
        number: int,
        shards: int,
        fresh: Writer,
        scratch: Writer,
        progress: Progress = lambda _: None,
    ) -> None:
        self._file = file
        self._found = found
        self._number = number
        self._shards = shards
        self._fresh = fresh
        self._scratch = scratch
        self._progress = progress
        self._codes: dict[int, None] = {mh.SHA2_256: None}
        self._lengths: set[int] | None = None
        self._runs = Bitmap(file.pages)  # first pages of long values that are kept
        self._wanted = 0
        self._next_id = 1
        self._stamp = 1  # the highest that is certain
        self._counted = 0
        self._epoch, self._epoch_is_certain = 1, False
        self.result = Salvaged()

    def run(self) -> Salvaged:
        """Fill the new file, but for its last sync."""
        for trust in worth_reading(self._file, self._found):
            self._gather_rows(trust)
        for trust in (Trust.NOW, Trust.CUT_OFF, Trust.BROKEN):
            self._gather_bytes(trust)
        adopts_old = self._adopts(Trust.OLD)
        if self._wanted or adopts_old:
            if not adopts_old:
                self._note_lengths()
            self._gather_bytes(Trust.OLD)
        self._look_at_runs()
        self._write_rows()
        found = self.result.blocks + self.result.lost_count + self.result.lost_cached
        self.result.unaccounted = max(0, self._counted - found)
        return self.result

    # --- rows ---

    def _gather_rows(self, trust: Trust) -> None:
        for entry in entries(self._file, self._found, trust):
            if trust is not Trust.NOW and not self._found.may_have_lost(entry.key):
                continue
            if entry.key[:1] == ROWS:
                self._take_row(entry, trust)
            elif entry.key == EPOCH_KEY and isinstance(entry.value, bytes):
                self._take_epoch(entry.value, trust)
            elif entry.key == COUNTERS_KEY and isinstance(entry.value, bytes) and not self._counted:
                with suppress(CorruptStore):
                    self._counted = Counters.unpack(entry.value).blocks

    def _take_row(self, entry: Leaf, trust: Trust) -> None:
        multihash = entry.key[1:]
        if not self._is_mine(multihash) or self._scratch.txn.get(entry.key) is not None:
            return
        row = None if isinstance(entry.value, Big) else unpack_row(entry.value)
        certain = self._found.knows_newest and trust <= Trust.CUT_OFF
        if row is None:
            if not certain and entry.value != LOST:
                return
            row = Row(_NO_DATA, 0, 0, BlockClass.OWN)
        if certain:
            self._stamp = max(self._stamp, row.epoch)
        else:
            row = row._replace(epoch=0, block_class=BlockClass.OWN, used_s=0)
        code, _ = mh.split(multihash)
        if mh.is_supported(code):
            self._codes[code] = None
        self._scratch.put(entry.key, pack_row(*row))
        self._scratch.put(_BY_DATA + row.data_key + multihash, b"")
        self._scratch.put(_WANTED + multihash, b"")
        self._wanted += 1

    def _take_epoch(self, value: bytes, trust: Trust) -> None:
        epoch = unpack_epoch(value)
        if epoch is None or self._epoch_is_certain:
            return
        self._epoch_is_certain = self._found.knows_newest and trust <= Trust.CUT_OFF
        self._epoch = epoch if self._epoch_is_certain else max(epoch, self._epoch)

    def _is_mine(self, multihash: bytes) -> bool:
        """Whether this can be a block of this shard."""
        try:
            code, _ = mh.split(multihash)
        except MerkledagError:
            return False
        possible = code != mh.IDENTITY and len(multihash) <= MAX_MULTIHASH_BYTES
        return possible and multihash[-1] % self._shards == self._number

    # --- bytes ---

    def _gather_bytes(self, trust: Trust) -> None:
        for entry in entries(self._file, self._found, trust):
            if entry.key[:1] != DATA or len(entry.key) != len(_NO_DATA):
                continue
            size = entry.value.size if isinstance(entry.value, Big) else len(entry.value)
            if self._lengths is not None and size not in self._lengths:
                continue
            try:
                data = self._file.big_value(entry.value) if isinstance(entry.value, Big) else entry.value
            except Damage:
                continue
            if self._take_bytes(entry.key, data, trust) and isinstance(entry.value, Big):
                self._runs.add(entry.value.page)

    def _take_bytes(self, key: bytes, data: bytes, trust: Trust) -> bool:
        """Keep a block's bytes if some row wants them; those that are in use also without one."""
        named = list(self._scratch.keys(_BY_DATA, key)) if key else []
        for name in named:
            multihash = name[len(key) :]
            if self._wants(multihash) and self._fits(multihash, data, trust):
                return self._keep(multihash, data, trust)
        mine = [each for each in self._names(data) if each[-1] % self._shards == self._number]
        for multihash in mine:
            if self._wants(multihash):
                return self._keep(multihash, data, trust)
        for multihash in mine if self._adopts(trust) else ():
            if self._scratch.txn.get(ROWS + multihash) is None:
                self._scratch.put(ROWS + multihash, pack_row(_NO_DATA, 0, 0, BlockClass.OWN))
                self._wanted += 1
                self.result.adopted += 1
                self._keep(multihash, data, trust)
        return bool(mine)

    def _adopts(self, trust: Trust) -> bool:
        """Whether bytes without a row are a block whose row was lost, not one that was deleted."""
        return trust is not Trust.OLD or (not self._found.is_certain and self._found.has_lost_of(ALL_ROWS))

    def _wants(self, multihash: bytes) -> bool:
        return self._scratch.txn.get(_WANTED + multihash) is not None

    def _fits(self, multihash: bytes, data: bytes, trust: Trust) -> bool:
        try:
            return mh.verify(multihash, data)
        except UnsupportedHash:  # what cannot be checked is believed where it is in its place
            row = unpack_row(self._scratch.txn.get(ROWS + multihash))
            return trust is Trust.NOW and row is not None and row.length == len(data)
        except MerkledagError:
            return False

    def _names(self, data: bytes) -> Iterator[bytes]:
        """The multihashes of a block under the hash functions that the shard knows."""
        for code in self._codes:
            with suppress(MerkledagError):
                yield mh.digest(data, code)

    def _keep(self, multihash: bytes, data: bytes, trust: Trust) -> bool:
        row = unpack_row(self._scratch.txn.get(ROWS + multihash))
        assert row is not None
        key = data_key(self._next_id)
        self._next_id += 1
        self._fresh.put(key, data)
        self._scratch.put(ROWS + multihash, pack_row(*row._replace(data_key=key, length=len(data))))
        self._scratch.delete(_WANTED + multihash)
        self._wanted -= 1
        self.result.blocks += 1
        self.result.size_bytes += len(data)
        self.result.old += trust is Trust.OLD
        self._progress(self.result.blocks)
        return True

    def _note_lengths(self) -> None:
        """What lengths are still looked for; others need not be hashed."""
        lengths: set[int] = set()
        for multihash in self._scratch.keys(_WANTED):
            row = unpack_row(self._scratch.txn.get(ROWS + multihash))
            if row is None or not row.length or len(lengths) >= MAX_LENGTHS:
                self._lengths = None
                return
            lengths.add(row.length)
        self._lengths = lengths

    def _look_at_runs(self) -> None:
        """Long values that no entry leads to any more: their rows know how long they are."""
        lengths = self._likely_lengths()
        page = 2
        while page < self._file.pages and lengths:
            if page in self._found.used or page in self._runs:
                page += 1
                continue
            try:
                run = self._file.run_at(page)
                for length in lengths.get(run, ()):
                    data = self._file.big_value(Big(page, length))
                    self._take_bytes(b"", data, Trust.OLD if page in self._found.free else Trust.BROKEN)
            except Damage:
                run = 1
            page += run if self._found.is_certain else 1

    def _likely_lengths(self) -> dict[int, set[int]]:
        """Of blocks that are looked for; where rows were lost also of others; by how many pages they take."""
        lengths: dict[int, set[int]] = {}
        guesses: dict[int, Counter[int]] = {}
        rows_lost = self._found.has_lost_of(ALL_ROWS)
        for multihash in self._scratch.keys(ROWS if rows_lost else _WANTED):
            row = unpack_row(self._scratch.txn.get(ROWS + multihash))
            assert row is not None
            pages = self._file.run_pages(row.length)
            if self._wants(multihash):
                lengths.setdefault(pages, set()).add(row.length)
            elif pages > 1 and len(guesses.setdefault(pages, Counter())) < MAX_GUESSES:
                guesses[pages][row.length] += 1
        for pages, counted in guesses.items():
            lengths.setdefault(pages, set()).update(length for length, _ in counted.most_common(GUESSES))
        return lengths

    # --- the new file ---

    def _write_rows(self) -> None:
        for multihash in self._scratch.keys(ROWS):
            row = unpack_row(self._scratch.txn.get(ROWS + multihash))
            assert row is not None
            if self._wants(multihash):
                self._lose(multihash, row)
                continue
            row = row if row.epoch else row._replace(epoch=self._stamp)
            self._fresh.put(ROWS + multihash, pack_row(*row))
            if row.block_class is BlockClass.CACHE:
                self._fresh.put(use_key(multihash, row.used_s), b"")
        recount(self._fresh.txn).write(self._fresh.txn)
        if self._number == 0:
            if not self._epoch_is_certain:
                self._epoch = max(self._epoch, self._stamp) + EPOCHS_AHEAD
            self._fresh.put(EPOCH_KEY, pack_epoch(self._epoch))

    def _lose(self, multihash: bytes, row: Row) -> None:
        if row.block_class is BlockClass.CACHE:
            self.result.lost_cached += 1
            return
        self._fresh.put(ROWS + multihash, LOST)
        self.result.lost_count += 1
        if len(self.result.lost) < MAX_LISTED:
            self.result.lost.append(multihash)
