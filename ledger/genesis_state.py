"""The state that a chain begins with."""

from __future__ import annotations

from collections.abc import Iterator

from ledger import keys
from ledger.errors import InvalidGenesis
from ledger.genesis import Genesis
from ledger.records import AccountRecord, ChainRecord, TotalsRecord
from ledger.records_validators import ConsensusKeyRecord, ValidatorRecord


def genesis_items(genesis: Genesis) -> dict[bytes, bytes]:
    """The state before the first block, all money the operator's; InvalidGenesis for one with an origin."""
    if genesis.origin is not None:
        raise InvalidGenesis(f"chain {genesis.chain_id} goes on from another one: import it from its archive")
    issued = genesis.issued
    return {
        **blank_items(genesis),
        keys.TOTALS: TotalsRecord(issued, balances=issued, escrow=0, collateral=0, burned=0).encode(),
        keys.account(genesis.operator): AccountRecord(balance=issued).encode(),
    }


def blank_items(genesis: Genesis) -> dict[bytes, bytes]:
    """What a genesis alone says of the state before the first block: of a carried one nobody's money."""
    return {
        keys.GENESIS: genesis.encode(),
        keys.CHAIN: ChainRecord(0, genesis.time_s, genesis.time_s, genesis.beacon, 0).encode(),
        keys.params(1): genesis.params.encode(),
        keys.TOTALS: TotalsRecord(genesis.issued, balances=0, escrow=0, collateral=0, burned=0).encode(),
        **dict(validator_items(genesis)),
    }


def validator_items(genesis: Genesis) -> Iterator[tuple[bytes, bytes]]:
    """What the state holds of the validators that a chain begins with."""
    for each in genesis.founders():
        record = ValidatorRecord(
            consensus_key=each.consensus_key, bls_key=each.bls_key, granted=each.power, power=each.power
        )
        yield keys.validator(each.account), record.encode()
        bound = ConsensusKeyRecord(each.account, each.consensus_key)
        yield keys.consensus(keys.address(each.consensus_key)), bound.encode()
        yield keys.beacon_key(each.bls_key), each.account
        yield keys.seated(each.account), b""
