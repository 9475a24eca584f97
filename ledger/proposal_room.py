"""Room in a proposed block: bytes, places and time, half of it for proofs first."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from ledger import limits


@dataclass(slots=True)
class Room:
    """What is left in a proposal; `tries` is how many candidates may still be run."""

    size_bytes: int
    places: int
    other_bytes: int
    other_places: int
    tries: int

    @classmethod
    def for_candidates(
        cls, candidates: Iterable[bytes], is_proof: Callable[[bytes], bool], max_bytes: int, max_txs: int
    ) -> Room:
        """Others may have half, and of the other half what these proofs leave; more than fail is tried."""
        size_bytes, places = min(max_bytes, limits.MAX_BLOCK_BYTES), min(max_txs, limits.MAX_BLOCK_TXS - 1)
        proofs = [len(raw) for raw in candidates if is_proof(raw)]
        return cls(
            size_bytes,
            places,
            other_bytes=min(size_bytes - min(size_bytes // 2, sum(proofs)), limits.MAX_BLOCK_BYTES // 2),
            other_places=min(places - min(places // 2, len(proofs)), limits.MAX_BLOCK_TXS // 2),
            tries=2 * places,
        )

    def has_for(self, raw: bytes, is_proof: bool) -> bool:
        """Whether a candidate fits, and may be run."""
        fits = len(raw) <= self.size_bytes and self.places > 0 and self.tries > 0
        return fits and (is_proof or (len(raw) <= self.other_bytes and self.other_places > 0))

    def take(self, raw: bytes, is_proof: bool) -> None:
        """A candidate is in the block."""
        self.size_bytes -= len(raw)
        self.places -= 1
        if not is_proof:
            self.other_bytes -= len(raw)
            self.other_places -= 1
