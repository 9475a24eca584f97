"""The way of a request through the gateway: host, path, format, content, answer."""

from __future__ import annotations

from dataclasses import replace

from aiohttp import web

from gateway import errors
from gateway.addresses.hosts import Hosts
from gateway.addresses.request import ContentRequest, read_target, split_proxied
from gateway.addresses.site_rules import serve_missing
from gateway.addresses.target import Addressing
from gateway.answers import translate
from gateway.blocks import Blocks
from gateway.content import Located, Locator, known_stat
from gateway.denylists.screen import Screen
from gateway.exchange import Exchange
from gateway.formats.block import NATIVE, require_whole, serve_codec, serve_raw
from gateway.formats.car import serve_absence, serve_car
from gateway.formats.conditional import field, only_if_cached
from gateway.formats.file import serve_file, unchanged_file
from gateway.formats.folder import serve_directory
from gateway.formats.negotiation import Format, Wanted, negotiate
from gateway.formats.node import serve_node, wants_node
from gateway.formats.record import serve_record
from gateway.formats.tar import serve_tar
from gateway.operating.metrics import Metrics
from gateway.passage import note_kind
from gateway.serving.turns import Turns, Work
from gateway.settings import GatewaySettings
from gateway.shortcut import Shortcuts
from gateway.source import BlockSource, NameResolver, RecordSource
from merkledag.codecs import DAG_PB, RAW
from merkledag.errors import MerkledagError, NoSuchLink, NotADirectory
from merkledag.nodes import Nodes

_TRUSTLESS = (Format.RAW, Format.CAR, Format.IPNS_RECORD)
_CODEC_FORMATS = (Format.DAG_JSON, Format.DAG_CBOR, Format.CBOR)


class Gateway:
    """Answers requests from a block source; one for each application."""

    def __init__(
        self,
        source: BlockSource,
        names: NameResolver | None,
        records: RecordSource | None,
        settings: GatewaySettings,
        screen: Screen | None,
        metrics: Metrics,
    ) -> None:
        self._source = source
        self._screen = screen
        self._names = names
        self._records = records
        self._settings = settings
        self._hosts = Hosts(settings)
        self._addressing = Addressing(names, settings)
        self._locator = Locator(names, settings, screen, metrics)
        self._shortcuts = Shortcuts(settings.path_cache_entries)
        self._nodes = Nodes.bounded(settings.node_cache_bytes)
        self._turns = Turns()

    async def answer(self, request: web.BaseRequest) -> web.StreamResponse:
        """Raises GatewayError and MerkledagError before the response has begun, ConnectionError after."""
        path, proxied = split_proxied(request.raw_path)
        origin = self._hosts.origin(request, proxied)
        shortcuts = self._shortcuts  # what is answered under old denylists goes with them
        if origin.plain:
            known = shortcuts.answer(request, self._source)
            if known is not None:
                return known
        target = read_target(path, self._settings)
        asked = await self._addressing.asked(
            origin, target, service_worker=request.headers.get("Service-Worker") == "script"
        )
        if isinstance(asked, web.Response):
            return asked
        wanted = negotiate(target.query.get("format"), field(request.headers, "Accept"), target.query)
        source = self._source
        nodes: Nodes | None = self._nodes
        if self._screen is not None:
            source, common = self._screen.admit(asked, source)
            nodes = nodes if common else None
        only_cached = only_if_cached(request.headers)
        blocks = Blocks(source, self._settings, only_cached=only_cached, nodes=nodes)
        head, work = request.method == "HEAD", Work(self._turns)
        exchange = Exchange(request, asked, wanted, blocks, self._settings, head, work)
        try:
            return await self._serve(exchange, shortcuts, trustless=origin.trustless)
        finally:
            await blocks.close()

    def forget_answers(self) -> None:
        """What was answered before is answered anew: the denylists have changed."""
        self._nodes = Nodes.bounded(self._settings.node_cache_bytes)
        self._shortcuts = Shortcuts(self._settings.path_cache_entries)

    def is_site(self, request: web.BaseRequest) -> bool:
        """Whether the host of the request is the origin of one content root or DNSLink site."""
        try:
            origin = self._hosts.origin(request)
        except errors.BadRequest:
            return True
        return bool(origin.root) or (bool(origin.name) and not origin.gateway and self._names is not None)

    async def _serve(
        self, exchange: Exchange, shortcuts: Shortcuts, *, trustless: bool
    ) -> web.StreamResponse:
        wanted = exchange.wanted.format
        if wanted is Format.IPNS_RECORD:
            note_kind("record")
            return await serve_record(exchange, self._records)
        if trustless:
            exchange.wanted = _verifiable(exchange)
        try:
            located = await self._locator.locate(exchange.asked, exchange.blocks)
            response = await _serve_acceptable(exchange, located)
            shortcuts.learn(exchange.request.raw_path, exchange, located, response)
            return response
        except (NoSuchLink, NotADirectory) as error:
            if exchange.wanted.format is Format.CAR and exchange.asked.namespace == "ipfs":
                note_kind("car")
                root = self._locator.root_cid(exchange.asked)
                return await serve_absence(exchange, root, exchange.asked.segments)
            if exchange.asked.isolated and wanted in (Format.DEFAULT, Format.HTML):
                answer = await serve_missing(exchange, self._locator)
                if answer is not None:
                    return answer
            raise _missing(exchange.asked, error) from error


async def _serve_acceptable(exchange: Exchange, located: Located) -> web.StreamResponse:
    """The format that the client likes best among those that the content can be given in."""
    while True:
        try:
            return await _serve_located(exchange, located)
        except errors.NotAcceptable:
            if exchange.wanted.otherwise is None:
                raise
            exchange.wanted = exchange.wanted.otherwise


async def _serve_located(exchange: Exchange, located: Located) -> web.StreamResponse:
    wanted, codec = exchange.wanted.format, located.node.cid.codec
    if wants_node(exchange):
        note_kind("page")
        return await serve_node(exchange, located)
    if wanted is Format.RAW:
        note_kind("raw")
        return await serve_raw(exchange, located)
    if wanted is Format.CAR:
        note_kind("car")
        return await serve_car(exchange, located)
    if wanted is Format.TAR:
        note_kind("tar")
        return await serve_tar(exchange, located)
    if codec in NATIVE or wanted in _CODEC_FORMATS:
        note_kind("codec")
        return await serve_codec(exchange, located)
    if codec not in (RAW, DAG_PB):
        if _takes_page(exchange):
            return await serve_node(exchange, located)
        raise errors.NotAcceptable(
            f"{located.node.cid} has a codec that is only given with format=raw or car"
        )
    require_whole(located)
    unchanged = unchanged_file(exchange, located)
    if unchanged is not None:
        return unchanged
    facts = await known_stat(located.node, exchange.blocks)
    if facts.kind == "directory":
        if wanted is Format.JSON:
            raise errors.NotAcceptable(f"{located.node.cid} is a folder; there is no JSON of it")
        note_kind("listing")
        return await serve_directory(exchange, located)
    if facts.kind == "other":
        if _takes_page(exchange):
            return await serve_node(exchange, located)
        raise errors.NotAcceptable(f"{located.node.cid} is not UnixFS; get it with format=raw or format=car")
    return await serve_file(exchange, located)


def _takes_page(exchange: Exchange) -> bool:
    """Whether the page about a node is of more use than 406: to people it is."""
    default = exchange.wanted.format in (Format.DEFAULT, Format.HTML)
    return default and exchange.wanted.html and exchange.disposition_kind("inline") == "inline"


def _verifiable(exchange: Exchange) -> Wanted:
    """What a trustless gateway gives: blocks by their CID, and CARs (trustless gateway, HTTP API).

    The first such format that the client takes, and nothing otherwise.
    """
    wanted: Wanted | None = exchange.wanted
    while wanted is not None and wanted.format not in _TRUSTLESS:
        wanted = wanted.otherwise
    if wanted is None and exchange.wanted.format is Format.DEFAULT:
        raise errors.BadRequest(
            "this gateway serves verifiable formats only: ask for format=raw or format=car"
        )
    if wanted is None:
        raise errors.NotAcceptable("this gateway serves verifiable formats only: format=raw or format=car")
    if exchange.asked.namespace != "ipfs":
        raise errors.NotAcceptable("nobody could verify what a name leads to: ask for format=ipns-record")
    if wanted.format is Format.RAW and exchange.asked.segments:
        raise errors.NotAcceptable(
            "a block is asked for by its own CID, without a path; paths need format=car"
        )
    return replace(wanted, otherwise=None)


def _missing(asked: ContentRequest, error: MerkledagError) -> errors.NotFound:
    translated = translate(error)
    return errors.NotFound(f"failed to resolve {asked.content_path[:1024]}: {translated.message}")
