"""What goes wrong in the ledger, and whose fault it is; what clients meet is in `engine.errors`."""

from __future__ import annotations

from ledger.result import Code


class LedgerError(Exception):
    """Anything the ledger package raises on purpose."""


class InvalidTransaction(LedgerError, ValueError):
    """The bytes are not a canonical transaction (the sender's fault)."""


class InvalidGenesis(LedgerError, ValueError):
    """The genesis file breaks a bound or a signature (whoever wrote it)."""


class InvalidBlock(LedgerError, ValueError):
    """The block cannot follow this state (the proposer's or the engine's fault)."""


class CorruptState(LedgerError):
    """The stored items do not belong together (the disk's or our fault)."""


class UnknownRules(LedgerError):
    """The chain has gone over to rules that this program lacks: a newer release is needed."""

    def __init__(self, rules: int, known: int, height: int, note: str) -> None:
        said = f' (the proposal said: "{note}")' if note else ""
        super().__init__(
            f"from block {height} on this chain has version {rules} of the rules, this program has {known}: "
            f"install a release of Holdfast that has version {rules} of the ledger's rules{said}"
        )
        self.rules = rules


class RuleBroken(LedgerError):
    """The ledger would break a promise of its own (our fault); what led to it is undone."""


class Refusal(LedgerError):
    """A rule refuses a transaction, and all it did is undone: a stable code and a line that explains."""

    def __init__(self, code: Code, log: str) -> None:
        super().__init__(f"{code.name}: {log}")
        self.code = code
        self.log = log


# What a mistake in a rule looks like. Not among them: what the disk, the memory or a damaged state brings,
# which another machine does not meet in the same block.
MISTAKES = (RuleBroken, AssertionError, ArithmeticError, AttributeError, LookupError, TypeError, ValueError)


class InvalidStateProof(LedgerError, ValueError):
    """The bytes are not a canonical state proof (the fault of whoever gave them)."""


class InvalidSnapshot(LedgerError, ValueError):
    """The bytes are not the snapshot that their names say (the fault of whoever gave them)."""
