"""The mark by which a ledger's folder tells whether this release reads it: its tables' and records' forms."""

from __future__ import annotations

from functools import cache
from hashlib import sha256

from ledger import records, records_governance, records_validators
from ledger.engine.proof_rows import PROOFS
from ledger.engine.state_store import LISTS, STATE, TREE
from ledger.fields import Wire
from ledger.fields import specs as fields_of
from ledger.genesis import Genesis, Params
from ledger.transactions import BODIES
from merkledag import dag_cbor

TABLES = (
    b"meta",
    STATE,
    TREE,
    LISTS,
    b"blocks",
    b"lights",
    b"txs",
    b"receipts",
    b"events",
    b"index",
    b"journal",
    PROOFS,
)
FORMAT = 3  # of the tables; the forms below tell for themselves
FORMS: tuple[type[Wire], ...] = (
    Genesis,
    Params,
    records.AccountRecord,
    records.ChainRecord,
    records.DatasetRecord,
    records.DealRecord,
    records.ProviderRecord,
    records.ShardRecord,
    records.SlotRecord,
    records.SpotRecord,
    records.TotalsRecord,
    records_governance.ProposalRecord,
    records_governance.VoteRecord,
    records_validators.ConsensusKeyRecord,
    records_validators.ValidatorRecord,
    *BODIES.values(),
)


@cache
def mark() -> bytes:
    """The table format (4 bytes, big-endian) and 8 bytes of SHA-256 over the names of all forms' fields."""
    names = [[form.__name__, [name for name, _ in fields_of(form)]] for form in FORMS]
    return FORMAT.to_bytes(4, "big") + sha256(dag_cbor.encode(names)).digest()[:8]
