"""A client of HTTP servers that costs little itself: keep-alive connections, one epoll loop, no pipelining.

It is one thread of plain sockets. A request is sent from bytes made beforehand, an answer is read into one
buffer and looked at for its status and its length alone. What it costs is measured with what it measures.
"""

from __future__ import annotations

import select
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

MIB: Final = 1 << 20
MAX_HEAD_BYTES: Final = 16 * 1024
TIMEOUT_S: Final = 30.0
_END: Final = b"\r\n\r\n"
_LENGTH: Final = b"content-length:"


class UnexpectedAnswerError(Exception):
    """A server answered otherwise than asked."""


@dataclass(frozen=True, slots=True)
class Load:
    """What `rate` saw: answers, their seconds, and the processor time of the client."""

    answers: int
    seconds: float
    client_cpu_s: float

    @property
    def per_s(self) -> float:
        """Answers a second."""
        return self.answers / self.seconds

    @property
    def client_us(self) -> float:
        """Microseconds of processor time that the client spent on each."""
        return self.client_cpu_s / self.answers * 1e6


def request(path: str, *headers: str, method: str = "GET") -> bytes:
    """The bytes of a request."""
    return "\r\n".join((f"{method} {path} HTTP/1.1", "Host: 127.0.0.1", *headers, "", "")).encode()


def rate(
    port: int, requests: Sequence[bytes], *, status: int, seconds: float, connections: int, once: bool = False
) -> Load:
    """Sends `requests` in turn over that many connections, each the next one when it was answered.

    Goes round them for `seconds`; with `once`, ends when each was answered. Raises UnexpectedAnswerError
    for another `status` and for silence.
    """
    body = not requests[0].startswith(b"HEAD") and status != 304
    start = b"HTTP/1.1 %d " % status
    buffer = bytearray(MIB)
    sockets = [socket.create_connection(("127.0.0.1", port), TIMEOUT_S) for _ in range(connections)]
    by_number = {each.fileno(): each for each in sockets}
    left = dict.fromkeys(by_number, 0)  # bytes that the answer still lacks
    try:
        with select.epoll() as poll:
            for each in sockets:
                each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                poll.register(each.fileno(), select.EPOLLIN)
            began, cpu_began = time.perf_counter(), time.process_time()
            until = began + seconds
            sent = answers = 0
            for each in sockets:
                each.sendall(requests[sent % len(requests)])
                sent += 1
            waiting = connections
            while waiting:
                ready = poll.poll(TIMEOUT_S)
                if not ready:
                    raise UnexpectedAnswerError(f"no answer within {TIMEOUT_S:g} s")
                more = time.perf_counter() < until
                for number, _ in ready:
                    sock = by_number[number]
                    count = sock.recv_into(buffer)
                    if left[number]:
                        lacking = left[number] - count
                    else:
                        lacking = _lacking(sock, buffer, count, start, body=body)
                    left[number] = lacking
                    if lacking:
                        continue
                    answers += 1
                    if sent < len(requests) if once else more:
                        sock.send(requests[sent % len(requests)])
                        sent += 1
                    else:
                        waiting -= 1
            return Load(answers, time.perf_counter() - began, time.process_time() - cpu_began)
    finally:
        for each in sockets:
            each.close()


def _lacking(sock: socket.socket, buffer: bytearray, count: int, start: bytes, *, body: bool) -> int:
    """How many bytes of an answer whose first `count` are in the buffer are not there yet."""
    while (end := buffer.find(_END, 0, count)) < 0:
        got = sock.recv_into(memoryview(buffer)[count:]) if 0 < count < MAX_HEAD_BYTES else 0
        if not got:
            raise UnexpectedAnswerError(f"no whole head of an answer: {bytes(buffer[:count])[:200]!r}")
        count += got
    if not buffer.startswith(start):
        raise UnexpectedAnswerError(f"expected {start.decode()}, got {bytes(buffer[:200])!r}")
    if not body:
        return 0
    head = buffer[: end + 2].lower()
    at = head.find(_LENGTH)
    if at < 0:
        return _lacking_chunks(sock, buffer, end + len(_END), count)
    length = int(head[at + len(_LENGTH) : head.index(b"\r", at)])
    return length - (count - end - len(_END))


def _lacking_chunks(sock: socket.socket, buffer: bytearray, begin: int, count: int) -> int:
    """Reads a chunked body to its end: 0."""
    tail = bytes(buffer[max(begin, count - 5) : count])
    while tail != b"0\r\n\r\n":
        got = sock.recv_into(buffer)
        if not got:
            raise UnexpectedAnswerError("the answer was cut off")
        tail = (tail + buffer[max(0, got - 5) : got])[-5:]
    return 0


def download(port: int, path: str) -> tuple[int, float]:
    """The bytes of one whole answer with its head, and the seconds it took."""
    buffer = bytearray(MIB)
    with socket.create_connection(("127.0.0.1", port), TIMEOUT_S) as sock:
        began = time.perf_counter()
        sock.sendall(request(path, "Connection: close"))
        total = sock.recv_into(buffer)
        if not buffer.startswith(b"HTTP/1.1 200 "):
            raise UnexpectedAnswerError(f"{path}: {bytes(buffer[:200])!r}")
        while count := sock.recv_into(buffer):
            total += count
        return total, time.perf_counter() - began
