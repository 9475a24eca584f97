"""Restores one block of an erasure group from the group's other shares, in one group's memory."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from proofs.erasure.groups import GroupRestore
from proofs.erasure.manifest import Manifest

# Asks for one share's block by multihash; None when nobody has it.
GetShare = Callable[[int, bytes], Awaitable[bytes | None]]


async def restore_share(manifest: Manifest, index: int, share: int, get: GetShare) -> bytes:
    """Block ``share`` of group ``index``: 0 … k−1 is a member, k … m−1 parity. Verified against its
    multihash.

    Reads as many of the other shares as the group has members, members before parity, and others in place of
    those that fail. Raises UndecodableGroup when too few can be had, or when the parity was made wrong.
    """
    work = GroupRestore(manifest.group(index), manifest.k, manifest.m, [share], lost=[share])
    while True:
        while asked := work.ask():
            answers = await asyncio.gather(*(get(other, work.share_hash(other)) for other in asked))
            for other, data in zip(asked, answers, strict=True):
                work.give(other, data)
        restored = await asyncio.to_thread(work.result)
        if restored is not None:
            return restored[0]
