"""An oracle of DAG-JSON: a recursive reader of RFC 8259, and what maps that begin with "/" mean."""

from __future__ import annotations

import math
import re
from typing import Any

from tests.fuzz import oracles
from tests.fuzz.target import Refused

NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(\.[0-9]+)?([eE][-+]?[0-9]+)?")
ESCAPES = {'"': '"', "\\": "\\", "/": "/", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t"}
MAX_DEPTH = 256


class Json:
    """One pass over the text."""

    def __init__(self, text: str) -> None:
        self.text, self.at = text, 0

    def space(self) -> None:
        while self.text[self.at : self.at + 1] in (" ", "\t", "\n", "\r"):
            self.at += 1

    def expect(self, char: str) -> None:
        if not self.text.startswith(char, self.at):
            raise Refused(f"{char} is missing")
        self.at += len(char)

    def value(self, depth: int = 0) -> Any:
        self.space()
        char = self.text[self.at : self.at + 1]
        if char in ("{", "["):
            if depth >= MAX_DEPTH:
                raise Refused("too deep")
            found = self.map(depth) if char == "{" else self.items(depth)
        elif char == '"':
            found = self.string()
        elif (match := NUMBER.match(self.text, self.at)) is not None:
            self.at = match.end()
            found = number(match)
        else:
            word = next(
                (word for word in ("null", "true", "false") if self.text.startswith(word, self.at)), None
            )
            if word is None:
                raise Refused("no value")
            self.expect(word)
            found = {"null": None, "true": True, "false": False}[word]
        self.space()
        return found

    def items(self, depth: int) -> list[Any]:
        self.expect("[")
        self.space()
        found: list[Any] = []
        while not self.text.startswith("]", self.at):
            if found:
                self.expect(",")
            found.append(self.value(depth + 1))
        self.expect("]")
        return found

    def map(self, depth: int) -> Any:
        self.expect("{")
        self.space()
        found: dict[str, Any] = {}
        raw_slash: Any = None
        while not self.text.startswith("}", self.at):
            if found:
                self.expect(",")
                self.space()
            key = self.string()
            self.space()
            self.expect(":")
            if key in found:
                raise Refused("a key comes twice")
            if not found and key == "/":
                raw_slash = self.peek()
            found[key] = self.value(depth + 1)
        self.expect("}")
        return special(found, raw_slash) if next(iter(found), None) == "/" else found

    def peek(self) -> str:
        """The first character of the value that follows."""
        at = self.at
        self.space()
        char, self.at = self.text[self.at : self.at + 1], at
        return char

    def string(self) -> str:
        self.expect('"')
        units: list[int] = []  # UTF-16, so that escaped halves join
        while not self.text.startswith('"', self.at):
            char = self.text[self.at : self.at + 1]
            if char < " ":
                raise Refused("the text ends, or holds a control character")
            self.at += 1
            if char != "\\":
                pair = char.encode("utf-16-be")
                units += [int.from_bytes(pair[at : at + 2], "big") for at in range(0, len(pair), 2)]
            else:
                units.append(self.escape())
        self.at += 1
        raw = b"".join(unit.to_bytes(2, "big") for unit in units)
        try:
            return raw.decode("utf-16-be")
        except UnicodeDecodeError:
            raise Refused("half a character") from None

    def escape(self) -> int:
        char = self.text[self.at : self.at + 1]
        self.at += 1
        if char in ESCAPES:
            return ord(ESCAPES[char])
        digits = self.text[self.at : self.at + 4]
        if char != "u" or re.fullmatch("[0-9a-fA-F]{4}", digits) is None:
            raise Refused("an escape that does not exist")
        self.at += 4
        return int(digits, 16)


def number(match: re.Match[str]) -> int | float:
    """An integer of 64 bits and a sign, or a finite float."""
    if match[1] is None and match[2] is None:
        whole = int(match[0]) if len(match[0]) < 30 else 2**65
        if not -(2**64) <= whole < 2**64:
            raise Refused("over 64 bits")
        return whole
    found = float(match[0])
    if not math.isfinite(found):
        raise Refused("too large")
    return found


def special(found: dict[str, Any], first_char: str) -> Any:
    """What a map that begins with "/" stands for."""
    inner = found["/"]
    if first_char == '"':
        if len(found) > 1:
            raise Refused("something beside a CID")
        return oracles.Cid(cid_text(inner))
    is_map = first_char == "{" and isinstance(inner, dict)
    if is_map and next(iter(inner), None) == "bytes" and isinstance(inner["bytes"], str):
        if len(found) > 1 or len(inner) > 1:
            raise Refused("something beside bytes")
        return base64(inner["bytes"])
    return found


def base64(text: str) -> bytes:
    """Without padding; bits left over in the last character are not looked at, as in Go."""
    if any(char not in oracles.BASE64 for char in text) or len(text) % 4 == 1:
        raise Refused("no base64")
    stream = "".join(f"{oracles.BASE64.index(char):06b}" for char in text)
    return bytes(int(stream[at : at + 8], 2) for at in range(0, len(stream) // 8 * 8, 8))


def cid_text(text: str) -> tuple[int, int, bytes]:
    """The CID of a link."""
    from tests.fuzz.identifiers import oracle_cid_text

    return oracle_cid_text(text.encode())


def dag_json(data: bytes) -> Any:
    """The value of a DAG-JSON text."""
    try:
        reader = Json(data.decode())
    except UnicodeDecodeError:
        raise Refused("not UTF-8") from None
    value = reader.value()
    if reader.at != len(reader.text):
        raise Refused("text after the value")
    return value
