"""A proof of one key of the state as a file: the proof, and the signed block whose app hash it leads to.

The file is the DAG-CBOR map {block, kind, proof}: the block as in `blocks`, the proof as `/v1/prove` has it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, Final

from ledger import keys, state_tree
from ledger.engine.blocks import Block
from ledger.engine.errors import InvalidProofFile
from ledger.fields import Digest, FieldError, Spec, Uint, Wire, blob, nested, sequence, text
from ledger.genesis import Genesis, Params
from ledger.records import (
    AccountRecord,
    ChainRecord,
    DatasetRecord,
    DealRecord,
    ProposerRecord,
    ProviderRecord,
    ShardRecord,
    SlotRecord,
    TotalsRecord,
)
from ledger.state_tree import LeafProof, StateProof
from merkledag import dag_cbor
from merkledag.errors import MerkledagError

KIND: Final = "holdfast/state-proof/1"
MAX_FILE_BYTES: Final = 4 << 20
MAX_KEY_BYTES: Final = 512
MAX_VALUE_BYTES: Final = 1 << 20
MAX_AUNTS: Final = 32

# The longest prefix of a key that is here says what its value is.
_RECORDS: Final[dict[bytes, type[Wire]]] = {
    keys.ACCOUNT: AccountRecord,
    keys.CHAIN: ChainRecord,
    keys.DATASET: DatasetRecord,
    keys.DEAL: DealRecord,
    keys.GENESIS: Genesis,
    keys.JOIN: SlotRecord,
    keys.PARAMS: Params,
    keys.PROPOSER: ProposerRecord,
    keys.PROVIDER: ProviderRecord,
    keys.SHARD: ShardRecord,
    keys.SLOT: SlotRecord,
    keys.TOTALS: TotalsRecord,
}


def _optional(spec: Spec) -> Spec:
    """The same, or null."""

    def or_none(convert: Callable[[Any], Any] | None) -> Callable[[Any], Any]:
        return lambda value: None if value is None else value if convert is None else convert(value)

    return Spec(or_none(spec.check), or_none(spec.to_wire), or_none(spec.to_json), or_none(spec.from_json))


_KEY = blob(0, MAX_KEY_BYTES)
_AUNTS = sequence(blob(state_tree.HASH_BYTES, state_tree.HASH_BYTES), MAX_AUNTS)


@dataclass(frozen=True, slots=True)
class Leaf(Wire):
    """`state_tree.LeafProof` on the wire."""

    key: Annotated[bytes, _KEY]
    value_hash: Digest
    index: Uint
    total: Uint
    aunts: Annotated[tuple[bytes, ...], _AUNTS]

    def proof(self) -> LeafProof:
        """As the state's tree has it."""
        return LeafProof(self.key, self.value_hash, self.index, self.total, self.aunts)


@dataclass(frozen=True, slots=True)
class Proof(Wire):
    """`state_tree.StateProof` on the wire."""

    key: Annotated[bytes, _KEY]
    value: Annotated[bytes | None, _optional(blob(0, MAX_VALUE_BYTES))]
    leaf: Annotated[Leaf | None, _optional(nested(Leaf))]
    left: Annotated[Leaf | None, _optional(nested(Leaf))]
    right: Annotated[Leaf | None, _optional(nested(Leaf))]
    aunts: Annotated[tuple[bytes, ...], _AUNTS]

    def proof(self) -> StateProof:
        """As the state's tree has it."""
        leaf, left, right = (
            None if each is None else each.proof() for each in (self.leaf, self.left, self.right)
        )
        return StateProof(self.key, self.value, leaf, left, right, self.aunts)


@dataclass(frozen=True, slots=True)
class ProofFile(Wire):
    """A proof and the block whose state it is of."""

    block: Annotated[Block, nested(Block)]
    kind: Annotated[str, text(64)]
    proof: Annotated[Proof, nested(Proof)]

    def encode(self) -> bytes:
        """Canonical DAG-CBOR."""
        return dag_cbor.encode(self.to_map())

    @classmethod
    def decode(cls, raw: bytes) -> ProofFile:
        """From canonical bytes; raises InvalidProofFile. Nothing is verified."""
        try:
            found = cls.from_map(dag_cbor.decode(raw))
        except (MerkledagError, FieldError) as error:
            raise InvalidProofFile(f"this is no proof of a ledger's state: {error}") from error
        if found.kind != KIND:
            raise InvalidProofFile(f"a proof of kind {found.kind!r}: use the release that made it")
        return found

    def verify(self) -> None:
        """Raises InvalidProofFile unless the block is signed by its account and the proof leads to its state.

        Whose account that is, and of which chain, is for the caller to compare.
        """
        if not self.block.verify():
            raise InvalidProofFile(f"block {self.block.height} is not signed by the account that it names")
        if not state_tree.verify(self.proof.proof(), self.block.app_hash):
            raise InvalidProofFile("the proof does not lead to the app hash")

    def record(self) -> Wire | None:
        """The value as the record that the key says it is; None where it is absent, or of no such key."""
        value = self.proof.value
        kinds = [cls for prefix, cls in _RECORDS.items() if self.proof.key.startswith(prefix)]
        if value is None or not kinds:
            return None
        try:
            return kinds[0].from_map(dag_cbor.decode(value))
        except (MerkledagError, FieldError) as error:
            raise InvalidProofFile(f"the value is no {kinds[0].__name__} of this release: {error}") from error
