"""The program itself: start-up, help, exit codes, and one line for every failure."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import signal
import subprocess
import sys
import threading
import tomllib
from pathlib import Path
from typing import Any

import pytest

from cli import groups, output
from cli.main import COMMANDS, Entry, main
from cli.output import CommandError, ExitCode, describe, exit_code, printable, size_text
from cli.version import VERSION
from merkledag.errors import DecodeError, HashMismatch, InvalidCID, NoSuchLink, NotAFile
from storage_node.errors import BlockNotFound, CorruptStore, QuotaExceeded, StoreFull
from tests.cli.conftest import ROOT, Holdfast

SLOW_MODULES = {"aiohttp", "multiformats", "py_ecc", "rich", "pydantic", "uvloop", "zfec", "asyncio"}


def modules_after(*arguments: str) -> set[str]:
    """The top-level modules that a command line imports, in a process of its own."""
    code = "import sys, cli.main; cli.main.run(sys.argv[1:]); sys.stderr.write(' '.join(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return {name.partition(".")[0] for name in done.stderr.split()}


def test_version_is_that_of_the_package_and_imports_nothing_slow() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["version"] == VERSION
    modules = modules_after("--version")
    assert not modules & (SLOW_MODULES | {"typer", "cbor2", "lmdb", "merkledag"})


def test_adding_a_small_file_imports_nothing_slow(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"hello world")
    assert not modules_after("add", "-n", "-Q", str(tmp_path / "f")) & (
        SLOW_MODULES | {"lmdb", "cryptography"}
    )


def test_every_command_of_the_table_loads_and_has_help() -> None:
    command = groups.root_command(COMMANDS)
    for name in COMMANDS:
        loaded = command.get_command(None, name)
        assert loaded is not None
        assert (loaded.help or "").strip(), name
        for sub in getattr(loaded, "commands", {}).values():
            assert (sub.help or "").strip(), f"{name} {sub.name}"


def leaves(loaded: Any, name: str = "") -> dict[str, Any]:
    """The commands of a group and of the groups in it, by what is written after the first one's name."""
    found: dict[str, Any] = {}
    for sub, each in getattr(loaded, "commands", {"": loaded}).items():
        below = f"{name} {sub}".strip()
        found |= leaves(each, below) if hasattr(each, "commands") else {below: each}
    return found


def test_every_command_takes_json() -> None:
    command = groups.root_command(COMMANDS)
    for name in COMMANDS:
        for each in leaves(command.get_command(None, name)).values():
            options = {option for param in each.params for option in param.opts}
            assert "--json" in options, f"{name} {each.name}"


def test_the_page_of_the_command_line_names_what_there_is() -> None:
    """Every option in docs/cli.md exists, and every content command is in it."""
    page = (ROOT / "docs" / "cli.md").read_text()
    command = groups.root_command(COMMANDS)
    options = {"--help", "--version"}
    for name in COMMANDS:
        loaded = command.get_command(None, name)
        for sub, each in leaves(loaded).items():
            options |= {option for param in each.params for option in (*param.opts, *param.secondary_opts)}
            if name not in {"deal", "node", "wallet", "ledger"} and not each.hidden:  # pages of their own
                alone, after = rf"({name} )?{sub or name}\b", rf"{name} [^`]*\b{sub}\b"  # `ls`, `pin add/ls`
                assert re.search(f"`(holdfast )?({alone}|{after})", page), f"{name} {sub}"
    assert set(re.findall(r"(?<![\w-])--[a-z][a-z0-9-]+", page)) <= options


def test_help_names_every_command(holdfast: Holdfast) -> None:
    shown = holdfast("--help").text
    for name, entry in COMMANDS.items():
        assert re.search(rf"^  {name} +{re.escape(entry.help)}", shown, re.MULTILINE), name
    assert "--cid-version" in holdfast("add", "--help").text
    assert holdfast("--version").text == f"holdfast {VERSION}"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("frobnicate",), "no command is called 'frobnicate'"),
        (("ad",), "did you mean add?"),
        (("--frobnicate",), "--frobnicate"),
        (("add",), "PATH"),
        (("add", "--frobnicate", "x"), "--frobnicate"),
        (("add", "--cid-version", "one", "x"), "whole number"),
        (("pin", "frobnicate"), "frobnicate"),
        (("add", "--pin=maybe", "x"), "--pin"),
        (("add", "--recursive=false", "x"), "--recursive"),
    ],
)
def test_usage_errors_are_one_line_and_exit_2(
    holdfast: Holdfast, arguments: tuple[str, ...], says: str
) -> None:
    assert says in holdfast.fails(2, *arguments)
    assert not holdfast.home.exists()


def test_switches_take_true_and_false_as_kubo_writes_them(holdfast: Holdfast, tmp_path: Path) -> None:
    (tmp_path / "--pin=false").write_bytes(b"x" * 10)
    file = tmp_path / "file"
    file.write_bytes(b"y" * 10)
    plain = holdfast("add", "-Q", "--no-pin", "--no-raw-leaves", file).text
    assert (
        holdfast("add", "--quieter=true", "--pin=false", "--raw-leaves=false", "--wrap=false", file).text
        == plain
    )
    assert holdfast("pin", "ls").text == ""
    holdfast("add", "--pin=true", "--no-raw-leaves=false", file)
    assert holdfast("pin", "ls", "--quiet=true").text != plain
    with contextlib.chdir(tmp_path):
        assert holdfast("add", "-q", "--", "--pin=false").text in holdfast("pin", "ls", "-q").text.split()


def test_help_of_a_group_has_whole_sentences(holdfast: Holdfast) -> None:
    for name in COMMANDS:
        shown = holdfast(name, "--help").text
        assert "..." not in shown.partition("\nCommands:")[2], name


def test_help_shows_arguments_as_they_are_written(holdfast: Holdfast) -> None:
    for words, usage, argument in (
        (("files", "write"), "PATH [DATA]", "DATA  A file with the data, or - for stdin.  [default: -]"),
        (("car", "export"), "PATH…", "PATH…  The roots: CIDs or content paths."),
        (("key", "gen"), "NAME", "NAME  The key's name."),
        (("pin", "ls"), "[PATH…]", "PATH…  Only these."),
    ):
        shown = [line.strip() for line in holdfast(*words, "--help").text.splitlines()]
        assert shown[0] == f"Usage: holdfast {' '.join(words)} [OPTIONS] {usage}"
        assert argument in shown
    assert "Missing argument 'NAME'" in holdfast.fails(2, "key", "gen")


def test_no_arguments_show_help(holdfast: Holdfast) -> None:
    assert "Commands:" in holdfast(code=2).stderr
    assert "export" in holdfast("car", code=2).stderr


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (InvalidCID("x"), 2),
        (NoSuchLink("x", "y"), 3),
        (NotAFile("x"), 4),
        (DecodeError("x"), 4),
        (HashMismatch("x"), 4),
        (BlockNotFound("x"), 3),
        (CorruptStore("x"), 4),
        (StoreFull("x"), 6),
        (QuotaExceeded("x"), 6),
        (FileNotFoundError(errno.ENOENT, "No such file", "x"), 3),
        (PermissionError(errno.EACCES, "Permission denied", "x"), 1),
        (OSError(errno.ENOSPC, "No space left on device"), 6),
        (TimeoutError("x"), 5),
        (ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused"), 5),
        (KeyboardInterrupt(), 130),
        (RuntimeError("x"), 1),
        (CommandError("x", ExitCode.LEDGER), 7),
    ],
    ids=lambda value: type(value).__name__,
)
def test_errors_have_the_exit_codes_of_the_contract(error: BaseException, code: int) -> None:
    assert exit_code(error) == code
    assert "\n" not in describe(error)


def test_a_bug_is_one_line_unless_debugging(holdfast: Holdfast, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(COMMANDS, "broken", Entry("tests.cli.test_main", "broken_command", "Fails."))
    assert "ZeroDivisionError: " in holdfast.fails(1, "broken")
    monkeypatch.setenv("HOLDFAST_DEBUG", "1")
    assert "Traceback" in holdfast("broken", code=1, traceback=True).stderr


def broken_command() -> None:
    """Fails by a bug."""
    _ = 1 // 0


def interrupted_command() -> None:
    """Is interrupted."""
    raise KeyboardInterrupt


def test_an_interrupt_is_130_with_a_line(holdfast: Holdfast, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(COMMANDS, "broken", Entry("tests.cli.test_main", "interrupted_command", "Stops."))
    assert holdfast.fails(130, "broken") == "holdfast: interrupted"


def test_what_others_named_cannot_command_the_terminal() -> None:
    assert printable("a\x1b[2Jb\n") == "a\\x1b[2Jb\\n"
    assert printable("häß 日本") == "häß 日本"
    assert printable(os.fsdecode(b"\xff")).isascii()
    assert size_text(1536) == "1.5 KiB"
    assert size_text(3 << 40) == "3.0 TiB"


def test_progress_draws_rate_and_time_left(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = iter((0.0, 0.05, 1.0, 1.01, 2.0))
    monkeypatch.setattr("cli.output.time.monotonic", lambda: next(clock))
    bar = output.Progress("added", 4 << 20)
    bar.advance(0)
    assert capsys.readouterr().err == ""
    bar.advance(1 << 20)
    bar.advance(1 << 20)
    bar.advance(1 << 20)
    bar.finish()
    drawn = capsys.readouterr().err
    assert "1.0 of 4.0 MiB (25 %), 1.0 MiB/s, 0:03 left" in drawn
    assert "3.0 of 4.0 MiB (75 %), 1.5 MiB/s" in drawn
    assert "2.0 of" not in drawn


@pytest.mark.parametrize(
    ("done", "total", "said"),
    [
        (1, 75, "1 of 75 blobs (1 %), 0.5 blobs/s"),
        (26, 75, "26 of 75 blobs (34 %), 13 blobs/s"),
        (1, 1, "1 of 1 blob (100 %)"),
    ],
)
def test_progress_counts_other_things_than_bytes(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], done: int, total: int, said: str
) -> None:
    clock = iter((0.0, 2.0))
    monkeypatch.setattr("cli.output.time.monotonic", lambda: next(clock))
    output.Progress("committed", total, output.blobs_text).advance(done)
    output.Progress.on_screen = None
    assert f"committed {said}" in capsys.readouterr().err


def test_sigint_ends_a_long_add_with_130_and_nothing_pinned(holdfast: Holdfast, tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with subprocess.Popen(["sleep", "60"], stdout=subprocess.PIPE) as writer:
        process = holdfast.process("add", "-", stdin=writer.stdout)
        assert process.stderr is not None
        line = process.stderr.readline()  # the home was made: the command is under way
        process.send_signal(signal.SIGINT)
        _, rest = process.communicate(timeout=60)
        writer.kill()
    assert process.returncode == 130, rest
    assert b"made " in line
    assert rest.decode().splitlines() == ["holdfast: interrupted"]
    assert holdfast("pin", "ls", "--json").json_lines == []


def test_a_reader_that_goes_away_is_no_news(holdfast: Holdfast, tmp_path: Path) -> None:
    (tmp_path / "big").write_bytes(os.urandom(3 << 20))
    cid = holdfast.add(tmp_path / "big")
    process = holdfast.process("cat", cid)
    assert process.stdout is not None
    assert len(process.stdout.read(10)) == 10
    process.stdout.close()
    assert process.stderr is not None
    assert process.stderr.read() == b""
    process.stderr.close()
    assert process.wait(60) == 1


def test_closed_streams_are_no_error(holdfast: Holdfast, tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"x")
    command = f"{sys.executable} -m cli.main add {tmp_path / 'f'}"
    for closed in (">&-", "2>&-", ">&- 2>&-", "<&- >&- 2>&-"):
        environ = {**os.environ, "HOLDFAST_HOME": str(holdfast.home)}
        done = subprocess.run(["sh", "-c", f"{command} {closed}"], cwd=ROOT, env=environ, capture_output=True)
        assert (done.returncode, b"Traceback" in done.stderr) == (0, False), closed


def test_a_closed_stdin_is_not_an_empty_file(holdfast: Holdfast) -> None:
    environ = {**os.environ, "HOLDFAST_HOME": str(holdfast.home)}
    command = f"{sys.executable} -m cli.main add -n - <&-"
    done = subprocess.run(["sh", "-c", command], cwd=ROOT, env=environ, capture_output=True, check=False)
    assert (done.returncode, done.stdout) == (1, b"")
    assert done.stderr == b"holdfast: Bad file descriptor\n"


@pytest.mark.parametrize(
    "content",
    ['{"pid":100000000000000000000,"url":"http://127.0.0.1:1"}', '{"pid":1,"url":5}', "[1]", "{",
     "[" * 60_000, '{"pid":1,"url":"http://[::1"}', '{"pid":true,"url":"http://127.0.0.1:1"}'],
)  # fmt: skip
def test_an_odd_run_file_counts_as_no_server(holdfast: Holdfast, content: str) -> None:
    holdfast("init")
    (holdfast.home / "run" / "node.json").write_text(content)
    assert "holdfast up" in holdfast.fails(5, "node", "status")


def test_a_home_may_have_any_name(
    holdfast: Holdfast, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "f").write_bytes(b"hello")
    for name in ("with space", "new\nline", "\N{SNOWMAN}", "\udcff"):
        monkeypatch.setenv("HOLDFAST_HOME", str(tmp_path / name))
        cid = holdfast.add(tmp_path / "f")
        holdfast("repo", "compact", "--json")
        assert holdfast("cat", cid).stdout == b"hello"


def test_a_home_that_cannot_be_one_is_told_in_a_line(
    holdfast: Holdfast, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "nowhere").symlink_to(tmp_path / "missing")
    (tmp_path / "circle").symlink_to(tmp_path / "circle")
    homes = {"~nobody-is-called-so/home": 2, " ": 2}
    homes |= {str(tmp_path / name): 4 for name in ("file", "file/home", "nowhere", "circle")}
    for home, code in homes.items():
        monkeypatch.setenv("HOLDFAST_HOME", home)
        holdfast.fails(code, "repo", "stat", "--json")


def test_an_interrupt_before_anything_is_there_to_report_it_is_130(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(_: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr("cli.main.run", interrupted)
    with pytest.raises(SystemExit) as ended:
        main(["ls"])
    assert ended.value.code == 130
    assert capsys.readouterr().err == "holdfast: interrupted\n"


def test_an_interrupt_that_strikes_a_lock_is_an_interrupt() -> None:
    lock = threading.Lock()

    def struck() -> None:
        try:
            raise KeyboardInterrupt
        finally:
            lock.release()

    with pytest.raises(RuntimeError) as found:
        struck()
    assert (exit_code(found.value), describe(found.value)) == (ExitCode.INTERRUPTED, "interrupted")
    with pytest.raises(RuntimeError) as found:
        lock.release()
    assert exit_code(found.value) == ExitCode.FAILED
