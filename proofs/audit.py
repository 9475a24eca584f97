"""Proofs between two people, without a ledger: the commitment, and the file with a proof.

Whoever has the content computes its commitment once. Whoever keeps the commitment, 32 bytes, can later send a
seed that nobody knew and check the answer. Form: docs/proofs.md, "Proof files".
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any, Final

from merkledag import dag_cbor
from merkledag.cid import CID
from merkledag.errors import MerkledagError
from proofs import proof, tags
from proofs.challenge import DEFAULT_META_CHALLENGES, MAX_DRAWN, Challenge
from proofs.commitment import EMPTY, HASH_BYTES, MAX_SUM, SumNode
from proofs.errors import InvalidProof
from proofs.kinds import ProofKind
from proofs.walk import ShownUnit

KIND: Final = "holdfast/audit-proof/1"
MAX_CID_BYTES: Final = 255
MAX_ITEMS: Final = 32  # values, keys and tags of a file
MAX_FILE_BYTES: Final = (4 << 20) + 1_024
_FIELDS = frozenset({"cid", "data", "k", "kind", "meta", "of", "proof", "seed"})


@dataclass(frozen=True, slots=True)
class Content:
    """What is audited: the trees over a DAG's leaf blocks (`data`) and interior nodes (`meta`).

    Both have their distinct blocks in the order in which a depth-first walk meets them first, as one piece.
    """

    cid: CID
    kind: ProofKind
    data: SumNode
    meta: SumNode

    def commitment(self) -> bytes:
        """The 32 bytes that stand for all of it."""
        kind, cid = self.kind.value.encode(), bytes(self.cid)
        roots = b"".join(root.sum.to_bytes(8, "big") + root.hash for root in (self.data, self.meta))
        head = bytes([len(kind)]) + kind + bytes([len(cid)]) + cid
        return hashlib.sha256(tags.AUDIT_COMMITMENT + head + roots).digest()

    def challenge(self, seed: bytes, k: int) -> Challenge:
        """What a seed draws; ValueError for one not of 32 bytes, or a `k` that is too large."""
        return Challenge(
            seed=seed,
            data=self.data,
            data_depth=0,
            meta=self.meta,
            meta_depth=0,
            k=k,
            meta_k=DEFAULT_META_CHALLENGES,
            kind=self.kind,
        )


@dataclass(frozen=True, slots=True)
class AuditFile:
    """A proof of a content's leaves that `seed` draws, `k` of the data."""

    content: Content
    seed: bytes
    k: int
    proof: bytes

    @property
    def challenge(self) -> Challenge:
        """What it answers."""
        return self.content.challenge(self.seed, self.k)

    def verify(self) -> list[ShownUnit]:
        """The drawn units; InvalidProof unless the proof shows them below the roots that the file names."""
        return proof.verify(self.challenge, self.proof)

    def encode(self) -> bytes:
        """Canonical DAG-CBOR."""
        content = self.content
        return dag_cbor.encode(
            {
                "cid": content.cid,
                "data": [content.data.sum, content.data.hash],
                "k": self.k,
                "kind": KIND,
                "meta": [content.meta.sum, content.meta.hash],
                "of": content.kind.value,
                "proof": self.proof,
                "seed": self.seed,
            }
        )

    @classmethod
    def decode(cls, raw: bytes) -> AuditFile:
        """From canonical bytes; raises InvalidProof. The proof in it is not verified."""
        if len(raw) > MAX_FILE_BYTES:
            raise InvalidProof(f"a proof's file has at most {MAX_FILE_BYTES} bytes")
        try:
            value = dag_cbor.decode(raw, max_items=MAX_ITEMS)
        except (MerkledagError, RecursionError) as error:
            raise InvalidProof(f"this is no file of a proof: {error}") from error
        return cls.of(value)

    @classmethod
    def of(cls, value: Any) -> AuditFile:
        """From a decoded map; raises InvalidProof."""
        if not isinstance(value, dict) or value.keys() != _FIELDS or value["kind"] != KIND:
            raise InvalidProof("this is no file of a proof between two people, or of another release")
        try:
            kind = ProofKind(value["of"])
        except ValueError as error:
            raise InvalidProof("`of` names a kind of proof that is not known here") from error
        cid, k = value["cid"], value["k"]
        if type(cid) is not CID or len(bytes(cid)) > MAX_CID_BYTES:
            raise InvalidProof(f"`cid` is not a CID of at most {MAX_CID_BYTES} bytes")
        content = Content(cid, kind, _root(value, "data"), _root(value, "meta"))
        if content.data.sum + content.meta.sum == 0:
            raise InvalidProof("content without blocks: there is nothing to prove")
        if type(k) is not int or not min(1, content.data.sum) <= k <= min(MAX_DRAWN, content.data.sum):
            raise InvalidProof(f"`k`, the leaves to draw: 1 to {MAX_DRAWN}, and at most as many as there are")
        if type(value["proof"]) is not bytes:
            raise InvalidProof("`proof` is not bytes")
        return cls(content, _hash("seed", value["seed"]), k, value["proof"])


def _root(value: dict[str, Any], name: str) -> SumNode:
    """The root of the tree that a field names."""
    root = value[name]
    if not isinstance(root, list) or len(root) != 2:
        raise InvalidProof(f"`{name}` is not a number of leaves and a hash")
    leaves, digest = root
    if type(leaves) is not int or not 0 <= leaves <= MAX_SUM:
        raise InvalidProof(f"`{name}` has no number of leaves from 0 to {MAX_SUM}")
    found = SumNode(_hash(name, digest), leaves)
    if not leaves and found != EMPTY:
        raise InvalidProof(f"`{name}` has no leaves, and yet another hash than zeros")
    return found


def _hash(name: str, value: object) -> bytes:
    if type(value) is not bytes or len(value) != HASH_BYTES:
        raise InvalidProof(f"`{name}` lacks a string of {HASH_BYTES} bytes")
    return value
