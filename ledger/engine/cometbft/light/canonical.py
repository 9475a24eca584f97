"""The bytes that CometBFT hashes and signs: protobuf fields in the order of their numbers, zeros left out.

Only these leaves of the encoding are ever compared, so they are written here and not by a protobuf library,
whose order of fields is not promised. Messages that the Go structs hold by value are written even if empty.
Source: proto/tendermint/types/canonical.proto, types/encoding_helper.go of CometBFT 0.39.
"""

from __future__ import annotations

from hashlib import sha256

from ledger.state_tree import simple_root
from merkledag import protobuf

SECOND_NS = 1_000_000_000
# Go's zero time, 0001-01-01, and the last second that a protobuf Timestamp may have, 9999-12-31.
ZERO_TIME_NS = -62_135_596_800 * SECOND_NS
LAST_TIME_NS = 253_402_300_800 * SECOND_NS - 1
_SIGN_64 = (1 << 64) - 1


def number(field: int, value: int) -> bytes:
    """An integer as a varint, nothing for 0; a negative one in two's complement of 64 bits."""
    return protobuf.field(field, value & _SIGN_64) if value else b""


def data(field: int, value: bytes) -> bytes:
    """Bytes or text, nothing where there are none."""
    return protobuf.field(field, value) if value else b""


def message(field: int, value: bytes) -> bytes:
    """A message, also an empty one."""
    return protobuf.field(field, value)


def fixed(field: int, value: int) -> bytes:
    """An sfixed64, nothing for 0."""
    return (
        protobuf.varint(field << 3 | protobuf.FIXED64) + value.to_bytes(8, "little", signed=True)
        if value
        else b""
    )


def timestamp(time_ns: int) -> bytes:
    """A google.protobuf.Timestamp of nanoseconds since 1970."""
    seconds, nanos = divmod(time_ns, SECOND_NS)
    return number(1, seconds) + number(2, nanos)


def tree_root(leaves: list[bytes]) -> bytes:
    """The simple Merkle tree (RFC 6962) over these leaves."""
    return simple_root([sha256(b"\x00" + leaf).digest() for leaf in leaves])
