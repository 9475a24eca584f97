"""Finds damaged files of held pieces, and makes them anew from the blocks, without a ledger.

What the header of such a file still says is enough, if its checksum is right: manifest and shard tell which
blocks belong to the piece and in which order, and the roots whether the rows that are made of them are those
that the ledger has. Of a file whose header is damaged or that is gone its node learns from the ledger
(`acceptance.recover`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from merkledag.errors import MerkledagError
from merkledag.steps import Want, drive
from proofs.erasure.manifest import decode_manifest
from proofs.errors import ProofsError
from proofs.kinds import ProofKind
from storage_node import piece_file
from storage_node.blockstore.interface import Blockstore
from storage_node.errors import CorruptStore
from storage_node.piece import PieceLayout, Row, piece_layout, piece_tree
from storage_node.piece_file import PieceFile, PieceHead
from storage_node.rows import ProofRows

Advance = Callable[[int], None]


@dataclass(frozen=True, slots=True)
class DamagedPiece:
    """A piece's file and what is wrong with it."""

    path: Path
    reason: str


def damaged_pieces(folder: Path) -> list[DamagedPiece]:
    """The damaged piece files in a folder; reads all of them."""
    found: list[DamagedPiece] = []
    for path in map(folder.joinpath, piece_file.names(folder)):
        try:
            piece_file.check(path)
        except FileNotFoundError:
            continue  # its node has just let go of it
        except (CorruptStore, OSError) as error:
            found.append(DamagedPiece(path, str(error)))
    return found


class PieceRepair:
    """Makes pieces' files anew. ``kzg_row`` gives what KZG proofs need of a block."""

    def __init__(self, store: Blockstore, rows: ProofRows, kzg_row: Row) -> None:
        self._store = store
        self._rows = rows
        self._kzg_row = kzg_row

    def repair(self, path: Path, advance: Advance) -> PieceHead:
        """The new file in the place of a damaged one; ``advance`` is told of bytes of blocks.

        Rows are kept as they are made, so when this is killed the next time goes on. Raises CorruptStore
        where the header is damaged or the blocks are not those of the piece, BlockNotFound, OSError.
        """
        head = piece_file.read_head(path)
        layout = self._layout(head)
        names = [*layout.meta, *layout.data]
        row = self._kzg_row
        if head.proof is ProofKind.MERKLE:
            self._rows.ensure(names, advance)
            row = self._rows.row
        piece = PieceFile(
            head.deal,
            head.shard,
            head.content,
            head.manifest,
            piece_tree(layout.meta, row, head.proof),
            piece_tree(layout.data, row, head.proof),
        )
        if (piece.meta.root, piece.data.root) != (head.meta, head.data):
            if head.proof is ProofKind.MERKLE:
                self._rows.forget_hashes(names)  # they may be of blocks that have changed
            raise CorruptStore(
                f"{path}: its blocks do not lead to the piece's roots: `holdfast repo verify --heal` first"
            )
        saved = piece_file.save(path.parent, piece)
        if head.proof is ProofKind.MERKLE:
            self._rows.leave_to_piece(piece.rows())
        return saved

    def size_bytes(self, path: Path) -> int:
        """The bytes of the piece's blocks that are here. Raises as `repair`."""
        layout = self._layout(piece_file.read_head(path))
        return sum(self._store.size(name) or 0 for name in [*layout.meta, *layout.data])

    def _layout(self, head: PieceHead) -> PieceLayout:
        order: dict[bytes, None] = {}

        def answer(want: Want) -> bytes:
            order[want.cid.multihash] = None
            return self._store.get(want.cid.multihash)

        try:
            manifest = drive(decode_manifest(head.manifest), answer)
            _check_shard(manifest.node_count, head.shard)
        except (MerkledagError, ProofsError, ValueError) as error:
            raise CorruptStore(f"{head.path}: the piece's manifest is damaged: {error}") from error
        return piece_layout(list(order), manifest, head.shard)


def _check_shard(count: int, shard: int) -> None:
    if not 0 <= shard < count:
        raise ValueError(f"it has no shard {shard}")
