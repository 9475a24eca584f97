"""Values have one form in DAG-CBOR and DAG-JSON, and nodes one in dag-pb, in every implementation."""

from __future__ import annotations

import random
from base64 import b64decode, b64encode
from collections.abc import Callable
from typing import Any

import pytest

from merkledag import dag_cbor, dag_json, dag_pb
from merkledag.cid import CID
from tests.fuzz import mutations
from tests.fuzz.registry import TARGETS
from tests.peers import support

pytestmark = pytest.mark.peers

VALUES = 600
INPUTS = 1_000


@pytest.fixture(params=["boxo", "js"])
def peer(request: pytest.FixtureRequest) -> support.Peer:
    return support.find_peer(request.param)


def verdicts(peer: support.Peer, kind: str, inputs: list[bytes], to: str = "") -> list[dict[str, Any]]:
    """What a peer says of bytes: {"ok", "again", "error"} each."""
    job = {"do": "decode", "as": kind, "to": to, "inputs": [b64encode(raw).decode() for raw in inputs]}
    (result,) = peer.run([job])
    found: list[dict[str, Any]] = result["verdicts"]
    return found


def again(verdict: dict[str, Any]) -> bytes:
    assert verdict["ok"], verdict
    return b64decode(verdict.get("again") or "")


def is_exact_everywhere(value: Any) -> bool:
    """Whether both peers can hold the value: integers of 64 bits with a sign, floats that are not whole.

    JavaScript makes no difference between 1.0 and 1, and Go writes 1.0 to JSON as 1.
    """
    if isinstance(value, float):
        return not value.is_integer()
    if isinstance(value, int):
        return -(2**63) <= value < 2**63
    if isinstance(value, list | dict):
        return all(map(is_exact_everywhere, value.values() if isinstance(value, dict) else value))
    return True


def values() -> list[Any]:
    made = (mutations.random_value(random.Random(seed)) for seed in range(VALUES))
    return [value for value in made if is_exact_everywhere(value)]


def test_values_have_the_same_bytes(peer: support.Peer) -> None:
    encoded = list(map(dag_cbor.encode, values()))
    assert list(map(again, verdicts(peer, "dag-cbor", encoded))) == encoded


def test_dag_cbor_and_dag_json_are_the_same_values(peer: support.Peer) -> None:
    pairs = []
    for value in values():
        try:
            pairs.append((dag_cbor.encode(value), dag_json.encode(value).encode()))
        except ValueError:  # a map that DAG-JSON would take for a CID or bytes
            continue
    cbor, text = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
    assert len(pairs) > VALUES // 2
    assert list(map(again, verdicts(peer, "dag-cbor", cbor, to="dag-json"))) == text
    assert list(map(again, verdicts(peer, "dag-json", text, to="dag-cbor"))) == cbor
    assert list(map(again, verdicts(peer, "dag-json", text))) == text


def test_nodes_have_the_same_bytes(peer: support.Peer) -> None:
    nodes = []
    for seed in range(200):
        dice = random.Random(seed)
        names = sorted(dice.choice((b"", b"a", "é".encode(), b"x" * 200)) for _ in range(dice.randrange(6)))
        links = [
            dag_pb.encode_link(mutations.random_cid(dice), name, dice.choice((0, 300, 2**40)))
            for name in names
        ]
        nodes.append(dag_pb.assemble(links, dice.choice((None, b"", b"\x08\x01", dice.randbytes(200)))))
    assert list(map(again, verdicts(peer, "dag-pb", nodes))) == nodes


# What we take and they do not: integers below −2⁶³ (DAG-CBOR has 64 bits beside the sign), sizes of links
# over 2⁶³ (the Go codec cannot write them), links that are not sorted (they are read, not written), the rarer
# bases, and an index offset in a header (ours is judged when the index is read).
ALLOWED = {
    "dag-cbor": ("negative integer out of ra",),
    "dag-pb": ("negative Tsize", "Tsize too large", "links must be sorted"),
    "cid-text": ("selected encoding not supported", "decoder must be provided"),
    "car": ("invalid index offset",),
}


@pytest.mark.parametrize(
    ("kind", "peer_names"),
    [
        ("varint", ["boxo"]),
        ("multihash", ["boxo"]),
        ("cid", ["boxo"]),
        ("cid-text", ["boxo"]),
        ("dag-cbor", ["boxo", "js"]),
        ("dag-pb", ["boxo", "js"]),
        ("car", ["boxo", "js"]),
    ],
)
def test_we_accept_no_changed_bytes_that_others_refuse(kind: str, peer_names: list[str]) -> None:
    target = TARGETS[kind]
    inputs = [target.make(random.Random(f"verdict {seed}")) for seed in range(INPUTS)]
    accepted = [raw for raw in inputs if takes(target.decode, raw)]
    assert INPUTS // 10 < len(accepted) < INPUTS
    for name in peer_names:
        for raw, verdict in zip(accepted, verdicts(support.find_peer(name), kind, accepted), strict=True):
            excused = any(text in verdict.get("error", "") for text in ALLOWED.get(kind, ()))
            assert verdict["ok"] or excused, f"{name}: {raw.hex()}: {verdict}"


def takes(decode: Callable[[bytes], Any], raw: bytes) -> bool:
    try:
        decode(raw)
    except Exception:
        return False
    return True


def test_every_text_of_a_cid_is_read_by_go() -> None:
    boxo = support.find_peer("boxo")
    cids = [mutations.random_cid(random.Random(seed)) for seed in range(100)]
    cids = [cid for cid in cids if cid.version == 1]
    bases = ("base2", "base16", "base32", "base32hex", "base32pad", "base36", "base58btc", "base64url")
    for base in bases:
        texts = [cid.encode(base).encode() for cid in cids]
        assert list(map(again, verdicts(boxo, "cid-text", texts))) == list(map(bytes, cids)), base
        assert [CID.parse(text.decode()) for text in texts] == cids
