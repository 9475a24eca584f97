"""A chain's parameters as people write and read them: `period_s=1h`, `base_fee=0.000002`, `challenges=20`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from cli.durations import duration_text, seconds
from cli.money import amount_text, parse_amount
from cli.output import usage

AMOUNTS: Final = frozenset(
    {"base_fee", "fee_per_kib", "proof_fee", "deposit", "account_minimum", "min_stake", "proposal_deposit"}
)
MAX_DIGITS: Final = 19


def parse_params(words: Iterable[str], known: Iterable[str]) -> dict[str, int]:
    """`NAME=VALUE` words as values by name; exit 2 for what is none, and for a name twice.

    Amounts are HOLD, or base units with the word `units`; names in `_s` take durations or bare seconds.
    What is out of its bounds is exit 2 too.
    """
    names = set(known)
    values: dict[str, int] = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not equals:
            raise usage(f"{word!r}: write NAME=VALUE, such as period_s=1h")
        if name not in names:
            raise usage(f"{name!r} is no parameter: they are {', '.join(sorted(names))}")
        if name in values:
            raise usage(f"{name} is given twice")
        values[name] = _parse(name, value)
        _check_bounds(name, values[name])
    return values


def _check_bounds(name: str, value: int) -> None:
    from ledger.fields import specs
    from ledger.genesis import Params

    low, high = dict(specs(Params))[name].bounds or (value, value)
    if not low <= value <= high:
        raise usage(
            f"{name}={param_text(name, value)}: from {param_text(name, low)} to {param_text(name, high)}"
        )


def _parse(name: str, text: str) -> int:
    plain = text.replace("_", "")
    is_number = plain.isascii() and plain.isdigit() and len(plain) <= MAX_DIGITS
    if name in AMOUNTS:
        return parse_amount(plain)
    if is_number:
        return int(plain)
    if name.endswith("_s"):
        return seconds(text, name)
    raise usage(f"{name} is a whole number, not {text!r}")


def param_text(name: str, value: int) -> str:
    """A parameter's value for people."""
    if name in AMOUNTS:
        return amount_text(value)
    return duration_text(value) if name.endswith("_s") else f"{value:,}"


def params_lines(values: Mapping[str, int]) -> list[str]:
    """One line a parameter."""
    return [f"{name:24} {param_text(name, value)}" for name, value in values.items()]
