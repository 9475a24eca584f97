"""Host names as requests give them, and patterns that a list of hosts is written in."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from dataclasses import dataclass

from merkledag.dnslink import MAX_LABEL_CHARS

MAX_HOST_CHARS = 512  # longer than any DNS name, and than a CID of 128 bytes as a label under one
_MAX_PORT = 65_535
_HOST_CHARS = re.compile(r"[A-Za-z0-9_.-]+")
_PATTERN_LABEL = re.compile(r"[a-z0-9_*-]+")


@dataclass(frozen=True, slots=True)
class HostName:
    """A host without its final dot: `name` as written, and `port` with its colon, if there is one."""

    name: str
    port: str

    @property
    def is_address(self) -> bool:
        """Whether it is an IP address, an IPv6 one in brackets."""
        return is_address(self.name)


def is_address(name: str) -> bool:
    """Whether a host without port is an IP address, with or without brackets."""
    try:
        ipaddress.ip_address(name.removeprefix("[").removesuffix("]").partition("%")[0])
    except ValueError:
        return False
    return True


def parse_host(text: str) -> HostName | None:
    """Reads `host`, `host:port`, `[::1]:port` or a bare IPv6 address; None for anything else.

    What is accepted can stand in a URL as it is: no user, path or other character has a place in it.
    """
    if len(text) > MAX_HOST_CHARS:
        return None
    if text.count(":") > 1 and not text.startswith("["):
        return HostName(f"[{text}]", "") if is_address(text) else None
    name, colon, port = text.rpartition(":") if text.startswith("[") else text.partition(":")
    if text.startswith("[") and text.endswith("]"):
        name, colon, port = text, "", ""
    if colon and port and not (port.isascii() and port.isdecimal() and 0 < int(port) <= _MAX_PORT):
        return None
    if name.startswith("["):
        if not name.endswith("]") or not is_address(name):
            return None
    else:
        name = name.removesuffix(".")
        if not _HOST_CHARS.fullmatch(name) or name.startswith(".") or ".." in name or name.endswith("."):
            return None
    return HostName(name, f":{port}" if port else "")


class HostPatterns:
    """A list of host names, in which `*` stands for one or more characters of one label.

    Raises ValueError for what is no such name.
    """

    def __init__(self, patterns: Iterable[str]) -> None:
        self._exact: set[str] = set()
        wild: list[str] = []
        for pattern in patterns:
            labels = pattern.split(".")
            if not all(_PATTERN_LABEL.fullmatch(label) and len(label) <= MAX_LABEL_CHARS for label in labels):
                raise ValueError(f"host {pattern!r}: write a lower-case host name, such as localhost")
            if "*" in pattern:
                wild.append(re.escape(pattern).replace(r"\*", "[^.]+"))
            else:
                self._exact.add(pattern)
        self._wild = re.compile("|".join(wild)) if wild else None

    def match(self, name: str) -> bool:
        """Whether a lower-case name is in the list."""
        return name in self._exact or (self._wild is not None and self._wild.fullmatch(name) is not None)
