"""What CometBFT's RPC answers, typed; KeyError, TypeError or ValueError where it is anything else."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from typing import Any, NamedTuple

EVENT_PREFIX = "tendermint/event/"


class Verdict(NamedTuple):
    """What a node's CheckTx said of a transaction: 0 passed into its mempool; `known`: it had these bytes."""

    code: int
    log: str
    known: bool = False


@dataclass(frozen=True, slots=True)
class CometStatus:
    """What a node says of itself; times as CometBFT writes them (RFC 3339)."""

    network: str
    node_id: str
    version: str
    height: int
    block_hash: bytes
    app_hash: bytes  # of the last block's header: the state before that block
    time: str
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
    node, sync, own = found["node_info"], found["sync_info"], found["validator_info"]
    return CometStatus(
        network=str(node["network"]),
        node_id=str(node["id"]),
        version=str(node["version"]),
        height=int(sync["latest_block_height"]),
        block_hash=bytes.fromhex(sync["latest_block_hash"]),
        app_hash=bytes.fromhex(sync["latest_app_hash"]),
        time=str(sync["latest_block_time"]),
        earliest_height=int(sync["earliest_block_height"]),
        catching_up=bool(sync["catching_up"]),
        address=bytes.fromhex(own["address"]),
        public_key=base64.b64decode(own["pub_key"]["value"], validate=True),
        power=int(own["voting_power"]),
    )


def event_of(result: Any) -> CometEvent:
    """Of one message of a subscription."""
    data = result["data"]
    return CometEvent(
        str(data["type"]).removeprefix(EVENT_PREFIX), data["value"], dict(result["events"] or {})
    )
