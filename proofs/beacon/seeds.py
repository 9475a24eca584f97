"""Seeds of the past: which block's beacon a challenge was drawn from, found again from block headers alone.

So that anybody can repeat a draw without the state it was made in (docs/proofs.md, "Beacon").
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from typing import NamedTuple, Protocol

from proofs.challenge import period_seed, spot_seed


class Header(Protocol):
    """What a block's header says: height, ledger time in seconds after the block, beacon value (32 bytes)."""

    @property
    def height(self) -> int: ...

    @property
    def time(self) -> int: ...

    @property
    def beacon(self) -> bytes: ...


class Drawn(NamedTuple):
    """A challenge's seed, 32 bytes, and the block that it was drawn in."""

    height: int
    seed: bytes


def past_period(
    chain_id: str,
    dataset_id: bytes,
    node: bytes,
    period: int,
    opens_at: int,
    window_s: int,
    headers: Sequence[Header],
) -> Drawn | None:
    """The seed of a past period: that of the block after the first one at or after `opens_at`.

    None for a period that was void, one of the two being later than half of `window_s`. `headers` are of
    consecutive blocks and begin before `opens_at`. Where more windows opened at once than one block may open
    (`ledger.limits.MAX_DUE_PER_BLOCK`), the rest had their seeds from the next blocks. Raises LookupError
    where the headers do not reach so far, ValueError as `period_seed`.
    """
    first = bisect_left(headers, opens_at, key=lambda header: header.time)
    for index in (first, first + 1):
        found = _at(headers, index)
        if 2 * (found.time - opens_at) > window_s:
            return None
    return Drawn(found.height, period_seed(chain_id, dataset_id, node, period, found.beacon))


def past_spot(
    chain_id: str, deal: bytes, shard: int, node: bytes, opened_in: int, headers: Sequence[Header]
) -> Drawn:
    """The seed of a past spot challenge: that of the block after `opened_in`, in which it was asked for.

    Raises as `past_period`.
    """
    found = _at(headers, bisect_left(headers, opened_in + 1, key=lambda header: header.height))
    return Drawn(found.height, spot_seed(chain_id, deal, shard, node, opened_in, found.beacon))


def _at(headers: Sequence[Header], index: int) -> Header:
    """That header; the first one of all may not be the first one after what was asked for."""
    if index >= len(headers) or (index == 0 and headers[0].height > 1):
        raise LookupError("the headers do not reach from before the draw to the block that it was made in")
    return headers[index]
