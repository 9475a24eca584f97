"""`holdfast store` and `holdfast deal`: pay nodes to keep content, and look after what they keep."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.durations import duration_text, seconds
from cli.groups import new_app
from cli.home import NODE_KEY, Home
from cli.money import amount_text, parse_amount
from cli.options import JsonFlag
from cli.output import emit, note, size_text, text, usage

if TYPE_CHECKING:
    from cli.compose import Wire
    from ledger.engine.views import DealView
    from ledger.genesis import Params
    from merkledag.cid import CID
    from storage_node.placement import StorePlan

app = new_app("Deals: what one pays nodes to keep.")
LedgerFlag = Annotated[str, typer.Option("--ledger", help="URL of the ledger.", show_default=False)]
PUBLIC = "what is stored is public to whoever has its CID, and challenged bytes are written on the ledger"


def store(
    what: Annotated[str, typer.Argument(metavar="CID-or-PATH", help="Content, or files to add first.")],
    duration: Annotated[str, typer.Option("--for", help="How long, such as 30d.")] = "30d",
    code: Annotated[
        str, typer.Option("--code", help="K/M: any K of M shards restore it.", show_default=False)
    ] = "",
    max_price: Annotated[
        str, typer.Option("--max-price", help="Most HOLD a shard a period.", show_default=False)
    ] = "",
    key: Annotated[str, typer.Option("--key", help="Key that pays.")] = NODE_KEY,
    ledger: LedgerFlag = "",
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    json_output: JsonFlag = False,
) -> None:
    """Pay nodes to keep content; prints the quote and asks before it spends."""
    from cli.serve import run_once

    lasting_s = seconds(duration, "--for")
    wanted_code = _code(code) if code else None
    limit = parse_amount(max_price) if max_price else None
    with Home.locate() as home:
        from cli.servers import ledger_url

        url = ledger_url(home, ledger)
        root = _content(home, what)
        run_once(
            _store(home, url, key, root, lasting_s, wanted_code, limit, yes=yes, json_output=json_output)
        )


def _code(text_: str) -> tuple[int, int]:
    k, slash, m = text_.partition("/")
    if not slash or not k.isdecimal() or not m.isdecimal() or not 1 <= int(k) <= int(m) <= 64:
        raise usage(f"--code {text_!r}: write K/M with 1 ≤ K ≤ M ≤ 64, such as 4/6")
    return int(k), int(m)


def _content(home: Home, what: str) -> CID:
    """The CID that `what` is, or that adding the files it names gives."""
    from cli.arguments import cid_argument
    from cli.output import CommandError

    try:
        return cid_argument(what)
    except CommandError:
        if not Path(what).exists():
            raise
    from cli.adding import add_path

    added = add_path(home, Path(what))
    note(f"added {added.cid}")
    return added.cid


async def _store(
    home: Home,
    url: str,
    key: str,
    root: CID,
    seconds: int,
    code: tuple[int, int] | None,
    max_price: int | None,
    *,
    yes: bool,
    json_output: bool,
) -> None:
    from cli.compose import connected
    from cli.demo_story import Bars
    from storage_node.ledger_view import open_deal
    from storage_node.placement import StoreRequest, plan_store
    from storage_node.quote import periods_for
    from storage_node.storing import execute_store

    blocks, rows = home.open_store(), home.open_rows()
    async with connected(home, url, key) as wire:
        params = await wire.ledger.params()
        bars = Bars("prepared")
        try:
            request = StoreRequest(root, periods_for(seconds, params), code, max_price)
            plan = await plan_store(wire.ledger, blocks, rows, request, progress=bars)
        finally:
            bars.finish()
        with plan:
            existing = await open_deal(wire.ledger, wire.sender.account, root, plan.manifest_root)
            if existing is None:
                await _agree(plan, wire, params, yes=yes)
            else:
                note(f"deal {existing} keeps this already, on its own terms: nothing new is bought or spent")
            bars = Bars("sent")
            try:
                result = await execute_store(
                    plan, wire.ledger, wire.sender, home.signer(key), wire.pool, blocks, rows, progress=bars
                )
            finally:
                bars.finish()
    quote = plan.quote
    if json_output:
        emit(
            {
                "deal": str(result.deal),
                "content": str(root),
                "existing": result.existing,
                "shards": result.shards,
                "uploaded_bytes": result.uploaded_bytes,
                "price": quote.price,
                "periods": quote.periods,
                "escrow": quote.escrow,
                "deposit": quote.deposit,
                "fee": quote.fee,
            }
        )
    else:
        kept = "1 shard" if result.shards == 1 else f"{result.shards} shards"
        text(f"deal {result.deal}: {kept} kept, {size_text(result.uploaded_bytes)} sent")


async def _agree(plan: StorePlan, wire: Wire, params: Params, *, yes: bool) -> None:
    """Prints the quote and asks; exit 7 before anything is spent when the account cannot cover it."""
    from cli.output import CommandError, ExitCode
    from cli.spending import confirm

    quote, manifest = plan.quote, plan.manifest
    kind = f"shards, any {manifest.k} of which restore it"
    if manifest.replicated or manifest.k == 1:
        kind = "whole copies" if quote.shards > 1 else "whole copy"
    lasting = duration_text(quote.periods * params.period_s)
    note(f"{size_text(plan.content_bytes)} as {quote.shards} {kind}, {size_text(plan.upload_bytes)} in all")
    note(f"price    {amount_text(quote.price)} a shard a period of {duration_text(params.period_s)}")
    note(f"escrow   {amount_text(quote.escrow)} for {lasting}; what is not earned comes back")
    note(f"deposit  {amount_text(quote.deposit)}, back at the end;  fee {amount_text(quote.fee)}")
    note(PUBLIC)
    balance = (await wire.ledger.account(wire.sender.account)).balance
    if balance < quote.total:
        raise CommandError(
            f"the account has {amount_text(balance)} and needs {amount_text(quote.total)}: "
            "send it money, or store for a shorter time",
            ExitCode.LEDGER,
        )
    confirm(f"pay {amount_text(quote.total)}?", yes=yes)


@app.command("ls")
def list_deals(
    all_deals: Annotated[bool, typer.Option("--all", help="Ended ones too.")] = False,
    key: Annotated[str, typer.Option("--key", help="Key whose deals.")] = NODE_KEY,
    ledger: LedgerFlag = "",
    json_output: JsonFlag = False,
) -> None:
    """List one's deals."""
    from cli.serve import run_once
    from cli.servers import wired

    async def asked() -> list[DealView]:
        async with wired(Home.locate(), ledger, key) as wire:
            active = None if all_deals else True
            return await wire.ledger.deals(client=wire.sender.account, active=active)

    for view in run_once(asked()):
        deal = view.deal
        if json_output:
            emit(_document(view))
        else:
            kept = sum(shard.status.value in ("accepted", "active") for shard in view.shards)
            text(f"{view.id} {deal.status.value:5} {kept}/{len(view.shards)} shards  {deal.content}")


def _document(view: DealView) -> dict[str, Any]:
    return {
        "id": str(view.id),
        "deal": view.deal.to_json(),
        "shards": [shard.to_json() for shard in view.shards],
    }


@app.command()
def show(
    deal: Annotated[str, typer.Argument(metavar="DEAL", help="ID of the deal.")],
    ledger: LedgerFlag = "",
    json_output: JsonFlag = False,
) -> None:
    """Show a deal, its shards, their proofs and costs."""
    from cli.arguments import cid_argument
    from cli.serve import run_once
    from cli.servers import wired

    wanted = cid_argument(deal)

    async def asked() -> tuple[DealView, dict[bytes, Any]]:
        async with wired(Home.locate(), ledger) as wire:
            view = await wire.ledger.deal(wanted)
            names = {shard.dataset for shard in view.shards if shard.dataset}
            return view, {name: await wire.ledger.dataset(name) for name in names}

    view, datasets = run_once(asked())
    if json_output:
        found = {name.hex(): dataset.to_json() for name, dataset in datasets.items()}
        emit({**_document(view), "datasets": found})
        return
    _print_deal(view, datasets)


def _print_deal(view: DealView, datasets: dict[bytes, Any]) -> None:
    from merkledag.peer import peer_text

    terms = view.deal
    text(f"deal       {view.id} ({terms.status.value})")
    text(f"content    {terms.content}")
    text(f"manifest   {terms.manifest}")
    text(f"code       {'replicated' if terms.replicated else f'{terms.k} of {terms.m}'}")
    text(f"price      {amount_text(terms.price)} a shard a period, {terms.periods} periods")
    text(f"refunded   {amount_text(terms.refunded)}")
    for index, shard in enumerate(view.shards):
        who = peer_text(shard.provider) if shard.provider else "nobody yet"
        text(f"shard {index:<4} {shard.status.value}, {size_text(shard.piece.size_bytes)}, {who}")
        text(f"           {amount_text(shard.paid)} paid, {amount_text(shard.escrow)} in escrow")
        dataset = datasets.get(shard.dataset)
        if dataset is not None:
            proven, faults = dataset.proven_total, dataset.fault_total
            text(f"           {proven} periods proven, {faults} faults, now in period {dataset.period}")
