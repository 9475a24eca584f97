"""A fuzz target: where its inputs come from, and who says what must be accepted and what refused."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

MAX_SECONDS = 1.0  # of one input, on a machine that does other things too
MAX_SHRINKS = 2_000


class Refused(Exception):
    """An oracle's verdict: these bytes must not be accepted."""


class Unsure(Exception):
    """The oracle does not know, and so says nothing."""


class Finding(AssertionError):
    """A decoder did what it must not."""


@dataclass(frozen=True, slots=True)
class Target:
    """A decoder under test.

    `make(dice)` gives an input. `decode` is ours: what it raises besides `errors` is a fault. `oracle` is an
    independent, simple, strict decoder of the same thing: it raises Refused, or returns what `decode` must
    return. `errors` are the documented classes.
    """

    name: str
    make: Callable[[random.Random], bytes]
    decode: Callable[[bytes], Any]
    oracle: Callable[[bytes], Any]
    errors: tuple[type[Exception], ...]

    def check(self, data: bytes) -> bool:
        """Whether the input was accepted, rightly; raises Finding."""
        try:
            expected: Any = self.oracle(data)
            wanted = True
        except Refused as refusal:
            expected, wanted = refusal, False
        except Unsure:
            expected, wanted = None, None
        started = time.process_time()
        try:
            got = self.decode(data)
            accepted = True
        except self.errors as error:
            got, accepted = error, False
        except Exception as error:
            raise Finding(f"{self.name}: {type(error).__name__} is no documented error: {error}") from error
        spent = time.process_time() - started
        if spent > MAX_SECONDS:
            raise Finding(f"{self.name}: {len(data)} bytes took {spent:.1f} s")
        if wanted is None:
            return accepted
        if accepted and not wanted:
            raise Finding(f"{self.name}: accepted {short(got)}, and must not: {expected}")
        if wanted and not accepted:
            raise Finding(f"{self.name}: refused ({got}), and is valid: {short(expected)}")
        if accepted and not same(got, expected):
            raise Finding(f"{self.name}: read as {short(got)}, is {short(expected)}")
        return accepted


def same(left: Any, right: Any) -> bool:
    """Equal with the same types all through: 1 is not True and not 1.0, and 0.0 is not -0.0."""
    if type(left) is not type(right):
        return False
    if isinstance(left, list | tuple):
        return len(left) == len(right) and all(map(same, left, right))
    if isinstance(left, dict):
        return list(left) == list(right) and all(map(same, left.values(), right.values()))
    if isinstance(left, float):
        return repr(left) == repr(right)
    return bool(left == right)


def short(value: Any) -> str:
    """A value for people."""
    text = repr(value)
    return text if len(text) <= 300 else text[:297] + "…"


@dataclass(slots=True)
class Outcome:
    """What a run of a target saw."""

    inputs: int = 0
    accepted: int = 0


def run(target: Target, seed: int, *, inputs: int | None = None, seconds: float | None = None) -> Outcome:
    """Tries inputs until there were enough or time is up; raises Finding with the seed and a small input."""
    outcome = Outcome()
    until = None if seconds is None else time.monotonic() + seconds
    while inputs is None or outcome.inputs < inputs:
        if until is not None and time.monotonic() >= until:
            break
        own = f"{target.name} {seed} {outcome.inputs}"  # every input follows from the seed and its number
        data = target.make(random.Random(own))
        outcome.inputs += 1
        try:
            outcome.accepted += target.check(data)
        except Finding as finding:
            small, reason = shrink(target, data, str(finding))
            raise Finding(f"{reason}\nseed {seed}, input {outcome.inputs - 1}: {small.hex()}") from finding
    return outcome


def shrink(target: Target, data: bytes, reason: str) -> tuple[bytes, str]:
    """A shorter input with a finding of the same beginning, by leaving pieces out and zeroing bytes."""
    kind = reason.split("(")[0][:40]
    tries = 0

    def still(candidate: bytes) -> str | None:
        try:
            target.check(candidate)
        except Finding as finding:
            return str(finding) if str(finding).startswith(kind) else None
        return None

    size = max(1, len(data) // 2)
    while size and tries < MAX_SHRINKS:
        at, shorter = 0, False
        while at < len(data) and tries < MAX_SHRINKS:
            candidate = data[:at] + data[at + size :]
            tries += 1
            if (found := still(candidate)) is not None:
                data, reason, shorter = candidate, found, True
            else:
                at += size
        if not shorter:
            size //= 2
    return data, reason
