"""From a finalized block to what is signed and stored; and back again when the log is replayed."""

from __future__ import annotations

from dataclasses import dataclass

from ledger.application import Application, BlockInput, BlockResult
from ledger.engine import witness
from ledger.engine.blocks import (
    Block,
    BlockEvents,
    Receipt,
    decode_log_payload,
    encode_journal,
    encode_log_payload,
    encode_outcome,
    node_cid,
)
from ledger.engine.errors import CorruptStore, ReplayMismatch
from ledger.engine.storage import LedgerStorage
from ledger.engine.stored import StoredBlock, StoredTx
from ledger.errors import CorruptState, InvalidBlock, InvalidGenesis
from ledger.genesis import Genesis
from ledger.genesis_state import genesis_items
from ledger.transactions import decode_beacon
from merkledag import dag_cbor
from merkledag.cid import CID
from merkledag.ed25519 import Signer
from proofs.beacon import chain as beacon_chain


@dataclass(frozen=True, slots=True)
class Assembled:
    """A block ready to be written: its header, receipts (the beacon's first), events and stored form."""

    block: Block
    receipts: tuple[Receipt, ...]
    events: BlockEvents
    stored: StoredBlock


def assemble(
    app: Application, given: BlockInput, result: BlockResult, prev: CID | None, signer: Signer
) -> Assembled:
    """The block of what `finalize_block` made of `given`, signed by its proposer."""
    return _stored(app, _block(app, given, result, prev).signed(signer), given.txs, result)


def assemble_decided(app: Application, given: BlockInput, result: BlockResult) -> Assembled:
    """The same of a block that validators decided: their votes and headers stand for signature and `prev`."""
    return _stored(app, _block(app, given, result, None), given.txs, result)


def _block(app: Application, given: BlockInput, result: BlockResult, prev: CID | None) -> Block:
    signature = decode_beacon(given.txs[0]).beacon
    return Block(
        account=given.proposer,
        app_hash=result.app_hash,
        beacon=beacon_chain.next_value(app.beacon, signature),
        block_time_s=given.block_time_s,
        chain=app.chain_id,
        height=given.height,
        misbehaviour=given.misbehaviour,
        prev=prev,
        time=result.time,
        txs=tuple(node_cid(raw) for raw in given.txs),
    )


def _stored(app: Application, block: Block, txs: tuple[bytes, ...], result: BlockResult) -> Assembled:
    raw_block = block.encode()
    receipts = tuple(
        Receipt.of(one, block.height, cid) for one, cid in zip(result.tx_results, block.txs, strict=True)
    )
    events = BlockEvents(block.height, result.time, tuple(result.events))
    stored = StoredBlock(
        height=block.height,
        block=raw_block,
        block_digest=node_cid(raw_block).digest,
        txs=[
            StoredTx(raw, cid.digest, receipt.tx_id.digest, encode_outcome(receipt))
            for raw, cid, receipt in zip(txs, block.txs, receipts, strict=True)
        ],
        events=dag_cbor.encode(events.to_map()),
        journal=encode_journal(result.time, result.entries),
        writes=result.writes,
        app_hash=result.app_hash,
        log_payload=encode_log_payload(raw_block, txs),
        witness=witness.collect(app, block.account, txs, result.tx_results),
    )
    return Assembled(block, receipts, events, stored)


def load_application(storage: LedgerStorage, genesis: Genesis | None = None) -> Application:
    """The application of an open store, the write-ahead log replayed; a new store is created from `genesis`.

    Raises CorruptStore (ReplayMismatch when a replayed block gives another app hash than its header says),
    InvalidGenesis when the store is new and no genesis is given, or another one than the store's.
    """
    kept = storage.genesis()
    if kept is None:
        if genesis is None:
            raise InvalidGenesis(f"{storage.folder} holds no ledger yet; it needs a genesis")
        storage.create(genesis.encode(), genesis_items(genesis.validated()).items())
    elif genesis is not None and genesis.encode() != kept:
        raise InvalidGenesis(f"{storage.folder} holds a ledger of another genesis")
    try:
        app = Application(Genesis.decode(storage.genesis() or b""), storage.committed())
    except (CorruptState, InvalidGenesis) as error:
        raise CorruptStore(f"the ledger's state is damaged ({error}); restore it from a backup") from error
    if (app.height, app.app_hash) != (storage.height(), storage.app_hash()):
        raise CorruptStore(
            f"the ledger's state is damaged: app hash {app.app_hash.hex()} at {app.height}, not "
            f"{(storage.app_hash() or b'').hex()} at {storage.height()}; restore it from a backup"
        )
    for record in storage.pending():
        raw_block, txs = decode_log_payload(record.payload)
        made = run_again(app, raw_block, txs, record.height, "of the write-ahead log")
        storage.apply(made.stored)
        app.commit()
    return app


def run_again(app: Application, raw: bytes, txs: tuple[bytes, ...], height: int, where: str) -> Assembled:
    """What a block that was made before changes, run again on `app`: the caller stores it, then commits.

    Raises CorruptStore for a block that is not `height`'s as the operator signed it (who signed what
    validators decided is for the caller to know), ReplayMismatch when it does not run, or gives another app
    hash than its header says; `where` tells in messages whose block it is.
    """
    try:
        block = Block.decode(raw)
    except ValueError as error:
        raise CorruptStore(f"block {height} {where} does not decode: {error}") from error
    is_signed = bool(app.genesis.validators) or block.verify()
    if block.height != height or not is_signed or block.txs != tuple(node_cid(tx) for tx in txs):
        raise CorruptStore(f"block {height} {where} is not what its operator signed")
    try:
        result = app.finalize_block(
            BlockInput(height, block.block_time_s, block.account, txs, block.misbehaviour)
        )
    except InvalidBlock as error:
        raise ReplayMismatch(f"block {height} {where} does not run again: {error}") from error
    if result.app_hash != block.app_hash:
        app.abort()
        raise ReplayMismatch(
            f"replaying block {height} gave app hash {result.app_hash.hex()}, its header {where} says "
            f"{block.app_hash.hex()}; use the release that wrote it, or restore the ledger from a backup"
        )
    return _stored(app, block, txs, result)
