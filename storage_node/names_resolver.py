"""From a name to what it points at: IPNS keys over the local store and routers, DNS names over DNSLink."""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
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
from storage_node.names_dns import DnsLinks

if TYPE_CHECKING:
    from storage_node.names_routing import Router  # brings aiohttp, which a command without routers spares

MAX_STEPS = 32  # names that lead to names (DNSLink gateway spec)
DEFAULT_TTL_NS = 60 * SECOND_NS  # of a record without a TTL, as in boxo
STATIC_TTL_S = 60
ABSENT_TTL_S = 15  # how long it is remembered that nothing was found
MIN_CACHE_S, MAX_CACHE_S = 1, 86_400
MAX_CACHED = 4_096

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Target:
    """What a name points at, and how many seconds that may be remembered."""

    path: ContentPath
    ttl_s: int


class _Cache:
    """Answers by key until their time is over, absent ones (None) too; the least recent goes first."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._entries: OrderedDict[str, tuple[float, object]] = OrderedDict()

    def get(self, key: str) -> tuple[float, object] | None:
        """(seconds left, answer), or None."""
        entry = self._entries.get(key)
        if entry is None or entry[0] <= self._clock():
            self._entries.pop(key, None)
            return None
        self._entries.move_to_end(key)
        return entry[0] - self._clock(), entry[1]

    def put(self, key: str, answer: object, ttl_s: float) -> None:
        self._entries[key] = (self._clock() + min(max(ttl_s, MIN_CACHE_S), MAX_CACHE_S), answer)
        self._entries.move_to_end(key)
        if len(self._entries) > MAX_CACHED:
            self._entries.popitem(last=False)


class NameResolver:
    """Resolves names. A name that is asked for by many at once is looked up once.

    `static` has answers for DNS names that need no DNS; `links` None means no DNS. `clock` counts seconds.
    What routers say of names that are kept in the store is kept there too; other answers stay in memory.
    """

    def __init__(
        self,
        store: NameStore,
        clock: Callable[[], float],
        *,
        routers: Sequence[Router] = (),
        links: DnsLinks | None = None,
        static: Mapping[str, str] | None = None,
    ) -> None:
        self._store = store
        self._routers = tuple(routers)
        self._links = links
        self._static = static or {}
        self._cache = _Cache(clock)
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def follow(self, path: ContentPath, *, max_steps: int = MAX_STEPS, fresh: bool = False) -> Target:
        """Where a path leads: immutable after at most `max_steps` names.

        Raises NameLoop, NameNotFound, PeerUnreachable, RecordValueInvalid, and InvalidPath for a root that is
        no name. With `max_steps` 1 the first answer is returned, whatever it is.
        """
        ttl_s = MAX_CACHE_S
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
            ttl_s = min(ttl_s, target.ttl_s)
            path = ContentPath(
                target.path.namespace, target.path.root, (*target.path.segments, *path.segments)
            )
            if single:
                break
        return Target(path, ttl_s)

    async def resolve(self, name: str, *, fresh: bool = False) -> Target:
        """One step: what a key in any form or a DNS name points at."""
        name = canonical(name)
        if dnslink.is_dns_name(name):
            return await self._linked(name, fresh)
        record = await self.record(parse_name(name), fresh=fresh)
        ttl_ns = record.remaining_ttl_ns(self._store.now_ns(), DEFAULT_TTL_NS)
        return Target(record.path, ttl_ns // SECOND_NS)

    async def record(self, name: bytes, *, fresh: bool = False) -> ipns.Record:
        """The valid record of a name (a multihash) that counts.

        One published here is the answer unless it is expired; others are asked of the routers when their
        TTL is over. `fresh` asks the routers always. Raises NameNotFound, PeerUnreachable.
        """
        kept = self._store.get(name)
        current, reason = self._valid(kept)
        if current is not None and (not self._routers or (_is_own(kept) and not fresh)):
            return current
        key = name_text(name)
        if not self._routers:
            raise NameNotFound(f"no valid record of {key} is known here{reason}")
        async with self._lock(key):
            cached = None if fresh else self._cache.get(key)
            if cached is None:
                routed = await self._ask(name, current)
                ttl_ns = routed.remaining_ttl_ns(self._store.now_ns(), DEFAULT_TTL_NS) if routed else 0
                self._cache.put(key, routed, ttl_ns / SECOND_NS if routed else ABSENT_TTL_S)
            else:
                routed = cached[1] if isinstance(cached[1], ipns.Record) else None
        best = max((r for r in (current, routed) if r is not None), key=ipns.order, default=None)
        if best is None:
            raise NameNotFound(f"no router has a valid record of {key}{reason}")
        return best

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

    async def _ask(self, name: bytes, current: ipns.Record | None) -> ipns.Record | None:
        """The best record that routers have; raises PeerUnreachable if none answers and none is `current`."""
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
            if len(unreachable) == len(answers) and current is None:
                self._cache.put(name_text(name), None, ABSENT_TTL_S)
                raise unreachable[0]
            return None
        best = max(found, key=ipns.order)
        if self._store.get(name) is not None:
            with suppress(RecordOutdated):  # `current` is newer, or another process was faster
                self._store.keep(name, best.raw)
        return best

    async def _linked(self, name: str, fresh: bool) -> Target:
        path = self._static.get(name)
        if path is not None:
            try:
                return Target(parse_path(path), STATIC_TTL_S)
            except InvalidPath as error:
                raise NameNotFound(f"the static DNSLink of {name} is no content path: {error}") from error
        if self._links is None:
            raise NameNotFound(f"no DNSLink of {name} is known here")
        async with self._lock(name):
            cached = None if fresh else self._cache.get(name)
            if cached is None:
                return await self._look_up(name, self._links)
        left_s, answer = cached
        if isinstance(answer, ContentPath):
            return Target(answer, int(left_s))
        raise NameNotFound(str(answer))

    async def _look_up(self, name: str, links: DnsLinks) -> Target:
        try:
            records = await links.texts(name)
            path = dnslink.choose(records.texts)
            if path is None:
                raise NameNotFound(f"{name} has no DNSLink among its TXT records")
        except (NameNotFound, PeerUnreachable, PathError) as error:
            # Failures too: a dead server must not hold up every request for seconds.
            self._cache.put(name, str(error), ABSENT_TTL_S)
            if isinstance(error, PathError):
                raise NameNotFound(f"{name}: {error}") from error
            raise
        self._cache.put(name, path, records.ttl_s)
        return Target(path, records.ttl_s)

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
