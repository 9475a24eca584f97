"""A second verifier of seeds, beacons and files with proofs, written from docs/proofs.md: short and slow.

It answers yes or no, and shares no code with `proofs` or `ledger`. The tests hold `proofs.audit` and
`ledger.engine.evidence_check` against it. It asks for what nobody can make up: the operator's key, or the
commitment and the seed.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from py_arkworks_bls12381 import GT, G1Point, G2Point

from tests.proofs import simple_verifier
from tests.proofs.kzg import simple_verifier as simple_kzg_verifier
from tests.proofs.simple_verifier import Link, No, item, need, sha

SIGNATURES = b"BLS_SIG_BLS12381G2_XMD:SHA-256_SSWU_RO_POP_"
ACCEPTS = {"merkle": simple_verifier.accepts, "kzg": simple_kzg_verifier.accepts}
Tree = tuple[bytes, int]


def decoded(raw: Any, most: int) -> Any:
    need(isinstance(raw, bytes) and len(raw) <= most)
    value, end = item(raw, 0)
    need(end == len(raw))
    return value


def encoded(value: Any) -> bytes:
    """DAG-CBOR of what `item` reads."""
    if value is None or isinstance(value, bool):
        return {None: b"\xf6", True: b"\xf5", False: b"\xf4"}[value]
    if isinstance(value, int):
        return initial(0, value)
    if isinstance(value, Link):
        return b"\xd8\x2a" + encoded(b"\0" + value.cid)
    if isinstance(value, bytes):
        return initial(2, len(value)) + value
    if isinstance(value, str):
        return initial(3, len(value.encode())) + value.encode()
    if isinstance(value, list):
        return initial(4, len(value)) + b"".join(encoded(each) for each in value)
    keys = sorted(value, key=lambda key: (len(key), key))
    return initial(5, len(keys)) + b"".join(encoded(key) + encoded(value[key]) for key in keys)


def initial(major: int, value: int) -> bytes:
    if value < 24:
        return bytes([major << 5 | value])
    power = next(power for power in range(4) if value < 1 << (8 << power))
    return bytes([major << 5 | 24 + power]) + value.to_bytes(1 << power, "big")


def fields(value: Any, /, **kinds: type) -> dict[str, Any]:
    """A map of exactly these fields, each of exactly this type."""
    need(isinstance(value, dict) and {name: type(each) for name, each in value.items()} == kinds)
    need(all(each >= 0 for each in value.values() if type(each) is int))
    found: dict[str, Any] = value
    return found


def counted(text: bytes) -> bytes:
    need(0 < len(text) < 256)
    return bytes([len(text)]) + text


def u64(number: int) -> bytes:
    return number.to_bytes(8, "big")


# --- seeds and the beacon


def period_seed(chain: str, dataset: bytes, node: bytes, period: int, beacon: bytes) -> bytes:
    return sha(b"holdfast/period-seed/1\0", counted(chain.encode()), dataset, node, u64(period), beacon)


def spot_seed(chain: str, deal: bytes, shard: int, node: bytes, height: int, beacon: bytes) -> bytes:
    place = counted(deal) + shard.to_bytes(2, "big")
    return sha(b"holdfast/spot-seed/1\0", counted(chain.encode()), place, node, u64(height), beacon)


def next_beacon(key: bytes, chain: str, height: int, previous: bytes, signature: bytes) -> bytes:
    """R(height), if the signature is that of `key`."""
    message = b"holdfast/beacon-message/1\0" + counted(chain.encode()) + u64(height) + previous
    need(signed_by(key, message, signature, SIGNATURES))
    return sha(b"holdfast/beacon-value/1\0", previous, signature)


def either_beacon(keys: tuple[bytes, bytes], chain: str, height: int, previous: bytes, sig: bytes) -> bytes:
    """R(height) by the operator's key that counts, or the one that did before it (empty: none)."""
    message = b"holdfast/beacon-message/1\0" + counted(chain.encode()) + u64(height) + previous
    return next_beacon(keys[not signed_by(keys[0], message, sig, SIGNATURES)], chain, height, previous, sig)


@cache
def signed_by(key: bytes, message: bytes, signature: bytes, tag: bytes) -> bool:
    """e(P, H(message)) = e(G, S); infinity in any spelling is neither a key nor a signature."""
    if (len(key), len(signature)) != (48, 96) or any(raw[0] & 0xC0 != 0x80 for raw in (key, signature)):
        return False
    try:
        left = GT.pairing(G1Point.from_compressed_bytes(key), G2Point.hash_to_curve(message, tag))
        return bool(left == GT.pairing(G1Point(), G2Point.from_compressed_bytes(signature)))
    except ValueError:
        return False


# --- a file between two people


def audit(raw: bytes, commitment: bytes, seed: bytes, k: int = 30) -> bool:
    """Whether the file answers this seed for content of this commitment, with at least k leaves."""
    try:
        file = fields(
            decoded(raw, (4 << 20) + 1024),
            cid=Link, data=list, k=int, kind=str, meta=list, of=str, proof=bytes, seed=bytes,
        )  # fmt: skip
        need(file["kind"] == "holdfast/audit-proof/1" and file["of"] in ACCEPTS)
        data, meta = (tree(*file[name]) for name in ("data", "meta") if len(file[name]) == 2)
        need(data[1] + meta[1] > 0 and min(1, data[1]) <= file["k"] <= min(512, data[1]))
        roots = b"".join(u64(leaves) + root for root, leaves in (data, meta))
        what = counted(file["of"].encode()) + counted(file["cid"].cid) + roots
        need(sha(b"holdfast/audit-commitment/1\0", what) == commitment)
        need(file["seed"] == seed and file["k"] >= min(k, data[1]))
        return ACCEPTS[file["of"]](seed, data, 0, meta, 0, file["k"], 4, file["proof"])
    except (No, ValueError):
        return False


def tree(leaves: Any, root: Any) -> Tree:
    need(type(leaves) is int and 0 <= leaves < 1 << 63 and type(root) is bytes and len(root) == 32)
    need(leaves > 0 or root == bytes(32))
    return root, leaves


# --- a file out of a ledger


def cid_of(raw: bytes) -> bytes:
    return b"\x01\x71\x12\x20" + sha(raw)


def is_signed(value: dict[str, Any], tag: bytes) -> bool:
    rest = {name: each for name, each in value.items() if name != "sig"}
    try:
        key = Ed25519PublicKey.from_public_bytes(value["account"])
        key.verify(value["sig"], tag + encoded(rest))
    except (InvalidSignature, ValueError):
        return False
    return True


def block_of(value: Any) -> dict[str, Any]:
    kinds: dict[str, type] = dict.fromkeys(("account", "app_hash", "beacon", "sig"), bytes)
    kinds |= dict.fromkeys(("block_time_s", "height", "time"), int)
    block = fields(value, chain=str, misbehaviour=list, prev=type(value["prev"]), txs=list, **kinds)
    need(all(len(block[name]) == 32 for name in ("account", "app_hash", "beacon")))
    need(len(block["misbehaviour"]) <= 10_000)
    need(all(type(each) is bytes and len(each) == 32 for each in block["misbehaviour"]))
    need(block["prev"] is None or isinstance(block["prev"], Link))
    need(is_signed(block, b"holdfast/block/1\0"))
    return block


def state_value(raw: Any, app_hash: bytes) -> tuple[bytes, dict[str, Any]]:
    """A key and the record there, if the proof leads to the app hash and is in its least form."""
    proof = fields(
        decoded(raw, 2 << 20),
        aunts=bytes, empty=int, key=bytes, leaf=list, left=type(None), right=type(None), value=bytes,
    )  # fmt: skip
    need(len(proof["leaf"]) == 3)
    index, total, beside = proof["leaf"]
    need(type(index) is int and type(total) is int and 0 <= index < total < 1 << 32)
    node = leaf_of(proof["key"], proof["value"])
    node, least = bucket_root(node, index, total, hashes(beside))
    need((index, total) == least)
    number = int.from_bytes(sha(proof["key"])[:3], "big") >> 6
    node, blank, given = leaf_of(b"state", node), leaf_of(b"state", sha()), hashes(proof["aunts"])
    need(proof["empty"] < 1 << 18)
    for level in range(18):
        other = blank if proof["empty"] >> level & 1 else take_first(given)
        need((other == blank) is bool(proof["empty"] >> level & 1))
        node = sha(b"\x01", other, node) if number >> level & 1 else sha(b"\x01", node, other)
        blank = sha(b"\x01", blank, blank)
    need(not given and node == app_hash)
    return proof["key"], decoded(proof["value"], 1 << 20)


def bucket_root(node: bytes, index: int, total: int, beside: list[bytes]) -> tuple[bytes, tuple[int, int]]:
    """The root above leaf `index` of `total`, and the least such numbers with the same sides."""
    if total == 1:
        need(not beside)
        return node, (0, 1)
    half = 1
    while half * 2 < total:
        half *= 2
    need(bool(beside))
    level = 1 << (len(beside) - 1)
    if index < half:
        below, (least, _) = bucket_root(node, index, half, beside[:-1])
        return sha(b"\x01", below, beside[-1]), (least, level + 1)
    below, (least, size) = bucket_root(node, index - half, total - half, beside[:-1])
    return sha(b"\x01", beside[-1], below), (least + level, size + level)


def leaf_of(key: bytes, value: bytes) -> bytes:
    need(len(key) < 128)  # or its length would be a longer varint
    return sha(b"\x00", bytes([len(key)]), key, b"\x20", sha(value))


def hashes(joined: Any) -> list[bytes]:
    need(type(joined) is bytes and len(joined) % 32 == 0 and len(joined) <= 32 * 32)
    return [joined[at : at + 32] for at in range(0, len(joined), 32)]


def take_first(given: list[bytes]) -> bytes:
    need(bool(given))
    return given.pop(0)


def ledger_file(raw: bytes, operator: bytes, chain: str) -> bool:
    """Whether every link of the file holds, from this operator's signature to the shown leaves."""
    try:
        return _ledger_file(raw, operator, chain)
    except (No, ValueError, KeyError, TypeError, AttributeError, OverflowError):
        return False


def _ledger_file(raw: bytes, operator: bytes, chain: str) -> bool:
    file = decoded(raw, 4 << 20)
    need(set(file) == {"beacon", "before", "block", "kind", "state", "tx"})
    need(file["kind"] == "holdfast/storage-proof/1")
    block = at = block_of(file["block"])
    need(block["account"] == operator and block["chain"] == chain)
    if file["before"] is not None:
        at = block_of(file["before"])
        need((at["account"], at["chain"], at["height"] + 1) == (operator, chain, block["height"]))
        need(block["prev"].cid == cid_of(encoded(at)))
    tx = fields(
        decoded(file["tx"], 4 << 20),
        account=bytes, body=dict, chain=str, expiry=int, fee=int, nonce=int, sig=bytes,
    )  # fmt: skip
    need(tx["chain"] == chain and is_signed(tx, b"holdfast/transaction/1\0"))
    need(cid_of(file["tx"]) in [link.cid for link in block["txs"]])
    body, node = tx["body"], tx["account"]
    state = [state_value(each, at["app_hash"]) for each in file["state"]]
    keys, records = [key for key, _ in state], [record for _, record in state]
    *_, params, proposer = records
    beacon = fields(file["beacon"], height=int, previous=bytes, signature=bytes)
    need(0 < beacon["height"] <= at["height"] and len(beacon["previous"]) == 32)
    step = [beacon[name] for name in sorted(beacon)]
    value = either_beacon((proposer["bls_key"], proposer["last_bls_key"]), chain, *step)
    need(beacon["height"] < at["height"] or value == at["beacon"])
    record = records[0]
    if file["before"] is None:
        body = fields(body, dataset=bytes, kind=str, period=int, proof=bytes)
        need(body["kind"] == "prove" and record["period"] == body["period"] and record["proven"] is True)
        first, terms, trees, depth = [b"dataset/" + body["dataset"]], record, record, record["depth"]
        seed = period_seed(chain, body["dataset"], node, body["period"], value)
        offset = int.from_bytes(sha(b"holdfast/period-offset/1\0", body["dataset"])[:8], "big")
        closes = (body["period"] + 1) * params["period_s"] - offset % params["period_s"] - 1
        drawn = record["seed_time"]
        need(record["seed_height"] == beacon["height"] and drawn >= closes - params["window_s"] + 1)
    else:
        body = fields(body, deal=Link, kind=str, proof=bytes, shard=int)
        need(body["kind"] == "answer" and records[1]["provider"] == node)
        shard = body["deal"].cid + body["shard"].to_bytes(2, "big")
        first = [b"spot/" + shard, b"shard/" + shard, b"deal/" + body["deal"].cid]
        terms, trees, depth = records[2], records[1]["piece"], 0
        need(record["seed_height"] == beacon["height"])
        seed = spot_seed(chain, body["deal"].cid, body["shard"], node, record["height"], value)
        closes = record["closes_at"]
        drawn = closes - params["window_s"]
    need(keys == [*first, b"params/" + terms["terms"].to_bytes(4, "big"), b"validator/" + operator])
    need(record["provider"] == node and record["seed"] == seed and drawn <= block["time"] <= closes)
    data, meta = ((trees[f"{name}_root"], trees[f"{name}_leaves"]) for name in ("data", "meta"))
    k, meta_k = terms["challenges"], params["meta_challenges"]
    need(0 <= k <= 512 and 0 <= meta_k <= 512 and 0 <= depth <= 20 and max(data[1], meta[1]) < 1 << 63)
    return ACCEPTS[terms["proof"]](seed, data, depth, meta, depth, k, meta_k, body["proof"])
