"""The piece of a stream of bytes, of any length up to the largest of Filecoin, in bounded memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from merkledag.steps import Buffer
from proofs.errors import PieceTooLarge
from proofs.piece_cid.identifier import Piece
from proofs.piece_cid.tree import (
    SEGMENT_BYTES,
    SEGMENT_HEIGHT,
    ZERO_ROOTS,
    capacity_bytes,
    height_of,
    lift,
    node,
    segment_root,
)

MAX_PIECE_HEIGHT = 31  # of a sector of 64 GiB, Filecoin's largest
MAX_PAYLOAD_BYTES = capacity_bytes(MAX_PIECE_HEIGHT)


class PieceBuilder:
    """Joins the roots of a payload's segments, given in their order, into its piece; holds a root a level."""

    def __init__(self) -> None:
        self._only = ZERO_ROOTS[height_of(0)]  # the root, while there is no second segment
        self._waiting: list[bytes | None] = []  # by level above segments: what has no right sibling yet
        self.payload_bytes = 0

    def add(self, root: bytes, length_bytes: int) -> None:
        """The next segment: its `segment_root` and length, which is `SEGMENT_BYTES` in all but the last.

        Raises PieceTooLarge above `MAX_PAYLOAD_BYTES`, ValueError for a length that cannot be.
        """
        if self.payload_bytes % SEGMENT_BYTES or not 0 < length_bytes <= SEGMENT_BYTES:
            raise ValueError(f"a segment of {length_bytes} bytes after {self.payload_bytes}")
        if self.payload_bytes + length_bytes > MAX_PAYLOAD_BYTES:
            raise too_large()
        if not self.payload_bytes:
            self._only = root
        self.payload_bytes += length_bytes
        root = lift(root, height_of(length_bytes), SEGMENT_HEIGHT)
        for level, left in enumerate(self._waiting):
            if left is None:
                self._waiting[level] = root
                return
            self._waiting[level] = None
            root = node(left, root)
        self._waiting.append(root)

    def piece(self) -> Piece:
        """The piece of all that was added so far."""
        if self.payload_bytes <= SEGMENT_BYTES:
            return Piece(self._only, self.payload_bytes)
        # Along the right edge upwards: to the right of `edge` is nothing but zeros.
        *waiting, full = self._waiting
        edge: bytes | None = None
        for level, left in enumerate(waiting, SEGMENT_HEIGHT):
            if left is not None:
                edge = node(left, ZERO_ROOTS[level] if edge is None else edge)
            elif edge is not None:
                edge = node(edge, ZERO_ROOTS[level])
        assert full is not None  # the topmost is where the last tree came to wait, or what it was joined with
        return Piece(full if edge is None else node(full, edge), self.payload_bytes)


def too_large() -> PieceTooLarge:
    """What is wrong with a payload over `MAX_PAYLOAD_BYTES`."""
    return PieceTooLarge(
        f"more than {MAX_PAYLOAD_BYTES} bytes: no piece of Filecoin, 64 GiB at most, holds them"
    )


def segments(parts: Iterable[Buffer]) -> Iterator[bytes]:
    """A payload that comes in any parts, cut into `SEGMENT_BYTES` each; only the last may be shorter."""
    held: list[Buffer] = []
    size_bytes = 0
    for part in parts:
        view = memoryview(part)
        while size_bytes + len(view) >= SEGMENT_BYTES:
            cut = SEGMENT_BYTES - size_bytes
            yield b"".join([*held, view[:cut]])
            held, size_bytes, view = [], 0, view[cut:]
        if view:
            held.append(bytes(view))  # a copy: the part may be a buffer that is filled again
            size_bytes += len(view)
    if held:
        yield b"".join(held)


def piece_of(parts: Iterable[Buffer]) -> Piece:
    """The piece of a payload; raises PieceTooLarge above `MAX_PAYLOAD_BYTES`."""
    builder = PieceBuilder()
    for segment in segments(parts):
        builder.add(segment_root(segment), len(segment))
    return builder.piece()
