"""What an engine is to whoever asks it: the HTTP interface, and the services that start and stop it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from ledger.application import Application
from ledger.engine.blocks import BlockEvents, Receipt
from ledger.engine.fanout import Subscription
from ledger.engine.history import History
from ledger.engine.snapshots import Snapshots
from ledger.state_tree import StateProof
from merkledag.cid import CID

STOPPING = "the ledger is stopping; send again when it is back"

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class EngineStatus:
    """How the engine is: how much waits, and in `trouble` what keeps it from its work ("": nothing).

    `retain_height` is the lowest block that other nodes can fetch from this one (0: all), if there are such.
    """

    waiting: int
    subscribers: int
    trouble: str
    retain_height: int | None = None


@dataclass(frozen=True, slots=True)
class Provable:
    """The state after a block, of which `prove` shows what it has at a key; until the next block comes."""

    height: int
    prove: Callable[[bytes], StateProof]


class Engine(Protocol):
    """Drives one application. `app` and `history` answer from the last block that it committed."""

    app: Application
    history: History
    snapshots: Snapshots

    @property
    def name(self) -> str:
        """What it is called in answers and configurations."""

    @property
    def status(self) -> EngineStatus:
        """How the engine is right now."""

    async def start(self) -> None:
        """Begins to make, or to take, blocks. Raises CorruptStore when store and application disagree."""

    async def stop(self) -> None:
        """Finishes what is under way, refuses what still waits, and ends. Harmless twice.

        The store stays open (its owner closes it).
        """

    async def wait_ended(self) -> None:
        """Returns when the engine was stopped; raises EngineStopped if it failed (its cause says why)."""

    async def submit(self, raw: bytes) -> Receipt:
        """The receipt of a signed transaction after its block is committed, or at once if it is refused.

        A refused one has height 0. Sending the same bytes again is harmless: it tells what became of them.
        Raises MempoolFull, EngineStopped, EngineUnavailable, or StoreError when the disk refuses (then
        nothing was kept).
        """

    async def submit_all(self, raws: Sequence[bytes]) -> list[Receipt]:
        """The receipts of many signed transactions, in their order; as `submit`, at less cost for each.

        One for which there was no room has code POOL_FULL. Raises MempoolFull if there was room for none.
        """

    def subscribe(self) -> Subscription[BlockEvents]:
        """The events of every block committed from now on. Raises TooManySubscribers."""

    def provable(self, least: int) -> Provable:
        """The last state whose app hash is signed already, if it is not before block `least`; else the last.

        Raises StoreError.
        """

    def get_node(self, cid: CID) -> bytes | None:
        """The block or transaction that `cid` names, as DAG-CBOR, or None."""


def report_mistakes(block: BlockEvents) -> None:
    """Tells the log of work that a block could not do and set aside."""
    for event in block.events:
        if event.kind == "work_stuck":
            _log.error("a mistake in the rules: work was set aside: %s", dict(event.attributes))
