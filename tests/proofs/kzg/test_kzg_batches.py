"""Many openings at once: true if each is, false if one is not, whatever its maker knows of the weights."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable
from itertools import combinations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proofs.kzg import backend_arkworks
from proofs.kzg.backend import Backend, Opening, backend, weights
from tests.proofs.kzg.openings import add, drawn, opening, times
from tests.proofs.kzg.polynomials import R, scalar

ARKWORKS, PY_ECC = backend("arkworks"), backend("py_ecc")
BATCH = [drawn(f"batch {i}", 1 + i % 3) for i in range(5)]
EQUAL = [1, 1]

CHANGES: dict[str, Callable[[Opening], Opening]] = {
    "commitment": lambda o: o._replace(commitments=[times(5), *o.commitments[1:]]),
    "scalar": lambda o: o._replace(scalars=[(o.scalars[0] + 1) % R, *o.scalars[1:]]),
    "z": lambda o: o._replace(z=(o.z + 1) % R),
    "y": lambda o: o._replace(y=(o.y + 1) % R),
    "proof": lambda o: o._replace(proof=times(6)),
    "lists": lambda o: o._replace(scalars=o.scalars[:-1]),
}


def test_a_batch_of_true_openings_holds(ckzg_backend: Backend) -> None:
    for each in (ARKWORKS, ckzg_backend):
        for count in range(len(BATCH) + 1):
            assert each.verify_many(BATCH[:count])
        assert each.verify_many([BATCH[0]] * 3)


def test_the_reference_says_the_same() -> None:
    # Small numbers, for a multiplication's time grows with its scalar; each verdict takes two pairings.
    true = [opening([(2, 3)], [1], 5), opening([(4, 0), (0, 1)], [2, 3], 7)]

    assert PY_ECC.verify_many([])
    assert PY_ECC.verify_many(true)
    assert not PY_ECC.verify_many([true[0], true[1]._replace(y=true[1].y + 1)])


@pytest.mark.parametrize("change", CHANGES)
def test_one_wrong_opening_fails_the_batch_wherever_it_is(change: str, ckzg_backend: Backend) -> None:
    for place, true in enumerate(BATCH):
        batch = [*BATCH[:place], CHANGES[change](true), *BATCH[place + 1 :]]

        assert not ARKWORKS.verify_many(batch)
        assert not ckzg_backend.verify_many(batch)
        assert not ARKWORKS.verify(*batch[place])


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 99)), max_size=4))
@settings(max_examples=10)
def test_a_batch_holds_exactly_if_each_opening_does(
    ckzg_backend: Backend, parts: list[tuple[bool, int]]
) -> None:
    batch = []
    for true, number in parts:
        claim = opening([(number, number + 1)], [3], number)
        batch.append(claim if true else claim._replace(y=claim.y + 1))
    expected = all(true for true, _ in parts)

    assert ARKWORKS.verify_many(batch) is expected
    assert all(ARKWORKS.verify(*each) for each in batch) is expected
    assert ckzg_backend.verify_many(batch) is expected


def test_errors_that_cancel_pass_under_equal_weights_and_fail_here() -> None:
    z, shift = scalar("z"), scalar("shift")
    one, two = opening([(3, 4)], [1], z), opening([(5, 6)], [1], z)
    pairs = {
        "values": (one._replace(y=(one.y + shift) % R), two._replace(y=(two.y - shift) % R)),
        "proofs at one point": (
            one._replace(proof=add(one.proof, times(shift))),
            two._replace(proof=add(two.proof, times(-shift))),
        ),
        "commitments": (
            one._replace(commitments=[add(one.commitments[0], times(shift))]),
            two._replace(commitments=[add(two.commitments[0], times(-shift))]),
        ),
    }
    for name, pair in pairs.items():
        assert not any(ARKWORKS.verify(*each) for each in pair), name
        assert backend_arkworks.ARKWORKS.hold(pair, EQUAL), f"{name}: the attack itself is wrong"
        assert not ARKWORKS.verify_many(pair), name


def test_errors_made_for_the_weights_known_before_change_the_weights() -> None:
    one, two = BATCH[:2]
    first, second = weights([one, two])
    forged = (
        one._replace(y=(one.y + second) % R),
        two._replace(y=(two.y - first) % R),
    )

    assert backend_arkworks.ARKWORKS.hold(forged, (first, second)), "the attack itself is wrong"
    assert not ARKWORKS.verify_many(forged)


def test_the_weights_are_those_of_the_page() -> None:
    hashed = b"holdfast/kzg-batch-weights/1\0" + struct.pack(">Q", len(BATCH))
    for commitments, scalars, z, y, proof in BATCH:
        numbers = b"".join(number.to_bytes(32, "big") for number in (*scalars, z, y))
        hashed += struct.pack(">Q", len(commitments)) + b"".join(commitments) + numbers + proof
    digest = hashlib.sha256(hashed).digest()

    expected = [hashlib.sha256(digest + struct.pack(">Q", i)).digest()[:16] for i in range(len(BATCH))]

    assert [weight.to_bytes(16, "big") for weight in weights(BATCH)] == expected


def test_every_input_moves_every_weight_and_none_is_zero() -> None:
    one, two = drawn("one", 2), drawn("two", 2)
    sets = [[one, two], [two, one], [one, two, two]]
    for change in CHANGES.values():
        sets += [[change(one), two], [one, change(two)]]
    # Moved from one opening to the next, the same bytes in the same order are another set.
    sets.append(
        [
            one._replace(commitments=one.commitments[:1], scalars=one.scalars[:1]),
            two._replace(
                commitments=[one.commitments[1], *two.commitments], scalars=[one.scalars[1], *two.scalars]
            ),
        ]
    )
    drawn_weights = [weights(each) for each in sets]

    for left, right in combinations(drawn_weights, 2):
        assert not set(left) & set(right)
    for each, openings in zip(drawn_weights, sets, strict=True):
        assert weights(openings) == each
        assert all(0 < weight < 2**128 for weight in each)
        assert len(set(each)) == len(openings)
