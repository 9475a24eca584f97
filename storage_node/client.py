"""Talks to one storage node over HTTP: its status, single blocks, and the upload of a shard."""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import AsyncIterator, Callable
from email.utils import parsedate_to_datetime
from typing import Any

import aiohttp
from yarl import URL

from merkledag.block import MAX_BLOCK_BYTES, verify_block
from merkledag.cid import CID
from merkledag.ed25519 import Signer
from merkledag.errors import MerkledagError
from storage_node import wire
from storage_node.endpoints import parse_endpoint
from storage_node.errors import PeerBusy, PeerMisbehaved, PeerUnreachable, UploadRefused
from storage_node.httpsig import Message, normal_authority, sign_request

REQUEST_TIMEOUT_S = 30.0
BLOCK_TIMEOUT_S = 20.0
BUSY_S = 1.0  # what 429 means where it does not say
MAX_SECONDS_DIGITS = 10
MAX_DOCUMENT_BYTES = wire.MAX_STATE_BYTES
NONCE_BYTES = 18
VERIFY_IN_THREAD_BYTES = 64 * 1024  # what is smaller is hashed faster than handed to a thread

# What aiohttp raises when the other side is absent, slow or gone.
NETWORK_ERRORS = (aiohttp.ClientError, OSError, TimeoutError)


def reason(error: BaseException) -> str:
    """One of these in words."""
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


class NodeClient:
    """One node at one endpoint. ``clock`` gives Unix time in seconds, for the signatures of uploads."""

    def __init__(
        self,
        session: aiohttp.ClientSession,
        endpoint: str,
        *,
        clock: Callable[[], float],
        allow_private: bool = False,
    ) -> None:
        self._session = session
        self._base: URL = parse_endpoint(endpoint, allow_private=allow_private)
        self._clock = clock

    async def status(self) -> dict[str, Any]:
        """The node's own account of itself (``GET /v1/status``)."""
        document = await self._document(self._base.join(URL(wire.STATUS_ROUTE)))
        if not isinstance(document, dict):
            raise PeerMisbehaved("the node's status is not an object")
        return document

    async def shard_state(self, deal: CID, shard: int) -> wire.ShardState:
        """What the node still lacks of a shard. UploadRefused when it has nothing to do with that shard."""
        url = self._base.join(URL(wire.shard_path(deal, shard)))
        return wire.parse_state(await self._document(url))

    async def get_block(self, cid: CID) -> bytes | None:
        """The verified bytes of a block (trustless gateway, ``format=raw``), or None when the node lacks it.

        Raises PeerUnreachable for a node that fails to answer, PeerBusy for one that says when to ask again,
        and PeerMisbehaved for bytes that do not fit.
        """
        url = self._base.join(URL(f"/ipfs/{cid}")).with_query(format="raw")
        try:
            async with (
                asyncio.timeout(BLOCK_TIMEOUT_S),
                self._session.get(
                    url,
                    allow_redirects=False,
                    headers={"Accept": wire.RAW_TYPE, "Cache-Control": "only-if-cached"},
                ) as response,
            ):
                if response.status in {404, 410, 412}:
                    return None
                if response.status != 200:
                    told = f"{self._base} answered {response.status} to a block request"
                    wait_s = retry_after_s(response, self._clock())
                    raise PeerUnreachable(told) if wait_s is None else PeerBusy(told, wait_s)
                data = await _read_bounded(response, MAX_BLOCK_BYTES)
        except NETWORK_ERRORS as error:
            raise PeerUnreachable(f"{self._base} does not answer: {reason(error)}") from error
        try:
            await verify_received(cid, data)
        except MerkledagError as error:
            raise PeerMisbehaved(f"{self._base} sent bytes that do not fit {cid}: {error}") from error
        return data

    async def put_shard(
        self, deal: CID, shard: int, signer: Signer, frames: AsyncIterator[bytes]
    ) -> wire.ShardState:
        """Stream a CAR into a shard and return the node's state after it.

        Raises UploadRefused with the node's reason, PeerUnreachable when the connection fails on the way.
        """
        url = self._base.join(URL(wire.shard_path(deal, shard)))
        port = "" if url.is_default_port() else f":{url.port}"
        host = f"[{url.host}]" if ":" in (url.host or "") else url.host
        message = Message("PUT", normal_authority(url.scheme, f"{host}{port}"), url.raw_path)
        headers = sign_request(
            signer,
            message,
            tag=wire.UPLOAD_TAG,
            created=int(self._clock()),
            nonce=secrets.token_urlsafe(NONCE_BYTES),
        )
        headers["Content-Type"] = wire.CAR_TYPE
        try:
            async with self._session.put(
                url, data=frames, headers=headers, allow_redirects=False, expect100=True
            ) as response:
                body = await _read_bounded(response, MAX_DOCUMENT_BYTES)
                status = response.status
        except NETWORK_ERRORS as error:
            raise PeerUnreachable(f"the upload to {self._base} broke off: {reason(error)}") from error
        return wire.parse_state(_checked(self._base, status, body))

    async def _document(self, url: URL) -> Any:
        try:
            async with (
                asyncio.timeout(REQUEST_TIMEOUT_S),
                self._session.get(url, allow_redirects=False) as response,
            ):
                body = await _read_bounded(response, MAX_DOCUMENT_BYTES)
                status = response.status
        except NETWORK_ERRORS as error:
            raise PeerUnreachable(f"{self._base} does not answer: {reason(error)}") from error
        return _checked(self._base, status, body)


def retry_after_s(response: aiohttp.ClientResponse, now_s: float) -> float | None:
    """In how many seconds a server that is busy (429, or 503 that says so) is to be asked again, else None.

    `now_s` is Unix time. RFC 9110, section 10.2.3.
    """
    told = response.headers.get("Retry-After", "")
    if response.status not in {429, 503}:
        return None
    if told.isdecimal() and len(told) < MAX_SECONDS_DIGITS:
        return float(told)
    try:
        return max(0.0, parsedate_to_datetime(told).timestamp() - now_s)
    except (ValueError, OverflowError):
        return BUSY_S if response.status == 429 else None


async def verify_received(cid: CID, data: bytes) -> None:
    """As `verify_block`; what takes long is hashed in a thread."""
    if len(data) < VERIFY_IN_THREAD_BYTES:
        verify_block(cid, data)
    else:
        await asyncio.to_thread(verify_block, cid, data)


async def _read_bounded(response: aiohttp.ClientResponse, limit_bytes: int) -> bytes:
    """The whole body, or PeerMisbehaved as soon as it is longer than the limit."""
    if response.content_length is not None and response.content_length > limit_bytes:
        raise PeerMisbehaved(f"a body of {response.content_length} bytes, at most {limit_bytes} expected")
    parts: list[bytes] = []
    size_bytes = 0
    async for part in response.content.iter_any():
        size_bytes += len(part)
        if size_bytes > limit_bytes:
            raise PeerMisbehaved(f"a body of more than {limit_bytes} bytes")
        parts.append(part)
    return b"".join(parts)


def _checked(base: URL, status: int, body: bytes) -> Any:
    """The JSON document of an answer; raises by its status."""
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        document = None
    if status in {200, 202}:
        return document
    reason = document.get("error") if isinstance(document, dict) else None
    told = str(reason)[: wire.MAX_ERROR_CHARS] if reason else "no reason given"
    text = f"{base} refused ({status}): {told}"
    # 408, 429 and 5xx pass; whoever asks again later may succeed.
    if status in {408, 429} or status >= 500:
        raise PeerUnreachable(text)
    raise UploadRefused(text)
