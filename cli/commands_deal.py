"""`holdfast store` and `holdfast deal`: pay nodes to keep content, and look after what they keep."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.commands_deal_change import end, renew, spot, top_up
from cli.commands_deal_show import list_deals, show
from cli.durations import duration_text, seconds
from cli.groups import new_app
from cli.home import NODE_KEY, Home
from cli.money import amount_text, parse_amount
from cli.options import JsonFlag
from cli.output import emit, note, size_text, text, usage
from cli.preparing import Preparation, preparation_of, prepare
from cli.spending import DryRunFlag, LedgerFlag, Manner, YesFlag, confirm, too_poor

if TYPE_CHECKING:
    from cli.compose import Wire
    from ledger.genesis import Params
    from merkledag.cid import CID
    from storage_node.placement import StorePlan

app = new_app("Deals: what one pays nodes to keep.")
MERKLE, KZG = "merkle", "kzg"
PUBLIC = "what is stored is public to whoever has its CID"
SHOWN = ", and challenged bytes are written on the ledger"


def store(
    what: Annotated[str, typer.Argument(metavar="CID-or-PATH", help="Content, or files to add first.")],
    duration: Annotated[str, typer.Option("--for", help="How long, such as 30d.")] = "30d",
    code: Annotated[
        str, typer.Option("--code", help="K/M: any K of M shards restore it.", show_default=False)
    ] = "",
    max_price: Annotated[
        str, typer.Option("--max-price", help="Most HOLD a shard a period.", show_default=False)
    ] = "",
    proof: Annotated[
        str, typer.Option("--proof", help="How nodes prove that they keep it: merkle, or kzg.")
    ] = MERKLE,
    key: Annotated[str, typer.Option("--key", help="Key that pays.")] = NODE_KEY,
    ledger: LedgerFlag = "",
    yes: YesFlag = False,
    dry_run: DryRunFlag = False,
    json_output: JsonFlag = False,
) -> None:
    """Pay nodes to keep content; prints the quote and asks before it spends."""
    from cli.serve import run_once

    lasting_s = seconds(duration, "--for")
    if proof not in (MERKLE, KZG):
        raise usage(f"--proof {proof!r}: write {MERKLE} or {KZG}")
    wanted_code = _code(code) if code else None
    limit = parse_amount(max_price) if max_price else None
    with Home.locate() as home:
        from cli.servers import ledger_url

        url = ledger_url(home, ledger)
        root = _content(home, what)
        manner = Manner(key, url, yes, dry_run, json_output=json_output)
        run_once(_store(home, manner, root, lasting_s, wanted_code, limit, proof))


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
    manner: Manner,
    root: CID,
    lasting_s: int,
    code: tuple[int, int] | None,
    max_price: int | None,
    proof: str,
) -> None:
    from cli.compose import connected
    from cli.demo_story import Bars
    from proofs.kinds import ProofKind
    from storage_node.ledger_view import open_deal
    from storage_node.placement import StoreRequest, draft_store
    from storage_node.quote import periods_for
    from storage_node.storing import execute_store

    kind = ProofKind(proof)
    blocks, rows = home.open_store(), home.open_rows()
    async with connected(home, manner.ledger, manner.key) as wire:
        params = await wire.ledger.params()
        bars = Bars("prepared")
        try:
            request = StoreRequest(root, periods_for(lasting_s, params), code, max_price, proof=kind)
            plan = await draft_store(wire.ledger, blocks, rows, request, progress=bars)
        finally:
            bars.finish()
        with plan:
            existing = await open_deal(wire.ledger, wire.sender.account, root, plan.manifest_root, kind)
            preparation = await preparation_of(home, plan) if kind is ProofKind.KZG else None
            if existing is None:
                await _explain(plan, preparation, wire, params)
            if manner.dry_run:
                return _dry(manner, plan, preparation, existing)
            if existing is None:
                confirm(f"pay {amount_text(plan.quote.total)}?", yes=manner.yes)
            else:
                note(f"deal {existing} keeps this already, on its own terms: nothing new is bought or spent")
            await prepare(home, plan, rows)
            bars = Bars("sent")
            try:
                result = await execute_store(
                    plan,
                    wire.ledger,
                    wire.sender,
                    home.signer(manner.key),
                    wire.pool,
                    blocks,
                    rows,
                    progress=bars,
                    trouble=lambda shard, why: note(f"shard {shard} waits: {why}"),
                )
            finally:
                bars.finish()
    if manner.json_output:
        emit(
            {
                "deal": str(result.deal),
                "content": str(root),
                "existing": result.existing,
                "shards": result.shards,
                "uploaded_bytes": result.uploaded_bytes,
                **_terms(plan),
            }
        )
    else:
        kept = "1 shard" if result.shards == 1 else f"{result.shards} shards"
        text(f"deal {result.deal}: {kept} kept, {size_text(result.uploaded_bytes)} sent")
    return None


def _terms(plan: StorePlan) -> dict[str, int | str]:
    """How it is proven, and the money of its quote, in base units."""
    quote = plan.quote
    return {
        "proof": plan.request.proof.value,
        "price": quote.price,
        "periods": quote.periods,
        "escrow": quote.escrow,
        "deposit": quote.deposit,
        "fee": quote.fee,
    }


def _dry(manner: Manner, plan: StorePlan, preparation: Preparation | None, existing: CID | None) -> None:
    if not manner.json_output:
        return note("dry run: nothing was spent")
    document: dict[str, Any] = {
        "dry_run": True,
        "existing": None if existing is None else str(existing),
        "shards": plan.quote.shards,
        **_terms(plan),
        "total": plan.quote.total,
    }
    if preparation is not None:
        document["preparation"] = preparation.to_json()
    return emit(document)


async def _explain(plan: StorePlan, preparation: Preparation | None, wire: Wire, params: Params) -> None:
    """Prints the quote; exit 7 before anything is spent when the account cannot cover it."""
    quote, manifest = plan.quote, plan.manifest
    kind = f"shards, any {manifest.k} of which restore it"
    if manifest.replicated or manifest.k == 1:
        kind = "whole copies" if quote.shards > 1 else "whole copy"
    lasting = duration_text(quote.periods * params.period_s)
    note(f"{size_text(plan.content_bytes)} as {quote.shards} {kind}, {size_text(plan.upload_bytes)} in all")
    note(f"price    {amount_text(quote.price)} a shard a period of {duration_text(params.period_s)}")
    note(f"escrow   {amount_text(quote.escrow)} for {lasting}; what is not earned comes back")
    note(f"deposit  {amount_text(quote.deposit)}, back at the end;  fee {amount_text(quote.fee)}")
    if preparation is not None:
        for line in preparation.sentences():
            note(line)
    note(PUBLIC + (SHOWN if preparation is None else ""))
    balance = (await wire.ledger.account(wire.sender.account)).balance
    left = balance - quote.total
    note(f"balance  {amount_text(balance)}, {f'{amount_text(left)} after it' if left >= 0 else 'not enough'}")
    if balance < quote.total:
        raise too_poor(wire.sender.account, balance, quote.total)


app.command("ls")(list_deals)
app.command("show")(show)
app.command("renew")(renew)
app.command("end")(end)
app.command("top-up")(top_up)
app.command("spot")(spot)
