"""Which blocks one shard of a deal consists of, in which order, and whether they are what the ledger says."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from proofs.commitment import BlockCommitment, PieceRow, PieceTree
from proofs.manifest import Manifest


@dataclass(frozen=True, slots=True)
class PieceLayout:
    """A piece's multihashes: the metadata part (manifest blocks, interior nodes) and the data part."""

    meta: tuple[bytes, ...]
    data: tuple[bytes, ...]
    _members: frozenset[bytes] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_members", frozenset(self.meta) | frozenset(self.data))

    def __contains__(self, multihash: object) -> bool:
        return multihash in self._members

    @property
    def count(self) -> int:
        """Blocks in both parts."""
        return len(self.meta) + len(self.data)


def piece_layout(manifest_blocks: Sequence[bytes], manifest: Manifest, shard: int) -> PieceLayout:
    """The layout of shard ``shard``; ``manifest_blocks`` are the manifest's own multihashes, in decoding
    order.

    Same order as `proofs.manifest.metadata_piece`.
    """
    meta = dict.fromkeys([*manifest_blocks, *manifest.interior])
    return PieceLayout(tuple(meta), tuple(multihash for multihash, _ in manifest.piece(shard)))


Row = Callable[[bytes], BlockCommitment]


def piece_tree(multihashes: Iterable[bytes], row: Row) -> PieceTree:
    """The sum tree of one part; ``row`` gives a block's commitment, cached or computed."""
    rows: list[PieceRow] = []
    for multihash in multihashes:
        commitment = row(multihash)
        rows.append(PieceRow(multihash, commitment.leaves, commitment.root))
    return PieceTree(rows)
