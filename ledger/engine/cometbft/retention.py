"""Which blocks CometBFT may let go of: none that somebody needs who joins, lags, checks or accuses.

A node that begins with a snapshot fetches the blocks after it from its peers, and light blocks from somewhere
in the trusting period on. CometBFT answers for no block below its lowest one, though it keeps the headers
that evidence needs a little longer. So what is needed for any of these has to be kept whole.
Source: spec/abci of CometBFT (pruning), store/store.go, rpc/core/env.go.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass

from ledger.engine.blocks import Block
from ledger.engine.cometbft.home import chain_params
from ledger.engine.cometbft.light.verify import Rules
from ledger.engine.errors import StoreError
from ledger.engine.snapshots import Snapshots
from ledger.engine.storage import LedgerStorage

# A peer that was away for no longer catches up block by block; after that, by state sync. It also covers what
# power loss may undo in the database, which CometBFT then gives again.
LAGGING_BLOCKS = 1_000
TRUSTING_S = Rules().trusting_period_s

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Needs:
    """For how long others may need a block: in seconds of block time, and in blocks."""

    trusting_s: int = TRUSTING_S
    evidence_s: int = chain_params.EVIDENCE_S
    evidence_blocks: int = chain_params.EVIDENCE_BLOCKS
    lagging_blocks: int = LAGGING_BLOCKS


class Retention:
    """Says after each block from which one on CometBFT must keep all.

    It follows the ledger's own pruning (`pruning.Pruner`), which goes in small steps, from afar: a node that
    keeps its transactions for ever, or makes no snapshots, lets go of nothing.
    """

    def __init__(self, storage: LedgerStorage, snapshots: Snapshots, needs: Needs | None = None) -> None:
        self._storage = storage
        self._snapshots = snapshots
        self._needs = needs or Needs()
        self._height = 0
        self._time_s: int | None = None
        self._failed = False

    @property
    def height(self) -> int:
        """The lowest block that is needed, as of the last `step`; 0 while all are."""
        return self._height

    def step(self, tip: int, now_s: int) -> int:
        """`height` after the block `tip` of the time `now_s`."""
        if not self._snapshots.every_blocks or self._failed:
            return self._height
        try:
            self._step(tip, now_s - max(self._needs.trusting_s, self._needs.evidence_s))
        except (StoreError, ValueError) as error:
            # New blocks are worth more than the room that old ones take.
            self._failed = True
            _log.error("CometBFT lets go of no more blocks: %s", error)
        return self._height

    def _step(self, tip: int, since_s: int) -> None:
        # Evidence is void when it is too old both in blocks and in time.
        needs = self._needs
        bound = min(
            self._storage.pruned().blocks + 1,
            min(self._snapshots.heights(), default=0),
            tip - needs.lagging_blocks,
            tip - needs.evidence_blocks,
        )
        if not self._height and bound > 0:
            self._move(self._search(bound, since_s))
        while 0 < self._height < bound and self._is_old(since_s):
            self._move(self._height + 1)

    def _search(self, bound: int, since_s: int) -> int:
        """The lowest block up to `bound` that is not old; block times only grow."""
        low, high = 1, bound
        while low < high:
            middle = (low + high) // 2
            if self._time(middle) < since_s:
                low = middle + 1
            else:
                high = middle
        return low

    def _move(self, height: int) -> None:
        self._height, self._time_s = height, None

    def _is_old(self, since_s: int) -> bool:
        if self._time_s is None:
            self._time_s = self._time(self._height)
        return self._time_s < since_s

    def _time(self, height: int) -> int:
        """The block's time; what came before the state that this node began with is older than all."""
        raw = self._storage.block(height)
        return -1 if raw is None else Block.decode(raw).block_time_s
