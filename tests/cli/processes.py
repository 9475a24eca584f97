"""Real `holdfast` servers as child processes, for tests of what only whole processes show."""

from __future__ import annotations

import json
import os
import pty
import select
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlsplit

from cli.serve import LIFELINE
from tests.cli.conftest import ROOT

WAIT_S = 90
# Servers watch the first end and stop when the other one closes: when this process ends, however it does.
_LIFELINE, _HELD = os.pipe()


def environment(home: Path, **more: str) -> dict[str, str]:
    """The environment of a child with this home, its servers on free ports."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("HOLDFAST_", "PYTHON"))}
    return kept | {
        "HOLDFAST_HOME": str(home),
        "HOLDFAST_GATEWAY_LISTEN": "127.0.0.1:0",
        "HOLDFAST_NODE_LISTEN": "127.0.0.1:0",
        "HOLDFAST_LEDGER_LISTEN": "127.0.0.1:0",
        "HOLDFAST_STORAGE_RESERVE_BYTES": "0",
        "HOLDFAST_NAMES_DNS": "off",
        **more,
    }


def spawn(env: dict[str, str], *arguments: str, **options: Any) -> subprocess.Popen[bytes]:
    """A `holdfast` command line as a child, its stdout in a pipe; a server does not outlive this process."""
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "cli.main", *arguments],
        env=env | {LIFELINE: str(_LIFELINE)},
        pass_fds=(_LIFELINE,),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        start_new_session=True,
        **options,
    )


def on_terminal(
    env: dict[str, str], *arguments: str, interrupt_at: bytes | None = None, reading_s: float = 0
) -> tuple[int, bytes]:
    """A command line on a terminal of its own; Ctrl-C is typed when it has printed `interrupt_at`.

    Or so long after it as a person reads, if nothing else comes: a question is asked before it is waited for.
    """
    child, screen = pty.fork()
    if child == 0:
        os.chdir(ROOT)
        os.execve(sys.executable, [sys.executable, "-m", "cli.main", *arguments], env)
    seen = b""
    give_up_s = time.monotonic() + WAIT_S
    while time.monotonic() < give_up_s:
        if not select.select([screen], [], [], 1)[0]:
            continue
        try:
            data = os.read(screen, 4096)
        except OSError:  # Linux: the other side has closed
            break
        if not data:
            break
        seen += data
        if interrupt_at is not None and interrupt_at in seen:
            select.select([screen], [], [], reading_s)
            os.write(screen, b"\x03")
            interrupt_at = None
    os.close(screen)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), seen


class Process:
    """One `holdfast` command line with its output as JSON lines."""

    def __init__(self, env: dict[str, str], *arguments: str) -> None:
        self._log: IO[bytes] = (Path(env["HOLDFAST_HOME"]).parent / "stderr.log").open("ab+")
        self.child = spawn(env, *arguments, stderr=self._log)

    def lines(self) -> Iterator[dict[str, Any]]:
        """Every document that it prints, until its output ends."""
        assert self.child.stdout is not None
        for line in self.child.stdout:
            yield json.loads(line)

    def until(self, event: str, **details: Any) -> list[dict[str, Any]]:
        """The documents up to and with the first that has this event and these details."""
        seen = []
        for document in self.lines():
            seen.append(document)
            if document.get("event") == event and all(document.get(k) == v for k, v in details.items()):
                return seen
        raise AssertionError(f"no {event} in {seen}; {self.stderr()}")

    def stderr(self) -> str:
        """What it said on stderr so far."""
        self._log.seek(0)
        return self._log.read().decode("utf-8", "replace")

    def end(self, number: int | None = None) -> tuple[int, str]:
        """Sends a signal, if any, waits for the end; returns the exit code and what it said on stderr."""
        if number is not None and self.child.poll() is None:
            self.child.send_signal(number)
        try:
            self.child.communicate(timeout=WAIT_S)
        except subprocess.TimeoutExpired:
            self.child.kill()
            self.child.communicate()
            raise AssertionError(f"it did not end: {self.stderr()}") from None
        said = self.stderr()
        self._log.close()
        return self.child.returncode, said


def is_running(pid: int) -> bool:
    """Whether a process of this number exists and is no zombie."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    status = Path(f"/proc/{pid}/stat")
    return not (status.exists() and status.read_text().rpartition(")")[2].split()[0] == "Z")


def accepts_connections(url: str) -> bool:
    """Whether somebody listens at a URL's port."""
    parts = urlsplit(url)
    with socket.socket() as probe:
        probe.settimeout(30)
        return probe.connect_ex((parts.hostname or "", parts.port or 0)) == 0
