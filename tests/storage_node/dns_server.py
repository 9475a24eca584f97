"""A real DNS server on loopback for tests: UDP, and TCP for what does not fit into a datagram."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import cast

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdatatype
import dns.rrset


@dataclass
class Zone:
    """What the server answers: TXT strings and CNAMEs by name, with one TTL. `asked` counts questions."""

    texts: dict[str, list[str]] = field(default_factory=dict)
    aliases: dict[str, str] = field(default_factory=dict)
    ttl_s: int = 77
    follow: bool = True  # whether answers hold what a CNAME leads to
    rcode: dns.rcode.Rcode = dns.rcode.NOERROR
    silent: bool = False
    asked: list[str] = field(default_factory=list)
    port: int = 0

    def link(self, name: str, *targets: str) -> None:
        """Gives a name DNSLinks."""
        self.texts[f"_dnslink.{name}"] = [f"dnslink={target}" for target in targets]

    def answer(self, wire: bytes) -> dns.message.Message:
        """The response to one question."""
        query = dns.message.from_wire(wire)
        response = dns.message.make_response(query)
        response.flags |= dns.flags.RA
        name = query.question[0].name.to_text(omit_final_dot=True).lower()
        self.asked.append(name)
        if self.rcode != dns.rcode.NOERROR:
            response.set_rcode(self.rcode)
            return response
        known = name in self.texts or name in self.aliases
        steps = 0
        while name in self.aliases and steps < 20:
            alias = self.aliases[name]
            response.answer.append(dns.rrset.from_text(f"{name}.", self.ttl_s, "IN", "CNAME", f"{alias}."))
            name, steps = alias, steps + 1
            if not self.follow:
                return response
        if name in self.texts:
            quoted = [
                " ".join(f'"{text[i : i + 255]}"' for i in range(0, len(text), 255))
                for text in self.texts[name]
            ]
            response.answer.append(dns.rrset.from_text(f"{name}.", self.ttl_s, "IN", "TXT", *quoted))
        elif not known:
            response.set_rcode(dns.rcode.NXDOMAIN)
        return response


class _Datagrams(asyncio.DatagramProtocol):
    def __init__(self, zone: Zone) -> None:
        self._zone = zone

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.DatagramTransport", transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        if self._zone.silent:
            return
        response = self._zone.answer(data)
        try:
            wire = response.to_wire(max_size=512 if response.edns < 0 else response.request_payload)
        except dns.exception.TooBig:
            response.answer.clear()
            response.flags |= dns.flags.TC
            wire = response.to_wire()
        self._transport.sendto(wire, addr)


@asynccontextmanager
async def dns_server(zone: Zone) -> AsyncIterator[Zone]:
    """Serves a zone at 127.0.0.1 and `zone.port`, UDP and TCP."""

    async def stream(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        size = int.from_bytes(await reader.readexactly(2), "big")
        wire = zone.answer(await reader.readexactly(size)).to_wire(max_size=65_535)
        writer.write(len(wire).to_bytes(2, "big") + wire)
        await writer.drain()
        writer.close()
        await writer.wait_closed()

    loop = asyncio.get_running_loop()
    while True:  # until a port is free for both
        server = await asyncio.start_server(stream, "127.0.0.1", 0)
        zone.port = server.sockets[0].getsockname()[1]
        try:
            transport, _ = await loop.create_datagram_endpoint(
                lambda: _Datagrams(zone), ("127.0.0.1", zone.port)
            )
            break
        except OSError:
            server.close()
            await server.wait_closed()
    try:
        yield zone
    finally:
        server.close()
        await server.wait_closed()
        transport.close()
        await asyncio.sleep(0)  # a transport lets go of its socket in the loop's next round
