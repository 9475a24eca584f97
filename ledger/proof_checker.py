"""Verifying proofs for the rules: KZG proofs many at a time, and none twice."""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Iterable, Sequence
from hashlib import sha256
from itertools import islice

from ledger import limits
from proofs.challenge import Challenge
from proofs.errors import InvalidProof
from proofs.kinds import ProofKind
from proofs.kzg.proof import verify_many
from proofs.proof import verify

Claim = tuple[Challenge, bytes]  # what is asked for, and the bytes that are to answer it
_Key = tuple[Challenge, bytes]  # what is asked for, and the hash of the bytes


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


def look(claims: Sequence[Claim]) -> list[str | None]:
    """What is wrong with each KZG proof, None for a sound one; together, in any thread."""
    return [None if error is None else str(error) for error in verify_many(claims)]


class RememberingChecker:
    """Verdicts on proofs, remembered: each is looked at when it is proposed and when it is run.

    A verdict follows from the challenge and the bytes alone, so remembering changes none.
    """

    def __init__(self) -> None:
        self._verdicts: OrderedDict[_Key, str | None] = OrderedDict()

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

    def verify_ahead(self, claims: Iterable[tuple[bytes, Claim]]) -> None:
        """Verifies the KZG proofs among these, each with its sender, together: `verify` then knows them.

        Nonces make a sender's proofs wait for one another, so those after an invalid one are left out. One of
        each sender is verified first, then one, two, four, …: so nobody has many invalid ones verified.
        """
        rounds: dict[int, dict[_Key, tuple[bytes, Claim]]] = {}
        sent: Counter[bytes] = Counter()
        refused: set[bytes] = set()
        for sender, claim in claims:
            key = _key(*claim)
            if claim[0].kind is not ProofKind.KZG:
                continue
            if key not in self._verdicts:
                rounds.setdefault(sent[sender].bit_length(), {})[key] = sender, claim
                sent[sender] += 1
            elif self._verdicts[key] is not None:
                refused.add(sender)
        for _, claimed in sorted(rounds.items()):
            left = ((key, *each) for key, each in claimed.items() if each[0] not in refused)
            while batch := list(islice(left, limits.KZG_BATCH)):
                verdicts = look([claim for _, _, claim in batch])
                for (key, sender, _), why in zip(batch, verdicts, strict=True):
                    self._remember(key, why)
                    if why is not None:
                        refused.add(sender)

    def unknown(self, claims: Iterable[tuple[bytes, Claim]]) -> list[Claim]:
        """The KZG proofs among these that nobody has looked at, one of each sender: `look` at them ahead."""
        found = {
            sender: claim
            for sender, claim in claims
            if claim[0].kind is ProofKind.KZG and _key(*claim) not in self._verdicts
        }
        return list(found.values())

    def note(self, claims: Sequence[Claim], verdicts: Sequence[str | None]) -> None:
        """What `look` said of them."""
        for claim, why in zip(claims, verdicts, strict=True):
            self._remember(_key(*claim), why)

    def _remember(self, key: _Key, why: str | None) -> None:
        self._verdicts[key] = why
        if len(self._verdicts) > limits.MAX_REMEMBERED_PROOFS:
            self._verdicts.popitem(last=False)


def _key(challenge: Challenge, proof: bytes) -> _Key:
    return challenge, sha256(proof).digest()
