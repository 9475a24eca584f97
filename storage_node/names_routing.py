"""Where IPNS records come from and go to: routers, and Delegated Routing V1 over HTTP as a real one."""

from __future__ import annotations

import asyncio
from typing import Protocol

import aiohttp

from merkledag.ipns import MAX_RECORD_BYTES, MEDIA_TYPE
from merkledag.peer import name_text
from storage_node.errors import PeerMisbehaved, PeerUnreachable

REQUEST_TIMEOUT_S = 10.0


class Router(Protocol):
    """A place that others' records are found in. What it returns is verified by whoever asked."""

    async def get(self, name: bytes) -> bytes | None:
        """The record of a name (a multihash), None if the router has none.

        Raises PeerUnreachable or PeerMisbehaved.
        """
        ...

    async def put(self, name: bytes, raw: bytes) -> None:
        """Hands over a record; raises PeerUnreachable, or PeerMisbehaved where it is refused."""
        ...


class DelegatedRouter:
    """`GET` and `PUT /routing/v1/ipns/NAME` of one server (Delegated Routing V1 HTTP API, IPIP-513).

    Redirects are not followed: the server is the one that the user named.
    """

    def __init__(self, session: aiohttp.ClientSession, url: str) -> None:
        self._session = session
        self._url = url.rstrip("/")

    async def get(self, name: bytes) -> bytes | None:
        """As `Router.get`. An answer of another content type says that there is no record."""
        status, kind, body = await self._ask("GET", name, {"Accept": MEDIA_TYPE}, None)
        if status == 404 or (status == 200 and kind != MEDIA_TYPE):
            return None
        if status != 200:
            raise PeerUnreachable(f"the router {self._url} answered {status}")
        if len(body) > MAX_RECORD_BYTES:
            raise PeerMisbehaved(f"the router {self._url} sent more than {MAX_RECORD_BYTES} bytes")
        return body

    async def put(self, name: bytes, raw: bytes) -> None:
        """As `Router.put`."""
        status, _, body = await self._ask("PUT", name, {"Content-Type": MEDIA_TYPE}, raw)
        if 200 <= status < 300:
            return
        said = " ".join(body[:200].decode("utf-8", "replace").split())
        error = f"the router {self._url} answered {status} to the record" + (f": {said}" if said else "")
        raise PeerMisbehaved(error) if 400 <= status < 500 else PeerUnreachable(error)

    async def _ask(
        self, method: str, name: bytes, headers: dict[str, str], body: bytes | None
    ) -> tuple[int, str, bytes]:
        """Status, content type, and at most one byte more of the body than a record may have."""
        url = f"{self._url}/routing/v1/ipns/{name_text(name)}"
        try:
            async with (
                asyncio.timeout(REQUEST_TIMEOUT_S),
                self._session.request(
                    method,
                    url,
                    data=body,
                    headers={**headers, "Accept-Encoding": "identity"},
                    allow_redirects=False,
                ) as answer,
            ):
                received = bytearray()
                async for part in answer.content.iter_chunked(MAX_RECORD_BYTES + 1):
                    received += part
                    if len(received) > MAX_RECORD_BYTES:
                        break
                return answer.status, answer.content_type, bytes(received)
        except TimeoutError as error:
            raise PeerUnreachable(f"the router {self._url} did not answer in time") from error
        except (aiohttp.ClientError, OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            raise PeerUnreachable(f"the router {self._url} cannot be reached: {reason}") from error
