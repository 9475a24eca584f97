"""`holdfast repo gc` as people call it: interrupted, killed, called again, with parts of the tree lost."""

from __future__ import annotations

import json
import os
import signal
from contextlib import closing
from pathlib import Path

import pytest

from merkledag.cid import CID
from storage_node.blockstore.store import open_store
from storage_node.gc import BLOCKS_PER_SWEEP
from tests.cli.conftest import Holdfast

GARBAGE = 2 * BLOCKS_PER_SWEEP  # the CIDs of one sweep are more than a pipe holds: `repo gc -q` stands still


@pytest.fixture
def littered(holdfast: Holdfast, tmp_path: Path) -> str:
    """A pinned file among garbage; its CID."""
    file = tmp_path / "file"
    file.write_bytes(b"kept" * 1000)
    cid = holdfast.add(file)
    with closing(open_store(holdfast.home / "blocks", reserve_bytes=0)) as store:
        texts = (b"garbage %d" % number for number in range(GARBAGE))
        store.put_many((CID.of(data).multihash, data) for data in texts)
    return cid


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_a_collection_that_was_ended_goes_on_where_it_was(
    holdfast: Holdfast, littered: str, how: signal.Signals
) -> None:
    process = holdfast.process("repo", "gc", "-q")
    assert process.stdout is not None
    first = os.read(process.stdout.fileno(), 1)
    process.send_signal(how)
    out, err = process.communicate(timeout=60)
    if how is signal.SIGINT:
        assert process.returncode == 130
        assert b"goes on from here" in err
    listed = (first + out).split()
    assert 0 < len(listed) < GARBAGE
    result = holdfast("repo", "gc", "--json")
    assert "going on" in result.stderr
    assert result.json["resumed"] is True
    assert 0 < result.json["freed"]["own"]["blocks"] <= GARBAGE
    assert holdfast("repo", "stat", "--json").json["blocks"] == 1
    assert holdfast("cat", littered).stdout == b"kept" * 1000
    again = holdfast("repo", "gc", "--json")
    assert "going on" not in again.stderr
    assert (again.json["resumed"], again.json["freed_blocks"], again.json["kept_blocks"]) == (False, 0, 1)


def test_what_would_go_is_what_goes(holdfast: Holdfast, littered: str) -> None:
    said = holdfast("repo", "gc", "--dry-run", "-q").text.split()
    counted = holdfast("repo", "gc", "--dry-run", "--json").json
    assert counted["dry_run"] is True
    gone = holdfast("repo", "gc", "-q").text.split()
    assert sorted(gone) == sorted(said)
    assert counted["freed_blocks"] == len(gone) == GARBAGE
    assert littered not in gone
    assert "1 block" in holdfast("repo", "gc", "--stream-errors").text
    assert holdfast("repo", "gc", "--silent").stdout == b""
    holdfast.fails(2, "repo", "gc", "-q", "--json")


def test_a_lost_folder_of_the_tree_is_named_and_can_be_let_go_of(holdfast: Holdfast) -> None:
    holdfast("files", "write", "-e", "-p", "/docs/old/letter", stdin=b"precious")
    folder, letter = (
        holdfast("files", "stat", "--hash", path).text for path in ("/docs/old", "/docs/old/letter")
    )
    with closing(open_store(holdfast.home / "blocks", reserve_bytes=0)) as store:
        store.delete_many([CID.parse(folder).multihash])
    line = holdfast.fails(3, "repo", "gc")
    assert folder in line
    assert "/docs/old" in line
    assert holdfast("block", "get", letter).stdout == b"precious"
    holdfast("files", "rm", "-r", "/docs/old")
    holdfast("repo", "gc")
    holdfast.fails(3, "block", "get", letter)
    assert holdfast("files", "ls", "/docs").text == ""


def test_what_the_last_collection_did_is_remembered(holdfast: Holdfast, littered: str) -> None:
    holdfast("repo", "gc")
    last = json.loads(holdfast("repo", "stat", "--json").stdout)["last_gc"]
    assert (last["freed_blocks"], last["kept_blocks"]) == (GARBAGE, 1)
