"""Signed IPNS records as they are (trustless gateway, IPIP-0351)."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from gateway.settings import GatewaySettings
from gateway.source import NameRecord, NameTarget
from tests.gateway.site import KEY
from tests.gateway.support import Client, MemoryNames, MemorySource, add_file, serving

MEDIA_TYPE = "application/vnd.ipfs.ipns-record"
RECORD = b"\x0a\x04sign the record itself is not looked at here"
UNTIMED = "k51qzi5uqu5dgv8kzl1anc0m74n6t9ffdjnypdh846ct5wgpljc7rulynxa74a"


@pytest.fixture(params=[True, False], ids=["full", "trustless"])
async def client(request: pytest.FixtureRequest) -> AsyncIterator[Client]:
    source = MemorySource()
    cid, _ = add_file(source, b"hello\n")
    names = MemoryNames(
        {KEY: NameTarget(f"/ipfs/{cid}", 60), "site.example": NameTarget(f"/ipns/{KEY}", 60)},
        {KEY: NameRecord(RECORD, 60), UNTIMED: NameRecord(RECORD + b"!", 0)},
    )
    settings = GatewaySettings(deserialize=bool(request.param))
    async with serving(source, names, settings, names) as served:
        yield served


async def test_a_record_comes_with_the_time_it_has_left(client: Client) -> None:
    for path, headers in (
        (f"/ipns/{KEY}?format=ipns-record", {}),
        (f"/ipns/{KEY}/?format=ipns-record", {}),
        (f"/ipns/{KEY}?format=ipns-record", {"Accept": "text/html,*/*;q=0.8"}),
        (f"/ipns/{KEY}", {"Accept": MEDIA_TYPE}),
        (f"/ipns/{KEY}", {"Accept": f"text/html;q=0.5, {MEDIA_TYPE}"}),
    ):
        answer = await client.ask(path, headers)
        assert (answer.status, answer.body) == (200, RECORD)
        assert answer.headers["content-type"] == MEDIA_TYPE
        assert answer.headers["cache-control"] == "public, max-age=60"
        assert answer.headers["content-disposition"] == f'attachment; filename="{KEY}.ipns-record"'
        assert answer.headers["x-content-type-options"] == "nosniff"
        location = answer.headers.get("content-location")
        assert location == (None if "format=" in path else f"/ipns/{KEY}?format=ipns-record")
        head = await client.ask(path, headers, method="HEAD")
        head.headers.pop("date"), answer.headers.pop("date")
        assert (head.status, head.body, head.headers) == (200, b"", answer.headers)
    named = await client.ask(f"/ipns/{KEY}?format=ipns-record&filename=my.record")
    assert named.headers["content-disposition"] == 'attachment; filename="my.record"'
    untimed = await client.ask(f"/ipns/{UNTIMED}?format=ipns-record")
    assert "cache-control" not in untimed.headers


async def test_a_record_that_the_client_has_is_not_sent_again(client: Client) -> None:
    path = f"/ipns/{KEY}?format=ipns-record"
    etag = (await client.ask(path)).headers["etag"]
    assert etag.startswith('"')
    for known, status in ((etag, 304), (f'"x", W/{etag}', 304), ("*", 304), ('"x"', 200)):
        assert (await client.ask(path, {"If-None-Match": known})).status == status
    other = await client.ask(f"/ipns/{UNTIMED}?format=ipns-record")
    assert other.headers["etag"] != etag


@pytest.mark.parametrize(
    ("path", "status"),
    [
        (f"/ipns/{KEY}/a.txt", 400),
        ("/ipns/site.example", 400),
        ("/ipfs/bafkqaaa", 400),
        ("/ipns/not_a_key", 400),
        ("/ipns/k51qzi5uqu5dlkw8pxuw9qmqayfdeh4kfebhmreauqdc6a7c3y7d5i9fi8mk9w", 404),
    ],
)
async def test_where_there_is_no_record(client: Client, path: str, status: int) -> None:
    for query, accept in (("?format=ipns-record", "*/*"), ("", MEDIA_TYPE)):
        for method in ("GET", "HEAD"):
            assert (await client.ask(path + query, {"Accept": accept}, method=method)).status == status
