"""The table of settings: every key of config.toml, its default, what it is for and what is refused."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from typing import Any, Final, NamedTuple, cast

from cli.output import CommandError, usage
from cli.urls import is_web_url, ledger_urls

Value = str | int | float | bool | list[str]
MAX_NUMBER: Final = 2**63 - 1  # of TOML
GIB: Final = 1 << 30
MAX_WORKERS: Final = 64
SYSTEM_DNS: Final = "system"
NO_DNS: Final = "off"
NO_ROUTERS: Final = "off"
GATEWAY: Final = "gateway."
EMBEDDED: Final = "embedded"
COMETBFT: Final = "cometbft"
ENGINES: Final = (EMBEDDED, COMETBFT)
ABCI_SCHEME: Final = "tcp://"


def _listen(value: Value) -> str | None:
    host, colon, port = str(value).rpartition(":")
    if not colon or not host or not port.isdecimal() or int(port) > 65535:
        return "write ADDRESS:PORT, for example 127.0.0.1:8080 (port 0 is any)"
    return None


def _url(value: Value) -> str | None:
    if value and not is_web_url(str(value)):
        return "write a URL that begins with http:// or https:// and names a host"
    return None


def _ledger(value: Value) -> str | None:
    if value and ledger_urls(str(value)) is None:
        return (
            "write the URL of a ledger's server, or those of several, separated by commas: http://HOST:PORT"
        )
    return None


def _urls(value: Value) -> str | None:
    return next(filter(None, map(_url, cast("list[str]", value))), None)


def _routers(value: Value) -> str | None:
    return None if value == [NO_ROUTERS] else _urls(value)


def _cids(value: Value) -> str | None:
    from cli.arguments import cid_argument

    try:
        for text in cast("list[str]", value):
            cid_argument(text)
    except CommandError as error:
        return str(error)
    return None


def _dns(value: Value) -> str | None:
    from storage_node.names_dns import is_doh, parse_doh_url, parse_server

    servers = cast("list[str]", value)
    if servers in ([SYSTEM_DNS], [NO_DNS]):
        return None
    try:
        for server in servers:
            if is_doh(servers[0]):
                parse_doh_url(server)
            else:
                parse_server(server)
    except ValueError:
        servers = []
    if servers:
        return None
    return "write system, off, DNS servers such as 192.0.2.1:53, or https://… for DNS over HTTPS"


def _not_negative(value: Value) -> str | None:
    if isinstance(value, int) and value < 0:
        return "it cannot be negative"
    return "that is more than there can be" if isinstance(value, int) and value > MAX_NUMBER else None


def _percent(value: Value) -> str | None:
    return None if isinstance(value, int) and 1 <= value <= 100 else "write a number from 1 to 100"


def _engine(value: Value) -> str | None:
    return None if value in ENGINES else f"write one of {', '.join(ENGINES)}"


def _abci(value: Value) -> str | None:
    if value and (not str(value).startswith(ABCI_SCHEME) or _listen(str(value).removeprefix(ABCI_SCHEME))):
        return "write tcp://ADDRESS:PORT, for example tcp://127.0.0.1:26658; empty is a unix socket"
    return None


def _networks(value: Value) -> str | None:
    import ipaddress

    for text in cast("list[str]", value):
        try:
            ipaddress.ip_network(text)
        except ValueError:
            return f"{text!r} is no address or network: write 10.1.2.3 or 10.1.2.0/24"
    return None


def _listen_or_not(value: Value) -> str | None:
    return _listen(value) if value else None


def _workers(value: Value) -> str | None:
    fits = isinstance(value, int) and 1 <= value <= MAX_WORKERS
    return None if fits else f"write a number from 1 to {MAX_WORKERS}"


def _size(text: str) -> int:
    from cli.money import parse_size

    return parse_size(text.replace("_", ""))


def _parsed_by(parse: Callable[[str], object]) -> Callable[[Value], str | None]:
    """Refuses texts that a parser for the command line refuses; the empty one stands for the default."""

    def complaint(value: Value) -> str | None:
        if not value:
            return None
        try:
            parse(str(value))
        except (CommandError, ValueError) as error:
            return " ".join(str(error).split())
        return None

    return complaint


def _amount(text: str) -> int:
    from cli.money import parse_amount

    return parse_amount(text)


def _account(text: str) -> bytes:
    from merkledag.peer import parse_peer

    return parse_peer(text)


def _trust(text: str) -> object:
    from cli.ledger_light import parse_trust

    return parse_trust(text)


def _profile(text: str) -> object:
    from cli.profile_options import named_profile

    return named_profile(text)


class Setting(NamedTuple):
    """One key of config.toml.

    Its default (which fixes the type), what it is for, what values are refused, and how a text is read where
    that is not plain from the type.
    """

    key: str
    default: Value
    help: str
    env: str
    check: Callable[[Value], str | None] | None = None
    parse: Callable[[str], Value] | None = None


def variable_by_rule(key: str) -> str:
    """HOLDFAST_TABLE_NAME."""
    return "HOLDFAST_" + key.upper().replace(".", "_")


def _setting(
    key: str,
    default: Value,
    help_text: str,
    check: Callable[[Value], str | None] | None = None,
    env: str | None = None,
    parse: Callable[[str], Value] | None = None,
) -> Setting:
    return Setting(key, default, help_text, env or variable_by_rule(key), check, parse)


def _bytes(key: str, default: int, help_text: str) -> Setting:
    """A number of bytes, which may be written as 500G too."""
    return _setting(key, default, help_text, _not_negative, parse=_size)


_PLAIN: Final[dict[str, Setting]] = {
    setting.key: setting
    for setting in (
        _setting(
            "import.profile",
            "unixfs-v1-2025",
            "profile of `add` when no option says otherwise",
            _parsed_by(_profile),
        ),
        _bytes("storage.max_bytes", 0, "hard quota of the blockstore in bytes, or such as 500G; 0 is none"),
        _bytes("storage.reserve_bytes", GIB, "free disk that is never used, in bytes, or such as 10G"),
        _bytes(
            "storage.cache_bytes",
            10 * GIB,
            "what is kept at most of content fetched for readers; 0 is nothing",
        ),
        _setting("storage.verify_on_read", False, "hash every block again when it is read from the disk"),
        _setting(
            "storage.gc_high_percent", 90, "servers collect when so much of the room is taken", _percent
        ),
        _setting("storage.gc_low_percent", 80, "and evict cache until no more than this is taken", _percent),
        _setting(
            "storage.scrub_days",
            30,
            "servers hash every block again in so many days; 0 is never",
            _not_negative,
        ),
        _bytes("storage.scrub_rate", 16 << 20, "bytes a second that they read for it at most; 0 is no limit"),
        _setting("maintenance.enabled", True, "servers collect, compact, scrub and heal by themselves"),
        _setting("gateway.listen", "127.0.0.1:8080", "where the gateway listens", _listen),
        _setting("gateway.control_listen", "", "where the gateway answers its operator", _listen_or_not),
        _setting("gateway.workers", 1, "processes that the gateway answers in", _workers),
        _setting("gateway.dnslinks", "", "JSON file of static DNSLink answers", env="HOLDFAST_DNSLINKS"),
        _setting("names.routers", [], "URLs of routers that IPNS records are asked of and handed to", _urls),
        _setting(
            "retrieval.routers",
            [],
            "URLs of routers asked who has content, or off; by default those of names.routers",
            _routers,
        ),
        _setting(
            "names.dns",
            [SYSTEM_DNS],
            "DNS servers (addresses or https://…) to ask for DNSLinks, or system, or off",
            _dns,
        ),
        _setting("node.listen", "127.0.0.1:4180", "where the storage node listens", _listen),
        _setting("node.url", "", "URL of the storage node that `node` commands speak to", _url),
        _setting(
            "node.capacity",
            "",
            "bytes the node offers, such as 500G; by default half of what is free",
            _parsed_by(_size),
        ),
        _setting("node.stake", "1000", "HOLD that the node puts at stake", _parsed_by(_amount)),
        _setting(
            "node.price", "0.000065104", "HOLD that the node asks for a GiB a period", _parsed_by(_amount)
        ),
        _setting("node.open", True, "the node takes new pieces; `node ask` and `node drain` change it"),
        _setting("node.min_piece", "0", "least bytes of a piece that the node takes", _parsed_by(_size)),
        _setting("node.max_piece", "1T", "most bytes of a piece that the node takes", _parsed_by(_size)),
        _setting("node.denied", [], "CIDs that the node neither takes nor keeps: roots or blocks", _cids),
        _setting("node.endpoint", "", "URL by which others reach the node", _url),
        _setting(
            "node.payout", "", "account that the node's pay goes to; by default its own", _parsed_by(_account)
        ),
        _setting("network.allow_private", False, "speak to nodes at private addresses too"),
        _setting("ledger.listen", "127.0.0.1:4181", "where the embedded ledger listens", _listen),
        _setting("ledger.keep_days", 0, "days that transactions are kept; 0 is for ever", _not_negative),
        _setting("ledger.keep_proofs_days", 0, "days that proofs are kept; 0 is for ever", _not_negative),
        _setting("ledger.snapshot_blocks", 10_000, "blocks between two snapshots; 0 is none", _not_negative),
        _setting("ledger.engine", EMBEDDED, "what runs this home's ledger: embedded or cometbft", _engine),
        _setting("ledger.cometbft", "", "the cometbft program; by default one is found, or built with Go"),
        _setting(
            "ledger.cometbft_rpc",
            "",
            "URL of the RPC of a cometbft that is not started here; by default as in its config.toml",
            _url,
        ),
        _setting(
            "ledger.abci",
            "",
            "tcp://ADDRESS:PORT where the ledger listens for cometbft; by default a unix socket",
            _abci,
        ),
        _setting(
            "ledger.abci_from",
            [],
            "addresses or networks from which cometbft may come to ledger.abci",
            _networks,
        ),
        _setting(
            "ledger.metrics_listen",
            "",
            "where a ledger on CometBFT gives its numbers to Prometheus",
            _listen_or_not,
        ),
        _setting(
            "ledger.halted_s",
            30,
            "seconds without a block after which a ledger on CometBFT counts as halted; 0 is never",
            _not_negative,
        ),
        _setting("ledger.url", "", "URL of the ledger to use, or several, separated by commas", _ledger),
        _setting("ledger.chain_id", "", "chain ID pinned when joining a ledger"),
        _setting("ledger.operator", "", "operator key pinned when joining a ledger", _parsed_by(_account)),
        _setting("ledger.trust", "", "HEIGHT:HASH pinned instead on CometBFT", _parsed_by(_trust)),
    )
}


@cache
def all_settings() -> dict[str, Setting]:
    """Every setting by its key."""
    from cli.settings_gateway import gateway_settings_rows

    return dict(sorted((_PLAIN | {row.key: row for row in gateway_settings_rows()}).items()))


def setting_for(key: str) -> Setting:
    """The setting named `key`; CommandError (exit 2) for any other name."""
    setting = _PLAIN.get(key)  # the gateway's numbers take a while to import: only who asks for them waits
    if setting is None:
        setting = all_settings().get(key)
    if setting is None:
        from difflib import get_close_matches

        near = get_close_matches(key, all_settings(), n=1)
        hint = f"; did you mean {near[0]}?" if near else "; `holdfast config get` lists them"
        raise usage(f"no setting is called {key!r}{hint}")
    return setting


def parse_value(setting: Setting, text: str) -> Value:
    """`text` as a value of the setting's type; ValueError with a clear line when it is none."""
    value: Value
    if setting.parse is not None:
        try:
            value = setting.parse(text)
        except CommandError as error:
            raise ValueError(f"{setting.key}: {error}") from None
    elif isinstance(setting.default, bool):
        lowered = text.strip().lower()
        if lowered not in {"true", "false", "1", "0", "yes", "no"}:
            raise ValueError(f"{setting.key} is true or false, not {text!r}")
        value = lowered in {"true", "1", "yes"}
    elif isinstance(setting.default, int):
        try:
            value = int(text.strip().replace("_", ""))
        except ValueError:
            raise ValueError(f"{setting.key} is a whole number, not {text!r}") from None
    elif isinstance(setting.default, float):
        try:
            value = float(text.strip().replace("_", ""))
        except ValueError:
            raise ValueError(f"{setting.key} is a number, not {text!r}") from None
    elif isinstance(setting.default, list):
        value = [part.strip() for part in text.split(",") if part.strip()]
    else:
        value = text
    return check_value(setting, value)


def check_value(setting: Setting, value: Any) -> Value:
    """`value` when its type and content fit the setting; ValueError otherwise."""
    if isinstance(setting.default, float) and type(value) is int:
        value = float(value)
    fits = type(value) is type(setting.default)
    if isinstance(value, list):
        fits = fits and all(isinstance(part, str) for part in value)
    if not fits:
        kind = {
            bool: "true or false",
            int: "a whole number",
            float: "a number",
            str: "text",
            list: "a list of texts",
        }
        raise ValueError(f"{setting.key} is {kind[type(setting.default)]}, not {value!r}")
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{setting.key} is a number, not {value!r}")
    complaint = setting.check(value) if setting.check else None
    if complaint:
        raise ValueError(f"{setting.key} = {value!r}: {complaint}")
    checked: Value = value
    return checked
