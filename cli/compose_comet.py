"""The application's half of a ledger on CometBFT, wired together: ABCI server, engine and the ledger's HTTP.

`cometbft` is started by whoever runs this, once `comet_application` has begun to listen for it. `comet_http`
comes last: it asks `cometbft` for headers.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from cli.beacon_keys import BeaconKeys
from cli.comet_abci import CometRun, abci_address, abci_hosts
from cli.compose import kept, stop_when_ended
from cli.ledger_files import read_genesis
from cli.serve import listening
from cli.version import VERSION

if TYPE_CHECKING:
    from cli.home import Home
    from ledger.engine.cometbft.engine import CometEngine
    from ledger.engine.cometbft.light.keeper import LightKeeper
    from ledger.engine.cometbft.rpc.client import CometRpc

COMET_FOLDER: Final = "cometbft"


@dataclass(frozen=True, slots=True)
class RunningComet:
    """An application that listens for `cometbft`: `abci` is what `--proxy_app` is given, `rpc` asks it.

    `lights` keeps its headers, once it answers.
    """

    abci: str
    engine: CometEngine
    rpc: CometRpc
    lights: LightKeeper


@asynccontextmanager
async def comet_application(home: Home, stop: asyncio.Event, run: CometRun) -> AsyncIterator[RunningComet]:
    """The application of this home's CometBFT ledger; sets `stop` when it ends by itself.

    Then `engine.wait_ended()` raises EngineStopped with the reason: the process is to end with exit 1.
    """
    from ledger.engine.cometbft.engine import CometEngine
    from ledger.engine.cometbft.home.layout import CometHome
    from ledger.engine.cometbft.light.keeper import LightKeeper
    from ledger.engine.cometbft.rpc.client import CometRpc
    from ledger.engine.cometbft.waiting import load_or_wait
    from ledger.engine.storage import LedgerStorage

    home.ensure()  # run/ is in no backup
    genesis = read_genesis(home)
    signers = BeaconKeys(home)
    elsewhere = "" if run.supervised else home.config.text("ledger.cometbft_rpc")
    rpc = CometRpc(elsewhere or CometHome(home.ledger / COMET_FOLDER).rpc_url())
    storage = LedgerStorage(home.ledger)
    storage.open()
    async with AsyncExitStack() as ends:
        ends.callback(storage.close)
        ends.push_async_callback(rpc.close)
        app = await asyncio.to_thread(load_or_wait, storage, genesis)
        engine = CometEngine(
            app,
            storage,
            signers,
            rpc,
            ends.enter_context(abci_address(home, run)),
            allowed=abci_hosts(home, run),
            version=VERSION,
            **kept(home),
        )
        await engine.start()
        watch = asyncio.create_task(stop_when_ended(engine, stop))
        try:
            yield RunningComet(engine.server.address, engine, rpc, LightKeeper(storage, rpc))
        finally:
            await engine.stop()
            await watch


@asynccontextmanager
async def comet_http(home: Home, application: RunningComet, listen: str) -> AsyncIterator[str]:
    """The ledger's HTTP of an application, announced in run/; yields the URL."""
    from ledger.engine.cometbft.light.node_source import NodeSource
    from ledger.engine.rpc import build_rpc

    details = {"chain_id": application.engine.app.chain_id}  # no operator signs blocks here
    served = build_rpc(application.engine, light=NodeSource(application.rpc))
    async with listening(served, home, "ledger", listen, details) as url:
        yield url
