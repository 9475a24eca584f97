"""`holdfast demo`: add, pay, prove, lose a node, repair and browse, on a local network of real processes."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
import time
from collections.abc import Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from cli.compose import Wire, connected
from cli.demo_ledger import ANY_PORT, pin_all, start_ledger
from cli.demo_readback import read_back, regular_files
from cli.demo_story import Story, rate_text
from cli.demo_watch import Watch
from cli.home import NODE_KEY, OPERATOR_KEY, Home
from cli.money import HOLD, amount_text
from cli.output import CommandError, ExitCode, size_text
from cli.processes import Child, Network
from ledger.genesis import DEMO_PARAMS

if TYPE_CHECKING:
    from merkledag.cid import CID
    from storage_node.placement import StorePlan

MIN_NODES: Final = 4
MAX_NODES: Final = 16
NODE_STAKE_HOLD: Final = 10_000
NODE_FUNDS: Final = (NODE_STAKE_HOLD + 100) * HOLD
CLIENT_FUNDS: Final = 1_000_000 * HOLD
PRICE: Final = "1"  # HOLD a GiB a period
DEAL_S: Final = 600
CLEAN_PROOFS: Final = 4
PROOFS_TIMEOUT_S: Final = 90.0
REPAIR_TIMEOUT_S: Final = 120.0
GIVE_UP_S: Final = 60.0
QUIET: Final = {"HOLDFAST_MAINTENANCE_ENABLED": "false"}  # nothing here lives long enough to need any


@dataclass(slots=True)
class Demo:
    """What the steps share."""

    story: Story
    network: Network
    folder: Path
    path: Path
    client: Home
    nodes: list[Child]
    gateway: Child
    ledger: Child


class Stage:
    """What a demo makes on this machine: its folder, and the processes that run there."""

    def __init__(self) -> None:
        self.folder: Path | None = None
        self.network: Network | None = None

    def clear(self) -> None:
        """Ends and removes all of it at once, for whoever does not wait for the clean end."""
        if self.network is not None:
            self.network.kill_all()
        if self.folder is not None:
            shutil.rmtree(self.folder, ignore_errors=True)


async def run_demo(
    path: Path | None, nodes: int, stop: asyncio.Event, story: Story, stage: Stage, *, engine: str, once: bool
) -> None:
    """Plays the whole of it. Leaves no process, port or file behind, however it ends.

    Raises CommandError (exit 130) when `stop` is set before the end.
    """
    stage.folder = folder = Path(tempfile.mkdtemp(prefix="holdfast-demo-"))
    try:
        source = path or own_files(folder)
        async with Network(folder) as stage.network:
            url = await _interruptible(_play(stage.network, folder, source, nodes, story, engine), stop)
            if once:
                story.begin("done", "Everything is back and paid for. What was made for it is removed.")
                return
            story.begin("done", f"Everything is back and paid for. {source.name} is at {url}")
            homes = f"HOLDFAST_HOME={folder}/client holdfast deal ls   (or …/node1 holdfast node status)"
            story.say(f"Act as its client or a node: {homes}", event="homes", folder=str(folder))
            story.say("Ctrl-C ends the demo and removes all it made.", event="waiting", url=url)
            await stop.wait()
    finally:
        await asyncio.shield(asyncio.to_thread(shutil.rmtree, folder, True))


async def _interruptible(play: Coroutine[None, None, str], stop: asyncio.Event) -> str:
    """What the play returns at its end; when `stop` is set before, it is cancelled, and the exit code 130."""
    playing = asyncio.create_task(play)
    stopping = asyncio.create_task(stop.wait())
    try:
        await asyncio.wait({playing, stopping}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        playing.cancel()
        stopping.cancel()
        await asyncio.gather(playing, stopping, return_exceptions=True)
    if playing.cancelled():
        raise CommandError("interrupted", ExitCode.INTERRUPTED)
    return playing.result()


def own_files(folder: Path) -> Path:
    """A copy of this program's own files: what is stored when no PATH is given."""
    root = Path(__file__).resolve().parent.parent
    names = (
        "merkledag",
        "proofs",
        "ledger",
        "storage_node",
        "gateway",
        "cli",
        "docs",
        "README.md",
        "LICENSE",
    )
    target = folder / "holdfast"
    target.mkdir()
    for name in names:
        found = root / name
        if found.is_dir():
            shutil.copytree(found, target / name, ignore=shutil.ignore_patterns("__pycache__", ".*"))
        elif found.is_file():
            shutil.copy2(found, target / name)
    return target


async def _play(network: Network, folder: Path, path: Path, nodes: int, story: Story, engine: str) -> str:
    """All steps but the last; returns the URL of what was stored."""
    demo, names = await _start(network, folder, path, nodes, story, engine)
    watch = Watch(story, names)
    imported_s = time.time()
    root = await asyncio.to_thread(_import, demo)
    async with connected(demo.client, demo.ledger.url) as wire:
        status = await wire.ledger.status()
        follower = asyncio.create_task(watch.follow(wire.ledger, int(status["height"]) + 1))
        try:
            with await _plan(demo, wire, root) as plan:
                await _place(demo, wire, watch, plan)
            await _prove(demo, watch)
            await _lose_a_node(demo, watch)
            await _read_back(demo, root, imported_s)
            await _settle_up(demo, wire, watch, names)
        finally:
            follower.cancel()
            await asyncio.gather(follower, return_exceptions=True)
    return f"{demo.gateway.url}/ipfs/{root}/"


async def _start(
    network: Network, folder: Path, path: Path, count: int, story: Story, engine: str
) -> tuple[Demo, dict[bytes, str]]:
    story.begin("start", f"Starting a ledger, {count} storage nodes and a gateway, each a process of its own")
    nobodys: dict[str, str] = {}  # its homes follow no variable of ours
    client = Home(folder / "client", nobodys)
    homes = {f"node{i}": Home(folder / f"node{i}", nobodys) for i in range(1, count + 1)}
    for home in (client, *homes.values()):
        home.create()
        home.keystore().create(NODE_KEY, "ed25519")
    operator = Home(folder / "ledger", nobodys)
    ledger, genesis = await start_ledger(network, operator, engine)
    await pin_all((client, *homes.values()), ledger.url, genesis)
    told = f"ledger     {ledger.url}  chain {genesis.chain_id}, pid {ledger.pid}"
    story.say(told, event="ledger", url=ledger.url, pid=ledger.pid)
    command = ["gateway", *ANY_PORT, "--ledger", ledger.url]
    gateway = await network.start("gateway", "gateway", command, QUIET)
    names = {home.signer().public_key: name for name, home in homes.items()}
    names[client.signer().public_key] = "client"
    names[genesis.operator] = "operator"
    await _fund(operator, ledger.url, names, client.signer().public_key)
    started = [
        await network.start(
            name,
            "node",
            [
                "node",
                "run",
                *ANY_PORT,
                "--ledger",
                ledger.url,
                "--stake",
                str(NODE_STAKE_HOLD),
                "--price",
                PRICE,
            ],
            QUIET,
        )
        for name in homes
    ]
    for node in started:
        await network.ready(node)
        story.say(
            f"{node.name:10} {node.url}  pid {node.pid}",
            event="node",
            node=node.name,
            url=node.url,
            pid=node.pid,
        )
    await network.ready(gateway)
    story.say(
        f"gateway    {gateway.url}  pid {gateway.pid}", event="gateway", url=gateway.url, pid=gateway.pid
    )
    return Demo(story, network, folder, path, client, started, gateway, ledger), names


async def _fund(operator: Home, url: str, names: dict[bytes, str], client: bytes) -> None:
    from ledger.transactions import Transfer

    async with connected(operator, url, OPERATOR_KEY) as wire:
        others = [account for account, name in names.items() if name != "operator"]
        await asyncio.gather(
            *(
                wire.sender.send(Transfer(account, CLIENT_FUNDS if account == client else NODE_FUNDS))
                for account in others
            )
        )


def _import(demo: Demo) -> CID:
    from cli.adding import add_path

    demo.story.begin("add", f"Adding {demo.path}")
    began_s = time.monotonic()
    added = add_path(demo.client, demo.path, name="demo", label="          added")
    rate = rate_text(added.size_bytes, time.monotonic() - began_s)
    demo.story.say(f"{added.cid}: {rate}", event="added", cid=str(added.cid), size_bytes=added.size_bytes)
    return added.cid


async def _plan(demo: Demo, wire: Wire, root: CID) -> StorePlan:
    from storage_node.placement import StoreRequest, plan_store
    from storage_node.quote import periods_for

    demo.story.begin("quote", "Cutting it into shards and asking what it costs")
    await _registered(wire, len(demo.nodes))
    periods = periods_for(DEAL_S, await wire.ledger.params())
    bars = demo.story.progress("prepared")
    try:
        request = StoreRequest(root, periods)
        plan = await plan_store(
            wire.ledger, demo.client.open_store(), demo.client.open_rows(), request, progress=bars
        )
    finally:
        bars.finish()
    quote, shards, k = plan.quote, len(plan.pieces), plan.manifest.k
    kind = "copies" if plan.manifest.replicated else f"shards, any {k} of which restore everything"
    demo.story.say(f"{shards} {kind}; {size_text(plan.upload_bytes)} in all", event="code", shards=shards)
    terms: dict[str, Any] = {
        "price": quote.price,
        "escrow": quote.escrow,
        "deposit": quote.deposit,
        "fee": quote.fee,
    }
    each, escrow, deposit, fee = (amount_text(units) for units in terms.values())
    lasting = f"{quote.periods} periods of {DEMO_PARAMS.period_s} s"
    demo.story.say(
        f"quote: {each} a shard a period, {lasting}: {escrow} of escrow, {deposit} deposit, {fee} fee",
        event="quote",
        periods=quote.periods,
        **terms,
    )
    return plan


async def _registered(wire: Wire, count: int) -> None:
    """Waits until so many providers are on the ledger (they say so themselves while they start)."""
    deadline_s = time.monotonic() + GIVE_UP_S
    while len([p for p in await wire.ledger.providers() if p.open]) < count:
        if time.monotonic() > deadline_s:
            raise CommandError(f"only some of the {count} nodes registered within {GIVE_UP_S:.0f} s")
        await asyncio.sleep(0.1)


async def _place(demo: Demo, wire: Wire, watch: Watch, plan: StorePlan) -> None:
    from storage_node.storing import execute_store

    demo.story.begin("store", "Locking the escrow and placing the shards")
    began_s = time.monotonic()
    bars = demo.story.progress("sent")
    try:
        result = await execute_store(
            plan,
            wire.ledger,
            wire.sender,
            demo.client.signer(),
            wire.pool,
            demo.client.open_store(),
            demo.client.open_rows(),
            progress=bars,
        )
    finally:
        bars.finish()
    watch.deal = result.deal
    await watch.until("acceptance", lambda: len(watch.holders) == len(plan.pieces), GIVE_UP_S)
    rate = rate_text(result.uploaded_bytes, time.monotonic() - began_s)
    demo.story.say(f"deal {result.deal}: {rate}", event="deal", deal=str(result.deal))


async def _prove(demo: Demo, watch: Watch) -> None:
    every, drawn = DEMO_PARAMS.period_s, DEMO_PARAMS.challenges
    demo.story.begin(
        "prove", f"Proving: every {every} s a fresh seed draws {drawn} leaves of each node's data"
    )
    holders = set(watch.holders.values())
    await watch.until(
        f"{CLEAN_PROOFS} proofs of each node",
        lambda: all(watch.proofs[h] >= CLEAN_PROOFS and watch.paid[h] > 0 for h in holders),
        PROOFS_TIMEOUT_S,
    )


async def _lose_a_node(demo: Demo, watch: Watch) -> None:
    lost = watch.holders[0]
    victim = next(node for node in demo.nodes if node.name == watch.name(lost))
    demo.story.begin("lose", f"Killing {victim.name} (pid {victim.pid}), which holds shard 0")
    await demo.network.kill(victim)
    await watch.until("a fault", lambda: watch.faults[lost] > 0, PROOFS_TIMEOUT_S)
    await watch.until("the repair", lambda: 0 in watch.repaired, REPAIR_TIMEOUT_S)
    rescuer = watch.repaired[0]
    before = watch.proofs[rescuer]
    await watch.until(
        "a proof of the rebuilt shard", lambda: watch.proofs[rescuer] > before, PROOFS_TIMEOUT_S
    )


async def _read_back(demo: Demo, root: CID, imported_s: float) -> None:
    import aiohttp

    from cli.output import meter

    demo.story.begin("read", "Reading everything back through the gateway, byte for byte")
    total = sum(file.stat().st_size for file, _ in regular_files(demo.path))
    bar = meter("          read", total)
    began_s = time.monotonic()
    try:
        async with aiohttp.ClientSession(auto_decompress=False) as session:
            base = f"{demo.gateway.url}/ipfs/{root}"
            done = await read_back(session, base, demo.path, imported_s, bar.advance)
    except ExceptionGroup as group:
        raise group.exceptions[0] from None
    finally:
        bar.finish()
    rate = rate_text(done.size_bytes, time.monotonic() - began_s)
    same = done.files - done.changed
    line = f"{same} files are the same, {rate}"
    if done.changed:
        line += f"; {done.changed} changed on disk since they were added"
    demo.story.say(line, event="read", files=done.files, changed=done.changed, size_bytes=done.size_bytes)


async def _settle_up(demo: Demo, wire: Wire, watch: Watch, names: dict[bytes, str]) -> None:
    demo.story.begin("balances", "Where the money is")
    status = await wire.ledger.status()
    for account, name in names.items():
        record = await wire.ledger.account(account)
        earned = f"  (earned {amount_text(watch.paid[account])})" if watch.paid[account] else ""
        demo.story.say(
            f"{name:10} {amount_text(record.balance):>32}{earned}",
            event="balance",
            account=name,
            balance=record.balance,
        )
    parts = {part: int(status[part]) for part in ("balances", "escrow", "collateral", "burned")}
    for part, units in parts.items():
        demo.story.say(f"{part:10} {amount_text(units):>32}", event="total", part=part, units=units)
    issued = int(status["issued"])
    if sum(parts.values()) != issued:
        raise CommandError(f"the money does not add up: {sum(parts.values())} of {issued} units")
    demo.story.say(
        f"{'sum':10} {amount_text(issued):>32}  = all that was ever issued",
        event="sum",
        issued=issued,
        adds_up=True,
    )
