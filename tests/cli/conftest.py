"""Runs `holdfast` command lines: in this process for speed, in another one where that is the point."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from cli.main import run

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Result:
    """What a command line gave back."""

    code: int
    stdout: bytes
    stderr: str

    @property
    def text(self) -> str:
        return self.stdout.decode().strip()

    @property
    def json(self) -> Any:
        return json.loads(self.stdout)

    @property
    def json_lines(self) -> list[Any]:
        return [json.loads(line) for line in self.stdout.splitlines()]


class Holdfast:
    """One home and ways to run commands on it."""

    def __init__(
        self, home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[bytes]
    ) -> None:
        self.home = home
        self._monkeypatch = monkeypatch
        self._capsys = capsys
        monkeypatch.setenv("HOLDFAST_HOME", str(home))
        monkeypatch.setenv("HOLDFAST_STORAGE_RESERVE_BYTES", "0")
        monkeypatch.setenv("HOLDFAST_NAMES_DNS", "off")

    def __call__(
        self, *arguments: object, stdin: bytes = b"", code: int | None = 0, traceback: bool = False
    ) -> Result:
        """Runs the command line here; its exit code must be `code` (None: any)."""
        self._monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        self._capsys.readouterr()
        got = run([str(a) for a in arguments])
        out, err = self._capsys.readouterr()
        result = Result(got, out, err.decode())
        if code is not None:
            assert got == code, f"{arguments} exited with {got}, not {code}: {result.stderr}"
        assert traceback == ("Traceback" in result.stderr)
        return result

    def fails(self, code: int, *arguments: object, stdin: bytes = b"") -> str:
        """Runs a command line that must fail with `code` and say why in one line; returns that line."""
        result = self(*arguments, stdin=stdin, code=code)
        lines = [line for line in result.stderr.splitlines() if line.startswith("holdfast: ")]
        assert len(lines) == 1, result.stderr
        return lines[0]

    def add(self, path: Path, *options: object) -> str:
        """The root CID of an added path."""
        return self("add", "-Q", *options, path).text

    def process(self, *arguments: object, **options: Any) -> subprocess.Popen[bytes]:
        """Starts the command line in a process of its own, with its output in pipes."""
        options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
        environ = {**os.environ, "HOLDFAST_HOME": str(self.home)}
        command = [sys.executable, "-m", "cli.main", *(str(a) for a in arguments)]
        return subprocess.Popen(command, cwd=ROOT, env=environ, **options)


@pytest.fixture
def holdfast(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsysbinary: pytest.CaptureFixture[bytes]
) -> Holdfast:
    """Commands on a fresh home."""
    return Holdfast(tmp_path / "home", monkeypatch, capsysbinary)


@pytest.fixture
def tree(tmp_path: Path) -> Callable[..., Path]:
    """Makes folders from nested dicts: bytes are files, str are symlinks, dicts are folders."""

    def make(content: dict[str, Any], name: str = "tree") -> Path:
        root = tmp_path / name
        root.mkdir()
        for key, value in content.items():
            if isinstance(value, bytes):
                (root / key).write_bytes(value)
            elif isinstance(value, str):
                (root / key).symlink_to(value)
            else:
                make(value, f"{name}/{key}")
        return root

    return make
