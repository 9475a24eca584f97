"""`holdfast up`, `demo` and `healthcheck`: servers on this machine."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.commands_gateway import ControlFlag, HostsFlag, ListenFlag, WorkersFlag, home_with
from cli.home import OPERATOR_KEY, Home
from cli.options import JsonFlag
from cli.output import CommandError, count_text, emit, not_found, note, text, unreachable, usage
from cli.settings import COMETBFT, EMBEDDED

if TYPE_CHECKING:
    from cli.compose import NodeTerms, Wire
    from cli.serve import Stop

UP_FUNDS_HOLD = 100_000
HEALTH_TIMEOUT_S = 4.0
MAX_ANSWER_BYTES = 1 << 20


def up(
    listen: ListenFlag = None,
    workers: WorkersFlag = None,
    control: ControlFlag = None,
    subdomain_host: HostsFlag = None,
    json_output: JsonFlag = False,
) -> int:
    """Run everything on this machine: ledger, storage node and gateway."""
    from cli.serve import run_forever

    home = home_with(listen, workers, control, subdomain_host)
    home.ensure()

    async def main(stop: Stop) -> None:
        await _up(home, stop, json_output=json_output)

    with home:
        return run_forever(main)


async def _up(home: Home, stop: Stop, *, json_output: bool) -> None:
    from cli.commands_ledger_run import init_own, own_ledger
    from cli.commands_node import terms
    from cli.compose import node_service
    from cli.gateway_service import gateway_service
    from cli.ledger_files import genesis_file, read_genesis
    from cli.serve import until

    config = home.config
    url = config.text("ledger.url")
    async with AsyncExitStack() as running:
        own = not url
        if own:
            if not genesis_file(home).exists():
                init_own(home)
            ledger = own_ledger(home, read_genesis(home), config.text("ledger.listen"), stop)
            url = await running.enter_async_context(ledger)
        offer = terms(home)
        if own:
            await _fund_first_time(home, url, offer)
        node = await running.enter_async_context(node_service(home, config.text("node.listen"), url, offer))
        gateway = await running.enter_async_context(gateway_service(home, lambda: url, stop))
        if json_output:
            emit({"gateway": gateway.url, "node": node.url, "ledger": url, "home": str(home.path)})
        else:
            text(f"gateway  {gateway.url}\nnode     {node.url}\nledger   {url}\nhome     {home.path}\n")
            text(f"In another terminal:  holdfast add FOLDER -Q    then open {gateway.url}/ipfs/CID/")
            text("Ctrl-C stops everything; nothing is lost.")
        await until(stop)


async def _fund_first_time(home: Home, url: str, offer: NodeTerms) -> None:
    """Gives this home's account money from the operator's key when it never had any."""
    from cli.compose import connected
    from ledger.genesis import HOLD
    from ledger.transactions import Transfer

    account = home.signer().public_key
    wire: Wire
    async with connected(home, url, OPERATOR_KEY) as wire:
        record = await wire.ledger.account(account)
        if record.balance == 0 and record.nonce == 0:
            await wire.sender.send(Transfer(account, UP_FUNDS_HOLD * HOLD + offer.stake))


def demo(
    path: Annotated[str, typer.Argument(help="What to store; by default this program's own files.")] = "",
    once: Annotated[
        bool, typer.Option("--once", help="Exit at the end instead of waiting for Ctrl-C.")
    ] = False,
    nodes: Annotated[int, typer.Option("--nodes", help="Storage nodes, 4 to 16.")] = 4,
    engine: Annotated[str, typer.Option("--engine", help="embedded or cometbft.")] = EMBEDDED,
    json_output: JsonFlag = False,
) -> int:
    """Play the whole story on a local network: store for pay, prove, lose a node, repair, browse."""
    from cli.commands_ledger_run import require_engine
    from cli.demo import MAX_NODES, MIN_NODES, Stage, run_demo
    from cli.demo_story import Story
    from cli.serve import run_forever

    if not MIN_NODES <= nodes <= MAX_NODES:
        raise usage(f"--nodes {nodes}: the demo runs {MIN_NODES} to {MAX_NODES} nodes")
    require_engine(engine)
    if path and not Path(path).exists():
        raise not_found(f"{path}: no such file or folder")
    story, stage = Story(json_output=json_output), Stage()
    source = Path(path).resolve() if path else None

    async def main(stop: Stop) -> None:
        stop.at_once.append(stage.clear)
        await run_demo(source, nodes, stop, story, stage, engine=engine, once=once)

    return run_forever(main)


def healthcheck(json_output: JsonFlag = False) -> None:
    """Exit 0 when every server that this home announces answers, and the ledger that they need.

    This home's ledger, if it is on CometBFT, must have made a block lately (`ledger.halted_s`): its processes
    live on where the chain stands still.

    For containers and monitors. Damaged blocks, and what stands in the way of the maintenance, are told on
    stderr and do not fail the check: a restart would not help.
    """
    from cli.repo_report import troubles
    from ledger.engine.urls import urls_of

    home = Home.locate()
    paths = {"gateway": "/healthz", "node": "/v1/status", "ledger": "/v1/status"}
    found = {role: server for role in paths if (server := home.server(role))}
    if not found:
        raise unreachable("no server of this home is running: start one with `holdfast up`")
    urls = {role: str(server["url"]) for role, server in found.items()}
    needed = {str(server["ledger"]) for server in found.values() if server.get("ledger")}
    for role, url in urls.items():
        answer = _require_answer(f"the {role}", f"{url}{paths[role]}")
        if role == "ledger":
            _require_blocks(home, answer)
        if not json_output:
            text(f"{role} ok")
    for url in needed - set(urls.values()):
        _require_one(urls_of(url), paths["ledger"])
    damaged, problems = troubles(home)
    if json_output:
        emit({**urls, "damaged": damaged, "problems": problems})
    if damaged:
        note(f"{count_text(damaged, 'block')} damaged: see `holdfast repo verify --heal`")
    for duty, problem in problems.items():
        note(f"{duty}: {problem}")


def _require_one(urls: Sequence[str], path: str) -> None:
    """Exit 1 where none of a ledger's servers answers."""
    for number, url in enumerate(urls, start=1):
        try:
            _require_answer("the ledger", f"{url}{path}")
        except CommandError:
            if number == len(urls):
                raise
        else:
            return


def _require_blocks(home: Home, answer: bytes) -> None:
    """Exit 1 where a chain that makes blocks all the time has made none for long."""
    import json
    import time

    status, most_s = json.loads(answer), home.config.number("ledger.halted_s")
    age_s = int(time.time()) - status["block_time_s"]
    if status["engine"] == COMETBFT and most_s and age_s > most_s:
        why = f": {status['trouble']}" if status["trouble"] else ""
        raise CommandError(f"the ledger's last block, {status['height']}, is {age_s} s old{why}")


def _require_answer(what: str, url: str) -> bytes:
    from urllib.error import URLError
    from urllib.request import urlopen

    try:
        with urlopen(url, timeout=HEALTH_TIMEOUT_S) as answer:  # noqa: S310 (our own URL, or of settings)
            return bytes(answer.read(MAX_ANSWER_BYTES))
    except (URLError, OSError, ValueError) as error:
        raise CommandError(f"{what} at {url} does not answer: {error}") from None
