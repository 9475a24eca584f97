"""DNSLink over DNS: the TXT records of a name and how long they hold."""

from __future__ import annotations

import ipaddress
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import urlsplit

from merkledag.dnslink import link_name
from storage_node.errors import NameNotFound, PeerUnreachable

if TYPE_CHECKING:
    import dns.message
    import dns.name
    from dns.asyncresolver import Resolver

DNS_PORT = 53
LIFETIME_S = 5.0  # for one name, all attempts together
ATTEMPT_S = 2.0
UDP_BYTES = 1232  # what passes everywhere in one piece (DNS flag day 2020); TCP for larger answers
MAX_CNAME_STEPS = 8  # where a server leaves following them to us
DOH_TEMPLATE = "{?dns}"  # RFC 8484, section 3
MAX_DOH_URL_CHARS = 512
# Names that DNS servers must never be asked for (RFC 6761, 6762, 7686).
LOCAL_DOMAINS = frozenset({"invalid", "local", "localhost", "onion"})


@dataclass(frozen=True, slots=True)
class TextRecords:
    """The TXT records at one name, each as one text, and the seconds they may be remembered."""

    texts: tuple[str, ...]
    ttl_s: int


class Links(Protocol):
    """Whoever knows the TXT records of names."""

    async def texts(self, name: str) -> TextRecords:
        """The TXT records of `_dnslink.` and a DNS name.

        Raises NameNotFound where there are none, PeerUnreachable where nobody answers.
        """
        ...


def parse_server(text: str) -> tuple[str, int]:
    """A DNS server's address and port: `192.0.2.1`, `192.0.2.1:5353`, `2001:db8::1`, `[2001:db8::1]:5353`.

    Raises ValueError.
    """
    host, _, port = text.rpartition(":")
    if text.count(":") != 1 and not (text.startswith("[") and host.endswith("]")):
        host, port = text, str(DNS_PORT)
    address = ipaddress.ip_address(host.removeprefix("[").removesuffix("]"))
    if not port.isdecimal() or not 0 < int(port) <= 65535:
        raise ValueError(f"{text!r} has no port from 1 to 65535")
    return str(address), int(port)


def is_doh(text: str) -> bool:
    """Whether a DNS server is given as the address of one over HTTPS."""
    return "://" in text


def parse_doh_url(text: str) -> str:
    """The address of a server, with or without the `{?dns}` of RFC 8484. Raises ValueError.

    It is an https URL, or an http one of a proxy on this machine.
    """
    url = text.removesuffix(DOH_TEMPLATE)
    parts = urlsplit(url)
    if len(url) > MAX_DOH_URL_CHARS or not parts.hostname or parts.username or parts.fragment or "{" in url:
        raise ValueError(f"{text[:80]!r} is no address of a DNS server")
    _ = parts.port  # raises ValueError
    if parts.scheme != "https" and not (parts.scheme == "http" and _is_loopback(parts.hostname)):
        raise ValueError(f"{text[:80]!r}: DNS over HTTPS needs an https address")
    return url


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class DnsLinks:
    """Asks the given DNS servers, or those of the system."""

    def __init__(self, servers: Sequence[tuple[str, int]] = ()) -> None:
        self._servers = tuple(servers)
        self._resolver: Resolver | None = None

    async def texts(self, name: str) -> TextRecords:
        """As `Links.texts`."""
        return await follow_aliases(name, self._ask)

    async def _ask(self, asked: dns.name.Name) -> dns.message.ChainingResult:
        import dns.rdatatype

        answer = await self._configured().resolve(
            asked, dns.rdatatype.TXT, search=False, raise_on_no_answer=False
        )
        return answer.chaining_result

    def _configured(self) -> Resolver:
        if self._resolver is None:
            from dns.asyncresolver import Resolver
            from dns.nameserver import Do53Nameserver

            resolver = Resolver(configure=not self._servers)
            if self._servers:
                resolver.nameservers = [Do53Nameserver(address, port) for address, port in self._servers]
            resolver.lifetime, resolver.timeout = LIFETIME_S, ATTEMPT_S
            resolver.use_edns(0, 0, UDP_BYTES)
            self._resolver = resolver
        return self._resolver


async def follow_aliases(
    name: str, ask: Callable[[dns.name.Name], Awaitable[dns.message.ChainingResult]]
) -> TextRecords:
    """The TXT records of `_dnslink.` and a DNS name, behind the CNAMEs that a server left to us.

    `ask` looks one name up; it raises DNSException and OSError. Raises as `Links.texts`.
    """
    import dns.exception
    import dns.name
    import dns.resolver

    if _is_local(name):
        raise NameNotFound(f"{name} is no name of the DNS")
    try:
        asked = dns.name.from_text(link_name(name) + ".")
    except dns.exception.DNSException:
        raise NameNotFound(f"{name[:80]} is too long for a DNSLink") from None
    ttl_s: int | None = None
    try:
        for _ in range(MAX_CNAME_STEPS):
            chain = await ask(asked)
            ttl_s = chain.minimum_ttl if ttl_s is None else min(ttl_s, chain.minimum_ttl)
            if chain.answer is not None:
                return TextRecords(tuple(_text(record) for record in chain.answer), ttl_s)
            if chain.canonical_name == asked or _is_local(chain.canonical_name.to_text(omit_final_dot=True)):
                break
            asked = chain.canonical_name
    except dns.resolver.NXDOMAIN:
        pass
    except (dns.exception.Timeout, TimeoutError) as error:
        raise PeerUnreachable(f"DNS did not answer for {name} within {LIFETIME_S:g} s") from error
    except (dns.exception.DNSException, OSError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise PeerUnreachable(f"DNS did not answer for {name}: {reason[:256]}") from error
    raise NameNotFound(f"{name} has no DNSLink: there is no TXT record at {link_name(name)}")


def _is_local(name: str) -> bool:
    return name.rpartition(".")[2].lower() in LOCAL_DOMAINS


def _text(record: Any) -> str:
    """A TXT record may come in pieces of 255 bytes; together they are the text."""
    return b"".join(record.strings).decode("utf-8", "replace")
