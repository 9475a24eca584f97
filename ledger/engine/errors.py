"""Errors of the ledger's engines and clients, each saying whose fault it is."""
# ruff: noqa: N818 (the names say what happened; "Error" would only lengthen them)

from __future__ import annotations


class EngineError(Exception):
    """Base of every error that an engine, its storage or its client raises."""


class StoreError(EngineError):
    """The environment: the ledger's folder cannot be opened, written or read."""


class CorruptStore(StoreError):
    """Bytes on disk are not what was written; restore the folder from a backup or export."""


class ReplayMismatch(CorruptStore):
    """Replaying a block of the write-ahead log gave another app hash than the block's header states."""


class EngineStopped(EngineError):
    """Ours: the engine has been stopped, or a failed write stopped it; nothing more is accepted."""


class ClientError(EngineError):
    """Base of what a client of the ledger's HTTP interface raises."""


class LedgerUnreachable(ClientError):
    """The environment: no connection, a time-out, or a server that cannot answer now."""


class LedgerProtocolError(ClientError):
    """The server answered something that is not this protocol; check the ledger's URL."""


class LedgerNotFound(ClientError, LookupError):
    """The caller's: the ledger has no such account, deal, block or transaction."""


class ChainMismatch(ClientError):
    """The server runs another chain, or another operator key, than the one that was pinned."""


class LedgerRefused(ClientError):
    """The caller's: the ledger refused; `code` is the stable result code, `log` one line saying why."""

    def __init__(self, code: int, log: str) -> None:
        super().__init__(f"the ledger refused (code {code}): {log}")
        self.code = code
        self.log = log
