"""Governance: providers vote by stake on parameters, rules, validators; what passes waits for a time lock.

open ──closes_at──► passed ──activates_at──► active, or void if it does not fit what is in force by then
                ├─► rejected                 (fewer than two thirds of the votes for it)
                └─► no_quorum                (less than a third of all stake voted: the deposit is burned)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from itertools import islice

from ledger import due, keys, limits, money, rules_validators, stakes
from ledger.context import Context
from ledger.errors import Refusal
from ledger.fields import FieldError
from ledger.genesis import Params
from ledger.records import ProviderRecord
from ledger.records_governance import ProposalRecord, ProposalStatus, VoteRecord
from ledger.result import Code
from ledger.transactions import Propose, Vote
from merkledag.cid import CID

KNOWN_RULES = frozenset({1})  # the versions of the rules that this program has


def merged(params: Params, changes: Mapping[str, int]) -> Params:
    """The parameters with some changed; raises FieldError for an unknown name or value out of bounds."""
    known = params.to_map()
    unknown = sorted(changes.keys() - known.keys())
    if unknown:
        raise FieldError(f"{unknown[0]}: no such parameter")
    return Params.from_map({**known, **changes}).check()


def propose(ctx: Context, sender: bytes, body: Propose, proposal: CID) -> None:
    """Opens a vote on parameters, rules or validators; the deposit comes back if enough people vote."""
    provider = ctx.need_provider(sender)
    if not (body.changes or body.rules or body.validators):
        raise Refusal(Code.INVALID_TERMS, "changes: name a parameter, a version of the rules, or a validator")
    if body.rules and body.rules <= ctx.chain.rules:
        raise Refusal(Code.INVALID_TERMS, f"rules: version {ctx.chain.rules} is in force")
    try:
        merged(ctx.params, body.changes)
    except FieldError as error:
        raise Refusal(Code.INVALID_TERMS, f"changes: {error}") from None
    try:
        rules_validators.check_powers(ctx.state, body.validators)
    except FieldError as error:
        raise Refusal(Code.INVALID_TERMS, f"validators: {error}") from None
    if ctx.state.get(keys.open_proposal(provider.proposed)) is not None:
        raise Refusal(Code.TOO_MANY_PROPOSALS, f"proposal {provider.proposed} of this provider is open")
    if len(list(ctx.state.scan(keys.OPEN))) >= limits.MAX_OPEN_PROPOSALS:
        raise Refusal(Code.TOO_MANY_PROPOSALS, f"{limits.MAX_OPEN_PROPOSALS} proposals are open")
    least = max(1, ctx.params.min_stake)
    if provider.stake < least:
        raise Refusal(Code.NO_STAKE, f"to propose takes a stake of {least} units")
    number = ctx.chain.proposals + 1
    ctx.chain = replace(ctx.chain, proposals=number)
    closes_at = ctx.time + ctx.params.vote_s
    record = ProposalRecord(
        proposer=sender,
        number=number,
        changes=body.changes,
        rules=body.rules,
        validators=body.validators,
        note=body.note,
        deposit=0,
        opened_at=ctx.time,
        closes_at=closes_at,
        activates_at=closes_at + ctx.params.timelock_s,
        total=ctx.totals.collateral,
        yes=0,
        no=0,
        status=ProposalStatus.OPEN,
    )
    ctx.state.put(keys.proposal(proposal), record)
    ctx.state.put(keys.open_proposal(number), bytes(proposal))
    ctx.put_provider(replace(_bound(provider, record), proposed=number))
    ctx.move(money.balance(sender), money.proposal_deposit(proposal), ctx.params.proposal_deposit)
    due.add(ctx.state, closes_at, due.What.PROPOSAL, bytes(proposal))
    ctx.emit("proposed", proposal=proposal, provider=sender, number=number, closes_at=closes_at)


def vote(ctx: Context, sender: bytes, body: Vote) -> None:
    """Counts a provider's whole stake, the least since the vote began, once; it stays until the vote ends."""
    provider = ctx.need_provider(sender)
    record = ctx.state.record(keys.proposal(body.proposal), ProposalRecord)
    if record is None:
        raise Refusal(Code.UNKNOWN_PROPOSAL, f"no proposal {body.proposal}")
    if record.status is not ProposalStatus.OPEN or ctx.time >= record.closes_at:
        raise Refusal(Code.VOTE_CLOSED, f"the vote ended at {record.closes_at}")
    key = keys.vote(body.proposal, sender)
    if ctx.state.record(key, VoteRecord) is not None:
        raise Refusal(Code.ALREADY_VOTED, "a vote can not be changed")
    weight = stakes.least_since(ctx.state, sender, record.number)
    if weight == 0:
        raise Refusal(Code.NO_STAKE, "the provider had no stake at some time since the vote began")
    ctx.put_provider(_bound(provider, record))
    ctx.state.put(key, VoteRecord(body.approve, weight))
    if body.approve:
        record = replace(record, yes=record.yes + weight)
    else:
        record = replace(record, no=record.no + weight)
    ctx.state.put(keys.proposal(body.proposal), record)
    ctx.emit("voted", proposal=body.proposal, provider=sender, approve=body.approve, weight=weight)


def _bound(provider: ProviderRecord, record: ProposalRecord) -> ProviderRecord:
    """The provider, which keeps its stake until the vote that it takes part in has ended."""
    return replace(provider, bound_until=max(provider.bound_until, record.closes_at))


def on_due(ctx: Context, subject: bytes) -> None:
    """Ends a vote, brings what was agreed into force, or forgets a proposal that is long over."""
    proposal = CID.decode(subject)
    record = ctx.state.record(keys.proposal(proposal), ProposalRecord)
    assert record is not None, "a proposal is dropped by its last due item"
    if record.status is ProposalStatus.OPEN:
        _close(ctx, proposal, record)
    elif record.status is ProposalStatus.PASSED:
        _activate(ctx, proposal, record)
    else:
        _forget(ctx, proposal)


def _close(ctx: Context, proposal: CID, record: ProposalRecord) -> None:
    votes = record.yes + record.no
    record = replace(record, total=min(record.total, ctx.totals.collateral))
    if 3 * votes < record.total:
        status = ProposalStatus.NO_QUORUM
    elif 3 * record.yes >= 2 * votes:
        status = ProposalStatus.PASSED
    else:
        status = ProposalStatus.REJECTED
    ctx.state.delete(keys.open_proposal(record.number))
    ctx.state.put(keys.proposal(proposal), replace(record, status=status))
    kept = status is not ProposalStatus.NO_QUORUM
    target = money.balance(record.proposer) if kept else money.BURNED
    ctx.move(money.proposal_deposit(proposal), target, record.deposit)
    _tell_closed(ctx, proposal, status)
    if status is ProposalStatus.PASSED:
        due.add(ctx.state, record.activates_at, due.What.PROPOSAL, bytes(proposal))
    else:
        _forget_later(ctx, proposal)


def _activate(ctx: Context, proposal: CID, record: ProposalRecord) -> None:
    """From the next block on it is in force; deals keep the terms they have, power moves step by step."""
    version = ctx.chain.params_version
    powers = rules_validators.without_resigned(ctx.state, record.validators)
    try:
        changed = merged(ctx.terms(version), record.changes)
        rules_validators.check_powers(ctx.state, powers)
        fits = not record.rules or record.rules > ctx.chain.rules
    except FieldError:  # with what other proposals changed meanwhile
        fits = False
    status = ProposalStatus.ACTIVE if fits else ProposalStatus.VOID
    ctx.state.put(keys.proposal(proposal), replace(record, status=status))
    _tell_closed(ctx, proposal, status)
    _forget_later(ctx, proposal)
    if not fits:
        return
    if record.changes:
        ctx.state.put(keys.params(version + 1), changed)
        ctx.chain = replace(ctx.chain, params_version=version + 1)
        ctx.emit("params_changed", proposal=proposal, version=version + 1)
    if record.rules:
        ctx.chain = replace(ctx.chain, rules=record.rules)
        ctx.emit("rules_changed", proposal=proposal, rules=record.rules)
    rules_validators.grant(ctx, powers)


def _tell_closed(ctx: Context, proposal: CID, status: ProposalStatus) -> None:
    ctx.emit("proposal_closed", proposal=proposal, status=status.value)


def _forget_later(ctx: Context, proposal: CID) -> None:
    kept_s = ctx.params.retention_periods * ctx.params.period_s
    due.add(ctx.state, ctx.time + kept_s, due.What.PROPOSAL, bytes(proposal))


def _forget(ctx: Context, proposal: CID) -> None:
    """Drops the votes, as many as the block's budget allows, then the proposal."""
    votes = list(islice(ctx.state.scan(keys.VOTE + bytes(proposal)), max(0, ctx.budget)))
    for key in votes:
        ctx.budget -= 1
        ctx.state.delete(key)
    if ctx.state.first(keys.VOTE + bytes(proposal)) is None:
        ctx.state.delete(keys.proposal(proposal))
    else:
        due.add(ctx.state, ctx.time, due.What.PROPOSAL, bytes(proposal))
