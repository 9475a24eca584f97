"""What one block changes on disk: the shape in which the engine gives it to `storage`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from ledger.engine.witness import Witness
from ledger.store import Writes


class StoredTx(NamedTuple):
    """One transaction of a block: signed bytes, digests of its signed and unsigned CIDs, receipt bytes."""

    raw: bytes
    signed_digest: bytes
    unsigned_digest: bytes
    receipt: bytes


@dataclass(frozen=True, slots=True)
class StoredBlock:
    """Everything one block changes on disk. `light` is its light block where that is known already."""

    height: int
    block: bytes
    block_digest: bytes
    txs: Sequence[StoredTx]
    events: bytes
    journal: Mapping[bytes, bytes]
    writes: Writes
    app_hash: bytes
    log_payload: bytes
    witness: Witness
    light: bytes = b""
