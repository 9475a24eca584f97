"""`holdfast pin`: fetching from a real gateway, jobs that are interrupted, paging, metadata, verification."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from merkledag.cid import CID
from storage_node.blockstore.store import open_store
from tests.cli.background import serving
from tests.cli.conftest import Holdfast
from tests.cli.processes import Process, environment, spawn
from tests.storage_node.dags import leaf, node, tree
from tests.storage_node.pin_servers import gateway

Tree = Callable[..., Path]
WAIT_S = 90


def until(said: Callable[[], Any]) -> Any:
    """What `said()` returns as soon as it is something."""
    began_s = time.monotonic()
    while not (found := said()):
        assert time.monotonic() - began_s < WAIT_S
        time.sleep(0.02)
    return found


@pytest.fixture
def other(tmp_path: Path) -> Iterator[tuple[str, str]]:
    """A `holdfast gateway` with another home, as a process: its URL and the root of what it has."""
    home = tmp_path / "other" / "home"
    folder = tmp_path / "content"
    folder.mkdir()
    for number in range(40):
        (folder / f"{number}").write_bytes(os.urandom(3000))
    (folder / "big").write_bytes(os.urandom(3_000_000))
    env = environment(home)
    adding = spawn(env, "add", "-Q", str(folder))
    root = adding.communicate(timeout=WAIT_S)[0].decode().strip()
    server = Process(env, "gateway", "--json")
    first = next(server.lines())
    yield first["gateway"], root
    server.end(signal.SIGTERM)


def test_what_is_missing_is_fetched_from_a_gateway(holdfast: Holdfast, other: tuple[str, str]) -> None:
    url, root = other
    assert "lacks 1 block" in holdfast.fails(3, "pin", "add", root)
    assert "lacks 1 block" in holdfast.fails(3, "pin", "add", "--no-fetch", "--from", url, root)
    done = holdfast(
        "pin", "add", "--from", url, "--name", "n", "--meta", "a=b=c", "--meta", "d=", root, "--json"
    )
    expected = {"cid": root, "mode": "recursive", "name": "n", "metadata": {"a": "b=c", "d": ""}}
    assert {**done.json, "created_s": 0} == {**expected, "created_s": 0}
    assert holdfast("pin", "ls", "--json").json == done.json
    assert holdfast("pin", "jobs").text == ""
    assert holdfast("pin", "verify", "--hash", "--json").json["ok"]
    entry = holdfast("dag", "resolve", f"{root}/7").text
    assert holdfast("pin", "ls", entry).text == f"{entry} indirect through {root}"
    assert "is not pinned as direct" in holdfast.fails(3, "pin", "ls", entry, "--type", "direct")
    assert root in holdfast.fails(4, "block", "rm", entry)
    assert len(holdfast("cat", f"{root}/big").stdout) == 3_000_000
    absent = str(leaf("nobody has it").cid)
    assert "nobody who was asked has" in holdfast.fails(3, "pin", "add", "--from", url, absent)
    assert holdfast("pin", "jobs").text == ""


def test_a_daemon_fetches_in_the_background(
    holdfast: Holdfast, tmp_path: Path, other: tuple[str, str]
) -> None:
    url, root = other
    absent = str(leaf("nobody has it").cid)
    queued = holdfast("pin", "add", "--background", "--from", url, root, absent, "--json")
    assert [(job["job"], job["state"]) for job in queued.json_lines] == [(1, "waiting"), (2, "waiting")]
    assert "no daemon runs" in queued.stderr
    server = Process(environment(holdfast.home), "gateway", "--json")
    assert next(server.lines())["gateway"]
    until(lambda: holdfast("pin", "ls").stdout)
    running = until(lambda: [j for j in holdfast("pin", "jobs", "--json").json_lines if j["waiting_for"]])
    assert [(job["job"], job["state"], job["waiting_for"]) for job in running] == [(2, "running", absent)]
    assert "works on job 2" in holdfast.fails(1, "pin", "jobs", "resume", 2)
    assert holdfast("pin", "jobs", "pause", 2, "--json").json["state"] == "paused"
    assert holdfast("pin", "jobs", "ls", 2).text.startswith(f"2 {absent} paused")
    assert (
        holdfast("pin", "jobs", "resume", 2, "--background", "--timeout", "1h", "--json").json["timeout_s"]
        == 3600
    )
    until(lambda: holdfast("pin", "jobs", "ls", 2, "--json").json["state"] == "running")
    assert holdfast("pin", "jobs", "cancel", 2, "--json").json == {"job": 2, "state": "cancelled"}
    assert holdfast("pin", "jobs", "--json").stdout == b""
    code, said = server.end(signal.SIGTERM)
    assert (code, "Traceback" in said) == (0, False)
    assert holdfast("pin", "verify").text == "every pin is whole"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_an_interrupted_job_goes_on_and_what_came_stays(holdfast: Holdfast, number: signal.Signals) -> None:
    dag = tree("dag", 8)
    root = str(dag[-1].cid)
    with serving(gateway(dag[5:])) as source:
        child = holdfast.process("pin", "add", "--from", source.url, "--timeout", "1h", "-n", "kept", root)
        until(lambda: source.asked[str(dag[0].cid)] > 1)
        until(
            lambda: [
                job for job in holdfast("pin", "jobs", "--json").json_lines if job["fetched_blocks"] == 68
            ]
        )
        child.send_signal(number)
        _, said = child.communicate(timeout=WAIT_S)
        if number == signal.SIGINT:
            assert child.returncode == 130
            assert b"holdfast pin jobs resume 1" in said
        (job,) = holdfast("pin", "jobs", "--json").json_lines
        assert job["state"] == {signal.SIGINT: "paused", signal.SIGKILL: "waiting"}[number]
        assert holdfast("repo", "gc", "--json").json["freed_blocks"] == 0
        asked = dict(source.asked)
        source.put(dag)
        again = ("jobs", "resume", 1) if number == signal.SIGINT else ("add", "--from", source.url, root)
        assert holdfast("pin", *again).text == f"pinned {root} recursive"
        assert all(source.asked[str(each.cid)] == asked[str(each.cid)] for each in dag[5:])
    assert holdfast("pin", "verify", "--verbose").text == f"{root} is whole\nevery pin is whole"
    assert holdfast("pin", "ls", "--json").json["name"] == "kept"
    assert holdfast("pin", "jobs").text == ""


def test_a_job_that_was_killed_with_everything_fetched_ends_with_the_pin(holdfast: Holdfast) -> None:
    dag = tree("dag")
    root = str(dag[-1].cid)
    holdfast("pin", "add", "--background", "--from", "http://127.0.0.1:9", root)
    store = open_store(holdfast.home / "blocks", reserve_bytes=0)
    store.put_many((each.cid.multihash, each.data) for each in dag)
    store.close()
    assert holdfast("pin", "add", root).text == f"pinned {root} recursive"
    assert holdfast("pin", "jobs").text == ""


def test_a_job_whose_server_dies_says_how_to_go_on(holdfast: Holdfast) -> None:
    dag = tree("dag")
    with serving(gateway(dag, dies_after=9)) as source:
        said = holdfast.fails(5, "pin", "add", "--from", source.url, "--timeout", "1s", dag[-1].cid)
        assert "9 blocks came and stay: `holdfast pin jobs resume 1` goes on" in said
        assert "failed" in holdfast("pin", "jobs").text
        source.dies_after = 0
        assert holdfast("pin", "jobs", "resume", 1, "--from", source.url).text.startswith("pinned")


def test_updating_fetches_the_difference_alone(holdfast: Holdfast) -> None:
    shared, new = tree("shared"), tree("new")
    before, after = node(shared[-1].cid), node(shared[-1].cid, new[-1].cid)
    with serving(gateway([*shared, before, *new, after])) as source:
        holdfast("pin", "add", "--from", source.url, before.cid, "--name", "site", "--meta", "k=v")
        source.asked.clear()
        done = holdfast("pin", "update", before.cid, after.cid, "--from", source.url, "--json").json
        assert source.asked == {str(each.cid): 1 for each in [*new, after]}
    assert (done["cid"], done["name"], done["metadata"]) == (str(after.cid), "site", {"k": "v"})
    assert holdfast("pin", "ls", "-q").text == str(after.cid)
    assert "not pinned recursively" in holdfast.fails(3, "pin", "update", before.cid, after.cid)


def test_many_pins_are_made_listed_in_pages_and_removed(holdfast: Holdfast) -> None:
    holdfast("repo", "stat")
    leaves = [leaf(str(number)) for number in range(300)]
    store = open_store(holdfast.home / "blocks", reserve_bytes=0)
    store.put_many((each.cid.multihash, each.data) for each in leaves)
    store.close()
    lines = "\n".join(str(each.cid) for each in leaves).encode() + b"\n\n"
    assert len(holdfast("pin", "add", "-", stdin=lines).text.splitlines()) == 300
    everything = holdfast("pin", "ls", "-q").text.split()
    assert sorted(everything) == sorted(str(each.cid) for each in leaves)
    page = holdfast("pin", "ls", "--limit", 120, "--json").json_lines
    assert [each["cid"] for each in page] == everything[:120]
    rest = holdfast("pin", "ls", "--after", page[-1]["cid"], "-q", "-s").text.split()
    assert rest == everything[120:]
    assert holdfast("pin", "ls", "-q", "--limit", 10**40).text.split() == everything
    assert holdfast("repo", "stat", "--json").json["pins"] == 300
    unknown = str(leaf("x").cid)
    assert "nothing was changed" in holdfast.fails(3, "pin", "rm", *everything[:9], unknown)
    assert "as a recursive pin" in holdfast.fails(3, "pin", "rm", "--direct", everything[0])
    assert len(holdfast("pin", "rm", "-", stdin=lines, code=0).text.splitlines()) == 300
    assert holdfast("pin", "ls").text == ""
    for wrong in (["--limit", "-1"], ["--limit", "1", "--type", "indirect"], ["--after", "x"]):
        holdfast.fails(2, "pin", "ls", *wrong)


def test_verifying_names_what_is_missing_and_what_is_damaged(holdfast: Holdfast, tree: Tree) -> None:
    whole = holdfast.add(tree({"f": b"whole"}, "whole"))
    broken = holdfast.add(tree({"f": b"broken", "g": b"lost"}, "broken"))
    damaged, lost = (CID.parse(holdfast("dag", "resolve", f"{broken}/{name}").text) for name in "fg")
    store = open_store(holdfast.home / "blocks", reserve_bytes=0)
    store.replace(damaged.multihash, b"brokeN")
    assert holdfast("pin", "verify", "--quiet").text == ""
    assert holdfast("pin", "verify", "--hash", "-q", code=4).text == broken
    store.delete_many([lost.multihash])
    store.close()
    found = {each["cid"]: each for each in holdfast("pin", "verify", "--hash", "--json", code=4).json_lines}
    assert found[whole] == {"cid": whole, "ok": True, "missing": [], "damaged": []}
    assert found[broken] == {"cid": broken, "ok": False, "missing": [str(lost)], "damaged": [str(damaged)]}
    said = holdfast("pin", "verify", "--hash", "--verbose", code=4).text
    assert f"{whole} is whole" in said
    assert "lacks 1 block" in said
    assert "1 damaged block" in said
    assert holdfast("pin", "verify", whole).text == "1 pin: whole"
    holdfast.fails(3, "pin", "verify", lost)


@pytest.mark.parametrize(
    "arguments",
    [
        ["add", "--from", "ftp://x", "CID"],
        ["add", "--from", "http://", "CID"],
        ["add", "--from", "http://x/?q", "CID"],
        ["add", "--timeout", "0.5s", "CID"],
        ["add", "--meta", "novalue", "CID"],
        ["add", "--meta", "a=1", "--meta", "a=2", "CID"],
        ["add", "not a path"],
        ["jobs", "stop"],
        ["jobs", "pause"],
        ["jobs", "pause", "one"],
        ["jobs", "ls", "--background"],
        ["ls", "--type", "odd"],
        ["verify", "-q", "--verbose"],
    ],
)
def test_what_does_not_fit_is_refused_before_anything_happens(
    holdfast: Holdfast, arguments: list[str]
) -> None:
    cid = str(leaf("x").cid)
    holdfast.fails(2, "pin", *(cid if each == "CID" else each for each in arguments))
    assert not holdfast.home.exists()


def test_jobs_that_do_not_exist_are_not_found(holdfast: Holdfast) -> None:
    assert holdfast("pin", "jobs").text == ""
    assert not holdfast.home.exists()
    for action in ("ls", "pause", "resume", "cancel"):
        assert "no pin job 3" in holdfast.fails(3, "pin", "jobs", action, 3)


def test_a_pin_of_what_is_here_imports_nothing_slow(holdfast: Holdfast, tree: Tree) -> None:
    root = holdfast.add(tree({"f": b"1"}))
    code = (
        "import sys, cli.main; [cli.main.run(['pin', *line.split()]) for line in sys.argv[1:]];"
        "sys.stderr.write(' '.join(sys.modules))"
    )
    lines = [f"add {root}", "ls", f"ls {root}", "verify", "jobs", f"rm {root}"]
    done = subprocess.run([sys.executable, "-c", code, *lines], capture_output=True, text=True, check=True)
    assert f"unpinned {root}" in done.stdout
    assert not {"aiohttp", "asyncio", "pydantic"} & set(done.stderr.split())
