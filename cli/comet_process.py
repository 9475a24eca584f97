"""The `cometbft` process beside the application: started, its words kept in a bounded file, and ended."""

from __future__ import annotations

import asyncio
import os
import re
import signal
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, Final

from cli.processes import end
from ledger.engine.cometbft.home.layout import CometHome

STOP_TIMEOUT_S: Final = 30.0
LOG_BYTES: Final = 16 << 20  # of the file and of the one before it
READ_BYTES: Final = 64 << 10
TAIL_BYTES: Final = 32 << 10  # last words may be of many lines, with a stack of 4 KiB after them
# Go's last words when it gives up; what follows them are its threads' stacks.
_LAST_WORDS: Final = re.compile(r"^(?:panic: |ERROR: |Error: |error: |fatal error: )(.*)$")
_ERROR_LINE: Final = re.compile(r"^E\[[^\]]*\] (.*)$")
_OWN_SIGNATURE: Final = "found signature from the same key"
# What the handshake finds where one half was removed or restored without the other (consensus/replay.go).
_APART: Final = ("state.AppHash does not match AppHash", "is higher than core")
_NO_SYNC: Final = "failed to set up light client state provider"
# After these it lives on and does nothing more. What blocksync says of a block comes after the signatures of
# two thirds were verified (blocksync/reactor.go): no peer alone can bring it about.
_FAILED: Final = re.compile(
    rb"^E\[[^\]]*\] CONSENSUS FAILURE!!! .*? err=(?:\"(.*?)\" stack=|(.*))", re.MULTILINE
)
_OTHER_STATE: Final = re.compile(
    rb"^E\[[^\]]*\] Error in validation +module=blocksync .*? err=\"(wrong Block\.Header\.\w+Hash\b.*?)\"",
    re.MULTILINE,
)
# What two thirds voted for is from the future by the clock here.
_TOO_EARLY: Final = re.compile(r"block time .* is too far in the future")
MAX_LINE_BYTES: Final = 16 << 10  # of which the stack of a failure is most
# Variables by which its configuration could be changed unseen.
_OTHERS: Final = ("CMT", "TM")


class LogFile:
    """Appends to a file and begins a new one at `max_bytes`; the one before is kept as NAME.1."""

    def __init__(self, path: Path, max_bytes: int = LOG_BYTES) -> None:
        self._path = path
        self._max_bytes = max_bytes
        self._file: BinaryIO | None = None
        self._tail = b""

    def write(self, data: bytes) -> None:
        """Appends; what the disk does not take is lost, and never ends who writes it."""
        self._tail = (self._tail + data)[-TAIL_BYTES:]
        with suppress(OSError):
            if self._file is None:
                self._file = self._open()
            if self._file.tell() + len(data) > self._max_bytes:
                self._file.close()
                self._path.replace(self._path.with_name(f"{self._path.name}.1"))
                self._file = self._open()
            self._file.write(data)

    def close(self) -> None:
        """Closes the file."""
        if self._file is not None:
            with suppress(OSError):
                self._file.close()
            self._file = None

    def reason(self) -> str:
        """Why its writer ended, as far as its last lines say."""
        lines = self._tail.decode("utf-8", "replace").splitlines()
        for pattern in (_LAST_WORDS, _ERROR_LINE):
            for line in reversed(lines):
                if (found := pattern.match(line)) and found[1].strip():
                    return " ".join(found[1].split())
        return next((" ".join(line.split()) for line in reversed(lines) if line.strip()), "it said nothing")

    def _open(self) -> BinaryIO:
        handle = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        file = os.fdopen(handle, "ab", buffering=0)
        file.seek(0, os.SEEK_END)
        return file


class CometProcess:
    """One run of `cometbft start`.

    It is in a session of its own: a terminal's Ctrl-C reaches us alone, and we end both in order. If we are
    killed, it ends by itself: its connection to the application is gone, and so is the pipe it writes to.
    """

    def __init__(self, program: Path, home: CometHome) -> None:
        self._program = program
        self._home = home
        self._log = LogFile(home.log_file)
        self._process: asyncio.subprocess.Process | None = None
        self._copying: asyncio.Task[None] | None = None
        self._failure = ""

    @property
    def pid(self) -> int | None:
        """The operating system's number of the process, once it was started."""
        return None if self._process is None else self._process.pid

    async def start(self, application: str, options: Sequence[str] = ()) -> None:
        """Starts it with the application's address; returns at once."""
        self._process = await asyncio.create_subprocess_exec(
            str(self._program), "start", "--home", str(self._home.path), "--proxy_app", application, *options,
            stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT, env=clean_environment(os.environ), start_new_session=True,
        )  # fmt: skip
        self._copying = asyncio.create_task(self._copy(self._process))

    async def wait_ended(self) -> str:
        """Returns when it ended, and why; its exit code is 0 also where its application is gone."""
        assert self._process is not None
        assert self._copying is not None
        await asyncio.shield(self._copying)
        code = await self._process.wait()
        if self._failure:
            return f"{self._failure}; its log is {self._home.log_file}"
        if code < 0:
            return (
                f"cometbft was killed ({signal.Signals(-code).name}): by somebody, or by the system where "
                f"memory is short; its log is {self._home.log_file}"
            )
        reason = self._log.reason()
        if _OWN_SIGNATURE in reason:
            reason = (
                "the last blocks carry signatures of this very key: it runs somewhere else, or did until "
                "just now. Make sure that it does not, and start again a minute later"
            )
        if any(words in reason for words in _APART):
            reason += (
                ". Its blocks and the ledger's state are not of one time, and go on together alone: see "
                '"Restore" in operating-validators.md'
            )
        if _NO_SYNC in reason:
            reason += (
                ". --trust or --sync-from is wrong, or nothing answers there: give `holdfast ledger join` "
                "again with right ones and --replace"
            )
        return f"cometbft ended (exit code {code}): {reason}; its log is {self._home.log_file}"

    async def stop(self) -> None:
        """Asks it to end, and waits; harmless twice."""
        if self._process is not None and self._copying is not None:
            await end(self._process, STOP_TIMEOUT_S)
            await self._copying
        self._log.close()

    async def _copy(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdout is not None
        line = b""
        while data := await process.stdout.read(READ_BYTES):
            self._log.write(data)
            seen = line + data
            if not self._failure and (failure := failure_in(seen)):
                self._failure = failure
                process.kill()  # it waits for something that does not come
            line = seen[seen.rfind(b"\n") + 1 :][-MAX_LINE_BYTES:]


def failure_in(said: bytes) -> str:
    """Why it cannot go on, although it lives, if its words say so; else ""."""
    if found := _OTHER_STATE.search(said) or _FAILED.search(said):
        why = next(each for each in found.groups() if each is not None).decode("utf-8", "replace")
        if "wrong Block.Header." in why:
            return (
                f"the state here is not the one that the validators agreed on ({why}): it is damaged, or "
                "made by another program than theirs. Wipe it and join again by state sync"
            )
        if _TOO_EARLY.search(why):
            return (
                f"this machine's clock is behind the validators' ({why}): set it right, and start again. "
                "Nothing was lost"
            )
        return f"cometbft's consensus has failed: {why}"
    return ""


def clean_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """Without what CometBFT would take for settings: CMT_…, CMTHOME, TMHOME."""
    return {name: value for name, value in environ.items() if not name.startswith(_OTHERS)}
