"""The stable result codes of transactions.

A transaction that breaks several rules fails with the smallest of their numbers: checks run in this order.
Numbers never change their meaning; new ones are appended within their group.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ledger.events import Event
    from merkledag.cid import CID


class Code(IntEnum):
    """Why a transaction was refused; 0 is success. `explain(code)` has a sentence on each."""

    OK = 0
    # The envelope: decided without looking at the body's rule.
    MALFORMED = 1
    TOO_LARGE = 2
    MISPLACED = 3
    WRONG_CHAIN = 4
    EXPIRED = 5
    FEE_TOO_LOW = 6
    BAD_SIGNATURE = 7
    NONCE_USED = 8
    NONCE_GAP = 9
    POOL_FULL = 10
    FEE_NOT_COVERED = 11
    NOT_POSSIBLE = 12
    # Any body.
    BLOCK_FULL = 20
    AMOUNT_OUT_OF_RANGE = 21
    NOT_REGISTERED = 30
    INVALID_TERMS = 31
    PAYOUT_FIXED = 32
    PRICE_TOO_LOW = 33
    DUPLICATE_PROVIDER = 34
    TERMS_NOT_TAKEN = 35
    KEY_TAKEN = 36
    INVALID_POSSESSION = 37
    TOO_MANY_KEYS = 38
    RESIGNED = 39
    UNKNOWN_DEAL = 40
    UNKNOWN_SHARD = 41
    NOT_YOURS = 42
    NOT_OFFERED = 43
    OFFER_EXPIRED = 44
    NO_CAPACITY = 45
    DATASET_FULL = 46
    NOT_ACTIVE = 47
    HANDOVER_RUNS = 48
    NOTHING_TO_DO = 49
    UNKNOWN_DATASET = 50
    TOO_EARLY = 51
    TOO_LATE = 52
    ALREADY_PROVEN = 53
    INVALID_PROOF = 54
    SPOT_OPEN = 55
    NO_SPOT = 56
    NOTHING_DUE = 60
    TOO_MANY_PROPOSALS = 61
    UNKNOWN_PROPOSAL = 62
    VOTE_CLOSED = 63
    ALREADY_VOTED = 64
    NO_STAKE = 65
    LAST_VALIDATOR = 66
    STAKE_LOCKED = 70
    INSUFFICIENT_STAKE = 71
    INSUFFICIENT_FUNDS = 72


EXPLANATIONS: dict[Code, str] = {
    Code.OK: "done",
    Code.MALFORMED: "the bytes are not a canonical transaction of a known kind",
    Code.TOO_LARGE: "the transaction exceeds the size limit",
    Code.MISPLACED: "a beacon transaction belongs to the head of a block and nowhere else",
    Code.WRONG_CHAIN: "the transaction was made for another chain",
    Code.EXPIRED: "ledger time is past the transaction's expiry",
    Code.FEE_TOO_LOW: "the fee is below the minimum of this kind",
    Code.BAD_SIGNATURE: "the signature does not verify under the account's key",
    Code.NONCE_USED: "the account has already used this nonce, or another pending transaction has it",
    Code.NONCE_GAP: "an earlier nonce of the account is missing",
    Code.POOL_FULL: "too many transactions of the account, or in all, are pending",
    Code.FEE_NOT_COVERED: "the balance does not cover the fee and those of the pending transactions",
    Code.NOT_POSSIBLE: "the rules have a mistake that this transaction met; it had no effect",
    Code.BLOCK_FULL: "this block has taken all the transactions of this kind that it may",
    Code.AMOUNT_OUT_OF_RANGE: "the amount is zero, or too small: to open an account, or to outbid a bounty",
    Code.NOT_REGISTERED: "the account is not a registered provider",
    Code.INVALID_TERMS: "a term is outside its bounds",
    Code.PAYOUT_FIXED: "a payout account of its own right can not be replaced by the node's key",
    Code.PRICE_TOO_LOW: "the price does not cover the fees of serving a shard",
    Code.DUPLICATE_PROVIDER: "one account would hold two shards of a deal",
    Code.TERMS_NOT_TAKEN: "a named provider is closed, or asks for other sizes or a higher price",
    Code.KEY_TAKEN: "the key names another account, or was used before",
    Code.INVALID_POSSESSION: "a validator's key did not sign that the account may use it",
    Code.TOO_MANY_KEYS: "as many consensus keys as may be name the account; those rotated away go in time",
    Code.RESIGNED: "the account has resigned as a validator, and is not forgotten yet",
    Code.UNKNOWN_DEAL: "no such deal, or it is long over",
    Code.UNKNOWN_SHARD: "the deal has no shard of this number",
    Code.NOT_YOURS: "the shard or dataset belongs to another provider",
    Code.NOT_OFFERED: "the shard is not on offer",
    Code.OFFER_EXPIRED: "the time to accept the shard is over, or too little is left to serve a period",
    Code.NO_CAPACITY: "the provider has no room for the piece",
    Code.DATASET_FULL: "the dataset holds as many pieces as it may",
    Code.NOT_ACTIVE: "the shard is not active: nobody proves and is paid for it now",
    Code.HANDOVER_RUNS: "the shard is being handed over to another provider",
    Code.NOTHING_TO_DO: "what is asked for is so already",
    Code.UNKNOWN_DATASET: "no such dataset",
    Code.TOO_EARLY: "the proving window is not open",
    Code.TOO_LATE: "the proving window has closed",
    Code.ALREADY_PROVEN: "the period is already proven",
    Code.INVALID_PROOF: "the proof does not show the drawn leaves",
    Code.SPOT_OPEN: "a spot challenge of the shard is open",
    Code.NO_SPOT: "no spot challenge of the shard waits for an answer",
    Code.NOTHING_DUE: "no proven period is unpaid",
    Code.TOO_MANY_PROPOSALS: "a proposal of the account is open, or as many as may be in all",
    Code.UNKNOWN_PROPOSAL: "no such proposal, or it is long over",
    Code.VOTE_CLOSED: "the vote on the proposal is over",
    Code.ALREADY_VOTED: "the provider has voted on the proposal",
    Code.NO_STAKE: "the provider's stake is too small to propose, or was 0 at some time since the vote began",
    Code.LAST_VALIDATOR: "nobody else would be left to make blocks",
    Code.STAKE_LOCKED: "the stake asked for is locked as collateral, or bound by a vote or for a validator",
    Code.INSUFFICIENT_STAKE: "the unlocked stake does not cover what is asked of it",
    Code.INSUFFICIENT_FUNDS: "the balance does not cover the amount",
}


def explain(code: int) -> str:
    """A sentence on a result code; an unknown number is named as such."""
    try:
        return EXPLANATIONS[Code(code)]
    except ValueError:
        return f"unknown result code {code}"


@dataclass(frozen=True, slots=True)
class TxResult:
    """What became of a transaction: stable code, a line for people, its ID (None if it does not decode).

    `events` are what it did, where it was run in a block; nothing if it failed.
    """

    code: Code
    log: str = ""
    tx_id: CID | None = None
    events: tuple[Event, ...] = ()

    @property
    def ok(self) -> bool:
        """True if the transaction passed."""
        return self.code is Code.OK

    def to_json(self) -> dict[str, int | str | None]:
        """{"code": n, "name": …, "log": …, "tx": CID text or None}."""
        tx = None if self.tx_id is None else str(self.tx_id)
        return {"code": int(self.code), "name": self.code.name, "log": self.log, "tx": tx}
