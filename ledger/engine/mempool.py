"""Admitted transactions on their way into a block of the embedded engine, in order of arrival.

Proofs have a lane of their own: a quarter of the places, and half of every block, so that no flood of other
transactions makes a provider miss its window.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import Executor
from dataclasses import dataclass

from ledger.application import Application
from ledger.engine.blocks import Receipt, node_cid
from ledger.engine.intake import MAX_WAITING, Intake, may_be_proof
from merkledag.cid import CID


@dataclass
class _Budget:
    """Room in a block."""

    count: int
    size_bytes: int

    def take(self, lane: Mapping[bytes, int], taken_before: Collection[bytes] = ()) -> dict[bytes, int]:
        """The first ones of a lane that fit, but for those that were taken before."""
        taken: dict[bytes, int] = {}
        for raw, number in lane.items():
            if raw in taken_before:
                continue
            if self.count <= 0 or self.size_bytes < len(raw):
                break
            taken[raw] = number
            self.count -= 1
            self.size_bytes -= len(raw)
        return taken


class Mempool(Intake):
    """What waits for a block; `on_admitted` is called whenever something was admitted."""

    def __init__(
        self,
        app: Application,
        verifiers: Executor,
        committed: Callable[[CID], Receipt | None],
        on_admitted: Callable[[], None],
        max_waiting: int = MAX_WAITING,
    ) -> None:
        super().__init__(app, verifiers, committed, max_waiting)
        self._on_admitted = on_admitted
        # Both lanes keep the order of admission; the numbers put them into one again.
        self._proofs: dict[bytes, int] = {}
        self._others: dict[bytes, int] = {}
        self._numbers = itertools.count()

    @property
    def ready(self) -> bool:
        """Whether an admitted transaction waits for a block."""
        return bool(self._proofs or self._others)

    def grows(self, limit: int) -> bool:
        """Whether fewer than `limit` are admitted, and more are being verified."""
        return len(self._proofs) + len(self._others) < min(limit, len(self._outcomes))

    def candidates(self, limit: int, max_bytes: int) -> list[bytes]:
        """The oldest admitted transactions, within the limits, in order; half of both is for proofs first.

        In the other half what comes before a chosen proof of the same account, which has to wait for it, is
        first.
        """
        budget = _Budget(limit // 2, max_bytes // 2)
        chosen = budget.take(self._proofs)
        budget = _Budget(budget.count + limit - limit // 2, budget.size_bytes + max_bytes - max_bytes // 2)
        chosen |= budget.take(self._before(chosen))
        chosen |= budget.take(self._others, chosen)
        chosen |= budget.take(self._proofs, chosen)
        return sorted(chosen, key=chosen.__getitem__)

    def _before(self, proofs: Mapping[bytes, int]) -> dict[bytes, int]:
        """What the senders of these proofs have sent before them: nonces have an order."""
        last = {self._app.sender(raw): number for raw, number in proofs.items()}
        if not last:
            return {}
        return {raw: n for raw, n in self._others.items() if n < last.get(self._app.sender(raw), 0)}

    def recheck(self, raws: list[bytes]) -> None:
        """Refuses those that no block will take any more, because one before them was refused."""
        waiting = [raw for raw in raws if raw in self._proofs or raw in self._others]
        for raw in waiting:
            self._app.forget(raw)
        for raw in waiting:
            result = self._app.check_tx(raw)
            if not result.ok:
                self.resolve(raw, Receipt.of(result, 0, node_cid(raw)))

    def _admitted(self, raw: bytes) -> None:
        lane = self._proofs if may_be_proof(raw) and self._app.is_proof(raw) else self._others
        lane[raw] = next(self._numbers)

    def _resolved(self, raw: bytes) -> None:
        self._proofs.pop(raw, None)
        self._others.pop(raw, None)

    def _batch_checked(self) -> None:
        if self.ready:
            self._on_admitted()
