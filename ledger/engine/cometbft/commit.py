"""The path of a decided block: run in FinalizeBlock, written with all that it changes in Commit, once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ledger.application import Application
from ledger.block_forms import BlockInput
from ledger.engine.assemble import Assembled, assemble_decided
from ledger.engine.cometbft.abci import convert, messages
from ledger.engine.cometbft.errors import Disagreement
from ledger.engine.cometbft.handshake import RESET
from ledger.engine.engine import report_mistakes
from ledger.engine.pruning import Pruner
from ledger.engine.storage import LedgerStorage
from ledger.engine.wal import Fault, no_fault
from ledger.errors import InvalidBlock


@dataclass(frozen=True, slots=True)
class Finalized:
    """A block that was run and waits for Commit."""

    given: BlockInput
    made: Assembled


class Blocks:
    """Runs blocks that CometBFT decided. Nothing of one is on disk before `write`, everything after it."""

    def __init__(
        self, app: Application, storage: LedgerStorage, pruner: Pruner, fault: Fault = no_fault
    ) -> None:
        self._app = app
        self._storage = storage
        self._pruner = pruner
        self._fault = fault
        self._waiting: Finalized | None = None

    def use(self, app: Application) -> None:
        """Goes on with the application of a state that was restored."""
        self._waiting = None
        self._app = app

    @property
    def waiting(self) -> Finalized:
        """The block that waits for Commit; raises Disagreement if there is none."""
        if self._waiting is None:
            raise Disagreement("CometBFT asked for a Commit without a block before it")
        return self._waiting

    def finalize(self, request: Any) -> Any:
        """ResponseFinalizeBlock. Raises Disagreement where the block cannot follow this state.

        One that was run and never committed is forgotten: a CometBFT that came back gives it again.
        """
        self._waiting = None
        app = self._app
        given = convert.block_input(app, request, tuple(request.txs))
        if given is None:
            raise Disagreement(
                f"block {request.height} was proposed by {request.proposer_address.hex()}, whom the "
                f"ledger's state does not know: {RESET}"
            )
        try:
            result = app.finalize_block(given)
        except InvalidBlock as error:
            why = f"block {request.height}, which the validators decided, cannot follow block {app.height}"
            raise Disagreement(f"{why}: {error}") from error
        self._waiting = Finalized(given, assemble_decided(app, given, result))
        self._fault("finalize.run")
        senders = (b"", *(app.sender(raw) for raw in given.txs[1:]))
        return messages.ResponseFinalizeBlock(
            events=[convert.event(each) for each in result.own_events],
            tx_results=list(map(convert.tx_result, result.tx_results, senders)),
            validator_updates=convert.validator_updates(result.validator_updates),
            app_hash=result.app_hash,
        )

    def write(self) -> None:
        """Writes the block, its state, height and app hash in one transaction. May run in another thread.

        Raises StoreError; it may then be tried again.
        """
        found = self.waiting
        self._storage.apply(found.made.stored, self._pruner.step(found.given.block_time_s))

    def confirm(self) -> Finalized:
        """The application goes on from the block that was written."""
        found = self.waiting
        self._waiting = None
        self._app.commit()
        report_mistakes(found.made.events)
        return found
