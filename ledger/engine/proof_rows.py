"""The rows of the table `proofs`: where each proof of storage is, and what a check of it needs of the state.

P ‖ dataset ‖ u64be period                     place of a period's proof: u64be height ‖ u32be index
S ‖ deal ‖ u16be shard ‖ u64be height          place of the answer to a spot challenge in that block
W ‖ u64be height                               the block's `Witness.state`
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ledger.engine.row_keys import HEIGHT, MAX_HEIGHT, place_key, read_place
from ledger.engine.witness import Witness

PROOFS = b"proofs"


def put_proofs(txn: Any, tables: Mapping[bytes, Any], height: int, witness: Witness) -> None:
    """Keeps a block's rows, in the transaction that writes it."""
    for subject, index in sorted(witness.places.items()):
        txn.put(subject, place_key(height, index), db=tables[PROOFS])
    if witness.state:
        txn.put(_witness_key(height), witness.state, db=tables[PROOFS])


def drop_proofs(txn: Any, tables: Mapping[bytes, Any], gone: Mapping[bytes, bytes]) -> None:
    """Drops rows of proofs (name → place) that leave, and their blocks' witnesses."""
    for subject, place in sorted(gone.items()):
        if txn.get(subject, db=tables[PROOFS]) == place:
            txn.delete(subject, db=tables[PROOFS])
    for height in sorted({read_place(place)[0] for place in gone.values()}):
        txn.delete(_witness_key(height), db=tables[PROOFS])


def read_proofs(
    txn: Any, tables: Mapping[bytes, Any], subject: bytes, number: int
) -> Iterator[tuple[int, tuple[int, int]]]:
    """(number, place) under a name without its number, from `number` down."""
    with txn.cursor(tables[PROOFS]) as cursor:
        following = subject + HEIGHT.pack(min(number, MAX_HEIGHT) + 1)
        found = cursor.prev() if cursor.set_range(following) else cursor.last()
        while found and cursor.key()[: -HEIGHT.size] == subject:
            yield HEIGHT.unpack(cursor.key()[-HEIGHT.size :])[0], read_place(cursor.value())
            found = cursor.prev()


def read_witness(txn: Any, tables: Mapping[bytes, Any], height: int) -> bytes | None:
    """What a block's proofs were kept with."""
    value: bytes | None = txn.get(_witness_key(height), db=tables[PROOFS])
    return value


def _witness_key(height: int) -> bytes:
    return b"W" + HEIGHT.pack(height)
