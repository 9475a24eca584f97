"""Whether what a ledger's folder keeps is what was written, as far as hashes and forms tell."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from ledger.engine.errors import PrunedHistory, StoreError
from ledger.engine.history import History
from ledger.engine.storage import LedgerStorage
from merkledag.cid import CID


def find_damage(storage: LedgerStorage, looked: Callable[[int], object]) -> Iterator[str]:
    """A line for each thing that is wrong, of an open store that nobody uses; `looked` is told of each block.

    All of the state is held against the last block's app hash, blocks and transactions against the IDs by
    which they are found. Receipts, events and the journal have no hash: that they decode is all that shows.
    """
    try:
        storage.check_state()
    except StoreError as error:
        yield str(error)
    history = History(storage)
    first = min(history.first_height(), history.pruned().blocks + 1)  # a later start needs its reason
    for height in range(first, storage.height() + 1):
        led_to = storage.app_hash() if height == storage.height() else None
        try:
            yield from (f"block {height}: {each}" for each in _in_block(history, height, led_to))
        except StoreError as error:
            yield f"block {height}: {error}"
        looked(height)


def _in_block(history: History, height: int, led_to: bytes | None) -> Iterator[str]:
    block = history.block(height)
    if block is None:
        yield "is missing"
        return
    if led_to not in (None, block.app_hash):
        yield "says another app hash than the state has"
    if history.node(block.cid) is None:
        yield "is not found by its ID"
    if height <= history.pruned().blocks:
        return
    if history.events(height) is None:
        yield "its events are missing"
    for cid in block.txs:
        try:
            yield from _of_transaction(history, cid)
        except PrunedHistory:
            continue


def _of_transaction(history: History, cid: CID) -> Iterator[str]:
    found = history.tx(cid)
    if found is None:
        yield f"transaction {cid} is not found by its ID"
        return
    if found.receipt.tx_id != cid and history.tx(found.receipt.tx_id) is None:
        yield f"transaction {cid} is not found by its ID without a signature, {found.receipt.tx_id}"
