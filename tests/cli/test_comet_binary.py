"""How the `cometbft` program is found, and what is said where it is not: `go` is played by short scripts."""

from __future__ import annotations

from pathlib import Path

import pytest

from cli import comet_binary
from cli.comet_binary import cache_folder, find_cometbft
from cli.comet_service import comet_home
from cli.home import Home
from cli.output import CommandError, ExitCode
from ledger.engine.cometbft.home.release import LINES, MODULE_SUM, VERSION, is_known, parse_version
from tests.cli.conftest import Holdfast
from tests.ledger.cometbft.processes import find_cometbft as installed_cometbft

GOOD_SUM = f"""case "$1" in
  mod) echo '{{"Sum": "{MODULE_SUM}"}}' ;;
  install)
    echo "github.com/one" >&2; echo "github.com/two" >&2
    [ "$GOFLAGS" = "-trimpath -buildvcs=false" ] && [ -z "$GOOS" ] || exit 9
    printf '#!/bin/sh\\necho {VERSION}\\n' > "$GOBIN/cometbft"; chmod +x "$GOBIN/cometbft" ;;
esac"""


class Machine:
    """A home, a cache and a PATH of their own."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.programs = folder / "bin"
        self.programs.mkdir(parents=True)
        monkeypatch.setenv("PATH", f"{self.programs}:/usr/bin:/bin")
        self.home = Home(folder / "home", {"XDG_CACHE_HOME": str(folder / "cache")})
        self.cache = folder / "cache" / "holdfast"

    def program(self, name: str, script: str) -> Path:
        path = self.programs / name
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)
        return path

    def refused(self, code: ExitCode) -> str:
        with pytest.raises(CommandError) as caught:
            find_cometbft(self.home)
        assert caught.value.code is code
        return str(caught.value)


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    return Machine(tmp_path, monkeypatch)


@pytest.mark.peers
def test_the_real_program_is_taken_by_its_path(machine: Machine) -> None:
    machine.home.config.set("ledger.cometbft", str(installed_cometbft()))
    assert find_cometbft(machine.home) == installed_cometbft()


def test_without_go_it_says_what_to_install(machine: Machine) -> None:
    said = machine.refused(ExitCode.NOT_FOUND)
    assert "https://go.dev/dl/" in said
    assert "holdfast config set ledger.cometbft" in said


def test_it_is_built_once(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GOFLAGS", "-mod=vendor")
    monkeypatch.setenv("GOOS", "plan9")
    go = machine.program("go", GOOD_SUM)
    built = find_cometbft(machine.home)
    assert built == machine.cache / f"cometbft-{VERSION}" / "cometbft"
    go.unlink()
    assert find_cometbft(machine.home) == built
    assert [path.name for path in machine.cache.iterdir()] == [f"cometbft-{VERSION}"]


def test_a_log_hears_of_a_long_build(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    """The build ends once that was said, and would fail after a minute without."""
    told = machine.home.path.with_name("told")
    said: list[str] = []

    def hear(line: str) -> None:
        said.append(line)
        if "still building" in line:
            told.touch()

    wait = f'for _ in $(seq 600); do [ -e "{told}" ] && break; sleep 0.1; done; [ -e "{told}" ] || exit 8'
    machine.program("go", GOOD_SUM.replace('echo "github.com/one" >&2', wait))
    monkeypatch.setattr(comet_binary, "SAID_EVERY_S", 0.01)
    monkeypatch.setattr(comet_binary, "note", hear)
    find_cometbft(machine.home)
    assert "building cometbft" in said[0]
    assert any(line.startswith(f"still building cometbft {VERSION}: ") for line in said[1:-1])


def test_a_start_that_cannot_be_is_refused_before_anything_is_built(
    holdfast: Holdfast, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = Machine(tmp_path / "machine", monkeypatch)
    built = tmp_path / "built"
    machine.program("go", f'touch "{built}"; exit 1')
    monkeypatch.setenv("XDG_CACHE_HOME", str(machine.cache))
    monkeypatch.delenv("HOLDFAST_LEDGER_COMETBFT", raising=False)
    holdfast("ledger", "init", "--engine", "cometbft")
    home = Home(holdfast.home)
    keys = [home.keys / "beacon.key", comet_home(home).node_key_file, comet_home(home).validator_key_file]
    for key in keys:
        kept = key.read_bytes()
        key.write_bytes(b"damaged")
        assert holdfast("ledger", "start", code=None).code in (1, 4)
        assert not built.exists()
        key.write_bytes(kept)
    holdfast("ledger", "start", code=None)
    assert built.exists()


def test_other_files_than_were_released_are_never_built(machine: Machine) -> None:
    machine.program("go", GOOD_SUM.replace(MODULE_SUM, "h1:AAAA"))
    assert "h1:AAAA" in machine.refused(ExitCode.INVALID)
    assert list(machine.cache.iterdir()) == []


def test_offline_it_says_so(machine: Machine) -> None:
    machine.program("go", """echo '{"Error": "dial tcp: lookup proxy.golang.org: no such host"}'; exit 1""")
    said = machine.refused(ExitCode.UNREACHABLE)
    assert "no such host" in said
    assert f"@v{VERSION}" in said


def test_a_build_that_fails_says_why(machine: Machine) -> None:
    machine.program("go", GOOD_SUM.replace('echo "github.com/one" >&2', "echo 'no room left' >&2; exit 1 "))
    assert "no room left" in machine.refused(ExitCode.FAILED)


def test_another_release_on_path_is_passed_over(machine: Machine, capsys: pytest.CaptureFixture[str]) -> None:
    machine.program("cometbft", "echo 0.38.17")
    machine.refused(ExitCode.NOT_FOUND)
    assert "passed over" in capsys.readouterr().err
    newer = machine.program("cometbft", "echo 0.40.2+abc")
    assert find_cometbft(machine.home) == newer


@pytest.mark.parametrize("script", ["echo 0.38.17", "echo hello", "exit 1"])
def test_a_setting_that_names_another_program_is_refused(machine: Machine, script: str) -> None:
    machine.home.config.set("ledger.cometbft", str(machine.program("mine", script)))
    assert "ledger.cometbft" in machine.refused(ExitCode.INVALID)


def test_a_setting_that_names_nothing_is_refused(machine: Machine) -> None:
    machine.home.config.set("ledger.cometbft", "/nowhere/cometbft")
    assert "/nowhere/cometbft is no program" in machine.refused(ExitCode.USAGE)


def test_releases() -> None:
    assert all(is_known(line) for line in LINES)
    assert is_known(parse_version(VERSION) or (0, 0, 0))
    assert not any(is_known(other) for other in [(0, 38, 26), (0, 39, 3), (0, 41, 0), (1, 0, 1)])
    assert parse_version("v0.40.0-rc1") == (0, 40, 0)
    assert parse_version("0.40") is None


def test_a_relative_cache_is_ignored() -> None:
    assert cache_folder(Home(Path("/nowhere"), {"XDG_CACHE_HOME": "here"})) == Path.home() / ".cache/holdfast"
