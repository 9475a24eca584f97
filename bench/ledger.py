"""Signed transfers that the embedded ledger commits a second, in process and over HTTP.

Run from the repository's root: `python -m bench.ledger [--count N] [--rounds N] [--seconds S]`. Prints one
JSON document on stdout and a table on stderr. Beside the figures stands the machine's own limit, Ed25519
verifications a second (on one thread and on two), measured in the same run, in turns; every figure is a
median. Transactions are signed before the clock starts; a figure counts only what came back with a receipt.
The HTTP clients are processes of their own, on the same cores; they send each transaction in a request of its
own, and (`http_batch`) many in one. `--before FOLDER` names a checkout of another commit: the rounds of the
two alternate, and the figures of both are shown.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import multiprocessing
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import uvloop
from aiohttp import ClientSession, web

from ledger.engine.assemble import load_application
from ledger.engine.embedded import EmbeddedEngine
from ledger.engine.rpc import build_rpc
from ledger.engine.storage import LedgerStorage
from ledger.genesis import HOLD, Genesis, Params
from ledger.transactions import Transaction, Transfer, sign
from merkledag import dag_cbor, ed25519
from merkledag.ed25519 import Ed25519Signer
from proofs.bls.signatures import BlsSigner

CHAIN = "bench"
SENDERS = 128
IN_FLIGHT = 8  # of one sender in process
CLIENTS = 2  # processes
BATCHES = 4  # requests with many transactions at once, of one client
EXPIRY_S = 4_000_000_000
FEE = 2_000
Batch = list[list[bytes]]  # one list of transactions a sender, in the order of their nonces


def signer(name: str) -> Ed25519Signer:
    return Ed25519Signer.from_seed(hashlib.sha256(name.encode()).digest())


def transfer(key: Ed25519Signer, nonce: int, to: bytes, amount: int) -> bytes:
    return sign(Transaction(CHAIN, key.public_key, nonce, FEE, EXPIRY_S, Transfer(to, amount)), key).encode()


class Bench:
    """A ledger in a temporary folder with `SENDERS` funded accounts."""

    def __init__(self, folder: Path) -> None:
        self.operator = signer("operator")
        self.keys = [signer(f"sender {number}") for number in range(SENDERS)]
        bls = BlsSigner.from_seed(hashlib.sha256(b"beacon").digest())
        genesis = Genesis.make(
            chain_id=CHAIN,
            time_s=int(time.time()),
            operator=self.operator.public_key,
            bls_key=bls.public_key,
            bls_possession=bls.prove_possession(),
            issued=10**9 * HOLD,
            params=Params(),
        )
        self.storage = LedgerStorage(folder)
        self.storage.open()
        app = load_application(self.storage, genesis)
        self.engine = EmbeddedEngine(app, self.storage, self.operator, {bls.public_key: bls}, time.time)

    async def start(self) -> None:
        await self.engine.start()
        for nonce, key in enumerate(self.keys):
            raw = transfer(self.operator, nonce, key.public_key, 1_000_000 * HOLD)
            assert (await self.engine.submit(raw)).code == 0

    async def stop(self) -> None:
        await self.engine.stop()
        self.storage.close()

    def batch(self, count: int) -> Batch:
        """`count` transfers round the circle of senders."""
        batch: Batch = []
        for number, key in enumerate(self.keys):
            to = self.keys[(number + 1) % SENDERS].public_key
            first = self.engine.app.account(key.public_key).nonce
            batch.append([transfer(key, first + step, to, 1) for step in range(count // SENDERS)])
        return batch


async def send_all(raws: Sequence[bytes], send: Callable[[bytes], Awaitable[bool]], until: float) -> int:
    """Sends one sender's transactions, `IN_FLIGHT` at a time; returns how many were committed."""
    done = 0
    for start in range(0, len(raws), IN_FLIGHT):
        if time.perf_counter() > until:
            break
        done += sum(await asyncio.gather(*(send(raw) for raw in raws[start : start + IN_FLIGHT])))
    return done


async def in_process(bench: Bench, count: int, seconds: float) -> dict[str, float]:
    """Transfers committed a second through `EmbeddedEngine.submit`, and what processor time one takes.

    The event loop's thread is what a single chain cannot spread over cores; its time says what a quiet
    machine would do, also when this one is busy.
    """
    batch = bench.batch(count)

    async def send(raw: bytes) -> bool:
        return (await bench.engine.submit(raw)).code == 0

    start, loop_start, all_start = time.perf_counter(), time.thread_time(), time.process_time()
    done = sum(await asyncio.gather(*(send_all(raws, send, start + seconds) for raws in batch)))
    taken = time.perf_counter() - start
    return {
        "in_process_tx_per_s": done / taken,
        "loop_thread_cpu_us_per_tx": (time.thread_time() - loop_start) / done * 1e6,
        "process_cpu_us_per_tx": (time.process_time() - all_start) / done * 1e6,
    }


def http_client(url: str, batch: Batch, seconds: float) -> int:
    """One client process: each sender one connection, one transaction after the other."""

    async def run() -> int:
        from aiohttp import TCPConnector

        async with ClientSession(connector=TCPConnector(limit=0)) as session:

            async def one(raws: list[bytes]) -> int:
                done = 0
                for raw in raws:
                    if time.perf_counter() > until:
                        break
                    async with session.post(f"{url}/v1/tx", data=raw) as response:
                        await response.read()
                        done += response.status == 200
                return done

            until = time.perf_counter() + seconds
            return sum(await asyncio.gather(*(one(raws) for raws in batch)))

    return uvloop.run(run())


def http_batch_client(url: str, batch: Batch, seconds: float) -> int:
    """One client process: `BATCHES` connections, each `IN_FLIGHT` transactions of its senders a request."""

    async def run() -> int:
        async with ClientSession() as session:

            async def one(part: Batch) -> int:
                done = 0
                for start in range(0, len(part[0]), IN_FLIGHT):
                    if time.perf_counter() > until:
                        break
                    raws = [raw for sender in part for raw in sender[start : start + IN_FLIGHT]]
                    async with session.post(f"{url}/v1/txs", data=dag_cbor.encode(raws)) as response:
                        answer = json.loads(await response.read())
                    done += sum(receipt["code"] == 0 for receipt in answer["receipts"])
                return done

            until = time.perf_counter() + seconds
            return sum(await asyncio.gather(*(one(batch[number::BATCHES]) for number in range(BATCHES))))

    return uvloop.run(run())


async def over_http(
    bench: Bench, count: int, seconds: float, name: str, client: Callable[[str, Batch, float], int]
) -> dict[str, float]:
    """Transfers committed a second over HTTP, sent by `CLIENTS` processes, and what they cost the server."""
    runner = web.AppRunner(build_rpc(bench.engine), access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    batch = bench.batch(count)
    parts = [batch[number::CLIENTS] for number in range(CLIENTS)]
    loop = asyncio.get_running_loop()
    context = multiprocessing.get_context("spawn")
    ready = context.Barrier(CLIENTS + 1)
    with context.Pool(CLIENTS, ready.wait) as pool:
        await loop.run_in_executor(None, ready.wait)  # the processes are there before the clock starts
        start, cpu_start = time.perf_counter(), time.process_time()
        work = pool.starmap_async(client, [(url, part, seconds) for part in parts])
        done = sum(await loop.run_in_executor(None, work.get, seconds + 60))
        taken, cpu = time.perf_counter() - start, time.process_time() - cpu_start
    await runner.cleanup()
    return {f"{name}_tx_per_s": done / taken, f"{name}_server_cpu_us_per_tx": cpu / done * 1e6}


def verifications(threads: int, count: int) -> float:
    """Strict Ed25519 verifications a second: what a transfer costs at the least."""
    key = signer("limit")
    message = b"x" * 200
    signature = key.sign(message)

    def work(number: int) -> bool:
        return all(ed25519.verify(key.public_key, signature, message) for _ in range(number))

    with ThreadPoolExecutor(threads) as pool:
        start = time.perf_counter()
        assert all(pool.map(work, [count // threads] * threads))
        return count / (time.perf_counter() - start)


async def one_round(count: int, seconds: float) -> dict[str, float]:
    """Every figure once, over a new ledger."""
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder) / "ledger")
        await bench.start()
        figures = {
            "ed25519_verify_per_s_1_thread": verifications(1, 4_000),
            "ed25519_verify_per_s_2_threads": verifications(2, 8_000),
            **await in_process(bench, count, seconds),
            **await over_http(bench, count, seconds, "http", http_client),
        }
        if hasattr(bench.engine, "submit_all"):  # not so in older commits
            figures |= await over_http(bench, count, seconds, "http_batch", http_batch_client)
        figures["blocks"] = bench.engine.app.height
        await bench.stop()
    return figures


def round_of(folder: Path, arguments: argparse.Namespace) -> dict[str, float]:
    """One round in a process of its own, with the code of a checkout."""
    done = subprocess.run(
        [
            *(sys.executable, "-P", __file__, "--one"),
            *("--count", str(arguments.count), "--seconds", str(arguments.seconds)),
        ],
        env={**os.environ, "PYTHONPATH": str(folder)},
        stdout=subprocess.PIPE,
        check=True,
    )
    figures: dict[str, float] = json.loads(done.stdout)
    return figures


def medians(rounds: list[dict[str, float]]) -> dict[str, float]:
    """The median of each figure."""
    return {name: round(statistics.median(one[name] for one in rounds), 1) for name in rounds[0]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=8_192, help="transfers a round and way, at most 100,000")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=20.0, help="at most so long a round and way")
    parser.add_argument("--before", type=Path, help="a checkout of another commit to compare with")
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    arguments.count = max(SENDERS, min(arguments.count, 100_000))
    if arguments.one:
        print(json.dumps(uvloop.run(one_round(arguments.count, arguments.seconds))))
        return
    trees = {"now": Path(__file__).parents[1]}
    if arguments.before is not None:
        trees = {"before": arguments.before, **trees}
    rounds: dict[str, list[dict[str, float]]] = {name: [] for name in trees}
    for _ in range(max(1, arguments.rounds)):
        for name, folder in trees.items():
            rounds[name].append(round_of(folder, arguments))
    found = {name: medians(each) for name, each in rounds.items()}
    print(json.dumps({"bench": "ledger", "transfers": arguments.count, **found}))
    for figure in found["now"]:
        columns = "".join(f"{each.get(figure, float('nan')):>12,.1f}" for each in found.values())
        print(f"{figure:34} {columns}", file=sys.stderr)


if __name__ == "__main__":
    main()
