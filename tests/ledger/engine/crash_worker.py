"""A ledger under load that goes on until it is killed: `crash_worker FOLDER START_NONCE`.

Prints a line for each confirmed transaction (its ID and height).
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from tests.ledger.engine.conftest import Chain, ManualClock

IN_FLIGHT = 8
SMALL_SEGMENT_BYTES = 4_000  # so that the log is rotated every few blocks


async def main(folder: Path, nonce: int) -> None:
    chain = Chain(folder, ManualClock())
    engine = chain.engine(segment_bytes=SMALL_SEGMENT_BYTES)
    await engine.start()
    while True:
        raws = [chain.transfer(nonce + number, amount=100_000) for number in range(IN_FLIGHT)]
        nonce += IN_FLIGHT
        for receipt in await asyncio.gather(*(engine.submit(raw) for raw in raws)):
            assert receipt.code == 0, receipt
            sys.stdout.write(f"{receipt.tx_id} {receipt.height}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), int(sys.argv[2])))
