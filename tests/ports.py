"""Ports for the programs that tests start, which must be told one before they listen."""

from __future__ import annotations

import itertools
import os
import socket
from contextlib import ExitStack

# Below those that Linux and macOS give to whoever asks for any: they would be somebody else's meanwhile.
FIRST, COUNT = 20_000, 12_000
APART = 499  # of processes that test at the same time
_offered = itertools.count(os.getpid() * APART)


def free_port() -> int:
    """One of `free_ports`."""
    return free_ports(1)[0]


def free_ports(count: int) -> list[int]:
    """Ports of the loopback that nobody listens on; none comes twice soon."""
    with ExitStack() as held:
        ports: list[int] = []
        for number in itertools.islice(_offered, COUNT):
            port = FIRST + number % COUNT
            probe = held.enter_context(socket.socket())
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            ports.append(port)
            if len(ports) == count:
                return ports
    raise AssertionError(f"no {count} ports are free")
