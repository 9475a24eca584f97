"""State proofs as bytes: canonical, bounded, and as CometBFT checks them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ledger import state_proof
from ledger.errors import InvalidStateProof
from ledger.state_tree import BUCKETS, StateProof, bucket_of, verify
from merkledag import dag_cbor
from tests.ledger.test_state import Tree, crowded


@pytest.fixture(scope="module")
def tree() -> Tree:
    return Tree({**crowded(7), **{b"key %d" % n: b"value %d" % n for n in range(300)}})


def proofs(tree: Tree) -> list[StateProof]:
    """Of presence alone and in company, of absence between, beside and without neighbours."""
    inside = sorted(crowded(7))
    without = Tree({key: value for key, value in tree.items.items() if key != inside[3]})
    inclusion = [tree.prove(key) for key in (b"key 7", *inside)]
    return [*inclusion, tree.prove(b"nothing"), without.prove(inside[3])]


def test_a_proof_survives_its_bytes_and_is_small(tree: Tree) -> None:
    for proof in proofs(tree):
        raw = state_proof.encode(proof)
        assert state_proof.decode(raw) == proof
        assert len(raw) < 700 + len(proof.value or b"")
    assert verify(state_proof.decode(state_proof.encode(tree.prove(b"key 7"))), tree.root)
    lonely = Tree({b"a": b"1"})
    assert len(state_proof.encode(lonely.prove(b"a"))) < 80  # empty subtrees take a bit each


def test_what_is_not_canonical_is_refused(tree: Tree) -> None:
    proof = tree.prove(b"key 7")
    fields = dag_cbor.decode(state_proof.encode(proof))
    assert isinstance(fields, dict)
    assert fields["empty"]
    wrong: list[object] = [
        {**fields, "more": 1},
        {name: value for name, value in fields.items() if name != "right"},
        {**fields, "empty": 0, "aunts": b"".join(proof.aunts)},  # an empty subtree's hash written out
        {**fields, "empty": 0},
        {**fields, "empty": True},
        {**fields, "empty": BUCKETS},
        {**fields, "aunts": fields["aunts"] + bytes(32)},
        {**fields, "aunts": fields["aunts"] + b"\x00"},
        {**fields, "aunts": bytes(32 * 19)},
        {**fields, "key": bytes(512)},
        {**fields, "key": "text"},
        {**fields, "value": bytes((1 << 20) + 1)},
        {**fields, "leaf": [0, 1]},
        {**fields, "leaf": [-1, 1, b""]},
        {**fields, "leaf": [0, 1 << 32, b""]},
        {**fields, "leaf": [0, 1, bytes(32 * 33)]},
        {**fields, "left": [b"k", bytes(31), 0, 1, b""]},
        [],
        None,
    ]
    for document in wrong:
        with pytest.raises(InvalidStateProof):
            state_proof.decode(dag_cbor.encode(document))
    for raw in (b"", b"\xff", state_proof.encode(proof) + b"\x00", bytes(state_proof.MAX_PROOF_BYTES + 1)):
        with pytest.raises(InvalidStateProof):
            state_proof.decode(raw)


@given(st.data())
@settings(max_examples=60)
def test_a_changed_proof_is_refused_or_shows_the_same(tree: Tree, data: st.DataObject) -> None:
    """Whatever still decodes after a byte was changed does not verify, unless it says what is so."""
    proof = data.draw(st.sampled_from(proofs(tree)[:-1]))
    raw = bytearray(state_proof.encode(proof))
    at = data.draw(st.integers(0, len(raw) - 1))
    raw[at] ^= data.draw(st.integers(1, 255))
    try:
        found = state_proof.decode(bytes(raw))
    except InvalidStateProof:
        return
    if verify(found, tree.root):
        assert found.value == tree.items.get(found.key)


# CometBFT's side, written from its protobuf files and crypto/merkle (proof.go, proof_value.go, proof_op.go).


def fields_of(raw: bytes) -> Iterator[tuple[int, int | bytes]]:
    def number(at: int) -> tuple[int, int]:
        value = shift = 0
        while True:
            value |= (raw[at] & 0x7F) << shift
            shift, at = shift + 7, at + 1
            if raw[at - 1] < 0x80:
                return value, at

    at = 0
    while at < len(raw):
        tag, at = number(at)
        value, at = number(at)
        if tag & 7 == 2:
            assert at + value <= len(raw)
            yield tag >> 3, raw[at : at + value]
            at += value
        else:
            assert tag & 7 == 0
            yield tag >> 3, value


def hash_from_aunts(index: int, total: int, leaf: bytes, aunts: list[bytes]) -> bytes:
    """computeHashFromAunts: from the top down."""
    assert 0 <= index < total
    if total == 1:
        assert not aunts
        return leaf
    assert aunts
    left = 1
    while left * 2 < total:
        left *= 2
    if index < left:
        below = hash_from_aunts(index, left, leaf, aunts[:-1])
        return hashlib.sha256(b"\x01" + below + aunts[-1]).digest()
    below = hash_from_aunts(index - left, total - left, leaf, aunts[:-1])
    return hashlib.sha256(b"\x01" + aunts[-1] + below).digest()


def run_value_op(data: bytes, value: bytes) -> tuple[bytes, bytes]:
    """ValueOp.Run: (key, root)."""
    op = dict(fields_of(data))
    shown = list(fields_of(bytes(op[2])))
    one = dict(shown)
    key = bytes(op[1])
    digest = hashlib.sha256(value).digest()
    length = bytes([len(key)]) if len(key) < 128 else bytes([len(key) & 0x7F | 0x80, len(key) >> 7])
    leaf = hashlib.sha256(b"\x00" + length + key + b"\x20" + digest).digest()
    assert leaf == one[3], "leaf hash mismatch"
    aunts = [bytes(each) for field, each in shown if field == 4]
    return key, hash_from_aunts(int(one.get(2, 0)), int(one[1]), leaf, aunts)


def cometbft_verifies(ops: bytes, app_hash: bytes, path: list[bytes], value: bytes) -> bool:
    """ProofRuntime.VerifyValue; the path from the outermost key to the innermost."""
    keys, root = list(path), value
    for field, raw in fields_of(ops):
        assert field == 1
        op = dict(fields_of(bytes(raw)))
        assert op[1] == b"simple:v"
        try:
            key, root = run_value_op(bytes(op[3]), root)
        except AssertionError:
            return False
        assert key == op[2]
        if not keys or keys.pop() != key:
            return False
    return not keys and root == app_hash


def test_cometbft_verifies_presence(tree: Tree) -> None:
    for key in (b"key 7", *sorted(crowded(7))):
        value = tree.items[key]
        ops = state_proof.cometbft_ops(tree.prove(key))
        assert cometbft_verifies(ops, tree.root, [b"state", key], value)
        assert not cometbft_verifies(ops, tree.root, [b"state", key], value + b"x")
        assert not cometbft_verifies(ops, tree.root, [b"state", b"other"], value)
        assert not cometbft_verifies(ops, bytes(32), [b"state", key], value)
    with pytest.raises(ValueError, match="absent"):
        state_proof.cometbft_ops(tree.prove(b"nothing"))


def test_a_key_is_shown_in_its_own_bucket_only(tree: Tree) -> None:
    """All buckets have one key in the upper tree; the own form ties a state's key to its bucket."""
    other = next(b"key %d" % n for n in range(300) if bucket_of(b"key %d" % n) != bucket_of(b"key 7"))
    absent = replace(tree.prove(other), key=b"key 7", value=None, leaf=None)
    assert not verify(absent, tree.root)
