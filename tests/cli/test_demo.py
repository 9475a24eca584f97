"""`holdfast demo`, with all its processes: the whole story, and nothing left behind however it ends."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from cli.demo import Stage, run_demo
from cli.demo_story import Story
from tests.cli.processes import Process, accepts_connections, environment, is_running
from tests.storage_node.processes import wait_for_end

pytestmark = pytest.mark.timeout(300)
STAGES = ["ledger", "quote", "proof"]


@dataclass
class Demos:
    """Starts demos of one site, whose temporary files are in `temporary`."""

    site: Path
    temporary: Path
    started: list[Process] = field(default_factory=list)

    def __call__(self, *options: str) -> Process:
        env = environment(self.site.parent / "home", TMPDIR=str(self.temporary))
        self.started.append(Process(env, "demo", str(self.site), "--json", *options))
        return self.started[-1]

    def end(self) -> None:
        """A test that fails leaves none running."""
        for demo in self.started:
            if demo.child.poll() is None:
                demo.end(signal.SIGTERM)


def demos(folder: Path) -> Demos:
    """Of a site with small, empty and multi-block files."""
    made = Demos(folder / "site", folder / "tmp")
    made.temporary.mkdir()
    (made.site / "deep" / "er").mkdir(parents=True)
    (made.site / "index.html").write_text("<h1>Hello</h1>")
    (made.site / "empty").write_bytes(b"")
    (made.site / "deep" / "name with ünicode.txt").write_text("text\n" * 1000)
    (made.site / "deep" / "er" / "large.bin").write_bytes(os.urandom(5_000_000))
    return made


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Demos]:
    made = demos(tmp_path)
    yield made
    made.end()


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Demos]:
    """One whole demo, which waits for its clock most of the time: other tests run meanwhile."""
    made = demos(tmp_path_factory.mktemp("story"))
    made("--once")
    yield made
    made.end()


def servers(seen: list[dict[str, Any]]) -> tuple[list[int], list[str]]:
    """Process numbers and URLs of what the story says was started."""
    started = [line for line in seen if line["event"] in {"ledger", "node", "gateway"}]
    return [line["pid"] for line in started], [line["url"] for line in started]


def ends(pid: int) -> bool:
    """Whether a process that is not our child ends in time."""
    try:
        return wait_for_end(os.pidfd_open(pid))
    except ProcessLookupError:
        return True


@pytest.mark.usefixtures("story")
@pytest.mark.parametrize("stage", STAGES)
def test_an_interrupted_demo_leaves_nothing(start: Demos, stage: str) -> None:
    demo = start()
    seen = demo.until(stage)
    pids, urls = servers(seen)
    if stage == "proof":  # a node has died by then, as in the story's step "lose"
        os.kill(next(line["pid"] for line in seen if line["event"] == "node"), signal.SIGKILL)
    code, said = demo.end(signal.SIGINT)
    assert code == 130, said
    assert "Traceback" not in said
    assert not [pid for pid in pids if is_running(pid)]
    assert not [url for url in urls if accepts_connections(url)]
    assert not list(start.temporary.iterdir())


def test_whoever_does_not_wait_for_the_clean_end_leaves_nothing_either(start: Demos) -> None:
    demo = start()
    pids, _ = servers(demo.until("ledger"))
    os.kill(pids[0], signal.SIGSTOP)  # it takes no notice of being asked to end
    demo.child.send_signal(signal.SIGINT)
    while "stopping" not in demo.stderr():
        assert demo.child.poll() is None
    code, said = demo.end(signal.SIGINT)
    assert code == 130, said
    assert not [pid for pid in pids if is_running(pid)]
    assert not list(start.temporary.iterdir())


def test_a_killed_demo_takes_its_servers_along(start: Demos) -> None:
    demo = start()
    pids, urls = servers(demo.until("accepted"))
    assert all(is_running(pid) for pid in pids)
    demo.end(signal.SIGKILL)
    assert all(map(ends, pids))
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
    await run_demo(tmp_path, 4, stop, Story(json_output=True), stage, engine="embedded", once=once)
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


def test_the_whole_story(story: Demos) -> None:
    (demo,) = story.started
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
    assert read["size_bytes"] == sum(f.stat().st_size for f in story.site.rglob("*") if f.is_file())
    (total,) = [line for line in seen if line["event"] == "sum"]
    parts = [line["units"] for line in seen if line["event"] == "total"]
    assert sum(parts) == total["issued"]
    pids, urls = servers(seen)
    assert not [line for line in seen[events.index("sum") :] if "http" in line["text"]], "a dead link"
    assert not [pid for pid in pids if is_running(pid)]
    assert not [url for url in urls if accepts_connections(url)]
    assert not list(story.temporary.iterdir())


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
