"""The erasure code of one group: k data blocks, m − k parity blocks, and any k of the m restore them all.

Systematic Reed–Solomon as in zfec. The data blocks may differ in length; parity is as long as the longest. A
group may have fewer than k members: those absent are implied zeros, never stored. Callers go group by group,
so memory is bounded by m blocks.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from itertools import chain
from struct import Struct
from typing import Protocol

from merkledag.multihash import Buffer
from proofs.erasure import backend_tables
from proofs.erasure.room import Room
from proofs.errors import UndecodableGroup

MAX_SHARES = 256


class Backend(Protocol):
    """One implementation of the code; all of them make the same bytes. Contracts: `backend_tables`."""

    NAME: str

    def encode(
        self, k: int, m: int, blocks: Sequence[Buffer], length_bytes: int, room: Room, /
    ) -> list[bytes]: ...

    def restore(
        self,
        k: int,
        m: int,
        shares: Mapping[int, Buffer],
        wanted: Sequence[int],
        length_bytes: int,
        room: Room,
        /,
    ) -> list[bytes]: ...


@cache
def backend(name: str | None = None) -> Backend:
    """zfec where it can be imported, else the built-in tables; or the one named (ImportError if missing)."""
    if name not in (None, "zfec", "tables"):
        raise ValueError(f"no erasure backend {name!r}; there are zfec and tables")
    if name != "tables":
        try:
            from proofs.erasure import backend_zfec
        except ImportError:
            if name is not None:
                raise
        else:
            return backend_zfec
    return backend_tables


def check_code(k: int, m: int) -> None:
    """Raises ValueError unless a k-of-m code exists."""
    if not 1 <= k <= m <= MAX_SHARES:
        raise ValueError(f"no {k}-of-{m} code; 1 ≤ k ≤ m ≤ {MAX_SHARES} is needed")


def encode_group(
    k: int,
    m: int,
    blocks: Sequence[Buffer],
    *,
    using: Backend | None = None,
    room: Room | None = None,
) -> list[bytes]:
    """The parity blocks of a group of 1 to `k` data blocks: shares k … m−1, in order.

    Whoever encodes many groups gives one `room` to all of them. Raises ValueError for a code or a group that
    cannot be.
    """
    check_code(k, m)
    if not 1 <= len(blocks) <= k:
        raise ValueError(f"a group of {len(blocks)} blocks; 1 to {k} are allowed")
    length = max(map(len, blocks))
    if length == 0 or m == k:
        return [b""] * (m - k)
    padded = [*blocks, *[b""] * (k - len(blocks))]
    return (using or backend()).encode(k, m, padded, length, room or Room())


def encode_joined(
    k: int,
    m: int,
    shares: Sequence[Sequence[bytes]],
    longest: Sequence[int],
    *,
    using: Backend | None = None,
    room: Room | None = None,
) -> list[bytes]:
    """The parity of many groups with equally many members, group after group.

    `shares` has for each member its block in every group, `longest` for each group the length of its longest
    block. The code works byte position by byte position, so groups are joined, encoded as one and cut apart:
    of small ones that is several times as fast. Raises as `encode_group` does.
    """
    if len(longest) == 1:
        return encode_group(k, m, [block for (block,) in shares], using=using, room=room)
    layout = _layout(longest)
    joined = encode_group(k, m, _join(shares, layout, room or Room()), using=using)
    return [*chain.from_iterable(zip(*map(layout.unpack, joined), strict=True))]


def _layout(longest: Sequence[int]) -> Struct:
    """A block of each group, one behind the other, each padded with zeros to the longest of its group."""
    return Struct("%ds" * len(longest) % tuple(longest))


def _join(shares: Iterable[Sequence[bytes]], layout: Struct, room: Room) -> list[memoryview]:
    joined = []
    for number, blocks in enumerate(shares):
        joined.append(room.take(number, layout.size))
        layout.pack_into(joined[-1], 0, *blocks)
    return joined


def restore_shares(
    k: int,
    m: int,
    shares: Mapping[int, Buffer],
    lengths: Sequence[int],
    wanted: Sequence[int],
    *,
    using: Backend | None = None,
    room: Room | None = None,
) -> list[bytes]:
    """The shares `wanted`, in that order, from any `k` of a group's; `lengths` are the data blocks' lengths.

    `shares` maps share numbers (0 … k−1 data, k … m−1 parity) to bytes; more than needed is fine, absent
    members are known without being there. The result is not verified: compare it with the CIDs. `room` is as
    in `encode_group`. Raises UndecodableGroup for too few shares or shares of a wrong length, ValueError for
    a code, a group or a wanted share that cannot be.
    """
    check_code(k, m)
    members = len(lengths)
    if not 1 <= members <= k or min(lengths) < 0:
        raise ValueError(f"a group of {members} blocks; 1 to {k} are allowed")
    if not all(0 <= index < members or k <= index < m for index in wanted):
        raise ValueError(f"the group's shares are 0 to {members - 1} and {k} to {m - 1}")
    length = max(lengths)
    for index, share in shares.items():
        if not (0 <= index < members or k <= index < m):
            raise UndecodableGroup(f"the group has no share {index}")
        if len(share) != (lengths[index] if index < members else length):
            raise UndecodableGroup(f"share {index} has {len(share)} bytes; it is not of this group")
    missing = [index for index in range(members) if index not in shares]
    parity = sorted(index for index in shares if index >= k)
    if len(missing) > len(parity):
        raise UndecodableGroup(f"{len(shares)} shares of a group of {members}; {members} are needed")
    lost = [index for index in wanted if index not in shares]
    made: dict[int, bytes] = dict.fromkeys(lost, b"")
    if lost and length:
        known: dict[int, Buffer] = {
            index: shares.get(index, b"") for index in range(k) if index not in missing
        }
        known |= {index: shares[index] for index in parity[: len(missing)]}
        found = (using or backend()).restore(k, m, known, lost, length, room or Room())
        made = {
            index: share[: lengths[index]] if index < members else share
            for index, share in zip(lost, found, strict=True)
        }
    return [made[index] if index in made else bytes(shares[index]) for index in wanted]


def restore_joined(
    k: int,
    m: int,
    shares: Mapping[int, Sequence[bytes]],
    lengths: Sequence[Sequence[int]],
    wanted: Sequence[int],
    *,
    using: Backend | None = None,
    room: Room | None = None,
) -> list[Sequence[bytes]]:
    """`restore_shares` of many groups of which the same shares are there, joined as in `encode_joined`.

    `shares` has for each share its block in every group, `lengths` for each member its blocks' lengths, which
    the blocks must have; what is returned has for each wanted share its blocks.
    """
    longest = [max(own) for own in zip(*lengths, strict=True)]
    room = room or Room()
    lost = [share for share in wanted if share not in shares]
    made: dict[int, Sequence[bytes]] = {**shares}
    if len(longest) == 1:
        group = {share: block for share, (block,) in shares.items()}
        found = restore_shares(k, m, group, [own for (own,) in lengths], lost, using=using, room=room)
        made |= {share: [block] for share, block in zip(lost, found, strict=True)}
    elif lost:
        layout = _layout(longest)
        joined = dict(zip(shares, _join(shares.values(), layout, room), strict=True))
        found = restore_shares(k, m, joined, [layout.size] * len(lengths), lost, using=using)
        for share, whole in zip(lost, found, strict=True):
            own = lengths[share] if share < k else longest
            made[share] = [block[:end] for block, end in zip(layout.unpack(whole), own, strict=True)]
    return [made[share] for share in wanted]
