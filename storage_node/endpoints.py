"""Which addresses of other nodes we are willing to connect to, and the HTTP session that keeps to them.

Endpoints come from the ledger, so from strangers. Unless ``allow_private`` is set (a loopback network, a
test), an endpoint that names or resolves to anything but a public address is refused, at parse time for
literals and inside the resolver for names, so that a name cannot point somewhere else a moment after it was
checked.
"""

from __future__ import annotations

import ipaddress
import socket

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.resolver import ThreadedResolver
from yarl import URL

from storage_node.errors import EndpointRefused

MAX_ENDPOINT_CHARS = 256
CONNECT_TIMEOUT_S = 10.0
IDLE_TIMEOUT_S = 60.0
MAX_CONNECTIONS = 256
MAX_CONNECTIONS_PER_NODE = 64  # a request a connection: so many hide a round trip
READ_BUFFER_BYTES = 512 * 1024  # most blocks are read in two or three pieces

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
# Where IANA assigns global unicast. Outside of it lie the forms that carry an IPv4 address to a translator:
# NAT64 (64:ff9b::/96, 64:ff9b:1::/48), IPv4-compatible (::/96), translated (::ffff:0:0:0/96).
GLOBAL_UNICAST = ipaddress.IPv6Network("2000::/3")
# Special-purpose blocks (RFC 6890) of which Python's tables count parts as global, more in newer versions:
# IETF protocol assignments, with Teredo (2001::/32), whose inner addresses are nobody's to check.
SPECIAL_V4 = ipaddress.IPv4Network("192.0.0.0/24")
SPECIAL_V6 = ipaddress.IPv6Network("2001::/23")


def parse_endpoint(text: str, *, allow_private: bool) -> URL:
    """The base URL of a node: http or https, a host, optionally a port; nothing else. Raises
    EndpointRefused."""
    if len(text) > MAX_ENDPOINT_CHARS:
        raise EndpointRefused("the node's endpoint is too long")
    try:
        url = URL(text)
    except ValueError:
        raise EndpointRefused(f"the node's endpoint is not a URL: {text!r}") from None
    if url.scheme not in {"http", "https"} or not url.host:
        raise EndpointRefused(f"the node's endpoint is not an http(s) URL: {text!r}")
    if url.path not in {"", "/"} or url.query_string or url.fragment or url.user or url.password:
        raise EndpointRefused(f"the node's endpoint must be scheme, host and port alone: {text!r}")
    if not allow_private and not _is_public(url.host):
        raise EndpointRefused(f"the node's endpoint is not a public address: {text!r}")
    return url.origin()


def _is_public(host: str) -> bool:
    """False for private literals and for names that never leave the machine; other names wait for the
    resolver."""
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        name = host.rstrip(".").lower()
        # A name of digits alone (http://2130706433/) is an IPv4 address to many resolvers.
        return name != "localhost" and not name.endswith(".localhost") and not name.replace(".", "").isdigit()
    return _is_public_address(address)


def _is_public_address(address: Address) -> bool:
    if isinstance(address, ipaddress.IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour
        if inner is None:
            return address in GLOBAL_UNICAST and address not in SPECIAL_V6 and address.is_global
        address = inner
    return address.is_global and not address.is_multicast and address not in SPECIAL_V4


class PublicResolver(AbstractResolver):
    """Resolves names, leaving out every address that is not public."""

    def __init__(self) -> None:
        self._inner = ThreadedResolver()

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """The public addresses of a name; OSError when there is none, as for a name that does not exist."""
        found = await self._inner.resolve(host, port, family)
        public = [result for result in found if _is_public(result["host"])]
        if not public:
            raise OSError(f"{host} has no public address")
        return public

    async def close(self) -> None:
        """Nothing is held."""
        await self._inner.close()


def open_session(*, allow_private: bool) -> aiohttp.ClientSession:
    """A client session with bounded connections that cannot be led to a private address unless allowed."""
    connector = aiohttp.TCPConnector(
        limit=MAX_CONNECTIONS,
        limit_per_host=MAX_CONNECTIONS_PER_NODE,
        resolver=ThreadedResolver() if allow_private else PublicResolver(),
    )
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT_S, sock_read=IDLE_TIMEOUT_S)
    return aiohttp.ClientSession(
        connector=connector,
        timeout=timeout,
        auto_decompress=False,
        cookie_jar=aiohttp.DummyCookieJar(),
        read_bufsize=READ_BUFFER_BYTES,
    )
