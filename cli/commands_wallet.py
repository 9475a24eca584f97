"""`holdfast wallet`: accounts and transfers."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from cli.groups import new_app
from cli.home import NODE_KEY, Home
from cli.money import amount_text, parse_amount
from cli.options import JsonFlag
from cli.output import emit, note, text, usage
from cli.streams import require_yes

app = new_app("Accounts and transfers.")
LedgerFlag = Annotated[str, typer.Option("--ledger", help="URL of the ledger.", show_default=False)]
KeyFlag = Annotated[str, typer.Option("--key", help="Key that owns the account.")]
YesFlag = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]


def account_argument(text_: str) -> bytes:
    """An account as people write it (k51…, 12D3Koo…); exit 2 for anything else."""
    from merkledag.errors import InvalidCID
    from merkledag.peer import parse_peer

    try:
        return parse_peer(text_)
    except InvalidCID as error:
        raise usage(f"{text_!r} is no account: {error}") from None


def confirm(question: str, *, yes: bool) -> None:
    """Asks on the terminal before money moves; without one, --yes is needed."""
    if not yes:
        require_yes(
            question,
            without_terminal="this spends money: add --yes to do it without being asked",
            declined="nothing was spent",
        )


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


@app.command()
def balance(
    account: Annotated[str, typer.Argument(help="Account; by default one's own.")] = "",
    key: KeyFlag = NODE_KEY,
    ledger: LedgerFlag = "",
    json_output: JsonFlag = False,
) -> None:
    """Say what an account holds."""
    from cli.serve import run_once
    from cli.servers import wired
    from merkledag.peer import peer_text

    home = Home.locate()
    owner = account_argument(account) if account else None

    async def asked() -> tuple[bytes, Any]:
        async with wired(home, ledger, key) as wire:
            whose = owner or wire.sender.account
            return whose, await wire.ledger.account(whose)

    whose, record = run_once(asked())
    if json_output:
        emit({"account": peer_text(whose), "balance": record.balance, "nonce": record.nonce})
    else:
        text(f"{amount_text(record.balance)}  {peer_text(whose)}")


@app.command()
def send(
    to: Annotated[str, typer.Argument(help="Account that receives.")],
    amount: Annotated[str, typer.Argument(help="HOLD, such as 1.5.")],
    key: KeyFlag = NODE_KEY,
    ledger: LedgerFlag = "",
    yes: YesFlag = False,
    json_output: JsonFlag = False,
) -> None:
    """Send money; shows the fee and asks first."""
    from cli.serve import run_once
    from cli.servers import wired
    from ledger.fees import small_fee
    from ledger.transactions import Transfer
    from merkledag.peer import peer_text

    receiver, units = account_argument(to), parse_amount(amount)
    home = Home.locate()

    async def sent() -> Any:
        async with wired(home, ledger, key) as wire:
            fee = small_fee(await wire.ledger.params())
            confirm(f"send {amount_text(units)} to {peer_text(receiver)}, fee {amount_text(fee)}?", yes=yes)
            return await wire.sender.send(Transfer(receiver, units), fee=fee)

    receipt = run_once(sent())
    if json_output:
        emit(receipt.to_json())
    else:
        text(f"sent in block {receipt.height}: {receipt.tx_id}")
