"""Red-team 25: content that tries to write outside the target of `get`."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cli.exporting import export, safe_name
from cli.output import CommandError, meter
from cli.reading import Reader
from merkledag import dag_pb, unixfs
from merkledag.block import Block
from merkledag.builder import build_symlink
from merkledag.cid import CID
from merkledag.codecs import DAG_PB
from merkledag.dag_pb import PBLink, PBNode
from merkledag.errors import LimitExceeded
from merkledag.profile import UNIXFS_V1_2025
from merkledag.tree import MAX_TREE_DEPTH
from merkledag.unixfs import Data, Kind


class Blocks:
    """A source in memory, and hand-made folders that no builder of ours would make."""

    def __init__(self) -> None:
        self.blocks: dict[CID, bytes] = {}

    def get(self, cid: CID) -> bytes:
        return self.blocks[cid]

    def file(self, data: bytes) -> CID:
        return self._put(Block(CID.of(data), data))

    def symlink(self, target: str) -> CID:
        return self._put(build_symlink(UNIXFS_V1_2025, target)[1])

    def folder(self, *entries: tuple[str, CID]) -> CID:
        links = tuple(PBLink(cid, name, 1) for name, cid in entries)
        data = dag_pb.encode(PBNode(links, unixfs.encode(Data(Kind.DIRECTORY))))
        return self._put(Block(CID.of(data, DAG_PB), data))

    def _put(self, block: Block) -> CID:
        self.blocks[block.cid] = block.data
        return block.cid


@pytest.fixture
def blocks() -> Blocks:
    return Blocks()


@pytest.fixture
def outside(tmp_path: Path) -> Iterator[Path]:
    """A folder beside the target that must stay as it is."""
    folder = tmp_path / "outside"
    folder.mkdir()
    (folder / "precious").write_bytes(b"mine")
    yield folder
    assert [(p.name, p.read_bytes()) for p in folder.iterdir()] == [("precious", b"mine")]


def get(blocks: Blocks, cid: CID, target: Path) -> list[tuple[str, str]]:
    """Exports and returns what was left out; nothing may appear beside the target."""
    beside = {p.name for p in target.parent.iterdir()}
    try:
        return export(Reader(blocks), cid, target, force=False, meter=meter("", None, wanted=False)).left_out
    finally:
        assert {p.name for p in target.parent.iterdir()} - beside <= {target.name}


@pytest.mark.parametrize(
    "name",
    ["..", ".", "", "/", "/etc/passwd", "../x", "a/../../x", "a/b", "x\0y", "..\0", "é" * 200],
)
def test_names_that_lead_elsewhere_are_refused_and_nothing_is_written(
    blocks: Blocks, tmp_path: Path, outside: Path, name: str
) -> None:
    root = blocks.folder(("ok", blocks.file(b"1")), (name, blocks.file(b"evil")))
    with pytest.raises(CommandError) as caught:
        get(blocks, root, tmp_path / "target")
    assert caught.value.code == 4
    assert "\n" not in str(caught.value)
    assert "\0" not in str(caught.value)
    assert not (tmp_path / "target").exists()


def test_odd_names_that_are_only_names_are_kept(blocks: Blocks, tmp_path: Path) -> None:
    names = ["...", "..a", "%2e%2e", "a\\..\\b", "-rf", "~", "a b", "\x1b[2J", "CON", "𝓊"]
    root = blocks.folder(*((name, blocks.file(name.encode())) for name in names))
    get(blocks, root, tmp_path / "target")
    assert {p.name: p.read_bytes() for p in (tmp_path / "target").iterdir()} == {n: n.encode() for n in names}


def test_of_two_entries_with_one_name_the_first_counts(blocks: Blocks, tmp_path: Path, outside: Path) -> None:
    """Nothing is ever written through a symlink that the same content brought."""
    folder = blocks.folder(("precious", blocks.file(b"evil")))
    file = blocks.file(b"evil")
    for number, (link, second) in enumerate(
        [("../outside", folder), (".", folder), ("../outside/precious", file), ("nothing", file)]
    ):
        target = tmp_path / str(number)
        left_out = get(blocks, blocks.folder(("d", blocks.symlink(link)), ("d", second)), target)
        assert left_out == ([("d", link)] if ".." in link else [])
        assert [p.name for p in target.rglob("*") if not p.is_symlink()] == []
        get(blocks, blocks.folder(("d", second), ("d", blocks.symlink(link))), tmp_path / f"{number}-other")
        assert not (tmp_path / f"{number}-other" / "d").is_symlink()


def test_names_that_one_file_system_holds_for_the_same_are_refused(
    blocks: Blocks, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where upper and lower case do not differ, a second folder of that name is an error, never a merge."""
    real = Path.mkdir

    def folded(self: Path, mode: int = 0o777, parents: bool = False, exist_ok: bool = False) -> None:
        real(self.with_name(self.name.lower()), mode, parents, exist_ok)

    monkeypatch.setattr(Path, "mkdir", folded)
    root = blocks.folder(("D", blocks.folder()), ("d", blocks.folder()))
    with pytest.raises(CommandError, match="two entries"):
        get(blocks, root, tmp_path / "target")


@pytest.mark.parametrize(
    "target",
    ["/etc/passwd", "..", "../outside", "a/../../outside", "./../x", "../../../../../../etc", "a/..", "//x"],
)
def test_symlinks_that_lead_out_are_left_out(
    blocks: Blocks, tmp_path: Path, outside: Path, target: str
) -> None:
    root = blocks.folder(("a", blocks.folder()), ("evil", blocks.symlink(target)), ("f", blocks.file(b"1")))
    assert get(blocks, root, tmp_path / "target") == [("evil", target)]
    assert sorted(p.name for p in (tmp_path / "target").iterdir()) == ["a", "f"]


def test_a_chain_of_inner_symlinks_cannot_climb_out(blocks: Blocks, tmp_path: Path, outside: Path) -> None:
    """x/y/d leads to the root, so x/y/e = d/.. would be the root's parent, though the text looks inside."""
    inner = blocks.folder(("d", blocks.symlink("../..")), ("e", blocks.symlink("d/..")))
    root = blocks.folder(("x", blocks.folder(("y", inner))))
    assert get(blocks, root, tmp_path / "target") == [("x/y/e", "d/..")]
    assert (tmp_path / "target" / "x" / "y" / "d").resolve() == (tmp_path / "target").resolve()


@given(data=st.data())
def test_no_combination_of_symlinks_leads_out(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """Random small trees whose symlinks point at random mixtures of `..` and names that exist."""
    blocks = Blocks()
    parts = st.lists(st.sampled_from(["..", ".", "a", "b", "c", ""]), min_size=1, max_size=5).map("/".join)

    def folder(depth: int) -> CID:
        entries: list[tuple[str, CID]] = []
        for name in "abc":
            kind = data.draw(st.integers(0, 3 if depth < 3 else 2))
            if kind == 3:
                entries.append((name, folder(depth + 1)))
            elif kind:
                entries.append((name, blocks.symlink(data.draw(parts.filter(bool)))))
        return blocks.folder(*entries)

    target = tmp_path_factory.mktemp("g") / "target"
    get(blocks, folder(0), target)
    for path in target.rglob("*"):
        if path.is_symlink():
            try:
                real = path.resolve(strict=True)
            except OSError:
                continue  # dangling, or a loop
            except RuntimeError:
                continue  # a loop, as older Python versions report it
            assert real.is_relative_to(target.resolve()), f"{path} leads to {real}"


@given(st.text(max_size=12))
def test_a_safe_name_names_one_entry(name: str) -> None:
    try:
        safe_name(name)
    except (CommandError, UnicodeEncodeError):
        return
    assert os.path.basename("/x/" + name) == name  # noqa: PTH119
    assert os.path.normpath("/x/" + name) == "/x/" + name


def test_bottomless_nesting_is_refused_early(blocks: Blocks, tmp_path: Path) -> None:
    cid = blocks.folder()
    for _ in range(MAX_TREE_DEPTH + 10):
        cid = blocks.folder(("d", cid))
    with pytest.raises(LimitExceeded, match="nested"):
        get(blocks, cid, tmp_path / "target")
    assert not (tmp_path / "target").exists()
