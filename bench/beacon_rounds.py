"""A model of CometBFT's rounds and block times: what a coalition of validators makes of them.

Who proposes is known ahead: with equal power the validators take turns, and round r of height h is the turn
of validator h + r, so a validator that is absent, or withholds, leaves the height to whose turn is next. The
time of block h is the weighted median of the times in the precommits of h − 1 that its proposer puts into it
(`state.MedianTime`; `block_time` here): nobody chooses it but within what honest precommits say. Of a
coalition below a third of the power that leaves, in whole ticks:

    own        of its own block, which precommits are counted, and what its own ones say
    others     of another's block, what its own precommits say
    slow       to propose late, as far as `timeout_propose` allows: the times of all later blocks move
    failed     to withhold: the round fails, and those times move further

`Game` finds by recursion the best that it can do with all of that together: no play of it does better. A wish
is a share q of all values. Values of its own heights are known to it as long as no honest proposer comes
between; so, of the values that it can make the one that counts, one is good, or it leaves it to others.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import NamedTuple

COALITION, HONEST, ABSENT = "C", "H", "A"
POWER = 10  # of a validator; with 1 the median may be a liar's (docs/beacon.md, "Block times")
CYCLES = 3  # of turns before the opening: what is done earlier changes nothing any more (a test asks more)


class Shift(NamedTuple):
    """How many ticks a block's time may be earlier, and later, than with nobody's doing."""

    early: int = 0
    late: int = 0


AS_IT_IS = Shift()


@dataclass(frozen=True, slots=True)
class Timing:
    """A network, in ticks: `interval` is a block's, `failed` what a failed round adds to it."""

    interval: int
    failed: int
    slow: int = 0
    own: Shift = AS_IT_IS
    others: Shift = AS_IT_IS


def block_time(precommits: Sequence[tuple[int, int]]) -> int:
    """CometBFT's time of a block, from the (time, power) of each precommit of the last one that it counts."""
    left = sum(power for _, power in precommits) // 2
    for time, power in sorted(precommits):
        if left <= power:
            return time
        left -= power
    raise ValueError("a block counts precommits of some power")


def turns(honest: int, coalition: int, absent: int = 0, *, together: bool = False) -> str:
    """Whose turns follow one another, of validators with equal power; the first turn is the coalition's.

    `together`: the coalition's turns follow one another, and those who are absent come just before them: at
    its worst. Else both are spread evenly.
    """
    if together:
        return COALITION * coalition + HONEST * honest + ABSENT * absent
    count = honest + coalition + absent
    found = [HONEST] * count
    for kind, number in ((COALITION, coalition), (ABSENT, absent)):
        for index in range(number):
            place = index * count // number
            while found[place] != HONEST:
                place += 1
            found[place] = kind
    return "".join(found)


class Rule(Enum):
    """Whose R counts: that of the window's first block, of the next one, or of one drawn after it.

    Which one, R of the first block draws: of the n − 1 after it (the ledger's rule; n is the number of
    validators), or of so many as a game says.
    """

    FIRST = "first"
    NEXT = "next"
    DRAWN = "drawn"


_UNOPENED = -1
Best = tuple[tuple[float, float], ...]
"""How well a coalition does by what it can reach by itself: (chance of success, how likely), ascending."""


def _sure(chance: float) -> Best:
    return ((chance, 1.0),)


def _mixed(parts: Sequence[Best]) -> Best:
    """One of several, each as likely as the others."""
    sums: dict[float, float] = {}
    for part in parts:
        for chance, likely in part:
            sums[chance] = sums.get(chance, 0.0) + likely / len(parts)
    return tuple(sorted(sums.items()))


def _better(first: Best, second: Best) -> Best:
    """The better one of two that have nothing to do with each other."""
    sums: dict[float, float] = {}
    for one, likely in first:
        for other, as_likely in second:
            sums[max(one, other)] = sums.get(max(one, other), 0.0) + likely * as_likely
    return tuple(sorted(sums.items()))


@dataclass(frozen=True)
class Game:
    """One window, opening at tick 0. The block that counts is drawn of `span`, 0 for n − 1.

    A state is the turn (the height's first proposer), how many rounds of the height have failed, when the
    precommits of the height before were given, and, once the window is open, in how many heights the one is
    that counts (0: this one). Raises ValueError where nobody is honest.
    """

    order: str
    timing: Timing
    q: float
    rule: Rule = Rule.DRAWN
    span: int = 0
    _known: dict[tuple[int, int, int, int], float] = field(default_factory=dict, repr=False, compare=False)

    def __post_init__(self) -> None:
        if HONEST not in self.order:
            raise ValueError("where nobody is honest there is no game")

    def success(self) -> float:
        """The chance that the value which counts is as wanted, over all openings alike."""
        cycle, each = len(self.order) * self.timing.interval, range(self.timing.interval)
        starts = [(turn, -CYCLES * cycle - tick) for turn in range(len(self.order)) for tick in each]
        return sum(self._chance(turn, 0, at, _UNOPENED) for turn, at in starts) / len(starts)

    def _kind(self, turn: int, failed: int) -> str:
        return self.order[(turn + failed) % len(self.order)]

    def _counts_after_first(self) -> Sequence[int]:
        """In how many heights after the first block's the one is that counts; each is as likely."""
        if self.rule is Rule.NEXT:
            return (0,)
        return range(self.span or max(1, len(self.order) - 1))

    def _chance(self, turn: int, failed: int, at: int, left: int) -> float:
        """The coalition's chance while nothing of what is to come is known to it."""
        turn %= len(self.order)
        state = turn, failed, at if left == _UNOPENED else 0, left  # once it is open no time counts
        if state not in self._known:
            if self._kind(turn, failed) == HONEST:
                self._known[state] = self._of_honest(*state)
            else:
                best = self._best(turn, failed, at, at, left)
                self._known[state] = sum(chance * likely for chance, likely in best)
        return self._known[state]

    def _of_honest(self, turn: int, failed: int, at: int, left: int) -> float:
        """A block that nobody knows the value of; the coalition may have moved its time a little."""
        if left == 0:
            return self.q
        after = at + self.timing.interval + failed * self.timing.failed
        if left > 0:
            return self._chance(turn + 1, 0, after, left - 1)
        chances = []
        if at + self.timing.others.late >= 0:
            lefts = self._counts_after_first()
            opened = (self._chance(turn + 1, 0, after, count) for count in lefts)
            chances.append(self.q if self.rule is Rule.FIRST else sum(opened) / len(lefts))
        if at - self.timing.others.early < 0:
            chances.append(self._chance(turn + 1, 0, after, _UNOPENED))
        return max(chances)

    def _best(self, turn: int, failed: int, low: int, high: int, left: int) -> Best:
        """From a turn in a run of the coalition's; the precommits came at a tick of its choice, low … high.

        Each value of its own is made by one way of withholding alone, and has nothing to do with the others.
        """
        match self._kind(turn, failed):
            case "A":
                return self._best(turn, failed + 1, low, high, left)
            case "H":
                times = range(low, high + 1) if left == _UNOPENED else (0,)
                return _sure(max(self._chance(turn, failed, at, left) for at in times))
        found = self._best(turn, failed + 1, low, high, left)  # withheld
        value = ((0.0, 1 - self.q), (1.0, self.q))
        if left == 0:
            return _better(found, value)
        if left > 0:
            return _better(found, self._after(turn, failed, low, high, left - 1))
        own = self.timing.own
        if high + own.late >= 0:  # made the first block of the window
            first = max(low, -own.late), high
            opened = [self._after(turn, failed, *first, count) for count in self._counts_after_first()]
            found = _better(found, value if self.rule is Rule.FIRST else _mixed(opened))
        if low - own.early < 0:  # not made the first one
            found = _better(found, self._after(turn, failed, low, min(high, own.early - 1), _UNOPENED))
        return found

    def _after(self, turn: int, failed: int, low: int, high: int, left: int) -> Best:
        """From the height after a block of the coalition's, which may have been slow."""
        step = self.timing.interval + failed * self.timing.failed
        return self._best(turn + 1, 0, low + step, high + step + self.timing.slow, left)


# How far block times can be moved, for `Timing`.


@dataclass(frozen=True, slots=True)
class Moved:
    """By how much, at the mean, a coalition can move a block's time, in the unit of what was given."""

    own_early: float
    own_late: float
    others_early: float
    others_late: float


def moved(honest: int, coalition: int, spread: float, blocks: int, seed: int) -> Moved:
    """How far a coalition of equal validators below a third can move block times, at the mean.

    An honest precommit comes up to `spread` after the first one, evenly; without a coalition's doing its
    precommits are like that too.
    """
    if 3 * coalition >= honest + coalition:
        raise ValueError("a third of the power sets block times as it likes")
    rng, sums = random.Random(seed), [0.0] * 4
    for _ in range(blocks):
        times = sorted(round(rng.uniform(0, spread) * 1_000) for _ in range(honest))
        own = [round(rng.uniform(0, spread) * 1_000) for _ in range(coalition)]
        needed = (
            2 * (honest + coalition) // 3 + 1 - coalition
        )  # honest ones that a commit needs beside its own
        far = 1_000 * round(2 * spread)
        plain, *reached = (
            block_time([(time, POWER) for time in counted])
            for counted in (
                times + own,
                times[:needed] + [-far] * coalition,
                times[-needed:] + [far] * coalition,
                times + [-far] * coalition,
                times + [far] * coalition,
            )
        )
        sums = [total + abs(time - plain) for total, time in zip(sums, reached, strict=True)]
    return Moved(*(total / blocks / 1_000 for total in sums))


def detection(order: str, timing: Timing, lost: float, k: int, rule: Rule, span: int = 0) -> float:
    """The chance that a loss of a share of the leaves is found in a period, against the best play."""
    return 1 - Game(order, timing, (1 - lost) ** k, rule, span).success()
