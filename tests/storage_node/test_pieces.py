"""Piece files, restoring from parity, and what a manifest says about where blocks are."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from merkledag import multihash
from merkledag.cid import CID
from proofs.commitment import PieceRow, PieceTree
from proofs.errors import UndecodableGroup
from proofs.kinds import ProofKind
from storage_node import piece_file
from storage_node.errors import CorruptStore, IncompleteDag
from storage_node.manifests import ManifestShelf
from storage_node.piece_file import PieceFile, blocks_of_pieces
from storage_node.restore import restore_share
from storage_node.survey import survey
from tests.storage_node.content import Encoded, a_store, add_files, encode, some_bytes

DEAL = CID.of(b"deal")
FILES = {"a": some_bytes(50_000), "b": some_bytes(4_096, 2), "c": b"tiny", "d": some_bytes(9_000, 3)}


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Encoded]:
    store = a_store(tmp_path_factory.mktemp("client"))
    yield encode(store, add_files(store, FILES), 4, 6)
    store.close()


def saved(folder: Path, piece: PieceFile) -> Path:
    return piece_file.save(folder, piece).path


@pytest.mark.parametrize("shard", range(6))
def test_a_piece_file_gives_back_the_same_trees(source: Encoded, tmp_path: Path, shard: int) -> None:
    meta, data = source.trees(shard)
    path = saved(tmp_path, PieceFile(DEAL, shard, source.content, source.root, meta, data))
    loaded = piece_file.load(path)
    assert (loaded.deal, loaded.shard, loaded.content, loaded.manifest) == (
        DEAL,
        shard,
        source.content,
        source.root,
    )
    for mine, theirs in ((loaded.meta, meta), (loaded.data, data)):
        assert mine.root == theirs.root
        assert list(mine.rows) == list(theirs.rows)
        for level in range(theirs.top + 1):
            places = range(theirs.width(level))
            assert [mine.node(level, at) for at in places] == [theirs.node(level, at) for at in places]
    head = piece_file.load_head(tmp_path, path.name)
    assert head.open().data.root == head.data == data.root
    assert head.check().meta.root == head.meta == meta.root
    layout = source.layout(shard)
    assert list(loaded.multihashes()) == [*layout.meta, *layout.data]


def test_a_piece_file_keeps_the_kind_of_proof(tmp_path: Path) -> None:
    row = PieceRow(DEAL.multihash, 1, bytes(32))
    for kind in ProofKind:
        trees = PieceTree([row], kind=kind), PieceTree([row, row], kind=kind)
        path = saved(tmp_path, PieceFile(DEAL, 0, DEAL, DEAL, *trees))
        loaded = piece_file.load(path)
        assert (loaded.proof, loaded.meta.root, loaded.data.root) == (kind, trees[0].root, trees[1].root)


def test_a_damaged_piece_file_is_named(source: Encoded, tmp_path: Path) -> None:
    meta, data = source.trees(0)
    path = saved(tmp_path, PieceFile(DEAL, 0, source.content, source.root, meta, data))
    whole = path.read_bytes()
    for damage in (b"", whole[:5], whole[:-1], whole + b"x", b"X" + whole[1:], whole[:40]):
        path.write_bytes(damage)
        with pytest.raises(CorruptStore, match=path.name):
            piece_file.load(path)
        with pytest.raises(CorruptStore, match="nothing may be deleted"):
            list(blocks_of_pieces(tmp_path))


def test_no_changed_byte_of_a_piece_file_is_overlooked(source: Encoded, tmp_path: Path) -> None:
    meta, data = source.trees(0)
    path = saved(tmp_path, PieceFile(DEAL, 0, source.content, source.root, meta, data))
    whole = path.read_bytes()
    for at in range(len(whole)):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        with pytest.raises(CorruptStore, match="another release" if at == 7 else "damaged"):
            piece_file.check(path)


def test_blocks_of_all_pieces_are_listed_while_the_node_drops_some(source: Encoded, tmp_path: Path) -> None:
    paths = []
    for shard in range(3):
        meta, data = source.trees(shard)
        piece = PieceFile(DEAL, shard, source.content, source.root, meta, data)
        paths.append(saved(tmp_path, piece))
    layout = source.layout(0)
    blocks = blocks_of_pieces(tmp_path)
    listed = [next(blocks)]
    for path in paths[1:]:
        path.unlink()
    assert [*listed, *blocks] == [*layout.meta, *layout.data]


async def test_every_share_can_be_restored_from_any_others_that_suffice(source: Encoded) -> None:
    manifest = source.manifest
    for index in range(manifest.group_count):
        group = manifest.group(index)
        shares = [*range(len(group.members)), *range(4, 6)]
        for wanted in shares:
            for gone in shares:

                async def get(share: int, mh: bytes, gone: int = gone) -> bytes | None:
                    return None if share == gone else source.store.get(mh)

                data = await restore_share(manifest, index, wanted, get)
                assert multihash.verify(
                    (*group.members, *group.parity)[
                        wanted if wanted < 4 else wanted - 4 + len(group.members)
                    ],
                    data,
                )


async def test_too_few_shares_are_told(source: Encoded) -> None:
    async def get(share: int, _mh: bytes) -> bytes | None:
        return None if share in (1, 2, 5) else source.store.get(_mh)

    with pytest.raises(UndecodableGroup):
        await restore_share(source.manifest, 0, 1, get)


async def test_garbage_parity_is_noticed(source: Encoded) -> None:
    async def get(share: int, mh: bytes) -> bytes | None:
        data = source.store.get(mh)
        return bytes(len(data)) if share >= 4 else data

    with pytest.raises(UndecodableGroup, match="parity"):
        await restore_share(source.manifest, 0, 0, get)


def test_the_shelf_knows_which_shards_hold_a_block(source: Encoded) -> None:
    shelf = ManifestShelf()
    shelf.put(source.root, source.manifest)
    for shard in range(6):
        layout = source.layout(shard)
        for mh in layout.data:
            assert shard in shelf.locate(mh)[source.root]
    for mh in source.manifest.interior:
        shards = shelf.locate(mh)[source.root]
        assert all(shard in shards for shard in range(6))
    assert shelf.locate(b"\x12\x20" + bytes(32)) == {}


def test_the_shelf_is_bounded(source: Encoded) -> None:
    shelf = ManifestShelf(max_rows=1)
    first, second = CID.of(b"1"), CID.of(b"2")
    shelf.put(first, source.manifest)
    shelf.put(second, source.manifest)
    assert first not in shelf
    assert second in shelf


def test_an_incomplete_dag_is_told_before_anything_is_paid(tmp_path: Path) -> None:
    store = a_store(tmp_path)
    root = add_files(store, FILES)
    found = survey(store, root)
    assert found.leaf_bytes == sum(map(len, FILES.values()))
    store.delete_many([next(iter(found.leaves))])
    with pytest.raises(IncompleteDag, match="not here"):
        survey(store, root)
    store.close()
