"""State proofs as bytes: compact and canonical in the ledger's own form, and in the one that CometBFT checks.

The own form is a DAG-CBOR map of

    key, value            bytes; the value is null if the key is absent
    leaf                  [index, total, aunts] of the key in its bucket; null if the key is absent
    left, right           [key, SHA-256(value), index, total, aunts] of its neighbours there, or null
    empty, aunts          the way from the bucket to the app hash: bit i of `empty` says that the sibling at
                          level i has no key below it; `aunts` are the other siblings, lowest first

where `aunts` are hashes of 32 bytes, one behind the other. CometBFT's form is a `ProofOps` message
(proto/tendermint/crypto/proof.proto) of two `simple:v` operations; it shows presence only.
"""

from __future__ import annotations

from dataclasses import replace
from hashlib import sha256
from typing import Any

from ledger.errors import InvalidStateProof
from ledger.limits import MAX_KEY_BYTES
from ledger.state_tree import (
    BUCKET_BITS,
    BUCKET_KEY,
    BUCKETS,
    EMPTY_NODES,
    LeafProof,
    StateProof,
    bucket_leaf,
    bucket_of,
    leaf_hash,
    sides,
)
from ledger.tree_buckets import HASH_BYTES
from merkledag import dag_cbor, varint
from merkledag.errors import MerkledagError

MAX_VALUE_BYTES = 1 << 20
MAX_BUCKET_AUNTS = 32
MAX_PROOF_BYTES = MAX_VALUE_BYTES + 8_192
MAX_ITEMS = 32  # values and keys
OP_TYPE = b"simple:v"

_FIELDS = {"key", "value", "leaf", "left", "right", "empty", "aunts"}


def encode(proof: StateProof) -> bytes:
    """The own form."""
    empty, aunts = 0, []
    for level, aunt in enumerate(proof.aunts):
        if aunt == EMPTY_NODES[level]:
            empty |= 1 << level
        else:
            aunts.append(aunt)
    leaf = proof.leaf
    return dag_cbor.encode(
        {
            "key": proof.key,
            "value": proof.value,
            "leaf": None if leaf is None else [leaf.index, leaf.total, b"".join(leaf.aunts)],
            "left": _neighbour(proof.left),
            "right": _neighbour(proof.right),
            "empty": empty,
            "aunts": b"".join(aunts),
        }
    )


def least(proof: StateProof) -> StateProof:
    """The same proof of presence with the lowest `index` and `total` that lead the same way.

    A path binds on which side each sibling is, not how many leaves there are. With these numbers there is one
    encoding for a value and its path, so that no byte of it can be changed. A proof of another shape, or of
    absence, is returned as it is.
    """
    leaf = proof.leaf
    if leaf is None or not 0 <= leaf.index < leaf.total:
        return proof
    index, total = 0, 1
    for height, is_left in enumerate(reversed(sides(leaf.index, leaf.total))):
        # The left side of a split has 2^height leaves, the right side as few as it can.
        size = 1 << height
        index, total = (index, size + 1) if is_left else (index + size, size + total)
    return replace(proof, leaf=replace(leaf, index=index, total=total))


def _neighbour(leaf: LeafProof | None) -> list[Any] | None:
    if leaf is None:
        return None
    return [leaf.key, leaf.value_hash, leaf.index, leaf.total, b"".join(leaf.aunts)]


def decode(raw: bytes) -> StateProof:
    """From the own form; whether it holds `state_tree.verify` says. Raises InvalidStateProof."""
    if len(raw) > MAX_PROOF_BYTES:
        raise InvalidStateProof(f"a state proof has at most {MAX_PROOF_BYTES} bytes")
    try:
        found = dag_cbor.decode(raw, max_items=MAX_ITEMS)
    except MerkledagError as error:
        raise InvalidStateProof(f"this is no state proof: {error}") from error
    if not isinstance(found, dict) or found.keys() != _FIELDS:
        raise InvalidStateProof("this is no state proof: it has other fields")
    key = _bytes(found["key"], MAX_KEY_BYTES)
    value = None if found["value"] is None else _bytes(found["value"], MAX_VALUE_BYTES)
    leaf = None
    if found["leaf"] is not None:
        index, total, aunts = _items(found["leaf"], 3)
        leaf = _leaf(key, sha256(value or b"").digest(), index, total, aunts)
    proof = StateProof(
        key, value, leaf, _read_neighbour(found["left"]), _read_neighbour(found["right"]), _way(found)
    )
    if encode(proof) != raw:
        raise InvalidStateProof("this state proof could be written shorter")
    return proof


def _way(found: dict[str, Any]) -> tuple[bytes, ...]:
    """The aunts from the bucket to the app hash, those of empty subtrees put in."""
    empty = _uint(found["empty"], BUCKETS - 1)
    given = iter(_hashes(found["aunts"], BUCKET_BITS))
    way = tuple(
        EMPTY_NODES[level] if empty >> level & 1 else next(given, b"") for level in range(BUCKET_BITS)
    )
    if b"" in way or next(given, None) is not None:
        raise InvalidStateProof("a state proof has a sibling for each level")
    return way


def _read_neighbour(value: Any) -> LeafProof | None:
    if value is None:
        return None
    key, value_hash, index, total, aunts = _items(value, 5)
    if len(_bytes(value_hash, HASH_BYTES)) != HASH_BYTES:
        raise InvalidStateProof("a hash has 32 bytes")
    return _leaf(_bytes(key, MAX_KEY_BYTES), value_hash, index, total, aunts)


def _leaf(key: bytes, value_hash: bytes, index: Any, total: Any, aunts: Any) -> LeafProof:
    most = (1 << MAX_BUCKET_AUNTS) - 1
    return LeafProof(
        key, value_hash, _uint(index, most), _uint(total, most), _hashes(aunts, MAX_BUCKET_AUNTS)
    )


def _items(value: Any, count: int) -> list[Any]:
    if not isinstance(value, list) or len(value) != count:
        raise InvalidStateProof(f"a list of {count} belongs there")
    return value


def _bytes(value: Any, most: int) -> bytes:
    if not isinstance(value, bytes) or len(value) > most:
        raise InvalidStateProof(f"at most {most} bytes belong there")
    return value


def _uint(value: Any, most: int) -> int:
    if type(value) is not int or not 0 <= value <= most:
        raise InvalidStateProof(f"a number up to {most} belongs there")
    return value


def _hashes(value: Any, most: int) -> tuple[bytes, ...]:
    joined = _bytes(value, most * HASH_BYTES)
    if len(joined) % HASH_BYTES:
        raise InvalidStateProof("a hash has 32 bytes")
    return tuple(joined[at : at + HASH_BYTES] for at in range(0, len(joined), HASH_BYTES))


def cometbft_ops(proof: StateProof) -> bytes:
    """A `ProofOps` message for CometBFT's `ProofRuntime.VerifyValue`, key path /state/KEY.

    Raises ValueError if the key is absent: CometBFT has no operation for that.
    """
    leaf = proof.leaf
    if leaf is None or proof.value is None:
        raise ValueError("CometBFT's proofs show that a key is there, not that it is absent")
    root = leaf.root()
    assert root is not None, "a proof that the tree made has a possible shape"
    inner = leaf_hash(leaf.key, leaf.value_hash)
    lower = _value_op(leaf.key, leaf.total, leaf.index, inner, leaf.aunts)
    upper = _value_op(BUCKET_KEY, BUCKETS, bucket_of(proof.key), bucket_leaf(root), proof.aunts)
    return _message(1, lower) + _message(1, upper)


def _value_op(key: bytes, total: int, index: int, leaf: bytes, aunts: tuple[bytes, ...]) -> bytes:
    shown = _number(1, total) + _number(2, index) + _message(3, leaf)
    shown += b"".join(_message(4, aunt) for aunt in aunts)
    data = _message(1, key) + _message(2, shown)
    return _message(1, OP_TYPE) + _message(2, key) + _message(3, data)


def _message(field: int, value: bytes) -> bytes:
    """A length-delimited field of a protobuf message."""
    return bytes([field << 3 | 2]) + varint.encode(len(value)) + value


def _number(field: int, value: int) -> bytes:
    """A number's field; protobuf leaves a 0 out."""
    return bytes([field << 3]) + varint.encode(value) if value else b""
