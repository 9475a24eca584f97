"""From a content path to the node it names, and what is remembered about it."""

from __future__ import annotations

import sys
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

from gateway import errors, headers
from gateway.addresses.names import resolve_name
from gateway.addresses.request import ContentRequest
from gateway.blocks import Blocks
from gateway.denylists.screen import Screen, Way
from gateway.operating.metrics import Metrics
from gateway.settings import GatewaySettings
from gateway.source import NameResolver
from merkledag.cid import CID
from merkledag.errors import InvalidCID
from merkledag.reader import Entry, NodeStat, stat
from merkledag.resolve import Resolved, resolve

ROOT_BLOCK = "root block"
END_OF_PATH = "block at the end of the path"
MAX_REMEMBERED_CHARS = 1024  # of a path and the CIDs on it; longer ones would fill memory, as anybody can ask

Key = tuple[CID, tuple[str, ...], int]


@dataclass(slots=True)
class Node:
    """The node at the end of a path under an immutable root.

    `above` and `last` make `roots`; there are many nodes in a folder, so they share one `above`. `remainder`
    are segments that lead inside the node, not to a link. The other fields are filled in when first needed.
    """

    cid: CID
    above: str
    last: str
    remainder: tuple[str, ...] = ()
    cid_text: str = ""
    known: NodeStat | None = None
    index: Node | None = None  # a folder's index.html
    index_known: bool = False
    readme: Entry | None = None  # the folder's README
    readme_known: bool = False
    sniffed: str | None = None
    html_type: str | None = None
    is_json: bool | None = None
    passed: Resolved | None = None  # the nodes from the root to here, where there are denylists
    admitted: int = -1  # the version of the denylists that let them pass

    def __post_init__(self) -> None:
        self.cid_text = self.cid_text or str(self.cid)
        self.above = sys.intern(self.above)

    @property
    def roots(self) -> str:
        """The X-Ipfs-Roots value: the root and the node of every segment."""
        return f"{self.above},{self.last}" if self.above else self.last


@dataclass(frozen=True, slots=True)
class Located:
    """A node and how long the way to it holds: `cache_control` of files there, None if unknown.

    `changed_s` is when the name of a mutable path began to lead there (seconds since 1970; None = unknown).
    """

    node: Node
    root: CID
    segments: tuple[str, ...]
    immutable: bool
    cache_control: str | None
    changed_s: int | None = None
    way: Way | None = None  # where denylists are asked what the path may lead to

    @property
    def generated_cache_control(self) -> str | None:
        """Cache-Control of pages made from the node: they change with the gateway's version."""
        if self.immutable:
            return headers.LISTING
        return None if self.cache_control is None else f"{self.cache_control}, {headers.STALE_LISTING}"


class PathCache:
    """The nodes of paths seen lately; immutable, so never wrong, and bounded in number."""

    def __init__(self, max_entries: int) -> None:
        self._max_entries = max_entries
        self._nodes: OrderedDict[Key, Node] = OrderedDict()

    def get(self, key: Key) -> Node | None:
        """The node, now the most recent one."""
        node = self._nodes.get(key)
        if node is not None:
            self._nodes.move_to_end(key)
        return node

    def put(self, key: Key, node: Node) -> Node:
        """Remembers a node, unless the path is very long; returns it. The least recent one is forgotten."""
        if len(node.above) + sum(map(len, key[1])) > MAX_REMEMBERED_CHARS:
            return node
        self._nodes[key] = node
        if len(self._nodes) > self._max_entries:
            self._nodes.popitem(last=False)
        return node


class Locator:
    """Resolves content paths."""

    def __init__(
        self, names: NameResolver | None, settings: GatewaySettings, screen: Screen | None, metrics: Metrics
    ) -> None:
        self._names = names
        self._metrics = metrics
        self._screen = screen
        self._settings = settings
        self._cache = PathCache(settings.path_cache_entries)

    async def locate(self, asked: ContentRequest, blocks: Blocks) -> Located:
        """The node that `asked` names; raises GatewayError and what `merkledag.resolve` raises."""
        way = None if self._screen is None else self._screen.way()
        if asked.namespace == "ipfs":
            root, segments = self.root_cid(asked), asked.segments
            node = await self._reach(root, segments, 0, way, blocks)
            return Located(node, root, segments, True, headers.IMMUTABLE, way=way)
        if self._names is None:
            raise errors.NotImplementedHere("this gateway does not resolve names; ask for /ipfs/CID paths")
        target = await resolve_name(self._names, asked.root, self._settings, _admitting(way, asked.segments))
        segments = target.segments + asked.segments
        # The roots that the client's path names start where the name leads, not above.
        node = await self._reach(target.cid, segments, len(target.segments), way, blocks)
        mutable = headers.mutable_cache_control(target.ttl_s)
        return Located(node, target.cid, segments, False, mutable, target.changed_s, way)

    def root_cid(self, asked: ContentRequest) -> CID:
        """The CID in an /ipfs path; raises BadRequest naming it as it was written."""
        try:
            return _parsed(asked.root)
        except InvalidCID as error:
            raise errors.BadRequest(f'invalid path "{asked.content_path[:512]}": {error}') from error

    async def _reach(
        self, root: CID, segments: tuple[str, ...], skip: int, way: Way | None, blocks: Blocks
    ) -> Node:
        """The node at a path, if denylists let all on the way pass; raises Denied.

        The first `skip` segments are not the client's: their nodes are not among its roots.
        """
        if way is not None:
            way.pass_root(root, segments)
        node = self._cache.get((root, segments, skip))
        if node is None:
            self._metrics.path_misses += 1
            node = await self._find(root, segments, skip, blocks, len(segments))
        else:
            self._metrics.path_hits += 1
        if way is not None:
            if node.passed is None:
                node.passed = await blocks.run(resolve(root, segments, nodes=blocks.nodes))
            way.pass_nodes(node.passed, segments, known=node.admitted == way.version)
            node.admitted = way.version
        blocks.step = END_OF_PATH if segments else ROOT_BLOCK
        return node

    async def _find(
        self, root: CID, segments: tuple[str, ...], skip: int, blocks: Blocks, total: int
    ) -> Node:
        """The node at a path that is not remembered, from the nearest one on the way that is."""
        key = (root, segments, skip)
        if len(segments) > max(skip, 1):
            parent = self._cache.get((root, segments[:-1], skip))
            if parent is None:
                parent = await self._find(root, segments[:-1], skip, blocks, total)
            if not parent.remainder:
                blocks.step = f"path segment {len(segments)} of {total}"
                found = await blocks.run(resolve(parent.cid, segments[-1:], nodes=blocks.nodes))
                text = str(found.cid)
                above, last = (parent.roots, text) if found.parents else (parent.above, parent.last)
                return self._cache.put(key, Node(found.cid, above, last, found.remainder, text))
        blocks.step = f"path segment 1 of {total}"
        found = await blocks.run(resolve(root, segments, nodes=blocks.nodes))
        text = str(found.cid)
        above = ",".join(map(str, found.parents[skip:]))
        return self._cache.put(key, Node(found.cid, above, text, found.remainder, text))


def _admitting(way: Way | None, asked: tuple[str, ...]) -> Callable[[str, tuple[str, ...]], None] | None:
    """Has each name looked at with all that is behind it."""
    return None if way is None else lambda name, segments: way.pass_name(name, segments + asked)


@lru_cache(maxsize=4096)
def _parsed(text: str) -> CID:
    """A root, which many requests in a row have in common."""
    return CID.parse(text)


async def known_stat(node: Node, blocks: Blocks) -> NodeStat:
    """What kind of node this is, and its size."""
    if node.known is None:
        node.known = await blocks.run(stat(node.cid))
    return node.known
