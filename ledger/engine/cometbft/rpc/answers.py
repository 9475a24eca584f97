"""What CometBFT's RPC answers, typed; KeyError, TypeError or ValueError where it is anything else."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

from ledger.engine.cometbft.home.keys import read_public

EVENT_PREFIX = "tendermint/event/"


class Verdict(NamedTuple):
    """What a node's mempool said of a transaction: code 0 if it takes it, else one of `ledger.result`.

    `known`: it had these bytes already, or a block did.
    """

    code: int
    log: str
    known: bool = False


@dataclass(frozen=True, slots=True)
class CometStatus:
    """What a node says of itself; key and power are its validator's."""

    network: str
    height: int
    block_hash: bytes
    earliest_height: int
    catching_up: bool
    address: bytes
    public_key: bytes
    power: int


@dataclass(frozen=True, slots=True)
class CometEvent:
    """An event of a subscription; `after_gap` if the connection was lost before: look up what was missed."""

    kind: str
    value: Any
    events: dict[str, list[str]]
    after_gap: bool = False


def status_of(found: Any) -> CometStatus:
    """Of `status`."""
    sync, own = found["sync_info"], found["validator_info"]
    return CometStatus(
        network=str(found["node_info"]["network"]),
        height=int(sync["latest_block_height"]),
        block_hash=bytes.fromhex(sync["latest_block_hash"]),
        earliest_height=int(sync["earliest_block_height"]),
        catching_up=bool(sync["catching_up"]),
        address=bytes.fromhex(own["address"]),
        public_key=read_public(own["pub_key"]),
        power=int(own["voting_power"]),
    )


def event_of(result: Any) -> CometEvent:
    """Of one message of a subscription."""
    data = result["data"]
    return CometEvent(
        str(data["type"]).removeprefix(EVENT_PREFIX), data["value"], dict(result["events"] or {})
    )
