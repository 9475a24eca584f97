"""Block time: the wall clock, or the seconds that passed while the wall clock is behind the last block."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Moment:
    """`block_s`: block time in seconds since 1970; `passed_s`: what the monotonic clock read then."""

    block_s: float
    passed_s: float


class BlockClock:
    """Never before the last block, and never at a standstill.

    A wall clock that jumped ahead takes block time with it, which cannot be taken back. Once it is corrected
    (perhaps before a restart) it may be years behind; block time then goes on at the pace of `monotonic`
    until the wall clock has caught up.
    """

    def __init__(
        self, wall: Callable[[], float], monotonic: Callable[[], float], last_block_s: float
    ) -> None:
        self._wall = wall
        self._monotonic = monotonic
        # With its fraction: blocks that come faster than one a second would else stop the clock.
        self._last = Moment(last_block_s, monotonic())

    def now(self) -> Moment:
        """What a block that is made now would say."""
        passed_s, wall_s = self._monotonic(), self._wall()
        if wall_s < self._last.block_s:
            return Moment(self._last.block_s + max(0.0, passed_s - self._last.passed_s), passed_s)
        return Moment(wall_s, passed_s)

    def made(self, block: Moment) -> None:
        """A block was made at that moment."""
        self._last = block
