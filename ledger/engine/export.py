"""A chain's history: from a running ledger, checked node by node, or from a ledger's open store."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import aclosing

from ledger.engine.archive import GivenBlock, Grouping
from ledger.engine.client import LedgerClient
from ledger.engine.errors import InvalidArchive, LedgerProtocolError, LedgerUnreachable
from ledger.engine.history import History
from ledger.engine.transport import backoff
from merkledag.block import Block
from merkledag.car import CarDecoder
from merkledag.errors import MerkledagError

ATTEMPTS = 5


def stored_blocks(history: History, first: int, last: int) -> Iterator[GivenBlock]:
    """The blocks of an open store. Raises PrunedHistory, CorruptStore."""
    for height in range(first, last + 1):
        yield history.given(height)


async def fetched_blocks(
    client: LedgerClient, first: int, last: int, lost: Callable[[str], None] = lambda _why: None
) -> AsyncGenerator[GivenBlock, None]:
    """The blocks of a running ledger, every node checked against its CID; signatures are for the caller.

    Asks again where a connection breaks off, `ATTEMPTS` times without a block in between; `lost` is told why.
    Raises LedgerUnreachable then, LedgerNotFound for pruned history, LedgerProtocolError for what is none.
    """
    following, failures = first, 0
    while following <= last:
        try:
            async with aclosing(_one_answer(client, following, last)) as blocks:
                async for given in blocks:
                    yield given
                    following, failures = given.block.height + 1, 0
        except LedgerUnreachable as error:
            failures += 1
            if failures >= ATTEMPTS:
                raise
            lost(str(error))
            await backoff(failures, client.sleep)


async def _one_answer(client: LedgerClient, first: int, last: int) -> AsyncGenerator[GivenBlock, None]:
    decoder, grouping = CarDecoder(), Grouping(first)
    try:
        query = {"from": str(first), "to": str(last)}
        async with aclosing(client.stream("/v1/blocks", query)) as portions:
            async for data in portions:
                decoder.feed(data)
                while (item := decoder.next()) is not None:
                    if isinstance(item, Block) and (given := grouping.add(item.cid, item.data)) is not None:
                        yield given
        decoder.finish()
    except (MerkledagError, InvalidArchive) as error:
        raise LedgerProtocolError(f"{client.url} gave no history: {error}") from error
    if grouping.following != last + 1:
        raise LedgerProtocolError(
            f"{client.url} gave the blocks up to {grouping.following - 1} of {last} alone"
        )
