"""The servers that `bench/gateway.py` measures: ours of any source tree, bare aiohttp, kubo; memory."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple, Protocol
from urllib.parse import urlsplit

from bench.commands import HOLDFAST, ROOT

SAMPLE_S: Final = 0.02
END_S: Final = 15.0


class Files(NamedTuple):
    """The same as files."""

    small: Path
    large: Path
    tree: Path


@dataclass(frozen=True, slots=True)
class Server:
    """A server under measurement: its processes begin at `pid`."""

    name: str
    port: int
    pid: int
    file_port: int = 0  # of the bare server: where the large file is


class Side(Protocol):
    """What can be started for a round."""

    name: str

    def start(self) -> AbstractContextManager[Server]:
        """The running server."""
        ...


class Store(Side, Protocol):
    """One that serves what was added."""

    def add(self, files: Files) -> tuple[str, str, str]:
        """Imports the files; their CIDs."""
        ...


@contextmanager
def program(command: list[str], root: Path, env: dict[str, str]) -> Iterator[subprocess.Popen[str]]:
    """A process with pipes, ended by SIGTERM."""
    with subprocess.Popen(
        command, cwd=root, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL, text=True,
    ) as process:  # fmt: skip
        try:
            yield process
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(END_S)
            except subprocess.TimeoutExpired:
                process.kill()


def first_json(process: subprocess.Popen[str]) -> dict[str, Any]:
    """The JSON object that a server prints when it is ready, on one line or several."""
    assert process.stdout is not None
    text = ""
    for line in process.stdout:
        text += line
        try:
            found: dict[str, Any] = json.loads(text)
        except ValueError:
            continue
        return found
    raise SystemExit("a server ended before it was ready")


class Ours:
    """`holdfast` of one source tree, with a home of its own."""

    def __init__(self, name: str, root: Path, folder: Path, workers: int) -> None:
        self.name = name
        self._root = root
        self._env = {
            **os.environ,
            "HOLDFAST_HOME": str(folder / name),
            "HOLDFAST_STORAGE_RESERVE_BYTES": "0",
            "PYTHONPATH": str(root),
            "PYTHONPYCACHEPREFIX": str(folder / "compiled"),
        }
        self._workers = ["--workers", str(workers)] if workers > 1 and self._knows_workers() else []

    def _run(self, *arguments: str) -> str:
        return subprocess.run(
            [*HOLDFAST, *arguments], cwd=self._root, env=self._env, check=True, capture_output=True, text=True
        ).stdout

    def _knows_workers(self) -> bool:
        known = "--workers" in self._run("gateway", "--help")
        if not known:
            sys.stderr.write(f"{self.name}: no --workers in that tree, so one process\n")
        return known

    def add(self, files: Files) -> tuple[str, str, str]:
        """Imports the files; their CIDs."""
        small, large, tree = (self._run("add", "-Q", str(path)).strip() for path in files)
        return small, large, tree

    @contextmanager
    def start(self) -> Iterator[Server]:
        """The running gateway."""
        command = [*HOLDFAST, "gateway", "--listen", "127.0.0.1:0", "--json", *self._workers]
        with program(command, self._root, self._env) as process:
            port = urlsplit(first_json(process)["gateway"]).port
            assert port is not None
            yield Server(self.name, port, process.pid)


class Bare:
    """The limits: `bench/gateway_bare.py`."""

    name = "limit"

    def __init__(self, workers: int, large: Path) -> None:
        self._command = [sys.executable, "-m", "bench.gateway_bare", str(workers), str(large)]

    @contextmanager
    def start(self) -> Iterator[Server]:
        """The running servers."""
        with program(self._command, ROOT, dict(os.environ)) as process:
            ports = first_json(process)
            yield Server(self.name, ports["port"], process.pid, ports["file_port"])


class Kubo:
    """kubo in a repository of its own, offline."""

    name = "kubo"

    def __init__(self, ipfs: str, folder: Path) -> None:
        self._ipfs = ipfs
        self._env = {**os.environ, "IPFS_PATH": str(folder / "kubo")}
        self._run("init", "--profile=unixfs-v1-2025")
        self._run("config", "Addresses.Gateway", "/ip4/127.0.0.1/tcp/0")
        self._run("config", "Addresses.API", "/ip4/127.0.0.1/tcp/0")

    def _run(self, *arguments: str) -> str:
        return subprocess.run(
            [self._ipfs, *arguments], env=self._env, check=True, capture_output=True, text=True
        ).stdout

    def add(self, files: Files) -> tuple[str, str, str]:
        """Imports the files; their CIDs."""
        small, large, tree = (self._run("add", "-r", "-Q", str(path)).strip() for path in files)
        return small, large, tree

    @contextmanager
    def start(self) -> Iterator[Server]:
        """The running daemon."""
        with program([self._ipfs, "daemon", "--offline"], ROOT, self._env) as process:
            assert process.stdout is not None
            port = 0
            for line in process.stdout:
                if line.startswith("Gateway server listening on "):
                    port = int(line.strip().rpartition("/")[2])
                if line.startswith("Daemon is ready"):
                    break
            yield Server(self.name, port, process.pid)


# --- memory ---


def processes(pid: int) -> list[int]:
    """A process and those that come from it."""
    found = [pid]
    for parent in found:
        try:
            tasks = list(Path(f"/proc/{parent}/task").iterdir())
            for task in tasks:
                found += map(int, (task / "children").read_text().split())
        except OSError:
            continue
    return found


def processor_s(pid: int) -> float:
    """Processor time, of user and system, of a process and of those that come from it and still run."""
    ticks = 0
    for each in processes(pid):
        try:
            fields = Path(f"/proc/{each}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def anonymous_mib(pid: int) -> float:
    """RssAnon and RssShmem of a process and of those that come from it."""
    total = 0
    for each in processes(pid):
        try:
            lines = Path(f"/proc/{each}/status").read_text().splitlines()
        except OSError:
            continue
        total += sum(int(line.split()[1]) for line in lines if line.startswith(("RssAnon:", "RssShmem:")))
    return total / 1024


@contextmanager
def watched(servers: list[Server], peaks: dict[str, float]) -> Iterator[None]:
    """Notes the peak of each server's memory meanwhile."""
    ended = threading.Event()

    def sample() -> None:
        while not ended.wait(SAMPLE_S):
            for server in servers:
                peaks[server.name] = max(peaks.get(server.name, 0.0), anonymous_mib(server.pid))

    thread = threading.Thread(target=sample)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
