"""`kill -9` while a machine stores for pay: what was acknowledged is there afterwards, and it goes on."""

from __future__ import annotations

import json
import random
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.red_team.support import Machine


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    made = Machine(tmp_path / "home")
    yield made
    made.kill()


def test_killed_at_any_moment_of_a_store_and_started_again(machine: Machine, tmp_path: Path) -> None:
    """Red team 21 and 30: killed when the files are in, when the quote is out, and when the deal is there."""
    kept: dict[str, bytes] = {}
    deals: list[str] = []
    heights = [0]
    for number, moment in enumerate(("added", "price", "deposit", "the end", "added")):
        machine.start()
        assert json.loads(machine.get("ledger", "/v1/status"))["height"] >= heights[-1]
        data = random.Random(number).randbytes(10 ** (number + 2))
        (tmp_path / "file").write_bytes(data)
        arguments = ("store", str(tmp_path / "file"), "--for", "3d", "--yes", "--json")
        store = machine.popen(*arguments, stderr=subprocess.PIPE)
        assert store.stderr is not None
        if moment == "the end":
            deals.append(json.loads(store.communicate(timeout=60)[0])["deal"])
        else:
            assert any(moment.encode() in line for line in store.stderr)
        heights.append(json.loads(machine.get("ledger", "/v1/status"))["height"])
        machine.kill()
        store.kill()
        store.communicate()
        cid = machine.run("add", "-Q", str(tmp_path / "file")).out.decode().strip()
        kept[cid] = data
        assert machine.run("cat", *kept).out == b"".join(kept.values())
    machine.start()
    money = json.loads(machine.get("ledger", "/v1/status"))
    assert money["height"] >= max(heights)
    assert sum(money[part] for part in ("balances", "escrow", "collateral", "burned")) == money["issued"]
    live = {json.loads(line)["id"] for line in machine.run("deal", "ls", "--json").out.splitlines()}
    assert set(deals) <= live
    last = machine.json("store", next(reversed(kept)), "--for", "3d", "--yes")  # nothing is wedged
    assert last["deal"]
    machine.run("repo", "gc")
    machine.run("repo", "verify")
    for each, expected in kept.items():
        assert machine.get("gateway", f"/ipfs/{each}") == expected
    assert machine.stop() == 0
