"""A proof of storage taken out of the ledger, as a file that can be checked without any ledger.

Form and checks: docs/proofs.md, "Proof files"; `evidence_check` checks it, `evidence_maker` makes it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Final

from ledger import limits, state_proof, transactions
from ledger.engine.blocks import Block
from ledger.engine.errors import InvalidProofFile
from ledger.engine.proof_file import MAX_FILE_BYTES, MAX_FILE_ITEMS, check_state_proof
from ledger.errors import InvalidTransaction
from ledger.fields import Digest, FieldError, Spec, Wire, blob, nested, optional, sequence, text, uint
from ledger.state_tree import StateProof
from ledger.transactions import Answer, Prove, Transaction
from merkledag import dag_cbor
from merkledag.errors import MerkledagError

KIND: Final = "holdfast/storage-proof/1"
LIGHT_KIND: Final = "holdfast/storage-proof/2"  # the only one with `lights`
MAX_LIGHTS: Final = 2
MAX_LIGHT_BYTES: Final = 1 << 20
MAX_STATE_PROOFS: Final = 5


def _check_state(value: Any) -> StateProof:
    proof = check_state_proof(value)
    if (
        proof.value is None
        or proof.left is not None
        or proof.right is not None
        or proof != state_proof.least(proof)
    ):
        raise FieldError("a proof of the state that is not in its one form")
    return proof


STATE = Spec(_check_state, to_wire=state_proof.encode, to_json=lambda proof: state_proof.encode(proof).hex())


@dataclass(frozen=True, slots=True)
class BeaconStep(Wire):
    """How block `height` came by its beacon value: from the one before, by its proposer's BLS signature."""

    height: Annotated[int, uint(1)]
    previous: Digest
    signature: Annotated[bytes, blob(96, 96)]


@dataclass(frozen=True, slots=True)
class Evidence(Wire):
    """A node's proof, and what binds it to a chain.

    `tx` is the signed transaction with the proof, in `block`. `state` are proofs of what the state had, those
    of `witness` in its order: after `block` for a period's proof, after `before`, the block before it, for
    the answer to a spot challenge. `beacon` is what the challenge's seed was drawn from.

    On CometBFT nobody signs blocks: `lights` are the light blocks of the headers that vouch for them, that of
    `block` and, for a period's proof, the one after it. Elsewhere the field is not there.
    """

    beacon: Annotated[BeaconStep, nested(BeaconStep)]
    before: Annotated[Block | None, optional(nested(Block))]
    block: Annotated[Block, nested(Block)]
    kind: Annotated[str, text(64)]
    state: Annotated[tuple[StateProof, ...], sequence(STATE, MAX_STATE_PROOFS)]
    tx: Annotated[bytes, blob(1, limits.MAX_TX_BYTES)]
    lights: Annotated[tuple[bytes, ...], sequence(blob(1, MAX_LIGHT_BYTES), MAX_LIGHTS)] = ()

    def to_map(self) -> dict[str, Any]:
        """See `Wire`."""
        made = Wire.to_map(self)
        if not self.lights:
            del made["lights"]
        return made

    @property
    def state_block(self) -> Block:
        """The block whose app hash the state's proofs lead to."""
        return self.block if self.before is None else self.before

    def transaction(self) -> Transaction:
        """The transaction; it has a proof. Raises InvalidProofFile."""
        try:
            found = transactions.decode(self.tx)
        except InvalidTransaction as error:
            raise InvalidProofFile(f"the transaction in it does not decode: {error}") from error
        if not isinstance(found.body, Prove if self.before is None else Answer):
            raise InvalidProofFile("the transaction in it has no proof, or one of another kind")
        return found

    def encode(self) -> bytes:
        """Canonical DAG-CBOR."""
        return dag_cbor.encode(self.to_map())

    @classmethod
    def decode(cls, raw: bytes) -> Evidence:
        """From canonical bytes; raises InvalidProofFile. Nothing is verified."""
        if len(raw) > MAX_FILE_BYTES:
            raise InvalidProofFile(f"a proof's file has at most {MAX_FILE_BYTES} bytes")
        try:
            value = dag_cbor.decode(raw, max_items=MAX_FILE_ITEMS)
        except (MerkledagError, RecursionError) as error:
            raise InvalidProofFile(f"this is no file of a proof: {error}") from error
        return cls.of(value)

    @classmethod
    def of(cls, value: Any) -> Evidence:
        """From a decoded map; raises InvalidProofFile."""
        is_signed = isinstance(value, dict) and "lights" not in value
        try:
            found = cls.from_map(value | {"lights": []} if is_signed else value)
        except FieldError as error:
            raise InvalidProofFile(f"this is no file of a proof: {error}") from error
        if found.kind != (LIGHT_KIND if found.lights else KIND) or not (is_signed or found.lights):
            raise InvalidProofFile(f"a file of kind {found.kind!r}: use the release that made it")
        return found
