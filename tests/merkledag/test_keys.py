"""Ed25519 strictness (red-team 13) and peer identities."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from merkledag import base, ed25519, multihash, peer
from merkledag.cid import CID
from merkledag.codecs import LIBP2P_KEY, RAW
from merkledag.ed25519 import Ed25519Signer
from merkledag.errors import InvalidCID
from tests.merkledag.edwards import BASE, TORSION, L, P, Point, encode, recover, times

SIGNER = Ed25519Signer.from_seed(bytes(range(32)))


class TestSignatures:
    @given(st.binary(min_size=32, max_size=32), st.binary(max_size=200))
    def test_round_trip(self, seed: bytes, message: bytes) -> None:
        signer = Ed25519Signer.from_seed(seed)
        signature = signer.sign(message)
        assert ed25519.verify(signer.public_key, signature, message)
        assert ed25519.is_usable_key(signer.public_key)
        assert not ed25519.verify(signer.public_key, signature, message + b"x")

    def test_rfc_8032_vector_2(self) -> None:
        signer = Ed25519Signer.from_seed(
            bytes.fromhex("4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb")
        )
        assert signer.public_key.hex() == "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c"
        assert signer.sign(b"\x72").hex() == (
            "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da"
            "085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00"
        )

    def test_malleated_s_is_refused(self) -> None:
        signature = SIGNER.sign(b"m")
        s = int.from_bytes(signature[32:], "little")
        assert not ed25519.verify(SIGNER.public_key, signature[:32] + (s + L).to_bytes(32, "little"), b"m")

    @pytest.mark.parametrize("point", TORSION)
    def test_small_order_keys_verify_nothing(self, point: Point) -> None:
        # With A of small order and R = S·B, many messages verify under libraries that do not look.
        r = encode(times(5, BASE))
        for flip in (0, 0x80):
            key = bytearray(encode(point))
            key[31] ^= flip
            assert not ed25519.is_usable_key(bytes(key))
            for message in (b"%d" % n for n in range(16)):
                assert not ed25519.verify(bytes(key), r + (5).to_bytes(32, "little"), message)

    @pytest.mark.parametrize("point", TORSION)
    def test_small_order_r_is_refused(self, point: Point) -> None:
        assert not ed25519.verify(SIGNER.public_key, encode(point) + SIGNER.sign(b"m")[32:], b"m")

    @pytest.mark.parametrize("y", range(P, 2**255))
    def test_non_canonical_points_are_refused(self, y: int) -> None:
        for sign in (0, 1 << 255):
            encoded = (y | sign).to_bytes(32, "little")
            assert not ed25519.verify(encoded, SIGNER.sign(b"m"), b"m")
            assert not ed25519.verify(SIGNER.public_key, encoded + SIGNER.sign(b"m")[32:], b"m")
            assert not ed25519.is_usable_key(encoded)

    def test_the_table_of_small_order_is_complete(self) -> None:
        assert {y for _, y in TORSION} == set(ed25519._SMALL_ORDER_Y)

    @given(st.binary(max_size=70), st.binary(max_size=70))
    def test_rubbish_is_false_never_an_exception(self, key: bytes, signature: bytes) -> None:
        assert not ed25519.verify(key, signature, b"m")

    @given(st.binary(min_size=32, max_size=32))
    def test_a_usable_key_is_a_point_of_large_order(self, encoded: bytes) -> None:
        y = int.from_bytes(encoded, "little") & (2**255 - 1)
        point = recover(y, encoded[31] >> 7) if y < P else None
        assert ed25519.is_usable_key(encoded) == (point is not None and point not in TORSION)

    def test_seed_length(self) -> None:
        with pytest.raises(ValueError, match="32 bytes"):
            Ed25519Signer.from_seed(bytes(31))


class TestPeers:
    def test_a_peer_of_other_implementations(self) -> None:
        text = "12D3KooWD3eckifWpRn9wQpMG9R9hX3sD158z7EqHWmweQAJU5SA"  # stands in many libp2p documents
        key = peer.parse_peer(text)
        assert base.encode_base58(peer.peer_cid(key).multihash) == text
        assert peer.peer_text(key).startswith("k51qzi5uqu5d")
        assert ed25519.is_usable_key(key)

    @given(st.binary(min_size=32, max_size=32))
    def test_round_trip(self, key: bytes) -> None:
        cid = peer.peer_cid(key)
        assert (cid.codec, cid.is_identity, cid.version) == (LIBP2P_KEY, True, 1)
        for text in (peer.peer_text(key), str(cid), cid.encode("base58btc"), cid.encode("base64url")):
            assert peer.parse_peer(text) == key
        plain = base.encode_base58(cid.multihash)
        assert plain.startswith("12D3Koo")
        assert peer.parse_peer(plain) == key

    @pytest.mark.parametrize(
        "text",
        [
            "",
            "12D3KooW",
            "QmUNLLsPACCz1vLxQVkXqqLX5R1X345qqfHbsf67hvA3Nn",  # hashes its key (RSA)
            str(CID.of(b"x")),
            str(CID.of(b"\x08\x01\x12\x20" + bytes(32), RAW, multihash.IDENTITY)),  # wrong codec
            str(CID.of(b"\x08\x02\x12\x20" + bytes(32), LIBP2P_KEY, multihash.IDENTITY)),  # secp256k1
            str(CID.of(b"\x08\x01\x12\x1f" + bytes(31), LIBP2P_KEY, multihash.IDENTITY)),
            "1" * 5000,
        ],
    )
    def test_refused(self, text: str) -> None:
        with pytest.raises(InvalidCID):
            peer.parse_peer(text)

    def test_key_length(self) -> None:
        with pytest.raises(ValueError, match="32 bytes"):
            peer.peer_cid(bytes(31))
