"""`holdfast deal ls` and `show`: deals, their shards, proofs and costs, and whether the pieces are right."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from cli.arguments import DealArgument, account_argument, cid_argument
from cli.home import NODE_KEY, Home
from cli.money import amount_text
from cli.options import JsonFlag
from cli.output import ExitCode, count_text, emit, meter, size_text, text, usage
from cli.shard_pay import datasets_of, due
from cli.spending import KeyFlag, LedgerFlag
from cli.times import time_text

if TYPE_CHECKING:
    from ledger.engine.client import LedgerClient
    from ledger.engine.views import DealView, SpotView
    from ledger.records import DatasetRecord, ShardRecord, SpotRecord
    from storage_node.deal_check import DealCheck


class Shown(NamedTuple):
    """A deal, the datasets that have its pieces, by ID, and the open spot challenges of its shards."""

    view: DealView
    datasets: dict[bytes, DatasetRecord]
    spots: list[SpotView]


def list_deals(
    all_deals: Annotated[bool, typer.Option("--all", help="Ended ones too.")] = False,
    content: Annotated[
        str, typer.Option("--content", metavar="CID", help="Deals that keep this.", show_default=False)
    ] = "",
    client: Annotated[
        str, typer.Option("--client", metavar="ACCOUNT", help="Deals that it pays.", show_default=False)
    ] = "",
    provider: Annotated[
        str,
        typer.Option(
            "--provider", metavar="ACCOUNT", help="Deals that it has a shard of.", show_default=False
        ),
    ] = "",
    limit: Annotated[
        int, typer.Option("--limit", min=0, help="At most so many; 0 is all.", show_default=False)
    ] = 0,
    after: Annotated[
        str, typer.Option("--after", metavar="DEAL", help="Go on behind this one.", show_default=False)
    ] = "",
    key: KeyFlag = NODE_KEY,
    ledger: LedgerFlag = "",
    json_output: JsonFlag = False,
) -> None:
    """List one's deals, in order of their IDs; with filters, anybody's."""
    from cli.servers import ask_ledger, ledger_url
    from cli.spending import owner

    home = Home.locate()
    url = ledger_url(home, ledger)
    payer = account_argument(client) if client else None
    node = account_argument(provider) if provider else None
    root = cid_argument(content) if content else None
    behind = cid_argument(after) if after else None
    if payer is None and node is None and root is None:
        payer = owner(home, key)

    async def tell(ledger_client: LedgerClient) -> None:
        found = ledger_client.each_deal(
            payer, node, root, None if all_deals else True, limit=limit or None, after=behind
        )
        async for view in found:
            _list_one(view, json_output=json_output)

    ask_ledger(home, url, tell)


def _list_one(view: DealView, *, json_output: bool) -> None:
    if json_output:
        return emit(_document(view))
    kept = sum(shard.status.value in ("accepted", "active") for shard in view.shards)
    state = "ending" if view.deal.ending and view.deal.status.value == "open" else view.deal.status.value
    ends_at = _ends_at(view)
    end = f"until {time_text(ends_at)[:10]}  " if ends_at else ""
    return text(f"{view.id} {state:6} {kept}/{len(view.shards)} shards  {end}{view.deal.content}")


def _document(view: DealView) -> dict[str, Any]:
    return {
        "id": str(view.id),
        "deal": view.deal.to_json(),
        "shards": [shard.to_json() for shard in view.shards],
    }


def _ends_at(view: DealView) -> int:
    """Ledger time at which the last shard that is kept ends; 0 before it is known, and when it is over."""
    return max((shard.ends_at for shard in view.shards if not shard.status.is_closed), default=0)


def show(
    deal: DealArgument,
    verify: Annotated[
        bool, typer.Option("--verify", help="Read all of the content and check that the pieces are its own.")
    ] = False,
    ledger: LedgerFlag = "",
    json_output: JsonFlag = False,
) -> int:
    """Show a deal, its shards, their proofs, faults, end and costs; exit 4 if --verify finds them wrong."""
    from cli.compose import block_source
    from cli.servers import ask_ledger, ledger_url

    wanted = cid_argument(deal)
    home = Home.locate()
    url = ledger_url(home, ledger)

    async def asked(client: LedgerClient) -> tuple[Shown, DealCheck | None]:
        view = await client.deal(wanted)
        shown = Shown(view, await datasets_of(client, view.shards), await client.spots(deal=wanted))
        if not verify:
            return shown, None
        if not view.shards:
            raise usage(f"deal {wanted} is over and its shards are forgotten: nothing can be verified")
        with home:
            async with block_source(home, url) as source:
                return shown, await _verified(home, view, source)

    shown, check = ask_ledger(home, url, asked)
    if json_output:
        emit(_whole(shown, check))
    else:
        _print(shown)
        if check is not None:
            _print_check(check)
    return ExitCode.DONE if check is None or check.is_sound else ExitCode.INVALID


async def _verified(home: Home, view: DealView, source: Any) -> DealCheck:
    from proofs.kinds import ProofKind
    from storage_node.deal_check import check_deal, kzg_commit, merkle_commit

    by_kzg = view.deal.proof is ProofKind.KZG
    commit = kzg_commit(home.open_kzg().committer) if by_kzg else merkle_commit
    line = meter("verified", None)
    seen = 0

    def advance(done: int, total: int) -> None:
        nonlocal seen
        line.expect(total)
        line.advance(done - seen)
        seen = done

    try:
        return await check_deal(view, source.get, commit, advance)
    finally:
        line.finish()


def _costs(shown: Shown) -> dict[str, int]:
    """Money of the deal by where it is now, in base units; `due` to its nodes is a part of `escrow`."""
    view, datasets = shown.view, shown.datasets
    return {
        "paid": sum(shard.paid for shard in view.shards),
        "due": sum(due(shard, datasets.get(shard.dataset), view.deal.price) for shard in view.shards),
        "escrow": sum(shard.escrow for shard in view.shards),
        "refunded": view.deal.refunded,
        "deposit": view.deal.deposit,
    }


def _whole(shown: Shown, check: DealCheck | None) -> dict[str, Any]:
    document = {
        **_document(shown.view),
        "datasets": {name.hex(): dataset.to_json() for name, dataset in shown.datasets.items()},
        "spots": [{"shard": each.shard, **each.spot.to_json()} for each in shown.spots],
        "ends_at": _ends_at(shown.view),
        "costs": _costs(shown),
    }
    if check is not None:
        document["verified"] = {
            "sound": check.is_sound,
            "blocks": check.blocks,
            "size_bytes": check.size_bytes,
            "problems": [{"shard": shard, "problem": problem} for shard, problem in check.problems],
        }
    return document


def _print(shown: Shown) -> None:
    view, terms, costs = shown.view, shown.view.deal, _costs(shown)
    ending = ", ending" if terms.ending and terms.status.value == "open" else ""
    text(f"deal       {view.id} ({terms.status.value}{ending})")
    text(f"content    {terms.content}")
    text(f"manifest   {terms.manifest}")
    text(f"code       {'replicated' if terms.replicated else f'{terms.k} of {terms.m}'}")
    text(f"proof      {terms.proof.value}, {terms.challenges} leaves drawn a period")
    text(f"price      {amount_text(terms.price)} a shard a period, {terms.periods} periods")
    text(f"made       {time_text(terms.created_at)}")
    if ends_at := _ends_at(view):
        text(f"ends       {time_text(ends_at)}")
    text(f"cost       {amount_text(costs['paid'])} paid so far, {amount_text(costs['escrow'])} in escrow")
    text(f"due        {amount_text(costs['due'])} of that is earned, and the nodes will collect it")
    text(f"back       {amount_text(costs['refunded'])} came back; deposit {amount_text(costs['deposit'])}")
    spots = {each.shard: each.spot for each in shown.spots}
    for index, shard in enumerate(view.shards):
        _print_shard(index, shard, shown.datasets.get(shard.dataset), spots.get(index))


def _print_shard(
    index: int, shard: ShardRecord, dataset: DatasetRecord | None, spot: SpotRecord | None
) -> None:
    from merkledag.peer import peer_text

    who = peer_text(shard.provider) if shard.provider else "nobody yet"
    text(f"shard {index:<4} {shard.status.value}, {size_text(shard.piece.size_bytes)}, {who}")
    text(f"           {amount_text(shard.paid)} paid, {amount_text(shard.escrow)} in escrow")
    if dataset is not None:
        proven, faults = dataset.proven_total, dataset.fault_total
        row = f", {dataset.in_a_row} in a row" if dataset.in_a_row else ""
        text(
            f"           all that the client keeps there: {count_text(proven, 'period')} proven, "
            f"{count_text(faults, 'fault')}{row}; now in period {dataset.period}"
        )
    if shard.reward or shard.bounty:
        text(f"           {amount_text(shard.reward + shard.bounty)} for whoever repairs it")
    if shard.handing_over:
        to = peer_text(shard.successor) if shard.successor else "a node that is still to be drawn"
        text(f"           being handed over to {to}{', which accepted' if shard.successor_accepted else ''}")
    if spot is not None:
        until = f"to be answered until {time_text(spot.closes_at)}" if spot.seed else "about to be drawn"
        text(f"           spot challenge of {time_text(spot.opened_at)}, {until}")
    if shard.missed:
        text(f"           {count_text(shard.missed, 'spot challenge')} missed in a row")


def _print_check(check: DealCheck) -> None:
    for shard, problem in check.problems:
        text(f"wrong      {'' if shard is None else f'shard {shard}: '}{problem}")
    if check.is_sound:
        read = f"{count_text(check.blocks, 'block')}, {size_text(check.size_bytes)}"
        text(f"verified   the pieces are those of the content ({read})")
