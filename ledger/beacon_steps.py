"""Steps of the beacon that were verified: each is looked at when it is proposed and when it is run."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

from proofs.beacon import chain as beacon

MAX_REMEMBERED_STEPS = 4  # a signature costs milliseconds; an engine verifies the next one ahead


class RememberingBeacons:
    """Verifies beacon signatures, one by one or those of many blocks together, and remembers the sound ones.

    What it remembers counts for the very same key, height, value before and signature alone.
    """

    def __init__(self) -> None:
        self._verify_step = lru_cache(MAX_REMEMBERED_STEPS)(beacon.verify_step)
        self._ahead: dict[tuple[bytes, str, int, bytes, bytes], bytes] = {}

    def verify_step(
        self, public_key: bytes, chain_id: str, height: int, previous: bytes, signature: bytes
    ) -> bytes:
        """As `proofs.beacon.chain.verify_step`. May run in another thread."""
        value = self._ahead.get((public_key, chain_id, height, previous, signature))
        if value is None:
            return self._verify_step(public_key, chain_id, height, previous, signature)
        return value

    def look_ahead(
        self,
        public_key: bytes,
        chain_id: str,
        first_height: int,
        previous: bytes,
        signatures: Sequence[bytes],
    ) -> int:
        """Verifies consecutive signatures of one key together; returns how many sound ones come first.

        Remembers these until the next call, and nothing of others: `verify_step` refuses the first bad one.
        """
        keys = [public_key] * len(signatures)
        values = beacon.verify_history(keys, chain_id, first_height, previous, signatures)
        before = (previous, *values)
        self._ahead = {
            (public_key, chain_id, first_height + index, before[index], signatures[index]): value
            for index, value in enumerate(values)
        }
        return len(values)
