"""The erasure code of one group: k data blocks, m − k parity blocks, and any k of the m restore them all.

Systematic Reed–Solomon as in zfec. The data blocks may differ in length; parity is as long as the longest. A
group may have fewer than k members: those absent are implied zeros, never stored. Callers go group by group,
so memory is bounded by m blocks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Protocol

from merkledag.multihash import Buffer
from proofs import rs_tables
from proofs.errors import UndecodableGroup

MAX_SHARES = 256


Room = list[bytearray]  # what blocks are padded in; given to the next call again, it spares making new


class Backend(Protocol):
    """One implementation of the code; all of them make the same bytes. See `rs_tables` for the contracts."""

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
            from proofs import rs_zfec
        except ImportError:
            if name is not None:
                raise
        else:
            return rs_zfec
    return rs_tables


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

    Whoever encodes many groups gives a `room`, empty at first, to all of them. Raises ValueError for a code
    or a group that cannot be.
    """
    check_code(k, m)
    if not 1 <= len(blocks) <= k:
        raise ValueError(f"a group of {len(blocks)} blocks; 1 to {k} are allowed")
    length = max(map(len, blocks))
    if length == 0 or m == k:
        return [b""] * (m - k)
    padded = [*blocks, *[b""] * (k - len(blocks))]
    return (using or backend()).encode(k, m, padded, length, [] if room is None else room)


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
        found = (using or backend()).restore(k, m, known, lost, length, [] if room is None else room)
        made = {
            index: share[: lengths[index]] if index < members else share
            for index, share in zip(lost, found, strict=True)
        }
    return [made[index] if index in made else bytes(shares[index]) for index in wanted]
