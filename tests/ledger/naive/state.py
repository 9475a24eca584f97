"""What the plain ledger remembers: dictionaries of the fields that docs/ledger.md names, nothing cached."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Any

from ledger.genesis import Genesis, Params
from merkledag import dag_cbor
from merkledag.cid import CID

Map = dict[str, Any]
Place = tuple[CID, int]
NOBODY = b""

CLOSED = ("ended", "refunded", "terminated")
LOOKING = ("offered", "repair-offered")


@dataclass
class Plain:
    """The whole state. Records are maps with the names of the real ones' fields."""

    genesis: Genesis
    versions: dict[int, Params] = field(init=False)
    version: int = 1
    next_version: int = 1  # of the parameters of the next block
    rules: int = 1
    proposed: int = 0
    height: int = 0
    time: int = field(init=False)
    block_time: int = field(init=False)
    beacon: bytes = field(init=False)
    stalled_s: int = 0
    burned: int = 0
    budget: int = 0
    shards_changed: int = 0  # of deals that this block made or changed as a whole
    spots_opened: int = 0
    registrations: int = 0  # of validators, tried in this block
    kzg_points: int = 0  # of the KZG proofs that this block has verified
    looked: int = 0  # at how many providers this block's draws have looked
    accounts: dict[bytes, Map] = field(default_factory=dict)
    providers: dict[bytes, Map] = field(default_factory=dict)
    deals: dict[CID, Map] = field(default_factory=dict)
    shards: dict[Place, Map] = field(default_factory=dict)
    datasets: dict[bytes, Map] = field(default_factory=dict)
    proposals: dict[CID, Map] = field(default_factory=dict)
    validators: dict[bytes, Map] = field(default_factory=dict)
    consensus: dict[bytes, Map] = field(default_factory=dict)  # whose each consensus key is, by address
    votes: dict[CID, dict[bytes, Map]] = field(default_factory=dict)
    stakes: dict[CID, dict[bytes, int]] = field(default_factory=dict)  # the least ones since a vote began
    spots: dict[Place, Map] = field(default_factory=dict)
    joining: dict[bytes, dict[int, Place]] = field(default_factory=dict)
    put_up: set[tuple[int, Place]] = field(default_factory=set)  # shards to be drawn, since which height
    seats: list[bytes] = field(default_factory=list)  # those providers that weigh something
    weights: list[int] = field(default_factory=list)  # by seat, as of the last block's end
    alarms: set[tuple[int, int, bytes]] = field(default_factory=set)  # (time, what, whose)
    seeds: set[tuple[int, int, bytes]] = field(default_factory=set)  # to be drawn: (height, what, whose)
    events: list[tuple[str, Map]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.versions = {1: self.genesis.params}
        self.time = self.block_time = self.genesis.time_s
        self.beacon = self.genesis.beacon
        self.accounts[self.genesis.operator] = {"balance": self.genesis.issued, "nonce": 0}

    def emit(self, kind: str, **attributes: Any) -> None:
        self.events.append((kind, {name.rstrip("_"): value for name, value in attributes.items()}))

    def balance(self, account: bytes) -> int:
        return int(self.accounts[account]["balance"]) if account in self.accounts else 0

    def give(self, account: bytes, amount: int) -> None:
        """Adds to a balance (takes away if below zero); nothing happens to an account for nothing."""
        if amount:
            self.accounts.setdefault(account, {"balance": 0, "nonce": 0})["balance"] += amount
            assert self.balance(account) >= 0

    def stake(self, provider: bytes, by: int) -> None:
        """Adds to a stake (takes away if below zero) and marks that it has changed."""
        record = self.providers[provider]
        record["stake"] += by
        assert record["stake"] >= 0
        if by:
            record["stake_mark"] = self.proposed
        for least in self.stakes.values():
            if provider in least:
                least[provider] = min(least[provider], record["stake"])

    @property
    def params(self) -> Params:
        """The parameters in force."""
        return self.versions[self.version]

    def terms(self, place: Place) -> Params:
        """The parameters of a deal: those that were in force when it was made."""
        return self.versions[self.deals[place[0]]["terms"]]

    # What follows from the records.

    def unlocked(self, provider: bytes) -> int:
        record = self.providers[provider]
        return max(0, int(record["stake"] - record["locked"]))

    def size(self, place: Place) -> int:
        piece = self.shards[place]["piece"]
        return int(piece["data_bytes"] + piece["meta_bytes"])

    def free_bytes(self, provider: bytes) -> int:
        record = self.providers[provider]
        return max(0, int(record["capacity_bytes"] - record["used_bytes"]))

    def price(self, place: Place) -> int:
        return int(self.deals[place[0]]["price"])

    def in_dataset(self, dataset: bytes) -> list[Place]:
        """The pieces that stand in a dataset's trees, by slot."""
        found = [
            place
            for place, shard in self.shards.items()
            if shard["dataset"] == dataset and shard["status"] == "active"
        ]
        return sorted(found, key=lambda place: self.shards[place]["slot"])

    def open_deals(self) -> int:
        return sum(deal["status"] == "open" for deal in self.deals.values())

    def totals(self) -> Map:
        """All the money, counted anew."""
        escrow = sum(
            record["deposit"]
            for records in (self.providers, self.deals, self.datasets, self.proposals, self.validators)
            for record in records.values()
        )
        escrow += sum(shard["escrow"] + shard["reward"] + shard["bounty"] for shard in self.shards.values())
        escrow += sum(record["fee"] for record in self.spots.values())
        return {
            "issued": self.genesis.issued,
            "balances": sum(record["balance"] for record in self.accounts.values()),
            "escrow": escrow,
            "collateral": sum(record["stake"] for record in self.providers.values()),
            "burned": self.burned,
        }


def offset(dataset: bytes, period_s: int) -> int:
    digest = hashlib.sha256(b"holdfast/period-offset/1\0" + dataset).digest()
    return int.from_bytes(digest[:8], "big") % period_s


def dataset_id(client: bytes, provider: bytes, proof: str, challenges: int, terms: int) -> bytes:
    named = dag_cbor.encode([client, provider, proof, challenges, terms])
    return hashlib.sha256(b"holdfast/dataset/1\0" + named).digest()


def place_bytes(place: Place) -> bytes:
    return bytes(place[0]) + place[1].to_bytes(2, "big")


def blocks_ahead(s: Plain, seconds: int) -> int:
    """How far ahead the block is that this one's beacon draws: below the number of validators, or 1."""
    most = sum(record["power"] > 0 for record in s.validators.values()) - 1
    while most > 1 and most * 8 > seconds:
        most -= 1
    return 1 if most < 1 else 1 + int(s.beacon.hex(), 16) % most
