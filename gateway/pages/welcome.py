"""The page at `/`, and its field: from whatever form of address a person has to a path of this gateway."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import unquote, urlsplit

from aiohttp import web

from gateway import errors
from gateway.addresses.names import key_name, uninline_dns_name
from gateway.addresses.request import encode_path
from gateway.headers import base_headers
from gateway.pages.frame import address_form, page_end, page_start
from gateway.pages.style import WELCOME_SECURITY_POLICY
from merkledag.cid import CID
from merkledag.codecs import LIBP2P_KEY
from merkledag.dnslink import is_dns_name
from merkledag.errors import InvalidCID, InvalidPath
from merkledag.path import ContentPath, parse_path

_CACHED = "public, max-age=3600"


def serve_welcome(query: Mapping[str, str]) -> web.Response:
    """The page; with `?path=` the redirect to what was typed. Raises NotAnAddress for what is none."""
    headers = base_headers()
    typed = query.get("path", "").strip()
    if typed:
        headers["Location"] = encode_path(str(read_address(typed)))
        return web.Response(status=302, headers=headers)
    headers["Content-Type"] = "text/html; charset=utf-8"
    headers["Content-Security-Policy"] = WELCOME_SECURITY_POLICY
    headers["Cache-Control"] = _CACHED
    return web.Response(body=_page().encode(), headers=headers)


def read_address(typed: str) -> ContentPath:
    """The content path in an address of any usual form; raises NotAnAddress.

    A CID or name, alone or with a path; `/ipfs/…`; `ipfs://…`; the address of a page on any gateway, with the
    CID in its path or in its host name.
    """
    try:
        return parse_path(_canonical(typed))
    except InvalidPath as error:
        raise errors.NotAnAddress(f"this is no address of content: {error}", typed) from error


def _canonical(typed: str) -> str:
    lower = typed.lower()
    if lower.startswith(("ipfs://", "ipns://")):
        return typed
    for prefix in ("dweb:", "ipfs:", "ipns:"):
        if lower.startswith((f"{prefix}/ipfs/", f"{prefix}/ipns/")):
            return typed[len(prefix) :]
    if lower.startswith(("http://", "https://")):
        return _of_gateway(typed)
    if lower.startswith(("ipfs/", "ipns/")):
        return f"/{typed}"
    if typed.startswith("/"):
        return typed
    root = typed.partition("/")[0]
    try:
        is_name = CID.parse(root).codec == LIBP2P_KEY
    except InvalidCID:
        is_name = key_name(root) is not None or is_dns_name(root.lower())
    return f"/ipns/{typed}" if is_name else typed


def _of_gateway(url: str) -> str:
    """The content that an address on somebody's gateway names: it is looked up here, not there."""
    try:
        parts = urlsplit(url)
        host = (parts.hostname or "").lower()
    except ValueError:
        return url
    path = unquote(parts.path)
    if path.startswith(("/ipfs/", "/ipns/")):
        return path
    label, namespace = (*host.split(".", 2), "", "")[:2]
    if namespace == "ipfs" and _is_cid(label):
        return f"/ipfs/{label}{path}"
    if namespace == "ipns" and key_name(label) is not None:
        return f"/ipns/{label}{path}"
    name = uninline_dns_name(label)
    return f"/ipns/{name if namespace == 'ipns' and '.' in name else host}{path}"


def _is_cid(text: str) -> bool:
    try:
        CID.parse(text)
    except InvalidCID:
        return False
    return True


def _page() -> str:
    return (
        page_start("Holdfast gateway", "Holdfast gateway", "")
        + '<p class="soft lead">Content by its own address</p><div class="card box">'
        + address_form()
        + '<p class="soft">A CID such as <code>bafybei…</code> or <code>Qm…</code>, with or without a path; '
        "a name such as <code>docs.ipfs.tech</code> or <code>k51…</code>; or an address copied from another "
        "gateway.</p>"
        "</div>"
        '<h2 class="sec">Addresses</h2><div class="card box"><dl>'
        "<dt><code>/ipfs/CID/path</code></dt><dd>a file, or a folder as a page that lists it</dd>"
        "<dt><code>/ipns/NAME/path</code></dt><dd>what a key or a domain points at now</dd>"
        "<dt><code>?format=raw</code></dt><dd>the block itself, to be verified by its CID</dd>"
        "<dt><code>?format=car</code></dt><dd>all blocks below it, as a CAR archive</dd>"
        "<dt><code>?format=tar</code></dt><dd>a folder as a TAR archive</dd>"
        "<dt><code>?inspect=node</code></dt><dd>what a node holds: its links, data and CID in every form</dd>"
        "</dl></div>" + page_end("<p>Served by Holdfast.</p>")
    )
