"""The forms of the transaction that makes a deal, and of the commitments to its pieces."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

from ledger import limits
from ledger.fields import Digest, Flag, Link, Uint, Wire, account, choice, nested, sequence, uint
from proofs.commitment import EMPTY, SumNode
from proofs.kinds import ProofKind

PIECE_BYTES = uint(high=limits.MAX_PIECE_BYTES)
PIECE_LEAVES = uint(high=limits.MAX_PIECE_LEAVES)


@dataclass(frozen=True, slots=True)
class PieceCommitment(Wire):
    """What one shard's node keeps: roots, leaves and bytes of its data and metadata.

    A leaf is 1 KiB of a block, or, in a deal proven by KZG, one blob. No metadata is 32 zero bytes, 0 and 0.
    """

    data_root: Digest
    data_leaves: Annotated[int, uint(1, limits.MAX_PIECE_LEAVES)]
    data_bytes: Annotated[int, PIECE_BYTES]
    meta_root: Digest
    meta_leaves: Annotated[int, PIECE_LEAVES]
    meta_bytes: Annotated[int, PIECE_BYTES]

    @property
    def data(self) -> SumNode:
        """The piece's node in the dataset's data tree."""
        return SumNode(self.data_root, self.data_leaves)

    @property
    def meta(self) -> SumNode:
        """The piece's node in the dataset's metadata tree."""
        return SumNode(self.meta_root, self.meta_leaves)

    @property
    def size_bytes(self) -> int:
        """Bytes of data and metadata: what the price is for."""
        return self.data_bytes + self.meta_bytes

    def is_plausible(self, kind: ProofKind) -> bool:
        """Whether any blocks could have these counts, by what a leaf of this kind holds at most."""
        has_meta = self.meta_leaves > 0 or (self.meta == EMPTY and self.meta_bytes == 0)
        return (
            has_meta
            and self.data_bytes <= self.data_leaves * kind.rules.unit_bytes
            and self.meta_bytes <= self.meta_leaves * kind.rules.unit_bytes
        )


@dataclass(frozen=True, slots=True)
class CreateDeal(Wire):
    """Pays for keeping `pieces`, one a shard, for `periods`, `price` units a shard a period.

    `providers` is empty (they are drawn) or names one for each piece. There are m pieces, or m − k + 1 when
    `replicated`. `challenges` is the number of leaves drawn a period, and `proof` how they are shown.
    """

    kind: ClassVar[str] = "create_deal"
    content: Link
    manifest: Link
    k: Annotated[int, uint(1, limits.MAX_SHARDS)]
    m: Annotated[int, uint(1, limits.MAX_SHARDS)]
    replicated: Flag
    periods: Annotated[int, uint(1, limits.MAX_DEAL_PERIODS)]
    price: Uint
    challenges: Uint
    pieces: Annotated[tuple[PieceCommitment, ...], sequence(nested(PieceCommitment), limits.MAX_SHARDS)]
    providers: Annotated[tuple[bytes, ...], sequence(account(), limits.MAX_SHARDS)] = ()
    proof: Annotated[ProofKind, choice(ProofKind)] = ProofKind.MERKLE
