"""The way of a request through the gateway: host, path, format, content, answer."""

from __future__ import annotations

from dataclasses import replace

from aiohttp import web

from gateway import errors, pages
from gateway.answers import translate
from gateway.blocks import Blocks
from gateway.conditional import field
from gateway.content import Located, Locator, known_stat
from gateway.exchange import Exchange
from gateway.format_block import NATIVE, require_whole, serve_codec, serve_raw
from gateway.format_car import serve_car
from gateway.format_file import serve_file
from gateway.format_listing import html_headers, serve_directory
from gateway.format_record import serve_record
from gateway.format_tar import serve_tar
from gateway.headers import base_headers
from gateway.hosts import Origin, cid_label, name_and_label, read_origin
from gateway.names import key_name
from gateway.negotiation import Format, negotiate
from gateway.redirects import FILE_NAME, MAX_BYTES, find_rule, parse_redirects, with_query
from gateway.request import (
    ContentRequest,
    Kind,
    encode_path,
    encode_segment,
    parse_query,
    split_path,
    split_target,
)
from gateway.settings import GatewaySettings
from gateway.shortcut import Shortcuts
from gateway.source import BlockSource, NameResolver, RecordSource
from merkledag.codecs import DAG_PB, RAW
from merkledag.dnslink import is_dns_name
from merkledag.errors import InvalidPath, MerkledagError, NoSuchLink, NotADirectory
from merkledag.path import parse_path

NAMESPACES = ("ipfs", "ipns")
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
    ) -> None:
        self._source = source
        self._names = names
        self._records = records
        self._settings = settings
        self._locator = Locator(names, settings)
        self._shortcuts = Shortcuts(settings.path_cache_entries)

    async def answer(self, request: web.BaseRequest) -> web.StreamResponse:
        """Raises GatewayError and MerkledagError before the response has begun, ConnectionError after."""
        target, host = _absolute(request.raw_path)
        origin = read_origin(request, host, self._settings)
        if not origin.gateway and not origin.name:
            known = self._shortcuts.answer(request, self._source)
            if known is not None:
                return known
        path, query_string = split_target(target, self._settings)
        segments, slash = split_path(path, self._settings)
        query = parse_query(query_string)
        asked = await self._asked(origin, segments, slash, query, query_string)
        if isinstance(asked, web.Response):
            return asked
        if request.headers.get("Service-Worker") == "script" and not asked.segments and not asked.slash:
            raise errors.BadRequest("a service worker must not be registered for a root without its slash")
        wanted = negotiate(query.get("format"), field(request.headers, "Accept"), query)
        only_cached = "only-if-cached" in request.headers.get("Cache-Control", "")
        blocks = Blocks(self._source, self._settings, only_cached=only_cached)
        exchange = Exchange(request, asked, wanted, blocks, self._settings, request.method == "HEAD")
        try:
            return await self._serve(exchange)
        finally:
            await blocks.close()

    def is_site(self, request: web.BaseRequest) -> bool:
        """Whether the host of the request is the origin of one content root or DNSLink site."""
        try:
            origin = read_origin(request, None, self._settings)
        except errors.BadRequest:
            return True
        return bool(origin.root) or (bool(origin.name) and self._names is not None)

    async def _asked(
        self, origin: Origin, segments: list[str], slash: bool, query: dict[str, str], query_string: str
    ) -> ContentRequest | web.Response:
        """What is asked for, or the redirect to where it must be asked."""
        if origin.root:
            return _on_subdomain(origin, segments, slash, query, query_string)
        names_path = bool(segments) and segments[0] in NAMESPACES
        if origin.name and await self._has_dnslink(origin.name, required=not names_path):
            return ContentRequest(
                Kind.DNSLINK, "ipns", origin.name, tuple(segments), slash or not segments, query,
                query_string, "", origin.host,
            )  # fmt: skip
        if not names_path:
            if segments:
                raise errors.NotFound("paths here begin with /ipfs/ or /ipns/")
            return _welcome()
        namespace = segments[0]
        if len(segments) == 1:
            if "uri" in query:
                return _uri_redirect(query["uri"])
            raise errors.BadRequest(f'invalid path "/{namespace}/": the CID or name is missing')
        root, rest = segments[1], tuple(segments[2:])
        base = f"/{namespace}/{encode_segment(root)}"
        asked = ContentRequest(
            Kind.PATH, namespace, root, rest, slash, query, query_string, base, origin.host
        )
        if origin.gateway:
            return self._to_subdomain(asked, origin)
        if namespace == "ipns":
            return _canonical_name(asked)
        return asked

    async def _has_dnslink(self, name: str, *, required: bool) -> bool:
        """Whether the host has a DNSLink; raises NotFound if it is `required` and does not."""
        if self._names is None:
            return False
        try:
            await self._names.resolve(name)
        except (LookupError, TimeoutError) as error:
            if required:
                raise errors.NotFound(f"the host {name} has no DNSLink") from error
            return False
        return True

    def _to_subdomain(self, asked: ContentRequest, origin: Origin) -> web.Response:
        """Content gets an origin of its own (subdomain gateway, migrating from path to subdomain)."""
        if asked.namespace == "ipfs":
            label = cid_label(self._locator.root_cid(asked))
        else:
            _, label = name_and_label(asked.root)
        rest = "".join("/" + encode_segment(segment) for segment in asked.segments)
        rest += "/" if asked.slash or not rest else ""
        query = f"?{asked.query_string}" if asked.query_string else ""
        return redirect(301, f"{origin.scheme}://{label}.{asked.namespace}.{origin.gateway}{rest}{query}")

    async def _serve(self, exchange: Exchange) -> web.StreamResponse:
        wanted = exchange.wanted.format
        if wanted is Format.IPNS_RECORD:
            return await serve_record(exchange, self._records)
        if not self._settings.deserialize:
            _require_verifiable(exchange)
        try:
            located = await self._locator.locate(exchange.asked, exchange.blocks)
            response = await _serve_acceptable(exchange, located)
            self._shortcuts.learn(exchange.request.raw_path, exchange, located, response)
            return response
        except (NoSuchLink, NotADirectory) as error:
            if exchange.asked.isolated and wanted in (Format.DEFAULT, Format.HTML):
                answer = await self._redirected(exchange)
                if answer is not None:
                    return answer
            raise _missing(exchange.asked, error) from error

    async def _redirected(self, exchange: Exchange) -> web.StreamResponse | None:
        """What the site's `_redirects` file says about a path that does not exist; None = nothing."""
        asked = exchange.asked
        try:
            file = await self._locator.locate(
                replace(asked, segments=(FILE_NAME,), slash=False), exchange.blocks
            )
        except (NoSuchLink, NotADirectory):
            return None
        facts = await known_stat(file.node, exchange.blocks)
        if facts.kind not in ("file", "raw"):
            return None
        # One byte more than allowed is enough to see that it is too large.
        data = await exchange.blocks.read_file(file.node.cid, 0, min(facts.size_bytes, MAX_BYTES + 1))
        found = find_rule(parse_redirects(data), asked.segments)
        if found is None:
            return None
        rule, target = found
        if rule.status in range(300, 400):
            return redirect(rule.status, with_query(target, asked.query_string))
        path = target.partition("#")[0].partition("?")[0]
        segments, slash = split_path(path, self._settings)
        located = await self._locator.locate(
            replace(asked, segments=tuple(segments), slash=slash), exchange.blocks
        )
        facts = await known_stat(located.node, exchange.blocks)
        if facts.kind == "directory":
            return await serve_directory(
                replace(exchange, asked=replace(asked, segments=tuple(segments), slash=True)), located
            )
        return await serve_file(
            exchange, located, name=segments[-1] if segments else None, status=rule.status
        )


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
    if wanted is Format.RAW:
        return await serve_raw(exchange, located)
    if wanted is Format.CAR:
        return await serve_car(exchange, located)
    if wanted is Format.TAR:
        return await serve_tar(exchange, located)
    if codec in NATIVE or wanted in _CODEC_FORMATS:
        return await serve_codec(exchange, located)
    if codec not in (RAW, DAG_PB):
        raise errors.NotAcceptable(
            f"{located.node.cid} has a codec that is only given with format=raw or car"
        )
    require_whole(located)
    facts = await known_stat(located.node, exchange.blocks)
    if facts.kind == "directory":
        if wanted is Format.JSON:
            raise errors.NotAcceptable(f"{located.node.cid} is a folder; there is no JSON of it")
        return await serve_directory(exchange, located)
    if facts.kind == "other":
        raise errors.NotAcceptable(f"{located.node.cid} is not UnixFS; get it with format=raw or format=car")
    return await serve_file(exchange, located)


def _require_verifiable(exchange: Exchange) -> None:
    """A trustless gateway gives blocks by their CID, and CARs (trustless gateway, HTTP API)."""
    wanted = exchange.wanted.format
    if wanted is Format.DEFAULT:
        raise errors.BadRequest(
            "this gateway serves verifiable formats only: ask for format=raw or format=car"
        )
    if wanted not in _TRUSTLESS:
        raise errors.NotAcceptable("this gateway serves verifiable formats only: format=raw or format=car")
    if wanted is Format.RAW and exchange.asked.segments:
        raise errors.BadRequest("a block is asked for by its own CID, without a path; paths need format=car")


def _missing(asked: ContentRequest, error: MerkledagError) -> errors.NotFound:
    translated = translate(error)
    return errors.NotFound(f"failed to resolve {asked.content_path[:1024]}: {translated.message}")


def _on_subdomain(
    origin: Origin, segments: list[str], slash: bool, query: dict[str, str], query_string: str
) -> ContentRequest | web.Response:
    label = origin.host.partition(f".{origin.namespace}.")[0]
    asked = ContentRequest(
        Kind.SUBDOMAIN, origin.namespace, origin.root, tuple(segments), slash or not segments, query,
        query_string, "", origin.gateway,
    )  # fmt: skip
    if label != origin.canonical:
        rest = asked.url_path + ("/" if asked.slash else "")
        query_part = f"?{query_string}" if query_string else ""
        return redirect(
            301, f"{origin.scheme}://{origin.canonical}.{origin.namespace}.{origin.gateway}{rest}{query_part}"
        )
    return asked


def _canonical_name(asked: ContentRequest) -> ContentRequest | web.Response:
    """Keys are written as CIDs in base36; other forms redirect there."""
    name = key_name(asked.root) if "." not in asked.root else None
    if name is None:
        if not is_dns_name(asked.root.lower()):
            raise errors.BadRequest(
                f'invalid path "{asked.content_path[:512]}": neither an IPNS key nor a DNS name'
            )
        return asked
    if name == asked.root:
        return asked
    rest = "".join("/" + encode_segment(segment) for segment in asked.segments) + ("/" if asked.slash else "")
    query = f"?{asked.query_string}" if asked.query_string else ""
    return redirect(302, f"/ipns/{name}{rest}{query}")


def _uri_redirect(uri: str) -> web.Response:
    """The URI router: `?uri=ipfs://…` → `/ipfs/…` (subdomain gateway, URI router)."""
    if not uri.startswith(("ipfs://", "ipns://")):
        raise errors.BadRequest("the uri parameter must be an ipfs:// or ipns:// address")
    try:
        path = parse_path(uri)
    except InvalidPath as error:
        raise errors.BadRequest(f"the uri parameter is not valid: {error}") from error
    text = "/".join(("", path.namespace, path.root, *path.segments))
    return redirect(301, encode_path(text))


def redirect(status: int, location: str) -> web.Response:
    """A redirect with its CORS headers."""
    headers = base_headers()
    headers["Location"] = location
    return web.Response(status=status, headers=headers)


def _absolute(target: str) -> tuple[str, str | None]:
    """A proxy request names the host in its target: its path, and that host."""
    for scheme in ("http://", "https://"):
        if target.startswith(scheme):
            host, slash, path = target[len(scheme) :].partition("/")
            return slash + path or "/", host
    return target, None


def _welcome() -> web.Response:
    headers = base_headers()
    html_headers(headers)
    return web.Response(body=pages.welcome().encode(), headers=headers)
