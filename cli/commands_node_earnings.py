"""`holdfast node earnings`: what a provider was paid, what it lost, and what is still to come."""

from __future__ import annotations

import csv
import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from cli.commands_node_terms import registered
from cli.commands_wallet_history import CsvFlag, SinceOption, changes
from cli.home import NODE_KEY, Home
from cli.money import amount_text, decimal_text
from cli.options import JsonFlag
from cli.output import count_text, emit, text, usage
from cli.shard_pay import datasets_of, due, to_come
from cli.spending import KeyFlag, LedgerFlag, owner

if TYPE_CHECKING:
    from ledger.engine.client import LedgerClient
    from ledger.engine.views import ChangeView, DealView
    from ledger.records import ProviderRecord, ShardRecord

# What the ledger's journal calls what a provider earns and loses; see docs/ledger-rpc.md, History.
EARNED = {"payment": "paid", "reward": "rewards", "bounty": "bounties", "spot_answer": "spots"}
LOST = {"fee": "fees", "fault_fee": "fault_fees", "forfeit": "forfeited"}
COLUMNS = ("deal", *EARNED.values(), *LOST.values(), "net_hold", "net_units")


@dataclass(slots=True)
class Totals:
    """Amounts in base units by what they are for; losses are positive here."""

    amounts: dict[str, int] = field(
        default_factory=lambda: dict.fromkeys((*EARNED.values(), *LOST.values()), 0)
    )

    def take(self, change: ChangeView) -> bool:
        """Counts a change of a provider's or its payout account's; False for what is neither."""
        if (name := EARNED.get(change.why)) and change.amount > 0:
            self.amounts[name] += change.amount
        elif (name := LOST.get(change.why)) and change.amount < 0:
            self.amounts[name] -= change.amount
        else:
            return False
        return True

    @property
    def net(self) -> int:
        """What was earned less what was lost."""
        earned = sum(self.amounts[name] for name in EARNED.values())
        return earned - sum(self.amounts[name] for name in LOST.values())


@dataclass(frozen=True, slots=True)
class Kept:
    """A shard that the provider keeps, with what it is owed for it and what it can still earn with it."""

    view: DealView
    index: int
    due: int
    to_come: int

    @property
    def shard(self) -> ShardRecord:
        """The ledger's record."""
        return self.view.shards[self.index]


@dataclass(slots=True)
class Earnings:
    """A provider's totals, also by deal; "" has what belongs to none, as fees of transactions do."""

    provider: ProviderRecord
    balance: int
    payout_balance: int
    shards: list[Kept]
    total: Totals = field(default_factory=Totals)
    deals: dict[str, Totals] = field(default_factory=dict)

    def take(self, change: ChangeView) -> None:
        """Counts a change, if it is one of those that this is about."""
        if self.total.take(change):
            deal = "" if change.deal is None else str(change.deal)
            self.deals.setdefault(deal, Totals()).take(change)

    @property
    def due(self) -> int:
        """Pay of proven periods that is not collected yet."""
        return sum(kept.due for kept in self.shards)

    @property
    def to_come(self) -> int:
        """What the shards that are kept still pay if every period is proven, what is due among it."""
        return sum(kept.to_come for kept in self.shards)


def earnings(
    since: SinceOption = "",
    as_csv: CsvFlag = False,
    key: KeyFlag = NODE_KEY,
    ledger: LedgerFlag = "",
    json_output: JsonFlag = False,
) -> None:
    """Say what the node has earned and lost, in all and by deal, and what is still to come."""
    from cli.servers import ask_ledger, ledger_url

    if as_csv and json_output:
        raise usage("--csv and --json: choose one of them")
    home = Home.locate()
    url = ledger_url(home, ledger)
    account = owner(home, key)

    found = ask_ledger(home, url, lambda client: _earnings(client, account, since))
    if as_csv:
        _print_csv(found)
    elif json_output:
        emit(_document(found))
    else:
        _print(found)


async def _earnings(client: LedgerClient, account: bytes, since: str) -> Earnings:
    provider = await registered(client, account)
    found = Earnings(
        provider,
        (await client.account(account)).balance,
        (await client.account(provider.payout)).balance,
        await _kept(client, account),
    )
    async for change in changes(client, account, since):
        found.take(change)
    if provider.payout != account:
        async for change in changes(client, provider.payout, since):
            if change.why in EARNED and change.counterparty in (b"", account):
                found.take(change)
    return found


async def _kept(client: LedgerClient, account: bytes) -> list[Kept]:
    from ledger.records import ShardStatus

    found: list[tuple[DealView, int, ShardRecord]] = []
    async for view in client.each_deal(provider=account, active=True):
        found += [
            (view, index, shard)
            for index, shard in enumerate(view.shards)
            if shard.provider == account and shard.status in (ShardStatus.ACCEPTED, ShardStatus.ACTIVE)
        ]
    datasets = await datasets_of(client, (shard for _, _, shard in found))
    kept: list[Kept] = []
    for view, index, shard in found:
        dataset, price = datasets.get(shard.dataset), view.deal.price
        kept.append(Kept(view, index, due(shard, dataset, price), to_come(shard, dataset, price)))
    return kept


def _document(found: Earnings) -> dict[str, Any]:
    from merkledag.peer import peer_text

    provider = found.provider
    return {
        "account": peer_text(provider.account),
        "balance": found.balance,
        "payout": peer_text(provider.payout),
        "payout_balance": found.payout_balance,
        "stake": provider.stake,
        "locked": provider.locked,
        "due": found.due,
        "to_come": found.to_come,
        "net": found.total.net,
        **found.total.amounts,
        "deals": [
            {"deal": deal or None, "net": totals.net, **totals.amounts}
            for deal, totals in found.deals.items()
        ],
        "shards": [
            {
                "deal": str(kept.view.id),
                "shard": kept.index,
                "status": kept.shard.status.value,
                "proof": kept.view.deal.proof.value,
                "paid": kept.shard.paid,
                "due": kept.due,
                "to_come": kept.to_come,
                "escrow": kept.shard.escrow,
                "ends_at": kept.shard.ends_at,
            }
            for kept in found.shards
        ],
    }


def _print(found: Earnings) -> None:
    from merkledag.peer import peer_text

    provider, total = found.provider, found.total.amounts
    text(f"balance   {amount_text(found.payout_balance)} at {peer_text(provider.payout)}")
    text(
        f"stake     {amount_text(provider.stake)}, {amount_text(provider.locked)} of it locked as collateral"
    )
    repairs = total["rewards"] + total["bounties"]
    earned = f"{amount_text(total['paid'])} paid, {amount_text(repairs)} for repairs"
    text(f"earned    {earned}, {amount_text(total['spots'])} for spot challenges")
    lost = f"{amount_text(total['fees'])} fees, {amount_text(total['fault_fees'])} for faults"
    text(f"lost      {lost}, {amount_text(total['forfeited'])} forfeited")
    text(f"net       {amount_text(found.total.net)}")
    shards = count_text(len(found.shards), "shard")
    text(f"due       {amount_text(found.due)} for proven periods, not collected yet")
    text(f"to come   {amount_text(found.to_come)} at most from {shards}, what is due among it")
    for deal, totals in found.deals.items():
        text(f"deal      {deal or 'none (fees and fines)'}: {amount_text(totals.net)} net")
    for kept in found.shards:
        money = f"{amount_text(kept.shard.paid)} paid, {amount_text(kept.to_come)} to come"
        state = f"{kept.shard.status.value}, {kept.view.deal.proof.value}"
        text(f"shard     {kept.view.id} {kept.index}: {state}, {money}")


def _print_csv(found: Earnings) -> None:
    rows = csv.writer(sys.stdout, lineterminator="\n")
    rows.writerow(COLUMNS)
    for deal, totals in found.deals.items():
        amounts = [decimal_text(totals.amounts[name]) for name in COLUMNS[1:-2]]
        rows.writerow([deal, *amounts, decimal_text(totals.net), totals.net])
