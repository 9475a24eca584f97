"""IPNS records: making, reading, verifying and ordering them (IPNS record spec, IPIP-428).

A record says that a name, the multihash of a public key, points at a content path until a moment. What counts
is a DAG-CBOR map under the second signature; the protobuf fields beside it (the first signature and copies
for readers older than 2021) are compared with it where they are present, and never trusted.

Records of others may order the keys of their map as they like: the signature is over the bytes as they came.
Fields that are unknown here are kept.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from merkledag import dag_cbor, multihash, protobuf, rfc3339
from merkledag.cid import CID
from merkledag.ed25519 import Signer
from merkledag.errors import (
    DecodeError,
    InvalidCID,
    InvalidPath,
    LimitExceeded,
    MalformedRecord,
    RecordExpired,
    RecordFieldsDisagree,
    RecordKeyMismatch,
    RecordKeyMissing,
    RecordSignatureInvalid,
    RecordValidityUnknown,
    RecordValueInvalid,
)
from merkledag.keys import PublicKey, decode_public_key
from merkledag.path import ContentPath, parse_path
from merkledag.protobuf import field

MAX_RECORD_BYTES = 10 * 1024
EOL = 0  # the only type of validity: until a moment
EMPTY_PATH = "/ipfs/bafkqaaa"  # what an empty value stands for: no bytes at all
MAX_WRITTEN_NUMBER = 2**63 - 1  # other implementations keep sequence and TTL in signed numbers
MEDIA_TYPE = "application/vnd.ipfs.ipns-record"

_SIGNED_PREFIX = b"ipns-signature:"
_RESERVED = ("Value", "Validity", "ValidityType", "Sequence", "TTL")
_VALUE, _SIGNATURE_1, _TYPE, _VALIDITY, _SEQUENCE, _TTL, _KEY, _SIGNATURE_2, _DATA = range(1, 10)
_NUMBERS = frozenset({_TYPE, _SEQUENCE, _TTL})
_MAP = 5  # CBOR major type
_UINT64 = 2**64


@dataclass(frozen=True, slots=True)
class Record:
    """A record as it came (`raw`) and what its signed map says. Not verified before `verify`.

    `eol_ns` is in nanoseconds since 1970, None for an unknown type of validity; `ttl_ns` None where absent.
    """

    raw: bytes
    value: bytes
    validity_type: int
    validity: bytes
    eol_ns: int | None
    sequence: int
    ttl_ns: int | None
    extra: Mapping[str, Any]  # fields of the signed map that the specification does not know
    data: bytes  # the signed map
    signature: bytes  # over `data`; the second one of the protobuf message
    legacy_signature: bytes
    legacy: Mapping[str, bytes | int]  # copies outside of `data`, by the names they have in it
    public_key: bytes  # encoded, b"" where the name holds it

    @property
    def is_legacy(self) -> bool:
        """Whether it also has fields for readers that know the first signature alone."""
        return bool(self.legacy_signature or self.legacy.get("Value"))

    @property
    def path(self) -> ContentPath:
        """What the name points at; raises RecordValueInvalid.

        An empty value is an empty file; a binary CID is its path (both as boxo reads them).
        """
        try:
            if not self.value:
                return parse_path(EMPTY_PATH)
            if self.value.startswith(b"/"):
                return parse_path(self.value.decode())
            return ContentPath("ipfs", str(CID.decode(self.value)))
        except (InvalidPath, InvalidCID, LimitExceeded, DecodeError, UnicodeDecodeError) as error:
            raise RecordValueInvalid(f"the record points at no content path: {error}") from error

    def remaining_ttl_ns(self, now_ns: int, default_ns: int) -> int:
        """How long the answer may be kept from `now_ns` on: its TTL, and never past its end."""
        ttl_ns = default_ns if self.ttl_ns is None else self.ttl_ns
        return max(0, ttl_ns if self.eol_ns is None else min(ttl_ns, self.eol_ns - now_ns))


def decode(raw: bytes) -> Record:
    """Reads a record; raises MalformedRecord, also above `MAX_RECORD_BYTES`. Verifies no signature."""
    if len(raw) > MAX_RECORD_BYTES:
        raise MalformedRecord(f"a record of {len(raw)} bytes; at most {MAX_RECORD_BYTES}")
    try:
        message = _fields(raw)
        data = message.get(_DATA, b"")
        if not data:
            raise MalformedRecord("the record has no signed data: its first signature alone does not count")
        signed = _map(data)
        return _record(raw, message, data, signed)
    except MalformedRecord:
        raise
    except (DecodeError, LimitExceeded) as error:
        raise MalformedRecord(f"not an IPNS record: {error}") from error


def unsigned_fields(raw: bytes) -> dict[str, bytes | int]:
    """What stands beside the signed map, for showing records that `decode` refuses: nothing of it counts.

    Empty for bytes that are no such message, and for one without a value.
    """
    try:
        message = _fields(raw) if len(raw) <= MAX_RECORD_BYTES else {}
    except DecodeError:
        return {}
    names = {
        _VALUE: "Value", _SIGNATURE_1: "Signature", _TYPE: "ValidityType",
        _VALIDITY: "Validity", _SEQUENCE: "Sequence", _TTL: "TTL",
    }  # fmt: skip
    return {names[field]: value for field, value in message.items() if field in names and _VALUE in message}


def verify(record: Record, name: bytes, now_ns: int) -> None:
    """Returns if the record is the current word of `name`, a multihash, at `now_ns`.

    In the order of the specification, each with an error of its own class: size (in `decode`), second
    signature, key, agreement of the old fields, type and end of validity.
    """
    if not record.signature:
        raise RecordSignatureInvalid("the record has no second signature")
    if not key_of(record, name).verify(record.signature, _SIGNED_PREFIX + record.data):
        raise RecordSignatureInvalid("the record is not signed by the name's key")
    _check_legacy(record)
    if record.eol_ns is None:
        raise RecordValidityUnknown(f"the record's type of validity is {record.validity_type}, not 0")
    if record.eol_ns <= now_ns:
        raise RecordExpired(f"the record expired at {record.validity.decode('ascii')}")


def key_of(record: Record, name: bytes) -> PublicKey:
    """The key that must have signed; raises RecordKeyMismatch, RecordKeyMissing or UnsupportedKey."""
    if record.public_key:
        key = decode_public_key(record.public_key)
        if key.multihash() != name:
            raise RecordKeyMismatch("the key in the record is not the key of this name")
        return key
    code, digest = multihash.split(name)
    if code != multihash.IDENTITY:
        raise RecordKeyMissing("the name is the hash of a key, and the record does not hold the key")
    return decode_public_key(digest)


def create(
    signer: Signer,
    value: str,
    *,
    sequence: int,
    eol_ns: int,
    ttl_ns: int,
    legacy: bool = True,
    extra: Mapping[str, Any] | None = None,
) -> Record:
    """A new record of an Ed25519 key, whose name holds it, so that the record need not.

    With `legacy`, the first signature and its fields are added, as other implementations do by default.
    Raises RecordValueInvalid for a `value` that is no content path, and ValueError for numbers below 0 or
    above `MAX_WRITTEN_NUMBER`, `extra` fields with names of the specification, or a record over the limit.
    """
    if not value.startswith("/"):
        raise RecordValueInvalid(f"{value[:80]!r} is no content path: it begins with /ipfs/ or /ipns/")
    try:
        parse_path(value)
    except InvalidPath as error:
        raise RecordValueInvalid(str(error)) from error
    for number in (sequence, ttl_ns):
        if not 0 <= number <= MAX_WRITTEN_NUMBER:
            raise ValueError(f"{number} is outside of 0 to 2⁶³ − 1")
    for name in extra or {}:
        if not name or name in _RESERVED:
            raise ValueError(f"{name!r} is no name for a field of one's own")
    target, validity = value.encode(), rfc3339.format_ns(eol_ns).encode()
    signed = {"Value": target, "Validity": validity, "ValidityType": EOL, "Sequence": sequence, "TTL": ttl_ns}
    data = dag_cbor.encode({**(extra or {}), **signed})
    raw = b""
    if legacy:
        raw = field(_VALUE, target) + field(_SIGNATURE_1, signer.sign(target + validity + b"EOL"))
        raw += field(_TYPE, EOL) + field(_VALIDITY, validity)
        raw += field(_SEQUENCE, sequence) + field(_TTL, ttl_ns)
    raw += field(_SIGNATURE_2, signer.sign(_SIGNED_PREFIX + data)) + field(_DATA, data)
    if len(raw) > MAX_RECORD_BYTES:
        raise ValueError(f"the record would have {len(raw)} bytes; at most {MAX_RECORD_BYTES}")
    return decode(raw)


def order(record: Record) -> tuple[int, int, bytes]:
    """Sorts verified records of one name from the oldest to the one that counts."""
    return record.sequence, record.eol_ns or 0, record.raw


# -- protobuf ----------------------------------------------------------------------------------------------


def _fields(raw: bytes) -> dict[int, Any]:
    """The message's known fields: numbers where the schema has numbers, else bytes.

    Unknown ones are passed over; raises DecodeError for a known one twice or of another wire type.
    """
    found: dict[int, Any] = {}
    position = 0
    while position < len(raw):
        tag, position = protobuf.read_varint(raw, position)
        number, wire_type = tag >> 3, tag & 7
        if not _VALUE <= number <= _DATA:
            if number == 0:
                raise DecodeError("a protobuf field has the number 0")
            position = protobuf.skip(raw, position, wire_type)
            continue
        if number in found:
            raise DecodeError(f"protobuf field {number} comes twice")
        if wire_type != (protobuf.VARINT if number in _NUMBERS else protobuf.LENGTH):
            raise DecodeError(f"protobuf field {number} has the wire type {wire_type}")
        if wire_type == protobuf.VARINT:
            found[number], position = protobuf.read_varint(raw, position)
        else:
            start, position = protobuf.read_length(raw, position)
            found[number] = raw[start:position]
    return found


# -- the signed map ----------------------------------------------------------------------------------------


def _map(data: bytes) -> dict[str, Any]:
    signed = dag_cbor.decode_lenient(data)
    if not isinstance(signed, dict) or not all(isinstance(key, str) for key in signed):
        raise DecodeError("the signed data is no map")
    # A key that comes twice would mean one thing here and another elsewhere.
    if _entries(data) != len(signed):
        raise DecodeError("a field of the signed data comes twice")
    return signed


def _entries(data: bytes) -> int:
    """The number of entries that the CBOR map beginning at byte 0 announces."""
    assert data[0] >> 5 == _MAP
    short = data[0] & 31
    return short if short < 24 else int.from_bytes(data[1 : 1 + (1 << (short - 24))], "big")


def _record(raw: bytes, message: dict[int, Any], data: bytes, signed: dict[str, Any]) -> Record:
    validity_type = _number(signed, "ValidityType")
    validity = _bytes(signed, "Validity")
    eol_ns = None
    if validity_type == EOL:
        try:
            eol_ns = rfc3339.parse(validity.decode("ascii"))
        except UnicodeDecodeError as error:
            raise DecodeError("Validity is no ASCII text") from error
    return Record(
        raw=raw,
        value=_bytes(signed, "Value"),
        validity_type=validity_type,
        validity=validity,
        eol_ns=eol_ns,
        sequence=_number(signed, "Sequence"),
        ttl_ns=_number(signed, "TTL") if "TTL" in signed else None,
        extra={key: value for key, value in signed.items() if key not in _RESERVED},
        data=data,
        signature=message.get(_SIGNATURE_2, b""),
        legacy_signature=message.get(_SIGNATURE_1, b""),
        legacy={
            "Value": message.get(_VALUE, b""),
            "Validity": message.get(_VALIDITY, b""),
            "ValidityType": message.get(_TYPE, EOL),
            "Sequence": message.get(_SEQUENCE, 0),
            "TTL": message.get(_TTL, 0),
        },
        public_key=message.get(_KEY, b""),
    )


def _bytes(signed: dict[str, Any], name: str) -> bytes:
    value = signed.get(name)
    if type(value) is not bytes:
        raise DecodeError(f"the signed field {name} is missing or no byte string")
    return value


def _number(signed: dict[str, Any], name: str) -> int:
    value = signed.get(name)
    if type(value) is not int or not 0 <= value < _UINT64:
        raise DecodeError(f"the signed field {name} is missing or no unsigned 64-bit number")
    return value


def _check_legacy(record: Record) -> None:
    if not record.is_legacy:
        return
    signed: dict[str, bytes | int | None] = {
        "Value": record.value,
        "Validity": record.validity,
        "ValidityType": record.validity_type,
        "Sequence": record.sequence,
        "TTL": record.ttl_ns,
    }
    for name, value in signed.items():
        if record.legacy[name] != value:
            raise RecordFieldsDisagree(f"the field {name} differs between the signed and the unsigned part")
