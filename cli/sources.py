"""Where content commands read blocks from: one function, `content_source`, decides. And where paths lead."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Protocol

from cli.arguments import path_argument
from cli.streams import STDIO
from merkledag.block import verify_block
from merkledag.steps import Buffer, run
from storage_node.errors import BlockNotFound

if TYPE_CHECKING:
    from cli.home import Home
    from cli.remote import GatewayClient
    from merkledag.cid import CID
    from merkledag.path import ContentPath
    from merkledag.resolve import Resolved
    from storage_node.blockstore.store import Store


class ContentSource(Protocol):
    """Blocks by CID. Identity CIDs never reach it: the drivers of `merkledag.steps` answer them."""

    def get(self, cid: CID) -> Buffer:
        """The block's bytes; raises BlockNotFound (any LookupError), TimeoutError, or HashMismatch."""
        ...


class LocalSource:
    """The blocks of the local store, hashed again on every read if `verify` is set."""

    def __init__(self, store: Store, *, verify: bool) -> None:
        self._store = store
        self._verify = verify

    def get(self, cid: CID) -> Buffer:
        """The block's bytes; raises BlockNotFound, or HashMismatch where reads are verified."""
        try:
            data = self._store.get(cid.multihash)
        except BlockNotFound:
            raise BlockNotFound(f"block {cid} is not in the local store") from None
        if self._verify:
            verify_block(cid, data)
        return data


class NetworkSource:
    """The local store, and for what it lacks the gateway that runs in this home."""

    def __init__(self, local: LocalSource, gateway: GatewayClient) -> None:
        self._local = local
        self._gateway = gateway

    def get(self, cid: CID) -> Buffer:
        """The block's bytes; raises BlockNotFound, TimeoutError or HashMismatch."""
        try:
            return self._local.get(cid)
        except BlockNotFound:
            fetched = self._gateway.get(cid)
        if fetched is None:
            raise BlockNotFound(f"block {cid} is neither in the local store nor on the network")
        return fetched


def local_source(home: Home) -> LocalSource:
    """The home's own store alone."""
    return LocalSource(home.open_store(), verify=home.hashes_reads())


def content_source(home: Home) -> ContentSource:
    """Where the content commands of this process read from."""
    local = local_source(home)
    gateway = home.server("gateway")
    if gateway is None:
        return local
    from cli.remote import GatewayClient

    return NetworkSource(local, GatewayClient(str(gateway["url"])))


def cids_at(home: Home, paths: Iterable[str]) -> Iterator[CID]:
    """The CIDs at paths, as `cid_at`. `-` stands for the lines of standard input."""
    for path in paths:
        if path != STDIO:
            yield cid_at(home, path)
            continue
        for line in sys.stdin:
            if line.strip():
                yield cid_at(home, line.strip())


def cid_at(home: Home, path: str) -> CID:
    """The CID at a path; a bare CID need not be here. Exit 2 for what is no path."""
    parsed = path_argument(path)
    if parsed.namespace == "ipfs" and not parsed.segments:
        return parsed.cid
    return unixfs_node(home, content_source(home), parsed)


def resolve_path(home: Home, source: ContentSource, path: ContentPath) -> Resolved:
    """Follows a content path to its node: names with the records and settings of `home`, then blocks.

    Exit 3 for a missing link, block or name, 5 where nobody answers for a name.
    """
    from cli.arguments import cid_argument
    from merkledag.resolve import resolve

    if path.namespace != "ipfs":
        from cli.naming import follow

        path = follow(home, path).path
    return run(resolve(cid_argument(path.root), path.segments), source.get)


def unixfs_node(home: Home, source: ContentSource, path: ContentPath) -> CID:
    """The CID of the node at a content path; exit 3 when the path ends inside a node."""
    from cli.output import not_found

    resolved = resolve_path(home, source, path)
    if resolved.remainder:
        rest = "/".join(resolved.remainder)
        raise not_found(f"{resolved.cid} is no file or folder at /{rest}: it is data inside a node")
    return resolved.cid
