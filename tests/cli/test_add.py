"""`add`: the CIDs that every implementation gives, what is taken and left out, and what is refused."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import ChaCha20
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cli.importing import Added, Importer, ImportOptions
from cli.output import meter
from merkledag.chunker import FixedSize
from merkledag.profile import UNIXFS_V1_2025, ImportProfile
from tests.cli.conftest import Holdfast
from tests.conftest import load_vectors

Tree = Callable[..., Path]
HELLO = "bafkreifzjut3te2nhyekklss27nh3k72ysco7y32koao5eei66wof36n5e"
V0 = ("--profile", "unixfs-v0-2015")


def rnd(size: int, seed: str) -> bytes:
    """The vectors' generator: the ChaCha20 key stream under sha2-256(seed)."""
    stream = Cipher(ChaCha20(sha256(seed.encode()).digest(), bytes(16)), None).encryptor()
    return stream.update(bytes(size))


def vector(about: str, profile: str) -> str:
    cids = [
        c["cid"] for c in load_vectors("unixfs")["cases"] if c["input"] == about and c["profile"] == profile
    ]
    assert len(cids) == 1
    return str(cids[0])


@pytest.mark.parametrize(
    ("size", "seed", "about", "profile"),
    [
        (262144, "chunk-v0-seed", "rnd(262144,'chunk-v0-seed')", "v0"),
        (262145, "chunk-v0-seed", "rnd(262145,'chunk-v0-seed')", "v0"),
        (1048576, "chunk-v1-seed", "rnd(1048576,'chunk-v1-seed')", "v1"),
        (1048577, "chunk-v1-seed", "rnd(1048577,'chunk-v1-seed')", "v1"),
        (174 * 262144 + 1, "v0-seed", "rnd(174*262144+1,'v0-seed')", "v0"),
    ],
)
def test_files_have_the_cids_of_every_implementation(
    holdfast: Holdfast, tmp_path: Path, size: int, seed: str, about: str, profile: str
) -> None:
    (tmp_path / "f").write_bytes(rnd(size, seed))
    options = V0 if profile == "v0" else ()
    assert holdfast.add(tmp_path / "f", "-n", *options) == vector(about, profile)
    assert not holdfast.home.exists()


@pytest.mark.parametrize(
    ("content", "about"),
    [
        ({}, "empty folder"),
        (
            {"hey": b"Hey\n", "hello": {"world": b"World\n"}},
            "folder {hey: 'Hey\\n', hello: {world: 'World\\n'}}",
        ),
        ({"foo": b"content\n", "bar": "foo"}, "folder {foo: 'content\\n', bar: symlink to foo}"),
    ],
)
def test_folders_have_the_cids_of_every_implementation(
    holdfast: Holdfast, tree: Tree, content: dict[str, Any], about: str
) -> None:
    assert holdfast.add(tree(content), "-n", *V0) == vector(about, "v0")


def test_metadata_has_the_cids_of_every_implementation(holdfast: Holdfast, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.touch()
    empty.chmod(0o640)
    assert holdfast.add(empty, "-n", *V0, "--preserve-mode") == vector("empty file, mode 0640", "v0")
    os.utime(empty, ns=(0, 1604320482 * 10**9))
    assert holdfast.add(empty, "-n", *V0, "--preserve-mtime") == vector("empty file, mtime 1604320482", "v0")
    empty.chmod(0o764)
    os.utime(empty, ns=(0, 1603539720 * 10**9 + 54321))
    both = vector("empty file, mode 0764, mtime 1603539720 s 54321 ns", "v0")
    assert holdfast.add(empty, "-n", *V0, "--preserve-mode", "--preserve-mtime") == both


def test_options_change_the_dag_as_elsewhere(holdfast: Holdfast, tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"hello world")
    assert holdfast.add(tmp_path / "f", "-n") == HELLO
    leafy = vector("bytes 'hello world'", "CIDv1, dag-pb leaf")
    assert holdfast.add(tmp_path / "f", "-n", "--no-raw-leaves") == leafy
    assert holdfast.add(tmp_path / "f", "-n", *V0, "--cid-version", 1) == HELLO
    assert holdfast.add(tmp_path / "f", "-n", *V0, "--cid-version", 1, "--no-raw-leaves") == leafy
    assert holdfast.add(tmp_path / "f", "-n", "--cid-version", 0) == vector("bytes 'hello world'", "v0")
    assert holdfast.add(tmp_path / "f", "-n", *V0, "--hash", "blake3").startswith("bafkr4i")
    assert holdfast.add(tmp_path / "f", "-n", *V0, "--hash", "sha2-512").startswith("bafkrg")
    nested = {"root3": {"root4": {"index.html": b"hello\n"}}}
    for folder in (tmp_path / "x" / "root2",):
        folder.mkdir(parents=True)
        (folder / "root3" / "root4").mkdir(parents=True)
        (folder / "root3" / "root4" / "index.html").write_bytes(nested["root3"]["root4"]["index.html"])
    profile = "CIDv1, 256 KiB, raw leaves"
    about = "folder root2/root3/root4/index.html = 'hello\\n' (CID of the folder that holds root2)"
    options = ("--cid-version", 1, "--chunker", "size-262144", "--raw-leaves", "--max-links", 174)
    assert holdfast.add(tmp_path / "x", "-n", *options) == vector(about, profile)


def test_the_profile_comes_from_the_configuration(holdfast: Holdfast, tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"hello world")
    holdfast("config", "set", "import.profile", "unixfs-v0-2015")
    assert holdfast.add(tmp_path / "f", "-n") == vector("bytes 'hello world'", "v0")
    assert holdfast.add(tmp_path / "f", "-n", "--profile", "unixfs-v1-2025") == HELLO


def test_standard_input_and_wrapping(holdfast: Holdfast, tmp_path: Path) -> None:
    assert holdfast("add", "-n", "-Q", "-", stdin=b"hello world").text == HELLO
    (tmp_path / "a").write_bytes(b"hello world")
    (tmp_path / "b").write_bytes(b"b")
    rows = holdfast("add", "-n", "-w", "--json", tmp_path / "a", tmp_path / "b", "-", stdin=b"c").json_lines
    assert [row["name"] for row in rows][-1] == ""
    assert rows[-1]["kind"] == "directory"
    assert rows[-1]["size_bytes"] == len(b"hello worldbc")
    assert holdfast("add", "-n", "-Q", "-", stdin=b"").text.startswith("bafkreihdwdcefgh4dqkjv67uzcmw7oje")
    large = rnd(1048577, "chunk-v1-seed")
    assert holdfast("add", "-n", "-Q", "-", stdin=large).text == vector("rnd(1048577,'chunk-v1-seed')", "v1")
    holdfast.fails(2, "add", "-n", "-", "-")


def test_output_names_every_entry_and_the_root_last(holdfast: Holdfast, tree: Tree) -> None:
    root = tree({"a": b"1", "sub": {"b": b"22"}, "l": "a"})
    rows = holdfast("add", "--json", root).json_lines
    assert [(r["name"], r["kind"], r["size_bytes"]) for r in rows] == [
        ("tree/a", "file", 1), ("tree/l", "symlink", 0), ("tree/sub/b", "file", 2),
        ("tree/sub", "directory", 2), ("tree", "directory", 3),
    ]  # fmt: skip
    lines = holdfast("add", root).text.splitlines()
    assert lines[-1] == f"added {rows[-1]['cid']} tree"
    assert len(lines) == 5
    assert holdfast("add", "-q", root).text.splitlines()[-1] == rows[-1]["cid"]
    assert holdfast("add", "-Q", "--json", root).json == rows[-1]


def test_hidden_files_are_left_out_of_folders_unless_asked_for(holdfast: Holdfast, tree: Tree) -> None:
    root = tree({"a": b"1", ".b": b"2", ".c": {"d": b"3"}})
    names = [r["name"] for r in holdfast("add", "-n", "--json", root).json_lines]
    assert names == ["tree/a", "tree"]
    names = [r["name"] for r in holdfast("add", "-n", "--hidden", "--json", root).json_lines]
    assert names == ["tree/.b", "tree/.c/d", "tree/.c", "tree/a", "tree"]
    assert [r["name"] for r in holdfast("add", "-n", "--json", root / ".b").json_lines] == [".b"]


def test_names_need_not_be_utf8(holdfast: Holdfast, tmp_path: Path) -> None:
    folder = tmp_path / "odd"
    folder.mkdir()
    (folder / os.fsdecode(b"\xff\n")).write_bytes(b"x")
    cid = holdfast.add(folder)
    assert holdfast("ls", cid).text.endswith(r"\udcff\n")
    holdfast("get", cid, "-o", tmp_path / "back")
    assert [os.fsencode(f.name) for f in (tmp_path / "back").iterdir()] == [b"\xff\n"]


@pytest.mark.parametrize(
    "options",
    [
        ("--chunker", "rabin-1-2-3"), ("--chunker", "buz"), ("--chunker", "size-0"),
        ("--chunker", "size-9999999999"), ("--chunker", "size--1"), ("--chunker", "size-x"),
        ("--layout", "x"), ("--trickle", "--layout", "balanced"),
        ("--hash", "md5"), ("--hash", "identity"), ("--cid-version", "2"), ("--max-links", "1"),
        ("--max-links", "99999999"), ("--profile", "none"), ("--cid-version", "0", "--hash", "blake3"),
        ("--inline-limit", "32"), ("--inline", "--inline-limit", "129"),
        ("--hamt-estimate", "x"), ("--hamt-fanout", "100"), ("--hamt-threshold", "-1"),
        ("--max-directory-links", "-1"), ("--mode", "rw"), ("--mode", "0100000"), ("--mtime-nsecs", "1"),
        ("--mtime", "1", "--mtime-nsecs", "1000000000"), ("--raw-leaves", "--mode", "0644"), ("--name", "n"),
        ("--tar", "x.tar"),
    ],
    ids=" ".join,
)  # fmt: skip
def test_options_that_do_not_fit_are_usage_errors(
    holdfast: Holdfast, tmp_path: Path, options: tuple[str, ...]
) -> None:
    (tmp_path / "f").write_bytes(b"x")
    holdfast.fails(2, "add", "-n", *options, tmp_path / "f")


def test_a_missing_path_is_3_and_stores_nothing(holdfast: Holdfast, tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"x")
    assert "absent: No such file" in holdfast.fails(3, "add", tmp_path / "f", tmp_path / "absent")
    assert not holdfast.home.exists()


def test_what_is_no_file_is_refused(holdfast: Holdfast, tree: Tree) -> None:
    root = tree({"a": b"1"})
    os.mkfifo(root / "pipe")
    assert "pipe or socket" in holdfast.fails(4, "add", root)
    (root / "pipe").unlink()
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(root / "s"))
        holdfast.fails(4, "add", root / "s")
    assert holdfast("pin", "ls", "--json").json_lines == []


def test_a_file_that_does_not_know_its_length_is_read_to_its_end(holdfast: Holdfast) -> None:
    path = Path("/proc/self/status")
    if not path.exists():
        pytest.skip("there is no /proc here")
    assert holdfast("add", "-n", "--json", path).json["size_bytes"] > 0


def test_two_of_one_name_cannot_be_wrapped(holdfast: Holdfast, tree: Tree) -> None:
    one, two = tree({"a": b"1"}, "one"), tree({"a": b"2"}, "two")
    assert "twice" in holdfast.fails(4, "add", "-w", "-n", one / "a", two / "a")


def test_a_full_store_is_6_and_recovers(
    holdfast: Holdfast, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "f").write_bytes(os.urandom(4 << 20))
    monkeypatch.setenv("HOLDFAST_STORAGE_MAX_BYTES", str(1 << 20))
    holdfast.fails(6, "add", tmp_path / "f")
    assert holdfast("pin", "ls", "--json").json_lines == []
    monkeypatch.setenv("HOLDFAST_STORAGE_MAX_BYTES", str(64 << 20))
    cid = holdfast.add(tmp_path / "f")
    assert holdfast("cat", cid).stdout == (tmp_path / "f").read_bytes()


def test_killed_in_the_middle_then_added_again(holdfast: Holdfast, tmp_path: Path) -> None:
    content = os.urandom(32 << 20)
    (tmp_path / "f").write_bytes(content)
    reader, writer = os.pipe()
    process = holdfast.process("add", "-", stdin=reader)
    os.close(reader)
    with os.fdopen(writer, "wb") as pipe:
        pipe.write(content)  # the command has read nearly all of it, and waits for the end
        process.send_signal(signal.SIGKILL)
        process.communicate()
        try:
            pipe.flush()
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), pipe.fileno())
    assert process.returncode == -signal.SIGKILL
    assert holdfast("pin", "ls", "--json").json_lines == []
    cid = holdfast.add(tmp_path / "f")
    assert holdfast("cat", cid).stdout == content
    holdfast("repo", "verify")
    holdfast("repo", "gc")
    assert holdfast("cat", cid).stdout == content


def imported(profile: ImportProfile, path: Path) -> tuple[list[Added], list[bytes]]:
    seen: list[Added] = []
    importer = Importer(ImportOptions(profile), on_added=seen.append, meter=meter("", None, wanted=False))
    blocks = [bytes(block.cid) for block in importer.blocks([str(path)])]
    return seen, blocks


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(sizes=st.lists(st.sampled_from([0, 1, 999, 1000, 1001, 65536, 65537, 200_000]), max_size=6))
def test_threads_never_change_the_result(tmp_path_factory: pytest.TempPathFactory, sizes: list[int]) -> None:
    folder = tmp_path_factory.mktemp("many")
    for number, size in enumerate(sizes):
        (folder / str(number)).write_bytes(rnd(size, str(number)))
    profile = ImportProfile(chunker=FixedSize(70_000), max_links=2)
    assert imported(profile, folder) == imported(profile, folder)


def test_every_block_comes_behind_what_it_links_to(tmp_path: Path) -> None:
    from merkledag import codecs

    (tmp_path / "d" / "e").mkdir(parents=True)
    (tmp_path / "d" / "f").write_bytes(rnd(1_000_000, "f"))
    (tmp_path / "d" / "e" / "g").write_bytes(rnd(500, "g"))
    profile = ImportProfile(chunker=FixedSize(70_000), max_links=3)
    importer = Importer(ImportOptions(profile), on_added=lambda _: None, meter=meter("", None, wanted=False))
    here: set[bytes] = set()
    for block in importer.blocks([str(tmp_path / "d")]):
        assert all(bytes(cid) in here for cid in codecs.links(block.cid, block.data))
        here.add(bytes(block.cid))
    assert [root.name for root in importer.roots] == ["d"]


def test_a_file_that_shrinks_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from cli.output import CommandError

    path = tmp_path / "f"
    path.write_bytes(bytes(3 << 20))
    real = os.fstat

    def truncated(handle: int) -> os.stat_result:
        status = real(handle)
        os.truncate(path, 1 << 20)
        return status

    monkeypatch.setattr("cli.importing_walk.os.fstat", truncated)
    with pytest.raises(CommandError, match="shrank"):
        imported(UNIXFS_V1_2025, path)
