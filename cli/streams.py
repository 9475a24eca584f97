"""Files that arguments name, where `-` is standard input or output, and questions on the terminal."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from cli.output import CommandError, invalid, usage

STDIO: Final = "-"


def read_input(file: str, max_bytes: int, what: str) -> bytes:
    """All of a file or of standard input; exit 4 over `max_bytes`, which is what `what` has at most."""
    if file == STDIO:
        data = sys.stdin.buffer.read(max_bytes + 1)
    else:
        with Path(file).open("rb") as opened:
            data = opened.read(max_bytes + 1)
    if len(data) > max_bytes:
        raise invalid(f"{file}: {what} has at most {max_bytes} bytes")
    return data


def is_stdout(output: str) -> bool:
    """Whether a command that writes one file is to write it to standard output: no name, or `-`."""
    return output in ("", STDIO)


def check_binary_stdout(what: str, *, json_output: bool) -> None:
    """Exit 2 where standard output, which is to be `what`, is a terminal or wanted for JSON."""
    if json_output:
        raise usage(f"--json needs -o FILE: standard output would be {what} itself")
    if sys.stdout.isatty():
        raise usage(f"{what} is binary: write it to a file with -o, or into a pipe")


def require_yes(question: str, *, without_terminal: str, declined: str) -> None:
    """Asks on the terminal. Exit 2 where there is none, 1 for any answer but yes, with the given reasons."""
    if not sys.stdin.isatty():
        raise usage(without_terminal)
    with interruptible():
        sys.stderr.write(f"{question} [y/N] ")
        sys.stderr.flush()
        answer = sys.stdin.readline()
    if answer.strip().lower() not in {"y", "yes"}:
        raise CommandError(declined)


@contextmanager
def interruptible() -> Iterator[None]:
    """While a person is asked, Ctrl-C ends the command at once.

    An event loop handles signals in its turns, and has none while a question blocks it.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handlers = {
        signal.SIGINT: signal.signal(signal.SIGINT, signal.default_int_handler),
        signal.SIGTERM: signal.signal(signal.SIGTERM, signal.SIG_DFL),
    }
    loops_own = signal.set_wakeup_fd(-1)
    try:
        yield
    finally:
        signal.set_wakeup_fd(loops_own)
        for number, handler in handlers.items():
            signal.signal(number, handler)


def base64_text(data: bytes | memoryview) -> str:
    """Bytes as JSON documents hold them."""
    from base64 import b64encode

    return b64encode(data).decode()
