"""What one worker counts, and how the counts of all workers become one page for Prometheus.

A snapshot is plain JSON: each series, written as in the text format (`name{label="value"}`), and its numbers.
A counter or gauge has one; a histogram has the count of each bucket (not cumulative, the last one is for what
exceeds all bounds) and then the sum. Series of several workers are added.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

PREFIX: Final = "holdfast_gateway_"
CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"

# Seconds: from a small block in memory to a page that is fetched from far away.
SECONDS_BOUNDS: Final = (
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
    30.0, 60.0, 300.0, 3600.0,
)  # fmt: skip

Snapshot = dict[str, list[float]]


@dataclass(frozen=True, slots=True)
class Family:
    """One metric: its name without the prefix, and what the page says of it."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    help: str
    largest: bool = False  # of several workers' numbers the largest counts, and not their sum


FAMILIES: Final = (
    Family("requests_total", "counter", "Requests answered, by method and class of status."),
    Family("first_byte_seconds", "histogram", "From a request to the first byte of its response, by kind."),
    Family("request_seconds", "histogram", "From a request to the end of its response."),
    Family("sent_bytes_total", "counter", "Bytes of response bodies."),
    Family("in_flight", "gauge", "Requests being answered."),
    Family("refused_total", "counter", "Requests refused because of a limit, by limit."),
    Family("cut_total", "counter", "Responses cut off after they had begun."),
    Family("denied_total", "counter", "Requests refused because of a denylist, by list."),
    Family("blocks_total", "counter", "Block reads, by outcome: here, fetched, coalesced or failed."),
    Family("block_fetch_seconds", "histogram", "How long blocks took that were not here."),
    Family("names_total", "counter", "Name lookups, by outcome: found, none or timeout."),
    Family("path_cache_total", "counter", "Lookups in the cache of paths, by outcome: hit or miss."),
    Family("connections", "gauge", "Open connections."),
    Family("denylist_rules", "gauge", "Rules of denylists in force.", largest=True),
    Family(
        "denylists_unreadable",
        "gauge",
        "Denylists that could not be read after a change; their old rules hold.",
        largest=True,
    ),
    Family("workers", "gauge", "Worker processes."),
)  # fmt: skip
_LARGEST: Final = frozenset(PREFIX + family.name for family in FAMILIES if family.largest)
_KINDS: Final = {PREFIX + family.name: family.kind for family in FAMILIES}


class Histogram:
    """Durations by bucket."""

    __slots__ = ("counts", "sum")

    def __init__(self) -> None:
        self.counts = [0] * (len(SECONDS_BOUNDS) + 1)
        self.sum = 0.0

    def observe(self, seconds: float) -> None:
        """Counts one duration."""
        self.counts[bisect_left(SECONDS_BOUNDS, seconds)] += 1
        self.sum += seconds


class Metrics:
    """The counts of one worker: plain numbers, incremented where things happen, in the event loop."""

    def __init__(self) -> None:
        self.requests: defaultdict[tuple[str, int], int] = defaultdict(int)  # by method and status // 100
        self.first_byte: defaultdict[str, Histogram] = defaultdict(Histogram)  # by kind
        self.request = Histogram()
        self.sent_bytes = 0
        self.in_flight = 0
        self.refused: defaultdict[str, int] = defaultdict(int)  # by limit
        self.cut = 0
        self.denied: defaultdict[str, int] = defaultdict(int)  # by list
        self.blocks_here = 0
        self.blocks_fetched = 0
        self.blocks_coalesced = 0
        self.blocks_failed = 0
        self.block_fetch = Histogram()
        self.names: defaultdict[str, int] = defaultdict(int)  # by outcome
        self.path_hits = 0
        self.path_misses = 0
        self.connections = 0
        self.denylist_rules = 0
        self.denylists_unreadable = 0

    def snapshot(self) -> Snapshot:
        """The counts now, for `merge`."""
        result: Snapshot = {}
        for (method, hundred), count in self.requests.items():
            result[series("requests_total", method=method, status=f"{hundred}xx")] = [count]
        for kind, histogram in self.first_byte.items():
            result[series("first_byte_seconds", kind=kind)] = [*histogram.counts, histogram.sum]
        result[series("request_seconds")] = [*self.request.counts, self.request.sum]
        result[series("sent_bytes_total")] = [self.sent_bytes]
        result[series("in_flight")] = [self.in_flight]
        for limit, count in self.refused.items():
            result[series("refused_total", limit=limit)] = [count]
        result[series("cut_total")] = [self.cut]
        for name, count in self.denied.items():
            result[series("denied_total", list=name)] = [count]
        for outcome in ("here", "fetched", "coalesced", "failed"):
            result[series("blocks_total", outcome=outcome)] = [getattr(self, f"blocks_{outcome}")]
        result[series("block_fetch_seconds")] = [*self.block_fetch.counts, self.block_fetch.sum]
        for outcome, count in self.names.items():
            result[series("names_total", outcome=outcome)] = [count]
        result[series("path_cache_total", outcome="hit")] = [self.path_hits]
        result[series("path_cache_total", outcome="miss")] = [self.path_misses]
        result[series("connections")] = [self.connections]
        result[series("denylist_rules")] = [self.denylist_rules]
        result[series("denylists_unreadable")] = [self.denylists_unreadable]
        result[series("workers")] = [1]
        return result


def series(family: str, **labels: str) -> str:
    """`holdfast_gateway_family{label="value"}`."""
    inner = ",".join(f'{name}="{_escape(value)}"' for name, value in labels.items())
    return f"{PREFIX}{family}{{{inner}}}" if inner else PREFIX + family


def _escape(value: str) -> str:
    """A label's value (text format: backslash, quote and line feed are escaped)."""
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def merge(snapshots: Iterable[Snapshot]) -> Snapshot:
    """The sums over workers."""
    result: Snapshot = {}
    for snapshot in snapshots:
        for key, numbers in snapshot.items():
            known = result.get(key, [0.0] * len(numbers))
            both = zip(known, numbers, strict=True)
            result[key] = [max(pair) for pair in both] if key in _LARGEST else [a + b for a, b in both]
    return result


def retired(snapshot: Snapshot) -> Snapshot:
    """What stays of the last snapshot of a worker that ended: counts, so that they never fall; no gauges."""
    return {key: numbers for key, numbers in snapshot.items() if _KINDS[key.partition("{")[0]] != "gauge"}


def exposition(snapshot: Snapshot) -> bytes:
    """The snapshot in Prometheus' text format 0.0.4."""
    by_name: defaultdict[str, list[tuple[str, Sequence[float]]]] = defaultdict(list)
    for key, numbers in snapshot.items():
        name, _, labels = key.partition("{")
        by_name[name].append((labels.rstrip("}"), numbers))
    lines = []
    for family in FAMILIES:
        name = PREFIX + family.name
        found = by_name.get(name)
        if not found:
            continue
        lines += [f"# HELP {name} {family.help}", f"# TYPE {name} {family.kind}"]
        for labels, values in sorted(found):
            if family.kind == "histogram":
                lines += _histogram(name, labels, values)
            else:
                lines.append(_sample(name, labels, values[0]))
    return ("\n".join(lines) + "\n").encode()


def _histogram(name: str, labels: str, numbers: Sequence[float]) -> list[str]:
    *counts, total = numbers
    lines, below = [], 0.0
    for bound, count in zip((*map(_number, SECONDS_BOUNDS), "+Inf"), counts, strict=True):
        below += count
        lines.append(_sample(f"{name}_bucket", f'{labels},le="{bound}"'.lstrip(","), below))
    return [*lines, _sample(f"{name}_sum", labels, total), _sample(f"{name}_count", labels, below)]


def _sample(name: str, labels: str, value: float) -> str:
    return f"{name}{{{labels}}} {_number(value)}" if labels else f"{name} {_number(value)}"


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) else repr(float(value))


def is_snapshot(value: object) -> bool:
    """Whether something that came over a pipe has the form of a snapshot of this version."""
    return isinstance(value, Mapping) and all(
        isinstance(key, str)
        and key.partition("{")[0] in _KINDS
        and isinstance(numbers, list)
        and len(numbers) == (len(SECONDS_BOUNDS) + 2 if _KINDS[key.partition("{")[0]] == "histogram" else 1)
        for key, numbers in value.items()
    )
