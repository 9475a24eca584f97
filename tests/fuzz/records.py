"""Targets: IPNS records, erasure manifests, and the ledger's transactions, beacons and genesis."""

from __future__ import annotations

import functools
import random
from typing import Any

from ledger import transactions
from ledger.errors import InvalidGenesis, InvalidTransaction
from ledger.genesis import DEMO_PARAMS, Genesis
from ledger.transactions import (
    Ask,
    CreateDeal,
    PieceCommitment,
    Prove,
    Register,
    Settle,
    Transaction,
    Transfer,
)
from merkledag import dag_cbor, ipns
from merkledag.cid import CID
from merkledag.ed25519 import Ed25519Signer
from merkledag.errors import MerkledagError
from merkledag.peer import peer_cid
from merkledag.rfc3339 import parse as moment
from merkledag.steps import Buffer, run
from proofs.erasure.manifest import build_manifest, decode_manifest, encode_manifest, plan
from proofs.errors import InvalidManifest
from tests.fuzz import mutations, oracle_pb, oracles
from tests.fuzz.target import Refused, Target, Unsure

SIGNER = Ed25519Signer.from_seed(b"\x07" * 32)
NAME = peer_cid(SIGNER.public_key).multihash
NOW_NS = moment("2026-01-01T00:00:00Z")
FIELDS = ("Value", "Validity", "ValidityType", "Sequence", "TTL")


@functools.cache
def a_record(legacy: bool, sequence: int) -> bytes:
    return ipns.create(
        SIGNER, "/ipfs/bafkqaaa/x", sequence=sequence, eol_ns=NOW_NS + 10**15, ttl_ns=300, legacy=legacy
    ).raw


def make_record(dice: random.Random) -> bytes:
    """A valid record with its fields changed, or one that says something else and is signed."""
    raw = a_record(dice.random() < 0.5, dice.choice((0, 300, 2**63 - 1)))
    if dice.random() < 0.5:
        return mutations.mutate(dice, raw)
    values: dict[str, Any] = {
        "Value": b"/ipfs/bafkqaaa",
        "Validity": dice.choice((b"2030-01-01T00:00:00Z", b"2020-01-01T00:00:00Z", b"2030-13-01T00:00:00Z")),
        "ValidityType": dice.choice((0, 0, 0, 1)),
        "Sequence": dice.choice(mutations.NUMBERS),
        "TTL": dice.choice(mutations.NUMBERS),
    }
    if dice.random() < 0.5:
        values = mutations.mutate_value(dice, values)
    data = dag_cbor.encode(values)
    if dice.random() < 0.2:
        data = mutations.mutate(dice, data, 1)
    return b"\x42\x40" + SIGNER.sign(b"ipns-signature:" + data) + b"\x4a" + mutations.varint(len(data)) + data


def our_record(raw: bytes) -> Any:
    record = ipns.decode(raw)
    ipns.verify(record, NAME, NOW_NS)
    return record.value, record.validity, record.sequence, record.ttl_ns


def oracle_record(raw: bytes) -> Any:
    """What the specification verifies, step by step. The signature itself is taken to the library."""
    if len(raw) > 10 * 1024:
        raise Refused("too large")
    fields: dict[int, Any] = {}
    for number, wire, value, _ in oracle_pb.message(raw):
        if number == 0:
            raise Refused("the field number 0")
        if number <= 9:
            if number in fields or wire != (0 if number in (3, 5, 6) else 2):
                raise Refused("a field twice, or of another wire type")
            fields[number] = value
    signature, data, key = fields.get(8, b""), fields.get(9, b""), fields.get(7, b"")
    if key not in (b"", b"\x08\x01\x12\x20" + SIGNER.public_key):
        raise Refused("another key")
    if not data or not signed(signature, data):
        raise Refused("not signed")
    try:
        values = oracles.dag_cbor(data)
    except Refused:
        raise Unsure from None  # a map in a form that is not canonical may count
    if not isinstance(values, dict) or not isinstance(values.get("Value"), bytes):
        raise Refused("no map with a value")
    if type(values.get("ValidityType")) is not int or values["ValidityType"] != 0:
        raise Refused("another type of validity")
    numbers = [values.get("Sequence"), values.get("TTL", 0)]
    if any(type(number) is not int or number < 0 for number in numbers):
        raise Refused("no sequence, or no lifetime")
    validity = values.get("Validity")
    if not isinstance(validity, bytes) or not validity.isascii():
        raise Refused("no moment")
    if validity not in (b"2030-01-01T00:00:00Z",) and not validity.startswith(b"2026-01-12T13:46:40"):
        if validity in (b"2020-01-01T00:00:00Z", b"2030-13-01T00:00:00Z"):
            raise Refused("past, or no moment")
        raise Unsure
    if fields.get(2) or fields.get(1):
        outside = (
            fields.get(1, b""),
            fields.get(4, b""),
            fields.get(3, 0),
            fields.get(5, 0),
            fields.get(6, 0),
        )
        if outside != tuple(values.get(name) for name in FIELDS):
            raise Refused("the copies differ")
    return values["Value"], validity, values["Sequence"], values.get("TTL")


def signed(signature: bytes, data: bytes) -> bool:
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    try:
        Ed25519PublicKey.from_public_bytes(SIGNER.public_key).verify(signature, b"ipns-signature:" + data)
    except InvalidSignature:
        return False
    return True


def make_manifest(dice: random.Random) -> bytes:
    """A manifest's root and parts as one list of blocks, with values in them changed."""
    k, m = dice.choice(((1, 2), (2, 3), (4, 6), (10, 16)))
    leaves = [
        (mutations.random_cid(dice), dice.randrange(1 << 20)) for _ in range(dice.choice((0, 1, 3, 12)))
    ]
    usual = {cid.multihash: size for cid, size in leaves if not cid.is_identity and len(cid.multihash) < 60}
    planned = plan(usual.items(), k, m)
    parity = [CID.of(dice.randbytes(4)) for _ in range(planned.parity_count)]
    manifest = build_manifest(CID.of(b"content"), planned, parity, [CID.of(b"inside", 0x70)])
    _, blocks = encode_manifest(manifest)
    parts = [block.data for block in blocks]
    draw = dice.random()
    if draw < 0.6:
        parts = _relinked(dice, parts)
    elif draw < 0.8:
        at = dice.randrange(len(parts))
        parts[at] = mutations.mutate(dice, parts[at])
    return dag_cbor.encode(parts)


def _relinked(dice: random.Random, parts: list[bytes]) -> list[bytes]:
    """One value in one block changed, and the root linking to what came of it."""
    values = [dag_cbor.decode(part) for part in parts]
    at = dice.randrange(len(values))
    before = CID.of(parts[at], 0x71)
    values[at] = mutations.mutate_value(dice, values[at])
    changed = dag_cbor.encode(values[at])
    if at:
        for name in ("leaves", "parity", "interior"):
            rows, links = values[0][name]
            values[0][name] = [rows, [CID.of(changed, 0x71) if link == before else link for link in links]]
    return [dag_cbor.encode(value) for value in values]


def our_manifest(data: bytes) -> Any:
    """Reads it; it must write the same blocks again."""
    parts = parts_of(data)
    blocks = {CID.of(part, 0x71): part for part in parts}

    def get(cid: CID) -> Buffer:
        if cid not in blocks:
            raise InvalidManifest("a part that is not there")
        return blocks[cid]

    root = CID.of(parts[0], 0x71)
    manifest = run(decode_manifest(root), get)
    again, written = encode_manifest(manifest)
    assert again == root
    assert {block.cid: block.data for block in written}.items() <= blocks.items()
    for node in range(min(manifest.node_count, 3)):
        list(manifest.piece(node))
    return None


def parts_of(data: bytes) -> list[bytes]:
    try:
        parts = oracles.dag_cbor(data)
    except Refused:
        parts = None
    if not isinstance(parts, list) or not parts or not all(isinstance(part, bytes) for part in parts):
        raise InvalidManifest("this target takes lists of blocks")
    return parts


def oracle_manifest(data: bytes) -> Any:
    """Simple rules of docs/proofs.md; what else must hold is that it writes the same again."""
    try:
        root = oracles.dag_cbor(parts_of(data)[0])
    except InvalidManifest as error:
        raise Refused(str(error)) from None
    if not isinstance(root, dict):
        raise Refused("no map")
    k, m, replicated = root.get("k"), root.get("m"), root.get("replicated")
    if type(k) is not int or type(m) is not int or not 1 <= k <= m <= 256:
        raise Refused("no code")
    rows = []
    for name in ("leaves", "parity", "interior"):
        series = root.get(name)
        if not isinstance(series, list) or len(series) != 2 or type(series[0]) is not int or series[0] < 0:
            raise Refused("no list")
        rows.append(series[0])
    if replicated is not (rows[0] < k):
        raise Refused("replicated or not")
    if rows[1] != (0 if replicated else -(-rows[0] // k) * (m - k)):
        raise Refused("another number of parities")
    raise Unsure


def make_transaction(dice: random.Random) -> bytes:
    tx = transactions.sign(
        Transaction("chain-1", SIGNER.public_key, dice.choice((0, 5, 2**40)), 7, 99, a_body(dice)), SIGNER
    )
    value = tx.unsigned_map() | {"sig": tx.sig}
    draw = dice.random()
    if draw < 0.15:
        return tx.encode()
    if draw < 0.75:
        return dag_cbor.encode(mutations.mutate_value(dice, value))
    return mutations.mutate(dice, tx.encode())


def a_body(dice: random.Random) -> Any:
    key = Ed25519Signer.from_seed(bytes(32)).public_key
    cid = CID.of(b"deal", 0x71)
    piece = PieceCommitment(b"\1" * 32, 3, 3_000, b"\2" * 32, 1, 100)
    return dice.choice(
        (
            Transfer(key, dice.choice((1, 10**9))),
            Register("https://node.example", 2**30, key, 10**9),
            Ask(10, 1, 2**30, open=True),
            CreateDeal(cid, cid, 2, 3, False, 30, 10, 30, (piece,) * 3, ()),
            Prove(b"\3" * 32, 4, b"proof"),
            Settle(cid, 0),
        )
    )


def our_transaction(raw: bytes) -> Any:
    tx = transactions.decode(raw)
    assert tx.encode() == raw
    assert isinstance(tx.to_json()["id"], str)
    return None


def oracle_transaction(raw: bytes) -> Any:
    value = oracles.dag_cbor(raw)
    keys = {"chain", "account", "nonce", "fee", "expiry", "body", "sig"}
    if not isinstance(value, dict) or set(value) != keys or not isinstance(value["body"], dict):
        raise Refused("not the keys of a transaction")
    numbers = [value["nonce"], value["fee"], value["expiry"]]
    if any(type(number) is not int or not 0 <= number < 2**63 for number in numbers):
        raise Refused("no number")
    for name, size in (("account", 32), ("sig", 64)):
        if not isinstance(value[name], bytes) or len(value[name]) != size:
            raise Refused(f"no {name}")
    if not isinstance(value["chain"], str) or not isinstance(value["body"].get("kind"), str):
        raise Refused("no chain or kind")
    raise Unsure


@functools.cache
def a_genesis() -> Genesis:
    from proofs.bls.signatures import BlsSigner

    signer = BlsSigner.from_seed(b"\5" * 32)
    return Genesis.make(
        chain_id="fuzz-1",
        time_s=1_700_000_000,
        operator=SIGNER.public_key,
        bls_key=signer.public_key,
        bls_possession=signer.prove_possession(),
        issued=10**18,
        params=DEMO_PARAMS,
    )


def make_genesis(dice: random.Random) -> bytes:
    value = a_genesis().to_map()
    if dice.random() < 0.7:
        return dag_cbor.encode(mutations.mutate_value(dice, value))
    return mutations.mutate(dice, a_genesis().encode())


def our_genesis(raw: bytes) -> Any:
    genesis = Genesis.decode(raw)
    assert genesis.encode() == raw
    assert Genesis.loads(genesis.dumps()) == genesis
    return None


def oracle_genesis(raw: bytes) -> Any:
    if raw == a_genesis().encode():
        return None
    value = oracles.dag_cbor(raw)
    keys = set(a_genesis().to_map())
    if not isinstance(value, dict) or set(value) != keys or not isinstance(value["params"], dict):
        raise Refused("not the keys of a genesis")
    if set(value["params"]) != set(a_genesis().to_map()["params"]):
        raise Refused("not the parameters")
    for name in ("bls_key", "bls_possession"):
        if value[name] != getattr(a_genesis(), name):
            raise Refused("a key that nobody proved")
    raise Unsure


TARGETS = (
    Target("ipns", make_record, our_record, oracle_record, (MerkledagError,)),
    Target("manifest", make_manifest, our_manifest, oracle_manifest, (InvalidManifest,)),
    Target("transaction", make_transaction, our_transaction, oracle_transaction, (InvalidTransaction,)),
    Target("genesis", make_genesis, our_genesis, oracle_genesis, (InvalidGenesis,)),
)
