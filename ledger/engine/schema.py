"""The JSON Schema (draft 2020-12) of the HTTP interface's answers, made from the classes that answer."""

from __future__ import annotations

from functools import cache
from typing import Any

from ledger.engine.blocks import Block, Receipt
from ledger.engine.views import (
    AccountView,
    ChangeView,
    DatasetView,
    DealView,
    ProposalView,
    SlotView,
    SpotView,
    ValidatorView,
)
from ledger.fields import ACCOUNT_SCHEMA, Wire, hex_schema, object_schema, or_null, specs, uint_schema
from ledger.fields import CID_SCHEMA as CID
from ledger.genesis import Genesis, Params
from ledger.records import ProviderRecord
from ledger.records_governance import VoteRecord
from ledger.transactions import BODIES, Beacon

Schema = dict[str, Any]
DRAFT = "https://json-schema.org/draft/2020-12/schema"
TEXT: Schema = {"type": "string"}
UINT = uint_schema()
HASH = hex_schema(32, 32)
# Answers that are no JSON: what they are instead.
OTHER = {
    "GET /v1/node/{cid}": "application/vnd.ipld.dag-cbor",
    "GET /v1/dataset/{id}/proof/{period}": "application/vnd.ipld.dag-cbor",
    "GET /v1/deal/{cid}/answer/{shard}/{height}": "application/vnd.ipld.dag-cbor",
    "GET /v1/blocks": "application/vnd.ipld.car",
    "GET /v1/snapshot/{height}": "application/vnd.ipld.car",
    "GET /v1/origin": "application/vnd.ipld.car",
}


@cache
def document() -> Schema:
    """{"$schema", "routes": {"GET /v1/…": the answer's schema}, "$defs": {name: schema}}."""
    made = _Definitions()
    routes = {route: made.ref(schema) for route, schema in _routes(made).items()}
    routes |= {
        route: {"type": "string", "contentMediaType": kind, "contentEncoding": "binary"}
        for route, kind in OTHER.items()
    }
    routes["GET /v1/schema"] = {"type": "object"}
    return {
        "$schema": DRAFT,
        "title": "Answers of a Holdfast ledger",
        "routes": dict(sorted(routes.items())),
        "$defs": dict(sorted(made.known.items())),
    }


class _Definitions:
    """What the schema defines by name."""

    def __init__(self) -> None:
        self.known: dict[str, Schema] = {}

    def ref(self, of: type[Wire] | Schema) -> Schema:
        """A reference to a class, which is defined with all that it holds; a schema stays itself."""
        if isinstance(of, dict):
            return of
        if of.__name__ not in self.known:
            self.known[of.__name__] = {}  # classes may hold each other
            self.known[of.__name__] = object_schema(self._fields(of))
        return {"$ref": f"#/$defs/{of.__name__}"}

    def named(self, name: str, schema: Schema) -> Schema:
        """A reference to a schema that is defined here by name."""
        self.known[name] = schema
        return {"$ref": f"#/$defs/{name}"}

    def _fields(self, cls: type[Wire]) -> dict[str, Schema]:
        found = {}
        for name, spec in specs(cls):
            assert spec.schema is not None, f"{cls.__name__}.{name} has no schema"
            found[name] = spec.schema(self.ref)
        return found

    def fields(self, cls: type[Wire]) -> dict[str, Schema]:
        """The schemas of a class's fields."""
        return self._fields(cls)


def _page(item: Schema) -> Schema:
    return object_schema({"items": {"type": "array", "items": item}, "next": or_null(hex_schema())})


def _routes(made: _Definitions) -> dict[str, type[Wire] | Schema]:
    receipt = made.named("Receipt", _receipt(made))
    made.named("Error", object_schema({"error": TEXT, "code": UINT}))
    return {
        "GET /v1/status": made.named("Status", _status()),
        "GET /v1/genesis": Genesis,
        "GET /v1/params": Params,
        "GET /v1/account/{account}": AccountView,
        "GET /v1/account/{account}/history": _page(made.ref(ChangeView)),
        "GET /v1/providers": _page(made.ref(ProviderRecord)),
        "GET /v1/provider/{account}": ProviderRecord,
        "GET /v1/validators": _page(made.ref(ValidatorView)),
        "GET /v1/validator/{account}": ValidatorView,
        "GET /v1/deals": _page(made.ref(DealView)),
        "GET /v1/deal/{cid}": DealView,
        "GET /v1/datasets": _page(made.ref(DatasetView)),
        "GET /v1/dataset/{id}": DatasetView,
        "GET /v1/dataset/{id}/slots": _page(made.ref(SlotView)),
        "GET /v1/spots": _page(made.ref(SpotView)),
        "GET /v1/proposals": _page(made.ref(ProposalView)),
        "GET /v1/proposal/{cid}": ProposalView,
        "GET /v1/proposal/{cid}/vote/{account}": VoteRecord,
        "GET /v1/prove/{key}": _proof(made),
        "POST /v1/prove": object_schema({"height": UINT, "proofs": {"type": "array", "items": hex_schema()}}),
        "GET /v1/light/{height}": object_schema({"height": UINT, "light_block": hex_schema(1)}),
        "POST /v1/light": object_schema({"taken": {"const": True}}),
        "GET /v1/block/{height}": object_schema({"cid": CID, "block": made.ref(Block)}),
        "GET /v1/tx/{cid}": _committed(made, receipt),
        "GET /v1/events": {"anyOf": _event_lines(made)},
        "POST /v1/tx": receipt,
        "POST /v1/txs": object_schema({"receipts": {"type": "array", "items": receipt}}),
    }


def _status() -> Schema:
    amounts = ("issued", "balances", "escrow", "collateral", "burned")
    return object_schema(
        {
            "chain_id": TEXT,
            "engine": TEXT,
            "height": UINT,
            "time": UINT,
            "block_time_s": UINT,
            "app_hash": HASH,
            "beacon": HASH,
            "operator": ACCOUNT_SCHEMA,
            "rules": UINT,
            "params_version": UINT,
            **dict.fromkeys(amounts, UINT),
            "next_due": or_null(UINT),
            "waiting": UINT,
            "trouble": TEXT,
            "first_height": UINT,
            "pruned_height": UINT,
            "pruned_proofs_height": UINT,
            "retain_height": or_null(UINT),
            "snapshot_height": UINT,
            "signed_height": UINT,
        }
    )


def _receipt(made: _Definitions) -> Schema:
    """With "error" if the transaction is in no block."""
    schema = object_schema({**made.fields(Receipt), "name": TEXT, "error": TEXT})
    schema["required"].remove("error")
    return schema


def _committed(made: _Definitions, receipt: Schema) -> Schema:
    bodies = [
        made.named(
            f"{cls.__name__}Body",
            object_schema({"kind": {"const": kind}, **made.fields(cls)}),
        )
        for kind, cls in BODIES.items()
    ]
    transaction = made.named(
        "Transaction",
        object_schema(
            {
                "id": CID,
                "chain": TEXT,
                "account": ACCOUNT_SCHEMA,
                "nonce": UINT,
                "fee": UINT,
                "expiry": UINT,
                "sig": hex_schema(64, 64),
                "body": {"anyOf": bodies},
            }
        ),
    )
    return object_schema(
        {
            "height": UINT,
            "index": UINT,
            "receipt": receipt,
            "tx": {"anyOf": [transaction, made.ref(Beacon)]},
        }
    )


def _event_lines(made: _Definitions) -> list[Schema]:
    event = made.named(
        "Event",
        object_schema(
            {
                "kind": {"type": "string", "pattern": "^[a-z_]+$"},
                "attributes": {
                    "type": "object",
                    "additionalProperties": {"type": ["string", "integer", "boolean"]},
                },
            }
        ),
    )
    block = {"height": UINT, "time": UINT, "events": {"type": "array", "items": event}}
    beat = {"height": UINT, "time": UINT, "heartbeat": {"const": True}}
    return [
        made.named("BlockEvents", object_schema(block)),
        made.named("Heartbeat", object_schema(beat)),
        {"$ref": "#/$defs/Error"},
    ]


def _proof(made: _Definitions) -> Schema:
    aunts = {"type": "array", "items": HASH}
    leaf = made.named(
        "LeafProof",
        object_schema(
            {"key": hex_schema(), "value_hash": HASH, "index": UINT, "total": UINT, "aunts": aunts}
        ),
    )
    proof = made.named(
        "StateProof",
        object_schema(
            {
                "key": hex_schema(),
                "value": or_null(hex_schema()),
                **{side: or_null(leaf) for side in ("leaf", "left", "right")},
                "aunts": aunts,
            }
        ),
    )
    forms = {"compact": hex_schema(), "cometbft": or_null(hex_schema())}
    return object_schema({"height": UINT, "app_hash": HASH, "proof": proof, **forms})
