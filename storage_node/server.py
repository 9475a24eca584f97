"""A storage node's own HTTP API: status, uploads of shards, the owner's view; reads are mounted outside."""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Protocol

from aiohttp import web

from ledger.engine.errors import LedgerNotFound
from ledger.errors import LedgerError
from merkledag.cid import CID
from merkledag.errors import InvalidCID
from storage_node import wire
from storage_node.custody import ShardTerms
from storage_node.duties import ShardKey
from storage_node.errors import (
    SignatureRefused,
    StoreFull,
    UploadRefused,
)
from storage_node.httpsig import Message, Verifier, normal_authority
from storage_node.upload import CarIntake, PieceIntake

PORTION_BYTES = 1024 * 1024
MAX_UPLOADS = 16
MAX_UPLOADS_PER_SHARD = 2
UPLOAD_IDLE_S = 60.0


class Reception(Protocol):
    """What the routes need of the node."""

    async def offered(self, key: ShardKey) -> ShardTerms | None:
        """The terms of a shard that is offered to this node now, None when it is held already.

        Raises UploadRefused when it is neither, LedgerNotFound for an unknown deal, LedgerError.
        """

    async def intake(self, terms: ShardTerms) -> PieceIntake:
        """The shard's upload state."""

    async def reserve(self, terms: ShardTerms, intake: PieceIntake) -> None:
        """Raises StoreFull when what is still to come does not fit."""

    def uploading(self) -> Any:
        """A context manager held while blocks come in, so that garbage collection leaves them."""

    def ended(self, terms: ShardTerms, intake: PieceIntake) -> None:
        """A connection ended, complete or not: what came is kept for the next one, for a bounded time."""

    async def arrived(self, terms: ShardTerms, intake: PieceIntake) -> bool:
        """The piece is complete: check it and accept it. True once the ledger knows, False when that must
        wait.

        Raises UploadRefused when the piece is not what the deal says.
        """

    def failed(self, key: ShardKey) -> None:
        """The store failed under an upload: read the shard's state from disk again."""

    def status(self) -> dict[str, Any]:
        """The public status document."""

    async def earnings(self) -> dict[str, Any]:
        """The owner's earnings document."""

    def admin_status(self) -> dict[str, Any]:
        """The owner's status document."""


@dataclass(frozen=True, slots=True)
class ServerSettings:
    """Limits of the routes. ``admin_token`` None switches the owner's routes off."""

    admin_token: str | None = None
    max_uploads: int = MAX_UPLOADS
    idle_s: float = UPLOAD_IDLE_S


class NodeServer:
    """The routes of one node. ``clock`` gives Unix time in seconds."""

    def __init__(self, reception: Reception, settings: ServerSettings, *, clock: Callable[[], float]) -> None:
        self._reception = reception
        self._settings = settings
        self._verifier = Verifier(clock, tag=wire.UPLOAD_TAG)
        self._uploads: dict[ShardKey, int] = {}

    def add_routes(self, app: web.Application) -> None:
        """Mount everything on an application."""
        router = app.router
        router.add_get(wire.STATUS_ROUTE, _answering(self._status))
        router.add_get(wire.SHARD_ROUTE, _answering(self._get_shard), allow_head=False)
        router.add_put(wire.SHARD_ROUTE, _answering(self._put_shard), expect_handler=_later)
        router.add_get(wire.EARNINGS_ROUTE, _answering(self._earnings))
        router.add_get(wire.ADMIN_STATUS_ROUTE, _answering(self._admin_status))

    async def _status(self, _request: web.Request) -> web.Response:
        return web.json_response(self._reception.status())

    async def _admin_status(self, request: web.Request) -> web.Response:
        self._require_admin(request)
        return web.json_response(self._reception.admin_status())

    async def _earnings(self, request: web.Request) -> web.Response:
        self._require_admin(request)
        return web.json_response(await self._reception.earnings())

    def _require_admin(self, request: web.Request) -> None:
        token = self._settings.admin_token
        given = request.headers.get("Authorization", "").removeprefix("Bearer ")
        if token is None or not hmac.compare_digest(token.encode(), _octets(given)):
            raise web.HTTPForbidden(text="this needs the admin token of the node's run/ folder")

    async def _get_shard(self, request: web.Request) -> web.Response:
        terms = await self._reception.offered(_key(request))
        if terms is None:
            return _state(wire.ShardState(wire.ShardPhase.HELD))
        intake = await self._reception.intake(terms)
        return _state(await asyncio.to_thread(intake.state))

    async def _put_shard(self, request: web.Request) -> web.Response:
        key = _key(request)
        terms = await self._reception.offered(key)
        if terms is None:
            return _close(_state(wire.ShardState(wire.ShardPhase.HELD)))
        self._verifier.verify(_message(request), terms.client)
        if request.content_type != wire.CAR_TYPE:
            raise web.HTTPUnsupportedMediaType(text=f"an upload is a CAR ({wire.CAR_TYPE})")
        running = self._uploads.get(key, 0)
        if running >= MAX_UPLOADS_PER_SHARD or sum(self._uploads.values()) >= self._settings.max_uploads:
            raise web.HTTPTooManyRequests(text="too many uploads at once: try again in a minute")
        self._uploads[key] = running + 1
        try:
            intake = await self._reception.intake(terms)
            await self._reception.reserve(terms, intake)
            await _go_ahead(request)
            with self._reception.uploading():
                try:
                    await self._receive(request, key, intake)
                finally:  # while the lease still holds
                    await asyncio.shield(asyncio.to_thread(self._reception.ended, terms, intake))
        finally:
            self._uploads[key] -= 1
            if not self._uploads[key]:
                del self._uploads[key]
        if not intake.complete:
            return _state(await asyncio.to_thread(intake.state))
        held = await self._reception.arrived(terms, intake)
        if held:
            return _state(wire.ShardState(wire.ShardPhase.HELD))
        return _state(await asyncio.to_thread(intake.state), status=202)

    async def _receive(self, request: web.Request, key: ShardKey, intake: PieceIntake) -> None:
        """Move the body into the store, one portion in memory at a time."""
        car = CarIntake(intake)
        portion = bytearray()
        try:
            while True:
                async with asyncio.timeout(self._settings.idle_s):
                    data = await request.content.readany()
                portion += data
                if len(portion) >= PORTION_BYTES or (not data and portion):
                    await asyncio.to_thread(car.feed, bytes(portion))
                    portion.clear()
                if not data:
                    break
            await asyncio.to_thread(car.finish)
        except StoreFull:
            self._reception.failed(key)
            raise
        except (ConnectionError, TimeoutError, asyncio.CancelledError):
            # The client vanished or stalls; whole blocks that came are kept for its next try.
            await asyncio.shield(asyncio.to_thread(car.abandon, bytes(portion)))
            raise


def _octets(text: str) -> bytes:
    """A header's text as it came: aiohttp reads octets that are not UTF-8 as lone surrogates."""
    return text.encode("utf-8", "surrogateescape")


def _key(request: web.Request) -> ShardKey:
    try:
        deal = CID.parse(request.match_info["deal"])
        shard = request.match_info["shard"]
        if not (shard.isascii() and shard.isdigit() and len(shard) <= 4):
            raise InvalidCID("a shard is a small number")
    except InvalidCID as error:
        raise web.HTTPBadRequest(text=str(error)) from None
    if str(deal) != request.match_info["deal"]:
        raise web.HTTPBadRequest(text=f"write the deal as {deal}")
    return ShardKey(deal, int(shard))


def _message(request: web.Request) -> Message:
    """What the signature covers, as it came over the wire; repeated header fields are joined (RFC 9110)."""
    headers: dict[str, str] = {}
    for name, value in request.headers.items():
        lower = name.lower()
        headers[lower] = f"{headers[lower]}, {value}" if lower in headers else value
    path, mark, query = request.raw_path.partition("?")
    return Message(
        request.method,
        normal_authority(request.scheme, request.host),
        path,
        query if mark else None,
        headers,
    )


async def _later(_request: web.Request) -> None:
    """`Expect: 100-continue` is answered by the handler, when it has decided to take the body."""


async def _go_ahead(request: web.Request) -> None:
    if request.headers.get("Expect", "").lower() == "100-continue":
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        request.writer.output_size = 0


def _state(state: wire.ShardState, status: int = 200) -> web.Response:
    return web.json_response(state.to_json(), status=status)


def _close(response: web.Response) -> web.Response:
    """An answer that was given before the body was read ends the connection."""
    response.force_close()
    return response


Handler = Callable[[web.Request], Awaitable[web.Response]]


def _answering(handler: Handler) -> Handler:
    """Turn errors into answers: one line of JSON and the status that says whose fault it is."""

    async def answer(request: web.Request) -> web.Response:
        try:
            return await handler(request)
        except web.HTTPException as problem:
            return _close(_error(problem.status, problem.text or problem.reason))
        except SignatureRefused as problem:
            return _close(_error(401, str(problem)))
        except LedgerNotFound as problem:
            return _close(_error(404, str(problem)))
        except UploadRefused as problem:
            return _close(_error(409, str(problem)))
        except StoreFull as problem:
            return _close(_error(507, str(problem)))
        except (ConnectionError, TimeoutError):
            return _close(_error(408, "no bytes came for too long"))
        except LedgerError as problem:
            return _close(_error(503, f"the ledger cannot be asked: {problem}"))

    return answer


def _error(status: int, text: str) -> web.Response:
    return web.json_response({"error": text[: wire.MAX_ERROR_CHARS]}, status=status)
