"""DAG-JSON: nodes of the data model as JSON (IPLD dag-json specification).

A CID is {"/": "TEXT"}, bytes are {"/": {"bytes": "BASE64 without padding"}}. What begins like one of these
and is none is refused; any other map may hold the key "/". Maps are written with sorted keys and no spaces;
what is read may have any order and spaces.
"""

from __future__ import annotations

import json
import re
from base64 import b64decode, b64encode
from json.encoder import encode_basestring
from math import isfinite
from typing import Any, Final

from merkledag.cid import CID
from merkledag.errors import DecodeError, InvalidCID
from merkledag.steps import Buffer

MAX_DEPTH: Final = 256  # nested lists and maps
_EXPONENT_FROM: Final = 21  # floats from 10²¹ on, and below 10⁻⁶, are written with an exponent
_EXPONENT_BELOW: Final = -6
_MAX_INTEGER_CHARS: Final = 21  # a sign and the 20 digits of 2⁶⁴
_BRACKETS = re.compile(rb'"(?:[^"\\]|\\.)*"?|[\[\]{}]', re.DOTALL)
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")


def encode(value: Any) -> str:
    """`value` (what DAG-CBOR holds) as DAG-JSON; ValueError for what has no such form."""
    return _written(value, plain=False)


def encode_plain(value: Any) -> str:
    """`value` as plain JSON, keys in their own order; ValueError for CIDs and bytes too."""
    return _written(value, plain=True)


def _written(value: Any, *, plain: bool) -> str:
    out: list[str] = []
    _put(value, out, 0, plain)
    text = "".join(out)
    text.encode()  # UnicodeEncodeError, a ValueError, for lone surrogates
    return text


def _put(value: Any, out: list[str], depth: int, plain: bool) -> None:
    """Appends the text of `value`."""
    if isinstance(value, str):
        out.append(encode_basestring(value))
    elif value is None:
        out.append("null")
    elif isinstance(value, bool):
        out.append("true" if value else "false")
    elif isinstance(value, int):
        out.append(str(_in_range(value)))
    elif isinstance(value, float):
        out.append(_float_text(value))
    elif isinstance(value, dict):
        _put_map(value, out, depth, plain)
    elif isinstance(value, list | tuple):
        _check_depth(depth)
        for number, item in enumerate(value):
            out.append("," if number else "[")
            _put(item, out, depth + 1, plain)
        out.append("]" if value else "[]")
    elif plain:
        raise ValueError(f"plain JSON has no {'CIDs' if isinstance(value, CID) else type(value).__name__}")
    elif isinstance(value, CID):
        out.append(f'{{"/":"{value}"}}')
    elif isinstance(value, bytes | memoryview):
        out.append(f'{{"/":{{"bytes":"{b64encode(value).decode().rstrip("=")}"}}}}')
    else:
        raise ValueError(f"DAG-JSON has no {type(value).__name__}")


def _put_map(value: dict[Any, Any], out: list[str], depth: int, plain: bool) -> None:
    _check_depth(depth)
    if any(type(key) is not str for key in value):
        raise ValueError("a map key is a string")
    if not plain and _first_key(value) == "/" and _reads_as_special(value["/"]):
        raise ValueError('a map that begins with the key "/" would be read as a CID or bytes')
    # Code points sort like their UTF-8 bytes.
    for number, key in enumerate(value if plain else sorted(value)):
        out.append("," if number else "{")
        out.append(encode_basestring(key))
        out.append(":")
        _put(value[key], out, depth + 1, plain)
    out.append("}" if value else "{}")


def _check_depth(depth: int) -> None:
    if depth >= MAX_DEPTH:
        raise ValueError(f"nested deeper than {MAX_DEPTH}")


def _float_text(number: float) -> str:
    """The shortest text that reads as this float, as ECMAScript writes it, with a point in whole numbers."""
    if not isfinite(number):
        raise ValueError(f"{number} has no place in the data model")
    text = repr(number)
    if "e" not in text:
        return text
    mantissa, _, exponent = text.partition("e")
    power = int(exponent)
    if power >= _EXPONENT_FROM:
        return f"{mantissa}e+{power}"
    if power < _EXPONENT_BELOW:
        return f"{mantissa}e{power}"
    decimals = len(mantissa.partition(".")[2]) - power
    return f"{number:.{max(1, decimals)}f}"


def _first_key(value: Any) -> str | None:
    """The key that is written first, None for what is no map or an empty one."""
    return min(map(str, value), default=None) if isinstance(value, dict) else None


def _reads_as_special(inner: Any) -> bool:
    """Whether a map that begins with "/" over `inner` would be taken for a CID or bytes."""
    return isinstance(inner, str) or (_first_key(inner) == "bytes" and isinstance(inner["bytes"], str))


def decode(data: Buffer) -> Any:
    """The value of a DAG-JSON text.

    Raises DecodeError, also for repeated keys, NaN, infinities, text that is not Unicode, integers over
    64 bits, and nesting over `MAX_DEPTH`.
    """
    return _parse(data, "DAG-JSON", _map)


def decode_plain(data: Buffer) -> Any:
    """As `decode`, for plain JSON: a map with the key "/" is like any other."""
    return _parse(data, "JSON", _plain_map)


def _parse(data: Buffer, what: str, make_map: Any) -> Any:
    raw = bytes(data)
    try:
        _check_nesting(raw)
        value = json.loads(
            raw.decode(),
            object_pairs_hook=make_map,
            parse_constant=_refuse,
            parse_int=_integer,
            parse_float=_float,
        )
        if _SURROGATE.search(raw) is not None:
            "".join(_strings(value)).encode()
        return _bounded(value)
    except UnicodeError:
        raise DecodeError(f"not {what}: text in it is not Unicode") from None
    except ValueError as error:
        raise DecodeError(f"not {what}: {error}") from None
    except RecursionError:
        raise DecodeError(f"not {what}: nested deeper than {MAX_DEPTH}") from None


def links(data: Buffer) -> list[CID]:
    """The CIDs that a block links to, in order, with repetitions; raises DecodeError."""
    return [value for value in _leaves(decode(data)) if isinstance(value, CID)]


def _leaves(root: Any) -> list[Any]:
    """Everything that is neither map nor list, in order."""
    found: list[Any] = []
    stack = [root]
    while stack:
        value = stack.pop()
        if isinstance(value, dict):
            stack.extend(reversed(value.values()))
        elif isinstance(value, list):
            stack.extend(reversed(value))
        else:
            found.append(value)
    return found


def _strings(root: Any) -> list[str]:
    """Every string in a value, keys included, in any order."""
    found = [value for value in _leaves(root) if isinstance(value, str)]
    stack = [root]
    while stack:
        value = stack.pop()
        if isinstance(value, dict):
            found.extend(value)
            stack.extend(value.values())
        elif isinstance(value, list):
            stack.extend(value)
    return found


def _refuse(text: str) -> Any:
    raise ValueError(f"{text} has no place in the data model")


def _integer(text: str) -> int:
    return _in_range(int(text) if len(text) <= _MAX_INTEGER_CHARS else 1 << 64)


def _in_range(number: int) -> int:
    if not -(1 << 64) <= number < 1 << 64:
        raise ValueError("an integer has 64 bits")
    return number


def _float(text: str) -> float:
    number = float(text)
    if not isfinite(number):
        raise ValueError(f"{text[:40]} is too large for a float")
    return number


def _plain_map(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    mapping = dict(pairs)
    if len(mapping) != len(pairs):
        raise ValueError("a key is repeated")
    return mapping


def _map(pairs: list[tuple[str, Any]]) -> Any:
    """A map, or the CID or bytes that it stands for.

    Its first key decides, so that a reader of tokens need not look back.
    """
    mapping = _plain_map(pairs)
    if not pairs or pairs[0][0] != "/":
        return mapping
    inner = pairs[0][1]
    if isinstance(inner, str):
        if len(pairs) > 1:
            raise ValueError('a CID is a map with the one key "/"')
        try:
            return CID.parse(inner)
        except InvalidCID as error:
            raise ValueError(str(error)) from None
    if isinstance(inner, dict) and next(iter(inner), None) == "bytes" and isinstance(inner["bytes"], str):
        if len(pairs) > 1 or len(inner) > 1:
            raise ValueError('bytes are a map with the one key "/" over one with the one key "bytes"')
        return _from_base64(inner["bytes"])
    return mapping


def _from_base64(text: str) -> bytes:
    if "=" in text:
        raise ValueError("bytes are in base64 without padding")
    return b64decode(text + "=" * (-len(text) % 4), validate=True)


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
