"""Validators: the keys they register and rotate, who is admitted, and what misbehaviour costs.

A key names one account at most, and is another's no sooner than CometBFT has forgotten it. What follows for
the power of each is in `rules_powers`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache

from ledger import due, keys, limits, money, seats
from ledger.context import Context
from ledger.errors import Refusal
from ledger.fields import FieldError
from ledger.forms_validators import RegisterValidator, possession_message
from ledger.records_validators import ConsensusKeyRecord, ValidatorRecord
from ledger.result import Code
from ledger.state import State
from merkledag import ed25519

KEY_PERIODS = 2  # from its registration on, before a BLS key counts
MAX_REMEMBERED_POSSESSIONS = 256


def find(state: State, account: bytes) -> ValidatorRecord | None:
    """What an account registered, if anything."""
    return state.record(keys.validator(account), ValidatorRecord)


def register(ctx: Context, sender: bytes, body: RegisterValidator) -> None:
    """Binds the sender's keys, or puts others in their place; power it has by governance alone."""
    ctx.validators_registered += 1
    if ctx.validators_registered > limits.MAX_REGISTRATIONS_PER_BLOCK:
        most = limits.MAX_REGISTRATIONS_PER_BLOCK
        raise Refusal(Code.BLOCK_FULL, f"a block takes {most} registrations of validators; send it again")
    check_registration(ctx, sender, body)
    record = find(ctx.state, sender)
    if record is None:
        record = ValidatorRecord(body.consensus_key)
        ctx.state.put(keys.validator(sender), record)
        _bind(ctx, sender, body.consensus_key)
        ctx.move(money.balance(sender), money.validator_deposit(sender), ctx.params.deposit)
        record = replace(record, deposit=ctx.params.deposit)
    if body.consensus_key != wanted_key(record):
        record = _rotate_consensus(ctx, sender, record, body.consensus_key)
    if body.bls_key != wanted_bls(record):
        record = _rotate_bls(ctx, sender, record, body.bls_key)
    ctx.state.put(keys.validator(sender), record)
    seats.touch(ctx.state, sender)
    ctx.emit(
        "validator_registered",
        validator=sender,
        consensus_key=body.consensus_key,
        bls_key=body.bls_key,
        counts_from=record.next_from if record.next_bls_key else ctx.time,
    )


def check_registration(ctx: Context, sender: bytes, body: RegisterValidator, *, is_new: bool = True) -> None:
    """Refuses keys that are not the sender's to bind; cheap checks first, for two signatures are verified.

    These not of one that is not new: they were, and depend on nothing that changes.
    """
    record = find(ctx.state, sender)
    if not ed25519.is_usable_key(body.consensus_key):
        raise Refusal(Code.INVALID_TERMS, "consensus_key: not a key that anyone can sign with")
    bound = ctx.state.record(keys.consensus(keys.address(body.consensus_key)), ConsensusKeyRecord)
    if bound is not None and (record is None or body.consensus_key != wanted_key(record)):
        raise Refusal(Code.KEY_TAKEN, "consensus_key: another account's, or one that was used before")
    known = record is not None and body.bls_key in (record.bls_key, record.next_bls_key)
    if not known and ctx.state.get(keys.beacon_key(body.bls_key)) is not None:
        raise Refusal(Code.KEY_TAKEN, "bls_key: another account's, or one that was used before")
    if is_new and not possesses(ctx.chain_id, sender, body):
        raise Refusal(Code.INVALID_POSSESSION, "a key did not sign that this account may use it")
    if record is None:
        return
    rotates = body.consensus_key != wanted_key(record)
    if rotates and not record.next_consensus_key and record.keys >= limits.MAX_CONSENSUS_KEYS:
        raise Refusal(Code.TOO_MANY_KEYS, f"{record.keys} consensus keys name the account; wait")
    if record.resigned:
        raise Refusal(Code.RESIGNED, "the account has resigned: it registers keys again once it is forgotten")
    if not rotates and body.bls_key == wanted_bls(record):
        raise Refusal(Code.NOTHING_TO_DO, "both keys are registered")


@lru_cache(MAX_REMEMBERED_POSSESSIONS)
def possesses(chain_id: str, account: bytes, body: RegisterValidator) -> bool:
    """Whether both keys have signed that the account may use them on this chain."""
    message = possession_message(chain_id, account, body.consensus_key)
    if not ed25519.verify(body.consensus_key, body.consensus_possession, message):
        return False
    from proofs.bls import signatures as bls  # loads a pairing library, which few runs need

    return bls.verify(body.bls_key, possession_message(chain_id, account, body.bls_key), body.bls_possession)


def wanted_key(record: ValidatorRecord) -> bytes:
    """The consensus key that was registered last."""
    return record.next_consensus_key or record.consensus_key


def wanted_bls(record: ValidatorRecord) -> bytes:
    """The BLS key that was registered last."""
    return record.next_bls_key or record.bls_key


def _bind(ctx: Context, account: bytes, consensus_key: bytes) -> None:
    address = keys.address(consensus_key)
    ctx.state.put(keys.consensus(address), ConsensusKeyRecord(account, consensus_key))


def _rotate_consensus(ctx: Context, sender: bytes, record: ValidatorRecord, key: bytes) -> ValidatorRecord:
    """The engine is told at the end of a block; one that it does not know goes at once."""
    if record.next_consensus_key:  # that one was never told
        ctx.state.delete(keys.consensus(keys.address(record.next_consensus_key)))
        record = replace(record, keys=record.keys - 1)
    _bind(ctx, sender, key)
    record = replace(record, keys=record.keys + 1, next_consensus_key=key)
    return record if record.power else take_next_key(ctx, record)


def take_next_key(ctx: Context, record: ValidatorRecord) -> ValidatorRecord:
    """The next consensus key takes the place of the present one, which names the account for a while yet."""
    at = keys.consensus(keys.address(record.consensus_key))
    if not record.power and not record.left_at:  # no engine was ever told of it
        ctx.state.delete(at)
        record = replace(record, keys=record.keys - 1)
    else:
        old = ctx.state.record(at, ConsensusKeyRecord)
        assert old is not None, "the key in use is bound"
        forget_at = ctx.time + ctx.params.unbonding_s
        ctx.state.put(at, replace(old, left=ctx.height, forget_at=forget_at))
        due.add(ctx.state, forget_at, due.What.CONSENSUS_KEY, at[len(keys.CONSENSUS) :])
    return replace(record, consensus_key=record.next_consensus_key, next_consensus_key=b"")


def on_key_due(ctx: Context, address: bytes) -> None:
    """A consensus key that left long ago names nobody any more; an engine names it for some blocks yet."""
    bound = ctx.state.record(keys.consensus(address), ConsensusKeyRecord)
    assert bound is not None, "a key is forgotten once"
    if ctx.height < bound.left + limits.KEY_LEAVES_BLOCKS:
        due.add(ctx.state, ctx.time + 1, due.What.CONSENSUS_KEY, address)
        return
    record = find(ctx.state, bound.account)
    assert record is not None, "what an account registered is kept while a key names it"
    ctx.state.delete(keys.consensus(address))
    record = replace(record, keys=record.keys - 1)
    ctx.state.put(keys.validator(bound.account), record)
    if not record.keys:
        _forget(ctx, bound.account, record)


def _forget(ctx: Context, account: bytes, record: ValidatorRecord) -> None:
    """Who resigned is no validator any more: its BLS keys are anybody's, its deposit comes back."""
    if record.next_bls_key:
        due.remove(ctx.state, record.next_from, due.What.VALIDATOR, account)
    for key in filter(None, (record.bls_key, record.last_bls_key, record.next_bls_key)):
        ctx.state.delete(keys.beacon_key(key))
    ctx.move(money.validator_deposit(account), money.balance(account), record.deposit)
    ctx.state.delete(keys.validator(account))
    ctx.emit("validator_forgotten", validator=account, deposit=record.deposit)


def _rotate_bls(ctx: Context, sender: bytes, record: ValidatorRecord, key: bytes) -> ValidatorRecord:
    """A new key counts two periods later, so that none is chosen for what it would draw."""
    if record.next_bls_key:
        due.remove(ctx.state, record.next_from, due.What.VALIDATOR, sender)
        ctx.state.delete(keys.beacon_key(record.next_bls_key))
    if key == record.bls_key:  # the change is called off
        return replace(record, next_bls_key=b"", next_from=0)
    counts_from = ctx.time + KEY_PERIODS * ctx.params.period_s
    ctx.state.put(keys.beacon_key(key), sender)
    due.add(ctx.state, counts_from, due.What.VALIDATOR, sender)
    return replace(record, next_bls_key=key, next_from=counts_from)


def on_bls_due(ctx: Context, account: bytes) -> None:
    """The next BLS key counts: from the next block on beacons are signed with it."""
    record = find(ctx.state, account)
    assert record is not None, "what an account registered is kept"
    if record.last_bls_key:
        ctx.state.delete(keys.beacon_key(record.last_bls_key))
    record = replace(
        record, bls_key=record.next_bls_key, last_bls_key=record.bls_key, next_bls_key=b"", next_from=0
    )
    ctx.state.put(keys.validator(account), record)
    seats.touch(ctx.state, account)
    ctx.emit("beacon_key_counts", validator=account, bls_key=record.bls_key)


def check_powers(state: State, powers: Mapping[bytes, int]) -> None:
    """Raises FieldError unless governance may grant these powers: to whom is registered, and to somebody."""
    after = {account: 1 for account in seats.seated(state) if _granted(state, account)}
    for account, power in powers.items():
        record = find(state, account)
        if record is None:
            raise FieldError("an account that registered no keys")
        if record.resigned and power:
            raise FieldError("an account that has resigned")
        after[account] = power
    count = sum(power > 0 for power in after.values())
    if count > limits.MAX_VALIDATORS:
        raise FieldError(f"{count} would validate; at most {limits.MAX_VALIDATORS}")
    if powers and not count:
        raise FieldError("nobody would be left to validate")


def without_resigned(state: State, powers: Mapping[bytes, int]) -> dict[bytes, int]:
    """What is left of a decision once some of those that it names have resigned."""
    found = {account: find(state, account) for account in powers}
    gone = {account for account, record in found.items() if record is None or record.resigned}
    return {account: power for account, power in powers.items() if account not in gone}


def _granted(state: State, account: bytes) -> int:
    record = find(state, account)
    return 0 if record is None else record.granted


def grant(ctx: Context, powers: Mapping[bytes, int]) -> None:
    """What governance agreed on: power for some, an end to that of others (0)."""
    for account, power in sorted(powers.items()):
        record = find(ctx.state, account)
        assert record is not None, "checked just now"
        record = replace(record, granted=power, jailed=record.jailed and not power)
        ctx.state.put(keys.validator(account), record)
        if power:
            ctx.state.put(keys.seated(account), b"")
        seats.touch(ctx.state, account)
        ctx.emit("validator_granted", validator=account, power=power)


def punish(ctx: Context, account: bytes) -> None:
    """There is evidence against a validator: it is out, and a share of its stake is burned; once."""
    record = find(ctx.state, account)
    if record is None or record.jailed or not _answers(ctx, record):
        return
    ctx.state.put(keys.validator(account), replace(record, granted=0, jailed=True))
    seats.touch(ctx.state, account)
    provider = ctx.find_provider(account)
    forfeited = 0 if provider is None else provider.stake * ctx.params.misbehaviour_percent // 100
    if forfeited:
        ctx.move(money.stake(account), money.BURNED, forfeited, "misbehaviour")
    ctx.emit("validator_jailed", validator=account, forfeited=forfeited)


def _answers(ctx: Context, record: ValidatorRecord) -> bool:
    """Whether it has power, or had some until lately: then its stake is still bound."""
    if record.granted or record.power:
        return True
    return bool(record.left_at) and ctx.time < record.left_at + ctx.params.unbonding_s
