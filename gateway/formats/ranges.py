"""The Range header: which bytes of a representation are asked for (RFC 9110, section 14)."""

from __future__ import annotations

from dataclasses import dataclass

from gateway.errors import RangeNotSatisfiable

_MAX_DIGITS = 19  # 2⁶³ − 1 has 19


@dataclass(frozen=True, slots=True)
class Span:
    """Bytes `start` up to, not including, `end`."""

    start: int
    end: int

    @property
    def length(self) -> int:
        return self.end - self.start

    def content_range(self, size_bytes: int) -> str:
        """The Content-Range value of this part."""
        return f"bytes {self.start}-{self.end - 1}/{size_bytes}"


def parse_range(header: str, size_bytes: int, max_ranges: int) -> list[Span]:
    """The spans asked for, in the order asked; [] where the header is to be ignored (serve it all).

    Ignored: another unit, wrong syntax, and any range of no bytes at all, as clients put `bytes=0-` on every
    request. Spans that overlap or touch are made one, so that no byte is sent twice. Raises
    RangeNotSatisfiable if no range overlaps the content or there are more than `max_ranges`.
    """
    unit, equals, text = header.partition("=")
    if not equals or unit.lower() != "bytes" or size_bytes == 0:
        return []
    if text.count(",") >= max_ranges:
        raise RangeNotSatisfiable(f"more than {max_ranges} byte ranges in one request", size_bytes)
    spans: list[Span] = []
    items = [item.strip() for item in text.split(",")]
    for item in filter(None, items):
        span = _parse_one(item, size_bytes)
        if span is None:
            return []
        spans.append(span)
    if not spans:
        return []
    overlapping = [span for span in spans if span.length > 0]
    if not overlapping:
        raise RangeNotSatisfiable(f"no requested range lies within the {size_bytes} bytes", size_bytes)
    return overlapping if len(overlapping) == 1 else _coalesce(overlapping)


def _coalesce(spans: list[Span]) -> list[Span]:
    """Joins spans that overlap or touch; each stands where the first of its spans stood."""
    joined: list[tuple[int, Span]] = []
    for place, span in sorted(enumerate(spans), key=lambda item: item[1].start):
        if joined and span.start <= joined[-1][1].end:
            first, before = joined[-1]
            joined[-1] = (min(first, place), Span(before.start, max(before.end, span.end)))
        else:
            joined.append((place, span))
    return [span for _, span in sorted(joined, key=lambda item: item[0])]


def _parse_one(text: str, size_bytes: int) -> Span | None:
    """One range; empty if outside the content, None if it is no range."""
    first, dash, last = text.partition("-")
    if not dash or not _is_number(first or "0") or not _is_number(last or "0"):
        return None
    if first:
        start = int(first)
        end = int(last) + 1 if last else size_bytes
        if last and end <= start:
            return None
        return Span(min(start, size_bytes), min(end, size_bytes))
    if not last:
        return None
    return Span(size_bytes - min(int(last), size_bytes), size_bytes)


def _is_number(text: str) -> bool:
    return len(text) <= _MAX_DIGITS and text.isascii() and text.isdigit()
