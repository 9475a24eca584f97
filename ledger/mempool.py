"""What is known of transactions before a block has them: verified signatures, pending nonces."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass
from typing import NamedTuple

from ledger import limits, transactions
from ledger.errors import InvalidTransaction
from ledger.fees import least_fee
from ledger.forms_validators import RegisterValidator
from ledger.genesis import Params
from ledger.records import AccountRecord
from ledger.result import Code, TxResult
from ledger.transactions import Answer, Body, Prove, Transaction, is_proof
from merkledag.cid import CID
from merkledag.codecs import DAG_CBOR


@dataclass(slots=True)
class ReadTx:
    """A transaction that decoded from `size_bytes`; `signed` is None until its signature was checked."""

    tx: Transaction
    size_bytes: int
    tx_id: CID
    unsigned: bytes
    signed: bool | None = None

    def is_signed(self) -> bool:
        """Whether the account signed it."""
        if self.signed is None:
            self.signed = transactions.verify(self.tx, self.unsigned)
        return self.signed


class Reader:
    """Decodes transactions and verifies signatures once each; a bounded memory of those used latest.

    `verify_ahead` may run in other threads: it only leaves what it found for `read` or `is_verified` to pick
    up, which whoever calls it does soon.
    """

    def __init__(self, chain_id: str) -> None:
        self._chain_id = chain_id
        self._known: OrderedDict[bytes, ReadTx] = OrderedDict()
        self._size_bytes = 0
        self._ahead: dict[bytes, ReadTx] = {}

    def read(self, raw: bytes) -> ReadTx | TxResult:
        """The transaction, or why the bytes are none for this chain: the first result codes."""
        known = self._known.get(raw)
        if known is not None:
            self._known.move_to_end(raw)
            return known
        found = self._ahead.pop(raw, None) or self._decode(raw)
        if isinstance(found, ReadTx):
            self._remember(raw, found)
        return found

    def is_verified(self, raw: bytes) -> bool:
        """Whether it is known that the bytes are a transaction that its account signed."""
        found = self._known.get(raw)
        if found is None and raw in self._ahead:
            return isinstance(self.read(raw), ReadTx)
        return found is not None and found.signed is True

    def verify_ahead(self, raw: bytes) -> TxResult:
        """Whether the bytes are a transaction that its account signed."""
        known = self._known.get(raw)
        found = known or self._decode(raw)
        if isinstance(found, TxResult):
            return found
        if not found.is_signed():
            return TxResult(Code.BAD_SIGNATURE, "the signature does not verify", found.tx_id)
        if known is None:
            if len(self._ahead) >= limits.MAX_AHEAD_TXS:
                self._ahead.clear()
            self._ahead[raw] = found
        return TxResult(Code.OK, "", found.tx_id)

    def _decode(self, raw: bytes) -> ReadTx | TxResult:
        if len(raw) > limits.MAX_TX_BYTES:
            return TxResult(Code.TOO_LARGE, f"{len(raw)} bytes; at most {limits.MAX_TX_BYTES}")
        try:
            tx = transactions.decode(raw)
        except InvalidTransaction as error:
            if transactions.is_beacon(raw):
                return TxResult(Code.MISPLACED, "only a block's proposer makes a beacon transaction")
            return TxResult(Code.MALFORMED, str(error))
        unsigned = transactions.unsigned_of(raw, tx)
        tx_id = CID.of(unsigned, codec=DAG_CBOR)
        if tx.chain != self._chain_id:
            return TxResult(Code.WRONG_CHAIN, f"this chain is {self._chain_id}", tx_id)
        return ReadTx(tx, len(raw), tx_id, unsigned)

    def _remember(self, raw: bytes, found: ReadTx) -> None:
        self._known[raw] = found
        self._size_bytes += len(raw)
        while self._size_bytes > limits.MAX_REMEMBERED_BYTES or len(self._known) > limits.MAX_REMEMBERED_TXS:
            oldest, _ = self._known.popitem(last=False)
            self._size_bytes -= len(oldest)


def check_envelope(found: ReadTx, params: Params, time: int) -> TxResult | None:
    """Refuses what is expired, pays too little or is not signed; None if nothing is wrong."""
    tx = found.tx
    if time > tx.expiry:
        return TxResult(Code.EXPIRED, f"expired at {tx.expiry}; ledger time is {time}", found.tx_id)
    least = least_fee(tx, found.size_bytes, params)
    if tx.fee < least:
        return TxResult(Code.FEE_TOO_LOW, f"the fee is at least {least} units", found.tx_id)
    if not found.is_signed():
        return TxResult(Code.BAD_SIGNATURE, "the signature does not verify", found.tx_id)
    return None


def _proven_by(tx: Transaction) -> Hashable:
    """What a transaction is a proof for; None if it is no proof."""
    match tx.body:
        case Prove() as body:
            return tx.account, body.dataset
        case Answer() as body:
            return tx.account, body.deal, body.shard
    return None


def _takes_long(body: Body) -> bool:
    """Whether looking at it takes as long as at dozens of signatures."""
    return is_proof(body) or isinstance(body, RegisterValidator)


class _Waiting(NamedTuple):
    """One that waits. A key can sign a transaction in many ways: only one of them has the place.

    `since` is the height when it came, `seen` that when it was asked about last.
    """

    tx_id: CID
    sig: bytes
    fee: int
    size_bytes: int
    since: int
    seen: int

    def is_of(self, found: ReadTx) -> bool:
        """Whether it is this very transaction, with this signature."""
        return self.sig == found.tx.sig and self.tx_id == found.tx_id


class Pending:
    """Nonces of transactions that wait for a block: consecutive ones, a bounded number an account.

    Half of the places are kept for proofs, so that no flood of others makes a provider miss its window. Of
    the proofs for one window or spot challenge one waits at a time: each costs a verification, and one that
    fails costs its sender nothing. Whose proofs were invalid several times in a row waits for some blocks, so
    that few accounts do not take the time that a block has for verifying others'. Validators' keys, which
    show that their holder has them, wait in the same way. Of other transactions as many bytes wait as a block
    has for them, so that proofs behind all of them still come into that block.
    """

    def __init__(self) -> None:
        self._waiting: dict[bytes, OrderedDict[int, _Waiting]] = {}
        self._proofs: dict[CID, Hashable] = {}
        self._proven: set[Hashable] = set()
        self._registering: dict[bytes, CID] = {}
        self._count = 0
        self._other_bytes = 0
        self._invalid: OrderedDict[bytes, tuple[int, int]] = OrderedDict()  # how many in a row, last height

    def check(self, found: ReadTx, record: AccountRecord, height: int) -> TxResult | None:
        """Why a transaction may not wait at this height, or that it does; None if it may be added.

        Its nonce has to be the account's next one, and all pending fees covered.
        """
        tx = found.tx
        waiting = self._waiting.get(tx.account, OrderedDict())
        known = waiting.get(tx.nonce)
        if known is not None and known.is_of(found):
            waiting[tx.nonce] = known._replace(seen=height)
            return TxResult(Code.OK, "pending", found.tx_id)
        following = record.nonce
        while following in waiting:
            following += 1
        if tx.nonce < following:
            return TxResult(Code.NONCE_USED, f"the next nonce is {following}", found.tx_id)
        if tx.nonce > following:
            return TxResult(Code.NONCE_GAP, f"the next nonce is {following}", found.tx_id)
        if len(waiting) >= limits.MAX_PENDING_PER_ACCOUNT or not self._has_place(found):
            return TxResult(Code.POOL_FULL, "too many transactions are pending; send it again", found.tx_id)
        invalid, last = self._invalid.get(tx.account, (0, 0))
        until = last + limits.INVALID_PROOF_WAIT_BLOCKS
        if _takes_long(tx.body) and invalid >= limits.MAX_INVALID_PROOFS and height < until:
            why = f"{invalid} invalid proofs in a row; the next one is taken after block {until}"
            return TxResult(Code.POOL_FULL, why, found.tx_id)
        if sum(each.fee for each in waiting.values()) + tx.fee > record.balance:
            return TxResult(Code.FEE_NOT_COVERED, f"the balance is {record.balance} units", found.tx_id)
        return None

    def recheck(self, found: ReadTx, record: AccountRecord, height: int) -> TxResult | None:
        """Why one that waits, or did, may not do so at this height; None if it may.

        All of its account's between the next nonce and its own have to wait too, and all their fees covered.
        """
        tx = found.tx
        waiting = self._waiting.get(tx.account, OrderedDict())
        known = waiting.get(tx.nonce)
        if known is None or not known.is_of(found):
            refused = self.check(found, record, height)
            if refused is None:
                self.add(found, height)
            return refused
        if tx.nonce < record.nonce:
            return TxResult(Code.NONCE_USED, f"the next nonce is {record.nonce}", found.tx_id)
        fees = 0
        for nonce in range(record.nonce, tx.nonce + 1):
            if nonce not in waiting:
                return TxResult(Code.NONCE_GAP, f"the next nonce is {nonce}", found.tx_id)
            fees += waiting[nonce].fee
        if fees > record.balance:
            return TxResult(Code.FEE_NOT_COVERED, f"the balance is {record.balance} units", found.tx_id)
        waiting[tx.nonce] = known._replace(seen=height)
        return None

    def since(self, found: ReadTx, height: int) -> int:
        """The height at which a transaction that waits came; `height` if it does not."""
        known = self._waiting.get(found.tx.account, OrderedDict()).get(found.tx.nonce)
        return known.since if known is not None and known.is_of(found) else height

    def forget_unseen(self, height: int) -> None:
        """What nobody asked about at this height or later waits no more."""
        for account, waiting in list(self._waiting.items()):
            for nonce in [nonce for nonce, each in waiting.items() if each.seen < height]:
                self._drop(account, waiting, nonce)

    def add(self, found: ReadTx, height: int) -> None:
        """Notes a transaction that `check` has nothing against."""
        tx = found.tx
        proven = _proven_by(tx)
        if proven is not None:
            self._proofs[found.tx_id] = proven
            self._proven.add(proven)
        else:
            self._other_bytes += found.size_bytes
        if isinstance(tx.body, RegisterValidator):
            self._registering[tx.account] = found.tx_id
        noted = _Waiting(found.tx_id, tx.sig, tx.fee, found.size_bytes, since=height, seen=height)
        self._waiting.setdefault(tx.account, OrderedDict())[tx.nonce] = noted
        self._count += 1

    def _has_place(self, found: ReadTx) -> bool:
        others = self._count - len(self._proofs)
        if self._count >= limits.MAX_PENDING or _proven_by(found.tx) in self._proven:
            return False
        if isinstance(found.tx.body, RegisterValidator) and (
            found.tx.account in self._registering
            or len(self._registering) >= limits.MAX_PENDING_REGISTRATIONS
        ):
            return False
        size_bytes = self._other_bytes + found.size_bytes
        is_room = others < limits.MAX_PENDING // 2 and size_bytes <= limits.MAX_PENDING_OTHER_BYTES
        return is_room or is_proof(found.tx.body)

    def note_result(self, found: ReadTx, code: Code, height: int) -> None:
        """What became of a transaction in a block or in a proposal; if it failed it waits no more."""
        if code is not Code.OK:
            self.forget(found)
        if code in (Code.INVALID_PROOF, Code.INVALID_POSSESSION):
            count, _ = self._invalid.pop(found.tx.account, (0, 0))
            self._invalid[found.tx.account] = count + 1, height
            if len(self._invalid) > limits.MAX_REMEMBERED_ACCOUNTS:
                self._invalid.popitem(last=False)
        elif code is Code.OK and _takes_long(found.tx.body):
            self._invalid.pop(found.tx.account, None)

    def forget(self, found: ReadTx) -> None:
        """The transaction waits no more; its nonce is free."""
        waiting = self._waiting.get(found.tx.account)
        known = None if waiting is None else waiting.get(found.tx.nonce)
        if waiting is None or known is None or not known.is_of(found):
            return
        self._drop(found.tx.account, waiting, found.tx.nonce)

    def forget_below(self, account: bytes, nonce: int) -> None:
        """A block has used the account's nonces up to `nonce`."""
        waiting = self._waiting.get(account)
        for used in [number for number in waiting if number < nonce] if waiting else ():
            assert waiting is not None
            self._drop(account, waiting, used)

    def _drop(self, account: bytes, waiting: OrderedDict[int, _Waiting], nonce: int) -> None:
        dropped = waiting.pop(nonce)
        if dropped.tx_id in self._proofs:
            self._proven.discard(self._proofs.pop(dropped.tx_id))
        else:
            self._other_bytes -= dropped.size_bytes
        if self._registering.get(account) == dropped.tx_id:
            del self._registering[account]
        self._count -= 1
        if not waiting:
            del self._waiting[account]
