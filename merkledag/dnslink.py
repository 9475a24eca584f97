"""DNSLink: DNS names under /ipns/, and which TXT record of theirs counts (dnslink.dev)."""

from __future__ import annotations

from collections.abc import Iterable

from merkledag.cid import CID
from merkledag.errors import InvalidCID, InvalidPath, PathError
from merkledag.path import ContentPath, parse_path

PREFIX = "dnslink="
MAX_LABEL_CHARS = 63
_MAX_DNS_CHARS = 253
_LABEL_CHARS = frozenset("abcdefghijklmnopqrstuvwxyz0123456789-_")


def is_dns_name(text: str) -> bool:
    """Whether `text`, in lower case, is a DNS name of at least two labels (and no IPv4 address)."""
    labels = text.split(".")
    return (
        len(text) <= _MAX_DNS_CHARS
        and len(labels) > 1
        and not labels[-1].isdecimal()
        and all(0 < len(label) <= MAX_LABEL_CHARS and _LABEL_CHARS.issuperset(label) for label in labels)
    )


def link_name(name: str) -> str:
    """Where the TXT records of `name` are. The domain itself is never asked, as in boxo."""
    return name if name.startswith("_dnslink.") else f"_dnslink.{name}"


def choose(texts: Iterable[str]) -> ContentPath | None:
    """The target among the TXT records of one name, None if no record is a link into /ipfs or /ipns.

    `dnslink=/ipfs/…`, `dnslink=/ipns/…`, and `dnslink=CID` as old ones have it. What is none of these is
    passed over, other namespaces too. Raises PathError for two different targets: none of them is better.
    """
    found = {path for text in texts if (path := _target(text)) is not None}
    if len(found) > 1:
        listed = ", ".join(sorted(map(str, found)))
        raise PathError(f"several DNSLink records contradict each other: {listed[:512]}")
    return found.pop() if found else None


def _target(text: str) -> ContentPath | None:
    if not text.startswith(PREFIX):
        return None
    value = text[len(PREFIX) :]
    try:
        return parse_path(value) if value.startswith("/") else ContentPath("ipfs", str(CID.parse(value)))
    except (InvalidPath, InvalidCID):
        return None
