"""`holdfast wallet sign` and `submit`: transactions that are signed on a machine without a network."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

import typer

from cli.home import Home
from cli.options import JsonFlag
from cli.output import emit, invalid, not_found, note, text
from cli.spending import LedgerFlag, YesFlag, confirm
from cli.streams import STDIO

if TYPE_CHECKING:
    from ledger.transactions import Transaction


def sign(
    file: Annotated[str, typer.Argument(help="What --unsigned wrote, or - for stdin.")],
    output: Annotated[
        str, typer.Option("-o", "--output", help="A new file; FILE.signed without it.", show_default=False)
    ] = "",
    yes: YesFlag = False,
    json_output: JsonFlag = False,
) -> None:
    """Sign a transaction with the key of its account; shows all that it says, and needs no network."""
    from cli.transaction_files import described, document_of, read, write
    from ledger import transactions

    home = Home.locate()
    tx = read(file)
    name = _key_of(home, tx)
    for line in described(tx):
        note(line)
    confirm(f"sign it with key {name}?", yes=yes)
    signed = transactions.sign(replace(tx, sig=b""), home.signer(name))
    target = output or (STDIO if file == STDIO else f"{file}.signed")
    write(target, document_of(signed))
    if target == STDIO:
        return
    note(f"signed: send it with `holdfast wallet submit {target}`")
    if json_output:
        emit({"file": target, "tx_id": str(signed.id), "key": name})
    else:
        text(target)


def _key_of(home: Home, tx: Transaction) -> str:
    """The name of the key whose account the transaction is of; exit 3 when it is not here."""
    from merkledag.peer import peer_text

    keys, wanted = home.keystore(), peer_text(tx.account)
    for name in keys.names():
        if keys.info(name).public == wanted:
            return name
    raise not_found(f"the key of {wanted} is not in {home.keys}: sign this where it is")


def submit(
    file: Annotated[str, typer.Argument(help="What `wallet sign` wrote, or - for stdin.")],
    ledger: LedgerFlag = "",
    json_output: JsonFlag = False,
) -> None:
    """Send a signed transaction; doing it twice is harmless."""
    from cli.servers import ask_ledger, ledger_url
    from cli.transaction_files import described, read
    from ledger import transactions

    home = Home.locate()
    tx = read(file)
    if not tx.sig:
        raise invalid(f"{file} is not signed yet: `holdfast wallet sign` does it, where the key is")
    if not transactions.verify(tx):
        raise invalid(f"{file}: the signature is not the account's, or the transaction was changed after it")
    for line in described(tx):
        note(line)
    receipt = ask_ledger(
        home, ledger_url(home, ledger), lambda client: client.submit(tx.encode(), check_block=True)
    )
    if json_output:
        emit({**receipt.to_json(), "fee": tx.fee})
    else:
        text(f"in block {receipt.height}: {receipt.tx_id}")
