"""The state's Merkle tree: its root is the app hash, its proofs show that a key has a value or is absent.

Keys fall into 65,536 buckets by the first two bytes of their SHA-256. A bucket is a simple Merkle tree (RFC
6962, as CometBFT hashes it) over its keys in order; the state is one over all bucket roots. A leaf of
either is `len(key) ‖ key ‖ 32 ‖ SHA-256(value)` with varint lengths, the value of a bucket being its root:
two `simple:v` proof operations, which CometBFT's light client checks.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from hashlib import sha256

from merkledag import varint

BUCKET_BITS = 16
BUCKETS = 1 << BUCKET_BITS
HASH_BYTES = 32
EMPTY_ROOT = sha256(b"").digest()
MAX_BUCKET_KEYS = 1 << 32


def leaf_hash(key: bytes, value_hash: bytes) -> bytes:
    """The leaf of a key, given the SHA-256 of its value."""
    return sha256(b"\x00" + varint.encode(len(key)) + key + b"\x20" + value_hash).digest()


def inner_hash(left: bytes, right: bytes) -> bytes:
    """The parent of two nodes."""
    return sha256(b"\x01" + left + right).digest()


def bucket_of(key: bytes) -> int:
    """Which bucket a key falls into."""
    return int.from_bytes(sha256(key).digest()[:2], "big")


def bucket_key(bucket: int) -> bytes:
    """The key of a bucket in the upper tree: its number, two bytes."""
    return bucket.to_bytes(2, "big")


def _split(count: int) -> int:
    return 1 << (count - 1).bit_length() - 1


def simple_root(leaves: list[bytes]) -> bytes:
    """The root over leaf hashes (RFC 6962 §2.1), level by level; an odd last node rises as it is."""
    if not leaves:
        return EMPTY_ROOT
    nodes = leaves
    while len(nodes) > 1:
        above = [inner_hash(a, b) for a, b in zip(nodes[::2], nodes[1::2], strict=False)]
        if len(nodes) % 2:
            above.append(nodes[-1])
        nodes = above
    return nodes[0]


def aunts(leaves: list[bytes], index: int) -> tuple[bytes, ...]:
    """The siblings on the way from leaf `index` to the root, lowest first."""
    if len(leaves) == 1:
        return ()
    split = _split(len(leaves))
    if index < split:
        return (*aunts(leaves[:split], index), simple_root(leaves[split:]))
    return (*aunts(leaves[split:], index - split), simple_root(leaves[:split]))


def root_from_aunts(leaf: bytes, index: int, total: int, path: tuple[bytes, ...]) -> bytes | None:
    """The root that a leaf and its aunts lead to; None if there cannot be as many aunts."""
    if not 0 <= index < total <= MAX_BUCKET_KEYS:
        return None
    sides = []
    while total > 1:
        split = _split(total)
        sides.append(index < split)
        index, total = (index, split) if index < split else (index - split, total - split)
    if len(sides) != len(path):
        return None
    node = leaf
    for is_left, aunt in zip(reversed(sides), path, strict=True):
        node = inner_hash(node, aunt) if is_left else inner_hash(aunt, node)
    return node


@dataclass(frozen=True, slots=True)
class LeafProof:
    """One leaf of a bucket: its key, the SHA-256 of its value, its place and its aunts."""

    key: bytes
    value_hash: bytes
    index: int
    total: int
    aunts: tuple[bytes, ...]

    def root(self) -> bytes | None:
        """The bucket's root, if the shape is possible."""
        if len(self.value_hash) != HASH_BYTES or any(len(aunt) != HASH_BYTES for aunt in self.aunts):
            return None
        return root_from_aunts(leaf_hash(self.key, self.value_hash), self.index, self.total, self.aunts)


@dataclass(frozen=True, slots=True)
class StateProof:
    """That a key has a value (`leaf`) or is absent: then `left` and `right` are its neighbours in the bucket.

    A neighbour is None at the bucket's end; both are None if the bucket is empty. `aunts` lead from the
    bucket's root to the app hash.
    """

    key: bytes
    value: bytes | None
    leaf: LeafProof | None
    left: LeafProof | None
    right: LeafProof | None
    aunts: tuple[bytes, ...]


@cache
def _empty_levels() -> tuple[bytes, ...]:
    nodes = [leaf_hash(bucket_key(bucket), sha256(EMPTY_ROOT).digest()) for bucket in range(BUCKETS)]
    levels = [b"".join(nodes)]
    while len(nodes) > 1:
        nodes = [inner_hash(a, b) for a, b in zip(nodes[::2], nodes[1::2], strict=True)]
        levels.append(b"".join(nodes))
    return tuple(levels)


class StateTree:
    """The tree of a state; a change costs its bucket and 16 hashes."""

    def __init__(self, items: Iterable[tuple[bytes, bytes]] = ()) -> None:
        self._levels = [bytearray(level) for level in _empty_levels()]
        self._buckets: dict[int, dict[bytes, bytes]] = {}
        self.apply(dict(items))

    @property
    def root(self) -> bytes:
        """The app hash, 32 bytes."""
        return bytes(self._levels[-1])

    def apply(self, changes: Mapping[bytes, bytes | None]) -> bytes:
        """Sets keys to values, or deletes them (None); returns the new root."""
        touched = set()
        for key, value in changes.items():
            number = bucket_of(key)
            touched.add(number)
            bucket = self._buckets.setdefault(number, {})
            if value is None:
                bucket.pop(key, None)
            else:
                bucket[key] = sha256(value).digest()
        for number in touched:
            root = self._bucket_root(number)
            self._set(0, number, leaf_hash(bucket_key(number), sha256(root).digest()))
        for level in range(BUCKET_BITS):
            touched = {index >> 1 for index in touched}
            below = self._levels[level]
            for index in touched:
                at = index * 2 * HASH_BYTES
                self._set(level + 1, index, sha256(b"\x01" + below[at : at + 2 * HASH_BYTES]).digest())
        return self.root

    def _set(self, level: int, index: int, node: bytes) -> None:
        self._levels[level][index * HASH_BYTES : (index + 1) * HASH_BYTES] = node

    def _node(self, level: int, index: int) -> bytes:
        return bytes(self._levels[level][index * HASH_BYTES : (index + 1) * HASH_BYTES])

    def _bucket_root(self, number: int) -> bytes:
        bucket = self._buckets.get(number)
        if not bucket:
            self._buckets.pop(number, None)
            return EMPTY_ROOT
        return simple_root([leaf_hash(key, bucket[key]) for key in sorted(bucket)])

    def prove(self, key: bytes, value: bytes | None) -> StateProof:
        """That `key` has `value`, or is absent (None), in this tree."""
        number = bucket_of(key)
        bucket = self._buckets.get(number, {})
        keys = sorted(bucket)
        leaves = [leaf_hash(each, bucket[each]) for each in keys]

        def leaf(index: int) -> LeafProof | None:
            if not 0 <= index < len(keys):
                return None
            each = keys[index]
            return LeafProof(each, bucket[each], index, len(keys), aunts(leaves, index))

        path = tuple(self._node(level, (number >> level) ^ 1) for level in range(BUCKET_BITS))
        at = sum(each < key for each in keys)
        if key in bucket:
            assert value is not None, "a value belongs to a key that is present"
            return StateProof(key, value, leaf(at), None, None, path)
        return StateProof(key, None, None, leaf(at - 1), leaf(at), path)


def verify(proof: StateProof, app_hash: bytes) -> bool:
    """Whether the state of this app hash holds `proof.value` at `proof.key` (None: nothing)."""
    root = _proven_bucket_root(proof)
    if (
        root is None
        or len(proof.aunts) != BUCKET_BITS
        or any(len(aunt) != HASH_BYTES for aunt in proof.aunts)
    ):
        return False
    number = bucket_of(proof.key)
    node = leaf_hash(bucket_key(number), sha256(root).digest())
    return root_from_aunts(node, number, BUCKETS, proof.aunts) == app_hash


def _proven_bucket_root(proof: StateProof) -> bytes | None:
    """The root of the key's bucket, if what the proof says of it holds."""
    if proof.value is not None:
        leaf = proof.leaf
        if leaf is None or leaf.key != proof.key or leaf.value_hash != sha256(proof.value).digest():
            return None
        return leaf.root()
    left, right = proof.left, proof.right
    if proof.leaf is not None or (left is not None and right is not None and left.index + 1 != right.index):
        return None
    if left is None and right is None:
        return EMPTY_ROOT
    if left is not None and not (
        left.key < proof.key and (right is not None or left.index + 1 == left.total)
    ):
        return None
    if right is not None and not (proof.key < right.key and (left is not None or right.index == 0)):
        return None
    roots = {neighbour.root() for neighbour in (left, right) if neighbour is not None}
    totals = {neighbour.total for neighbour in (left, right) if neighbour is not None}
    return roots.pop() if len(roots) == 1 and len(totals) == 1 else None
