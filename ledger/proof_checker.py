"""Verifying proofs for the rules: KZG proofs many at a time, and none twice."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from hashlib import sha256
from itertools import islice

from ledger import limits
from proofs.challenge import Challenge
from proofs.errors import InvalidProof
from proofs.kinds import ProofKind
from proofs.kzg.proof import verify_many
from proofs.proof import verify

Claim = tuple[Challenge, bytes]  # what is asked for, and the bytes that are to answer it


def points_of(kind: ProofKind, k: int, data_leaves: int, meta_k: int, meta_leaves: int) -> int:
    """What verifying a proof counts for in `limits.MAX_KZG_POINTS_PER_BLOCK`.

    Merkle proofs count for nothing: hashing their bytes takes no longer than a block's bytes allow for.
    """
    if kind is not ProofKind.KZG:
        return 0
    return limits.KZG_POINTS_PER_PROOF + min(k, data_leaves) + min(meta_k, meta_leaves)


def cost_of(challenge: Challenge) -> int:
    """The points of a proof that answers this challenge."""
    return points_of(challenge.kind, challenge.k, challenge.data.sum, challenge.meta_k, challenge.meta.sum)


class RememberingChecker:
    """Verdicts on proofs, remembered: each is looked at when it is proposed and when it is run.

    A verdict follows from the challenge and the bytes alone, so remembering changes none.
    """

    def __init__(self) -> None:
        self._verdicts: OrderedDict[tuple[Challenge, bytes], str | None] = OrderedDict()

    def verify(self, challenge: Challenge, proof: bytes) -> None:
        """Raises InvalidProof."""
        key = _key(challenge, proof)
        if key not in self._verdicts:
            try:
                verify(challenge, proof)
                self._remember(key, None)
            except InvalidProof as error:
                self._remember(key, str(error))
        why = self._verdicts[key]
        if why is not None:
            raise InvalidProof(why)

    def verify_ahead(self, claims: Iterable[Claim]) -> None:
        """Verifies the KZG proofs among these together, so that `verify` then knows them."""
        unknown = {
            key: claim
            for claim in claims
            if claim[0].kind is ProofKind.KZG and (key := _key(*claim)) not in self._verdicts
        }
        left = iter(unknown.items())
        while batch := dict(islice(left, limits.KZG_BATCH)):
            verdicts = verify_many(list(batch.values()))
            for key, error in zip(batch, verdicts, strict=True):
                self._remember(key, None if error is None else str(error))

    def _remember(self, key: tuple[Challenge, bytes], why: str | None) -> None:
        self._verdicts[key] = why
        if len(self._verdicts) > limits.MAX_REMEMBERED_PROOFS:
            self._verdicts.popitem(last=False)


def _key(challenge: Challenge, proof: bytes) -> tuple[Challenge, bytes]:
    return challenge, sha256(proof).digest()
