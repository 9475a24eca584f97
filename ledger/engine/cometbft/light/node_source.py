"""Light blocks from the `cometbft` process next to the application, for `GET /v1/light`."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from functools import partial

from ledger.engine.cometbft.light.accusation import evidence
from ledger.engine.cometbft.light.block import LightBlock, from_rpc
from ledger.engine.cometbft.light.chain import settled
from ledger.engine.cometbft.light.errors import InvalidLightBlock
from ledger.engine.cometbft.rpc.client import CometRpc
from ledger.engine.cometbft.rpc.errors import (
    BadHeight,
    CometBusy,
    CometRpcError,
    CometTimedOut,
    CometUnreachable,
    HeightAhead,
    HeightPruned,
)
from ledger.engine.errors import EngineUnavailable, LedgerNotFound, LedgerUnreachable, PrunedHistory

MAX_REMEMBERED = 256
MAX_AT_ONCE = 8  # so that transactions need not wait for the answers to strangers


class NodeSource:
    """Asks one node; remembers the last few blocks. Methods raise EngineError and LedgerError."""

    def __init__(self, rpc: CometRpc) -> None:
        self._rpc = rpc
        self._remembered: OrderedDict[int, bytes] = OrderedDict()
        self._asking = asyncio.Semaphore(MAX_AT_ONCE)
        self._accusing = asyncio.Lock()

    async def light_block(self, height: int | None) -> tuple[int, bytes]:
        """Height and LightBlock message of a height, or of the last one.

        Raises LedgerNotFound, PrunedHistory, EngineUnavailable.
        """
        try:
            async with self._asking:
                found = self._remembered.get(height or 0)
                if height is not None and found is not None:
                    return height, found
                block = await light_block_of(self._rpc, height)
        except (HeightAhead, BadHeight) as error:
            raise LedgerNotFound(f"there is no header {height} yet") from error
        except HeightPruned as error:
            raise PrunedHistory(f"header {height} is not kept here") from error
        except (CometRpcError, InvalidLightBlock) as error:
            raise EngineUnavailable(f"cometbft gave no header: {error}") from error
        raw = block.encode()
        self._remembered[block.height] = raw
        while len(self._remembered) > MAX_REMEMBERED:
            self._remembered.popitem(last=False)
        return block.height, raw

    async def accuse(self, raw: bytes, common_height: int) -> None:
        """Gives CometBFT the evidence against a light block that is signed and is not the chain's.

        `common_height` is that of a block before it which both have. One at a time, and what shows at once to
        be no evidence costs no more than that. Raises LedgerNotFound, PrunedHistory, EngineUnavailable, and
        ValueError for what is no evidence, or none that CometBFT takes.
        """
        try:
            block = LightBlock.decode(raw)
            if not 1 <= common_height < block.height:
                raise ValueError("the last block that both histories have comes before the one that differs")
            async with self._accusing:
                own = LightBlock.decode((await self.light_block(block.height))[1])
                if own.header == block.header:
                    raise ValueError(
                        f"header {block.height} is the one of this chain: nobody is accused by it"
                    )
                block.check(own.header.chain)
                common = LightBlock.decode((await self.light_block(common_height))[1])
                # CometBFT compares with what it keeps of a block: its votes come with the next one.
                await settled(partial(self.light_block, block.height + 1), self._rpc.url, block.height)
                await self._rpc.call("broadcast_evidence", {"evidence": evidence(block, own, common)})
        except InvalidLightBlock as error:
            raise ValueError(str(error)) from error
        except (CometUnreachable, CometBusy, CometTimedOut, LedgerUnreachable) as error:
            raise EngineUnavailable(f"cometbft took no evidence: {error}") from error
        except CometRpcError as error:
            raise ValueError(f"CometBFT does not take this evidence: {error}") from error


async def light_block_of(rpc: CometRpc, height: int | None) -> LightBlock:
    """That of a height, or the last; raises CometRpcError, InvalidLightBlock. Nothing is verified."""
    commit = await rpc.commit(height)
    try:
        header = int(commit["signed_header"]["header"]["height"])
    except (KeyError, TypeError, ValueError) as error:
        raise InvalidLightBlock(f"a header without a height ({error!r})") from error
    _, validators = await rpc.validators(header)
    return from_rpc(commit["signed_header"], validators)
