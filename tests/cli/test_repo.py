"""`holdfast repo`: what is in the store, and whether it is as it must be."""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from cli.home import Home
from merkledag.cid import CID
from storage_node.blockstore.interface import BlockClass
from storage_node.blockstore.tables import Counters, data_key
from storage_node.scrub import Rounds
from tests.cli.conftest import Holdfast

Tree = Callable[..., Path]
PATIENCE_S = 90.0
LOOK_S = 0.02


def spoil(holdfast: Holdfast, *cids: str) -> None:
    """What a disk does to blocks."""
    with Home(holdfast.home) as home:
        for cid in cids:
            multihash = CID.parse(cid).multihash
            home.open_store().replace(multihash, bytes(home.open_store().size(multihash) or 0))


def test_stat_tells_classes_room_and_marks(holdfast: Holdfast, tree: Tree) -> None:
    holdfast.add(tree({"f": b"123"}))
    with Home(holdfast.home) as home:
        cached, held = b"cached", b"held for others"
        home.open_store().put_many([(CID.of(cached).multihash, cached)], BlockClass.CACHE)
        home.open_store().put_many([(CID.of(held).multihash, held)], BlockClass.DEAL)
    holdfast("config", "set", "storage.max_bytes", "1K")
    shown = holdfast("repo", "stat", "--json").json
    assert (shown["blocks"], shown["own_blocks"], shown["deal_blocks"], shown["cache_blocks"]) == (4, 2, 1, 1)
    assert (shown["deal_bytes"], shown["cache_bytes"]) == (len(held), len(cached))
    assert shown["own_bytes"] + len(held) + len(cached) == shown["block_bytes"]
    assert (shown["room_bytes"], shown["max_bytes"]) == (1024, 1024)
    assert shown["used_percent"] == round(100 * shown["block_bytes"] / 1024, 1)
    assert (shown["pins"], shown["pin_jobs"], shown["damaged"], shown["problems"]) == (1, 0, 0, {})
    assert shown["last_gc"] is None
    holdfast("repo", "gc")
    assert holdfast("repo", "stat", "--json").json["last_gc"]["kept_blocks"] == 2
    assert re.search(r"^last_gc: \d+ s ago", holdfast("repo", "stat").text, re.MULTILINE)
    assert set(holdfast("repo", "stat", "-s", "--json").json) == {"block_bytes", "file_bytes", "max_bytes"}
    assert "max_bytes: 1024 (1.0 KiB)" in holdfast("repo", "stat", "-s").text.splitlines()
    assert "max_bytes: 1.0 KiB" in holdfast("repo", "stat", "-s", "--human").text.splitlines()


def test_every_block_is_listed(holdfast: Holdfast) -> None:
    assert holdfast("repo", "ls").text == ""
    cid = holdfast("block", "put", "-", stdin=b"block").text
    cached = b"cached"
    with Home(holdfast.home) as home:
        home.open_store().put_many([(CID.of(cached).multihash, cached)], BlockClass.CACHE)
    assert sorted(holdfast("repo", "ls").text.splitlines()) == sorted([cid, str(CID.of(cached))])
    listed = {each["cid"]: each for each in holdfast("repo", "ls", "--json").json_lines}
    assert listed[cid] == {"cid": cid, "size_bytes": 5, "class": "own"}
    assert listed[str(CID.of(cached))] == {"cid": str(CID.of(cached)), "size_bytes": 6, "class": "cache"}


def test_what_is_damaged_is_named_counted_and_dropped(holdfast: Holdfast, tree: Tree) -> None:
    root = holdfast.add(tree({"f": b"one", "g": b"two"}))
    leaf = holdfast("dag", "resolve", f"{root}/f").text
    spoil(holdfast, leaf)
    result = holdfast("repo", "verify", code=4)
    assert "1 damaged" in result.text
    assert f"damaged: {leaf}" in result.stderr
    assert holdfast("repo", "stat", "--json").json["damaged"] == 1
    dropped = holdfast("repo", "verify", "--drop", "--json").json
    assert (dropped["found"], dropped["dropped"], dropped["damaged"]) == (1, 1, [])
    assert holdfast("repo", "stat", "--json").json["damaged"] == 0
    holdfast.fails(3, "block", "get", leaf)
    holdfast("block", "put", "-", stdin=b"one")
    assert holdfast("repo", "verify", "--json").json["found"] == 0


def test_while_damage_is_known_nothing_damaged_is_handed_out(
    holdfast: Holdfast, tree: Tree, tmp_path: Path
) -> None:
    root = holdfast.add(tree({"f": b"one", "g": b"two"}))
    leaf = holdfast("dag", "resolve", f"{root}/f").text
    spoil(holdfast, leaf)
    holdfast("repo", "verify", code=4)
    for command in (
        ("cat", f"{root}/f"),
        ("get", root, "-o", tmp_path / "out"),
        ("car", "export", root, "-o", tmp_path / "out.car"),
        ("block", "get", leaf),
    ):
        assert leaf in holdfast.fails(4, *command), command
    assert holdfast("cat", f"{root}/g").stdout == b"two"
    holdfast("repo", "verify", "--drop")
    holdfast("block", "put", "-", stdin=b"one")
    assert holdfast("cat", f"{root}/f").stdout == b"one"


def test_damaged_blocks_are_healed_from_a_backup(holdfast: Holdfast, tree: Tree, tmp_path: Path) -> None:
    root = holdfast.add(tree({"f": b"one", "g": b"two"}))
    leaves = [holdfast("dag", "resolve", f"{root}/{name}").text for name in "fg"]
    assert "format.json is not there" in holdfast.fails(3, "repo", "verify", "--from", tmp_path)
    holdfast("repo", "backup", tmp_path / "backup")
    later = holdfast("block", "put", "-", stdin=b"after the backup").text
    for each in (*leaves, later):
        spoil(holdfast, each)
    (pack,) = (tmp_path / "backup" / "packs").glob("*.car")
    pack.write_bytes(pack.read_bytes().replace(b"two", b"tow"))
    done = holdfast("repo", "verify", "--from", tmp_path / "backup", code=4)
    assert "2 damaged, 1 healed" in done.text
    assert "nobody had them whole" in done.stderr
    assert holdfast("cat", f"{root}/f").stdout == b"one"
    last = holdfast("repo", "stat", "--json").json["last_heal"]
    assert (last["healed"], last["not_found"]) == (1, 2)
    assert holdfast("repo", "stat", "--json").json["last_verify"]["damaged"] == 3
    assert "2 damaged blocks known: --hash says" in holdfast("pin", "verify").stderr


def test_a_block_that_is_put_again_is_damaged_no_more(holdfast: Holdfast) -> None:
    cid = holdfast("block", "put", "-", stdin=b"block").text
    spoil(holdfast, cid)
    holdfast("repo", "verify", code=4)
    holdfast("block", "rm", cid)
    holdfast("block", "put", "-", stdin=b"block")
    assert holdfast("repo", "verify", "--json").json["damaged"] == []


@pytest.mark.parametrize(
    ("options", "code"),
    [
        (("--rate", "fast"), 2),
        (("--from", "nowhere"), 2),
        (("--from", "ftp://host"), 2),
        (("--heal",), 5),
        (("--heal", "--ledger", "nowhere"), 2),
        (("--heal", "--ledger", "http://[::1"), 2),
        (("--from", "http://"), 2),
        (("--from", "http://a b/"), 2),
        (("--rate", "\u0661"), 2),  # a digit, but none that anybody here means
    ],
)
def test_verify_refuses_what_it_cannot_do_before_it_reads(
    holdfast: Holdfast, options: tuple[str, ...], code: int
) -> None:
    holdfast("block", "put", "-", stdin=b"block")
    holdfast.fails(code, "repo", "verify", *options)
    with Home(holdfast.home) as home:
        assert Rounds(home.open_meta(), "verify").last() is None


def test_an_interrupted_verification_goes_on_where_it_was(holdfast: Holdfast) -> None:
    blocks = [os.urandom(100_000) for _ in range(300)]
    with Home(holdfast.home) as home:
        home.open_store().put_many((CID.of(block).multihash, block) for block in blocks)
    slow = holdfast.process("repo", "verify", "--rate", "2M", "--json")
    with Home(holdfast.home) as home:
        rounds = Rounds(home.open_meta(), "verify")
        deadline_s = time.monotonic() + PATIENCE_S
        while rounds.current() is None:
            assert time.monotonic() < deadline_s
            assert slow.poll() is None
            time.sleep(LOOK_S)
        slow.send_signal(signal.SIGINT)
        _, said = slow.communicate(timeout=PATIENCE_S)
        assert slow.returncode == 130, said
        assert b"--resume" in said
        before = rounds.current()
    assert before is not None
    assert 0 < before.blocks < len(blocks)
    result = holdfast("repo", "verify", "--resume", "--json")
    assert f"going on behind {before.blocks} blocks" in result.stderr
    assert result.json["blocks"] == len(blocks)
    assert holdfast("repo", "verify", "--json").json["blocks"] == len(blocks)


def confuse(holdfast: Holdfast) -> None:
    """Counters that count nothing, and bytes that belong to no block."""
    with Home(holdfast.home) as home, home.open_store().shards[0].environment.write() as txn:
        Counters().write(txn)
        txn.put(data_key(10**6), b"bytes of nobody")


def test_fsck_finds_and_repairs_what_does_not_agree(holdfast: Holdfast, tree: Tree) -> None:
    root = holdfast.add(tree({"f": b"content", **{f"g{n}": b"%d" % n for n in range(30)}}))
    clean = holdfast("repo", "fsck", "--json").json
    assert (clean["clean"], clean["damaged"], clean["blocks"]) == (True, False, 32)
    confuse(holdfast)
    result = holdfast("repo", "fsck", "--json", code=4)
    assert set(result.json["counts"]) >= {"counters", "no_row"}
    assert "--repair" in holdfast("repo", "fsck", code=4).stderr
    repaired = holdfast("repo", "fsck", "--repair", "--json").json
    assert repaired["clean"]
    assert repaired["repaired"] == sum(result.json["counts"].values())
    assert holdfast("cat", f"{root}/f").stdout == b"content"


def test_what_a_killed_process_left_is_no_damage(holdfast: Holdfast) -> None:
    holdfast("block", "put", "-", stdin=b"block")
    stray = holdfast.home / "blocks" / "shard-00.9.mdb"
    stray.write_bytes(b"half a copy")
    found = holdfast("repo", "fsck", "--json").json
    assert (found["clean"], found["damaged"], found["counts"]) == (False, False, {"stray": 1})
    assert holdfast("repo", "fsck", "--repair", "--json").json["clean"]
    assert not stray.exists()


def test_compaction_gives_free_pages_back_and_keeps_every_block(holdfast: Holdfast, tree: Tree) -> None:
    kept = holdfast.add(tree({"f": b"kept"}))
    for _ in range(9):
        holdfast("block", "put", "-", stdin=os.urandom(2_000_000))
    assert "`holdfast repo compact` gives that back" in holdfast("repo", "gc").stderr
    assert holdfast("repo", "gc").stderr == ""
    before = holdfast("repo", "stat", "--json").json
    done = holdfast("repo", "compact", "--json").json
    after = holdfast("repo", "stat", "--json").json
    assert done["freed_bytes"] >= 2_000_000
    assert done["file_bytes"] == after["file_bytes"] <= before["file_bytes"] - 2_000_000
    assert after["last_compaction"]["freed_bytes"] == done["freed_bytes"]
    assert holdfast("cat", f"{kept}/f").stdout == b"kept"
    assert "gave back" in holdfast("repo", "compact").text


def test_migrate_says_what_it_found(holdfast: Holdfast) -> None:
    assert "no store" in holdfast.fails(3, "repo", "version")
    holdfast("block", "put", "-", stdin=b"block")
    assert holdfast("repo", "version", "-q").text == "2"
    assert holdfast("repo", "version").text == "blocks: version 2\nmeta: version 1"
    told = holdfast("repo", "migrate", "--json").json
    assert holdfast("repo", "version", "--json").json == {each: found["to"] for each, found in told.items()}
    assert told["blocks"]["from"] == told["blocks"]["to"] == 2
    assert "up to date" in holdfast("repo", "migrate").text
    (holdfast.home / "blocks" / "format.json").write_text(
        '{"format": "holdfast-blocks", "version": 99, "shards": 4}'
    )
    assert "upgrade" in holdfast.fails(4, "repo", "migrate")


def test_a_command_waits_for_its_turn_and_says_for_whom(holdfast: Holdfast) -> None:
    holdfast("block", "put", "-", stdin=b"block")
    with Home(holdfast.home).daemon_lock():
        waits = holdfast.process("repo", "compact", "--json")
        assert waits.stderr is not None
        assert f"waiting for process {os.getpid()}" in waits.stderr.readline().decode()
        assert waits.poll() is None
    out, _ = waits.communicate(timeout=PATIENCE_S)
    assert (waits.returncode, b"freed_bytes" in out) == (0, True)
