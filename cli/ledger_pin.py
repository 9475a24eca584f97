"""Which ledger this home belongs to: pinned when it is joined, held against every answer from then on."""

from __future__ import annotations

from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, NamedTuple

from cli.output import invalid, usage

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from cli.home import Home
    from ledger.engine.chain_check import Tip
    from ledger.engine.client import LedgerClient
    from ledger.genesis import Genesis

SEEN_FILE = "ledger-seen.json"
MAX_SEEN_BYTES = 4_096
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


def pin_to(home: Home, url: str, chain: str, operator: str) -> None:
    """Makes a home belong to a ledger, or, by empty texts, to none; exit 2 if a variable says other."""
    for key, value in ((URL_KEY, url), (CHAIN_KEY, chain), (OPERATOR_KEY, operator)):
        home.config.set(key, value)
        if home.config.text(key) != value:
            raise usage(f"{home.config.origin(key)} says otherwise: unset it first")
    home.config.save()


def hold_against_pin(home: Home, name: str, genesis: Genesis) -> None:
    """Exit 4 where a history bears the name of the chain that this home belongs to, and not its operator."""
    from merkledag.peer import peer_text

    pin = pin_of(home)
    if pin.chain == genesis.chain_id and pin.operator not in (None, genesis.operator):
        raise invalid(
            f"{name} has a chain {genesis.chain_id} of {peer_text(genesis.operator)}: it is not the chain of "
            "that name that this home belongs to"
        )


@asynccontextmanager
async def pinned_client(home: Home, url: str) -> AsyncIterator[LedgerClient]:
    """A client without a key, of no other chain or operator than what is pinned.

    A home that was joined remembers the last block that it saw: the chain may not go back behind it.
    """
    from ledger.engine.client import LedgerClient

    pin = pin_of(home, url)
    before = _last_seen(home)
    async with LedgerClient(
        url, expect_chain=pin.chain, expect_operator=pin.operator, expect_tip=before
    ) as client:
        try:
            yield client
        finally:
            if client.tip is not None and client.tip != before:
                _remember(home, client.tip)


def forget_seen(home: Home) -> None:
    """Takes the chain's history as it is from now on."""
    (home.path / SEEN_FILE).unlink(missing_ok=True)


def _belongs(home: Home) -> dict[str, str]:
    """What a remembered block is of; empty for a home that was not joined."""
    chain, operator = home.config.text(CHAIN_KEY), home.config.text(OPERATOR_KEY)
    return {"chain_id": chain, "operator": operator} if chain and operator else {}


def _last_seen(home: Home) -> Tip | None:
    """The last block that this home saw of the chain that it belongs to, if its file says so."""
    import json

    from ledger.engine.chain_check import Tip
    from merkledag.cid import CID
    from merkledag.errors import MerkledagError

    owner = _belongs(home)
    try:
        with (home.path / SEEN_FILE).open("rb") as file:
            document = json.loads(file.read(MAX_SEEN_BYTES))
        if not owner or {name: document[name] for name in owner} != owner:
            return None
        return Tip(int(document["height"]), CID.parse(document["block"]))
    except (OSError, ValueError, KeyError, TypeError, RecursionError, MerkledagError):
        return None


def _remember(home: Home, tip: Tip) -> None:
    import json

    from cli.ledger_files import in_one_step

    owner, now = _belongs(home), _last_seen(home)
    if not owner or (now is not None and now.height >= tip.height):
        return
    with suppress(OSError), in_one_step(home.path / SEEN_FILE) as path:  # a full disk is no reason to fail
        path.write_text(json.dumps(owner | {"height": tip.height, "block": str(tip.cid)}), encoding="ascii")
