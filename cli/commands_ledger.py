"""`holdfast ledger`: makes, runs and reads a ledger."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.commands_ledger_archive import export, import_, verify_history
from cli.commands_ledger_join import join, leave
from cli.commands_ledger_proof import prove, verify
from cli.groups import new_app
from cli.home import Home
from cli.money import amount_text
from cli.options import JsonFlag
from cli.output import emit, text, usage
from cli.servers import ask_found_ledger

if TYPE_CHECKING:
    from ledger.engine.client import LedgerClient

app = new_app("The shared ledger.")
app.command("join")(join)
app.command("leave")(leave)
app.command("prove")(prove)
app.command("verify")(verify)
app.command("export")(export)
app.command("import")(import_)
app.command("verify-history")(verify_history)
LedgerFlag = Annotated[str, typer.Option("--ledger", help="URL of the ledger.", show_default=False)]
STATUS_FIELDS = ("chain_id", "operator", "engine", "height", "time", "app_hash")
MONEY_FIELDS = ("issued", "balances", "escrow", "collateral", "burned")
EngineFlag = Annotated[str, typer.Option("--engine", help="embedded.")]


def _embedded_alone(engine: str) -> None:
    if engine != "embedded":
        raise usage(f"--engine {engine}: this version has the embedded engine alone")


@app.command()
def init(
    chain: Annotated[
        str, typer.Option("--chain-id", help="Name of the chain; by default a random one.")
    ] = "",
    period: Annotated[
        str, typer.Option("--period", help="Length of a proving period; by default 1d.", show_default=False)
    ] = "",
    window: Annotated[
        str, typer.Option("--window", help="Length of the proving window; by default 2h.", show_default=False)
    ] = "",
    issued: Annotated[str, typer.Option("--issued", help="HOLD that there are, all the operator's.")] = "",
    param: Annotated[
        list[str] | None,
        typer.Option("--param", help="NAME=VALUE of any parameter (repeatable).", show_default=False),
    ] = None,
    engine: EngineFlag = "embedded",
    json_output: JsonFlag = False,
) -> None:
    """Make a new ledger in this home, with its operator's keys."""
    from cli.compose import ISSUED_UNITS, init_ledger
    from cli.durations import seconds
    from cli.ledger_files import genesis_file
    from cli.ledger_params import parse_params
    from cli.money import parse_amount
    from ledger.errors import InvalidGenesis
    from ledger.fields import FieldError
    from ledger.genesis import Params
    from merkledag.peer import peer_text

    _embedded_alone(engine)
    home = Home.locate()
    chosen = parse_params(param or (), Params().to_json())
    for name, flag, given in (("period_s", "--period", period), ("window_s", "--window", window)):
        if given and name in chosen:
            raise usage(f"{flag} and --param {name} say the same: give one of them")
        if given:
            chosen[name] = seconds(given, flag)
    try:
        params = Params(**chosen).check()
        genesis = init_ledger(home, params, chain or None, parse_amount(issued) if issued else ISSUED_UNITS)
    except (FieldError, InvalidGenesis) as error:
        raise usage(f"these parameters do not do: {error}") from None
    if json_output:
        return emit(genesis.to_json())
    text(f"made chain {genesis.chain_id} in {genesis_file(home)}; `holdfast ledger start` runs it")
    text(f"others join with --chain {genesis.chain_id} --operator {peer_text(genesis.operator)}")
    return None


@app.command()
def start(
    listen: Annotated[str | None, typer.Option("--listen", help="ADDRESS:PORT.", show_default=False)] = None,
    engine: EngineFlag = "embedded",
    json_output: JsonFlag = False,
) -> int:
    """Run this home's ledger; whoever holds its operator key is trusted with the order of transactions."""
    from cli.compose import ledger_service
    from cli.ledger_files import read_genesis
    from cli.serve import run_forever, until

    _embedded_alone(engine)
    home = Home.locate()
    at = home.config.text("ledger.listen", listen)
    chain = read_genesis(home).chain_id

    async def main(stop: asyncio.Event) -> None:
        async with ledger_service(home, at, stop) as url:
            if json_output:
                emit({"ledger": url, "chain_id": chain})
            else:
                text(f"ledger   {url}\nchain    {chain}")
            await until(stop)

    with home:
        return run_forever(main)


@app.command()
def status(ledger: LedgerFlag = "", json_output: JsonFlag = False) -> None:
    """Say where the chain stands and where the money is."""
    from ledger.engine.render import AccountKey, to_json

    found = ask_found_ledger(ledger, lambda client: client.status())
    found["operator"] = AccountKey(found["operator"])
    if json_output:
        first = {name: found[name] for name in (*STATUS_FIELDS, *MONEY_FIELDS)}
        emit(to_json({**first, **found}))
        return
    for name in STATUS_FIELDS:
        shown = _clocks(found) if name == "time" else to_json(found[name])
        text(f"{name:11} {shown}")
    for name in MONEY_FIELDS:
        text(f"{name:11} {amount_text(found[name])}")
    if found.get("trouble"):
        text(f"trouble     {found['trouble']}")


def _clocks(found: Mapping[str, Any]) -> str:
    """Ledger time, which all dates are, and how far the clock was ahead of it at the last block."""
    from cli.durations import roughly
    from cli.times import time_text

    ahead_s = found["block_time_s"] - found["time"]
    ahead = f", ledger time: the clock is {roughly(ahead_s)} ahead" if ahead_s > 0 else ""
    return f"{time_text(found['time'])}{ahead}"


@app.command()
def params(ledger: LedgerFlag = "", json_output: JsonFlag = False) -> None:
    """List the chain's parameters."""
    from cli.ledger_params import params_lines

    found = ask_found_ledger(ledger, lambda client: client.params()).to_json()
    if json_output:
        emit(found)
        return
    for line in params_lines(found):
        text(line)


@app.command()
def block(
    height: Annotated[str, typer.Argument(help="Height, or latest.")] = "latest",
    ledger: LedgerFlag = "",
    json_output: JsonFlag = False,
) -> None:
    """Show a block."""
    from ledger.engine.blocks import node_cid

    if height != "latest" and not (height.isdecimal() and 0 < int(height) < 2**63):
        raise usage(f"{height!r} is no height: write a whole number from 1 on, or latest")
    wanted = None if height == "latest" else int(height)
    found = ask_found_ledger(ledger, lambda client: client.block(wanted))
    document = {"cid": str(node_cid(found.encode())), "block": found.to_json()}
    if json_output:
        emit(document)
        return
    text(f"cid         {document['cid']}")
    for name, value in found.to_json().items():
        if name == "txs":
            for tx in value:
                text(f"tx          {tx}")
        else:
            text(f"{name:11} {value}")


@app.command()
def tx(
    cid: Annotated[str, typer.Argument(metavar="CID", help="ID of the transaction.")],
    ledger: LedgerFlag = "",
    json_output: JsonFlag = False,
) -> None:
    """Show a transaction and what became of it."""
    from cli.arguments import cid_argument

    wanted = cid_argument(cid)

    async def question(client: LedgerClient) -> Any:
        return await client.tx(wanted)

    found = ask_found_ledger(ledger, question)
    document = {
        "height": found.height,
        "index": found.index,
        "receipt": found.receipt.to_json(),
        "tx": found.tx.to_json(),
    }
    if json_output:
        emit(document)
        return
    import json

    text(json.dumps(document, indent=2))
