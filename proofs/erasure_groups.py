"""Whole plans through the erasure code, one group in memory at a time; and what is lost of a group, restored.

encode_plan      the parity of every group of a plan
restore_groups   the wanted shares of every group of a manifest, from any k of them: all members, which is
                 the content, or the one share of each group that a lost node held
GroupRestore     one group of that, for callers who wait for shares in their own way
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence

from merkledag import multihash
from merkledag.multihash import Buffer
from proofs.erasure import Room, encode_group, restore_shares
from proofs.errors import UndecodableGroup
from proofs.manifest import Group, Manifest, Plan

GetBlock = Callable[
    [bytes], Buffer
]  # a block by its multihash; raises what it likes for one that is not there
GetShare = Callable[[int, bytes], Buffer | None]  # a share by its number and multihash; None where it is lost


def encode_plan(plan: Plan, get: GetBlock) -> Iterator[tuple[Group, list[bytes]]]:
    """Each group of a plan with its parity blocks, in order; nothing for a plan without parity.

    What `get` returns is taken to be the block. Holds one group: k blocks, m − k parity blocks, and again as
    much as the members that are shorter than the longest.
    """
    if plan.m == plan.k:
        return
    room: Room = []
    for group in plan.groups():
        members = [get(name) for name in group.members]
        yield group, encode_group(plan.k, plan.m, members, room=room)


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
        self, group: Group, k: int, m: int, wanted: Sequence[int], *, lost: Collection[int] = (),
        room: Room | None = None,
    ) -> None:  # fmt: skip
        self._group, self._k, self._m = group, k, m
        self._wanted = wanted
        self._room = room
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
        made = restore_shares(self._k, self._m, self._found, group.lengths, self._wanted, room=self._room)
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
    place. Holds one group. A replicated manifest has no groups. Raises UndecodableGroup.
    """
    room: Room = []
    for group in manifest.groups():
        here = [share for share in wanted if share >= manifest.k or share < len(group.members)]
        work = GroupRestore(group, manifest.k, manifest.m, here, lost=lost, room=room)
        done = None
        while here and done is None:
            while asked := work.ask():
                for share in asked:
                    work.give(share, get(share, work.share_hash(share)))
            done = work.result()
        yield from zip(map(work.share_hash, here), done or (), strict=True)
