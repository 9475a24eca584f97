"""Blocks, receipts and block events: what the embedded engine writes beside the state, in DAG-CBOR.

A block is the map {account, app_hash, beacon, block_time_s, chain, height, misbehaviour, prev, sig, time,
txs}: `prev` is the CID of the signed block before it (null for the first), `txs` are the CIDs of the signed
transactions, the beacon's first, `misbehaviour` the validators that it has evidence against, `app_hash` is
the state's after this block. `account` is the operator; `sig` is its Ed25519 signature over `SIGN_TAG` ‖ the
map without "sig". So blocks, and from them transactions, are browsable IPLD, and whoever has them can run
them again.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any

from ledger import limits
from ledger.engine.errors import CorruptStore
from ledger.events import Event
from ledger.fields import (
    CID_SCHEMA,
    Account,
    Digest,
    FieldError,
    Link,
    Spec,
    Uint,
    Wire,
    account,
    blob,
    optional,
    sequence,
    text,
    uint,
)
from ledger.journal import Entry
from ledger.result import TxResult
from merkledag import dag_cbor, ed25519
from merkledag.cid import CID
from merkledag.codecs import DAG_CBOR
from merkledag.errors import MerkledagError

SIGN_TAG = b"holdfast/block/1\x00"
MAX_BLOCK_TXS = limits.MAX_BLOCK_TXS + 1  # the beacon's is one more
MAX_ACCUSED = 10_000  # more pieces of evidence than CometBFT puts into a block (1 MiB)
MAX_LOG_CHARS = 1_000


def _check_link(value: Any) -> CID:
    if type(value) is not CID or value.codec != DAG_CBOR or len(bytes(value)) > limits.MAX_CID_BYTES:
        raise FieldError("not the CID of a DAG-CBOR node")
    return value


LINK = Spec(_check_link, to_json=str, from_json=CID.parse, schema=lambda _: CID_SCHEMA)
PREVIOUS = optional(LINK)


@dataclass(frozen=True, slots=True)
class Block(Wire):
    """One signed block. `time` is ledger time, `block_time_s` the block's own; both in seconds."""

    account: Account
    app_hash: Digest
    beacon: Digest
    block_time_s: Uint
    chain: Annotated[str, text(limits.MAX_CHAIN_ID_CHARS)]
    height: Annotated[int, uint(1)]
    misbehaviour: Annotated[tuple[bytes, ...], sequence(account(), MAX_ACCUSED)]
    prev: Annotated[CID | None, PREVIOUS]
    time: Uint
    txs: Annotated[tuple[CID, ...], sequence(LINK, MAX_BLOCK_TXS)]
    sig: Annotated[bytes, blob(0, 64)] = b""

    def unsigned_bytes(self) -> bytes:
        """The canonical encoding without the signature."""
        fields = self.to_map()
        del fields["sig"]
        return dag_cbor.encode(fields)

    def encode(self) -> bytes:
        """The canonical bytes, whose CID is the block's."""
        return dag_cbor.encode(self.to_map())

    @property
    def cid(self) -> CID:
        """CIDv1 dag-cbor sha2-256 of the signed block."""
        return node_cid(self.encode())

    def signed(self, signer: ed25519.Signer) -> Block:
        """The block with the operator's signature."""
        return replace(self, sig=signer.sign(SIGN_TAG + self.unsigned_bytes()))

    def verify(self) -> bool:
        """Whether `account` signed it."""
        return ed25519.verify(self.account, self.sig, SIGN_TAG + self.unsigned_bytes())

    @classmethod
    def decode(cls, raw: bytes) -> Block:
        """From canonical bytes; raises ValueError. The signature is not verified."""
        try:
            return cls.from_map(dag_cbor.decode(raw))
        except MerkledagError as error:
            raise ValueError(f"not a block: {error}") from error


@dataclass(frozen=True, slots=True)
class Receipt(Wire):
    """What became of a transaction: `height` of its block (0: in none), stable `code` (0: done), `log`."""

    tx_id: Link
    height: Uint
    code: Uint
    log: Annotated[str, text(MAX_LOG_CHARS)]

    @classmethod
    def of(cls, result: TxResult, height: int, fallback: CID) -> Receipt:
        """The receipt of a result; `fallback` names a transaction without an ID of its own (the beacon's)."""
        return cls(result.tx_id or fallback, height, int(result.code), result.log[:MAX_LOG_CHARS])


_DONE = dag_cbor.encode([0, ""])


def encode_outcome(receipt: Receipt) -> bytes:
    """What the store keeps of a receipt: [code, log]; the rest is where the transaction is."""
    return _DONE if receipt.code == 0 and not receipt.log else dag_cbor.encode([receipt.code, receipt.log])


def decode_outcome(raw: bytes, tx_id: CID, height: int) -> Receipt:
    """The receipt again; raises CorruptStore."""
    try:
        code, log = dag_cbor.decode(raw)
        return Receipt(tx_id, height, code, log).check()
    except (MerkledagError, ValueError, TypeError) as error:
        raise CorruptStore(f"the receipt of {tx_id} does not decode: {error}") from error


@dataclass(frozen=True, slots=True)
class BlockEvents:
    """The events of one block; `time` is its ledger time."""

    height: int
    time: int
    events: tuple[Event, ...]

    def to_map(self) -> dict[str, Any]:
        """The map that is encoded."""
        return {
            "height": self.height,
            "time": self.time,
            "events": [{"kind": one.kind, "attributes": dict(one.attributes)} for one in self.events],
        }

    def to_json(self) -> dict[str, Any]:
        """One line of the event stream."""
        return {"height": self.height, "time": self.time, "events": [one.to_json() for one in self.events]}

    @classmethod
    def from_map(cls, value: Any) -> BlockEvents:
        """Back from `to_map`; raises ValueError."""
        try:
            events = tuple(Event(str(one["kind"]), dict(one["attributes"])) for one in value["events"])
            return cls(int(value["height"]), int(value["time"]), events)
        except (KeyError, TypeError) as error:
            raise ValueError(f"not the events of a block: {error!r}") from error


def encode_journal(time: int, entries: Iterable[Entry]) -> dict[bytes, bytes]:
    """What the store keeps of a block's journal: a row an account, [time, entries without the account]."""
    rows: dict[bytes, list[list[Any]]] = {}
    for one in entries:
        row = [one.place, one.amount, one.why, one.counterparty, one.deal, one.tx_id]
        rows.setdefault(one.account, []).append(row)
    return {account: dag_cbor.encode([time, row]) for account, row in rows.items()}


def decode_journal(raw: bytes, account: bytes) -> tuple[int, list[Entry]]:
    """Ledger time of the block and the account's entries in it; raises CorruptStore."""
    try:
        time, row = dag_cbor.decode(raw)
        return time, [Entry(account, *fields).check() for fields in row]
    except (MerkledagError, ValueError, TypeError) as error:
        raise CorruptStore(f"a row of the journal does not decode: {error}") from error


def node_cid(raw: bytes) -> CID:
    """The CID of DAG-CBOR bytes."""
    return CID.of(raw, codec=DAG_CBOR)


def encode_log_payload(block: bytes, txs: Sequence[bytes]) -> bytes:
    """What the write-ahead log keeps of a block."""
    return dag_cbor.encode({"block": block, "txs": list(txs)})


def decode_log_payload(raw: bytes) -> tuple[bytes, tuple[bytes, ...]]:
    """The block and its transactions; raises CorruptStore."""
    try:
        value: Mapping[str, Any] = dag_cbor.decode(raw)
        return value["block"], tuple(value["txs"])
    except (MerkledagError, KeyError, TypeError) as error:
        raise CorruptStore(f"a block in the write-ahead log does not decode: {error}") from error
