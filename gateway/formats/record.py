"""Signed IPNS records, for clients that verify them (trustless gateway, `format=ipns-record`)."""

from __future__ import annotations

import asyncio
import hashlib

from aiohttp import web

from gateway import errors
from gateway.addresses.names import key_name
from gateway.exchange import Exchange, content_location, send_bytes
from gateway.formats.disposition import disposition
from gateway.formats.negotiation import MEDIA_TYPES, Format
from gateway.headers import base_headers, mutable_cache_control
from gateway.source import RecordSource


async def serve_record(exchange: Exchange, records: RecordSource | None) -> web.StreamResponse:
    """The record of an IPNS key; raises BadRequest for other paths."""
    asked = exchange.asked
    name = key_name(asked.root) if asked.namespace == "ipns" else None
    if name is None or asked.segments:
        raise errors.BadRequest("format=ipns-record is for /ipns/KEY, without a path behind it")
    if records is None:
        raise errors.NotImplementedHere("this gateway has no IPNS records")
    limit_s = exchange.settings.retrieval_timeout_s
    try:
        async with asyncio.timeout(limit_s):
            record = await records.record(name)
    except LookupError as error:
        raise errors.NotFound(f"no valid record of {name} could be found") from error
    except TimeoutError as error:
        raise errors.RetrievalTimeout(f"no record of {name} arrived within {limit_s:g} s") from error
    headers = base_headers()
    headers["Etag"] = f'"{hashlib.sha256(record.data).hexdigest()[:32]}.ipns-record"'
    headers["Content-Type"] = MEDIA_TYPES[Format.IPNS_RECORD]
    headers["X-Ipfs-Path"] = asked.header_path
    headers["Content-Disposition"] = disposition("attachment", exchange.file_name() or f"{name}.ipns-record")
    cache_control = mutable_cache_control(record.ttl_s)
    if cache_control is not None:
        headers["Cache-Control"] = cache_control
    if exchange.wanted.from_accept:
        headers["Content-Location"] = content_location(asked, exchange.wanted)
        headers["Vary"] = "Accept"
    not_modified = exchange.not_modified(headers)
    return send_bytes(exchange, headers, record.data) if not_modified is None else not_modified
