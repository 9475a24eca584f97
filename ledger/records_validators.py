"""What the ledger keeps of validators: who makes blocks, by which keys, with how much power."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from ledger.fields import Account, Digest, DigestOrNone, Flag, Uint, optional_blob
from ledger.records import Record

BlsKeyOrNone = Annotated[bytes, optional_blob(48)]


@dataclass(frozen=True, slots=True)
class ValidatorRecord(Record):
    """An account that registered keys to validate with; see docs/ledger.md, "Validators".

    `consensus_key` (Ed25519) is the one that the engine knows, or would be told, `next_consensus_key` what
    takes its place in this or a later block (b"": none waits). `keys` is how many consensus keys name the
    account, those that were rotated away lately included. `bls_key` signs its beacons (b"" before its first
    key counts), `last_bls_key` is the one that did before; `next_bls_key` will from ledger time `next_from`
    on (b"": none waits). `granted` is the power that governance granted (0: it does not validate), `power`
    what the engine was told last. `jailed`: it misbehaved and waits for governance to grant it power anew.
    `left_at` is the ledger time at which it last had no power left (0: never). `resigned`: it wants no power
    any more, and is forgotten when there can be no evidence against it.
    """

    consensus_key: Digest
    next_consensus_key: DigestOrNone = b""
    keys: Uint = 1
    bls_key: BlsKeyOrNone = b""
    last_bls_key: BlsKeyOrNone = b""
    next_bls_key: BlsKeyOrNone = b""
    next_from: Uint = 0
    granted: Uint = 0
    power: Uint = 0
    jailed: Flag = False
    left_at: Uint = 0
    resigned: Flag = False
    deposit: Uint = 0


@dataclass(frozen=True, slots=True)
class ConsensusKeyRecord(Record):
    """Whose a consensus key is, or was until block `left` (0: it is in use); that goes at `forget_at`."""

    account: Account
    consensus_key: Digest
    left: Uint = 0
    forget_at: Uint = 0
