"""`holdfast node drain`: hands all shards of a provider over to others, so that it can go without a fault."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from cli.commands_node_terms import keep_settings, registered
from cli.home import NODE_KEY, Home
from cli.money import amount_text
from cli.options import JsonFlag
from cli.output import count_text, emit, flush, note, text
from cli.spending import DryRunFlag, KeyFlag, LedgerFlag, YesFlag, confirm, desk_of, owner, too_poor
from cli.times import time_text

if TYPE_CHECKING:
    from ledger.engine.blocks import BlockEvents
    from ledger.engine.client import LedgerClient
    from ledger.engine.sender import Sender
    from ledger.records import ProviderRecord, ShardRecord
    from storage_node.duties import ShardKey

    Shards = dict[ShardKey, ShardRecord]

# After any of these the provider's shards are looked at again.
NEWS: Final = frozenset({"handover_failed", "dataset_changed", "shard_accepted"})
GONE: Final = {
    "shard_handed_over": "handed over",
    "shard_closed": "served to its end",
    "shard_terminated": "taken away after faults",
    "shard_given_up": "given up",
}


def drain(
    wait: Annotated[
        bool, typer.Option("--wait/--no-wait", help="Stay until the last shard is handed over.")
    ] = True,
    key: KeyFlag = NODE_KEY,
    ledger: LedgerFlag = "",
    yes: YesFlag = False,
    dry_run: DryRunFlag = False,
    json_output: JsonFlag = False,
) -> None:
    """Hand every shard over to other nodes and take no new ones; run again, it goes on."""
    from cli.servers import ask_ledger, ledger_url

    home = Home.locate()
    url = ledger_url(home, ledger)
    account = owner(home, key)
    story = Story(json_output)

    async def drained(client: LedgerClient) -> None:
        provider = await registered(client, account)
        shards = await _shards(client, account)
        await _explain(client, provider, shards)
        if dry_run:
            return _dry(shards, json_output=json_output)
        confirm("drain it?", yes=yes)
        try:
            return await carry_out(client, provider, shards)
        except asyncio.CancelledError:
            note("what was offered goes on at the ledger: run this again to follow it")
            raise

    async def carry_out(client: LedgerClient, provider: ProviderRecord, shards: Shards) -> None:
        from ledger.engine.sender import Sender

        sender = Sender(client, home.signer(key))
        height = (await client.status())["height"]
        if provider.open:
            await _close(sender, provider)
        if key == NODE_KEY:
            keep_settings(home, {"node.open": False})
        run = Drain(client, sender, story, shards)
        await run.begin()
        if wait:
            return await run.follow(height + 1)
        return story.tell("left", f"{count_text(len(run.left), 'shard')} left", left=len(run.left))

    ask_ledger(home, url, drained)


async def _shards(ledger: LedgerClient, account: bytes) -> Shards:
    """The provider's shards that it must not drop: accepted and active ones."""
    from ledger.records import ShardStatus
    from storage_node.duties import ShardKey

    kept = (ShardStatus.ACCEPTED, ShardStatus.ACTIVE)
    return {
        ShardKey(view.id, index): shard
        async for view in ledger.each_deal(provider=account, active=True)
        for index, shard in enumerate(view.shards)
        if shard.provider == account and shard.status in kept
    }


async def _explain(ledger: LedgerClient, provider: ProviderRecord, shards: Shards) -> None:
    """Says what a drain does and costs; exit 7 where the account has not enough for the fees."""
    from ledger.fees import small_fee

    desk = await desk_of(ledger, provider.account)
    running = sum(shard.handing_over for shard in shards.values())
    fees = small_fee(desk.params) * (len(shards) - running + provider.open)
    note(f"drain    {count_text(len(shards), 'shard')}, {running} of them being handed over already")
    note("         each is served and paid until another node has it; the node must keep running")
    if provider.open:
        note("ask      closed: no new pieces")
    note(f"fee      {amount_text(fees)} in all, more if a shard has to be offered again")
    note(f"balance  {amount_text(desk.record.balance)}")
    if desk.record.balance < fees:
        raise too_poor(provider.account, desk.record.balance, fees)


def _dry(shards: Shards, *, json_output: bool) -> None:
    if not json_output:
        return note("dry run: nothing was sent")
    return emit({"dry_run": True, "shards": [_document(key, shard) for key, shard in shards.items()]})


def _document(key: ShardKey, shard: ShardRecord) -> dict[str, Any]:
    return {
        "deal": str(key.deal),
        "shard": key.shard,
        "status": shard.status.value,
        "handing_over": shard.handing_over,
        "ends_at": shard.ends_at,
    }


async def _close(sender: Sender, provider: ProviderRecord) -> None:
    from ledger.transactions import Ask

    body = Ask(provider.price_per_gib_period, provider.min_piece_bytes, provider.max_piece_bytes, open=False)
    await sender.send(body)


def _gone(block: BlockEvents) -> dict[ShardKey, str]:
    """The shards that somebody stopped to keep in a block, and by which event."""
    from merkledag.cid import CID
    from storage_node.duties import ShardKey

    found = {}
    for event in block.events:
        deal, shard = event.attributes.get("deal"), event.attributes.get("shard")
        if event.kind in GONE and isinstance(deal, CID) and isinstance(shard, int):
            found[ShardKey(deal, shard)] = event.kind
    return found


@dataclass(slots=True)
class Story:
    """Tells of progress: a line for people, a document a line with --json."""

    json_output: bool

    def tell(self, event: str, line: str, **details: Any) -> None:
        """One thing that happened."""
        if self.json_output:
            emit({"event": event, **details})
        else:
            text(line)
        flush()


@dataclass(slots=True)
class Drain:
    """The shards that are `left` to hand over, as the ledger has them."""

    ledger: LedgerClient
    sender: Sender
    story: Story
    left: Shards
    resting: set[ShardKey] = field(default_factory=set)  # too near their end to be handed over
    gone: int = 0

    async def begin(self) -> None:
        """Puts every shard up that can be: active, and not being handed over yet."""
        from ledger.records import ShardStatus

        ready = [
            key
            for key, shard in self.left.items()
            if shard.status is ShardStatus.ACTIVE
            and not shard.handing_over
            and not shard.giving_up
            and not shard.struck
            and key not in self.resting
        ]
        await asyncio.gather(*map(self._hand_over, ready))

    async def _hand_over(self, key: ShardKey) -> None:
        from ledger.engine.errors import LedgerRefused
        from ledger.result import Code
        from ledger.transactions import HandOver

        try:
            await self.sender.send(HandOver(key.deal, key.shard))
        except LedgerRefused as error:
            if error.code == Code.OFFER_EXPIRED:
                self.resting.add(key)
                ends = time_text(self.left[key].ends_at)
                self._tell("rests", key, f"too near its end to be handed over: serve it until {ends}")
            elif error.code not in (Code.HANDOVER_RUNS, Code.NOT_ACTIVE, Code.NOT_YOURS):
                raise
            return
        self._tell("offered", key, "offered to other nodes")

    async def follow(self, height: int) -> None:
        """Waits until nothing is left, offering again what nobody took."""
        from contextlib import aclosing

        if not self.left:
            return self._done()
        async with aclosing(self.ledger.events(height)) as blocks:
            async for block in blocks:
                gone = _gone(block)
                if gone or any(event.kind in NEWS for event in block.events):
                    await self._look(gone)
                    if not self.left:
                        return self._done()
        return None

    async def _look(self, gone: dict[ShardKey, str]) -> None:
        now = await _shards(self.ledger, self.sender.account)
        for key in sorted(self.left.keys() - now.keys(), key=str):
            self.gone += 1
            del self.left[key]
            kind = gone.get(key, "shard_handed_over")
            self._tell(kind, key, f"{GONE[kind]}: {len(self.left)} left")
        for key, shard in now.items():
            before = self.left.get(key)
            if before is not None and before.handing_over and not shard.handing_over:
                self._tell("again", key, "nobody took it: it is offered again")
            if shard.successor_accepted and not (before is not None and before.successor_accepted):
                self._tell("accepted", key, "another node has it and takes over at the end of the period")
        self.left = now
        await self.begin()

    def _tell(self, event: str, key: ShardKey, line: str) -> None:
        details = {"deal": str(key.deal), "shard": key.shard, "left": len(self.left)}
        self.story.tell(event, f"{key.deal} {key.shard}  {line}", **details)

    def _done(self) -> None:
        self.story.tell(
            "drained",
            f"drained, {count_text(self.gone, 'shard')} gone; `holdfast node withdraw all` frees the stake",
            gone=self.gone,
        )
