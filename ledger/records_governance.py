"""What the ledger keeps of proposals and votes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Annotated

from ledger import limits
from ledger.fields import Account, Flag, Uint, choice, text
from ledger.records import Record
from ledger.transactions import CHANGES, POWERS


class ProposalStatus(Enum):
    """Where a proposal is in its life; see docs/ledger.md, "Governance"."""

    OPEN = "open"  # may be voted on
    PASSED = "passed"  # agreed; waits for the time lock to end
    REJECTED = "rejected"  # too many voted against it
    NO_QUORUM = "no_quorum"  # too few voted
    ACTIVE = "active"  # agreed and in force
    VOID = "void"  # agreed, but does not fit what is in force by now


@dataclass(frozen=True, slots=True)
class ProposalRecord(Record):
    """A proposal, the `number`-th of the chain.

    `changes` are new values of parameters by name, `rules` the version of the rules to go over to (0: none),
    `validators` the power that each of them is granted (0: it goes).
    The vote ends at `closes_at`, what it agreed on comes into force at `activates_at`. `total` is all stake
    when the vote began, or if that was less, as it ended; `yes` and `no` that of those who voted.
    """

    proposer: Account
    number: Uint
    changes: Annotated[Mapping[str, int], CHANGES]
    rules: Uint
    validators: Annotated[Mapping[bytes, int], POWERS]
    note: Annotated[str, text(limits.MAX_NOTE_CHARS)]
    deposit: Uint
    opened_at: Uint
    closes_at: Uint
    activates_at: Uint
    total: Uint
    yes: Uint
    no: Uint
    status: Annotated[ProposalStatus, choice(ProposalStatus)]


@dataclass(frozen=True, slots=True)
class VoteRecord(Record):
    """One provider's vote; `weight` is its least stake since the vote began."""

    approve: Flag
    weight: Uint
