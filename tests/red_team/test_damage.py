"""Damaged homes: whatever is cut, flipped or missing, commands end with one line and the contract's code."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.red_team.support import Machine

INVALID, NO_SPACE = 4, 6
Damage = Callable[[Path], None]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Machine:
    """A stopped machine with a pin, a ledger and a piece; `urls` has the content's CID."""
    folder: Path = tmp_path_factory.mktemp("damage")
    made = Machine(folder / "home")
    (folder / "file").write_bytes(random.Random(1).randbytes(30_000))
    made.start()
    stored = made.json("store", str(folder / "file"), "--for", "3d", "--yes")
    assert made.stop() == 0
    made.urls = {"content": stored["content"]}
    return made


@pytest.fixture
def machine(whole: Machine, tmp_path: Path) -> Machine:
    copy = whole.copy(tmp_path / "home")
    copy.urls = dict(whole.urls)
    return copy


def cut(pattern: str, length: int) -> Damage:
    def damage(home: Path) -> None:
        found = list(home.glob(pattern))
        assert found, pattern
        for path in found:
            with path.open("r+b") as file:
                file.truncate(length)

    return damage


def overwrite(pattern: str, at: int, length: int = 4096) -> Damage:
    def damage(home: Path) -> None:
        found = list(home.glob(pattern))
        assert found, pattern
        for path in found:
            with path.open("r+b") as file:
                file.seek(at)
                file.write(random.Random(2).randbytes(length))

    return damage


@pytest.mark.parametrize(
    ("damage", "command"),
    [
        (cut("blocks/shard-*.mdb", 5_000), ("cat", "CID")),
        (cut("blocks/shard-*.mdb", 0), ("repo", "stat")),
        (overwrite("blocks/shard-*.mdb", 0), ("up",)),
        (cut("meta/meta-*.mdb", 5_000), ("pin", "ls")),
        (overwrite("meta/meta-*.mdb", 8_192, 24_576), ("repo", "gc")),
        (cut("ledger/db/data.mdb", 5_000), ("ledger", "start")),
        (overwrite("ledger/db/data.mdb", 8_192, 32_768), ("up",)),
        (overwrite("ledger/wal/*.wal", 40, 64), ("ledger", "start")),
        (cut("ledger/genesis.json", 10), ("up",)),
        (overwrite("ledger/genesis.json", 0), ("up",)),
        (cut("keys/self.key", 3), ("up",)),
        (cut("keys/beacon.key", 0), ("up",)),
        (overwrite("keys/operator.key", 0), ("ledger", "start")),
        (cut("meta/pieces/*.piece", 50), ("repo", "gc")),
        (overwrite("meta/pieces/*.piece", 0, 64), ("repo", "gc")),
    ],
)
def test_damage_is_named_and_nothing_is_made_up(
    machine: Machine, damage: Damage, command: tuple[str, ...]
) -> None:
    """Red team 30: truncated and overwritten files of every kind: exit 4, one line says so."""
    damage(machine.home)
    done = machine.run(
        *(machine.urls["content"] if word == "CID" else word for word in command), code=INVALID
    )
    assert not done.out
    assert done.line


def test_a_flipped_block_is_found_and_can_be_replaced(machine: Machine, whole: Machine) -> None:
    """Red team 30: `repo verify` finds the block, `--drop` deletes it, adding the file again heals."""
    data = (whole.home.parent / "file").read_bytes()
    for path in machine.home.glob("blocks/shard-*.mdb"):
        at = path.read_bytes().find(data[1_000:1_100])
        if at >= 0:
            with path.open("r+b") as file:
                file.seek(at)
                file.write(bytes(8))
    assert "damaged" in machine.run("repo", "verify", code=INVALID).err
    machine.run("repo", "verify", "--drop", code=None)
    machine.run("cat", machine.urls["content"], code=3)
    again = machine.run("add", "-Q", "--", str(whole.home.parent / "file")).out.decode().strip()
    assert again == machine.urls["content"]
    machine.run("repo", "verify")
    assert machine.run("cat", again).out == data


@pytest.mark.parametrize(
    ("text", "said"),
    [("gateway.listen = [", "TOML"), ("nosuch = 1", "nosuch"), ("[gateway]\nlisten = 5\n", "listen")],
)
def test_a_configuration_that_makes_no_sense(machine: Machine, text: str, said: str) -> None:
    """Red team 30: the file and the setting are named."""
    (machine.home / "config.toml").write_text(text)
    assert said in machine.run("gateway", code=INVALID).line


def test_without_a_piece_file_the_node_makes_it_anew(machine: Machine) -> None:
    """Red team 30: a node whose piece files are damaged starts, and still counts the shard as its own."""
    (piece,) = machine.home.glob("meta/pieces/*.piece")
    whole = piece.read_bytes()
    cut("meta/pieces/*.piece", 50)(machine.home)
    content = machine.urls["content"]
    machine.start()
    try:
        found = machine.json("node", "status")
        assert found["damaged_piece_files"] or piece.read_bytes() == whole
        assert machine.get("gateway", f"/ipfs/{content}")
    finally:
        machine.kill()


def test_two_machines_on_one_home(machine: Machine) -> None:
    """Red team 30: the second `up` is refused and the first does not notice."""
    machine.start()
    try:
        assert "in use" in machine.run("up", code=1).line
        assert machine.run("repo", "gc", "--json").out
        assert machine.json("node", "status")["shards"]
        assert machine.stop() == 0
    finally:
        machine.kill()
