"""Response headers: CORS, caching, and those that name the content."""

from __future__ import annotations

from multidict import CIMultiDict

from gateway.addresses.request import ContentRequest

IMMUTABLE = "public, max-age=29030400, immutable"
STALE_LISTING = "stale-while-revalidate=2678400"
LISTING = f"public, max-age=604800, {STALE_LISTING}"
NO_STORE = "no-store"
MAX_TTL_S = 365 * 86_400  # records may claim a century

# Any page may read public content (path gateway, CORS). No credentials, so no cookies.
CORS: tuple[tuple[str, str], ...] = (
    ("Access-Control-Allow-Origin", "*"),
    ("Access-Control-Allow-Methods", "GET, HEAD, OPTIONS"),
    (
        "Access-Control-Allow-Headers",
        "Accept, Cache-Control, Content-Type, If-Modified-Since, If-None-Match, If-Range, Range, Traceparent,"
        " Tracestate, User-Agent, X-Requested-With",
    ),
    (
        "Access-Control-Expose-Headers",
        "Accept-Ranges, Content-Disposition, Content-Length, Content-Location, Content-Range, Etag,"
        " Retry-After, Server-Timing, Traceparent, X-Chunked-Output, X-Ipfs-Path, X-Ipfs-Roots,"
        " X-Stream-Output",
    ),
)
_BASE = CIMultiDict((*CORS, ("X-Content-Type-Options", "nosniff"), ("Server", "holdfast")))


def base_headers() -> CIMultiDict[str]:
    """What every response carries."""
    return _BASE.copy()


def content_headers(
    asked: ContentRequest, roots: str, cache_control: str | None, etag: str
) -> CIMultiDict[str]:
    """The headers of a successful response about a content path."""
    headers = _BASE.copy()
    headers["Etag"] = etag
    headers["X-Ipfs-Path"] = asked.header_path
    headers["X-Ipfs-Roots"] = roots
    if cache_control is not None:
        headers["Cache-Control"] = cache_control
    return headers


def mutable_cache_control(ttl_s: int) -> str | None:
    """For content behind a name; None if its time to live is unknown."""
    return f"public, max-age={min(ttl_s, MAX_TTL_S)}" if ttl_s > 0 else None
