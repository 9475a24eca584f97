"""Verifying proofs for the rules: KZG proofs many at a time, and none twice."""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from hashlib import sha256
from itertools import islice

from ledger import limits
from ledger.errors import Refusal
from ledger.result import Code
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

    def verify_ahead(self, claims: Iterable[tuple[bytes, Claim]], most_points: int) -> None:
        """Looks at the KZG proofs among these, each with its sender, together: `verify` then knows them."""
        for batch in self.batches(claims, most_points):
            self.note(batch, look(batch))

    def batches(
        self, claims: Iterable[tuple[bytes, Claim]], most_points: int = limits.MAX_KZG_POINTS_PER_BLOCK
    ) -> Iterator[list[Claim]]:
        """The KZG proofs among these that nobody has looked at, of so many points at most, to be looked at.

        What `look` says of a batch is to be noted before the next one is taken. Nonces make a sender's proofs
        wait for one another, so those after an invalid one are left out. One of each sender comes first, then
        one, two, four, …: so nobody has many invalid ones verified.
        """
        rounds: dict[int, dict[_Key, tuple[bytes, Claim]]] = {}
        sent: Counter[bytes] = Counter()
        refused: set[bytes] = set()
        points = 0
        for sender, claim in claims:
            key = _key(*claim)
            if self.knows(*claim):
                if self._verdicts.get(key) is not None:
                    refused.add(sender)
                continue
            points += cost_of(claim[0])
            if points > most_points:
                break
            rounds.setdefault(sent[sender].bit_length(), {})[key] = sender, claim
            sent[sender] += 1
        for _, claimed in sorted(rounds.items()):
            left = ((key, *each) for key, each in claimed.items() if each[0] not in refused)
            while batch := list(islice(left, limits.KZG_BATCH)):
                yield [claim for _, _, claim in batch]
                refused |= {sender for key, sender, _ in batch if self._verdicts.get(key) is not None}

    def knows(self, challenge: Challenge, proof: bytes) -> bool:
        """Whether `verify` takes no longer than the proof's bytes allow for."""
        return challenge.kind is not ProofKind.KZG or _key(challenge, proof) in self._verdicts

    def note(self, claims: Sequence[Claim], verdicts: Sequence[str | None]) -> None:
        """What `look` said of them."""
        for claim, why in zip(claims, verdicts, strict=True):
            self._remember(_key(*claim), why)

    def _remember(self, key: _Key, why: str | None) -> None:
        self._verdicts[key] = why
        if len(self._verdicts) > limits.MAX_REMEMBERED_PROOFS:
            self._verdicts.popitem(last=False)


class KnownProofs:
    """What a checker knows, for who proposes a block: a proof that it would have to look at waits."""

    def __init__(self, checker: RememberingChecker) -> None:
        self._checker = checker

    def verify(self, challenge: Challenge, proof: bytes) -> None:
        """Raises InvalidProof, and refuses BLOCK_FULL."""
        if not self._checker.knows(challenge, proof):
            raise Refusal(Code.BLOCK_FULL, "nobody has looked at this proof yet; send it again")
        self._checker.verify(challenge, proof)


def _key(challenge: Challenge, proof: bytes) -> _Key:
    return challenge, sha256(proof).digest()
