"""Verifying a proof of whichever kind the challenge asks for."""

from __future__ import annotations

from proofs import merkle_proof
from proofs.challenge import Challenge
from proofs.errors import InvalidProof
from proofs.kinds import ProofKind


def verify(challenge: Challenge, proof: bytes) -> None:
    """Returns if `proof` answers `challenge`, else raises InvalidProof and nothing else, for any bytes."""
    if challenge.kind is ProofKind.MERKLE:
        merkle_proof.verify(challenge, proof)
    else:
        raise InvalidProof(f"no proofs of kind {challenge.kind.value!r} are known here")
