"""Write-ahead log: checksummed, length-prefixed records appended and synced before the database is written.

Bytes on disk. A log is a folder of segments `<first height, 20 digits>.wal`. A segment is the 8 bytes
`HFWAL\\x00\\x00\\x01` followed by records:

    "HFWR" ‖ u32be payload length ‖ u64be height ‖ checksum ‖ payload
    checksum = first 16 bytes of SHA-256(length ‖ height ‖ payload)

Every record is synced before the next is written, so a damaged record with nothing valid behind it is a torn
tail that nobody was told about: it is cut off, with a message. A damaged record in front of a valid one is
corruption and stops the opening.
"""

from __future__ import annotations

import hashlib
import logging
import os
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from ledger.engine.errors import CorruptStore, StoreError

SEGMENT_MAGIC = b"HFWAL\x00\x00\x01"
RECORD_MAGIC = b"HFWR"
MAX_RECORD_BYTES = 64 << 20
SEGMENT_BYTES = 64 << 20
MAX_SEGMENT_FILE_BYTES = SEGMENT_BYTES + MAX_RECORD_BYTES + (1 << 20)
HEADER = struct.Struct(">4sIQ16s")

Fault = Callable[[str], None]
"""A test hook, called with the name of each write; raising there is a crash at that point."""

_log = logging.getLogger(__name__)


def no_fault(_point: str) -> None:
    """The hook that does nothing."""


class WalRecord(NamedTuple):
    """One record: the block's height and its opaque payload."""

    height: int
    payload: bytes


def _checksum(length: int, height: int, payload: bytes) -> bytes:
    return hashlib.sha256(struct.pack(">IQ", length, height) + payload).digest()[:16]


def _frame(height: int, payload: bytes) -> bytes:
    size = len(payload)
    return HEADER.pack(RECORD_MAGIC, size, height, _checksum(size, height, payload)) + payload


def _record_at(data: bytes, offset: int) -> WalRecord | None:
    """The whole, valid record at `offset`, or None."""
    if len(data) - offset < HEADER.size:
        return None
    magic, size, height, checksum = HEADER.unpack_from(data, offset)
    start = offset + HEADER.size
    if magic != RECORD_MAGIC or size > MAX_RECORD_BYTES or len(data) - start < size:
        return None
    payload = data[start : start + size]
    return WalRecord(height, payload) if _checksum(size, height, payload) == checksum else None


def _valid_record_after(data: bytes, offset: int) -> bool:
    at = data.find(RECORD_MAGIC, offset + 1)
    while at >= 0:
        if _record_at(data, at) is not None:
            return True
        at = data.find(RECORD_MAGIC, at + 1)
    return False


def sync_folder(folder: Path) -> None:
    """Makes the creation and removal of names in `folder` durable."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _write_all(handle: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(handle, view) :]


class WriteAheadLog:
    """The open log of one ledger; one process writes it (the storage holds the lock).

    `open()` scans and repairs; `records(above)` yields what is to be replayed; `append` is durable when it
    returns; `rotate` starts a new segment and drops the older ones, which the caller has made redundant.
    """

    def __init__(self, folder: Path, fault: Fault = no_fault, segment_bytes: int = SEGMENT_BYTES) -> None:
        self._folder = folder
        self._fault = fault
        self._segment_bytes = segment_bytes
        self._handle: int | None = None
        self._size_bytes = 0
        self._broken = False
        self.last_height = 0

    def open(self) -> None:
        """Checks every segment and cuts a torn tail. Raises CorruptStore or StoreError."""
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            for path in (segments := self._segments()):
                for record in self._scan(path, is_last=path == segments[-1]):
                    self._advance(record.height, path)
            if segments:
                self._handle = os.open(segments[-1], os.O_WRONLY | os.O_APPEND)
                self._size_bytes = os.fstat(self._handle).st_size
        except OSError as error:
            raise StoreError(f"cannot open the write-ahead log in {self._folder}: {error}") from error

    def records(self, above: int) -> Iterator[WalRecord]:
        """The records with a height greater than `above`, in order of height."""
        segments = self._segments()
        for index, path in enumerate(segments):
            following = segments[index + 1] if index + 1 < len(segments) else None
            if following is not None and int(following.stem) <= above + 1:
                continue
            yield from (
                record for record in self._scan(path, is_last=following is None) if record.height > above
            )

    def append(self, height: int, payload: bytes) -> None:
        """Writes and syncs one record. Raises StoreError when the disk refuses; nothing is then kept."""
        if len(payload) > MAX_RECORD_BYTES:
            raise StoreError(f"block {height} of {len(payload)} bytes is more than the log takes")
        if self._broken:
            raise StoreError(
                "the write-ahead log could not be repaired after a failed write; restart the ledger"
            )
        try:
            handle = self._new_segment(height) if self._handle is None else self._handle
            frame = _frame(height, payload)
            self._fault("wal.append")
            _write_all(handle, frame[: len(frame) // 2])
            self._fault("wal.half")
            _write_all(handle, frame[len(frame) // 2 :])
            self._fault("wal.written")
            os.fsync(handle)
            self._size_bytes += len(frame)
            self._fault("wal.synced")
        except OSError as error:
            self._cut_back()
            raise StoreError(f"cannot write the write-ahead log: {error}") from error
        self.last_height = height

    @property
    def first_height(self) -> int | None:
        """The height that the oldest segment starts at, None for an empty log."""
        segments = self._segments()
        return int(segments[0].stem) if segments else None

    @property
    def full(self) -> bool:
        """Whether the segment has grown enough to be rotated."""
        return self._size_bytes >= self._segment_bytes

    def rotate(self, next_height: int) -> None:
        """Starts a segment at `next_height` and drops the older ones; the database must be durable before."""
        try:
            old = self._segments()
            self._fault("wal.rotate")
            self._new_segment(next_height)
            self._fault("wal.rotated")
            for path in old:
                path.unlink(missing_ok=True)
            sync_folder(self._folder)
        except OSError as error:
            raise StoreError(f"cannot rotate the write-ahead log: {error}") from error

    def close(self) -> None:
        """Closes the segment; harmless twice."""
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None

    def _segments(self) -> list[Path]:
        return sorted(path for path in self._folder.glob("*.wal") if path.stem.isdigit())

    def _cut_back(self) -> None:
        """After a failed append: drops what was written, so that the next record follows the last good one.

        When even that fails, or the system could not say what reached the disk, nothing more is appended.
        """
        if self._handle is not None:
            try:
                os.ftruncate(self._handle, self._size_bytes)
                os.fsync(self._handle)
            except OSError as error:
                self._broken = True
                _log.error("cannot cut the half-written record off the write-ahead log: %s", error)

    def _new_segment(self, first_height: int) -> int:
        path = self._folder / f"{first_height:020d}.wal"
        handle = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_TRUNC, 0o600)
        try:
            _write_all(handle, SEGMENT_MAGIC)
            os.fsync(handle)
            sync_folder(self._folder)
        except OSError:
            os.close(handle)
            raise
        self.close()
        self._handle = handle
        self._size_bytes = len(SEGMENT_MAGIC)
        return handle

    def _advance(self, height: int, path: Path) -> None:
        if self.last_height and height != self.last_height + 1:
            raise CorruptStore(
                f"{path} holds block {height} after block {self.last_height}; restore it from a backup"
            )
        self.last_height = height

    def _scan(self, path: Path, *, is_last: bool) -> Iterator[WalRecord]:
        if path.stat().st_size > MAX_SEGMENT_FILE_BYTES:
            raise CorruptStore(f"{path} is larger than a segment can be; restore the ledger from a backup")
        data = path.read_bytes()
        if not data.startswith(SEGMENT_MAGIC):
            if is_last and len(data) <= len(SEGMENT_MAGIC):
                self._truncate(path, 0, len(data))
                return
            raise CorruptStore(f"{path} is not a write-ahead log of this version; restore it from a backup")
        offset = len(SEGMENT_MAGIC)
        while offset < len(data):
            record = _record_at(data, offset)
            if record is None:
                if not is_last or _valid_record_after(data, offset):
                    raise CorruptStore(
                        f"{path} is damaged at byte {offset}; restore the ledger from a backup"
                    )
                self._truncate(path, offset, len(data))
                return
            yield record
            offset += HEADER.size + len(record.payload)

    def _truncate(self, path: Path, offset: int, size_bytes: int) -> None:
        _log.warning(
            "%s: dropped %d bytes of a block that was never confirmed (a torn write)",
            path,
            size_bytes - offset,
        )
        handle = os.open(path, os.O_RDWR)
        try:
            os.ftruncate(handle, offset)
            if offset == 0:
                os.write(handle, SEGMENT_MAGIC)
            os.fsync(handle)
        finally:
            os.close(handle)
