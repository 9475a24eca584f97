"""A second verifier of Merkle proofs, written from docs/proofs.md alone: short, slow, and sharing no code.

It answers yes or no. The tests hold `proofs.merkle_proof.verify` against it.
"""

from __future__ import annotations

import hashlib
from typing import Any


class No(Exception):
    """The proof is refused."""


def sha(*parts: bytes) -> bytes:
    return hashlib.sha256(b"".join(parts)).digest()


def need(condition: bool) -> None:
    if not condition:
        raise No


# --- CBOR: unsigned numbers, bytes, text, lists and maps in their shortest form, nothing else


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
        return (raw if major == 2 else raw.decode("ascii", "replace")), at + value
    if major == 4:
        items = []
        for _ in range(value):
            element, at = item(data, at, depth + 1)
            items.append(element)
        return items, at
    need(major == 5)
    pairs = []
    for _ in range(value):
        key, at = item(data, at, depth + 1)
        element, at = item(data, at, depth + 1)
        need(isinstance(key, str))
        pairs.append((key, element))
    keys = [key for key, _ in pairs]
    need(keys == sorted(set(keys), key=lambda key: (len(key), key)))
    return dict(pairs), at


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


# --- the trees; every list is consumed from its front


class Part:
    def __init__(self, part: Any) -> None:
        need(isinstance(part, list) and len(part) == 4)
        sums, rows, hashes, shown = part
        need(isinstance(sums, list) and all(isinstance(number, int) for number in sums))
        need(all(number < 2**63 for number in sums))
        need(isinstance(rows, list) and isinstance(hashes, bytes) and isinstance(shown, bytes))
        need(len(hashes) % 32 == 0)
        self.sums = list(sums)
        self.rows = list(rows)
        self.hashes = [hashes[i : i + 32] for i in range(0, len(hashes), 32)]
        self.shown = shown

    def pop(self, queue: list[Any]) -> Any:
        need(bool(queue))
        return queue.pop(0)

    def slot(self, depth: int, total: int, wanted: list[int]) -> bytes:
        """A node `depth` levels above the slots; `wanted` counts leaves from the node's first."""
        if not wanted:
            found: bytes = self.pop(self.hashes)
            return found
        if depth == 0:
            return self.piece(0, total, wanted)
        left = self.pop(self.sums)
        need(left <= total)
        return self.join(left, total - left, wanted, lambda size, some: self.slot(depth - 1, size, some))

    def piece(self, level: int, total: int, wanted: list[int]) -> bytes:
        """A node `level` levels below a piece's root."""
        if not wanted:
            found: bytes = self.pop(self.hashes)
            return found
        left = self.pop(self.sums)
        if left == 0:
            return self.row(total, wanted)
        need(left < total and level < 32)
        return self.join(left, total - left, wanted, lambda size, some: self.piece(level + 1, size, some))

    def join(self, left: int, right: int, wanted: list[int], below: Any) -> bytes:
        left_hash = below(left, [leaf for leaf in wanted if leaf < left])
        right_hash = below(right, [leaf - left for leaf in wanted if leaf >= left])
        return sha(b"\x04", left.to_bytes(8, "big"), left_hash, right.to_bytes(8, "big"), right_hash)

    def row(self, total: int, wanted: list[int]) -> bytes:
        row = self.pop(self.rows)
        need(isinstance(row, list) and len(row) == 2)
        multihash, length = row
        need(isinstance(multihash, bytes) and 1 <= len(multihash) <= 139)
        need(isinstance(length, int) and length <= 2 * 1024 * 1024)
        need(total == max(1, (length + 1023) // 1024))
        root = sha(b"\x02", length.to_bytes(4, "big"), self.block(length, 0, total, wanted))
        return sha(b"\x03", multihash, total.to_bytes(4, "big"), root)

    def block(self, length: int, first: int, count: int, wanted: list[int]) -> bytes:
        if not wanted:
            found: bytes = self.pop(self.hashes)
            return found
        if count == 1:
            size = min(1024, length - 1024 * first)
            need(len(self.shown) >= size)
            data, self.shown = self.shown[:size], self.shown[size:]
            return sha(b"\x00", first.to_bytes(4, "big"), data)
        half = 1
        while half * 2 < count:
            half *= 2
        left = self.block(length, first, half, [leaf for leaf in wanted if leaf < first + half])
        late = [leaf for leaf in wanted if leaf >= first + half]
        right = self.block(length, first + half, count - half, late)
        return sha(b"\x01", left, right)

    def empty(self) -> bool:
        return not (self.sums or self.rows or self.hashes or self.shown)


def check_tree(part: Any, root: bytes, total: int, depth: int, wanted: list[int]) -> None:
    shown = Part(part)
    need(not wanted or shown.slot(depth, total, wanted) == root)
    need(shown.empty())


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
        need(content["kind"] == "merkle" and content["version"] == 1)
        check_tree(content["data"], *data, data_depth, draw(seed, data[1], k))
        wanted = draw(sha(b"holdfast/meta-seed/1\x00", seed), meta[1], meta_k)
        check_tree(content["meta"], *meta, meta_depth, wanted)
    except No:
        return False
    return True
