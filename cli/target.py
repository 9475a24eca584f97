"""What a command writes to: a new file that appears when it is whole, or a stream.

Into a file, two threads copy the larger pieces to their places, straight from the store's pages; a stream is
written in order. Small pieces are collected.
"""

from __future__ import annotations

import os
import stat
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING, Final

from cli.output import invalid, not_found, raw
from cli.part import Part, check_length, full_disk
from cli.streams import is_stdout

if TYPE_CHECKING:
    from concurrent.futures import Future, ThreadPoolExecutor

    from merkledag.steps import Buffer
    from storage_node.blockstore.interface import View

COPY_THREADS: Final = 2
COPIES_AHEAD: Final = 8
COLLECT_BYTES: Final = 256 << 10
LARGE_BLOCK_BYTES: Final = 64 << 10  # below this, a thread costs more than copying here


class Target:
    """One output: `append` and `append_view` in order, `patch` in a file alone.

    As a context manager: a file grows in a `Part`, gets its name when the block ends well and goes otherwise.
    What a killed process left is removed by the next one that writes a file of this name.
    """

    def __init__(self, output: str) -> None:
        self._path = None if is_stdout(output) else Path(output)
        self._part: Part | None = None
        self._handle = -1
        self._pool: ThreadPoolExecutor | None = None
        self._copies: deque[Future[None]] = deque()
        self._collected = bytearray()
        self.size_bytes = 0  # appended so far

    @property
    def is_file(self) -> bool:
        """Whether any place of it can be written at any time."""
        return self._part is not None

    def __enter__(self) -> Target:
        if self._path is None:
            return self
        check_length(self._path)
        if self._path.exists() and stat.S_IFMT(self._path.stat().st_mode) in (stat.S_IFIFO, stat.S_IFCHR):
            self._handle = os.open(self._path, os.O_WRONLY | os.O_CLOEXEC)
            return self
        if os.path.lexists(self._path):
            raise invalid(f"{self._path} exists: choose another name with -o")
        if not self._path.parent.is_dir():
            raise not_found(f"{self._path.parent}: there is no such folder to write into")
        self._part = Part(self._path, "")
        try:
            self._part.content.unlink(missing_ok=True)  # of a process that was killed
            flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
            self._handle = os.open(self._part.content, flags, 0o666)
        except BaseException:
            self._part.discard()
            raise
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        try:
            if kind is None:
                self._settle()
        except BaseException:
            kind = True
            raise
        finally:
            if self._pool is not None:
                self._pool.shutdown(wait=True, cancel_futures=True)
                self._copies.clear()  # and with them views that were never entered
            if self._handle >= 0:
                os.close(self._handle)
            if self._part is not None and self._path is not None:
                try:
                    if kind is None:
                        give_name(self._part.content, self._path)
                finally:
                    self._part.discard()

    def append(self, data: Buffer) -> None:
        """Writes bytes behind what was appended before."""
        if len(data) >= LARGE_BLOCK_BYTES:
            self._flush()
            if self.is_file:
                self._write_at(data, self.size_bytes)
            else:
                self._write(data)
            self.size_bytes += len(data)
            return
        self._collected += data
        self.size_bytes += len(data)
        if len(self._collected) >= COLLECT_BYTES:
            self._flush()

    def append_view(self, view: View) -> None:
        """Writes a block of the store; a thread does so if it is large and this is a file.

        The view stays open while COPIES_AHEAD blocks wait, so that each block is looked up once.
        """
        size_bytes = len(view)
        if not self.is_file or size_bytes < LARGE_BLOCK_BYTES:
            with view as data:
                return self.append(data)
        self._flush()
        if self._pool is None:
            from concurrent.futures import ThreadPoolExecutor

            self._pool = ThreadPoolExecutor(COPY_THREADS, thread_name_prefix="copy")
        self._copies.append(self._pool.submit(self._copy, self.size_bytes, view))
        self.size_bytes += size_bytes
        if len(self._copies) > COPIES_AHEAD:
            self._copies.popleft().result()
        return None

    def patch(self, offset: int, data: bytes) -> None:
        """Overwrites what was appended before, in a file."""
        self._settle()
        self._write_at(data, offset)

    def _settle(self) -> None:
        self._flush()
        while self._copies:
            self._copies.popleft().result()

    def _flush(self) -> None:
        if self._collected:
            collected, self._collected = self._collected, bytearray()
            if self.is_file:
                self._write_at(collected, self.size_bytes - len(collected))
            else:
                self._write(collected)

    def _write(self, data: bytes | bytearray | memoryview) -> None:
        if self._handle < 0:
            return raw(data)
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(self._handle, rest) :]
        return None

    def _copy(self, offset: int, view: View) -> None:
        with view as data:
            self._write_at(data, offset)

    def _write_at(self, data: bytes | bytearray | memoryview, offset: int) -> None:
        rest = memoryview(data)
        try:
            while rest:
                count = os.pwrite(self._handle, rest, offset)
                rest, offset = rest[count:], offset + count
        except OSError as error:
            raise (self._path and full_disk(self._path, error)) or error from None


def give_name(new: Path, path: Path) -> None:
    """Renames a file, but never over one that has come meanwhile: exit 4."""
    try:
        os.link(new, path)
    except FileExistsError:
        raise invalid(f"{path} exists: choose another name with -o") from None
    except OSError:  # a file system without links
        new.rename(path)
