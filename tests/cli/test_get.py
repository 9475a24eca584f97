"""`get` into archives and pipes, interrupted, out of room, and from the network."""

from __future__ import annotations

import gzip
import io
import json
import os
import resource
import shutil
import signal
import stat
import subprocess
import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Literal

import pytest

from cli.exporting import KEEP_BYTES, Exported, export
from cli.getting import Form
from cli.gzipping import PIECE_BYTES, GzipWriter
from cli.output import CommandError, meter
from cli.part import Part
from cli.reading import FETCHERS, Far, Reader
from merkledag.builder import build_file
from merkledag.cid import CID
from merkledag.codecs import RAW
from merkledag.profile import UNIXFS_V0_2015
from merkledag.reader import read_file
from merkledag.steps import iterate
from storage_node.blockstore.store import open_store
from tests.cli.conftest import Holdfast
from tests.merkledag.support import Blocks
from tests.merkledag.test_tree import folder as make_folder

Tree = Callable[..., Path]
MIB = 1 << 20


def members(data: bytes) -> dict[str, tarfile.TarInfo]:
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        return {member.name: member for member in archive}


@pytest.fixture
def mixed(tree: Tree) -> Path:
    root = tree({"a": b"", "big": os.urandom(2 * MIB + 5), "sub": {"é" * 60: b"2", "l": "é"}, "empty": {}})
    (root / "big").chmod(0o750)
    for path in (root / "big", root / "sub"):
        os.utime(path, ns=(0, 1_500_000_000_123_456_789))
    return root


class TestArchives:
    def test_a_folder_as_tar_is_what_tar_makes_of_it(
        self, holdfast: Holdfast, mixed: Path, tmp_path: Path
    ) -> None:
        cid = holdfast.add(mixed, "--preserve-mode", "--preserve-mtime")
        done = holdfast("get", cid, "-a", "-o", tmp_path / "x.tar", "--json").json
        assert (done["path"], done["files"], done["symlinks"]) == (str(tmp_path / "x.tar"), 3, 1)
        assert done["size_bytes"] == 2 * MIB + 6
        subprocess.run(["tar", "-xf", tmp_path / "x.tar", "-C", tmp_path], check=True)
        holdfast("get", cid, "-o", tmp_path / "plain")
        for path in sorted((tmp_path / "plain").rglob("*")):
            other = tmp_path / cid / path.relative_to(tmp_path / "plain")
            assert stat.S_IFMT(other.lstat().st_mode) == stat.S_IFMT(path.lstat().st_mode)
            assert path.is_symlink() or path.is_dir() or other.read_bytes() == path.read_bytes()
            if path.name in {"big", "sub"}:
                assert other.stat().st_mtime_ns == path.stat().st_mtime_ns == 1_500_000_000_123_456_789
                assert other.stat().st_mode == path.stat().st_mode
        assert sum(1 for _ in (tmp_path / cid).rglob("*")) == 6

    def test_names_and_endings_are_kubos(
        self, holdfast: Holdfast, mixed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        cid = holdfast.add(mixed)
        monkeypatch.chdir(tmp_path)
        for options, name in (
            (("-a",), "sub.tar"),
            (("-a", "-C"), "sub.tar.gz"),
            (("-C", "--force"), "sub.tar.gz"),
            (("-a", "-o", "here"), "here.tar"),
            (("-a", "-C", "-o", "x.tar"), "x.tar.gz"),
            (("-a", "-C", "-o", "x.tgz"), "x.tgz"),
            (("-a", "-o", "y.tar.gz"), "y.tar.gz"),
        ):
            assert holdfast("get", f"{cid}/sub", *options, "--json").json["path"] == name
            data = Path(name).read_bytes()
            assert data.startswith(b"\x1f\x8b") == ("-C" in options)
            found = members(data)
            assert sorted(found) == ["sub", "sub/l", "sub/" + "é" * 60]
            assert found["sub/l"].linkname == "é"
        holdfast("get", f"{cid}/big", "-C")
        assert gzip.decompress(Path("big.gz").read_bytes()) == (mixed / "big").read_bytes()
        assert "exists" in holdfast.fails(4, "get", f"{cid}/big", "-C")
        holdfast("get", f"{cid}/big", "-C", "--force")
        Path("f.tar").mkdir()
        assert "is a folder" in holdfast.fails(4, "get", f"{cid}/big", "-a", "-o", "f.tar", "--force")
        assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == []

    def test_to_stdout(self, holdfast: Holdfast, mixed: Path) -> None:
        cid = holdfast.add(mixed)
        found = members(holdfast("get", f"{cid}/sub", "-o", "-").stdout)
        assert sorted(found) == ["sub", "sub/l", "sub/" + "é" * 60]
        assert {member.mtime for member in found.values()} == {0}
        packed = holdfast("get", f"{cid}/big", "-o", "-", "-C", "-l", "1").stdout
        assert members(gzip.decompress(packed))["big"].size == 2 * MIB + 5
        holdfast.fails(2, "get", cid, "-o", "-", "--json")
        holdfast.fails(2, "get", cid, "-C", "-l", "10")
        holdfast.fails(2, "get", cid, "-C", "-l", "0")

    def test_equal_content_gives_equal_bytes(self, holdfast: Holdfast, mixed: Path, tmp_path: Path) -> None:
        cid = holdfast.add(mixed)
        for name in ("1.tgz", "2.tgz"):
            holdfast("get", cid, "-a", "-C", "-o", tmp_path / name)
        assert (tmp_path / "1.tgz").read_bytes() == (tmp_path / "2.tgz").read_bytes()

    def test_a_block_that_is_missing_leaves_no_archive(self, holdfast: Holdfast, tmp_path: Path) -> None:
        blocks = Blocks()
        cid = blocks.put_file([(blocks.put(bytes(MIB), RAW), MIB), (CID.of(b"absent"), 6)])
        put(holdfast, blocks)
        before = set(tmp_path.iterdir())
        assert str(CID.of(b"absent")) in holdfast.fails(3, "get", cid, "-a", "-o", tmp_path / "x")
        assert set(tmp_path.iterdir()) == before

    @pytest.mark.parametrize(
        "size", [0, 1, PIECE_BYTES - 1, PIECE_BYTES, PIECE_BYTES + 1, 3 * PIECE_BYTES + 7]
    )
    @pytest.mark.parametrize("level", [1, 6, 9])
    def test_gzip_of_any_length(self, size: int, level: int) -> None:
        data = (b"holdfast " * (size // 9 + 1))[:size]
        for step in (size or 1, 100_003):
            parts: list[bytes] = []
            packer = GzipWriter(parts.append, level)
            for at in range(0, size, step):
                packer.write(memoryview(data)[at : at + step])
            packer.finish()
            packed = b"".join(parts)
            assert gzip.decompress(packed) == data
            assert packed[4:8] == bytes(4)  # no time
            assert len(packed) < 100 + size // 50


def put(holdfast: Holdfast, blocks: Blocks) -> None:
    """Blocks made by hand into the store."""
    if not holdfast.home.exists():
        holdfast("init")
        holdfast("repo", "stat")
    store = open_store(holdfast.home / "blocks", reserve_bytes=0)
    store.put_many((cid.multihash, data) for cid, data in blocks.by_cid.items())
    store.close()


def large(blocks: Blocks, chunks: int) -> tuple[CID, list[CID]]:
    """A file of different leaves of one MiB, and those leaves."""
    leaves = [blocks.put(n.to_bytes(4, "big") * (MIB // 4), RAW) for n in range(chunks)]
    return blocks.put_file([(leaf, MIB) for leaf in leaves]), leaves


def get(blocks: Blocks, cid: CID, target: Path) -> Exported:
    return export(Reader(blocks), cid, target, force=False, meter=meter("", None, wanted=False))


class Failing(Blocks):
    """Raises `error` at the block `at`."""

    def __init__(self, blocks: Blocks, at: CID, error: BaseException) -> None:
        super().__init__()
        self.by_cid = blocks.by_cid
        self._at = at
        self._error = error

    def get(self, cid: CID) -> bytes:
        if cid == self._at:
            raise self._error
        return super().get(cid)


def parts(folder: Path) -> list[Path]:
    return [path for path in folder.iterdir() if path.name.endswith(".part")]


class TestInterruptions:
    @pytest.mark.parametrize("error", [KeyboardInterrupt(), TimeoutError("slow"), ConnectionResetError()])
    def test_what_was_written_is_taken_up_again(
        self, tmp_path: Path, error: BaseException, capsys: pytest.CaptureFixture[str]
    ) -> None:
        blocks = Blocks()
        file, leaves = large(blocks, 6)
        small = blocks.put(b"small", RAW)
        folder = make_folder(blocks, ("a", small), ("d", make_folder(blocks, ("f", file))), ("z", small))
        with pytest.raises(type(error)):
            get(Failing(blocks, leaves[4], error), folder, tmp_path / "x")
        assert not (tmp_path / "x").exists()
        (part,) = parts(tmp_path)
        assert str(part) in capsys.readouterr().err
        assert part.stat().st_mode & 0o777 == 0o700
        blocks.asked.clear()
        done = get(blocks, folder, tmp_path / "x")
        assert (done.kept_bytes, done.size_bytes) == (4 * MIB + 5, 6 * MIB + 10)
        assert set(leaves) & set(blocks.asked) == set(leaves[4:])
        assert (tmp_path / "x" / "d" / "f").read_bytes() == b"".join(blocks.by_cid[leaf] for leaf in leaves)
        assert sorted(path.name for path in (tmp_path / "x").rglob("*")) == ["a", "d", "f", "z"]
        assert parts(tmp_path) == []

    @pytest.mark.parametrize("layout", ["balanced", "trickle"])
    def test_leaves_that_are_nodes_are_taken_up_too(
        self, tmp_path: Path, layout: Literal["balanced", "trickle"]
    ) -> None:
        chunks = [bytes([number]) * (256 << 10) for number in range(8)]
        link, made = build_file(replace(UNIXFS_V0_2015, layout=layout), chunks)
        blocks = Blocks(made)
        leaves = [cid for cid in blocks.by_cid if cid != link.cid]
        with pytest.raises(KeyboardInterrupt):
            get(Failing(blocks, leaves[6], KeyboardInterrupt()), link.cid, tmp_path / "x")
        blocks.asked.clear()
        done = get(blocks, link.cid, tmp_path / "x")
        assert (done.kept_bytes, done.size_bytes) == (6 * (256 << 10), 8 * (256 << 10))
        assert set(leaves) & set(blocks.asked) == set(leaves[6:])
        assert (tmp_path / "x").read_bytes() == b"".join(chunks)

    def test_what_was_damaged_meanwhile_is_written_again(self, tmp_path: Path) -> None:
        blocks = Blocks()
        file, leaves = large(blocks, 4)
        with pytest.raises(KeyboardInterrupt):
            get(Failing(blocks, leaves[3], KeyboardInterrupt()), file, tmp_path / "x")
        (part,) = parts(tmp_path)
        with (part / "content").open("r+b") as grown:
            grown.seek(MIB + 77)
            grown.write(b"damage")
            grown.seek(0, os.SEEK_END)
            grown.write(bytes(5 * MIB))
        done = get(blocks, file, tmp_path / "x")
        assert done.kept_bytes == 2 * MIB
        assert (tmp_path / "x").read_bytes() == b"".join(blocks.by_cid[leaf] for leaf in leaves)

    def test_little_or_hopeless_work_is_not_kept(self, tmp_path: Path) -> None:
        blocks = Blocks()
        file, leaves = large(blocks, 3)
        assert KEEP_BYTES <= MIB
        for at, error in ((leaves[0], KeyboardInterrupt()), (leaves[2], KeyError("gone"))):
            with pytest.raises(type(error)):
                get(Failing(blocks, at, error), file, tmp_path / "x")
            assert list(tmp_path.iterdir()) == []

    def test_two_at_once_do_not_mix(self, tmp_path: Path) -> None:
        blocks = Blocks()
        file, _ = large(blocks, 1)
        other = Part(tmp_path / "x", str(file))
        with pytest.raises(CommandError, match="another command"):
            get(blocks, file, tmp_path / "x")
        other.release()
        get(blocks, file, tmp_path / "x")

    @pytest.mark.parametrize("kind", ["symlink", "file", "open"])
    def test_a_part_that_others_prepared_is_not_used(self, tmp_path: Path, kind: str) -> None:
        """In a folder like /tmp anybody can make what bears the name of our part."""
        blocks = Blocks()
        file, _ = large(blocks, 1)
        part = Part(tmp_path / "x", str(file))
        path = part.path
        part.discard()
        (tmp_path / "outside").mkdir()
        if kind == "symlink":
            path.symlink_to(tmp_path / "outside")
        elif kind == "file":
            path.write_bytes(b"")
        else:
            path.mkdir()
            path.chmod(0o777)
        with pytest.raises(CommandError, match="remove it"):
            get(blocks, file, tmp_path / "x")
        assert list((tmp_path / "outside").iterdir()) == []

    def test_links_in_a_part_are_not_followed(self, tmp_path: Path) -> None:
        blocks = Blocks()
        file, _ = large(blocks, 1)
        root = make_folder(blocks, ("f", file), ("d", make_folder(blocks, ("f", file))))
        (tmp_path / "precious").write_bytes(b"mine")
        for name, target in (("f", "precious"), ("d", ".")):
            part = Part(tmp_path / "x", str(root))
            (part.content).mkdir()
            (part.content / name).symlink_to(tmp_path / target)
            part.release()
            with pytest.raises(CommandError, match="two entries"):
                get(blocks, root, tmp_path / "x")
        assert (tmp_path / "precious").read_bytes() == b"mine"
        assert sorted(path.name for path in tmp_path.iterdir()) == ["precious"]

    @pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
    def test_processes_that_are_stopped(
        self, holdfast: Holdfast, tmp_path: Path, how: signal.Signals
    ) -> None:
        blocks = Blocks()
        file, _ = large(blocks, 2)
        whole = blocks.put_file([(file, 2 * MIB)] * 400)
        put(holdfast, blocks)
        folder = tmp_path / "out"
        folder.mkdir()
        child = holdfast.process("get", whole, "-o", folder / "x")
        while not any(path.stat().st_size > 8 * MIB for path in folder.glob(".*.part/content")):
            assert child.poll() is None
        child.send_signal(how)
        _, err = child.communicate(timeout=60)
        assert child.returncode == (130 if how is signal.SIGINT else -how)
        assert (b"kept" in err) == (how is signal.SIGINT)
        assert b"Traceback" not in err
        (part,) = folder.iterdir()
        content = part / "content"
        with content.open("r+b") as grown:  # the test need not write the whole 800 MiB
            grown.truncate(8 * MIB)
        assert all(content.read_bytes()[at * MIB :][:4] == (at % 2).to_bytes(4, "big") for at in range(8))
        shutil.rmtree(part)


class TestRoom:
    def test_a_file_that_cannot_fit_is_refused_at_once(self, holdfast: Holdfast, tmp_path: Path) -> None:
        blocks = Blocks()
        cid, size = blocks.put(bytes(1024), RAW), 1024
        for _ in range(5):
            cid, size = blocks.put_file([(cid, size)] * 1024), size * 1024
        put(holdfast, blocks)
        for options in ((), ("-a",)):
            assert "do not fit" in holdfast.fails(6, "get", cid, "-o", tmp_path / "x", *options)
        assert not list(tmp_path.glob("x*"))
        assert parts(tmp_path) == []

    @pytest.mark.parametrize("options", [(), ("-a",)])
    def test_a_disk_that_fills_up(
        self, holdfast: Holdfast, tree: Tree, tmp_path: Path, options: tuple[str, ...]
    ) -> None:
        cid = holdfast.add(tree({"f": os.urandom(3 * MIB)}))
        folder = tmp_path / "out"
        folder.mkdir()

        def full() -> None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (2 * MIB, 2 * MIB))

        child = holdfast.process("get", cid, "-o", folder / "x", *options, preexec_fn=full)
        _, err = child.communicate(timeout=60)
        assert child.returncode == 6, err
        assert b"removed again" in err
        assert list(folder.iterdir()) == []


class TestMerging:
    def test_nothing_is_moved_where_one_thing_does_not_fit(
        self, holdfast: Holdfast, tree: Tree, tmp_path: Path
    ) -> None:
        cid = holdfast.add(tree({"a": b"new", "z": {"x": b"new"}}))
        target = tree({"a": b"old", "z": b"a file"}, "target")
        holdfast.fails(4, "get", cid, "-o", target, "--force")
        assert (target / "a").read_bytes() == b"old"

    def test_devices_and_pipes_are_never_replaced(
        self, holdfast: Holdfast, tree: Tree, tmp_path: Path
    ) -> None:
        cid = holdfast.add(tree({"a": b"new"}))
        target = tree({}, "target")
        os.mkfifo(target / "a")
        for path, into in ((f"{cid}/a", target / "a"), (cid, target)):
            assert "not replaced" in holdfast.fails(4, "get", path, "-o", into, "--force")
        assert (target / "a").is_fifo()

    def test_targets_that_cannot_be(self, holdfast: Holdfast, tree: Tree, tmp_path: Path) -> None:
        cid = holdfast.add(tree({"a": b"new"}))
        (tmp_path / "file").write_bytes(b"")
        for options in ((), ("-a",)):
            assert "no folder" in holdfast.fails(4, "get", cid, "-o", tmp_path / "file" / "x", *options)
            assert "255" in holdfast.fails(4, "get", cid, "-o", tmp_path / ("x" * 256), *options)

    def test_folders_that_forbid_writing_arrive_so(
        self, holdfast: Holdfast, tree: Tree, tmp_path: Path
    ) -> None:
        root = tree({"sub": {"x": b"1"}, "y": b"2"})
        for path in (root / "sub", root):
            path.chmod(0o555)
            os.utime(path, ns=(0, 10**18))
        cid = holdfast.add(root, "--preserve-mode", "--preserve-mtime")
        holdfast("get", cid, "-o", tmp_path / "new")
        tree({"y": b"old"}, "old")
        holdfast("get", cid, "-o", tmp_path / "old", "--force")
        for path in (tmp_path / "new", tmp_path / "new" / "sub", tmp_path / "old" / "sub"):
            assert (path.stat().st_mode & 0o777, path.stat().st_mtime_ns) == (0o555, 10**18)
        assert (tmp_path / "old" / "y").read_bytes() == b"2"
        for path in (
            root,
            root / "sub",
            tmp_path / "new",
            tmp_path / "new" / "sub",
            tmp_path / "old" / "sub",
        ):
            path.chmod(0o700)


class TestReadingAhead:
    def test_announced_blocks_are_fetched_by_several_connections_and_used(self) -> None:
        blocks = Blocks()
        file, leaves = large(blocks, 40)
        here = {file, leaves[3]}
        connections: list[Blocks] = []

        def connect() -> Blocks:
            source = Blocks()
            source.by_cid = blocks.by_cid
            connections.append(source)
            return source

        near = Blocks()
        near.by_cid = blocks.by_cid
        reader = Reader(near, Far(here.__contains__, connect))
        data = b"".join(reader.iterate(read_file(file)))
        assert data == b"".join(iterate(read_file(file), blocks.get))
        fetched = [cid for source in connections for cid in source.asked]
        assert sorted(fetched) == sorted(set(leaves[1:]) - here)  # each once, and nothing that is here
        assert near.asked == [file, leaves[0], leaves[3]]
        assert 1 <= len(connections) <= FETCHERS

    def test_an_error_of_a_fetch_arrives_where_the_block_is_needed(self) -> None:
        blocks = Blocks()
        file, leaves = large(blocks, 4)
        reader = Reader(
            blocks, Far(lambda _: False, lambda: Failing(blocks, leaves[2], TimeoutError("late")))
        )
        pieces = reader.iterate(read_file(file))
        assert [bytes(next(pieces)) for _ in range(2)] == [blocks.by_cid[leaf] for leaf in leaves[:2]]
        with pytest.raises(TimeoutError, match="late"):
            next(pieces)

    def test_from_a_gateway_that_has_what_the_store_has_not(
        self, holdfast: Holdfast, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        blocks = Blocks()
        file, _ = large(blocks, 12)
        put(holdfast, blocks)
        with holdfast.process("gateway", "--listen", "127.0.0.1:0", "--json") as gateway:
            try:
                assert gateway.stdout is not None
                assert json.loads(gateway.stdout.readline())
                monkeypatch.setenv("HOLDFAST_HOME", str(tmp_path / "other"))
                holdfast("init")
                (tmp_path / "other" / "run" / "gateway.json").write_bytes(
                    (holdfast.home / "run" / "gateway.json").read_bytes()
                )
                holdfast("get", file, "-o", tmp_path / "x")
                assert (tmp_path / "x").stat().st_size == 12 * MIB
                assert CID.of((tmp_path / "x").read_bytes()[-MIB:]) in blocks.by_cid
            finally:
                gateway.send_signal(signal.SIGINT)


def test_forms() -> None:
    assert not Form().is_stream
    assert Form(archive=True).named("a") == "a.tar"
    assert Form(level=6).named("a.gz") == "a.gz"
