"""Makes a home a node of a chain on CometBFT that runs already: from all of its blocks, or by state sync."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from cli.comet_init import Places, follow
from cli.comet_service import comet_home
from cli.ledger_files import genesis_file, read_genesis
from cli.ledger_pin import URL_KEY, forget_seen, pin_to
from cli.ledger_replay import open_storage
from cli.output import CommandError, emit, invalid, note, text, usage
from cli.streams import require_yes
from cli.urls import is_web_url
from ledger.engine.cometbft.home.config import StateSync, parse_trust
from ledger.engine.cometbft.home.genesis_file import genesis_hash
from ledger.engine.cometbft.home.keys import validator_signer
from ledger.engine.cometbft.home.layout import CometHome
from ledger.engine.cometbft.home.signing import NOTHING, last_signed
from ledger.engine.cometbft.light.verify import Rules
from ledger.errors import InvalidGenesis

if TYPE_CHECKING:
    from cli.home import Home
    from cli.ledger_pin import Pin
    from ledger.genesis import Genesis

UNASKED = "this trusts a server for the genesis: add --yes, or --genesis HASH as a founder told you it"


def join_as_node(
    home: Home,
    url: str,
    wanted: Pin,
    places: Places,
    *,
    genesis_is: str,
    trust: str,
    sync_from: Sequence[str],
    replace: bool,
    yes: bool,
    json_output: bool,
) -> None:
    """Takes the genesis from `url`, which must have the hash, chain and operator that are given.

    With `replace` a node that never had a block begins anew, and a ledger that was joined is left. Without a
    hash it asks, unless `yes`: whoever gives a genesis chooses who validates. Exit 4 where the server has
    another one.
    """
    sync = state_sync(trust, sync_from)
    if not replace:
        _require_no_node(home)
    genesis = _asked(url, wanted)
    try:
        found = genesis_hash(genesis)
    except InvalidGenesis as error:
        raise CommandError(f"{url} runs a ledger that is not on CometBFT: {error}") from None
    if genesis_is and genesis_is.lower() != found:
        raise invalid(f"{url} has the genesis {found}, not {genesis_is}")
    if genesis.origin is not None and sync is None:
        raise usage(
            f"chain {genesis.chain_id} goes on from {genesis.origin.chain_id}, whose end is not in its "
            "genesis: begin with a snapshot (--trust, --sync-from), or import the archive of that end with "
            "`holdfast ledger import ARCHIVE --as-chain ID --engine cometbft --founding FILE`"
        )
    document = _document(url, genesis, found)
    if not genesis_is and not yes:
        _show(document, to_stderr=json_output)
        require_yes(
            "follow this chain, from this genesis?", without_terminal=UNASKED, declined="nothing was joined"
        )
    if replace:
        _forget(home)
    follow(home, genesis, places, sync)
    if json_output:
        emit(document)
        return
    if genesis_is or yes:
        _show(document, to_stderr=False)
    note("joined: `holdfast ledger start` follows the chain")


def _require_no_node(home: Home) -> None:
    if genesis_file(home).exists():
        raise CommandError(
            f"{genesis_file(home)} exists: this home has a ledger already; `holdfast ledger start` starts "
            "it, and --replace begins anew where it followed a chain and has no block yet"
        )
    if joined := home.config.text(URL_KEY):
        raise CommandError(
            f"this home belongs to the ledger at {joined}: --replace leaves it; or choose another "
            "HOLDFAST_HOME"
        )


def _forget(home: Home) -> None:
    """Leaves a joined ledger, and removes a node that never had a block, but for its keys and their memory.

    Exit 1 for a node that has blocks, that signed something, or that founds its chain; and while it runs.
    """
    comet = comet_home(home)
    if genesis_file(home).exists():
        _require_unbegun(home, comet)
        kept = {
            comet.node_key_file,
            comet.validator_key_file,
            comet.validator_state_file,
            comet.watermark_file,
        }
        genesis_file(home).unlink()  # first: without it there is no ledger
        for path in [each for each in home.ledger.rglob("*") if each not in kept and not each.is_dir()]:
            path.unlink()
    pin_to(home, "", "", "")
    forget_seen(home)


def _require_unbegun(home: Home, comet: CometHome) -> None:
    height = 0
    if (home.ledger / "db").is_dir():
        with open_storage(home.ledger) as storage:
            height = storage.height()
    if height:
        why = f"has blocks up to {height}"
    elif not comet.config_file.exists():
        why = "is not on CometBFT"
    elif last_signed(comet) > NOTHING:
        why = "belongs to a validator, whose key signed already"
    elif validator_signer(comet).public_key in {each.consensus_key for each in read_genesis(home).validators}:
        why = "belongs to a founder of its chain"
    else:
        return
    raise CommandError(f"the ledger in {home.ledger} {why}: it stays. Choose another HOLDFAST_HOME")


def state_sync(trust: str, servers: Sequence[str]) -> StateSync | None:
    """How the state is to come, None for block by block; exit 2 where one half of it is missing."""
    if not trust and not servers:
        return None
    if not trust or not servers:
        raise usage(
            "state sync needs both: --trust HEIGHT:HASH, and --sync-from the RPC of one or two cometbft"
        )
    for server in servers:
        if not is_web_url(server) or "," in server:
            raise usage(f"--sync-from {server}: write a URL such as http://validator.example:26657")
    try:
        height, digest = parse_trust(trust)
    except ValueError as error:
        raise usage(f"--trust: {error}") from None
    return StateSync(
        tuple(server.rstrip("/") for server in servers), height, digest, Rules().trusting_period_s
    )


def _asked(url: str, wanted: Pin) -> Genesis:
    from cli.serve import run_once
    from ledger.engine.client import LedgerClient

    async def asked() -> Genesis:
        async with LedgerClient(url, expect_chain=wanted.chain, expect_operator=wanted.operator) as client:
            return (await client.genesis()).validated()

    found: Genesis = run_once(asked())
    return found


def _document(url: str, genesis: Genesis, digest: str) -> dict[str, Any]:
    from merkledag.peer import peer_text

    return {
        "url": url,
        "chain_id": genesis.chain_id,
        "operator": peer_text(genesis.operator),
        "genesis": digest,
        "validators": len(genesis.validators),
    }


def _show(document: dict[str, Any], *, to_stderr: bool) -> None:
    for name, value in document.items():
        (note if to_stderr else text)(f"{name:12} {value}")
