"""Validators of one chain on this machine: for each a `holdfast` process with its `cometbft`, as in earnest.

Ports are the kernel's. What a test waits for is a height or an event, never a time.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any

from cli.comet_init import Places, init_comet_ledger, own_founder, take_founding
from cli.comet_service import comet_home
from cli.home import OPERATOR_KEY, Home
from cli.serve import LIFELINE
from ledger.engine.client import LedgerClient
from ledger.engine.cometbft.home.layout import CometHome
from ledger.engine.cometbft.rpc.client import CometRpc
from ledger.engine.sender import Sender
from ledger.engine.transport import Transport
from ledger.genesis import DEMO_PARAMS, Genesis, Params
from tests.conftest import ROOT
from tests.ledger.cometbft.processes import START_S, end, find_cometbft, last_lines
from tests.ports import free_ports

CHAIN = "network"
# Validators watch the first end and stop when the other one closes: when this process ends, however it does.
_LIFELINE, _HELD = os.pipe()
WAIT_S = 120.0  # on a busy machine


class Validator:
    """One validator: its home, and its processes while they run."""

    def __init__(self, number: int, folder: Path, settings: dict[str, str], profile: str = "laptop") -> None:
        self.number = number
        self._profile = profile
        self.rpc_port, self.p2p_port, self.port = free_ports(3)
        self.environment = {
            "HOLDFAST_LEDGER_LISTEN": f"127.0.0.1:{self.port}",
            "HOLDFAST_LEDGER_COMETBFT": str(find_cometbft()),
            **settings,
        }
        self.home = Home(folder, self.environment)
        self.log = folder.parent / f"{folder.name}.log"
        self.process: asyncio.subprocess.Process | None = None

    @property
    def url(self) -> str:
        """Of the ledger's HTTP."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def rpc_url(self) -> str:
        """Of CometBFT's RPC."""
        return f"http://127.0.0.1:{self.rpc_port}"

    @property
    def comet(self) -> CometHome:
        """CometBFT's folder."""
        return comet_home(self.home)

    @property
    def places(self) -> Places:
        """Where CometBFT listens."""
        p2p = f"127.0.0.1:{self.p2p_port}"
        rpc = f"127.0.0.1:{self.rpc_port}"
        return Places(self._profile, p2p_listen=p2p, rpc_listen=rpc, external=p2p)

    async def start(self) -> None:
        """Starts both processes; returns at once."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith("HOLDFAST_")}
        with self.log.open("ab") as log:
            self.process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-P",
                "-m",
                "cli.main",
                "ledger",
                "start",
                cwd=ROOT,
                env=kept
                | self.environment
                | {"HOLDFAST_HOME": str(self.home.path), LIFELINE: str(_LIFELINE)},
                pass_fds=(_LIFELINE,),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    async def kill(self) -> None:
        """Both processes end at once, as where the power fails."""
        assert self.process is not None
        for pid in (*child_pids(self.process.pid), self.process.pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        await self.process.wait()
        self.process = None

    async def stop(self) -> int | None:
        """Ends it in order; its exit code."""
        process, self.process = self.process, None
        return None if process is None else await end(process)

    async def wait_ended(self) -> tuple[int, str]:
        """Its exit code, once it ended by itself, and its last words."""
        assert self.process is not None
        async with asyncio.timeout(WAIT_S):
            code = await self.process.wait()
        self.process = None
        return code, await asyncio.to_thread(last_lines, self.log)

    async def reach(self, height: int) -> None:
        """Returns once this validator has committed block `height`."""
        async with (
            asyncio.timeout(WAIT_S),
            LedgerClient(self.url, sleep=_soon) as client,
            aclosing(client.events(height)) as blocks,
        ):
            await anext(blocks)

    async def stands_still(self, voters: int) -> int:
        """Returns the height at which `voters` have voted and too few are left to decide."""
        async with asyncio.timeout(WAIT_S), CometRpc(self.rpc_url) as rpc:
            while True:
                state = (await rpc.consensus_state())["round_state"]
                height, round_, _ = map(int, state["height/round/step"].split("/"))
                sets = {int(each["round"]): each for each in state["height_vote_set"]}
                prevotes, precommits = (_votes(sets[round_][kind]) for kind in ("prevotes", "precommits"))
                if voters in (prevotes, precommits) and precommits <= voters:
                    return height
                await asyncio.sleep(0.02)


class Network:
    """Some validators of one chain; the first one's operator account has all the money.

    `newcomers` are homes that joined it later, and end with the others.
    """

    def __init__(self, validators: Sequence[Validator], genesis: Genesis) -> None:
        self.validators = validators
        self.newcomers: list[Validator] = []
        self.genesis = genesis

    def __getitem__(self, number: int) -> Validator:
        return self.validators[number]

    @property
    def urls(self) -> str:
        """All servers', as a client is told them."""
        return ",".join(validator.url for validator in self.validators)

    def client(self, first: int = 0, **options: Any) -> LedgerClient:
        """A client of all servers, which begins with one of them."""
        turned = [*self.validators[first:], *self.validators[:first]]
        return LedgerClient(",".join(each.url for each in turned), **options)

    def sender(self, client: LedgerClient) -> Sender:
        """Sends with the key that has the money."""
        return Sender(client, self.validators[0].home.signer(OPERATOR_KEY))

    async def reach(self, height: int) -> None:
        """Returns once all validators have block `height`."""
        await asyncio.gather(*(each.reach(height) for each in self.validators))

    async def agree(self, height: int, *newcomers: Validator) -> bool:
        """Whether all validators, once they have block `height`, say that the state is the same after it."""

        async def of(validator: Validator) -> bytes:
            await validator.reach(height)
            async with Transport(validator.url) as http:
                found: bytes = (await http.get(f"/v1/block/{height}"))["block"]["app_hash"]
                return found

        return len(set(await asyncio.gather(*map(of, (*self.validators, *newcomers))))) == 1


def make_network(
    folder: Path,
    count: int,
    settings: dict[str, str] | None = None,
    params: Params = DEMO_PARAMS,
    profile: str = "laptop",
) -> Network:
    """Homes of `count` founders of one chain, as the founders' ceremony makes them."""
    homes = [folder / f"v{number}" for number in range(count)]
    validators = [Validator(number, home, settings or {}, profile) for number, home in enumerate(homes)]
    files = []
    for validator in validators:
        founder = own_founder(validator.home, CHAIN, validator.places)
        path = folder / f"founder{validator.number}.json"
        path.write_text(json.dumps(founder.to_json()))
        files.append(path)
    first = validators[0]
    genesis = init_comet_ledger(first.home, params, CHAIN, places=first.places, founders=files)
    founding = first.home.ledger / "founding.json"
    for validator in validators[1:]:
        take_founding(validator.home, founding, validator.places, test_network=True)
    return Network(validators, genesis)


@asynccontextmanager
async def running_network(
    folder: Path,
    count: int,
    settings: dict[str, str] | None = None,
    params: Params = DEMO_PARAMS,
    profile: str = "laptop",
) -> AsyncIterator[Network]:
    """A network that has made its first block; all of its processes end with the context."""
    network = await asyncio.to_thread(make_network, folder, count, settings, params, profile)
    try:
        for validator in network.validators:
            await validator.start()
        try:
            async with asyncio.timeout(START_S):
                await network.reach(1)
        except TimeoutError:
            told = [last_lines(each.log) for each in network.validators]
            raise AssertionError("\n".join(told)) from None
        yield network
    finally:
        await asyncio.gather(*(each.stop() for each in (*network.validators, *network.newcomers)))


async def _soon(_seconds: float) -> None:
    await asyncio.sleep(0.02)


def _votes(votes: Sequence[str]) -> int:
    return sum(vote != "nil-Vote" for vote in votes)


def child_pids(pid: int) -> list[int]:
    """The processes that a process has started."""
    return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
