"""The rows of the buckets of the state's tree, and those looked at lately, which need not be read again.

Whoever chooses keys can crowd a bucket: looking at all of it for every read would let a block of transfers to
such keys take minutes.
"""

from __future__ import annotations

from collections.abc import Mapping

HASH_BYTES = 32
MAX_HELD_KEYS = 1 << 17  # and buckets

Leaves = Mapping[bytes, bytes]  # of a bucket, by key, in order


def read_bucket(raw: bytes) -> dict[bytes, bytes]:
    """The leaves of a bucket by key."""
    found, at, end = {}, 0, len(raw)
    while at < end:
        start = at + 2
        at = start + int.from_bytes(raw[at:start], "big")
        key = raw[start:at]
        found[key] = raw[at : at + HASH_BYTES]
        at += HASH_BYTES
    return found


def write_bucket(leaves: Leaves) -> bytes | None:
    """The row of a bucket; None for an empty one, which has no row."""
    parts = [part for key, leaf in leaves.items() for part in (len(key).to_bytes(2, "big"), key, leaf)]
    return b"".join(parts) or None


class HeldBuckets:
    """What buckets have, of `MAX_HELD_KEYS` keys in all: beyond that it begins anew."""

    __slots__ = ("_count", "_held")

    def __init__(self) -> None:
        self._held: dict[int, Leaves] = {}
        self._count = 0

    def get(self, number: int) -> Leaves | None:
        """A bucket, if it is held."""
        return self._held.get(number)

    def put(self, number: int, leaves: Leaves) -> None:
        """A bucket has these from now on."""
        before = self._held.pop(number, None)
        self._count += len(leaves) + 1 - (0 if before is None else len(before) + 1)
        if self._count > MAX_HELD_KEYS:
            self._held.clear()
            self._count = len(leaves) + 1
        self._held[number] = leaves
