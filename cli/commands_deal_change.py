"""`holdfast deal renew`, `end`, `top-up` and `spot`: what changes a deal that runs."""

from __future__ import annotations

from contextlib import aclosing
from typing import TYPE_CHECKING, Annotated

import typer

from cli.arguments import DealArgument, ShardArgument, check_shard, cid_argument
from cli.durations import duration_text, seconds
from cli.home import NODE_KEY
from cli.money import amount_text, parse_amount
from cli.options import JsonFlag
from cli.output import CommandError, ExitCode, count_text, emit, text, usage
from cli.spending import (
    Desk,
    DryRunFlag,
    Intent,
    KeyFlag,
    LedgerFlag,
    Manner,
    UnsignedOption,
    YesFlag,
    send,
)
from cli.times import time_text

if TYPE_CHECKING:
    from ledger.engine.client import LedgerClient
    from ledger.engine.views import DealView
    from merkledag.cid import CID

SPOT_ENDS = {
    "spot_answered": "answered: the node has the leaves that were drawn",
    "spot_missed": "missed: the node did not answer and was fined",
    "spot_void": "void: the ledger stalled, and nobody is to blame",
    "shard_closed": "the shard ended before the challenge did: what was prepaid came back",
    "shard_terminated": "the shard was taken from its node before: what was prepaid came back",
    "shard_handed_over": "the shard was handed over before: what was prepaid came back",
}


async def _open_deal(desk: Desk, deal: CID, *, own: bool = False) -> DealView:
    """The deal, which must run; exit 7 where it is over or, with `own`, where another account pays it."""
    from ledger.records import DealStatus
    from merkledag.peer import peer_text

    view = await desk.ledger.deal(deal)
    if own and view.deal.client != desk.account:
        raise CommandError(
            f"deal {deal} is paid by {peer_text(view.deal.client)}: choose that account's key with --key",
            ExitCode.LEDGER,
        )
    if view.deal.status is not DealStatus.OPEN:
        raise CommandError(f"deal {deal} is over: `holdfast store` makes a new one", ExitCode.LEDGER)
    return view


def renew(
    deal: DealArgument,
    duration: Annotated[
        str, typer.Option("--for", help="How much longer, such as 30d.", show_default=False)
    ] = "",
    periods: Annotated[
        int, typer.Option("--periods", min=0, help="The same in periods.", show_default=False)
    ] = 0,
    key: KeyFlag = NODE_KEY,
    ledger: LedgerFlag = "",
    yes: YesFlag = False,
    dry_run: DryRunFlag = False,
    unsigned: UnsignedOption = "",
    json_output: JsonFlag = False,
) -> None:
    """Keep a deal going for longer, at its price, with the nodes that have it."""
    wanted = cid_argument(deal)
    if bool(duration) == bool(periods):
        raise usage("say how much longer: --for 30d, or --periods 30")
    lasting_s = seconds(duration, "--for") if duration else 0

    async def prepare(desk: Desk) -> Intent:
        from ledger.transactions import Renew

        view = await _open_deal(desk, wanted, own=True)
        if view.deal.ending:
            raise CommandError(
                f"deal {wanted} is ending: it cannot be renewed, `holdfast store` makes a new one",
                ExitCode.LEDGER,
            )
        params = await desk.ledger.params(view.deal.terms)
        more = periods or -(-lasting_s // params.period_s)
        kept = sum(not shard.status.is_closed for shard in view.shards)
        escrow = view.deal.price * more * kept
        ends_at = max((shard.ends_at for shard in view.shards if not shard.status.is_closed), default=0)
        effect = [
            f"renew    {count_text(kept, 'shard')} of deal {wanted} for {count_text(more, 'period')} "
            f"({duration_text(more * params.period_s)}) more",
            f"escrow   {amount_text(escrow)} at {amount_text(view.deal.price)} a shard a period; "
            "what is not earned comes back",
        ]
        if ends_at:
            effect.append(
                f"end      {time_text(ends_at)}, then {time_text(ends_at + more * params.period_s)}"
            )
        return Intent(Renew(wanted, more), tuple(effect), escrow)

    manner = Manner(key, ledger, yes, dry_run, unsigned, json_output)
    send(manner, prepare, lambda receipt: f"renewed in block {receipt.height}: {receipt.tx_id}")


def end(
    deal: DealArgument,
    key: KeyFlag = NODE_KEY,
    ledger: LedgerFlag = "",
    yes: YesFlag = False,
    dry_run: DryRunFlag = False,
    unsigned: UnsignedOption = "",
    json_output: JsonFlag = False,
) -> None:
    """End a deal early: its nodes serve this period and the next, and the rest of the money comes back."""
    wanted = cid_argument(deal)

    async def prepare(desk: Desk) -> Intent:
        from ledger.transactions import EndDeal

        view = await _open_deal(desk, wanted, own=True)
        if view.deal.ending:
            raise CommandError(f"deal {wanted} is ending already: nothing to do", ExitCode.LEDGER)
        held = sum(shard.escrow for shard in view.shards)
        effect = (
            f"end      deal {wanted} after the period that runs and one more: it cannot be taken back",
            f"escrow   {amount_text(held)} is held now; what is not earned until then comes back, and "
            f"so does the deposit of {amount_text(view.deal.deposit)}",
            "         the nodes may drop the content then: fetch what you have nowhere else first",
        )
        return Intent(EndDeal(wanted), effect)

    manner = Manner(key, ledger, yes, dry_run, unsigned, json_output)
    send(manner, prepare, lambda receipt: f"ends; notice is in block {receipt.height}: {receipt.tx_id}")


def top_up(
    deal: DealArgument,
    shard: ShardArgument,
    amount: Annotated[str, typer.Argument(help="HOLD, such as 1.5, or `250 units`.")],
    key: KeyFlag = NODE_KEY,
    ledger: LedgerFlag = "",
    yes: YesFlag = False,
    dry_run: DryRunFlag = False,
    unsigned: UnsignedOption = "",
    json_output: JsonFlag = False,
) -> None:
    """Add to the reward of whoever repairs a lost shard; anyone may."""
    wanted, units = cid_argument(deal), parse_amount(amount)

    async def prepare(desk: Desk) -> Intent:
        from ledger.records import ShardStatus
        from ledger.transactions import TopUp

        view = await _open_deal(desk, wanted)
        check_shard(view, shard)
        now = view.shards[shard]
        if now.status is not ShardStatus.REPAIR:
            raise CommandError(
                f"shard {shard} of deal {wanted} is {now.status.value}: only a lost shard that waits for its "
                "repair can be topped up",
                ExitCode.LEDGER,
            )
        effect = (
            f"top up   {amount_text(units)} for the repair of shard {shard} of deal {wanted}",
            f"         its reward is {amount_text(now.reward)} and {amount_text(now.bounty)} from others so "
            "far; if nobody repairs it, this comes back, and also if another account puts up more",
        )
        return Intent(TopUp(wanted, shard, units), effect, units)

    manner = Manner(key, ledger, yes, dry_run, unsigned, json_output)
    send(manner, prepare, lambda receipt: f"added in block {receipt.height}: {receipt.tx_id}")


def spot(
    deal: DealArgument,
    shard: ShardArgument,
    key: KeyFlag = NODE_KEY,
    ledger: LedgerFlag = "",
    yes: YesFlag = False,
    dry_run: DryRunFlag = False,
    unsigned: UnsignedOption = "",
    wait: Annotated[
        bool, typer.Option("--wait", help="Stay until it is answered or missed; missed is exit 1.")
    ] = False,
    json_output: JsonFlag = False,
) -> int:
    """Challenge a shard now, out of turn; pays its node for the proof, or fines it."""
    wanted = cid_argument(deal)

    async def prepare(desk: Desk) -> Intent:
        from ledger.transactions import Spot

        view = await _open_deal(desk, wanted)
        check_shard(view, shard)
        params = await desk.ledger.params(view.deal.terms)
        count = min(view.deal.challenges, view.shards[shard].piece.data_leaves)
        leaves = "the only leaf" if count == 1 else f"{count} leaves"
        fee = desk.params.proof_fee  # that of the present, not of the deal's terms
        effect = (
            f"spot     challenge shard {shard} of deal {wanted}: {leaves} of its data, "
            f"to be answered within {duration_text(params.window_s)}",
            f"prepaid  {amount_text(fee)}: the node's if it answers; else it comes back and the "
            "node is fined",
        )
        return Intent(Spot(wanted, shard), effect, fee)

    manner = Manner(key, ledger, yes, dry_run, unsigned, json_output)
    receipt = send(manner, prepare, lambda receipt: f"challenged in block {receipt.height}")
    if receipt is None or not wait:
        return ExitCode.DONE
    return _outcome(ledger, wanted, shard, receipt.height, json_output=json_output)


def _outcome(flag: str, deal: CID, shard: int, height: int, *, json_output: bool) -> int:
    """Waits for the end of a spot challenge and says how it ended; exit 1 where it was not answered."""
    from cli.servers import ask_found_ledger

    async def ended(client: LedgerClient) -> str:
        async with aclosing(client.events(height)) as blocks:
            async for block in blocks:
                for event in block.events:
                    about = event.attributes
                    if event.kind in SPOT_ENDS and (about["deal"], about["shard"]) == (deal, shard):
                        return event.kind
        raise AssertionError("the stream of events has no end")

    kind = ask_found_ledger(flag, ended)
    if json_output:
        emit({"event": kind, "deal": str(deal), "shard": shard})
    else:
        text(SPOT_ENDS[kind])
    return ExitCode.FAILED if kind == "spot_missed" else ExitCode.DONE
