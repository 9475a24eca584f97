"""`holdfast ledger light`: a header that validators signed, to be told to whoever wants to trust it."""

from __future__ import annotations

from typing import Annotated

import typer

from cli.options import JsonFlag
from cli.output import emit, note, text, usage
from cli.servers import ask_found_ledger


def light(
    height: Annotated[
        int | None, typer.Argument(metavar="HEIGHT", help="Of the block; the last without it.")
    ] = None,
    ledger: Annotated[str, typer.Option("--ledger", help="URL of the ledger.", show_default=False)] = "",
    json_output: JsonFlag = False,
) -> None:
    """Print HEIGHT:HASH of a header of a ledger on CometBFT, as `ledger join --trust` takes it.

    In a home that has a header pinned it is verified from there, and held against all servers of the ledger.
    """
    from cli.ledger_light import trust_text
    from cli.times import time_text
    from ledger.engine.cometbft.light.canonical import SECOND_NS

    if height is not None and height < 1:
        raise usage("blocks are counted from 1")
    found = ask_found_ledger(ledger, lambda client: client.light_block(height))
    header = found.header
    if json_output:
        return emit(
            {
                "trust": trust_text(header.height, header.hash()),
                "chain_id": header.chain,
                "height": header.height,
                "hash": header.hash().hex(),
                "time": header.time_ns // SECOND_NS,
                "app_hash": header.app_hash.hex(),
                "validators": len(found.validators.validators),
                "power": found.validators.total_power,
            }
        )
    text(trust_text(header.height, header.hash()))
    count, power = len(found.validators.validators), found.validators.total_power
    return note(
        f"of chain {header.chain}, {time_text(header.time_ns // SECOND_NS)}, "
        f"{count} validators with power {power}"
    )
