"""DAG-JSON: nodes of the data model as JSON (IPLD dag-json specification).

A CID is {"/": "TEXT"}, bytes are {"/": {"bytes": "BASE64 without padding"}}; a map may hold the key "/" in no
other way. Maps are written with sorted keys and no spaces.
"""

from __future__ import annotations

import json
import re
from base64 import b64decode, b64encode
from typing import Any, Final

from merkledag.cid import CID
from merkledag.errors import DecodeError, InvalidCID

MAX_DEPTH: Final = 256
_BRACKETS = re.compile(rb'"(?:[^"\\]|\\.)*"?|[\[\]{}]', re.DOTALL)


def encode(value: Any, *, indent: int | None = None) -> str:
    """`value` (what DAG-CBOR holds) as DAG-JSON.

    `indent` spreads it over lines for people. ValueError otherwise.
    """
    separators = (",", ":") if indent is None else (",", ": ")
    return json.dumps(
        _outward(value, 0),
        ensure_ascii=False,
        allow_nan=False,
        sort_keys=True,
        separators=separators,
        indent=indent,
    )


def _outward(value: Any, depth: int) -> Any:
    if depth > MAX_DEPTH:
        raise ValueError(f"nested deeper than {MAX_DEPTH}")
    if isinstance(value, CID):
        return {"/": str(value)}
    if isinstance(value, bytes | memoryview):
        return {"/": {"bytes": b64encode(value).decode().rstrip("=")}}
    if isinstance(value, dict):
        if "/" in value:
            raise ValueError('a map with the key "/" has no DAG-JSON form')
        return {key: _outward(item, depth + 1) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_outward(item, depth + 1) for item in value]
    return value


def decode(data: bytes) -> Any:
    """The value of a DAG-JSON text.

    Raises DecodeError, also for repeated keys, NaN and integers over 64 bits.
    """
    try:
        _check_nesting(data)
        value = json.loads(data.decode(), object_pairs_hook=_map, parse_constant=_refuse, parse_int=_integer)
        return _bounded(value)
    except ValueError as error:
        raise DecodeError(f"not DAG-JSON: {error}") from None
    except RecursionError:
        raise DecodeError(f"not DAG-JSON: nested deeper than {MAX_DEPTH}") from None


def links(data: bytes | bytearray | memoryview) -> list[CID]:
    """The CIDs that a block links to, in order, with repetitions; raises DecodeError."""
    found: list[CID] = []
    stack = [decode(bytes(data))]
    while stack:
        value = stack.pop()
        if isinstance(value, CID):
            found.append(value)
        elif isinstance(value, dict):
            stack.extend(reversed(list(value.values())))
        elif isinstance(value, list):
            stack.extend(reversed(value))
    return found


def _refuse(text: str) -> Any:
    raise ValueError(f"{text} has no place in DAG-JSON")


def _integer(text: str) -> int:
    number = int(text) if len(text) <= 20 else 1 << 64
    if not -(1 << 64) <= number < 1 << 64:
        raise ValueError("an integer has 64 bits")
    return number


def _map(pairs: list[tuple[str, Any]]) -> Any:
    mapping = dict(pairs)
    if len(mapping) != len(pairs):
        raise ValueError("a key is repeated")
    if "/" not in mapping:
        return mapping
    inner = mapping["/"]
    if len(mapping) == 1 and isinstance(inner, str):
        try:
            return CID.parse(inner)
        except InvalidCID as error:
            raise ValueError(str(error)) from None
    if len(mapping) == 1 and isinstance(inner, dict) and set(inner) == {"bytes"}:
        text = inner["bytes"]
        if isinstance(text, str) and "=" not in text:
            return b64decode(text + "=" * (-len(text) % 4), validate=True)
    raise ValueError('the key "/" stands for CIDs and bytes only')


def _check_nesting(data: bytes) -> None:
    """Refuses deep nesting before the parser, which recurses, sees it. Brackets in strings do not count."""
    if data.count(b"[") + data.count(b"{") <= MAX_DEPTH:
        return
    depth = 0
    for match in _BRACKETS.finditer(data):
        token = match[0]
        if token in b"[{":
            depth += 1
            if depth > MAX_DEPTH:
                raise ValueError(f"nested deeper than {MAX_DEPTH}")
        elif token in b"]}":
            depth -= 1


def _bounded(value: Any) -> Any:
    level = [value]
    for _ in range(MAX_DEPTH + 1):
        if not level:
            return value
        level = [
            child
            for item in level
            if isinstance(item, dict | list)
            for child in (item.values() if isinstance(item, dict) else item)
        ]
    raise ValueError(f"nested deeper than {MAX_DEPTH}")
