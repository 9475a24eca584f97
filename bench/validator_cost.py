"""What a validator costs the machine that it runs on: processor, memory and disk, idle and for each transfer.

Run from the repository's root: `python -m bench.validator_cost [--profile lan] [--seconds S] [--count N]`.
Prints one JSON document on stdout and a table on stderr. Four validators of one chain, two processes each,
run on this machine; figures are one validator's, the mean of the four. First nothing happens for some
seconds, then two clients have transfers committed.

- `blocks_per_s`, `…_cpu_percent` (of one core): while nothing happens.
- `…_anonymous_mib`, `…_resident_mib`: memory of its own, and with what it shares with the system's cache;
  `…_loaded_…` after the transfers.
- `block_…_bytes`: growth of its files a block without transfers; `transfer_…_bytes`: a transfer.
  `log` is CometBFT's write-ahead log, of which it keeps 1 GiB at most; `cometbft` its stores before they
  compress anything; `ledger` is the application's database.
- `idle_mib_per_day`: what the stores without that log grow in a day of such blocks.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
from pathlib import Path

import uvloop

from bench.cometbft import FUNDS, WAITING, Ledger, cpu_s, on_cometbft, throughput
from bench.ledger import SENDERS, signer
from ledger.engine.client import LedgerClient

VALIDATORS = 4
SETTLE_S = 3.0
AT_MOST_S = 60.0
DAY_S = 86_400
SECTOR_BYTES = 512  # of st_blocks


def used_bytes(folder: Path) -> int:
    return sum(path.stat().st_blocks * SECTOR_BYTES for path in folder.rglob("*") if path.is_file())


def disk_bytes(folder: Path) -> dict[str, float]:
    """Of one validator on average."""
    total = {"log": 0.0, "cometbft": 0.0, "ledger": 0.0}
    for home in sorted(folder.glob("v?")):
        data = home / "ledger" / "cometbft" / "data"
        log, stores = used_bytes(data / "cs.wal"), used_bytes(data)
        total["log"] += log / VALIDATORS
        total["cometbft"] += (stores - log) / VALIDATORS
        total["ledger"] += (used_bytes(home / "ledger") - stores) / VALIDATORS
    return total


def memory_mib(ledger: Ledger, loaded: str = "") -> dict[str, float]:
    found = {}
    for kind, pids in ledger.processes.items():
        for name, row in (("anonymous", "RssAnon:"), ("resident", "VmRSS:")):
            lines = [line for pid in pids for line in Path(f"/proc/{pid}/status").read_text().splitlines()]
            kib = sum(int(line.split()[1]) for line in lines if line.startswith(row))
            found[f"{kind}_{loaded}{name}_mib"] = kib / 1024 / VALIDATORS
    return found


async def idle(ledger: Ledger, client: LedgerClient, folder: Path, seconds: float) -> dict[str, float]:
    """The figures of some seconds in which nothing happens."""
    height, disk = (await client.status())["height"], disk_bytes(folder)
    before = {kind: cpu_s(pids) for kind, pids in ledger.processes.items()}
    await asyncio.sleep(seconds)
    blocks = (await client.status())["height"] - height
    grown = {kind: (now - disk[kind]) / blocks for kind, now in disk_bytes(folder).items()}
    percent = {kind: (cpu_s(pids) - before[kind]) / seconds * 100 for kind, pids in ledger.processes.items()}
    stores = grown["cometbft"] + grown["ledger"]
    return {
        "blocks_per_s": blocks / seconds,
        **{f"{kind}_cpu_percent": value / VALIDATORS for kind, value in percent.items()},
        **memory_mib(ledger),
        **{f"block_{kind}_bytes": value for kind, value in grown.items()},
        "idle_mib_per_day": stores * blocks / seconds * DAY_S / (1 << 20),
    }


async def loaded(ledger: Ledger, client: LedgerClient, folder: Path, count: int) -> dict[str, float]:
    """The figures of so many transfers."""
    keys = [signer(f"sender {number}") for number in range(SENDERS)]
    funds = [ledger.transfer(ledger.operator, n, key.public_key, FUNDS) for n, key in enumerate(keys)]
    for begin in range(0, SENDERS, WAITING):
        assert all(receipt.code == 0 for receipt in await client.submit_all(funds[begin : begin + WAITING]))
    to = ledger.operator.public_key
    batch = [[ledger.transfer(key, nonce, to, 1) for nonce in range(count // SENDERS)] for key in keys]
    disk = disk_bytes(folder)
    await throughput(ledger, batch, AT_MOST_S)
    each = {kind: (now - disk[kind]) / count for kind, now in disk_bytes(folder).items()}
    return {
        **memory_mib(ledger, "loaded_"),
        **{f"transfer_{kind}_bytes": value for kind, value in each.items()},
    }


async def measured(profile: str, seconds: float, count: int) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        async with (
            on_cometbft(folder, VALIDATORS, profile) as ledger,
            LedgerClient(ledger.urls[0]) as client,
        ):
            await asyncio.sleep(SETTLE_S)
            return {
                **await idle(ledger, client, folder, seconds),
                **await loaded(ledger, client, folder, count),
            }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--profile", default="lan", help="laptop or lan: `wan` refuses peers on one machine")
    parser.add_argument("--seconds", type=float, default=60.0, help="in which nothing happens")
    parser.add_argument("--count", type=int, default=8_192, help="transfers")
    arguments = parser.parse_args()
    found = uvloop.run(measured(arguments.profile, arguments.seconds, arguments.count))
    print(json.dumps({"bench": "validator_cost", "profile": arguments.profile, **found}))
    for figure, value in found.items():
        print(f"{figure:34}{value:>14,.1f}", file=sys.stderr)


if __name__ == "__main__":
    main()
