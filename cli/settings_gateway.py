"""The gateway's own numbers and switches as settings: `gateway.NAME` for each field of `GatewaySettings`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import fields
from typing import TYPE_CHECKING, Any, Final

from cli.output import CommandError, invalid
from cli.settings import GATEWAY, MAX_NUMBER, Setting, Value, variable_by_rule
from gateway.settings import GatewaySettings

if TYPE_CHECKING:
    from cli.config import Config

# What each is for. Times are in seconds, sizes in bytes (or such as 4M).
HELP: Final = {
    "deserialize": "serve files and folders; off: only what a client can verify",
    "trustless_hosts": "hosts that serve only what a client can verify",
    "full_hosts": "hosts that serve files and folders even so",
    "subdomain_hosts": "host names whose subdomains are content roots",
    "path_hosts": "hosts that are path gateways and never DNSLinks",
    "dnslink_hosts": "other host names are looked up as DNSLinks",
    "trust_forwarded_headers": "believe X-Forwarded-For, -Host and -Proto, which a proxy in front sets",
    "max_concurrent_requests": "requests at once in one worker; more get 429",
    "max_client_requests": "requests of one address at once in one worker; more get 429",
    "trusted_proxies": "networks whose X-Forwarded headers are believed",
    "max_client_connections": "connections of one address to one worker; its longest idle one makes room",
    "max_connections": "connections to one worker; the longest idle one makes room",
    "retry_after_s": "when who got 429, 502 or 504 is to come back",
    "retrieval_timeout_s": "for one block or name; then 504",
    "write_timeout_s": "for a client to take a piece of what it asked for",
    "view_hold_s": "a block stays open so long for a slow client; at most 1",
    "header_timeout_s": "from connecting to a whole request",
    "idle_timeout_s": "from a response to the next request",
    "max_response_s": "for a whole response; also for the old workers' after a reload",
    "shutdown_s": "for running answers to end when the gateway stops",
    "max_url_bytes": "longer addresses get 414",
    "max_header_bytes": "longer header lines get 431",
    "max_path_segments": "of a content path",
    "max_response_bytes": "of one response",
    "max_file_bytes": "of a file that is given as it is",
    "max_range_file_bytes": "of a file of which ranges are given",
    "max_ranges": "of one request",
    "write_chunk_bytes": "what a slow client makes the gateway hold",
    "json_check_bytes": "files up to this size are parsed for format=json",
    "max_listing_entries": "of a folder that is listed whole, in one page",
    "listing_page_entries": "on one page of a folder",
    "sorted_listing_entries": "larger folders are listed in the order of their blocks",
    "max_preview_bytes": "of a node shown as a page",
    "max_tar_depth": "folders in folders of a TAR",
    "prefetch_blocks": "fetched at once ahead of a reader",
    "lookahead_bytes": "held at most of what was fetched ahead of a reader of a file",
    "access_log": "file of the access log, - for standard output; none if empty",
    "access_log_format": "combined or json",
    "denylists": "files of what is not to be served (IPIP-0383), later ones win",
    "tracing": "spans by OpenTelemetry, if it is installed",
    "path_cache_entries": "paths of up to 1,024 characters remembered in one worker",
    "node_cache_bytes": "memory of one worker for folders and inner nodes of files, taken apart",
}  # fmt: skip
# The contract of the command line names these.
_VARIABLES: Final = {"subdomain_hosts": "HOLDFAST_SUBDOMAIN_HOSTS"}


def gateway_settings_rows() -> Iterator[Setting]:
    """One setting for each field."""
    for field in fields(GatewaySettings):
        key = GATEWAY + field.name
        env = _VARIABLES.get(field.name) or variable_by_rule(key)
        parse = _size if field.name.endswith("_bytes") else None
        yield Setting(key, _plain(field.default), _help(field.name), env, _check(field.name), parse)


def _help(name: str) -> str:
    return HELP.get(name) or name.replace("_", " ")


def gateway_settings(config: Config) -> GatewaySettings:
    """What the settings of a home say; exit 4 where they do not go together."""
    chosen = {field.name: _typed(config.get(GATEWAY + field.name)) for field in fields(GatewaySettings)}
    try:
        return GatewaySettings(**chosen)
    except ValueError as error:
        raise invalid(str(error)) from None


def _plain(value: Any) -> Value:
    plain: Value = list(value) if isinstance(value, tuple) else value
    return plain


def _typed(value: Value) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _check(name: str) -> Callable[[Value], str | None]:
    def complaint(value: Value) -> str | None:
        if isinstance(value, (int, float)) and value > MAX_NUMBER:
            return "that is more than there can be"
        try:
            GatewaySettings(**{name: _typed(value)})
        except ValueError as error:
            return str(error)
        return None

    return complaint


def _size(text: str) -> Value:
    from cli.money import parse_size

    try:
        return parse_size(text.replace("_", ""))
    except CommandError as error:
        raise ValueError(str(error)) from None
