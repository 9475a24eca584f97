"""A proof of one key of the state as a file: the proof, and what is signed of the app hash that it leads to.

The file is the DAG-CBOR map {block, kind, proof}: the operator's signed block as in `blocks`, the proof's
bytes as in `state_proof`. Its form on CometBFT, {kind, lights, proof}, is in `cometbft.light.proof_file`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Final

from ledger import keys, limits, state_proof, state_tree
from ledger.engine.blocks import Block
from ledger.engine.errors import InvalidProofFile
from ledger.errors import InvalidStateProof
from ledger.fields import FieldError, Spec, Wire, nested, text
from ledger.genesis import Genesis, Params
from ledger.records import (
    AccountRecord,
    ChainRecord,
    DatasetRecord,
    DealRecord,
    ProviderRecord,
    ShardRecord,
    SlotRecord,
    SpotRecord,
    TotalsRecord,
)
from ledger.records_governance import ProposalRecord, VoteRecord
from ledger.records_validators import ConsensusKeyRecord, ValidatorRecord
from ledger.state_tree import StateProof
from merkledag import dag_cbor
from merkledag.errors import MerkledagError, TruncatedValue

KIND: Final = "holdfast/state-proof/1"
MAX_FILE_BYTES: Final = 4 << 20
MAX_FILE_ITEMS: Final = 4 * limits.MAX_BLOCK_TXS + 1_024  # values, keys, tags: two blocks' CIDs, and more

# The prefix of a key says what its value is.
_RECORDS: Final[dict[bytes, type[Wire]]] = {
    keys.ACCOUNT: AccountRecord,
    keys.CHAIN: ChainRecord,
    keys.CONSENSUS: ConsensusKeyRecord,
    keys.DATASET: DatasetRecord,
    keys.DEAL: DealRecord,
    keys.GENESIS: Genesis,
    keys.JOIN: SlotRecord,
    keys.PARAMS: Params,
    keys.PROPOSAL: ProposalRecord,
    keys.PROVIDER: ProviderRecord,
    keys.SHARD: ShardRecord,
    keys.SLOT: SlotRecord,
    keys.SPOT: SpotRecord,
    keys.TOTALS: TotalsRecord,
    keys.VALIDATOR: ValidatorRecord,
    keys.VOTE: VoteRecord,
}


def check_state_proof(value: Any) -> StateProof:
    """A proof of the state in a field of a file, from its bytes; raises FieldError."""
    if type(value) is StateProof:
        return value
    if type(value) is not bytes:
        raise FieldError(f"{type(value).__name__} where bytes belong")
    try:
        return state_proof.decode(value)
    except InvalidStateProof as error:
        raise FieldError(str(error)) from error


@dataclass(frozen=True, slots=True)
class ProofFile(Wire):
    """A proof and the block whose state it is of."""

    block: Annotated[Block, nested(Block)]
    kind: Annotated[str, text(64)]
    proof: Annotated[StateProof, Spec(check_state_proof, to_wire=state_proof.encode)]

    def encode(self) -> bytes:
        """Canonical DAG-CBOR."""
        return dag_cbor.encode(self.to_map())

    @classmethod
    def decode(cls, raw: bytes) -> ProofFile:
        """From canonical bytes; raises InvalidProofFile. Nothing is verified."""
        try:
            found = cls.from_map(decode_map(raw))
        except FieldError as error:
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
        if not state_tree.verify(self.proof, self.block.app_hash):
            raise InvalidProofFile("the proof does not lead to the app hash")


def record_of(proof: StateProof) -> Wire | None:
    """The value as the record that the key says it is; None where it is absent, or of no such key.

    Raises InvalidProofFile.
    """
    kind = next((cls for prefix, cls in _RECORDS.items() if proof.key.startswith(prefix)), None)
    if proof.value is None or kind is None:
        return None
    try:
        return kind.from_map(dag_cbor.decode(proof.value, max_items=limits.MAX_RECORD_ITEMS))
    except (MerkledagError, FieldError) as error:
        raise InvalidProofFile(f"the value is no {kind.__name__} of this release: {error}") from error


def decode_map(raw: bytes) -> Any:
    """The map of either form of file; raises InvalidProofFile."""
    try:
        return dag_cbor.decode(raw, max_items=MAX_FILE_ITEMS)
    except TruncatedValue as error:
        raise InvalidProofFile("the file is cut short, or no proof of a ledger's state") from error
    except MerkledagError as error:
        raise InvalidProofFile(f"this is no proof of a ledger's state: {error}") from error
