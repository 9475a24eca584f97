"""Whether a proof shows what was asked for, and how much of a block's time for KZG proofs it takes."""

from __future__ import annotations

from ledger import limits
from proofs import merkle_proof
from proofs.challenge import Challenge
from proofs.errors import InvalidProof
from proofs.kinds import ProofKind
from tests.ledger.naive.state import Map, Plain
from tests.proofs.kzg import simple_verifier


def points(of: Map, data_leaves: int, meta_leaves: int, meta_challenges: int) -> int:
    """What a proof of this deal or dataset counts for: 16 and one a leaf, if it is one by KZG."""
    if of["proof"] != "kzg":
        return 0
    return 16 + min(int(of["challenges"]), data_leaves) + min(meta_challenges, meta_leaves)


def is_full(s: Plain, more: int) -> bool:
    return more > 0 and s.kzg_points + more > limits.MAX_KZG_POINTS_PER_BLOCK


def shows(challenge: Challenge, proof: bytes) -> bool:
    """The verdict; on KZG proofs by the second, simple verifier."""
    if challenge.kind is ProofKind.MERKLE:
        try:
            merkle_proof.verify(challenge, proof)
        except InvalidProof:
            return False
        return True
    data, meta = challenge.data, challenge.meta
    return simple_verifier.accepts(
        challenge.seed,
        (data.hash, data.sum),
        challenge.data_depth,
        (meta.hash, meta.sum),
        challenge.meta_depth,
        challenge.k,
        challenge.meta_k,
        proof,
    )
