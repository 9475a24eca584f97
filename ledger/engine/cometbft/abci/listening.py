"""Where the ABCI server listens: a unix socket of its owner's, or TCP for the hosts that may come."""

from __future__ import annotations

import ipaddress
import logging
import socket
import stat
import struct
from asyncio import StreamWriter
from collections.abc import Sequence
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

# A peer that is gone without a word (its host lost power, or the network between) is given up after 25 s.
KEEPALIVE: Final = {"TCP_KEEPIDLE": 10, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 3, "TCP_USER_TIMEOUT": 25_000}

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_log = logging.getLogger(__name__)


def listen(address: str) -> socket.socket:
    """A socket bound to `unix://PATH` or `tcp://HOST:PORT`, no other; ValueError for any other address."""
    if address.startswith("unix://"):
        return _listen_unix(address.removeprefix("unix://"))
    try:
        parts = urlsplit(address)
        host, port = parts.hostname, parts.port
    except ValueError:
        host = port = None
    if host is None or port is None or address != f"tcp://{parts.netloc}" or parts.username is not None:
        raise ValueError(f"{address} is neither unix://PATH nor tcp://HOST:PORT")
    ((family, _, _, _, place), *_) = socket.getaddrinfo(
        host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )
    return socket.create_server(place, family=family)


def _listen_unix(place: str) -> socket.socket:
    path = Path(place)
    if path.exists() and stat.S_ISSOCK(path.stat().st_mode):
        path.unlink()  # a process that was killed left it; the ledger's folder has a lock of its own
    bound = socket.socket(socket.AF_UNIX)
    try:
        bound.bind(place)
        path.chmod(0o600)  # nobody can have connected: it does not listen yet
    except BaseException:
        bound.close()
        raise
    return bound


def address_of(bound: socket.socket, asked: str) -> str:
    """The address that was asked for, with the port that the kernel chose for port 0."""
    if bound.family is socket.AF_UNIX:
        return asked
    return f"{asked.rpartition(':')[0]}:{bound.getsockname()[1]}"


def warn_if_open(bound: socket.socket, allowed: Sequence[Network]) -> None:
    """Whoever reaches the application can have it take blocks, and sign beacons with this validator's key."""
    if bound.family is socket.AF_UNIX:
        return
    host, port = bound.getsockname()[:2]
    if ipaddress.ip_address(host.partition("%")[0]).is_loopback:
        who = "every account of this host"
    else:
        who = f"unencrypted, {' and '.join(map(str, allowed)) or 'EVERY HOST THAT REACHES IT'}"
    _log.warning(
        "ABCI listens at %s, port %d: %s can drive this ledger. Let nobody but its own cometbft reach it",
        host,
        port,
        who,
    )


def is_allowed(writer: StreamWriter, allowed: Sequence[Network]) -> bool:
    """Whether who connected may; all may where nobody is named, and whoever may open a unix socket."""
    bound: socket.socket = writer.get_extra_info("socket")
    if bound.family == socket.AF_UNIX or not allowed:
        return True
    place = writer.get_extra_info("peername")
    if place is None:
        return False  # gone already
    host = ipaddress.ip_address(place[0].partition("%")[0])
    return any(host in network for network in allowed)


def origin(writer: StreamWriter) -> str:
    """Names the process, or the host, that connected, and has TCP notice when that host is gone."""
    connected: socket.socket = writer.get_extra_info("socket")
    if connected.family == socket.AF_UNIX:
        if not hasattr(socket, "SO_PEERCRED"):
            return "a process of this host"
        credentials = connected.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
        return f"process {struct.unpack('3i', credentials)[0]}"
    connected.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in KEEPALIVE.items():
        if hasattr(socket, name):
            connected.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
    place = writer.get_extra_info("peername") or ("",)
    return f"host {place[0]}"
