"""Blocks of the plain ledger: time, due work, draws, then one transaction after the other."""

from __future__ import annotations

from ledger import limits, transactions
from ledger.errors import InvalidTransaction
from ledger.result import Code
from ledger.transactions import Transaction
from merkledag.cid import CID
from proofs.beacon import chain as beacon
from tests.ledger.naive import governance, offers, periods, spots, validators
from tests.ledger.naive.kinds import KINDS
from tests.ledger.naive.state import Place, Plain


def run_block(
    s: Plain, block_time_s: int, txs: tuple[bytes, ...], misbehaviour: tuple[bytes, ...] = ()
) -> tuple[list[Code], dict[bytes, int]]:
    """One block whose beacon is right; returns the result codes, and what powers change by consensus key.

    `s.events` are this block's alone.
    """
    s.events = []
    s.version = s.next_version
    step = max(0, block_time_s - s.block_time)
    moved = min(step, s.params.max_step_s)
    if came_late(s, step):
        s.stalled_s += moved
    s.time += moved
    s.block_time += step
    s.height += 1
    s.beacon = beacon.next_value(s.beacon, transactions.decode_beacon(txs[0]).beacon)
    s.shards_changed = s.looked = s.spots_opened = s.kzg_points = s.registrations = 0
    for account in misbehaviour:
        validators.punish(s, account)
    for what in (
        periods.SEED,
        periods.DATASET,
        offers.OFFER,
        offers.FORGET,
        governance.PROPOSAL,
        spots.SEED,
        offers.SPOT,
        validators.BLS,
        validators.CONSENSUS,
        validators.RESIGNED,
    ):
        s.budget = limits.MAX_DUE_PER_BLOCK
        due_work(s, what)
    offers.draw_all(s)
    codes = [Code.OK, *(run_transaction(s, raw) for raw in txs[1:])]
    powers = validators.settle(s)
    offers.weigh(s)
    return codes, powers


def next_due(s: Plain) -> int | None:
    """The next due instant; now, if something waits to be drawn."""
    due = next_alarm(s)
    return s.time if s.put_up or s.seeds else None if due is None else max(s.time, due)


def next_alarm(s: Plain) -> int | None:
    return min((time for time, _, _ in s.alarms), default=None)


def came_late(s: Plain, step: int) -> bool:
    """Whether a block came a second or more after it was due, and more than one after the block before.

    With windows of 32 seconds and more it is a sixteenth of them, up to ten seconds.
    """
    due = next_alarm(s)
    if due is None:
        return False
    over = step - min(due - s.time, s.params.max_step_s)
    least = sorted((1, s.params.window_s // 16, 10))[1]
    return over >= least and step > least


def due_work(s: Plain, kind: int) -> None:
    """In rounds: all of a kind that is due now, earliest first; then what fell due by that; while it may."""
    waiting, now = (s.seeds, s.height) if kind in (periods.SEED, spots.SEED) else (s.alarms, s.time)
    while ready := sorted(alarm for alarm in waiting if alarm[0] <= now and alarm[1] == kind):
        for alarm in ready:
            if s.budget <= 0:
                return
            if alarm not in waiting:
                continue  # one before it has put an end to what it was for
            s.budget -= 1
            waiting.remove(alarm)
            _, what, whose = alarm
            if what == periods.SEED:
                periods.draw_seed(s, whose)
            elif what == periods.DATASET:
                periods.wake(s, whose)
            elif what == offers.OFFER:
                offers.round_over(s, place_of(whose))
            elif what == spots.SEED:
                spots.draw_seed(s, place_of(whose))
            elif what == offers.SPOT:
                spots.spot_due(s, place_of(whose))
            elif what == validators.BLS:
                validators.bls_counts(s, whose)
            elif what == validators.CONSENSUS:
                validators.forget_key(s, whose)
            elif what == validators.RESIGNED:
                validators.free(s, whose)
            elif what == offers.FORGET:
                forget(s, CID.decode(whose))
            else:
                governance.proposal_due(s, CID.decode(whose))


def place_of(subject: bytes) -> Place:
    return CID.decode(subject[:-2]), int.from_bytes(subject[-2:], "big")


def forget(s: Plain, deal: CID) -> None:
    for place in [place for place in s.shards if place[0] == deal]:
        s.budget -= 1
        del s.shards[place]
    del s.deals[deal]


def run_transaction(s: Plain, raw: bytes) -> Code:
    """The smallest of the codes that the transaction earns; OK, and its effects, if there is none."""
    if len(raw) > limits.MAX_TX_BYTES:
        return Code.TOO_LARGE
    try:
        tx = transactions.decode(raw)
    except InvalidTransaction:
        return Code.MISPLACED if transactions.is_beacon(raw) else Code.MALFORMED
    refused = envelope(s, tx, len(raw))
    if refused:
        return min(refused)
    account = s.accounts[tx.account]
    account["balance"] -= tx.fee  # what the rule may spend
    found = list(KINDS[tx.body.kind](s, tx.account, tx.body, tx.id))
    codes = [each for each in found if isinstance(each, Code)]
    if codes:
        account["balance"] += tx.fee
        return min(codes)
    account["nonce"] += 1
    s.burned += tx.fee
    for each in found:
        assert not isinstance(each, Code)
        each()
    return Code.OK


def envelope(s: Plain, tx: Transaction, size_bytes: int) -> set[Code]:
    account = s.accounts.get(tx.account, {"balance": 0, "nonce": 0})
    least = s.params.base_fee + s.params.fee_per_kib * ((size_bytes + 1023) // 1024)
    if tx.body.kind in ("prove", "answer"):
        least = s.params.proof_fee
    wrong = {
        Code.WRONG_CHAIN: tx.chain != s.genesis.chain_id,
        Code.EXPIRED: s.time > tx.expiry,
        Code.FEE_TOO_LOW: tx.fee < least,
        Code.BAD_SIGNATURE: not transactions.verify(tx),
        Code.NONCE_USED: tx.nonce < account["nonce"],
        Code.NONCE_GAP: tx.nonce > account["nonce"],
        Code.FEE_NOT_COVERED: tx.fee > account["balance"],
    }
    return {code for code, is_so in wrong.items() if is_so}
