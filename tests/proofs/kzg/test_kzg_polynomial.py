"""Blobs and arithmetic on values agree with plain coefficients."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proofs.bls import points
from proofs.kinds import ProofKind
from proofs.kzg import field, polynomial
from proofs.kzg.blobs import BLOB_BYTES, blobs_of, eip4844_blob, field_elements
from tests.proofs.kzg.polynomials import (
    OMEGA,
    N,
    R,
    coefficients_of,
    elements,
    horner,
    root,
    scalar,
    stream,
    values_of,
)

BLOB = stream(BLOB_BYTES)
VALUES = elements(BLOB)
COEFFICIENTS = coefficients_of(VALUES)


def test_the_numbers_are_those_of_eip_4844() -> None:
    # BLS_MODULUS; the roots are the powers of 7 ** ((r - 1) / 4096), in bit-reversed order.
    assert points.R == R
    assert pow(OMEGA, N // 2, R) == R - 1
    assert list(field.domain()) == [root(i) for i in range(N)]
    assert len(set(field.domain())) == N
    assert BLOB_BYTES == 126_976 == ProofKind.KZG.rules.unit_bytes


@pytest.mark.parametrize("length", [0, 1, 30, 31, 32, 62, 5000, BLOB_BYTES - 1, BLOB_BYTES])
def test_a_blob_is_elements_of_31_bytes_with_zeros_after_its_end(length: int) -> None:
    blob = BLOB[:length]

    assert field_elements(blob) == elements(blob)
    assert eip4844_blob(memoryview(blob)) == b"".join(e.to_bytes(32, "big") for e in elements(blob))


def test_a_longer_blob_is_refused() -> None:
    with pytest.raises(ValueError, match="at most 126976"):
        field_elements(bytes(BLOB_BYTES + 1))


@pytest.mark.parametrize("length", [0, 1, BLOB_BYTES, BLOB_BYTES + 1, 2 * BLOB_BYTES, 2 * 1024 * 1024])
def test_a_block_is_cut_into_blobs(length: int) -> None:
    block = bytes(length)

    blobs = [bytes(blob) for blob in blobs_of(block)]

    assert b"".join(blobs) == block
    assert len(blobs) == ProofKind.KZG.unit_count(length)
    assert {len(blob) for blob in blobs[:-1]} <= {BLOB_BYTES}


def test_the_tests_own_transform_goes_there_and_back() -> None:
    assert values_of(COEFFICIENTS) == VALUES
    assert values_of([5]) == [5] * N
    assert values_of([0, 1]) == list(field.domain())


Z = {
    "0": 0,
    "1": 1,
    "minus 1": R - 1,
    "drawn": scalar("z"),
    "root 1": root(1),
    "root 7": root(7),
}


@pytest.mark.parametrize("name", Z)
def test_evaluating_and_dividing_on_values_is_that_on_coefficients(name: str) -> None:
    z = Z[name]

    y, quotient = polynomial.divide(VALUES, z)

    assert y == horner(COEFFICIENTS, z)
    # Synthetic division by X - z, from the highest coefficient down; what remains is y.
    divided = [0] * N
    carried = 0
    for power in range(N - 1, 0, -1):
        carried = (COEFFICIENTS[power] + z * carried) % R
        divided[power - 1] = carried
    assert (COEFFICIENTS[0] + z * carried) % R == y
    assert quotient == values_of(divided)


@pytest.mark.parametrize("z", [0, root(3), scalar("z")])
def test_a_constant_has_a_quotient_of_zeros(z: int) -> None:
    assert polynomial.divide([9] * N, z) == (9, [0] * N)


@given(st.lists(st.tuples(st.binary(max_size=100), st.integers(0, R - 1)), max_size=6))
@settings(max_examples=12)
def test_a_combination_is_the_sum_of_multiples(parts: list[tuple[bytes, int]]) -> None:
    blobs = [blob for blob, _ in parts]
    scalars = [number for _, number in parts]

    combined = polynomial.combine(blobs, scalars)

    rows = [elements(blob)[:5] for blob in blobs]
    assert combined[:5] == [
        sum(s * row[i] for s, row in zip(scalars, rows, strict=True)) % R for i in range(5)
    ]
    assert not any(combined[5:])


def test_the_largest_elements_and_scalars_do_not_run_over_however_many(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    full = b"\xff" * BLOB_BYTES
    biggest = (2**248 - 1) * (R - 1)
    slot = 2 ** (8 * polynomial._SLOT_BYTES)
    assert polynomial._PRODUCTS_A_SLOT * biggest + R - 1 < slot
    monkeypatch.setattr(polynomial, "_PRODUCTS_A_SLOT", 3)

    assert polynomial.combine([full] * 8, [R - 1] * 8) == [8 * biggest % R] * N


def test_blobs_are_taken_one_at_a_time_and_must_be_as_many_as_the_scalars() -> None:
    taken = []

    def blobs() -> Iterator[bytes]:
        for blob in (b"a", b"b", b"c"):
            taken.append(blob)
            yield blob

    assert polynomial.combine(blobs(), [1, 2, 3])[1:] == [0] * (N - 1)
    assert taken == [b"a", b"b", b"c"]
    with pytest.raises(ValueError, match="zip"):
        polynomial.combine([b"a"], [1, 2])
