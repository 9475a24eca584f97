"""@helia/verified-fetch, @helia/car and @ipld/car, whose only provider is a real gateway."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from typing import Any

import pytest

from merkledag.cid import CID
from tests.gateway.black_box.content import BIG, MIB, SHARDED_ENTRIES, Content
from tests.gateway.black_box.running import Script
from tests.peers.support import FOLDER, REQUIRED

pytestmark = pytest.mark.peers
CAR = "application/vnd.ipld.car"


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@pytest.fixture(scope="module")
def node() -> Iterator[Script]:
    program, script = FOLDER / "bin" / "node", FOLDER / "npm" / "verified.mjs"
    if not (os.access(program, os.X_OK) and script.is_file()):
        reason = f"Node.js and verified-fetch are not in {FOLDER}: make peers puts them there"
        pytest.fail(reason) if REQUIRED else pytest.skip(reason)
    with Script(str(program), str(script)) as running:
        yield running


class Fetching:
    """verified-fetch with our gateway behind it."""

    def __init__(self, node: Script, served: Content) -> None:
        self.node = node
        self.served = served

    def __call__(self, resource: str, **job: Any) -> dict[str, Any]:
        return self.node.ask(do="fetch", gateway=self.served.url, resource=resource, **job)

    def car(self, path: str, **job: Any) -> dict[str, Any]:
        return self.node.ask(do="car", gateway=self.served.url, path=path, **job)


@pytest.fixture
def fetch(node: Script, served: Content) -> Fetching:
    return Fetching(node, served)


@pytest.mark.parametrize(
    "path", ["big.bin", "listing/picture.png", "listing/ąę źł.txt", "listing/100%.txt", "listing/empty"]
)
def test_files(fetch: Fetching, served: Content, path: str) -> None:
    from urllib.parse import quote

    root, slash, rest = path.partition("/")
    answer = fetch(f"ipfs://{served.cid(root)}{slash}{quote(rest)}")
    data = served.data(path)
    assert (answer["status"], answer["size"], answer["sha256"]) == (200, len(data), sha256(data))


def test_every_block_of_a_sharded_folder_is_found_by_name(fetch: Fetching, served: Content) -> None:
    for number in (0, SHARDED_ENTRIES // 2, SHARDED_ENTRIES - 1):
        assert fetch(f"ipfs://{served.cid('sharded')}/{number:03}.txt")["text"] == f"number {number}\n"
    assert fetch(f"ipfs://{served.cid('sharded')}/none.txt")["status"] == 404


@pytest.mark.parametrize(
    ("wanted", "first", "last"),
    [
        ("bytes=0-0", 0, 0),
        (f"bytes={MIB - 1}-{MIB}", MIB - 1, MIB),
        ("bytes=-5", len(BIG) - 5, len(BIG) - 1),
        (f"bytes={2 * MIB}-", 2 * MIB, len(BIG) - 1),
    ],
)
def test_byte_ranges(fetch: Fetching, served: Content, wanted: str, first: int, last: int) -> None:
    answer = fetch(f"ipfs://{served.cid('big.bin')}", headers={"range": wanted})
    assert answer["status"] == 206
    assert answer["headers"]["content-range"] == f"bytes {first}-{last}/{len(BIG)}"
    assert answer["sha256"] == sha256(BIG[first : last + 1])


def test_nodes_of_both_codecs(fetch: Fetching, served: Content) -> None:
    text = json.loads(fetch(f"ipfs://{served.cid('dag-json')}")["text"])
    assert text["hello"] == "world"
    assert text["deeper"]["list"][2] == {"/": "bafkqaaa"}
    for form in ("vnd.ipld.dag-cbor", "vnd.ipld.raw"):
        block = fetch(f"ipfs://{served.cid('dag-cbor')}", headers={"accept": f"application/{form}"})
        assert block["sha256"] == CID.parse(served.cid("dag-cbor")).digest.hex()


def test_folders_with_and_without_an_index(fetch: Fetching, served: Content) -> None:
    assert fetch(f"ipfs://{served.cid('one')}/")["text"].endswith("<title>one</title>one\n")
    assert fetch(f"ipfs://{served.cid('listing')}/sub/below/inner.txt")["text"] == "far down\n"
    listing = fetch(f"ipfs://{served.cid('listing')}/sub")
    assert listing["status"] in (200, 301)


def test_names(fetch: Fetching, served: Content) -> None:
    """The record comes from the gateway, and Helia verifies it."""
    answer = fetch(f"ipns://{served.name}/new.html")
    assert answer["sha256"] == sha256(served.data("site/new.html"))
    record = fetch(f"ipns://{served.name}", headers={"accept": "application/vnd.ipfs.ipns-record"})
    assert (record["status"], record["headers"]["content-type"]) == (200, "application/vnd.ipfs.ipns-record")


def test_a_redirects_file_is_read_by_the_client_from_our_blocks(fetch: Fetching, served: Content) -> None:
    root = f"ipfs://{served.cid('site')}"
    assert fetch(f"{root}/gone/x")["status"] == 410
    assert fetch(f"{root}/law")["status"] == 451
    assert fetch(f"{root}/lost/x")["status"] == 404
    assert fetch(f"{root}/any/route")["status"] == 200
    assert fetch(f"{root}/new.html")["sha256"] == sha256(served.data("site/new.html"))


def test_what_is_not_there_is_not_found(fetch: Fetching, served: Content) -> None:
    assert fetch(f"ipfs://{served.cid('listing')}/nothing")["status"] == 404
    # Of a block that nobody has Helia would look for other providers for ever.
    absent = fetch(f"ipfs://{served.absent}", timeout_ms=1000)
    assert absent.get("status", 504) >= 400
    assert absent["size"] == 0 or absent["status"] >= 400


def test_what_a_denylist_names_is_not_to_be_had(fetch: Fetching, served: Content) -> None:
    answer = fetch(f"ipfs://{served.cid('denied.txt')}", timeout_ms=1000)
    assert answer.get("status", 410) >= 400
    assert "not to be served" not in (answer.get("text") or "")
    assert fetch.car(f"/ipfs/{served.cid('denied.txt')}?format=car")["status"] == 410


def test_an_abort_in_the_middle_leaves_the_gateway_well(fetch: Fetching, served: Content) -> None:
    answer = fetch(f"ipfs://{served.cid('big.bin')}", abort_after=1)
    assert 0 < answer["size"] < len(BIG)
    assert fetch(f"ipfs://{served.cid('big.bin')}")["sha256"] == sha256(BIG)


def test_head_brings_no_body(fetch: Fetching, served: Content) -> None:
    answer = fetch(f"ipfs://{served.cid('big.bin')}", method="HEAD")
    assert (answer["status"], answer["size"]) == (200, 0)


def test_a_car_made_by_the_client_from_our_blocks(fetch: Fetching, served: Content) -> None:
    answer = fetch(f"ipfs://{served.cid('one')}", headers={"accept": CAR})
    assert answer["status"] == 200
    assert answer["headers"]["content-type"].startswith(CAR)
    assert answer["size"] > 100


# ------------------------------------------------------------------ CARs made by the gateway


def test_a_whole_car_has_all_that_a_file_needs(fetch: Fetching, served: Content) -> None:
    cid = served.cid("big.bin")
    answer = fetch.car(f"/ipfs/{cid}?format=car", cat={"cid": cid})
    assert (answer["status"], answer["roots"], answer["cids"][0]) == (200, [cid], cid)
    assert (answer["size"], answer["sha256"]) == (len(BIG), sha256(BIG))
    assert len(set(answer["cids"])) == len(answer["cids"])


def test_a_path_in_a_car_can_be_walked_offline(fetch: Fetching, served: Content) -> None:
    cid = served.cid("listing")
    path = "sub/below/inner.txt"
    answer = fetch.car(f"/ipfs/{cid}/{path}?format=car", cat={"cid": cid, "path": path})
    assert answer["sha256"] == sha256(b"far down\n")
    assert answer["cids"] == [cid, *(served.cid(f"listing/{p}") for p in ("sub", "sub/below", path))]
    sharded = served.cid("sharded")
    answer = fetch.car(f"/ipfs/{sharded}/007.txt?format=car", cat={"cid": sharded, "path": "007.txt"})
    assert answer["sha256"] == sha256(b"number 7\n")
    assert len(answer["cids"]) < 5


def test_a_path_that_is_not_there_is_proven_by_blocks_or_denied(fetch: Fetching, served: Content) -> None:
    answer = fetch.car(f"/ipfs/{served.cid('listing')}/nothing?format=car")
    assert answer["status"] == 404 or answer["cids"] == [served.cid("listing")]


@pytest.mark.parametrize(
    ("wanted", "offset", "length", "blocks"),
    [
        ("0:0", 0, 1, 2),
        (f"0:{MIB - 1}", 0, MIB, 2),
        (f"{MIB - 1}:{MIB}", MIB - 1, 2, 3),
        (f"{3 * MIB}:*", 3 * MIB, 17, 2),
        ("-17:*", 3 * MIB, 17, 2),
        (f"{MIB}:-18", MIB, 2 * MIB, 3),
        ("0:*", 0, len(BIG), 5),
    ],
)
def test_entity_bytes_are_enough_to_read_them_offline(
    fetch: Fetching, served: Content, wanted: str, offset: int, length: int, blocks: int
) -> None:
    cid = served.cid("big.bin")
    answer = fetch.car(
        f"/ipfs/{cid}?format=car&dag-scope=entity&entity-bytes={wanted}",
        cat={"cid": cid, "offset": offset, "length": length},
    )
    assert answer["sha256"] == sha256(BIG[offset : offset + length])
    assert len(answer["cids"]) == blocks


def test_scopes(fetch: Fetching, served: Content) -> None:
    cid = served.cid("listing")
    block = fetch.car(f"/ipfs/{cid}?format=car&dag-scope=block")
    entity = fetch.car(f"/ipfs/{cid}?format=car&dag-scope=entity")
    everything = fetch.car(f"/ipfs/{cid}?format=car&dag-scope=all")
    assert block["cids"] == entity["cids"] == [cid]
    assert len(everything["cids"]) > 10
    shards = fetch.car(f"/ipfs/{served.cid('sharded')}?format=car&dag-scope=entity")
    assert 1 < len(shards["cids"]) < SHARDED_ENTRIES


def test_what_is_agreed_on_by_accept(fetch: Fetching, served: Content) -> None:
    accept = f"{CAR}; version=1; order=dfs; dups=y"
    answer = fetch.car(f"/ipfs/{served.cid('one')}", headers={"accept": accept})
    given = {part.strip() for part in answer["type"].split(";")}
    assert {CAR, "version=1", "order=dfs", "dups=y"} <= given
    assert fetch.car(f"/ipfs/{served.cid('one')}", headers={"accept": f"{CAR}; version=2"})["status"] == 406
