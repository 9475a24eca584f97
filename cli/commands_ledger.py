"""`holdfast ledger`: makes, runs and reads a ledger."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.commands_ledger_archive import export, import_, verify_history
from cli.commands_ledger_check import check
from cli.commands_ledger_join import join, leave
from cli.commands_ledger_light import light
from cli.commands_ledger_proof import prove, verify
from cli.commands_ledger_run import founder, init, start
from cli.commands_ledger_validator import app as validator_app
from cli.groups import new_app
from cli.home import Home
from cli.money import amount_text
from cli.options import JsonFlag
from cli.output import emit, text, usage
from cli.servers import ask_found_ledger
from cli.settings import COMETBFT

if TYPE_CHECKING:
    from ledger.engine.client import LedgerClient

app = new_app("The shared ledger.")
app.command("init")(init)
app.command("founder")(founder)
app.command("start")(start)
app.command("join")(join)
app.command("leave")(leave)
app.command("light")(light)
app.command("prove")(prove)
app.command("verify")(verify)
app.command("export")(export)
app.command("import")(import_)
app.command("verify-history")(verify_history)
app.command("check")(check)
app.add_typer(validator_app, name="validator")
LedgerFlag = Annotated[str, typer.Option("--ledger", help="URL of the ledger.", show_default=False)]
STATUS_FIELDS = ("chain_id", "operator", "engine", "height", "time", "app_hash")
MONEY_FIELDS = ("issued", "balances", "escrow", "collateral", "burned")


@app.command()
def status(ledger: LedgerFlag = "", json_output: JsonFlag = False) -> None:
    """Say where the chain stands and where the money is."""
    from ledger.engine.render import AccountKey, to_json

    found = ask_found_ledger(ledger, lambda client: client.status())
    found["operator"] = AccountKey(found["operator"])
    if not ledger and (peer := _own_peer()):
        found["peer"] = peer
    if json_output:
        first = {name: found[name] for name in (*STATUS_FIELDS, *MONEY_FIELDS)}
        emit(to_json({**first, **found}))
        return
    for name in STATUS_FIELDS:
        shown = _clocks(found) if name == "time" else to_json(found[name])
        text(f"{name:11} {shown}")
    for name in MONEY_FIELDS:
        text(f"{name:11} {amount_text(found[name])}")
    if found.get("peer"):
        text(f"peer        {found['peer']}")
    if found.get("trouble"):
        text(f"trouble     {found['trouble']}")


def _own_peer() -> str:
    """How peers reach the cometbft of this home, if its ledger runs on one."""
    home = Home.locate()
    if home.config.text("ledger.engine") != COMETBFT:
        return ""
    from cli.comet_service import own_peer

    return own_peer(home)


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
