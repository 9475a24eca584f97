"""Which peers are proxies of the operator's, whose word on clients, hosts and schemes is taken."""

from __future__ import annotations

import ipaddress
from functools import lru_cache
from typing import Final

from gateway.settings import GatewaySettings

_REMEMBERED: Final = 1024


class Proxies:
    """Those of the settings: none where no forwarded headers are believed at all."""

    def __init__(self, settings: GatewaySettings) -> None:
        self._believes = settings.trust_forwarded_headers
        named = settings.trusted_proxies if self._believes else ()
        self._networks = tuple(ipaddress.ip_network(text, strict=False) for text in named)
        self.named = lru_cache(maxsize=_REMEMBERED)(self._look_up)  # whether an address is that of one

    def may_say_host(self, peer: str | None) -> bool:
        """Whether X-Forwarded-Host and -Proto of a peer count: of proxies, or of all where none is named."""
        return self.named(peer or "") if self._networks else self._believes

    def _look_up(self, text: str) -> bool:
        address = parse_address(text)
        return address is not None and any(address in network for network in self._networks)


def parse_address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """An address, without its zone and as IPv4 where it is mapped; None if it is none."""
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address
