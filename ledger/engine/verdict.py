"""What checking a file with a proof of storage finds: its links, each with its outcome."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from ledger.engine.blocks import Block
from merkledag.cid import CID
from proofs.challenge import Challenge
from proofs.walk import ShownUnit


@dataclass(frozen=True, slots=True)
class Anchor:
    """What a file is held against, each None where nobody gave one; `ledger_block` gives a ledger's block.

    `follows` says in words that the last of a file's light blocks is of the trusted chain, or raises Broken
    or NotChecked.
    """

    operator: bytes | None = None
    chain: str | None = None
    app_hash: bytes | None = None
    ledger_block: Callable[[int], Block] | None = None
    follows: Callable[[Sequence[bytes]], str] | None = None


@dataclass(frozen=True, slots=True)
class Link:
    """One link of the chain; `holds` is None where it was not checked."""

    name: str
    holds: bool | None
    says: str


@dataclass(frozen=True, slots=True)
class About:
    """What a proof is of: a dataset's `period`, or a spot challenge of a `deal`'s `shard`.

    In ledger time, seconds: `drawn_at` is when the seed came, `proven_at` when the proof did, `closes_at` the
    last moment at which that was in time.
    """

    node: bytes
    client: bytes
    dataset: bytes
    period: int | None
    deal: CID | None
    shard: int | None
    drawn_at: int
    proven_at: int
    closes_at: int


@dataclass(slots=True)
class Verdict:
    """What was found; `about`, `challenge` and the drawn units `shown` only if every link holds."""

    links: list[Link] = field(default_factory=list)
    about: About | None = None
    challenge: Challenge | None = None
    shown: list[ShownUnit] = field(default_factory=list)

    @property
    def holds(self) -> bool:
        """Whether no link has failed."""
        return all(link.holds is not False for link in self.links)


class Broken(Exception):
    """A link does not hold."""


class NotChecked(Exception):
    """Nobody gave what a link would be compared with."""
