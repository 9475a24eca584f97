"""The setup that is shipped is that of Ethereum's ceremony, whole, and fits together."""

from __future__ import annotations

import hashlib
import json

import pytest
from py_arkworks_bls12381 import GT, G1Point, G2Point, Scalar

from proofs.bls.points import compressed
from proofs.errors import DamagedSetup
from proofs.kzg.backend import backend
from proofs.kzg.setup import SETUP_SHA256, TAU_G2, Setup, ceremony_text
from tests.conftest import load_vectors
from tests.proofs.kzg.polynomials import SETUP_FILE, N, coefficients_of, scalar, values_of

# presets/mainnet/trusted_setups/trusted_setup_4096.json of ethereum/consensus-specs
CONSENSUS_SPECS_SHA256 = "f8e44a31ebf0a6d0734dcb301b0716e2c77f3ae18ed0cab0870fbcc2ca55616f"
# src/trusted_setup.txt of ethereum/c-kzg-4844
CKZG_SHA256 = "d39b9f2d047cc9dca2de58f264b6a09448ccd34db967881a6713eacacf0f26b7"


def test_the_file_of_the_consensus_specifications_follows_to_the_byte(setup: Setup) -> None:
    points = {
        "g1_monomial": list(setup.powers_g1()),
        "g1_lagrange": list(map(compressed, setup.lagrange())),
        "g2_monomial": list(setup.powers_g2()),
    }
    document = {name: ["0x" + point.hex() for point in each] for name, each in points.items()}

    digest = hashlib.sha256(json.dumps(document, indent=2).encode()).hexdigest()

    assert digest == CONSENSUS_SPECS_SHA256
    known = load_vectors("proofs")["kzg"]["setup"]
    assert f"begins {digest[:8]} and ends {digest[-4:]}" in known


def test_ckzgs_own_file_follows_to_the_byte(setup: Setup) -> None:
    assert hashlib.sha256(ceremony_text(setup).encode()).hexdigest() == CKZG_SHA256


def test_the_verifiers_constant_is_of_the_setup(setup: Setup) -> None:
    assert list(setup.powers_g2())[:2] == [bytes(G2Point().to_compressed_bytes()), TAU_G2]


@pytest.mark.parametrize("where", [0, 96 * N, 596_064 - 1])
def test_a_damaged_setup_is_refused(where: int) -> None:
    data = bytearray(SETUP_FILE.read_bytes())
    assert (len(data), hashlib.sha256(data).digest()) == (596_064, SETUP_SHA256)
    data[where] ^= 1
    for damaged in (bytes(data), bytes(data[:where]), b""):
        with pytest.raises(DamagedSetup, match="install Holdfast again"):
            Setup(damaged)


def test_a_known_commitment_in_powers_follows_from_either_form(setup: Setup) -> None:
    known = load_vectors("proofs")["kzg"]
    digests = [hashlib.sha256(i.to_bytes(4, "little")).digest() for i in range(16)]
    coefficients = [int.from_bytes(digest[:31], "little") for digest in digests]
    powers = [
        G1Point.from_compressed_bytes(point) for point, _ in zip(setup.powers_g1(), range(16), strict=False)
    ]

    in_powers = G1Point.multiexp_unchecked(powers, [Scalar(c) for c in coefficients])
    # X·p(X) opened at 0: the quotient is p itself, so the proof is p's commitment, from its values.
    _, on_domain = backend().open(setup, values_of([0, *coefficients]), 0)

    assert bytes(in_powers.to_compressed_bytes()).hex() == known["commitment"] == on_domain.hex()


@pytest.mark.slow
def test_every_point_is_in_its_subgroup_and_all_are_of_one_secret(setup: Setup) -> None:
    powers = [G1Point.from_compressed_bytes(point) for point in setup.powers_g1()]
    powers_g2 = [G2Point.from_compressed_bytes(point) for point in setup.powers_g2()]
    lagrange = [G1Point.from_xy_bytes_be(point) for point in setup.lagrange()]
    drawn = [Scalar(scalar(f"weight {i}")) for i in range(N)]

    # Each power is tau times the one before, in G1 and in G2: one random combination each.
    assert powers[0] == G1Point()
    assert powers_g2[0] == G2Point()
    lower = G1Point.multiexp_unchecked(powers[:-1], drawn[:-1])
    upper = G1Point.multiexp_unchecked(powers[1:], drawn[:-1])
    assert GT.pairing_check([lower, -upper], [powers_g2[1], G2Point()])
    lower_g2 = G2Point.multiexp_unchecked(powers_g2[:-1], drawn[:64])
    upper_g2 = G2Point.multiexp_unchecked(powers_g2[1:], drawn[:64])
    assert GT.pairing_check([powers[1], -G1Point()], [lower_g2, upper_g2])

    # The Lagrange points are the same powers in the other basis: a random polynomial has one commitment.
    natural = [scalar(f"value {i}") for i in range(N)]
    reversed_order = [natural[int(f"{i:012b}"[::-1], 2)] for i in range(N)]
    coefficients = [Scalar(c) for c in coefficients_of(reversed_order)]
    by_lagrange = G1Point.multiexp_unchecked(lagrange, [Scalar(value) for value in natural])
    assert by_lagrange == G1Point.multiexp_unchecked(powers, coefficients)
