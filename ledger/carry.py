"""A new chain with the state that another one ended with: balances, nonces, stakes, deals, time, beacon.

What was signed for the old chain is void on the new one, for signatures name the chain. Proving windows that
were open are void: unpaid, and nobody's fault. Those that had no seed yet, and spot challenges that were
open, are drawn anew.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import takewhile

from ledger import due, keys
from ledger.errors import CorruptState
from ledger.genesis import Genesis, GenesisValidator, Origin, Params
from ledger.genesis_state import validator_items
from ledger.records import AccountRecord, ChainRecord, DatasetRecord, Phase, SpotRecord, TotalsRecord
from ledger.records_validators import ValidatorRecord
from ledger.store import Rows
from merkledag.cid import CID

# Each chain has validators of its own, which its genesis names.
_OF_VALIDATORS = (keys.BLS, keys.CONSENSUS, keys.MOVING, keys.SEATED, keys.VALIDATOR)
_DUE_OF_VALIDATORS = (due.What.VALIDATOR, due.What.CONSENSUS_KEY, due.What.RESIGNED)


def successor(
    chain_id: str,
    block: CID,
    rows: Rows,
    app_hash: bytes,
    operator: bytes,
    bls_key: bytes,
    possession: bytes,
    validators: tuple[GenesisValidator, ...] = (),
) -> Genesis:
    """The genesis of a chain that goes on from the state in `rows`, which `block` led to.

    With `validators` it is one for CometBFT, whatever engine the old one was on. Raises InvalidGenesis, or
    CorruptState where the state is not whole.
    """
    chain = ChainRecord.decode(_need(rows, keys.CHAIN))
    old = Genesis.decode(_need(rows, keys.GENESIS))
    totals = TotalsRecord.decode(_need(rows, keys.TOTALS))
    return Genesis(
        chain_id=chain_id,
        time_s=chain.time,
        operator=operator,
        bls_key=bls_key,
        bls_possession=possession,
        issued=totals.issued,
        beacon=chain.beacon,
        params=Params.decode(_need(rows, keys.params(chain.params_version))),
        validators=validators,
        origin=Origin(old.chain_id, chain.height, block, app_hash),
    ).validated()


def carried_items(genesis: Genesis, rows: Rows) -> Iterator[tuple[bytes, bytes]]:
    """The state at height 0 of a chain that goes on from the state in `rows`, keys in no order.

    The caller has checked that those rows have the app hash of the genesis' origin.
    """
    chain = ChainRecord.decode(_need(rows, keys.CHAIN))
    yield keys.GENESIS, genesis.encode()
    # CometBFT gives its first block the genesis' time, and the clock's only to those after it.
    block_time_s = genesis.time_s if genesis.validators else chain.block_time_s
    yield keys.CHAIN, replace(chain, height=0, block_time_s=block_time_s).encode()
    yield from validator_items(genesis)
    backs = _deposits_back(rows)
    for key in rows.scan(b""):
        if key in (keys.GENESIS, keys.CHAIN) or key.startswith(_OF_VALIDATORS):
            continue
        if key.startswith(keys.DUE) and due.what_of(key) in _DUE_OF_VALIDATORS:
            continue
        yield _carried(rows, key, backs.get(key) or _need(rows, key))


def _deposits_back(rows: Rows) -> dict[bytes, bytes]:
    """The accounts and totals once each deposit of a validator's record is its account's again."""
    found: dict[bytes, bytes] = {}
    totals = TotalsRecord.decode(_need(rows, keys.TOTALS))
    for key in takewhile(lambda key: key.startswith(keys.VALIDATOR), rows.scan(keys.VALIDATOR)):
        deposit = ValidatorRecord.decode(_need(rows, key)).deposit
        if deposit:
            of = keys.account(key[len(keys.VALIDATOR) :])
            account = AccountRecord.decode(_need(rows, of))
            found[of] = replace(account, balance=account.balance + deposit).encode()
            totals = replace(totals, balances=totals.balances + deposit, escrow=totals.escrow - deposit)
    return {**found, keys.TOTALS: totals.encode()}


def _carried(rows: Rows, key: bytes, value: bytes) -> tuple[bytes, bytes]:
    if key.startswith(keys.DRAW):
        # Heights begin anew: whatever waits for a later beacon waits for that of block 1.
        _, deal, shard = keys.read_draw(key)
        return keys.draw(0, deal, shard), value
    if key.startswith(keys.DATASET):
        record = DatasetRecord.decode(value)
        phase = record.phase
        if phase is Phase.OPEN and not record.proven:
            phase = Phase.VOID
        elif phase is Phase.OPENING:
            phase = Phase.WAITING
        return key, replace(record, phase=phase, seed_height=0).encode()
    if key.startswith(keys.SPOT):
        # As if it had just been asked for: the beacon of block 1 draws its seed, and a whole window follows.
        spot = SpotRecord.decode(value)
        return key, replace(spot, height=0, seed=b"", closes_at=0, stalled_s=0, seed_height=1).encode()
    if key.startswith(keys.DUE) and due.what_of(key) is due.What.SEED:
        # Its window is opened anew, by block 1.
        return due.key(0, due.What.DATASET, due.subject_of(key)), value
    if key.startswith(keys.DUE) and due.what_of(key) in (due.What.SPOT_SEED, due.What.SPOT):
        return due.key(1, due.What.SPOT_SEED, due.subject_of(key)), value
    return key, value


def _need(rows: Rows, key: bytes) -> bytes:
    found = rows.get(key)
    if found is None:
        raise CorruptState(f"the state to go on from lacks {key!r}")
    return found


def check_origin(genesis: Genesis, rows: Rows, app_hash: bytes, block: CID) -> None:
    """Raises CorruptState unless `genesis` goes on from this state: that block's, with all that it fixes."""
    origin = genesis.origin
    if origin is None or (origin.block, origin.app_hash) != (block, app_hash):
        raise CorruptState(f"chain {genesis.chain_id} does not go on from this state")
    expected = successor(
        genesis.chain_id,
        block,
        rows,
        app_hash,
        genesis.operator,
        genesis.bls_key,
        genesis.bls_possession,
        genesis.validators,
    )
    if expected != genesis:
        raise CorruptState(
            f"the genesis of chain {genesis.chain_id} states other things than it goes on from"
        )
