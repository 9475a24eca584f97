"""Takes a proof of storage out of a ledger's history, with all that shows it to others."""

from __future__ import annotations

from ledger import keys, transactions
from ledger.engine.blocks import Block
from ledger.engine.errors import CorruptStore, LedgerNotFound, PrunedHistory
from ledger.engine.evidence import KIND, BeaconStep, Evidence
from ledger.engine.history import History
from ledger.engine.witness import period_subject, spot_subject
from ledger.errors import InvalidTransaction
from ledger.genesis import Genesis
from ledger.limits import MAX_UINT
from ledger.records import DatasetRecord, DealRecord, SpotRecord
from ledger.state_tree import StateProof
from merkledag.cid import CID

NUMBER_BYTES = 8


class EvidenceMaker:
    """Reads one ledger's history; in any thread. Methods raise LedgerNotFound, PrunedHistory, StoreError."""

    def __init__(self, history: History, genesis: Genesis) -> None:
        self._history = history
        self._genesis = genesis

    def of_period(self, dataset: bytes, period: int | None) -> Evidence:
        """The proof of a dataset's period, None for the last one that is kept."""
        height, index = self._place(period_subject(dataset, 0)[:-NUMBER_BYTES], period, "period")
        _, state = self._history.witness(height)
        record = DatasetRecord.decode(_value(state, keys.dataset(dataset)))

        block = self._block(height)
        needed = (keys.dataset(dataset), keys.params(record.terms), keys.validator(block.account))
        return Evidence(
            beacon=self._step(record.seed_height),
            before=None,
            block=block,
            kind=KIND,
            state=tuple(state[key] for key in needed),
            tx=self._history.signed_tx(height, index),
        )

    def of_spot(self, deal: CID, shard: int, height: int | None) -> Evidence:
        """The answer to a shard's spot challenge in block `height`, None for the last one that is kept."""
        height, index = self._place(spot_subject(deal, shard, 0)[:-NUMBER_BYTES], height, "block")
        state, _ = self._history.witness(height)
        record = SpotRecord.decode(_value(state, keys.spot(deal, shard)))
        agreed = DealRecord.decode(_value(state, keys.deal(deal)))
        block = self._block(height)
        needed = (
            keys.spot(deal, shard),
            keys.shard(deal, shard),
            keys.deal(deal),
            keys.params(agreed.terms),
            keys.validator(block.account),
        )
        return Evidence(
            beacon=self._step(record.seed_height),
            before=self._block(height - 1),
            block=block,
            kind=KIND,
            state=tuple(state[key] for key in needed),
            tx=self._history.signed_tx(height, index),
        )

    def _place(self, subject: bytes, number: int | None, what: str) -> tuple[int, int]:
        newest = next(self._history.proofs(subject, MAX_UINT if number is None else number), None)
        if newest is None or number not in (None, newest[0]):
            last = next(self._history.proofs(subject, MAX_UINT), None)
            here = "nor is any other of it" if last is None else f"the last one of it is of {what} {last[0]}"
            raise LedgerNotFound(f"no such proof is kept here, {here}; proofs leave after some time")
        return newest[1]

    def _block(self, height: int) -> Block:
        found = self._history.block(height)
        if found is None:
            raise PrunedHistory(f"block {height} is not kept here: this ledger began with a later state")
        return found

    def _step(self, height: int) -> BeaconStep:
        """The beacon of the block that a seed was drawn in."""
        before = self._genesis.beacon if height == 1 else self._block(height - 1).beacon
        try:
            head = transactions.decode_beacon(self._history.signed_tx(height, 0))
        except InvalidTransaction as error:
            raise CorruptStore(f"the beacon of block {height} does not decode: {error}") from error
        return BeaconStep(height, before, head.beacon)


def _value(state: dict[bytes, StateProof], key: bytes) -> bytes:
    found = state.get(key)
    if found is None or found.value is None:
        raise CorruptStore(f"what is kept with a proof lacks key {key.hex()}")
    return found.value
