"""The denylist files of a running gateway: read at the start, followed while lines are appended."""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from pathlib import Path
from typing import Final

from gateway.denylists.header import InvalidHeaderError, read_header, split_header
from gateway.denylists.rules import Rules

REFRESH_S: Final = 1.0
_MAX_REPORTED: Final = 10  # invalid lines of one file that the log names
_log = logging.getLogger("holdfast.gateway")


class DenylistError(ValueError):
    """A denylist file that cannot be used: not there, not readable, or of an unknown version."""

    def __init__(self, path: Path, fault: str) -> None:
        super().__init__(f"the denylist {path} {fault}")
        self.path = path


class _Change(Enum):
    NONE = auto()
    APPENDED = auto()
    REWRITTEN = auto()


@dataclass(slots=True)
class _File:
    """How far a file has been read, and what it was then."""

    path: Path
    number: int
    state: tuple[int, int, int]  # inode, size, time of change (of its mode, too) in nanoseconds
    read_bytes: int  # the whole lines, or everything where it has not grown since
    lines: int
    digest: bytes  # SHA-256 of what was read


class Denylists:
    """All lists in their order. `rules` is replaced where a list was rewritten, and grows in place otherwise.

    `version` changes with every change of the rules: what was decided before must be decided again.
    `unreadable` are files that have changed and could not be read since: their old rules hold.
    """

    def __init__(self, paths: Sequence[str | Path]) -> None:
        """Reads the files; raises DenylistError."""
        self._paths = [Path(path) for path in paths]
        self.rules = Rules()
        self.version = 0
        self._files = self._read_all(self.rules)
        self.unreadable: set[Path] = set()
        self._unread = False  # a list was rewritten, but one of them could not be read then

    def refresh(self) -> bool:
        """Takes up what has changed; whether anything has.

        Appended lines are added. A list that was rewritten is read anew with all others. A list that cannot
        be read any more is logged, and its old rules stay. Takes as long as reading the files: not for the
        event loop's thread.
        """
        changed = [file for file in self._files if self._has_changed(file)]
        outcomes = {self._append(file) for file in changed}
        differs = _Change.APPENDED in outcomes
        if _Change.REWRITTEN in outcomes or (self._unread and changed):
            differs = self._read_anew() or differs
        self.version += differs
        return differs

    def _read_anew(self) -> bool:
        """Whether all lists could be read; else they are tried again when one of them changes."""
        rules, states = Rules(), [_state(file.path) for file in self._files]
        try:
            files = self._read_all(rules)
        except DenylistError as error:
            self._keep(error)
            for file, state in zip(self._files, states, strict=True):
                file.state = state
            self._unread = True
            return False
        self.rules, self._files = rules, files
        self.unreadable.clear()
        self._unread = False
        return True

    async def follow(self, on_change: Callable[[], None]) -> None:
        """Refreshes once a second until cancelled; `on_change` is called after each change."""
        while True:
            await asyncio.sleep(REFRESH_S)
            if await asyncio.to_thread(self.refresh):
                _log.info("denylists: %d rules in force", self.rules.count)
                on_change()

    def _read_all(self, rules: Rules) -> list[_File]:
        files = []
        for path in self._paths:
            state = _state(path)
            data = _read(path)
            header_text, at = split_header(data)
            try:
                number = rules.add_list(read_header(header_text, path.name))
            except InvalidHeaderError as error:
                raise DenylistError(path, f"has a header that is not valid: {error}") from error
            first = header_text.count(b"\n") + 1 if at else 0
            lines = self._add_lines(rules, path, number, first, data[at:])
            files.append(_File(path, number, state, len(data), lines, hashlib.sha256(data).digest()))
        return files

    def _append(self, file: _File) -> _Change:
        """Adds what was written behind what was read, if that is all that has changed."""
        state = _state(file.path)
        try:
            data = _read(file.path)
        except DenylistError as error:
            self._keep(error)
            file.state = state
            return _Change.NONE
        known, more = data[: file.read_bytes], data[file.read_bytes :]
        if hashlib.sha256(known).digest() != file.digest or (known and not known.endswith(b"\n")):
            return _Change.REWRITTEN
        self.unreadable.discard(file.path)
        grows = state[1] != file.state[1]
        # The last line may still be in the making: without its end it counts once the file stands still.
        end = more.rfind(b"\n") + 1 if grows else len(more)
        file.state = state
        if end:
            file.lines = self._add_lines(self.rules, file.path, file.number, file.lines, more[:end])
            file.read_bytes += end
            file.digest = hashlib.sha256(data[: file.read_bytes]).digest()
        return _Change.APPENDED if end else _Change.NONE

    def _keep(self, error: DenylistError) -> None:
        if error.path not in self.unreadable:
            _log.error("%s; the rules of before stay in force", error)
        self.unreadable.add(error.path)

    def _has_changed(self, file: _File) -> bool:
        state = _state(file.path)
        return state != file.state or (state[1] > file.read_bytes and state[1] > 0)

    @staticmethod
    def _add_lines(rules: Rules, path: Path, number: int, first: int, text: bytes) -> int:
        """Adds rules; logs lines that are none. The number of the last line."""
        lines = text.replace(b"\r\n", b"\n").split(b"\n")
        if not lines[-1]:
            lines.pop()
        bad = 0

        def on_bad(line_number: int, fault: str) -> None:
            nonlocal bad
            bad += 1
            if bad <= _MAX_REPORTED:
                _log.warning("%s:%d is passed over: %s", path, line_number, fault)

        rules.add_lines(number, first + 1, lines, on_bad)
        if bad > _MAX_REPORTED:
            _log.warning("%s: %d further lines are passed over", path, bad - _MAX_REPORTED)
        return first + len(lines)


def _state(path: Path) -> tuple[int, int, int]:
    try:
        found = path.stat()
    except OSError:
        return 0, 0, 0
    return found.st_ino, found.st_size, found.st_ctime_ns


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise DenylistError(path, f"cannot be read: {error.strerror}") from error
