"""Varints, multihashes, CIDs and multibases: round trips, an independent second opinion, and refusals."""

from __future__ import annotations

import copy
import hashlib
import pickle

import multiformats
import pytest
from hypothesis import given
from hypothesis import strategies as st

from merkledag import base, multihash, varint
from merkledag.block import MAX_BLOCK_BYTES, verify_block
from merkledag.cid import CID
from merkledag.codecs import DAG_CBOR, DAG_JSON, DAG_PB, JSON, LIBP2P_KEY, RAW
from merkledag.errors import DecodeError, HashMismatch, InvalidCID, LimitExceeded, UnsupportedHash

HASHES = [
    multihash.SHA2_256,
    multihash.SHA2_512,
    multihash.BLAKE3,
    multihash.IDENTITY,
    multihash.SHA1,
    multihash.SHA3_224,
    multihash.SHA3_256,
    multihash.SHA3_384,
    multihash.SHA3_512,
    multihash.SHA2_384,
    multihash.BLAKE2B_256,
    multihash.BLAKE2B_512,
    multihash.BLAKE2S_256,
    multihash.DBL_SHA2_256,
]
BASES = ["base32", "base58btc", "base36", "base16", "base2", "base8", "base10", "base32hex",
         "base32upper", "base36upper", "base16upper", "base58flickr", "base64", "base64url", "base32z",
         "base64urlpad"]  # fmt: skip
CODECS = [RAW, DAG_PB, DAG_CBOR, DAG_JSON, JSON, LIBP2P_KEY]

cids = st.builds(
    lambda data, codec, code: CID.of(data, codec, code),
    st.binary(max_size=64),
    st.sampled_from(CODECS),
    st.sampled_from(HASHES),
)


class TestVarint:
    @given(st.integers(0, varint.MAX_VARINT))
    def test_round_trip(self, value: int) -> None:
        encoded = varint.encode(value)
        assert varint.decode(b"x" + encoded + b"y", 1) == (value, 1 + len(encoded))
        assert encoded == multiformats.varint.encode(value)

    @pytest.mark.parametrize("text", ["", "80", "ffff", "8000", "ff00", "80" * 9 + "01", "ff" * 20])
    def test_refuses_cut_off_not_minimal_and_over_nine_bytes(self, text: str) -> None:
        with pytest.raises(DecodeError):
            varint.decode(bytes.fromhex(text))

    @pytest.mark.parametrize("value", [-1, 2**63])
    def test_refuses_to_write_what_it_could_not_read(self, value: int) -> None:
        with pytest.raises(ValueError, match="out of range"):
            varint.encode(value)


class TestMultihash:
    @pytest.mark.parametrize("code", HASHES)
    def test_digest_verifies_and_splits(self, code: int) -> None:
        mh = multihash.digest(b"data", code)
        assert multihash.verify(mh, b"data")
        assert multihash.verify(mh, memoryview(b"data"))
        assert not multihash.verify(mh, b"dat")
        assert multihash.split(mh)[0] == code

    @pytest.mark.parametrize(
        ("code", "name"),
        [(multihash.SHA3_256, "sha3_256"), (multihash.SHA2_512, "sha512"), (multihash.SHA1, "sha1")],
    )
    def test_digest_is_the_named_function(self, code: int, name: str) -> None:
        assert multihash.split(multihash.digest(b"x", code))[1] == hashlib.new(name, b"x").digest()

    def test_blake2_of_any_length_from_20_bytes(self) -> None:
        mh = multihash.digest(b"x", multihash.BLAKE2B_8 + 19)
        assert multihash.split(mh)[1] == hashlib.blake2b(b"x", digest_size=20).digest()
        with pytest.raises(UnsupportedHash):
            multihash.digest(b"x", multihash.BLAKE2B_8)

    def test_truncated_digests_count_down_to_20_bytes(self) -> None:
        full = hashlib.sha256(b"x").digest()
        assert multihash.verify(multihash.wrap(multihash.SHA2_256, full[:20]), b"x")
        assert not multihash.verify(multihash.wrap(multihash.SHA2_256, full[:19]), b"x")
        assert not multihash.verify(multihash.wrap(multihash.SHA2_256, full + b"\0"), b"x")

    def test_unknown_functions_are_named(self) -> None:
        with pytest.raises(UnsupportedHash, match="0x99"):
            multihash.verify(multihash.wrap(0x99, bytes(32)), b"x")

    def test_identity_is_bounded(self) -> None:
        assert multihash.digest(bytes(128), multihash.IDENTITY)
        with pytest.raises(LimitExceeded):
            multihash.digest(bytes(129), multihash.IDENTITY)
        with pytest.raises(LimitExceeded):
            multihash.split(b"\0" + varint.encode(2**20) + bytes(2**20))

    def test_cut_off_and_trailing_bytes(self) -> None:
        mh = multihash.digest(b"x")
        for broken in (b"", mh[:1], mh[:-1], mh + b"\0"):
            with pytest.raises(DecodeError):
                multihash.split(broken)


class TestCID:
    @given(cids, st.sampled_from(BASES))
    def test_every_base_and_multiformats_agrees(self, cid: CID, base_name: str) -> None:
        other = multiformats.CID.decode(bytes(cid))
        text = cid.encode(base_name)
        assert text == other.encode(base_name).rstrip("" if "pad" in base_name else "=")  # it pads base8
        assert CID.parse(text) == cid
        assert (cid.version, cid.codec, cid.multihash) == (1, other.codec.code, other.digest)

    @pytest.mark.parametrize(
        "text",
        [
            "cafkreih6xmzymlaszzg24rlkrmuinv34gav7lljo7qhpelqtjbvkcgyvbm",  # base32pad without its padding
            "uAVUAAA=",  # base64url, which has none
            "V06004000=",
        ],
    )
    def test_padding_is_there_where_the_base_has_it_and_nowhere_else(self, text: str) -> None:
        with pytest.raises(InvalidCID):
            CID.parse(text)

    def test_base8_as_in_the_multibase_vectors(self) -> None:
        assert base.encode(b"yes mani !", "base8") == "7362625631006654133464440102"

    @given(st.binary())
    def test_version_0(self, data: bytes) -> None:
        cid = CID.of(data, DAG_PB, version=0)
        assert CID.parse(str(cid)) == cid == CID.decode(bytes(cid))
        assert (
            str(cid)
            == cid.encode("base58btc")
            == str(multiformats.CID("base58btc", 0, "dag-pb", cid.multihash))
        )
        assert cid.to_v1() == CID.of(data, DAG_PB) != cid
        assert cid.to_v1().to_v1() == cid.to_v1()
        with pytest.raises(ValueError, match="base58btc only"):
            cid.encode("base32")

    @given(cids, st.binary(max_size=8))
    def test_read_stops_at_the_end(self, cid: CID, after: bytes) -> None:
        raw = bytes(cid)
        assert CID.read(b"ab" + raw + after, 2) == (cid, 2 + len(raw))
        assert CID.read(memoryview(raw + after)) == (cid, len(raw))

    @given(cids)
    def test_parts(self, cid: CID) -> None:
        assert cid == CID(1, cid.codec, cid.multihash)
        assert multihash.split(cid.multihash) == (cid.hash_code, cid.digest)
        assert cid.is_identity == (cid.hash_code == 0)
        assert pickle.loads(pickle.dumps(cid)) == cid
        assert copy.deepcopy(cid) is cid is copy.copy(cid)
        assert str(cid) in repr(cid)

    @given(cids, cids)
    def test_equal_hashed_and_ordered_by_binary_form(self, a: CID, b: CID) -> None:
        assert (a == b) == (bytes(a) == bytes(b))
        assert (a < b) == (bytes(a) < bytes(b))
        assert (a <= b, a > b, a >= b) == (not b < a, b < a, not a < b)
        assert len({a, b, CID.decode(bytes(a))}) == (1 if a == b else 2)
        assert a != bytes(a)

    def test_immutable(self) -> None:
        cid = CID.of(b"x")
        with pytest.raises(AttributeError):
            cid.codec = DAG_PB
        with pytest.raises(AttributeError):
            del cid.codec
        with pytest.raises(TypeError):
            assert cid < bytes(cid)  # type: ignore[operator]

    def test_case_does_not_matter_where_the_base_has_one_case(self) -> None:
        cid = CID.of(b"x")
        for base_name in ("base32", "base36", "base16"):
            text = cid.encode(base_name)
            assert CID.parse(text[0] + text[1:].upper()) == CID.parse(text.upper()) == cid

    @given(st.binary(max_size=80))
    def test_any_bytes_are_a_cid_or_invalid(self, data: bytes) -> None:
        try:
            cid = CID.decode(data)
        except InvalidCID:
            return
        assert bytes(cid) == data

    @given(st.text(max_size=80))
    def test_any_text_is_a_cid_or_invalid(self, text: str) -> None:
        try:
            cid = CID.parse(text)
        except InvalidCID:
            return
        assert CID.parse(str(cid)) == cid

    @pytest.mark.parametrize(
        "text",
        [
            "",
            "b",
            "Qm",
            "QmUNLLsPACCz1vLxQVkXqqLX5R1X345qqfHbsf67hvA3N",  # one character short
            "QmUNLLsPACCz1vLxQVkXqqLX5R1X345qqfHbsf67hvA3N0",  # 0 is not base58
            "zQmUNLLsPACCz1vLxQVkXqqLX5R1X345qqfHbsf67hvA3Nn",  # CIDv0 with a prefix
            "bafkreifzjut3te2nhyekklss27nh3k72ysco7y32koao5eei66wof36n5",
            "bafkreifzjut3te2nhyekklss27nh3k72ysco7y32koao5eei66wof36n5f",  # the unused bits are set
            "bafkreifzjut3te2nhyekklss27nh3k72ysco7y32koao5eei66wof36n5e=",
            " bafkreifzjut3te2nhyekklss27nh3k72ysco7y32koao5eei66wof36n5e",
            "b" + "afkrei_fzjut3te2nhyekklss27nh3k72ysco7y32koao5eei66wof36n5e",
            "bafkreifzjut3te2nhyekklss27nh3k72ysco7y32koao5eei66wof36n5é",
            "f0155 1220" + "00" * 32,
            "f02551220" + "00" * 32,  # version 2
            "f01551220" + "00" * 31,
            "f01551220" + "00" * 33,
            "f0155128000" + "00" * 32,  # length not minimal
            "k0", "?abc", "m!!!!", "u====",
            "f0155008108" + "00" * 1032,  # identity of 1,032 bytes
            "f" * 3000,
        ],
    )  # fmt: skip
    def test_refused(self, text: str) -> None:
        with pytest.raises(InvalidCID):
            CID.parse(text)

    def test_a_text_over_the_limit_is_refused_before_it_is_read(self) -> None:
        with pytest.raises(InvalidCID, match="at most 2048"):
            CID.parse("b" + "a" * 2048)

    def test_an_identity_cid_of_a_megabyte_is_refused_at_once(self) -> None:
        with pytest.raises(InvalidCID, match="at most 128"):
            CID.decode(b"\x01\x55\x00" + varint.encode(2**20) + bytes(2**20))

    @pytest.mark.parametrize(
        ("version", "codec", "code"), [(0, RAW, 0x12), (0, DAG_PB, 0x13), (2, RAW, 0x12)]
    )
    def test_combinations_that_do_not_exist(self, version: int, codec: int, code: int) -> None:
        with pytest.raises(InvalidCID):
            CID.of(b"x", codec, code, version)

    def test_unknown_base(self) -> None:
        with pytest.raises(ValueError, match="unknown multibase"):
            CID.of(b"x").encode("base3")


@given(st.binary(max_size=70))
def test_bases_keep_leading_zeros(data: bytes) -> None:
    for name in ("base32", "base36", "base58btc", "base16"):
        text = base.encode(data, name)
        assert text == multiformats.multibase.encode(data, name)
        assert base.decode(text) == data if len(text) > 1 else not data


class TestVerifyBlock:
    def test_the_right_bytes_pass(self) -> None:
        verify_block(CID.of(b"abc"), b"abc")
        verify_block(CID.of(b"abc", hash_code=0), memoryview(b"abc"))

    def test_wrong_bytes_do_not(self) -> None:
        with pytest.raises(HashMismatch, match="do not hash"):
            verify_block(CID.of(b"abc"), b"abd")

    def test_nothing_over_two_mebibytes_is_even_hashed(self) -> None:
        data = bytes(MAX_BLOCK_BYTES + 1)
        with pytest.raises(LimitExceeded):
            verify_block(CID.of(data), data)
