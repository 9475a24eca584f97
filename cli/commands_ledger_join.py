"""`holdfast ledger join` and `leave`: which ledger this home belongs to."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.commands_ledger_run import (
    ExternalFlag,
    P2pFlag,
    PeersFlag,
    ProfileFlag,
    RpcFlag,
    chosen_engine,
    places_of,
    refuse_of_comet,
)
from cli.home import Home
from cli.ledger_pin import CHAIN_KEY, TRUST_KEY, URL_KEY, Pin, forget_seen, pin_of, pin_to, pinned_client
from cli.options import JsonFlag
from cli.output import CommandError, emit, invalid, note, text, usage
from cli.servers import urls_of_ledger
from cli.settings import COMETBFT
from cli.streams import require_yes

if TYPE_CHECKING:
    from ledger.genesis import Genesis

# What is asked before a home trusts somebody, and what is said where nobody can be asked.
OPERATOR = (
    "join this ledger and trust its operator with the order of transactions?",
    "this trusts an operator: add --yes, or --chain ID and --operator KEY as the operator told you them",
)
VALIDATORS = (
    "join this ledger and trust that this header is its validators'?",
    "this trusts validators: add --yes, or --trust HEIGHT:HASH as people who run some of them told you it",
)


def join(
    url: Annotated[
        str, typer.Argument(metavar="URL", help="The ledger's URL, or several, separated by commas.")
    ],
    chain: Annotated[str, typer.Option("--chain", help="The chain ID that it must have.")] = "",
    operator: Annotated[str, typer.Option("--operator", help="The operator's key that it must have.")] = "",
    trust: Annotated[
        str, typer.Option("--trust", metavar="HEIGHT:HASH", help="On CometBFT: a header that it must have.")
    ] = "",
    replace: Annotated[
        bool, typer.Option("--replace", help="Leave the ledger, or the history, of before.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    engine: Annotated[
        str, typer.Option("--engine", help="cometbft: run a node of the chain in this home.")
    ] = "",
    genesis: Annotated[
        str, typer.Option("--genesis", help="With --engine: the hash that its genesis must have.")
    ] = "",
    sync_from: Annotated[
        list[str] | None,
        typer.Option("--sync-from", help="With --engine: URL of a cometbft's RPC, for state sync."),
    ] = None,
    profile: ProfileFlag = "wan",
    p2p_listen: P2pFlag = "",
    rpc_listen: RpcFlag = "",
    external_address: ExternalFlag = "",
    peer: PeersFlag = None,
    json_output: JsonFlag = False,
) -> None:
    """Make this home belong to a ledger: pins its URL, chain ID, and operator or, on CometBFT, a header.

    Every command refuses (exit 4) a server of another chain or operator, or whose headers do not follow, from
    then on. With --chain and --operator, or --trust, got from people on another way, nothing is asked. Of
    several URLs all must show the same header. With --engine cometbft this home runs a node of the chain
    itself (`holdfast ledger start`), which gets its blocks from the peers.
    """
    from cli.ledger_light import trust_argument

    url = urls_of_ledger(url)
    home = Home.locate()
    if trust and operator:
        raise usage("a chain's blocks are signed by its operator or by validators: --operator or --trust")
    wanted = Pin(chain or None, _operator(operator), trust_argument(trust) if trust else None)
    places = places_of(profile, p2p_listen, rpc_listen, external_address, peer)
    if engine:
        from cli.comet_join import join_as_node

        if chosen_engine(home, engine) != COMETBFT:
            raise usage("only a chain on CometBFT has nodes to add: leave --engine out to use the ledger")
        return join_as_node(
            home, url, wanted, places,
            genesis_is=genesis, trust=trust, sync_from=sync_from or (),
            replace=replace, yes=yes, json_output=json_output,
        )  # fmt: skip
    refuse_of_comet(places, "wan", {"--genesis": genesis, "--sync-from": sync_from})
    return _join(home, url, wanted, replace=replace, yes=yes, json_output=json_output)


def _join(home: Home, url: str, wanted: Pin, *, replace: bool, yes: bool, json_output: bool) -> None:
    from cli.ledger_files import genesis_file

    if genesis_file(home).exists():
        raise CommandError(
            f"this home runs a ledger of its own ({genesis_file(home)}): choose another HOLDFAST_HOME"
        )
    before = pin_of(home)
    genesis, document = _asked(url, wanted)
    is_known = _is_known(before, genesis, wanted)
    if not is_known and not replace and (before.chain or before.operator):
        raise invalid(
            f"{url} runs chain {genesis.chain_id} of another operator, pin or name than this home belongs to "
            f"({before.chain}): --replace leaves that one"
        )
    asked = not is_known and not yes and not (wanted.chain and wanted.operator) and not wanted.trust
    if asked:
        _show(document, note if json_output else text)
        question, unasked = VALIDATORS if genesis.validators else OPERATOR
        require_yes(question, without_terminal=unasked, declined="nothing was joined")
    if is_known and not replace:
        _require_same_history(home, url)
    home.ensure()
    if replace:
        forget_seen(home)
    if genesis.validators:
        pinned = home.config.text(TRUST_KEY) if is_known and not replace else document["trust"]
        pin_to(home, url, document["chain_id"], "", pinned)
    else:
        pin_to(home, url, document["chain_id"], document["operator"])
    if json_output:
        emit(document)
    else:
        if not asked:
            _show(document, text)
        what = "a header of its validators" if genesis.validators else "its operator"
        note(f"joined: {home.config_file} holds the URL, the chain and {what}")


def leave(json_output: JsonFlag = False) -> None:
    """Forget the ledger that this home belongs to. Keys, content and deals stay where they are."""
    from cli.ledger_files import genesis_file

    home = Home.locate()
    left = {"url": home.config.text(URL_KEY), "chain_id": home.config.text(CHAIN_KEY)}
    if not any(left.values()):
        if genesis_file(home).exists():
            raise CommandError(
                f"this home runs a ledger of its own ({genesis_file(home)}), which is not left: choose "
                "another HOLDFAST_HOME, or, for a node that has no block yet, begin anew with `holdfast "
                "ledger join URL --engine cometbft --replace` and its other options"
            )
        raise CommandError("this home belongs to no ledger")
    pin_to(home, "", "", "")
    forget_seen(home)
    if json_output:
        emit(left)
    else:
        text(f"left {left['chain_id'] or left['url']}")


def _require_same_history(home: Home, url: str) -> None:
    """Exit 4 where the chain does not go on from the last block that this home saw."""
    from cli.serve import run_once

    async def asked() -> None:
        async with pinned_client(home, url) as client:
            await client.genesis()

    run_once(asked())


def _operator(words: str) -> bytes | None:
    from cli.arguments import account_argument

    return account_argument(words) if words else None


def _is_known(before: Pin, genesis: Genesis, wanted: Pin) -> bool:
    """Whether this home belongs to that chain already, by the very header that is wanted, if one is."""
    if not genesis.validators:
        return before == Pin(genesis.chain_id, genesis.operator)
    if before.chain != genesis.chain_id or before.trust is None:
        return False
    return wanted.trust is None or wanted.trust[:2] == before.trust[:2]


def _asked(url: str, wanted: Pin) -> tuple[Genesis, dict[str, Any]]:
    """The server's genesis, checked in itself and against its last block, and what is to be shown of it."""
    from cli.compose import is_loopback
    from cli.ledger_light import shown_header, trust_text
    from cli.serve import run_once
    from ledger.engine.chain_check import BY_VALIDATORS
    from ledger.engine.client import LedgerClient
    from ledger.engine.urls import urls_of

    async def asked() -> tuple[Genesis, dict[str, Any]]:
        async with LedgerClient(url, expect_chain=wanted.chain) as client:
            genesis = (await client.genesis()).validated()
        pin = wanted
        if genesis.validators:
            if wanted.operator is not None:
                raise invalid(f"{url} {BY_VALIDATORS}")
            pinned = wanted.trust or await shown_header(urls_of(url), genesis.chain_id)
            pin = Pin(genesis.chain_id, None, pinned)
        elif wanted.trust is not None:
            raise invalid(f"{url} runs a chain whose operator signs its blocks: --operator KEY, not --trust")
        async with LedgerClient(
            url, expect_chain=pin.chain, expect_operator=pin.operator, expect_trust=pin.trust
        ) as client:
            genesis = (await client.genesis()).validated()
            status = await client.status()
            if status["height"]:
                await client.block()  # verified: a genesis alone can be copied
            document = _document(url, genesis, status, (await client.params()).to_json())
        if pin.trust is not None:
            document["trust"] = trust_text(*pin.trust[:2])
            document["validators"] = len(genesis.validators)
        return genesis, document

    if any(not each.startswith("https://") and not is_loopback(each) for each in urls_of(url)):
        note(
            f"{url} is not encrypted: whoever is in between sees what you send, and may keep it from arriving"
        )
    found: tuple[Genesis, dict[str, Any]] = run_once(asked())
    return found


def _document(url: str, genesis: Genesis, status: dict[str, Any], params: dict[str, int]) -> dict[str, Any]:
    from merkledag.peer import peer_text

    return {
        "url": url,
        "chain_id": genesis.chain_id,
        "operator": peer_text(genesis.operator),
        "height": status["height"],
        "time": status["time"],
        "issued": genesis.issued,
        "params": params,
    }


def _show(document: dict[str, Any], line: Callable[[str], None]) -> None:
    from cli.ledger_params import params_lines
    from cli.money import amount_text
    from cli.times import time_text

    for name in ("url", "chain_id", "operator", "trust", "height"):
        if name in document:
            line(f"{name:24} {document[name]}")
    line(f"{'time':24} {time_text(document['time'])}")
    line(f"{'issued':24} {amount_text(document['issued'])}")
    for each in params_lines(document["params"]):
        line(each)
