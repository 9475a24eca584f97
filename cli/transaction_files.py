"""Transactions in files, on their way to the machine that has the key and back: JSON that people can read.

    {"format": "holdfast-transaction-1", "chain", "account", "nonce", "fee", "expiry",
     "body": {"kind", …}, "sig": 64 bytes in hex, or "" before it is signed}

Amounts are base units, times ledger time in seconds, as in the ledger's HTTP interface.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from cli.money import MAX_UNITS, amount_text
from cli.output import emit, invalid, usage
from cli.streams import STDIO, read_input
from cli.times import time_text

if TYPE_CHECKING:
    from ledger.transactions import Transaction

FORMAT: Final = "holdfast-transaction-1"
MAX_FILE_BYTES: Final = 1 << 20
FIELDS: Final = ("format", "chain", "account", "nonce", "fee", "expiry", "body", "sig")
MONEY: Final = frozenset({"amount", "stake", "price", "price_per_gib_period", "fee"})
NO_SIGNATURE: Final = bytes(64)


def document_of(tx: Transaction) -> dict[str, Any]:
    """The file's document."""
    found = tx.to_json()
    del found["id"]
    return {"format": FORMAT, **found}


def write(file: str, document: Mapping[str, Any]) -> None:
    """Writes a new file, or to standard output for `-`; exit 4 where there is one already."""
    if file == STDIO:
        return emit(document)
    path = Path(file)
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
    except FileExistsError:
        raise invalid(f"{path} exists: it is not written over") from None
    with os.fdopen(handle, "w", encoding="utf-8") as opened:
        opened.write(json.dumps(document, indent=1) + "\n")
    return None


def read(file: str) -> Transaction:
    """The transaction in a file, or on standard input for `-`; `sig` is b"" if nobody has signed it yet.

    Raises CommandError: exit 3 when there is no such file, 4 for anything that no ledger would read.
    """
    from ledger import transactions
    from ledger.errors import InvalidTransaction
    from ledger.fields import account
    from merkledag.errors import MerkledagError

    data = read_input(file, MAX_FILE_BYTES, "a transaction")
    try:
        found = json.loads(data)
        if not isinstance(found, dict) or found.get("format") != FORMAT or set(found) != set(FIELDS):
            raise ValueError(f"not the fields of {FORMAT}")
        body = dict(found["body"])
        kind = transactions.BODIES[body.pop("kind")]
        sig = bytes.fromhex(found["sig"])
        tx = transactions.Transaction(
            found["chain"],
            account().from_json(found["account"]),
            found["nonce"],
            found["fee"],
            found["expiry"],
            kind.from_json(body),
            sig or NO_SIGNATURE,
        )
        return replace(transactions.decode(tx.encode()), sig=sig)
    except (KeyError, TypeError, ValueError, RecursionError, InvalidTransaction, MerkledagError) as error:
        raise invalid(f"{file} is no transaction of this version: {error}") from None


def described(tx: Transaction) -> Iterator[str]:
    """What a transaction says, a line a field, amounts in HOLD: all of it, for it is about to be signed."""
    from merkledag.peer import peer_text

    yield f"{tx.body.kind} by {peer_text(tx.account)} on chain {tx.chain}"
    for name, value in tx.body.to_json().items():
        yield f"  {name:20} {amount_text(value) if name in MONEY else _plain(value)}"
    yield f"  {'fee':20} {amount_text(tx.fee)}"
    yield f"  {'nonce':20} {tx.nonce}"
    yield f"  {'valid until':20} {time_text(tx.expiry)}, ledger time"


def _plain(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def checked_nonce(text: str) -> int | None:
    """The number that --nonce is, None where it is not given; exit 2 for anything else."""
    if not text:
        return None
    if not text.isdecimal() or len(text) > 19 or int(text) > MAX_UNITS:
        raise usage(f"--nonce {text}: a whole number")
    return int(text)
