"""What a parent and its worker processes say to each other: JSON documents, one a line, on a socket."""

from __future__ import annotations

import asyncio
import json
import socket
from typing import Any, Final

MAX_DOCUMENT_BYTES: Final = 4 << 20

Document = dict[str, Any]


class Channel:
    """One end. The other process may end at any time: then `receive` gives None and `send` does nothing."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def over(cls, sock: socket.socket) -> Channel:
        """The end that `sock` is."""
        return cls(*await asyncio.open_connection(sock=sock, limit=MAX_DOCUMENT_BYTES))

    def send(self, document: Document) -> None:
        """Hands a document over; returns at once."""
        if not self._writer.is_closing():
            self._writer.write(json.dumps(document).encode() + b"\n")

    async def receive(self) -> Document | None:
        """The next document, None when the other end is gone."""
        try:
            line = await self._reader.readuntil(b"\n")
        except (OSError, asyncio.IncompleteReadError):
            return None
        document: Document = json.loads(line)
        return document

    async def aclose(self) -> None:
        """Sends what waits and closes."""
        self._writer.close()
        try:
            await self._writer.wait_closed()
        except OSError:
            return
