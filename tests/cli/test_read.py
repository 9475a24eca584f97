"""`get`, `cat`, `ls` and `stat`: content comes back as it was, and errors say what is wrong."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from merkledag.builder import build_symlink
from merkledag.cid import CID
from merkledag.codecs import DAG_CBOR, RAW
from merkledag.profile import UNIXFS_V1_2025
from storage_node.blockstore.store import open_store
from tests.cli.conftest import Holdfast

Tree = Callable[..., Path]
ABSENT = str(CID.of(b"nobody ever stored this"))


def snapshot(root: Path) -> dict[str, bytes | str | None]:
    """Every path below a folder: a file's bytes, a symlink's target, None for a folder."""
    found: dict[str, bytes | str | None] = {}
    for path in sorted(root.rglob("*")):
        name = str(path.relative_to(root))
        if path.is_symlink():
            found[name] = str(path.readlink())
        else:
            found[name] = path.read_bytes() if path.is_file() else None
    return found


def test_a_folder_comes_back_as_it_was(holdfast: Holdfast, tree: Tree, tmp_path: Path) -> None:
    big = os.urandom(2_500_000)
    root = tree({"a": b"", "big": big, "sub": {"b": b"2", "deep": {"l": "../b"}}, "l": "sub/b", "empty": {}})
    cid = holdfast.add(root)
    result = holdfast("get", cid, "-o", tmp_path / "back", "--json").json
    assert snapshot(tmp_path / "back") == snapshot(root)
    assert (result["files"], result["folders"], result["symlinks"]) == (3, 4, 2)
    assert result["size_bytes"] == len(big) + 1
    assert (tmp_path / "back" / "big").stat().st_mode & 0o777 == 0o666 & ~current_umask()
    assert (tmp_path / "back").stat().st_mode & 0o777 == 0o777 & ~current_umask()
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == []


def current_umask() -> int:
    mask = os.umask(0o022)
    os.umask(mask)
    return mask


def test_modes_and_times_come_back_without_special_bits(
    holdfast: Holdfast, tree: Tree, tmp_path: Path
) -> None:
    root = tree({"run": b"#!", "sub": {"x": b"1"}, "l": "run"})
    (root / "run").chmod(0o4755)
    (root / "sub").chmod(0o500)
    for path in (root / "run", root / "sub", root):
        os.utime(path, ns=(0, 1_600_000_000_123_456_789))
    cid = holdfast.add(root, "--preserve-mode", "--preserve-mtime")
    holdfast("get", cid, "-o", tmp_path / "back")
    for name, mode in (("run", 0o755), ("sub", 0o500)):
        status = (tmp_path / "back" / name).stat()
        assert status.st_mode & 0o7777 == mode
        assert status.st_mtime_ns == 1_600_000_000_123_456_789
    shown = holdfast("stat", f"{cid}/run", "--json").json
    assert (shown["mode"], shown["mtime"]) == ("4755", "1600000000.123456789")
    (root / "sub").chmod(0o700)
    (tmp_path / "back" / "sub").chmod(0o700)


def test_get_of_a_path_takes_its_name(
    holdfast: Holdfast, tree: Tree, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cid = holdfast.add(tree({"sub": {"f": b"data"}}))
    monkeypatch.chdir(tmp_path)
    holdfast("get", f"/ipfs/{cid}/sub/f")
    assert (tmp_path / "f").read_bytes() == b"data"
    holdfast("get", cid)
    assert (tmp_path / cid / "sub" / "f").read_bytes() == b"data"
    holdfast("get", f"{cid}/sub/f", "-o", "into/")
    holdfast("get", f"{cid}/sub/", "-o", "folder/")
    assert (tmp_path / "into" / "f").read_bytes() == (tmp_path / "folder" / "f").read_bytes() == b"data"


def test_nothing_is_overwritten_unless_forced(holdfast: Holdfast, tree: Tree, tmp_path: Path) -> None:
    cid = holdfast.add(tree({"a": b"new", "sub": {"b": b"new"}}))
    target = tree({"a": b"old", "kept": b"mine", "sub": {"c": b"mine"}}, "target")
    before = snapshot(target)
    assert "--force" in holdfast.fails(4, "get", cid, "-o", target)
    assert snapshot(target) == before
    holdfast("get", cid, "-o", target, "--force")
    assert snapshot(target) == {
        "a": b"new", "kept": b"mine", "sub": None, "sub/b": b"new", "sub/c": b"mine",
    }  # fmt: skip
    holdfast("get", f"{cid}/a", "-o", target / "kept", "--force")
    assert (target / "kept").read_bytes() == b"new"
    assert "cannot replace" in holdfast.fails(4, "get", f"{cid}/a", "-o", target / "sub", "--force")
    assert "cannot replace" in holdfast.fails(4, "get", cid, "-o", target / "a", "--force")
    assert snapshot(target)["sub/b"] == b"new"


def test_force_does_not_follow_a_symlink_that_is_there(
    holdfast: Holdfast, tree: Tree, tmp_path: Path
) -> None:
    outside = tree({"b": b"precious"}, "outside")
    cid = holdfast.add(tree({"a": b"new", "sub": {"b": b"new"}}))
    target = tree({"a": str(outside / "b"), "sub": str(outside)}, "target")
    holdfast.fails(4, "get", cid, "-o", target, "--force")
    holdfast("get", f"{cid}/a", "-o", target / "a", "--force")
    assert snapshot(outside) == {"b": b"precious"}
    assert (target / "a").read_bytes() == b"new"
    assert not (target / "a").is_symlink()


def test_a_get_that_fails_half_way_leaves_nothing(holdfast: Holdfast, tree: Tree, tmp_path: Path) -> None:
    root = tree({"a": b"here", "z": os.urandom(3 << 20)})
    rows = holdfast("add", "--json", "--no-pin", root).json_lines
    folder, part = rows[-1]["cid"], holdfast("dag", "get", rows[-2]["cid"]).json["Links"][2]["Hash"]["/"]
    holdfast("block", "rm", part)
    before = sorted(p.name for p in tmp_path.iterdir())
    assert part in holdfast.fails(3, "get", folder, "-o", tmp_path / "back")
    assert sorted(p.name for p in tmp_path.iterdir()) == before


def test_cat_and_ranges(holdfast: Holdfast, tree: Tree) -> None:
    data = os.urandom(2_500_000)
    cid = holdfast.add(tree({"f": data}))
    assert holdfast("cat", f"{cid}/f").stdout == data
    assert holdfast("cat", f"ipfs://{cid}/f").stdout == data
    part = holdfast("cat", f"/ipfs/{cid}/f", "--offset", 1_000_000, "--length", 100_000).stdout
    assert part == data[1_000_000:1_100_000]
    assert holdfast("cat", f"{cid}/f", "--offset", 9_999_999).stdout == b""
    assert holdfast("cat", "bafkqabtimvwgy3yk").stdout == b"hello\n"
    assert holdfast("cat", "--json", "bafkqabtimvwgy3yk").json["size_bytes"] == 6
    holdfast.fails(2, "cat", cid, "--offset", -1)
    holdfast.fails(2, "cat", cid, "--length", -2)


def test_ls_and_stat(holdfast: Holdfast, tree: Tree) -> None:
    root = tree({"a": b"12345", "big": bytes(2_000_000), "l": "a", "sub": {"x": b""}})
    cid = holdfast.add(root)
    rows = {row["name"]: row for row in holdfast("ls", cid, "--json").json_lines}
    assert {n: (r["kind"], r["size_bytes"]) for n, r in rows.items() if n != "sub"} == {
        "a": ("raw", 5), "big": ("file", 2_000_000), "l": ("symlink", 1),
    }  # fmt: skip
    assert rows["sub"]["kind"] == "directory"
    lines = holdfast("ls", cid).text.splitlines()
    assert lines[0] == f"{rows['a']['cid']} 5 a"
    assert lines[3] == f"{rows['sub']['cid']} - sub/"
    assert holdfast("ls", f"{cid}/big").text == f"{rows['big']['cid']} 2000000 big"
    assert holdfast("ls", cid, "--no-size", "--no-resolve-type", "--json").json_lines[0]["kind"] is None
    shown = holdfast("stat", f"{cid}/big", "--json").json
    assert (shown["kind"], shown["size_bytes"], shown["children"]) == ("file", 2_000_000, 2)
    assert holdfast("stat", f"{cid}/l", "--json").json["target"] == "a"
    assert "kind: directory" in holdfast("stat", cid).text


def test_a_large_folder_is_listed_from_its_hamt(holdfast: Holdfast, tmp_path: Path) -> None:
    folder = tmp_path / "many"
    folder.mkdir()
    for number in range(300):
        (folder / f"{number:0200d}").write_bytes(b"%d" % number)
    cid = holdfast.add(folder, "--profile", "unixfs-v0-2015", "--raw-leaves")
    assert len(holdfast("ls", cid, "--json").json_lines) == 300
    assert holdfast("cat", f"{cid}/{250:0200d}").stdout == b"250"


@pytest.mark.parametrize(
    "command", ["cat", "get", "ls", "stat", "dag get", "dag stat", "car export", "pin add"]
)
def test_absent_content_is_3(holdfast: Holdfast, command: str, tmp_path: Path) -> None:
    options = ("-o", str(tmp_path / "out")) if command in {"get", "car export"} else ()
    assert ABSENT in holdfast.fails(3, *command.split(), ABSENT, *options)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "command", ["cat", "get", "ls", "stat", "block get", "dag resolve", "pin add", "pin rm"]
)
@pytest.mark.parametrize("text", ["not-a-cid", "", "/ipfs/", "/nowhere/x", "bafkreiabc", "/ipfs/Qmxyz/a"])
def test_what_is_no_cid_is_2(holdfast: Holdfast, command: str, text: str) -> None:
    holdfast.fails(2, *command.split(), text)


def test_wrong_kinds_of_paths(holdfast: Holdfast, tree: Tree) -> None:
    cid = holdfast.add(tree({"a": b"1", "sub": {}}))
    assert "no link named 'b'" in holdfast.fails(3, "cat", f"{cid}/b")
    holdfast.fails(3, "cat", f"{cid}/a/b")
    assert "director" in holdfast.fails(4, "cat", f"{cid}/sub")
    assert "no DNSLink" in holdfast.fails(3, "cat", "/ipns/example.net/x")
    holdfast.fails(2, "cat", f"{cid}/../../etc")


def test_a_damaged_block_is_4(holdfast: Holdfast, monkeypatch: pytest.MonkeyPatch) -> None:
    bad = CID.of(b"good bytes")
    holdfast("init")
    store = open_store(holdfast.home / "blocks", reserve_bytes=0)
    folder = CID.of(b"a folder", codec=0x70)
    store.put_many([(bad.multihash, b"bad bytes!"), (folder.multihash, b"\xff\xff\xff")])
    store.close()
    holdfast.fails(4, "ls", folder)
    monkeypatch.setenv("HOLDFAST_STORAGE_VERIFY_ON_READ", "true")
    assert str(bad) in holdfast.fails(4, "cat", bad)
    result = holdfast("repo", "verify", "--json", code=4)
    assert sorted(result.json["damaged"]) == sorted(str(CID(1, RAW, c.multihash)) for c in (bad, folder))
    assert holdfast("repo", "verify", "--drop", "--json").json["dropped"] == 2
    assert holdfast("repo", "verify", "--json").json["blocks"] == 0
    holdfast.fails(3, "cat", bad)


def test_a_store_that_is_no_store_is_4(holdfast: Holdfast) -> None:
    holdfast("repo", "stat")
    for path in (holdfast.home / "blocks").rglob("*"):
        if path.is_file():
            path.write_bytes(b"not a store" * 1000)
    holdfast.fails(4, "cat", ABSENT)


def test_only_files_and_folders_can_be_got(holdfast: Holdfast, tmp_path: Path) -> None:
    cid = holdfast("dag", "put", "-", stdin=b'{"a":1}').text
    assert CID.parse(cid).codec == DAG_CBOR
    assert "neither a file nor a folder" in holdfast.fails(4, "get", cid, "-o", tmp_path / "x")
    holdfast.fails(4, "cat", cid)
    holdfast.fails(3, "cat", f"{cid}/a")
    link, block = build_symlink(UNIXFS_V1_2025, "/etc/passwd")
    (tmp_path / "block").write_bytes(block.data)
    holdfast("block", "put", "--cid-codec", "dag-pb", tmp_path / "block")
    assert "symlink" in holdfast.fails(4, "get", str(link.cid), "-o", tmp_path / "x")
    assert not os.path.lexists(tmp_path / "x")
