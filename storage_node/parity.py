"""Makes a plan's parity blocks, a few groups at a time, and puts them into the local store."""

from __future__ import annotations

from collections.abc import Callable

from merkledag import multihash
from proofs.erasure.groups import encode_plan
from proofs.erasure.manifest import Plan
from storage_node.blockstore.interface import BlockClass, Blockstore

# Parity made before it is stored: what is in memory is this many bytes and what is encoded together.
BATCH_BYTES = 16 * 1024 * 1024

Advance = Callable[[int], None]


def make_parity(store: Blockstore, plan: Plan, advance: Advance) -> list[bytes]:
    """The multihashes of all parity blocks, group after group, each stored as a cache block.

    Cache blocks, so that they leave by themselves if nobody takes them over. ``advance`` is told of
    bytes of data whose parity is made. Raises BlockNotFound, StoreFull. Hold a lease, and run it in a thread.
    """
    made: list[bytes] = []
    batch: list[tuple[bytes, bytes]] = []
    size_bytes = 0
    for protected_bytes, parity in encode_plan(plan, store.get):
        for data in parity:
            name = multihash.digest(data)
            made.append(name)
            batch.append((name, data))
            size_bytes += len(data)
        if size_bytes >= BATCH_BYTES:
            store.put_many(batch, BlockClass.CACHE)
            batch, size_bytes = [], 0
        advance(protected_bytes)
    store.put_many(batch, BlockClass.CACHE)
    return made
