"""`holdfast files`: the mutable tree as its users see it, also after `kill -9` and from several shells."""

from __future__ import annotations

import base64
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from merkledag.cid import CID
from storage_node.blockstore.store import open_store
from tests.cli.conftest import ROOT, Holdfast

Tree = Callable[..., Path]

EMPTY = "bafybeiczsscdsbs7ffqz55asqdf3smv6klcw3gofszvwlyarci47bgf354"


def test_a_fresh_tree_is_empty(holdfast: Holdfast) -> None:
    assert holdfast("files", "ls").stdout == b""
    assert holdfast("files", "flush").text == EMPTY
    assert holdfast("files", "stat", "/").text.splitlines() == [
        EMPTY, "Size: 0", "CumulativeSize: 4", "ChildBlocks: 0", "Type: directory"
    ]  # fmt: skip


def test_the_tree_has_the_cid_of_the_folder_added(holdfast: Holdfast, tree: Tree) -> None:
    """Written piece by piece, it is the same content as a folder added at once."""
    big = os.urandom(3_000_000)
    cid = holdfast.add(tree({"docs": {"a.txt": b"hello", "big": big}, "empty": {}}))
    holdfast("files", "mkdir", "/empty")
    holdfast("files", "write", "-e", "-p", "/docs/a.txt", stdin=b"hexxx")
    holdfast("files", "write", "-o", "2", "/docs/a.txt", stdin=b"llo")
    holdfast("files", "write", "--create", "/docs/big", stdin=bytes(3_000_000))
    holdfast("files", "write", "-o", "1000000", "/docs/big", stdin=big[1_000_000:])
    holdfast("files", "write", "--offset", "0", "--count", "1000000", "/docs/big", stdin=big)
    assert holdfast("files", "flush").text == cid
    assert holdfast("files", "read", "/docs/big").stdout == big
    assert holdfast("files", "read", "-o", "999999", "-n", "3", "/docs/big").stdout == big[999_999:1_000_002]
    assert holdfast("files", "stat", "--hash", "/").text == cid
    assert holdfast("files", "stat", "--size", "/docs/a.txt").text == "5"


def test_listing(holdfast: Holdfast) -> None:
    holdfast("files", "mkdir", "-p", "/b/deep")
    holdfast("files", "write", "-e", "/a", stdin=b"x")
    assert holdfast("files", "ls").text.splitlines() == ["a", "b"]
    leaf = str(CID.of(b"x", 0x55))
    lines = holdfast("files", "ls", "-l", "/").text.splitlines()
    assert lines[0] == f"a\t{leaf}\t1"
    assert lines[1].split("\t")[::2] == ["b/", "0"]
    assert holdfast("files", "ls", "--json").json_lines[0] == {
        "name": "a", "cid": leaf, "kind": "file", "size_bytes": 1
    }  # fmt: skip
    assert holdfast("files", "ls", "/a").text == "a"
    assert holdfast("files", "ls", "-U", "/b").text == "deep"


def test_copying_moving_removing(holdfast: Holdfast, tree: Tree) -> None:
    cid = holdfast.add(tree({"f": b"one", "sub": {"g": b"two"}}))
    holdfast("files", "cp", f"/ipfs/{cid}", "/site")
    assert holdfast("files", "stat", "--hash", "/site").text == cid
    assert holdfast("files", "stat", "--json", f"/ipfs/{cid}").json["cid"] == cid
    holdfast("files", "cp", f"/ipfs/{cid}/sub/g", "/site/")
    assert holdfast("files", "read", "/site/g").stdout == b"two"
    assert "no path of the tree" in holdfast.fails(2, "files", "cp", "local.txt", "/site/local.txt")
    assert "exists already" in holdfast.fails(4, "files", "cp", f"/ipfs/{cid}/f", "/site/g")
    holdfast("files", "cp", "--force", f"/ipfs/{cid}/f", "/site/g")
    holdfast("files", "cp", "-p", "/site/g", "/new/place/h")
    assert holdfast("files", "read", "/new/place/h").stdout == b"one"
    moved = holdfast("files", "mv", "--json", "/new/place/h", "/site").json
    assert moved == {"root": holdfast("files", "flush").text}
    holdfast("files", "mv", "/site/h", "/site/f2")
    assert holdfast("files", "ls", "/site").text.splitlines() == ["f", "f2", "g", "sub"]
    assert "-r" in holdfast.fails(4, "files", "rm", "/site")
    holdfast.fails(3, "files", "rm", "/nothing")
    holdfast("files", "rm", "--force", "/nothing", "/new")
    holdfast("files", "rm", "-r", "/site")
    assert holdfast("files", "flush").text == EMPTY


@pytest.mark.parametrize(
    ("code", "arguments"),
    [
        (3, ("read", "/none")),
        (3, ("ls", "/none")),
        (3, ("stat", "/none/deeper")),
        (3, ("write", "/none")),
        (3, ("write", "-e", "/none/f")),
        (3, ("write", "-e", "/f/x")),
        (3, ("write", "-e", "/x", "/no/such/file")),
        (3, ("mkdir", "/none/d")),
        (3, ("mv", "/none", "/f")),
        (3, ("cp", "/none", "/g")),
        (3, ("cp", f"/ipfs/{CID.of(b'absent', 0x55)}", "/g")),
        (4, ("mkdir", "/f")),
        (4, ("mkdir", "/d")),
        (4, ("mkdir", "-p", "/f")),
        (4, ("read", "/d")),
        (4, ("write", "/d")),
        (4, ("rm", "/")),
        (4, ("rm", "-r", "/")),
        (4, ("mv", "/d", "/d/inside")),
        (4, ("cp", "/f", "/d/../f")),
        (2, ("ls", "relative")),
        (2, ("write", "/d/", "-")),
        (2, ("write", "-o", "-1", "/f")),
        (2, ("read", "-n", "-1", "/f")),
        (2, ("read", "-o", "9", "/f")),
        (2, ("cp", "/ipfs/nonsense", "/x")),
    ],
)
def test_what_cannot_be_done_changes_nothing(
    holdfast: Holdfast, code: int, arguments: tuple[str, ...]
) -> None:
    holdfast("files", "write", "-e", "/f", stdin=b"content")
    holdfast("files", "mkdir", "/d")
    root = holdfast("files", "flush").text
    holdfast.fails(code, "files", *arguments)
    assert holdfast("files", "flush").text == root


def test_a_collection_keeps_the_tree(holdfast: Holdfast) -> None:
    holdfast("files", "write", "-e", "/kept", stdin=b"k" * 5000)
    holdfast("files", "write", "-e", "/gone", stdin=b"g" * 5000)
    gone, kept = (holdfast("files", "stat", "--hash", path).text for path in ("/gone", "/kept"))
    assert "mutable tree" in holdfast.fails(4, "block", "rm", kept)
    holdfast("files", "rm", "/gone")
    holdfast("repo", "gc")
    assert holdfast("files", "read", "/kept").stdout == b"k" * 5000
    holdfast.fails(3, "block", "get", gone)


def test_json_says_what_came_of_it(holdfast: Holdfast, tmp_path: Path) -> None:
    (tmp_path / "data").write_bytes(b"from a file")
    written = holdfast("files", "write", "-e", "--json", "/a", tmp_path / "data").json
    assert written == {
        "path": "/a", "cid": str(CID.of(b"from a file", 0x55)), "root": holdfast("files", "flush").text
    }  # fmt: skip
    read = holdfast("files", "read", "--json", "-n", "4", "/a").json
    assert (base64.b64decode(read["base64"]), read["size_bytes"]) == (b"from", 4)
    assert holdfast("files", "flush", "--json", "/a").json == {"cid": written["cid"]}
    assert holdfast("files", "mkdir", "--json", "/d").json["cid"] == EMPTY
    stat = holdfast("files", "stat", "--json", "/a").json
    assert (stat["kind"], stat["size_bytes"], stat["blocks"]) == ("file", 11, 0)
    times = ("--mode", "0640", "--mtime", "-2", "--mtime-nsecs", "250000000")
    old = holdfast.add(tmp_path / "data", *times)
    shown = [holdfast(*command, f"/ipfs/{old}", "--json").json for command in (("stat",), ("files", "stat"))]
    assert {(each["mode"], each["mtime"]) for each in shown} == {("0640", "-1.750000000")}
    assert shown[0]["cumulative_bytes"] == shown[1]["cumulative_bytes"]


# Appends numbered lines through the commands and says each that was acknowledged.
_LOOP = """
import io, sys
from cli.main import run
for n in range(10_000):
    for arguments, data in (
        (["files", "write", "-e", "-t", "/number"], b"%d" % n),
        (["files", "mkdir", "-p", f"/d/{n % 50}"], b""),
    ):
        sys.stdin = io.TextIOWrapper(io.BytesIO(data))
        assert run(arguments) == 0
    print(n, flush=True)
"""


def test_what_returned_is_there_after_kill_9(holdfast: Holdfast) -> None:
    """Killed in the middle of changes: the tree is whole, and at or after the last change that returned."""
    holdfast("files", "ls")
    for _ in range(3):
        process = subprocess.Popen(
            [sys.executable, "-c", _LOOP], cwd=ROOT, stdout=subprocess.PIPE, env=os.environ
        )
        assert process.stdout is not None
        said = [process.stdout.readline() for _ in range(8)][-1]
        process.send_signal(signal.SIGKILL)
        rest = process.stdout.read().splitlines(keepends=True)
        process.wait()
        process.stdout.close()
        last = int([line for line in [said, *rest] if line.endswith(b"\n")][-1])
        assert last <= int(holdfast("files", "read", "/number").stdout) <= last + 1
        holdfast("dag", "stat", holdfast("files", "flush").text)


def test_several_shells_write_at_once(holdfast: Holdfast) -> None:
    """Each adds its own files; none of them is lost."""
    holdfast("files", "ls")
    program = (
        "import io, sys\nfrom cli.main import run\nfor n in range(8):\n"
        "    sys.stdin = io.TextIOWrapper(io.BytesIO(b'x'))\n"
        "    assert run(['files', 'write', '-e', '-p', f'/shared/{sys.argv[1]}-{n}']) == 0\n"
    )
    shells = [
        subprocess.Popen([sys.executable, "-c", program, str(n)], cwd=ROOT, env=os.environ) for n in range(3)
    ]
    assert [shell.wait(60) for shell in shells] == [0, 0, 0]
    names = holdfast("files", "ls", "/shared").text.splitlines()
    assert names == sorted(f"{shell}-{n}" for shell in range(3) for n in range(8))


def test_a_tree_whose_root_is_lost_is_not_collected_but_can_be_given_up(holdfast: Holdfast) -> None:
    """As after `repo verify --drop` of a damaged block: what hangs below may still be wanted."""
    holdfast("files", "write", "-e", "-p", "/a/f", stdin=b"precious")
    cid, root = (holdfast("files", "stat", "--hash", path).text for path in ("/a/f", "/"))
    block = holdfast("block", "get", root).stdout
    with closing(open_store(holdfast.home / "blocks", reserve_bytes=0)) as store:
        store.delete_many([CID.parse(root).multihash])
    assert root in holdfast.fails(3, "repo", "gc")
    assert holdfast("block", "get", cid).stdout == b"precious"
    holdfast("block", "put", "--cid-codec", "dag-pb", "-", stdin=block)
    assert holdfast("files", "read", "/a/f").stdout == b"precious"
    holdfast.fails(4, "files", "rm", "-r", "/")
    with closing(open_store(holdfast.home / "blocks", reserve_bytes=0)) as store:
        store.delete_many([CID.parse(root).multihash])
    holdfast("files", "rm", "-r", "/")
    assert holdfast("files", "ls").text == ""
    holdfast("repo", "gc")
    holdfast.fails(3, "block", "get", cid)


def test_a_full_store_lets_go_of_what_is_in_the_tree(holdfast: Holdfast, tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(os.urandom(100_000))
    cid = holdfast.add(tmp_path / "f", "--no-pin")
    holdfast("files", "mkdir", "/d")
    for name in ("a", "b"):
        holdfast("files", "cp", f"/ipfs/{cid}", f"/d/{name}")
    holdfast("config", "set", "storage.max_bytes", 50_000)
    holdfast.fails(6, "files", "mkdir", "/e")
    holdfast("files", "rm", "/d/a")
    holdfast("files", "rm", "-r", "/d")
    holdfast("repo", "gc")
    holdfast("files", "mkdir", "/e")
    assert holdfast("repo", "stat", "--json").json["block_bytes"] < 1000
