"""Changing valid encodings by the dice: bytes, and values of the IPLD data model."""

from __future__ import annotations

import random
from typing import Any

from merkledag.cid import CID

INTERESTING = (0x00, 0x01, 0x0A, 0x12, 0x18, 0x7F, 0x80, 0x81, 0xA0, 0xC2, 0xD8, 0xF6, 0xF7, 0xFB, 0xFF)
NUMBERS = (0, 1, 23, 24, 127, 128, 255, 256, 2**16, 2**31, 2**32 - 1, 2**53, 2**63 - 1, 2**63, 2**64 - 1)
MAX_LENGTH = 4096  # of what mutation makes longer


def mutate(dice: random.Random, data: bytes, times: int | None = None) -> bytes:
    """A few changes: bits, bytes, and ranges that vanish, repeat, move, or give way to odd numbers."""
    out = bytearray(data)
    for _ in range(times or dice.choice((1, 1, 1, 2, 3, 8))):
        _change(dice, out)
    return bytes(out[:MAX_LENGTH] if len(data) < MAX_LENGTH else out)


def _change(dice: random.Random, out: bytearray) -> None:
    at = dice.randrange(len(out) + 1)
    span = min(dice.choice((1, 1, 2, 4, 8, dice.randint(1, 40))), len(out) - at)
    kind = dice.randrange(9)
    if kind == 0 and out:
        out[at % len(out)] ^= 1 << dice.randrange(8)
    elif kind == 1 and out:
        out[at % len(out)] = dice.choice(INTERESTING)
    elif kind == 2 and out:
        out[at % len(out)] = (out[at % len(out)] + dice.choice((-1, 1))) & 0xFF
    elif kind == 3:
        del out[at : at + span]
    elif kind == 4:
        out[at:at] = out[at : at + span]
    elif kind == 5:
        del out[at:]
    elif kind == 6:
        out[at:at] = dice.randbytes(dice.choice((1, 1, 2, 8)))
    elif kind == 7:
        out[at:at] = varint(dice.choice(NUMBERS), padded=dice.random() < 0.3)
    else:
        there = dice.randrange(len(out) + 1)
        piece = out[at : at + span]
        del out[at : at + span]
        out[there:there] = piece


def varint(number: int, *, padded: bool = False) -> bytes:
    """Any number as a varint; padded, by a byte that adds nothing."""
    out = bytearray()
    while number >= 0x80:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number | 0x80 if padded else number)
    return bytes(out) + b"\0" * padded


def random_value(dice: random.Random, depth: int = 3) -> Any:
    """A value that DAG-CBOR and DAG-JSON can hold."""
    kind = dice.randrange(11 if depth else 8)
    if kind == 0:
        return dice.choice((None, True, False))
    if kind in (1, 2):
        number = dice.choice((*NUMBERS, dice.randrange(2**64)))
        return -1 - number if dice.random() < 0.3 else number
    if kind == 3:
        return dice.choice((0.0, -0.0, 1.5, 1e300, -5e-324, dice.uniform(-1e9, 1e9)))
    if kind in (4, 5):
        return random_text(dice)
    if kind == 6:
        return dice.randbytes(dice.choice((0, 1, 23, 24, 300)))
    if kind == 7:
        return random_cid(dice)
    if kind == 8:
        return [random_value(dice, depth - 1) for _ in range(dice.choice((0, 1, 3, 25)))]
    return {random_text(dice): random_value(dice, depth - 1) for _ in range(dice.choice((0, 1, 2, 3, 8)))}


def random_text(dice: random.Random) -> str:
    """Text of all widths of UTF-8, with what JSON and paths treat in a special way."""
    alphabet = 'ab/"\\\n\0é€𝄞\x7f .%'
    if dice.random() < 0.1:
        return dice.choice(("/", "bytes", "Links", "Data", ""))
    return "".join(dice.choices(alphabet, k=dice.choice((0, 1, 1, 2, 5, 30))))


def random_cid(dice: random.Random) -> CID:
    """A CID of usual and unusual parts."""
    draw = dice.random()
    if draw < 0.2:
        return CID(0, 0x70, b"\x12\x20" + dice.randbytes(32))
    if draw < 0.8:
        return CID(1, dice.choice((0x55, 0x70, 0x71, 0x0129)), b"\x12\x20" + dice.randbytes(32))
    size = dice.choice((0, 1, 20, 64, 127, 128))
    code = dice.choice((0x00, 0x11, 0x13, 0xB220, 2**40))
    return CID(1, dice.choice((0x51, 0x72, 2**62)), varint(code) + varint(size) + dice.randbytes(size))


def mutate_value(dice: random.Random, value: Any) -> Any:
    """The value with one place in it changed: another type, number, length, key or order."""
    if isinstance(value, dict) and value and dice.random() < 0.8:
        key = dice.choice(list(value))
        draw = dice.random()
        if draw < 0.7:
            return {**value, key: mutate_value(dice, value[key])}
        if draw < 0.85:
            return {name: item for name, item in value.items() if name != key}
        return {**value, random_text(dice) or "x": value[key]}
    if isinstance(value, list) and value and dice.random() < 0.8:
        at = dice.randrange(len(value))
        draw = dice.random()
        if draw < 0.6:
            return [*value[:at], mutate_value(dice, value[at]), *value[at + 1 :]]
        if draw < 0.8:
            return value[:at] + value[at + 1 :]
        return [*value[:at], value[at], *value[at:]]
    if type(value) is int and dice.random() < 0.8:
        number = dice.choice((value + 1, value - 1, -value, dice.choice(NUMBERS), value ^ 1))
        return max(-(2**64), min(number, 2**64 - 1))
    if isinstance(value, bytes) and value and dice.random() < 0.8:
        return mutate(dice, value, 1)
    return random_value(dice, 1)
