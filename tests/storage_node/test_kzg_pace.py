"""How long preparing will take is told by a trial on this machine's cores, not by a figure of another's."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import BrokenExecutor, Future
from typing import Any

import pytest

from proofs.kzg.blobs import BLOB_BYTES
from storage_node import kzg_worker
from storage_node.errors import WorkersLost
from tests.storage_node.kzg_workers import SETUP, P, T, Threads, committer


class Slow(Threads):
    """Workers that take a second, and each a second more than the one before; killed after the last."""

    def run(self, work: Callable[P, T], *_: P.args, **__: P.kwargs) -> Future[T]:
        self.done += 1
        future: Future[Any] = Future()
        if self.done > self.workers:
            future.set_exception(BrokenExecutor())
        else:
            future.set_result(float(self.done))
        return future


def test_a_trial_times_one_full_blob_and_not_what_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str | int] = []
    times_s = iter((5.0, 5.75))

    def clock() -> float:
        told.append("clock")
        return next(times_s)

    class Told:
        def commit(self, setup: object, blob: bytes) -> bytes:
            told.append(len(blob))
            return b""

    monkeypatch.setattr(kzg_worker, "perf_counter", clock)
    monkeypatch.setattr(kzg_worker, "backend", Told)
    assert kzg_worker.pace_s(str(SETUP)) == 0.75
    assert told == [1, "clock", BLOB_BYTES, "clock"]


async def test_every_core_has_a_trial() -> None:
    cores = Slow()
    assert await committer(cores).pace_s() == (1 + 2) / cores.workers
    with pytest.raises(WorkersLost):
        await committer(cores).pace_s()
    real = Threads()
    assert await committer(real).pace_s() > 0
    assert real.done == real.workers
