"""Commits to what is to be stored, with progress; for KZG proofs that takes long, and is told before."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cli.durations import roughly
from cli.output import count_text, note

if TYPE_CHECKING:
    from cli.home import Home
    from storage_node.placement import StorePlan
    from storage_node.rows import ProofRows


@dataclass(frozen=True, slots=True)
class Preparation:
    """The KZG commitments that a plan needs here: `blobs` are still to be made, on so many cores.

    `blob_s` is what one of these takes for a full blob.
    """

    blobs: int
    made_before: int
    cores: int
    blobs_of_a_node: int
    blob_s: float

    @property
    def seconds(self) -> float:
        """About how long it will take here."""
        return self.blobs * self.blob_s / self.cores

    @property
    def seconds_of_a_node(self) -> float:
        """About how long the node of the largest shard works before it accepts, on one such core."""
        return self.blobs_of_a_node * self.blob_s

    def to_json(self) -> dict[str, Any]:
        """For machines."""
        return {
            "blobs": self.blobs,
            "made_before": self.made_before,
            "seconds": round(self.seconds, 1),
            "node_seconds": round(self.seconds_of_a_node, 1),
        }

    def sentences(self) -> list[str]:
        """For people."""
        made = f" ({self.made_before} are made already)" if self.made_before else ""
        here = f"{count_text(self.blobs, 'blob')} to commit to here{made}"
        on = count_text(self.cores, "core")
        return [
            f"proof    KZG: {here}, about {_about(self.seconds)} on {on}",
            "         interrupted, it goes on where it was; each node does so for its shard before it "
            f"accepts: up to {_about(self.seconds_of_a_node)} on one core like these",
        ]


async def preparation_of(home: Home, plan: StorePlan) -> Preparation:
    """What is still to be made for a plan with KZG proofs, by the pace that a trial has here."""
    kzg = home.open_kzg()
    missing = await kzg.missing(plan.blocks)
    most = max(piece.data_leaves + piece.meta_leaves for piece in plan.pieces)
    return Preparation(missing, plan.units - missing, kzg.committer.cores, most, await kzg.committer.pace_s())


async def prepare(home: Home, plan: StorePlan, rows: ProofRows) -> None:
    """Commits to every piece of a plan, with a progress line."""
    from cli.demo_story import Bars
    from proofs.kinds import ProofKind
    from storage_node.placement import commit_plan

    kzg = home.open_kzg() if plan.request.proof is ProofKind.KZG else None
    made, began_s = 0, time.monotonic()
    bars = Bars("prepared")

    def progress(phase: str, done: int, total: int) -> None:
        nonlocal made
        made = done
        bars(phase, done, total)

    try:
        await commit_plan(plan, rows, kzg, progress=progress)
    finally:
        bars.finish()
    if kzg is not None and made:
        note(f"committed to {count_text(made, 'blob')} in {_about(time.monotonic() - began_s)}")


def _about(seconds: float) -> str:
    return roughly(round(seconds)) if seconds >= 60 else f"{seconds:.1f} s"
