"""What a threshold signature of validators would cost: docs/beacon.md, "Plan: threshold signatures"."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any, NamedTuple

from py_arkworks_bls12381 import GT, G1Point, G2Point, Scalar

from proofs.bls.points import R
from proofs.bls.signatures import SIGN_DST

G1_BYTES, G2_BYTES, SCALAR_BYTES = 48, 96, 32
WEIGHT = 1 << 128


def scalar(number: int) -> Any:
    """A number as a scalar of the curve."""
    return Scalar.from_be_bytes((number % R).to_bytes(SCALAR_BYTES, "big"))


def at_zero(points: list[int]) -> list[int]:
    """Lagrange's coefficients: a polynomial's value at 0 from those at these points."""
    found = []
    for own in points:
        above = below = 1
        for other in points:
            if other != own:
                above, below = above * other % R, below * (other - own) % R
        found.append(above * pow(below, -1, R) % R)
    return found


class Group(NamedTuple):
    """Shares 1 … n of one key, of which `needed` make its signature, as a dealer that all trust made them."""

    needed: int
    secret: list[int]
    shares: dict[int, int]
    commitments: list[Any]

    @classmethod
    def make(cls, count: int, needed: int, seed: int) -> Group:
        """A group with random secrets, always the same for a seed."""
        rng = random.Random(seed)
        secret = [rng.randrange(1, R) for _ in range(needed)]
        shares = {x: sum(c * pow(x, i, R) for i, c in enumerate(secret)) % R for x in range(1, count + 1)}
        return cls(needed, secret, shares, [G1Point() * scalar(c) for c in secret])

    def share_key(self, number: int) -> Any:
        """The public key of a share, from the dealer's commitments alone."""
        powers = [scalar(pow(number, i, R)) for i in range(self.needed)]
        return G1Point.multiexp_unchecked(self.commitments, powers)

    def combine(self, signed: dict[int, Any]) -> Any:
        """The group's one signature, from as many of its shares' signatures as are needed."""
        numbers = sorted(signed)[: self.needed]
        factors = [scalar(each) for each in at_zero(numbers)]
        return G2Point.multiexp_unchecked([signed[number] for number in numbers], factors)


def holds(key: Any, hashed: Any, signature: Any) -> bool:
    """e(key, hashed) = e(generator, signature)."""
    return bool(GT.pairing_check([key, -G1Point()], [hashed, signature]))


def works(count: int) -> dict[str, Callable[[], object]]:
    """What a group of so many shares, two thirds of them needed, has to do, each ready to be timed."""
    group, rng = Group.make(count, 2 * count // 3 + 1, count), random.Random(count)
    hashed = G2Point.hash_to_curve(b"message", SIGN_DST)
    signed = {number: hashed * scalar(share) for number, share in group.shares.items()}
    keys = [group.share_key(number) for number in signed]
    signatures = list(signed.values())
    raw = bytes(signatures[0].to_compressed_bytes())
    weights = [scalar(rng.randrange(1, WEIGHT)) for _ in signed]
    commitments = [bytes(each.to_compressed_bytes()) for each in group.commitments]

    def verify_all() -> None:
        key, signature = (
            kind.multiexp_unchecked(points, weights)
            for kind, points in ((G1Point, keys), (G2Point, signatures))
        )
        assert holds(key, hashed, signature)

    def deal() -> None:
        Group.make(count, group.needed, 0)

    return {
        "sign a share": lambda: G2Point.hash_to_curve(b"message", SIGN_DST) * scalar(group.shares[1]),
        "verify a share": lambda: holds(keys[0], hashed, G2Point.from_compressed_bytes(raw)),
        "verify all shares together": verify_all,
        "combine": lambda: group.combine(signed),
        "verify what was combined": lambda: holds(group.commitments[0], hashed, group.combine(signed)),
        "deal": deal,
        "check one's share of a dealing": lambda: group.share_key(1),
        "read a dealing's commitments": lambda: [G1Point.from_compressed_bytes(each) for each in commitments],
    }


def dealing_bytes(count: int) -> int:
    """A dealing: commitments, a point for all recipients' secrets, and a share and its tag for each."""
    return (2 * count // 3 + 1) * G1_BYTES + G1_BYTES + count * (SCALAR_BYTES + 16)
