"""What a node's owner does not keep: content roots, manifests and single blocks, by their multihash."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self

from merkledag.cid import CID
from storage_node.custody import ShardTerms
from storage_node.piece_file import PieceHead


@dataclass(frozen=True, slots=True)
class Denylist:
    """A set of multihashes. The content under a denied root counts as denied, whatever block it is."""

    multihashes: frozenset[bytes] = frozenset()

    @classmethod
    def of(cls, cids: Iterable[CID]) -> Self:
        """From CIDs; an identity CID names no block and denies nothing."""
        return cls(frozenset(cid.multihash for cid in cids if not cid.is_identity))

    def denies_terms(self, terms: ShardTerms) -> bool:
        """Whether a deal is for denied content."""
        return terms.content.multihash in self.multihashes or terms.manifest.multihash in self.multihashes

    def denies_any(self, multihashes: Iterable[bytes]) -> bool:
        """Whether one of the blocks is denied."""
        return bool(self.multihashes) and any(each in self.multihashes for each in multihashes)

    def denies_piece(self, piece: PieceHead) -> bool:
        """Whether a held piece is of denied content or has a denied block. Reads all its rows.

        Raises CorruptStore, OSError.
        """
        roots = (piece.content.multihash, piece.manifest.multihash)
        return self.denies_any(roots) or self.denies_any(piece.multihashes())
