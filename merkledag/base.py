"""Multibase text: own fast paths for the usual bases, `multiformats` for the rest (multibase spec)."""

from __future__ import annotations

from merkledag.errors import InvalidCID

_BASE32 = "abcdefghijklmnopqrstuvwxyz234567"
_BASE36 = "0123456789abcdefghijklmnopqrstuvwxyz"
_BASE58 = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"

_PAIRS32 = tuple(a + b for a in _BASE32 for b in _BASE32)
_PAIRS58 = tuple(a + b for a in _BASE58 for b in _BASE58)
_VALUES58 = {char: value for value, char in enumerate(_BASE58)}


def _table(alphabet: str) -> bytes:
    """Translation to the digits that `int` knows; every foreign byte becomes one that `int` refuses."""
    table = bytearray(b"!" * 256)
    for value, char in enumerate(alphabet):
        table[ord(char)] = table[ord(char.upper())] = ord(_BASE36[value])
    return bytes(table)


_DIGITS32 = _table(_BASE32)
_DIGITS36 = _table(_BASE36)


def encode_base32(raw: bytes) -> str:
    """Multibase `b`: base32 in lower case without padding (RFC 4648)."""
    chars = (len(raw) * 8 + 4) // 5
    pairs = (chars + 1) // 2
    value = int.from_bytes(raw, "big") << (pairs * 10 - len(raw) * 8)
    text = "".join([_PAIRS32[value >> shift & 1023] for shift in range(pairs * 10 - 10, -1, -10)])
    return "b" + text[:chars]


def encode_base58(raw: bytes) -> str:
    """base58btc without a multibase prefix."""
    body = raw.lstrip(b"\0")
    value = int.from_bytes(body, "big")
    pairs: list[str] = []
    while value:
        value, digit = divmod(value, 3364)
        pairs.append(_PAIRS58[digit])
    pairs.reverse()
    return "1" * (len(raw) - len(body)) + "".join(pairs).lstrip("1")


def encode_base36(raw: bytes) -> str:
    """Multibase `k`: base36 in lower case."""
    body = raw.lstrip(b"\0")
    value = int.from_bytes(body, "big")
    digits: list[str] = []
    while value:
        value, digit = divmod(value, 36)
        digits.append(_BASE36[digit])
    digits.reverse()
    return "k" + "0" * (len(raw) - len(body)) + "".join(digits)


def encode(raw: bytes, base_name: str) -> str:
    """`raw` in the named multibase, with its prefix; ValueError for an unknown name."""
    if base_name == "base32":
        return encode_base32(raw)
    if base_name == "base58btc":
        return "z" + encode_base58(raw)
    if base_name == "base36":
        return encode_base36(raw)
    if base_name == "base16":
        return "f" + raw.hex()
    try:
        return _encode_rare(raw, base_name)
    except KeyError as error:
        raise ValueError(f"unknown multibase {base_name!r}") from error


def _encode_rare(raw: bytes, base_name: str) -> str:
    from multiformats import multibase  # 200 ms to import, seldom needed

    text = str(multibase.encode(raw, base_name))
    return text if "pad" in base_name else text.rstrip("=")  # the library pads base8


def decode_base58(text: str) -> bytes:
    """Bytes of base58btc text without a multibase prefix; raises InvalidCID."""
    value = 0
    try:
        for char in text:
            value = value * 58 + _VALUES58[char]
    except KeyError:
        raise InvalidCID("not base58btc") from None
    zeros = len(text) - len(text.lstrip("1"))
    return bytes(zeros) + value.to_bytes((value.bit_length() + 7) // 8, "big")


def _decode_base32(text: str) -> bytes:
    digits = text.encode("ascii").translate(_DIGITS32)
    size = len(text) * 5 // 8
    unused = len(text) * 5 - size * 8
    value = int(digits, 32)
    if unused >= 5 or value & ((1 << unused) - 1):
        raise ValueError("cut off")
    return (value >> unused).to_bytes(size, "big")


def _decode_base36(text: str) -> bytes:
    digits = text.encode("ascii").translate(_DIGITS36)
    value = int(digits, 36)
    zeros = len(text) - len(text.lstrip("0"))
    return bytes(zeros) + value.to_bytes((value.bit_length() + 7) // 8, "big")


def _decode_base16(text: str) -> bytes:
    if not text.isalnum():  # fromhex skips blanks
        raise ValueError("not hexadecimal")
    return bytes.fromhex(text)


_NAMES = {"b": "base32", "k": "base36", "f": "base16"}
_DECODERS = {
    "b": _decode_base32,
    "B": _decode_base32,
    "z": decode_base58,
    "k": _decode_base36,
    "K": _decode_base36,
    "f": _decode_base16,
    "F": _decode_base16,
}


def decode(text: str) -> bytes:
    """Bytes of multibase text with its prefix; letter case does not matter where a base has one case.

    Raises InvalidCID. The caller bounds the length of `text`.
    """
    decoder = _DECODERS.get(text[:1])
    try:
        if decoder is not None:
            return decoder(text[1:])
        return _decode_rare(text)
    except InvalidCID:
        raise
    except ValueError as error:
        raise InvalidCID(f"not {_NAMES[text[0].lower()]}: cut off, or with a wrong character") from error


def _decode_rare(text: str) -> bytes:
    from multiformats import multibase  # 200 ms to import, seldom needed

    try:
        base, raw = multibase.decode_raw(text)
        whole = _encode_rare(raw, base.name)
    except (KeyError, ValueError, IndexError) as error:
        raise InvalidCID("not multibase text") from error
    if len(whole) != len(text):  # the library takes padding as it comes: missing, too much, in a base without
        raise InvalidCID(f"too long or too short for {base.name}")
    return bytes(raw)
