"""Restores one block of an erasure group from the group's other shares, in one group's memory."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from merkledag import multihash
from proofs.erasure import decode_group, encode_group
from proofs.errors import UndecodableGroup
from proofs.manifest import Group, Manifest

# Asks for one share's block by multihash; None when nobody has it.
GetShare = Callable[[int, bytes], Awaitable[bytes | None]]


async def restore_share(manifest: Manifest, index: int, share: int, get: GetShare) -> bytes:
    """Block ``share`` of group ``index``: 0 … k−1 is a member, k … m−1 parity. Verified against its
    multihash.

    Raises UndecodableGroup when too few of the other shares can be had, or when the parity was made wrong.
    """
    group = manifest.group(index)
    shares = await _collect(group, manifest.k, share, get)
    return await asyncio.to_thread(_rebuild, group, manifest.k, manifest.m, share, shares)


def share_hash(group: Group, k: int, share: int) -> bytes:
    """The multihash of one share of a group."""
    return group.members[share] if share < k else group.parity[share - k]


async def _collect(group: Group, k: int, share: int, get: GetShare) -> dict[int, bytes]:
    """As many shares as there are members: members before parity, and others in place of those that fail."""
    needed = len(group.members)
    waiting = [index for index in [*range(needed), *range(k, k + len(group.parity))] if index != share]
    found: dict[int, bytes] = {}
    while len(found) < needed and waiting:
        batch, waiting = waiting[: needed - len(found)], waiting[needed - len(found) :]
        answers = await asyncio.gather(*(get(index, share_hash(group, k, index)) for index in batch))
        found |= {index: data for index, data in zip(batch, answers, strict=True) if data is not None}
    if len(found) < needed:
        raise UndecodableGroup(f"{len(found)} of the {needed} blocks needed to restore another can be had")
    return found


def _rebuild(group: Group, k: int, m: int, share: int, shares: dict[int, bytes]) -> bytes:
    members = decode_group(k, m, shares, group.lengths)
    data = members[share] if share < k else encode_group(k, m, members, wanted=[share])[0]
    if not multihash.verify(share_hash(group, k, share), data):
        raise UndecodableGroup("the group's shares do not belong together: its parity was made wrong")
    return data
