"""From a request's host, path and query to what is asked for, or to the redirect there."""

from __future__ import annotations

import asyncio
from urllib.parse import quote

from aiohttp import web

from gateway import errors
from gateway.addresses.hosts import NAMESPACES, Origin, cid_label, name_and_label, not_of_the_form
from gateway.addresses.names import dns_name, key_name
from gateway.addresses.request import ContentRequest, Kind, Target, encode_path, encode_segment
from gateway.headers import base_headers
from gateway.pages.welcome import serve_welcome
from gateway.settings import GatewaySettings
from gateway.source import NameResolver
from merkledag.cid import CID
from merkledag.errors import InvalidCID, InvalidPath
from merkledag.path import parse_path

_URI_SCHEMES = tuple(f"{namespace}://" for namespace in NAMESPACES)
_LOCATION_SAFE = "!#$%&'()*+,/:;=?@[]~-._"


class Addressing:
    """Path, subdomain and DNSLink gateway in one: what the targets of an origin mean."""

    def __init__(self, names: NameResolver | None, settings: GatewaySettings) -> None:
        self._names = names
        self._settings = settings

    async def asked(
        self, origin: Origin, target: Target, *, service_worker: bool
    ) -> ContentRequest | web.Response:
        """What is asked for, or the redirect to where it must be asked.

        `service_worker` tells that the client wants to register one. Raises GatewayError.
        """
        if origin.root:
            return _on_subdomain(origin, target)
        segments = target.segments
        in_namespace = bool(segments) and segments[0] in NAMESPACES
        if origin.name and not (origin.gateway and in_namespace):
            required = not (in_namespace or origin.gateway or origin.stray)
            if await self._has_dnslink(origin.name, required=required):
                return _content(Kind.DNSLINK, "ipns", origin.name, segments, target, "", origin.host)
        if origin.stray:
            raise errors.BadRequest(not_of_the_form(origin.host))
        if not in_namespace:
            if segments:
                raise errors.NotFound("paths here begin with /ipfs/ or /ipns/")
            return serve_welcome(target.query)
        namespace = segments[0]
        if len(segments) == 1:
            if target.query.get("uri"):
                return _uri_redirect(target.query["uri"])
            raise errors.BadRequest(f'invalid path "/{namespace}/": the CID or name is missing')
        if namespace == "ipfs" and segments[1] in NAMESPACES:
            return _without_superfluous(target)
        if service_worker and len(segments) == 2 and not target.slash:
            raise errors.BadRequest("a service worker must not be registered for a root without its slash")
        return _on_path(origin, target)

    async def _has_dnslink(self, name: str, *, required: bool) -> bool:
        """Whether the host has a DNSLink; raises NotFound and RetrievalTimeout if that is `required`."""
        if self._names is None:
            return False
        limit_s = self._settings.retrieval_timeout_s
        try:
            async with asyncio.timeout(limit_s):
                await self._names.resolve(name)
        except LookupError as error:
            if required:
                raise errors.NotFound(f"the host {name} has no DNSLink") from error
            return False
        except TimeoutError as error:
            if required:
                message = f"the DNSLink of the host {name} could not be looked up in time"
                raise errors.RetrievalTimeout(message) from error
            return False
        return True


def redirect(status: int, location: str) -> web.Response:
    """A redirect with its CORS headers; what a URL may not contain in `location` is percent-encoded."""
    headers = base_headers()
    headers["Location"] = quote(location, safe=_LOCATION_SAFE, errors="surrogateescape")
    return web.Response(status=status, headers=headers)


def _content(
    kind: Kind, namespace: str, root: str, segments: tuple[str, ...], target: Target, base: str, host: str
) -> ContentRequest:
    slash = target.slash or (kind is not Kind.PATH and not segments)
    return ContentRequest(
        kind, namespace, root, segments, slash, target.query, target.query_string, base, host
    )


def _on_subdomain(origin: Origin, target: Target) -> ContentRequest | web.Response:
    if origin.label != origin.canonical:
        return redirect(301, origin.canonical_url + _rest(target.segments, target))
    return _content(
        Kind.SUBDOMAIN, origin.namespace, origin.root, target.segments, target, "", origin.gateway
    )


def _on_path(origin: Origin, target: Target) -> ContentRequest | web.Response:
    """`/ipfs/…` or `/ipns/…`; content gets an origin of its own where there are such (subdomain gateway,
    migrating from path to subdomain gateway)."""
    namespace, root, *rest = target.segments
    segments = tuple(rest)
    if origin.gateway:
        label = cid_label(_cid(root, target)) if namespace == "ipfs" else name_and_label(root)[1]
        host = f"{origin.scheme}://{label}.{namespace}.{origin.gateway}"
        return redirect(301, host + _rest(segments, target))
    if namespace == "ipns":
        key = key_name(root) if "." not in root else None
        if key is not None and key != root:
            return redirect(302, _path((namespace, key, *segments), target))
        name = key or dns_name(root)
        if name is None:
            raise errors.BadRequest(f'invalid path "{_shown(target)}": neither an IPNS key nor a DNS name')
        root = name
    base = f"/{namespace}/{encode_segment(root)}"
    return _content(Kind.PATH, namespace, root, segments, target, base, origin.host)


def _without_superfluous(target: Target) -> web.Response:
    """`/ipfs/ipfs/CID` and `/ipfs/ipns/NAME`, as they come about by pasting, without what is too much."""
    segments = target.segments
    while len(segments) > 1 and segments[0] == "ipfs" and segments[1] in NAMESPACES:
        segments = segments[1:]
    if len(segments) == 1:
        raise errors.BadRequest(f'invalid path "{_shown(target)}": the CID or name is missing')
    if segments[0] == "ipfs":
        _cid(segments[1], target)
    return redirect(301, _path(segments, target))


def _uri_redirect(uri: str) -> web.Response:
    """The URI router of subdomain gateways: `?uri=ipfs://CID/path?query` → `/ipfs/CID/path?query`."""
    if not uri.lower().startswith(_URI_SCHEMES):
        raise errors.BadRequest("the uri parameter must be an ipfs:// or ipns:// address")
    try:
        path = parse_path(uri)
    except InvalidPath as error:
        raise errors.BadRequest(f"the uri parameter is not valid: {error}") from error
    text = encode_path("/".join(("", path.namespace, path.root, *path.segments)))
    before, mark, query = uri.partition("#")[0].partition("?")
    return redirect(301, text + ("/" if before.endswith("/") else "") + mark + query)


def _rest(segments: tuple[str, ...], target: Target) -> str:
    """What follows a root in a URL: at least a slash."""
    return _path(segments, target) if segments or target.slash else "/" + _path((), target)


def _path(segments: tuple[str, ...], target: Target) -> str:
    """Segments with the slash and query that the target ends in."""
    path = "".join("/" + encode_segment(segment) for segment in segments)
    query = f"?{target.query_string}" if target.query_string else ""
    return path + ("/" if target.slash else "") + query


def _cid(text: str, target: Target) -> CID:
    """The CID in an /ipfs path; raises BadRequest naming it as it was written."""
    try:
        return CID.parse(text)
    except InvalidCID as error:
        raise errors.BadRequest(f'invalid path "{_shown(target)}": {error}') from error


def _shown(target: Target) -> str:
    return "/" + "/".join(target.segments)[:512]
