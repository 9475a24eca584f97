"""`repo backup` and `repo restore`: what a stranger sees, and what interruptions and damage do."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import stat
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cli.home import Home
from merkledag.cid import CID
from merkledag.codecs import RAW
from proofs.commitment import commit_block
from storage_node import piece_file
from storage_node.custody import Custody
from storage_node.duties import ShardKey
from storage_node.piece_file import PieceFile
from storage_node.pins import Pin, PinMode
from tests.cli.conftest import Holdfast
from tests.cli.processes import environment, on_terminal, spawn
from tests.storage_node.content import add_files, encode, some_bytes

Tree = Callable[..., Path]
DEAL = CID.of(b"deal")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where backups go."""
    return tmp_path / "backup"


@pytest.fixture
def on(holdfast: Holdfast, monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], Holdfast]:
    """The same commands on another home."""

    def use(home: Path) -> Holdfast:
        monkeypatch.setenv("HOLDFAST_HOME", str(home))
        return holdfast

    return use


def describe(holdfast: Holdfast) -> dict[str, str]:
    """All that a home has, as its commands tell it."""
    commands = ("pin ls --names", "key ls", "files ls -l /", "files stat /", "name ls --json", "config get")
    return {each: holdfast(*each.split()).text for each in commands}


def a_node_with_a_piece(home: Home) -> None:
    store = home.open_store()
    files = {"a": some_bytes(50_000), "b": some_bytes(9_000, 2)}
    made = encode(store, add_files(store, files), 2, 3)
    meta, data = made.trees(1)
    (home.meta / "pieces").mkdir()
    piece_file.save(home.meta / "pieces", PieceFile(DEAL, 1, made.content, made.root, meta, data))
    home.open_rows().ensure([row.multihash for row in data.rows], lambda _: None)


def test_a_restored_home_has_all_that_the_old_one_had(
    holdfast: Holdfast, tree: Tree, folder: Path, tmp_path: Path, on: Callable[[Path], Holdfast]
) -> None:
    holdfast("init")
    (tmp_path / "passphrase").write_text("open sesame\n")
    os.environ["HOLDFAST_PASSPHRASE_FILE"] = str(tmp_path / "passphrase")
    try:
        holdfast("key", "gen", "sealed")
    finally:
        del os.environ["HOLDFAST_PASSPHRASE_FILE"]
    content = tree({"big": os.urandom(3_000_000), "sub": {"f": b"1"}})
    root = holdfast.add(content, "--name", "mine")
    holdfast("files", "mkdir", "/here")
    holdfast("files", "cp", f"/ipfs/{root}/big", "/here/big")
    holdfast("name", "publish", f"/ipfs/{root}")
    holdfast("config", "set", "storage.max_bytes", "100MiB")
    with Home.locate() as home:
        a_node_with_a_piece(home)
    before = describe(holdfast)

    saved = holdfast("repo", "backup", folder, "--json").json
    restored = holdfast("repo", "restore", folder, tmp_path / "new", "--json").json

    last = holdfast("repo", "stat", "--json").json["last_backup"]
    assert (last["folder"], last["snapshot"]) == (str(folder), saved["snapshot"])
    assert saved["new_blocks"] == saved["blocks"] == restored["blocks"]
    assert sorted(saved["keys"]) == restored["keys"] == ["sealed", "self"]
    assert restored["pins"] == 1
    assert restored["problems"] == []
    on(tmp_path / "new")
    assert describe(holdfast) == before
    assert holdfast("repo", "verify", "--json").json["damaged"] == []
    holdfast("get", root, "-o", tmp_path / "out")
    assert (tmp_path / "out" / "big").read_bytes() == (content / "big").read_bytes()
    holdfast("repo", "gc")
    assert holdfast("pin", "verify").code == 0
    with Home.locate() as home:
        custody = Custody(home.meta / "pieces", home.open_store(), home.open_rows())
        custody.load()
        assert custody.damaged() == {}
        piece = custody.piece(ShardKey(DEAL, 1))
        assert piece is not None
        for row in piece.check().data.rows:  # what a proof is made of
            made = commit_block(home.open_store().get(row.multihash))
            assert (made.root, made.leaves) == (row.root, row.leaves)
            assert home.open_rows().find(row.multihash) == made


def test_only_the_owner_reads_a_backup_and_a_restored_home(
    holdfast: Holdfast, tree: Tree, folder: Path, tmp_path: Path
) -> None:
    mask = os.umask(0)
    try:
        holdfast("init")
        holdfast.add(tree({"f": os.urandom(10_000)}))
        said = holdfast("repo", "backup", folder).stderr
        holdfast("repo", "restore", folder, tmp_path / "new")
    finally:
        os.umask(mask)
    for path in [folder, *folder.rglob("*"), tmp_path / "new", *(tmp_path / "new" / "keys").rglob("*")]:
        mode = stat.S_IMODE(path.stat().st_mode)
        assert mode == (0o700 if path.is_dir() else 0o600), path
    assert "1 key without a passphrase (self)" in said


def test_without_keys_there_is_no_secret_in_it(
    holdfast: Holdfast, tree: Tree, folder: Path, tmp_path: Path
) -> None:
    holdfast("init")
    seed = json.loads((holdfast.home / "keys" / "self.key").read_bytes())["seed"].encode()
    root = holdfast.add(tree({"f": b"x"}))
    assert holdfast("repo", "backup", folder, "--no-keys", "--json").json["keys"] == []
    assert not any(seed in path.read_bytes() for path in folder.rglob("*") if path.is_file())
    said = holdfast("repo", "restore", folder, tmp_path / "new").stderr
    assert "no key is in it" in said
    assert not list((tmp_path / "new" / "keys").iterdir())
    holdfast("repo", "backup", folder)
    assert any(seed in path.read_bytes() for path in (folder / "keys").iterdir())
    holdfast("repo", "restore", folder, tmp_path / "other", "--no-keys")
    assert not list((tmp_path / "other" / "keys").iterdir())
    assert root


def test_snapshots_are_listed_chosen_and_thinned_out(
    holdfast: Holdfast, tree: Tree, folder: Path, tmp_path: Path, on: Callable[[Path], Holdfast]
) -> None:
    roots = []
    for number in range(3):
        roots.append(holdfast.add(tree({"f": os.urandom(500_000)}, f"tree {number}")))
        holdfast("repo", "backup", folder)
    listed = [line["snapshot"] for line in holdfast("repo", "backup", folder, "--list", "--json").json_lines]
    assert [
        line.split()[0] for line in holdfast("repo", "backup", folder, "--list").text.splitlines()
    ] == listed
    holdfast("repo", "restore", folder, tmp_path / "first", "--snapshot", listed[0])
    holdfast("pin", "rm", roots[0])
    holdfast("repo", "gc")
    pruned = holdfast("repo", "backup", folder, "--keep", "1", "--json").json["pruned"]
    assert pruned["snapshots"] == listed
    assert pruned["freed_bytes"] > 500_000
    assert holdfast("repo", "backup", folder, "--prune", "--json").json["freed_bytes"] == 0
    assert holdfast("repo", "backup", folder, "--verify", "--json").json["problems"] == []
    holdfast("repo", "restore", folder, tmp_path / "last")
    assert roots[0] in on(tmp_path / "first")("pin", "ls").text
    assert roots[0] not in on(tmp_path / "last")("pin", "ls").text
    assert holdfast("pin", "verify").code == 0


def test_damage_is_exit_4_names_the_file_and_spares_the_rest(
    holdfast: Holdfast, tree: Tree, folder: Path, tmp_path: Path, on: Callable[[Path], Holdfast]
) -> None:
    good = holdfast.add(tree({"f": os.urandom(300_000)}, "good"), "--chunker", "size-65536")
    holdfast("repo", "backup", folder)
    before = {*folder.glob("packs/*.car")}
    bad = holdfast.add(tree({"f": os.urandom(300_000)}, "bad"), "--chunker", "size-65536")
    holdfast("repo", "backup", folder)
    (pack,) = {*folder.glob("packs/*.car")} - before
    data = bytearray(pack.read_bytes())
    data[len(data) // 2] ^= 0x10
    pack.write_bytes(data)

    said = holdfast("repo", "backup", folder, "--verify", code=4)
    assert str(pack) in said.stderr
    assert "1 whole snapshot, 1 damaged" in said.text
    line = holdfast.fails(4, "repo", "restore", folder, tmp_path / "new")
    assert str(pack) in line
    assert "--partial" in line
    partial = holdfast("repo", "restore", folder, tmp_path / "new", "--partial", "--json").json
    assert partial["lost_blocks"] == 1
    assert str(pack) in partial["problems"][0]
    on(tmp_path / "new")
    assert len(holdfast("cat", f"{good}/f").stdout) == 300_000
    assert holdfast("cat", f"{bad}/f", code=None).code != 0

    on(holdfast.home)
    pack.unlink()  # as it was told to
    assert str(pack) in holdfast("repo", "backup", folder).stderr
    newest = holdfast("repo", "backup", folder, "--list").text.splitlines()[-1].split()[0]
    assert (
        holdfast("repo", "backup", folder, "--verify", "--snapshot", newest, "--json").json["problems"] == []
    )
    for number, name in enumerate(holdfast("repo", "backup", folder, "--list").text.splitlines()):
        holdfast("repo", "restore", folder, tmp_path / f"again {number}", "--snapshot", name.split()[0])


def test_a_damaged_snapshot_is_named_and_another_one_can_be_taken(
    holdfast: Holdfast, tree: Tree, folder: Path, tmp_path: Path
) -> None:
    holdfast.add(tree({"f": b"x"}))
    first = holdfast("repo", "backup", folder, "--json").json["snapshot"]
    second = holdfast("repo", "backup", folder, "--json").json["snapshot"]
    (folder / "snapshots" / f"{second}.json").write_bytes(b'{"format": "holdfast-snapshot"}')
    assert second in holdfast.fails(4, "repo", "restore", folder, tmp_path / "new")
    assert not (tmp_path / "new").exists()
    assert second in holdfast("repo", "backup", folder, "--list", code=4).stderr
    assert second in holdfast.fails(4, "repo", "backup", folder, "--prune", "--keep", "1")
    holdfast("repo", "restore", folder, tmp_path / "new", "--snapshot", first)
    holdfast("repo", "backup", folder)  # the next one does not mind


def pin_many(count: int) -> None:
    with Home.locate() as home, home.open_pins().write() as write:
        for number in range(count):
            write.put(Pin(CID.of(b"%d" % number, RAW), PinMode.DIRECT, "a name"))


def test_pins_that_are_left_of_damaged_records_are_counted_anew(
    holdfast: Holdfast, folder: Path, tmp_path: Path, on: Callable[[Path], Holdfast]
) -> None:
    holdfast("init")
    pin_many(12_000)
    holdfast("repo", "backup", folder)
    parts = sorted((folder / "parts").iterdir(), key=lambda path: path.stat().st_size)
    assert len(parts) > 2
    parts[-1].write_bytes(b"rotten")
    assert str(parts[-1]) in holdfast.fails(4, "repo", "restore", folder, tmp_path / "new")
    said = holdfast("repo", "restore", folder, tmp_path / "new", "--partial", "--json")
    assert "are lost: pin what you need before you collect" in said.stderr
    left = len(on(tmp_path / "new")("pin", "ls", "-q").text.splitlines())
    assert 0 < left < 12_000
    assert said.json["pins"] == left == holdfast("repo", "stat", "--json").json["pins"]


def test_what_lives_somewhere_is_not_written_over(
    holdfast: Holdfast, tree: Tree, folder: Path, tmp_path: Path
) -> None:
    assert "no home" in holdfast.fails(3, "repo", "backup", folder)
    assert not folder.exists()
    holdfast.add(tree({"f": b"x"}))
    assert "photo" in holdfast.fails(4, "repo", "backup", tree({"photo": b"x"}, "photos"))
    assert "keys/mine" in holdfast.fails(4, "repo", "backup", tree({"keys": {"mine": b"x"}}, "secrets"))
    assert "inside the home" in holdfast.fails(2, "repo", "backup", holdfast.home / "backup")
    assert "no such folder" in holdfast.fails(3, "repo", "backup", tmp_path / "not mounted" / "backup")
    assert "is no folder of backups" in holdfast.fails(
        3, "repo", "restore", tmp_path / "tree", tmp_path / "new"
    )
    holdfast("repo", "backup", folder)
    assert "is not empty" in holdfast.fails(4, "repo", "restore", folder)
    assert "is not empty" in holdfast.fails(4, "repo", "restore", folder, tmp_path / "photos")
    assert "is not a folder" in holdfast.fails(4, "repo", "restore", folder, tmp_path / "tree" / "f")
    assert "no snapshot" in holdfast.fails(
        3, "repo", "restore", folder, tmp_path / "new", "--snapshot", "1999"
    )
    for options in (["--verify", "--list"], ["--keep", "0"], ["--snapshot", "x"], ["--list", "--no-keys"]):
        holdfast.fails(2, "repo", "backup", folder, *options)
    assert holdfast("cat", f"{holdfast.add(tmp_path / 'tree')}/f").stdout == b"x"


def test_a_backup_while_others_add_and_collect_holds_every_pin_whole(
    holdfast: Holdfast, tree: Tree, folder: Path, tmp_path: Path, on: Callable[[Path], Holdfast]
) -> None:
    holdfast.add(tree({f"f{n}": os.urandom(200_000) for n in range(30)}, "first"))
    env = environment(holdfast.home)
    stop = threading.Event()
    failures: list[str] = []

    def work(*command: str) -> None:
        chance = random.Random(str(command))
        while not stop.is_set():
            if command[0] == "add":
                (tmp_path / "new content").write_bytes(chance.randbytes(400_000))
            done = spawn(env, *command)
            done.communicate()
            if done.returncode not in (0, 1):  # 1: the backup has the lock
                failures.append(f"{command}: {done.returncode}")

    threads = [
        threading.Thread(target=work, args=command)
        for command in (("add", "-Q", str(tmp_path / "new content")), ("repo", "gc"))
    ]
    (tmp_path / "new content").write_bytes(b"begin")
    for thread in threads:
        thread.start()
    try:
        for _ in range(3):
            holdfast("repo", "backup", folder)
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert failures == []
    assert holdfast("repo", "backup", folder, "--verify", "--json").json["problems"] == []
    for number, line in enumerate(holdfast("repo", "backup", folder, "--list").text.splitlines()):
        home = tmp_path / f"restored {number}"
        holdfast("repo", "restore", folder, home, "--snapshot", line.split()[0])
        assert on(home)("pin", "verify").code == 0


def run_limited(holdfast: Holdfast, size_bytes: int, *arguments: object) -> tuple[int, str]:
    """A command line that may write files of at most so many bytes."""
    import resource

    child = holdfast.process(
        *arguments,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, resource.RLIM_INFINITY)),
    )
    _, said = child.communicate(timeout=60)
    return child.returncode, said.decode()


def test_a_full_disk_is_exit_6_and_the_same_command_goes_on(
    holdfast: Holdfast, tree: Tree, folder: Path, tmp_path: Path, on: Callable[[Path], Holdfast]
) -> None:
    root = holdfast.add(tree({"f": os.urandom(5_000_000)}))
    code, said = run_limited(holdfast, 1_000_000, "repo", "backup", folder)
    assert code == 6
    assert f"{folder}/packs: no room on the disk" in said
    assert not list(folder.rglob("*.part"))
    holdfast.fails(3, "repo", "restore", folder, tmp_path / "new")  # there is no snapshot yet
    holdfast("repo", "backup", folder)
    code, said = run_limited(holdfast, 1_000_000, "repo", "restore", folder, tmp_path / "new")
    assert code == 6, said
    said = holdfast("repo", "restore", folder, tmp_path / "new").stderr
    assert "going on" in said
    assert len(on(tmp_path / "new")("cat", f"{root}/f").stdout) == 5_000_000


def test_a_restore_that_is_killed_anywhere_goes_on_and_is_no_home_before(
    holdfast: Holdfast, tree: Tree, folder: Path, tmp_path: Path, on: Callable[[Path], Holdfast]
) -> None:
    root = holdfast.add(tree({"f": os.urandom(20_000_000)}))
    holdfast("repo", "backup", folder)
    new = tmp_path / "new"
    kills = 0
    for delay_s in (0.12, 0.2, 0.28):
        child = holdfast.process("repo", "restore", folder, new)
        try:
            child.wait(delay_s)
        except subprocess.TimeoutExpired:
            child.send_signal(signal.SIGKILL)
            kills += 1
        child.communicate()
        if (new / "blocks" / "format.json").exists() and not (new / "meta" / "format.json").exists():
            assert "was interrupted" in on(new).fails(4, "repo", "gc")
            on(holdfast.home)
    if (new / "restore.json").exists() or not (new / "meta" / "format.json").exists():
        holdfast("repo", "restore", folder, new)
    assert kills
    on(new)
    assert len(holdfast("cat", f"{root}/f").stdout) == 20_000_000
    assert holdfast("pin", "verify").code == 0
    assert holdfast("repo", "verify", "--json").json["damaged"] == []
    assert not (new / "restore.json").exists()


def test_a_home_that_was_used_before_it_was_restored_is_not_taken_for_whole(
    holdfast: Holdfast, tree: Tree, folder: Path, tmp_path: Path, on: Callable[[Path], Holdfast]
) -> None:
    holdfast.add(tree({"f": b"x"}))
    name = holdfast("repo", "backup", folder, "--json").json["snapshot"]
    new = tmp_path / "new"
    new.mkdir()
    (new / "restore.json").write_text(json.dumps({"snapshot": name}))  # killed just then
    on(new).add(tree({"g": b"y"}, "other"))
    assert "was used before" in on(holdfast.home).fails(4, "repo", "restore", folder, new)
    other = holdfast("repo", "backup", folder, "--json").json["snapshot"]
    assert name in holdfast.fails(4, "repo", "restore", folder, new, "--snapshot", other)


def test_two_backups_at_once_do_not_mix(holdfast: Holdfast, tree: Tree, folder: Path) -> None:
    holdfast.add(tree({"f": os.urandom(10_000_000)}))
    children = [holdfast.process("repo", "backup", folder) for _ in range(3)]
    codes = []
    for child in children:
        _, said = child.communicate(timeout=60)
        codes.append(child.returncode)
        assert child.returncode == 0 or b"another backup, restore or verification" in said, said
    assert 0 in codes
    assert set(codes) <= {0, 1}
    assert holdfast("repo", "backup", folder, "--verify", "--json").json["problems"] == []


def test_on_a_terminal_it_shows_progress_and_can_be_interrupted(
    holdfast: Holdfast, folder: Path, tmp_path: Path, on: Callable[[Path], Holdfast]
) -> None:
    with Home.locate() as home:
        home.ensure()
        store = home.open_store()
        from merkledag import multihash

        blocks = (os.urandom(1 << 20) for _ in range(256))
        store.put_many((multihash.digest(data), data) for data in blocks)
    env: dict[str, Any] = environment(holdfast.home)
    code, seen = on_terminal(env, "repo", "backup", str(folder), interrupt_at=b" of 256.0 MiB (")
    assert code == 130, seen
    assert re.search(rb"saved [0-9.]+ of 256.0 MiB \([0-9]+ %\), [0-9.]+ [MG]iB/s", seen)
    assert b"the same command goes on from there" in seen
    code, seen = on_terminal(env, "repo", "backup", str(folder))
    assert code == 0, seen
    assert re.search(rb"saved [0-9TZa-f-]+: 256 blocks", seen)
    new = str(tmp_path / "new")
    code, seen = on_terminal(env, "repo", "restore", str(folder), new, interrupt_at=b" of 256.0 MiB (")
    assert code == 130, seen
    code, seen = on_terminal(env, "repo", "restore", str(folder), new)
    assert code == 0, seen
    assert b"going on with the restore" in seen
    assert on(tmp_path / "new")("repo", "stat", "--json").json["blocks"] == 256


def test_places_that_lead_in_a_circle_are_refused(holdfast: Holdfast, tmp_path: Path) -> None:
    holdfast("init")
    (tmp_path / "circle").symlink_to(tmp_path / "circle")
    assert "not a folder" in holdfast.fails(4, "repo", "backup", tmp_path / "circle")
    holdfast("repo", "backup", tmp_path / "backup")
    assert "not a folder" in holdfast.fails(4, "repo", "restore", tmp_path / "backup", tmp_path / "circle")
