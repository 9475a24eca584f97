"""`pin` and `repo`: what is kept, what goes, and what says so."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from merkledag import dag_cbor
from merkledag.cid import CID
from storage_node.blockstore.store import open_store
from tests.cli.conftest import Holdfast

Tree = Callable[..., Path]


def test_what_is_pinned_survives_a_collection(holdfast: Holdfast, tree: Tree) -> None:
    kept, gone = os.urandom(2_500_000), os.urandom(1_500_000)
    one = holdfast.add(tree({"f": kept}, "one"), "--name", "first")
    two = holdfast.add(tree({"f": gone}, "two"), "--no-pin")
    dry = holdfast("repo", "gc", "--dry-run", "--json").json
    assert dry["freed_bytes"] > len(gone)
    assert holdfast("cat", f"{two}/f").stdout == gone
    freed = holdfast("repo", "gc", "--json").json
    assert (freed["freed_blocks"], freed["freed_bytes"]) == (dry["freed_blocks"], dry["freed_bytes"])
    assert holdfast("cat", f"{one}/f").stdout == kept
    holdfast.fails(3, "cat", f"{two}/f")
    holdfast("pin", "rm", one)
    assert holdfast("repo", "gc", "--json").json["kept_blocks"] == 0
    holdfast.fails(3, "cat", f"{one}/f")


@pytest.mark.parametrize("codec", ["dag-cbor", "dag-json"])
def test_a_pinned_node_of_any_codec_keeps_what_it_links_to(holdfast: Holdfast, codec: str) -> None:
    leaf = holdfast("block", "put", "-", stdin=b"leaf").text
    node = '{"link":{"/":"' + leaf + '"}}'
    holdfast("dag", "put", "--store-codec", codec, "--pin", "-", stdin=node.encode())
    loose = holdfast("block", "put", "-", stdin=b"loose").text
    holdfast("repo", "gc")
    assert holdfast("block", "get", leaf).stdout == b"leaf"
    holdfast.fails(3, "block", "get", loose)


def test_pins_are_listed_by_type_and_name(holdfast: Holdfast, tree: Tree) -> None:
    root = holdfast.add(tree({"f": b"1", "sub": {"g": b"2"}}), "--name", "mine")
    block = holdfast("block", "put", "-", stdin=b"alone").text
    holdfast("pin", "add", "--direct", block)
    leaf = holdfast("dag", "resolve", f"{root}/f").text
    sub = holdfast("dag", "resolve", f"{root}/sub").text
    deep = holdfast("dag", "resolve", f"{root}/sub/g").text

    def listed(*options: str) -> dict[str, str]:
        return {row["cid"]: row["mode"] for row in holdfast("pin", "ls", "--json", *options).json_lines}

    assert listed() == {root: "recursive", block: "direct"}
    assert listed("--type", "direct") == {block: "direct"}
    assert listed("--name", "mine") == {root: "recursive"}
    below = dict.fromkeys((leaf, sub, deep), "indirect")
    assert listed("--type", "indirect") == below
    assert listed("--type", "all") == {root: "recursive", block: "direct", **below}
    assert listed(f"{root}/sub") == {sub: "indirect"}
    assert holdfast("pin", "ls", "-q", "--type", "recursive").text == root
    assert "mine" in holdfast("pin", "ls").text
    assert holdfast("pin", "ls", "--names").text == holdfast("pin", "ls").text
    holdfast.fails(3, "pin", "ls", "--type", "direct", root)
    holdfast.fails(3, "pin", "ls", str(CID.of(b"x")))
    holdfast.fails(2, "pin", "ls", "--type", "round")


def test_a_pin_needs_all_of_its_blocks(holdfast: Holdfast, tree: Tree) -> None:
    root = holdfast.add(tree({"f": b"1", "g": b"2"}), "--no-pin")
    leaf = holdfast("dag", "resolve", f"{root}/f").text
    holdfast("block", "rm", leaf)
    assert leaf in holdfast.fails(3, "pin", "add", root)
    holdfast("pin", "add", "--direct", root)
    holdfast("pin", "verify")
    holdfast("block", "put", "-", stdin=b"1")
    holdfast("pin", "add", root, "--name", "whole")
    assert holdfast("pin", "ls", "--json").json["mode"] == "recursive"


def test_verify_names_what_is_missing(holdfast: Holdfast, tree: Tree) -> None:
    root = holdfast.add(tree({"f": b"1"}))
    leaf = CID.parse(holdfast("dag", "resolve", f"{root}/f").text)
    assert holdfast("pin", "verify").text == "every pin is whole"
    from storage_node.blockstore.store import open_store

    store = open_store(holdfast.home / "blocks", reserve_bytes=0)
    store.delete_many([leaf.multihash])
    store.close()
    result = holdfast("pin", "verify", "--json", code=4)
    assert result.json == {"cid": root, "ok": False, "missing": [str(leaf)]}


def test_update_moves_the_pin_and_its_name(holdfast: Holdfast, tree: Tree) -> None:
    old = holdfast.add(tree({"f": b"1"}, "old"), "--name", "site")
    new = holdfast.add(tree({"f": b"2"}, "new"), "--no-pin")
    holdfast("pin", "update", old, new)
    row = holdfast("pin", "ls", "--json").json
    assert (row["cid"], row["name"]) == (new, "site")
    holdfast("pin", "update", new, old, "--no-unpin")
    assert len(holdfast("pin", "ls", "--json").json_lines) == 2
    holdfast.fails(3, "pin", "update", old, str(CID.of(b"absent")))
    holdfast.fails(3, "pin", "update", str(CID.of(b"absent")), new)


def test_removing_pins_is_all_or_nothing(holdfast: Holdfast, tree: Tree) -> None:
    root = holdfast.add(tree({"f": b"1"}))
    holdfast.fails(3, "pin", "rm", root, str(CID.of(b"absent")))
    assert holdfast("pin", "ls", "-q").text == root
    holdfast.fails(4, "pin", "add", root, "--name", "x" * 1000)


def test_blocks_of_pins_are_not_removed(holdfast: Holdfast, tree: Tree) -> None:
    root = holdfast.add(tree({"f": b"1"}))
    leaf = holdfast("dag", "resolve", f"{root}/f").text
    assert root in holdfast.fails(4, "block", "rm", leaf)
    assert root in holdfast.fails(4, "block", "rm", root)
    holdfast("pin", "rm", root)
    assert holdfast("block", "rm", leaf).text == f"removed {leaf}"
    holdfast.fails(3, "block", "rm", leaf)
    assert holdfast("block", "rm", "-f", "--json", leaf).json == {"removed": [], "freed_bytes": 0}


def test_blocks_that_a_running_command_relies_on_are_not_removed(holdfast: Holdfast) -> None:
    block = b"soon to be pinned"
    cid = CID.of(block)
    holdfast("repo", "stat")
    with closing(open_store(holdfast.home / "blocks", reserve_bytes=0)) as store, store.lease():
        holdfast("block", "put", "-", stdin=block)
        assert "running" in holdfast.fails(1, "block", "rm", str(cid))
        assert store.has(cid.multihash)
    holdfast("block", "rm", str(cid))


@pytest.mark.parametrize("command", ["block put --codec dag-cbor", "dag put --input-codec dag-cbor"])
def test_nothing_incomplete_is_pinned_when_it_is_put(holdfast: Holdfast, command: str) -> None:
    """Such a pin would stop every collection."""
    node = dag_cbor.encode([CID.of(b"absent")])
    holdfast.fails(3, *command.split(), "--pin", "-", stdin=node)
    assert holdfast("pin", "ls").text == ""
    holdfast(*command.split(), "-", stdin=node)
    holdfast("repo", "gc")


def test_repo_stat_counts(holdfast: Holdfast, tree: Tree) -> None:
    assert holdfast("repo", "stat", "--json").json["blocks"] == 0
    holdfast.add(tree({"f": b"123"}))
    shown = holdfast("repo", "stat", "--json").json
    assert (shown["blocks"], shown["pins"], shown["max_bytes"]) == (2, 1, None)
    assert shown["block_bytes"] > 3
    assert "blocks: 2" in holdfast("repo", "stat").text
    assert "none damaged" in holdfast("repo", "verify").text


def test_a_collection_leaves_what_the_node_keeps_for_others(
    holdfast: Holdfast, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = CID.parse(holdfast("block", "put", "-", stdin=b"paid for").text)
    other = holdfast("block", "put", "-", stdin=b"garbage").text
    holdfast("repo", "stat")
    (holdfast.home / "meta" / "pieces").mkdir()
    monkeypatch.setattr("storage_node.piece_file.blocks_of_pieces", lambda folder: iter([held.multihash]))
    assert "paid to keep" in holdfast.fails(4, "block", "rm", held)
    assert holdfast("repo", "gc", "--json").json["freed_blocks"] == 1
    assert holdfast("block", "get", held).stdout == b"paid for"
    holdfast.fails(3, "block", "get", other)


def test_only_one_process_collects(holdfast: Holdfast, monkeypatch: pytest.MonkeyPatch) -> None:
    from cli.home import Home

    monkeypatch.setattr("cli.home.LOCK_PATIENCE_S", 0.15)
    with Home(holdfast.home).daemon_lock():
        assert str(os.getpid()) in holdfast.fails(1, "repo", "gc")
    holdfast("repo", "gc")


def test_init_is_idempotent_and_says_what_exists(holdfast: Holdfast) -> None:
    made = holdfast("init", "--json").json
    assert made["home"] == str(holdfast.home)
    assert made["key"].startswith("k51")
    assert str(holdfast.home / "config.toml") in made["made"]
    assert oct(holdfast.home.stat().st_mode & 0o777) == "0o700"
    again = holdfast("init", "--json").json
    assert (again["key"], again["made"]) == (made["key"], [])
    shown = holdfast("init").text
    assert "found" in shown
    assert "not encrypted" in shown
    assert "made" not in shown


def test_a_home_that_is_a_file_is_an_error(holdfast: Holdfast) -> None:
    holdfast.home.write_text("")
    assert "not a folder" in holdfast.fails(4, "init")
    holdfast.fails(4, "repo", "stat")


def test_an_empty_home_variable_is_a_usage_error(holdfast: Holdfast, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOLDFAST_HOME", "")
    assert "HOLDFAST_HOME" in holdfast.fails(2, "repo", "stat")


def test_a_dead_servers_run_file_counts_as_none(holdfast: Holdfast) -> None:
    from cli.home import Home

    home = Home(holdfast.home)
    path = home.announce("gateway", {"url": "http://127.0.0.1:1"})
    assert path.stat().st_mode & 0o777 == 0o600
    assert home.server("gateway") == {"pid": os.getpid(), "url": "http://127.0.0.1:1"}
    path.write_text('{"pid": 999999999}')
    assert home.server("gateway") is None
    path.write_text("{")
    assert home.server("gateway") is None
    assert home.server("node") is None


def test_a_store_whose_pins_are_lost_is_not_collected(holdfast: Holdfast, tree: Tree) -> None:
    cid = holdfast.add(tree({"f": b"kept"}))
    (holdfast.home / "meta").rename(holdfast.home / "lost")
    assert "backup" in holdfast.fails(4, "repo", "gc")
    (holdfast.home / "lost").rename(holdfast.home / "meta")
    holdfast("repo", "gc")
    assert holdfast("cat", f"{cid}/f").stdout == b"kept"
