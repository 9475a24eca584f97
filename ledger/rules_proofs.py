"""Proofs: the answer to an open window's challenge, while the window lasts."""

from __future__ import annotations

from dataclasses import replace

from ledger.context import Context
from ledger.errors import Refusal
from ledger.genesis import Params
from ledger.proof_checker import Claim, cost_of, points_of
from ledger.records import DatasetRecord, Phase
from ledger.result import Code
from ledger.rules_datasets import Clock
from ledger.transactions import Prove
from proofs.challenge import Challenge
from proofs.errors import InvalidProof


def challenge_of(record: DatasetRecord, terms: Params) -> Challenge:
    """What the dataset's open window asks for."""
    return Challenge(
        seed=record.seed,
        data=record.data,
        data_depth=record.depth,
        meta=record.meta,
        meta_depth=record.depth,
        k=record.challenges,
        meta_k=terms.meta_challenges,
        kind=record.proof,
    )


def check_timing(record: DatasetRecord, clock: Clock, period: int, time: int) -> None:
    """Refuses a proof outside the open window: from the seed's block to the window's last second."""
    is_to_come = record.phase in (Phase.WAITING, Phase.OPENING)
    if period > record.period or (period == record.period and is_to_come):
        raise Refusal(Code.TOO_EARLY, f"the window opens at {clock.opens_at(period)}, its seed comes after")
    if period < record.period or record.phase is not Phase.OPEN or time > clock.closes_at(period):
        raise Refusal(Code.TOO_LATE, "the window has closed, or was void")
    if record.proven:
        raise Refusal(Code.ALREADY_PROVEN, f"period {period} is proven")


def find_provable(ctx: Context, sender: bytes, body: Prove) -> DatasetRecord:
    """The dataset whose open window a proof is for; refuses, without looking at the proof itself."""
    record = ctx.find_dataset(body.dataset)
    if record is not None and record.provider != sender:
        raise Refusal(Code.NOT_YOURS, "the dataset is another provider's")
    if record is None:
        raise Refusal(Code.UNKNOWN_DATASET, "no such dataset")
    check_timing(record, Clock.of(body.dataset, ctx.terms(record.terms)), body.period, ctx.time)
    return record


def find_claim(ctx: Context, sender: bytes, body: Prove) -> Claim:
    """What the proof of an open window is to answer, and its bytes; refuses as `find_provable`."""
    record = find_provable(ctx, sender, body)
    return challenge_of(record, ctx.terms(record.terms)), body.proof


def verify(ctx: Context, claim: Claim) -> None:
    """Refuses INVALID_PROOF. The block has spent its time on the proof then, too."""
    challenge, proof = claim
    ctx.kzg_points += cost_of(challenge)
    try:
        ctx.proofs.verify(challenge, proof)
    except InvalidProof as error:
        raise Refusal(Code.INVALID_PROOF, str(error)) from None


def prove(ctx: Context, sender: bytes, body: Prove) -> None:
    """Counts the open period as proven if the proof shows the drawn leaves of the pieces it began with."""
    known = ctx.find_dataset(body.dataset)
    if known is not None:
        drawn = known.challenges, known.data_leaves, ctx.terms(known.terms).meta_challenges, known.meta_leaves
        ctx.need_kzg_points(points_of(known.proof, *drawn))
    verify(ctx, find_claim(ctx, sender, body))
    record = ctx.get_dataset(body.dataset)
    record = replace(
        record,
        proven=True,
        proven_total=record.proven_total + 1,
        in_a_row=0,
        clean=record.clean + 1,
    )
    ctx.put_dataset(body.dataset, record)
    provider = ctx.get_provider(sender)
    ctx.put_provider(replace(provider, proven_total=provider.proven_total + 1))
    ctx.emit("proof_accepted", dataset=body.dataset, provider=sender, period=body.period)
