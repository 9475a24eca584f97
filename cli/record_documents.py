"""What a record of a name says, as documents for people and for `--json`."""

from __future__ import annotations

from typing import Any

from cli.streams import base64_text
from merkledag import ipns
from merkledag.errors import RecordValueInvalid
from merkledag.rfc3339 import SECOND_NS


def value_text(record: ipns.Record) -> str:
    """What a record points at, for people, also where it is no content path."""
    try:
        return str(record.path)
    except RecordValueInvalid:
        return repr(record.value)


def until_text(record: ipns.Record) -> str:
    """The end of its validity as it says itself."""
    return record.validity.decode("utf-8", "backslashreplace")


def ttl_s(record: ipns.Record) -> float | None:
    """How long others may remember it, in seconds; None where it does not say."""
    if record.ttl_ns is None:
        return None
    whole, rest = divmod(record.ttl_ns, SECOND_NS)
    return whole if rest == 0 else record.ttl_ns / SECOND_NS


def record_document(record: ipns.Record) -> dict[str, Any]:
    """A record's fields; bytes are base64, as DAG-JSON and JSON have them."""
    import json

    from merkledag import dag_cbor, dag_json

    try:
        data = json.loads(dag_json.encode(dag_cbor.decode_lenient(record.data)))
    except ValueError:
        data = None  # numbers that JSON does not have
    return {
        "value": value_text(record),
        "validity_type": "EOL" if record.validity_type == ipns.EOL else record.validity_type,
        "valid_until": until_text(record),
        "sequence": record.sequence,
        "ttl_s": ttl_s(record),
        "public_key": base64_text(record.public_key) or None,
        "signature_v1": base64_text(record.legacy_signature) or None,
        "signature_v2": base64_text(record.signature) or None,
        "size_bytes": len(record.raw),
        "data": data,
    }


def unsigned_document(raw_record: bytes) -> dict[str, Any]:
    """What a record says that has no second signature, as those of before 2021; empty for noise."""
    fields = ipns.unsigned_fields(raw_record)
    if not fields:
        return {}
    value, validity, signature = (
        part if isinstance(part := fields.get(name), bytes) else b""
        for name in ("Value", "Validity", "Signature")
    )
    return {
        "value": value.decode("utf-8", "backslashreplace"),
        "valid_until": validity.decode("utf-8", "backslashreplace"),
        "sequence": fields.get("Sequence"),
        "signature_v1": base64_text(signature) or None,
        "signature_v2": None,
        "size_bytes": len(raw_record),
    }
