"""`ls`, `cat` of several paths, and `stat`: what they print, in which order, and how soon."""

from __future__ import annotations

import base64
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from cli.listing import mode_letters, short_time, si_text
from merkledag.cid import CID
from merkledag.codecs import RAW
from merkledag.dag_pb import PBLink
from merkledag.directory import DirEntry, build_directory
from merkledag.profile import UNIXFS_V1_2025
from merkledag.reader import NodeStat
from merkledag.unixfs import Data, Kind, Mtime
from tests.cli.conftest import Holdfast
from tests.cli.test_get import put
from tests.merkledag.support import Blocks

Tree = Callable[..., Path]


class TestLs:
    def test_columns(self, holdfast: Holdfast, tree: Tree) -> None:
        root = tree({"a": b"12345", "big": bytes(2_000_000), "l": "a", "sub": {"x": b""}})
        cid = holdfast.add(root)
        ids = {row["name"]: row["cid"] for row in holdfast("ls", cid, "--json").json_lines}
        assert holdfast("ls", "-v", cid).text.splitlines() == [
            "Hash Size Name", f"{ids['a']} 5 a", f"{ids['big']} 2000000 big", f"{ids['l']} 1 l",
            f"{ids['sub']} - sub/",
        ]  # fmt: skip
        assert holdfast("ls", "--no-size", "-v", cid).text.splitlines()[::4] == [
            "Hash Name",
            f"{ids['sub']} sub/",
        ]
        bare = holdfast("ls", "--no-size", "--no-resolve-type", cid).text.splitlines()
        assert bare[3] == f"{ids['sub']} sub"
        assert holdfast("ls", "-H", cid).text.splitlines()[1] == f"{ids['big']} 2.0 MB big"
        names = [line.split()[-1] for line in holdfast("ls", "--sort-size", cid).text.splitlines()]
        assert names == ["big", "a", "l", "sub/"]
        holdfast.fails(2, "ls", "--sort-size", "--stream", cid)
        holdfast.fails(2, "ls", "--sort-size", "--no-size", cid)

    def test_modes_and_times(self, holdfast: Holdfast, tree: Tree) -> None:
        root = tree({"run": b"#!", "sub": {}, "plain": b""})
        (root / "run").chmod(0o4755)
        (root / "sub").chmod(0o1777)
        for path in (root / "run", root / "sub"):
            os.utime(path, ns=(0, 1_592_217_000_500_000_000))
        cid = holdfast.add(root, "--preserve-mode", "--preserve-mtime")
        lines = holdfast("ls", "--long", "--headers", cid).text.splitlines()
        assert lines[0] == "Mode Hash Size ModTime Name"
        assert [line.split()[0] for line in lines[2:]] == ["-rwsr-xr-x", "drwxrwxrwt"]
        assert lines[2].endswith(" 2 Jun 15  2020 run")
        assert lines[3].endswith(" - Jun 15  2020 sub/")
        row = holdfast("ls", cid, "--json").json_lines[1]
        assert (row["mode"], row["mtime"], row["target"]) == ("4755", "1592217000.500000000", None)
        plain = holdfast.add(tree({"f": b"x"}, "other"))
        assert holdfast("ls", "-l", plain).text.split()[::2] == ["-", "1", "f"]

    def test_several_paths(self, holdfast: Holdfast, tree: Tree) -> None:
        cid = holdfast.add(tree({"a": {"x": b"1"}, "b": {"y": b"22"}}))
        lines = holdfast("ls", f"{cid}/a", f"{cid}/b").text.splitlines()
        assert (lines[0], lines[2], lines[3]) == (f"{cid}/a:", "", f"{cid}/b:")
        assert [row["path"] for row in holdfast("ls", f"{cid}/a", f"{cid}/b", "--json").json_lines] == [
            f"{cid}/a", f"{cid}/b",
        ]  # fmt: skip

    def test_a_flat_folder_is_sorted_unless_streamed(self, holdfast: Holdfast) -> None:
        blocks = Blocks()
        leaf = blocks.put(b"leaf", RAW)
        names = ["b", "a", "ż", "Z", "\udcff"]
        cid = blocks.put_node([PBLink(leaf, name, 4) for name in names], Data(Kind.DIRECTORY))
        put(holdfast, blocks)
        assert [row["name"] for row in holdfast("ls", cid, "--json").json_lines] == [
            "Z",
            "a",
            "b",
            "ż",
            "\udcff",
        ]
        assert [row["name"] for row in holdfast("ls", "-s", cid, "--json").json_lines] == names

    def test_a_hamt_is_printed_while_it_is_read(self, holdfast: Holdfast) -> None:
        """Its last shards are missing: what comes before them is printed all the same."""
        blocks = Blocks()
        leaf = blocks.put(b"leaf", RAW)
        link, made = build_directory(
            UNIXFS_V1_2025, [DirEntry(f"f{n}", leaf, 4) for n in range(20_000)], hamt="always"
        )
        blocks.add(made)
        shards = [b.cid for b in made if b.cid != link.cid]
        for cid in shards[len(shards) // 2 :]:
            blocks.by_cid.pop(cid, None)
        put(holdfast, blocks)
        result = holdfast("ls", link.cid, code=3)
        assert 2_000 < len(result.stdout.splitlines()) < 18_000

    def test_one_broken_entry_does_not_hide_the_others(self, holdfast: Holdfast) -> None:
        blocks = Blocks()
        leaf, broken = blocks.put(b"leaf", RAW), blocks.put(b"\xff\xff\xff")
        cid = blocks.put_node(
            [PBLink(broken, "a", 3), PBLink(leaf, "b", 4), PBLink(CID.of(b"", 0x70), "c", 1)],
            Data(Kind.DIRECTORY),
        )
        put(holdfast, blocks)
        result = holdfast("ls", cid, code=4)
        assert [line.split()[1:] for line in result.text.splitlines()] == [["-", "a"], ["4", "b"], ["-", "c"]]
        assert "holdfast: a: dag-pb" in result.stderr

    def test_names_cannot_command_the_terminal(self, holdfast: Holdfast) -> None:
        blocks = Blocks()
        cid = blocks.put_node([PBLink(blocks.put(b"x", RAW), "\x1b[2J\n\udcff", 1)], Data(Kind.DIRECTORY))
        put(holdfast, blocks)
        assert holdfast("ls", cid).text.endswith(" 1 \\x1b[2J\\n\\udcff")


class TestCat:
    def test_several_files_are_one_stream(self, holdfast: Holdfast, tree: Tree) -> None:
        cid = holdfast.add(tree({"a": b"0123", "b": b"", "c": b"456789"}))
        paths = [f"{cid}/{name}" for name in "abc"]
        assert holdfast("cat", *paths).stdout == b"0123456789"
        for start in range(12):
            for length in (0, 1, 5, 20):
                got = holdfast("cat", *paths, "-o", start, "-l", length).stdout
                assert got == b"0123456789"[start : start + length], (start, length)
        holdfast.fails(3, "cat", paths[0], f"{cid}/none")
        result = holdfast("cat", paths[0], cid, code=4)
        assert (result.stdout, "is a UnixFS directory" in result.stderr) == (b"", True)

    def test_json_of_files_of_any_length(self, holdfast: Holdfast, tree: Tree) -> None:
        data = {"a": b"", "b": os.urandom(1), "c": os.urandom(2_500_001)}
        cid = holdfast.add(tree(data))
        rows = holdfast("cat", "--json", *(f"{cid}/{name}" for name in data)).json_lines
        assert [base64.b64decode(row["base64"]) for row in rows] == list(data.values())
        assert [row["size_bytes"] for row in rows] == [0, 1, 2_500_001]


class TestStat:
    def test_sizes_and_links(self, holdfast: Holdfast, tree: Tree) -> None:
        root = tree({"f": bytes(2_000_000), "sub": {"x": b"1"}})
        cid = holdfast.add(root)
        file = holdfast("stat", f"{cid}/f", "--json").json
        assert (file["links"], file["cumulative_bytes"] - file["block_bytes"]) == (2, 2_000_000)
        folder = holdfast("stat", cid, "--json").json
        assert folder["links"] == 2
        assert folder["cumulative_bytes"] == folder["size_bytes"] > 2_000_000
        leaf = holdfast("stat", f"{cid}/sub/x", "--json").json
        assert (leaf["kind"], leaf["links"], leaf["cumulative_bytes"]) == ("raw", 0, 1)
        value = holdfast("dag", "put", "-", stdin=b'{"a":{"/":"%s"}}' % cid.encode()).text
        other = holdfast("stat", value, "--json").json
        assert (other["kind"], other["links"], other["cumulative_bytes"]) == ("other", 1, None)

    def test_what_is_here(self, holdfast: Holdfast) -> None:
        blocks = Blocks()
        here, absent = blocks.put(b"here", RAW), CID.of(b"absent")
        cid = blocks.put_file([(here, 4), (absent, 6), (here, 4)])
        put(holdfast, blocks)
        part = holdfast("stat", cid, "--with-local", "--json").json
        assert (part["local"], part["local_blocks"]) == (False, 2)
        assert part["local_bytes"] == part["block_bytes"] + 4
        assert holdfast("stat", here, "--with-local", "--json").json["local"] is True
        assert "local: true" in holdfast("stat", here, "--with-local").text.splitlines()
        assert "local" not in holdfast("stat", cid, "--json").json


@pytest.mark.parametrize(
    ("when", "expected"),
    [
        (Mtime(5), "5.000000000"),
        (Mtime(-2, 250_000_000), "-1.750000000"),
        (Mtime(-1, 999_999_999), "-0.000000001"),
    ],
)
def test_times_in_json(when: Mtime, expected: str) -> None:
    assert when.decimal == expected


def test_times_for_people() -> None:
    now = 1_700_000_000.0  # 14 November 2023
    assert short_time(Mtime(1_699_000_000), now) == "Nov 03 08:26"
    assert short_time(Mtime(1_600_000_000), now) == "Sep 13  2020"
    assert short_time(Mtime(1_800_000_000), now) == "Jan 15  2027"
    assert short_time(Mtime(2**62), now) == f"{2**62}.000000000"


@pytest.mark.parametrize(
    ("mode", "kind", "expected"),
    [
        (0o644, "file", "-rw-r--r--"), (0o7777, "directory", "drwsrwsrwt"), (0o7000, "symlink", "l--S--S--T"),
        (0, "raw", "----------"), (None, "file", "-"),
    ],
)  # fmt: skip
def test_modes_for_people(mode: int | None, kind: str, expected: str) -> None:
    facts = NodeStat(CID.of(b""), "file", 0, 0, mode=mode)
    assert mode_letters(facts._replace(kind=kind)) == expected  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 kB"),
        (2_000_000, "2.0 MB"),
        (234_000_000, "234 MB"),
        (10**24, "1000000 EB"),
    ],
)
def test_sizes_for_people(size: int, expected: str) -> None:
    assert si_text(size) == expected
