"""The rows that a block adds to the database, beside those of the state."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ledger.engine.proof_rows import put_proofs
from ledger.engine.row_keys import HEIGHT, journal_key, place_key
from ledger.engine.stored import StoredBlock


def put_block(txn: Any, tables: Mapping[bytes, Any], block: StoredBlock) -> None:
    """Adds the block that follows the last one, in a write transaction."""
    height = HEIGHT.pack(block.height)
    index = [(block.block_digest, b"B" + place_key(block.height, 0))]
    txn.put(height, block.block, db=tables[b"blocks"], append=True)
    for number, tx in enumerate(block.txs):
        key = place_key(block.height, number)
        txn.put(key, tx.raw, db=tables[b"txs"], append=True)
        txn.put(key, tx.receipt, db=tables[b"receipts"], append=True)
        index.append((tx.signed_digest, b"S" + key))
        index.append((tx.unsigned_digest, b"T" + key))
    for digest, place in sorted(index):
        txn.put(digest, place, db=tables[b"index"])
    txn.put(height, block.events, db=tables[b"events"], append=True)
    for account, row in sorted(block.journal.items()):
        txn.put(journal_key(account, block.height), row, db=tables[b"journal"])
    put_proofs(txn, tables, block.height, block.witness)
    if block.light:
        txn.put(height, block.light, db=tables[b"lights"])
    put_tip(txn, tables, block.height, block.app_hash)


def put_tip(txn: Any, tables: Mapping[bytes, Any], height: int, app_hash: bytes) -> None:
    """Notes which block the state is the one after."""
    meta = tables[b"meta"]
    txn.put(b"height", HEIGHT.pack(height), db=meta)
    txn.put(b"app_hash", app_hash, db=meta)
