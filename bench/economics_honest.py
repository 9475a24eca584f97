"""What an honest node that is away now and then may expect: exact, by dynamic programming.

A state is what the ledger looks at: which of the last periods were faults, how many proofs came since, and,
where misses come in runs, how many are still to come. Probabilities below 10⁻¹⁵ are left out.
"""

from __future__ import annotations

from dataclasses import dataclass

from ledger.genesis import Params

YEAR_PERIODS = 365
LEAST = 1e-15

State = tuple[int, int, int, int]  # faults of the last periods, in a row, proofs since, misses to come


@dataclass(frozen=True, slots=True)
class Misses:
    """How windows are missed: in any period without a run, one of `runs` (length → odds) may begin."""

    runs: tuple[tuple[int, float], ...]

    @classmethod
    def alone(cls, share: float) -> Misses:
        """Each window with the same odds, whatever was before."""
        return cls(((1, share),))

    @classmethod
    def outages(cls, share: float, hours: float, params: Params) -> Misses:
        """Outages of so many hours, which take this share of all time; one as long as a window misses it."""
        period_h, window_h = params.period_s / 3_600, params.window_s / 3_600
        begins = share * period_h / hours
        windows = max(0.0, (hours - window_h) / period_h)
        whole, rest = int(windows), windows - int(windows)
        runs = ((whole, begins * (1 - rest)), (whole + 1, begins * rest))
        return cls(tuple((length, odds) for length, odds in runs if length and odds))


@dataclass(frozen=True, slots=True)
class Expected:
    """Of one dataset, in prices of a period; `terminated` and `any_fault` are probabilities."""

    any_fault: float
    faults: float
    free: float
    terminated: float
    lost_pay: float
    fees: float
    collateral: float

    @property
    def cost(self) -> float:
        """Expected loss, periods' prices; what would have been earned after a termination is not in it."""
        return self.lost_pay + self.fees + self.collateral


Edge = tuple[int, float]  # to which state, with what odds


def _step(state: State, misses: Misses, params: Params) -> tuple[list[tuple[State | None, float]], float]:
    """Where a period leads (None: terminated), and the odds of a fault in it."""
    row, in_a_row, clean, to_come = state
    kept = (1 << (params.fault_window - 1)) - 1
    ways = [(to_come, 1.0)] if to_come else [*misses.runs]
    missed = sum(odds for _, odds in ways)
    found: list[tuple[State | None, float]] = []
    if missed < 1.0:
        found.append((((row << 1) & kept, 0, min(clean + 1, params.grace_periods), 0), 1.0 - missed))
    is_last = in_a_row + 1 >= params.terminate_after or row.bit_count() + 1 >= params.fault_limit
    for length, odds in ways:
        found.append((None if is_last else ((row << 1 | 1) & kept, in_a_row + 1, 0, length - 1), odds))
    return found, missed


def expect(misses: Misses, params: Params, periods: int = YEAR_PERIODS) -> Expected:
    """What becomes of a dataset that begins now."""
    numbers: dict[State, int] = {(0, 0, 0, 0): 0}
    states: list[State] = [(0, 0, 0, 0)]
    edges: list[list[Edge]] = []
    faulting: list[float] = []
    now = [1.0]
    faults = free = terminated = 0.0
    for _ in range(periods):
        after = [0.0] * len(states)
        for number, odds in enumerate(now):
            if odds < LEAST:
                continue
            while number >= len(edges):  # a state that was not reached before
                ways, missed = _step(states[len(edges)], misses, params)
                ends = []
                for state, share in ways:
                    if state is not None and state not in numbers:
                        numbers[state] = len(states)
                        states.append(state)
                        after.append(0.0)
                    ends.append((-1 if state is None else numbers[state], share))
                edges.append(ends)
                faulting.append(missed)
            if faulting[number]:
                faults += odds * faulting[number]
                free += odds * faulting[number] if states[number][2] >= params.grace_periods else 0.0
            for end, share in edges[number]:
                if end < 0:
                    terminated += odds * share
                else:
                    after[end] += odds * share
        now = after
    spotless = (1.0 - sum(odds for _, odds in misses.runs)) ** periods
    return Expected(
        any_fault=1.0 - spotless,
        faults=faults,
        free=free,
        terminated=terminated,
        lost_pay=faults,
        fees=(faults - free) * params.fault_fee_percent / 100,
        collateral=terminated * params.collateral_periods,
    )
