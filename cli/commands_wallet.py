"""`holdfast wallet`: accounts, what they hold, and transfers between them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from cli.arguments import account_argument
from cli.commands_wallet_history import history
from cli.commands_wallet_keys import backup, restore
from cli.commands_wallet_offline import sign, submit
from cli.groups import new_app
from cli.home import NODE_KEY, Home
from cli.money import amount_text, parse_amount
from cli.options import JsonFlag
from cli.output import CommandError, ExitCode, emit, note, text
from cli.spending import (
    Desk,
    DryRunFlag,
    Intent,
    KeyFlag,
    LedgerFlag,
    Manner,
    UnsignedOption,
    YesFlag,
    owner,
    send,
)

if TYPE_CHECKING:
    from cli.keystore import KeyInfo
    from ledger.engine.client import LedgerClient
    from ledger.records import AccountRecord

app = new_app("Accounts and transfers.")


@app.command()
def new(
    name: Annotated[str, typer.Argument(help="Name of the new key.")], json_output: JsonFlag = False
) -> None:
    """Make a key whose account can be used at once."""
    home = Home.locate()
    home.ensure()
    made = home.keystore().create(name, "ed25519")
    note(made.sentence())
    if json_output:
        emit(made.document())
    else:
        text(made.public)


@app.command("ls")
def list_accounts(ledger: LedgerFlag = "", json_output: JsonFlag = False) -> None:
    """List the accounts of this home's keys, with their balances if a ledger is known."""
    from cli.keystore import ED25519
    from cli.servers import ask_ledger, known_ledger

    home = Home.locate()
    keys = home.keystore()
    own = [info for info in map(keys.info, keys.names()) if info.kind == ED25519]
    url = known_ledger(home, ledger)
    records = ask_ledger(home, url, lambda client: _records(client, own)) if url else {}
    if not url:
        note("no ledger is known here: balances are not shown")
    for info in own:
        record = records.get(info.name)
        if json_output:
            shown = {} if record is None else {"balance": record.balance, "nonce": record.nonce}
            emit({"name": info.name, "account": info.public, "encrypted": info.sealed, **shown})
        else:
            held = "" if record is None else f"{amount_text(record.balance):>28}  "
            text(f"{held}{info.public}  {info.name}")


async def _records(client: LedgerClient, infos: list[KeyInfo]) -> dict[str, AccountRecord]:
    return {info.name: await client.account(account_argument(info.public)) for info in infos}


@app.command()
def balance(
    account: Annotated[str, typer.Argument(help="Account; by default one's own.")] = "",
    key: KeyFlag = NODE_KEY,
    ledger: LedgerFlag = "",
    json_output: JsonFlag = False,
) -> None:
    """Say what an account holds."""
    from cli.servers import ask_ledger, ledger_url
    from merkledag.peer import peer_text

    home = Home.locate()
    url = ledger_url(home, ledger)
    whose = account_argument(account) if account else owner(home, key)

    record = ask_ledger(home, url, lambda client: client.account(whose))
    if json_output:
        emit({"account": peer_text(whose), "balance": record.balance, "nonce": record.nonce})
    else:
        text(f"{amount_text(record.balance)}  {peer_text(whose)}")


@app.command("send")
def send_money(
    to: Annotated[str, typer.Argument(help="Account that receives.")],
    amount: Annotated[str, typer.Argument(help="HOLD, such as 1.5, or `250 units`.")],
    key: KeyFlag = NODE_KEY,
    ledger: LedgerFlag = "",
    yes: YesFlag = False,
    dry_run: DryRunFlag = False,
    unsigned: UnsignedOption = "",
    nonce: Annotated[
        str, typer.Option("--nonce", help="With --unsigned: the account's order.", show_default=False)
    ] = "",
    valid_for: Annotated[
        str, typer.Option("--valid-for", help="With --unsigned: how long, such as 30d.", show_default=False)
    ] = "",
    json_output: JsonFlag = False,
) -> None:
    """Send money; shows the fee and what remains, and asks first."""
    from cli.durations import seconds
    from cli.transaction_files import checked_nonce
    from merkledag.peer import peer_text

    receiver, units = account_argument(to), parse_amount(amount)
    if not units:
        raise CommandError("an amount of 0 moves nothing", ExitCode.LEDGER)
    lasting_s = seconds(valid_for, "--valid-for") if valid_for else 0
    manner = Manner(
        key, ledger, yes, dry_run, unsigned, json_output, nonce=checked_nonce(nonce), lifetime_s=lasting_s
    )

    async def prepare(desk: Desk) -> Intent:
        from ledger.transactions import Transfer

        effect = [f"send     {amount_text(units)} to {peer_text(receiver)}"]
        if receiver == desk.account:
            effect.append("         the account itself: nothing but the fee leaves it")
            return Intent(Transfer(receiver, units), tuple(effect))
        if not (held := await desk.ledger.account(receiver)).balance and not held.nonce:
            if units < (least := desk.params.account_minimum):
                raise CommandError(
                    f"{peer_text(receiver)} is a new account: what opens it is at least {amount_text(least)}",
                    ExitCode.LEDGER,
                )
            effect.append("         a new account: check it, what is sent to a wrong one is lost")
        return Intent(Transfer(receiver, units), tuple(effect), units)

    send(manner, prepare, lambda receipt: f"sent in block {receipt.height}: {receipt.tx_id}")


app.command("history")(history)
app.command("sign")(sign)
app.command("submit")(submit)
app.command("backup")(backup)
app.command("restore")(restore)
