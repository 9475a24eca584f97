"""A validator's home as its operator knows it: the real program, both processes, and what goes wrong."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from cli.comet_service import comet_home, moved_options
from cli.demo_ledger import pin_all, start_ledger
from cli.home import Home
from cli.ledger_files import genesis_file, read_genesis
from cli.ledger_pin import pinned_client
from cli.processes import Network
from cli.version import VERSION
from ledger.application import Application
from ledger.engine.cometbft.home.genesis_file import genesis_bytes, genesis_hash
from ledger.engine.cometbft.home.keys import create_validator_key
from ledger.engine.cometbft.home.layout import CometHome
from ledger.engine.cometbft.home.signing import Memory
from tests.cli.conftest import Holdfast
from tests.cli.processes import Process, environment
from tests.ledger.cometbft.application import genesis, seed
from tests.ledger.cometbft.processes import find_cometbft
from tests.ports import free_ports

pytestmark = [pytest.mark.peers, pytest.mark.timeout(300)]


class Validator:
    """One home with a chain of its own, and its processes while they run."""

    def __init__(self, holdfast: Holdfast) -> None:
        self.holdfast = holdfast
        p2p, rpc, self.metrics_port = free_ports(3)
        holdfast("config", "set", "ledger.cometbft", find_cometbft())
        holdfast("config", "set", "ledger.metrics_listen", f"127.0.0.1:{self.metrics_port}")
        holdfast(
            "ledger", "init", "--engine", "cometbft", "--chain-id", "harbour",
            "--p2p-listen", f"127.0.0.1:{p2p}", "--rpc-listen", f"127.0.0.1:{rpc}",
        )  # fmt: skip
        self.comet = holdfast.home / "ledger" / "cometbft"
        self.process: Process | None = None

    def start(self, *options: str) -> str:
        """Returns the URL once it serves."""
        process = Process(
            environment(self.holdfast.home), "ledger", "start", "--json", "--listen", "127.0.0.1:0", *options
        )
        self.process = process
        first = next(process.lines(), None)
        assert first is not None, process.stderr()
        return str(first["ledger"])

    def end(self, number: int | None = None) -> tuple[int, str]:
        """Sends a signal, if any, and waits; exit code and messages."""
        assert self.process is not None
        process, self.process = self.process, None
        return process.end(number)

    def metrics(self) -> dict[str, float]:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.metrics_port}/metrics", timeout=60) as answer:
            page = answer.read().decode()
        return {s.name: s.value for f in text_string_to_metric_families(page) for s in f.samples}

    def engine_pid(self) -> int:
        assert self.process is not None
        pid = self.process.child.pid
        (found,) = [
            int(child)
            for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
            if "cometbft" in Path(f"/proc/{child}/cmdline").read_text()
        ]
        return found


@pytest.fixture
def validator(holdfast: Holdfast) -> Iterator[Validator]:
    found = Validator(holdfast)
    yield found
    if found.process is not None:
        found.process.end(signal.SIGKILL)


def test_a_validator_on_one_machine(validator: Validator) -> None:
    """Runs, is watched, is ended in order, goes on, and says why when its other half is gone."""
    holdfast = validator.holdfast
    url = validator.start()
    status = holdfast("ledger", "status", "--json").json
    assert (status["engine"], status["chain_id"]) == ("cometbft", "harbour")
    assert re.fullmatch(r"[0-9a-f]{40}@127\.0\.0\.1:\d+", status["peer"])
    assert "ledger ok" in holdfast("healthcheck").text
    found = validator.metrics()
    assert found["holdfast_ledger_height"] >= status["height"]
    assert found["holdfast_ledger_halted"] == 0
    asked = urllib.request.urlopen(f"{CometHome(validator.comet).rpc_url()}/abci_info", timeout=10)
    with asked as answer:
        told = json.load(answer)["result"]["response"]
    assert (told["data"], told["version"]) == ("harbour", VERSION)

    followers_join(holdfast, url, status["peer"])

    engine = validator.engine_pid()
    code, said = validator.end(signal.SIGINT)
    assert code == 0, said
    with pytest.raises(ProcessLookupError):
        os.kill(engine, 0)
    log = (validator.comet / "cometbft.log").read_text()
    assert "Closing blockstore" in log

    validator.start()
    assert holdfast("ledger", "status", "--json").json["height"] >= status["height"]
    os.kill(validator.engine_pid(), signal.SIGKILL)
    code, said = validator.end()
    assert code == 1
    assert "cometbft was killed (SIGKILL)" in said
    assert str(validator.comet / "cometbft.log") in said

    subprocess.run(
        [find_cometbft(), "reset-state", "--home", validator.comet], check=True, capture_output=True
    )
    validator.start()
    code, said = validator.end()
    assert code == 1
    assert "Its blocks and the ledger's state are not of one time" in said


def test_cometbft_under_another_unit_may_come_and_go(validator: Validator) -> None:
    (port,) = free_ports(1)
    abci = f"tcp://127.0.0.1:{port}"
    holdfast = validator.holdfast

    def start() -> subprocess.Popen[bytes]:
        words = ("start", "--home", validator.comet, "--proxy_app", abci)
        return subprocess.Popen([find_cometbft(), *words], stdout=subprocess.DEVNULL)

    def height() -> int:
        return int(holdfast("ledger", "status", "--json").json["height"])

    cometbft = start()
    try:
        validator.start("--no-supervise", "--abci", abci)
        cometbft.kill()
        cometbft.wait()
        before = height()
        cometbft = start()
        deadline = time.monotonic() + 60
        while height() <= before:
            assert time.monotonic() < deadline, "no block since another cometbft came"
            time.sleep(0.05)
        code, said = validator.end(signal.SIGINT)
    finally:
        cometbft.kill()
        cometbft.wait()
    assert code == 0
    assert f"waiting for `cometbft start --home {validator.comet} --proxy_app {abci}`" in said
    assert json.loads((validator.comet / "data" / "holdfast-signed.json").read_text())["height"] > before


def followers_join(holdfast: Holdfast, url: str, peer: str) -> None:
    """What makes a follower's home, and what is refused before there is one."""
    runs = genesis_hash(read_genesis(Home(holdfast.home)))
    follower = Home(holdfast.home.with_name("follower"), {})
    join = ("ledger", "join", url, "--engine", "cometbft", "--profile", "laptop", "--json")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOLDFAST_HOME", str(follower.path))
        assert runs in holdfast.fails(4, *join, "--peer", peer, "--genesis", "0" * 64)
        assert "--peer ID@HOST:PORT is needed" in holdfast.fails(2, *join, "--genesis", runs)
        assert "--genesis HASH" in holdfast.fails(2, *join, "--peer", peer)
        assert "both" in holdfast.fails(2, *join, "--peer", peer, "--yes", "--trust", f"5:{'AB' * 32}")
        assert "HEIGHT:HASH" in holdfast.fails(
            2, *join, "--peer", peer, "--yes", "--trust", "5", "--sync-from", "http://127.0.0.1:1"
        )
        assert not genesis_file(follower).exists()
        sync = ("--trust", f"5:{'AB' * 32}", "--sync-from", "http://127.0.0.1:1")
        followers_join_again(holdfast, follower, (*join, "--genesis", runs), peer)
        assert holdfast(*join, "--peer", peer, "--genesis", runs, *sync, "--replace").json["genesis"] == runs
    comet = comet_home(follower)
    assert comet.peers() == (peer,)
    assert comet.config()["statesync"]["rpc_servers"] == "http://127.0.0.1:1,http://127.0.0.1:1"
    assert comet.genesis_file.read_bytes() == genesis_bytes(read_genesis(follower))


def followers_join_again(holdfast: Holdfast, follower: Home, join: tuple[str, ...], peer: str) -> None:
    """What was joined with wrong values is joined anew with right ones, as long as nothing would be lost."""
    holdfast(*join, "--peer", f"{'0' * 40}@127.0.0.1:1")
    comet = comet_home(follower)
    keys = [comet.node_key_file, comet.validator_key_file, comet.validator_state_file, comet.watermark_file]
    before = [key.read_bytes() for key in keys]
    (comet.data / "state.db").mkdir()
    (comet.data / "state.db" / "1.log").write_bytes(b"of a first start")
    assert "--replace" in holdfast.fails(1, *join, "--peer", peer)
    assert "--replace" in holdfast.fails(1, "ledger", "leave")
    holdfast(*join, "--peer", peer, "--replace")
    assert [key.read_bytes() for key in keys] == before
    assert comet.peers() == (peer,)
    assert not (comet.data / "state.db" / "1.log").exists()
    signed = before[2].replace(b'"height": "0"', b'"height": "7"')
    assert signed != before[2]
    comet.validator_state_file.write_bytes(signed)
    assert "another HOLDFAST_HOME" in holdfast.fails(1, *join, "--peer", peer, "--replace")
    assert genesis_file(follower).exists()
    comet.validator_state_file.write_bytes(before[2])


async def test_the_demos_ledger_on_cometbft(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOLDFAST_LEDGER_COMETBFT", str(find_cometbft()))
    monkeypatch.setenv("HOLDFAST_HOME", str(tmp_path / "mine"))
    client = Home(tmp_path / "client", {})
    client.create()
    async with Network(tmp_path) as network:
        ledger, genesis = await start_ledger(network, Home(tmp_path / "ledger", {}), "cometbft")
        await pin_all([client], ledger.url, genesis)
        async with pinned_client(client, ledger.url) as asked:
            assert (await asked.account(genesis.operator)).balance == genesis.issued
    assert not ledger.is_running
    assert not (tmp_path / "mine").exists()


def test_a_validators_copy_does_not_start_by_itself(validator: Validator) -> None:
    holdfast, data = validator.holdfast, validator.comet / "data"
    validator.start()
    deadline_s = time.monotonic() + 90
    while int(json.loads((data / "priv_validator_state.json").read_text())["height"]) < 2:
        assert time.monotonic() < deadline_s
        time.sleep(0.02)
    validator.end(signal.SIGTERM)
    signed = json.loads((data / "priv_validator_state.json").read_text())

    kept = holdfast.home.with_name("kept")
    holdfast.home.rename(kept)
    shutil.copytree(kept, holdfast.home)
    said = holdfast.fails(4, "ledger", "start")
    assert "--moved" in said
    assert f"height {signed['height']}" in said
    assert json.loads((data / "priv_validator_state.json").read_text()) == signed

    # It is alone: all blocks carry its signatures, and it goes on. What can be made again is not brought.
    shutil.rmtree(holdfast.home / "run")
    (validator.comet / "config" / "node_key.json").unlink()
    validator.process = Process(environment(holdfast.home), "ledger", "start", "--moved")
    deadline_s = time.monotonic() + 90
    while json.loads((data / "priv_validator_state.json").read_text())["height"] == signed["height"]:
        assert time.monotonic() < deadline_s
        time.sleep(0.02)
    code, said = validator.end(signal.SIGTERM)
    assert code == 0
    assert "It is alone" in said
    assert "made a new node key: peers reach this node as" in said
    assert not Memory(CometHome(validator.comet)).is_foreign

    (data / "priv_validator_state.json").unlink()
    assert "is missing" in holdfast.fails(4, "ledger", "start")


def test_a_moved_validator_with_others_is_held_to_what_its_operator_says(tmp_path: Path) -> None:
    home = CometHome(tmp_path / "cometbft")
    home.create()
    create_validator_key(home, seed("consensus-0"))
    home.watermark_file.unlink()
    home.validator_state_file.write_text('{"height": "7", "round": 0, "step": 3}')
    memory = Memory(home, moved=True)
    for validators, options in ((1, []), (2, ["--consensus.double_sign_check_height=20"])):
        assert moved_options(home, memory, Application(genesis(1_800_000_000, validators))) == options
