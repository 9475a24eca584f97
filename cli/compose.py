"""The one place where concrete parts are wired together: ledger and storage node as services.

Each service is an async context: entering starts it and yields what is running, leaving stops it.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, TypedDict

from cli.beacon_keys import BeaconKeys
from cli.home import BEACON_KEY, NODE_KEY, OPERATOR_KEY, Home
from cli.ledger_files import genesis_file, read_genesis, require_no_ledger, write_genesis
from cli.money import amount_text
from cli.output import CommandError, ExitCode, invalid, not_found, note
from cli.serve import listening
from cli.settings import NO_ROUTERS
from ledger.genesis import HOLD, Genesis, Params

if TYPE_CHECKING:
    from gateway.source import BlockSource
    from ledger.engine.client import LedgerClient
    from ledger.engine.engine import Engine
    from ledger.engine.pruning import Keep
    from ledger.engine.sender import Sender
    from storage_node.fetch import NetworkFetcher
    from storage_node.node import StorageNode
    from storage_node.pin_peers import NetworkPeer
    from storage_node.pool import NodePool
    from storage_node.routed import RoutedProviders
    from storage_node.source import LocalSource

ISSUED_UNITS: Final = 1_000_000_000 * HOLD
UNPAID_READS_PER_S: Final = 200.0


# -- the ledger --------------------------------------------------------------------------------------------


def init_ledger(
    home: Home, params: Params, chain_id: str | None = None, issued: int = ISSUED_UNITS
) -> Genesis:
    """Makes the operator's keys and a genesis that gives it all money. Exit 1 when there is one already."""
    require_no_ledger(home)
    home.ensure()
    keys = home.keystore()
    if not keys.has(OPERATOR_KEY):
        note(keys.create(OPERATOR_KEY, "ed25519").sentence())
    beacon = home.bls_signer()
    genesis = Genesis.make(
        chain_id=chain_id or f"holdfast-{secrets.token_hex(4)}",
        time_s=int(time.time()),
        operator=home.signer(OPERATOR_KEY).public_key,
        bls_key=beacon.public_key,
        bls_possession=beacon.prove_possession(),
        issued=issued,
        params=params,
    )
    write_genesis(home, genesis)
    return genesis


@asynccontextmanager
async def ledger_service(home: Home, listen: str, stop: asyncio.Event) -> AsyncIterator[str]:
    """The embedded engine and its RPC; yields the URL. Sets `stop` when the engine ends by itself."""
    from ledger.engine.assemble import load_application
    from ledger.engine.embedded import EmbeddedEngine
    from ledger.engine.rpc import build_rpc
    from ledger.engine.storage import LedgerStorage
    from merkledag.peer import peer_text

    genesis = read_genesis(home)
    if missing := [name for name in (OPERATOR_KEY, BEACON_KEY) if not home.keystore().has(name)]:
        raise not_found(
            f"{home.keys} lacks the operator's keys ({', '.join(missing)}): put them there; if they are lost "
            "for good, `holdfast ledger import FILE --as-chain ID` makes a chain that goes on from this one"
        )
    operator, beacons = home.signer(OPERATOR_KEY), BeaconKeys(home)
    wrong = f"the keys in {home.keys} are not those of {genesis_file(home)}: restore the right ones"
    if operator.public_key != genesis.operator:
        raise invalid(wrong)
    storage = LedgerStorage(home.ledger)
    storage.open()
    try:
        app = await asyncio.to_thread(load_application, storage, genesis)
        if app.bls_key(genesis.operator) not in beacons:
            raise invalid(wrong)
        engine = EmbeddedEngine(app, storage, operator, beacons, time.time, **kept(home))
        await engine.start()
        watch = asyncio.create_task(stop_when_ended(engine, stop))
        try:
            details = {"chain_id": genesis.chain_id, "operator": peer_text(genesis.operator)}
            async with listening(build_rpc(engine), home, "ledger", listen, details) as url:
                yield url
        finally:
            await engine.stop()
            await watch
    finally:
        storage.close()


class Kept(TypedDict):
    """What an engine keeps of a chain, and how often it writes a snapshot."""

    keep: Keep
    snapshot_blocks: int


def kept(home: Home) -> Kept:
    """The same for either engine, as the settings say."""
    from ledger.engine.pruning import Keep

    config = home.config
    keep = Keep.days(
        proofs=config.number("ledger.keep_proofs_days"), blocks=config.number("ledger.keep_days")
    )
    return Kept(keep=keep, snapshot_blocks=config.number("ledger.snapshot_blocks"))


async def stop_when_ended(engine: Engine, stop: asyncio.Event) -> None:
    """Sets `stop` when an engine has ended, and says why if it failed."""
    from ledger.errors import LedgerError

    try:
        await engine.wait_ended()
    except LedgerError as error:
        note(f"the ledger stopped: {error}")
    stop.set()


# -- what speaks to a ledger ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Wire:
    """A connection to a ledger and to the nodes it names, for one account."""

    ledger: LedgerClient
    sender: Sender
    pool: NodePool


@asynccontextmanager
async def connected(home: Home, url: str, key: str = NODE_KEY) -> AsyncIterator[Wire]:
    """Clients of the ledger at `url` and of storage nodes, signing with key `key`."""
    from ledger.engine.sender import Sender

    async with nodes_of(home, url) as (ledger, pool):
        yield Wire(ledger, Sender(ledger, home.signer(key)), pool)


@asynccontextmanager
async def nodes_of(home: Home, url: str) -> AsyncIterator[tuple[LedgerClient, NodePool]]:
    """As `connected`, for those who only read: without a key."""
    from cli.ledger_pin import pinned_client
    from storage_node.endpoints import open_session
    from storage_node.pool import NodePool

    private = is_private(home, url)
    async with open_session(allow_private=private) as session, pinned_client(home, url) as ledger:
        yield ledger, NodePool(session, wall_clock=time.time, clock=time.monotonic, allow_private=private)


@asynccontextmanager
async def network_peer(home: Home, ledger_url: str, me: bytes | None = None) -> AsyncIterator[NetworkPeer]:
    """The nodes that a ledger names, but not the one of account `me`, to be asked for blocks."""
    from storage_node.fetch import NetworkFetcher
    from storage_node.pin_peers import NetworkPeer
    from storage_node.providers import ProviderDirectory

    async with nodes_of(home, ledger_url) as (ledger, pool):
        fetcher = NetworkFetcher(ProviderDirectory(ledger, clock=time.monotonic, me=me), pool)
        try:
            yield NetworkPeer(fetcher.fetch)
        finally:
            await fetcher.aclose()


def is_private(home: Home, ledger_url: str) -> bool:
    """Whether nodes at private addresses are spoken to: allowed, or of a ledger on this machine."""
    return home.config.truth("network.allow_private") or is_loopback(ledger_url)


def is_loopback(url: str) -> bool:
    """Whether all URLs name this machine: then the nodes of that ledger may be on this machine as well."""
    import ipaddress
    from urllib.parse import urlsplit

    from ledger.engine.urls import urls_of

    def is_here(host: str) -> bool:
        try:
            return ipaddress.ip_address(host).is_loopback
        except ValueError:
            return host == "localhost" or host.endswith(".localhost")

    return all(is_here(urlsplit(each).hostname or "") for each in urls_of(url))


# -- the storage node ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class NodeTerms:
    """What a storage node offers. Money in base units; `endpoint` "" is where it listens."""

    capacity_bytes: int
    stake: int
    price_per_gib_period: int
    endpoint: str = ""
    payout: bytes | None = None
    min_piece_bytes: int = 0
    max_piece_bytes: int = 1 << 40
    open: bool = True


@dataclass(frozen=True, slots=True)
class RunningNode:
    """A storage node that serves."""

    url: str
    node: StorageNode


@asynccontextmanager
async def node_service(
    home: Home, listen: str, ledger_url: str, terms: NodeTerms
) -> AsyncIterator[RunningNode]:
    """A paid storage node: serves, registers at its ledger, follows its duties."""
    from cli.arguments import cid_argument
    from cli.naming import name_store
    from cli.settings_gateway import gateway_settings
    from gateway.app import add_trustless_routes
    from storage_node.names_server import add_routing_routes
    from storage_node.node import NodeSettings, StorageNode

    store = home.open_store()
    token = secrets.token_hex(16)
    private = is_private(home, ledger_url)
    async with connected(home, ledger_url) as wire:
        node = StorageNode(
            NodeSettings(
                endpoint=terms.endpoint,
                capacity_bytes=terms.capacity_bytes,
                stake=terms.stake,
                price_per_gib_period=terms.price_per_gib_period,
                min_piece_bytes=terms.min_piece_bytes,
                max_piece_bytes=terms.max_piece_bytes,
                open=terms.open,
                payout=terms.payout,
                admin_token=token,
                allow_private=private,
                denied=tuple(cid_argument(text) for text in home.config.texts("node.denied")),
                # In a network of one's own everybody may read: all of them may come from one address.
                unpaid_reads_per_s=None if private else UNPAID_READS_PER_S,
            ),
            store=store,
            rows=home.open_rows(),
            kzg=home.open_kzg(),
            folder=home.pieces,
            ledger=wire.ledger,
            sender=wire.sender,
            signer=home.signer(),
            pool=wire.pool,
            clock=time.time,
            monotonic=time.monotonic,
        )
        add_trustless_routes(node.app, _local_source(home), settings=gateway_settings(home.config))
        add_routing_routes(node.app, name_store(home))
        details = {"token": token, "ledger": ledger_url}
        async with listening(node.app, home, "node", listen, details) as url:
            node.settings = replace(node.settings, endpoint=terms.endpoint or url)
            await _register(node, wire, terms)
            await node.start()
            try:
                yield RunningNode(url, node)
            finally:
                await node.stop()


async def _register(node: StorageNode, wire: Wire, terms: NodeTerms) -> None:
    """Tells the ledger what the node offers; exit 7 says what its account lacks for that."""
    from ledger.engine.errors import LedgerNotFound, LedgerRefused
    from ledger.fees import small_fee
    from ledger.result import Code
    from merkledag.peer import peer_text

    account, params = wire.sender.account, await wire.ledger.params()
    try:
        known, deposit = (await wire.ledger.provider(account)).stake, 0
    except LedgerNotFound:
        known, deposit = 0, params.deposit
    added = max(0, terms.stake - known)
    try:
        await node.register()
    except LedgerRefused as error:
        if error.code not in (Code.FEE_NOT_COVERED, Code.INSUFFICIENT_FUNDS):
            raise
        refused = error
    else:
        if added:
            note(f"stake    {amount_text(added)} from the balance, {amount_text(terms.stake)} in all")
        return
    needed = added + deposit + 2 * small_fee(params)
    balance = (await wire.ledger.account(account)).balance
    if balance >= needed:
        raise refused
    raise CommandError(
        f"the node's account has {amount_text(balance)}; a stake of {amount_text(terms.stake)}, deposit and "
        f"fees take {amount_text(needed)}: send it {amount_text(needed - balance)} or more with `holdfast "
        f"wallet send {peer_text(account)} AMOUNT` from an account that has them, or choose a smaller "
        "node.stake",
        ExitCode.LEDGER,
    )


# -- what is read --------------------------------------------------------------------------------------------


def _local_source(home: Home) -> LocalSource:
    from storage_node.source import LocalSource

    return LocalSource(home.open_store(), home.hashes_reads())


def content_routers(home: Home) -> list[str]:
    """The routers that are asked who has content."""
    routers = home.config.texts("retrieval.routers")
    return [] if routers == [NO_ROUTERS] else routers or home.config.texts("names.routers")


@asynccontextmanager
async def _routed_providers(home: Home, routers: list[str]) -> AsyncIterator[RoutedProviders]:
    """Whom `routers` name. The user named those; where they send us is a stranger's word."""
    from storage_node.endpoints import open_session
    from storage_node.pool import NodePool
    from storage_node.provider_routing import ProviderRouter
    from storage_node.routed import RoutedProviders

    private = home.config.truth("network.allow_private")
    async with open_session(allow_private=True) as named, open_session(allow_private=private) as strangers:
        pool = NodePool(strangers, wall_clock=time.time, clock=time.monotonic, allow_private=private)
        yield RoutedProviders([ProviderRouter(named, url, time.time) for url in routers], pool)


@asynccontextmanager
async def block_source(home: Home, ledger_url: str | None) -> AsyncIterator[BlockSource]:
    """The local store, filled from the nodes of a ledger and from whom routers name, if there are any."""
    from storage_node.source import NetworkSource

    local, routers = _local_source(home), content_routers(home)
    async with AsyncExitStack() as opened:
        routed = await opened.enter_async_context(_routed_providers(home, routers)) if routers else None
        fetcher = await _fetcher(home, ledger_url, routed, opened)
        if fetcher is None:
            yield local
            return
        cache_bytes = home.config.number("storage.cache_bytes")
        source = NetworkSource(local, fetcher.fetch, cache_bytes, asked=fetcher.asked)
        opened.push_async_callback(source.aclose)
        yield source


async def _fetcher(
    home: Home, ledger_url: str | None, routed: RoutedProviders | None, opened: AsyncExitStack
) -> NetworkFetcher | None:
    """What fetches from a ledger's nodes and from whom routers name; None where there is neither."""
    if ledger_url is None and routed is None:
        return None
    from storage_node.fetch import NetworkFetcher
    from storage_node.providers import NoDirectory, ProviderDirectory

    if ledger_url is not None:
        ledger, pool = await opened.enter_async_context(nodes_of(home, ledger_url))
        fetcher = NetworkFetcher(ProviderDirectory(ledger, clock=time.monotonic), pool, routed=routed)
    else:
        assert routed is not None
        fetcher = NetworkFetcher(NoDirectory(), routed.pool, routed=routed)
    opened.push_async_callback(fetcher.aclose)
    return fetcher
