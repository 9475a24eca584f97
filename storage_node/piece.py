"""Which blocks one shard of a deal consists of, in which order, and whether they are what the ledger says."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from proofs.commitment import PieceRow, PieceTree
from proofs.erasure.manifest import Manifest
from proofs.kinds import ProofKind


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

    Same order as `proofs.erasure.manifest.metadata_piece`.
    """
    meta = dict.fromkeys([*manifest_blocks, *manifest.interior])
    return PieceLayout(tuple(meta), tuple(multihash for multihash, _ in manifest.piece(shard)))


class BlockRow(Protocol):
    """A block's commitment of any kind: how many units it has, and the root of the tree over them."""

    @property
    def leaves(self) -> int: ...
    @property
    def root(self) -> bytes: ...


Row = Callable[[bytes], BlockRow]


def piece_tree(multihashes: Iterable[bytes], row: Row, kind: ProofKind = ProofKind.MERKLE) -> PieceTree:
    """The sum tree of one part; ``row`` gives a block's commitment of this kind, cached or computed."""
    return PieceTree([piece_row(multihash, row(multihash)) for multihash in multihashes], kind=kind)


def piece_row(multihash: bytes, row: BlockRow) -> PieceRow:
    """One block of a piece's tree."""
    return PieceRow(multihash, row.leaves, row.root)
