"""Buffers that blocks are padded and joined in, used again: new memory costs more than the copy."""

from __future__ import annotations


class Room:
    """As many and as long as was ever asked for. What is in a buffer is left over from its last use."""

    __slots__ = ("buffers",)

    def __init__(self) -> None:
        self.buffers: list[bytearray] = []

    def take(self, number: int, length_bytes: int) -> memoryview:
        """Buffer `number`; who takes 0, 1, 2, … in turn is done with those that were taken before."""
        if number == len(self.buffers):
            self.buffers.append(bytearray())
        if len(self.buffers[number]) < length_bytes:
            self.buffers[number] = bytearray(length_bytes)
        return memoryview(self.buffers[number])[:length_bytes]
