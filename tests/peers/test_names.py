"""IPNS records: the same bytes as boxo and the JavaScript library make, and the same verdicts."""

from __future__ import annotations

import random
from base64 import b64decode, b64encode
from dataclasses import dataclass
from typing import Any

import pytest

from merkledag import ipns, rfc3339
from merkledag.cid import CID
from merkledag.ed25519 import Ed25519Signer
from merkledag.errors import MerkledagError
from merkledag.peer import peer_cid, peer_text
from merkledag.rfc3339 import SECOND_NS
from tests.fuzz import oracle_pb
from tests.fuzz.mutations import mutate
from tests.peers import support

pytestmark = pytest.mark.peers

YEAR_2100_NS = rfc3339.parse("2100-01-01T00:00:00Z")
NOW_NS = rfc3339.parse(
    "2026-01-01T00:00:00Z"
)  # far from every end of validity made here, as is the real time
TARGET = "/ipfs/bafkreigh2akiscaildcqabsyg3dfr6chu3fgpregiymsck7e7aqa4s52zy"


@pytest.fixture(params=["boxo", "js"])
def peer(request: pytest.FixtureRequest) -> support.Peer:
    return support.find_peer(request.param)


@dataclass(frozen=True, slots=True)
class Terms:
    """What a record says."""

    seed: bytes
    value: str
    sequence: int
    eol_ns: int
    ttl_ns: int
    legacy: bool

    def sign(self) -> ipns.Record:
        return ipns.create(
            Ed25519Signer.from_seed(self.seed),
            self.value,
            sequence=self.sequence,
            eol_ns=self.eol_ns,
            ttl_ns=self.ttl_ns,
            legacy=self.legacy,
        )

    def job(self) -> dict[str, Any]:
        return {
            "do": "sign",
            "seed": b64encode(self.seed).decode(),
            "value": self.value,
            "sequence": self.sequence,
            "eol": rfc3339.format_ns(self.eol_ns),
            "ttl_ns": self.ttl_ns,
            "v1": self.legacy,
        }

    @property
    def name(self) -> str:
        return peer_text(Ed25519Signer.from_seed(self.seed).public_key)


def random_terms(seed: int) -> Terms:
    dice = random.Random(seed)
    key = dice.randbytes(32)
    values = [TARGET, f"{TARGET}/a/b c/é", f"/ipns/{'x' * dice.randint(1, 60)}.example", "/ipfs/bafkqaaa"]
    # JavaScript reads the numbers of the job: those above 2⁵³ would arrive there as others.
    number = dice.choice((0, 1, 23, 24, 255, 256, 65_536, 2**32, 2**53 - 1))
    fraction_ns = dice.choice((0, 1, 120_000_000, 999_999_999))
    return Terms(
        key,
        dice.choice(values),
        number,
        YEAR_2100_NS + dice.randrange(10**9) * SECOND_NS + fraction_ns,
        dice.choice((0, 1, 300 * SECOND_NS, 2**53 - 1)),
        dice.random() < 0.5,
    )


def test_records_are_the_same_bytes(peer: support.Peer) -> None:
    terms = [random_terms(seed) for seed in range(100)]
    if peer.name == "js":  # it writes all nine digits of a fraction of a second
        terms = [each for each in terms if each.eol_ns % 10]
    for each, result in zip(terms, peer.run([each.job() for each in terms]), strict=True):
        assert b64decode(result["record"]) == each.sign().raw, each


def validating(name: str, records: list[bytes]) -> dict[str, Any]:
    return {"do": "validate", "name": name, "records": [b64encode(raw).decode() for raw in records]}


def test_our_records_are_valid_elsewhere(peer: support.Peer) -> None:
    terms = [random_terms(seed) for seed in range(100, 160)]
    results = peer.run([validating(each.name, [each.sign().raw]) for each in terms])
    for each, result in zip(terms, results, strict=True):
        (verdict,) = result["verdicts"]
        assert verdict["ok"], (each, verdict)
        assert (verdict["value"], verdict["sequence"]) == (each.value, each.sequence)
        assert verdict["ttl_ns"] == each.ttl_ns
        assert rfc3339.parse(verdict["eol"]) == each.eol_ns


def our_verdict(raw: bytes, name: bytes) -> str:
    """Empty for a valid record with a path, else the class of our error."""
    try:
        record = ipns.decode(raw)
        ipns.verify(record, name, NOW_NS)
        str(record.path)
    except MerkledagError as error:
        return type(error).__name__
    return ""


def test_no_changed_record_is_valid_here_and_not_in_boxo() -> None:
    """Bytes changed by the dice: what we take, boxo takes with the same meaning, and the other way round.

    Where we are stricter, a protobuf field comes twice or with another wire type; where boxo is, an unknown
    one has a number over the 29 bits that protobuf knows.
    """
    boxo = support.find_peer("boxo")
    dice = random.Random(7)
    for seed in range(4):
        terms = random_terms(1_000 + seed)
        name = peer_cid(Ed25519Signer.from_seed(terms.seed).public_key).multihash
        raws = [terms.sign().raw] + [mutate(dice, terms.sign().raw) for _ in range(400)]
        (result,) = boxo.run([validating(terms.name, raws)])
        for raw, verdict in zip(raws, result["verdicts"], strict=True):
            ours = our_verdict(raw, name)
            if not ours:
                if any(field[0] >= 2**29 for field in oracle_pb.message(raw)):
                    continue
                assert verdict["ok"], (raw.hex(), verdict)
                assert verdict["sequence"] == ipns.decode(raw).sequence
            elif verdict["ok"]:
                assert ours == "MalformedRecord", (raw.hex(), ours)


def test_the_better_record_is_the_same_one(peer: support.Peer) -> None:
    dice = random.Random(11)
    jobs, ours = [], []
    for seed in range(60):
        base = random_terms(seed)
        records = []
        for _ in range(dice.randint(2, 5)):
            eol_ns = base.eol_ns + dice.choice((0, 0, 1, SECOND_NS))
            number = base.sequence + dice.choice((0, 0, 1))
            records.append(Terms(base.seed, base.value, number, eol_ns, base.ttl_ns, legacy=True).sign())
        jobs.append({"do": "select", "records": [b64encode(each.raw).decode() for each in records]})
        ours.append(records)
    for records, result in zip(ours, peer.run(jobs), strict=True):
        best = max(records, key=ipns.order)
        chosen = records[result["chosen"]]
        # JavaScript compares whole milliseconds, and leaves what is equal in them to the order of the list.
        if peer.name == "boxo":
            assert chosen.raw == best.raw
        else:
            milli = 1_000_000
            assert (chosen.sequence, (chosen.eol_ns or 0) // milli) == (
                best.sequence,
                (best.eol_ns or 0) // milli,
            )


def test_names_are_the_same_text() -> None:
    boxo = support.find_peer("boxo")
    terms = [random_terms(seed) for seed in range(20)]
    results = boxo.run([each.job() for each in terms])
    assert [result["name"] for result in results] == [each.name for each in terms]
    assert all(CID.parse(each.name).encode("base36") == each.name for each in terms)


@pytest.mark.parametrize("kind", ["rsa", "ecdsa", "secp256k1"])
def test_records_of_other_kinds_of_keys_are_verified(kind: str) -> None:
    boxo = support.find_peer("boxo")
    terms = [random_terms(seed) for seed in range(4)]
    for each, result in zip(terms, boxo.run([each.job() | {"kind": kind} for each in terms]), strict=True):
        name, raw = CID.parse(result["name"]).multihash, b64decode(result["record"])
        record = ipns.decode(raw)
        ipns.verify(record, name, NOW_NS)
        assert (str(record.path), record.sequence, record.ttl_ns) == (each.value, each.sequence, each.ttl_ns)
        for at in (0, len(record.signature) // 2, len(record.signature) - 1):
            wrong = bytearray(record.signature)
            wrong[at] ^= 1
            changed = raw.replace(record.signature, bytes(wrong))
            assert our_verdict(changed, name) == "RecordSignatureInvalid"
