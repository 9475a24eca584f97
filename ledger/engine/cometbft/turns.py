"""Whose turns were slow, or not taken: what anybody can see of a validator that steers (docs/beacon.md)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, NamedTuple

# Nobody's turn takes so long, with any timeouts: the chain stood still, and its first round began anew.
STANDSTILL_NS: Final = 30 * 10**9


@dataclass(slots=True)
class Share:
    """What one validator proposed: blocks in all, and those of a height's first round with what they took.

    A height takes from its block's time to the next one's; what a later round's took is another's doing
    too, and where the chain stood still it is nobody's.
    """

    blocks: int = 0
    first_round_blocks: int = 0
    first_round_ns: int = 0


class _Block(NamedTuple):
    height: int
    proposer: bytes
    time_ns: int


class Turns:
    """Counts of the blocks that this process has seen decided, by the proposer's account."""

    def __init__(self) -> None:
        self.shares: dict[bytes, Share] = {}
        self.failed_rounds = 0
        self._last: _Block | None = None

    def note(self, height: int, proposer: bytes, time_ns: int, last_round: int) -> None:
        """A block was decided; the one before it was so in round `last_round` of its height."""
        last = self._last
        if last is not None and last.height >= height:
            return  # a `cometbft` that came back gives it again
        self._last = _Block(height, proposer, time_ns)
        if last is None or last.height + 1 < height:
            return
        share = self.shares.setdefault(last.proposer, Share())
        share.blocks += 1
        self.failed_rounds += last_round
        took_ns = max(0, time_ns - last.time_ns)
        if last_round == 0 and took_ns < STANDSTILL_NS:
            share.first_round_blocks += 1
            share.first_round_ns += took_ns
