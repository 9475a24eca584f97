"""A node of a chain that goes on from another one, before state sync has brought it a state.

The first state of such a chain is not in its genesis. Until there is one here, the application knows the
chain's name, parameters and validators and nobody's money, and nothing is stored; no block can be run on it.
"""

from __future__ import annotations

from ledger.application import Application
from ledger.engine.assemble import load_application
from ledger.engine.cometbft.errors import Disagreement
from ledger.engine.storage import LedgerStorage
from ledger.genesis import Genesis
from ledger.genesis_state import blank_items
from ledger.ingest import memory_store


def load_or_wait(storage: LedgerStorage, genesis: Genesis) -> Application:
    """What `load_application` gives where there is a state, or the genesis has it; else one that waits."""
    if is_waiting(storage, genesis):
        return Application(genesis.validated(), memory_store(blank_items(genesis).items()))
    return load_application(storage, genesis)


def is_waiting(storage: LedgerStorage, genesis: Genesis) -> bool:
    """Whether the state has to come from others."""
    return genesis.origin is not None and storage.genesis() is None


def require_state(storage: LedgerStorage, genesis: Genesis) -> None:
    """Raises Disagreement where CometBFT would begin with a first state that is not here."""
    if is_waiting(storage, genesis):
        assert genesis.origin is not None
        raise Disagreement(
            f"chain {genesis.chain_id} goes on from {genesis.origin.chain_id}, and what that ended with is "
            "not here: join it by state sync (--trust, --sync-from), or import the archive of its end "
            "(`holdfast ledger import ARCHIVE --as-chain ID --engine cometbft --founding FILE`)"
        )
