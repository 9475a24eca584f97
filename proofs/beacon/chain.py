"""The beacon: a chain of values that each block's proposer extends by one BLS signature.

R_h = SHA-256(tag ‖ R_{h−1} ‖ BLS(sk, message(h, R_{h−1}))). BLS signatures are unique, so a proposer can
withhold a value but not choose it (docs/proofs.md, "Beacon").
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from itertools import takewhile

from proofs import tags
from proofs.bls import signatures as bls
from proofs.challenge import MAX_CHAIN_ID_BYTES
from proofs.commitment import HASH_BYTES, MAX_SUM
from proofs.errors import InvalidBeacon

BATCH = 256  # signatures verified together: 0.1 MB of points, and one pairing each no longer counts


def message(chain_id: str, height: int, previous: bytes) -> bytes:
    """What the proposer of block `height` signs; `previous` is R_{h−1}, 32 bytes. Raises ValueError."""
    chain = chain_id.encode()
    if not 0 < len(chain) <= MAX_CHAIN_ID_BYTES or len(previous) != HASH_BYTES or not 0 <= height <= MAX_SUM:
        raise ValueError(f"no beacon message for height {height} of chain {chain_id[:80]!r}")
    return tags.BEACON_MESSAGE + len(chain).to_bytes(1, "big") + chain + height.to_bytes(8, "big") + previous


def next_value(previous: bytes, signature: bytes) -> bytes:
    """R_h, 32 bytes, from R_{h−1} and the proposer's signature (96 bytes, already verified)."""
    if len(previous) != HASH_BYTES or len(signature) != bls.SIGNATURE_BYTES:
        raise ValueError("a beacon value has 32 bytes and a signature 96")
    return hashlib.sha256(tags.BEACON_VALUE + previous + signature).digest()


def verify_step(public_key: bytes, chain_id: str, height: int, previous: bytes, signature: bytes) -> bytes:
    """R_h; raises InvalidBeacon unless `signature` is the proposer's over this height and previous value."""
    if not bls.verify(public_key, message(chain_id, height, previous), signature):
        raise InvalidBeacon(f"the beacon signature of block {height} does not verify")
    return next_value(previous, signature)


def values(previous: bytes, signatures: Iterable[bytes]) -> Iterator[bytes]:
    """R after each of the signatures (verified, of consecutive blocks), from the value before the first."""
    for signature in signatures:
        previous = next_value(previous, signature)
        yield previous


def verify_history(
    public_keys: Sequence[bytes],
    chain_id: str,
    first_height: int,
    previous: bytes,
    signatures: Sequence[bytes],
) -> tuple[bytes, ...]:
    """The values of consecutive blocks from `first_height` on, before the first whose signature is wrong.

    The same verdict as `verify_step` for one after the other: where fewer values come back than signatures
    went in, that of block `first_height` + number of values does not verify. `public_keys` are those of the
    proposers, one a block; `previous` is the value before. Raises ValueError for unequal lists, and as
    `message` does.
    """
    if len(public_keys) != len(signatures):
        raise ValueError(f"{len(public_keys)} keys for {len(signatures)} signatures")
    found: list[bytes] = []
    while len(found) < len(signatures):
        start = len(found)
        batch = signatures[start : start + BATCH]
        whole = list(takewhile(lambda signature: len(signature) == bls.SIGNATURE_BYTES, batch))
        before = (previous, *values(previous, whole))
        sound = bls.count_valid(
            [
                bls.Signed(
                    public_keys[start + index], message(chain_id, first_height + start + index, value), one
                )
                for index, (value, one) in enumerate(zip(before, whole, strict=False))
            ]
        )
        found += before[1 : 1 + sound]
        if sound < len(batch):
            break
        previous = before[-1]
    return tuple(found)
