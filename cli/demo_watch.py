"""Follows the ledger for `holdfast demo`: remembers what happens to the deal, tells it, lets others wait."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from cli.money import amount_text
from cli.output import CommandError, ExitCode

if TYPE_CHECKING:
    from cli.demo_story import Story
    from ledger.engine.client import LedgerClient
    from merkledag.cid import CID


class Watch:
    """What the ledger's events say of one deal. `names` maps accounts to what people call them."""

    def __init__(self, story: Story, names: Mapping[bytes, str]) -> None:
        self._story = story
        self._names = names
        self._changed = asyncio.Condition()
        self.deal: CID | None = None
        self.holders: dict[int, bytes] = {}
        self.proofs: Counter[bytes] = Counter()
        self.paid: Counter[bytes] = Counter()
        self.faults: Counter[bytes] = Counter()
        self.fees = 0
        self.terminated: set[int] = set()
        self.repaired: dict[int, bytes] = {}

    async def follow(self, ledger: LedgerClient, from_height: int) -> None:
        """Takes in every block's events, for ever."""
        async for block in ledger.events(from_height):
            for event in block.events:
                handler = getattr(self, f"_on_{event.kind}", None)
                if handler is not None:
                    handler(event.attributes)
            async with self._changed:
                self._changed.notify_all()

    async def until(self, what: str, reached: Callable[[], bool], timeout_s: float) -> None:
        """Waits until `reached()`; CommandError naming `what` when it takes too long."""
        try:
            async with asyncio.timeout(timeout_s), self._changed:
                await self._changed.wait_for(reached)
        except TimeoutError:
            raise CommandError(
                f"{what} did not happen within {timeout_s:.0f} s: is this machine very busy?", ExitCode.FAILED
            ) from None

    def name(self, account: bytes) -> str:
        """What people call an account."""
        return self._names.get(account, "a stranger")

    def _tell(self, line: str, event: str, **details: Any) -> None:
        self._story.say(line, event=event, **details)

    def _on_shard_assigned(self, a: Mapping[str, Any]) -> None:
        name = self.name(a["provider"])
        kind = "repair of shard" if a["repair"] else "shard"
        self._tell(f"{kind} {a['shard']} goes to {name}", "assigned", node=name, shard=a["shard"])

    def _on_shard_accepted(self, a: Mapping[str, Any]) -> None:
        name, shard = self.name(a["provider"]), a["shard"]
        self.holders[shard] = a["provider"]
        if shard in self.terminated:
            self.repaired[shard] = a["provider"]
            self._tell(f"{name} rebuilt shard {shard} and accepted it", "repaired", node=name, shard=shard)
        else:
            self._tell(f"{name} checked shard {shard} and accepted it", "accepted", node=name, shard=shard)

    def _on_proof_accepted(self, a: Mapping[str, Any]) -> None:
        name = self.name(a["provider"])
        self.proofs[a["provider"]] += 1
        self._tell(f"period {a['period']}: {name}'s proof accepted", "proof", node=name, period=a["period"])

    def _on_period_void(self, a: Mapping[str, Any]) -> None:
        name = self.name(a["provider"])
        self._tell(
            f"period {a['period']}: void for {name} (the ledger was late): no pay, no fault",
            "void",
            node=name,
        )

    def _on_fault(self, a: Mapping[str, Any]) -> None:
        name, fee = self.name(a["provider"]), a["fee"]
        self.faults[a["provider"]] += 1
        self.fees += fee
        line = f"period {a['period']}: FAULT of {name}: unpaid, {amount_text(fee)} of its stake burned"
        self._tell(line, "fault", node=name, period=a["period"], fee=fee, in_a_row=a["in_a_row"])

    def _on_shard_terminated(self, a: Mapping[str, Any]) -> None:
        name, shard = self.name(a["provider"]), a["shard"]
        self.terminated.add(shard)
        line = f"{name} loses shard {shard} and {amount_text(a['forfeited'])} of collateral"
        self._tell(
            f"{line}; whoever rebuilds it gets {amount_text(a['reward'])}",
            "terminated",
            node=name,
            shard=shard,
        )

    def _on_paid(self, a: Mapping[str, Any]) -> None:
        name = self.name(a["provider"])
        amount = a["amount"] + a["reward"]
        self.paid[a["provider"]] += amount
        self._tell(f"{name} is paid {amount_text(amount)}", "paid", node=name, amount=amount)
