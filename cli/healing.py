"""Where good bytes for damaged blocks come from: the nodes of a ledger, parity, gateways, backups."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from cli.output import note
from merkledag.cid import CID
from merkledag.codecs import RAW
from storage_node.backup_blocks import find_blocks
from storage_node.backup_folder import BackupFolder, open_folder

if TYPE_CHECKING:
    from cli.home import Home
    from storage_node.pin_peers import Peer, Peers
    from storage_node.scrub import Find


@contextmanager
def finder(
    home: Home, ledger_url: str | None, gateways: Sequence[str] = (), backups: Sequence[Path] = ()
) -> Iterator[Find]:
    """Looks into backups, then asks gateways and the ledger's nodes but this home's own, for parity as well.

    All is verified. Who cannot be reached counts as having nothing, with a line on stderr at the end. For use
    outside of a loop.
    """
    stack = AsyncExitStack()
    with ExitStack() as held, asyncio.Runner() as runner:
        folders = [_held(held, path) for path in backups]
        peers = runner.run(_peers(stack, home, ledger_url, gateways))

        async def all_of(multihashes: Sequence[bytes]) -> Mapping[bytes, bytes]:
            answers = await asyncio.gather(*(_block(peers, multihash) for multihash in multihashes))
            pairs = zip(multihashes, answers, strict=True)
            return {multihash: data for multihash, data in pairs if data is not None}

        def find(multihashes: Sequence[bytes]) -> Mapping[bytes, bytes]:
            saved: dict[bytes, bytes] = {}
            for folder in folders:
                saved |= find_blocks(folder, [each for each in multihashes if each not in saved])
            others = [each for each in multihashes if each not in saved]
            return {**saved, **runner.run(all_of(others))} if others else saved

        try:
            yield find
        finally:
            runner.run(stack.aclose())
            if peers.troubles:
                note(peers.trouble())


def _held(stack: ExitStack, path: Path) -> BackupFolder:
    folder = open_folder(path)
    stack.enter_context(folder.lock(alone=False))
    return folder


async def _block(peers: Peers, multihash: bytes) -> bytes | None:
    from storage_node.errors import BlockNotFound, PeerUnreachable

    try:
        # The codec says nothing about the bytes: stores find them by multihash.
        return await peers.get(CID(1, RAW, multihash))
    except (BlockNotFound, PeerUnreachable):
        return None


async def _peers(stack: AsyncExitStack, home: Home, ledger_url: str | None, gateways: Sequence[str]) -> Peers:
    from cli.compose import network_peer
    from storage_node.endpoints import open_session
    from storage_node.pin_peers import GatewayPeer, Peers

    found: list[Peer] = []
    if ledger_url is not None:
        found.append(await stack.enter_async_context(network_peer(home, ledger_url, _own_account(home))))
    if gateways:
        # Whoever names a private address means it.
        session = await stack.enter_async_context(open_session(allow_private=True))
        found += [GatewayPeer(session, url) for url in gateways]
    return Peers(found, clock=time.monotonic)


def _own_account(home: Home) -> bytes | None:
    from cli.home import NODE_KEY
    from merkledag.peer import parse_peer

    keys = home.keystore()
    return parse_peer(keys.info(NODE_KEY).public) if keys.has(NODE_KEY) else None
