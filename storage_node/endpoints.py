"""Which addresses of other nodes we are willing to connect to, and the HTTP session that keeps to them.

Endpoints come from the ledger and from routers, so from strangers. Unless ``allow_private`` is set (a
loopback network, a test), whatever names or resolves to anything but a public address is refused: as it is
read where it is a literal, and in any case when the socket is made, by the very address that it is to be
connected to. So a name cannot point somewhere else a moment after it was checked, and nobody's way of writing
addresses matters.
"""

from __future__ import annotations

import errno
import ipaddress
import socket
from collections.abc import Iterable

import aiohttp
from aiohttp import AddrInfoType
from aiohttp.abc import AbstractResolver
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
# The relays of 6to4 (RFC 7526: no longer routed) and IPv6 documentation (RFC 9637) are newer entries.
SPECIAL_V4 = tuple(map(ipaddress.IPv4Network, ("192.0.0.0/24", "192.88.99.0/24")))
SPECIAL_V6 = tuple(map(ipaddress.IPv6Network, ("2001::/23", "3fff::/20")))
# Below FIRST_NODE_PORT are the services of systems; of them a node has those of the web alone.
WEB_PORTS = frozenset({80, 443})
FIRST_NODE_PORT = 1024


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
    if not allow_private and not _is_node_port(url.port or 0):
        raise EndpointRefused(f"the node's endpoint is at a port that no node has: {text!r}")
    return url.origin()


def _is_public(host: str) -> bool:
    """False for private literals and for names that never leave the machine; other names wait for their
    addresses."""
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
            return address in GLOBAL_UNICAST and address.is_global and not _within(address, SPECIAL_V6)
        address = inner
    return address.is_global and not address.is_multicast and not _within(address, SPECIAL_V4)


def _within(address: Address, networks: Iterable[ipaddress.IPv4Network | ipaddress.IPv6Network]) -> bool:
    return any(address in network for network in networks)


def _is_node_port(port: int) -> bool:
    return port >= FIRST_NODE_PORT or port in WEB_PORTS


def _public_socket(place: AddrInfoType) -> socket.socket:
    """A socket for an address that it may be connected to; OSError for others."""
    family, kind, protocol, _, address = place
    host, port = str(address[0]), address[1]
    if not _is_public(host) or not (isinstance(port, int) and _is_node_port(port)):
        raise OSError(errno.EACCES, f"{host} port {port} is not a public address of a node")
    return socket.socket(family, kind, protocol)


def open_session(*, allow_private: bool, resolver: AbstractResolver | None = None) -> aiohttp.ClientSession:
    """A client session with bounded connections that cannot be led to a private address unless allowed.

    ``resolver`` finds the addresses of names; the system's by default.
    """
    connector = aiohttp.TCPConnector(
        limit=MAX_CONNECTIONS,
        limit_per_host=MAX_CONNECTIONS_PER_NODE,
        resolver=resolver or ThreadedResolver(),
        socket_factory=None if allow_private else _public_socket,
    )
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT_S, sock_read=IDLE_TIMEOUT_S)
    return aiohttp.ClientSession(
        connector=connector,
        timeout=timeout,
        auto_decompress=False,
        cookie_jar=aiohttp.DummyCookieJar(),
        read_bufsize=READ_BUFFER_BYTES,
    )
