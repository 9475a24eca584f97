"""The client's transport: one request, one decoded answer, and every failure as this package's own error."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import urlsplit

from ledger.engine.errors import (
    LedgerNotFound,
    LedgerProtocolError,
    LedgerPruned,
    LedgerRefused,
    LedgerUnreachable,
)
from ledger.engine.render import CBOR_TYPE
from ledger.result import Code
from merkledag import dag_cbor, varint
from merkledag.errors import DecodeError

if TYPE_CHECKING:
    import aiohttp

MAX_ANSWER_BYTES = 64 << 20
MAX_FRAME_BYTES = 64 << 20
MAX_VARINT_BYTES = 9
READ_BYTES = 64 << 10
TIMEOUT_S = 60.0
CONNECT_TIMEOUT_S = 10.0
STREAM_SILENCE_S = 60.0
Query = Mapping[str, str] | Sequence[tuple[str, str]]


class Closing:
    """`async with` for what is to be closed."""

    async def close(self) -> None:
        """Harmless twice."""
        raise NotImplementedError

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_error: object) -> None:
        await self.close()


class Transport(Closing):
    """HTTP to one ledger server. It closes the session that it made itself, not one that it was given."""

    def __init__(
        self,
        url: str,
        session: aiohttp.ClientSession | None = None,
        timeout_s: float = TIMEOUT_S,
        connect_s: float = CONNECT_TIMEOUT_S,
    ) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.netloc:
            raise ValueError(f"not a ledger's URL: {url[:200]!r}; try http://127.0.0.1:4181")
        self.url = url.rstrip("/")
        self._session = session
        self._owns_session = session is None
        self._timeout_s = timeout_s
        self._connect_s = connect_s

    async def close(self) -> None:
        """Closes the session; harmless twice."""
        if self._owns_session and self._session is not None:
            session, self._session = self._session, None
            await session.close()

    async def get(self, path: str, query: Mapping[str, str] | None = None) -> Any:
        """The decoded answer. Raises what `LedgerClient` says of all its methods."""
        async with self._open("GET", path, query=query) as response:
            return _decode(await _read(response))

    async def get_bytes(self, path: str) -> bytes:
        """The answer as it is; raises as `get`."""
        async with self._open("GET", path) as response:
            return await _read(response)

    async def post(self, path: str, body: bytes) -> Any:
        """The decoded answer to a body; raises as `get`."""
        async with self._open("POST", path, body=body) as response:
            return _decode(await _read(response))

    async def portions(
        self, path: str, query: Mapping[str, str], offset: int = 0
    ) -> AsyncGenerator[bytes, None]:
        """A long answer's bytes from `offset` on as they come, until it ends whole. Raises as `get`."""
        async with self._open("GET", path, query=query, stream=True, offset=offset) as response:
            while data := await response.content.read(READ_BYTES):
                yield data

    async def frames(self, path: str, query: Query) -> AsyncGenerator[Any, None]:
        """The decoded maps of a stream, until it ends. Raises as `get`."""
        async with self._open("GET", path, query=query, stream=True) as response:
            buffer = bytearray()
            while data := await response.content.read(READ_BYTES):
                buffer += data
                for frame in _take_frames(buffer):
                    yield _decode(frame)

    @asynccontextmanager
    async def _open(
        self,
        method: str,
        path: str,
        *,
        query: Query | None = None,
        body: bytes | None = None,
        stream: bool = False,
        offset: int = 0,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        import aiohttp

        session = self._session = self._session or aiohttp.ClientSession()
        timeout = aiohttp.ClientTimeout(
            total=None if stream else self._timeout_s,
            sock_connect=self._connect_s,
            sock_read=STREAM_SILENCE_S if stream else self._timeout_s,
        )
        try:
            async with session.request(
                method,
                self.url + path,
                params=query,
                data=body,
                headers={"Accept": CBOR_TYPE, **({"Range": f"bytes={offset}-"} if offset else {})},
                timeout=timeout,
                allow_redirects=False,
            ) as response:
                if response.status != (206 if offset else 200):
                    raise _error(response.status, await _read(response), self.url)
                yield response
        except TimeoutError as error:
            raise LedgerUnreachable(f"the ledger at {self.url} did not answer in time") from error
        except (aiohttp.ClientError, OSError) as error:
            raise LedgerUnreachable(f"no ledger answers at {self.url} ({error}); is it running?") from error


async def _read(response: aiohttp.ClientResponse) -> bytes:
    body = bytearray()
    while data := await response.content.read(READ_BYTES):
        body += data
        if len(body) > MAX_ANSWER_BYTES:
            raise LedgerProtocolError(f"the answer has more than {MAX_ANSWER_BYTES} bytes")
    return bytes(body)


def _decode(raw: bytes) -> Any:
    try:
        return dag_cbor.decode(raw)
    except DecodeError as error:
        raise LedgerProtocolError(f"the answer is not DAG-CBOR ({error}); is this a ledger's URL?") from error


def _take_frames(buffer: bytearray) -> list[bytes]:
    """Removes the whole frames from the front of the buffer."""
    frames = []
    offset = 0
    while offset < len(buffer):
        head = bytes(buffer[offset : offset + MAX_VARINT_BYTES])
        if all(byte & 0x80 for byte in head) and len(head) < MAX_VARINT_BYTES:
            break
        try:
            size, used = varint.decode(head, 0)
        except DecodeError as error:
            raise LedgerProtocolError("the event stream has a malformed frame") from error
        if size > MAX_FRAME_BYTES:
            raise LedgerProtocolError(f"the event stream has a frame of {size} bytes")
        if len(buffer) - offset - used < size:
            break
        frames.append(bytes(buffer[offset + used : offset + used + size]))
        offset += used + size
    del buffer[:offset]
    return frames


def _error(status: int, body: bytes, url: str) -> Exception:
    """What an answer other than 200 means; its body is JSON, or DAG-CBOR for a refused transaction."""
    import json

    try:
        value = json.loads(body) if body[:1] == b"{" else dag_cbor.decode(body)
        message, code = str(value["error"])[:1_000], int(value["code"])
    except (ValueError, TypeError, KeyError, OverflowError, RecursionError):
        return LedgerProtocolError(f"{url} answered {status} and nothing that a ledger says; check the URL")
    if status in (404, 410):
        return LedgerNotFound(message) if status == 404 else LedgerPruned(message)
    if status in (400, 413) or code == Code.POOL_FULL:
        return LedgerRefused(code, message)
    return LedgerUnreachable(f"the ledger at {url} cannot answer now: {message}")


async def backoff(attempt: int, sleep: Any = asyncio.sleep) -> None:
    """Waits before the next attempt: 0.25 s, doubled each time, at most 15 s."""
    await sleep(min(15.0, 0.25 * 2 ** min(attempt, 10)))
