"""A world in which the plain ledger runs every block too, and must agree with the real one."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import zip_longest
from typing import Any

from ledger.application import BlockResult
from merkledag import dag_cbor
from merkledag.peer import peer_text
from tests.ledger.naive.block import next_due, run_block
from tests.ledger.naive.state import Map, Plain, place_bytes
from tests.ledger.naive.validators import add_validator
from tests.ledger.world import World, genesis

COMPARED = (
    b"account/",
    b"provider/",
    b"deal/",
    b"shard/",
    b"dataset/",
    b"chain",
    b"totals",
    b"params/",
    b"proposal/",
    b"vote/",
    b"spot/",
    b"validator/",
    b"consensus/",
)


def records(s: Plain) -> dict[bytes, Map]:
    """The plain ledger's records under the keys of the real state."""
    return {
        **{b"account/" + account: record for account, record in s.accounts.items()},
        **{b"provider/" + account: record for account, record in s.providers.items()},
        **{b"deal/" + bytes(deal): record for deal, record in s.deals.items()},
        **{b"shard/" + place_bytes(place): record for place, record in s.shards.items()},
        **{b"dataset/" + dataset: record for dataset, record in s.datasets.items()},
        **{
            b"proposal/" + bytes(proposal): {**record, "validators": by_text(record["validators"])}
            for proposal, record in s.proposals.items()
        },
        **{
            b"vote/" + bytes(proposal) + voter: record
            for proposal, votes in s.votes.items()
            for voter, record in votes.items()
        },
        **{b"spot/" + place_bytes(place): record for place, record in s.spots.items()},
        **{b"validator/" + account: record for account, record in s.validators.items()},
        **{b"consensus/" + address: record for address, record in s.consensus.items()},
        b"chain": {
            "height": s.height,
            "time": s.time,
            "block_time_s": s.block_time,
            "beacon": s.beacon,
            "open_deals": s.open_deals(),
            "stalled_s": s.stalled_s,
            "params_version": s.next_version,
            "rules": s.rules,
            "proposals": s.proposed,
        },
        b"totals": s.totals(),
        **{b"params/" + number.to_bytes(4, "big"): params.to_map() for number, params in s.versions.items()},
    }


def by_text(powers: dict[bytes, int]) -> Map:
    return {peer_text(account): power for account, power in powers.items()}


@dataclass
class TwinWorld(World):
    """A `World` whose blocks both ledgers run; where they disagree it raises AssertionError."""

    plain: Plain = field(init=False)
    agreed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        self.plain = Plain(genesis(self.params))
        key, bls = self.plain.genesis.operator, self.plain.genesis.bls_key
        add_validator(self.plain, key, key, bls_key=bls, granted=1, power=1)

    def block(self, *txs: bytes, step: int = 0) -> BlockResult:
        head, accused = self.beacon(), self.accused
        result = super().block(*txs, step=step)
        codes, powers = run_block(self.plain, self.now, (head, *txs), accused)
        assert {each.consensus_key: each.power for each in result.validator_updates} == powers
        self.compare(result, codes)
        self.agreed += 1
        self.params = self.app.params
        return result

    def compare(self, result: BlockResult, codes: list[Any]) -> None:
        """Codes, events, records, money and the next due instant."""
        real = [(each.code.name, each.log) for each in result.tx_results]
        wrong = [(first, code.name) for first, code in zip(real, codes, strict=True) if first[0] != code.name]
        assert not wrong, f"block {result.height}: result codes, real and plain: {wrong}"
        events = [(event.kind, dict(event.attributes)) for event in result.events]
        for first, second in zip_longest(events, self.plain.events):
            assert first == second, f"block {result.height}: event, real: {first}, plain: {second}"
        found = {key: dag_cbor.decode(raw) for key, raw in self.app.items() if key.startswith(COMPARED)}
        plain = records(self.plain)
        odd = found.keys() ^ plain.keys()
        assert not odd, f"block {result.height}: records that only one ledger has: {odd}"
        for key, record in plain.items():
            real_record = found[key]
            assert isinstance(real_record, dict)
            wrong_fields = {
                name: (real_record.get(name), record.get(name))
                for name in real_record.keys() | record.keys()
                if real_record.get(name) != record.get(name)
            }
            assert not wrong_fields, f"block {result.height}: {key!r}, real and plain: {wrong_fields}"
        totals = plain[b"totals"]
        assert sum(totals.values()) == 2 * totals["issued"], totals
        assert self.app.next_due() == next_due(self.plain)
