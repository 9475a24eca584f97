"""IPNS and DNSLink: names in their canonical form, and the way from a name to an immutable path."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from yarl import URL

from gateway import errors
from gateway.settings import GatewaySettings
from gateway.source import NameResolver
from merkledag.cid import CID
from merkledag.dnslink import is_dns_name
from merkledag.errors import InvalidCID, InvalidPath, MerkledagError
from merkledag.path import parse_path
from merkledag.peer import name_text, parse_name

NAME_STEP = "name resolution"
MAX_NAME_STEPS = 32  # DNSLink gateway spec: a hard limit of recursion


@dataclass(frozen=True, slots=True)
class Immutable:
    """Where a name leads: a CID, a path under it, how long that holds, and since when.

    `ttl_s` 0 and `changed_s` None mean that it is unknown. `changed_s` is in seconds since 1970: the last
    time that any name on the way began to point where it does.
    """

    cid: CID
    segments: tuple[str, ...]
    ttl_s: int
    changed_s: int | None = None


def key_name(text: str) -> str | None:
    """The canonical form, `k51…` or `k2k4…` (CIDv1 libp2p-key in base36), of a key in any form; else None."""
    try:
        return name_text(parse_name(text))
    except MerkledagError:
        return None


def dns_name(text: str) -> str | None:
    """A DNS name in lower case and ASCII (`xn--…`), without its final dot; None for what is none."""
    name = text.lower().removesuffix(".")
    if not name.isascii():
        try:
            name = URL.build(scheme="http", host=name).raw_host or ""
        except ValueError:
            return None
    return name if is_dns_name(name) else None


def inline_dns_name(name: str) -> str:
    """A DNSLink name as one DNS label (subdomain gateway spec): `-` → `--`, `.` → `-`."""
    return name.replace("-", "--").replace(".", "-")


def uninline_dns_name(label: str) -> str:
    """The inverse of `inline_dns_name`."""
    return label.replace("--", "\0").replace("-", ".").replace("\0", "-")


async def resolve_name(
    names: NameResolver,
    name: str,
    settings: GatewaySettings,
    admit: Callable[[str, tuple[str, ...]], None] | None = None,
) -> Immutable:
    """Follows `name` to a CID.

    `admit` is told each name on the way before it is looked up, with the segments that names before it add;
    what it raises passes on. Raises NameUnresolved where a record is missing or leads nowhere, BadRequest
    after 32 steps, RetrievalTimeout.
    """
    segments: tuple[str, ...] = ()
    ttl_s: int | None = None
    changes: list[int | None] = []
    limit_s = settings.retrieval_timeout_s
    for _ in range(MAX_NAME_STEPS):
        if admit is not None:
            admit(name, segments)
        try:
            async with asyncio.timeout(limit_s):
                target = await names.resolve(name)
        except LookupError as error:
            raise errors.NameUnresolved(
                f"{name} has no valid record: {errors.first_line(error)}", step=NAME_STEP
            ) from error
        except TimeoutError as error:
            raise errors.RetrievalTimeout(
                f"{name} was not resolved within {limit_s:g} s", step=NAME_STEP
            ) from error
        ttl_s = target.ttl_s if ttl_s is None else min(ttl_s, target.ttl_s)
        changes.append(target.changed_s)
        try:
            path = parse_path(target.path)
            segments = (*path.segments, *segments)
            if path.namespace == "ipfs":
                return Immutable(CID.parse(path.root), segments, ttl_s, _latest(changes))
        except (InvalidPath, InvalidCID) as error:
            raise errors.NameUnresolved(
                f"{name} points at {target.path[:256]!r}: {error}", step=NAME_STEP
            ) from error
        name = key_name(path.root) or dns_name(path.root) or path.root
    raise errors.BadRequest(f"the name leads through more than {MAX_NAME_STEPS} other names")


def _latest(changes: list[int | None]) -> int | None:
    known = [changed_s for changed_s in changes if changed_s is not None]
    return max(known) if len(known) == len(changes) else None
