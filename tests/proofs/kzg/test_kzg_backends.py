"""Three backends, one set of bytes and one verdict: on known answers, hostile input and at random."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import ckzg
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from py_arkworks_bls12381 import GT, G1Point, G2Point, Scalar

from proofs.bls.points import is_canonical
from proofs.kzg.backend import Backend, backend
from proofs.kzg.backend_ckzg import CkzgBackend
from proofs.kzg.blobs import eip4844_blob
from proofs.kzg.setup import Setup
from tests.proofs.kzg.openings import drawn, opening, times
from tests.proofs.kzg.polynomials import R, elements, scalar, stream

VECTORS: dict[str, Any] = json.loads(Path(__file__).with_name("vectors.json").read_text())
MALFORMED = {name: bytes.fromhex(text) for name, text in VECTORS["malformed"].items()}
INFINITY = b"\xc0" + bytes(47)
ARKWORKS, PY_ECC = backend("arkworks"), backend("py_ecc")
NOT_NUMBERS = [-1, R, R + 1, 2**256, True, 1.0, "1", None]


def named(cases: list[dict[str, Any]]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("case", cases, ids=[case["name"] for case in cases])


def blob_of(case: dict[str, Any]) -> bytes:
    kind, _, length = case["blob"].partition(":")
    return stream(int(length)) if kind == "stream" else bytes.fromhex(case["blob"])


def test_there_are_two_by_name_and_arkworks_is_the_default() -> None:
    assert (ARKWORKS.NAME, PY_ECC.NAME) == ("arkworks", "py_ecc")
    assert backend() is ARKWORKS
    with pytest.raises(ValueError, match="no KZG backend 'blst'"):
        backend("blst")


@named(VECTORS["commit"])
def test_commitments_are_the_known_ones(case: dict[str, Any], setup: Setup, ckzg_backend: Backend) -> None:
    blob = blob_of(case)
    using = [ARKWORKS, ckzg_backend, *([PY_ECC] if len(blob) < 100 else [])]

    assert {each.NAME: each.commit(setup, blob).hex() for each in using} == dict.fromkeys(
        (each.NAME for each in using), case["commitment"]
    )


@named(VECTORS["open"])
def test_openings_are_the_known_ones(case: dict[str, Any], setup: Setup, ckzg_backend: Backend) -> None:
    values, z, y = elements(blob_of(case)), int(case["z"], 16), int(case["y"], 16)
    sparse = y == 0 and len(blob_of(case)) < 100  # then so is the quotient, and py_ecc has not 4,096 to add
    using = [ARKWORKS, ckzg_backend, *([PY_ECC] if sparse else [])]

    for each in using:
        assert each.open(setup, values, z) == (y, bytes.fromhex(case["proof"])), each.NAME


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_reference_opens_where_all_of_the_quotient_counts(setup: Setup) -> None:
    """4,096 multiplications by py_ecc: about a minute."""
    case = next(each for each in VECTORS["open"] if each["y"].strip("0") and len(blob_of(each)) == 63)

    y, proof = PY_ECC.open(setup, elements(blob_of(case)), int(case["z"], 16))

    assert (y, proof.hex()) == (int(case["y"], 16), case["proof"])


def test_what_is_no_polynomial_or_no_point_is_not_opened(setup: Setup, ckzg_backend: Backend) -> None:
    for each in (ARKWORKS, ckzg_backend, PY_ECC):
        for values, z in (
            ([0] * 4095, 1),
            ([0] * 4097, 1),
            ([R] + [0] * 4095, 1),
            ([0] * 4096, R),
            ([0] * 4096, -1),
        ):
            with pytest.raises(ValueError, match="4,096 values below r"):
                each.open(setup, values, z)
        with pytest.raises(ValueError, match="at most 126976"):
            each.commit(setup, bytes(126_977))


def arguments(case: dict[str, Any]) -> tuple[list[bytes], list[int], int, int, bytes]:
    return (
        [bytes.fromhex(point) for point in case["commitments"]],
        [int(number, 16) for number in case["scalars"]],
        int(case["z"], 16),
        int(case["y"], 16),
        bytes.fromhex(case["proof"]),
    )


# A pairing takes py_ecc half a second, so it says two verdicts by pairings, and those that it says without.
PAIRED_BY_PY_ECC = ("on the domain", "y one more")


@named(VECTORS["verify"])
def test_verdicts_are_the_known_ones(case: dict[str, Any], ckzg_backend: Backend) -> None:
    given_ = arguments(case)

    assert ARKWORKS.verify(*given_) is case["holds"]
    assert ckzg_backend.verify(*given_) is case["holds"]
    if case["name"] in PAIRED_BY_PY_ECC or len(given_[0]) != len(given_[1]) or not given_[0]:
        assert PY_ECC.verify(*given_) is case["holds"]


@pytest.mark.parametrize("name", MALFORMED)
def test_a_malformed_point_is_refused_everywhere_by_every_backend(name: str, ckzg_backend: Backend) -> None:
    bad = MALFORMED[name]
    true = drawn("true")
    commitments, scalars, z, y, proof = true
    for each in (ARKWORKS, ckzg_backend):
        for place in range(3):
            for factor in (scalars[place], 0):  # a point that does not count is looked at all the same
                with_bad = [*commitments[:place], bad, *commitments[place + 1 :]]
                numbers = [*scalars[:place], factor, *scalars[place + 1 :]]
                assert not each.verify(with_bad, numbers, z, y, proof), (each.NAME, place)
        assert not each.verify(commitments, scalars, z, y, bad), each.NAME
        for batch in (
            [true, true._replace(proof=bad)],
            [true._replace(commitments=[bad, *commitments[1:]]), true],
        ):
            assert not each.verify_many(batch), each.NAME
    # Here all but the point's form is right, as if it were infinity or did not count.
    for each in (ARKWORKS, ckzg_backend, PY_ECC):
        for claim in (
            ([bad], [1], 5, 0, INFINITY),
            ([bad], [0], 5, 0, INFINITY),
            ([INFINITY], [1], 5, 0, bad),
        ):
            assert not each.verify(*claim), each.NAME
    beyond_form = any(word in name for word in ("curve", "subgroup", "order"))
    assert is_canonical(bad, 48) is beyond_form


@pytest.mark.parametrize("name", ["x is 0: of order 3", "the generator plus a point of order 11"])
def test_a_true_point_plus_one_of_small_order_is_refused(name: str, ckzg_backend: Backend) -> None:
    """No pairing sees such an addend, so the equation holds as before; but points have one spelling."""
    small = G1Point.from_compressed_bytes_unchecked(MALFORMED[name])
    if name.startswith("the generator plus"):
        small = small - G1Point()
    commitments, scalars, z, y, proof = true = opening([(3, 4), (5, 6)], [2, 3], 7)
    assert GT.pairing_check([small, G1Point()], [G2Point(), G2Point.identity()])

    def plus_small(point: bytes) -> bytes:
        return bytes((G1Point.from_compressed_bytes(point) + small).to_compressed_bytes())

    forged = [
        true._replace(proof=plus_small(proof)),
        true._replace(commitments=[plus_small(commitments[0]), commitments[1]]),
        true._replace(commitments=[commitments[0], plus_small(commitments[1])]),
        true._replace(commitments=list(map(plus_small, commitments)), proof=plus_small(proof)),
    ]
    assert ARKWORKS.verify(commitments, scalars, z, y, proof)
    for claim in forged:
        assert not PY_ECC.verify(*claim)
        for each in (ARKWORKS, ckzg_backend):
            assert not each.verify(*claim), each.NAME
            assert not each.verify_many([true, claim]), each.NAME


def test_ckzg_by_itself_refuses_the_same_points(ckzg_backend: CkzgBackend) -> None:
    """Without what comes before it here: the classes above are malformed in another's eyes, too."""
    zero = bytes(32)
    for bad in MALFORMED.values():
        for commitment, proof in ((bad, INFINITY), (INFINITY, bad)):
            with pytest.raises((ValueError, RuntimeError)):
                ckzg.verify_kzg_proof(commitment, zero, zero, proof, ckzg_backend._settings)


@pytest.mark.parametrize("bad", NOT_NUMBERS, ids=repr)
def test_a_number_out_of_range_is_refused_everywhere_by_every_backend(
    bad: Any, ckzg_backend: Backend
) -> None:
    commitments, scalars, z, y, proof = true = drawn("true")
    for each in (ARKWORKS, ckzg_backend, PY_ECC):
        for place in range(3):
            assert not each.verify(commitments, [*scalars[:place], bad, *scalars[place + 1 :]], z, y, proof)
        assert not each.verify(commitments, scalars, bad, y, proof)
        assert not each.verify(commitments, scalars, z, bad, proof)
        assert not each.verify_many([true._replace(y=bad)])
    # What is equal to the right number, or equal modulo r, is not that number.
    generator = times(1)
    for each in (ARKWORKS, ckzg_backend, PY_ECC):
        assert not each.verify([generator], [True], 5, 1, INFINITY)
        assert not each.verify([generator], [1], 5, True, INFINITY)
        assert not each.verify([generator], [1], True, 1, INFINITY)
    for each in (ARKWORKS, ckzg_backend, PY_ECC):
        assert not each.verify(commitments, scalars, z + R, y, proof)
        assert not each.verify(commitments, scalars, z, y + R, proof)
        assert not each.verify(commitments, [scalars[0] + R, *scalars[1:]], z, y, proof)


@pytest.mark.parametrize(
    "other", [bytearray(INFINITY), memoryview(INFINITY), "c0" + "0" * 94, 0, None, [0] * 48]
)
def test_what_is_not_bytes_is_no_point(other: Any, ckzg_backend: Backend) -> None:
    assert not is_canonical(other, 48)
    for each in (ARKWORKS, ckzg_backend, PY_ECC):
        assert not each.verify([other], [1], 5, 0, INFINITY)
        assert not each.verify([INFINITY], [1], 5, 0, other)


def test_every_byte_of_an_opening_counts(ckzg_backend: Backend) -> None:
    commitments, scalars, z, y, proof = drawn("true", 1)
    assert ARKWORKS.verify(commitments, scalars, z, y, proof)
    assert ckzg_backend.verify(commitments, scalars, z, y, proof)
    for place in range(48):
        for mask in (1, 0x20):
            changed = bytearray(commitments[0])
            changed[place] ^= mask
            other = bytearray(proof)
            other[place] ^= mask
            for each in (ARKWORKS, ckzg_backend):
                assert not each.verify([bytes(changed)], scalars, z, y, proof)
                assert not each.verify(commitments, scalars, z, y, bytes(other))
    for bit in range(0, 255, 50):
        for each in (ARKWORKS, ckzg_backend):
            assert not each.verify(commitments, scalars, z ^ 1 << bit, y, proof)
            assert not each.verify(commitments, scalars, z, y ^ 1 << bit, proof)
            assert not each.verify(commitments, [scalars[0] ^ 1 << bit], z, y, proof)


NUMBERS = st.one_of(st.integers(0, R - 1), st.sampled_from([0, 1, 2, R - 1, 2**128]))
PLACES = st.sampled_from(["nothing", "commitment", "scalar", "z", "y", "proof"])


@given(
    st.lists(st.tuples(NUMBERS, NUMBERS), min_size=1, max_size=4),
    st.data(),
    NUMBERS,
    PLACES,
    st.integers(1, R - 1),
)
@settings(max_examples=30)
def test_true_openings_hold_and_changed_ones_fail_by_arkworks_and_ckzg(
    ckzg_backend: Backend, lines: list[tuple[int, int]], data: Any, z: int, place: str, by: int
) -> None:
    scalars = data.draw(st.lists(NUMBERS, min_size=len(lines), max_size=len(lines)))
    claim = opening(lines, scalars, z)
    a = sum(s * line[0] for s, line in zip(scalars, lines, strict=True))
    b = sum(s * line[1] for s, line in zip(scalars, lines, strict=True))
    holds = True
    match place:
        case "commitment":
            claim.commitments[0] = times(by)  # type: ignore[index]
            first = (by - lines[0][0]) * scalars[0] % R, -lines[0][1] * scalars[0] % R
            holds = first == (0, 0)
        case "scalar":
            claim.scalars[0] = (scalars[0] + by) % R  # type: ignore[index]
            holds = lines[0] == (0, 0)
        case "z":
            claim = claim._replace(z=(z + by) % R)
            holds = b % R == 0
        case "y":
            claim = claim._replace(y=(claim.y + by) % R)
            holds = False
        case "proof":
            claim = claim._replace(proof=times(b + by))
            holds = False
    assert (a + b * z) % R == opening(lines, scalars, z).y

    assert ARKWORKS.verify(*claim) is holds
    assert ckzg_backend.verify(*claim) is holds


FLAGGED = st.builds(
    lambda flags, x: bytes([x[0] & 0x1F | flags]) + x[1:],
    st.sampled_from([0x80, 0xA0, 0xC0, 0xE0, 0x00, 0x40]),
    st.one_of(st.binary(min_size=48, max_size=48), st.integers(0, 9).map(lambda x: x.to_bytes(48, "big"))),
)
FLIPPED = st.builds(
    lambda point, bit: (int.from_bytes(point, "big") ^ 1 << bit).to_bytes(48, "big"),
    st.integers(0, 2**64).map(times),
    st.integers(0, 383),
)


@given(st.one_of(FLAGGED, FLIPPED, st.integers(0, 2**64).map(times)))
@settings(max_examples=15)
def test_random_bytes_are_a_point_to_all_or_to_none(ckzg_backend: CkzgBackend, point: bytes) -> None:
    zero = bytes(32)
    try:  # by itself; 0 times the polynomial is 0, so that here only the point's form decides
        ckzg.verify_kzg_proof(point, zero, zero, INFINITY, ckzg_backend._settings)
        good = True
    except RuntimeError:
        good = False

    for each in (ARKWORKS, ckzg_backend, PY_ECC):
        assert each.verify([point], [0], 0, 0, INFINITY) is good, each.NAME


def test_our_commitments_and_openings_are_ethereums(setup: Setup, ckzg_backend: CkzgBackend) -> None:
    """A blob of EIP-4844 in both directions, by ckzg's own functions."""
    loaded, blob, z = ckzg_backend._settings, stream(5000), scalar("z").to_bytes(32, "big")
    as_ethereum = eip4844_blob(blob)
    commitment = ARKWORKS.commit(setup, blob)
    y, proof = ARKWORKS.open(setup, elements(blob), scalar("z"))

    assert ckzg.verify_kzg_proof(commitment, z, y.to_bytes(32, "big"), proof, loaded)
    theirs = ckzg.blob_to_kzg_commitment(as_ethereum, loaded)
    their_proof, their_y = ckzg.compute_kzg_proof(as_ethereum, z, loaded)
    assert ARKWORKS.verify([theirs], [1], scalar("z"), int.from_bytes(their_y, "big"), their_proof)
    blob_proof = ckzg.compute_blob_kzg_proof(as_ethereum, commitment, loaded)
    assert ckzg.verify_blob_kzg_proof(as_ethereum, commitment, blob_proof, loaded)


def test_arkworks_by_itself_has_the_holes_that_are_closed_here() -> None:
    """If one of these fails, a later version has closed it, and what is written about it here can go."""
    # Any bytes under the infinity flag are infinity, even a point's.
    for name in ("infinity with a last byte", "infinity over a point"):
        assert G1Point.from_compressed_bytes(MALFORMED[name]) == G1Point.identity()
    # A sum over unequal lists drops the tail, and one over nothing is infinity.
    assert G1Point.multiexp_unchecked([G1Point()] * 2, [Scalar(1)]) == G1Point()
    # An empty product of pairings is one.
    assert GT.pairing_check([], [])
    # Constructors named unchecked take points of other subgroups.
    assert not G1Point.from_compressed_bytes_unchecked(MALFORMED["off the subgroup"]).is_in_subgroup()
    # Numbers of 2**255 and more wrap around.
    assert Scalar(R + 5) == Scalar(5)
