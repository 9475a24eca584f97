"""`car`: archives out of the store and into it, and the commands on archives alone."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cli.car_export import Exporter, ExportRequest
from cli.car_input import ReadOptions, open_car
from cli.car_report import Below
from cli.output import CommandError, ExitCode
from cli.sources import LocalSource
from cli.target import Target
from merkledag import car, car_v2, varint
from merkledag.block import Block
from merkledag.builder import build_file
from merkledag.car_index import CarIndex, IndexKind
from merkledag.car_sections import CarHeader, CarSections, Section
from merkledag.cid import CID
from merkledag.codecs import DAG_CBOR, RAW
from merkledag.codecs import links as links_of
from merkledag.dag_cbor import encode
from merkledag.errors import HashMismatch
from merkledag.multihash import IDENTITY, SHA2_256
from merkledag.profile import UNIXFS_V1_2025
from storage_node.blockstore.interface import BlockRow
from storage_node.blockstore.shard import BlockView
from storage_node.blockstore.store import Store, open_store
from tests.cli.conftest import Holdfast

Tree = Callable[..., Path]
WAIT_S = 60
MIB = 1 << 20


def decoded(data: bytes) -> tuple[CarHeader, list[Block]]:
    """The header and the blocks of an archive."""
    decoder = car.CarDecoder()
    decoder.feed(data)
    header = decoder.next()
    assert isinstance(header, CarHeader)
    blocks = []
    while (item := decoder.next()) is not None:
        assert isinstance(item, Block)
        blocks.append(item)
    decoder.finish()
    return header, blocks


def archive_of(blocks: list[Block], roots: list[CID] | None = None) -> bytes:
    return car.header(roots if roots is not None else [blocks[0].cid]) + b"".join(map(car.frame, blocks))


def indexed(data: bytes, kind: IndexKind = IndexKind.SORTED) -> bytes:
    """A CARv2 around a CARv1."""
    sections, index = CarSections(), CarIndex()
    sections.feed(data)
    while (item := sections.next()) is not None:
        if isinstance(item, Section):
            index.add(item.cid, item.offset)
    return car_v2.wrap(len(data), index=True).encode() + data + index.encode(kind)


def read_all(path: Path, options: ReadOptions) -> tuple[list[Block], str]:
    """Every block of an archive, and what it says of a tail that is missing."""
    with open_car(str(path), options) as archive:
        return list(archive.blocks()), archive.truncated


def raw_blocks(count: int, size_bytes: int = 100) -> list[Block]:
    made = (b"%d" % number + bytes(size_bytes) for number in range(count))
    return [Block(CID.of(data), data) for data in made]


class TestExport:
    def test_depth_first_and_every_block_once(self, holdfast: Holdfast, tree: Tree, tmp_path: Path) -> None:
        same = os.urandom(2_500_000)
        root = holdfast.add(tree({"a": same, "b": {"c": same, "d": b"small"}}))
        holdfast("car", "export", root, "-o", tmp_path / "x.car")
        header, blocks = decoded((tmp_path / "x.car").read_bytes())
        assert header == CarHeader(1, (CID.parse(root),))
        links = holdfast("dag", "get", root).json["Links"]
        file, chunk = links[0]["Hash"]["/"], holdfast("dag", "get", links[0]["Hash"]["/"]).json["Links"][0]
        assert [str(block.cid) for block in blocks[:3]] == [root, file, chunk["Hash"]["/"]]
        assert len({block.cid for block in blocks}) == len(blocks) == 1 + 4 + 1 + 1
        again = holdfast("car", "export", root, "--dups").stdout
        assert len(decoded(again)[1]) == len(blocks) + 4

    def test_every_block_is_looked_up_once(self, tmp_path: Path) -> None:
        """Apart from the roots, whose nodes say beforehand how much will come."""

        looked_up: Counter[bytes] = Counter()

        class Counting(Store):
            def find(self, multihash: bytes) -> BlockView | None:
                looked_up[multihash] += 1
                return super().find(multihash)

            def row(self, multihash: bytes) -> BlockRow | None:
                looked_up[multihash] += 1
                return super().row(multihash)

        chunks = [os.urandom(MIB) for _ in range(12)] + [os.urandom(1000)]
        link, made = build_file(UNIXFS_V1_2025, chunks)
        store = Counting(tmp_path / "store", None, 0, time.time)
        store.put_many((block.cid.multihash, block.data) for block in made)
        looked_up.clear()
        for verify in (False, True):
            exporter = Exporter(store, LocalSource(store, verify=verify), verify=verify)
            target = tmp_path / f"{verify}.car"
            request = ExportRequest([link.cid], "all", None, dups=False, version=1, index=None)
            exporter.write(request, str(target), progress=False)
            assert [block.data for block in decoded(target.read_bytes())[1]][1:] == chunks
            assert looked_up.pop(link.cid.multihash) == 2
            assert set(looked_up.values()) == {1}
            assert len(looked_up) == len(chunks)
            looked_up.clear()
        damaged = CID.of(chunks[3]).multihash
        store.replace(damaged, bytes(MIB))
        exporter = Exporter(store, LocalSource(store, verify=True), verify=True)
        with pytest.raises(HashMismatch):
            exporter.write(request, str(tmp_path / "damaged.car"), progress=False)
        assert sorted(path.name for path in tmp_path.glob("*.car*")) == ["False.car", "True.car"]
        store.close()

    def test_scopes_and_parts(self, holdfast: Holdfast, tree: Tree) -> None:
        data = os.urandom(5_000_000)
        folder = holdfast.add(tree({"f": data, "g": b"x"}))
        file = holdfast("stat", f"{folder}/f", "--json").json["cid"]
        chunks = [link["Hash"]["/"] for link in holdfast("dag", "get", file).json["Links"]]

        def exported(*options: str, path: str = file) -> list[str]:
            return [str(block.cid) for block in decoded(holdfast("car", "export", path, *options).stdout)[1]]

        assert exported("--scope", "block") == [file]
        assert exported("--scope", "entity") == exported("--scope", "all") == [file, *chunks]
        assert exported("--scope", "entity", path=folder) == [folder]
        assert exported("--bytes", "0:0") == [file, chunks[0]]
        assert exported("--bytes", "1048575:1048576", path=f"{folder}/f") == [file, *chunks[:2]]
        assert exported("--bytes=-1:*", "--scope", "entity") == [file, chunks[4]]
        assert exported("--bytes", "2097152:-1048577") == [file, *chunks[2:4]]
        assert exported("--bytes", "9999999:*") == [file]
        assert exported("--bytes", "0:0", path=folder) == [folder]
        holdfast.fails(2, "car", "export", file, "--bytes", "5:3")
        holdfast.fails(2, "car", "export", file, "--bytes", "all")
        holdfast.fails(2, "car", "export", file, "--bytes", "0:1", "--scope", "all")
        holdfast.fails(2, "car", "export", file, "--scope", "tree")

    def test_several_roots_share_their_blocks(self, holdfast: Holdfast, tree: Tree) -> None:
        folder = holdfast.add(tree({"f": os.urandom(100_000), "g": b"x"}))
        file = holdfast("stat", f"{folder}/f", "--json").json["cid"]
        header, blocks = decoded(holdfast("car", "export", file, folder, file).stdout)
        assert [str(root) for root in header.roots] == [file, folder]
        assert len(blocks) == 3
        assert len(decoded(holdfast("car", "export", file, folder, "--dups").stdout)[1]) == 4

    @pytest.mark.parametrize("kind", ["sorted", "multihash-sorted", "none"])
    def test_version_2_is_the_same_in_a_file_and_in_a_pipe(
        self, holdfast: Holdfast, tree: Tree, tmp_path: Path, kind: str
    ) -> None:
        root = holdfast.add(tree({"f": os.urandom(3_000_000), "g": b"x", "e": b""}))
        options = ("--version", 2, "--index", kind)
        done = holdfast("car", "export", root, "-o", tmp_path / "2.car", *options, "--json").json
        whole = (tmp_path / "2.car").read_bytes()
        assert (done["version"], done["size_bytes"]) == (2, len(whole))
        assert holdfast("car", "export", root, *options).stdout == whole
        inner = holdfast("car", "export", root).stdout
        if kind == "none":
            assert whole == car_v2.wrap(len(inner), index=False).encode() + inner
        else:
            number = IndexKind.SORTED if kind == "sorted" else IndexKind.MULTIHASH_SORTED
            assert whole == indexed(inner, number)
        holdfast("car", "verify", tmp_path / "2.car")

    def test_options_that_do_not_fit(self, holdfast: Holdfast, tree: Tree, tmp_path: Path) -> None:
        root = holdfast.add(tree({"g": b"x"}))
        for options in (
            ("--version", "3"), ("--version", "1", "--index", "sorted"), ("--version", "2", "--index", "b"),
            ("--json",), ("-o", "-", "--json"),
        ):  # fmt: skip
            holdfast.fails(2, "car", "export", root, *options)
        assert sorted(path.name for path in tmp_path.iterdir()) == ["home", "tree"]

    def test_a_missing_block_is_named_and_leaves_nothing(
        self, holdfast: Holdfast, tree: Tree, tmp_path: Path
    ) -> None:
        root = holdfast.add(tree({"f": os.urandom(3_000_000)}), "--no-pin")
        file = holdfast("stat", f"{root}/f", "--json").json["cid"]
        chunk = holdfast("dag", "get", file).json["Links"][2]["Hash"]["/"]
        holdfast("block", "rm", chunk)
        before = sorted(tmp_path.iterdir())
        said = holdfast.fails(3, "car", "export", root, "-o", tmp_path / "x.car")
        assert chunk in said
        assert said.endswith(f"{root}/f")
        assert chunk in holdfast.fails(3, "car", "export", root, "-o", tmp_path / "x.car", "--version", 2)
        assert sorted(tmp_path.iterdir()) == before
        (tmp_path / "x.car").write_bytes(b"mine")
        assert "exists" in holdfast.fails(4, "car", "export", root, "-o", tmp_path / "x.car")
        says = holdfast.fails(3, "car", "export", root, "-o", tmp_path / "nowhere" / "x.car")
        assert says == f"holdfast: {tmp_path / 'nowhere'}: there is no such folder to write into"
        assert (tmp_path / "x.car").read_bytes() == b"mine"

    def test_a_file_that_came_meanwhile_is_not_overwritten(self, tmp_path: Path) -> None:
        def write() -> None:
            with Target(str(tmp_path / "x.car")) as target:
                target.append(b"ours")
                (tmp_path / "x.car").write_bytes(b"theirs")

        with pytest.raises(CommandError) as caught:
            write()
        assert caught.value.code is ExitCode.INVALID
        assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"theirs"]

    def test_what_a_killed_process_left_goes_with_the_next_file_of_that_name(self, tmp_path: Path) -> None:
        killed = Target(str(tmp_path / "x.car"))
        killed.__enter__()
        killed.append(bytes(MIB))
        with pytest.raises(CommandError, match="another command"), Target(str(tmp_path / "x.car")):
            pass
        (left,) = tmp_path.iterdir()
        copy = tmp_path / "copy"
        shutil.copytree(left, copy)  # as it is without the process and its lock
        killed.__exit__(KeyboardInterrupt)
        assert list(tmp_path.iterdir()) == [copy]
        copy.chmod(0o700)
        copy.rename(left)
        with Target(str(tmp_path / "x.car")) as target:
            target.append(b"whole")
        assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"whole"]

    def test_a_full_disk_is_told_and_leaves_nothing(
        self, holdfast: Holdfast, tree: Tree, tmp_path: Path
    ) -> None:
        root = holdfast.add(tree({"large": os.urandom(6 * MIB), "small": b"x" * 1000}))
        before = sorted(tmp_path.iterdir())
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        for size_bytes in (0, 4 * MIB, 6 * MIB + 500):  # a thread meets it, or whoever collects
            resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, limits[1]))
            try:
                said = holdfast.fails(6, "car", "export", root, "-o", tmp_path / "x.car")
            finally:
                resource.setrlimit(resource.RLIMIT_FSIZE, limits)
            assert str(tmp_path / "x.car") in said
            assert sorted(tmp_path.iterdir()) == before

    def test_names_that_cannot_be_are_told_before_anything_is_written(
        self, holdfast: Holdfast, tree: Tree, tmp_path: Path
    ) -> None:
        root = holdfast.add(tree({"f": b"x"}))
        before = sorted(tmp_path.iterdir())
        assert "255 bytes" in holdfast.fails(4, "car", "export", root, "-o", tmp_path / ("é" * 128))
        assert sorted(tmp_path.iterdir()) == before

    def test_reads_are_verified_where_the_home_says_so(
        self, holdfast: Holdfast, tree: Tree, tmp_path: Path
    ) -> None:
        root = holdfast.add(tree({"f": os.urandom(3_000_000)}))
        file = holdfast("stat", f"{root}/f", "--json").json["cid"]
        chunk = CID.parse(holdfast("dag", "get", file).json["Links"][1]["Hash"]["/"])
        store = open_store(holdfast.home / "blocks", reserve_bytes=0)
        store.replace(chunk.multihash, bytes(1 << 20))
        store.close()
        holdfast("config", "set", "storage.verify_on_read", "true")
        assert str(chunk) in holdfast.fails(4, "car", "export", root, "-o", tmp_path / "x.car")
        holdfast("config", "set", "storage.verify_on_read", "false")
        holdfast("car", "export", root, "-o", tmp_path / "x.car")
        assert str(chunk) in holdfast.fails(4, "car", "verify", tmp_path / "x.car")

    def test_a_named_pipe_and_a_device_are_written_to(
        self, holdfast: Holdfast, tree: Tree, tmp_path: Path
    ) -> None:
        root = holdfast.add(tree({"f": os.urandom(300_000)}))
        os.mkfifo(tmp_path / "pipe")
        got: list[bytes] = []
        reading = threading.Thread(target=lambda: got.append((tmp_path / "pipe").read_bytes()), daemon=True)
        reading.start()
        holdfast("car", "export", root, "-o", tmp_path / "pipe", "--version", 2)
        reading.join(WAIT_S)
        assert got == [holdfast("car", "export", root, "--version", 2).stdout]
        holdfast("car", "export", root, "-o", "/dev/null")

    def test_not_onto_a_terminal(self, holdfast: Holdfast, tree: Tree) -> None:
        root = holdfast.add(tree({"f": b"x"}))
        ours, theirs = os.openpty()
        process = holdfast.process("car", "export", root, stdout=theirs)
        _, said = process.communicate(timeout=WAIT_S)
        os.close(theirs)
        os.close(ours)
        assert (process.returncode, b"binary" in said) == (2, True)


class TestImport:
    def test_roots_may_be_spread_over_files(self, holdfast: Holdfast, tmp_path: Path) -> None:
        leaves = raw_blocks(3)
        data = encode([leaf.cid for leaf in leaves])
        root = Block(CID.of(data, DAG_CBOR), data)
        for number, part in enumerate(([root, leaves[0]], leaves[1:])):
            (tmp_path / f"{number}.car").write_bytes(archive_of(part, [root.cid]))
        assert str(leaves[1].cid) in holdfast.fails(3, "car", "import", tmp_path / "0.car")
        assert holdfast("pin", "ls").text == ""
        done = holdfast("car", "import", "--json", tmp_path / "0.car", tmp_path / "1.car").json_lines
        assert [each["new_blocks"] for each in done] == [0, 2]
        assert [each["pinned"] for each in done] == [True, True]
        assert holdfast("pin", "ls", "--json").json["cid"] == str(root.cid)

    def test_a_name_that_is_wrong_is_told_first(self, holdfast: Holdfast, tmp_path: Path) -> None:
        (tmp_path / "x.car").write_bytes(archive_of(raw_blocks(1)))
        holdfast.fails(3, "car", "import", tmp_path / "x.car", tmp_path / "absent.car")
        holdfast.fails(4, "car", "import", tmp_path / "x.car", tmp_path)
        holdfast.fails(2, "car", "import", tmp_path / "x.car", "ftp://127.0.0.1/x.car")
        assert not (holdfast.home / "blocks").exists()

    def test_what_it_reports(self, holdfast: Holdfast, tmp_path: Path) -> None:
        blocks = raw_blocks(2)
        whole = archive_of([*blocks, blocks[0]])
        result = holdfast("car", "import", "--stats", "-", stdin=whole)
        size = sum(len(block.data) for block in blocks)
        assert result.text.splitlines() == [
            f"imported 3 blocks ({size + len(blocks[0].data)} bytes)", f"pinned {blocks[0].cid}",
        ]  # fmt: skip
        result = holdfast("car", "import", "--no-pin-roots", stdin=whole)
        assert result.text == f"root {blocks[0].cid}"
        shown = holdfast("car", "import", "--json", "-", stdin=indexed(whole)).json
        assert shown == {
            "file": "-", "version": 2, "roots": [str(blocks[0].cid)], "blocks": 3,
            "block_bytes": size + len(blocks[0].data), "new_blocks": 0, "present_blocks": 3, "new_bytes": 0,
            "pinned": True, "incomplete_roots": [], "truncated": False,
        }  # fmt: skip

    @pytest.mark.parametrize("as_version_2", [False, True])
    def test_every_cut_is_noticed(self, tmp_path: Path, as_version_2: bool) -> None:
        """At every byte of small blocks, and around the borders of larger ones, which threads hash."""
        for size_bytes in (100, 100_000):
            blocks = raw_blocks(3, size_bytes)
            plain = archive_of(blocks)
            borders = [len(archive_of(blocks[:count], [blocks[0].cid])) for count in range(4)]
            before = 51 if as_version_2 else 0
            cuts = set(range(borders[0] + 1)) | {b + n for b in borders for n in (-50_000, -1, 0, 1, 30, 60)}
            for cut in range(len(plain)) if size_bytes == 100 else sorted(cuts):
                if not 0 <= cut < len(plain):
                    continue
                whole = indexed(plain) if as_version_2 else plain
                path = tmp_path / "cut.car"
                path.write_bytes(whole[: before + cut])
                is_border = cut in borders and not as_version_2  # nobody can tell
                with pytest.raises(CommandError) if not is_border else nullcontext() as caught:
                    read_all(path, ReadOptions())
                assert is_border or (caught is not None and caught.value.code is ExitCode.INVALID)
                if cut >= borders[0]:
                    found, truncated = read_all(path, ReadOptions(allow_truncated=True))
                    assert found == blocks[: sum(border <= cut for border in borders) - 1]
                    assert bool(truncated) != is_border
                else:
                    with pytest.raises(CommandError):
                        read_all(path, ReadOptions(allow_truncated=True))

    def test_a_cut_archive_gives_its_whole_blocks_only_when_asked(
        self, holdfast: Holdfast, tmp_path: Path
    ) -> None:
        blocks = raw_blocks(40, 200_000)
        whole = archive_of(blocks)
        (tmp_path / "cut.car").write_bytes(whole[:-100])
        for source, stdin in ((tmp_path / "cut.car", b""), ("-", whole[:-100])):
            shown = holdfast("car", "import", "--allow-truncated", "--json", source, stdin=stdin).json
            assert (shown["blocks"], shown["truncated"], shown["pinned"]) == (39, True, True)
        assert holdfast("block", "get", blocks[38].cid).stdout == blocks[38].data
        holdfast.fails(3, "block", "get", blocks[39].cid)

    def test_a_cut_archive_with_an_incomplete_root_is_not_pinned(self, holdfast: Holdfast) -> None:
        leaves = raw_blocks(2)
        data = encode([leaf.cid for leaf in leaves])
        root = Block(CID.of(data, DAG_CBOR), data)
        cut = archive_of([root, *leaves])[:-1]
        done = holdfast("car", "import", "--allow-truncated", "-", stdin=cut)
        assert "not pinned" in done.stderr
        assert done.text == ""
        assert holdfast("pin", "ls").text == ""

    def test_one_wrong_block_stops_it_and_is_not_stored(self, holdfast: Holdfast, tmp_path: Path) -> None:
        blocks = raw_blocks(30, 300_000)
        for position in (0, 17, 29):
            lying = list(blocks)
            lying[position] = Block(CID.of(b"never stored"), blocks[position].data)
            (tmp_path / "x.car").write_bytes(archive_of(lying, [blocks[1].cid]))
            for source, stdin in ((tmp_path / "x.car", b""), ("-", archive_of(lying))):
                said = holdfast.fails(4, "car", "import", "--allow-truncated", source, stdin=stdin)
                assert str(CID.of(b"never stored")) in said
            holdfast.fails(3, "block", "get", CID.of(b"never stored"))
        assert holdfast("pin", "ls").text == ""
        holdfast("repo", "verify")

    def test_hostile_lengths_end_early(self, holdfast: Holdfast, tmp_path: Path) -> None:
        for tail in (varint.encode(10**10), varint.encode(2**62), varint.encode(2**21 + 200)):
            (tmp_path / "x.car").write_bytes(archive_of(raw_blocks(1)) + tail)
            assert "announced" in holdfast.fails(4, "car", "import", tmp_path / "x.car")
        far = car_v2.V2Header(2**62, 100, 0).encode()
        (tmp_path / "x.car").write_bytes(far + bytes(100))
        assert "cut off" in holdfast.fails(4, "car", "import", tmp_path / "x.car")

    def test_identity_blocks_and_roots(self, holdfast: Holdfast) -> None:
        inline = Block(CID.of(b"inline", RAW, IDENTITY), b"inline")
        shown = holdfast("car", "import", "--json", "-", stdin=archive_of([inline])).json
        assert (shown["blocks"], shown["new_blocks"]) == (1, 0)
        empty = CID.decode(b"\x01\x55\x00\x00")
        holdfast("car", "import", "-", stdin=archive_of(raw_blocks(1), [empty]))
        assert (
            holdfast("car", "import", "--json", "-", stdin=archive_of(raw_blocks(1), [])).json["roots"] == []
        )

    def test_null_padding_only_when_asked(self, holdfast: Holdfast) -> None:
        padded = archive_of(raw_blocks(2)) + bytes(1000)
        assert "empty section" in holdfast.fails(4, "car", "import", "-", stdin=padded)
        assert holdfast("car", "import", "--null-padding", "--json", "-", stdin=padded).json["blocks"] == 2
        holdfast("car", "verify", "--null-padding", "-", stdin=padded)
        assert len(holdfast("car", "ls", "--null-padding", "-", stdin=padded).text.splitlines()) == 2

    @pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
    def test_interrupted_it_goes_on_where_it_was(
        self, holdfast: Holdfast, tmp_path: Path, number: signal.Signals
    ) -> None:
        """Half of an archive comes through a pipe, then the process is stopped."""
        blocks = raw_blocks(60, 1_000_000)
        whole = archive_of(blocks)
        process = holdfast.process("car", "import", "-", stdin=subprocess.PIPE)
        assert process.stdin is not None
        process.stdin.write(whole[: len(whole) * 3 // 4])
        process.stdin.flush()
        deadline = time.monotonic() + WAIT_S
        while _stored(holdfast.home) == 0:
            assert time.monotonic() < deadline
        process.send_signal(number)
        _, said = process.communicate(timeout=WAIT_S)
        assert process.returncode in (-number, 130)
        assert (b"repeat this to go on" in said) == (number is signal.SIGINT)
        kept = _stored(holdfast.home)
        assert 0 < kept < 60
        assert holdfast("pin", "ls").text == ""
        shown = holdfast("car", "import", "--json", "-", stdin=whole).json
        # More where a commit was killed between reaching the disk and being shown to readers.
        assert kept <= shown["present_blocks"] < 60
        assert (shown["new_blocks"] + shown["present_blocks"], shown["pinned"]) == (60, True)
        holdfast("repo", "verify")


def _stored(home: Path) -> int:
    if not (home / "blocks" / "format.json").exists():
        return 0
    store = open_store(home / "blocks", reserve_bytes=0)
    try:
        return store.stat().blocks
    finally:
        store.close()


class TestFromUrls:
    @staticmethod
    @contextmanager
    def serving(answers: dict[str, tuple[int, dict[str, str], bytes]]) -> Iterator[str]:
        """A loopback server with these answers by path: status, headers, body."""

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                accepted = self.headers.get("Accept", "")
                status, headers, body = answers[self.path if "ipld.car" in accepted else "/wrong"]
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.end_headers()
                with suppress(ConnectionError):  # `car root` leaves when it has the header
                    self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002
                return

        with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
            thread = threading.Thread(target=server.serve_forever)
            thread.start()
            try:
                yield f"http://127.0.0.1:{server.server_address[1]}"
            finally:
                server.shutdown()
                thread.join()

    def test_an_archive_comes_by_http(self, holdfast: Holdfast) -> None:
        blocks = raw_blocks(20, 200_000)
        whole = archive_of(blocks)
        length = {"Content-Length": str(len(whole))}
        answers = {
            "/a.car": (200, length, whole),
            "/open": (200, {}, whole),
            "/moved": (302, {"Location": "/a.car", "Content-Length": "0"}, b""),
            "/gone": (404, {"Content-Length": "0"}, b""),
            "/broken": (500, {"Content-Length": "0"}, b""),
            "/ftp": (302, {"Location": "ftp://127.0.0.1/x", "Content-Length": "0"}, b""),
            "/file": (302, {"Location": "file:///etc/passwd", "Content-Length": "0"}, b""),
            "/page": (200, {"Content-Length": "6"}, b"<html>"),
            "/picture": (200, {"Content-Length": "56", "Content-Type": "Image/png; x=y"}, b"\x89PNG" * 14),
            "/refused": (400, {"Content-Length": "12", "Content-Type": "text/plain"}, b"no\x1b[1m\nreally"),
            "/busy": (429, {"Content-Length": "0"}, b""),
            "/loop": (302, {"Location": "/loop", "Content-Length": "0"}, b""),
            # At the border of two blocks only the length tells that something is missing.
            "/cut": (200, length, whole[: -len(car.frame(blocks[-1]))]),
        }
        with self.serving(answers) as url:
            for path in ("/a.car", "/open", "/moved"):
                assert holdfast("car", "import", "--json", url + path).json["blocks"] == 20
            assert holdfast("car", "root", url + "/a.car").text == str(blocks[0].cid)
            assert holdfast("car", "verify", "--json", url + "/a.car").json["blocks"] == 20
            holdfast.fails(3, "car", "import", url + "/gone")
            for path in ("/broken", "/ftp", "/file", "/loop", "/busy"):
                holdfast.fails(5, "car", "import", url + path)
            holdfast.fails(4, "car", "import", url + "/page")
            said = holdfast.fails(4, "car", "import", url + "/picture")
            assert said.endswith("/picture: the server sent image/png, which is no CAR")
            said = holdfast.fails(4, "car", "import", url + "/refused")
            assert said.endswith("the server answered 400 Bad Request: no\\x1b[1m")
            assert "did not come" in holdfast.fails(5, "car", "import", url + "/cut")
            shown = holdfast("car", "import", "--allow-truncated", "--json", url + "/cut").json
            assert (shown["blocks"], shown["truncated"]) == (19, True)
        holdfast.fails(5, "car", "import", url + "/a.car")
        for broken in ("http://[::1/", "http://", "https:///x", url + "0000/x", url + "/a b", url + "/ü"):
            assert "this is no URL" in holdfast.fails(2, "car", "import", broken)


class TestInspect:
    def test_everything_about_an_archive(self, holdfast: Holdfast, tmp_path: Path) -> None:
        blocks = [*raw_blocks(3), Block(CID.of(b"", RAW, IDENTITY), b"")]
        data = encode([1])
        blocks.append(Block(CID.of(data, DAG_CBOR, 0x1E), data))
        whole = indexed(archive_of(blocks, [blocks[0].cid, CID.of(b"elsewhere")]))
        path = tmp_path / "x.car"
        path.write_bytes(whole)
        expected = {
            "version": 2,
            "roots": [str(blocks[0].cid), str(CID.of(b"elsewhere"))],
            "roots_present": False,
            "blocks": 5,
            "block_bytes": 305,
            "smallest_block_bytes": 0,
            "average_block_bytes": 61,
            "largest_block_bytes": 101,
            "codecs": {"dag-cbor": 1, "raw": 4},
            "hashes": {"blake3": 1, "identity": 1, "sha2-256": 3},
            "index": "sorted",
            "fully_indexed": False,
            "data_offset": 51,
            "data_size_bytes": len(archive_of(blocks, [blocks[0].cid, CID.of(b"elsewhere")])),
        }
        expected["index_offset"] = 51 + int(str(expected["data_size_bytes"]))
        for options in ((), ("--quick",)):
            assert holdfast("car", "inspect", "--json", path, *options).json == expected
            assert holdfast("car", "inspect", "--json", "-", *options, stdin=whole).json == expected
        assert "hashes: blake3 1, identity 1, sha2-256 3" in holdfast("car", "inspect", path).text

    def test_quick_sees_a_cut_but_no_wrong_hash(self, holdfast: Holdfast, tmp_path: Path) -> None:
        blocks = raw_blocks(3, 100_000)
        lying = archive_of([*blocks, Block(CID.of(b"right"), b"wrong")])
        (tmp_path / "x.car").write_bytes(lying)
        holdfast("car", "inspect", "--quick", tmp_path / "x.car")
        holdfast.fails(4, "car", "inspect", tmp_path / "x.car")
        (tmp_path / "x.car").write_bytes(lying[:-1])
        assert "cut off" in holdfast.fails(4, "car", "inspect", "--quick", tmp_path / "x.car")

    def test_an_index_of_another_kind(self, holdfast: Holdfast) -> None:
        data = archive_of(raw_blocks(1))
        whole = car_v2.wrap(len(data), index=True).encode() + data + varint.encode(0x300123)
        assert holdfast("car", "inspect", "--json", "-", stdin=whole).json["index"] == "0x300123"
        holdfast.fails(4, "car", "verify", "-", stdin=whole)
        holdfast("car", "import", "-", stdin=whole)


class TestVerify:
    def test_wrong_indexes(self, holdfast: Holdfast, tmp_path: Path) -> None:
        blocks = raw_blocks(3)
        good = indexed(archive_of(blocks))
        data_end = 51 + len(archive_of(blocks))
        assert holdfast("car", "verify", "--json", "-", stdin=good).json["index"] == "sorted"
        wrong = {
            "which is not there": good[:-1] + b"\x01",
            "cut off": good[:-1],
            "after its end": good + b"\0",
            "is not in it": good[:data_end]
            + indexed(archive_of(blocks[:2]))[51 + len(archive_of(blocks[:2])) :],
            "cannot be: the data ends": good[:43] + (data_end - 1).to_bytes(8, "little") + good[51:],
            "knows of no index": good[:43] + bytes(8) + good[51:],
        }
        for message, data in wrong.items():
            (tmp_path / "x.car").write_bytes(data)
            assert message in holdfast.fails(4, "car", "verify", tmp_path / "x.car")
            assert message in holdfast.fails(4, "car", "verify", "-", stdin=data)
        padded = good[:43] + (data_end + 5000).to_bytes(8, "little") + good[51:data_end]
        padded += bytes(5000) + good[data_end:]
        (tmp_path / "x.car").write_bytes(padded)
        holdfast("car", "verify", tmp_path / "x.car")
        holdfast("car", "verify", "-", stdin=padded)

    def test_roots_and_what_is_below_them(self, holdfast: Holdfast) -> None:
        leaves = raw_blocks(2)
        data = encode([leaf.cid for leaf in leaves])
        root = Block(CID.of(data, DAG_CBOR), data)
        stray = encode(CID.of(b"not below the root"))
        whole = archive_of([root, *leaves, Block(CID.of(stray, DAG_CBOR), stray)])
        shown = holdfast("car", "verify", "--json", "--full", "-", stdin=whole).json
        assert (shown["roots_present"], shown["complete"], shown["ok"]) == (True, True, True)
        partial = archive_of([root, leaves[0]])
        assert str(leaves[1].cid) in holdfast.fails(4, "car", "verify", "-", stdin=partial)
        assert holdfast("car", "verify", "--partial", "--json", "-", stdin=partial).json["roots_present"]
        rootless = archive_of(leaves, [root.cid])
        assert str(root.cid) in holdfast.fails(4, "car", "verify", "-", stdin=rootless)
        assert not holdfast("car", "verify", "--partial", "--json", "-", stdin=rootless).json["roots_present"]


class TestParts:
    @given(st.data())
    @settings(max_examples=40)
    def test_what_is_missing_is_found_in_any_order(self, data: st.DataObject) -> None:
        blocks = [*raw_blocks(4), Block(CID.of(b"inside", RAW, IDENTITY), b"inside")]
        for number in range(data.draw(st.integers(0, 8))):
            links = data.draw(st.lists(st.sampled_from(blocks), max_size=4))
            value = encode([number, *(block.cid for block in links)])
            hash_code = data.draw(st.sampled_from([SHA2_256, IDENTITY])) if len(value) <= 128 else SHA2_256
            blocks.append(Block(CID.of(value, DAG_CBOR, hash_code), value))
        roots = data.draw(st.lists(st.sampled_from(blocks), max_size=2))
        came = data.draw(st.lists(st.sampled_from(blocks)))
        below = Below([root.cid for root in roots])
        for block in came:
            below.add(block, "x.car")
        here = {block.cid for block in came}
        reached: set[CID] = set()
        stack = [root.cid for root in roots]
        by_cid = {block.cid: block for block in blocks}
        while stack:
            cid = stack.pop()
            if cid not in reached:
                reached.add(cid)
                if cid in here or cid.is_identity:
                    stack += links_of(cid, by_cid[cid].data)
        assert set(below.missing()) == {cid for cid in reached - here if not cid.is_identity}

    def test_ls_root_and_get_block(self, holdfast: Holdfast, tmp_path: Path) -> None:
        blocks = raw_blocks(5, 200_000)
        plain = archive_of(blocks, [blocks[3].cid, blocks[1].cid])
        for whole in (plain, indexed(plain), indexed(plain, IndexKind.MULTIHASH_SORTED)):
            path = tmp_path / "x.car"
            path.write_bytes(whole)
            for source, stdin in ((path, b""), ("-", whole)):
                listed = holdfast("car", "ls", source, stdin=stdin).text.splitlines()
                assert listed == [f"{block.cid} {len(block.data)}" for block in blocks]
                rows = holdfast("car", "ls", "--json", source, stdin=stdin).json_lines
                assert rows[0]["offset"] == len(car.header([blocks[3].cid, blocks[1].cid]))
                roots = holdfast("car", "root", "--json", source, stdin=stdin).json["roots"]
                assert roots == [str(blocks[3].cid), str(blocks[1].cid)]
                got = holdfast("car", "get-block", source, blocks[4].cid, stdin=stdin).stdout
                assert got == blocks[4].data
                holdfast.fails(3, "car", "get-block", source, CID.of(b"absent"), stdin=stdin)
        holdfast("car", "get-block", path, blocks[2].cid, "-o", tmp_path / "block")
        assert (tmp_path / "block").read_bytes() == blocks[2].data
        holdfast.fails(2, "car", "get-block", path, "no-cid")
        holdfast.fails(3, "car", "ls", tmp_path / "absent.car")
        holdfast.fails(4, "car", "ls", tmp_path)

    def test_get_block_believes_no_index(self, holdfast: Holdfast, tmp_path: Path) -> None:
        blocks = raw_blocks(2)
        whole = bytearray(indexed(archive_of(blocks)))
        whole[-8:] = (len(car.header([blocks[0].cid]))).to_bytes(8, "little")
        whole[-48:-40] = whole[-8:]
        (tmp_path / "x.car").write_bytes(whole)
        holdfast("car", "get-block", tmp_path / "x.car", blocks[0].cid)
        assert "which is not there" in holdfast.fails(
            4, "car", "get-block", tmp_path / "x.car", blocks[1].cid
        )

    def test_filter(self, holdfast: Holdfast, tmp_path: Path) -> None:
        blocks = raw_blocks(6, 50_000)
        whole = archive_of(blocks, [blocks[0].cid, blocks[5].cid])
        (tmp_path / "x.car").write_bytes(whole)
        (tmp_path / "cids").write_text(f"{blocks[5].cid}\n\n{CID.of(b'absent')}\n")
        arguments = ("car", "filter", tmp_path / "x.car", blocks[1].cid, "--cid-file", tmp_path / "cids")
        result = holdfast(*arguments)
        header, kept = decoded(result.stdout)
        assert (header.roots, kept) == ((blocks[5].cid,), [blocks[1], blocks[5]])
        assert "1 of the 3 CIDs" in result.stderr
        rest = decoded(holdfast(*arguments, "--inverse").stdout)
        assert (rest[0].roots, rest[1]) == ((blocks[0].cid,), [blocks[0], *blocks[2:5]])
        done = holdfast(*arguments, "--version", 2, "-o", tmp_path / "y.car", "--json").json
        assert (done["blocks"], done["roots"]) == (2, [str(blocks[5].cid)])
        assert (tmp_path / "y.car").read_bytes() == indexed(result.stdout, IndexKind.MULTIHASH_SORTED)
        holdfast.fails(2, "car", "filter", tmp_path / "x.car")
        holdfast.fails(2, "car", "filter", "-", "--cid-file", "-")
        holdfast.fails(2, *arguments, "--version", 2)

    def test_index_and_back(self, holdfast: Holdfast, tmp_path: Path) -> None:
        plain = archive_of(raw_blocks(4, 100_000))
        (tmp_path / "1.car").write_bytes(plain)
        holdfast("car", "index", tmp_path / "1.car", "-o", tmp_path / "2.car")
        assert (tmp_path / "2.car").read_bytes() == indexed(plain, IndexKind.MULTIHASH_SORTED)
        holdfast("car", "index", "-", "-o", tmp_path / "3.car", "--index", "sorted", stdin=plain)
        assert (tmp_path / "3.car").read_bytes() == indexed(plain)
        assert holdfast("car", "index", "--version", 1, tmp_path / "3.car").stdout == plain
        holdfast.fails(2, "car", "index", tmp_path / "1.car")
        holdfast.fails(4, "car", "index", tmp_path / "1.car", "-o", tmp_path / "2.car")
        holdfast.fails(4, "car", "index", "-", "-o", tmp_path / "4.car", stdin=plain[:-1])
        assert sorted(path.name for path in tmp_path.glob("*.car*")) == ["1.car", "2.car", "3.car"]
