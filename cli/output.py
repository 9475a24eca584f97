"""What every command prints, and the one place where errors become exit codes and a line on stderr.

Results go to stdout (`text`, `emit`, `raw`), messages and progress to stderr (`note`, `Progress`). `report`
turns an exception into one clear line and the exit code of the command line contract; it never prints a
traceback unless HOLDFAST_DEBUG is set. Exceptions of the other packages are recognised by name, so that
nothing needs importing to report them.
"""

from __future__ import annotations

import errno
import os
import sys
import time
from collections.abc import Callable, Mapping
from enum import IntEnum
from typing import Any, ClassVar, Protocol, TextIO

from storage_node.sizes import size_text as size_text

PROGRESS_EVERY_S = 0.1


class ExitCode(IntEnum):
    """The exit codes of the command line contract."""

    DONE = 0
    FAILED = 1
    USAGE = 2
    NOT_FOUND = 3
    INVALID = 4
    UNREACHABLE = 5
    NO_SPACE = 6
    LEDGER = 7
    INTERRUPTED = 130


class CommandError(Exception):
    """A failure that a command reports: `message` is one line that says what to do, `code` the exit code."""

    def __init__(self, message: str, code: ExitCode = ExitCode.FAILED) -> None:
        super().__init__(message)
        self.code = code


def usage(message: str) -> CommandError:
    """An argument or option that does not parse or does not fit: exit 2."""
    return CommandError(message, ExitCode.USAGE)


def not_found(message: str) -> CommandError:
    """A path, block, key or pin that is not there: exit 3."""
    return CommandError(message, ExitCode.NOT_FOUND)


def invalid(message: str) -> CommandError:
    """Bytes that are not what they claim to be, or something that is refused: exit 4."""
    return CommandError(message, ExitCode.INVALID)


def unreachable(message: str) -> CommandError:
    """A server that does not answer: exit 5."""
    return CommandError(message, ExitCode.UNREACHABLE)


# Class name with its module (any ancestor of the exception's class counts, the nearest first).
_CODES: dict[str, ExitCode] = {
    "merkledag.errors.InvalidCID": ExitCode.USAGE,
    "merkledag.errors.InvalidPath": ExitCode.USAGE,
    "merkledag.errors.NoSuchLink": ExitCode.NOT_FOUND,
    "merkledag.errors.NotADirectory": ExitCode.NOT_FOUND,
    "merkledag.errors.MerkledagError": ExitCode.INVALID,
    "proofs.errors.ProofsError": ExitCode.INVALID,
    "storage_node.errors.BlockNotFound": ExitCode.NOT_FOUND,
    "storage_node.errors.IncompleteDag": ExitCode.NOT_FOUND,
    "storage_node.errors.QuotaExceeded": ExitCode.NO_SPACE,
    "storage_node.errors.StoreFull": ExitCode.NO_SPACE,
    "storage_node.errors.StoreFailed": ExitCode.FAILED,
    "storage_node.errors.WorkersLost": ExitCode.FAILED,
    "storage_node.errors.PeerUnreachable": ExitCode.UNREACHABLE,
    "storage_node.errors.PlacementFailed": ExitCode.FAILED,
    "storage_node.errors.PinNotFound": ExitCode.NOT_FOUND,
    "storage_node.errors.JobNotFound": ExitCode.NOT_FOUND,
    "storage_node.errors.SnapshotNotFound": ExitCode.NOT_FOUND,
    "storage_node.errors.NameNotFound": ExitCode.NOT_FOUND,
    "storage_node.errors.LockHeld": ExitCode.FAILED,
    "storage_node.errors.FileInUse": ExitCode.FAILED,
    "storage_node.errors.StorageNodeError": ExitCode.INVALID,
    "ledger.engine.errors.LedgerUnreachable": ExitCode.UNREACHABLE,
    "ledger.engine.errors.LedgerRefused": ExitCode.LEDGER,
    "ledger.engine.errors.LedgerNotFound": ExitCode.NOT_FOUND,
    "ledger.engine.errors.LedgerProtocolError": ExitCode.UNREACHABLE,
    "ledger.engine.errors.ChainMismatch": ExitCode.INVALID,
    "ledger.engine.errors.CorruptStore": ExitCode.INVALID,
    "ledger.engine.errors.InvalidArchive": ExitCode.INVALID,
    "ledger.engine.errors.InvalidProofFile": ExitCode.INVALID,
    "ledger.engine.errors.PrunedHistory": ExitCode.NOT_FOUND,
    "ledger.engine.cometbft.light.errors.TrustLost": ExitCode.INVALID,
    "ledger.engine.cometbft.home.layout.CometFilesError": ExitCode.INVALID,
    "ledger.engine.errors.EngineError": ExitCode.FAILED,
    "ledger.errors.CorruptState": ExitCode.INVALID,
    "ledger.errors.InvalidGenesis": ExitCode.INVALID,
    "ledger.errors.UnknownRules": ExitCode.INVALID,
    "aiohttp.client_exceptions.ClientConnectionError": ExitCode.UNREACHABLE,
    "aiohttp.client_exceptions.ClientPayloadError": ExitCode.UNREACHABLE,
    "aiohttp.client_exceptions.InvalidURL": ExitCode.USAGE,
    "lmdb.MapFullError": ExitCode.NO_SPACE,
    "lmdb.DiskError": ExitCode.FAILED,
    "lmdb.Error": ExitCode.INVALID,
    "builtins.TimeoutError": ExitCode.UNREACHABLE,
    "builtins.ConnectionError": ExitCode.UNREACHABLE,
    "builtins.FileNotFoundError": ExitCode.NOT_FOUND,
    "builtins.IsADirectoryError": ExitCode.INVALID,
}
NO_SPACE_ERRNOS = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


def exit_code(error: BaseException) -> ExitCode:
    """The contract's exit code for an exception of any package."""
    if isinstance(error, CommandError):
        return error.code
    if _interrupted(error):
        return ExitCode.INTERRUPTED
    if isinstance(error, OSError) and error.errno in NO_SPACE_ERRNOS:
        return ExitCode.NO_SPACE
    return _listed(error) or ExitCode.FAILED


def _interrupted(error: BaseException) -> bool:
    """Whether an error is Ctrl-C, or what a lock said that Ctrl-C had struck while it was being taken."""
    interrupt = error.__context__ if type(error) is RuntimeError else error
    return isinstance(interrupt, KeyboardInterrupt)


def _listed(error: BaseException) -> ExitCode | None:
    for ancestor in type(error).__mro__:
        code = _CODES.get(f"{ancestor.__module__}.{ancestor.__qualname__}")
        if code is not None:
            return code
    return None


def describe(error: BaseException) -> str:
    """One line that says what went wrong, for people."""
    if _interrupted(error):
        return "interrupted"
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename is not None else error.strerror
    line = " ".join(str(error).split())
    if exit_code(error) is ExitCode.LEDGER:
        from cli.money import in_hold

        line = in_hold(line)  # what the ledger says is in units
    if line and (isinstance(error, CommandError) or _listed(error) is not None):
        return line
    return f"{type(error).__name__}: {line} (HOLDFAST_DEBUG=1 shows where)"


def report(error: BaseException) -> int:
    """Prints one line for `error` on stderr and returns its exit code.

    A reader that went away is not worth a line.
    """
    if isinstance(error, BrokenPipeError):
        silence_stdout()
        return ExitCode.FAILED
    if os.environ.get("HOLDFAST_DEBUG"):
        import traceback

        traceback.print_exception(error)
    note(f"holdfast: {describe(error)}")
    return int(exit_code(error))


def silence_stdout() -> None:
    """Points stdout at /dev/null, so that the interpreter's last flush into a closed pipe stays quiet."""
    try:
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, sys.stdout.fileno())
        os.close(null)
    except (OSError, ValueError):
        return


def printable(name: str) -> str:
    """A name from somebody else's data, with control characters and undecodable bytes escaped."""
    if name.isascii() and name.isprintable():
        return name
    escaped = "".join(c if c.isprintable() else c.encode("unicode_escape", "replace").decode() for c in name)
    return escaped.encode("utf-8", "backslashreplace").decode()


def text(line: str) -> None:
    """A line of a result for people, or several, on stdout. Nobody's data in it steers the terminal."""
    _make_room(sys.stdout)
    if not (line.isascii() and line.isprintable()):
        line = "\n".join("\t".join(map(printable, row.split("\t"))) for row in line.split("\n"))
    sys.stdout.write(line + "\n")


def emit(document: Mapping[str, Any] | list[Any]) -> None:
    """One machine-readable JSON document on one line of stdout."""
    import json

    _make_room(sys.stdout)
    sys.stdout.write(json.dumps(document, separators=(",", ":")) + "\n")


def raw(data: bytes | bytearray | memoryview) -> None:
    """Bytes as they are, on stdout, after what was printed before."""
    _make_room(sys.stdout)
    sys.stdout.flush()
    sys.stdout.buffer.write(data)


def flush() -> None:
    """Sends what was printed on its way: for lines that somebody waits for while the command goes on."""
    sys.stdout.flush()


def note(line: str) -> None:
    """One line for people, on stderr."""
    try:
        sys.stdout.flush()
    except (OSError, ValueError):
        silence_stdout()
    try:
        _make_room(sys.stderr)
        sys.stderr.write(printable(line) + "\n")
        sys.stderr.flush()
    except (OSError, ValueError):
        return  # nobody is listening


def count_text(count: int, noun: str) -> str:
    """`1 block`, `2 blocks`."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


class Meter(Protocol):
    """Counts bytes that a long command got through."""

    def expect(self, total_bytes: int | None) -> None:
        """How many it will be, as soon as that is known."""
        ...

    def advance(self, size_bytes: int) -> None:
        """`size_bytes` more are done."""
        ...

    def finish(self) -> None:
        """No more will come: removes the line from the terminal."""
        ...


class _Quiet:
    def expect(self, total_bytes: int | None) -> None:
        return

    def advance(self, size_bytes: int) -> None:
        return

    def finish(self) -> None:
        return


class Progress:
    """A line on the terminal with the amount done, the rate and the time left.

    `total_bytes` None means unknown; `as_text` writes amounts of something else than bytes. What takes only
    a moment draws nothing. Whatever else is printed to the terminal first removes the line.
    """

    on_screen: ClassVar[Progress | None] = None

    def __init__(
        self, label: str, total_bytes: int | None, as_text: Callable[[float], str] = size_text
    ) -> None:
        self._label = label
        self._text = as_text
        self._total = total_bytes
        self._done = 0
        self._began_s = time.monotonic()
        self._drawn_s = self._began_s

    def expect(self, total_bytes: int | None) -> None:
        """How many bytes it will be."""
        self._total = total_bytes

    def advance(self, size_bytes: int) -> None:
        """`size_bytes` more are done; redraws at most ten times a second."""
        self._done += size_bytes
        now_s = time.monotonic()
        if now_s - self._drawn_s < PROGRESS_EVERY_S:
            return
        self._drawn_s = now_s
        rate = self._done / max(now_s - self._began_s, 1e-6)
        amount = self._text(self._done)
        if self._total:
            amount = f"{_of(amount, self._text(self._total))} ({min(100, 100 * self._done // self._total)} %)"
        line = f"{self._label} {amount}"
        line += f", {self._text(rate)}/s"
        if self._total and rate > 0 and self._total >= self._done:
            left_s = int((self._total - self._done) / rate)
            line += f", {left_s // 60}:{left_s % 60:02d} left"
        sys.stderr.write(f"\r{line[: _columns() - 1]}\x1b[K")  # a line that wraps could not be removed
        sys.stderr.flush()
        Progress.on_screen = self

    def clear(self) -> None:
        """Removes the line until the next advance."""
        sys.stderr.write("\r\x1b[K")
        sys.stderr.flush()
        Progress.on_screen = None

    def finish(self) -> None:
        """Removes the line."""
        if Progress.on_screen is self:
            self.clear()


def _of(done: str, total: str) -> str:
    """`1.0 of 4.0 MiB`, `1 of 75 blobs`: the unit once, where it is the same."""
    number, _, unit = done.partition(" ")
    is_same = unit.rstrip("s") == total.partition(" ")[2].rstrip("s")
    return f"{number if is_same else done} of {total}"


def _columns() -> int:
    try:
        return os.get_terminal_size(sys.stderr.fileno()).columns or 80
    except (OSError, ValueError):
        return 80


def _make_room(stream: TextIO) -> None:
    """Removes the progress line before something else is written to a terminal."""
    if Progress.on_screen is not None and stream.isatty():
        Progress.on_screen.clear()


def meter(
    label: str, total_bytes: int | None, *, wanted: bool = True, as_text: Callable[[float], str] = size_text
) -> Meter:
    """A progress line on a terminal; silent where stderr is none or where progress is not `wanted`."""
    if wanted and sys.stderr.isatty():
        return Progress(label, total_bytes, as_text)
    return _Quiet()


def blocks_text(count: float) -> str:
    """`1,234 blocks`, for `meter`."""
    return f"{count:,.0f} block{'s' * (count != 1)}"


def blobs_text(count: float) -> str:
    """`12 blobs`, `2.5 blobs`, for `meter`: they may be few a second."""
    return f"{count:,.{0 if count >= 10 or count == int(count) else 1}f} blob{'s' * (count != 1)}"
