"""`holdfast demo`, with all its processes: the whole story, and nothing left behind however it ends."""

from __future__ import annotations

import asyncio
import json
import os
import select
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cli.demo import Stage, run_demo
from cli.demo_story import Story
from tests.cli.processes import Process, accepts_connections, environment, is_running

pytestmark = pytest.mark.timeout(300)
STAGES = ["ledger", "quote", "proof", "fault"]


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A folder with small, empty and multi-block files."""
    folder = tmp_path / "site"
    (folder / "deep" / "er").mkdir(parents=True)
    (folder / "index.html").write_text("<h1>Hello</h1>")
    (folder / "empty").write_bytes(b"")
    (folder / "deep" / "name with ünicode.txt").write_text("text\n" * 1000)
    (folder / "deep" / "er" / "large.bin").write_bytes(os.urandom(5_000_000))
    return folder


@pytest.fixture
def start(tmp_path: Path, site: Path) -> Iterator[Callable[..., Process]]:
    """Starts demos whose temporary files are in tmp_path/tmp; a test that fails leaves none running."""
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    env = environment(tmp_path / "home", TMPDIR=str(temporary))
    started: list[Process] = []

    def started_demo(*options: str) -> Process:
        started.append(Process(env, "demo", str(site), "--json", *options))
        return started[-1]

    yield started_demo
    for demo in started:
        if demo.child.poll() is None:
            demo.end(signal.SIGTERM)


def servers(seen: list[dict[str, Any]]) -> tuple[list[int], list[str]]:
    """Process numbers and URLs of what the story says was started."""
    started = [line for line in seen if line["event"] in {"ledger", "node", "gateway"}]
    return [line["pid"] for line in started], [line["url"] for line in started]


def wait_for_end(pid: int, timeout_s: float = 30) -> bool:
    """Whether a process that is not our child ends in time."""
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([handle], [], [], timeout_s)[0])
    finally:
        os.close(handle)


def test_the_whole_story(tmp_path: Path, site: Path, start: Callable[..., Process]) -> None:
    demo = start("--once")
    seen = list(demo.lines())
    code, said = demo.end()
    assert code == 0, said
    events = [line["event"] for line in seen]
    steps = [line["step"] for line in seen if line["event"] == "step"]

    assert steps == ["start", "add", "quote", "store", "prove", "lose", "read", "balances", "done"]
    assert events.count("node") == 4
    assert events.count("accepted") == 3
    by_node = [line["node"] for line in seen if line["event"] == "proof" and line["step"] == "prove"]
    assert len(set(by_node)) == 3
    assert min(by_node.count(node) for node in set(by_node)) >= 4
    faults = [line for line in seen if line["event"] == "fault"]
    assert [line["in_a_row"] for line in faults] == [1, 2, 3]
    assert all(line["fee"] > 0 for line in faults)
    lost = faults[0]["node"]
    (terminated,) = [line for line in seen if line["event"] == "terminated"]
    assert terminated["node"] == lost
    (repaired,) = [line for line in seen if line["event"] == "repaired"]
    assert repaired["node"] not in {*by_node, lost}
    assert not [
        line
        for line in seen
        if line["event"] in {"proof", "paid"} and line["node"] == lost and line["step"] != "prove"
    ]
    (read,) = [line for line in seen if line["event"] == "read"]
    assert (read["files"], read["changed"]) == (4, 0)
    assert read["size_bytes"] == sum(f.stat().st_size for f in site.rglob("*") if f.is_file())
    (total,) = [line for line in seen if line["event"] == "sum"]
    parts = [line["units"] for line in seen if line["event"] == "total"]
    assert sum(parts) == total["issued"]
    pids, urls = servers(seen)
    assert not [line for line in seen[events.index("sum") :] if "http" in line["text"]], "a dead link"
    assert not [pid for pid in pids if is_running(pid)]
    assert not [url for url in urls if accepts_connections(url)]
    assert not list((tmp_path / "tmp").iterdir())


def check_homes(folder: Path, seen: list[dict[str, Any]]) -> None:
    """Whoever names the client's home or a node's acts as that, without naming the ledger."""
    (made,) = folder.iterdir()
    (deal,) = [line["deal"] for line in seen if line["event"] == "deal"]
    listed = Process(environment(made / "client"), "deal", "ls", "--json")
    assert [line["id"] for line in listed.lines()] == [deal]
    assert listed.end()[0] == 0
    status = Process(environment(made / "node1"), "node", "ask", "--json")
    assert len(list(status.lines())) == 1
    assert status.end()[0] == 0


@pytest.mark.parametrize("stage", STAGES)
def test_an_interrupted_demo_leaves_nothing(
    tmp_path: Path, start: Callable[..., Process], stage: str
) -> None:
    demo = start()
    seen = demo.until(stage)
    pids, urls = servers(seen)
    if stage == "proof":
        check_homes(tmp_path / "tmp", seen)
    code, said = demo.end(signal.SIGINT)
    assert code == 130, said
    assert "Traceback" not in said
    assert not [pid for pid in pids if is_running(pid)]
    assert not [url for url in urls if accepts_connections(url)]
    assert not list((tmp_path / "tmp").iterdir())


def test_whoever_does_not_wait_for_the_clean_end_leaves_nothing_either(
    tmp_path: Path, start: Callable[..., Process]
) -> None:
    demo = start()
    pids, _ = servers(demo.until("ledger"))
    os.kill(pids[0], signal.SIGSTOP)  # it takes no notice of being asked to end
    demo.child.send_signal(signal.SIGINT)
    while "stopping" not in demo.stderr():
        assert demo.child.poll() is None
    code, said = demo.end(signal.SIGINT)
    assert code == 130, said
    assert not [pid for pid in pids if is_running(pid)]
    assert not list((tmp_path / "tmp").iterdir())


def test_a_killed_demo_takes_its_servers_along(start: Callable[..., Process]) -> None:
    demo = start()
    pids, urls = servers(demo.until("accepted"))
    assert all(is_running(pid) for pid in pids)
    demo.end(signal.SIGKILL)
    assert all(wait_for_end(pid) for pid in pids)
    assert not [url for url in urls if accepts_connections(url)]


@pytest.mark.parametrize("once", [False, True])
async def test_its_homes_are_named_while_they_are_there(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path, once: bool
) -> None:
    stop = asyncio.Event()

    async def played(*_: object) -> str:
        stop.set()
        return "http://127.0.0.1/"

    monkeypatch.setattr("cli.demo._play", played)
    stage = Stage()
    await run_demo(tmp_path, 4, stop, Story(json_output=True), stage, once=once)
    seen = {line["event"]: line for line in map(json.loads, capsys.readouterr().out.splitlines())}
    assert ("homes" in seen) is not once
    if not once:
        assert f"HOLDFAST_HOME={stage.folder}/client holdfast deal ls" in seen["homes"]["text"]
        assert seen["homes"]["folder"] == str(stage.folder)


@pytest.mark.parametrize(
    ("arguments", "code"),
    [(["/no/such/path"], 3), (["--nodes", "3"], 2), (["--engine", "abacus"], 2), (["--nodes", "many"], 2)],
)
def test_bad_arguments_start_nothing(tmp_path: Path, arguments: list[str], code: int) -> None:
    demo = Process(environment(tmp_path / "home"), "demo", *arguments)
    assert list(demo.lines()) == []
    ended, said = demo.end()
    assert ended == code
    assert len(said.strip().splitlines()) == 1
