"""A ledger on CometBFT as one service: the application, the `cometbft` process beside it, and who watches."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Final

from cli.beacon_keys import BeaconKeys
from cli.comet_abci import CometRun
from cli.comet_binary import find_cometbft
from cli.comet_metrics import metrics_service
from cli.comet_monitor import Monitor
from cli.comet_process import CometProcess
from cli.compose_comet import COMET_FOLDER, RunningComet, comet_application, comet_http
from cli.ledger_files import read_genesis
from cli.output import CommandError, count_text, meter, not_found, note
from cli.serve import running
from ledger.engine.cometbft.home.genesis_file import install_genesis
from ledger.engine.cometbft.home.keys import create_node_key, node_id, node_signer, validator_signer
from ledger.engine.cometbft.home.layout import CometFilesError, CometHome
from ledger.engine.cometbft.home.signing import CHECKED_BLOCKS, Memory
from ledger.engine.cometbft.rpc.client import CometRpc
from ledger.engine.cometbft.rpc.errors import CometRpcError

if TYPE_CHECKING:
    from cli.home import Home
    from ledger.application import Application

START_POLL_S: Final = 0.1


def comet_home(home: Home) -> CometHome:
    """CometBFT's folder in a home."""
    return CometHome(home.ledger / COMET_FOLDER)


def own_peer(home: Home) -> str:
    """ID@HOST:PORT by which others reach this home's cometbft, as its configuration says; "" without one."""
    comet = comet_home(home)
    if not comet.config_file.is_file():
        return ""
    return f"{node_id(node_signer(comet).public_key)}@{comet.p2p_address()}"


@asynccontextmanager
async def comet_ledger_service(
    home: Home, listen: str, stop: asyncio.Event, run: CometRun
) -> AsyncIterator[str]:
    """Runs both processes; yields the URL of the ledger's HTTP once CometBFT answers.

    When one of them ends by itself, the other one is ended too, `stop` is set, and leaving the context raises
    CommandError or EngineStopped with the reason (exit 1): whoever started us may start us again. One that is
    not supervised may come and go.
    """
    comet = comet_home(home)
    BeaconKeys(home)  # what can be told at once comes before minutes of building
    memory = check_files(home, comet, moved=run.moved)
    program = await asyncio.to_thread(find_cometbft, home) if run.supervised else None
    failures: list[str] = []
    async with AsyncExitStack() as services:
        application = await services.enter_async_context(comet_application(home, stop, run))
        monitor = Monitor(
            application.rpc,
            comet,
            memory,
            lambda: application.engine.app.height,
            home.config.number("ledger.halted_s"),
            block_time_s=lambda: application.engine.app.block_time_s,
        )
        application.engine.watcher = lambda: monitor.sight.trouble
        if trouble := application.engine.status.trouble:
            note(trouble)
        if at := home.config.text("ledger.metrics_listen"):
            await services.enter_async_context(metrics_service(at, application.engine, monitor))
        options = moved_options(comet, memory, application.engine.app)
        services.callback(_note_signed, memory)
        if program is None:
            note(f"waiting for `{comet_command(comet, application, options)}`")
        else:
            process = CometProcess(program, comet)
            await process.start(application.abci, options)
            services.push_async_callback(process.stop)
            await services.enter_async_context(running(_stop_when_ended(process, failures, stop)))
        await services.enter_async_context(running(monitor.run()))
        await _answering(application.rpc, stop, lambda: application.engine.app.height)
        await services.enter_async_context(running(application.lights.run()))
        yield await services.enter_async_context(comet_http(home, application, listen))
    await application.engine.wait_ended()  # raises what it failed with: the reason behind the other's end
    if failures:
        raise CommandError(failures[0])


def check_files(home: Home, comet: CometHome, *, moved: bool) -> Memory:
    """The key's memory; raises where CometBFT's files do not do (exit 3, 4)."""
    if not comet.config_file.is_file():
        raise not_found(
            f"{comet.config_file} is missing: restore {comet.path} from a backup, or begin in another home "
            "with `holdfast ledger join URL --engine cometbft`"
        )
    install_genesis(comet, read_genesis(home))
    if not comet.node_key_file.exists():
        create_node_key(comet, secrets.token_bytes(32))
        note(f"made a new node key: peers reach this node as {own_peer(home)} from now on")
    node_signer(comet)
    validator_signer(comet)
    return Memory(comet, moved=moved)


def moved_options(comet: CometHome, memory: Memory, app: Application) -> list[str]:
    """What CometBFT is told of a validator that was moved here."""
    if not memory.is_foreign:
        return []
    own = validator_signer(comet).public_key
    if not any(each.record.power for each in app.validators() if each.record.consensus_key != own):
        # All blocks carry its signatures, the last ones too, and without it there are no further ones.
        note("the validator was moved here. It is alone: no block can tell whether its key runs elsewhere")
        return []
    note(f"the validator was moved here: it ends if its key signed one of the last {CHECKED_BLOCKS} blocks")
    return [f"--consensus.double_sign_check_height={CHECKED_BLOCKS}"]


def comet_command(comet: CometHome, application: RunningComet, options: Sequence[str]) -> str:
    """How somebody else starts the cometbft of an application."""
    words = ("cometbft start --home", str(comet.path), "--proxy_app", application.abci, *options)
    return " ".join(words)


def _note_signed(memory: Memory) -> None:
    try:
        memory.note()
    except (CometFilesError, OSError) as error:
        note(f"what the key signed last could not be noted: {error}")


async def _stop_when_ended(process: CometProcess, failures: list[str], stop: asyncio.Event) -> None:
    reason = await process.wait_ended()
    if not stop.is_set():
        failures.append(reason)
        stop.set()


async def _answering(rpc: CometRpc, stop: asyncio.Event, height: Callable[[], int]) -> None:
    """Returns when CometBFT answers, which it does after it has replayed, or when all is to stop."""
    reached = height()
    replay = meter("running blocks again:", None, as_text=lambda count: count_text(round(count), "block"))
    try:
        while not stop.is_set():
            try:
                return await rpc.health()
            except CometRpcError:
                await asyncio.sleep(START_POLL_S)
            before, reached = reached, height()
            if reached > before:
                replay.advance(reached - before)
    finally:
        replay.finish()
    return None
