"""A small chain to drive the engine with: keys, a genesis, signed transfers, and a clock that tests move."""

from __future__ import annotations

import asyncio
import hashlib
import heapq
import itertools
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import replace
from pathlib import Path

import pytest

from ledger.application import Application
from ledger.engine.assemble import load_application
from ledger.engine.embedded import EmbeddedEngine
from ledger.engine.storage import LedgerStorage
from ledger.engine.wal import SEGMENT_BYTES, Fault, no_fault
from ledger.genesis import DEMO_PARAMS, HOLD, Genesis
from ledger.transactions import Body, Transaction, Transfer, sign
from merkledag.ed25519 import Ed25519Signer
from proofs.bls.signatures import BlsSigner

CHAIN = "engine-test"
START_S = 1_700_000_000
FAR_S = 4_000_000_000
PATIENCE_S = 60.0  # of a busy machine


def seed(name: str) -> bytes:
    """A test key's seed."""
    return hashlib.sha256(name.encode()).digest()


def signer(name: str) -> Ed25519Signer:
    """A test account's key."""
    return Ed25519Signer.from_seed(seed(name))


class ManualClock:
    """A wall clock, a monotonic clock and its `sleep`: time passes only when a test says so.

    Setting `now_s` makes the wall clock jump: for nobody has time passed.
    """

    def __init__(self, now_s: float = START_S) -> None:
        self.now_s = now_s
        self.passed_s = 0.0
        self._order = itertools.count()
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []

    def __call__(self) -> float:
        return self.now_s

    def monotonic(self) -> float:
        return self.passed_s

    def sleep(self, seconds: float) -> Coroutine[None, None, None]:
        """Sleeps from the call on, whenever the coroutine takes its first step: time may pass in between."""
        if seconds <= 0:
            return asyncio.sleep(0)
        wake: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._sleepers, (self.passed_s + seconds, next(self._order), wake))
        return _until(wake)

    @property
    def next_wake_s(self) -> float | None:
        """In how many seconds the first sleeper that still sleeps wants to wake."""
        return min((at - self.passed_s for at, _, wake in self._sleepers if not wake.done()), default=None)

    async def advance(self, seconds: float) -> None:
        """Lets time pass and wakes whoever waited for it."""
        self.now_s += seconds
        self.passed_s += seconds
        while self._sleepers and self._sleepers[0][0] <= self.passed_s:
            wake = heapq.heappop(self._sleepers)[2]
            if not wake.done():
                wake.set_result(None)
        await asyncio.sleep(0)


async def _until(wake: asyncio.Future[None]) -> None:
    await wake


class Chain:
    """One ledger in a folder: opened, driven, closed and opened again."""

    def __init__(self, folder: Path, clock: ManualClock) -> None:
        self.folder = folder
        self.clock = clock
        self.operator = signer("operator")
        self.bls = BlsSigner.from_seed(seed("beacon"))
        self.beacons = {self.bls.public_key: self.bls}
        self.genesis = Genesis.make(
            chain_id=CHAIN,
            time_s=START_S,
            operator=self.operator.public_key,
            bls_key=self.bls.public_key,
            bls_possession=self.bls.prove_possession(),
            issued=1_000_000 * HOLD,
            params=replace(DEMO_PARAMS, period_s=40, window_s=20),
        )
        self.storage: LedgerStorage | None = None

    def load(self, *, fault: Fault = no_fault, segment_bytes: int = SEGMENT_BYTES) -> Application:
        """Opens the store and replays its log."""
        self.storage = LedgerStorage(self.folder, fault=fault, segment_bytes=segment_bytes)
        self.storage.open()
        try:
            return load_application(self.storage, self.genesis)
        except BaseException:
            self.storage.abandon()
            raise

    def engine(
        self, *, fault: Fault = no_fault, segment_bytes: int = SEGMENT_BYTES, max_waiting: int = 1_000
    ) -> EmbeddedEngine:
        """An engine that is not started yet, over the freshly opened store."""
        app = self.load(fault=fault, segment_bytes=segment_bytes)
        assert self.storage is not None
        return EmbeddedEngine(
            app,
            self.storage,
            self.operator,
            self.beacons,
            self.clock,
            monotonic=self.clock.monotonic,
            sleep=self.clock.sleep,
            max_waiting=max_waiting,
        )

    def close(self) -> None:
        if self.storage is not None:
            self.storage.close()

    def tx(self, sender: str, nonce: int, body: Body, *, fee: int = 2_000, expiry: int = FAR_S) -> bytes:
        """A signed transaction."""
        key = signer(sender)
        return sign(Transaction(CHAIN, key.public_key, nonce, fee, expiry, body), key).encode()

    def transfer(self, nonce: int, to: str = "alice", amount: int = HOLD, sender: str = "operator") -> bytes:
        """A signed transfer, the operator's unless told otherwise."""
        return self.tx(sender, nonce, Transfer(signer(to).public_key, amount))


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def chain(tmp_path: Path, clock: ManualClock) -> Chain:
    return Chain(tmp_path / "ledger", clock)


@pytest.fixture
async def engine(chain: Chain) -> AsyncIterator[EmbeddedEngine]:
    """A running engine over a new ledger."""
    running = chain.engine()
    await running.start()
    yield running
    await running.stop()
    chain.close()


async def until(condition: Callable[[], bool]) -> None:
    """Lets the event loop run until something holds; no time passes on the engine's clock."""
    async with asyncio.timeout(PATIENCE_S):
        while not condition():  # noqa: ASYNC110 (there is no event for it)
            await asyncio.sleep(0.0005)
