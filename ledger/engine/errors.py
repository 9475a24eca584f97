"""Errors of the ledger's engines and clients, each saying whose fault it is."""

from __future__ import annotations

from ledger.errors import CorruptState, LedgerError


class EngineError(LedgerError):
    """Base of every error that an engine or its storage raises."""


class StoreError(EngineError):
    """The environment: the ledger's folder cannot be opened, written or read."""


class CorruptStore(StoreError):
    """Bytes on disk are not what was written; restore the folder from a backup or export."""


def damaged_state(error: CorruptState) -> CorruptStore:
    """What to raise instead, which says what to do."""
    return CorruptStore(
        f"the ledger's state is damaged ({error}); restore it from a backup or, on CometBFT, begin again by "
        "state sync"
    )


class ReplayMismatch(CorruptStore):
    """Replaying a block of the write-ahead log gave another app hash than the block's header states."""


class EngineStopped(EngineError):
    """Ours: the engine has been stopped, or a failed write stopped it; nothing more is accepted."""


class EngineUnavailable(EngineError):
    """The environment: no blocks are made now, or not here; send again later, which is harmless."""


class MempoolFull(EngineError):
    """The environment: more transactions are waiting than the engine keeps; send again later."""


class SubscriberTooSlow(EngineError):
    """The caller's: a subscriber fell too far behind and was dropped; it may start again where it was."""


class TooManySubscribers(EngineError):
    """The environment: as many subscribers as the engine serves are connected already."""


class LedgerUnreachable(LedgerError):
    """The environment: no connection, a time-out, or a server that cannot answer now."""


class LedgerRefused(LedgerError):
    """The caller's: the ledger refused; `code` as in `ledger.result`, `log` is one line saying why."""

    def __init__(self, code: int, log: str) -> None:
        super().__init__(log)
        self.code = code
        self.log = log


class LedgerProtocolError(LedgerError):
    """The server answered something that is not this protocol; check the ledger's URL."""


class LedgerNotFound(LedgerError, LookupError):
    """The caller's: the ledger has no such account, deal, block or transaction."""


class LedgerPruned(LedgerNotFound):
    """The caller's: it was there, and this server no longer keeps it; another one may."""


class ChainMismatch(LedgerError):
    """The server runs another chain, or has another operator key, than the one that was pinned."""


class InvalidArchive(LedgerError):
    """The caller's: the bytes are not the archive of a ledger, or not a whole or sound one."""


class InvalidProofFile(LedgerError):
    """The caller's: the bytes are no proof of a state, or one that does not hold."""


class PrunedHistory(LedgerError, LookupError):
    """The caller's: this ledger does not keep, or never had, what was asked for; others may."""

    def __init__(self, what: str) -> None:
        super().__init__(
            f"{what}; ask a server whose /v1/status has a lower pruned_height, or somebody who has an "
            "archive of the chain (holdfast ledger export)"
        )
