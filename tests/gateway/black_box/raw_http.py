"""Requests as bytes over a socket, and every answer that comes back on the connection."""

from __future__ import annotations

import email
import email.message
import socket
from dataclasses import dataclass

TIMEOUT_S = 60.0


@dataclass(frozen=True, slots=True)
class RawAnswer:
    """One answer; `headers` takes names in any case."""

    status: int
    headers: email.message.Message
    body: bytes


def exchange(host: str, port: int, data: bytes) -> bytes:
    """Sends bytes; returns what came until the other side closed the connection. Fails if it never does."""
    received = bytearray()
    with socket.create_connection((host, port), timeout=TIMEOUT_S) as link:
        try:
            link.sendall(data)
            while part := link.recv(1 << 16):
                received += part
        except ConnectionError:
            pass  # refused while we were still sending
    return bytes(received)


def read_answers(data: bytes, method: str = "GET") -> list[RawAnswer]:
    """All answers in the bytes, without interim ones (1xx)."""
    answers = []
    while data:
        top, end, rest = data.partition(b"\r\n\r\n")
        assert end, data[:200]
        line, _, headers = top.partition(b"\r\n")
        assert line.startswith(b"HTTP/1."), line
        status = int(line.split()[1])
        if status < 200:
            data = rest
            continue
        parsed = email.message_from_bytes(headers)
        body, data = _body(parsed, rest, method, status)
        answers.append(RawAnswer(status, parsed, body))
    return answers


def _body(headers: email.message.Message, data: bytes, method: str, status: int) -> tuple[bytes, bytes]:
    """The body of an answer, and what follows it."""
    if method == "HEAD" or status in (204, 304):
        return b"", data
    if headers["Transfer-Encoding"] == "chunked":
        body = b""
        while True:
            size, _, data = data.partition(b"\r\n")
            length = int(size, 16)
            body, data = body + data[:length], data[length + 2 :]
            if not length:
                return body, data
    length = int(headers["Content-Length"]) if headers["Content-Length"] else len(data)
    return data[:length], data[length:]
