"""Running one transaction: the envelope's checks, the fee, the rule of its kind; all of it or nothing."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from ledger import (
    keys,
    limits,
    money,
    rules_changes,
    rules_deals,
    rules_faults,
    rules_giving_up,
    rules_governance,
    rules_handover,
    rules_proofs,
    rules_providers,
    rules_resigning,
    rules_settlement,
    rules_spot,
    rules_transfers,
    rules_validators,
)
from ledger.context import Context
from ledger.errors import MISTAKES, Refusal
from ledger.mempool import Reader, ReadTx, check_envelope
from ledger.proof_checker import Claim, cost_of
from ledger.records import AccountRecord
from ledger.result import Code, TxResult
from ledger.transactions import (
    Accept,
    Answer,
    Ask,
    Body,
    CreateDeal,
    DeclareFault,
    EndDeal,
    GiveUp,
    HandOver,
    Propose,
    Prove,
    Register,
    RegisterValidator,
    Renew,
    Resign,
    Settle,
    Spot,
    Stay,
    TopUp,
    Transaction,
    Transfer,
    Vote,
    Withdraw,
)


def run(ctx: Context, raw: bytes, reader: Reader) -> TxResult:
    """Runs a transaction of a block. If it fails it leaves no trace: no fee, and its nonce stays free."""
    found = reader.read(raw)
    if isinstance(found, TxResult):
        return found
    refused = check_envelope(found, ctx.params, ctx.time)
    if refused is not None:
        return refused
    ctx.tx_id = found.tx_id
    before = len(ctx.events)
    try:
        with ctx.attempt():
            _charge(ctx, found)
            _dispatch(ctx, found)
    except Refusal as refusal:
        return TxResult(refusal.code, refusal.log, found.tx_id)
    except MISTAKES as error:
        return TxResult(Code.NOT_POSSIBLE, f"{type(error).__name__}: {error}", found.tx_id)
    return TxResult(Code.OK, "", found.tx_id, tuple(ctx.events[before:]))


def is_checked_early(body: Body) -> bool:
    """Whether `check_early` has something to say on such a transaction."""
    return isinstance(body, Prove | Answer | RegisterValidator)


def check_early(ctx: Context, found: ReadTx, *, is_new: bool = True) -> TxResult | None:
    """Refuses what would cost a block time: a proof that nothing waits for, keys that are not the sender's.

    What a proof shows is not looked at; what keys have signed is if `is_new`: it shows the same ever after.
    None for all else.
    """
    sender = found.tx.account
    try:
        match found.tx.body:
            case Prove() as body:
                rules_proofs.find_provable(ctx, sender, body)
            case Answer() as body:
                rules_spot.find_answerable(ctx, sender, body)
            case RegisterValidator() as body:
                rules_validators.check_registration(ctx, sender, body, is_new=is_new)
    except Refusal as refusal:
        return TxResult(refusal.code, refusal.log, found.tx_id)
    return None


def claims(ctx: Context, txs: Iterable[bytes], reader: Reader) -> Iterator[tuple[bytes, Claim]]:
    """Who claims what by the proofs among these transactions, as far as a block has time for them."""
    points = 0
    for raw in txs:
        found = reader.read(raw)
        if isinstance(found, TxResult):
            continue
        try:
            claim = _find_claim(ctx, found.tx)
        except Refusal:
            continue
        if claim is None:
            continue
        points += cost_of(claim[0])
        if points > limits.MAX_KZG_POINTS_PER_BLOCK:
            return
        yield found.tx.account, claim


def _find_claim(ctx: Context, tx: Transaction) -> Claim | None:
    match tx.body:
        case Prove() as body:
            return rules_proofs.find_claim(ctx, tx.account, body)
        case Answer() as body:
            return rules_spot.find_claim(ctx, tx.account, body)
    return None


def _charge(ctx: Context, found: ReadTx) -> None:
    """Uses the nonce and burns the fee."""
    tx = found.tx
    record = ctx.account(tx.account)
    if tx.nonce < record.nonce:
        raise Refusal(Code.NONCE_USED, f"the next nonce is {record.nonce}")
    if tx.nonce > record.nonce:
        raise Refusal(Code.NONCE_GAP, f"the next nonce is {record.nonce}")
    if tx.fee > record.balance:
        raise Refusal(Code.FEE_NOT_COVERED, f"the balance is {record.balance} units")
    ctx.state.put(keys.account(tx.account), AccountRecord(record.balance, record.nonce + 1))
    ctx.move(money.balance(tx.account), money.BURNED, tx.fee)


def _dispatch(ctx: Context, found: ReadTx) -> None:
    sender = found.tx.account
    match found.tx.body:
        case Transfer() as body:
            rules_transfers.transfer(ctx, sender, body)
        case Register() as body:
            rules_providers.register(ctx, sender, body)
        case Ask() as body:
            rules_providers.ask(ctx, sender, body)
        case Withdraw() as body:
            rules_providers.withdraw(ctx, sender, body)
        case CreateDeal() as body:
            rules_deals.create_deal(ctx, sender, body, found.tx_id)
        case Accept() as body:
            rules_deals.accept(ctx, sender, body)
        case Prove() as body:
            rules_proofs.prove(ctx, sender, body)
        case Settle() as body:
            rules_settlement.settle(ctx, body)
        case Renew() as body:
            rules_changes.renew(ctx, sender, body)
        case EndDeal() as body:
            rules_changes.end_deal(ctx, sender, body)
        case TopUp() as body:
            rules_changes.top_up(ctx, sender, body)
        case HandOver() as body:
            rules_handover.hand_over(ctx, sender, body)
        case GiveUp() as body:
            rules_giving_up.give_up(ctx, sender, body)
        case Stay() as body:
            rules_giving_up.stay(ctx, sender, body)
        case DeclareFault() as body:
            rules_faults.declare_fault(ctx, sender, body)
        case Propose() as body:
            rules_governance.propose(ctx, sender, body, found.tx_id)
        case Vote() as body:
            rules_governance.vote(ctx, sender, body)
        case Spot() as body:
            rules_spot.spot(ctx, sender, body)
        case Answer() as body:
            rules_spot.answer(ctx, sender, body)
        case RegisterValidator() as body:
            rules_validators.register(ctx, sender, body)
        case Resign() as body:
            rules_resigning.resign(ctx, sender, body)
