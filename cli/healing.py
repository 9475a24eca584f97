"""Where good bytes for damaged blocks come from: the nodes of a ledger, parity, gateways that are named."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from typing import TYPE_CHECKING

from cli.output import note, usage
from merkledag.cid import CID
from merkledag.codecs import DAG_PB, RAW

if TYPE_CHECKING:
    from cli.home import Home
    from storage_node.scrub import Find

Ask = Callable[[bytes], Awaitable[bytes | None]]


@contextmanager
def finder(home: Home, ledger_url: str | None, gateways: Sequence[str] = ()) -> Iterator[Find]:
    """Asks the nodes of the ledger (and parity), then the gateways; verified. For use outside of a loop.

    What cannot be reached counts as having nothing, with a line on stderr. Exit 2 for a gateway that is no
    URL.
    """
    stack = AsyncExitStack()
    with asyncio.Runner() as runner:
        asks = runner.run(_enter(stack, home, ledger_url, gateways))

        async def all_of(multihashes: Sequence[bytes]) -> Mapping[bytes, bytes]:
            answers = await asyncio.gather(*(_first(asks, multihash) for multihash in multihashes))
            pairs = zip(multihashes, answers, strict=True)
            return {multihash: data for multihash, data in pairs if data is not None}

        try:
            yield lambda multihashes: runner.run(all_of(multihashes))
        finally:
            runner.run(stack.aclose())


async def _enter(
    stack: AsyncExitStack, home: Home, ledger_url: str | None, gateways: Sequence[str]
) -> list[Ask]:
    asks = []
    if ledger_url is not None:
        asks.append(await stack.enter_async_context(_nodes(home, ledger_url)))
    if gateways:
        asks.append(await stack.enter_async_context(_gateways(gateways)))
    return asks


async def _first(asks: Sequence[Ask], multihash: bytes) -> bytes | None:
    for ask in asks:
        if (data := await ask(multihash)) is not None:
            return data
    return None


@asynccontextmanager
async def _nodes(home: Home, ledger_url: str) -> AsyncIterator[Ask]:
    """The nodes that hold deals on a ledger, without this home's own, and the parity that they hold."""
    from cli.compose import connected
    from ledger.errors import LedgerError
    from storage_node.errors import BlockNotFound, StorageNodeError
    from storage_node.fetch import NetworkFetcher
    from storage_node.providers import ProviderDirectory

    told: set[str] = set()
    async with connected(home, ledger_url) as wire:
        directory = ProviderDirectory(wire.ledger, clock=time.monotonic, me=home.signer().public_key)
        fetcher = NetworkFetcher(directory, wire.pool)

        async def ask(multihash: bytes) -> bytes | None:
            try:
                return await fetcher.fetch(CID(1, RAW, multihash))
            except BlockNotFound:
                return None
            except (LedgerError, StorageNodeError, TimeoutError) as error:
                if (line := f"the nodes of {ledger_url}: {error}") not in told:
                    told.add(line)
                    note(line)
                return None

        yield ask


@asynccontextmanager
async def _gateways(urls: Sequence[str]) -> AsyncIterator[Ask]:
    """Trustless gateways, in their order. Whoever names a private address means it."""
    from storage_node.endpoints import open_session
    from storage_node.errors import EndpointRefused, PeerMisbehaved, PeerUnreachable
    from storage_node.pool import NodePool

    told: set[str] = set()
    async with open_session(allow_private=True) as session:
        pool = NodePool(session, wall_clock=time.time, clock=time.monotonic, allow_private=True)
        try:
            clients = [pool.client(url) for url in urls]
        except EndpointRefused as error:
            raise usage(f"--from: {error}") from None

        async def ask(multihash: bytes) -> bytes | None:
            for url, client in zip(urls, clients, strict=True):
                # Some find blocks by multihash, others by the CID alone.
                for codec in (RAW, DAG_PB):
                    try:
                        data = await client.get_block(CID(1, codec, multihash))
                    except (PeerUnreachable, PeerMisbehaved) as error:
                        if url not in told:
                            told.add(url)
                            note(f"{url}: {error}")
                        break
                    if data is not None:
                        return data
            return None

        yield ask
