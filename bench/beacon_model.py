"""A model of proposers who withhold: how far they move what the beacon draws (docs/proofs.md, "Beacon").

Each round of each height is proposed by the coalition with chance p. A key has one value at a height, known
to its holder as soon as the value before is known; an honest proposer's value is known to nobody before it is
out. The coalition knows who proposes ahead, and wants a value with a property that a share q of all values
has. The value that counts is that of the first height at or after a window's opening, or of one `lag` heights
later. A proposer that can be late makes its own height the first one.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from itertools import takewhile
from math import comb, log

from proofs.challenge import period_seed, sample

MAX_TAIL = 64  # heights in a row; longer runs are as likely as 2^−64 for a coalition of half
MAX_LOOKS = 4_096  # values that a coalition looks at for one run: a bound on the work alone
Wanted = Callable[[bytes], bool]
"""Whether a coalition likes a beacon value, 32 bytes."""


class Order(Enum):
    """Who proposes: what a coalition with share p of all proposals may have in a row."""

    TURNS = "turns"  # never two rounds nor two heights: one validator below 1/2, in a round robin
    ONE_KEY = "one key"  # each height at random; a second round of the same height gives no second value
    MANY_KEYS = "many keys"  # each round at random, each with another key


@dataclass(frozen=True, slots=True)
class Rule:
    """`late` heights before the first one can be made the first one; the value is that of `lag` after it."""

    late: int = 0
    lag: int = 0


TIMELY, LATE, LAGGED = Rule(), Rule(late=1), Rule(late=1, lag=1)


@dataclass(frozen=True, slots=True)
class Outcome:
    """Of many windows: how often the value was as wanted, and how many proposals were withheld a window."""

    success: float
    withheld: float


def formula(order: Order, p: float, q: float, rule: Rule = TIMELY) -> float | None:
    """The success that `play` tends to; None where there is no short formula."""
    miss = 1 - q
    match order, rule:
        case Order.TURNS, Rule(0, 0) | Rule(1, 1):
            return q * (1 + p * miss)
        case Order.TURNS, Rule(1, 0):
            return q * (1 + 2 * p * miss)
        case Order.ONE_KEY, Rule(0, 0):
            return q / (1 - p * miss)
        case Order.ONE_KEY, Rule(1, 0):
            alone, last = (1 - p) * miss / (1 - p * miss), p * miss**2 / (1 - p * miss**2)
            return 1 - (1 - p) * (alone + last)
        case Order.ONE_KEY, Rule(1, 1):
            alone, last = (1 - p) * miss * (1 + p / (1 - p * miss)), p * miss**2
            return 1 - (1 - p) * (alone + last * (1 + p * miss / (1 - p * miss**2)))
    return None


def withheld_formula(order: Order, p: float, q: float) -> float:
    """Proposals withheld a window, of one key whose height cannot be late: each buys a share q of success."""
    found = formula(order, p, q)
    assert found is not None, "an order that has a formula"
    return (found - q) / q


def schedule(order: Order, p: float, heights: int, rng: random.Random) -> list[int]:
    """The coalition's keys at each of the last `heights`, and in its run before them, the last one last."""
    found: list[int] = []
    while len(found) < heights or (found[-1] and len(found) < MAX_TAIL):
        chance = p
        if order is Order.TURNS and found:
            chance = 0 if found[-1] else p / (1 - p)
        keys = int(rng.random() < chance)
        while keys and order is Order.MANY_KEYS and keys < MAX_TAIL and rng.random() < p:
            keys += 1
        found.append(keys)
    return found[::-1]


def play(order: Order, p: float, wanted: Wanted, windows: int, seed: int, rule: Rule = TIMELY) -> Outcome:
    """Many windows, simulated."""
    rng = random.Random(seed)
    good = withheld = 0
    for _ in range(windows):
        heights = schedule(order, p, 1 + rule.late + rule.lag, rng)
        success, cost = _play_window(heights, wanted, rule, rng)
        good += success
        withheld += cost
    return Outcome(good / windows, withheld / windows)


def _play_window(heights: list[int], wanted: Wanted, rule: Rule, rng: random.Random) -> tuple[bool, int]:
    """Whether the value was as wanted, and how many proposals that took.

    With no good value among those that the coalition can reach by itself it gives up its first height, for
    all after it are drawn anew then; if there is nothing more to reach, it gives up none.
    """
    value, withheld = rng.randbytes(32), 0
    while heights:
        run = list(takewhile(bool, heights))
        looks = list(_deciding(len(run), len(heights), rule))
        found = next((cost for each, cost in known(value, run, looks) if wanted(each)), None)
        if found is not None:
            return True, withheld + found
        if looks and (len(run) == len(heights) or looks[-1] > 0):
            withheld += heights[0]
        heights = heights[1:]
        value = rng.randbytes(32)  # an honest proposer's
    return wanted(value), withheld


def _deciding(run: int, left: int, rule: Rule) -> Iterator[int]:
    """Which heights of a coalition's run, of `left` heights to the last one, can be those that count."""
    for index in range(run):
        before_last = left - 1 - index
        if before_last == 0 or (before_last <= rule.late and index >= rule.lag):
            yield index


def known(value: bytes, run: Sequence[int], looks: Sequence[int]) -> Iterator[tuple[bytes, int]]:
    """The values at `looks` that a coalition can reach by itself, and how many proposals each withholds."""
    reached, seen = [(value, 0)], 0
    for index, keys in enumerate(run):
        reached = [
            (_own(before, key), cost + key)  # its keys' rounds follow one another
            for before, cost in reached[: MAX_LOOKS // keys]
            for key in range(keys)
        ]
        if index in looks:
            yield from reached
            seen += len(reached)
            if seen > MAX_LOOKS:
                return


def _own(before: bytes, key: int) -> bytes:
    """The value that one of the coalition's keys leads to: one each, and no other (a signature is unique)."""
    return hashlib.sha256(before + key.to_bytes(2, "big")).digest()


# What a coalition may want.


def share_of_values(q: float) -> Wanted:
    """A share q of all values: one bit (1/2), or a draw that falls to a share q of the stake."""
    bound = int(q * 2**256)
    return lambda value: int.from_bytes(value, "big") < bound


def no_lost_leaf(leaves: int, lost: int, k: int) -> Wanted:
    """That none of `k` leaves drawn, by the proofs' own draw, is among the `lost` of a dataset."""

    def misses(value: bytes) -> bool:
        seed = period_seed("model", bytes(32), bytes(32), 1, value)
        return sample(seed, leaves, k)[0] >= lost  # ascending; the first `lost` leaves are the lost ones

    return misses


# What follows.


def own_shards(p: float, stake: float, shards: int) -> float:
    """How many of a deal's shards fall to one key with this share of the stake, at its best choice."""
    chances = [comb(shards, n) * stake**n * (1 - stake) ** (shards - n) for n in range(shards + 1)]

    def one_more_look(least: float) -> float:
        return sum(chance * max(n, least) for n, chance in enumerate(chances))

    expected, weight, total = one_more_look(0), 1 - p, 0.0
    for _ in range(MAX_TAIL):
        total += weight * expected
        expected, weight = one_more_look(expected), weight * p
    return total


def leaves_to_draw(order: Order, p: float, lost: float, k: int, rule: Rule = TIMELY) -> float:
    """How many leaves a period must draw so that the loss is found as often as by `k` without withholding."""
    low, high = float(k), 100.0 * k
    for _ in range(60):
        middle = (low + high) / 2
        missed = formula(order, p, (1 - lost) ** middle, rule)
        assert missed is not None, "an order and a rule that have a formula"
        low, high = (middle, high) if missed > (1 - lost) ** k else (low, middle)
    return high


def periods_to_find(detection: float, chance: float = 0.9999) -> float:
    """After how many periods a loss is found with a chance, by a detection a period."""
    return log(1 - chance) / log(1 - detection)
