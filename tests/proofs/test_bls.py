"""BLS signatures: two backends, one set of bytes and one verdict."""

from __future__ import annotations

import subprocess
import sys

import pytest

from proofs.bls.points import P, R, is_canonical
from proofs.bls.signatures import Backend, BlsSigner, backend, secret_from_seed, verify, verify_possession

FAST, REFERENCE = backend("arkworks"), backend("py_ecc")
BOTH = pytest.mark.parametrize("using", [FAST, REFERENCE], ids=lambda using: str(using.NAME))
SIGNER = BlsSigner.from_seed(bytes(range(32)))
MESSAGE = b"holdfast beacon"
SIGNATURE = SIGNER.sign(MESSAGE)


def test_the_fast_backend_is_the_default() -> None:
    assert backend() is FAST
    with pytest.raises(ValueError, match="no BLS backend"):
        backend("blst")


def test_keys_are_made_as_the_reference_makes_them() -> None:
    from py_ecc.bls import G2ProofOfPossession

    for seed in (bytes(32), bytes(range(32)), b"\xff" * 32):
        assert secret_from_seed(seed) == G2ProofOfPossession.KeyGen(seed)
    with pytest.raises(ValueError, match="32 are needed"):
        BlsSigner.from_seed(bytes(31))


def test_both_backends_make_the_same_bytes() -> None:
    for seed, message in ((bytes(32), b""), (b"\x07" * 32, bytes(200)), (b"\xaa" * 32, MESSAGE)):
        fast, reference = BlsSigner.from_seed(seed, FAST), BlsSigner.from_seed(seed, REFERENCE)
        assert fast.public_key == reference.public_key
        assert fast.sign(message) == reference.sign(message)
        assert fast.prove_possession() == reference.prove_possession()
    assert (len(SIGNER.public_key), len(SIGNATURE)) == (48, 96)


def test_the_reference_library_itself_agrees() -> None:
    from py_ecc.bls import G2ProofOfPossession
    from py_ecc.optimized_bls12_381 import curve_order, field_modulus

    assert (field_modulus, curve_order) == (P, R)

    assert G2ProofOfPossession.Verify(SIGNER.public_key, MESSAGE, SIGNATURE)
    assert G2ProofOfPossession.PopVerify(SIGNER.public_key, SIGNER.prove_possession())


@pytest.mark.parametrize("secret", [0, -1, R, R + 1])
def test_secrets_out_of_range_are_refused(secret: int) -> None:
    with pytest.raises(ValueError, match="1 to r - 1"):
        BlsSigner(secret)


@BOTH
def test_a_signature_is_accepted_and_nothing_near_it(using: Backend) -> None:
    other = BlsSigner.from_seed(b"\x01" * 32)
    assert verify(SIGNER.public_key, MESSAGE, SIGNATURE, using=using)
    assert not verify(SIGNER.public_key, MESSAGE + b"\0", SIGNATURE, using=using)
    assert not verify(other.public_key, MESSAGE, SIGNATURE, using=using)
    assert verify_possession(SIGNER.public_key, SIGNER.prove_possession(), using=using)


def test_possession_and_signature_are_kept_apart() -> None:
    assert not verify_possession(SIGNER.public_key, SIGNER.sign(SIGNER.public_key))
    assert not verify(SIGNER.public_key, SIGNER.public_key, SIGNER.prove_possession())
    assert not verify_possession(BlsSigner.from_seed(bytes(32)).public_key, SIGNER.prove_possession())


def off_subgroup_g1() -> bytes:
    """A compressed point on the curve that is not in the subgroup of order r (x = 4 is the first such)."""
    return b"\x80" + bytes(46) + b"\x04"


def off_subgroup_g2() -> bytes:
    return b"\x80" + bytes(94) + b"\x02"


def with_x(flags: int, x: int) -> bytes:
    return ((flags << 376) | x).to_bytes(48, "big")


KEY_X = int.from_bytes(SIGNER.public_key, "big") & (1 << 381) - 1
KEY_FLAGS = SIGNER.public_key[0] & 0xE0
BAD_KEYS = {
    "empty": b"",
    "a byte short": SIGNER.public_key[:-1],
    "a byte long": SIGNER.public_key + b"\0",
    "zeros": bytes(48),
    "identity": b"\xc0" + bytes(47),
    "identity, sign set": b"\xe0" + bytes(47),
    "identity, uncompressed": b"\x40" + bytes(47),
    "identity with a coordinate": b"\xc0" + bytes(46) + b"\x01",
    "infinity flag on a point": bytes([SIGNER.public_key[0] | 0x40]) + SIGNER.public_key[1:],
    "not compressed": bytes([SIGNER.public_key[0] & 0x7F]) + SIGNER.public_key[1:],
    "other sign": bytes([SIGNER.public_key[0] ^ 0x20]) + SIGNER.public_key[1:],
    "x = p": with_x(0x80, P),
    "x = p + 1": with_x(0x80, P + 1),
    "x + p": with_x(KEY_FLAGS, KEY_X + P) if KEY_X + P < 1 << 381 else with_x(0xA0, P + 4),
    "all ones": b"\xff" * 48,
    "x of all ones": b"\x9f" + b"\xff" * 47,
    "x not on the curve": with_x(0x80, 1),
    "off the subgroup": off_subgroup_g1(),
}
SECOND_HALF = int.from_bytes(SIGNATURE[48:], "big")
BAD_SIGNATURES = {
    "empty": b"",
    "a byte short": SIGNATURE[:-1],
    "a byte long": SIGNATURE + b"\0",
    "zeros": bytes(96),
    "identity": b"\xc0" + bytes(95),
    "identity, sign set": b"\xe0" + bytes(95),
    "identity with a coordinate": b"\xc0" + bytes(94) + b"\x01",
    "infinity flag on a point": bytes([SIGNATURE[0] | 0x40]) + SIGNATURE[1:],
    "not compressed": bytes([SIGNATURE[0] & 0x7F]) + SIGNATURE[1:],
    "other sign": bytes([SIGNATURE[0] ^ 0x20]) + SIGNATURE[1:],
    "flag in the second half": SIGNATURE[:48] + bytes([SIGNATURE[48] | 0x80]) + SIGNATURE[49:],
    "sign in the second half": SIGNATURE[:48] + bytes([SIGNATURE[48] | 0x20]) + SIGNATURE[49:],
    "second half + p": SIGNATURE[:48] + (SECOND_HALF + P).to_bytes(48, "big"),
    "first half = p": with_x(0x80, P) + SIGNATURE[48:],
    "second half = p": SIGNATURE[:48] + P.to_bytes(48, "big"),
    "off the subgroup": off_subgroup_g2(),
    "not on the curve": b"\x80" + bytes(95),
    "halves swapped": SIGNATURE[48:] + SIGNATURE[:48],
    "a key twice": SIGNER.public_key * 2,
}


@BOTH
@pytest.mark.parametrize("name", BAD_KEYS)
def test_a_malformed_key_is_refused(using: Backend, name: str) -> None:
    assert not verify(BAD_KEYS[name], MESSAGE, SIGNATURE, using=using)


@BOTH
@pytest.mark.parametrize("name", BAD_SIGNATURES)
def test_a_malformed_signature_is_refused(using: Backend, name: str) -> None:
    assert not verify(SIGNER.public_key, MESSAGE, BAD_SIGNATURES[name], using=using)


@BOTH
def test_identity_key_and_identity_signature_do_not_cancel(using: Backend) -> None:
    assert not verify(b"\xc0" + bytes(47), MESSAGE, b"\xc0" + bytes(95), using=using)


def test_the_points_off_the_subgroup_are_on_the_curve() -> None:
    """Else the refusals above would show nothing."""
    from py_ecc.bls.g2_primitives import pubkey_to_G1, signature_to_G2, subgroup_check

    assert not subgroup_check(pubkey_to_G1(off_subgroup_g1()))
    assert not subgroup_check(signature_to_G2(off_subgroup_g2()))


def test_a_change_of_any_byte_is_refused() -> None:
    for position in range(0, 96, 5):
        changed = bytearray(SIGNATURE)
        changed[position] ^= 1
        assert not verify(SIGNER.public_key, MESSAGE, bytes(changed))


def test_the_secret_is_not_shown() -> None:
    assert str(secret_from_seed(bytes(range(32)))) not in repr(SIGNER)
    assert not hasattr(SIGNER, "__dict__")


def test_nothing_slow_is_imported_before_it_is_needed() -> None:
    code = (
        "import sys, proofs.bls.signatures, proofs.beacon.chain, proofs.merkle_proof\n"
        "import proofs.erasure.code, proofs.erasure.manifest\n"
        "slow = {'py_ecc', 'py_arkworks_bls12381', 'zfec', 'multiformats', 'blake3'} & set(sys.modules)\n"
        "sys.exit(len(slow))"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_canonical_form_is_only_about_form() -> None:
    assert is_canonical(SIGNER.public_key, 48)
    assert is_canonical(off_subgroup_g1(), 48)


def test_the_reference_leaves_the_recursion_limit_alone() -> None:
    code = "import sys; before = sys.getrecursionlimit(); from proofs.bls import backend_py_ecc as b; "
    code += "assert sys.getrecursionlimit() == before, sys.getrecursionlimit(); "
    code += "sig = b.sign(5, b'message', b'tag'); "
    code += "assert b.holds([b.statement(b.public_key(5), b'message', sig, b'tag')], [1])"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
