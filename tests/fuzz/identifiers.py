"""Targets: varints, multihashes, multibase text, CIDs, content paths."""

from __future__ import annotations

import random
from typing import Any
from urllib.parse import unquote_to_bytes

from merkledag import base, multihash, varint
from merkledag.cid import CID
from merkledag.errors import DecodeError, InvalidCID, InvalidPath, LimitExceeded
from merkledag.path import parse_path
from tests.fuzz import mutations, oracles
from tests.fuzz.target import Refused, Target, Unsure

BASE_NAMES = (
    "base2", "base8", "base10", "base16", "base16upper", "base32", "base32upper", "base32pad",
    "base32padupper", "base32hex", "base32hexupper", "base32hexpad", "base32hexpadupper", "base32z", "base36",
    "base36upper", "base58btc", "base58flickr", "base64", "base64pad", "base64url", "base64urlpad",
)  # fmt: skip


def make_varint(dice: random.Random) -> bytes:
    number = dice.choice((*mutations.NUMBERS, dice.randrange(2**64)))
    raw = mutations.varint(number, padded=dice.random() < 0.2)
    return raw if dice.random() < 0.4 else mutations.mutate(dice, raw)


def whole_varint(data: bytes) -> int:
    """Our decoder, over data that is one varint."""
    value, end = varint.decode(data, 0)
    if end != len(data):
        raise DecodeError("bytes after it")
    return value


def oracle_varint(data: bytes) -> int:
    value, end = oracles.varint(data)
    if end != len(data):
        raise Refused("bytes after it")
    return value


def make_multihash(dice: random.Random) -> bytes:
    raw = mutations.random_cid(dice).multihash
    return raw if dice.random() < 0.3 else mutations.mutate(dice, raw)


def oracle_multihash(data: bytes) -> tuple[int, bytes]:
    code, digest, end = oracles.multihash(data)
    if end != len(data):
        raise Refused("bytes after it")
    return code, digest


def make_cid(dice: random.Random) -> bytes:
    raw = bytes(mutations.random_cid(dice))
    return raw if dice.random() < 0.3 else mutations.mutate(dice, raw)


def parts(cid: CID) -> tuple[int, int, bytes]:
    return cid.version, cid.codec, cid.multihash


def make_multibase(dice: random.Random) -> bytes:
    raw = dice.choice((b"", b"\0", bytes(mutations.random_cid(dice)), dice.randbytes(dice.randint(0, 12))))
    return _as_text(dice, base.encode(raw, dice.choice(BASE_NAMES)))


def make_cid_text(dice: random.Random) -> bytes:
    cid = mutations.random_cid(dice)
    if cid.version == 0 and dice.random() < 0.7:
        return _as_text(dice, str(cid))
    raw = bytes(cid) if dice.random() < 0.8 else mutations.mutate(dice, bytes(cid), 1)
    return _as_text(dice, base.encode(raw, dice.choice(BASE_NAMES)))


def _as_text(dice: random.Random, text: str) -> bytes:
    draw = dice.random()
    if draw < 0.3:
        return text.encode()
    if draw < 0.45:
        return text.swapcase().encode()
    if draw < 0.8:  # another character of usual or unusual alphabets, or one more or less
        at = dice.randrange(len(text) + 1)
        return (text[:at] + dice.choice("aAbZz0129=-_+/ \nıſK٣é") + text[at + dice.randrange(2) :]).encode()
    return mutations.mutate(dice, text.encode(), 1)


def text_of(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")


def oracle_multibase(data: bytes) -> bytes:
    text = text_of(data)
    if text[:1] not in oracles.BASES and text[:1] not in oracles.UPPER:
        raise Unsure  # identity, proquint, base45, emoji: not in this oracle
    if len(text) == 1 or (text[0] == "h" and text[1:] != text[1:].lower()):
        raise Unsure  # nothing at all, which is never a CID; upper case in a base that has one case
    if text[0] == "0" and len(text) % 8 != 1:
        raise Unsure  # fewer bits than whole bytes: Go fills up on the left
    return oracles.multibase(text)


def oracle_cid_text(data: bytes) -> tuple[int, int, bytes]:
    text = text_of(data)
    if len(text) == 46 and text.startswith("Qm"):
        return oracles.cid(oracles.as_number(text, oracles.BASE58))
    if text.startswith(("Qm", "1")):
        raise Refused("a CIDv0 of another length")
    raw = oracle_multibase(data)
    if raw[:1] == b"\x12":
        raise Refused("a CIDv0 in multibase")
    return oracles.cid(raw)


def make_path(dice: random.Random) -> bytes:
    root = str(mutations.random_cid(dice)) if dice.random() < 0.8 else "k51.example"
    pieces = ["", ".", "..", "a", "é", "%41", "a%2Fb", "%2e%2e", "%", "a?b", "#", " ", "\0", "x" * 300]
    segments = [dice.choice(pieces) for _ in range(dice.choice((0, 1, 2, 5, 5, 1030)))]
    head = dice.choice(("/ipfs/", "/ipns/", "ipfs://", "ipns://", "IPFS://", "", "/", "/ipld/", "ipfs:/"))
    text = head + "/".join([root, *segments])
    return text.encode() if dice.random() < 0.7 else mutations.mutate(dice, text.encode())


def our_path(data: bytes) -> tuple[str, str, list[str]]:
    path = parse_path(text_of(data))
    again = parse_path(str(path))
    assert again == path, f"{path} is read as {again}"
    return path.namespace, path.root, list(path.segments)


def oracle_path(data: bytes) -> tuple[str, str, list[str]]:
    text = text_of(data)
    if len(text) > 16_384:
        raise Refused("too long")
    is_uri = text[:7].lower() in ("ipfs://", "ipns://")
    if is_uri:
        text = "/" + text[:4].lower() + "/" + text[7:].split("#")[0].split("?")[0]
    elif not text.startswith("/"):
        text = "/ipfs/" + text
    _, namespace, root, *rest = (
        (*text.split("/"), "")[: text.count("/") + 1] if text.count("/") > 1 else ("",) * 3
    )
    if namespace not in ("ipfs", "ipns"):
        raise Refused("neither ipfs nor ipns")
    if len(rest) > 1_024:
        raise Refused("too many segments")
    if namespace == "ipfs":
        oracle_cid_text(root.encode("utf-8", "surrogateescape"))
    elif root in ("", ".", "..") or not root.isprintable() or set(root) & set(" %\\"):
        raise Refused("no name")
    kept: list[str] = []
    for segment in rest:
        raw = segment.encode("utf-8", "surrogateescape")
        name = unquote_to_bytes(raw).decode("utf-8", "surrogateescape") if is_uri else segment
        if "\0" in name or "/" in name or (name == ".." and not kept):
            raise Refused("a segment that cannot be")
        if name == "..":
            kept.pop()
        elif name not in ("", "."):
            kept.append(name)
    return namespace, root, kept


def cid_of_bytes(data: bytes) -> Any:
    return parts(CID.decode(data))


def cid_of_text(data: bytes) -> Any:
    return parts(CID.parse(text_of(data)))


TARGETS = (
    Target("varint", make_varint, whole_varint, oracle_varint, (DecodeError,)),
    Target("multihash", make_multihash, multihash.split, oracle_multihash, (DecodeError, LimitExceeded)),
    Target(
        "multibase",
        make_multibase,
        lambda data: base.decode(text_of(data)),
        oracle_multibase,
        (InvalidCID,),
    ),
    Target("cid", make_cid, cid_of_bytes, oracles.cid, (InvalidCID,)),
    Target("cid-text", make_cid_text, cid_of_text, oracle_cid_text, (InvalidCID,)),
    Target("path", make_path, our_path, oracle_path, (InvalidPath,)),
)
