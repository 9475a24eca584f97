"""CAR archives to read: the blocks of a file, standard input or a URL, verified, in their order.

A regular file is read in place: threads fetch and hash the larger blocks, and nothing is copied twice.
Whatever else comes as a stream. No block is given before it is verified.
"""

from __future__ import annotations

import io
import os
import stat
import sys
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from cli.car_ahead import SMALL_BLOCK_BYTES, Ahead
from cli.car_opening import CAR_MEDIA_TYPE, check_there, open_url, widen_pipe
from cli.output import CommandError, invalid, meter, printable, unreachable
from cli.streams import STDIO
from cli.urls import WEB
from merkledag.block import Block, verify_block
from merkledag.car_sections import (
    HEADS_ONLY,
    CarHeader,
    CarSections,
    ReadAt,
    Section,
    SectionHead,
    scan,
)
from merkledag.car_seek import find_block, read_header, run_reads
from merkledag.errors import MerkledagError, TruncatedCar

if TYPE_CHECKING:
    from cli.output import Meter
    from merkledag.cid import CID

READ_BYTES: Final = 1 << 20


class ReadOptions(NamedTuple):
    """How lenient reading is: about a tail that is cut off, and about a section of length zero as the end."""

    allow_truncated: bool = False
    null_padding: bool = False


class CarInput:
    """One open archive. `header` is known once the first item was asked for.

    `truncated` says what is missing when that is allowed. Errors name the archive: exit 4 for damage.
    """

    def __init__(self, name: str, stack: ExitStack, options: ReadOptions) -> None:
        self.name = name
        self.header: CarHeader | None = None
        self.truncated = ""
        self._options = options
        self._sections = CarSections(null_padding=options.null_padding)
        self._handle = -1
        self._stream: Callable[[int], bytes] = lambda _: b""
        self._media_type = ""  # of a server's answer
        self._left: Callable[[], int] = lambda: 0  # bytes that a server announced and did not send
        self.size_bytes: int | None = None
        self._open(stack)

    @property
    def is_file(self) -> bool:
        """Whether any part can be read at any time."""
        return self._handle >= 0

    def read_at(self, offset: int, length: int) -> bytes:
        """Up to `length` bytes of a regular file."""
        parts = []
        while length > 0 and (data := os.pread(self._handle, length, offset)):
            parts.append(data)
            offset, length = offset + len(data), length - len(data)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    # --- opening ---

    def _open(self, stack: ExitStack) -> None:
        if self.name == STDIO:
            self._stream = sys.stdin.buffer.read
            with suppress(OSError, ValueError):
                widen_pipe(sys.stdin.fileno())
            return
        if self.name.startswith(WEB):
            response = stack.enter_context(open_url(self.name))
            self._stream = response.read
            self.size_bytes = response.length
            self._media_type = response.headers.get("Content-Type", "").partition(";")[0].strip().lower()
            self._left = lambda: response.length or 0
            return
        check_there(self.name)
        path = Path(self.name)
        file = stack.enter_context(path.open("rb", buffering=0))
        status = os.fstat(file.fileno())
        if stat.S_ISREG(status.st_mode):
            self._handle, self.size_bytes = file.fileno(), status.st_size
            with suppress(AttributeError, OSError):
                os.posix_fadvise(self._handle, 0, 0, os.POSIX_FADV_SEQUENTIAL)
        else:
            self._stream = io.BufferedReader(file, READ_BYTES).read

    # --- reading ---

    def read_header(self) -> CarHeader:
        """The header, before anything else is read."""
        with self._named():
            if self.is_file:
                self.header = run_reads(read_header(), self.read_at)
            else:
                self.header = next((i for i in self._stream_items(None) if isinstance(i, CarHeader)), None)
        if self.header is None:
            raise invalid(f"{self.name}: this is no CAR file: it has no header")
        return self.header

    def find(self, cid: CID) -> Block | None:
        """The block of `cid`, verified: in place where that is possible, else by reading up to it."""
        if not self.is_file:
            with closing(self.blocks()) as blocks:
                return next((each for each in blocks if each.cid.multihash == cid.multihash), None)
        with self._named():
            return run_reads(find_block(self.read_header(), cid), self.read_at)

    @contextmanager
    def _named(self) -> Iterator[None]:
        """Errors of the archive with its name; a cut tail is noted if that is allowed."""
        try:
            yield
        except TruncatedCar as error:
            if not self._options.allow_truncated or self.header is None:
                raise self._damaged(error) from None
            self.truncated = str(error)
        except MerkledagError as error:
            raise self._damaged(error) from None

    def _damaged(self, error: MerkledagError) -> CommandError:
        if self.header is None and self._media_type not in ("", CAR_MEDIA_TYPE, "application/octet-stream"):
            return invalid(f"{self.name}: the server sent {printable(self._media_type)}, which is no CAR")
        return invalid(f"{self.name}: {error}")

    def heads(self) -> Iterator[SectionHead]:
        """Every section without its block, which is not even read where the archive is a regular file."""
        with self._named():
            for item in self._items(HEADS_ONLY, None):
                if isinstance(item, Section):
                    start = (self.header.data_offset if self.header else 0) + item.offset
                    yield SectionHead(item.cid, item.offset, start, len(item.data))
                else:
                    yield item

    def sections(self, label: str = "read") -> Generator[tuple[Block, int], None, None]:
        """Every block, verified, in the order of the archive, and the offset of its section in the data."""
        bar = meter(label, self.size_bytes)
        ahead = Ahead(self._verified_later)
        try:
            with self._named():
                for item in self._items(SMALL_BLOCK_BYTES, bar):
                    yield from ahead.add(item)
                yield from ahead.rest()
            if self.truncated:
                with self._named():
                    yield from ahead.rest()
        finally:
            ahead.close()
            bar.finish()

    def blocks(self, label: str = "read") -> Generator[Block, None, None]:
        """As `sections`, without the offsets."""
        found = self.sections(label)
        try:
            for block, _ in found:
                yield block
        finally:
            found.close()

    def _verified_later(self, item: Section | SectionHead) -> Block:
        if isinstance(item, Section):
            return item.verified()
        data = self.read_at(item.data_start, item.size_bytes)
        if len(data) < item.size_bytes:
            raise TruncatedCar(f"CAR cut off: it ends inside block {item.cid}")
        verify_block(item.cid, data)
        return Block(item.cid, data)

    def _items(self, inline_bytes: int, bar: Meter | None) -> Iterator[Section | SectionHead]:
        """What the archive holds, unverified; sections of a stream come whole."""
        for item in self._scan(inline_bytes) if self.is_file else self._stream_items(bar):
            if isinstance(item, CarHeader):
                self.header = item
                continue
            if bar is not None and self.is_file:
                bar.advance(item.size_bytes if isinstance(item, SectionHead) else len(item.data))
            yield item
        if self.header is None:
            raise TruncatedCar("this is no CAR file: it has no header")

    def _scan(self, inline_bytes: int) -> Iterator[CarHeader | Section | SectionHead]:
        scanning = scan(self._sections, inline_bytes)
        size_bytes = os.fstat(self._handle).st_size
        with suppress(StopIteration):
            item = next(scanning)
            while True:
                answer = None
                if isinstance(item, ReadAt):
                    answer = os.pread(self._handle, item.length, item.offset)
                else:
                    if isinstance(item, SectionHead) and item.data_start + item.size_bytes > size_bytes:
                        raise TruncatedCar(f"CAR cut off: it ends inside block {item.cid}")
                    yield item
                item = scanning.send(answer)

    def _stream_items(self, bar: Meter | None) -> Iterator[CarHeader | Section]:
        sections = self._sections
        while True:
            while (item := sections.next()) is not None:
                yield item
            if sections.ended:
                return
            data = self._read()
            if not data:
                return sections.finish()
            if bar is not None:
                bar.advance(len(data))
            sections.feed(data)

    def _read(self) -> bytes:
        from http.client import HTTPException

        try:
            data = self._stream(READ_BYTES)
        except (HTTPException, TimeoutError, ConnectionError) as error:
            return self._broken(f"the connection broke: {error}")
        return data if data or not self._left() else self._broken(f"{self._left()} bytes did not come")

    def _broken(self, why: str) -> bytes:
        if self._options.allow_truncated:
            raise TruncatedCar(f"CAR cut off: {why}")
        raise unreachable(f"{self.name}: {why}; import it again to go on")

    # --- behind the data of a CARv2 ---

    def index(self, limit_bytes: int) -> bytes:
        """The index of a CARv2 after all of its sections were read: `limit_bytes` of it and one more.

        Raises DecodeError (exit 4) for an index that cannot be there.
        """
        assert self.header is not None
        assert self.header.v2 is not None
        with self._named():
            start = self.header.v2.require_index()
        if self.is_file:
            return self.read_at(start, limit_bytes + 1)
        position, data = self.header.v2.data_end, self._sections.rest
        while position + len(data) <= start + limit_bytes and (more := self._read()):
            if position + len(data) <= start:  # padding
                position, data = position + len(data), b""
            data += more
        return data[max(0, start - position) :][: limit_bytes + 1]

    def has_more(self) -> bool:
        """Whether anything follows the data of a CARv2, after all of its sections were read."""
        assert self.header is not None
        assert self.header.v2 is not None
        if self.is_file:
            return os.fstat(self._handle).st_size > self.header.v2.data_end
        return bool(self._sections.rest or self._read())

    def drain(self) -> None:
        """Reads a pipe to its end, so that whoever writes into it is not cut off."""
        if self.name == STDIO:
            while self._read():
                continue


@contextmanager
def open_car(name: str, options: ReadOptions | None = None) -> Iterator[CarInput]:
    """The archive that a path, `-` or an http(s) URL names; exit 3 if it is not there."""
    with ExitStack() as stack:
        yield CarInput(name, stack, options or ReadOptions())
