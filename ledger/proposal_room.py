"""Room in a proposed block: bytes, places and time, half of it for proofs first."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from ledger import limits


@dataclass(slots=True)
class Room:
    """What is left in a proposal, in all and for others; `tries` is how many candidates may still be run.

    `until_ns` is when no more of them are, by `clock_ns`: what a transaction takes differs by ten times,
    and the other validators wait.
    """

    size_bytes: int
    places: int
    proof_tries: int
    other_bytes: int
    other_places: int
    other_tries: int
    clock_ns: Callable[[], int]
    until_ns: int
    other_until_ns: int

    @classmethod
    def for_candidates(
        cls,
        candidates: Iterable[bytes],
        is_proof: Callable[[bytes], bool],
        max_bytes: int,
        max_txs: int,
        clock_ns: Callable[[], int],
    ) -> Room:
        """Others may have half, and of the other half what these proofs leave. Twice as many are tried."""
        size_bytes, places = min(max_bytes, limits.MAX_BLOCK_BYTES), min(max_txs, limits.MAX_BLOCK_TXS - 1)
        proofs = [len(raw) for raw in candidates if is_proof(raw)]
        other_places = min(places - min(places // 2, len(proofs)), limits.MAX_BLOCK_TXS // 2)
        now = clock_ns()
        return cls(
            size_bytes,
            places,
            proof_tries=2 * places,
            other_bytes=min(size_bytes - min(size_bytes // 2, sum(proofs)), limits.MAX_BLOCK_BYTES // 2),
            other_places=other_places,
            other_tries=2 * other_places,
            clock_ns=clock_ns,
            until_ns=now + limits.MAX_PROPOSING_NS,
            other_until_ns=now + limits.MAX_PROPOSING_NS // (2 if proofs else 1),
        )

    def has_for(self, raw: bytes, is_proof: bool) -> bool:
        """Whether a candidate fits, and may be run."""
        if len(raw) > self.size_bytes or self.places <= 0:
            return False
        now = self.clock_ns()
        if is_proof:
            return self.proof_tries > 0 and now < self.until_ns
        return (
            now < self.other_until_ns
            and len(raw) <= self.other_bytes
            and self.other_places > 0
            and self.other_tries > 0
        )

    def count_try(self, is_proof: bool) -> None:
        """A candidate is run."""
        if is_proof:
            self.proof_tries -= 1
        else:
            self.other_tries -= 1

    def take(self, raw: bytes, is_proof: bool) -> None:
        """A candidate is in the block."""
        self.size_bytes -= len(raw)
        self.places -= 1
        if not is_proof:
            self.other_bytes -= len(raw)
            self.other_places -= 1
