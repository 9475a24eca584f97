"""Strict decoders as simple as they can be written, from the specifications: they share no code with ours."""

from __future__ import annotations

import math
import struct
from typing import Any

from tests.fuzz.target import Refused

BASE32 = "abcdefghijklmnopqrstuvwxyz234567"
BASE58 = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
BASE64 = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
HEX32 = "0123456789abcdefghijklmnopqrstuv"
FLICKR = "123456789abcdefghijkmnopqrstuvwxyzABCDEFGHJKLMNPQRSTUVWXYZ"
Z32 = "ybndrfg8ejkmcpqxot1uwisza345h769"
URL64 = BASE64.replace("+", "-").replace("/", "_")

# Prefix: alphabet, bits a character (0 for bases that are numbers), whether padded, whether case matters.
BASES: dict[str, tuple[str, int, bool, bool]] = {
    "0": ("01", 1, False, True),
    "7": ("01234567", 3, False, True),
    "9": ("0123456789", 0, False, True),
    "f": ("0123456789abcdef", 4, False, False),
    "v": (HEX32, 5, False, False),
    "t": (HEX32, 5, True, False),
    "b": (BASE32, 5, False, False),
    "c": (BASE32, 5, True, False),
    "h": (Z32, 5, False, True),
    "k": (HEX32 + "wxyz", 0, False, False),
    "z": (BASE58, 0, False, True),
    "Z": (FLICKR, 0, False, True),
    "m": (BASE64, 6, False, True),
    "M": (BASE64, 6, True, True),
    "u": (URL64, 6, False, True),
    "U": (URL64, 6, True, True),
}
UPPER = {"F": "f", "V": "v", "T": "t", "B": "b", "C": "c", "K": "k"}


def varint(data: bytes, at: int = 0) -> tuple[int, int]:
    """Value and end of an unsigned varint of multiformats."""
    for size in range(1, 10):
        piece = data[at : at + size]
        if len(piece) < size:
            raise Refused("cut off")
        if piece[-1] < 0x80:
            if size > 1 and piece[-1] == 0:
                raise Refused("not minimal")
            return sum((byte & 0x7F) << (7 * place) for place, byte in enumerate(piece)), at + size
    raise Refused("more than nine bytes")


def multihash(data: bytes, at: int = 0) -> tuple[int, bytes, int]:
    """Hash function, digest and end."""
    code, at = varint(data, at)
    size, at = varint(data, at)
    if size > 128 or at + size > len(data):
        raise Refused("digest too long or cut off")
    return code, data[at : at + size], at + size


def cid(data: bytes) -> tuple[int, int, bytes]:
    """Version, codec and multihash of a binary CID."""
    if data[:2] == b"\x12\x20":
        if len(data) != 34:
            raise Refused("no CIDv0")
        return 0, 0x70, data
    version, at = varint(data)
    codec, at = varint(data, at)
    _, _, end = multihash(data, at)
    if version != 1 or end != len(data):
        raise Refused("another version, or bytes after it")
    return 1, codec, data[at:]


def multibase(text: str) -> bytes:
    """The bytes of multibase text."""
    prefix, body = text[:1], text[1:]
    if prefix in UPPER:
        prefix = UPPER[prefix]
    if prefix not in BASES:
        raise Refused("unknown base")
    alphabet, bits, padded, cased = BASES[prefix]
    if not cased:
        if not body.isascii():
            raise Refused("not in the alphabet")
        body = body.lower()
    return as_number(body, alphabet) if bits == 0 else as_bits(body, alphabet, bits, padded=padded)


def as_number(body: str, alphabet: str) -> bytes:
    """Big-endian digits; leading zeros stand for zero bytes."""
    number = 0
    for char in body:
        if char not in alphabet:
            raise Refused("not in the alphabet")
        number = number * len(alphabet) + alphabet.index(char)
    zeros = len(body) - len(body.lstrip(alphabet[0]))
    return bytes(zeros) + number.to_bytes(math.ceil(number.bit_length() / 8), "big")


def as_bits(body: str, alphabet: str, bits: int, *, padded: bool) -> bytes:
    """RFC 4648: groups of bits, none of them left over but zeros that fill up the last character."""
    if padded:
        group = 8 if bits == 5 else 4
        if len(body) % group:
            raise Refused("padding missing")
        stripped = body.rstrip("=")
        if len(body) - len(stripped) >= group:
            raise Refused("a group of padding alone")
        body = stripped
    if any(char not in alphabet for char in body):
        raise Refused("not in the alphabet")
    stream = "".join(f"{alphabet.index(char):0{bits}b}" for char in body)
    whole = len(stream) // 8 * 8
    if len(stream) - whole >= bits or "1" in stream[whole:]:
        raise Refused("bits left over")
    return bytes(int(stream[at : at + 8], 2) for at in range(0, whole, 8))


class Cid(tuple[int, int, bytes]):
    """A link inside a value: the three parts of its CID."""

    __slots__ = ()


class Cbor:
    """One pass over DAG-CBOR. Every rule of the specification is a line that refuses."""

    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    def take(self, size: int) -> bytes:
        piece = self.data[self.at : self.at + size]
        if len(piece) < size:
            raise Refused("cut off")
        self.at += size
        return piece

    def head(self) -> tuple[int, int, int]:
        first = self.take(1)[0]
        major, short = first >> 5, first & 31
        if short < 24 or major == 7:
            return major, short, short
        if short > 27:
            raise Refused("indefinite or reserved length")
        size = 1 << (short - 24)
        number = int.from_bytes(self.take(size), "big")
        if number < (24, 2**8, 2**16, 2**32)[short - 24]:
            raise Refused("not the shortest number")
        return major, short, number

    def value(self, depth: int = 0) -> Any:
        major, short, number = self.head()
        if major == 0:
            return number
        if major == 1:
            return -1 - number
        if major == 2:
            return self.take(number)
        if major == 3:
            return self.text(number)
        if major in (4, 5):
            if depth >= 256:
                raise Refused("too deep")
            return self.items(number, depth) if major == 4 else self.map(number, depth)
        if major == 6:
            return self.link(number)
        return self.simple(short)

    def text(self, size: int) -> str:
        try:
            return self.take(size).decode()
        except UnicodeDecodeError:
            raise Refused("not UTF-8") from None

    def items(self, count: int, depth: int) -> list[Any]:
        if count > len(self.data):
            raise Refused("cut off")
        return [self.value(depth + 1) for _ in range(count)]

    def map(self, count: int, depth: int) -> dict[str, Any]:
        if count > len(self.data):
            raise Refused("cut off")
        found: dict[str, Any] = {}
        last: tuple[int, bytes] | None = None
        for _ in range(count):
            major, _, size = self.head()
            if major != 3:
                raise Refused("a key is no text")
            key = self.text(size)
            order = (len(key.encode()), key.encode())
            if last is not None and order <= last:
                raise Refused("keys out of order or repeated")
            last = order
            found[key] = self.value(depth + 1)
        return found

    def link(self, tag: int) -> Cid:
        if tag != 42:
            raise Refused("a tag but 42")
        major, _, size = self.head()
        if major != 2:
            raise Refused("a link is bytes")
        raw = self.take(size)
        if raw[:1] != b"\0":
            raise Refused("a link begins with 0")
        return Cid(cid(raw[1:]))

    def simple(self, short: int) -> Any:
        if short == 27:
            (number,) = struct.unpack(">d", self.take(8))
            if not math.isfinite(number):
                raise Refused("no finite number")
            return number
        if short not in (20, 21, 22):
            raise Refused("another simple value or float")
        return {20: False, 21: True, 22: None}[short]


def dag_cbor(data: bytes) -> Any:
    """The value of strict DAG-CBOR."""
    reader = Cbor(data)
    value = reader.value()
    if reader.at != len(data):
        raise Refused("bytes after the value")
    return value
