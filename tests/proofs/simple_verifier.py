"""A second verifier of Merkle proofs, written from docs/proofs.md alone: short, slow, and sharing no code.

It answers yes or no. The tests hold `proofs.merkle_proof.verify` against it.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any


class No(Exception):
    """The proof is refused."""


def sha(*parts: bytes) -> bytes:
    return hashlib.sha256(b"".join(parts)).digest()


def need(condition: bool) -> None:
    if not condition:
        raise No


# --- CBOR: unsigned numbers, bytes, text, lists, maps, links, true, false and null in their shortest form


@dataclass(frozen=True)
class Link:
    cid: bytes


def head(data: bytes, at: int) -> tuple[int, int, int]:
    need(at < len(data))
    major, low = data[at] >> 5, data[at] & 31
    if low < 24:
        return major, low, at + 1
    need(low in (24, 25, 26, 27))
    size = 1 << (low - 24)
    need(at + 1 + size <= len(data))
    value = int.from_bytes(data[at + 1 : at + 1 + size], "big")
    need(value >= {1: 24, 2: 1 << 8, 4: 1 << 16, 8: 1 << 32}[size])
    return major, value, at + 1 + size


def item(data: bytes, at: int, depth: int = 0) -> tuple[Any, int]:
    need(depth < 5)
    major, value, at = head(data, at)
    if major == 0:
        return value, at
    if major in (2, 3):
        need(at + value <= len(data))
        raw = data[at : at + value]
        return (raw if major == 2 else text(raw)), at + value
    if major == 4:
        items = []
        for _ in range(value):
            element, at = item(data, at, depth + 1)
            items.append(element)
        return items, at
    if major == 6:
        raw, at = item(data, at, depth + 1)
        need(value == 42 and isinstance(raw, bytes) and raw[:1] == b"\0")
        return Link(raw[1:]), at
    if major == 7:
        need(value in (20, 21, 22))
        return (None if value == 22 else value == 21), at
    need(major == 5)
    pairs = []
    for _ in range(value):
        key, at = item(data, at, depth + 1)
        element, at = item(data, at, depth + 1)
        need(isinstance(key, str))
        pairs.append((key, element))
    keys = [key for key, _ in pairs]
    need(keys == sorted(set(keys), key=lambda key: (len(key.encode()), key.encode())))
    return dict(pairs), at


def text(raw: bytes) -> str:
    try:
        return raw.decode()
    except UnicodeDecodeError:
        raise No from None


# --- the draw


def draw(seed: bytes, total: int, k: int) -> list[int]:
    if total <= k or k == 0:
        return list(range(min(total, k)))
    result: list[int] = []
    counter = 0
    while True:
        stream = sha(b"holdfast/sample/1\x00", seed, counter.to_bytes(8, "big"))
        counter += 1
        for word in (stream[0:8], stream[8:16], stream[16:24], stream[24:32]):
            number = int.from_bytes(word, "big")
            if number >= 2**64 - 2**64 % total or number % total in result:
                continue
            result.append(number % total)
            if len(result) == k:
                return sorted(result)


# --- the trees; a part is taken from its front

UNIT_BYTES = {"merkle": 1024, "kzg": 4096 * 31}
COMMITMENT_BYTES = {"merkle": None, "kzg": 48}
TAGS = {"merkle": (b"\x00", b"\x02", b"\x03"), "kzg": (b"\x05", b"\x06", b"\x07")}


def bytes_of(most: int) -> int:
    """How many bytes a number of at most `most` takes."""
    return len(f"{most:x}") + 1 >> 1 if most else 0


def empty(level: int) -> bytes:
    """The hash of a slot tree's node `level` levels above nothing but empty slots."""
    if level == 0:
        return bytes(32)
    below = empty(level - 1)
    return sha(b"\x04", bytes(8), below, bytes(8), below)


class Part:
    """What is taken is noted in `taken` with what it was taken for, so that tests can alter it by name."""

    def __init__(self, part: Any, kind: str = "merkle") -> None:
        need(isinstance(part, bytes))
        self.rest: bytes = part
        self.kind = kind
        self.taken: list[tuple[str, bytes]] = []
        self.shown: list[tuple[bytes, int, int, bytes]] = []

    def take(self, size: int, what: str) -> bytes:
        need(len(self.rest) >= size)
        found, self.rest = self.rest[:size], self.rest[size:]
        self.taken.append((what, found))
        return found

    def number(self, most: int, what: str) -> int:
        value = int.from_bytes(self.take(bytes_of(most), what), "big")
        need(value <= most)
        return value

    def slot(self, depth: int, total: int, wanted: list[int]) -> bytes:
        """A node `depth` levels above the slots; `wanted` counts leaves from the node's first."""
        if depth == 0:
            return self.piece(0, total, wanted)
        left = self.number(total, "sum")
        return self.join(
            left, total - left, wanted, lambda size, some: self.slot(depth - 1, size, some), depth
        )

    def piece(self, level: int, total: int, wanted: list[int]) -> bytes:
        """A node `level` levels below a piece's root."""
        left = self.number(total, "sum")
        if left == 0:
            return self.row(total, wanted)
        need(left < total and level < 32)
        return self.join(left, total - left, wanted, lambda size, some: self.piece(level + 1, size, some), 0)

    def join(self, left: int, right: int, wanted: list[int], below: Any, depth: int) -> bytes:
        on_left = [leaf for leaf in wanted if leaf < left]
        on_right = [leaf - left for leaf in wanted if leaf >= left]
        hashes = [b"", b""]
        for side, (size, some) in enumerate(((left, on_left), (right, on_right))):
            if not some:
                hashes[side] = self.take(32, "hash") if size else empty(depth - 1)
        for side, (size, some) in enumerate(((left, on_left), (right, on_right))):
            if some:
                hashes[side] = below(size, some)
        return sha(b"\x04", left.to_bytes(8, "big"), hashes[0], right.to_bytes(8, "big"), hashes[1])

    def row(self, total: int, wanted: list[int]) -> bytes:
        unit = UNIT_BYTES[self.kind]
        multihash = self.take(self.number(139, "multihash length"), "multihash")
        need(len(multihash) > 0)
        length = self.number(total * unit, "length")
        need(length <= 2 * 1024 * 1024)
        need(total == max(1, (length + unit - 1) // unit))
        leaves = {}
        for leaf in wanted:
            size = COMMITMENT_BYTES[self.kind] or min(unit, length - unit * leaf)
            data = self.take(size, "leaf")
            leaves[leaf] = sha(TAGS[self.kind][0], leaf.to_bytes(4, "big"), data)
            self.shown.append((multihash, length, leaf, data))
        root = sha(TAGS[self.kind][1], length.to_bytes(4, "big"), self.block(0, total, leaves))
        return sha(TAGS[self.kind][2], multihash, total.to_bytes(4, "big"), root)

    def block(self, first: int, count: int, leaves: dict[int, bytes]) -> bytes:
        if count == 1:
            return leaves[first]
        half = 1
        while half * 2 < count:
            half *= 2
        on_left = {leaf: digest for leaf, digest in leaves.items() if leaf < first + half}
        on_right = {leaf: digest for leaf, digest in leaves.items() if leaf >= first + half}
        if not on_left:
            left = self.take(32, "hash")
            return sha(b"\x01", left, self.block(first + half, count - half, on_right))
        if not on_right:
            right = self.take(32, "hash")
            return sha(b"\x01", self.block(first, half, on_left), right)
        left = self.block(first, half, on_left)
        return sha(b"\x01", left, self.block(first + half, count - half, on_right))


def check_tree(
    part: Any, root: bytes, total: int, depth: int, wanted: list[int], kind: str = "merkle"
) -> Part:
    shown = Part(part, kind)
    need(not wanted or shown.slot(depth, total, wanted) == root)
    need(not shown.rest)
    return shown


def accepts(
    seed: bytes,
    data: tuple[bytes, int],
    data_depth: int,
    meta: tuple[bytes, int],
    meta_depth: int,
    k: int,
    meta_k: int,
    proof: bytes,
) -> bool:
    """Whether the proof answers the challenge; roots are (hash, sum)."""
    try:
        content, end = item(proof, 0)
        need(end == len(proof) and isinstance(content, dict))
        need(set(content) == {"data", "kind", "meta", "version"})
        need(content["kind"] == "merkle" and content["version"] == 2)  # `true` is 1, not 2
        check_tree(content["data"], *data, data_depth, draw(seed, data[1], k))
        wanted = draw(sha(b"holdfast/meta-seed/1\x00", seed), meta[1], meta_k)
        check_tree(content["meta"], *meta, meta_depth, wanted)
    except No:
        return False
    return True
