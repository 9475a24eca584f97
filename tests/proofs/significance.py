"""How unlikely an outcome of chance is, computed exactly or nearly so, without other packages."""

from __future__ import annotations

import math
from collections.abc import Sequence


def binomial_tails(hits: int, trials: int, chance: float) -> tuple[float, float]:
    """(P(X ≤ hits), P(X ≥ hits)) for X of `trials` at `chance`.

    `chance` lies in the exact (Clopper–Pearson) interval of confidence 1 − 2t around hits / trials when both
    are above t, and only then.
    """
    if chance in (0.0, 1.0):
        return float(hits >= trials * chance), float(hits <= trials * chance)
    logs = math.log(chance), math.log1p(-chance)

    def mass(count: int) -> float:
        ways = math.lgamma(trials + 1) - math.lgamma(count + 1) - math.lgamma(trials - count + 1)
        return math.exp(ways + count * logs[0] + (trials - count) * logs[1])

    below = math.fsum(map(mass, range(hits)))
    return below + mass(hits), 1 - below


def chi_square_tail(statistic: float, freedom: int) -> float:
    """P(χ² ≥ statistic) with `freedom` degrees: the regularised upper incomplete gamma function."""
    shape, at = freedom / 2, statistic / 2
    if at <= 0:
        return 1.0
    front = math.exp(shape * math.log(at) - at - math.lgamma(shape))
    if at < shape + 1:  # by the series of the lower one
        term = total = 1 / shape
        step = shape
        while term > total * 1e-16:
            step += 1
            term *= at / step
            total += term
        return 1 - front * total
    numerator, fraction = at + 1 - shape, 0.0  # by Lentz's continued fraction
    upper = 1e300
    fraction = result = 1 / numerator
    for step in range(1, 10_000):
        factor = -step * (step - shape)
        numerator += 2
        fraction = 1 / (factor * fraction + numerator)
        upper = numerator + factor / upper
        result *= fraction * upper
        if abs(fraction * upper - 1) < 1e-15:
            break
    return front * result


def uniform_tail(counts: Sequence[int], correction: float = 1.0) -> float:
    """How likely are counts at least as uneven as these, if each place is as likely as any other."""
    expected = sum(counts) / len(counts)
    statistic = sum((count - expected) ** 2 for count in counts) / expected
    return chi_square_tail(statistic * correction, len(counts) - 1)
