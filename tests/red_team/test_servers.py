"""Hostile requests to all three servers of a running machine are refused, and others are served."""

from __future__ import annotations

import json
import random
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.red_team.support import Machine, status

ROLES = ("gateway", "node", "ledger")
CAR = "application/vnd.ipld.car"
LOST = "bafyreigr3kw74elf7zwidstedd65wdypeuse7ojmflk6lsahdq5wtsdkxq"


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """A machine that keeps one deal, whose ID is in `urls["deal"]`, its content in `urls["content"]`."""
    folder: Path = tmp_path_factory.mktemp("servers")
    made = Machine(folder / "home")
    (folder / "file").write_bytes(random.Random(1).randbytes(50_000))
    made.start()
    stored = made.json("store", str(folder / "file"), "--for", "3d", "--yes")
    made.urls |= {"deal": stored["deal"], "content": stored["content"]}
    yield made
    for role, path in (("node", "/v1/status"), ("ledger", "/v1/status"), ("gateway", "/healthz")):
        assert made.get(role, path)
    assert made.get("gateway", f"/ipfs/{stored['content']}") == (folder / "file").read_bytes()
    money = json.loads(made.get("ledger", "/v1/status"))
    assert sum(money[part] for part in ("balances", "escrow", "collateral", "burned")) == money["issued"]
    assert made.stop() == 0


@pytest.mark.parametrize("role", ROLES)
def test_methods_that_are_not_served(machine: Machine, role: str) -> None:
    """Red team 26: every other method on every kind of path is refused, and never by a crash."""
    for method in ("POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "NONSENSE"):
        for path in ("/", "/v1/status", "/v1/tx", "/ipfs/bafkqaaa", "/v1/admin/status"):
            assert status(machine.request(role, method, path)) in {200, 204, 400, 403, 404, 405}, (
                method,
                path,
            )


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize(
    "head",
    [
        b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"a" * 200_000 + b"\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\n" + b"".join(b"X-%d: a\r\n" % n for n in range(20_000)) + b"\r\n",
        b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(100) + b"\r\n\r\n",
        b"GET /\xff\xfe HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET / HTTP/9.9\r\nHost: x\r\n\r\n",
        b"POST /v1/tx HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nabcdef",
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST /v1/tx HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"POST /v1/tx HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
    ],
    ids=["huge", "many", "long", "tls", "bytes", "version", "lengths", "smuggled", "chunk", "negative"],
)
def test_heads_that_are_no_http(machine: Machine, role: str, head: bytes) -> None:
    """Red team 26: huge headers and malformed or ambiguous framing end in a 4xx or nothing."""
    assert status(machine.raw(role, head)) in {0, 400, 404, 413, 414, 431, 505}


def test_silent_and_slow_connections_hold_up_nobody(machine: Machine) -> None:
    """Red team 26: two hundred half requests on each server, and a good one is answered meanwhile."""
    with ExitStack() as stack:
        for role in ROLES:
            parts = urlsplit(machine.urls[role])
            for number in range(200):
                link = stack.enter_context(socket.create_connection((parts.hostname, parts.port), timeout=60))
                link.sendall(
                    b"POST /v1/tx HTTP/1.1\r\nHost: x\r\nContent-Length: 99\r\n\r\nabc"[: number + 1]
                )
        assert machine.get("ledger", "/v1/status")
        assert machine.get("node", "/v1/status")
        assert machine.get("gateway", f"/ipfs/{machine.urls['content']}")


@pytest.mark.parametrize(
    "body",
    [b"", b"\x00", b"\xff" * 99, b"\x81" * 250_000, b"{}", b"a" * 300_000, b"\xa1aa\x1b" + b"\xff" * 8],
    ids=["empty", "zero", "breaks", "deep", "json", "huge", "short"],
)
def test_bytes_that_are_no_transaction(machine: Machine, body: bytes) -> None:
    """Red team 14 and 15: refused with a code, in one line."""
    answer = machine.request("ledger", "POST", "/v1/tx", body)
    assert status(answer) in {400, 413}
    document = json.loads(answer.partition(b"\r\n\r\n")[2])
    assert document["error"]
    assert "\n" not in document["error"]


@pytest.mark.parametrize(
    "path",
    [
        "/v1/account/%00",
        "/v1/account/%ff",
        "/v1/deals?limit=0",
        "/v1/deals?limit=99999",
        "/v1/deals?limit=1e3",
        "/v1/deals?cursor=%00",
        "/v1/deals?cursor=" + "a" * 2_000,
        "/v1/deals?active=maybe",
        "/v1/deals?client=x",
        "/v1/block/-1",
        "/v1/block/" + "9" * 5_000,
        "/v1/block/%D9%A1",
        "/v1/tx/x",
        "/v1/prove/" + "00" * 600,
        "/v1/dataset/zz",
        "/v1/events?from=99999999999999999999",
        "/v1/provider/..%2f..",
    ],
)
def test_parameters_that_make_no_sense(machine: Machine, path: str) -> None:
    """Red team 12 and 25: numbers, keys and cursors out of range are the caller's mistake."""
    answer = machine.request("ledger", "GET", path)
    assert status(answer) == 400
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["code"] == 400


def test_uploads_without_the_client_s_signature(machine: Machine) -> None:
    """Red team 29: unsigned, for shards of others, for deals that are none, and with tricks in the path."""
    deal = machine.urls["deal"]
    for path, expected in [
        (f"/v1/deals/{deal}/shards/1", {404}),
        (f"/v1/deals/{LOST}/shards/0", {404}),
        (f"/v1/deals/{deal}/shards/-1", {400}),
        (f"/v1/deals/{deal}/shards/%D9%A1", {400}),
        (f"/v1/deals/{deal.upper()}/shards/0", {400}),
        ("/v1/deals/..%2f..%2fetc/shards/0", {400, 404}),
        ("/v1/deals/x/../../admin/status", {400, 403, 404, 405}),
        ("/v1/admin/status", {405}),
    ]:
        answer = machine.request("node", "PUT", path, b"garbage", Content_Type=CAR)
        assert status(answer) in expected, path
    held = machine.request("node", "PUT", f"/v1/deals/{deal}/shards/0", b"garbage", Content_Type=CAR)
    assert json.loads(held.partition(b"\r\n\r\n")[2])["state"] == "held"  # and nothing of the body was taken
    assert machine.json("repo", "verify")


@pytest.mark.parametrize("path", ["/v1/admin/status", "/v1/admin/earnings"])
@pytest.mark.parametrize("sent", [{}, {"Authorization": "Bearer "}, {"Authorization": "Bearer " + "a" * 999}])
def test_the_owner_s_routes_need_the_token(machine: Machine, path: str, sent: dict[str, str]) -> None:
    """Red team 29: no token, an empty and a wrong one; no page of another origin may read the answer."""
    answer = machine.request("node", "GET", path, b"", Origin="http://evil.example", **sent)
    assert status(answer) == 403
    assert b"access-control-allow-origin" not in answer.lower()


@pytest.mark.parametrize("role", ["gateway", "node"])
@pytest.mark.parametrize(
    "path",
    [
        "/ipfs/../../etc/passwd",
        "/ipfs/%2e%2e/%2e%2e/etc/passwd",
        "/ipfs/%00",
        "/ipfs/%ff%fe",
        "/ipfs/" + "b" * 6_000,
        "/ipfs/bafkqaaa/" + "a/" * 2_000,
        "/ipns/127.0.0.1",
        "/ipns/169.254.169.254",
        "/ipns/localhost",
        "/ipns/%5B::1%5D",
        "/ipfs/bafkqaaa?format=zip",
        "/ipfs/bafkqaaa?format=car&entity-bytes=a:b",
    ],
)
def test_paths_that_lead_nowhere(machine: Machine, role: str, path: str) -> None:
    """Red team 25 and 27: path tricks and private names are refused; nothing is read or fetched for them."""
    answer = machine.request(role, "GET", path)
    assert 400 <= status(answer) <= 501
    assert status(answer) != 500
    assert b"root:" not in answer


def test_names_in_headers_cannot_break_out(machine: Machine) -> None:
    """Red team 28: a file name with line breaks, quotes and beyond ASCII stays inside its header."""
    for name in ("%0d%0aSet-Cookie:a=b", '%22;%20x="', "%F0%9F%98%80%22"):
        answer = machine.request("gateway", "GET", f"/ipfs/bafkqaaa?filename={name}&download=true")
        head = answer.partition(b"\r\n\r\n")[0]
        assert status(answer) == 200
        assert not any(line.lower().startswith(b"set-cookie") for line in head.split(b"\r\n"))
