"""The economics of the ledger: strategies played against it, what honest nodes may expect, what things cost.

    python -m bench.economics [--sets N] [--seed N] [--no-corners]

Prints one JSON document on stdout and tables on stderr; docs/economics.md explains both. Exit 1 if a strategy
gained, or lost less than is claimed; the seed of its set repeats it. All 11 strategies under one set of
parameters take some 3 s, and there are two corners a parameter.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
from collections.abc import Iterable, Mapping
from dataclasses import asdict, replace
from fractions import Fraction
from math import comb
from typing import Any

from bench.economics_honest import YEAR_PERIODS, Misses, expect
from bench.economics_play import CLOCK, STRATEGIES, Case, corners, draw_params
from bench.economics_prices import GIB, TIB, Costs, break_even, capture, client_cost, flood
from ledger.genesis import Params

SHARES = (0.0001, 0.001, 0.01, 0.03, 0.1)
SIZES = {"1 MiB": 1 << 20, "1 GiB": GIB, "1 TiB": TIB}
CODES = ((1, 2), (4, 6), (10, 16))
ASK = 32_000  # units a GiB and day: about 1 HOLD a TiB and month
MAX_LEAVES = 40


def play(params: Params, seed: int) -> list[dict[str, Any]]:
    """Every strategy under one set of parameters."""
    found = []
    for strategy in STRATEGIES:
        case = Case(params, seed)
        outcome = strategy(case)
        found.append(
            {
                "strategy": outcome.name,
                "seed": seed,
                "periods": case.periods,
                "price": case.price,
                "gain": outcome.gain,
                "most": outcome.most,
                "holds": outcome.holds,
            }
        )
    return found


def least_detection() -> dict[str, Any]:
    """That α of the leaves lost is met with a chance of α at least, and more but where it must be α.

    Exact, for every number of leaves up to `MAX_LEAVES`, of lost ones, and of drawn ones up to 64.
    """
    cases = below = equal = 0
    for leaves in range(1, MAX_LEAVES + 1):
        for lost in range(1, leaves + 1):
            for drawn in range(1, 65):
                k = min(drawn, leaves)
                caught = 1 - Fraction(comb(leaves - lost, k), comb(leaves, k))
                share = Fraction(lost, leaves)
                cases += 1
                below += caught < share
                equal += caught == share and k > 1 and lost < leaves
    return {"cases": cases, "below": below, "equal_where_more_is_claimed": equal}


def played_detection(seed: int, runs: int = 12) -> list[dict[str, Any]]:
    """How often lost leaves were met by the draws of real periods, and how often they are by the formula.

    Nothing is terminated meanwhile. `off` is the difference in standard deviations.
    """
    rows = []
    for drawn, share in ((1, 0.3), (30, 0.02)):
        params = replace(
            Params(), **CLOCK, challenges=drawn, terminate_after=30, fault_limit=32, fault_window=32
        )
        met, expected, variance, periods = 0, 0.0, 0.0, 0
        for number in range(runs):
            case = Case(params, seed + number)
            _, unproven, odds = case.dropped(share, blocks=24)
            met, periods = met + unproven, periods + case.periods
            expected += case.periods * odds
            variance += case.periods * odds * (1 - odds)
        rows.append(
            {
                "drawn": drawn,
                "share_lost": share,
                "periods": periods,
                "met": met,
                "expected": expected,
                "off": (met - expected) / variance**0.5,
            }
        )
    return rows


def honest() -> list[dict[str, Any]]:
    """Of a dataset under the defaults in a year: windows missed alone, and in outages of a day or three."""
    params, rows = Params(), []
    for hours in (None, 24, 72):
        for share in SHARES:
            misses = Misses.alone(share) if hours is None else Misses.outages(share, hours, params)
            found = expect(misses, params)
            rows.append({"outage_h": hours or "–", "share": share, **asdict(found), "cost": found.cost})
    return rows


def exits(params: Params) -> list[dict[str, Any]]:
    """What leaving costs beside one small fee, in prices of a period, collateral and pay included."""
    fee, days = params.fault_fee_percent / 100, params.terminate_after
    lost = days + params.collateral_periods
    return [
        {"way": "hand over, if somebody takes it", "price_periods": 0.0},
        {"way": "give up, after a proven period", "price_periods": fee / 2},
        {"way": "declare every fault, until terminated", "price_periods": days * fee / 2 + lost},
        {"way": "say nothing, until terminated", "price_periods": days * fee + lost},
    ]


def break_evens() -> list[dict[str, Any]]:
    """The least prices at which a node that is away for 0.1 % of its windows covers its costs."""
    params = Params()
    expected = expect(Misses.alone(0.001), params)
    return [
        {"dataset": name, **break_even(size, expected, Costs(), params, YEAR_PERIODS)}
        for name, size in SIZES.items()
    ]


def client() -> list[dict[str, Any]]:
    """What a client pays for a file in a year."""
    return [
        {"file": name, "code": f"{k}-of-{m}", **client_cost(size, k, m, ASK, Params(), YEAR_PERIODS)}
        for name, size in SIZES.items()
        for k, m in CODES
    ]


def summary(played: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Per strategy: how often it was played, and the best it came to, in prices of a period."""
    names: dict[str, list[Mapping[str, Any]]] = {}
    for each in played:
        names.setdefault(each["strategy"], []).append(each)
    return [
        {
            "strategy": name,
            "sets": len(some),
            "best_gain": max(each["gain"] for each in some),
            "best_gain_in_prices": max(each["gain"] / each["price"] for each in some),
            "broken": sum(not each["holds"] for each in some),
        }
        for name, some in names.items()
    ]


def table(title: str, rows: list[dict[str, Any]]) -> None:
    """Rows as Markdown on stderr."""
    print(f"\n{title}\n", file=sys.stderr)
    print("| " + " | ".join(rows[0]) + " |", file=sys.stderr)
    print("| " + " | ".join("---" for _ in rows[0]) + " |", file=sys.stderr)
    for row in rows:
        shown = [f"{value:.3g}" if isinstance(value, float) else str(value) for value in row.values()]
        print("| " + " | ".join(shown) + " |", file=sys.stderr)


def main() -> int:
    """Runs it all; 1 if a claim is broken."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--sets", type=int, default=20, help="parameter sets drawn from the whole of the bounds"
    )
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 32))
    parser.add_argument("--no-corners", action="store_true", help="not each end of each parameter's bounds")
    args = parser.parse_args()
    rng = random.Random(args.seed)
    seeds = [rng.randrange(1 << 32) for _ in range(args.sets)]
    sets = [(draw_params(random.Random(seed)), seed) for seed in seeds]
    sets += [] if args.no_corners else [(params, number) for number, params in enumerate(corners())]
    played = [each for params, seed in sets for each in play(params, seed)]
    default = play(replace(Params(), **CLOCK), args.seed)
    report: dict[str, Any] = {
        "seed": args.seed,
        "strategies": summary(played),
        "under_the_defaults": default,
        "broken": [each for each in played + default if not each["holds"]],
        "detection": least_detection(),
        "played_detection": played_detection(args.seed),
        "honest": honest(),
        "exits": exits(Params()),
        "break_even": break_evens(),
        "client": client(),
        "flood": flood(Params()),
        "capture": {f"{turnout} %": capture(turnout) for turnout in (0, 5, 10, 14, 20, 25, 50, 75, 100)},
    }
    print(json.dumps(report, indent=2))
    print(f"seed {args.seed}", file=sys.stderr)
    for name in ("strategies", "played_detection", "honest", "exits", "break_even", "client"):
        table(name, report[name])
    table("flood, units a block", [report["flood"]])
    table("capture: share of stake by turnout of the others", [report["capture"]])
    wrong = report["detection"]["below"] + report["detection"]["equal_where_more_is_claimed"]
    wrong += sum(abs(row["off"]) > 4 for row in report["played_detection"])
    return 1 if report["broken"] or wrong else 0


if __name__ == "__main__":
    sys.exit(main())
