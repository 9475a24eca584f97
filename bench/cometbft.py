"""Signed transfers that a ledger on CometBFT commits a second, how soon, and what each costs its processes.

Run from the repository's root: `python -m bench.cometbft [--validators 4,1] [--profile lan] [--count N]
[--rounds N]`. Prints one JSON document on stdout and a table on stderr. The validators are real processes on
this machine, two for each, configured as by `ledger init --profile`; so are the clients, and the embedded
engine is measured beside them in the same way. Transactions are signed before the clock starts; a figure
counts only what came back with a receipt.

- `tx_per_s`: two client processes, each with a server of its own, send many transfers at a time.
- `commit_ms`: from sending one transfer to its receipt, one after the other, while nothing else happens.
- `loaded_commit_ms`: the same at `--rate` transfers a second from one client, each sent when its time comes.
- `…_cpu_us_per_tx`: processor time of all applications, all `cometbft` and the clients during `tx_per_s`.
- `cpu_tx_per_s`: as many as this machine's cores have time for at these costs. Where others work on the same
  machine, `tx_per_s` says how much they left, and this what it would do alone.
- `ed25519_verify_cpu_us`: of one verification, right after that: how fast the machine was just then.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import os
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, redirect_stderr
from dataclasses import dataclass
from pathlib import Path

import uvloop
from aiohttp import web

from bench.ledger import CLIENTS, EXPIRY_S, FEE, SENDERS, Batch, Bench, http_batch_client, medians, signer
from cli.home import OPERATOR_KEY
from ledger.engine.client import LedgerClient
from ledger.engine.rpc import build_rpc
from ledger.genesis import HOLD, Params
from ledger.transactions import Transaction, Transfer, sign
from merkledag import ed25519
from merkledag.ed25519 import Ed25519Signer
from tests.ledger.cometbft.network import child_pids, running_network

WAITING = 32  # of one account at once
SINGLE = 40  # transfers one after the other
LOADED_S = 4.0
STEP_S = 0.05
FUNDS = 1_000_000 * HOLD
VERIFICATIONS = 2_000
TICKS_PER_S = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Ledger:
    """A ledger that runs: its servers, its chain, whoever has the money, and its processes by kind."""

    urls: Sequence[str]
    chain: str
    operator: Ed25519Signer
    processes: dict[str, list[int]]

    def transfer(self, key: Ed25519Signer, nonce: int, to: bytes, amount: int) -> bytes:
        tx = Transaction(self.chain, key.public_key, nonce, FEE, EXPIRY_S, Transfer(to, amount))
        return sign(tx, key).encode()


@asynccontextmanager
async def on_cometbft(folder: Path, validators: int, profile: str = "laptop") -> AsyncIterator[Ledger]:
    with redirect_stderr(open(os.devnull, "w")):  # noqa: ASYNC230, PTH123 (the keys that were made)
        network = running_network(folder, validators, params=Params(), profile=profile)
        async with network as running:
            applications = [each.process.pid for each in running.validators if each.process is not None]
            yield Ledger(
                [each.url for each in running.validators],
                running.genesis.chain_id,
                running[0].home.signer(OPERATOR_KEY),
                {
                    "application": applications,
                    "cometbft": [child for pid in applications for child in child_pids(pid)],
                },
            )


@asynccontextmanager
async def embedded(folder: Path) -> AsyncIterator[Ledger]:
    """In this process, which the clients are not: its time is the server's."""
    bench = Bench(folder)
    await bench.engine.start()
    runner = web.AppRunner(build_rpc(bench.engine), access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        yield Ledger([url], bench.engine.app.chain_id, bench.operator, {"application": [os.getpid()]})
    finally:
        await runner.cleanup()
        await bench.stop()


def cpu_s(pids: Sequence[int]) -> float:
    """Processor time that processes have used, with that of the kernel for them (/proc/PID/stat)."""
    total = 0.0
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        total += (int(fields[11]) + int(fields[12])) / TICKS_PER_S
    return total


async def throughput(ledger: Ledger, batch: Batch, seconds: float) -> dict[str, float]:
    """Two client processes, at two servers if there are as many."""
    parts = [batch[number::CLIENTS] for number in range(CLIENTS)]
    urls = [ledger.urls[number % len(ledger.urls)] for number in range(CLIENTS)]
    loop = asyncio.get_running_loop()
    context = multiprocessing.get_context("spawn")
    ready = context.Barrier(CLIENTS + 1)
    with context.Pool(CLIENTS, ready.wait) as pool:
        await loop.run_in_executor(None, ready.wait)  # the processes are there before the clock starts
        clients = [each.pid for each in multiprocessing.active_children() if each.pid is not None]
        processes = {**ledger.processes, "clients": clients}
        before = {kind: cpu_s(pids) for kind, pids in processes.items()}
        start = time.perf_counter()
        arguments = [(url, part, seconds) for url, part in zip(urls, parts, strict=True)]
        work = pool.starmap_async(http_batch_client, arguments)
        done = sum(await loop.run_in_executor(None, work.get, seconds + 60))
        taken = time.perf_counter() - start
        used = {kind: cpu_s(pids) - before[kind] for kind, pids in processes.items()}
    return {
        "tx_per_s": done / taken,
        "cpu_tx_per_s": len(os.sched_getaffinity(0)) * done / sum(used.values()),
        **{f"{kind}_cpu_us_per_tx": used_s / done * 1e6 for kind, used_s in used.items()},
    }


def verify_cpu_us() -> float:
    """Processor time of one Ed25519 verification, which each validator does once for a transfer."""
    key, message = signer("limit"), b"x" * 200
    signature = key.sign(message)
    start = time.thread_time()
    assert all(ed25519.verify(key.public_key, signature, message) for _ in range(VERIFICATIONS))
    return (time.thread_time() - start) / VERIFICATIONS * 1e6


async def one_after_the_other(client: LedgerClient, raws: Sequence[bytes]) -> list[float]:
    """How long each took, in milliseconds."""
    took = []
    for raw in raws:
        start = time.perf_counter()
        assert (await client.submit(raw)).code == 0
        took.append((time.perf_counter() - start) * 1e3)
    return took


async def at_a_rate(client: LedgerClient, raws: Sequence[bytes], rate: int) -> list[float]:
    """The same where each is sent when its time comes, however many are still on their way."""
    took = []
    start = time.perf_counter()

    async def send(raw: bytes, due: float) -> None:
        assert (await client.submit(raw)).code == 0
        took.append((time.perf_counter() - due) * 1e3)

    async with asyncio.TaskGroup() as sends:
        for number, raw in enumerate(raws):
            due = start + number / rate
            if due > time.perf_counter():
                await asyncio.sleep(STEP_S)
            sends.create_task(send(raw, due))
    return took


def spread(name: str, took: Sequence[float]) -> dict[str, float]:
    """The median and the 95th percentile."""
    cuts = statistics.quantiles(took, n=20)
    return {f"{name}_p50": statistics.median(took), f"{name}_p95": cuts[-1]}


async def measured(ledger: Ledger, count: int, seconds: float, rate: int) -> dict[str, float]:
    """All figures of a ledger that has just begun."""
    keys = [signer(f"sender {number}") for number in range(SENDERS)]
    async with LedgerClient(ledger.urls[0]) as client:
        funds = [ledger.transfer(ledger.operator, n, key.public_key, FUNDS) for n, key in enumerate(keys)]
        for begin in range(0, SENDERS, WAITING):
            funded = await client.submit_all(funds[begin : begin + WAITING])
            assert all(receipt.code == 0 for receipt in funded), funded
        to = ledger.operator.public_key
        single = [ledger.transfer(keys[0], nonce, to, 1) for nonce in range(SINGLE)]
        idle = await one_after_the_other(client, single)
        many = int(rate * LOADED_S) // (SENDERS - 1)
        raws = [ledger.transfer(key, nonce, to, 1) for nonce in range(many) for key in keys[1:]]
        loaded = await at_a_rate(client, raws, rate)
        first = [SINGLE, *[many] * (SENDERS - 1)]
        each = max(1, count // SENDERS)
        batch = [
            [ledger.transfer(key, nonce + step, to, 1) for step in range(each)]
            for key, nonce in zip(keys, first, strict=True)
        ]
        return {
            **await throughput(ledger, batch, seconds),
            "ed25519_verify_cpu_us": verify_cpu_us(),
            **spread("commit_ms", idle),
            **spread("loaded_commit_ms", loaded),
            "blocks": float((await client.status())["height"]),
        }


async def one_round(arguments: argparse.Namespace) -> dict[str, dict[str, float]]:
    """Every kind of ledger once."""
    found = {}
    sizes = [int(text) for text in arguments.validators.split(",")]
    for name, validators in [*((f"{size} on CometBFT", size) for size in sizes), ("embedded", 0)]:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder)
            running = on_cometbft(path, validators, arguments.profile) if validators else embedded(path)
            async with running as ledger:
                found[name] = await measured(ledger, arguments.count, arguments.seconds, arguments.rate)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--validators", default="4,1", help="sizes of the networks, separated by commas")
    parser.add_argument("--profile", default="laptop", help="laptop, lan or wan")
    parser.add_argument("--count", type=int, default=8_192, help="transfers of tx_per_s")
    parser.add_argument("--rate", type=int, default=100, help="transfers a second of loaded_commit_ms")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=20.0, help="at most so long for tx_per_s")
    arguments = parser.parse_args()
    rounds = [uvloop.run(one_round(arguments)) for _ in range(max(1, arguments.rounds))]
    found = {kind: medians([each[kind] for each in rounds]) for kind in rounds[0]}
    print(json.dumps({"bench": "cometbft", "transfers": arguments.count, "rate": arguments.rate, **found}))
    figures = list(dict.fromkeys(figure for each in found.values() for figure in each))
    print(f"{'':26}" + "".join(f"{kind:>16}" for kind in found), file=sys.stderr)
    for figure in figures:
        columns = "".join(f"{each.get(figure, float('nan')):>16,.1f}" for each in found.values())
        print(f"{figure:26}{columns}", file=sys.stderr)


if __name__ == "__main__":
    main()
