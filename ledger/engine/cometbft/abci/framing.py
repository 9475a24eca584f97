"""ABCI's frames on a socket: a message's length as an unsigned varint, then its bytes. Bytes in, frames out.

Source: `libs/protoio` of CometBFT. Pure: nothing here waits, reads or writes.
"""

from __future__ import annotations

from ledger.engine.cometbft.errors import AbciProtocolError

# PrepareProposal brings at most a block's bytes, InitChain the genesis, ApplySnapshotChunk a chunk of 16 MiB.
MAX_FRAME_BYTES = 64 << 20
MAX_LENGTH_BYTES = 5  # of the varint: more than MAX_FRAME_BYTES needs


def frame(message: bytes) -> bytes:
    """A message with its length before it."""
    length = len(message)
    head = bytearray()
    while length > 0x7F:
        head.append(length & 0x7F | 0x80)
        length >>= 7
    head.append(length)
    return bytes(head) + message


class FrameReader:
    """Cuts what comes in into messages; holds at most one that is incomplete, of `max_bytes`."""

    def __init__(self, max_bytes: int = MAX_FRAME_BYTES) -> None:
        self._max_bytes = max_bytes
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[bytes]:
        """The messages that are complete with `data`, in order; AbciProtocolError for one that is too large.

        A length is refused before any of its bytes are kept.
        """
        buffer = self._buffer
        buffer += data
        found: list[bytes] = []
        start = 0
        while (head := self._length(start)) is not None:
            begin, length = head
            if len(buffer) < begin + length:
                break
            found.append(bytes(buffer[begin : begin + length]))
            start = begin + length
        del buffer[:start]
        return found

    def _length(self, start: int) -> tuple[int, int] | None:
        """Where the message begins whose length is at `start`, and the length; None if that is incomplete."""
        value = 0
        for i, byte in enumerate(self._buffer[start : start + MAX_LENGTH_BYTES]):
            value |= (byte & 0x7F) << 7 * i
            if byte < 0x80:
                if value > self._max_bytes:
                    raise AbciProtocolError(f"a frame of {value} bytes; at most {self._max_bytes} are taken")
                return start + i + 1, value
        if len(self._buffer) - start >= MAX_LENGTH_BYTES:
            raise AbciProtocolError(f"a frame's length takes more than {MAX_LENGTH_BYTES} bytes")
        return None
