"""What a request asks for, read from its target, query and headers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from urllib.parse import parse_qsl, quote, unquote_to_bytes

from gateway.errors import BadRequest, UriTooLong
from gateway.settings import GatewaySettings

_MAX_QUERY_FIELDS = 64
_PATH_SAFE = "/!$&'()*+,;=:@~-._"


class Kind(Enum):
    """How content is addressed, and so which origin it has."""

    PATH = "path"  # host/ipfs/{cid}/…: one origin for everything
    SUBDOMAIN = "subdomain"  # {cid}.ipfs.host/…: an origin per root
    DNSLINK = "dnslink"  # name/…: the name's own origin


@dataclass(frozen=True, slots=True)
class ContentRequest:
    """A content path and how it was addressed.

    `namespace` is `ipfs` or `ipns`; `root` the CID or name as written; `segments` the decoded rest.
    `base` is what precedes the segments in the URL: `/ipfs/{root}` or nothing. `slash` tells whether the
    URL ended in one. `gateway_host` is the host that serves `/ipfs/…` paths, on a subdomain origin.
    """

    kind: Kind
    namespace: str
    root: str
    segments: tuple[str, ...]
    slash: bool
    query: Mapping[str, str]
    query_string: str
    base: str
    gateway_host: str = ""

    @property
    def content_path(self) -> str:
        """The content path as written, `/ipfs/{cid}/a/b/`, for people."""
        path = "/".join(("", self.namespace, self.root, *self.segments))
        return path + "/" if self.slash else path

    @property
    def header_path(self) -> str:
        """The content path for X-Ipfs-Path: percent-encoded where it is not ASCII."""
        path = self.content_path
        return path if path.isascii() and path.isprintable() else encode_path(path)

    @property
    def url_path(self) -> str:
        """The URL path without a trailing slash, percent-encoded."""
        return self.base + "".join("/" + encode_segment(segment) for segment in self.segments)

    @property
    def isolated(self) -> bool:
        """Whether this root has an origin of its own."""
        return self.kind is not Kind.PATH


@dataclass(frozen=True, slots=True)
class Target:
    """The path and query of a request target: decoded segments, whether a slash ends them, parameters."""

    segments: tuple[str, ...]
    slash: bool
    query: Mapping[str, str]
    query_string: str


def read_target(target: str, settings: GatewaySettings) -> Target:
    """Raises UriTooLong, and BadRequest as `split_path` and `parse_query` do."""
    path, query_string = split_target(target, settings)
    segments, slash = split_path(path, settings)
    return Target(tuple(segments), slash, parse_query(query_string), query_string)


def split_proxied(target: str) -> tuple[str, tuple[str, str] | None]:
    """The path of a request target and, where it is a whole URL as proxies are asked, scheme and host."""
    scheme, separator, rest = target.partition("://")
    if not separator or scheme.lower() not in ("http", "https"):
        return target, None
    end = min((at for at in map(rest.find, "/?#") if at >= 0), default=len(rest))
    host, path = rest[:end], rest[end:]
    return path if path.startswith("/") else "/" + path, (scheme.lower(), host)


def encode_path(path: str) -> str:
    """Percent-encodes a decoded path; slashes stay."""
    return quote(path, safe=_PATH_SAFE, errors="surrogateescape")


def encode_segment(segment: str) -> str:
    """Percent-encodes one path segment."""
    if segment.isalnum() and segment.isascii():
        return segment
    return quote(segment, safe=_PATH_SAFE[1:], errors="surrogateescape")


def split_target(target: str, settings: GatewaySettings) -> tuple[str, str]:
    """The path and the query string of a request target; raises UriTooLong."""
    if len(target) > settings.max_url_bytes:
        raise UriTooLong(f"the address has {len(target)} bytes; at most {settings.max_url_bytes}")
    path, _, query = target.partition("?")
    return path.partition("#")[0], query.partition("#")[0]


def parse_query(query_string: str) -> dict[str, str]:
    """The first value of each parameter; raises BadRequest for more than 64 of them."""
    if not query_string:
        return {}
    try:
        pairs = parse_qsl(query_string, keep_blank_values=True, max_num_fields=_MAX_QUERY_FIELDS)
    except ValueError as error:
        raise BadRequest(f"more than {_MAX_QUERY_FIELDS} query parameters") from error
    query: dict[str, str] = {}
    for key, value in pairs:
        query.setdefault(key, value)
    return query


def split_path(path: str, settings: GatewaySettings) -> tuple[list[str], bool]:
    """The decoded segments of a URL path, and whether it ends in a slash.

    Empty segments vanish. Names that are not UTF-8 carry surrogate escapes, as link names do. Raises
    BadRequest for `.` and `..` (a client resolves them before it asks), for NUL, and for more than
    `max_path_segments`.
    """
    if "%" in path:
        path = unquote_to_bytes(path.encode("utf-8", "surrogateescape")).decode("utf-8", "surrogateescape")
    segments = [segment for segment in path.split("/") if segment]
    if len(segments) > settings.max_path_segments:
        raise BadRequest(f"the path has {len(segments)} segments; at most {settings.max_path_segments}")
    if "\0" in path or "." in segments or ".." in segments:
        raise BadRequest(f"invalid path {path[:256]!r}: it contains '.', '..' or NUL as a segment")
    return segments, path.endswith("/")
