"""Denylists applied to requests, and to the blocks, names and records that they read."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Final

from gateway.addresses.request import ContentRequest
from gateway.denylists.files import Denylists
from gateway.denylists.rules import Denial, Rules
from gateway.errors import Denied
from gateway.source import Asking, BlockSource, NameRecord, NameResolver, NameTarget, Provider, RecordSource
from merkledag.cid import CID
from merkledag.errors import InvalidCID
from merkledag.resolve import Resolved

LEGAL_STATUS: Final = "451"
_MAX_LINK_CHARS: Final = 512
_MAX_SHOWN_CHARS: Final = 512


def refusal(denial: Denial, what: str) -> Denied:
    """The answer to a request for something that a list denies.

    Hints of lists: `status:451` where the law demands it (RFC 7725; else 410), `blocked-by:URL` of who
    demands it, `reason:WORD`.
    """
    hints = denial.hints
    because = f" ({hints['reason']})" if hints.get("reason") else ""
    headers = {}
    legal = LEGAL_STATUS in (hints.get("status"), hints.get("http_status"))
    url = hints.get("blocked-by", "")
    if legal and url.startswith(("https://", "http://")) and _is_plain(url):
        headers["Link"] = f'<{url}>; rel="blocked-by"'
    message = f'{what} is denied here by the list "{denial.list_name}"{because}'
    return Denied(message, headers, list_name=denial.list_name, legal=legal)


def _is_plain(url: str) -> bool:
    return len(url) <= _MAX_LINK_CHARS and url.isascii() and url.isprintable() and not set(url) & set('<>" ')


class ScreenedSource:
    """A source without the blocks that are denied: every format meets them here, whatever leads to them.

    Methods raise Denied. `exempt` is the multihash of a root that an allowing rule opens for one request.
    """

    def __init__(self, source: BlockSource, rules: Rules, exempt: bytes | None = None) -> None:
        self._source = source
        self._rules = rules
        self._exempt = exempt

    def view(self, cid: CID) -> AbstractContextManager[memoryview] | None:
        self.require(cid)
        return self._source.view(cid)

    async def get(self, cid: CID) -> bytes:
        self.require(cid)
        return await self._source.get(cid)

    async def has(self, cid: CID) -> bool:
        """A denied block counts as here: nobody is to fetch it ahead."""
        return self._is_denied(cid) is not None or await self._source.has(cid)

    def asked(self, cid: CID) -> Sequence[Provider]:
        return self._source.asked(cid) if isinstance(self._source, Asking) else ()

    def _is_denied(self, cid: CID) -> Denial | None:
        denial = self._rules.block(cid)
        return None if denial is None or cid.multihash == self._exempt else denial

    def require(self, cid: CID) -> None:
        """Raises Denied; for blocks that no source is asked for, because their CIDs hold them."""
        denial = self._is_denied(cid)
        if denial is not None:
            raise refusal(denial, f"the block {cid}")


class Screen:
    """Applies denylists to requests; raises Denied.

    A denied name or block is not served whatever path leads to it or through it. A rule that allows a path
    below, written later, opens the root of that path for it.
    """

    def __init__(self, denylists: Denylists) -> None:
        self._denylists = denylists

    def admit(self, asked: ContentRequest, source: BlockSource) -> tuple[BlockSource, bool]:
        """Looks at what is asked for, before anything is fetched for it.

        Returns the source for the request, and whether others may be given what it reads.
        """
        rules = self._denylists.rules
        if not rules:
            return source, True
        if asked.namespace != "ipfs":
            _refuse(rules.name(asked.root, asked.segments), asked.content_path)
            return ScreenedSource(source, rules), True
        try:
            root = CID.parse(asked.root)
        except InvalidCID:
            return source, True  # whoever resolves the path says what is wrong with it
        _refuse(rules.path(root, asked.segments), asked.content_path)
        if rules.excepts(root, asked.segments):
            return ScreenedSource(source, rules, root.multihash), False
        return ScreenedSource(source, rules), True

    def way(self) -> Way | None:
        """For one request, whose path is to be looked at; None where nothing is denied."""
        version = self._denylists.version  # before the rules: what newer ones let pass is looked at once more
        rules = self._denylists.rules
        return Way(rules, version) if rules else None

    def names(self, names: NameResolver) -> NameResolver:
        """The resolver without denied names."""
        return _ScreenedNames(names, self._denylists)

    def records(self, records: RecordSource) -> RecordSource:
        """The source of signed records without those of denied names."""
        return _ScreenedRecords(records, self._denylists)


class Way:
    """What one path leads through, from the name or root that it begins with.

    The first three methods raise Denied, before anything behind is looked at. `version` changes with the
    rules.
    """

    def __init__(self, rules: Rules, version: int) -> None:
        self._rules = rules
        self.version = version
        self._names: list[tuple[str, tuple[str, ...]]] = []
        self._found: Resolved | None = None
        self._segments: tuple[str, ...] = ()

    def pass_name(self, name: str, segments: tuple[str, ...]) -> None:
        """The path goes on under a name, with `segments` behind it."""
        self._names.append((name, segments))
        _refuse(self._rules.name(name, segments), _shown("ipns", name, segments))

    def pass_root(self, root: CID, segments: tuple[str, ...]) -> None:
        """The names lead to a root, or the path began with it."""
        _refuse(self._rules.path(root, segments), _shown("ipfs", str(root), segments))

    def pass_nodes(self, found: Resolved, segments: tuple[str, ...], *, known: bool) -> None:
        """Looks at every node on the path with what follows it, unless that is `known` to be admitted."""
        self._found, self._segments = found, segments
        if not known:
            refused = self._refused_at_nodes(())
            if refused is not None:
                raise refused

    def refused(self, entry: str) -> Denied | None:
        """Why an entry of the folder at the end of the path is not to be served."""
        for name, segments in self._names:
            denial = self._rules.name(name, (*segments, entry))
            if denial is not None:
                return refusal(denial, _shown("ipns", name, (*segments, entry)))
        return self._refused_at_nodes((entry,))

    def _refused_at_nodes(self, behind: tuple[str, ...]) -> Denied | None:
        found, segments = self._found, self._segments
        if found is None:
            return None
        nodes = (*found.parents, found.cid)
        steps = len(segments) - len(found.remainder)
        for number, cid in enumerate(nodes):
            # Inside other codecs one node can take several segments: any of the possible rests counts.
            starts = (number,) if len(nodes) == steps + 1 or not number else range(number, steps + 1)
            for start in starts:
                rest = (*segments[start:], *behind)
                denial = self._rules.path(cid, rest)
                if denial is not None:
                    return refusal(denial, _shown("ipfs", str(cid), rest))
        return None


def _shown(namespace: str, root: str, segments: tuple[str, ...]) -> str:
    return "/".join(("", namespace, root, *segments))[:_MAX_SHOWN_CHARS]


class _ScreenedNames:
    def __init__(self, names: NameResolver, denylists: Denylists) -> None:
        self._names = names
        self._denylists = denylists

    async def resolve(self, name: str) -> NameTarget:
        rules = self._denylists.rules
        if not rules.opens(name):  # else `Screen.admit` knows whether the path asked for is open
            _refuse(rules.name(name, ()), f"the name {name}")
        return await self._names.resolve(name)


class _ScreenedRecords:
    def __init__(self, records: RecordSource, denylists: Denylists) -> None:
        self._records = records
        self._denylists = denylists

    async def record(self, name: str) -> NameRecord:
        _refuse(self._denylists.rules.name(name, ()), f"the name {name}")
        return await self._records.record(name)


def _refuse(denial: Denial | None, what: str) -> None:
    if denial is not None:
        raise refusal(denial, what[:_MAX_SHOWN_CHARS])
