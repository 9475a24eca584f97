"""The layout of the state: which key holds what.

    account/ account                         AccountRecord
    bls/ key                                 the account whose BLS key it is
    chain                                    ChainRecord
    consensus/ address                       ConsensusKeyRecord: whose the consensus key of this address is
    deal/ deal                               DealRecord
    dataset/ dataset                         DatasetRecord
    draw/ u64 height, deal, u16 shard        empty: a shard waits for a beacon later than `height`
    due/ u8 what, u64 time, subject          empty: the subject (see `due`) is looked at from this time, or
                                             height, on
    end/ dataset, u64 period, u32 slot       empty: the slot's piece leaves after `period`
    free/ dataset, u32 slot                  empty: the slot was used and is free again
    genesis                                  Genesis
    give/ dataset, u32 slot                  empty: the slot's piece leaves after the next proven period
    join/ dataset, u64 number                SlotRecord: a piece that waits to join the dataset
    moving/ account                          empty: the end of the block looks at the validator's power
    node/ dataset, u8 tree, u8 level, u32 i  u64 sum ‖ hash: a node of a slot tree (tree 0 data, 1 metadata)
    open/ u32 number                         the CID of the proposal that this is, while it may be voted on
    params/ u32 version                      Params: the parameters of deals made under this version
    proposal/ proposal                       ProposalRecord
    provider/ account                        ProviderRecord
    seat/ u32 seat                           the provider of a seat in the draw
    seat-of/ account                         u32 seat
    seated/ account                          empty: governance granted it power, or it has some left
    seats                                    u32: how many there are
    shard/ deal, u16 shard                   ShardRecord
    slot/ dataset, u32 slot                  SlotRecord
    spot/ deal, u16 shard                    SpotRecord
    stake/ account, u32 number               u64: the least stake since proposal `number` (see `stakes`)
    stuck/ key                               empty: the work of a key, such as due/ and draw/, that failed
    totals                                   TotalsRecord
    validator/ account                       ValidatorRecord
    vote/ proposal, account                  VoteRecord
    weight/ u8 level, u32 i                  64 × u64: a row of the draw's weights (see `weights`)

Numbers are big-endian, so that keys sort by them; a deal and a proposal are the bytes of their CIDs.
"""

from __future__ import annotations

import hashlib

from merkledag.cid import CID

ACCOUNT = b"account/"
BLS = b"bls/"
CONSENSUS = b"consensus/"
DEAL = b"deal/"
DATASET = b"dataset/"
DRAW = b"draw/"
DUE = b"due/"
END = b"end/"
FREE = b"free/"
GIVE = b"give/"
JOIN = b"join/"
MOVING = b"moving/"
NODE = b"node/"
OPEN = b"open/"
PARAMS = b"params/"
PROPOSAL = b"proposal/"
PROVIDER = b"provider/"
SEAT = b"seat/"
SEAT_OF = b"seat-of/"
SEATED = b"seated/"
SEATS = b"seats"
SHARD = b"shard/"
SLOT = b"slot/"
SPOT = b"spot/"
STAKE = b"stake/"
STUCK = b"stuck/"
VALIDATOR = b"validator/"
VOTE = b"vote/"
WEIGHT = b"weight/"
CHAIN = b"chain"
GENESIS = b"genesis"
TOTALS = b"totals"

DATA_TREE = b"\x00"
META_TREE = b"\x01"

ADDRESS_BYTES = 20


def u16(number: int) -> bytes:
    """Two bytes."""
    return number.to_bytes(2, "big")


def u32(number: int) -> bytes:
    """Four bytes."""
    return number.to_bytes(4, "big")


def u64(number: int) -> bytes:
    """Eight bytes."""
    return number.to_bytes(8, "big")


def account(account: bytes) -> bytes:
    """The key of an account."""
    return ACCOUNT + account


def provider(account: bytes) -> bytes:
    """The key of a provider."""
    return PROVIDER + account


def validator(account: bytes) -> bytes:
    """The key of who registered to validate."""
    return VALIDATOR + account


def seated(account: bytes) -> bytes:
    """The key that marks whoever has power, or will have."""
    return SEATED + account


def moving(account: bytes) -> bytes:
    """The key that has a validator's power looked at."""
    return MOVING + account


def address(consensus_key: bytes) -> bytes:
    """How CometBFT names the holder of an Ed25519 key (its crypto/tmhash, "truncated")."""
    return hashlib.sha256(consensus_key).digest()[:ADDRESS_BYTES]


def consensus(address: bytes) -> bytes:
    """The key of whose a consensus key is."""
    return CONSENSUS + address


def beacon_key(bls_key: bytes) -> bytes:
    """The key of whose a BLS key is."""
    return BLS + bls_key


def params(version: int) -> bytes:
    """The key of a version of the parameters."""
    return PARAMS + u32(version)


def proposal(proposal: CID) -> bytes:
    """The key of a proposal."""
    return PROPOSAL + bytes(proposal)


def open_proposal(number: int) -> bytes:
    """The key that marks a proposal as open."""
    return OPEN + u32(number)


def read_open(key: bytes) -> int:
    """The proposal's number of a key that `open_proposal` made."""
    return int.from_bytes(key[len(OPEN) :], "big")


def vote(proposal: CID, account: bytes) -> bytes:
    """The key of a provider's vote on a proposal."""
    return VOTE + bytes(proposal) + account


def stake(account: bytes, number: int) -> bytes:
    """The key of what a provider's stake was up to proposal `number`."""
    return STAKE + account + u32(number)


def deal(deal: CID) -> bytes:
    """The key of a deal."""
    return DEAL + bytes(deal)


def shard(deal: CID, index: int) -> bytes:
    """The key of a shard."""
    return SHARD + bytes(deal) + u16(index)


def spot(deal: CID, index: int) -> bytes:
    """The key of a shard's spot challenge."""
    return SPOT + bytes(deal) + u16(index)


def dataset(dataset: bytes) -> bytes:
    """The key of a dataset."""
    return DATASET + dataset


def slot(dataset: bytes, slot: int) -> bytes:
    """The key of a slot of a dataset."""
    return SLOT + dataset + u32(slot)


def free(dataset: bytes, slot: int) -> bytes:
    """The key that marks a free slot."""
    return FREE + dataset + u32(slot)


def give(dataset: bytes, slot: int) -> bytes:
    """The key that makes a slot's piece leave after the next proven period."""
    return GIVE + dataset + u32(slot)


def end(dataset: bytes, period: int, slot: int) -> bytes:
    """The key that makes a slot's piece leave after a period."""
    return END + dataset + u64(period) + u32(slot)


def join(dataset: bytes, number: int) -> bytes:
    """The key of a piece that waits to join."""
    return JOIN + dataset + u64(number)


def node(dataset: bytes, tree: bytes, level: int, index: int) -> bytes:
    """The key of a slot tree's node."""
    return NODE + dataset + tree + level.to_bytes(1, "big") + u32(index)


def draw(height: int, deal: CID, index: int) -> bytes:
    """The key of a shard that waits to be drawn."""
    return DRAW + u64(height) + bytes(deal) + u16(index)


def read_draw(key: bytes) -> tuple[int, CID, int]:
    """(height, deal, shard) of a key that `draw` made."""
    start = len(DRAW) + 8
    return (
        int.from_bytes(key[len(DRAW) : start], "big"),
        CID.decode(key[start:-2]),
        int.from_bytes(key[-2:], "big"),
    )


def seat(seat: int) -> bytes:
    """The key of a seat in the draw."""
    return SEAT + u32(seat)


def seat_of(account: bytes) -> bytes:
    """The key of the number of a provider's seat."""
    return SEAT_OF + account


def weights(level: int, index: int) -> bytes:
    """The key of a row of weights."""
    return WEIGHT + level.to_bytes(1, "big") + u32(index)
