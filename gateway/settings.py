"""Every number and switch of the gateway, with its default."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, fields

from gateway.addresses.host_names import HostPatterns, is_address

KIB = 1024
MIB = 1024 * KIB
TIB = 1024 * 1024 * MIB


_MAY_BE_NONE = ("prefetch_blocks", "path_cache_entries", "node_cache_bytes")


@dataclass(frozen=True, slots=True)
class GatewaySettings:
    """Limits have their unit last in the name. Raises ValueError where a number makes no sense."""

    # What is served
    deserialize: bool = True  # False: only what a client can verify (raw, car, ipns-record)
    # Host names, without ports. `*` stands for a part of one label: `*.example.net`, `eu-*.example.net`.
    trustless_hosts: tuple[str, ...] = ()  # these serve as if `deserialize` were off
    full_hosts: tuple[str, ...] = ()  # these serve as if it were on
    subdomain_hosts: tuple[str, ...] = ("localhost",)  # hosts whose subdomains are origins; () = none
    path_hosts: tuple[str, ...] = ()  # path gateways, whose names are never looked up as DNSLinks
    dnslink_hosts: bool = True  # other host names are DNSLink names
    trust_forwarded_headers: bool = True  # X-Forwarded-For, -Host and -Proto, as a proxy in front sets them

    # How much at once
    max_concurrent_requests: int = 1024  # more: 429
    max_client_requests: int = 128  # of one address (IPv6: one /64) at once; more: 429
    trusted_proxies: tuple[str, ...] = ("127.0.0.0/8", "::1/128")  # theirs are believed
    max_connections: int = 4096  # more: the longest idle one makes room, else it is closed at once
    max_client_connections: int = 512  # of one address that is no trusted proxy; likewise among its own
    retry_after_s: int = 5

    # How long
    retrieval_timeout_s: float = 30.0  # for one block or name; then 504, or the stream is cut
    write_timeout_s: float = 60.0  # for the client to take `write_chunk_bytes`
    view_hold_s: float = 0.8  # a block's view stays open this long for a client that is slow (at most 1)
    header_timeout_s: float = 15.0  # from connecting to a complete request
    idle_timeout_s: float = 75.0  # from a response to the next request; clients close after 15 s or so
    max_response_s: float = 3600.0  # from a whole request to the end of its response; then 504, or it is cut
    shutdown_s: float = 10.0  # for running answers to end when the gateway stops

    # How large
    max_url_bytes: int = 8 * KIB
    max_header_bytes: int = 8 * KIB  # one header line
    max_path_segments: int = 128
    max_response_bytes: int = TIB  # of a CAR, TAR, file or range; more: 410, or it is cut
    max_file_bytes: int = TIB  # of a file given as it is, or a part of it; larger: 410
    max_range_file_bytes: int = TIB  # of a file of which ranges are given; larger: 501
    max_ranges: int = 16
    write_chunk_bytes: int = 16 * KIB  # what a slow client can make this process hold
    json_check_bytes: int = 4 * MIB  # a UnixFS file up to this size is parsed to see whether it is JSON
    max_listing_entries: int = 1_000_000  # of a folder listed in one page, `per=all`
    listing_page_entries: int = 1_000  # on one page of a folder
    sorted_listing_entries: int = 10_000  # larger folders are listed in the order of their blocks
    max_preview_bytes: int = 256 * KIB  # of a dag-json or dag-cbor node shown as HTML
    max_tar_depth: int = 64
    prefetch_blocks: int = 64  # fetched at once ahead of a reader when blocks are not here
    lookahead_bytes: int = 32 * MIB  # so far ahead of a reader of a file, who holds no more of what arrived

    # For operators
    access_log: str = ""  # a file, "-" for standard output, "" for none
    access_log_format: str = "combined"  # or "json"
    denylists: tuple[str, ...] = ()  # files in the compact denylist format (IPIP-0383), later ones win
    tracing: bool = False  # spans by OpenTelemetry, if it is installed

    # Remembered paths under /ipfs (immutable)
    path_cache_entries: int = 16_384
    node_cache_bytes: int = 8 * MIB  # of folders and inner nodes of files, taken apart

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, (int, float)) and not isinstance(value, bool):
                least = 0 if field.name in _MAY_BE_NONE else 1e-3
                if value < least:
                    raise ValueError(f"gateway setting {field.name} must be larger than {value}")
        if self.view_hold_s > 1:
            raise ValueError("gateway setting view_hold_s must be at most 1: the store waits for it")
        for name in ("trustless_hosts", "full_hosts", "subdomain_hosts", "path_hosts"):
            try:
                HostPatterns(getattr(self, name))
            except ValueError as error:
                raise ValueError(f"gateway setting {name}: {error}") from None
        for network in self.trusted_proxies:
            try:
                ipaddress.ip_network(network, strict=False)
            except ValueError as error:
                raise ValueError(f"gateway setting trusted_proxies: {error}") from None
        if self.access_log_format not in ("combined", "json"):
            raise ValueError(f"access log format {self.access_log_format!r}: use combined or json")
        for host in self.subdomain_hosts:
            if is_address(host):
                raise ValueError(f"gateway setting subdomain_hosts: the address {host} has no subdomains")
        if both := set(self.trustless_hosts) & set(self.full_hosts):
            raise ValueError(f"gateway settings trustless_hosts and full_hosts: {min(both)} is in both")
