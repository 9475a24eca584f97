"""One page of a folder: its entries read, filtered and sorted, with bounds on memory, work and waiting."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from enum import Enum
from heapq import merge
from typing import Literal, NamedTuple

from gateway.blocks import Blocks
from gateway.pages.frame import guess_icon
from gateway.pages.listing_query import ALL, ListingQuery, Sort, matcher, natural
from gateway.serving.turns import Work
from gateway.settings import GatewaySettings
from merkledag import dag_pb, unixfs
from merkledag.cid import CID
from merkledag.codecs import DAG_PB
from merkledag.errors import DecodeError, NoSuchLink
from merkledag.folder import Entry, entries, lookup
from merkledag.hamt import HASH_BITS, hash_name
from merkledag.steps import Buffer, Walk, Want
from merkledag.unixfs import Kind, Mtime

# Folders of up to so many entries are looked into: the root blocks of their entries, where they are here and
# as far as these bytes go. 512 looks take about 10 ms.
LOOKED_ENTRIES = 512
LOOKED_BYTES = 16 * 1024 * 1024
PATIENCE_S = 2.0  # what a page waits for blocks from elsewhere, once it has something to show
SCANNED_ENTRIES = 20_000  # how far one page looks for names that pass its filter
_BATCH = 500
_BATCH_S = 0.05
_RUN = 100  # items sorted at once, in 2 ms at most
_PROBE = 1_000  # entries from which the number of all is estimated
_HASHES = 1 << HASH_BITS


class Facts(NamedTuple):
    """What an entry's own root block says. `size_bytes` of a folder is what the link to it declares."""

    kind: Literal["file", "directory", "symlink"]
    size_bytes: int | None
    mode: int | None
    mtime: Mtime | None
    target: str | None = None


class Item(NamedTuple):
    """An entry of a page; `facts` where its root block was looked at."""

    entry: Entry
    facts: Facts | None = None

    @property
    def size_bytes(self) -> int | None:
        """The file's size where it is known, else what the link declares for the whole DAG."""
        return self.entry.tsize if self.facts is None else self.facts.size_bytes

    @property
    def icon(self) -> str:
        """Which drawing stands for it."""
        kind = None if self.facts is None else self.facts.kind
        if kind == "directory":
            return "d"
        if kind == "symlink":
            return "l"
        guess = guess_icon(self.entry.name, self.entry.cid)
        # What is known not to be a folder is not drawn as one.
        return "f" if kind is not None and guess == "d" else guess


@dataclass(slots=True)
class Page:
    """What one page of a folder shows.

    `ordered` tells that the whole folder was read and sorted; `total` entries of `all_entries` pass the
    filter. Otherwise the page is a stretch of a large folder: from `begins` to `ends`, hashes of names, with
    `scanned` entries looked at and about `estimate` in all; or it is `exact`, the entry whose
    name the filter is. `hasty` pages show what there was in time, `lacking` ones would tell more of their
    entries if the blocks of these were here. `streamed` ones have no items: all entries
    come in batches.
    """

    items: list[Item] = field(default_factory=list)
    ordered: bool = True
    total: int | None = None
    all_entries: int | None = None
    page: int = 1
    pages: int = 1
    estimate: int | None = None
    begins: int = 0
    ends: int | None = None
    scanned: int = 0
    exact: Item | None = None
    hasty: bool = False
    lacking: bool = False
    streamed: bool = False


class _Outcome(Enum):
    WHOLE = "whole"  # every entry was read
    LARGE = "large"  # there are too many to sort
    LATE = "late"  # reading takes too long


class FolderReader:
    """Reads one page of a folder. `is_hamt` tells its kind; a flat folder is one block, here by now."""

    def __init__(
        self,
        blocks: Blocks,
        cid: CID,
        *,
        is_hamt: bool,
        query: ListingQuery,
        settings: GatewaySettings,
        work: Work,
    ) -> None:
        self._blocks = blocks
        self._cid = cid
        self._is_hamt = is_hamt
        self._query = query
        self._per = query.per or settings.listing_page_entries
        self._sortable = settings.sorted_listing_entries
        self._passes = matcher(query.filter) if query.filter else None
        self._work = work

    async def page(self) -> Page:
        """Raises what reading the folder's blocks raises."""
        after = self._query.after if self._is_hamt else None
        walk = entries(self._cid, -1 if after is None else after)
        # Not much further than to the end of the page.
        batches = read_batches(self._blocks, walk, self._work, min(_BATCH, self._per))
        try:
            found: list[Entry] = []
            outcome = _Outcome.LARGE if after is not None else await self._gather(batches, found)
            if outcome is _Outcome.WHOLE:
                return await self._arranged(found)
            if self._query.per == ALL and after is None:
                return Page(ordered=False, streamed=True)
            if self._is_hamt:
                return await self._stretch(found, batches, hasty=outcome is _Outcome.LATE)
            return await self._flat_stretch(found, batches)
        finally:
            await batches.aclose()

    async def stream(self, limit: int) -> AsyncGenerator[list[Item], None]:
        """The entries of a folder of any size as they are read, up to `limit` of them."""
        batches = read_batches(self._blocks, entries(self._cid), self._work)
        left = limit
        try:
            async for batch in batches:
                items = [Item(entry) for entry in await self._passing(batch)][:left]
                left -= len(items)
                yield items
                if not left:
                    break
        finally:
            await batches.aclose()

    async def _passing(self, found: list[Entry]) -> list[Entry]:
        if self._passes is None:
            return found
        passing = []
        for entry in found:
            await self._work.go_on()
            if self._passes(entry.name):
                passing.append(entry)
        return passing

    def _fetching_s(self) -> float:
        """A clock that stands still while this page waits for its turn: that is no reason for a hasty one."""
        return asyncio.get_running_loop().time() - self._work.waited_s

    async def _gather(self, batches: AsyncIterator[list[Entry]], found: list[Entry]) -> _Outcome:
        """Reads the folder into `found` until it ends, or it is clear that it will not be sorted."""
        late = self._fetching_s() + PATIENCE_S
        async for batch in batches:
            found += batch
            if len(found) > self._sortable:
                return _Outcome.LARGE
            if self._is_hamt:
                if len(found) >= _PROBE and estimated(len(found), _hash(found[-1])) > 2 * self._sortable:
                    return _Outcome.LARGE
                if self._fetching_s() > late:
                    return _Outcome.LATE
        return _Outcome.WHOLE

    async def _arranged(self, found: list[Entry]) -> Page:
        """A page of a folder that was read whole."""
        query, all_entries = self._query, len(found)
        found = await self._passing(found)
        if all_entries <= LOOKED_ENTRIES:
            items, lacking = await look(self._blocks, found, self._work)
        else:
            items, lacking = [Item(entry) for entry in found], False
        items = await _sorted(items, query, self._work)
        total = len(items)
        per = total or 1 if query.per == ALL else self._per
        pages = max(1, -(-total // per))
        number = min(query.page, pages)
        items = items[(number - 1) * per : number * per]
        return Page(items, total=total, all_entries=all_entries, page=number, pages=pages, lacking=lacking)

    async def _flat_stretch(self, found: list[Entry], batches: AsyncIterator[list[Entry]]) -> Page:
        """A page of a flat folder that is too large to be sorted: in its own order."""
        count = len(found)
        passing = await self._passing(found)
        async for batch in batches:
            count += len(batch)
            passing = passing + await self._passing(batch)
        pages = max(1, -(-len(passing) // self._per))
        number = min(self._query.page, pages)
        items = [Item(entry) for entry in passing[(number - 1) * self._per : number * self._per]]
        return Page(items, ordered=False, total=len(passing), all_entries=count, page=number, pages=pages)

    async def _stretch(
        self, found: list[Entry], batches: AsyncGenerator[list[Entry], None], *, hasty: bool
    ) -> Page:
        """A page of a HAMT that is too large to be sorted: in the order of hashes, sorted in itself."""
        after = -1 if self._query.after is None else self._query.after
        page = Page(ordered=False, begins=after + 1, hasty=hasty)
        if self._query.after is None:
            page.exact = await self._exact()
            if page.exact is not None:
                # What was looked for, most likely; others are looked for when that is asked.
                page.ends = 0
                return page
        late = self._fetching_s() + PATIENCE_S
        last = await self._take(page, found)
        more = last is not None and (last is not found[-1] or hasty)
        while not more:
            batch = await anext(batches, None)
            if batch is None:
                break
            last = await self._take(page, batch) or last
            page.hasty = self._fetching_s() > late
            more = last is not batch[-1] or page.hasty
        if last is not None:
            end = _hash(last)
            page.ends = end if more else None
            page.estimate = estimated(page.scanned, (end if more else _HASHES) - after - 1)
            if len(found) > page.scanned:
                # More was read than is shown.
                page.estimate = estimated(len(found), _hash(found[-1]))
        page.items = await _sorted(page.items, self._query, self._work)
        return page

    async def _take(self, page: Page, found: list[Entry]) -> Entry | None:
        """Adds what passes until the page is full; the last entry looked at, None if it was full already."""
        last = None
        room = SCANNED_ENTRIES - page.scanned
        for entry in found[:room]:
            if len(page.items) >= self._per:
                break
            await self._work.go_on()
            last = entry
            page.scanned += 1
            if self._passes is None or self._passes(entry.name):
                page.items.append(Item(entry))
        return last

    async def _exact(self) -> Item | None:
        """The entry of a large folder whose name is the filter itself, wherever it is."""
        if not self._query.filter:
            return None
        try:
            return Item(await self._blocks.run(lookup(self._cid, self._query.filter)))
        except NoSuchLink:
            return None


def estimated(count: int, span: int) -> int:
    """How many entries a HAMT has, if `count` of them share `span` of all hashes: they are spread evenly."""
    return round(count * _HASHES / max(span, 1))


async def read_batches(
    blocks: Blocks, walk: Walk[Entry], work: Work, size: int = _BATCH
) -> AsyncGenerator[list[Entry], None]:
    """The entries of a walk in lists of `size`, with turns for others in between.

    Lists are never empty. Where blocks have to come from elsewhere, lists are as long as the time allows.
    """
    loop = asyncio.get_running_loop()
    batch: list[Entry] = []
    due = loop.time() + _BATCH_S
    try:
        await work.go_on()
        item = next(walk)
        while True:
            await work.go_on()
            if not isinstance(item, Want):
                batch.append(item)
                if len(batch) == size:
                    yield batch
                    batch = []
                    due = loop.time() + _BATCH_S
                item = walk.send(None)
                continue
            if batch and loop.time() > due:
                yield batch
                batch = []
                due = loop.time() + _BATCH_S
            item = walk.send(await blocks.get(item))
    except StopIteration:
        if batch:
            yield batch
    finally:
        walk.close()


async def look(blocks: Blocks, found: list[Entry], work: Work) -> tuple[list[Item], bool]:
    """The entries, with what the root blocks say of those that are here, up to `LOOKED_BYTES` of them.

    Also whether some are not here, and may say more another time.
    """
    items: list[Item] = []
    lacking = False
    looked_bytes = 0
    for entry in found:
        await work.go_on()
        facts = None
        if entry.cid.codec == DAG_PB:
            size = blocks.local_size(entry.cid)
            if size is None:
                lacking = True
            elif looked_bytes + size <= LOOKED_BYTES:
                looked_bytes += size
                facts = read_facts(await blocks.get(Want(entry.cid)), entry.tsize)
        items.append(Item(entry, facts))
    return items, lacking


def read_facts(block: Buffer, tsize: int | None) -> Facts | None:
    """What a root block says of its entry, its links unread; None if it is not UnixFS."""
    try:
        payload = dag_pb.payload(block)
        message = None if payload is None else unixfs.decode(payload)
    except DecodeError:
        return None
    if message is None or message.kind is Kind.METADATA:
        return None
    mode = None if message.mode is None else message.mode & 0o7777
    if message.kind in (Kind.DIRECTORY, Kind.HAMT):
        return Facts("directory", tsize, mode, message.mtime)
    data = message.data or b""
    if message.kind is Kind.SYMLINK:
        return Facts("symlink", len(data), mode, message.mtime, data.decode("utf-8", "surrogateescape"))
    size = len(data) if message.filesize is None else message.filesize
    return Facts("file", size, mode, message.mtime)


def _hash(entry: Entry) -> int:
    return hash_name(dag_pb.name_bytes(entry.name))


def _by_name(item: Item) -> tuple[object, ...]:
    return natural(item.entry.name)


def _by_size(item: Item) -> tuple[object, ...]:
    size = item.size_bytes
    return (-1 if size is None else size, natural(item.entry.name))


def _by_type(item: Item) -> tuple[object, ...]:
    kind, name = item.icon, item.entry.name
    ending = name.rpartition(".")[2].casefold() if "." in name[1:] else ""
    return (kind != "d", ending, natural(name))


def _by_time(item: Item) -> tuple[object, ...]:
    mtime = None if item.facts is None else item.facts.mtime
    return (mtime is not None, 0 if mtime is None else mtime.total_ns, natural(item.entry.name))


_SORT_KEYS: dict[Sort, Callable[[Item], tuple[object, ...]]] = {
    Sort.NAME: _by_name,
    Sort.SIZE: _by_size,
    Sort.TYPE: _by_type,
    Sort.MODIFIED: _by_time,
}


async def _sorted(items: Sequence[Item], query: ListingQuery, work: Work) -> list[Item]:
    """The items in the order that is asked for, equal ones as they came, made in small runs."""
    key, descending = _SORT_KEYS[query.sort], query.descending
    sign = -1 if descending else 1
    runs = []
    for begin in range(0, len(items), _RUN):
        await work.go_on()
        part = enumerate(items[begin : begin + _RUN], begin)
        runs.append(sorted(((key(item), sign * at, item) for at, item in part), reverse=descending))
    result = []
    for _, _, item in merge(*runs, reverse=descending):
        await work.go_on()
        result.append(item)
    return result
