"""The forms of transactions that change a live deal, or leave one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

from ledger import limits
from ledger.fields import Digest, Link, Uint, Wire, uint


@dataclass(frozen=True, slots=True)
class Renew(Wire):
    """The client pays for `periods` more of every shard that is open."""

    kind: ClassVar[str] = "renew"
    deal: Link
    periods: Annotated[int, uint(1, limits.MAX_DEAL_PERIODS)]


@dataclass(frozen=True, slots=True)
class EndDeal(Wire):
    """The client gives notice: what is served ends after the next period."""

    kind: ClassVar[str] = "end_deal"
    deal: Link


@dataclass(frozen=True, slots=True)
class TopUp(Wire):
    """Adds `amount` to what the one who repairs a shard gets; anyone may send it."""

    kind: ClassVar[str] = "top_up"
    deal: Link
    shard: Uint
    amount: Uint


@dataclass(frozen=True, slots=True)
class HandOver(Wire):
    """The shard's provider asks for another one to take its place."""

    kind: ClassVar[str] = "hand_over"
    deal: Link
    shard: Uint


@dataclass(frozen=True, slots=True)
class GiveUp(Wire):
    """The shard's provider will not keep it any longer, whoever takes it."""

    kind: ClassVar[str] = "give_up"
    deal: Link
    shard: Uint


@dataclass(frozen=True, slots=True)
class Stay(Wire):
    """The shard's provider will keep it after all, while nobody has taken it."""

    kind: ClassVar[str] = "stay"
    deal: Link
    shard: Uint


@dataclass(frozen=True, slots=True)
class DeclareFault(Wire):
    """The dataset's provider knows that it will not prove this period: half of the fee."""

    kind: ClassVar[str] = "declare_fault"
    dataset: Digest
    period: Uint
