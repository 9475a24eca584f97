"""Proposals and votes: the plain form of "Governance". Each keeps a copy of all stakes, and lowers it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

from ledger import limits
from ledger.fields import FieldError
from ledger.genesis import Params
from ledger.result import Code
from ledger.transactions import Propose, Vote
from merkledag.cid import CID
from tests.ledger.naive import validators
from tests.ledger.naive.state import Map, Plain

PROPOSAL = 3

Does = Callable[[], None]


def changed(params: Params, changes: Map) -> Params | None:
    """The parameters with some changed; None if that is not possible."""
    try:
        return replace(params, **changes).check()
    except (FieldError, TypeError):
        return None


def propose(s: Plain, sender: bytes, body: Propose, proposal: CID) -> Iterator[Code | Does]:
    stake = s.providers.get(sender, {"stake": 0})["stake"]
    if sender not in s.providers:
        yield Code.NOT_REGISTERED
    if any(each["status"] == "open" and each["proposer"] == sender for each in s.proposals.values()):
        yield Code.TOO_MANY_PROPOSALS
    if not body.changes and not body.rules and not body.validators:
        yield Code.INVALID_TERMS
    if not validators.may_grant(s, dict(body.validators)):
        yield Code.INVALID_TERMS
    if changed(s.params, dict(body.changes)) is None or 0 < body.rules <= s.rules:
        yield Code.INVALID_TERMS
    if sum(each["status"] == "open" for each in s.proposals.values()) >= limits.MAX_OPEN_PROPOSALS:
        yield Code.TOO_MANY_PROPOSALS
    if not stake or stake < s.params.min_stake:
        yield Code.NO_STAKE
    deposit = s.params.proposal_deposit
    if deposit > s.balance(sender):
        yield Code.INSUFFICIENT_FUNDS

    def do() -> None:
        s.proposed += 1
        s.give(sender, -deposit)
        stakes = {each: record["stake"] for each, record in s.providers.items()}
        closes_at = s.time + s.params.vote_s
        s.stakes[proposal], s.votes[proposal] = stakes, {}
        s.providers[sender]["proposed"] = s.proposed
        bind(s, sender, closes_at)
        s.proposals[proposal] = {
            "proposer": sender,
            "number": s.proposed,
            "changes": dict(body.changes),
            "rules": body.rules,
            "validators": dict(body.validators),
            "note": body.note,
            "deposit": deposit,
            "opened_at": s.time,
            "closes_at": closes_at,
            "activates_at": closes_at + s.params.timelock_s,
            "total": sum(stakes.values()),
            "yes": 0,
            "no": 0,
            "status": "open",
        }
        s.alarms.add((closes_at, PROPOSAL, bytes(proposal)))
        s.emit("proposed", proposal=proposal, provider=sender, number=s.proposed, closes_at=closes_at)

    yield do


def vote(s: Plain, sender: bytes, body: Vote, _: CID) -> Iterator[Code | Does]:
    if sender not in s.providers:
        yield Code.NOT_REGISTERED
    record = s.proposals.get(body.proposal)
    if record is None:
        yield Code.UNKNOWN_PROPOSAL
        return
    if record["status"] != "open" or s.time >= record["closes_at"]:
        yield Code.VOTE_CLOSED
    if sender in s.votes[body.proposal]:
        yield Code.ALREADY_VOTED
    weight = s.stakes[body.proposal].get(sender, 0)
    if not weight:
        yield Code.NO_STAKE

    def do() -> None:
        s.votes[body.proposal][sender] = {"approve": body.approve, "weight": weight}
        record["yes" if body.approve else "no"] += weight
        bind(s, sender, record["closes_at"])
        s.emit("voted", proposal=body.proposal, provider=sender, approve=body.approve, weight=weight)

    yield do


def bind(s: Plain, provider: bytes, closes_at: int) -> None:
    """Who takes part in a vote withdraws nothing until it ends."""
    s.providers[provider]["bound_until"] = max(s.providers[provider]["bound_until"], closes_at)


def proposal_due(s: Plain, proposal: CID) -> None:
    """A vote ends, what was agreed comes into force, or a proposal is forgotten."""
    record = s.proposals[proposal]
    if record["status"] == "open":
        close_vote(s, proposal, record)
    elif record["status"] == "passed":
        activate(s, proposal, record)
    else:
        forget_proposal(s, proposal)


def close_vote(s: Plain, proposal: CID, record: Map) -> None:
    yes, cast = record["yes"], record["yes"] + record["no"]
    record["total"] = min(record["total"], s.totals()["collateral"])
    if 3 * cast < record["total"]:
        s.burned += record["deposit"]
        finish(s, proposal, "no_quorum")
    else:
        s.give(record["proposer"], record["deposit"])
        if 3 * yes >= 2 * cast:
            record["status"] = "passed"
            s.alarms.add((record["activates_at"], PROPOSAL, bytes(proposal)))
            s.emit("proposal_closed", proposal=proposal, status="passed")
        else:
            finish(s, proposal, "rejected")
    record["deposit"] = 0


def finish(s: Plain, proposal: CID, status: str) -> None:
    s.proposals[proposal]["status"] = status
    kept_s = s.params.retention_periods * s.params.period_s
    s.alarms.add((s.time + kept_s, PROPOSAL, bytes(proposal)))
    s.emit("proposal_closed", proposal=proposal, status=status)


def activate(s: Plain, proposal: CID, record: Map) -> None:
    params = changed(s.versions[s.next_version], record["changes"])
    powers = validators.still(s, record["validators"])
    fits = validators.may_grant(s, powers)
    if params is None or 0 < record["rules"] <= s.rules or not fits:
        finish(s, proposal, "void")
        return
    finish(s, proposal, "active")
    if record["changes"]:
        s.next_version += 1
        s.versions[s.next_version] = params
        s.emit("params_changed", proposal=proposal, version=s.next_version)
    if record["rules"]:
        s.rules = record["rules"]
        s.emit("rules_changed", proposal=proposal, rules=s.rules)
    validators.grant(s, powers)


def forget_proposal(s: Plain, proposal: CID) -> None:
    """The votes first, each a piece of the block's work; then the proposal."""
    for voter in sorted(s.votes[proposal])[: max(0, s.budget)]:
        s.budget -= 1
        del s.votes[proposal][voter]
    if s.votes[proposal]:
        s.alarms.add((s.time, PROPOSAL, bytes(proposal)))
        return
    del s.votes[proposal], s.stakes[proposal], s.proposals[proposal]
