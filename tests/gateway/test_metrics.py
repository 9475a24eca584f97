"""Counts of a gateway: what they count, how they add up, and that Prometheus' own parser takes the page."""

from __future__ import annotations

import json

from aiohttp import ClientSession
from prometheus_client.parser import text_string_to_metric_families

from gateway.operating.control import Readiness, build_control_app
from gateway.operating.metrics import (
    FAMILIES,
    PREFIX,
    Metrics,
    Snapshot,
    exposition,
    is_snapshot,
    merge,
    retired,
    series,
)
from gateway.serving.listener import listen
from gateway.settings import GatewaySettings
from gateway.source import NameTarget
from merkledag.cid import CID
from tests.gateway.operating import operated
from tests.gateway.support import MemoryNames, MemorySource, add_tree


def samples(page: bytes) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    found = {}
    for family in text_string_to_metric_families(page.decode()):
        for sample in family.samples:
            key = sample.name.removeprefix(PREFIX), tuple(sorted(sample.labels.items()))
            assert key not in found
            found[key] = sample.value
    return found


async def test_what_is_counted() -> None:
    source = MemorySource()
    folder, _ = add_tree(source, {"a": b"abc", "large": bytes(100_000)})
    names = MemoryNames({"a.example": NameTarget(f"/ipfs/{folder}", 60)})
    metrics = Metrics()
    async with operated(source, names, metrics=metrics) as client:
        for path in (
            f"/ipfs/{folder}/a", f"/ipfs/{folder}/", f"/ipfs/{folder}", "/ipns/a.example/large",
            *(f"/ipfs/{folder}?format={name}" for name in ("raw", "car", "tar")), "/ipns/b.example/",
        ):  # fmt: skip
            await client.ask(path)
        await client.ask(f"/ipfs/{CID.of(b'nobody has this')}")
        await client.ask(f"/ipfs/{folder}/a", method="HEAD")
        await client.ask(f"/ipfs/{folder}/a", method="PROPFIND")
    found = samples(exposition(metrics.snapshot()))
    for kind, count in (
        ("file", 3), ("listing", 1), ("raw", 1), ("car", 1), ("tar", 1), ("redirect", 1), ("error", 3)
    ):  # fmt: skip
        assert found["first_byte_seconds_count", (("kind", kind),)] == count, kind
        assert found["first_byte_seconds_bucket", (("kind", kind), ("le", "+Inf"))] == count
    assert found["requests_total", (("method", "GET"), ("status", "2xx"))] == 6
    assert found["requests_total", (("method", "GET"), ("status", "3xx"))] == 1
    assert found["requests_total", (("method", "HEAD"), ("status", "2xx"))] == 1
    assert found["requests_total", (("method", "other"), ("status", "4xx"))] == 1
    assert found["request_seconds_count", ()] == 11
    assert found["sent_bytes_total", ()] > 200_000
    assert found["blocks_total", (("outcome", "failed"),)] == 1
    assert found["blocks_total", (("outcome", "here"),)] > 0
    assert found["names_total", (("outcome", "found"),)] >= 1
    assert found["names_total", (("outcome", "none"),)] >= 1
    assert found["path_cache_total", (("outcome", "hit"),)] > 0
    assert found["path_cache_total", (("outcome", "miss"),)] > 0
    assert found["in_flight", ()] == 0
    assert found["workers", ()] == 1


def test_snapshots_travel_as_json_and_add_up() -> None:
    first, second = Metrics(), Metrics()
    first.requests["GET", 2] += 3
    first.first_byte["file"].observe(0.002)
    second.first_byte["file"].observe(5000)
    second.in_flight = 4
    second.denied['odd "name"\\ of\na list}'] += 1
    travelled: list[Snapshot] = [json.loads(json.dumps(each.snapshot())) for each in (first, second)]
    assert all(map(is_snapshot, travelled))
    page = exposition(merge(travelled))
    found = samples(page)
    assert found["requests_total", (("method", "GET"), ("status", "2xx"))] == 3
    assert found["first_byte_seconds_bucket", (("kind", "file"), ("le", "0.0025"))] == 1
    assert found["first_byte_seconds_bucket", (("kind", "file"), ("le", "3600"))] == 1
    assert found["first_byte_seconds_count", (("kind", "file"),)] == 2
    assert found["first_byte_seconds_sum", (("kind", "file"),)] == 5000.002
    assert found["denied_total", (("list", 'odd "name"\\ of\na list}'),)] == 1
    assert found["workers", ()] == 2
    lines = page.decode().split("\n")
    assert lines[-1] == ""
    names = [line.split()[2] for line in lines if line.startswith("# TYPE")]
    assert len(names) == len(set(names))
    # A worker that ended leaves its counts and none of its gauges.
    left = retired(travelled[1])
    assert series("in_flight") not in left
    assert series("workers") not in left
    assert samples(exposition(merge([travelled[0], left])))["workers", ()] == 1
    gauge = series("in_flight")
    others: list[object] = [None, [], {"holdfast_gateway_other": [1]}, {gauge: [1, 2]}, {gauge: 1}]
    for wrong in others:
        assert not is_snapshot(wrong)


def test_every_family_says_what_it_is() -> None:
    for family in FAMILIES:
        assert family.help.endswith(".")
        assert family.name.endswith("_total") == (family.kind == "counter")


async def test_the_control_listener() -> None:
    state = {"ready": Readiness(True), "reloads": 0}
    metrics = Metrics()

    async def collect() -> list[Snapshot]:
        return [metrics.snapshot(), metrics.snapshot()]

    async def ready() -> Readiness:
        answer = state["ready"]
        assert isinstance(answer, Readiness)
        return answer

    async def reload() -> str:
        if state["reloads"]:
            raise ValueError("line 3 is\nnot valid")
        state["reloads"] = 1
        return "reloaded"

    listener = await listen(build_control_app(collect, ready, reload), "127.0.0.1", 0, GatewaySettings())
    async with ClientSession(listener.url) as session:

        async def ask(method: str, path: str) -> tuple[int, str]:
            async with session.request(method, path) as response:
                return response.status, await response.text()

        async with session.get("/metrics") as response:
            assert response.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
            assert samples(await response.read())["workers", ()] == 2
        assert await ask("GET", "/healthz") == (200, "ok\n")
        assert await ask("GET", "/readyz") == (200, "ready\n")
        state["ready"] = Readiness(True, "a list is old")
        assert await ask("GET", "/readyz") == (200, "ready, but a list is old\n")
        state["ready"] = Readiness(False, "it is being stopped")
        assert await ask("GET", "/readyz") == (503, "not ready: it is being stopped\n")
        for header, value in (("origin", "null"), ("Sec-Fetch-Site", "cross-site")):
            async with session.post("/reload", headers={header: value}) as response:
                assert response.status == 403
        assert await ask("POST", "/reload") == (200, "reloaded\n")
        assert await ask("POST", "/reload") == (422, "not reloaded: line 3 is not valid\n")
        assert (await ask("GET", "/reload"))[0] == 405
        async with session.get("/nothing") as response:
            assert (response.status, response.headers["Server"]) == (404, "holdfast")
    await listener.close()


async def test_strangers_see_readiness_and_no_counts() -> None:
    async def ready() -> Readiness:
        return Readiness(False, "draining")

    async with operated(MemorySource(), ready=ready) as client:
        assert (await client.ask("/readyz")).status == 503
        assert (await client.ask("/healthz")).status == 200
        assert (await client.ask("/metrics")).status == 404
        for path in ("/readyz", "/healthz"):  # a site has its own pages there
            answer = await client.ask(path, {"Host": f"{CID.of(b'x')}.ipfs.localhost"})
            assert answer.status in (404, 301)
