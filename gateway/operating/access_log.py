"""One line for each answered request, in the combined format of web servers or as JSON."""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Final

STDOUT: Final = "-"
CLIENT_LEFT: Final = 499  # status in the log where the client left before there was one
_MAX_FIELD_CHARS: Final = 8192
_STDOUT_FD: Final = 1
_MONTHS: Final = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")

_log = logging.getLogger("holdfast.gateway")


@dataclass(frozen=True, slots=True)
class AccessRecord:
    """One answered request. Texts are as the client sent them."""

    client: str
    method: str
    target: str
    version: str  # of HTTP, `1.1`
    host: str
    status: int
    sent_bytes: int  # of the body
    seconds: float
    kind: str  # as in the metrics: file, listing, car, …
    referer: str
    user_agent: str


AccessLog = Callable[[AccessRecord], None]


class AccessLogFile:
    """Appends lines to a file or to standard output; whole lines, also where several processes write to it.

    Raises OSError where the file cannot be opened. A line that cannot be written (disk full) is lost, and the
    gateway's log says so once.
    """

    def __init__(self, path: str, form: str, clock: Callable[[], float] = time.time) -> None:
        """`path` "-" is standard output, `form` combined or json; `clock` gives seconds since 1970."""
        self._path = path
        self._line = combined_line if form == "combined" else json_line
        self._clock = clock
        self._failing = False
        self._fd = self._open()

    def __call__(self, record: AccessRecord) -> None:
        line = self._line(record, self._clock())
        try:
            os.write(self._fd, line)
            self._failing = False
        except OSError as error:
            if not self._failing:
                _log.error("the access log %s cannot be written: %s", self._path, error.strerror)
            self._failing = True

    def close(self) -> None:
        """Closes the file."""
        if self._path != STDOUT:
            os.close(self._fd)

    def _open(self) -> int:
        if self._path == STDOUT:
            return _STDOUT_FD
        return os.open(Path(self._path), os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)


def combined_line(record: AccessRecord, now_s: float) -> bytes:
    """Apache's and nginx' `combined`. What could end a field or a line early is written `\\xhh`."""
    request = f"{_escape(record.method)} {_escape(record.target)} HTTP/{record.version}"
    return (
        f'{_escape(record.client)} - - [{_common_time(int(now_s))}] "{request}" {record.status} '
        f'{record.sent_bytes} "{_escape(record.referer) or "-"}" "{_escape(record.user_agent) or "-"}"\n'
    ).encode("ascii")


def json_line(record: AccessRecord, now_s: float) -> bytes:
    """All that is known, one JSON object a line."""
    document = {
        "time": datetime.fromtimestamp(now_s, UTC).isoformat(timespec="milliseconds"),
        "client": record.client,
        "method": record.method[:_MAX_FIELD_CHARS],
        "host": record.host[:_MAX_FIELD_CHARS],
        "target": record.target[:_MAX_FIELD_CHARS],
        "version": record.version,
        "status": record.status,
        "kind": record.kind,
        "sent_bytes": record.sent_bytes,
        "seconds": round(record.seconds, 6),
        "referer": record.referer[:_MAX_FIELD_CHARS],
        "user_agent": record.user_agent[:_MAX_FIELD_CHARS],
    }
    return json.dumps(document, separators=(",", ":")).encode("ascii") + b"\n"


def _escape(text: str) -> str:
    text = text[:_MAX_FIELD_CHARS]
    if text.isascii() and text.isprintable() and '"' not in text and "\\" not in text:
        return text
    raw = text.encode("utf-8", "surrogateescape")
    return "".join(chr(b) if 0x20 <= b < 0x7F and b not in b'"\\' else f"\\x{b:02x}" for b in raw)


@lru_cache(maxsize=4)
def _common_time(second: int) -> str:
    # Month names are English, whatever the locale of the process.
    moment = datetime.fromtimestamp(second, UTC)
    month = _MONTHS[moment.month - 1]
    return f"{moment.day:02d}/{month}/{moment:%Y:%H:%M:%S} +0000"
