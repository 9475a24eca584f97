"""The demo's ledger: a chain of its own in a process of its own, on either engine."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

from cli.compose import init_ledger
from cli.home import NODE_KEY, OPERATOR_KEY, Home
from cli.ledger_pin import pin_to
from cli.processes import POLL_S, START_TIMEOUT_S
from cli.settings import COMETBFT
from ledger.genesis import DEMO_PARAMS
from merkledag.peer import peer_text

if TYPE_CHECKING:
    from cli.processes import Child, Network
    from ledger.genesis import Genesis

ANY_PORT: Final = ("--listen", "127.0.0.1:0")


async def start_ledger(network: Network, operator: Home, engine: str) -> tuple[Child, Genesis]:
    """Makes the operator's chain and runs it; the child serves when this returns."""
    operator.create()
    keys = operator.keystore()
    keys.create(NODE_KEY, "ed25519")
    keys.create(OPERATOR_KEY, "ed25519")
    keys.create("beacon", "bls12-381")
    environ: dict[str, str] = {}
    if engine == COMETBFT:
        from cli.comet_binary import SETTING, find_cometbft
        from cli.settings import setting_for

        mine = Home.locate(os.environ)  # whose setting says which program, and whose cache has it
        environ[setting_for(SETTING).env] = str(await asyncio.to_thread(find_cometbft, mine))
        genesis = await asyncio.to_thread(_init_comet, operator)
    else:
        genesis = await asyncio.to_thread(init_ledger, operator, DEMO_PARAMS)
    ledger = await network.start("ledger", "ledger", ["ledger", "start", *ANY_PORT], environ)
    return await network.ready(ledger), genesis


async def pin_all(homes: Iterable[Home], url: str, genesis: Genesis) -> None:
    """Makes homes belong to the ledger: by its operator's key, or by a header of its validators."""
    operator, trust = peer_text(genesis.operator), ""
    if genesis.validators:
        from cli.ledger_light import shown_header, trust_text

        await _first_block(url)
        shown = await shown_header([url], genesis.chain_id)
        operator, trust = "", trust_text(*shown[:2])
    for home in homes:
        pin_to(home, url, genesis.chain_id, operator, trust)


async def _first_block(url: str) -> None:
    """Before it there is no header to trust."""
    from ledger.engine.client import LedgerClient

    async with asyncio.timeout(START_TIMEOUT_S), LedgerClient(url) as client:
        while True:
            if (await client.status())["height"]:
                return
            await asyncio.sleep(POLL_S)


def _init_comet(operator: Home) -> Genesis:
    """A chain of one validator, at ports that are free just now."""
    from cli.comet_init import Places, init_comet_ledger
    from cli.sockets import bind

    held = [bind("ledger", "127.0.0.1:0") for _ in range(2)]
    p2p, rpc = (bound.url.removeprefix("http://") for bound in held)
    for bound in held:
        bound.close()
    return init_comet_ledger(operator, DEMO_PARAMS, places=Places(p2p_listen=p2p, rpc_listen=rpc))
