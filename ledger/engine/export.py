"""A chain's history and state: from a running ledger, checked node by node, or from a ledger's open store."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import aclosing
from pathlib import Path

from ledger.engine.archive import GivenBlock, Grouping
from ledger.engine.archive_reader import SnapshotReader
from ledger.engine.blocks import Block
from ledger.engine.client import LedgerClient
from ledger.engine.errors import InvalidArchive, LedgerProtocolError, LedgerUnreachable
from ledger.engine.history import History
from ledger.engine.transport import backoff
from merkledag import block as ipld
from merkledag.car import CarDecoder
from merkledag.errors import MerkledagError

ATTEMPTS = 5


def stored_blocks(history: History, first: int, last: int) -> Iterator[GivenBlock]:
    """The blocks of an open store. Raises PrunedHistory, CorruptStore."""
    for height in range(first, last + 1):
        yield history.given(height)


class _Patience:
    """Waits longer after each connection in a row that broke off; after `ATTEMPTS` of them, no more."""

    def __init__(self, client: LedgerClient, lost: Callable[[str], None]) -> None:
        self._client = client
        self._lost = lost
        self._failures = 0

    def progress(self) -> None:
        """Something came."""
        self._failures = 0

    async def broken(self, error: LedgerUnreachable) -> None:
        """Raises the error in the end."""
        self._failures += 1
        if self._failures >= ATTEMPTS:
            raise error
        self._lost(str(error))
        await backoff(self._failures, self._client.sleep)


async def fetched_blocks(
    client: LedgerClient,
    first: int,
    last: int,
    lost: Callable[[str], None] = lambda _why: None,
    *,
    has_headers: bool = False,
) -> AsyncGenerator[GivenBlock, None]:
    """The blocks of a running ledger, every node checked against its CID; signatures are for the caller.

    `has_headers`: it is of validators, so that the headers are asked for as well.

    Asks again where a connection breaks off, `ATTEMPTS` times without a block in between; `lost` is told why.
    Raises LedgerUnreachable then, LedgerNotFound for pruned history, LedgerProtocolError for what is none.
    """
    following, patience = first, _Patience(client, lost)
    while following <= last:
        try:
            async with aclosing(_one_answer(client, following, last, has_headers)) as blocks:
                async for given in blocks:
                    yield given
                    following = given.block.height + 1
                    patience.progress()
        except LedgerUnreachable as error:
            await patience.broken(error)


async def fetch_snapshot(
    client: LedgerClient, height: int, path: Path, lost: Callable[[str], None] = lambda _why: None
) -> Block:
    """Writes a running ledger's snapshot into a new file; the block that signs its app hash.

    The state itself is not compared with that hash; `LedgerStorage.restore` does. Asks again for the rest and
    raises as `fetched_blocks` does, LedgerNotFound where there is no such snapshot.
    """
    patience, done = _Patience(client, lost), False
    with path.open("wb") as file:
        while not done:
            try:
                async with aclosing(client.stream(f"/v1/snapshot/{height}", {}, file.tell())) as portions:
                    async for data in portions:
                        file.write(data)
                        patience.progress()
                done = True
            except LedgerUnreachable as error:
                await patience.broken(error)
    block = await client.block(height)
    try:
        with path.open("rb") as written:
            manifest = SnapshotReader(written).manifest
    except (MerkledagError, InvalidArchive) as error:
        raise LedgerProtocolError(f"{client.url} gave no snapshot: {error}") from error
    if (manifest.chain, manifest.height, manifest.app_hash) != (block.chain, height, block.app_hash):
        raise LedgerProtocolError(f"{client.url} gave a snapshot of something else than its block {height}")
    return block


async def _one_answer(
    client: LedgerClient, first: int, last: int, has_headers: bool
) -> AsyncGenerator[GivenBlock, None]:
    decoder, grouping = CarDecoder(), Grouping(first, has_headers=has_headers)
    try:
        query = {"from": str(first), "to": str(last)}
        async with aclosing(client.stream("/v1/blocks", query)) as portions:
            async for data in portions:
                decoder.feed(data)
                while (item := decoder.next()) is not None:
                    given = grouping.add(item.cid, item.data) if isinstance(item, ipld.Block) else None
                    if given is not None:
                        yield given
        decoder.finish()
    except (MerkledagError, InvalidArchive) as error:
        raise LedgerProtocolError(f"{client.url} gave no history: {error}") from error
    if grouping.following != last + 1:
        raise LedgerProtocolError(
            f"{client.url} gave the blocks up to {grouping.following - 1} of {last} alone"
        )
