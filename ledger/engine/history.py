"""What the store remembers, in typed form: blocks, transactions, receipts, events, IPLD nodes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ledger import transactions
from ledger.engine import witness
from ledger.engine.archive import GivenBlock
from ledger.engine.blocks import Block, BlockEvents, Receipt, decode_journal, decode_outcome, node_cid
from ledger.engine.errors import CorruptStore, PrunedHistory
from ledger.engine.pruned_rows import Pruned
from ledger.engine.storage import LedgerStorage
from ledger.errors import InvalidTransaction
from ledger.journal import Entry
from ledger.state_tree import StateProof
from ledger.transactions import Beacon, Transaction
from merkledag import dag_cbor
from merkledag.cid import CID
from merkledag.codecs import DAG_CBOR
from merkledag.errors import MerkledagError
from merkledag.multihash import SHA2_256

if TYPE_CHECKING:
    from ledger.engine.cometbft.light.block import LightBlock

ORIGIN_FILE = "origin.car"


@dataclass(frozen=True, slots=True)
class CommittedTx:
    """A transaction in a block: where it is, what it says and what became of it."""

    height: int
    index: int
    tx: Transaction | Beacon
    receipt: Receipt


@dataclass(frozen=True, slots=True)
class Change:
    """An entry of the journal: the block's height and ledger time, its number among the account's in it."""

    height: int
    index: int
    time: int
    entry: Entry


class History:
    """Reads of one store. Every method raises StoreError (CorruptStore for bytes that do not decode)."""

    def __init__(self, storage: LedgerStorage) -> None:
        self._storage = storage

    def pruned(self) -> Pruned:
        """Up to which heights transactions are no longer kept."""
        return self._storage.pruned()

    def first_height(self) -> int:
        """From which block on there are headers here."""
        return self._storage.first_height()

    def signed_height(self) -> int:
        """The last block of which it is known here which validators signed it; 0 if there is none."""
        return self._storage.lit_height()

    def last_light(self) -> LightBlock | None:
        """The newest light block of a chain of validators; None where none was noted yet."""
        from ledger.engine.cometbft.light.block import LightBlock
        from ledger.engine.cometbft.light.errors import InvalidLightBlock

        raw = self._storage.last_light()
        try:
            return None if raw is None else LightBlock.decode(raw)
        except InvalidLightBlock as error:
            raise CorruptStore(f"the last light block does not decode: {error}") from error

    @property
    def origin(self) -> Path | None:
        """The archive of the end of the chain that this one goes on from, if it does."""
        path = self._storage.folder / ORIGIN_FILE
        return path if path.exists() else None

    def block(self, height: int) -> Block | None:
        """The block at `height`."""
        raw = self._storage.block(height)
        if raw is None:
            return None
        try:
            return Block.decode(raw)
        except ValueError as error:
            raise CorruptStore(f"block {height} does not decode: {error}") from error

    def given(self, height: int) -> GivenBlock:
        """A block up to the last one, with all its transactions, and its header if that is known.

        Raises PrunedHistory for what is not kept.
        """
        raw, block = self._storage.block(height), self.block(height)
        if raw is None or block is None:
            raise PrunedHistory(f"block {height} is not kept here: this ledger began with a later state")
        txs = tuple(self._storage.txs(height))
        if tuple(map(node_cid, txs)) != block.txs:
            if len(txs) == len(block.txs):
                raise CorruptStore(f"the transactions of block {height} are not those that it names")
            raise PrunedHistory(f"the transactions of block {height} are no longer kept here")
        return GivenBlock(block, raw, txs, self._storage.light(height) or b"")

    def tx(self, cid: CID) -> CommittedTx | None:
        """The transaction with this ID, or whose signed bytes have this CID. Raises PrunedHistory."""
        place = self._storage.find(_digest(cid))
        if place is None or place.kind == b"B":
            return None
        raw = self._storage.tx(place.height, place.index)
        receipt = self._storage.receipt(place.height, place.index)
        if raw is None and place.height <= self._storage.pruned().proofs:
            raise PrunedHistory(f"proofs up to block {self._storage.pruned().proofs} are no longer kept here")
        if raw is None or receipt is None:
            raise CorruptStore(f"transaction {place.index} of block {place.height} is missing")
        tx = _decode_tx(raw)
        tx_id = tx.id if isinstance(tx, Transaction) else node_cid(raw)
        if cid not in (tx_id, node_cid(raw)):
            raise CorruptStore(f"where {cid} should be is another transaction: {tx_id}")
        return CommittedTx(place.height, place.index, tx, decode_outcome(receipt, tx_id, place.height))

    def account(self, account: bytes, before: tuple[int, int], limit: int) -> list[Change]:
        """At most `limit` changes of an account's balance or stake, the newest first, before a place."""
        found: list[Change] = []
        height, index = before
        for at, raw in self._storage.journal(account, height):
            time, entries = decode_journal(raw, account)
            upto = min(index, len(entries)) if at == height else len(entries)
            for number in reversed(range(upto)):
                if len(found) == limit:
                    return found
                found.append(Change(at, number, time, entries[number]))
        return found

    def proofs(self, subject: bytes, number: int) -> Iterator[tuple[int, tuple[int, int]]]:
        """(number, place) of the proofs under a name of `witness`, the newest first, from `number` down."""
        return self._storage.proofs(subject, number)

    def witness(self, height: int) -> tuple[dict[bytes, StateProof], dict[bytes, StateProof]]:
        """The state's proofs, before and after a block, that its proofs of storage are checked with.

        Raises PrunedHistory.
        """
        raw = self._storage.witness(height)
        if raw is None:
            raise PrunedHistory(f"what shows the proofs of block {height} to others is no longer kept here")
        return witness.decode(raw)

    def signed_tx(self, height: int, index: int) -> bytes:
        """The signed bytes of the transaction at a place; raises PrunedHistory."""
        raw = self._storage.tx(height, index)
        if raw is None:
            raise PrunedHistory(f"transaction {index} of block {height} is no longer kept here")
        return raw

    def events(self, height: int) -> BlockEvents | None:
        """The events of one block. Raises PrunedHistory when they are no longer kept."""
        raw = self._storage.events(height)
        if raw is None:
            gone = self._storage.pruned().blocks
            if 1 <= height <= gone:
                raise PrunedHistory(f"events up to block {gone} are no longer kept; begin at {gone + 1}")
            return None
        try:
            return BlockEvents.from_map(dag_cbor.decode(raw))
        except (MerkledagError, ValueError) as error:
            raise CorruptStore(f"the events of block {height} do not decode: {error}") from error

    def node(self, cid: CID) -> bytes | None:
        """The DAG-CBOR bytes of `cid`: a block, a signed transaction, or one without its signature."""
        place = self._storage.find(_digest(cid))
        if place is None:
            return None
        if place.kind == b"B":
            raw = self._storage.block(place.height)
        else:
            raw = self._storage.tx(place.height, place.index)
        if raw is not None and place.kind == b"T" and isinstance(tx := _decode_tx(raw), Transaction):
            raw = tx.unsigned_bytes()
        if raw is not None and node_cid(raw).digest != cid.digest:
            raise CorruptStore(f"where {cid} should be are other bytes")
        return raw


def _digest(cid: CID) -> bytes:
    """What the store's index is keyed by; empty for a CID that can name nothing here."""
    if cid.codec != DAG_CBOR or cid.hash_code != SHA2_256:
        return b""
    return cid.digest


def _decode_tx(raw: bytes) -> Transaction | Beacon:
    try:
        return transactions.decode_beacon(raw) if transactions.is_beacon(raw) else transactions.decode(raw)
    except InvalidTransaction as error:
        raise CorruptStore(f"a transaction of the store does not decode: {error}") from error
