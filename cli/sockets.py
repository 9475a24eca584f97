"""Listening sockets: bound once and alone, then shared out among the processes that answer on them."""

from __future__ import annotations

import errno
import os
import socket
import sys
from collections.abc import MutableMapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Final

from cli.output import CommandError, usage

BACKLOG: Final = 1024
FIRST_PASSED: Final = 3  # systemd.socket: the number of the first descriptor


@dataclass(frozen=True, slots=True)
class Bound:
    """Sockets that listen already, so that who connects waits for an answer and is not refused.

    `shares` has the sockets of each process, `url` names the first one.
    """

    url: str
    shares: tuple[tuple[socket.socket, ...], ...]

    def close(self) -> None:
        """Lets go of them; other processes may have their own descriptors of the same sockets."""
        for sock in {sock for share in self.shares for sock in share}:
            sock.close()


def address(listen: str) -> tuple[str, int]:
    """`ADDRESS:PORT` (IPv6 in brackets) as a pair; exit 2 for anything else."""
    host, colon, port = listen.rpartition(":")
    if not colon or not host or not port.isdecimal() or int(port) > 65535:
        raise usage(
            f"{listen!r} is no address: write ADDRESS:PORT, for example 127.0.0.1:8080 (port 0 is any)"
        )
    return host.removeprefix("[").removesuffix("]"), int(port)


def bind(role: str, listen: str, count: int = 1) -> Bound:
    """Binds `listen` for `count` processes; CommandError when it cannot be had.

    Each process has a socket of its own and the kernel deals connections out to them (SO_REUSEPORT on Linux;
    elsewhere they share one). The first is bound as if it were the only one: a port that another program has,
    also one that shares its ports so, is refused.
    """
    host, port = address(listen)
    with ExitStack() as undo:
        groups: list[list[socket.socket]] = []
        try:
            for family, _, _, _, name in socket.getaddrinfo(
                host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
            ):
                if groups and port == 0:  # all addresses of a host name have one port
                    name = (name[0], groups[0][0].getsockname()[1], *name[2:])
                groups.append(_group(undo, family, name, count))
        except OSError as error:
            raise _cannot_listen(role, listen, error) from None
        undo.pop_all()
    return Bound(_url(groups[0][0]), tuple(tuple(share) for share in zip(*groups, strict=True)))


def _group(
    undo: ExitStack, family: socket.AddressFamily, name: tuple[object, ...], count: int
) -> list[socket.socket]:
    """`count` sockets at one address."""
    first = undo.enter_context(_socket(family))
    first.bind(name)
    group = [first]
    if count > 1 and sys.platform == "linux":
        first.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        for _ in range(count - 1):
            other = undo.enter_context(_socket(family))
            other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            other.bind(first.getsockname())
            group.append(other)
    for sock in group:
        sock.listen(BACKLOG)
    return group if len(group) == count else group * count


def _socket(family: socket.AddressFamily) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    return sock


def passed(count: int, environ: MutableMapping[str, str] = os.environ) -> Bound | None:
    """The sockets that a service manager listens at for this process (sd_listen_fds), for `count` to share.

    None if there are none. CommandError where they are no TCP sockets that listen.
    """
    number = environ.pop("LISTEN_FDS", "")
    meant = environ.pop("LISTEN_PID", "") == str(os.getpid())
    environ.pop("LISTEN_FDNAMES", None)
    if not meant or not number.isdecimal() or number == "0":
        return None
    sockets: list[socket.socket] = []
    for descriptor in range(FIRST_PASSED, FIRST_PASSED + int(number)):
        try:
            os.set_inheritable(descriptor, False)
            sock = socket.socket(fileno=descriptor)
            listens = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
        except OSError as error:
            raise CommandError(f"LISTEN_FDS={number}: descriptor {descriptor}: {error.strerror}") from None
        if not listens or sock.family not in (socket.AF_INET, socket.AF_INET6):
            raise CommandError("the service manager's sockets must be TCP ones: write ListenStream=PORT")
        sockets.append(sock)
    return Bound(_url(sockets[0]), (tuple(sockets),) * count)


def _url(sock: socket.socket) -> str:
    """Where a socket is reached from this machine: whoever listens everywhere is found on loopback."""
    host, port = sock.getsockname()[:2]
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _cannot_listen(role: str, listen: str, error: OSError) -> CommandError:
    if error.errno == errno.EADDRINUSE:
        return CommandError(
            f"{listen} is in use by another program: stop it, or choose another address for the {role}"
        )
    if error.errno == errno.EACCES:
        return CommandError(f"this user may not listen at {listen}: choose a port above 1023 for the {role}")
    return CommandError(f"the {role} cannot listen at {listen}: {error.strerror or error}")
