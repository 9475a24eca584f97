"""What a block's proofs of storage need of the state, kept beside them so that they can be checked later.

The ledger keeps the state of the present alone, and a proof answers roots and a seed of its time. So with
each block that has proofs the engine keeps proofs of the few state keys that a check of them needs:

    of a period's proof    the dataset, its parameters and the proposer's BLS key, after the block
    of a spot's answer     the challenge, the shard, its deal, their parameters and that key, before the
                           block, for the answer ends the challenge

Each key stands there once, however many proofs need it. Rows leave when the proofs do (`pruning`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from ledger import keys, state_proof, transactions
from ledger.application import Application
from ledger.engine.errors import CorruptStore
from ledger.errors import InvalidStateProof
from ledger.records import DatasetRecord, DealRecord, SpotRecord
from ledger.result import TxResult
from ledger.state_tree import StateProof
from ledger.transactions import Answer, Body, Prove
from merkledag import dag_cbor
from merkledag.cid import CID
from merkledag.errors import MerkledagError


@dataclass(frozen=True, slots=True)
class Witness:
    """Of one block: where each proof stands (name → index of the transaction), and the state's proofs."""

    places: Mapping[bytes, int] = field(default_factory=dict)
    state: bytes = b""


def period_subject(dataset: bytes, period: int) -> bytes:
    """The name of a period's proof among the rows of the store."""
    return b"P" + dataset + keys.u64(period)


def spot_subject(deal: CID, shard: int, height: int) -> bytes:
    """The name of the answer to a shard's spot challenge that is in block `height`."""
    return b"S" + bytes(deal) + keys.u16(shard) + keys.u64(height)


def subject_of(body: Body, height: int) -> bytes | None:
    """The name of the proof in a transaction of block `height`; None for other transactions."""
    match body:
        case Prove():
            return period_subject(body.dataset, body.period)
        case Answer():
            return spot_subject(body.deal, body.shard, height)
    return None


def collect(app: Application, proposer: bytes, txs: Sequence[bytes], results: Sequence[TxResult]) -> Witness:
    """The witness of the block that waits for `commit`: of its transactions, the beacon's first."""
    height = app.height + 1
    places: dict[bytes, int] = {}
    before: dict[bytes, StateProof] = {}
    after: dict[bytes, StateProof] = {}
    for index, (raw, result) in enumerate(zip(txs, results, strict=True)):
        if index == 0 or not result.ok or not app.is_proof(raw):
            continue
        body = transactions.decode(raw).body
        match body:
            case Prove():
                _of_period(body, proposer, after, app.prove_next)
            case Answer():
                if not _of_spot(body, proposer, before, app.prove):
                    continue
        subject = subject_of(body, height)
        assert subject is not None, "a proof has a name"
        places[subject] = index
    return Witness(places, _encode(before, after)) if places else Witness()


Prover = Callable[[bytes], StateProof]


def _add(found: dict[bytes, StateProof], key: bytes, prove: Prover) -> bytes:
    """Adds the proof of a key that is there; returns its value."""
    if key not in found:
        found[key] = state_proof.least(prove(key))
    value = found[key].value
    assert value is not None, "a proof passed by what the state has there"
    return value


def _of_period(body: Prove, proposer: bytes, found: dict[bytes, StateProof], prove: Prover) -> None:
    record = DatasetRecord.decode(_add(found, keys.dataset(body.dataset), prove))
    _add(found, keys.params(record.terms), prove)
    _add(found, keys.validator(proposer), prove)


def _of_spot(body: Answer, proposer: bytes, found: dict[bytes, StateProof], prove: Prover) -> bool:
    """False where the seed was drawn in the answer's own block: no state before it has it."""
    record = prove(keys.spot(body.deal, body.shard)).value
    if record is None or not SpotRecord.decode(record).seed:
        return False
    _add(found, keys.spot(body.deal, body.shard), prove)
    _add(found, keys.shard(body.deal, body.shard), prove)
    deal = DealRecord.decode(_add(found, keys.deal(body.deal), prove))
    _add(found, keys.params(deal.terms), prove)
    _add(found, keys.validator(proposer), prove)
    return True


def _encode(before: Mapping[bytes, StateProof], after: Mapping[bytes, StateProof]) -> bytes:
    return dag_cbor.encode(
        [[state_proof.encode(proof) for proof in found.values()] for found in (before, after)]
    )


def decode(raw: bytes) -> tuple[dict[bytes, StateProof], dict[bytes, StateProof]]:
    """The proofs of the state before and after the block, by key; raises CorruptStore."""
    try:
        before, after = (
            {proof.key: proof for proof in map(state_proof.decode, rows)} for rows in dag_cbor.decode(raw)
        )
    except (MerkledagError, InvalidStateProof, ValueError, TypeError) as error:
        raise CorruptStore(f"what is kept of a block's proofs does not decode: {error}") from error
    return before, after
