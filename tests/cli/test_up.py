"""`holdfast up` and the commands that speak to it: store for pay, look, kill, come back."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import Holdfast
from tests.cli.processes import Process, environment

pytestmark = pytest.mark.timeout(300)


class Machine:
    """One home, commands on it in this process, and `up` in its own when it runs."""

    def __init__(self, commands: Holdfast) -> None:
        self.home = commands.home
        self.env = environment(self.home)
        self.up: Process | None = None
        self.urls: dict[str, str] = {}
        self._commands = commands

    def start(self) -> None:
        self.up = Process(self.env, "up", "--json")
        first = next(self.up.lines(), None)
        assert first is not None, self.up.stderr()
        self.urls = first

    def run(self, *arguments: str, code: int = 0) -> str:
        if code:
            return self._commands.fails(code, *arguments)
        return self._commands(*arguments).text

    def json(self, *arguments: str) -> Any:
        return self._commands(*arguments, "--json").json

    def fetch(self, path: str) -> bytes:
        with urllib.request.urlopen(self.urls["gateway"] + path, timeout=30) as answer:
            return bytes(answer.read())


@pytest.fixture
def machine(holdfast: Holdfast) -> Iterator[Machine]:
    found = Machine(holdfast)
    yield found
    if found.up is not None and found.up.child.poll() is None:
        found.up.end(signal.SIGKILL)


def refused(env: dict[str, str], *arguments: str) -> str:
    """What a server says that exits with 1 instead of starting."""
    done = subprocess.run(
        [sys.executable, "-P", "-m", "cli.main", *arguments],
        env=env, capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL, check=False,
    )  # fmt: skip
    assert done.returncode == 1, (arguments, done.returncode, done.stderr)
    assert "Traceback" not in done.stderr
    return done.stderr


def test_everything_on_one_machine_survives_a_kill(machine: Machine, tmp_path: Path) -> None:
    site = tmp_path / "site"
    site.mkdir()
    (site / "index.html").write_text("<h1>Hello</h1>")
    (site / "data.bin").write_bytes(bytes(range(256)) * 6000)
    machine.start()
    cid = machine.run("add", str(site), "-Q")

    stored = machine.json("store", cid, "--for", "30d", "--yes")
    (deal,) = [json.loads(line) for line in machine.run("deal", "ls", "--json").splitlines()]
    before = machine.json("ledger", "status")
    balance = machine.json("wallet", "balance")["balance"]
    assert machine.fetch(f"/ipfs/{cid}/") == b"<h1>Hello</h1>"
    assert stored["deal"] == deal["id"]
    assert {shard["status"] for shard in deal["shards"]} <= {"accepted", "active"}
    assert len(machine.json("node", "status")["shards"]) == 1
    assert machine.run("healthcheck").splitlines() == ["gateway ok", "node ok", "ledger ok"]
    parts = [before[part] for part in ("balances", "escrow", "collateral", "burned")]
    assert sum(parts) == before["issued"]

    assert machine.up is not None
    machine.up.end(signal.SIGKILL)
    machine.run("ledger", "status", code=5)
    assert machine.run("cat", f"{cid}/index.html") == "<h1>Hello</h1>"  # content needs no daemon
    machine.start()

    after = machine.json("ledger", "status")
    assert after["chain_id"] == before["chain_id"]
    assert after["height"] >= before["height"]
    assert machine.json("wallet", "balance")["balance"] <= balance
    assert machine.json("deal", "show", deal["id"])["deal"]["content"] == cid
    assert len(machine.json("node", "status")["shards"]) == 1
    assert machine.fetch(f"/ipfs/{cid}/data.bin") == (site / "data.bin").read_bytes()
    assert machine.json("store", cid, "--for", "30d", "--yes")["existing"]
    block = machine.json("ledger", "block", str(before["height"]))
    assert block["block"]["height"] == before["height"]
    assert machine.json("ledger", "tx", deal["id"])["tx"]["body"]["kind"] == "create_deal"
    code, said = machine.up.end(signal.SIGTERM)
    assert code == 0, said
    assert not list((machine.home / "run").glob("*.json"))


def test_what_the_ledger_refuses_is_one_line(machine: Machine, tmp_path: Path) -> None:
    machine.start()
    (tmp_path / "file").write_bytes(b"x" * 5000)
    cid = machine.run("add", str(tmp_path / "file"), "-Q")
    machine.run("wallet", "new", "poor")
    poor = machine.json("key", "show", "poor")["public"]

    assert "needs" in machine.run("store", cid, "--key", "poor", "--yes", code=7)
    assert "--yes" in machine.run("store", cid, code=2)
    machine.run("wallet", "send", poor, "2.5", "--yes")
    assert machine.json("wallet", "balance", poor)["balance"] == 2_500_000_000
    for arguments, code in [
        (("store", "bafkreigh2akiscaildcqabsyg3dfr6chu3fgpregiymsck7e7aqa4s52zy", "--yes"), 3),
        (("store", cid, "--for", "soon", "--yes"), 2),
        (("store", cid, "--code", "6/4", "--yes"), 2),
        (("store", cid, "--code", "2/3", "--yes"), 1),
        (("wallet", "send", poor, "much", "--yes"), 2),
        (("wallet", "send", "nobody", "1", "--yes"), 2),
        (("wallet", "send", poor, "999999999", "--yes"), 7),
        (("deal", "show", cid), 3),
        (("ledger", "block", "999999"), 3),
        (("ledger", "block", "-1"), 2),
        (("ledger", "tx", cid), 3),
        (("ledger", "status", "--ledger", "http://127.0.0.1:1"), 5),
    ]:
        machine.run(*arguments, code=code)

    busy = machine.urls["gateway"].removeprefix("http://")
    assert "in use" in refused(environment(tmp_path / "other"), "gateway", "--listen", busy)
    assert "holdfast" in refused(machine.env, "up")  # this home's ledger is running already
    assert "runs already" in refused(machine.env, "node", "run")
    assert "runs already" in refused(machine.env, "gateway")
    assert machine.run("healthcheck").splitlines() == ["gateway ok", "node ok", "ledger ok"]


def test_without_a_server_commands_name_the_way_out(machine: Machine) -> None:
    machine.run("init")
    for arguments in [("wallet", "balance"), ("ledger", "status"), ("deal", "ls"), ("node", "status")]:
        assert "holdfast up" in machine.run(*arguments, code=5)
    assert "holdfast up" in machine.run("healthcheck", code=5)
    assert "ledger init" in machine.run("ledger", "start", code=3)
