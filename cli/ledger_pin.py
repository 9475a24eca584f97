"""Which ledger this home belongs to: pinned when it is joined, held against every answer from then on."""

from __future__ import annotations

import base64
import logging
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any, NamedTuple

from cli.output import invalid, note, usage

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from cli.home import Home
    from ledger.engine.chain_check import Tip, TrustPin
    from ledger.engine.client import LedgerClient
    from ledger.genesis import Genesis

_log = logging.getLogger(__name__)

KEEP_UP_S = 3_600.0
SEEN_FILE = "ledger-seen.json"
MAX_SEEN_BYTES = 4 << 20
URL_KEY = "ledger.url"
CHAIN_KEY = "ledger.chain_id"
OPERATOR_KEY = "ledger.operator"
TRUST_KEY = "ledger.trust"


class Pin(NamedTuple):
    """The chain's ID that a server must have, and its operator's account or a header of its validators.

    None where nothing is pinned. `trust` has what the header has led to.
    """

    chain: str | None
    operator: bytes | None
    trust: TrustPin | None = None


def pin_of(home: Home, url: str = "") -> Pin:
    """What was pinned when this home was joined.

    Without that, and if `url` is this home's own server, what that server said of itself when it started:
    another program may have its port by now.
    """
    from merkledag.peer import parse_peer

    chain, operator = home.config.text(CHAIN_KEY), home.config.text(OPERATOR_KEY)
    if home.config.text(TRUST_KEY):
        if not chain:
            raise usage(
                f"{TRUST_KEY} is a header of which chain? `holdfast ledger join URL --trust` sets both"
            )
        return Pin(chain, None, _trusted(home))
    if not chain and not operator:
        own = home.server("ledger")
        if own is not None and own["url"] == url:
            chain, operator = str(own.get("chain_id", "")), str(own.get("operator", ""))
    return Pin(chain or None, parse_peer(operator) if operator else None)


def pin_to(home: Home, url: str, chain: str, operator: str, trust: str = "") -> None:
    """Makes a home belong to a ledger, or, by empty texts, to none; exit 2 if a variable says other."""
    pinned = ((URL_KEY, url), (CHAIN_KEY, chain), (OPERATOR_KEY, operator), (TRUST_KEY, trust))
    for key, value in pinned:
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

    A home that was joined remembers the last block that it saw: the chain may not go back behind it. One that
    trusts a header of validators remembers the newest that it led to, and goes on from there every hour that
    this client is open: what runs for longer than a header is trusted must not end with an old one.
    """
    import asyncio

    from ledger.engine.client import LedgerClient

    pin = pin_of(home, url)
    before = _last_seen(home)
    async with LedgerClient(
        url,
        expect_chain=pin.chain,
        expect_operator=pin.operator,
        expect_tip=before,
        expect_trust=pin.trust,
    ) as client:
        keeping_up = asyncio.create_task(_keep_up(home, client)) if pin.trust is not None else None
        try:
            yield client
        finally:
            if keeping_up is not None:
                keeping_up.cancel()
                await asyncio.gather(keeping_up, return_exceptions=True)
            if client.tip is not None and client.tip != before:
                _remember(home, client.tip)
            if client.trusted not in (None, pin.trust):
                _remember_trust(home, client.trusted)


async def _keep_up(home: Home, client: LedgerClient) -> None:
    """Follows the chain's headers, whatever else is asked of it."""
    import asyncio

    from ledger.engine.cometbft.light.errors import TrustLost
    from ledger.errors import LedgerError

    while True:
        await asyncio.sleep(KEEP_UP_S)
        try:
            await client.light_block()
        except TrustLost as error:
            note(f"the ledger's headers lead no further: {error}")
        except LedgerError as error:
            _log.info("the ledger shows no new header now: %s", error)
        else:
            assert client.trusted is not None, "it is what was followed from"
            _remember_trust(home, client.trusted)


def forget_seen(home: Home) -> None:
    """Takes the chain's history as it is from now on."""
    (home.path / SEEN_FILE).unlink(missing_ok=True)


def _belongs(home: Home) -> dict[str, str]:
    """What a remembered block is of; empty for a home that was not joined."""
    chain, operator, trust = (home.config.text(key) for key in (CHAIN_KEY, OPERATOR_KEY, TRUST_KEY))
    if chain and trust:
        return {"chain_id": chain, "trust": trust}
    return {"chain_id": chain, "operator": operator} if chain and operator else {}


def _seen(home: Home) -> dict[str, Any]:
    """What this home remembers of the chain that it belongs to; empty without that."""
    import json

    owner = _belongs(home)
    try:
        with (home.path / SEEN_FILE).open("rb") as file:
            document = json.loads(file.read(MAX_SEEN_BYTES))
        is_of_it = owner and {name: document[name] for name in owner} == owner
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return {}
    return document if is_of_it else {}


class _Kept(NamedTuple):
    """What the pinned header has led to, as this home remembers it: its height, and as in `TrustPin`."""

    height: int
    stored: bytes
    genesis: bytes


def _kept(home: Home) -> _Kept | None:
    """None where there is nothing, or what is damaged: then it begins anew from the pinned header."""
    from ledger.engine.cometbft.light.block import LightBlock
    from ledger.engine.cometbft.light.errors import InvalidLightBlock

    seen = _seen(home)
    try:
        stored, genesis = base64.b64decode(seen["light_block"], validate=True), bytes.fromhex(seen["genesis"])
        block = LightBlock.decode(stored)
        block.check(home.config.text(CHAIN_KEY))
    except (ValueError, KeyError, TypeError, InvalidLightBlock):
        return None
    return _Kept(block.height, stored, genesis)


def _trusted(home: Home) -> TrustPin:
    """The pinned header, and what it has led to as far as this home remembers."""
    from cli.ledger_light import parse_trust

    pin, kept = parse_trust(home.config.text(TRUST_KEY)), _kept(home)
    return pin if kept is None else pin._replace(stored=kept.stored, genesis=kept.genesis)


def _remember_trust(home: Home, pin: TrustPin) -> None:
    """Keeps what the pinned header has led to, unless another process has come further meanwhile."""
    from ledger.engine.cometbft.light.block import LightBlock

    owner, kept = _belongs(home), _kept(home)
    if not owner or not pin.stored:
        return
    height = LightBlock.decode(pin.stored).height
    if kept is not None and (kept.height > height or kept == (height, pin.stored, pin.genesis)):
        return
    _write_seen(
        home,
        owner
        | {
            "height": height,
            "light_block": base64.b64encode(pin.stored).decode(),
            "genesis": pin.genesis.hex(),
        },
    )


def _write_seen(home: Home, document: dict[str, Any]) -> None:
    import json

    from cli.ledger_files import in_one_step

    with suppress(OSError), in_one_step(home.path / SEEN_FILE) as path:  # a full disk is no reason to fail
        path.write_text(json.dumps(document), encoding="ascii")


def _last_seen(home: Home) -> Tip | None:
    """The last block that this home saw of the chain that it belongs to, if its file says so."""
    from ledger.engine.chain_check import Tip
    from merkledag.cid import CID
    from merkledag.errors import MerkledagError

    seen = _seen(home)
    try:
        return Tip(int(seen["height"]), CID.parse(seen["block"]))
    except (ValueError, KeyError, TypeError, MerkledagError):
        return None


def _remember(home: Home, tip: Tip) -> None:
    owner, now = _belongs(home), _last_seen(home)
    if owner and (now is None or now.height < tip.height):
        _write_seen(home, owner | {"height": tip.height, "block": str(tip.cid)})
