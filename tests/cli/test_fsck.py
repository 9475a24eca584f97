"""`repo fsck` on files whose pages are damaged: it says what is wrong, and `--repair` makes new files."""

from __future__ import annotations

import random
from pathlib import Path

from cli.home import Home
from storage_node.blockstore.page_survey import survey
from storage_node.blockstore.pages import PageFile
from tests.cli.conftest import Holdfast
from tests.cli.test_backup import a_node_with_a_piece


def branches(path: Path) -> list[int]:
    with PageFile(path) as file:
        found = survey(file)
        return [page for page in found.used if file.page(page)[10:12] == b"\1\0"]


def zero(path: Path, pages: list[int]) -> None:
    with path.open("r+b") as file:
        for page in pages:
            file.seek(4096 * page)
            file.write(bytes(4096))


def test_a_damaged_tree_of_blocks_is_named_and_made_anew(holdfast: Holdfast, tmp_path: Path) -> None:
    data = random.Random("fsck").randbytes(1_000_000)
    (tmp_path / "file").write_bytes(data)
    root = holdfast("add", "-Q", "--chunker=size-3000", str(tmp_path / "file")).stdout.decode().strip()
    path = holdfast.home / "blocks" / "shard-01.1.mdb"
    zero(path, branches(path))
    found = holdfast("repo", "fsck", "--json", code=4)
    assert found.json["counts"]["file"] >= 1
    assert {each["file"] for each in found.json["findings"]} == {path.name}
    assert all(each["repairable"] for each in found.json["findings"])
    assert "--repair" in holdfast("repo", "fsck", code=4).stderr
    repaired = holdfast("repo", "fsck", "--repair", "--json")
    (done,) = repaired.json["salvaged"]
    assert (done["lost_blocks"], done["old_blocks"], done["unaccounted_blocks"]) == (0, 0, 0)
    assert Path(done["aside"]).name == "shard-01.1.damaged"
    assert repaired.json["counts"] == {"aside": 1}
    assert holdfast("cat", root).stdout == data
    assert holdfast("repo", "gc", "--json").json["freed_blocks"] == 0
    Path(done["aside"]).unlink()
    assert holdfast("repo", "fsck", "--json").json["clean"]


def test_a_damaged_piece_file_is_named_and_made_anew_from_its_blocks(holdfast: Holdfast) -> None:
    holdfast("init")
    with Home.locate() as home:
        a_node_with_a_piece(home)
    (path,) = home.pieces.iterdir()
    whole = path.read_bytes()
    holdfast("repo", "fsck")
    for damaged in (whole[:-1], whole[:-1] + b"x", whole[:400] + b"junk" + whole[404:]):
        path.write_bytes(damaged)
        assert path.name in holdfast("repo", "fsck", code=4).stderr
        assert "damaged" in holdfast("repo", "gc", code=4).stderr  # what it needs cannot be told
        mended = holdfast("repo", "fsck", "--repair")
        assert "made anew from its blocks" in mended.stderr
        assert path.read_bytes() == whole
        holdfast("repo", "fsck")
    path.write_bytes(whole[:30] + b"junk" + whole[34:])
    assert "its node makes it anew" in holdfast("repo", "fsck", "--repair", code=4).stderr


def test_lost_blocks_and_lost_records_are_told(holdfast: Holdfast, tmp_path: Path) -> None:
    data = random.Random("lost").randbytes(300_000)
    (tmp_path / "file").write_bytes(data)
    root = holdfast("add", "-Q", "--chunker=size-3000", str(tmp_path / "file")).stdout.decode().strip()
    for name in ("blocks/shard-02.1.mdb", "meta/meta-00.1.mdb"):
        path = holdfast.home / name
        zero(path, list(range(2, path.stat().st_size // 4096)))
    done = holdfast("repo", "fsck", "--repair", "--json", code=4)
    assert "missing" in done.stderr
    records, blocks = done.json["salvaged"]
    assert (records["pins"], records["may_lack_records"]) == (0, True)
    assert blocks["blocks"] == 0
    assert "--accept-loss" in holdfast("repo", "gc", code=4).stderr
    assert holdfast("repo", "gc", "--dry-run", "--json").json["freed_blocks"] > 0
    again = holdfast("add", "-Q", "--chunker=size-3000", str(tmp_path / "file")).stdout.decode().strip()
    assert again == root
    assert holdfast("repo", "gc", "--accept-loss", "--json").json["freed_blocks"] == 0
    assert holdfast("cat", root).stdout == data
    assert holdfast("repo", "gc", "--json").json["freed_blocks"] == 0
