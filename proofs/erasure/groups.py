"""Whole plans through the erasure code, one group in memory at a time; and what is lost of a group, restored.

encode_plan      the parity of every group of a plan
restore_groups   the wanted shares of every group of a manifest, from any k of them: all members, which is
                 the content, or the one share of each group that a lost node held
GroupRestore     one group of that, for callers who wait for shares in their own way
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from itertools import chain
from typing import NamedTuple

from merkledag import multihash
from merkledag.multihash import Buffer
from proofs.erasure.code import encode_joined, restore_joined, restore_shares
from proofs.erasure.manifest import Group, Manifest, Plan
from proofs.erasure.room import Room
from proofs.errors import UndecodableGroup

# Small groups are coded together: at most as many, and so many bytes of all their shares. (Where what is
# made for a call is larger, the allocator returns it to the system each time.)
BATCH_GROUPS = 256
BATCH_BYTES = 256 * 1024

# A block by its multihash; raises what it likes for one that is not there.
GetBlock = Callable[[bytes], bytes]
GetShare = Callable[[int, bytes], bytes | None]  # a share by its number and multihash; None where it is lost


def encode_plan(plan: Plan, get: GetBlock) -> Iterator[tuple[int, list[bytes]]]:
    """All parity blocks of a plan, group after group: some groups at a time, with the bytes they protect.

    Nothing for a plan without parity. What `get` returns is taken to be the block; ValueError if it has not
    the plan's length. Holds k blocks, m − k parity blocks, and again as much as the members that are shorter
    than the longest; or small groups together (`BATCH_BYTES`), twice.
    """
    if plan.m == plan.k:
        return
    room = Room()
    for batch in _batches(plan):
        rows = slice(batch.start * plan.k, batch.stop * plan.k)
        lengths = plan.lengths[rows].tolist()
        blocks = [get(name) for name in plan.leaves.rows(rows.start, rows.stop)]
        if list(map(len, blocks)) != lengths:
            raise ValueError("a block has another length than in the plan")
        shares = [blocks[share :: plan.k] for share in range(min(plan.k, len(blocks)))]
        yield sum(lengths), encode_joined(plan.k, plan.m, shares, lengths[:: plan.k], room=room)


def _batches(plan: Plan) -> Iterator[range]:
    """The numbers of the groups that are coded together, in order: equally many members in each group."""
    whole = len(plan.leaves) // plan.k
    start = 0
    while start < plan.group_count:
        longest = plan.lengths[start * plan.k]  # of all that follow, too: they are sorted
        count = max(1, min(BATCH_BYTES // (plan.m * max(1, longest)), BATCH_GROUPS, whole - start))
        yield range(start, start + count)
        start += count


def share_hash(group: Group, k: int, share: int) -> bytes:
    """The multihash of one share of a group: 0 … k−1 are members, k … m−1 parity."""
    return group.members[share] if share < k else group.parity[share - k]


class GroupRestore:
    """Restores the shares `wanted` of a group from as few of its others as have to be read; no I/O.

    `ask` for the shares to get, `give` each of them, until `ask` returns none; then `result` has the wanted
    ones, verified, or None if some that were given turned out to be garbled: then ask again. Shares in `lost`
    are never asked for.
    """

    def __init__(
        self, group: Group, k: int, m: int, wanted: Sequence[int], *, lost: Collection[int] = ()
    ) -> None:
        self._group, self._k, self._m = group, k, m
        self._wanted = wanted
        self._found: dict[int, Buffer] = {}
        self._garbled: list[int] = []
        everything = [*range(len(group.members)), *range(k, k + len(group.parity))]
        self._waiting = [share for share in everything if share not in lost]

    def share_hash(self, share: int) -> bytes:
        """The multihash of a share."""
        return share_hash(self._group, self._k, share)

    def ask(self) -> list[int]:
        """As many shares as still lack, members before parity; each is asked for once.

        Raises UndecodableGroup when there are not enough left.
        """
        needed = len(self._group.members)
        lacking = needed - len(self._found)
        if lacking > len(self._waiting):
            had = len(self._found) + len(self._waiting)
            garbled = f"; garbled: {', '.join(map(self._name, self._garbled))}" if self._garbled else ""
            raise UndecodableGroup(
                f"{had} of the {needed} blocks needed to restore a group can be had{garbled}"
            )
        asked, self._waiting = self._waiting[:lacking], self._waiting[lacking:]
        return asked

    def give(self, share: int, data: Buffer | None) -> None:
        """A share that was asked for, None where nobody has it. It is not verified before it has to be."""
        lengths = self._group.lengths
        if data is None:
            return
        if len(data) == (lengths[share] if share < self._k else max(lengths)):
            self._found[share] = data
        else:
            self._garbled.append(share)

    def result(self) -> list[bytes] | None:
        """The wanted shares, in order; None if others have to be asked for.

        Raises UndecodableGroup when all that was given is right and does not fit together: then whoever made
        the parity made it wrong.
        """
        group = self._group
        made = restore_shares(self._k, self._m, self._found, group.lengths, self._wanted)
        if all(self._is_right(share, data) for share, data in zip(self._wanted, made, strict=True)):
            return made
        garbled = [share for share, data in self._found.items() if not self._is_right(share, data)]
        if not garbled:
            raise UndecodableGroup("the group's shares do not belong together: its parity was made wrong")
        for share in garbled:
            del self._found[share]
        self._garbled += garbled
        return None

    def _name(self, share: int) -> str:
        return f"member {share}" if share < self._k else f"parity {share - self._k}"

    def _is_right(self, share: int, data: Buffer) -> bool:
        return multihash.verify(self.share_hash(share), data)


def restore_groups(
    manifest: Manifest, wanted: Sequence[int], get: GetShare, *, lost: Collection[int] = ()
) -> Iterator[tuple[bytes, bytes]]:
    """(multihash, block) of the shares `wanted` of each group, group after group, verified.

    `wanted` and `lost` (never asked for) are numbers of nodes; the last group may not have all of them. Reads
    exactly as many shares of a group as it has members, unless some are lost or garbled: then others in their
    place. Holds as much as `encode_plan`. A replicated manifest has no groups. Raises UndecodableGroup.
    """
    room = Room()
    for batch in _batches(manifest.plan):
        shares = _shares(manifest, batch)
        here = [share for share in wanted if share in shares]
        if not here:
            continue
        read = [share for share in shares if share not in lost][: _members(manifest, shares)]
        given = {share: [get(share, name) for name in shares[share].names] for share in read}
        made = _restore_joined(manifest, shares, given, here, room)
        if made is not None:
            names = [shares[share].names for share in here]
            yield from chain.from_iterable(zip(*map(zip, names, made), strict=True))
            continue
        for number, index in enumerate(batch):
            known = {share: blocks[number] for share, blocks in given.items()}
            yield from _restore_group(manifest, index, known, here, get, lost)


class _Share(NamedTuple):
    """One share of some groups: its multihash and length in each of them."""

    names: list[bytes]
    lengths: list[int]


def _shares(manifest: Manifest, groups: range) -> dict[int, _Share]:
    """The shares that these groups have, equally many members in each: members before parity."""
    k, beyond = manifest.k, manifest.m - manifest.k
    members = manifest.plan.leaves.rows(groups.start * k, groups.stop * k)
    parity = manifest.parity.rows(groups.start * beyond, groups.stop * beyond)
    lengths = manifest.plan.lengths[groups.start * k : groups.stop * k].tolist()
    shares = {share: _Share(members[share::k], lengths[share::k]) for share in range(min(k, len(members)))}
    return shares | {k + row: _Share(parity[row::beyond], lengths[::k]) for row in range(beyond)}


def _members(manifest: Manifest, shares: Collection[int]) -> int:
    return len(shares) - (manifest.m - manifest.k)


def _restore_joined(
    manifest: Manifest,
    shares: dict[int, _Share],
    given: dict[int, list[bytes | None]],
    wanted: Sequence[int],
    room: Room,
) -> list[Sequence[bytes]] | None:
    """The blocks of each share `wanted`, verified; None if any that was given is not there or is wrong."""
    members = range(_members(manifest, shares))
    found = {share: [block for block in blocks if block is not None] for share, blocks in given.items()}
    if len(found) < len(members):
        return None
    if any(list(map(len, blocks)) != shares[share].lengths for share, blocks in found.items()):
        return None
    lengths = [shares[share].lengths for share in members]
    made = restore_joined(manifest.k, manifest.m, found, lengths, wanted, room=room)
    for share, blocks in zip(wanted, made, strict=True):
        if not all(map(multihash.verify, shares[share].names, blocks)):
            return None
    return made


def _restore_group(
    manifest: Manifest,
    index: int,
    known: dict[int, bytes | None],
    wanted: Sequence[int],
    get: GetShare,
    lost: Collection[int],
) -> Iterator[tuple[bytes, bytes]]:
    """One group by itself; `known` are the shares that have been read."""
    work = GroupRestore(manifest.group(index), manifest.k, manifest.m, wanted, lost=lost)
    done = None
    while done is None:
        while asked := work.ask():
            for share in asked:
                work.give(share, known[share] if share in known else get(share, work.share_hash(share)))
        done = work.result()
    yield from zip(map(work.share_hash, wanted), done, strict=True)
