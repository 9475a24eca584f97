"""`holdfast wallet history`: every change of a balance or a stake, for people, programs and spreadsheets."""

from __future__ import annotations

import csv
import sys
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.home import NODE_KEY, Home
from cli.money import amount_text, decimal_text
from cli.options import JsonFlag
from cli.output import emit, text, usage
from cli.spending import KeyFlag, LedgerFlag
from cli.times import parse_moment, time_text

if TYPE_CHECKING:
    from ledger.engine.client import LedgerClient
    from ledger.engine.views import ChangeView

SinceOption = Annotated[
    str,
    typer.Option("--since", metavar="WHEN", help="A date, or how long ago, such as 30d.", show_default=False),
]
CsvFlag = Annotated[bool, typer.Option("--csv", help="Print CSV with a line of headings.")]
COLUMNS = ("time", "height", "account", "place", "hold", "units", "why", "counterparty", "deal", "tx_id")


def history(
    account: Annotated[str, typer.Argument(help="Account; by default one's own.")] = "",
    since: SinceOption = "",
    limit: Annotated[
        int, typer.Option("--limit", min=0, help="The newest so many; 0 is all.", show_default=False)
    ] = 0,
    as_csv: CsvFlag = False,
    key: KeyFlag = NODE_KEY,
    ledger: LedgerFlag = "",
    json_output: JsonFlag = False,
) -> None:
    """List every change of an account's balance and stake, the newest first."""
    from cli.arguments import account_argument
    from cli.servers import ask_ledger, ledger_url
    from cli.spending import owner

    if as_csv and json_output:
        raise usage("--csv and --json: choose one of them")
    home = Home.locate()
    url = ledger_url(home, ledger)
    whose = account_argument(account) if account else owner(home, key)
    write = _csv() if as_csv else _json if json_output else _line

    async def tell(client: LedgerClient) -> None:
        given = 0
        async for change in changes(client, whose, since):
            if limit and given == limit:
                break
            write(change)
            given += 1

    ask_ledger(home, url, tell)


async def changes(client: LedgerClient, account: bytes, since: str) -> AsyncIterator[ChangeView]:
    """An account's changes since a moment (see `parse_moment`; "" is the beginning), the newest first."""
    begins_s = parse_moment(since, "--since", (await client.status())["time"]) if since else 0
    async for change in client.history(account):
        if change.time < begins_s:
            return
        yield change


def _line(change: ChangeView) -> None:
    from merkledag.peer import peer_text

    signed = f"{'+' if change.amount > 0 else ''}{amount_text(change.amount)}"
    where = "" if change.place == "balance" else f" ({change.place})"
    about = [f"deal {change.deal}"] if change.deal is not None else []
    if change.counterparty:
        about.append(f"{'from' if change.amount > 0 else 'to'} {peer_text(change.counterparty)}")
    text(f"{time_text(change.time)} {signed:>28}  {change.why}{where}  {' '.join(about)}".rstrip())


def _json(change: ChangeView) -> None:
    emit(change.to_json())


def _csv() -> Any:
    """A function that writes changes, after the line of headings."""
    rows = csv.writer(sys.stdout, lineterminator="\n")
    rows.writerow(COLUMNS)

    def write(change: ChangeView) -> None:
        shown = change.to_json()
        rows.writerow(
            [
                time_text(change.time),
                change.height,
                shown["account"],
                change.place,
                decimal_text(change.amount),
                change.amount,
                change.why,
                shown["counterparty"],
                shown["deal"] or "",
                shown["tx_id"] or "",
            ]
        )

    return write
