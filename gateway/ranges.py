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

    Ignored: another unit, wrong syntax, or ranges that together exceed the content (a repeated range is
    an attack, not a need). Raises RangeNotSatisfiable if no range overlaps the content or there are more
    than `max_ranges`.
    """
    unit, equals, text = header.partition("=")
    if not equals or unit.strip().lower() != "bytes":
        return []
    if text.count(",") >= max_ranges:
        raise RangeNotSatisfiable(f"more than {max_ranges} byte ranges in one request", size_bytes)
    spans: list[Span] = []
    for item in text.split(","):
        span = _parse_one(item.strip(), size_bytes)
        if span is None:
            return []
        if span.length > 0:
            spans.append(span)
    if not spans:
        raise RangeNotSatisfiable(f"no requested range lies within the {size_bytes} bytes", size_bytes)
    if len(spans) > 1 and sum(span.length for span in spans) > size_bytes:
        return []
    return spans


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
