"""How likely content is lost within a year, and readable at a moment, by code, failures and repair.

Run from the repository's root: `python -m bench.availability`. Prints one JSON document on stdout and the
tables of docs/proofs.md, "Availability", on stderr, always the same. A test holds the page to them.

Loss: each of m nodes loses its share for good at a constant rate, whatever the others do; each lost share is
repaired, by itself, after an exponential time of mean T that includes noticing. Content is lost when more
than m − k shares are lost at once. That is a birth-death chain of m − k + 2 states, solved exactly by
uniformisation: a sum of positive terms, so that small probabilities are as exact as large ones.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable
from math import ceil, comb, exp, expm1, lgamma, log, log1p, sqrt
from typing import Final, NamedTuple

YEAR_DAYS: Final = 365.0
FAILURES: Final = (0.05, 0.2, 0.5)  # chance of a node to lose its share within a year
REPAIR_DAYS: Final = (1.0, 5.0, 20.0)
UPTIMES: Final = (0.8, 0.9, 0.95, 0.99, 0.999)
LEAST: Final = 1e-12
SUPERSCRIPTS: Final = str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")
TAIL_SIGMAS: Final = 12  # of a Poisson distribution; what is beyond is below 10⁻³⁰


class Code(NamedTuple):
    """Any k of m nodes restore the content. `parts` of it are stored by themselves, each on m other nodes."""

    k: int
    m: int
    parts: int = 1

    @property
    def expansion(self) -> float:
        """Bytes stored for each byte of content."""
        return self.m / self.k

    def __str__(self) -> str:
        return (
            f"{self.k}-of-{self.m}" if self.parts == 1 else f"{self.parts} parts, each {self.k}-of-{self.m}"
        )


DEFAULTS: Final = (Code(1, 1), Code(1, 2), Code(2, 3), Code(4, 6), Code(10, 16))
# Codes and plain replication that store as much, on as many nodes too.
COMPARED: Final = (
    Code(1, 2), Code(1, 2, 4), Code(4, 8), Code(1, 2, 10), Code(10, 20),
    Code(1, 3), Code(1, 3, 4), Code(4, 12),
)  # fmt: skip


def lost_within_a_year(code: Code, failure: float, repair_days: float | None) -> float:
    """The chance that content is lost within a year; without repair if `repair_days` is None."""
    one = _absorbed(code.k, code.m, -log1p(-failure), YEAR_DAYS / repair_days if repair_days else 0.0)
    return -expm1(code.parts * log1p(-one)) if one < 1 else 1.0


def _absorbed(k: int, m: int, fails: float, repairs: float) -> float:
    """The chance to reach m − k + 1 lost shares within one unit of time, from none."""
    states = m - k + 1  # 0 … m − k lost; one more is the end
    up = [(m - lost) * fails for lost in range(states)]
    down = [lost * repairs for lost in range(states)]
    rate = max(a + b for a, b in zip(up, down, strict=True))
    alive = [1.0, *[0.0] * (states - 1)]
    gone = total = 0.0
    for jumps in range(ceil(rate + TAIL_SIGMAS * sqrt(rate) + 10 * TAIL_SIGMAS)):
        total += exp(jumps * log(rate) - rate - lgamma(jumps + 1)) * gone
        gone += alive[-1] * up[-1] / rate
        alive = [
            alive[lost] * (1 - (up[lost] + down[lost]) / rate)
            + (alive[lost - 1] * up[lost - 1] / rate if lost else 0.0)
            + (alive[lost + 1] * down[lost + 1] / rate if lost + 1 < states else 0.0)
            for lost in range(states)
        ]
    return total


def unreadable(code: Code, uptime: float) -> float:
    """The chance that at a moment fewer than k of the m nodes of some part answer."""
    one = sum(comb(code.m, up) * uptime**up * (1 - uptime) ** (code.m - up) for up in range(code.k))
    return -expm1(code.parts * log1p(-one))


# --- tables ---


def chance(value: float) -> str:
    """`3.1 %`, `0.02 %`, `4 · 10⁻⁹` for what is less than 0.001 %; nobody should believe less than 10⁻¹²."""
    if value >= 1e-5:
        return f"{100 * value:.2g} %"
    if value < LEAST:
        return "< 10⁻¹²"
    digit, _, power = f"{value:.0e}".partition("e-")
    return f"{digit} · 10⁻{str(int(power)).translate(SUPERSCRIPTS)}"


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """A table in Markdown."""
    lines = [list(head), *map(list, rows)]
    lines.insert(1, ["---"] * len(lines[0]))
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def loss_table(codes: Iterable[Code]) -> str:
    """Chances of loss within a year: a row a code, a column for each failure rate and time of repair."""
    cases = [(failure, days) for failure in FAILURES for days in REPAIR_DAYS]
    head = ["code", "stored", *(f"{100 * failure:g} %, {days:g} d" for failure, days in cases)]
    return table(
        head,
        (
            [
                str(code),
                f"{code.expansion:.3g} ×",
                *(chance(lost_within_a_year(code, *case)) for case in cases),
            ]
            for code in codes
        ),
    )


def uptime_table(codes: Iterable[Code]) -> str:
    """Chances that content cannot be read at a moment: a row a code, a column an uptime."""
    head = ["code", "stored", *(f"{uptime:.3g}" for uptime in UPTIMES)]
    return table(
        head,
        (
            [str(code), f"{code.expansion:.3g} ×", *(chance(unreadable(code, uptime)) for uptime in UPTIMES)]
            for code in codes
        ),
    )


TABLES: Final[dict[str, Callable[[], str]]] = {
    "lost within a year": lambda: loss_table(DEFAULTS),
    "lost within a year, at the same expansion": lambda: loss_table(COMPARED),
    "unreadable at a moment": lambda: uptime_table([*DEFAULTS, Code(1, 3), *COMPARED[1:5], Code(4, 12)]),
}


def main() -> None:
    """Prints the figures and the tables."""
    for title, made in TABLES.items():
        print(f"{title}\n\n{made()}\n", file=sys.stderr)
    codes = dict.fromkeys([*DEFAULTS, *COMPARED])
    print(
        json.dumps(
            {
                str(code): {
                    "expansion": code.expansion,
                    "lost": [
                        [failure, days, lost_within_a_year(code, failure, days)]
                        for failure in FAILURES
                        for days in REPAIR_DAYS
                    ],
                    "unreadable": [[uptime, unreadable(code, uptime)] for uptime in UPTIMES],
                }
                for code in codes
            }
        )
    )


if __name__ == "__main__":
    main()
