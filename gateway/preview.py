"""A dag-json or dag-cbor node as indented text in HTML, its links clickable."""

from __future__ import annotations

import json
from base64 import b64encode
from html import escape

from gateway.pages import text
from gateway.request import ContentRequest, Kind
from merkledag import dag_cbor
from merkledag.cid import CID
from merkledag.codecs import DAG_CBOR
from merkledag.errors import InvalidCID

_MAX_DEPTH = 64
_SHOWN_BYTES = 64  # of a byte string


def render(codec: int, data: bytes, max_bytes: int, asked: ContentRequest) -> str:
    """HTML; raises DecodeError or ValueError for what is not of its codec, or too large to show."""
    if len(data) > max_bytes:
        raise ValueError(f"it has {len(data)} bytes; at most {max_bytes} are shown")
    value = dag_cbor.decode(data) if codec == DAG_CBOR else json.loads(data)
    host = f"//{asked.gateway_host}" if asked.kind is Kind.SUBDOMAIN else ""
    out: list[str] = []
    _value(value, 0, host, out)
    return "".join(out)


def _value(value: object, depth: int, host: str, out: list[str]) -> None:
    link = _link(value)
    if link is not None:
        out.append(f'<a href="{escape(host)}/ipfs/{link}">{link}</a>')
    elif isinstance(value, dict):
        items = [(text(json.dumps(str(key), ensure_ascii=False)) + ": ", item) for key, item in value.items()]
        _container("{", "}", items, depth, host, out)
    elif isinstance(value, (list, tuple)):
        _container("[", "]", [("", item) for item in value], depth, host, out)
    elif isinstance(value, bytes):
        start = b64encode(value[:_SHOWN_BYTES]).decode().rstrip("=")
        out.append(f"bytes({len(value)}) {start}{'…' if len(value) > _SHOWN_BYTES else ''}")
    else:
        out.append(text(json.dumps(value, ensure_ascii=False)))


def _container(
    start: str, end: str, items: list[tuple[str, object]], depth: int, host: str, out: list[str]
) -> None:
    if not items:
        out.append(start + end)
        return
    if depth >= _MAX_DEPTH:
        out.append(start + "…" + end)
        return
    out.append(start)
    for number, (label, item) in enumerate(items):
        out.append(("," if number else "") + "\n" + "  " * (depth + 1) + label)
        _value(item, depth + 1, host, out)
    out.append("\n" + "  " * depth + end)


def _link(value: object) -> CID | None:
    """A CID, or dag-json's `{"/": "cid"}`."""
    if isinstance(value, CID):
        return value
    if isinstance(value, dict) and len(value) == 1:
        target = value.get("/")
        if isinstance(target, str):
            try:
                return CID.parse(target)
            except InvalidCID:
                return None
    return None
