"""The forms of the transactions by which an account registers keys that it validates with, and resigns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Protocol

from ledger.fields import Digest, Wire, blob
from merkledag.ed25519 import Signer

POSSESSION_TAG = b"holdfast/validator-key/1\x00"


@dataclass(frozen=True, slots=True)
class RegisterValidator(Wire):
    """Binds both keys of a validator to the sender's account, or puts others in their place.

    `consensus_key` is the Ed25519 key that CometBFT signs with, `bls_key` the one for the sender's beacons.
    Each has signed `possession_message`, so that nobody registers what is another's.
    """

    kind: ClassVar[str] = "register_validator"
    consensus_key: Digest
    consensus_possession: Annotated[bytes, blob(64, 64)]
    bls_key: Annotated[bytes, blob(48, 48)]
    bls_possession: Annotated[bytes, blob(96, 96)]


@dataclass(frozen=True, slots=True)
class Resign(Wire):
    """The sender validates no more; what it registered is forgotten when it need not answer for anything."""

    kind: ClassVar[str] = "resign"


class KeySigner(Protocol):
    """A BLS key, as `proofs.bls.signatures.BlsSigner` has one."""

    @property
    def public_key(self) -> bytes: ...

    def sign(self, message: bytes, /) -> bytes: ...


def possession_message(chain: str, account: bytes, key: bytes) -> bytes:
    """What a key signs to show that its holder lets an account use it on one chain."""
    return POSSESSION_TAG + bytes([len(chain)]) + chain.encode() + account + key


def register_validator(chain: str, account: bytes, consensus: Signer, bls: KeySigner) -> RegisterValidator:
    """The transaction that binds these keys to an account."""
    return RegisterValidator(
        consensus_key=consensus.public_key,
        consensus_possession=consensus.sign(possession_message(chain, account, consensus.public_key)),
        bls_key=bls.public_key,
        bls_possession=bls.sign(possession_message(chain, account, bls.public_key)),
    )
