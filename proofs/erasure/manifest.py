"""The erasure manifest: which blocks form which groups, which node holds what, and in which order.

A plan sorts the distinct leaf blocks of a content DAG by (length descending, multihash) and cuts them into
groups of k; parity makes it a manifest. Everything else follows from three lists (the sorted leaves with
their lengths, the parity blocks, the interior nodes), so only these are written: as one root and three series
of parts, all DAG-CBOR, one form each. Format: docs/proofs.md, "Erasure manifest".
"""

from __future__ import annotations

import sys
from array import array
from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

from merkledag import dag_cbor
from merkledag.block import MAX_BLOCK_BYTES, Block
from merkledag.cid import CID
from merkledag.codecs import DAG_CBOR
from merkledag.errors import DecodeError, LimitExceeded
from merkledag.multihash import IDENTITY, SHA2_256
from merkledag.steps import Buffer, Steps, Want
from proofs.commitment import MAX_MULTIHASH_BYTES
from proofs.erasure.code import MAX_SHARES, check_code
from proofs.erasure.hash_table import HashTable
from proofs.errors import InvalidManifest

KIND = "holdfast/manifest"
VERSION = 1
PART_ROWS = 4096
MAX_MANIFEST_BLOCK_BYTES = 1024 * 1024
MAX_ROWS = 2**24  # in each of a manifest's three lists: 16 TiB of blocks of 1 MiB
_AHEAD = 16  # parts named ahead of the one wanted
_KEYS = {"content", "interior", "k", "kind", "leaves", "m", "parity", "replicated", "version"}


class Group(NamedTuple):
    """One group: multihashes and lengths of its 1 to k members, multihashes of its m − k parity blocks.

    Parity blocks are raw blocks as long as the longest member. A plan has none yet.
    """

    members: tuple[bytes, ...]
    lengths: tuple[int, ...]
    parity: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Plan:
    """The sorted leaves of a content DAG and the code they are stored with. Make one with `plan`.

    `lengths` (array "I") belongs to `leaves`, row by row. If `replicated`, there are fewer than k leaves, no
    groups and no parity, and every one of the m − k + 1 nodes holds all leaves.
    """

    k: int
    m: int
    leaves: HashTable
    lengths: array[int]

    @property
    def replicated(self) -> bool:
        return len(self.leaves) < self.k

    @property
    def node_count(self) -> int:
        """How many nodes hold a piece."""
        return self.m - self.k + 1 if self.replicated else self.m

    @property
    def group_count(self) -> int:
        return 0 if self.replicated else -(-len(self.leaves) // self.k)

    @property
    def parity_count(self) -> int:
        """How many parity blocks there are in all groups."""
        return self.group_count * (self.m - self.k)

    def group(self, index: int) -> Group:
        """One group, without parity; raises IndexError."""
        if not 0 <= index < self.group_count:
            raise IndexError(index)
        rows = range(index * self.k, min((index + 1) * self.k, len(self.leaves)))
        return Group(tuple(self.leaves[row] for row in rows), tuple(self.lengths[row] for row in rows), ())

    def groups(self) -> Iterator[Group]:
        """All groups in order, without parity."""
        return map(self.group, range(self.group_count))


@dataclass(frozen=True, slots=True)
class Manifest:
    """A plan with its parity blocks (group after group) and the content DAG's interior nodes.

    `interior` is in depth-first pre-order, each node where it is first met. Make one with `build_manifest` or
    `decode_manifest`.
    """

    content: CID
    plan: Plan
    parity: HashTable
    interior: HashTable

    @property
    def k(self) -> int:
        return self.plan.k

    @property
    def m(self) -> int:
        return self.plan.m

    @property
    def replicated(self) -> bool:
        return self.plan.replicated

    @property
    def node_count(self) -> int:
        """How many nodes hold a piece."""
        return self.plan.node_count

    @property
    def group_count(self) -> int:
        return self.plan.group_count

    def group(self, index: int) -> Group:
        """One group with its parity; raises IndexError."""
        per_group = self.m - self.k
        own = range(index * per_group, (index + 1) * per_group)
        return self.plan.group(index)._replace(parity=tuple(self.parity[row] for row in own))

    def groups(self) -> Iterator[Group]:
        """All groups in order."""
        return map(self.group, range(self.group_count))

    def piece(self, node: int) -> Iterator[tuple[bytes, int]]:
        """(multihash, length) of the blocks of node `node`'s data piece, in the order of its commitment.

        Block `node` of each group in turn, absent members left out; all leaves if replicated. Raises
        IndexError.
        """
        if not 0 <= node < self.node_count:
            raise IndexError(node)
        leaves, lengths = self.plan.leaves, self.plan.lengths
        if self.replicated or node < self.k:
            first, step = (0, 1) if self.replicated else (node, self.k)
            return ((leaves[row], lengths[row]) for row in range(first, len(leaves), step))
        per_group = self.m - self.k
        # The first member of a group is its longest.
        return (
            (self.parity[group * per_group + node - self.k], lengths[group * self.k])
            for group in range(self.group_count)
        )

    def pieces(self) -> list[list[bytes]]:
        """The multihashes of every node's data piece."""
        return [[multihash for multihash, _ in self.piece(node)] for node in range(self.node_count)]


def plan(leaves: Iterable[tuple[CID | bytes, int]], k: int, m: int) -> Plan:
    """The plan for a DAG's leaf blocks, given as (CID or multihash, length) in any order, repeated or not.

    Identity CIDs are not blocks and are left out. Raises ValueError for a code that cannot be, a block over
    `MAX_BLOCK_BYTES`, more than `MAX_ROWS` blocks, or one block with two lengths.
    """
    check_code(k, m)
    rows = []  # multihash ‖ u32be length; multihashes are prefix-free, so these sort as the multihashes do
    for name, length in leaves:
        multihash = _multihash(name)
        if multihash[0] == IDENTITY:
            continue
        if not 0 <= length <= MAX_BLOCK_BYTES or len(multihash) > MAX_MULTIHASH_BYTES:
            raise ValueError(f"block {multihash.hex()} of {length} bytes; at most {MAX_BLOCK_BYTES}")
        rows.append(multihash + length.to_bytes(4, "big"))
    rows.sort()
    rows = [row for row, before in zip(rows, [b"", *rows], strict=False) if row != before]
    for row, before in pairwise(rows):
        if row[:-4] == before[:-4]:
            raise ValueError(f"block {row[:-4].hex()} is given with two lengths")
    if len(rows) > MAX_ROWS:
        raise ValueError(f"{len(rows)} leaf blocks; at most {MAX_ROWS}: store the parts by themselves")
    rows.sort(key=lambda row: row[-4:], reverse=True)  # stable: equal lengths stay in order
    lengths = _swapped(array("I", b"".join([row[-4:] for row in rows])))
    return Plan(k, m, HashTable.of(row[:-4] for row in rows), lengths)


def build_manifest(
    content: CID, planned: Plan, parity: Iterable[CID | bytes], interior: Iterable[CID | bytes]
) -> Manifest:
    """The manifest of a plan whose parity has been made.

    `parity` names the parity blocks, group after group; `interior` the content DAG's interior nodes in
    depth-first pre-order, repeated or not. Raises ValueError if their numbers cannot be.
    """
    made = HashTable.of(_multihash(name) for name in parity)
    inside = HashTable.of(dict.fromkeys(_multihash(name) for name in interior))
    if len(made) != planned.parity_count:
        raise ValueError(f"{len(made)} parity blocks; the plan needs {planned.parity_count}")
    if len(inside) > MAX_ROWS or len(made) > MAX_ROWS:
        raise ValueError(
            f"more than {MAX_ROWS} interior nodes or parity blocks: store the parts by themselves"
        )
    return Manifest(content, planned, made, inside)


def metadata_piece(manifest: Manifest, blocks: Iterable[Block]) -> list[bytes]:
    """The multihashes of the metadata part, which every node holds, in the order of its commitment.

    `blocks` are the manifest's own, as `encode_manifest` returns them; the interior nodes follow.
    """
    return [*(block.cid.multihash for block in blocks), *manifest.interior]


def default_code(eligible_nodes: int) -> tuple[int, int]:
    """(k, m) for this many eligible nodes, always with a node to spare from three on; ValueError for none."""
    if eligible_nodes < 1:
        raise ValueError("there is no eligible node")
    for at_least, code in ((17, (10, 16)), (7, (4, 6)), (4, (2, 3)), (2, (1, 2))):
        if eligible_nodes >= at_least:
            return code
    return (1, 1)


def _multihash(name: CID | bytes) -> bytes:
    return name.multihash if isinstance(name, CID) else name


def encode_manifest(manifest: Manifest) -> tuple[CID, list[Block]]:
    """The root's CID and the manifest's blocks: the root, then the parts of leaves, parity and interior."""
    parts: list[Block] = []
    planned = manifest.plan
    root = {
        "content": manifest.content,
        "k": manifest.k,
        "kind": KIND,
        "leaves": _write_series(planned.leaves, planned.lengths, parts),
        "m": manifest.m,
        "parity": _write_series(manifest.parity, None, parts),
        "interior": _write_series(manifest.interior, None, parts),
        "replicated": manifest.replicated,
        "version": VERSION,
    }
    top = _block(root)
    return top.cid, [top, *parts]


def decode_manifest(root: CID) -> Steps[Manifest]:
    """Reads a manifest; raises InvalidManifest for anything but the one encoding of a possible manifest.

    The blocks are taken to match their CIDs, as everywhere behind `Steps`. Whether the lists are those of the
    content is checked by whoever has the content.
    """
    top = yield from _read(root, ())
    if not isinstance(top, dict) or top.keys() != _KEYS:
        raise InvalidManifest(f"the root of a manifest has {', '.join(sorted(_KEYS))}")
    if top["kind"] != KIND or type(top["version"]) is not int or top["version"] != VERSION:
        raise InvalidManifest(f"not a manifest of kind {KIND!r}, version {VERSION}")
    content, k, m = top["content"], top["k"], top["m"]
    if not isinstance(content, CID):
        raise InvalidManifest("the manifest's content is not a link")
    if type(k) is not int or type(m) is not int or not 1 <= k <= m <= MAX_SHARES:
        raise InvalidManifest(f"the manifest has no k-of-m code that can be: k {k!r}, m {m!r}")
    counts = {name: _series(top[name])[0] for name in ("leaves", "parity", "interior")}
    # What follows from the counts is checked before any part is fetched.
    groups = 0 if counts["leaves"] < k else -(-counts["leaves"] // k)
    if top["replicated"] is not (counts["leaves"] < k) or counts["parity"] != groups * (m - k):
        raise InvalidManifest("the manifest's groups do not fit its leaves, parity and code")
    leaves, lengths = yield from _read_series(top["leaves"], with_lengths=True)
    parity, _ = yield from _read_series(top["parity"], with_lengths=False)
    interior, _ = yield from _read_series(top["interior"], with_lengths=False)
    _check_order(leaves, lengths)
    return Manifest(content, Plan(k, m, leaves, lengths), parity, interior)


def _block(content: object) -> Block:
    data = dag_cbor.encode(content)
    return Block(CID.of(data, DAG_CBOR), data)


def _write_series(table: HashTable, lengths: array[int] | None, out: list[Block]) -> list[object]:
    """Appends a list's parts to `out`; returns [rows, links to the parts]."""
    links = []
    for start in range(0, len(table), PART_ROWS):
        part = {"hashes": table.cut(start, start + PART_ROWS)}
        if lengths is not None:
            part["lengths"] = _swapped(lengths[start : start + PART_ROWS]).tobytes()
        block = _block(part)
        out.append(block)
        links.append(block.cid)
    return [len(table), links]


def _swapped(numbers: array[int]) -> array[int]:
    """Between this machine's and big-endian order, in place."""
    if sys.byteorder == "little":
        numbers.byteswap()
    return numbers


def _read(cid: CID, ahead: tuple[CID, ...]) -> Generator[Want, Buffer, object]:
    """One block of a manifest, decoded."""
    if cid.version != 1 or cid.codec != DAG_CBOR or cid.hash_code != SHA2_256:
        raise InvalidManifest(f"block {cid} of a manifest is not CIDv1, dag-cbor, sha2-256")
    data = yield Want(cid, ahead)
    if len(data) > MAX_MANIFEST_BLOCK_BYTES:
        raise InvalidManifest(f"a manifest block of {len(data)} bytes; at most {MAX_MANIFEST_BLOCK_BYTES}")
    try:
        return dag_cbor.decode(data)
    except DecodeError as error:
        raise InvalidManifest(f"block {cid} of a manifest: {error}") from error


def _series(entry: object) -> tuple[int, list[CID]]:
    """(rows, links) of one list in the root, checked against each other and the limits."""
    if not isinstance(entry, list) or len(entry) != 2 or not isinstance(entry[1], list):
        raise InvalidManifest("a list in a manifest is its number of rows and the links to its parts")
    rows, links = entry
    if type(rows) is not int or not 0 <= rows <= MAX_ROWS:
        raise InvalidManifest(f"a list of {rows!r} rows in a manifest; at most {MAX_ROWS}")
    if len(links) != -(-rows // PART_ROWS) or not all(isinstance(link, CID) for link in links):
        raise InvalidManifest(f"{rows} rows of a manifest are in parts of {PART_ROWS}")
    return rows, links


def _read_series(
    entry: object, *, with_lengths: bool
) -> Generator[Want, Buffer, tuple[HashTable, array[int]]]:
    """One list of the manifest, with the blocks' lengths if they belong to it."""
    rows, links = _series(entry)
    hashes: list[bytes] = []
    lengths = array("I")
    for number, link in enumerate(links):
        part = yield from _read(link, tuple(links[number + 1 : number + 1 + _AHEAD]))
        expected = min(PART_ROWS, rows - number * PART_ROWS)
        keys = {"hashes", "lengths"} if with_lengths else {"hashes"}
        if not isinstance(part, dict) or part.keys() != keys:
            raise InvalidManifest(f"part {link} of a manifest has not exactly {sorted(keys)}")
        if not all(isinstance(value, bytes) for value in part.values()):
            raise InvalidManifest(f"part {link} of a manifest holds something other than bytes")
        if len(_table(part["hashes"])) != expected:
            raise InvalidManifest(f"part {link} of a manifest has not its {expected} multihashes")
        hashes.append(part["hashes"])
        if with_lengths:
            if len(part["lengths"]) != 4 * expected:
                raise InvalidManifest(f"part {link} of a manifest has not its {expected} lengths")
            lengths.frombytes(part["lengths"])
    return _table(b"".join(hashes)), _swapped(lengths)


def _table(blob: bytes) -> HashTable:
    try:
        table = HashTable(blob)
    except (DecodeError, LimitExceeded) as error:
        raise InvalidManifest(f"a manifest's multihashes: {error}") from error
    return table


def _check_order(leaves: HashTable, lengths: array[int]) -> None:
    """Longest first, equal lengths by multihash, no row twice, no block too long, none an identity."""
    before = (-MAX_BLOCK_BYTES, b"")
    for multihash, length in zip(leaves, lengths, strict=True):
        here = (-length, multihash)
        if here <= before or multihash[0] == IDENTITY:
            raise InvalidManifest("the manifest's leaves are not blocks in order of length and multihash")
        before = here
