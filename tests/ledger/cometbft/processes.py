"""`cometbft` as a process in a test: found or skipped, configured, awaited, and always ended."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
import re
import subprocess
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest

from cli.comet_process import CometProcess
from ledger.engine.cometbft.home.layout import CometHome
from ledger.engine.cometbft.rpc.client import CometRpc
from ledger.engine.cometbft.rpc.errors import CometUnreachable, TxKnown
from tests.conftest import find_peer
from tests.ports import free_ports

REQUIRED = os.environ.get("HOLDFAST_REQUIRE_PEERS") == "1"
START_S = 90.0  # on a busy machine
END_S = 30.0
# It may wait for ever for an application that went before it (Flush in abci/client/socket_client.go).
COMET_END_S = 3.0
TOLD_BYTES = 2_000


def find_cometbft() -> Path:
    """The program; where it is not installed the test is skipped, or fails if it is required."""
    found = find_peer("cometbft")
    if found is None:
        reason = "cometbft is neither in the peers' folder nor on PATH: make peers puts it there"
        if REQUIRED:
            pytest.fail(reason)
        pytest.skip(reason)
    return found


def init_home(home: Path) -> None:
    """`cometbft init`: keys, a genesis and the default configuration."""
    command = [str(find_cometbft()), "init", "--home", str(home)]
    subprocess.run(command, check=True, capture_output=True, timeout=START_S)


def configure(home: Path, settings: Mapping[str, object]) -> None:
    """Sets values of config.toml by "section.name" ("name" at its top); each must be there already."""
    path = home / "config" / "config.toml"
    wanted = {name: json.dumps(value) for name, value in settings.items()}
    section, lines = "", []
    for line in path.read_text().splitlines():
        if found := re.fullmatch(r"\[([\w.]+)\]", line.strip()):
            section = found[1] + "."
        name = section + line.partition("=")[0].strip()
        lines.append(f"{line.partition('=')[0].strip()} = {wanted.pop(name)}" if name in wanted else line)
    assert not wanted, f"config.toml has no {sorted(wanted)}"
    path.write_text("\n".join(lines) + "\n")


def quick_home(home: Path, settings: Mapping[str, object] | None = None) -> int:
    """A home of CometBFT's example application, which makes blocks quickly; the port of its RPC."""
    init_home(home)
    port, p2p = free_ports(2)
    laddr = {"rpc.laddr": f"tcp://127.0.0.1:{port}", "p2p.laddr": f"tcp://127.0.0.1:{p2p}"}
    configure(home, {**laddr, "consensus.timeout_commit": "20ms", **(settings or {})})
    return port


def change_genesis(home: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Lets `change` edit the genesis document."""
    path = home / "config" / "genesis.json"
    genesis = json.loads(path.read_text())
    change(genesis)
    path.write_text(json.dumps(genesis))


async def end(process: asyncio.subprocess.Process, patience_s: float = END_S) -> int:
    """Asks a process to end, then makes it; its exit code."""
    if process.returncode is None:
        process.terminate()
        try:
            await asyncio.wait_for(process.wait(), patience_s)
        except TimeoutError:
            process.kill()
    return await process.wait()


@contextlib.asynccontextmanager
async def cometbft(home: Path, application: str, log: Path) -> AsyncIterator[asyncio.subprocess.Process]:
    """`cometbft start` beside the application at an address; ended with the context."""
    command = [str(find_cometbft()), "start", "--home", str(home), "--proxy_app", application]
    with log.open("ab") as file:
        process = await asyncio.create_subprocess_exec(*command, stdout=file, stderr=file)
    try:
        yield process
    finally:
        await end(process, COMET_END_S)


@contextlib.asynccontextmanager
async def kvstore(home: Path, port: int) -> AsyncIterator[CometRpc]:
    """CometBFT with its own example application; yields once its RPC answers. It does not outlive us."""
    process = CometProcess(find_cometbft(), CometHome(home))
    await process.start("kvstore")
    ended = asyncio.create_task(process.wait_ended())
    try:
        async with CometRpc(f"http://127.0.0.1:{port}") as rpc:
            async with asyncio.timeout(START_S):
                await _until_answers(rpc, lambda: ended.result() if ended.done() else "")
            yield rpc
    finally:
        await process.stop()
        await ended


def last_lines(log: Path) -> str:
    """The end of a process's log."""
    return log.read_text(errors="replace")[-TOLD_BYTES:]


async def until_answers(rpc: CometRpc, process: asyncio.subprocess.Process, log: Path) -> None:
    """Asks until the RPC answers; fails with the log's end if the process ends before."""

    def why_ended() -> str:
        code = process.returncode
        return "" if code is None else f"cometbft ended with {code}: {last_lines(log)}"

    await _until_answers(rpc, why_ended)


async def _until_answers(rpc: CometRpc, why_ended: Callable[[], str]) -> None:
    while True:
        try:
            return await rpc.health()
        except CometUnreachable:
            if why := why_ended():
                pytest.fail(why)
            await asyncio.sleep(0.02)


async def offer(rpc: CometRpc, raws: Iterable[bytes]) -> list[int]:
    """What CheckTx says of transactions that a node is given one after the other; 0 of one that it knows."""
    codes = []
    for raw in raws:
        try:
            answer = await rpc.call("broadcast_tx_sync", {"tx": base64.b64encode(raw).decode()})
            codes.append(int(answer["code"]))
        except TxKnown:
            codes.append(0)
    return codes


async def until_block(rpc: CometRpc, height: int) -> None:
    """Returns once a block of that height, or a later one, has come."""
    async with contextlib.aclosing(rpc.subscribe("tm.event='NewBlock'")) as blocks:
        async for block in blocks:
            if int(block.value["block"]["header"]["height"]) >= height:
                return
