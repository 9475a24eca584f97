"""Whether a block of the ledger is the one that a header is of."""

from __future__ import annotations

from ledger.engine.blocks import Block
from ledger.engine.cometbft.light.canonical import SECOND_NS
from ledger.engine.cometbft.light.header import HASH_BYTES, Header, data_hash


def differs(block: Block, header: Header) -> str:
    """What the block of a height has not of the header of that height; "" if it is its block."""
    if (block.chain, block.block_time_s) != (header.chain, header.time_ns // SECOND_NS):
        return "the time or the chain"
    if data_hash([cid.multihash[-HASH_BYTES:] for cid in block.txs]) != header.data_hash:
        return "the transactions"
    return ""
