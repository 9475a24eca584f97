"""How much power each validator has: from what governance granted and from stake, changed step by step.

What a validator should have is 0 unless it was granted some, behaves, and has a BLS key that counts; else its
stake in whole HOLD, but no less than it was granted, and by stake no more than half of what all others were
granted: so stake alone brings nobody a third. Nobody's power is taken while nobody else would have any.

In one block at most a third of all power moves (at least one unit), so that whoever knows the validators of
a while ago can follow: what is taken first, then what is given. A validator that changes its consensus key
moves all its power; where that is more than a third, it does so in a block of its own.
"""

from __future__ import annotations

from dataclasses import replace

from ledger import keys, limits, rules_resigning, seats
from ledger.block_forms import ValidatorUpdate
from ledger.context import Context
from ledger.genesis import HOLD
from ledger.records_validators import ValidatorRecord
from ledger.rules_validators import find, take_next_key

Seats = dict[bytes, ValidatorRecord]


def settle(ctx: Context) -> tuple[ValidatorUpdate, ...]:
    """Moves power to where it should be, as far as one block may; returns what the engine has to be told."""
    marks = list(ctx.state.scan(keys.MOVING))
    if not marks:
        return ()
    for key in marks:
        ctx.state.delete(key)
    seated = _seated(ctx)
    targets = wanted(ctx, seated)
    if not any(targets.values()):
        targets = {account: record.power for account, record in seated.items()}
    before = _by_key(seated)
    total = sum(before.values())
    left = _swap_keys(ctx, seated, total)
    for account, step in _steps(seated, targets, total, left).items():
        record = replace(seated[account], power=seated[account].power + step)
        seated[account] = record if record.power else _leaves(ctx, account, record)
        ctx.emit("validator_power", validator=account, power=record.power)
    for account, record in seated.items():
        _keep(ctx, account, record, targets[account])
    after = _by_key(seated)
    told = {**dict.fromkeys(before, 0), **after}
    return tuple(ValidatorUpdate(key, told[key]) for key in sorted(told) if told[key] != before.get(key, 0))


def _by_key(seated: Seats) -> dict[bytes, int]:
    """What the engine knows, or will: a key without power is not among its validators."""
    return {record.consensus_key: record.power for record in seated.values() if record.power}


def _seated(ctx: Context) -> Seats:
    found = {account: find(ctx.state, account) for account in seats.seated(ctx.state)}
    return {account: record for account, record in found.items() if record is not None}


def wanted(ctx: Context, seated: Seats) -> dict[bytes, int]:
    """The power that each validator should have."""
    able = {account: record.granted for account, record in seated.items() if record.bls_key}
    granted = sum(able.values())
    powers = dict.fromkeys(seated, 0)
    for account, grant in able.items():
        if grant:
            provider = ctx.find_provider(account)
            stake = 0 if provider is None else provider.stake // HOLD
            powers[account] = min(limits.MAX_POWER, max(grant, min(stake, (granted - grant) // 2)))
    return powers


def _swap_keys(ctx: Context, seated: Seats, total: int) -> int:
    """Puts next consensus keys in the place of present ones; returns how much power may move beside."""
    budget = left = max(1, total // 3)
    for account, record in seated.items():
        if not record.next_consensus_key or (record.power > left and left < budget):
            continue
        left = max(0, left - record.power)
        seated[account] = take_next_key(ctx, record)
        ctx.emit("consensus_key_changed", validator=account, consensus_key=record.next_consensus_key)
    return left


def _steps(seated: Seats, targets: dict[bytes, int], total: int, left: int) -> dict[bytes, int]:
    """By how much each power moves now: first what is taken, then what is given, while `left` lasts."""
    steps: dict[bytes, int] = {}
    gaps = {account: targets[account] - record.power for account, record in seated.items()}
    for account, gap in gaps.items():
        step = min(-gap, left, total - 1) if gap < 0 else 0
        if step > 0:
            steps[account], left, total = -step, left - step, total - step
    for account, gap in gaps.items():
        step = min(gap, left)
        if step > 0:
            steps[account], left = step, left - step
    return steps


def _leaves(ctx: Context, account: bytes, record: ValidatorRecord) -> ValidatorRecord:
    """Its stake answers for it for a while yet."""
    provider = ctx.find_provider(account)
    if provider is not None:
        until = max(provider.bound_until, ctx.time + ctx.params.unbonding_s)
        ctx.put_provider(replace(provider, bound_until=until))
    record = replace(record, left_at=ctx.time)
    if record.resigned:
        rules_resigning.answer(ctx, account, record)
    return record


def _keep(ctx: Context, account: bytes, record: ValidatorRecord, target: int) -> None:
    ctx.state.put(keys.validator(account), record)
    if not record.granted and not record.power:
        ctx.state.delete(keys.seated(account))
    elif record.power != target or record.next_consensus_key:
        ctx.state.put(keys.moving(account), b"")
