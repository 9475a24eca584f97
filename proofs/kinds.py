"""The kinds of proof, and all in which the trees of their datasets differ.

A dataset has one kind. Its blocks are cut into *units*, which are the leaves that sums count and that
challenges draw: 1 KiB of a block (merkle), or the commitment to one blob of a block (kzg). Everything above
the units is the same for both. Formulas: docs/proofs.md, "Commitments".
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from merkledag.block import MAX_BLOCK_BYTES
from proofs import tags
from proofs.bls.points import G1_BYTES
from proofs.kzg.field import DATA_BYTES, ELEMENTS


class ProofKind(StrEnum):
    """How a dataset is proven; the value is what stands in proofs and on the ledger."""

    MERKLE = "merkle"
    KZG = "kzg"

    @property
    def rules(self) -> KindRules:
        """What the trees over this kind need."""
        return _RULES[self]

    def unit_count(self, length_bytes: int) -> int:
        """Units of a block of this length; an empty block has one, empty, unit."""
        return -(-length_bytes // _RULES[self].unit_bytes) or 1


@dataclass(frozen=True, slots=True)
class KindRules:
    """One kind's units and tags. `commitment_bytes` is 0 where a unit is shown as the block's bytes."""

    unit_bytes: int
    commitment_bytes: int
    leaf_tag: bytes
    root_tag: bytes
    row_tag: bytes
    envelope_bytes: int  # the most that a proof has around its two parts

    @property
    def max_units(self) -> int:
        """Units of the longest block."""
        return -(-MAX_BLOCK_BYTES // self.unit_bytes)

    @property
    def max_shown_bytes(self) -> int:
        """The most that is shown of one unit."""
        return self.commitment_bytes or self.unit_bytes

    def shown_bytes(self, length_bytes: int, index: int) -> int:
        """What is shown of unit `index` of a block of this length."""
        return self.commitment_bytes or min(self.unit_bytes, length_bytes - index * self.unit_bytes)


_RULES = {
    ProofKind.MERKLE: KindRules(
        unit_bytes=1024,
        commitment_bytes=0,
        leaf_tag=tags.LEAF,
        root_tag=tags.PROOF_ROOT,
        row_tag=tags.PIECE_LEAF,
        envelope_bytes=128,
    ),
    ProofKind.KZG: KindRules(
        unit_bytes=ELEMENTS * DATA_BYTES,
        commitment_bytes=G1_BYTES,
        leaf_tag=tags.KZG_LEAF,
        root_tag=tags.KZG_ROOT,
        row_tag=tags.KZG_PIECE_LEAF,
        envelope_bytes=256,
    ),
}
