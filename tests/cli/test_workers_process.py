"""What a parent hears of a worker process that ends while it is asked."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

from cli.processes import Lifeline
from cli.sockets import bind
from cli.workers_process import ProcessWorker
from tests.cli.processes import environment


async def test_a_worker_that_ends_while_it_is_asked_counts_as_it_last_did(tmp_path: Path) -> None:
    bound, lifeline = bind("gateway", "127.0.0.1:0"), Lifeline()
    worker = ProcessWorker(0, bound.shares[0], None, environment(tmp_path / "home"), lifeline)
    try:
        await worker.start()
        counted = await worker.snapshot()
        assert counted
        os.kill(worker.pid, signal.SIGSTOP)  # it will not answer
        asked = asyncio.gather(worker.snapshot(), worker.snapshot(), worker.ready())
        await asyncio.sleep(0)
        worker.kill()
        first, second, ready = await asked  # no CancelledError, which would end whoever collects counts
        assert first == second == counted
        assert not ready.ready
        assert await worker.wait() == "SIGKILL"
        assert await worker.snapshot() == counted
    finally:
        worker.kill()
        lifeline.cut()
        bound.close()
