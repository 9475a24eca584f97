"""Finds the `cometbft` program, or builds the pinned release of it with `go install`."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

from cli.output import CommandError, ExitCode, invalid, meter, not_found, note, usage
from ledger.engine.cometbft.home.release import (
    MODULE,
    MODULE_SUM,
    VERSION,
    is_known,
    known_text,
    parse_version,
)

if TYPE_CHECKING:
    from cli.home import Home

SETTING: Final = "ledger.cometbft"
PROGRAM: Final = "cometbft"
VERSION_TIMEOUT_S: Final = 20.0
SAID_EVERY_S: Final = 30.0
MAX_ANSWER_CHARS: Final = 200
PLACE: Final = (
    f"give the path of one with `holdfast config set {SETTING} /path/to/cometbft`, or use the container image"
)
GO_MISSING: Final = (
    f"cometbft {VERSION} is not on this machine, and neither is Go, which builds it: "
    f"install Go 1.25 or newer (https://go.dev/dl/) and try again, or {PLACE}"
)
# Of the user's, what would build another thing than what is pinned, or for another machine.
_UNSET: Final = (
    "GOOS",
    "GOARCH",
    "GOARM",
    "GOAMD64",
    "GOBIN",
    "GOEXPERIMENT",
    "GOPRIVATE",
    "GONOSUMDB",
    "GONOSUMCHECK",
)
_OFFLINE: Final = (
    "dial tcp",
    "no such host",
    "lookup",
    "connection refused",
    "i/o timeout",
    "disabled by GOPROXY=off",
)


def find_cometbft(home: Home) -> Path:
    """The program that this home's ledger runs on; builds it, with progress, where there is none.

    In this order: what the setting names, the one built before, one on PATH of a known release. Raises
    CommandError: exit 2 or 4 for a setting that names none, 3 without Go, 5 offline.
    """
    if named := home.config.text(SETTING):
        return _named(named, f"{SETTING} ({home.config.origin(SETTING)}):")
    built = cache_folder(home) / f"{PROGRAM}-{VERSION}" / PROGRAM
    if built.is_file() and _release_of(built) is not None:
        return built
    if on_path := shutil.which(PROGRAM):
        release = _release_of(Path(on_path))
        if release is not None and is_known(release):
            return Path(on_path)
        note(f"{on_path} is not of a release that this version works with ({known_text()}): passed over")
    return _build(built)


def cache_folder(home: Home) -> Path:
    """Where the program is kept for all homes of a user: $XDG_CACHE_HOME/holdfast, else ~/.cache/holdfast."""
    named = home.environ.get("XDG_CACHE_HOME", "")
    base = Path(named) if named.startswith("/") else Path.home() / ".cache"  # relative ones are to be ignored
    return base / "holdfast"


def _named(named: str, origin: str) -> Path:
    found = shutil.which(os.path.expanduser(named))  # noqa: PTH111 (a name on PATH is no path)
    if found is None:
        raise usage(f"{origin} {named} is no program: name the cometbft program, or unset {SETTING}")
    path = Path(found).absolute()
    release = _release_of(path)
    if release is None:
        raise invalid(f"{origin} {path} does not say which release of CometBFT it is")
    if not is_known(release):
        told = ".".join(map(str, release))
        raise invalid(f"{origin} {path} is CometBFT {told}; this version works with {known_text()}")
    return path


def _release_of(program: Path) -> tuple[int, int, int] | None:
    """What a program answers to `version`; None where it is no cometbft."""
    try:
        done = subprocess.run(
            [str(program), "version"], capture_output=True, text=True, errors="replace",
            timeout=VERSION_TIMEOUT_S, stdin=subprocess.DEVNULL, check=False,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return None
    return parse_version(done.stdout[:MAX_ANSWER_CHARS]) if done.returncode == 0 else None


def _build(target: Path) -> Path:
    """Builds the pinned release into the cache, in one step: an interrupted build leaves nothing."""
    go = shutil.which("go")
    if go is None:
        raise not_found(GO_MISSING)
    note(f"building cometbft {VERSION} with {go}, once for this machine: two or three minutes")
    target.parent.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent.parent, prefix=".building-") as folder:
        environ = {name: value for name, value in os.environ.items() if name not in _UNSET}
        environ |= {
            "GOBIN": folder, "GOWORK": "off", "GO111MODULE": "on", "CGO_ENABLED": "0",
            "GOFLAGS": "-trimpath -buildvcs=false",
        }  # fmt: skip
        _require_sum(go, environ, folder)
        _go([go, "install", "-v", "-ldflags", "-s -w", f"{MODULE}/cmd/{PROGRAM}@v{VERSION}"], environ, folder)
        made = Path(folder) / PROGRAM
        if _release_of(made) != parse_version(VERSION):
            raise CommandError(f"what {go} built is not cometbft {VERSION}: {PLACE}")
        target.parent.mkdir(mode=0o700, exist_ok=True)
        made.replace(target)
    note(f"built {target}")
    return target


def _require_sum(go: str, environ: dict[str, str], folder: str) -> None:
    """Exit 4 where the module's files are not those that were known good."""
    answer = _go([go, "mod", "download", "-json", f"{MODULE}@v{VERSION}"], environ, folder)
    try:
        found = json.loads(answer).get("Sum")
    except (ValueError, AttributeError):
        found = None
    if found != MODULE_SUM:
        raise invalid(
            f"what came as {MODULE} v{VERSION} is not what was released: its hash is {found}, "
            f"not {MODULE_SUM}. Look at `go env GOPROXY`, then try again"
        )


def _go(command: list[str], environ: dict[str, str], folder: str) -> str:
    """What a go command prints; each line of its messages moves the progress on."""
    progress = meter("building", None, as_text=lambda count: f"{count:,.0f} packages")
    last: list[str] = []
    with _lines_in_a_log(), tempfile.TemporaryFile("w+") as answer:
        with subprocess.Popen(
            command, cwd=folder, env=environ, stdin=subprocess.DEVNULL, stdout=answer,
            stderr=subprocess.PIPE, text=True, errors="replace",
        ) as process:  # fmt: skip
            assert process.stderr is not None
            try:
                for line in process.stderr:
                    last = [*last[-4:], line.strip()]
                    progress.advance(1)
            except BaseException:
                process.kill()
                raise
            finally:
                progress.finish()
        answer.seek(0)
        said = answer.read()
    if process.returncode:
        raise _failed(" ".join([*last, _error_in(said)]).strip())
    return said


@contextmanager
def _lines_in_a_log() -> Iterator[None]:
    """Says every half a minute that it goes on, where no terminal shows the progress."""
    ended = threading.Event()
    began_s = time.monotonic()

    def say() -> None:
        while not ended.wait(SAID_EVERY_S):
            note(f"still building cometbft {VERSION}: {time.monotonic() - began_s:,.0f} s")

    if sys.stderr.isatty():
        yield
        return
    telling = threading.Thread(target=say, daemon=True)
    telling.start()
    try:
        yield
    finally:
        ended.set()
        telling.join()


def _error_in(answer: str) -> str:
    try:
        return str(json.loads(answer).get("Error", ""))
    except (ValueError, AttributeError):
        return ""


def _failed(why: str) -> CommandError:
    if any(sign in why for sign in _OFFLINE):
        return CommandError(
            f"cometbft {VERSION} is not on this machine and cannot be fetched: {why}. "
            "Try again with a network, or build it elsewhere (CGO_ENABLED=0 go install "
            f"{MODULE}/cmd/{PROGRAM}@v{VERSION}), copy it here and {PLACE}",
            ExitCode.UNREACHABLE,
        )
    return CommandError(f"go could not build cometbft {VERSION}: {why}; or {PLACE}")
