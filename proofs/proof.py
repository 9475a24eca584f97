"""Verifying a proof of whichever kind the challenge asks for."""

from __future__ import annotations

from proofs import merkle_proof
from proofs.challenge import Challenge
from proofs.kinds import ProofKind
from proofs.kzg import proof as kzg_proof
from proofs.walk import ShownUnit


def verify(challenge: Challenge, proof: bytes) -> list[ShownUnit]:
    """The drawn units, those of the data first, if `proof` answers `challenge`.

    Else raises InvalidProof and nothing else, for any bytes.
    """
    if challenge.kind is ProofKind.MERKLE:
        return merkle_proof.verify(challenge, proof)
    return kzg_proof.verify(challenge, proof)
