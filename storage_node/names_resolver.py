"""From a name to what it points at: IPNS keys over the local store and routers, DNS names over DNSLink."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING
from weakref import WeakValueDictionary

from merkledag import dnslink, ipns
from merkledag.errors import InvalidPath, MerkledagError, PathError, RecordError
from merkledag.path import ContentPath, parse_path
from merkledag.peer import name_text, parse_name
from merkledag.rfc3339 import SECOND_NS
from storage_node.errors import NameLoop, NameNotFound, PeerError, PeerUnreachable, RecordOutdated
from storage_node.names import Kept, NameStore
from storage_node.names_cache import MAX_CACHE_S, STALE_TTL_S, Changes, NameCache
from storage_node.names_dns import Links

if TYPE_CHECKING:
    from storage_node.names_routing import Router  # brings aiohttp, which a command without routers spares

MAX_STEPS = 32  # names that lead to names (DNSLink gateway spec)
DEFAULT_TTL_NS = 60 * SECOND_NS  # of a record without a TTL, as in boxo
STATIC_TTL_S = 60
MAX_LOOKUPS = 64  # at once; strangers choose the names, and each one asks somebody

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Target:
    """What a name points at, how many seconds that may be remembered, and since when it was seen to."""

    path: ContentPath
    ttl_s: int
    changed_s: int  # seconds since 1970


@dataclass(frozen=True, slots=True)
class _Current:
    """The record that counts. `left_s` is how long the answer that it came with holds; None: always asked."""

    record: ipns.Record
    left_s: float | None


class NameResolver:
    """Resolves names. A name that is asked for by many at once is looked up once.

    `static` has answers for DNS names that need no DNS; `links` None means no DNS. `clock` counts seconds.
    What routers say of names that are kept in the store is kept there too; other answers stay in memory. When
    nobody answers, the last answer serves on: a record as long as it is valid, a DNSLink for a day.
    """

    def __init__(
        self,
        store: NameStore,
        clock: Callable[[], float],
        *,
        routers: Sequence[Router] = (),
        links: Links | None = None,
        static: Mapping[str, str] | None = None,
    ) -> None:
        self._store = store
        self._routers = tuple(routers)
        self._links = links
        self._static = static or {}
        self._records: NameCache[ipns.Record] = NameCache(clock)
        self._linked_paths: NameCache[ContentPath] = NameCache(clock)
        self._changes = Changes()
        self._slots = asyncio.Semaphore(MAX_LOOKUPS)
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def follow(self, path: ContentPath, *, max_steps: int = MAX_STEPS, fresh: bool = False) -> Target:
        """Where a path leads: immutable after at most `max_steps` names.

        Raises NameLoop, NameNotFound, PeerUnreachable, RecordValueInvalid, and InvalidPath for a root that is
        no name. With `max_steps` 1 the first answer is returned, whatever it is.
        """
        ttl_s, changed_s = MAX_CACHE_S, 0
        seen: set[str] = set()
        single = max_steps == 1
        while path.namespace == "ipns":
            root = canonical(path.root)
            if root in seen:
                raise NameLoop(f"/ipns/{root} leads back to itself")
            if len(seen) >= max_steps:
                raise NameLoop(f"the name leads through more than {max_steps} names")
            seen.add(root)
            target = await self.resolve(root, fresh=fresh)
            ttl_s, changed_s = min(ttl_s, target.ttl_s), max(changed_s, target.changed_s)
            path = ContentPath(
                target.path.namespace, target.path.root, (*target.path.segments, *path.segments)
            )
            if single:
                break
        return Target(path, ttl_s, changed_s)

    async def resolve(self, name: str, *, fresh: bool = False) -> Target:
        """One step: what a key in any form or a DNS name points at."""
        name = canonical(name)
        if dnslink.is_dns_name(name):
            path, ttl_s = await self._linked(name, fresh)
        else:
            current = await self._current(parse_name(name), fresh)
            path = current.record.path
            ttl_ns = current.record.remaining_ttl_ns(self._store.now_ns(), DEFAULT_TTL_NS)
            ttl_s = ttl_ns / SECOND_NS if current.left_s is None else min(ttl_ns / SECOND_NS, current.left_s)
        now_s = self._store.now_ns() // SECOND_NS
        return Target(path, int(ttl_s), self._changes.since(name, str(path), now_s))

    async def record(self, name: bytes, *, fresh: bool = False) -> ipns.Record:
        """The valid record of a name (a multihash) that counts.

        One published here is the answer unless it is expired; others are asked of the routers when their
        TTL is over. `fresh` asks the routers always. Raises NameNotFound, PeerUnreachable.
        """
        return (await self._current(name, fresh)).record

    async def _current(self, name: bytes, fresh: bool) -> _Current:
        kept = self._store.get(name)
        current, reason = self._valid(kept)
        if current is not None and (not self._routers or (_is_own(kept) and not fresh)):
            return _Current(current, None)
        key = name_text(name)
        if not self._routers:
            raise NameNotFound(f"no valid record of {key} is known here{reason}")
        try:
            async with self._lock(key):
                found = None if fresh else self._records.get(key)
                if found is None or _is_over(found[0], self._store.now_ns()):
                    found = await self._look_up_record(key, name, reason)
        except (NameNotFound, PeerUnreachable):
            if current is None:
                raise
            return _Current(current, None)
        if current is not None and ipns.order(current) > ipns.order(found[0]):
            return _Current(current, found[1])
        return _Current(*found)

    async def _look_up_record(self, key: str, name: bytes, reason: str) -> tuple[ipns.Record, float]:
        """The routers' best record and how long it holds; remembers that, or why there is none."""
        try:
            async with self._slots:
                record = await self._ask(name)
            if record is None:
                raise NameNotFound(f"no router has a valid record of {key}{reason}")
        except PeerUnreachable as error:
            old = self._records.revive(key)
            if old is not None and self._is_valid(old, name):
                return old, STALE_TTL_S
            self._records.put_failure(key, error)
            raise
        except NameNotFound as error:
            self._records.put_failure(key, error)
            raise
        ttl_s = record.remaining_ttl_ns(self._store.now_ns(), DEFAULT_TTL_NS) / SECOND_NS
        self._records.put(key, record, ttl_s)
        return record, ttl_s

    async def announce(self, name: bytes, raw: bytes) -> list[str]:
        """Hands a record to every router; returns what those say that did not take it."""
        results = await asyncio.gather(
            *(router.put(name, raw) for router in self._routers), return_exceptions=True
        )
        failures = []
        for result in results:
            if isinstance(result, PeerError):
                failures.append(str(result))
            elif isinstance(result, BaseException):
                raise result
        return failures

    @property
    def router_count(self) -> int:
        """Routers that records are handed to."""
        return len(self._routers)

    def _valid(self, kept: Kept | None) -> tuple[ipns.Record | None, str]:
        """The kept record if it may be used, else why not."""
        if kept is None:
            return None, ""
        try:
            ipns.verify(kept.record, kept.name, self._store.now_ns())
        except RecordError as error:
            return None, f": {error}"
        return kept.record, ""

    def _is_valid(self, record: ipns.Record, name: bytes) -> bool:
        try:
            ipns.verify(record, name, self._store.now_ns())
        except RecordError:
            return False
        return True

    async def _ask(self, name: bytes) -> ipns.Record | None:
        """The best record that routers have, if any; raises PeerUnreachable where none of them answers."""
        answers = await asyncio.gather(
            *(router.get(name) for router in self._routers), return_exceptions=True
        )
        found: list[ipns.Record] = []
        unreachable: list[PeerUnreachable] = []
        for answer in answers:
            if isinstance(answer, PeerUnreachable):
                unreachable.append(answer)
            elif isinstance(answer, PeerError):
                _log.warning("%s", answer)
            elif isinstance(answer, BaseException):
                raise answer
            elif answer is not None:
                try:
                    record = ipns.decode(answer)
                    ipns.verify(record, name, self._store.now_ns())
                    found.append(record)
                except RecordError as error:
                    _log.warning("a router sent a bad record of %s: %s", name_text(name), error)
        if not found:
            if len(unreachable) == len(answers):
                raise unreachable[0]
            return None
        best = max(found, key=ipns.order)
        if self._store.get(name) is not None:
            with suppress(RecordOutdated):  # the one kept is newer
                self._store.keep(name, best.raw)
        return best

    async def _linked(self, name: str, fresh: bool) -> tuple[ContentPath, float]:
        """Where a DNS name leads, and for how many seconds."""
        static = self._static.get(name)
        if static is not None:
            try:
                return parse_path(static), STATIC_TTL_S
            except InvalidPath as error:
                raise NameNotFound(f"the static DNSLink of {name} is no content path: {error}") from error
        if self._links is None:
            raise NameNotFound(f"no DNSLink of {name} is known here")
        async with self._lock(name):
            found = None if fresh else self._linked_paths.get(name)
            return found if found is not None else await self._look_up_link(name, self._links)

    async def _look_up_link(self, name: str, links: Links) -> tuple[ContentPath, float]:
        try:
            async with self._slots:
                records = await links.texts(name)
            path = dnslink.choose(records.texts)
            if path is None:
                raise NameNotFound(f"{name} has no DNSLink among its TXT records")
        except PeerUnreachable as error:
            old = self._linked_paths.revive(name)
            if old is not None:
                return old, STALE_TTL_S
            # A dead server must not hold up every request for seconds.
            self._linked_paths.put_failure(name, error)
            raise
        except (NameNotFound, PathError) as error:
            absent = error if isinstance(error, NameNotFound) else NameNotFound(f"{name}: {error}")
            self._linked_paths.put_failure(name, absent)
            raise absent from error
        self._linked_paths.put(name, path, records.ttl_s)
        return path, records.ttl_s

    def _lock(self, key: str) -> asyncio.Lock:
        lock = self._locks.get(key)
        if lock is None:
            lock = self._locks[key] = asyncio.Lock()
        return lock


def canonical(root: str) -> str:
    """The one text of a name: `k51…` of a key in any form, a DNS name in lower case.

    Raises InvalidPath for what is neither.
    """
    if "." in root:
        name = root.lower().removesuffix(".")
        if dnslink.is_dns_name(name):
            return name
    try:
        return name_text(parse_name(root))
    except MerkledagError as error:
        raise InvalidPath(f"{root[:80]!r} is neither an IPNS key nor a DNS name") from error


def _is_own(kept: Kept | None) -> bool:
    return kept is not None and kept.lifetime_s is not None


def _is_over(record: ipns.Record, now_ns: int) -> bool:
    return record.eol_ns is not None and record.eol_ns <= now_ns
