"""Asks routers who has content: Delegated Routing V1 over HTTP, as far as providers serve it by HTTP."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Any

import aiohttp
from yarl import URL

from merkledag.cid import CID
from storage_node.client import NETWORK_ERRORS, retry_after_s
from storage_node.errors import PeerBusy, PeerUnreachable

TIMEOUT_S = 10.0
MAX_PROVIDERS = 64
MAX_ANSWER_BYTES = 1 << 20
PROTOCOL = "transport-ipfs-gateway-http"  # the trustless gateway protocol (IPIP-484 and the multicodec table)
_HOSTS = {"ip4": "{}", "ip6": "[{}]", "dns": "{}", "dns4": "{}", "dns6": "{}"}
STREAM, DOCUMENT = "application/x-ndjson", "application/json"


class ProviderRouter:
    """`GET /routing/v1/providers/CID` of one server (Delegated Routing V1, with the filters of IPIP-484).

    Redirects are not followed: the server is the one that the user named. `clock` gives Unix seconds.
    """

    def __init__(self, session: aiohttp.ClientSession, url: str, clock: Callable[[], float]) -> None:
        self._session = session
        self._url = url.rstrip("/").removesuffix("/routing/v1")
        self._clock = clock

    async def gateways(self, cid: CID) -> AsyncGenerator[str, None]:
        """URLs of providers, as they are named, each once and MAX_PROVIDERS at most.

        Raises PeerUnreachable, or PeerBusy where the router says when to ask again.
        """
        url = URL(f"{self._url}/routing/v1/providers/{cid.to_v1()}", encoded=True)
        named: set[str] = set()
        try:
            async with (
                asyncio.timeout(TIMEOUT_S),
                self._session.get(
                    url.with_query({"filter-protocols": PROTOCOL}),
                    allow_redirects=False,
                    headers={"Accept": f"{STREAM}, {DOCUMENT}", "Accept-Encoding": "identity"},
                ) as answer,
                aclosing(_records(answer)) as records,
            ):
                if answer.status == 404:  # "must be interpreted as 200 with 0 results"
                    return
                if answer.status != 200:
                    told = f"the router {self._url} answers {answer.status}"
                    wait_s = retry_after_s(answer, self._clock())
                    raise PeerUnreachable(told) if wait_s is None else PeerBusy(told, wait_s)
                async for record in records:
                    for gateway in gateways_of(record):
                        if gateway not in named and len(named) < MAX_PROVIDERS:
                            named.add(gateway)
                            yield gateway
                    if len(named) == MAX_PROVIDERS:
                        return
        except TimeoutError as error:
            raise PeerUnreachable(f"the router {self._url} gives no answer in time") from error
        except (*NETWORK_ERRORS, ValueError, RecursionError) as error:
            reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
            raise PeerUnreachable(f"the router {self._url} gives no answer: {reason}") from error


async def _records(answer: aiohttp.ClientResponse) -> AsyncGenerator[Any, None]:
    """The records of an answer, those of a stream as they come. ValueError for what is none."""
    streamed = answer.content_type == STREAM
    received, size_bytes = bytearray(), 0
    async for part in answer.content.iter_any():
        size_bytes += len(part)
        if size_bytes > MAX_ANSWER_BYTES:
            raise ValueError(f"it sent more than {MAX_ANSWER_BYTES} bytes")
        received += part
        if streamed and b"\n" in part:
            *lines, received = received.split(b"\n")
            for line in lines:
                if line.strip():
                    yield json.loads(line)
    if not streamed:
        document = json.loads(received)
        providers = document.get("Providers") if isinstance(document, dict) else None
        for record in providers if isinstance(providers, list) else ():
            yield record
    elif received.strip():
        yield json.loads(received)


def gateways_of(record: Any) -> list[str]:
    """The URLs in a provider's record; none where it is not one, or speaks other protocols only.

    Who does not say what it speaks may speak ours, if it has addresses of the web.
    """
    if not isinstance(record, dict):
        return []
    addresses, protocols = record.get("Addrs"), record.get("Protocols") or ()
    if not isinstance(addresses, list) or not isinstance(protocols, list | tuple):
        return []
    if protocols and PROTOCOL not in {str(name).lower() for name in protocols}:
        return []
    urls = [multiaddr_url(address) for address in addresses if isinstance(address, str)]
    return list(dict.fromkeys(url for url in urls if url is not None))


def multiaddr_url(address: str) -> str | None:
    """The URL that a multiaddr such as `/dns4/example.net/tcp/443/https` means, None for any other kind.

    The port may be missing, the peer's ID may stand at the end, and TLS may be written apart with its name.
    """
    _, *parts = address.split("/")
    if address[:1] != "/" or len(parts) < 3 or parts[0] not in _HOSTS or not parts[1]:
        return None
    name, rest = parts[1], parts[2:]
    if len(rest) >= 2 and rest[-2] == "p2p":
        rest = rest[:-2]
    port = ""
    if rest[:1] == ["tcp"]:
        if len(rest) < 2 or not (rest[1].isascii() and rest[1].isdecimal()):
            return None
        port, rest = f":{rest[1]}", rest[2:]
    if len(rest) == 4 and rest[:2] == ["tls", "sni"] and rest[2] == name:
        rest = ["tls", "http"] if rest[3] == "http" else rest
    scheme = {("http",): "http", ("https",): "https", ("tls", "http"): "https"}.get(tuple(rest))
    return None if scheme is None else f"{scheme}://{_HOSTS[parts[0]].format(name)}{port}"
