"""Every number and switch of the gateway, with its default."""

from __future__ import annotations

from dataclasses import dataclass, fields

KIB = 1024
MIB = 1024 * KIB


@dataclass(frozen=True, slots=True)
class GatewaySettings:
    """Limits have their unit last in the name. Raises ValueError where a number makes no sense."""

    # What is served
    deserialize: bool = True  # False: only what a client can verify (raw, car, ipns-record)
    subdomain_hosts: tuple[str, ...] = ("localhost",)  # hosts whose subdomains are origins; () = none
    dnslink_hosts: bool = True  # other host names are DNSLink names
    trust_forwarded_headers: bool = True  # X-Forwarded-Host and -Proto, as a proxy in front sets them

    # How much at once
    max_concurrent_requests: int = 1024  # more: 429
    max_connections: int = 4096  # more: closed at once
    retry_after_s: int = 5

    # How long
    retrieval_timeout_s: float = 30.0  # for one block or name; then 504, or the stream is cut
    write_timeout_s: float = 60.0  # for the client to take `write_chunk_bytes`
    view_hold_s: float = 0.8  # a block's view stays open this long for a client that is slow (at most 1)
    header_timeout_s: float = 15.0  # from connecting to a complete request
    idle_timeout_s: float = 75.0  # from a response to the next request; clients close after 15 s or so

    # How large
    max_url_bytes: int = 8 * KIB
    max_header_bytes: int = 8 * KIB  # one header line
    max_path_segments: int = 128
    max_ranges: int = 16
    write_chunk_bytes: int = 128 * KIB  # what a slow client can make this process hold
    json_check_bytes: int = 4 * MIB  # a UnixFS file up to this size is parsed to see whether it is JSON
    max_listing_entries: int = 1_000_000
    sorted_listing_entries: int = 10_000  # larger folders are listed in the order of their blocks
    max_preview_bytes: int = 256 * KIB  # of a dag-json or dag-cbor node shown as HTML
    max_tar_depth: int = 64
    prefetch_blocks: int = 4  # fetched ahead of a reader when blocks are not here

    # Remembered paths under /ipfs (immutable)
    path_cache_entries: int = 16_384

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, (int, float)) and not isinstance(value, bool):
                least = 0 if field.name in ("prefetch_blocks", "path_cache_entries") else 1e-3
                if value < least:
                    raise ValueError(f"gateway setting {field.name} must be larger than {value}")
        for host in self.subdomain_hosts:
            if not host or host != host.lower() or "/" in host:
                raise ValueError(f"subdomain host {host!r}: write a lower-case host name, such as localhost")
