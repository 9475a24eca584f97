"""Transactions: what people send to the ledger, as canonical, signed DAG-CBOR.

A transaction is the map {account, body, chain, expiry, fee, nonce, sig}; its body the map of one kind's
fields plus "kind". The signature (Ed25519) is over `SIGN_TAG` ‖ the map without "sig"; the ID is the CID of
that map, so a signature cannot change it. The beacon transaction {beacon, chain, height} is not signed: it
heads each block, put there by its proposer, and proves itself by its BLS signature.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, ClassVar, get_args

from ledger import limits
from ledger.errors import InvalidTransaction
from ledger.fields import (
    Account,
    Digest,
    FieldError,
    Flag,
    Link,
    Uint,
    Wire,
    accounts_to,
    blob,
    mapping,
    text,
    uint,
)

# Those that make or change a deal have modules of their own; here is where every form is imported from.
from ledger.forms_changes import DeclareFault as DeclareFault
from ledger.forms_changes import EndDeal as EndDeal
from ledger.forms_changes import GiveUp as GiveUp
from ledger.forms_changes import HandOver as HandOver
from ledger.forms_changes import Renew as Renew
from ledger.forms_changes import Stay as Stay
from ledger.forms_changes import TopUp as TopUp
from ledger.forms_deals import CreateDeal as CreateDeal
from ledger.forms_deals import PieceCommitment as PieceCommitment
from ledger.forms_validators import RegisterValidator as RegisterValidator
from ledger.forms_validators import Resign as Resign
from merkledag import dag_cbor, ed25519
from merkledag.cid import CID
from merkledag.codecs import DAG_CBOR
from merkledag.errors import MerkledagError

SIGN_TAG = b"holdfast/transaction/1\x00"
_SIX_KEYS = b"\xa6"  # the head of the map without "sig"
_THREE_KEYS = b"\xa3"  # the head of a beacon transaction
_FEE_AT = len(b"\xa7\x63fee")
_SIG_BYTES = len(b"\x63sig\x58\x40") + 64
CHAIN = text(limits.MAX_CHAIN_ID_CHARS)
ENDPOINT = text(limits.MAX_ENDPOINT_CHARS)
CHANGES = mapping(limits.MAX_PARAM_CHARS, uint(), limits.MAX_PARAMS)
POWERS = accounts_to(uint(0, limits.MAX_POWER), limits.MAX_VALIDATORS)


@dataclass(frozen=True, slots=True)
class Transfer(Wire):
    """Moves `amount` units to an account; a new account needs at least `params.account_minimum`."""

    kind: ClassVar[str] = "transfer"
    to: Account
    amount: Uint


@dataclass(frozen=True, slots=True)
class Register(Wire):
    """Makes the sender a provider, or updates it and adds `stake`; `payout` gets what it earns."""

    kind: ClassVar[str] = "register"
    endpoint: Annotated[str, ENDPOINT]
    capacity_bytes: Uint
    payout: Account
    stake: Uint


@dataclass(frozen=True, slots=True)
class Ask(Wire):
    """What the provider takes: price in units a GiB a period, limits in bytes, `open` for new shards."""

    kind: ClassVar[str] = "ask"
    price_per_gib_period: Uint
    min_piece_bytes: Uint
    max_piece_bytes: Uint
    open: Flag


@dataclass(frozen=True, slots=True)
class Withdraw(Wire):
    """Takes `amount` of the sender's unlocked stake out, to its payout account."""

    kind: ClassVar[str] = "withdraw"
    amount: Uint


@dataclass(frozen=True, slots=True)
class Accept(Wire):
    """The assigned provider received and checked the shard's piece; locks collateral."""

    kind: ClassVar[str] = "accept"
    deal: Link
    shard: Uint


@dataclass(frozen=True, slots=True)
class Prove(Wire):
    """The provider's proof for the open window of a dataset's period."""

    kind: ClassVar[str] = "prove"
    dataset: Digest
    period: Uint
    proof: Annotated[bytes, blob(1, limits.MAX_PROOF_BYTES)]


@dataclass(frozen=True, slots=True)
class Settle(Wire):
    """Pays the shard's proven, unpaid periods to its provider's payout account; anyone may send it."""

    kind: ClassVar[str] = "settle"
    deal: Link
    shard: Uint


@dataclass(frozen=True, slots=True)
class Propose(Wire):
    """Puts to the providers' vote new values of parameters, a version of the rules (0: none), or validators.

    `validators` is the power of each that is to change, 0 for who is to go.
    """

    kind: ClassVar[str] = "propose"
    changes: Annotated[Mapping[str, int], CHANGES]
    rules: Annotated[int, uint(0, limits.MAX_RULES)]
    note: Annotated[str, text(limits.MAX_NOTE_CHARS)]
    validators: Annotated[Mapping[bytes, int], POWERS] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Vote(Wire):
    """A provider's vote on a proposal, with its whole stake."""

    kind: ClassVar[str] = "vote"
    proposal: Link
    approve: Flag


@dataclass(frozen=True, slots=True)
class Spot(Wire):
    """Asks the shard's provider for a proof at once; anyone may, and prepays the fee of the answer."""

    kind: ClassVar[str] = "spot"
    deal: Link
    shard: Uint


@dataclass(frozen=True, slots=True)
class Answer(Wire):
    """The provider's proof for a spot challenge: of the one shard, as a dataset that holds it alone."""

    kind: ClassVar[str] = "answer"
    deal: Link
    shard: Uint
    proof: Annotated[bytes, blob(1, limits.MAX_PROOF_BYTES)]


Body = (
    Transfer
    | Register
    | Ask
    | Withdraw
    | CreateDeal
    | Accept
    | Prove
    | Settle
    | Renew
    | EndDeal
    | TopUp
    | HandOver
    | GiveUp
    | Stay
    | DeclareFault
    | Propose
    | Vote
    | Spot
    | Answer
    | RegisterValidator
    | Resign
)
BODIES: dict[str, type[Body]] = {cls.kind: cls for cls in get_args(Body)}


def is_proof(body: Body) -> bool:
    """Whether it is the proof that a challenge asks for: half of every block is kept free for such."""
    return isinstance(body, Prove | Answer)


@dataclass(frozen=True, slots=True)
class Transaction:
    """One transaction. `expiry` is the last ledger time (seconds) at which it may enter a block."""

    chain: str
    account: bytes
    nonce: int
    fee: int
    expiry: int
    body: Body
    sig: bytes = b""

    def unsigned_map(self) -> dict[str, Any]:
        """The map without "sig"."""
        return {
            "chain": self.chain,
            "account": self.account,
            "nonce": self.nonce,
            "fee": self.fee,
            "expiry": self.expiry,
            "body": {"kind": self.body.kind, **self.body.to_map()},
        }

    def unsigned_bytes(self) -> bytes:
        """The canonical encoding without the signature: the block that the ID names."""
        return dag_cbor.encode(self.unsigned_map())

    @property
    def id(self) -> CID:
        """CIDv1 dag-cbor sha2-256 of `unsigned_bytes()`."""
        return CID.of(self.unsigned_bytes(), codec=DAG_CBOR)

    def encode(self) -> bytes:
        """The canonical bytes of the signed transaction."""
        return dag_cbor.encode({**self.unsigned_map(), "sig": self.sig})

    def to_json(self) -> dict[str, Any]:
        """For people and RPC: the ID and every field."""
        return {
            "id": str(self.id),
            **_Envelope(self.chain, self.account, self.nonce, self.fee, self.expiry, self.sig).to_json(),
            "body": {"kind": self.body.kind, **self.body.to_json()},
        }


@dataclass(frozen=True, slots=True)
class _Envelope(Wire):
    chain: Annotated[str, CHAIN]
    account: Account
    nonce: Uint
    fee: Uint
    expiry: Uint
    sig: Annotated[bytes, blob(64, 64)]


@dataclass(frozen=True, slots=True)
class Beacon(Wire):
    """The head of every block: its proposer's BLS signature over `proofs.beacon.chain.message`."""

    chain: Annotated[str, CHAIN]
    height: Uint
    beacon: Annotated[bytes, blob(96, 96)]

    def encode(self) -> bytes:
        """The canonical bytes."""
        return dag_cbor.encode(self.to_map())


def sign(tx: Transaction, signer: ed25519.Signer) -> Transaction:
    """The transaction with `signer`'s signature. ValueError if it is not the account's key."""
    if signer.public_key != tx.account:
        raise ValueError("the signer's key is not the transaction's account")
    return replace(tx, sig=signer.sign(SIGN_TAG + tx.unsigned_bytes()))


def verify(tx: Transaction, unsigned: bytes | None = None) -> bool:
    """Whether the account signed it; `unsigned` spares encoding it again."""
    return ed25519.verify(
        tx.account, tx.sig, SIGN_TAG + (tx.unsigned_bytes() if unsigned is None else unsigned)
    )


def decode(raw: bytes) -> Transaction:
    """The transaction of its canonical bytes; the signature is not verified.

    Raises InvalidTransaction for anything that does not encode back to `raw`, an unknown kind, a missing or
    extra key, a wrong type or a value out of range.
    """
    value = _decode_map(raw)
    body = value.pop("body", None)
    if not isinstance(body, dict):
        raise InvalidTransaction("no body")
    kind = body.pop("kind", None)
    cls = BODIES.get(kind) if isinstance(kind, str) else None
    if cls is None:
        raise InvalidTransaction(f"unknown kind of transaction: {str(kind)[:40]!r}")
    try:
        envelope = _Envelope.from_map(value)
        return Transaction(
            envelope.chain,
            envelope.account,
            envelope.nonce,
            envelope.fee,
            envelope.expiry,
            cls.from_map(body),
            envelope.sig,
        )
    except FieldError as error:
        raise InvalidTransaction(str(error)) from None


def unsigned_of(raw: bytes, tx: Transaction) -> bytes:
    """`tx.unsigned_bytes()`, cut out of the bytes that decoded to it: the first keys are "fee" and "sig"."""
    at = _FEE_AT + len(dag_cbor.encode(tx.fee))
    return _SIX_KEYS + raw[1:at] + raw[at + _SIG_BYTES :]


def is_beacon(raw: bytes) -> bool:
    """Whether the bytes decode as a beacon transaction."""
    if not raw.startswith(_THREE_KEYS):
        return False  # spares decoding long bytes once more
    try:
        decode_beacon(raw)
    except InvalidTransaction:
        return False
    return True


def decode_beacon(raw: bytes) -> Beacon:
    """The beacon transaction of its canonical bytes; raises InvalidTransaction."""
    try:
        return Beacon.from_map(_decode_map(raw))
    except FieldError as error:
        raise InvalidTransaction(str(error)) from None


def _decode_map(raw: bytes) -> dict[str, Any]:
    if len(raw) > limits.MAX_TX_BYTES:
        raise InvalidTransaction(f"{len(raw)} bytes; at most {limits.MAX_TX_BYTES}")
    try:
        value = dag_cbor.decode(raw, max_items=limits.MAX_TX_ITEMS)
    except MerkledagError as error:
        raise InvalidTransaction(str(error)) from None
    if not isinstance(value, dict):
        raise InvalidTransaction("not a map")
    return value
