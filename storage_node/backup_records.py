"""The records of a home in a backup: the pairs of its meta store, cut into parts of which few change.

A part is a run of pairs in ascending order: u16be length of the key, u32be length of the value, key, value.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from zlib import crc32

from storage_node.backup_folder import MAX_PART_BYTES, BackupFolder, Part
from storage_node.errors import BackupRefused, DamagedBackup
from storage_node.meta import Meta

CUT_EVERY = 1 << 10  # records, on average, between two cuts
MIN_RECORDS_BYTES = 256 * 1024

_LENGTHS = struct.Struct(">HI")


def save_records(meta: Meta, folder: BackupFolder) -> tuple[Part, ...]:
    """Every record at one moment, as parts; those that have not changed since are there already.

    A cut follows a key whose own digest says so: a changed record changes the part that it is in, no other.
    Raises BackupRefused for a record that is too long, StoreFull.
    """
    parts: list[Part] = []
    gathered = bytearray()

    def cut() -> None:
        if gathered:
            parts.append(folder.save_part(bytes(gathered)))
            gathered.clear()

    with meta.snapshot() as pairs:
        for key, value in pairs:
            size_bytes = _LENGTHS.size + len(key) + len(value)
            if size_bytes > MAX_PART_BYTES:
                raise BackupRefused(f"a record of {len(value)} bytes is too long for a backup")
            if len(gathered) + size_bytes > MAX_PART_BYTES:
                cut()
            gathered += _LENGTHS.pack(len(key), len(value)) + key + value
            if len(gathered) >= MIN_RECORDS_BYTES and crc32(key) % CUT_EVERY == 0:
                cut()
        cut()
    return tuple(parts)


def pairs_of(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """The keys and values in a part. Raises DamagedBackup."""
    at = 0
    while at < len(data):
        start = at + _LENGTHS.size
        if start > len(data):
            raise DamagedBackup("a part with records is cut")
        key_bytes, value_bytes = _LENGTHS.unpack_from(data, at)
        at = start + key_bytes + value_bytes
        if at > len(data):
            raise DamagedBackup("a part with records is cut")
        yield data[start : start + key_bytes], data[start + key_bytes : at]
