"""Content for the tests of storing: folders of files cut into small blocks, and their pieces."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from merkledag import car
from merkledag.block import Block
from merkledag.builder import build_file
from merkledag.chunker import FixedSize
from merkledag.cid import CID
from merkledag.codecs import RAW
from merkledag.directory import DirEntry, build_directory
from merkledag.profile import ImportProfile
from proofs.commitment import PieceTree, commit_block
from proofs.erasure.manifest import Manifest, build_manifest, encode_manifest, metadata_piece, plan
from storage_node.blockstore.interface import Blockstore
from storage_node.blockstore.store import Store, open_store
from storage_node.parity import make_parity
from storage_node.piece import PieceLayout, piece_tree
from storage_node.survey import survey

CHUNK_BYTES = 4096
PROFILE = ImportProfile(chunker=FixedSize(CHUNK_BYTES), max_links=4)


def a_store(folder: Path, max_bytes: int | None = None) -> Store:
    """A real store that does not mind a full test disk."""
    return open_store(folder, max_bytes=max_bytes, reserve_bytes=0)


def some_bytes(size: int, seed: int = 1) -> bytes:
    return random.Random(seed).randbytes(size)


def add_files(store: Blockstore, files: Mapping[str, bytes]) -> CID:
    """The root of a folder with these files, in blocks of 4 KiB."""
    entries: list[DirEntry] = []
    for name, data in files.items():
        chunks = [data[start : start + CHUNK_BYTES] for start in range(0, len(data), CHUNK_BYTES)]
        link, blocks = build_file(PROFILE, chunks)
        put(store, list(blocks))
        entries.append(DirEntry(name, link.cid, link.tsize))
    link, made = build_directory(PROFILE, entries)
    put(store, made)
    return link.cid


def put(store: Blockstore, blocks: list[Block]) -> None:
    store.put_many((block.cid.multihash, block.data) for block in blocks)


@dataclass(frozen=True)
class Encoded:
    """A DAG with its parity and manifest, all in one store."""

    store: Blockstore
    content: CID
    manifest: Manifest
    root: CID
    meta: list[bytes]

    def layout(self, shard: int) -> PieceLayout:
        return PieceLayout(tuple(self.meta), tuple(mh for mh, _ in self.manifest.piece(shard)))

    def trees(self, shard: int) -> tuple[PieceTree, PieceTree]:
        layout = self.layout(shard)
        return (
            piece_tree(layout.meta, lambda mh: commit_block(self.store.get(mh))),
            piece_tree(layout.data, lambda mh: commit_block(self.store.get(mh))),
        )

    def car(self, shard: int, *, skip: set[bytes] | None = None) -> bytes:
        layout = self.layout(shard)
        names = [mh for mh in [*layout.meta, *layout.data] if not skip or mh not in skip]
        frames = [car.frame(Block(CID(1, RAW, mh), self.store.get(mh))) for mh in names]
        return car.header([self.root]) + b"".join(frames)


def encode(store: Blockstore, content: CID, k: int, m: int) -> Encoded:
    """Parity and manifest of content in a store."""
    found = survey(store, content)
    planned = plan(found.leaves.items(), k, m)
    parity = make_parity(store, planned, lambda _: None)
    manifest = build_manifest(content, planned, parity, found.interior)
    root, blocks = encode_manifest(manifest)
    put(store, blocks)
    return Encoded(store, content, manifest, root, list(dict.fromkeys(metadata_piece(manifest, blocks))))
