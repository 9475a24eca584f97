"""Kills a ledger before every system call that changes its folder: `kill_sweep FOLDER TRANSFERS`.

Started with `Faults.environment()`. One run without faults counts the calls and says what each height's app
hash is; then the same run is made once for every call and killed there, and again torn in the middle of every
write. What is left must open, hold every confirmed transfer and the app hash of its height, and go on to the
same end.
Prints {"calls": n, "writes": n, "replayed": blocks that came back from the log alone} as JSON.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import sys
from pathlib import Path

import pytest

from ledger.engine.assemble import load_application
from ledger.engine.storage import LedgerStorage
from tests.faults.shim import CHANGES, Action, Call, Faults
from tests.ledger.beacons import remember_beacons
from tests.ledger.engine.conftest import Chain, ManualClock

SMALL_SEGMENT_BYTES = 1_500  # so that the log is rotated every other block


async def transfers(folder: Path, count: int, confirmed: int) -> list[str]:
    """Takes the ledger to `count` blocks, one transfer each; returns the app hashes of the heights it saw.

    A byte is written to `confirmed` (a file descriptor) for each receipt.
    """
    chain = Chain(folder, ManualClock())
    engine = chain.engine(segment_bytes=SMALL_SEGMENT_BYTES)
    await engine.start()
    hashes = []
    for nonce in range(engine.app.height, count):
        receipt = await engine.submit(chain.transfer(nonce))
        assert (receipt.height, receipt.code) == (nonce + 1, 0)
        os.write(confirmed, b"+")
        hashes.append(engine.app.app_hash.hex())
    await engine.stop()
    chain.close()
    return hashes


def killed(folder: Path, count: int) -> int:
    """Runs in a process that does not live to the end; returns how many transfers were confirmed before."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        asyncio.run(transfers(folder, count, writer))
        os._exit(0)
    os.close(writer)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status), f"the run was not killed: {status}"
    assert os.WTERMSIG(status) == signal.SIGKILL
    seen = len(os.read(reader, count + 1))
    os.close(reader)
    return seen


def recover(folder: Path, hashes: list[str], confirmed: int) -> int:
    """Opens what is left, compares it and goes on to the end; returns how many blocks the log gave back."""
    storage = LedgerStorage(folder)
    storage.open()
    try:
        in_database = storage.height()
        app = load_application(storage, Chain(folder, ManualClock()).genesis)
        assert app.height - confirmed in (0, 1), f"{confirmed} confirmed, {app.height} found"
        assert app.height == 0 or app.app_hash.hex() == hashes[app.height - 1]
        replayed = app.height - in_database
    finally:
        storage.close()
    silent = os.open(os.devnull, os.O_WRONLY)
    rest = asyncio.run(transfers(folder, len(hashes), silent))
    os.close(silent)
    assert rest == hashes[len(hashes) - len(rest) :], "it went on to another end"
    return replayed


def sweep(folder: Path, count: int) -> dict[str, int]:
    """Every call, then every write once more, torn."""
    faults = Faults(folder)
    told, silent = {}, os.open(os.devnull, os.O_WRONLY)
    hashes: list[str] = []
    for name, calls in (("calls", CHANGES), ("writes", Call.WRITE)):
        ledger = folder / f"count-{name}"
        faults.count(calls, ledger)
        hashes = asyncio.run(transfers(ledger, count, silent))
        told[name] = faults.seen
    assert len(hashes) == count
    replayed = 0
    for name, calls, action in (("calls", CHANGES, Action.KILL), ("writes", Call.WRITE, Action.TEAR)):
        for number in range(told[name]):
            ledger = folder / "struck"
            faults.arm(action, calls, ledger, after=number, times=1)
            confirmed = killed(ledger, count)
            faults.disarm()
            assert faults.struck == 1
            replayed += recover(ledger, hashes, confirmed)
            shutil.rmtree(ledger)
    return {**told, "replayed": replayed}


if __name__ == "__main__":
    remember_beacons(pytest.MonkeyPatch())
    print(json.dumps(sweep(Path(sys.argv[1]), int(sys.argv[2]))))
