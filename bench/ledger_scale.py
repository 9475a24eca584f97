"""What a ledger costs as it grows: blocks, memory, opening and questions at 10³, 10⁴ and 10⁵ deals.

Run from the repository's root: `python -m bench.ledger_scale [--deals 1000,10000,100000] [--nodes N]`. Prints
one JSON document on stdout and a table on stderr. Time is simulated; transactions are real and signed (before
the clock starts), blocks go into LMDB as the engine writes them. Beside each size stands the machine's own
limit in the same moment, SHA-256 of 64 bytes a second: where two sizes differ by as much as it does, the
machine was busy. Every figure is a median; memory is anonymous (RssAnon), LMDB's pages are the system's.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from ledger import keys
from ledger.application import Application, BlockInput, BlockResult
from ledger.engine.assemble import assemble, load_application
from ledger.engine.storage import LedgerStorage
from ledger.genesis import HOLD, Genesis, Params
from ledger.transactions import (
    Accept,
    Ask,
    Beacon,
    Body,
    CreateDeal,
    PieceCommitment,
    Register,
    Transaction,
    Transfer,
    sign,
)
from merkledag.cid import CID
from merkledag.ed25519 import Ed25519Signer
from proofs.bls.signatures import BlsSigner

CHAIN = "bench"
START_S = 1_700_000_000
EXPIRY_S = 4_000_000_000
FEE = 1_000_000
CLIENTS = 100
DEALS_PER_BLOCK = 250
TXS_PER_BLOCK = 1_000
ROUNDS = 15
PAGE = 100
GIB = 1 << 30


def digest(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()


class Scale:
    """A ledger on disk that grows."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.operator = Ed25519Signer.from_seed(digest("operator"))
        self.bls = BlsSigner.from_seed(digest("beacon"))
        self.genesis = Genesis(
            chain_id=CHAIN,
            time_s=START_S,
            operator=self.operator.public_key,
            bls_key=self.bls.public_key,
            bls_possession=self.bls.prove_possession(),
            issued=10**9 * HOLD,
            beacon=bytes(32),
            params=Params(min_stake=HOLD, deposit=1_000, account_minimum=0),
        )
        self.now = START_S
        self.nonces: dict[bytes, int] = {}
        self.signers: dict[bytes, Ed25519Signer] = {}
        self.clients = [self.signer(f"client {number}") for number in range(CLIENTS)]
        self.nodes: list[Ed25519Signer] = []
        self.deals = 0
        self.open()

    def signer(self, name: str) -> Ed25519Signer:
        made = Ed25519Signer.from_seed(digest(name))
        self.signers[made.public_key] = made
        return made

    def open(self) -> None:
        self.storage = LedgerStorage(self.folder)
        self.storage.open()
        self.app: Application = load_application(self.storage, self.genesis)

    def tx(self, key: Ed25519Signer, body: Body) -> bytes:
        nonce = self.nonces.get(key.public_key, 0)
        self.nonces[key.public_key] = nonce + 1
        return sign(Transaction(CHAIN, key.public_key, nonce, FEE, EXPIRY_S, body), key).encode()

    def block(self, txs: Iterable[bytes] = (), step_s: int = 0) -> tuple[float, BlockResult]:
        """Makes and writes a block; returns its milliseconds, without signatures and the beacon's."""
        self.now += step_s
        height = self.app.height + 1
        head = Beacon(CHAIN, height, self.bls.sign(self.app.beacon_transaction_message(height))).encode()
        given = BlockInput(height, self.now, self.operator.public_key, (head, *txs))
        for raw in given.txs[1:]:
            self.app.verify_signature(raw)
        started = time.perf_counter()
        result = self.app.finalize_block(given)
        wrong = [one for one in result.tx_results if not one.ok]
        assert not wrong, wrong[0]
        stored = assemble(self.app, given, result, None, self.operator).stored
        self.storage.log_block(stored)
        self.storage.apply(stored)
        self.app.commit()
        return 1_000 * (time.perf_counter() - started), result

    def people(self, nodes: int) -> None:
        """Funds the clients, registers the nodes."""
        self.nodes = [self.signer(f"node {number}") for number in range(nodes)]
        funding = [(each, 10**6 * HOLD) for each in self.clients] + [
            (each, 100 * HOLD) for each in self.nodes
        ]
        for some in batches(funding, TXS_PER_BLOCK):
            self.block(self.tx(self.operator, Transfer(key.public_key, amount)) for key, amount in some)
        for some_nodes in batches(self.nodes, TXS_PER_BLOCK):
            bodies = [
                (key, Register(f"http://{number}.example", 1 << 50, key.public_key, 50 * HOLD))
                for number, key in enumerate(some_nodes)
            ]
            self.block(self.tx(key, body) for key, body in bodies)
            self.block(self.tx(key, Ask(0, 0, GIB, True)) for key in some_nodes)

    def grow(self, deals: int) -> list[float]:
        """Makes deals of one shard, has them accepted; returns what blocks of 250 new deals took, in ms."""
        took = []
        while self.deals < deals:
            count = min(DEALS_PER_BLOCK, deals - self.deals)
            made = [
                self.tx(self.clients[n % CLIENTS], self.deal(n))
                for n in range(self.deals, self.deals + count)
            ]
            ms, _ = self.block(made)
            if count == DEALS_PER_BLOCK:
                took.append(ms)
            _, result = self.block()
            drawn = [event.attributes for event in result.events if event.kind == "shard_assigned"]
            assert len(drawn) == count, (len(drawn), count)
            self.block(
                self.tx(self.signers[bytes(one["provider"])], Accept(CID.decode(bytes(one["deal"])), 0))  # type: ignore[arg-type]
                for one in drawn
            )
            self.deals += count
        return took

    def deal(self, number: int) -> CreateDeal:
        root = digest(f"piece {number}")
        content = CID.of(b"content %d" % (number % 1_000))
        piece = PieceCommitment(root, 64, 65_536, root, 1, 1_000)
        params = self.genesis.params
        return CreateDeal(
            content, CID.of(b"manifest", codec=0x71), 1, 1, False, 30, FEE, params.challenges, (piece,), ()
        )

    def measure(self, creating_ms: list[float]) -> dict[str, float]:
        """The figures at the present size."""
        page_client, page_node = self.clients[0].public_key, self.nodes[0].public_key
        deal = self.app.deals_page(limit=1).items[0].id
        transfers = [
            self.block(self.tx(key, Transfer(page_node, 1)) for key in self.clients)[0] for _ in range(ROUNDS)
        ]
        idle = [self.block(step_s=30) for _ in range(ROUNDS)]
        opening = []
        for _ in range(3):
            self.storage.close()
            started = time.perf_counter()
            self.open()
            opening.append(1_000 * (time.perf_counter() - started))
        return {
            "deals": self.deals,
            "nodes": len(self.nodes),
            "block_250_deals_ms": statistics.median(creating_ms[-ROUNDS:]) if creating_ms else 0.0,
            "block_100_transfers_ms": statistics.median(transfers),
            "block_30_s_later_ms": statistics.median(ms for ms, _ in idle),
            "events_in_it": statistics.median(len(result.events) for _, result in idle),
            "opening_ms": statistics.median(opening),
            "page_of_client_ms": timed(lambda: self.app.deals_page(client=page_client, limit=PAGE)),
            "page_of_node_ms": timed(lambda: self.app.deals_page(provider=page_node, limit=PAGE)),
            "page_of_open_ms": timed(lambda: self.app.deals_page(active=True, limit=PAGE)),
            "proof_ms": timed(lambda: self.app.prove(keys.deal(deal))),
            "anonymous_mb": anonymous_mb(),
            "database_mb": (self.folder / "db" / "data.mdb").stat().st_size / 1e6,
            "sha256_per_s": hashes_per_s(),
        }


def batches(items: list, size: int) -> Iterable[list]:  # type: ignore[type-arg]
    return (items[at : at + size] for at in range(0, len(items), size))


def timed(call: Callable[[], object]) -> float:
    took = []
    for _ in range(ROUNDS):
        started = time.perf_counter()
        call()
        took.append(1_000 * (time.perf_counter() - started))
    return statistics.median(took)


def anonymous_mb() -> float:
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(next(line.split()[1] for line in status.splitlines() if line.startswith("RssAnon"))) / 1_000


def hashes_per_s() -> float:
    block, started = bytes(64), time.perf_counter()
    for _ in range(100_000):
        hashlib.sha256(block).digest()
    return 100_000 / (time.perf_counter() - started)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--deals", default="1000,10000,100000", help="sizes, in growing order")
    parser.add_argument("--nodes", type=int, default=10_000)
    options = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        scale = Scale(Path(folder) / "ledger")
        scale.people(options.nodes)
        for size in map(int, options.deals.split(",")):
            rows.append(scale.measure(scale.grow(size)))
            print(f"  {size} deals done", file=sys.stderr)
        scale.storage.close()
    for name in rows[0]:
        print(f"{name:24}" + "".join(f"{row[name]:>14,.2f}" for row in rows), file=sys.stderr)
    print(json.dumps({"sizes": rows}))


if __name__ == "__main__":
    main()
