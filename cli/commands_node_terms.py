"""`holdfast node ask`, `withdraw`, `declare-fault`, `give-up`, `stay`: what a provider tells the ledger."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.arguments import DealArgument, ShardArgument, check_shard, cid_argument
from cli.home import NODE_KEY, Home
from cli.money import amount_text, parse_amount, parse_size
from cli.options import JsonFlag
from cli.output import CommandError, ExitCode, count_text, emit, note, size_text, text, usage
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
from cli.times import time_text

if TYPE_CHECKING:
    from cli.settings import Value
    from ledger.engine.client import LedgerClient
    from ledger.records import ProviderRecord

ALL = "all"
DATASET_BYTES = 32
NODE_REGISTERS = "`holdfast node run` registers it"


async def registered(ledger: LedgerClient, account: bytes, otherwise: str = NODE_REGISTERS) -> ProviderRecord:
    """The provider that an account is; exit 7 where it is none, and `otherwise` says how it becomes one."""
    from ledger.engine.errors import LedgerNotFound
    from merkledag.peer import peer_text

    try:
        return await ledger.provider(account)
    except LedgerNotFound:
        raise CommandError(
            f"{peer_text(account)} is no provider on this ledger: {otherwise}",
            ExitCode.LEDGER,
        ) from None


def keep_settings(home: Home, settings: dict[str, Value]) -> None:
    """Lets config.toml say what the ledger says now, with a line for what a variable overrules.

    A node tells the ledger its settings when it starts: without this it would take the change back.
    """
    for name, value in settings.items():
        home.config.set(name, value)
    home.config.save()
    for name in settings:
        if home.config.origin(name) not in ("config.toml", "default"):
            note(
                f"{name} is also set by {home.config.origin(name)}: a node that starts with it overrules this"
            )


def _keep(manner: Manner, settings: dict[str, Value]) -> None:
    if manner.key == NODE_KEY:
        keep_settings(Home.locate(), settings)


def ask(
    price: Annotated[str, typer.Option("--price", help="HOLD a GiB a period.", show_default=False)] = "",
    min_piece: Annotated[
        str, typer.Option("--min-piece", help="Least bytes of a piece, such as 1M.", show_default=False)
    ] = "",
    max_piece: Annotated[
        str, typer.Option("--max-piece", help="Most bytes of a piece, such as 10G.", show_default=False)
    ] = "",
    is_open: Annotated[
        bool | None, typer.Option("--open/--closed", help="Take new pieces or not.", show_default=False)
    ] = None,
    key: KeyFlag = NODE_KEY,
    ledger: LedgerFlag = "",
    yes: YesFlag = False,
    dry_run: DryRunFlag = False,
    unsigned: UnsignedOption = "",
    json_output: JsonFlag = False,
) -> None:
    """Show or change what the node asks; deals that are made already keep their price."""
    if not price and not min_piece and not max_piece and is_open is None:
        return _show(key, ledger, json_output=json_output)
    manner = Manner(key, ledger, yes, dry_run, unsigned, json_output)
    wanted = {
        "price_per_gib_period": parse_amount(price) if price else None,
        "min_piece_bytes": parse_size(min_piece) if min_piece else None,
        "max_piece_bytes": parse_size(max_piece) if max_piece else None,
        "open": is_open,
    }
    settings: dict[str, Value] = {
        name: value
        for name, value in {
            "node.price": price,
            "node.min_piece": min_piece,
            "node.max_piece": max_piece,
            "node.open": is_open,
        }.items()
        if value not in ("", None)
    }  # fmt: skip

    async def prepare(desk: Desk) -> Intent:
        from ledger.transactions import Ask

        now = await registered(desk.ledger, desk.account)
        terms: dict[str, Any] = {
            name: getattr(now, name) if value is None else value for name, value in wanted.items()
        }
        body = Ask(**terms)
        if body.min_piece_bytes > body.max_piece_bytes:
            raise usage("--min-piece is more than --max-piece")
        return Intent(body, (f"ask      {_terms(body)}", f"before   {_terms(now)}"))

    if send(manner, prepare, lambda receipt: f"asked in block {receipt.height}: {receipt.tx_id}"):
        _keep(manner, settings)
    return None


def _terms(ask_: Any) -> str:
    """What a provider takes, for people; of a provider's record or of an ask."""
    sizes = f"pieces of {size_text(ask_.min_piece_bytes)} to {size_text(ask_.max_piece_bytes)}"
    takes = "takes new pieces" if ask_.open else "takes no new pieces"
    return f"{amount_text(ask_.price_per_gib_period)} a GiB a period, {sizes}, {takes}"


def _show(key: str, ledger: str, *, json_output: bool) -> None:
    from cli.servers import ask_ledger, ledger_url

    home = Home.locate()
    url = ledger_url(home, ledger)
    account = owner(home, key)
    found = ask_ledger(home, url, lambda client: registered(client, account))
    if json_output:
        return emit(found.to_json())
    text(f"ask       {_terms(found)}")
    text(f"capacity  {size_text(found.used_bytes)} of {size_text(found.capacity_bytes)} taken")
    text(f"stake     {amount_text(found.stake)}, {amount_text(found.locked)} of it locked as collateral")
    text(f"endpoint  {found.endpoint}")
    proven, faults = count_text(found.proven_total, "period"), count_text(found.fault_total, "fault")
    text(f"history   since {time_text(found.registered_at)}: {proven} proven, {faults}")
    return None


def withdraw(
    amount: Annotated[str, typer.Argument(help="HOLD, such as 1.5, or all that is not locked: all.")],
    key: KeyFlag = NODE_KEY,
    ledger: LedgerFlag = "",
    yes: YesFlag = False,
    dry_run: DryRunFlag = False,
    unsigned: UnsignedOption = "",
    json_output: JsonFlag = False,
) -> None:
    """Take stake that is no shard's collateral out, to the payout account."""
    units = None if amount == ALL else parse_amount(amount)
    manner = Manner(key, ledger, yes, dry_run, unsigned, json_output)
    settings: dict[str, Value] = {}

    async def prepare(desk: Desk) -> Intent:
        from ledger.transactions import Withdraw
        from merkledag.peer import peer_text

        now = await registered(desk.ledger, desk.account)
        wanted = now.unlocked if units is None else units
        if wanted > now.unlocked or not wanted:
            locked = amount_text(now.locked)
            raise CommandError(
                f"{amount_text(now.unlocked)} of the stake can be taken out: {locked} are locked as "
                "collateral of shards, which `holdfast node drain` hands over",
                ExitCode.LEDGER,
            )
        left = now.stake - wanted
        settings["node.stake"] = amount_text(left).removesuffix(" HOLD")
        effect = [
            f"withdraw {amount_text(wanted)} to {peer_text(now.payout)}",
            f"stake    {amount_text(now.stake)}, {amount_text(left)} after it",
        ]
        if now.open and left < (await desk.ledger.params()).min_stake:
            effect.append("         with so little the node is hardly given new pieces")
        own = now.payout == desk.account
        return Intent(Withdraw(wanted), tuple(effect), -wanted if own else 0)

    if send(manner, prepare, lambda receipt: f"withdrawn in block {receipt.height}: {receipt.tx_id}"):
        _keep(manner, settings)


def declare_fault(
    dataset: Annotated[
        str,
        typer.Argument(metavar="DATASET", help="Its ID; without it, they are listed.", show_default=False),
    ] = "",
    key: KeyFlag = NODE_KEY,
    ledger: LedgerFlag = "",
    yes: YesFlag = False,
    dry_run: DryRunFlag = False,
    unsigned: UnsignedOption = "",
    json_output: JsonFlag = False,
) -> None:
    """Say before the window opens that this period will not be proven, for half of the fee of a fault."""
    if not dataset:
        return _list_datasets(key, ledger, json_output=json_output)
    try:
        wanted = bytes.fromhex(dataset)
    except ValueError:
        wanted = b""
    if len(wanted) != DATASET_BYTES:
        raise usage(f"{dataset!r} is no dataset's ID: `holdfast node declare-fault` lists them")

    async def prepare(desk: Desk) -> Intent:
        from ledger.transactions import DeclareFault

        found = await desk.ledger.dataset(wanted)
        params = await desk.ledger.params(found.terms)
        fee = found.price_total * params.fault_fee_percent // 200
        effect = (
            f"fault    of {count_text(found.pieces, 'piece')} in period {found.period}: unpaid, and "
            f"{amount_text(fee)} at most of the stake is burned",
            f"         it counts: {count_text(params.terminate_after, 'fault')} in a row, or "
            f"{params.fault_limit} of {params.fault_window} periods, take the pieces away",
        )
        return Intent(DeclareFault(wanted, found.period), effect)

    manner = Manner(key, ledger, yes, dry_run, unsigned, json_output)
    send(manner, prepare, lambda receipt: f"declared in block {receipt.height}: {receipt.tx_id}")
    return None


def _list_datasets(key: str, ledger: str, *, json_output: bool) -> None:
    """Every dataset of the provider, where its period stands, and until when a fault can be declared."""
    from cli.servers import ask_ledger, ledger_url
    from ledger.rules_datasets import Clock

    home = Home.locate()
    url = ledger_url(home, ledger)
    account = owner(home, key)

    async def tell(client: LedgerClient) -> None:
        for name, found in await client.datasets(provider=account):
            opens_at = Clock.of(name, await client.params(found.terms)).opens_at(found.period)
            if json_output:
                emit({"id": name.hex(), "opens_at": opens_at, "dataset": found.to_json()})
                continue
            until = f", its window opens {time_text(opens_at)}" if found.phase.value == "waiting" else ""
            pieces = count_text(found.pieces, "piece")
            text(f"{name.hex()}  {pieces}, period {found.period} {found.phase.value}{until}")

    ask_ledger(home, url, tell)


def give_up(
    deal: DealArgument,
    shard: ShardArgument,
    key: KeyFlag = NODE_KEY,
    ledger: LedgerFlag = "",
    yes: YesFlag = False,
    dry_run: DryRunFlag = False,
    unsigned: UnsignedOption = "",
    json_output: JsonFlag = False,
) -> None:
    """Stop to keep a shard, such as one that must not be kept, for half of the fee of a fault."""
    wanted = cid_argument(deal)

    async def prepare(desk: Desk) -> Intent:
        from ledger.transactions import GiveUp

        view = await desk.ledger.deal(wanted)
        check_shard(view, shard)
        fee = view.deal.price * (await desk.ledger.params(view.deal.terms)).fault_fee_percent // 200
        effect = (
            f"give up  shard {shard} of deal {wanted}, which keeps {view.deal.content}",
            f"         it leaves after the next proven period; {amount_text(fee)} of the stake is burned",
            "         `holdfast node drain` hands shards over for nothing but the fee, which takes longer",
        )
        return Intent(GiveUp(wanted, shard), effect)

    manner = Manner(key, ledger, yes, dry_run, unsigned, json_output)
    send(manner, prepare, lambda receipt: f"given up in block {receipt.height}: {receipt.tx_id}")


def stay(
    deal: DealArgument,
    shard: ShardArgument,
    key: KeyFlag = NODE_KEY,
    ledger: LedgerFlag = "",
    yes: YesFlag = False,
    dry_run: DryRunFlag = False,
    unsigned: UnsignedOption = "",
    json_output: JsonFlag = False,
) -> None:
    """Keep a shard after all that is being given up or handed over."""
    wanted = cid_argument(deal)

    async def prepare(desk: Desk) -> Intent:
        from ledger.transactions import Stay

        view = await desk.ledger.deal(wanted)
        check_shard(view, shard)
        effect = (f"stay     with shard {shard} of deal {wanted}: nobody else is sought for it",)
        return Intent(Stay(wanted, shard), effect)

    manner = Manner(key, ledger, yes, dry_run, unsigned, json_output)
    send(manner, prepare, lambda receipt: f"kept in block {receipt.height}: {receipt.tx_id}")
