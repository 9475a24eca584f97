"""Seeds of the past: which block's beacon a challenge was drawn from, found again from block headers alone.

So that anybody can repeat a draw without the state it was made in (docs/proofs.md, "Beacon").
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from typing import NamedTuple, Protocol

from proofs.challenge import period_seed, spot_seed

SECONDS_A_BLOCK = 8  # of a window, for each block that its seed may wait for: so it is there early in it


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


def blocks_until_drawn(value: bytes, validators: int, within_s: int) -> int:
    """How many blocks after the one with beacon `value` its beacon draws what that one has asked for.

    One of the next `validators` − 1, so that nobody can tell whose turn will count before `value` is out, and
    it is not the turn of whoever made that: docs/beacon.md, "Steering". Fewer where `within_s`, the time that
    there is, is short. With one validator, or two, always the next one.
    """
    return 1 + int.from_bytes(value, "big") % max(1, min(validators - 1, within_s // SECONDS_A_BLOCK))


def past_period(
    chain_id: str,
    dataset_id: bytes,
    node: bytes,
    period: int,
    opens_at: int,
    window_s: int,
    headers: Sequence[Header],
    validators: int = 1,
) -> Drawn | None:
    """The seed of a past period: that of the block which the first one at or after `opens_at` has drawn.

    None for a period that was void, one of the two being later than half of `window_s`. `headers` are of
    consecutive blocks and begin before `opens_at`; `validators` had power when the block before the first one
    was made (CometBFT's set of the height after the first one). Where more windows opened at once, or were to
    have their seeds, than one block may do (`ledger.limits.MAX_DUE_PER_BLOCK`), the next blocks did the rest.
    Raises LookupError where the headers do not reach so far, ValueError as `period_seed`.
    """
    first = bisect_left(headers, opens_at, key=lambda header: header.time)
    index, found = first, _at(headers, first)
    if 2 * (found.time - opens_at) <= window_s:
        index += blocks_until_drawn(found.beacon, validators, window_s)
        found = _at(headers, index)
    if 2 * (found.time - opens_at) > window_s:
        return None
    return Drawn(found.height, period_seed(chain_id, dataset_id, node, period, found.beacon))


def past_spot(
    chain_id: str,
    deal: bytes,
    shard: int,
    node: bytes,
    opened_in: int,
    window_s: int,
    headers: Sequence[Header],
    validators: int = 1,
) -> Drawn:
    """The seed of a past spot challenge: that of the block drawn by `opened_in`, in which it was asked for.

    `headers` hold both; `validators` and what it raises are as in `past_period`.
    """
    index = bisect_left(headers, opened_in, key=lambda header: header.height)
    asked = _at(headers, index)
    if asked.height != opened_in:
        raise LookupError(_TOO_SHORT)
    found = _at(headers, index + blocks_until_drawn(asked.beacon, validators, window_s))
    return Drawn(found.height, spot_seed(chain_id, deal, shard, node, opened_in, found.beacon))


_TOO_SHORT = "the headers do not reach from before the draw to the block that it was made in"


def _at(headers: Sequence[Header], index: int) -> Header:
    """That header; the first one of all may not be the first one after what was asked for."""
    if index >= len(headers) or (index == 0 and headers[0].height > 1):
        raise LookupError(_TOO_SHORT)
    return headers[index]
