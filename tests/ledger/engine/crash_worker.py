"""A ledger under load that is going to be killed: `crash_worker FOLDER START_NONCE [POINT COUNT]`.

Prints a line for each confirmed transaction (its ID and height). With POINT it kills itself with SIGKILL when
the write of that name happens for the COUNT-th time; otherwise it goes on until it is killed.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

from tests.ledger.engine.conftest import Chain, ManualClock

IN_FLIGHT = 8
SMALL_SEGMENT_BYTES = 4_000  # so that the log is rotated every few blocks


async def main(folder: Path, nonce: int, point: str, count: int) -> None:
    left = count

    def fault(at: str) -> None:
        nonlocal left
        if at == point:
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    chain = Chain(folder, ManualClock())
    engine = chain.engine(fault=fault, segment_bytes=SMALL_SEGMENT_BYTES)
    await engine.start()
    while True:
        raws = [chain.transfer(nonce + number, amount=100_000) for number in range(IN_FLIGHT)]
        nonce += IN_FLIGHT
        for receipt in await asyncio.gather(*(engine.submit(raw) for raw in raws)):
            assert receipt.code == 0, receipt
            sys.stdout.write(f"{receipt.tx_id} {receipt.height}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    asyncio.run(
        main(
            Path(sys.argv[1]),
            int(sys.argv[2]),
            sys.argv[3] if len(sys.argv) > 3 else "",
            int(sys.argv[4]) if len(sys.argv) > 4 else 0,
        )
    )
