"""Red-team 24 and 25: content made to exhaust, to lie, or to write where it should not.

Every attack goes through a whole process, which must end early with one line and the right exit code, and
whose memory is measured.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from merkledag import dag_cbor, unixfs
from merkledag.builder import build_symlink
from merkledag.cid import CID
from merkledag.codecs import DAG_CBOR, DAG_PB, RAW
from merkledag.dag_pb import PBLink
from merkledag.hamt import hash_name
from merkledag.multihash import IDENTITY, split
from merkledag.profile import UNIXFS_V1_2025
from merkledag.unixfs import HASH_MURMUR3, Data, Kind
from storage_node.blockstore.store import open_store
from tests.merkledag.support import Blocks
from tests.red_team.support import Done, Machine

MAX_RSS_KIB = 110 * 1024  # a command with nothing to do takes about 45 MiB
SOON_S = 60.0  # generous: a busy machine; the attacks would take ages
PROBE = """
import sys
from cli.main import run
code = run(sys.argv[2:])
try:
    status = open("/proc/self/status").read()
except OSError:
    status = ""
with open(sys.argv[1], "w") as out:
    out.write(next((line.split()[1] for line in status.splitlines() if line.startswith("VmHWM")), "0"))
sys.exit(code)
"""


@dataclass
class Attack:
    """A home with hostile blocks in it."""

    machine: Machine
    blocks: Blocks

    def store(self) -> None:
        """Puts the blocks made so far into the home."""
        store = open_store(self.machine.home / "blocks", reserve_bytes=0)
        store.put_many((cid.multihash, data) for cid, data in self.blocks.by_cid.items())
        store.close()

    def run(self, *arguments: object, code: int, head_bytes: int | None = None) -> Done:
        """Runs a command that must exit with `code`, soon, in little memory; reads so much of its output."""
        peak = self.machine.home.parent / "peak"
        began_s = time.monotonic()
        child = subprocess.Popen(
            [sys.executable, "-P", "-c", PROBE, str(peak), *map(str, arguments)],
            env=self.machine.env | {"PYTHONPATH": str(Path.cwd())},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        try:
            assert child.stdout is not None
            head = b"" if head_bytes is None else child.stdout.read(head_bytes)
            if head_bytes is not None:
                child.stdout.close()
                child.stdout = None
            out, err = child.communicate(timeout=SOON_S)
        finally:
            child.kill()
            child.wait()
        done = Done(child.returncode, head + (out or b""), err.decode())
        assert done.code == code, (arguments, done.code, done.err)
        assert "Traceback" not in done.err
        assert time.monotonic() - began_s < SOON_S
        assert int(peak.read_text()) < MAX_RSS_KIB, (arguments, peak.read_text())
        return done

    def folder(self, *entries: tuple[str, CID]) -> CID:
        return self.blocks.put_node([PBLink(cid, name, 1) for name, cid in entries], Data(Kind.DIRECTORY))

    def file(self, data: bytes) -> CID:
        return self.blocks.put(data, RAW)

    def symlink(self, target: str) -> CID:
        _, block = build_symlink(UNIXFS_V1_2025, target)
        self.blocks.add([block])
        return block.cid


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Machine:
    """A home with a store in it."""
    machine = Machine(tmp_path_factory.mktemp("fresh") / "home")
    machine.run("repo", "stat")
    return machine


@pytest.fixture
def attack(fresh: Machine, tmp_path: Path) -> Attack:
    return Attack(fresh.copy(tmp_path / "home"), Blocks())


@pytest.fixture
def target(tmp_path: Path) -> Iterator[Path]:
    """Where to write, in a folder that must hold nothing else afterwards."""
    beside = tmp_path / "beside"
    beside.mkdir()
    (beside / "precious").write_bytes(b"mine")
    yield beside / "x"
    left = {path.name for path in beside.iterdir()} - {"x", "x.tar"}
    assert left == {"precious"}
    assert (beside / "precious").read_bytes() == b"mine"


class TestDeep:
    def test_a_bottomless_dag_is_refused_by_everything_that_walks(self, attack: Attack, target: Path) -> None:
        cid = CID.of(dag_cbor.encode(0), DAG_CBOR)
        attack.blocks.put(dag_cbor.encode(0), DAG_CBOR)
        for _ in range(5_000):
            cid = attack.blocks.put(dag_cbor.encode([cid]), DAG_CBOR)
        attack.store()
        for command in (
            ("dag", "stat", cid), ("car", "export", cid, "-o", target), ("stat", cid, "--with-local"),
        ):  # fmt: skip
            assert "deeper than 4096" in attack.run(*command, code=4).line
        attack.run("pin", "add", cid, code=0)  # what is here can be kept, however deep it is
        attack.run("get", cid, "-o", target, code=4)
        attack.run("stat", cid, code=0)

    def test_folders_in_folders(self, attack: Attack, target: Path) -> None:
        cid = attack.folder()
        for _ in range(5_000):
            cid = attack.folder(("d", cid))
        attack.store()
        assert "nested" in attack.run("get", cid, "-o", target, code=4).line
        assert "nested" in attack.run("get", cid, "-a", "-o", target, code=4).line
        assert attack.run("ls", cid, code=0).out.count(b"\n") == 1
        attack.run("stat", cid, code=0)

    def test_a_file_that_is_one_long_chain(self, attack: Attack, target: Path) -> None:
        cid = attack.file(b"x")
        for _ in range(1_000):
            cid = attack.blocks.put_file([(cid, 1)])
        attack.store()
        for command in (("cat", cid), ("get", cid, "-o", target), ("get", cid, "-a", "-o", target)):
            assert "deeper than 128" in attack.run(*command, code=4).line


class TestBombs:
    @pytest.fixture
    def exabyte(self, attack: Attack) -> CID:
        """2⁶⁰ bytes in six blocks."""
        cid, size = attack.file(b"y" * 1024), 1024
        for _ in range(5):
            cid, size = attack.blocks.put_file([(cid, size)] * 1024), size * 1024
        attack.store()
        return cid

    def test_a_file_of_an_exabyte(self, attack: Attack, exabyte: CID, target: Path) -> None:
        assert b"size_bytes: %d" % 2**60 in attack.run("stat", exabyte, "--with-local", code=0).out
        attack.run("ls", exabyte, code=0)
        attack.run("dag", "stat", exabyte, code=0)
        attack.run("pin", "add", exabyte, code=0)
        attack.run("car", "export", exabyte, "-o", target, code=0)
        assert target.stat().st_size < 600_000
        assert attack.run("cat", exabyte, "--offset", 2**59, "--length", 3, code=0).out == b"yyy"
        assert attack.run("get", exabyte, "-o", target, "--force", code=6).line.count("do not fit") == 1
        assert attack.run("cat", exabyte, code=1, head_bytes=1 << 20).out == b"y" * (1 << 20)
        attack.run("get", exabyte, "-C", "-o", "-", code=1, head_bytes=1 << 16)

    def test_a_tree_of_more_folders_than_atoms(self, attack: Attack, target: Path) -> None:
        """250 levels, each with two entries that are the same folder."""
        cid = attack.folder(("f", attack.file(b"1")))
        for _ in range(250):
            cid = attack.folder(("a", cid), ("b", cid))
        attack.store()
        attack.run("stat", cid, "--with-local", code=0)
        assert attack.run("ls", cid, code=0).out.count(b"\n") == 2
        attack.run("dag", "stat", cid, code=0)
        attack.run("pin", "add", cid, code=0)
        attack.run("car", "export", cid, "-o", target, code=0)
        attack.run("get", cid, "-a", "-o", "-", code=1, head_bytes=1 << 20)

    def test_hamts_of_shared_shards(self, attack: Attack, target: Path) -> None:
        """Nine blocks that claim 256⁸ entries; every name must hash to where it stands, so none can."""
        occupied = b"\xff" * 32
        message = Data(Kind.HAMT, b"\1", hash_type=HASH_MURMUR3, fanout=256)
        cid = attack.blocks.put_node([PBLink(attack.file(b"1"), "00name", 1)], message)
        for _ in range(7):
            message = Data(Kind.HAMT, occupied, hash_type=HASH_MURMUR3, fanout=256)
            cid = attack.blocks.put_node([PBLink(cid, f"{n:02X}", 1) for n in range(256)], message)
        attack.store()
        for command in (("ls", cid), ("get", cid, "-o", target), ("get", cid, "-a", "-o", target)):
            assert "wrong bucket" in attack.run(*command, code=4).line
        attack.run("stat", cid, "--with-local", code=0)
        attack.run("dag", "stat", cid, code=0)
        attack.run("pin", "add", cid, code=0)
        attack.run("car", "export", cid, "-o", target, code=0)
        attack.run("ls", f"{cid}/name", code=3 if hash_name(b"name") >> 56 else 4)

    def test_a_file_of_empty_nodes(self, attack: Attack, target: Path) -> None:
        nothing = attack.blocks.put_file([])
        for _ in range(20):
            nothing = attack.blocks.put_file([(nothing, 0)] * 1024)
        x = attack.file(b"x")
        some = attack.blocks.put_file([(x, 1), *[(nothing, 0)] * 600, (x, 1)])
        cid = attack.blocks.put_file([(some, 2)] * 600)
        attack.store()
        for command in (("cat", cid), ("get", cid, "-o", target)):
            assert "without content" in attack.run(*command, code=4).line
        attack.run("dag", "stat", cid, code=0)

    def test_wide_nodes(self, attack: Attack, target: Path) -> None:
        """As many links as fit into a block, and a block of them of such blocks."""
        leaf = attack.file(b"1")
        wide = attack.blocks.put_node(
            [PBLink(leaf, f"{n:05}", 1) for n in range(40_000)], Data(Kind.DIRECTORY)
        )
        cid = attack.folder(*((str(n), wide) for n in range(100)))
        attack.store()
        assert attack.run("ls", wide, code=0).out.count(b"\n") == 40_000
        attack.run("ls", cid, code=0)
        attack.run("dag", "stat", cid, code=0)
        attack.run("get", cid, "-a", "-o", "-", code=1, head_bytes=1 << 20)


class TestLies:
    @pytest.mark.parametrize(
        ("make", "reason"),
        [
            (lambda b, leaf: b.put_file([(leaf, 5)]), "its parent declares 5"),
            (lambda b, leaf: b.put_file([(leaf, 2**20)]), "its parent declares 1048576"),
            (lambda b, leaf: b.put_file([(leaf, 4)], filesize=9), "file size 9 declared"),
            (lambda b, leaf: b.put_node([PBLink(leaf, "", 4)], Data(Kind.FILE, None, 4)), "0 block sizes"),
            (lambda b, leaf: b.put_file([(b.put_node([], Data(Kind.DIRECTORY)), 4)]), "not a file"),
        ],
    )
    def test_sizes_and_kinds(
        self, attack: Attack, target: Path, make: Callable[[Blocks, CID], CID], reason: str
    ) -> None:
        file = make(attack.blocks, attack.file(b"data"))
        folder = attack.folder(("f", file))
        attack.store()
        for command in (
            ("cat", file),
            ("get", folder, "-o", target),
            ("get", folder, "-a", "-o", target),
        ):
            done = attack.run(*command, code=4)
            assert reason in done.line
        assert not target.exists()

    def test_identity_content_of_a_megabyte(self, attack: Attack, target: Path) -> None:
        data = b"z" * (1 << 20)
        huge = b"\x01\x55\x00" + _varint(len(data)) + data
        body = b"\x0a" + _varint(len(huge)) + huge + b"\x12\x01f\x18\x01"
        node = b"\x12" + _varint(len(body)) + body
        payload = unixfs.encode(Data(Kind.DIRECTORY))
        cid = attack.blocks.put(node + b"\x0a" + _varint(len(payload)) + payload, DAG_PB)
        attack.store()
        for command in (
            ("ls", cid), ("get", cid, "-o", target), ("cat", f"{cid}/f"), ("dag", "stat", cid),
            ("car", "export", cid, "-o", target),
        ):  # fmt: skip
            assert "CID" in attack.run(*command, code=4).line
        assert "CID" in attack.run("pin", "add", cid, code=4).line
        attack.run("pin", "add", "--direct", cid, code=0)
        text = str(CID.of(b"z" * 128, RAW, IDENTITY))
        assert attack.run("cat", text, code=0).out == b"z" * 128
        assert len(split(CID.parse(text).multihash)[1]) == 128
        attack.run("cat", "f01550080" + "02" * 60_000, code=2)


def _varint(number: int) -> bytes:
    out = bytearray()
    while number >= 0x80:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*out, number])


class TestEscapes:
    @pytest.mark.parametrize("form", [(), ("-a",)])
    def test_names(self, attack: Attack, target: Path, form: tuple[str, ...]) -> None:
        evil = attack.file(b"evil")
        names = ["..", "", "/etc/x", "../x", "x\0y", "é" * 200]
        cids = [attack.folder(("ok", evil), ("d", attack.folder((name, evil)))) for name in names]
        attack.store()
        for cid in cids:
            line = attack.run("get", cid, "-o", target, *form, code=4).line
            assert "name" in line
            assert line.isprintable()
            assert not target.exists()
            assert not target.with_suffix(".tar").exists()

    def test_names_in_paths_do_not_become_targets(
        self, attack: Attack, target: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The last part of a path names the target: it is checked like any other name."""
        cid = attack.folder(("a/b", attack.file(b"1")), ("x\0", attack.file(b"1")))
        attack.store()
        monkeypatch.chdir(target.parent)
        attack.run("get", f"ipfs://{cid}/x%00", code=2)
        attack.run("get", f"ipfs://{cid}/..%2f..%2fetc", code=2)
        attack.run("get", f"{cid}/..", code=2)

    def test_symlinks_on_the_way(self, attack: Attack, target: Path) -> None:
        """Links out, links to links, a link and a folder of one name: nothing is written through one."""
        evil = attack.file(b"evil")
        inside = attack.folder(("precious", evil))
        out = attack.folder(
            ("up", attack.symlink("..")), ("abs", attack.symlink(str(target.parent))),
            ("up", inside), ("far", attack.symlink("up/../..")), ("ok", attack.symlink("file")),
            ("file", evil), ("long", attack.symlink("x/" * 2_048)),
        )  # fmt: skip
        attack.store()
        done = attack.run("get", out, "-o", target, code=4)
        assert done.err.count("left out the symlink") == 4
        assert sorted(path.name for path in target.iterdir()) == ["file", "ok"]
        done = attack.run("get", out, "-a", "-o", target, code=4)
        with tarfile.open(target.with_suffix(".tar")) as archive:
            assert [(m.name.partition("/")[2], m.linkname) for m in archive][1:] == [
                ("ok", "file"),
                ("file", ""),
            ]
            archive.extractall(target.parent / "x" / "again", filter="data")

    def test_links_that_were_there_before_are_not_followed(self, attack: Attack, target: Path) -> None:
        cid = attack.folder(
            ("sub", attack.folder(("precious", attack.file(b"evil")))), ("f", attack.file(b"new"))
        )
        attack.store()
        target.mkdir()
        (target / "sub").symlink_to("..")
        (target / "f").symlink_to("../precious")
        assert "cannot replace" in attack.run("get", cid, "-o", target, "--force", code=4).line
        assert (target / "f").is_symlink()  # nothing was moved before everything was compared
        (target / "sub").unlink()
        attack.run("get", cid, "-o", target, "--force", code=0)
        assert (target / "f").read_bytes() == b"new"
        assert not (target / "f").is_symlink()

    def test_loops_of_links_are_only_links(self, attack: Attack, target: Path) -> None:
        cid = attack.folder(
            ("a", attack.symlink("b")), ("b", attack.symlink("a")), ("c", attack.symlink("."))
        )
        attack.store()
        attack.run("get", cid, "-o", target, code=0)
        assert sorted(str(path.readlink()) for path in target.iterdir()) == [".", "a", "b"]
        attack.run("get", cid, "-a", "-o", target, code=0)
        attack.run("cat", f"{cid}/a", code=4)
        attack.run("ls", f"{cid}/c/c/c", code=3)

    def test_what_a_tar_holds_unpacks_inside(self, attack: Attack, target: Path) -> None:
        names = ["...", "..a", "-rf", "~", "a\\..\\b", "\x1b[2J", "C:", "n" * 255, "\udcff"]
        cid = attack.folder(*((name, attack.file(name.encode("utf-8", "surrogateescape"))) for name in names))
        attack.store()
        attack.run("get", cid, "-a", "-o", target, code=0)
        into = target.parent / "x"
        into.mkdir()
        with tarfile.open(target.with_suffix(".tar")) as archive:
            archive.extractall(into, filter="data")
        assert sorted(os.fsencode(path.name) for path in (into / str(cid)).iterdir()) == sorted(
            map(os.fsencode, names)
        )
