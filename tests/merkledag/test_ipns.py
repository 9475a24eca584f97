"""IPNS records: what is made, what is accepted, and for which reason the rest is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from hypothesis import given
from hypothesis import strategies as st

from merkledag import dag_cbor, errors, ipns, peer, protobuf, rfc3339
from merkledag.ed25519 import Ed25519Signer
from merkledag.keys import MAX_INLINE_BYTES, KeyKind, PublicKey, decode_public_key

SIGNER = Ed25519Signer.from_seed(bytes(range(32)))
NAME = peer.peer_cid(SIGNER.public_key).multihash
SELF = peer.name_text(NAME)
OTHER = Ed25519Signer.from_seed(bytes(32))
PATH = "/ipfs/bafkqaddwgevxmmraojswg33smq"
NOW_NS = rfc3339.parse("2026-01-01T00:00:00Z")
HOUR_NS = 3600 * rfc3339.SECOND_NS
PREFIX = b"ipns-signature:"


def make(value: str = PATH, *, legacy: bool = True, sequence: int = 7, **extra: object) -> ipns.Record:
    return ipns.create(
        SIGNER, value, sequence=sequence, eol_ns=NOW_NS + HOUR_NS, ttl_ns=300 * rfc3339.SECOND_NS,
        legacy=legacy, extra=extra,
    )  # fmt: skip


def message(fields: dict[int, bytes | int]) -> bytes:
    """A protobuf message, written without the code under test."""
    out = b""
    for number, value in fields.items():
        if isinstance(value, int):
            out += protobuf.varint(number << 3) + protobuf.varint(value)
        else:
            out += protobuf.varint(number << 3 | 2) + protobuf.varint(len(value)) + value
    return out


def signed(changes: dict[str, object], *, drop: str = "", signer: Ed25519Signer = SIGNER) -> bytes:
    """A record of the second kind whose signed map differs from the usual one."""
    fields = {
        "Value": PATH.encode(), "Validity": b"2026-01-01T01:00:00Z", "ValidityType": 0, "Sequence": 7,
        "TTL": 5, **changes,
    }  # fmt: skip
    fields.pop(drop, None)
    data = dag_cbor.encode(fields)
    return message({8: signer.sign(PREFIX + data), 9: data})


def check(raw: bytes, name: bytes = NAME, now_ns: int = NOW_NS) -> ipns.Record:
    record = ipns.decode(raw)
    ipns.verify(record, name, now_ns)
    return record


class TestRoundTrip:
    @given(
        value=st.sampled_from(
            [PATH, PATH + "/a b/ü", "/ipns/example.org/x", "/ipns/" + peer.name_text(NAME)]
        ),
        sequence=st.integers(0, 2**63 - 1),
        ttl_ns=st.integers(0, 2**63 - 1),
        lifetime_ns=st.integers(1, 200 * 365 * 24 * HOUR_NS),
        legacy=st.booleans(),
    )
    def test_what_is_made_is_accepted(
        self, value: str, sequence: int, ttl_ns: int, lifetime_ns: int, legacy: bool
    ) -> None:
        made = ipns.create(
            SIGNER, value, sequence=sequence, eol_ns=NOW_NS + lifetime_ns, ttl_ns=ttl_ns, legacy=legacy
        )
        record = check(made.raw)
        assert record == made
        assert (record.value, record.sequence, record.ttl_ns) == (value.encode(), sequence, ttl_ns)
        assert record.eol_ns == NOW_NS + lifetime_ns
        assert record.is_legacy == legacy
        assert record.public_key == b""
        assert str(record.path) == value

    def test_the_signed_map_is_canonical(self) -> None:
        assert list(dag_cbor.decode(make().data)) == ["TTL", "Value", "Sequence", "Validity", "ValidityType"]

    def test_a_record_of_the_second_kind_holds_signature_and_data_alone(self) -> None:
        record = make(legacy=False)
        assert record.raw == message({8: record.signature, 9: record.data})

    def test_fields_of_ones_own_are_signed_and_kept(self) -> None:
        record = check(make(_note="hello", _n=3).raw)
        assert record.extra == {"_note": "hello", "_n": 3}

    @pytest.mark.parametrize("name", ["Value", "TTL", ""])
    def test_they_cannot_replace_those_of_the_specification(self, name: str) -> None:
        with pytest.raises(ValueError, match="field of one's own"):
            ipns.create(SIGNER, PATH, sequence=0, eol_ns=NOW_NS, ttl_ns=0, extra={name: b"x"})

    @pytest.mark.parametrize("value", ["", "bafkqaaa", "/ipfs/nonsense", "/ipld/bafkqaaa", "/"])
    def test_only_content_paths_are_published(self, value: str) -> None:
        with pytest.raises(errors.RecordValueInvalid):
            make(value)

    @pytest.mark.parametrize("sequence", [-1, 2**63])
    def test_numbers_that_others_could_not_read_are_not_written(self, sequence: int) -> None:
        with pytest.raises(ValueError, match="outside"):
            make(sequence=sequence)

    def test_nothing_over_the_limit_is_made(self) -> None:
        with pytest.raises(ValueError, match="at most 10240"):
            make(_fill=b"x" * 10_000)


class TestTampering:
    @given(st.booleans(), st.data())
    def test_a_changed_byte_is_refused_or_never_looked_at(self, legacy: bool, data: st.DataObject) -> None:
        record = make(legacy=legacy)
        at = data.draw(st.integers(0, len(record.raw) - 1))
        raw = bytearray(record.raw)
        raw[at] ^= data.draw(st.integers(1, 255))
        try:
            changed = check(bytes(raw))
        except errors.RecordError:
            return
        # Nobody verifies the first signature (spec, record verification); all else is covered.
        assert legacy
        assert changed.legacy_signature != record.legacy_signature
        assert (changed.data, changed.value, changed.eol_ns) == (record.data, record.value, record.eol_ns)

    @given(st.integers(0, 300))
    def test_a_record_cut_off_is_refused(self, size: int) -> None:
        raw = make().raw
        with pytest.raises(errors.RecordError):
            check(raw[: min(size, len(raw) - 1)])

    @given(st.binary(max_size=200))
    def test_noise_gives_nothing_but_the_documented_error(self, noise: bytes) -> None:
        with pytest.raises(errors.MalformedRecord):
            ipns.decode(noise)

    def test_a_record_of_ten_kibibytes_is_the_largest(self) -> None:
        raw = make(legacy=False).raw
        tag = protobuf.varint(15 << 3 | 2)  # an unknown field, which is passed over
        size = ipns.MAX_RECORD_BYTES - len(raw) - len(tag) - 2
        largest = raw + tag + protobuf.varint(size) + bytes(size)
        assert len(largest) == 10_240
        check(largest)
        with pytest.raises(errors.MalformedRecord, match="at most 10240"):
            ipns.decode(raw + tag + protobuf.varint(size + 1) + bytes(size + 1))

    @pytest.mark.parametrize("again", [message({9: b"\xa0"}), message({8: b"x"})])
    def test_a_field_that_comes_twice_is_refused(self, again: bytes) -> None:
        with pytest.raises(errors.MalformedRecord, match="twice"):
            ipns.decode(make().raw + again)

    def test_a_key_of_the_map_that_comes_twice_is_refused(self) -> None:
        data = make().data
        assert data[0] == 0xA5
        data = b"\xa6" + data[1:] + b"\x63TTL\x01"
        with pytest.raises(errors.MalformedRecord, match="twice"):
            ipns.decode(message({8: SIGNER.sign(PREFIX + data), 9: data}))


class TestRefusals:
    """Each step of the specification's verification, with its own error."""

    def test_without_the_second_signature(self) -> None:
        with pytest.raises(errors.RecordSignatureInvalid, match="no second signature"):
            check(message({9: make().data}))

    @pytest.mark.parametrize("fields", [{}, {1: PATH.encode(), 2: b"sig"}, {8: b"sig"}, {8: b"sig", 9: b""}])
    def test_without_signed_data(self, fields: dict[int, bytes | int]) -> None:
        with pytest.raises(errors.MalformedRecord, match="no signed data"):
            check(message(fields))

    def test_of_another_name(self) -> None:
        with pytest.raises(errors.RecordSignatureInvalid, match="not signed by the name's key"):
            check(make().raw, peer.peer_cid(OTHER.public_key).multihash)

    def test_with_the_key_of_another_name(self) -> None:
        key = PublicKey(KeyKind.ED25519, OTHER.public_key).encode()
        raw = signed({}, signer=OTHER) + message({7: key})
        with pytest.raises(errors.RecordKeyMismatch):
            check(raw)
        check(raw, peer.peer_cid(OTHER.public_key).multihash)

    def test_of_a_name_that_is_a_hash_without_the_key(self) -> None:
        with pytest.raises(errors.RecordKeyMissing):
            check(make().raw, b"\x12\x20" + bytes(32))

    @pytest.mark.parametrize("number", [1, 4, 5, 6])
    def test_with_an_old_field_that_differs(self, number: int) -> None:
        record = make()
        old: dict[int, bytes | int] = {
            1: record.value, 2: record.legacy_signature, 4: record.validity, 5: record.sequence,
            6: record.ttl_ns or 0, 8: record.signature, 9: record.data,
        }  # fmt: skip
        check(message(old))  # a validity type of 0 may be left out
        changed = old[number]
        old[number] = changed + 1 if isinstance(changed, int) else changed + b"x"
        with pytest.raises(errors.RecordFieldsDisagree):
            check(message(old))
        del old[number]
        with pytest.raises(errors.RecordFieldsDisagree):
            check(message(old))

    def test_at_its_end_and_a_nanosecond_before(self) -> None:
        raw = make().raw
        check(raw, now_ns=NOW_NS + HOUR_NS - 1)
        with pytest.raises(errors.RecordExpired, match="2026-01-01T01:00:00Z"):
            check(raw, now_ns=NOW_NS + HOUR_NS)

    def test_of_another_type_of_validity(self) -> None:
        with pytest.raises(errors.RecordValidityUnknown):
            check(signed({"ValidityType": 1, "Validity": b"whatever"}))

    @pytest.mark.parametrize("name", ["Value", "Validity", "ValidityType", "Sequence"])
    def test_without_a_field(self, name: str) -> None:
        with pytest.raises(errors.MalformedRecord, match=name):
            check(signed({}, drop=name))

    @pytest.mark.parametrize(
        "changes",
        [
            {"Value": PATH}, {"Validity": "2026-01-01T01:00:00Z"}, {"Validity": b"tomorrow"},
            {"Validity": b"\xff"}, {"Sequence": -1}, {"Sequence": "1"}, {"TTL": 1.5}, {"ValidityType": None},
        ],
    )  # fmt: skip
    def test_with_a_field_of_another_form(self, changes: dict[str, object]) -> None:
        with pytest.raises(errors.MalformedRecord):
            check(signed(changes))

    def test_a_missing_ttl_is_left_to_the_reader(self) -> None:
        record = check(signed({}, drop="TTL"))
        assert record.ttl_ns is None
        assert record.remaining_ttl_ns(NOW_NS, 60) == 60


class TestValues:
    def path(self, value: bytes) -> str:
        return str(check(signed({"Value": value})).path)

    def test_of_legacy_publishers(self) -> None:
        assert self.path(b"") == "/ipfs/bafkqaaa"
        assert self.path(b"\x01\x55\x00\x02hi") == "/ipfs/bafkqaatine"

    @pytest.mark.parametrize("value", [b"/ipfs/x", b"/http/example.org", b"bafkqaaa", b"\xff\xfe", b"/\xff"])
    def test_without_a_content_path_the_record_is_valid_and_leads_nowhere(self, value: bytes) -> None:
        record = check(signed({"Value": value}))
        with pytest.raises(errors.RecordValueInvalid):
            _ = record.path


class TestOrder:
    def test_by_sequence_then_end_then_bytes(self) -> None:
        first = make(sequence=1)
        longer = ipns.create(SIGNER, PATH, sequence=1, eol_ns=NOW_NS + 2 * HOUR_NS, ttl_ns=0)
        higher = make(sequence=2)
        twin = replace(first, raw=first.raw + b"\x78\x00")
        assert sorted([higher, twin, longer, first], key=ipns.order) == [first, twin, longer, higher]

    def test_the_ttl_ends_with_the_record(self) -> None:
        record = make()
        assert record.remaining_ttl_ns(NOW_NS, 0) == 300 * rfc3339.SECOND_NS
        assert record.remaining_ttl_ns(NOW_NS + HOUR_NS - 5, 0) == 5
        assert record.remaining_ttl_ns(NOW_NS + 2 * HOUR_NS, 0) == 0


# -- keys of other kinds ------------------------------------------------------------------------------------


def pkix(key: ec.EllipticCurvePublicKey | rsa.RSAPublicKey) -> bytes:
    return key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)


@pytest.fixture(scope="module")
def rsa_key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65537, 2048)


def record_of(key: PublicKey, signature: bytes, data: bytes) -> bytes:
    embedded: dict[int, bytes | int] = {7: key.encode()} if len(key.encode()) > MAX_INLINE_BYTES else {}
    return message({**embedded, 8: signature, 9: data})


class TestOtherKeys:
    DATA = ipns.decode(signed({})).data

    def test_rsa(self, rsa_key: rsa.RSAPrivateKey) -> None:
        key = PublicKey(KeyKind.RSA, pkix(rsa_key.public_key()))
        signature = rsa_key.sign(PREFIX + self.DATA, padding.PKCS1v15(), hashes.SHA256())
        name = key.multihash()
        assert name[:2] == b"\x12\x20"
        check(record_of(key, signature, self.DATA), name)
        for bad in (signature[:-1], signature[:-1] + bytes((signature[-1] ^ 1,)), b"x"):
            with pytest.raises(errors.RecordSignatureInvalid):
                check(record_of(key, bad, self.DATA), name)

    def test_secp256k1_in_the_name(self) -> None:
        private = ec.derive_private_key(7, ec.SECP256K1())
        point = private.public_key().public_bytes(
            serialization.Encoding.X962, serialization.PublicFormat.CompressedPoint
        )
        key = PublicKey(KeyKind.SECP256K1, point)
        assert key.multihash()[0] == 0
        signature = private.sign(PREFIX + self.DATA, ec.ECDSA(hashes.SHA256()))
        check(record_of(key, signature, self.DATA), key.multihash())
        with pytest.raises(errors.RecordSignatureInvalid):
            check(record_of(key, b"\x30\x00", self.DATA), key.multihash())

    def test_ecdsa(self) -> None:
        private = ec.derive_private_key(7, ec.SECP256R1())
        key = PublicKey(KeyKind.ECDSA, pkix(private.public_key()))
        signature = private.sign(PREFIX + self.DATA, ec.ECDSA(hashes.SHA256()))
        check(record_of(key, signature, self.DATA), key.multihash())

    @pytest.mark.parametrize("bits", [1_024, 8_200])
    def test_a_small_or_huge_rsa_key_is_refused(self, bits: int) -> None:
        modulus = (1 << bits - 1) + 1  # whether it is a product of primes is not looked at
        key = PublicKey(KeyKind.RSA, pkix(rsa.RSAPublicNumbers(65537, modulus).public_key()))
        with pytest.raises(errors.UnsupportedKey, match=f"{bits} bits"):
            check(record_of(key, bytes(128), self.DATA), key.multihash())

    def test_a_long_key_is_refused_before_it_is_looked_at(self) -> None:
        with pytest.raises(errors.UnsupportedKey, match="at most 1200"):
            decode_public_key(PublicKey(KeyKind.ECDSA, bytes(1_200)).encode())

    @pytest.mark.parametrize(
        "encoded",
        [
            b"", b"\x08", b"\x08\x01", b"\x08\x04\x12\x01x", b"\x08\x01\x12\x1f" + bytes(31),
            b"\x08\x01\x12\x20" + bytes(32) + b"\x18\x00", b"\x12\x20" + bytes(32) + b"\x08\x01",
            b"\x08\x81\x00\x12\x20" + bytes(32), b"\x08\x02\x12\x20" + bytes(32), bytes(2000),
        ],
    )  # fmt: skip
    def test_other_encodings_of_keys_are_refused(self, encoded: bytes) -> None:
        with pytest.raises(errors.UnsupportedKey):
            decode_public_key(encoded)

    @pytest.mark.parametrize("kind", [KeyKind.RSA, KeyKind.ECDSA, KeyKind.SECP256K1])
    def test_a_key_that_is_none_is_refused(self, kind: KeyKind) -> None:
        key = PublicKey(kind, bytes(33))
        with pytest.raises(errors.UnsupportedKey):
            key.verify(bytes(64), b"")


# -- moments ------------------------------------------------------------------------------------------------


class TestMoments:
    @given(st.integers(-62_167_219_200 * 10**9, 253_402_300_800 * 10**9 - 1))
    def test_every_nanosecond_comes_back(self, moment_ns: int) -> None:
        assert rfc3339.parse(rfc3339.format_ns(moment_ns)) == moment_ns

    @pytest.mark.parametrize(
        ("text", "moment_ns"),
        [
            ("1970-01-01T00:00:00.000000001Z", 1),
            ("1970-01-01T01:30:00.5+01:30", 5 * 10**8),
            ("1969-12-31T23:59:59.999999999Z", -1),
            ("2000-02-29T00:00:00Z", 951_782_400 * 10**9),
            ("2262-04-11T23:47:16.854775807Z", 2**63 - 1),
            ("9999-12-31T23:59:59-23:59", (253_402_300_799 + 86_340) * 10**9),
        ],
    )
    def test_known_ones(self, text: str, moment_ns: int) -> None:
        assert rfc3339.parse(text) == moment_ns

    @pytest.mark.parametrize(
        "text",
        [
            "", "2026-01-01", "2026-01-01T00:00:00", "2026-01-01t00:00:00z", "2026-01-01 00:00:00Z",
            "2026-13-01T00:00:00Z", "2026-00-01T00:00:00Z", "2026-02-29T00:00:00Z", "2100-02-29T00:00:00Z",
            "2026-01-01T24:00:00Z", "2026-01-01T00:60:00Z", "2026-01-01T00:00:60Z", "26-01-01T00:00:00Z",
            "2026-01-01T00:00:00.Z", "2026-01-01T00:00:00.0000000001Z", "2026-01-01T00:00:00+24:00",
            "２026-01-01T00:00:00Z", "2026-01-01T00:00:00Z\n",
        ],
    )  # fmt: skip
    def test_other_texts_are_refused(self, text: str) -> None:
        with pytest.raises(errors.DecodeError):
            rfc3339.parse(text)

    def test_years_of_five_digits_are_not_written(self) -> None:
        with pytest.raises(ValueError, match="four digits"):
            rfc3339.format_ns(253_402_300_800 * 10**9)


# -- records of other programs ------------------------------------------------------------------------------

# What the specification says of its test vectors (IPIP-428), by a part of their file names.
VERDICTS = {
    "_v1_": errors.MalformedRecord,
    "_v1-v2-broken-v1-value_": errors.RecordFieldsDisagree,
    "_v1-v2-broken-signature-v2_": errors.RecordSignatureInvalid,
    "_v1-v2-broken-signature-v1_": "/ipfs/bafkqahtwgevxmmrao5uxi2bamjzg623fnyqhg2lhnzqxi5lsmuqhmmi",
    "_v1-v2_": "/ipfs/bafkqaddwgevxmmraojswg33smq",
    "_v2_": "/ipfs/bafkqadtwgiww63tmpeqhezldn5zgi",
}


def test_the_vectors_of_the_specification(gateway_fixtures: Path) -> None:
    seen = set()
    for file in gateway_fixtures.glob("*.ipns-record"):
        name = peer.parse_name(file.name.partition("_")[0].partition(".")[0])
        verdict = next((VERDICTS[part] for part in VERDICTS if part in file.name), None)
        seen.add(verdict)
        if isinstance(verdict, type):
            with pytest.raises(verdict):
                check(file.read_bytes(), name)
            continue
        record = check(file.read_bytes(), name)
        assert verdict is None or str(record.path) == verdict
        for other in (NAME, b"\x12\x20" + bytes(32)):
            with pytest.raises(errors.RecordError):
                ipns.verify(record, other, NOW_NS)
    assert seen == {*VERDICTS.values(), None}
