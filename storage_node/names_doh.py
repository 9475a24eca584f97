"""DNSLink over DNS over HTTPS (RFC 8484)."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Mapping, Sequence

import aiohttp
import dns.exception
import dns.message
import dns.name
import dns.rcode
import dns.rdatatype
import dns.resolver
from yarl import URL

from storage_node.names_dns import LIFETIME_S, TextRecords, follow_aliases

MEDIA_TYPE = "application/dns-message"
MAX_MESSAGE_BYTES = 65_535


class BadAnswer(OSError):
    """A server answered with something else than a DNS message, or with a failure."""


class DohLinks:
    """Asks servers that the operator named, in turn until one answers.

    `session` may lead anywhere: nothing but these addresses is ever connected to, as redirects are not
    followed and answers hold only text.
    """

    def __init__(self, session: aiohttp.ClientSession, urls: Sequence[str]) -> None:
        self._session = session
        self._urls = tuple(URL(url) for url in urls)

    async def texts(self, name: str) -> TextRecords:
        """As `Links.texts`."""
        return await follow_aliases(name, self._ask)

    async def _ask(self, asked: dns.name.Name) -> dns.message.ChainingResult:
        failure: Exception | None = None
        for url in self._urls:
            try:
                async with asyncio.timeout(LIFETIME_S):
                    return await self._ask_one(url, asked)
            except aiohttp.ClientError as error:
                failure = BadAnswer(f"{url.host}: {error}")
            except dns.resolver.NXDOMAIN:
                raise
            except (dns.exception.DNSException, OSError) as error:
                failure = error
        assert failure is not None
        raise failure

    async def _ask_one(self, url: URL, asked: dns.name.Name) -> dns.message.ChainingResult:
        query = dns.message.make_query(asked, dns.rdatatype.TXT)
        query.id = 0  # so that caches on the way see the same question as the same (section 4.1)
        wire = base64.urlsafe_b64encode(query.to_wire()).rstrip(b"=").decode()
        async with self._session.get(
            url.update_query(dns=wire),
            headers={"Accept": MEDIA_TYPE, "Accept-Encoding": "identity"},
            allow_redirects=False,
        ) as answer:
            if answer.status != 200 or answer.content_type != MEDIA_TYPE:
                raise BadAnswer(f"{url.host} answered {answer.status} {answer.content_type}")
            received = bytearray()
            async for part in answer.content.iter_chunked(MAX_MESSAGE_BYTES + 1):
                received += part
                if len(received) > MAX_MESSAGE_BYTES:
                    raise BadAnswer(f"{url.host} sent more than {MAX_MESSAGE_BYTES} bytes")
            age_s = _age_s(answer.headers)
        return _chain(query, bytes(received), age_s, url)


def _chain(query: dns.message.QueryMessage, wire: bytes, age_s: int, url: URL) -> dns.message.ChainingResult:
    message = dns.message.from_wire(wire)
    if not isinstance(message, dns.message.QueryMessage) or not query.is_response(message):
        raise BadAnswer(f"{url.host} answered another question")
    if message.rcode() == dns.rcode.NXDOMAIN:
        raise dns.resolver.NXDOMAIN
    if message.rcode() != dns.rcode.NOERROR:
        raise BadAnswer(f"{url.host} answered {dns.rcode.to_text(message.rcode())}")
    chain = message.resolve_chaining()
    # What a cache on the way held for some time holds for less now (section 5.1).
    chain.minimum_ttl = max(0, chain.minimum_ttl - age_s)
    return chain


def _age_s(headers: Mapping[str, str]) -> int:
    text = headers.get("Age", "0")
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 10 else 0
