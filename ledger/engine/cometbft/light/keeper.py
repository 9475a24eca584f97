"""Keeps beside each block the header that CometBFT made of it, and who signed: archives need them.

ABCI shows the application no headers, and CometBFT lets go of its own with time: so they are asked for, some
at once, soon after the blocks.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Final

from ledger.engine.cometbft.light.block import encode_header, header_from_rpc
from ledger.engine.cometbft.light.errors import InvalidLightBlock
from ledger.engine.cometbft.light.node_source import light_block_of
from ledger.engine.cometbft.rpc.client import MAX_HEADERS, CometRpc
from ledger.engine.cometbft.rpc.errors import CometRpcError
from ledger.engine.errors import StoreError
from ledger.engine.storage import LedgerStorage

KEEP_S: Final = 1.0

_log = logging.getLogger(__name__)


class LightKeeper:
    """Fills the rows of `LightRows` of one store, from the node beside it."""

    def __init__(
        self,
        storage: LedgerStorage,
        rpc: CometRpc,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        self._storage = storage
        self._rpc = rpc
        self._sleep = sleep
        self._trouble = ""

    async def run(self) -> None:
        """Keeps what comes, until it is cancelled; what fails is tried again."""
        while True:
            try:
                while await self.step():
                    pass
                self._trouble = ""
            except (CometRpcError, InvalidLightBlock, StoreError) as error:
                if str(error) != self._trouble:
                    _log.warning("headers are not kept yet: %s", error)
                self._trouble = str(error)
            await self._sleep(KEEP_S)

    async def step(self) -> bool:
        """Keeps the next few headers, up to the one after the last block; whether more may be there.

        Raises CometRpcError, InvalidLightBlock, StoreError.
        """
        first, tip = await asyncio.to_thread(self._missing)
        if first > tip:
            return False
        headers = list(map(header_from_rpc, await self._rpc.headers(first, tip + 1)))
        if not headers:
            raise InvalidLightBlock(f"cometbft has no header {first}")
        if headers[0].height > first:
            _log.warning("no archive can be made: cometbft has no header before %d", headers[0].height)
        rows: dict[int, bytes] = {}
        for header in headers:
            rows[header.height] = encode_header(header)
            if header.next_validators_hash != header.validators_hash or header is headers[-1]:
                whole = await light_block_of(self._rpc, header.height)
                if whole.header != header:
                    raise InvalidLightBlock(f"cometbft shows two headers of height {header.height}")
                last = whole.encode()
                if header.next_validators_hash != header.validators_hash:
                    rows[header.height] = last
        await asyncio.to_thread(self._storage.keep_lights, rows, last)
        return len(headers) == MAX_HEADERS

    def _missing(self) -> tuple[int, int]:
        """The first height without a row, and that of the last block."""
        first = max(self._storage.lit_height() + 1, self._storage.first_height())
        return first, self._storage.height()
