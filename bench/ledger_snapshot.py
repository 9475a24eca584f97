"""What a snapshot of a large state costs the node that makes it, and the node that begins with it.

Run from the repository's root: `python -m bench.ledger_snapshot [--deals 100000] [--nodes N]`. Prints one
JSON document on stdout and a table on stderr. The state is made as `bench.ledger_scale` makes it. Then blocks
of 100 transfers are made, first alone, then while a thread writes a snapshot, as an engine does; and a fresh
node takes the snapshot chunk by chunk, as CometBFT brings them. Memory is anonymous (RssAnon).
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

from bench.ledger_scale import CHAIN, Scale, anonymous_mb
from ledger.engine.cometbft.sync.restore import Restoration
from ledger.engine.cometbft.sync.snapshots import SHOWN_AFTER_BLOCKS, SnapshotServer
from ledger.engine.snapshots import Snapshots
from ledger.snapshot import SnapshotManifest
from ledger.transactions import Transfer

ALONE_BLOCKS = 20
PAUSE_S = 0.05  # between blocks, as a validator waits for others'


@dataclass
class Blocks:
    """Blocks of transfers, one after the other, and what each took."""

    scale: Scale
    took_ms: list[float] = field(default_factory=list)

    def one(self) -> None:
        """Makes one."""
        scale = self.scale
        to = scale.nodes[0].public_key
        self.took_ms.append(scale.block(scale.tx(key, Transfer(to, 1)) for key in scale.clients)[0])
        time.sleep(PAUSE_S)


def database_mb(scale: Scale) -> float:
    return (scale.folder / "db" / "data.mdb").stat().st_size / 1e6


def measure_making(scale: Scale) -> tuple[dict[str, float], Snapshots]:
    """The costs of a snapshot to who makes it."""
    alone, beside = Blocks(scale), Blocks(scale)
    for _ in range(ALONE_BLOCKS):
        alone.one()
    before_mb, before_database_mb = anonymous_mb(), database_mb(scale)
    snapshots = Snapshots(scale.storage, CHAIN, 1)
    started = time.perf_counter()
    write = snapshots.begin()
    begin_ms = 1_000 * (time.perf_counter() - started)
    assert write is not None
    peak_mb = before_mb
    thread = threading.Thread(target=write)
    thread.start()
    while thread.is_alive():
        beside.one()
        peak_mb = max(peak_mb, anonymous_mb())
    thread.join()
    took_s = time.perf_counter() - started
    beside_mb = database_mb(scale) - before_database_mb
    count = len(beside.took_ms)
    again_mb = database_mb(scale)
    for _ in range(count):
        alone.one()
    path = snapshots.path(snapshots.newest())
    return {
        "deals": scale.deals,
        "snapshot_mb": path.stat().st_size / 1e6,
        "begin_ms": begin_ms,
        "pages_held_s": took_s,
        "blocks_meanwhile": count,
        "block_alone_ms": statistics.median(alone.took_ms),
        "block_meanwhile_ms": statistics.median(beside.took_ms),
        "block_meanwhile_worst_ms": max(beside.took_ms),
        "database_mb": again_mb,
        "database_grew_meanwhile_mb": beside_mb,
        "database_grew_alone_mb": database_mb(scale) - again_mb,
        "memory_more_mb": peak_mb - before_mb,
    }, snapshots


def measure_restoring(scale: Scale, snapshots: Snapshots, folder: Path) -> dict[str, float]:
    """The costs to who begins with it."""
    server = SnapshotServer(snapshots)
    [offer] = server.offers(snapshots.newest() + SHOWN_AFTER_BLOCKS)
    folder.mkdir()
    before_mb = peak_mb = anonymous_mb()
    loading_s, checking_s = [], []
    started = time.perf_counter()
    restoration = Restoration(folder, SnapshotManifest.decode(offer.metadata))
    for index in range(offer.chunks):
        loading = time.perf_counter()
        raw = server.chunk(offer.height, index)
        taking = time.perf_counter()
        restoration.add(raw, "peer")
        loading_s.append(taking - loading)
        checking_s.append(time.perf_counter() - taking)
        peak_mb = max(peak_mb, anonymous_mb())
    ending = time.perf_counter()
    restoration.finish(scale.genesis)
    return {
        "chunks": offer.chunks,
        "manifest_kb": len(offer.metadata) / 1e3,
        "chunk_served_ms": 1_000 * statistics.median(loading_s),
        "chunk_taken_ms": 1_000 * statistics.median(checking_s),
        "finish_ms": 1_000 * (time.perf_counter() - ending),
        "restored_s": time.perf_counter() - started,
        "restoring_memory_mb": peak_mb - before_mb,
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--deals", type=int, default=100_000)
    parser.add_argument("--nodes", type=int, default=1_000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        scale = Scale(Path(folder) / "ledger")
        scale.people(options.nodes)
        scale.grow(options.deals)
        found, snapshots = measure_making(scale)
        found |= measure_restoring(scale, snapshots, Path(folder) / "fresh")
        scale.storage.close()
    for name, value in found.items():
        print(f"{name:28}{value:>14,.2f}", file=sys.stderr)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
