"""Verifying a proof of whichever kind the challenge asks for."""

from __future__ import annotations

from proofs import merkle_proof
from proofs.challenge import Challenge
from proofs.errors import InvalidProof
from proofs.kinds import ProofKind
from proofs.walk import ShownUnit


def verify(challenge: Challenge, proof: bytes) -> list[ShownUnit]:
    """The drawn units, those of the data first, if `proof` answers `challenge`.

    Else raises InvalidProof and nothing else, for any bytes.
    """
    if challenge.kind is ProofKind.MERKLE:
        return merkle_proof.verify(challenge, proof)
    raise InvalidProof(f"no proofs of kind {challenge.kind.value!r} are known here")
