"""How the HTTP interface writes an answer: JSON for people, DAG-CBOR for whoever asks for it."""

from __future__ import annotations

import json
from dataclasses import fields
from typing import Any

from ledger.engine.blocks import BlockEvents
from ledger.events import Event
from ledger.fields import Wire
from ledger.state_tree import LeafProof, StateProof
from ledger.transactions import Transaction
from merkledag import dag_cbor
from merkledag.cid import CID
from merkledag.peer import peer_text

JSON_TYPE = "application/json"
CBOR_TYPE = "application/vnd.ipld.dag-cbor"


class AccountKey(bytes):
    """32 bytes that JSON shows as `k51…`, where other bytes are hexadecimal."""


def to_json(value: Any) -> Any:
    """The value in JSON's types."""
    match value:
        case Wire() | BlockEvents() | Event() | Transaction():
            return value.to_json()
        case StateProof() | LeafProof():
            return to_json(_fields(value))
        case AccountKey():
            return peer_text(value)
        case bytes():
            return value.hex()
        case CID():
            return str(value)
        case dict():
            return {name: to_json(each) for name, each in value.items()}
        case list() | tuple():
            return [to_json(each) for each in value]
    return value


def to_node(value: Any) -> Any:
    """The value in DAG-CBOR's types."""
    match value:
        case Wire() | BlockEvents():
            return value.to_map()
        case Transaction():
            return {**value.unsigned_map(), "sig": value.sig}
        case StateProof() | LeafProof():
            return to_node(_fields(value))
        case AccountKey():
            return bytes(value)
        case dict():
            return {name: to_node(each) for name, each in value.items()}
        case list() | tuple():
            return [to_node(each) for each in value]
    return value


def _fields(value: StateProof | LeafProof) -> dict[str, Any]:
    return {field.name: getattr(value, field.name) for field in fields(value)}


def dump_json(value: Any) -> bytes:
    """One line of JSON, with its newline."""
    return json.dumps(to_json(value), ensure_ascii=False, separators=(",", ":")).encode() + b"\n"


def dump_cbor(value: Any) -> bytes:
    """Canonical DAG-CBOR."""
    return dag_cbor.encode(to_node(value))


def wants_cbor(accept: str) -> bool:
    """Whether an Accept header names DAG-CBOR."""
    return any(part.partition(";")[0].strip() == CBOR_TYPE for part in accept[:1_000].split(","))
