"""What pruning leaves of old blocks in the database, and the rows that it takes away."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ledger.engine.proof_rows import drop_proofs
from ledger.engine.row_keys import HEIGHT

# Shorter than any transaction: the SHA-256 of the unsigned bytes of a proof that is no longer kept.
STUB_BYTES = 32
_PRUNED = b"pruned"
_REACHED = struct.Struct(">QQ")


@dataclass(frozen=True, slots=True)
class Pruned:
    """Up to which height the proofs are gone, and up to which one all transactions, receipts and events."""

    proofs: int
    blocks: int


@dataclass(frozen=True, slots=True)
class Pruning:
    """One step: `stubs` replace proofs (place → digest of the unsigned bytes); `heights` keep headers alone.

    `digests` leave the index with them, `proofs` (name → place) the table of proofs; `reached` is how far
    pruning then is.
    """

    stubs: Mapping[bytes, bytes]
    proofs: Mapping[bytes, bytes]
    heights: Sequence[int]
    digests: Sequence[bytes]
    reached: Pruned


def read_pruned(txn: Any, tables: Mapping[bytes, Any]) -> Pruned:
    """How far pruning is; in a ledger that began with a snapshot, at least that one's height."""
    value = txn.get(_PRUNED, db=tables[b"meta"])
    return Pruned(0, 0) if value is None else Pruned(*_REACHED.unpack(value))


def put_pruned(txn: Any, tables: Mapping[bytes, Any], reached: Pruned) -> None:
    """Notes how far pruning is."""
    txn.put(_PRUNED, _REACHED.pack(reached.proofs, reached.blocks), db=tables[b"meta"])


def prune_rows(txn: Any, tables: Mapping[bytes, Any], step: Pruning) -> None:
    """Takes a step, in the transaction of the block that it comes with."""
    for key, stub in step.stubs.items():
        txn.put(key, stub, db=tables[b"txs"])
    for height in step.heights:
        prefix = HEIGHT.pack(height)
        for name in (b"txs", b"receipts"):
            with txn.cursor(tables[name]) as cursor:
                found = cursor.set_range(prefix)
                while found and cursor.key().startswith(prefix):
                    found = cursor.delete()
        txn.delete(prefix, db=tables[b"events"])
        txn.delete(prefix, db=tables[b"lights"])
    for digest in sorted(step.digests):
        txn.delete(digest, db=tables[b"index"])
    drop_proofs(txn, tables, step.proofs)
    put_pruned(txn, tables, step.reached)
