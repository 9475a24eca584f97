"""Which ledger this home belongs to: pinned when it is joined, held against every answer from then on."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from cli.home import Home
    from ledger.engine.client import LedgerClient

URL_KEY = "ledger.url"
CHAIN_KEY = "ledger.chain_id"
OPERATOR_KEY = "ledger.operator"


class Pin(NamedTuple):
    """The chain's ID and its operator's account that a server must have; None where nothing is pinned."""

    chain: str | None
    operator: bytes | None


def pin_of(home: Home, url: str = "") -> Pin:
    """What was pinned when this home was joined.

    Without that, and if `url` is this home's own server, what that server said of itself when it started:
    another program may have its port by now.
    """
    from merkledag.peer import parse_peer

    chain, operator = home.config.text(CHAIN_KEY), home.config.text(OPERATOR_KEY)
    if not chain and not operator:
        own = home.server("ledger")
        if own is not None and own["url"] == url:
            chain, operator = str(own.get("chain_id", "")), str(own.get("operator", ""))
    return Pin(chain or None, parse_peer(operator) if operator else None)


def pinned_client(home: Home, url: str) -> LedgerClient:
    """A client for who only reads: without a key, and of no other chain or operator than what is pinned."""
    from ledger.engine.client import LedgerClient

    pin = pin_of(home, url)
    return LedgerClient(url, expect_chain=pin.chain, expect_operator=pin.operator)
