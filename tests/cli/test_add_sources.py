"""`add` of archives, chosen files, symlinks followed, pipes, given metadata; and on a terminal."""

from __future__ import annotations

import io
import os
import pty
import re
import shutil
import signal
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cli.importing_ignore import Scope, Selection
from cli.importing_tar import folder_name
from tests.cli.conftest import Holdfast
from tests.cli.test_add import V0, rnd, vector

Tree = Callable[..., Path]
LONG = "n" * 90
CONTENT: dict[str, Any] = {
    "a": b"hello", "empty": b"", "big": rnd(1_500_000, "big"), "link": "a", ".hidden": b"h",
    "sub": {"b": b"2", "deep": {LONG: {LONG: {"file" + "x" * 120: b"long"}}}},
    "none": {}, "ünï": {os.fsdecode(b"\xff"): b"raw"}, "sparse": b"head" + bytes(200_000) + b"tail",
}  # fmt: skip


def names(result: Any) -> list[str]:
    return [row["name"] for row in result.json_lines]


@pytest.fixture
def folder(tree: Tree) -> Path:
    root = tree(CONTENT)
    os.link(root / "a", root / "sub" / "hard")
    (root / "sub").chmod(0o750)
    (root / "a").chmod(0o4711)
    os.utime(root / "a", ns=(0, 1_600_000_000_123_456_789))
    os.utime(root / "sub", ns=(0, -5 * 10**9 + 1))
    os.utime(root / "link", ns=(0, 7 * 10**9), follow_symlinks=False)
    return root


def pack(folder: Path, target: Path, *, order: int = 1, **options: Any) -> Path:
    """The folder as an archive, its entries in reverse with order -1."""
    entries = ["", *sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))]
    with tarfile.open(target, **options) as tar:
        for entry in entries[::order]:
            tar.add(folder / entry, arcname=f"./{entry}", recursive=False)
    return target


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2", "w:xz"])
def test_an_archive_has_the_cid_of_its_folder(
    holdfast: Holdfast, folder: Path, tmp_path: Path, mode: str
) -> None:
    archive = pack(folder, tmp_path / "x.tar", mode=mode, format=tarfile.GNU_FORMAT)
    assert holdfast("add", "-n", "-Q", "--tar", archive).text == holdfast.add(folder, "-n")
    options = (
        "-n",
        "--hidden",
        "--preserve-mode",
        "--chunker",
        "rabin-1000-5000-9000",
        "--layout",
        "trickle",
    )
    assert holdfast("add", "-Q", "--tar", archive, *options).text == holdfast.add(folder, *options)


def test_pax_archives_keep_times_to_the_nanosecond(holdfast: Holdfast, folder: Path, tmp_path: Path) -> None:
    tar = shutil.which("tar")
    if tar is None:
        pytest.skip("there is no tar here")
    archive = tmp_path / "x.tar"
    command = [tar, "--format=posix", "-cf", str(archive), "-C", str(folder), "."]
    made = subprocess.run(command, capture_output=True, text=True)
    if made.returncode:
        pytest.skip(f"this tar has no posix format: {made.stderr}")
    options = ("-n", "--hidden", "--preserve-mode", "--preserve-mtime")
    assert holdfast("add", "-Q", "--tar", archive, *options).text == holdfast.add(folder, *options)


def test_sparse_files_in_archives_are_whole(holdfast: Holdfast, tmp_path: Path) -> None:
    tar = shutil.which("tar")
    source = tmp_path / "d"
    source.mkdir()
    with (source / "holes").open("wb") as file:
        file.write(b"head")
        file.truncate(3 << 20)
        file.seek(0, 2)
        file.write(b"tail")
    if tar is None or subprocess.run([tar, "-cSf", tmp_path / "s.tar", "-C", source, "."]).returncode:
        pytest.skip("no tar that knows sparse files")
    assert (tmp_path / "s.tar").stat().st_size < 1 << 20
    assert holdfast("add", "-n", "-Q", "--tar", tmp_path / "s.tar").text == holdfast.add(source, "-n")


def test_entries_may_come_in_any_order_and_from_a_pipe(
    holdfast: Holdfast, tree: Tree, tmp_path: Path
) -> None:
    root = tree({name: content for name, content in CONTENT.items() if not name.startswith(".")})
    archive = pack(root, tmp_path / "x.tgz", order=-1, mode="w:gz")
    assert holdfast("add", "-n", "-Q", "--tar", "-", stdin=archive.read_bytes()).text == holdfast.add(
        root, "-n"
    )
    rows = names(holdfast("add", "-n", "--json", "--tar", archive))
    assert rows == [name.replace("tree", "x", 1) for name in names(holdfast("add", "-n", "--json", root))]
    assert names(holdfast("add", "-n", "-w", "--json", "--tar", archive)) == [*rows, ""]
    assert folder_name("a/b.tar.gz") == "b"
    assert folder_name(".tar") == ".tar"


def archive_of(*entries: tuple[str, bytes, str]) -> bytes:
    """An archive of (name, type, link target) with one byte in every file."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, kind, target in entries:
            header = tarfile.TarInfo(name)
            header.type, header.linkname = kind, target
            header.size = 1 if kind == tarfile.REGTYPE else 0
            tar.addfile(header, io.BytesIO(b"x"))
    return out.getvalue()


FILE, DIR, SYM, HARD = tarfile.REGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE


@pytest.mark.parametrize(
    ("entries", "reason"),
    [
        ([("../x", FILE, "")], "leads out"), ([("/x", FILE, "")], "leads out"),
        ([("a/../../b", FILE, "")], "leads out"), ([("a/..", DIR, "")], "leads out"),
        ([("a", SYM, "/etc"), ("a/passwd", FILE, "")], "no folder"),
        ([("a", FILE, ""), ("a/b", FILE, "")], "no folder"),
        ([("a/b", FILE, ""), ("a", FILE, "")], "as a folder"),
        ([("a", FILE, ""), ("a", DIR, "")], "as a folder"),
        ([("p", tarfile.FIFOTYPE, "")], "device or pipe"), ([("h", HARD, "nothing")], "link to"),
        ([("h", HARD, "../x")], "leads out"), ([("/".join("a" * 1_100), FILE, "")], "deep"),
        ([(".", FILE, "")], "no name"),
    ],
)  # fmt: skip
def test_archives_that_would_lead_out_or_contradict_themselves_are_refused(
    holdfast: Holdfast, entries: list[tuple[str, bytes, str]], reason: str
) -> None:
    assert reason in holdfast.fails(4, "add", "--tar", "-", stdin=archive_of(*entries))
    assert holdfast("pin", "ls", "--json").json_lines == []


def test_a_header_of_an_archive_is_bounded(holdfast: Holdfast) -> None:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        header = tarfile.TarInfo("x")
        header.pax_headers = {"comment": "c" * (1 << 20)}
        tar.addfile(header)
    assert "at most 1048576" in holdfast.fails(4, "add", "--tar", "-", stdin=out.getvalue())


def test_later_entries_replace_earlier_ones_and_hard_links_are_their_file(
    holdfast: Holdfast, tree: Tree
) -> None:
    data = archive_of(
        ("a", SYM, "old"), ("a", FILE, ""), ("d/h", HARD, "a"), ("d", DIR, ""), ("d/s", SYM, "../../..")
    )
    root = tree({"a": b"x", "d": {"h": b"x", "s": "../../.."}})
    assert holdfast("add", "-n", "-Q", "--tar", "-", stdin=data).text == holdfast.add(root, "-n")


def test_damaged_archives_are_refused_wherever_the_damage_is(holdfast: Holdfast, tmp_path: Path) -> None:
    whole = archive_of(("a", FILE, ""), ("b", FILE, ""), ("c", FILE, ""))
    holdfast("add", "-n", "--tar", "-", stdin=whole)
    for at in (5, 1029, 2053):  # in the name of each header
        damaged = bytearray(whole)
        damaged[at] ^= 1
        assert "not a whole tar" in holdfast.fails(4, "add", "-n", "--tar", "-", stdin=bytes(damaged))
    for data in (b"", b"hello" * 500, whole[:700], whole[:1000], b"\x1f\x8b" + whole):
        holdfast.fails(4, "add", "-n", "--tar", "-", stdin=data)
    import gzip

    packed = gzip.compress(whole)
    holdfast.fails(4, "add", "-n", "--tar", "-", stdin=packed[: len(packed) // 2])
    huge = tarfile.TarInfo("././@LongLink")
    huge.type, huge.size = tarfile.GNUTYPE_LONGNAME, 1 << 40
    assert "header of" in holdfast.fails(
        4, "add", "-n", "--tar", "-", stdin=huge.tobuf(tarfile.GNU_FORMAT) + bytes(10_000)
    )
    holdfast.fails(3, "add", "-n", "--tar", tmp_path / "absent.tar")
    (tmp_path / "x.tar").write_bytes(whole)
    holdfast.fails(2, "add", "-n", "--tar", tmp_path / "x.tar", "--use-ignore-files")


def test_rules_leave_files_out(holdfast: Holdfast, tree: Tree, tmp_path: Path) -> None:
    root = tree(
        {"a.o": b"1", "b.c": b"2", "build": {"x": b"3"}, "src": {"build": b"4", "k.o": b"5", "d": {"q": b""}}}
    )
    taken = names(holdfast("add", "-n", "--json", root, "--ignore", "*.o", "--ignore", "build/"))
    assert taken == ["tree/b.c", "tree/src/build", "tree/src/d/q", "tree/src/d", "tree/src", "tree"]
    (tmp_path / "rules").write_text("# all but one\n/*\n!/src\n*.o\n")
    taken = names(
        holdfast("add", "-n", "--json", root, "--ignore-rules-path", tmp_path / "rules", "--ignore", "!k.o")
    )
    assert taken == ["tree/src/build", "tree/src/d/q", "tree/src/d", "tree/src/k.o", "tree/src", "tree"]
    holdfast.fails(3, "add", "-n", root, "--ignore-rules-path", tmp_path / "absent")
    archive = pack(root, tmp_path / "x.tar", mode="w")
    options = ("-n", "-Q", "--ignore", "*.o", "--ignore", "build/", "--no-empty-dirs")
    assert holdfast("add", *options, "--tar", archive).text == holdfast("add", *options, root).text


def test_a_file_of_rules_is_bounded(holdfast: Holdfast, tree: Tree, tmp_path: Path) -> None:
    (tmp_path / "rules").write_bytes(b"#" * ((1 << 20) + 1))
    root = tree({"x": b""})
    assert "1048576 bytes" in holdfast.fails(4, "add", "-n", root, "--ignore-rules-path", tmp_path / "rules")


def test_ignore_files_hold_for_their_folder(holdfast: Holdfast, tree: Tree) -> None:
    root = tree({
        ".gitignore": b"*.o\nout/**\n/top\n", "x.o": b"", "top": b"", "out": {"y": b""},
        "sub": {
            ".gitignore": b"!z.o\r\n", ".ipfsignore": b"w\n", "z.o": b"", "v.o": b"", "w": b"", "top": b"",
        },
    })  # fmt: skip
    taken = names(holdfast("add", "-n", "--json", "--use-ignore-files", root))
    assert taken == ["tree/out", "tree/sub/top", "tree/sub/z.o", "tree/sub", "tree"]
    assert "tree/top" in names(holdfast("add", "-n", "--json", root))
    taken = names(
        holdfast("add", "-n", "--json", "--use-ignore-files", "--no-empty-dirs", "--ignore", "sub", root)
    )
    assert taken == ["tree"]


PATTERNS = [
    "*", "**", "*/", "**/", "foo", "foo/", "/foo", "foo/*", "foo/**", "**/foo", "a/**/b", "*.o", "!*.o",
    "!foo", "!foo/", "!*/", "/a/b", "a/b/", "[ab]", "[!a]", "[^a-c]*", "[[:alpha:]]", "[]a]", "[a", "a?",
    r"\!x", "# c", "x ", r"x\ ", "b/**", "!b/foo", "/*", "!/a", "**/b/**", "a/*/b", "foo**", "**foo", r"\*",
    "a\\", "[b-a]", r"[\a-c]", "[--a]", "",
]  # fmt: skip


def taken_by_git(folder: Path) -> set[str]:
    command = ["git", "-C", str(folder), "ls-files", "-o", "-z", "--exclude-per-directory=.gitignore"]
    listed = subprocess.run(command, capture_output=True, check=True).stdout.decode().split("\0")
    return {path for path in listed if path and not path.rpartition("/")[2].startswith(".")}


def taken_by_us(folder: Path) -> set[str]:
    selection = Selection(use_files=True)
    found = set()

    def walk(scope: Scope, name: str | None, at: Path) -> None:
        inner = selection.enter(scope, name, str(at))
        for path in at.iterdir():
            if selection.takes(inner, path.name, is_folder=path.is_dir()):
                if path.is_dir():
                    walk(inner, path.name, path)
                else:
                    found.add(path.relative_to(folder).as_posix())

    walk(Scope(), None, folder)
    return found


@settings(max_examples=40)
@given(
    st.lists(
        st.lists(st.sampled_from(["a", "b", "foo", "x.o", "!x", "x ", "ab", "*"]), min_size=1, max_size=3)
    ),
    st.lists(st.sampled_from(PATTERNS), min_size=1, max_size=4),
    st.lists(st.sampled_from(PATTERNS), max_size=3),
)
def test_rules_mean_what_git_takes_them_for(
    tmp_path_factory: pytest.TempPathFactory, paths: list[list[str]], outer: list[str], inner: list[str]
) -> None:
    if shutil.which("git") is None:
        pytest.skip("there is no git here")
    folder = tmp_path_factory.mktemp("git")
    subprocess.run(["git", "init", "-q", folder], check=True)
    for parts in paths:
        path = folder.joinpath(*parts)
        if not path.exists() and all(not above.is_file() for above in path.parents):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
    (folder / ".gitignore").write_text("\n".join(outer) + "\n")
    if (folder / "a").is_dir():
        (folder / "a" / ".gitignore").write_text("\n".join(inner))
    assert taken_by_us(folder) == taken_by_git(folder)
    shutil.rmtree(folder)


def test_symlinks_are_followed_if_asked_for(holdfast: Holdfast, tree: Tree, tmp_path: Path) -> None:
    real = tree({"f": b"x", "d": {"g": b"y"}}, "real")
    linked = tree({"f": "../real/f", "d": "../real/d"}, "linked")
    assert holdfast.add(linked, "-n", "--dereference-symlinks") == holdfast.add(real, "-n")
    (tmp_path / "way").symlink_to("real")
    assert holdfast.add(tmp_path / "way", "-n", "--dereference-args") == holdfast.add(real, "-n")
    assert names(holdfast("add", "-n", "--json", "--dereference-args", tmp_path / "way"))[-1] == "real"
    assert holdfast.add(linked, "-n", "--dereference-args") == holdfast.add(linked, "-n")
    assert holdfast("add", "-n", "--json", tmp_path / "way").json["kind"] == "symlink"
    (real / "d" / "up").symlink_to("..")
    assert "leads back" in holdfast.fails(4, "add", "-n", "--dereference-symlinks", real)
    (real / "d" / "up").unlink()
    (linked / "broken").symlink_to("nowhere")
    holdfast.fails(3, "add", "-n", "--dereference-symlinks", linked)
    holdfast("add", "-n", "--dereference-symlinks", "--ignore", "broken", linked)


def test_empty_folders_are_left_out_if_asked_for(holdfast: Holdfast, tree: Tree) -> None:
    root = tree({"a": {"b": {}}, "c": {".h": b""}, "f": b"x"})
    without = tree({"a": {}, "f": b"x"}, "without")
    assert holdfast.add(root, "-n", "--no-empty-dirs") == holdfast.add(
        without, "-n"
    )  # as kubo: not again for `a`
    assert "tree/c" in names(holdfast("add", "-n", "--json", root))
    nothing = tree({}, "nothing")
    assert holdfast.add(nothing, "-n", "--no-empty-dirs", *V0) == vector("empty folder", "v0")


def test_wrapping_prints_the_arguments_too(holdfast: Holdfast, tree: Tree) -> None:
    root = tree({"a": b"1"})
    rows = holdfast(
        "add", "-n", "-w", "--json", root, root / "a", "-", "--stdin-name", "in", stdin=b"2"
    ).json_lines
    assert [row["name"] for row in rows] == ["tree/a", "tree", "a", "in", ""]
    assert [row["cid"] for row in rows][-1:] == [holdfast("add", "-n", "-w", "-Q", root, root / "a", "-",
                                                          "--stdin-name", "in", stdin=b"2").text]  # fmt: skip
    assert holdfast("add", "-n", "--silent", root).stdout == b""


def test_without_a_path_standard_input_is_added(holdfast: Holdfast) -> None:
    piped, _ = holdfast.process("add", "-n", "-Q", stdin=subprocess.PIPE).communicate(b"hello world")
    assert piped.decode().strip() == holdfast("add", "-n", "-Q", "-", stdin=b"hello world").text
    nothing = holdfast.process("add", "-n", "-Q", stdin=subprocess.DEVNULL)
    assert b"name a PATH" in nothing.communicate()[1]
    assert nothing.returncode == 2
    fifo = holdfast.home.parent / "fifo"
    os.mkfifo(fifo)
    writer = subprocess.Popen([sys.executable, "-c", f"open({str(fifo)!r}, 'w').write('piped')"])
    assert holdfast("add", "-n", "--json", fifo).json["size_bytes"] == 5
    writer.wait()


def test_given_metadata_goes_into_every_entry(holdfast: Holdfast, tree: Tree) -> None:
    empty = tree({}) / "empty"
    empty.touch()
    both = vector("empty file, mode 0764, mtime 1603539720 s 54321 ns", "v0")
    for mode in ("0764", "0o764", "500"):
        given = ("--mode", mode, "--mtime", 1603539720, "--mtime-nsecs", 54321)
        assert holdfast.add(empty, "-n", *V0, *given) == both
        assert holdfast.add(empty, "-n", *V0, *given, "--preserve-mode", "--preserve-mtime") == both
        assert holdfast("add", "-n", "-Q", "-", *V0, *given).text == both
    assert holdfast.add(empty, "-n", "--mode", 0, "--mtime", 0) == holdfast.add(empty, "-n")
    empty.chmod(0)
    assert holdfast.add(empty, "-n", *V0, "--preserve-mode") == holdfast.add(empty, "-n", *V0)


def test_shapes_of_the_dag(holdfast: Holdfast, tree: Tree, tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(rnd(45 << 20, "trickle-test"))
    trickle = vector("rnd(45 MiB,'trickle-test')", "v0, trickle layout")
    assert holdfast.add(tmp_path / "f", "-n", *V0, "--layout", "trickle") == trickle
    assert holdfast.add(tmp_path / "f", "-n", *V0, "--trickle", "--chunker", "size-262144") == trickle
    root = tree({f"file{n}": b"%d" % n for n in range(40)})
    flat = holdfast.add(root, "-n")
    for never in (("--hamt-threshold", 0, "--max-directory-links", 5), ("--max-directory-links", 40)):
        assert holdfast.add(root, "-n", *never) == flat
    sharded = holdfast.add(root, "-n", "--hamt-threshold", 1)
    assert sharded != flat
    for always in (("--max-directory-links", 39), ("--hamt-threshold", 300, "--hamt-estimate", "links")):
        assert holdfast.add(root, "-n", *always) == sharded
    assert holdfast.add(root, "-n", "--hamt-threshold", 1, "--hamt-fanout", 8) not in (flat, sharded)


def test_inlined_content_is_stored_in_its_cids(holdfast: Holdfast, tree: Tree, tmp_path: Path) -> None:
    root = tree({"small": b"s" * 32, "larger": b"l" * 33, "link": "small"})
    rows = {row["name"]: row["cid"] for row in holdfast("add", "--inline", "--json", root).json_lines}
    assert rows["tree/small"].startswith("bafkqa")
    assert rows["tree/link"].startswith("bafyaa")
    assert rows["tree/larger"].startswith("bafkrei")
    holdfast("get", rows["tree"], "-o", tmp_path / "back")
    assert (tmp_path / "back" / "small").read_bytes() == b"s" * 32
    (tmp_path / "one").write_bytes(b"x")
    tiny = holdfast.add(tmp_path / "one", "--inline", "--inline-limit", 1)
    assert holdfast("cat", tiny).stdout == b"x"
    holdfast("repo", "gc")
    assert holdfast("cat", f"{rows['tree']}/larger").stdout == b"l" * 33


def screen(output: bytes) -> list[str]:
    """The lines of a terminal after all that was written to it."""
    lines, column = [""], 0
    for part in re.findall(rb"\r\n|\r|\x1b\[K|[^\r\x1b]+", output):
        if part == b"\r\n":
            lines.append("")
        if part in (b"\r\n", b"\r"):
            column = 0
        elif part == b"\x1b[K":
            lines[-1] = lines[-1][:column]
        else:
            text = part.decode()
            lines[-1] = lines[-1][:column] + text + lines[-1][column + len(text) :]
            column += len(text)
    return lines


def read_terminal(master: int) -> Iterable[bytes]:
    while True:
        try:
            data = os.read(master, 65536)
        except OSError:  # the other side is closed
            return
        if not data:
            return
        yield data


def test_progress_and_results_share_a_terminal(holdfast: Holdfast, tree: Tree) -> None:
    root = tree({f"f{n}": rnd(6 << 20, str(n)) for n in range(4)})
    master, slave = pty.openpty()
    process = holdfast.process(
        "add", "-n", "--chunker", "buzhash", root, stdin=slave, stdout=slave, stderr=slave
    )
    os.close(slave)
    output = b"".join(read_terminal(master))
    os.close(master)
    assert process.wait() == 0
    assert b"hashed" in output
    lines = screen(output)
    assert [line.split()[2] for line in lines if line.startswith("added")] == [
        "tree/f0",
        "tree/f1",
        "tree/f2",
        "tree/f3",
        "tree",
    ]
    assert lines[-1] == ""
    assert all(line.startswith("added") for line in lines[:-1])


def test_interrupted_it_leaves_no_pin_and_the_next_run_finds_the_blocks(
    holdfast: Holdfast, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = rnd(48 << 20, "again")
    (tmp_path / "f").write_bytes(content)
    reader, writer = os.pipe()
    process = holdfast.process("add", "-", stdin=reader)
    os.close(reader)
    with os.fdopen(writer, "wb", buffering=0) as pipe:
        view = memoryview(content)
        while view:
            view = view[pipe.write(view) :]
        process.send_signal(signal.SIGINT)  # it has read nearly all, and waits for the end
        _, errors = process.communicate()
    assert process.returncode == 130
    assert errors.decode().splitlines()[-1] == "holdfast: interrupted"
    assert holdfast("pin", "ls", "--json").json_lines == []
    monkeypatch.setattr("cli.commands_add.LONG_S", 0.0)
    said = holdfast("add", tmp_path / "f").stderr
    assert re.search(r"48\.0 MiB in \d+ s \(.*/s\), \d+\.\d MiB of it here already$", said.strip())
    said = holdfast("add", tmp_path / "f").stderr
    assert said.strip().endswith("48.0 MiB of it here already")
    assert holdfast("add", "-q", tmp_path / "f").stderr == ""
    holdfast("repo", "verify")
