"""The erasure manifest: planning, pieces, and its one encoding."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from merkledag import dag_cbor, multihash
from merkledag.block import MAX_BLOCK_BYTES, Block
from merkledag.cid import CID
from merkledag.codecs import DAG_CBOR, DAG_PB
from merkledag.steps import run
from proofs.erasure.code import encode_group, restore_shares
from proofs.erasure.hash_table import HashTable
from proofs.erasure.manifest import (
    MAX_MANIFEST_BLOCK_BYTES,
    PART_ROWS,
    Group,
    Manifest,
    build_manifest,
    decode_manifest,
    default_code,
    encode_manifest,
    metadata_piece,
    plan,
)
from proofs.errors import InvalidManifest

CONTENT = CID.of(b"content", DAG_PB)


def named(number: int) -> bytes:
    return multihash.digest(b"%d" % number)


def made(leaves: int, k: int, m: int, interior: int = 3) -> Manifest:
    rng = random.Random(leaves)
    planned = plan([(named(n), rng.choice([1000, 1000, rng.randint(0, 1000)])) for n in range(leaves)], k, m)
    parity = (named(-1 - n) for n in range(planned.parity_count))
    return build_manifest(CONTENT, planned, parity, [CID.of(b"i%d" % n, DAG_PB) for n in range(interior)])


def shares_of(group: Group, k: int) -> list[bytes | None]:
    return [*group.members, *[None] * (k - len(group.members)), *group.parity]


def decoded(root: CID, blocks: list[Block]) -> Manifest:
    return run(decode_manifest(root), {block.cid: block.data for block in blocks}.__getitem__)


def test_leaves_are_sorted_by_length_and_multihash() -> None:
    leaves = [(named(n), length) for n, length in enumerate([5, 100, 7, 100, 100, 7, 0])]
    planned = plan(leaves, 3, 5)
    expected = sorted(leaves, key=lambda leaf: (-leaf[1], leaf[0]))
    assert list(zip(planned.leaves, planned.lengths, strict=True)) == expected
    assert [len(group.members) for group in planned.groups()] == [3, 3, 1]
    assert [group.lengths for group in planned.groups()] == [(100, 100, 100), (7, 7, 5), (0,)]
    assert planned.parity_count == 6
    assert plan(reversed(leaves + leaves), 3, 5) == planned


def test_cids_of_one_block_are_one_leaf_and_identities_none() -> None:
    data = b"leaf"
    raw, pb, v0 = CID.of(data), CID.of(data, DAG_PB), CID.of(data, DAG_PB, version=0)
    identity = CID.of(b"inline", hash_code=multihash.IDENTITY)
    assert len(plan([(raw, 4), (pb, 4), (v0, 4), (raw.multihash, 4), (identity, 6)], 1, 2).leaves) == 1


@pytest.mark.parametrize("length", [-1, MAX_BLOCK_BYTES + 1])
def test_blocks_that_cannot_be_are_not_planned(length: int) -> None:
    with pytest.raises(ValueError, match="at most"):
        plan([(named(1), length)], 1, 2)


def test_a_block_has_one_length() -> None:
    with pytest.raises(ValueError, match="two lengths"):
        plan([(named(1), 5), (named(1), 6)], 1, 2)


@pytest.mark.parametrize(
    ("leaves", "k", "m", "nodes"), [(3, 4, 6, 3), (0, 1, 2, 2), (9, 10, 16, 7), (1, 2, 3, 2)]
)
def test_fewer_leaves_than_k_are_replicated(leaves: int, k: int, m: int, nodes: int) -> None:
    manifest = made(leaves, k, m)
    assert manifest.replicated
    assert manifest.node_count == nodes
    assert manifest.pieces() == [list(manifest.plan.leaves)] * nodes
    assert manifest.group_count == manifest.plan.parity_count == 0


@pytest.mark.parametrize(
    ("leaves", "k", "m"), [(4, 4, 6), (5, 4, 6), (8, 4, 6), (37, 10, 16), (5, 1, 2), (2, 1, 1), (9, 3, 3)]
)
def test_node_j_holds_block_j_of_every_group(leaves: int, k: int, m: int) -> None:
    manifest = made(leaves, k, m)
    assert not manifest.replicated
    pieces = manifest.pieces()
    assert len(pieces) == manifest.node_count == m
    groups = list(manifest.groups())
    assert len(groups) == manifest.group_count
    for node, piece in enumerate(pieces):
        shares = [
            [*group.members, *[None] * (k - len(group.members)), *group.parity][node] for group in groups
        ]
        assert piece == [share for share in shares if share is not None]
    for node in range(k, m):
        assert [length for _, length in manifest.piece(node)] == [max(group.lengths) for group in groups]
    with pytest.raises(IndexError):
        manifest.piece(m)
    with pytest.raises(IndexError):
        manifest.group(len(groups))


def test_a_content_is_restored_from_k_pieces_and_the_manifest() -> None:
    rng = random.Random(4)
    k, m = 4, 6
    blocks = {
        multihash.digest(data): data for data in (rng.randbytes(rng.randint(0, 900)) for _ in range(23))
    }
    planned = plan([(name, len(data)) for name, data in blocks.items()], k, m)
    stored = dict(blocks)
    parity = []
    for group in planned.groups():
        for data in encode_group(k, m, [blocks[name] for name in group.members]):
            parity.append(CID.of(data))
            stored[parity[-1].multihash] = data
    root, made_blocks = encode_manifest(build_manifest(CONTENT, planned, parity, []))
    manifest = decoded(root, made_blocks)
    alive = [1, 2, 4, 5]
    held = {name: stored[name] for node in alive for name in manifest.pieces()[node]}
    restored = {}
    for group in manifest.groups():
        padded = shares_of(group, k)
        shares = {node: held[name] for node in alive if (name := padded[node]) is not None}
        members = range(len(group.members))
        made_again = restore_shares(k, m, shares, group.lengths, members)
        for name, data in zip(group.members, made_again, strict=True):
            assert multihash.verify(name, data)
            restored[name] = data
    assert restored == blocks


@pytest.mark.parametrize(
    ("leaves", "k", "m"), [(0, 1, 1), (3, 4, 6), (4, 4, 6), (50, 10, 16), (9000, 2, 3), (PART_ROWS, 1, 2)]
)
def test_a_manifest_is_read_as_it_was_written(leaves: int, k: int, m: int) -> None:
    manifest = made(leaves, k, m)
    root, blocks = encode_manifest(manifest)
    assert blocks[0].cid == root
    assert decoded(root, blocks) == manifest
    assert encode_manifest(decoded(root, blocks)) == (root, blocks)
    assert all(CID.of(block.data, DAG_CBOR) == block.cid for block in blocks)
    assert all(len(block.data) <= MAX_MANIFEST_BLOCK_BYTES for block in blocks)
    parts = sum(-(-rows // PART_ROWS) for rows in (leaves, len(manifest.parity), 3))
    assert len(blocks) == 1 + parts


def test_the_longest_multihashes_fit_a_block() -> None:
    leaves = [(multihash.wrap(multihash.BLAKE3, n.to_bytes(128, "big")), 9) for n in range(PART_ROWS + 5)]
    manifest = build_manifest(CONTENT, plan(leaves, 1, 1), [], [])
    root, blocks = encode_manifest(manifest)
    assert max(len(block.data) for block in blocks) <= MAX_MANIFEST_BLOCK_BYTES
    assert decoded(root, blocks) == manifest


def test_metadata_is_the_manifest_then_the_interior() -> None:
    manifest = made(50, 4, 6)
    _, blocks = encode_manifest(manifest)
    assert metadata_piece(manifest, blocks) == [
        *(block.cid.multihash for block in blocks),
        *manifest.interior,
    ]
    assert list(manifest.interior) == [CID.of(b"i%d" % n, DAG_PB).multihash for n in range(3)]


def test_repeated_interior_nodes_stand_where_first_met() -> None:
    nodes = [named(n) for n in (3, 1, 3, 2, 1)]
    assert list(build_manifest(CONTENT, plan([], 1, 1), [], nodes).interior) == [named(3), named(1), named(2)]


def test_parity_must_be_complete() -> None:
    with pytest.raises(ValueError, match="needs 4"):
        build_manifest(CONTENT, plan([(named(n), 1) for n in range(5)], 4, 6), [named(9)], [])


Edit = Callable[[dict[str, Any], list[dict[str, Any]]], object]


def rewritten(manifest: Manifest, edit: Edit) -> tuple[CID, dict[CID, bytes]]:
    """The manifest's blocks after an edit of the root's map or the parts' maps, with true CIDs."""
    _, blocks = encode_manifest(manifest)
    root, parts = dag_cbor.decode(blocks[0].data), [dag_cbor.decode(block.data) for block in blocks[1:]]
    edit(root, parts)
    encoded = [dag_cbor.encode(part) for part in parts]
    renamed = {old.cid: CID.of(new, DAG_CBOR) for old, new in zip(blocks[1:], encoded, strict=True)}
    for name in ("leaves", "parity", "interior"):
        entry = root.get(name)
        if isinstance(entry, list) and len(entry) == 2 and isinstance(entry[1], list):
            entry[1] = [renamed.get(link, link) if isinstance(link, CID) else link for link in entry[1]]
    top = dag_cbor.encode(root)
    store = {CID.of(data, DAG_CBOR): data for data in (top, *encoded)}
    return CID.of(top, DAG_CBOR), store


EDITS: dict[str, Edit] = {
    "a key more": lambda r, p: r.update(x=1),
    "a key fewer": lambda r, p: r.pop("replicated"),
    "another kind": lambda r, p: r.update(kind="x"),
    "another version": lambda r, p: r.update(version=2),
    "version true": lambda r, p: r.update(version=True),
    "content as text": lambda r, p: r.update(content="x"),
    "k of 0": lambda r, p: r.update(k=0),
    "k over m": lambda r, p: r.update(k=7),
    "m over 256": lambda r, p: r.update(m=257),
    "k true": lambda r, p: r.update(k=True),
    "another m": lambda r, p: r.update(m=7),
    "said to be replicated": lambda r, p: r.update(replicated=True),
    "replicated as a number": lambda r, p: r.update(replicated=0),
    "leaves as a number": lambda r, p: r.update(leaves=9),
    "a row more announced": lambda r, p: r["leaves"].__setitem__(0, r["leaves"][0] + 1),
    "no parts": lambda r, p: r["leaves"].__setitem__(1, []),
    "a part twice": lambda r, p: r["leaves"][1].append(r["leaves"][1][0]),
    "a part as text": lambda r, p: r["leaves"][1].__setitem__(0, "x"),
    "2^40 rows": lambda r, p: r["interior"].__setitem__(0, 2**40),
    "rows true": lambda r, p: r["interior"].__setitem__(0, True),
    "a raw part": lambda r, p: r["interior"][1].__setitem__(0, CID.of(b"x")),
    "parity of others": lambda r, p: r.update(parity=r["interior"]),
    "no lengths": lambda r, p: p[0].pop("lengths"),
    "lengths where none belong": lambda r, p: p[1].update(lengths=b""),
    "a length missing": lambda r, p: p[0].update(lengths=p[0]["lengths"][:-4]),
    "half a length": lambda r, p: p[0].update(lengths=p[0]["lengths"][:-2]),
    "lengths as a list": lambda r, p: p[0].update(lengths=[1] * 9),
    "lengths out of order": lambda r, p: p[0].update(lengths=p[0]["lengths"][4:] + p[0]["lengths"][:4]),
    "a length too long": lambda r, p: p[0].update(lengths=b"\xff" * 4 + p[0]["lengths"][4:]),
    "a hash missing": lambda r, p: p[0].update(hashes=p[0]["hashes"][:-34]),
    "a byte missing": lambda r, p: p[0].update(hashes=p[0]["hashes"][:-1]),
    "a leaf twice": lambda r, p: p[0].update(hashes=p[0]["hashes"][:34] * 9),
    "leaves out of order": lambda r, p: p[0].update(hashes=p[0]["hashes"][34:] + p[0]["hashes"][:34]),
    "parity of another number": lambda r, p: p[1].update(hashes=p[1]["hashes"][:-34]),
    "not multihashes": lambda r, p: p[2].update(hashes=b"\xff" * len(p[2]["hashes"])),
    "an identity leaf": lambda r, p: p[0].update(hashes=b"\x00\x20" + p[0]["hashes"][2:]),
    "hashes as text": lambda r, p: p[1].update(hashes="x"),
}


@pytest.mark.parametrize("name", EDITS)
def test_manifests_that_cannot_be_are_refused(name: str) -> None:
    root, store = rewritten(made(9, 4, 6), EDITS[name])
    with pytest.raises(InvalidManifest):
        run(decode_manifest(root), lambda cid: store.get(cid, b"x"))


def test_an_unedited_manifest_passes_the_same_way() -> None:
    root, store = rewritten(made(9, 4, 6), lambda r, p: None)
    assert run(decode_manifest(root), store.__getitem__) == made(9, 4, 6)


def test_counts_are_checked_before_parts_are_fetched() -> None:
    root, store = rewritten(made(9, 4, 6), lambda r, p: r["leaves"].__setitem__(0, 8))
    asked = []

    def get(cid: CID) -> bytes:
        asked.append(cid)
        return store[cid]

    with pytest.raises(InvalidManifest):
        run(decode_manifest(root), get)
    assert asked == [root]


def test_blocks_that_are_no_manifest_are_refused() -> None:
    for data in (b"", b"\xa0", b"\x80", b"\xf6", b"junk", bytes(MAX_MANIFEST_BLOCK_BYTES + 1)):
        with pytest.raises(InvalidManifest):
            run(decode_manifest(CID.of(data, DAG_CBOR)), lambda _, data=data: data)  # type: ignore[misc]
    with pytest.raises(InvalidManifest, match="dag-cbor"):
        run(decode_manifest(CID.of(b"raw")), lambda _: b"raw")


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_no_other_bytes_are_the_manifest(data: st.DataObject) -> None:
    """A manifest that decodes encodes to the very blocks it came from."""
    root, blocks = encode_manifest(made(9, 2, 3))
    index = data.draw(st.integers(0, len(blocks) - 1))
    at = data.draw(st.integers(0, len(blocks[index].data) - 1))
    flip = data.draw(st.integers(1, 255))
    store = {block.cid: block.data for block in blocks}
    changed = bytearray(blocks[index].data)
    changed[at] ^= flip
    store[blocks[index].cid] = bytes(changed)
    try:
        manifest = run(decode_manifest(root), store.__getitem__)
    except InvalidManifest:
        return
    except KeyError:  # a changed link
        return
    assert [block.data for block in encode_manifest(manifest)[1]][index] == bytes(changed)


def test_the_default_code_by_eligible_nodes() -> None:
    table = {
        1: (1, 1),
        2: (1, 2),
        3: (1, 2),
        4: (2, 3),
        6: (2, 3),
        7: (4, 6),
        16: (4, 6),
        17: (10, 16),
        999: (10, 16),
    }
    assert {nodes: default_code(nodes) for nodes in table} == table
    assert all(default_code(nodes)[1] < nodes for nodes in range(3, 40))
    with pytest.raises(ValueError, match="no eligible"):
        default_code(0)


@given(st.lists(st.sampled_from([multihash.SHA2_256, multihash.SHA2_512, multihash.SHA1]), max_size=12))
def test_a_hash_table_is_a_list_of_multihashes(codes: list[int]) -> None:
    hashes = [multihash.digest(b"%d" % n, code) for n, code in enumerate(codes)]
    table = HashTable.of(hashes)
    assert list(table) == hashes
    assert len(table) == len(hashes)
    assert table == HashTable(b"".join(hashes))
    assert table.cut(0, 5) + table.cut(min(5, len(table)), 99) == table.blob
    for index in (-1, len(hashes)):
        with pytest.raises(IndexError):
            table[index]
