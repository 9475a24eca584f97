"""The header of a denylist (IPIP-0383): its version, name and hints, in the YAML that such headers use."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

MAX_HEADER_BYTES: Final = 1024 * 1024  # specification, "Header"
_VERSION: Final = "1"
_END: Final = b"---"


class InvalidHeaderError(ValueError):
    """The header cannot be read, or is of a version that is not known."""


@dataclass(frozen=True, slots=True)
class Header:
    """What a list says of itself; `hints` hold for each of its rules."""

    name: str
    hints: Mapping[str, str] = field(default_factory=dict)


def split_header(data: bytes) -> tuple[bytes, int]:
    """The header's text, and where the rules begin; b"" and 0 where there is no header within 1 MiB."""
    at = 0
    while at < min(len(data), MAX_HEADER_BYTES):
        end = data.find(b"\n", at, MAX_HEADER_BYTES)
        stop = len(data) if end < 0 else end
        if data[at : min(stop, at + 8)].rstrip() == _END:
            return data[:at], stop + 1
        if end < 0:
            break
        at = end + 1
    return b"", 0


def read_header(text: bytes, file_name: str) -> Header:
    """Reads scalars and one level of maps; fields that are not known are passed over.

    Raises InvalidHeaderError.
    """
    scalars: dict[str, str] = {}
    hints: dict[str, str] = {}
    field_name = ""
    try:
        lines = text.decode("utf-8").splitlines()
    except UnicodeDecodeError:
        raise InvalidHeaderError("the header is not UTF-8") from None
    for line in lines:
        content = _without_comment(line)
        if not content.strip():
            continue
        if content[0] not in " \t":
            field_name, value = _field(content)
            scalars[field_name] = _scalar(value)
            if field_name == "hints":
                hints.update(_flow_map(value))
        elif field_name == "hints":
            key, value = _field(content.strip())
            hints[key] = _scalar(value)
    version = scalars.get("version", _VERSION)
    if version != _VERSION:
        raise InvalidHeaderError(f"version {version[:32]!r} of the format is not supported; only 1 is")
    return Header(scalars.get("name") or file_name, hints)


def read_hints(fields: Iterable[str]) -> dict[str, str]:
    """`key:value` pairs behind a rule (older lists write `key=value`); what is neither is passed over."""
    hints = {}
    for text in fields:
        colon, equals = text.find(":"), text.find("=")
        at = min((place for place in (colon, equals) if place > 0), default=0)
        if at:
            hints[text[:at]] = text[at + 1 :]
    return hints


def _field(line: str) -> tuple[str, str]:
    key, colon, value = line.partition(":")
    if not colon or (value and value[0] not in " \t"):
        raise InvalidHeaderError(f"the header has a line that is no field: {line[:80]!r}")
    return _scalar(key), value.strip()


def _scalar(text: str) -> str:
    text = text.strip()
    if len(text) >= 2 and text[0] == text[-1] and text[0] in "\"'":
        return text[1:-1]
    if text[:1] in ("'", '"'):
        raise InvalidHeaderError(f"the header has a quotation without its end: {text[:80]!r}")
    return text


def _flow_map(text: str) -> dict[str, str]:
    """`{a: b, c: d}`"""
    if not text:
        return {}
    if not (text.startswith("{") and text.endswith("}")):
        raise InvalidHeaderError(f"hints are fields of their own, not {text[:80]!r}")
    inner = text[1:-1].strip()
    if not inner:
        return {}
    pairs = (_field(part.strip()) for part in inner.split(","))
    return {key: _scalar(value) for key, value in pairs}


def _without_comment(line: str) -> str:
    """YAML: `#` begins a comment at the start of a line or after a blank, outside quotation marks."""
    quoted = ""
    for at, char in enumerate(line):
        if quoted:
            quoted = "" if char == quoted else quoted
        elif char in "\"'" and not line[:at].strip(" \t").rpartition(":")[2].strip():
            quoted = char
        elif char == "#" and (at == 0 or line[at - 1] in " \t"):
            return line[:at]
    return line
