"""Every limit on requests and answers, through a real listening gateway."""

from __future__ import annotations

import asyncio
import time
from dataclasses import fields
from pathlib import Path

import pytest
from aiohttp import ClientError

from gateway.operating.access_log import AccessRecord
from gateway.operating.limits import Running, fairness_key
from gateway.operating.metrics import Metrics
from gateway.settings import GatewaySettings
from merkledag.directory import DirEntry, build_directory
from merkledag.profile import UNIXFS_V1_2025
from tests.gateway.operating import operated, received_until_cut
from tests.gateway.support import Client, MemorySource, add_file, add_tree
from tests.gateway.test_hostile_clients import until

ROOT = Path(__file__).parents[2]


async def waiting(client: Client, path: str, forwarded: str = "") -> asyncio.Task[int]:
    """A request that the gateway does not answer yet."""

    async def ask() -> int:
        return (await client.ask(path, {"X-Forwarded-For": forwarded} if forwarded else {})).status

    return asyncio.create_task(ask())


async def test_one_client_cannot_take_every_place() -> None:
    source = MemorySource()
    here, _ = add_file(source, b"here")
    far, _ = add_file(source, b"far")
    source.remote[far.multihash] = source.here.pop(far.multihash)
    source.arrive.clear()
    metrics = Metrics()
    settings = GatewaySettings(max_client_requests=2, retry_after_s=7)
    async with operated(source, settings=settings, metrics=metrics) as client:
        path = f"/ipfs/{far}"
        held = [await waiting(client, path, "2001:db8::1"), await waiting(client, path, "2001:db8::2")]
        await until(lambda: metrics.in_flight == 2)
        refused = await client.ask(f"/ipfs/{here}", {"X-Forwarded-For": "1.2.3.4, 2001:db8::3"})
        assert (refused.status, refused.headers["retry-after"]) == (429, "7")
        for others in ("2001:db8:0:1::1", "198.51.100.1", "198.51.100.1, 127.0.0.1"):
            assert (await client.ask(f"/ipfs/{here}", {"X-Forwarded-For": others})).status == 200
        assert (await client.ask(f"/ipfs/{here}")).status == 200  # the operator's own machine
        source.arrive.set()
        assert [await task for task in held] == [200, 200]
        assert (await client.ask(f"/ipfs/{here}", {"X-Forwarded-For": "2001:db8::3"})).status == 200
    assert metrics.refused == {"client_requests": 1}


async def test_forwarded_addresses_are_believed_from_trusted_proxies_only() -> None:
    source = MemorySource()
    cid, _ = add_file(source, b"here")
    seen: list[AccessRecord] = []
    for settings, expected in (
        (GatewaySettings(), "192.0.2.1"),
        (GatewaySettings(trusted_proxies=("10.0.0.0/8",)), "127.0.0.1"),
        (GatewaySettings(trust_forwarded_headers=False), "127.0.0.1"),
    ):
        async with operated(source, settings=settings, access_log=seen.append) as client:
            await client.ask(f"/ipfs/{cid}", {"X-Forwarded-For": "not an address, 192.0.2.1"})
        assert seen.pop().client == expected
    with pytest.raises(ValueError, match="trusted_proxies"):
        GatewaySettings(trusted_proxies=("nonsense",))
    with pytest.raises(ValueError, match="view_hold_s"):
        GatewaySettings(view_hold_s=1.5)
    assert fairness_key("2001:db8:0:1:2::9") == fairness_key("2001:db8:0:1::1") != fairness_key("2001:db8::1")


async def test_too_many_requests_in_all() -> None:
    source = MemorySource()
    far, _ = add_file(source, b"far")
    source.move_to_remote()
    source.arrive.clear()
    metrics = Metrics()
    async with operated(
        source, settings=GatewaySettings(max_concurrent_requests=1), metrics=metrics
    ) as client:
        held = await waiting(client, f"/ipfs/{far}")
        await until(lambda: metrics.in_flight == 1)
        answer = await client.ask(f"/ipfs/{far}", {"Accept": "application/json"})
        assert (answer.status, answer.headers["retry-after"]) == (429, "5")
        assert (await client.ask("/healthz")).status == 200
        source.arrive.set()
        assert await held == 200


async def test_an_answer_that_takes_too_long_is_504_or_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.operating.limits._SWEEP_S", 0.01)
    source = MemorySource()
    leaf, _ = add_file(source, b"far")
    source.remote[leaf.multihash] = source.here.pop(leaf.multihash)
    source.arrive.clear()
    metrics = Metrics()
    async with operated(source, settings=GatewaySettings(max_response_s=1.0), metrics=metrics) as client:
        answer = await client.ask(f"/ipfs/{leaf}")
        assert (answer.status, answer.headers["retry-after"]) == (504, "5")
        assert "longer than 1 s" in answer.text
        tree, _ = add_tree(source, {"a": bytes(300_000), "b": b"far"})
        source.here.pop(leaf.multihash, None)
        async with client.stream(f"/ipfs/{tree}?format=car") as response:
            assert response.status == 200
            with pytest.raises(ClientError):
                await response.read()
        await until(lambda: metrics.in_flight == 0)
        assert (await client.ask(f"/ipfs/{leaf}")).status == 504  # the next request is as before
    assert metrics.refused["response_s"] == 3


async def test_answers_that_are_too_large(monkeypatch: pytest.MonkeyPatch) -> None:
    source = MemorySource()
    large, _ = add_file(source, bytes(300_000), 100_000)
    small, _ = add_file(source, bytes(1000))
    folder, _ = add_tree(source, {"large": bytes(300_000)})
    settings = GatewaySettings(max_file_bytes=200_000)
    async with operated(source, settings=settings) as client:
        for headers in ({}, {"Range": "bytes=0-9"}):
            answer = await client.ask(f"/ipfs/{large}", headers)
            assert answer.status == 410
            assert "up to 200000 bytes" in answer.text
        assert (await client.ask(f"/ipfs/{small}")).status == 200
        assert (await client.ask(f"/ipfs/{large}?format=car")).status == 200
    async with operated(source, settings=GatewaySettings(max_range_file_bytes=200_000)) as client:
        assert (await client.ask(f"/ipfs/{large}", {"Range": "bytes=0-9"})).status == 501
        assert (await client.ask(f"/ipfs/{large}")).status == 200
    async with operated(source, settings=GatewaySettings(max_response_bytes=200_000)) as client:
        for path in (f"/ipfs/{large}", f"/ipfs/{folder}?format=tar", f"/ipfs/{folder}?format=car"):
            assert (await client.ask(path)).status == 410
        assert (await client.ask(f"/ipfs/{large}", {"Range": "bytes=0-199999"})).status == 206
        assert (await client.ask(f"/ipfs/{large}", {"Range": "bytes=0-200000"})).status == 410


async def test_a_stream_that_turns_out_too_large_is_cut() -> None:
    """The folder says of each file that it is tiny: nothing but the bytes on their way tells otherwise."""
    source = MemorySource()
    entries = [DirEntry(str(n), add_file(source, bytes([n]) * 100_000)[0], 1) for n in range(5)]
    folder, blocks = build_directory(UNIXFS_V1_2025, entries)
    source.add(blocks)
    limit = 250_000
    metrics = Metrics()
    settings = GatewaySettings(max_response_bytes=limit)
    async with operated(source, settings=settings, metrics=metrics) as client:
        for form in ("car", "tar"):
            received = await received_until_cut(client, f"/ipfs/{folder.cid}?format={form}")
            assert 100_000 < len(received) <= limit
        assert (await client.ask(f"/ipfs/{folder.cid}?format=car&dag-scope=block")).status == 200
        await until(lambda: metrics.in_flight == 0)
    assert metrics.cut == 2


async def test_the_sweep_ends_with_the_requests() -> None:
    running = Running(limit_s=3600)
    task = running.begin(time.monotonic())
    running.sweep()
    assert not running.has_expired(task)
    running.end(task)
    running.sweep()
    assert running._sweep is None


def test_the_documented_limits_are_the_settings() -> None:
    """docs/gateway.md has a row for each limit, with its default and what is beyond it."""
    page = (ROOT / "docs" / "gateway.md").read_text().split("## Limits")[1].split("\n## ")[0]
    rows = [line.split("|")[1:-1] for line in page.splitlines() if line.startswith("| `")]
    shown = {cells[0].strip().strip("`"): cells[1].strip().replace(",", "") for cells in rows}
    limits = {
        field.name: field.default
        for field in fields(GatewaySettings)
        if isinstance(field.default, (int, float)) and not isinstance(field.default, bool)
    }
    assert {name for name in limits if name.startswith("max_") or name.endswith("_timeout_s")} <= shown.keys()
    for name, default in shown.items():
        assert default in (f"{limits[name]:g}", str(limits[name])), name
    assert all(cells[3].strip() for cells in rows)


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (b"GET /" + b"a" * 9000 + b" HTTP/1.1\r\nHost: x\r\n\r\n", 414),
        (b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"a" * 9000 + b"\r\n\r\n", 431),
        (b"GET / HTTP/1.1\r\nHost: x\r\n" + b"a" * 9000 + b": x\r\n\r\n", 431),
        (b"GET / HTTP/1.1\r\nHost: x\r\n" + b"X: y\r\n" * 1000 + b"\r\n", 431),
        (b"GET / HTTP/1.1\r\nHost: x\r\n" + (b"X: " + b"a" * 8000 + b"\r\n") * 6, 431),  # and no end
        (b"nonsense\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n", 400),
    ],
)
async def test_requests_that_are_refused_unread(request_bytes: bytes, status: int) -> None:
    async with operated(MemorySource()) as client:
        reader, writer = await asyncio.open_connection(client.listener.host, client.listener.port)
        writer.write(request_bytes)
        head = (await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)).decode()
        writer.close()
        assert (await client.ask("/healthz")).status == 200
    assert head.startswith(f"HTTP/1.1 {status} ")
    assert "Access-Control-Allow-Origin: *\r\n" in head
    assert "Server: holdfast\r\n" in head
    assert "Connection: close\r\n" in head
