"""A home of its own, `holdfast up` on it, and raw requests, for attacks on whole processes."""

from __future__ import annotations

import json
import shutil
import signal
import socket
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

from tests.cli.processes import WAIT_S, environment, spawn

MAX_ANSWER_BYTES = 1 << 20


@dataclass(frozen=True)
class Done:
    """How a command line ended."""

    code: int
    out: bytes
    err: str

    @property
    def line(self) -> str:
        """The one line that says what went wrong."""
        lines = [line for line in self.err.splitlines() if line.startswith("holdfast: ")]
        assert len(lines) == 1, self.err
        return lines[0]


@dataclass
class Machine:
    """One home. `start` runs `up` on it, on free ports."""

    home: Path
    urls: dict[str, str] = field(default_factory=dict)
    server: subprocess.Popen[bytes] | None = None

    @property
    def env(self) -> dict[str, str]:
        return environment(self.home)

    def popen(self, *arguments: str, **options: Any) -> subprocess.Popen[bytes]:
        return spawn(self.env, *arguments, **options)

    def run(self, *arguments: str, code: int | None = 0) -> Done:
        child = self.popen(*arguments, stderr=subprocess.PIPE)
        try:
            out, err = child.communicate(timeout=WAIT_S)
        finally:
            child.kill()
        done = Done(child.returncode, out, err.decode())
        assert "Traceback" not in done.err
        assert done.code >= 0, f"killed by signal {-done.code}"
        assert code is None or done.code == code, (arguments, done)
        return done

    def json(self, *arguments: str) -> Any:
        return json.loads(self.run(*arguments, "--json").out)

    def start(self) -> None:
        with (self.home.parent / "up.log").open("ab") as log:
            self.server = self.popen("up", "--json", stderr=log)
        assert self.server.stdout is not None
        line = self.server.stdout.readline()
        assert line, (self.home.parent / "up.log").read_text()
        self.urls = json.loads(line)

    def kill(self) -> None:
        """`kill -9`, if it runs."""
        if self.server is not None:
            self.server.kill()
            self.server.communicate()
            self.server = None

    def stop(self) -> int:
        """Ctrl-C; returns the exit code."""
        assert self.server is not None
        self.server.send_signal(signal.SIGINT)
        self.server.communicate(timeout=WAIT_S)
        code, self.server = self.server.returncode, None
        return code

    def copy(self, folder: Path) -> Machine:
        """The same home somewhere else."""
        shutil.copytree(self.home, folder)
        return Machine(folder)

    def raw(self, role: str, data: bytes) -> bytes:
        """What a server answers to bytes, until it closes, or one answer with a length is complete."""
        parts = urlsplit(self.urls[role])
        got = b""
        with socket.create_connection((parts.hostname, parts.port), timeout=WAIT_S) as link:
            try:
                link.sendall(data)
                while len(got) < MAX_ANSWER_BYTES and not _is_whole(got):
                    more = link.recv(1 << 16)
                    if not more:
                        break
                    got += more
            except ConnectionError:
                pass  # it hung up on us, which is an answer
        return got

    def request(self, role: str, method: str, path: str | bytes, body: bytes = b"", **fields: str) -> bytes:
        raw_path = path if isinstance(path, bytes) else path.encode()
        head = b"%s %s HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n" % (method.encode(), raw_path)
        for name, value in fields.items():
            head += f"{name.replace('_', '-')}: {value}\r\n".encode()
        return self.raw(role, head + b"Content-Length: %d\r\n\r\n" % len(body) + body)

    def get(self, role: str, path: str) -> bytes:
        with urlopen(Request(self.urls[role] + path), timeout=WAIT_S) as answer:
            return bytes(answer.read())


def _is_whole(answer: bytes) -> bool:
    head, end, body = answer.partition(b"\r\n\r\n")
    for line in head.lower().split(b"\r\n")[1:]:
        if line.startswith(b"content-length:"):
            return bool(end) and len(body) >= int(line.partition(b":")[2])
    return False


def status(answer: bytes) -> int:
    """The status of a raw answer; 0 where the server said nothing."""
    words = answer.split(b"\r\n", 1)[0].split()
    return int(words[1]) if len(words) > 1 and words[0].startswith(b"HTTP/") else 0
