"""How a command sends a transaction: shows its effect, fee and what remains, asks, and signs only then."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from cli.arguments import account_argument
from cli.home import Home
from cli.money import amount_text
from cli.output import CommandError, ExitCode, emit, note, text, usage
from cli.streams import require_yes

if TYPE_CHECKING:
    from ledger.engine.blocks import Receipt
    from ledger.engine.client import LedgerClient
    from ledger.genesis import Params
    from ledger.records import AccountRecord
    from ledger.transactions import Body, Transaction

LedgerFlag = Annotated[str, typer.Option("--ledger", help="URL of the ledger.", show_default=False)]
KeyFlag = Annotated[str, typer.Option("--key", help="Key that owns the account.")]
YesFlag = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
DryRunFlag = Annotated[bool, typer.Option("--dry-run", help="Show effect and fee, and send nothing.")]
UnsignedOption = Annotated[
    str,
    typer.Option(
        "--unsigned",
        metavar="FILE",
        help="Write the transaction there, to be signed elsewhere; --key may be an account.",
        show_default=False,
    ),
]
LIFETIME_S: Final = 3_600
OFFLINE_LIFETIME_S: Final = 7 * 86_400
QUIET_S: Final = 15.0
WAITING: Final = "no block has taken it yet: waiting. `holdfast ledger status` says whether the chain goes on"
UNSURE: Final = (
    "it is not known whether this was done, and for an hour of ledger time it may still be: look at "
    "`holdfast wallet history` before you do it again, or it is done twice"
)


@dataclass(frozen=True, slots=True)
class Manner:
    """The options of every command that sends. `unsigned` "" means that it signs itself.

    `nonce` None is the account's next one; `lifetime_s` 0 is the default.
    """

    key: str
    ledger: str = ""
    yes: bool = False
    dry_run: bool = False
    unsigned: str = ""
    json_output: bool = False
    nonce: int | None = None
    lifetime_s: int = 0


@dataclass(frozen=True, slots=True)
class Desk:
    """What a command knows of the ledger when it makes up its transaction. `time` is ledger time."""

    ledger: LedgerClient
    account: bytes
    record: AccountRecord
    params: Params
    chain: str
    time: int


@dataclass(frozen=True, slots=True)
class Intent:
    """What is to be sent, the lines that say what it does, and what it takes from the balance but the fee.

    `spends` is negative for what comes to the balance.
    """

    body: Body
    effect: tuple[str, ...]
    spends: int = 0


Prepare = Callable[[Desk], Awaitable[Intent]]


def owner(home: Home, key: str, *, account_too: bool = False) -> bytes:
    """The account of key `key`, without its passphrase; with `account_too` also one whose key is elsewhere.

    Exit 3 when there is neither.
    """
    from cli.home import NODE_KEY
    from cli.keystore import ED25519
    from merkledag.peer import parse_peer

    keys = home.keystore()
    if account_too and len(key) > 40 and not keys.has(key):
        return account_argument(key)
    if key == NODE_KEY and not keys.has(NODE_KEY):
        return home.signer(NODE_KEY).public_key
    info = keys.info(key)
    if info.kind != ED25519:
        raise usage(f"key {key} is a {info.kind} key: it owns no account")
    return parse_peer(info.public)


def confirm(question: str, *, yes: bool) -> None:
    """Asks on the terminal before money moves; without one, --yes is needed."""
    if not yes:
        require_yes(
            question,
            without_terminal="this spends money: add --yes to do it without being asked",
            declined="nothing was spent",
        )


def too_poor(account: bytes, balance: int, needed: int) -> CommandError:
    """Exit 7 with the way out for an account that does not have what is needed."""
    from merkledag.peer import peer_text

    return CommandError(
        f"the account has {amount_text(balance)} and needs {amount_text(needed)}: send it "
        f"{amount_text(needed - balance)} or more with `holdfast wallet send {peer_text(account)} AMOUNT` "
        "from an account that has them, or choose another with --key",
        ExitCode.LEDGER,
    )


def send(manner: Manner, prepare: Prepare, done: Callable[[Receipt], str]) -> Receipt | None:
    """The whole of a command that sends one transaction; `done` says in one line what became of it.

    Returns the receipt, None where nothing was to be sent. Exit 7 where the account cannot cover it or the
    ledger refuses.
    """
    from cli.serve import run_once

    if manner.unsigned and manner.dry_run:
        raise usage("--unsigned and --dry-run: choose one of them")
    if not manner.unsigned and (manner.nonce is not None or manner.lifetime_s):
        raise usage("--nonce and --valid-for are for what is signed elsewhere: add --unsigned FILE")
    receipt: Receipt | None = run_once(_send(Home.locate(), manner, prepare))
    if receipt is not None and not manner.json_output:
        text(done(receipt))
    return receipt


async def _send(home: Home, manner: Manner, prepare: Prepare) -> Receipt | None:
    from cli.ledger_pin import pinned_client
    from cli.servers import ledger_url

    url = ledger_url(home, manner.ledger)
    account = owner(home, manner.key, account_too=bool(manner.unsigned) or manner.dry_run)
    async with pinned_client(home, url) as ledger:
        desk = await desk_of(ledger, account)
        intent = await prepare(desk)
        tx = unsigned_transaction(desk, intent.body, nonce=manner.nonce, lifetime_s=_lifetime_s(manner))
        explain(desk, intent, tx.fee)
        needed = max(0, intent.spends) + tx.fee
        if manner.unsigned:
            _write(manner, tx)
            return None
        if needed > desk.record.balance:
            raise too_poor(account, desk.record.balance, needed)
        if manner.dry_run:
            _dry(manner, desk, intent, tx)
            return None
        confirm("send it?", yes=manner.yes)
        receipt = await signed(home, manner.key, ledger, tx)
    if manner.json_output:
        emit({**receipt.to_json(), "fee": tx.fee})
    return receipt


def _lifetime_s(manner: Manner) -> int:
    return manner.lifetime_s or (OFFLINE_LIFETIME_S if manner.unsigned else LIFETIME_S)


async def desk_of(ledger: LedgerClient, account: bytes) -> Desk:
    """The ledger as it is now, for one account."""
    now = await ledger.standing(account)
    # The chain is that of the genesis, which is pinned: no status makes anybody sign for another one.
    return Desk(ledger, account, now.record, now.params, await ledger.chain_id(), now.time)


def unsigned_transaction(
    desk: Desk, body: Body, *, nonce: int | None = None, lifetime_s: int = LIFETIME_S
) -> Transaction:
    """The transaction, not signed, with the least fee that its own size asks for."""
    from ledger.fees import with_least_fee
    from ledger.transactions import Transaction

    wanted = desk.record.nonce if nonce is None else nonce
    expiry = desk.time + lifetime_s
    return with_least_fee(Transaction(desk.chain, desk.account, wanted, 0, expiry, body), desk.params)


def explain(desk: Desk, intent: Intent, fee: int) -> None:
    """Says on stderr what a transaction does, what it costs, and what remains."""
    for line in intent.effect:
        note(line)
    before = desk.record.balance
    after = before - intent.spends - fee
    note(f"fee      {amount_text(fee)}")
    remains = f"{amount_text(after)} after it" if after >= 0 else "not enough"
    note(f"balance  {amount_text(before)}, {remains}")


async def signed(home: Home, key: str, ledger: LedgerClient, tx: Transaction) -> Receipt:
    """Signs and sends a transaction whose effect was shown; another nonce is taken if its own was used."""
    from ledger.engine.errors import LedgerUnreachable
    from ledger.engine.sender import Sender

    sender = Sender(ledger, home.signer(key), check_blocks=True)
    waiting = asyncio.get_running_loop().call_later(QUIET_S, note, WAITING)
    try:
        return await sender.send(tx.body, fee=tx.fee)
    except LedgerUnreachable as error:
        raise CommandError(f"{UNSURE} ({error})", ExitCode.UNREACHABLE) from None
    except asyncio.CancelledError:
        note(UNSURE)
        raise
    finally:
        waiting.cancel()


def _write(manner: Manner, tx: Transaction) -> None:
    from cli.transaction_files import document_of, write

    write(manner.unsigned, document_of(tx))
    note(f"not sent: sign it where the key is with `holdfast wallet sign {manner.unsigned}`")
    if manner.json_output:
        emit({"file": manner.unsigned, "tx_id": str(tx.id), "fee": tx.fee, "nonce": tx.nonce})


def _dry(manner: Manner, desk: Desk, intent: Intent, tx: Transaction) -> None:
    if not manner.json_output:
        return note("dry run: nothing was sent")
    document: dict[str, Any] = {
        "dry_run": True,
        "body": {"kind": tx.body.kind, **tx.body.to_json()},
        "fee": tx.fee,
        "spends": intent.spends,
        "balance": desk.record.balance,
        "balance_after": desk.record.balance - intent.spends - tx.fee,
        "effect": list(intent.effect),
    }
    return emit(document)
