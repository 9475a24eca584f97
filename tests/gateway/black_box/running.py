"""A real `holdfast gateway` over a home that the command line has filled, for clients to fetch from."""

from __future__ import annotations

import json
import os
import select
import shlex
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import urlsplit

from tests.cli.processes import Process, environment

COMMAND_TIMEOUT_S = 60
JOB_TIMEOUT_S = 60
ENDING_TIMEOUT_S = 30
WORKERS = 2


class GatewayHome:
    """A home under `folder`: command lines on it, and its gateway as a process while the context lasts."""

    def __init__(self, folder: Path, **settings: str) -> None:
        self.folder = folder
        self.dnslinks = folder / "dnslinks.json"
        self.denylist = folder / "ours.deny"
        defaults = {
            "HOLDFAST_DNSLINKS": str(self.dnslinks),
            "HOLDFAST_GATEWAY_DENYLISTS": str(self.denylist),
            "HOLDFAST_MAINTENANCE_ENABLED": "false",
            "HOLDFAST_GATEWAY_WORKERS": str(WORKERS),
        }
        self.env = environment(folder / "home", **defaults | settings)
        self._process: Process | None = None
        self.url = ""
        self.dnslinks.write_text('{"domains": {}}')
        self.deny()

    def run(self, *arguments: str | Path, stdin: bytes = b"") -> str:
        """What a command line prints; it must succeed."""
        command = [sys.executable, "-P", "-m", "cli.main", *map(str, arguments)]
        done = subprocess.run(
            command, env=self.env, input=stdin, capture_output=True, timeout=COMMAND_TIMEOUT_S, check=False
        )
        assert done.returncode == 0, f"{shlex.join(command)}: {done.returncode} {done.stderr.decode()}"
        return done.stdout.decode().strip()

    def add(self, *paths: Path, options: Sequence[str] = ()) -> dict[str, str]:
        """Imports files and folders; CIDs by their path below the folder that they are in."""
        lines = self.run("add", *paths, *options, "--json").splitlines()
        return {entry["name"]: entry["cid"] for entry in map(json.loads, lines)}

    def link(self, domains: Mapping[str, str]) -> None:
        """DNSLinks; before the gateway starts."""
        self.dnslinks.write_text(json.dumps({"domains": dict(domains)}))

    def deny(self, *rules: str) -> None:
        """What is not to be served."""
        self.denylist.write_text("\n".join(("version: 1", "name: ours", "---", *rules, "")))

    @property
    def host(self) -> str:
        return urlsplit(self.url).hostname or ""

    @property
    def port(self) -> int:
        return urlsplit(self.url).port or 0

    def __enter__(self) -> GatewayHome:
        self._process = Process(self.env, "gateway", "--json")
        first = next(self._process.lines(), None)
        assert first is not None, self._process.end(signal.SIGKILL)
        self.url = first["gateway"]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._process is not None
        code, said = self._process.end(signal.SIGINT)
        assert code == 0, said
        assert "Traceback" not in said, said


class Script:
    """A program that takes one JSON document a line as a job, and answers each with one line."""

    def __init__(self, *command: str) -> None:
        self._command = command
        self._process: subprocess.Popen[bytes] | None = None
        self._read = bytearray()

    def __enter__(self) -> Script:
        self._process = subprocess.Popen(
            self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._process is not None
        try:
            self._process.communicate(timeout=ENDING_TIMEOUT_S)  # its input ends, and so it does
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.communicate()

    def ask(self, **job: Any) -> dict[str, Any]:
        """The answer to one job; fails the test if the program ended or says nothing for long."""
        assert self._process is not None
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(job).encode() + b"\n")
        self._process.stdin.flush()
        answer: dict[str, Any] = json.loads(self._line(job))
        return answer

    def _line(self, job: dict[str, Any]) -> bytes:
        assert self._process is not None
        assert self._process.stdout is not None
        output = self._process.stdout.fileno()
        while b"\n" not in self._read:
            assert select.select([output], [], [], JOB_TIMEOUT_S)[0], f"no answer to {job}"
            part = os.read(output, 1 << 16)
            assert part, f"{self._command[-1]} ended at {job}"
            self._read += part
        line, _, rest = bytes(self._read).partition(b"\n")
        self._read[:] = rest
        return line
