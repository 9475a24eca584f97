"""The state's Merkle tree: its root is the app hash, its proofs show that a key has a value or is absent.

Keys fall into 2^18 buckets by the first bits of their SHA-256. A bucket is a simple Merkle tree (RFC 6962, as
CometBFT hashes it) over its keys in order; the state is one over all bucket roots. A leaf of either is
`len(key) ‖ key ‖ 32 ‖ SHA-256(value)` with varint lengths; a bucket's key is "state" and its value its root:
two `simple:v` proof operations, which CometBFT's light client checks under the path /state/key.

The tree lives in rows (see `store`), so that neither its memory nor its opening grows with the state:

    b ‖ u32 bucket   (u16 len ‖ key ‖ leaf) of each key in order
    t ‖ u32 tile     the leaves of 16 buckets in the upper tree; all empty if there is no row
    r ‖ u32 region   the root of the 512 buckets of a region, where not all are empty
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from hashlib import sha256

from ledger.cache import RecentCache
from ledger.errors import CorruptState
from ledger.store import Changes, Rows
from ledger.tree_buckets import HASH_BYTES, HeldBuckets, Leaves, read_bucket, write_bucket
from merkledag import varint

BUCKET_BITS = 18
BUCKETS = 1 << BUCKET_BITS
BUCKET_KEY = b"state"
EMPTY_ROOT = sha256(b"").digest()
MAX_BUCKET_KEYS = 1 << 32

TILE = 16
REGION_BITS = 9
REGION_TILES = (1 << REGION_BITS) // TILE
MAX_PROVING = 8  # buckets, of which the way up is remembered: many keys of a crowded one may be proven


def leaf_hash(key: bytes, value_hash: bytes) -> bytes:
    """The leaf of a key, given the SHA-256 of its value."""
    return sha256(b"\x00" + varint.encode(len(key)) + key + b"\x20" + value_hash).digest()


def inner_hash(left: bytes, right: bytes) -> bytes:
    """The parent of two nodes."""
    return sha256(b"\x01" + left + right).digest()


def bucket_of(key: bytes) -> int:
    """Which bucket a key falls into."""
    return int.from_bytes(sha256(key).digest()[:3], "big") >> 24 - BUCKET_BITS


def bucket_leaf(root: bytes) -> bytes:
    """The leaf of a bucket in the upper tree."""
    return leaf_hash(BUCKET_KEY, sha256(root).digest())


def levels_of(leaves: Iterable[bytes]) -> list[list[bytes]]:
    """The nodes over leaf hashes (RFC 6962 §2.1), lowest level first; an odd last node rises as it is."""
    levels = [list(leaves)]
    while len(nodes := levels[-1]) > 1:
        above = [inner_hash(a, b) for a, b in zip(nodes[::2], nodes[1::2], strict=False)]
        levels.append([*above, nodes[-1]] if len(nodes) % 2 else above)
    return levels


def simple_root(leaves: Iterable[bytes]) -> bytes:
    """The root over leaf hashes."""
    return (levels_of(leaves)[-1] or [EMPTY_ROOT])[0]


def aunts(levels: list[list[bytes]], index: int) -> tuple[bytes, ...]:
    """The siblings on the way from leaf `index` to the root, lowest first."""
    found = []
    for nodes in levels[:-1]:
        found += nodes[index ^ 1 : (index ^ 1) + 1]  # none where the node rises as it is
        index >>= 1
    return tuple(found)


def sides(index: int, total: int) -> list[bool]:
    """The way from the root to leaf `index` of `total`: whether it goes to the left, top first."""
    way = []
    while total > 1:
        split = 1 << (total - 1).bit_length() - 1
        way.append(index < split)
        index, total = (index, split) if index < split else (index - split, total - split)
    return way


def root_from_aunts(leaf: bytes, index: int, total: int, path: tuple[bytes, ...]) -> bytes | None:
    """The root that a leaf and its aunts lead to; None if there cannot be as many aunts."""
    if not 0 <= index < total <= MAX_BUCKET_KEYS:
        return None
    way = sides(index, total)
    if len(way) != len(path):
        return None
    node = leaf
    for is_left, aunt in zip(reversed(way), path, strict=True):
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


def _empty_nodes() -> list[bytes]:
    """The root of each height's empty subtree of the upper tree."""
    nodes = [bucket_leaf(EMPTY_ROOT)]
    for _ in range(BUCKET_BITS):
        nodes.append(inner_hash(nodes[-1], nodes[-1]))
    return nodes


EMPTY_NODES = _empty_nodes()


def _row_key(kind: bytes, number: int) -> bytes:
    return kind + number.to_bytes(4, "big")


def _check_leaf(key: bytes, leaf: bytes | None, value: bytes | None) -> None:
    if leaf != (None if value is None else leaf_hash(key, sha256(value).digest())):
        raise CorruptState(f"the state's value at key {key.hex()} is not what its tree says")


class _Nodes:
    """The upper tree between two levels, read into memory: `width` nodes at the bottom, their root on top."""

    __slots__ = ("base", "levels")

    def __init__(self, base: int, bottom: bytes) -> None:
        """`bottom` are the nodes of level `base` of the upper tree."""
        self.base = base
        self.levels = [bytearray(bottom)]
        while len(below := self.levels[-1]) > HASH_BYTES:
            if below == EMPTY_NODES[base + len(self.levels) - 1] * (len(below) // HASH_BYTES):
                self.levels.append(
                    bytearray(EMPTY_NODES[base + len(self.levels)] * (len(below) // (2 * HASH_BYTES)))
                )
                continue
            step = 2 * HASH_BYTES
            pairs = range(0, len(below), step)
            self.levels.append(
                bytearray().join(sha256(b"\x01" + below[i : i + step]).digest() for i in pairs)
            )


@dataclass(frozen=True, slots=True)
class Staged:
    """What changes would make of a tree: its root, the rows to keep, and new nodes by level and index.

    `buckets` are those that change, as they would be.
    """

    root: bytes
    rows: Changes
    nodes: tuple[Mapping[int, bytes], ...]
    buckets: Mapping[int, Leaves]


UNCHANGED = Staged(b"", {}, ({},) * BUCKET_BITS, {})


class StateTree:
    """The tree of a committed state. A change costs its bucket and 18 hashes."""

    def __init__(self, rows: Rows) -> None:
        self._rows = rows
        self._regions: dict[int, _Nodes] = {}
        self._buckets = HeldBuckets()
        self._levels: RecentCache[int, list[list[bytes]]] = RecentCache(MAX_PROVING // 2)
        regions = range(BUCKETS >> REGION_BITS)
        roots = [rows.get(_row_key(b"r", region)) or EMPTY_NODES[REGION_BITS] for region in regions]
        self._top = _Nodes(REGION_BITS, b"".join(roots))

    @property
    def root(self) -> bytes:
        """The app hash, 32 bytes."""
        return self._node(BUCKET_BITS, 0)

    def stage(self, changes: Changes) -> Staged:
        """What setting keys to values, or deleting them (None), makes of the tree, which stays as it is."""
        buckets = self._stage_buckets(changes)
        rows = {_row_key(b"b", number): write_bucket(leaves) for number, leaves in buckets.items()}
        nodes = [{number: bucket_leaf(simple_root(leaves.values())) for number, leaves in buckets.items()}]
        for level in range(BUCKET_BITS):
            below, above = nodes[level], dict[int, bytes]()
            for index in {each >> 1 for each in below}:
                left = below.get(2 * index) or self._node(level, 2 * index)
                right = below.get(2 * index + 1) or self._node(level, 2 * index + 1)
                above[index] = sha256(b"\x01" + left + right).digest()
            nodes.append(above)
        for tile, leaves in self._tiles(nodes[0]).items():
            rows[_row_key(b"t", tile)] = None if leaves == EMPTY_NODES[0] * TILE else bytes(leaves)
        for region, root in nodes[REGION_BITS].items():
            rows[_row_key(b"r", region)] = None if root == EMPTY_NODES[REGION_BITS] else root
        return Staged(nodes[-1].get(0) or self.root, rows, tuple(nodes), buckets)

    def _tiles(self, leaves: Mapping[int, bytes]) -> dict[int, bytearray]:
        """The tiles that these leaves of buckets are in, with them put in."""
        tiles: dict[int, bytearray] = {}
        for number, leaf in leaves.items():
            tile, place = divmod(number, TILE)
            if tile not in tiles:
                region, at = divmod(tile, REGION_TILES)
                size = TILE * HASH_BYTES
                tiles[tile] = self._region(region).levels[0][at * size : (at + 1) * size]
            tiles[tile][place * HASH_BYTES : (place + 1) * HASH_BYTES] = leaf
        return tiles

    def _stage_buckets(self, changes: Changes) -> dict[int, Leaves]:
        """The buckets that change, as they would be."""
        touched: dict[int, list[bytes]] = {}
        for key in changes:
            touched.setdefault(bucket_of(key), []).append(key)
        buckets: dict[int, Leaves] = {}
        for number, changed in touched.items():
            bucket = dict(self._bucket(number))
            for key in changed:
                value = changes[key]
                if value is None:
                    bucket.pop(key, None)
                else:
                    bucket[key] = leaf_hash(key, sha256(value).digest())
            buckets[number] = dict(sorted(bucket.items()))
        return buckets

    def commit(self, staged: Staged) -> None:
        """The staged rows are those of the tree from now on."""
        for number, leaves in staged.buckets.items():
            self._buckets.put(number, leaves)
            self._levels.forget(number)
        for level, nodes in enumerate(staged.nodes):
            for index, node in nodes.items():
                self._set(level, index, node)

    def _set(self, level: int, index: int, node: bytes) -> None:
        if level >= REGION_BITS:
            place = self._top.levels[level - REGION_BITS]
            place[index * HASH_BYTES : (index + 1) * HASH_BYTES] = node
        if level <= REGION_BITS:
            height = REGION_BITS - level
            region = self._regions.get(index >> height)
            if region is not None:
                at = (index & (1 << height) - 1) * HASH_BYTES
                region.levels[level][at : at + HASH_BYTES] = node

    def _node(self, level: int, index: int) -> bytes:
        if level >= REGION_BITS:
            at = index * HASH_BYTES
            return bytes(self._top.levels[level - REGION_BITS][at : at + HASH_BYTES])
        height = REGION_BITS - level
        at = (index & (1 << height) - 1) * HASH_BYTES
        return bytes(self._region(index >> height).levels[level][at : at + HASH_BYTES])

    def _region(self, number: int) -> _Nodes:
        found = self._regions.get(number)
        if found is None:
            first = number * REGION_TILES
            tiles = [self._rows.get(_row_key(b"t", first + each)) for each in range(REGION_TILES)]
            found = _Nodes(0, b"".join([tile or EMPTY_NODES[0] * TILE for tile in tiles]))
            if found.levels[-1] != self._node(REGION_BITS, number):
                raise CorruptState(f"region {number} of the state's tree has another root than its tiles")
            self._regions[number] = found
        return found

    def check(self, state: Rows) -> None:
        """Raises CorruptState unless the tree is that of all of this state; takes as long as it is large."""
        count = buckets = 0
        for row in self._rows.scan(b"b"):
            if not row.startswith(b"b"):
                break
            number = int.from_bytes(row[1:], "big")
            bucket = self._bucket(number)
            for key, leaf in bucket.items():
                _check_leaf(key, leaf if bucket_of(key) == number else None, state.get(key))
            count, buckets = count + len(bucket), buckets + 1
        if count != sum(1 for _ in state.scan(b"")):
            raise CorruptState("the state has keys that its tree does not have")
        regions = range(BUCKETS >> REGION_BITS)
        used = [n for n in regions if self._node(REGION_BITS, n) != EMPTY_NODES[REGION_BITS]]
        leaves = (self._node(0, at) for n in used for at in range(n << REGION_BITS, (n + 1) << REGION_BITS))
        if buckets != sum(leaf != EMPTY_NODES[0] for leaf in leaves):
            raise CorruptState("the state's tree lacks some of its buckets")

    def check_value(self, key: bytes, value: bytes | None) -> None:
        """Raises CorruptState unless the tree says that the key has this value, or none at all (None)."""
        _check_leaf(key, self._bucket(bucket_of(key)).get(key), value)

    def _bucket(self, number: int) -> Leaves:
        """A bucket's leaves by key. Raises CorruptState unless they lead to the root."""
        if (held := self._buckets.get(number)) is not None:
            return held
        bucket = read_bucket(self._rows.get(_row_key(b"b", number)) or b"")
        if bucket_leaf(simple_root(bucket.values())) != self._node(0, number):
            raise CorruptState(f"bucket {number} of the state's tree is not what the levels above it say")
        self._buckets.put(number, bucket)
        return bucket

    def prove(
        self, key: bytes, read: Callable[[bytes], bytes | None], staged: Staged = UNCHANGED
    ) -> StateProof:
        """What this tree has at `key`; `read` gives the value of a key of the state that the tree is of.

        With `staged`, it is the tree that those changes make, and the state that `read` reads. Raises
        CorruptState where the two do not belong together.
        """
        number = bucket_of(key)
        is_staged = number in staged.buckets
        bucket = staged.buckets[number] if is_staged else self._bucket(number)
        levels = (None if is_staged else self._levels.get(number)) or levels_of(bucket.values())
        if not is_staged:
            self._levels.put(number, levels)
        keys = list(bucket)

        def leaf(index: int) -> LeafProof | None:
            if not 0 <= index < len(keys):
                return None
            value = read(keys[index])
            _check_leaf(keys[index], bucket[keys[index]], value)
            assert value is not None
            return LeafProof(keys[index], sha256(value).digest(), index, len(keys), aunts(levels, index))

        path = tuple(
            nodes.get((number >> level) ^ 1) or self._node(level, (number >> level) ^ 1)
            for level, nodes in enumerate(staged.nodes[:BUCKET_BITS])
        )
        at = bisect_left(keys, key)
        if key in bucket:
            return StateProof(key, read(key), leaf(at), None, None, path)
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
    return root_from_aunts(bucket_leaf(root), number, BUCKETS, proof.aunts) == app_hash


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
