"""Which events a follower asked for: those of some accounts, deals or kinds."""

from __future__ import annotations

from dataclasses import dataclass, replace

from ledger.engine.blocks import BlockEvents
from ledger.events import ACCOUNT_ATTRIBUTES, Event
from merkledag.cid import CID


@dataclass(frozen=True, slots=True)
class EventFilter:
    """Events that name one of the accounts, and one of the deals, and are of one of the kinds.

    What is empty asks for nothing in particular.
    """

    accounts: frozenset[bytes] = frozenset()
    deals: frozenset[CID] = frozenset()
    kinds: frozenset[str] = frozenset()

    @property
    def is_open(self) -> bool:
        """Whether every event passes."""
        return not (self.accounts or self.deals or self.kinds)

    def passes(self, event: Event) -> bool:
        """Whether it is one of them."""
        if self.kinds and event.kind not in self.kinds:
            return False
        if self.deals and event.attributes.get("deal") not in self.deals:
            return False
        named = (value for name, value in event.attributes.items() if name in ACCOUNT_ATTRIBUTES)
        return not self.accounts or any(value in self.accounts for value in named)

    def of(self, block: BlockEvents) -> BlockEvents | None:
        """The block with those of its events that pass; None if there are none, and not all are asked for."""
        if self.is_open:
            return block
        events = tuple(event for event in block.events if self.passes(event))
        return replace(block, events=events) if events else None
