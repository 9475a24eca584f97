"""Reads every block again, round after round: how far a round is, which blocks are damaged, at what pace.

A round and the list of damaged blocks are small records in the meta store, so that they outlive the process.
Blocks are checked in the store's own order; a round that was stopped, or whose process was killed, goes on
behind the last block that it is known to have checked.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from itertools import islice
from typing import Final

from storage_node.blockstore.interface import BlockClass, Blockstore
from storage_node.blockstore.verify import VerifyReport, heal, verify, verify_groups
from storage_node.errors import BlockNotFound, DamagedBlock, StoreFull
from storage_node.meta import Meta, MetaWrite, Table

SAVE_EVERY_S: Final = 5.0
NAP_S: Final = 0.2
HEALED_AT_ONCE: Final = 16  # their bytes are in memory
_ROUND: Final = b"scrub-round/"
_DAMAGED: Final = b"damaged/"  # ‖ multihash → when it was found, Unix seconds (u64be)
_DAMAGED_COUNT: Final = b"damaged-count"
_U64: Final = struct.Struct(">Q")

# Asked for several blocks by multihash; answers the bytes of those that can be had from elsewhere.
Find = Callable[[Sequence[bytes]], Mapping[bytes, bytes]]
Stop = Callable[[], bool]


@dataclass(frozen=True, slots=True)
class Round:
    """One reading of all blocks. Times are Unix seconds; `ended_s` None means it is under way.

    `after` is the last block checked; `damaged` and `unverifiable` count what this round found.
    """

    began_s: int
    after: bytes | None = None
    blocks: int = 0
    size_bytes: int = 0
    damaged: int = 0
    unverifiable: int = 0
    ended_s: int | None = None


class Rounds:
    """The round of one name that is under way, and the last one that ended, in the meta store."""

    def __init__(self, meta: Meta, name: str) -> None:
        self._meta = meta
        self._key = _ROUND + name.encode()

    def current(self) -> Round | None:
        """The round under way."""
        return self._load(self._key)

    def last(self) -> Round | None:
        """The last round that ended."""
        return self._load(self._key + b"/last")

    def save(self, now: Round) -> None:
        """Keep where a round is, durably; one that ended becomes the last one.

        A disk without room for that is no reason not to read on.
        """
        with suppress(StoreFull), self._meta.write() as write:
            if now.ended_s is None:
                write.put(Table.RECORDS, self._key, _encode(now))
            else:
                write.delete(Table.RECORDS, self._key)
                write.put(Table.RECORDS, self._key + b"/last", _encode(now))

    def forget(self) -> None:
        """Give up the round under way."""
        self._meta.delete(Table.RECORDS, self._key)

    def _load(self, key: bytes) -> Round | None:
        record = self._meta.get(Table.RECORDS, key)
        if record is None:
            return None
        fields = json.loads(record)
        after = fields.pop("after")
        return Round(after=None if after is None else bytes.fromhex(after), **fields)


def _encode(now: Round) -> bytes:
    fields = asdict(now) | {"after": None if now.after is None else now.after.hex()}
    return json.dumps(fields).encode()


class Damaged:
    """The multihashes of blocks that are known to be damaged, with a count that needs no scan."""

    def __init__(self, meta: Meta) -> None:
        self._meta = meta

    def __iter__(self) -> Iterator[bytes]:
        return self.behind(None)

    def behind(self, after: bytes | None) -> Iterator[bytes]:
        """Those behind `after` in the list's order."""
        start = None if after is None else _DAMAGED + after
        for key, _ in self._meta.items(Table.RECORDS, _DAMAGED, start):
            yield key.removeprefix(_DAMAGED)

    def count(self) -> int:
        """How many there are."""
        record = self._meta.get(Table.RECORDS, _DAMAGED_COUNT)
        return 0 if record is None else int(_U64.unpack(record)[0])

    def add(self, multihashes: Iterable[bytes], found_s: int) -> None:
        """List blocks; those that are listed stay as they are."""
        with self._meta.write() as write:
            added = 0
            for multihash in multihashes:
                if write.get(Table.RECORDS, _DAMAGED + multihash) is None:
                    write.put(Table.RECORDS, _DAMAGED + multihash, _U64.pack(found_s))
                    added += 1
            _count(write, added)

    def remove(self, multihashes: Iterable[bytes]) -> None:
        """Take blocks off the list: healed, or gone."""
        with self._meta.write() as write:
            removed = sum(write.delete(Table.RECORDS, _DAMAGED + multihash) for multihash in multihashes)
            _count(write, -removed)


def _count(write: MetaWrite, change: int) -> None:
    record = write.get(Table.RECORDS, _DAMAGED_COUNT)
    before = 0 if record is None else _U64.unpack(record)[0]
    # A restored home may have lost the count and not the list.
    write.put(Table.RECORDS, _DAMAGED_COUNT, _U64.pack(max(0, before + change)))


class Pace:
    """At most so many bytes a second, over all slices of work; None is no limit. `clock` is monotonic."""

    def __init__(
        self, bytes_per_s: int | None, clock: Callable[[], float], sleep: Callable[[float], object]
    ) -> None:
        self._bytes_per_s = bytes_per_s
        self._clock = clock
        self._sleep = sleep
        self._free_at_s = clock()

    def spend(self, size_bytes: int, stop: Stop) -> None:
        """Wait until these bytes are paid for, or `stop` says so: then the next slice pays the rest."""
        if self._bytes_per_s is None:
            return
        self._free_at_s = max(self._free_at_s, self._clock()) + size_bytes / self._bytes_per_s
        while self.is_behind() and not stop():
            self._sleep(min(NAP_S, max(0.0, self._free_at_s - self._clock())))

    def is_behind(self) -> bool:
        """Whether what was read is not paid for yet."""
        return self._clock() < self._free_at_s


def scrub(
    store: Blockstore,
    rounds: Rounds,
    damaged: Damaged,
    *,
    clock: Callable[[], float],
    pace: Pace,
    threads: int,
    stop: Stop = lambda: False,
    progress: Callable[[Round], None] = lambda _: None,
) -> Round:
    """Go on with the round under way, or begin one, until it ends or `stop` says so; returns where it is.

    Damaged blocks are listed when they are found. At its end a round takes those off the list that are
    whole again or gone. `clock` gives Unix seconds.
    """
    now = rounds.current() or Round(began_s=int(clock()))
    saved_s = 0.0
    try:
        blocks = ((multihash, row.length) for multihash, row in store.rows(now.after))
        for last, report in verify_groups(store, blocks, threads):
            if report.damaged:
                damaged.add(report.damaged, int(clock()))
            now = _advanced(now, last, report)
            progress(now)
            if not 0 <= clock() - saved_s < SAVE_EVERY_S:
                rounds.save(now)
                saved_s = clock()
            pace.spend(report.size_bytes, stop)
            if stop():
                break
        else:
            recheck(store, damaged)
            now = replace(now, ended_s=int(clock()))
    finally:  # also for Ctrl-C
        rounds.save(now)
    return now


def _advanced(now: Round, last: bytes, report: VerifyReport) -> Round:
    return replace(
        now,
        after=last,
        blocks=now.blocks + report.blocks,
        size_bytes=now.size_bytes + report.size_bytes,
        damaged=now.damaged + len(report.damaged),
        unverifiable=now.unverifiable + report.unverifiable,
    )


def recheck(store: Blockstore, damaged: Damaged) -> None:
    """Take blocks off the list that are whole again, or gone."""
    listed = list(damaged)
    still = set(verify(store, listed).damaged)
    if well := [multihash for multihash in listed if multihash not in still]:
        damaged.remove(well)


@dataclass(frozen=True, slots=True)
class Healed:
    """What healing did: good bytes put in place, cached copies dropped, and what nobody has.

    `after` is the last block looked at where `stop` ended it early, else None.
    """

    healed: int
    dropped: int
    lost: tuple[bytes, ...]
    after: bytes | None = None


def heal_listed(
    store: Blockstore,
    damaged: Damaged,
    find: Find,
    stop: Stop = lambda: False,
    after: bytes | None = None,
) -> Healed:
    """Put good bytes in the place of the damaged blocks that are listed; takes those off the list.

    Cached blocks are dropped instead: they are fetched anew when somebody asks for them.
    """
    if after is None:
        recheck(store, damaged)
    healed = dropped = 0
    lost: list[bytes] = []
    for group in _batched(damaged.behind(after)):
        gone = _drop_cached(store, group)
        wanted = [multihash for multihash in group if multihash not in gone]
        found = find(wanted) if wanted else {}
        done = [multihash for multihash in wanted if _heal_one(store, multihash, found.get(multihash))]
        lost += [multihash for multihash in wanted if multihash not in set(done)]
        damaged.remove([*gone, *done])
        dropped += len(gone)
        healed += len(done)
        if stop():
            return Healed(healed, dropped, tuple(lost), group[-1])
    return Healed(healed, dropped, tuple(lost))


def _batched(multihashes: Iterable[bytes]) -> Iterator[list[bytes]]:
    waiting = iter(multihashes)
    while group := list(islice(waiting, HEALED_AT_ONCE)):
        yield group


def _drop_cached(store: Blockstore, multihashes: list[bytes]) -> list[bytes]:
    """Those that were cache, and still were when they went: somebody may come to rely on one."""
    rows = {multihash: row for multihash in multihashes if (row := store.row(multihash)) is not None}
    cached = {each: row for each, row in rows.items() if row.block_class is BlockClass.CACHE}
    if not cached:
        return []
    before_epoch = max(row.epoch for row in cached.values()) + 1
    return store.free_many(cached, before_epoch, BlockClass.CACHE).multihashes


def _heal_one(store: Blockstore, multihash: bytes, data: bytes | None) -> bool:
    if data is None:
        return False
    try:
        heal(store, multihash, data)
    except DamagedBlock:
        return False
    except BlockNotFound:
        return True  # collected meanwhile: nothing is left to heal
    return True
