"""Small raw files that were served before, by request target: the shortest way to the same answer."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from functools import lru_cache

from aiohttp import web

from gateway.addresses.request import Kind
from gateway.content import MAX_REMEMBERED_CHARS, Located, Node
from gateway.exchange import Exchange
from gateway.formats.conditional import field
from gateway.formats.negotiation import Format, negotiate
from gateway.headers import base_headers
from gateway.source import BlockSource
from merkledag.codecs import RAW

# A request with any of these is answered the long way.
_SPECIAL = ("Range", "If-None-Match", "If-Match", "Cache-Control", "Service-Worker")


@dataclass(frozen=True, slots=True)
class Known:
    """What the answer to a target needs, but for the bytes."""

    node: Node
    content_type: str
    cache_control: str


class Shortcuts:
    """Answers for immutable paths on plain path gateways (no subdomain, no DNSLink), bounded in number."""

    def __init__(self, max_entries: int) -> None:
        self._max_entries = max_entries
        self._known: OrderedDict[str, Known] = OrderedDict()

    def learn(self, target: str, exchange: Exchange, located: Located, response: web.StreamResponse) -> None:
        """Remembers how `target` was answered, if the same answer will do for everybody."""
        asked = exchange.asked
        if (
            response.status == 200
            and isinstance(response, web.Response)
            and not exchange.head
            and asked.kind is Kind.PATH
            and located.immutable
            and located.cache_control is not None
            and located.node.cid.codec == RAW
            and not located.node.cid.is_identity
            and not exchange.wanted.from_accept
            and len(target) <= MAX_REMEMBERED_CHARS
            and target == asked.header_path
        ):
            node = located.node
            self._known[target] = Known(
                node,
                response.headers["Content-Type"],
                located.cache_control,
            )
            if len(self._known) > self._max_entries:
                self._known.popitem(last=False)

    def answer(self, request: web.BaseRequest, source: BlockSource) -> web.Response | None:
        """The response, if the target is known, nothing special is asked and the block is here."""
        target = request.raw_path
        known = self._known.get(target)
        if known is None or request.method != "GET":
            return None
        asked = request.headers
        if any(name in asked for name in _SPECIAL) or not _takes_files(field(asked, "Accept")):
            return None
        view = source.view(known.node.cid)
        if view is None:
            return None
        with view as block:
            data = bytes(block)
        headers = base_headers()
        headers["Etag"] = f'"{known.node.cid_text}"'
        headers["X-Ipfs-Path"] = target
        headers["X-Ipfs-Roots"] = known.node.roots
        headers["Cache-Control"] = known.cache_control
        headers["Content-Type"] = known.content_type
        headers["Accept-Ranges"] = "bytes"
        return web.Response(body=data, headers=headers)


@lru_cache(maxsize=256)
def _takes_files(accept: str | None) -> bool:
    """Whether a file is given as it is under this Accept header."""
    return negotiate(None, accept, {}).format in (Format.DEFAULT, Format.HTML)
