"""CometBFT's config.toml: only what differs from its defaults, each with its reason.

It is written once, by `ledger init` or `join`; from then on it is the operator's, as with any other CometBFT
chain. What the two processes must agree on in each run (the socket between them) is said on the command line.
Measured values: bench/cometbft.py. Names and defaults: config/config.go of CometBFT 0.39 and 0.40.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from ledger import limits
from ledger.engine.intake import MAX_WAITING, MAX_WAITING_BYTES

P2P_PORT: Final = 26656
RPC_PORT: Final = 26657
METRICS_PORT: Final = 26660
# What one JSON-RPC request to the local process may hold: many transactions in base64.
RPC_BATCH: Final = 1_000
RPC_BODY_BYTES: Final = 2 * limits.MAX_BLOCK_BYTES
MIN_SYNC_SERVERS: Final = 2  # CometBFT compares what two say
_PEER = re.compile(r"[0-9a-f]{40}@[^\s,@/\"\\]{1,253}:[0-9]{1,5}")
_TRUST = re.compile(r"([1-9][0-9]{0,18}):([0-9A-Fa-f]{64})")

Value = str | int | bool | float
Table = Mapping[str, Value]


@dataclass(frozen=True, slots=True)
class Profile:
    """Timeouts and buffers for where the validators of one chain are; they should all have the same.

    An idle chain makes a block every `timeout_commit_ms`: state changes with each one (beacon, time).
    """

    name: str
    timeout_propose_ms: int  # a proposer that is gone costs this once a round
    timeout_vote_ms: int
    timeout_commit_ms: int
    gossip_sleep_ms: int
    flush_ms: int
    rate_bytes_per_s: int
    same_machine: bool  # several validators behind one address, private addresses
    pex: bool  # peers tell of other peers


_FAST: Final = 51_200_000
PROFILES: Final[Mapping[str, Profile]] = {
    profile.name: profile
    for profile in (
        Profile("laptop", 500, 250, 200, 10, 5, _FAST, same_machine=True, pex=False),
        Profile("lan", 1_000, 500, 200, 10, 5, _FAST, same_machine=True, pex=True),
        Profile("wan", 3_000, 1_000, 1_000, 50, 10, _FAST, same_machine=False, pex=True),
    )
}


@dataclass(frozen=True, slots=True)
class StateSync:
    """How a new node gets its state from others' snapshots instead of from all blocks.

    `servers` are RPC addresses of CometBFT processes; the block of `height` must have the hash, which is
    known from somebody who is trusted, and must not be older than `period_s`.
    """

    servers: tuple[str, ...]
    height: int
    hash: str
    period_s: int


@dataclass(frozen=True, slots=True)
class CometConfig:
    """What is chosen for one process. Addresses are HOST:PORT, peers ID@HOST:PORT."""

    moniker: str
    profile: Profile
    p2p_listen: str = f"0.0.0.0:{P2P_PORT}"
    rpc_listen: str = f"127.0.0.1:{RPC_PORT}"
    metrics_listen: str = ""
    external_address: str = ""
    peers: tuple[str, ...] = ()
    sync: StateSync | None = None

    def text(self) -> str:
        """The file."""
        lines = [
            "# Written by `holdfast ledger`: what differs from CometBFT's defaults. It is not written again:",
            "# change what you like. The address of the application (proxy_app) is given when it starts.",
            *_lines(self._base()),
        ]
        for name, table in self._tables().items():
            lines += ["", f"[{name}]", *_lines(table)]
        return "\n".join(lines) + "\n"

    def _base(self) -> Table:
        # Each block would be three lines: what matters is told by `ledger status` and the metrics.
        return {"moniker": self.moniker, "log_level": "main:info,statesync:info,blocksync:info,*:error"}

    def _tables(self) -> dict[str, Table]:
        profile = self.profile
        return {
            "rpc": {
                "laddr": f"tcp://{self.rpc_listen}",
                "max_request_batch_size": RPC_BATCH,
                "max_body_bytes": RPC_BODY_BYTES,
            },
            "p2p": {
                "laddr": f"tcp://{self.p2p_listen}",
                "external_address": self.external_address,
                "persistent_peers": ",".join(self.peers),
                # Peers that were chosen are let in also where all places are taken.
                "unconditional_peer_ids": ",".join(peer.partition("@")[0] for peer in self.peers),
                "persistent_peers_max_dial_period": "10s",  # else a peer that was away for long waits long
                "addr_book_strict": not profile.same_machine,
                "allow_duplicate_ip": profile.same_machine,
                "pex": profile.pex,
                "flush_throttle_timeout": f"{profile.flush_ms}ms",
                "send_rate": profile.rate_bytes_per_s,
                "recv_rate": profile.rate_bytes_per_s,
            },
            "mempool": {
                "size": MAX_WAITING,
                "cache_size": 2 * MAX_WAITING,
                "max_txs_bytes": MAX_WAITING_BYTES,
                "max_tx_bytes": limits.MAX_TX_BYTES,
            },
            "consensus": {
                "timeout_propose": f"{profile.timeout_propose_ms}ms",
                "timeout_prevote": f"{profile.timeout_vote_ms}ms",
                "timeout_precommit": f"{profile.timeout_vote_ms}ms",
                "timeout_commit": f"{profile.timeout_commit_ms}ms",
                "peer_gossip_sleep_duration": f"{profile.gossip_sleep_ms}ms",
            },
            "blocksync": {"adaptive_sync": False},  # it may make a validator sign what it has signed
            "tx_index": {"indexer": "null"},  # receipts and events are in the application's own store
            "instrumentation": {
                "prometheus": bool(self.metrics_listen),
                "prometheus_listen_addr": self.metrics_listen or f"127.0.0.1:{METRICS_PORT}",
            },
            **({} if self.sync is None else {"statesync": _sync_table(self.sync)}),
        }


def is_peer(text: str) -> bool:
    """Whether a text is ID@HOST:PORT as CometBFT dials it."""
    return _PEER.fullmatch(text) is not None and 0 < int(text.rpartition(":")[2]) < 1 << 16


def parse_trust(text: str) -> tuple[int, str]:
    """Height and hash of HEIGHT:HASH; ValueError for anything else."""
    found = _TRUST.fullmatch(text)
    if found is None or int(found[1]) > limits.MAX_UINT:
        raise ValueError(
            f"{text!r} is no block to trust: write HEIGHT:HASH, the hash as 64 hexadecimal digits"
        )
    return int(found[1]), found[2].upper()


def _sync_table(sync: StateSync) -> Table:
    # Who names one server alone compares it with itself: the hash that is trusted holds either way.
    servers = sync.servers if len(sync.servers) >= MIN_SYNC_SERVERS else sync.servers * MIN_SYNC_SERVERS
    return {
        "enable": True,
        "rpc_servers": ",".join(servers),
        "trust_height": sync.height,
        "trust_hash": sync.hash,
        "trust_period": f"{sync.period_s}s",
        "discovery_time": "5s",
    }


def _lines(table: Table) -> list[str]:
    return [f"{name} = {_toml(value)}" for name, value in table.items()]


def _toml(value: Value) -> str:
    """A value in TOML, whose basic strings are escaped as JSON's."""
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    return json.dumps(value)
