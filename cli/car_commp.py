"""`holdfast car commp`: the Filecoin piece of a file, a stream, or the archive that a DAG would be."""

from __future__ import annotations

import hashlib
import os
import stat
import sys
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from contextlib import closing, contextmanager, suppress
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from cli.arguments import cid_argument
from cli.car_opening import check_there, open_url, widen_pipe
from cli.output import CommandError, invalid, meter, not_found, unreachable, usage
from cli.sources import content_source, unixfs_node
from cli.streams import STDIO
from cli.urls import WEB
from merkledag import car
from merkledag.cid import CID
from merkledag.errors import InvalidCID, InvalidPath
from merkledag.path import parse_path
from merkledag.scope import walk_scope
from merkledag.steps import iterate
from proofs.errors import InvalidPieceCID
from proofs.piece_cid.identifier import Piece, is_piece_cid, parse_piece_cid
from proofs.piece_cid.stream import MAX_PAYLOAD_BYTES, PieceBuilder, segments, too_large
from proofs.piece_cid.tree import segment_root
from storage_node.fingerprints import FingerprintSet

if TYPE_CHECKING:
    from concurrent.futures import Future
    from http.client import HTTPResponse

    from cli.home import Home
    from cli.sources import ContentSource
    from merkledag.steps import Buffer

READ_BYTES: Final = 1 << 20
INLINE_SEGMENTS: Final = 24  # about 24 MiB: for less, starting processes takes longer than hashing
AHEAD: Final = 2  # segments that wait for each process


class Payload(NamedTuple):
    """Bytes to come: their parts, and their number where it is known."""

    parts: Iterable[Buffer]
    size_bytes: int | None


class Commitment(NamedTuple):
    """A piece, and the plain SHA-256 of its payload."""

    piece: Piece
    sha256: str


def is_file(source: str) -> bool:
    """Whether `source` names a file, standard input or a URL; what exists in the file system is a file."""
    return source == STDIO or source.startswith(WEB) or os.path.lexists(source)


def parsed(text: str) -> Piece | bytes:
    """What a piece CID says, as `parse_piece_cid`; exit 2 for anything else."""
    try:
        return parse_piece_cid(cid_argument(text))
    except InvalidPieceCID as error:
        raise usage(str(error)) from None


def is_piece(source: str) -> bool:
    """Whether `source` is a piece CID, which has no DAG below it."""
    with suppress(InvalidCID):
        return is_piece_cid(CID.parse(source))
    return False


# --- what is hashed ---


@contextmanager
def open_file(source: str) -> Iterator[Payload]:
    """The bytes of a file, of standard input or of a URL; exit 3 where there are none."""
    if source == STDIO:
        with suppress(OSError, ValueError):
            widen_pipe(sys.stdin.fileno())
        yield Payload(iter(lambda: sys.stdin.buffer.read(READ_BYTES), b""), None)
    elif source.startswith(WEB):
        check_there(source)
        with open_url(source) as response:
            yield Payload(_answer(response, source), response.length)
    elif Path(source).is_dir():
        raise invalid(f"{source} is a folder: add it, and give its CID for the piece of its archive")
    else:
        with Path(source).open("rb", buffering=0) as file:
            status = os.fstat(file.fileno())
            size_bytes = status.st_size if stat.S_ISREG(status.st_mode) else None
            yield Payload(iter(lambda: file.read(READ_BYTES), b""), size_bytes)


def _answer(response: HTTPResponse, url: str) -> Iterator[bytes]:
    """The body of a server's answer; exit 5 unless all of it comes."""
    from http.client import HTTPException

    try:
        while data := response.read(READ_BYTES):
            yield data
    except (HTTPException, TimeoutError, ConnectionError) as error:
        raise unreachable(f"{url}: the connection broke: {error}") from None
    if response.length:
        raise unreachable(f"{url}: {response.length} bytes did not come")


def archive_of(home: Home, path: str) -> Payload:
    """The CARv1 that `holdfast car export` writes of the DAG at a path; exit 3 for what is no path either."""
    try:
        wanted = parse_path(path)
    except InvalidPath as error:
        raise not_found(f"{path}: there is no such file, and it is no content: {error}") from None
    source = content_source(home)
    root = unixfs_node(home, source, wanted)
    return Payload(_archive(root, source), None)


def _archive(root: CID, source: ContentSource) -> Iterator[Buffer]:
    yield car.header([root])
    for block in iterate(walk_scope(root, is_new=FingerprintSet().add), source.get):
        yield car.frame_head(block.cid, len(block.data))
        yield block.data


# --- hashing ---


def commit(payload: Payload, expected_bytes: int | None = None) -> Commitment:
    """The piece of a payload, with a progress line; large ones are hashed by a process a core.

    Exit 4 for one that no piece can hold, or that has not the `expected_bytes`, as soon as that is known.
    """
    _check_size(payload.size_bytes, expected_bytes, whole=True)
    builder, plain = PieceBuilder(), hashlib.sha256()
    bar = meter("hashed", payload.size_bytes or expected_bytes)
    try:
        with closing(_roots(segments(payload.parts))) as roots:
            for segment, root in roots:
                _check_size(builder.payload_bytes + len(segment), expected_bytes, whole=False)
                plain.update(segment)
                builder.add(root, len(segment))
                bar.advance(len(segment))
    finally:
        bar.finish()
    _check_size(builder.payload_bytes, expected_bytes, whole=True)
    return Commitment(builder.piece(), plain.hexdigest())


def _check_size(size_bytes: int | None, expected_bytes: int | None, *, whole: bool) -> None:
    if size_bytes is None:
        return
    if size_bytes > MAX_PAYLOAD_BYTES:
        raise too_large()
    if expected_bytes is not None and (
        size_bytes > expected_bytes or (whole and size_bytes != expected_bytes)
    ):
        said = f"{size_bytes}" if whole else f"{size_bytes} or more"
        raise invalid(f"this has {said} bytes, and the piece CID is one of {expected_bytes}")


def _roots(cut: Iterator[bytes]) -> Generator[tuple[bytes, bytes], None, None]:
    """Each segment with its root, in order."""
    first = list(islice(cut, INLINE_SEGMENTS))
    following = next(cut, None) if len(first) == INLINE_SEGMENTS else None
    if following is None:
        for segment in first:
            yield segment, segment_root(segment)
        return
    yield from _roots_by_processes(chain(first, [following], cut))


def _roots_by_processes(cut: Iterator[bytes]) -> Generator[tuple[bytes, bytes], None, None]:
    from concurrent.futures import BrokenExecutor

    from storage_node.worker_pool import WorkerPool

    pool = WorkerPool()
    waiting: deque[tuple[bytes, Future[bytes]]] = deque()
    try:
        for segment in cut:
            waiting.append((segment, pool.run(segment_root, segment)))
            if len(waiting) > AHEAD * pool.workers:
                done, root = waiting.popleft()
                yield done, root.result()
        for done, root in waiting:
            yield done, root.result()
    except BrokenExecutor:
        raise CommandError("a process that hashes was killed: try again, with more memory free") from None
    finally:
        pool.close()
