"""Errors of this package; each says which input is at fault."""

from __future__ import annotations


class MerkledagError(Exception):
    """Base of every error raised about others' data or requests."""


class InvalidCID(MerkledagError, ValueError):
    """A text or byte string is not a CID (or not the kind of CID asked for)."""


class DecodeError(MerkledagError, ValueError):
    """Bytes are not what their codec or format says."""


class TruncatedValue(DecodeError):
    """The bytes of a value end before it does."""


class TruncatedCar(DecodeError):
    """A CAR archive ends before it is complete."""


class HashMismatch(MerkledagError):
    """A block's bytes do not hash to its CID."""


class LimitExceeded(MerkledagError):
    """Input is larger, deeper or wider than a documented limit."""


class UnsupportedCodec(MerkledagError):
    """The codec is unknown here, or cannot be used for what was asked."""


class UnsupportedHash(MerkledagError):
    """The hash function of a multihash is unknown here."""


class PathError(MerkledagError):
    """A content path cannot be parsed or followed."""


class InvalidPath(PathError, ValueError):
    """The text is not a content path."""


class NoSuchLink(PathError):
    """A path segment does not exist in the node it was looked up in.

    `name` is the segment and `cid` the node without it (a `merkledag.cid.CID`).
    """

    def __init__(self, name: str, cid: object) -> None:
        super().__init__(f"no link named {name!r} under {cid}")
        self.name = name
        self.cid = cid


class NotADirectory(PathError):
    """A directory was needed, the node is something else."""


class NotAFile(PathError):
    """A file was needed, the node is something else."""


class RecordError(MerkledagError):
    """An IPNS record cannot be used; the subclass says why."""


class MalformedRecord(RecordError, DecodeError):
    """The bytes are no IPNS record: protobuf, DAG-CBOR, a field of it, or the size limit."""


class RecordSignatureInvalid(RecordError):
    """The second signature is missing or not the key's. (The first one never counts.)"""


class RecordKeyMissing(RecordError):
    """The name is only the hash of a key, and the record does not bring the key along."""


class RecordKeyMismatch(RecordError):
    """The key in the record is not the name's."""


class RecordFieldsDisagree(RecordError):
    """An old, unsigned field contradicts the signed one."""


class RecordExpired(RecordError):
    """The record was valid until a moment that is over."""


class RecordValidityUnknown(RecordError):
    """The record is valid under a condition other than an end of life."""


class RecordValueInvalid(RecordError):
    """The record is valid, but what it points at is no content path."""


class UnsupportedKey(RecordError, DecodeError):
    """A public key of a kind, size or encoding that is not supported."""
