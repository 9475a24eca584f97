"""boxo, the library inside kubo, as a gateway that reads everything through ours: CARs, or single blocks."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest

from tests.gateway.black_box.content import BIG, MIB, SHARDED_ENTRIES, Content
from tests.peers.support import find_peer

pytestmark = pytest.mark.peers
BACKENDS = ("car", "blocks")


def through(served: Content, backend: str, *requests: tuple[str, dict[str, str]]) -> list[dict[str, Any]]:
    """What boxo's gateway answers, one after the other."""
    peer = find_peer("boxo")
    return peer.run(
        [
            {
                "do": "remote",
                "upstream": served.url,
                "backend": backend,
                "method": "GET",
                "path": path,
                "headers": headers,
            }
            for path, headers in requests
        ]
    )


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@pytest.mark.parametrize("backend", BACKENDS)
def test_files_by_path(served: Content, backend: str) -> None:
    listing, sharded = served.cid("listing"), served.cid("sharded")
    wanted = {
        f"/ipfs/{served.cid('big.bin')}": BIG,
        f"/ipfs/{listing}/README.md": served.data("listing/README.md"),
        f"/ipfs/{listing}/sub/below/inner.txt": b"far down\n",
        f"/ipfs/{listing}/empty": b"",
        f"/ipfs/{listing}/%C4%85%C4%99%20%C5%BA%C5%82.txt": served.data("listing/ąę źł.txt"),
        f"/ipfs/{sharded}/000.txt": b"number 0\n",
        f"/ipfs/{sharded}/{SHARDED_ENTRIES - 1}.txt": f"number {SHARDED_ENTRIES - 1}\n".encode(),
        f"/ipfs/{served.cid('one')}/": served.data("one/index.html"),
        f"/ipns/{served.name}/new.html": served.data("site/new.html"),
    }
    answers = through(served, backend, *((path, {}) for path in wanted))
    for (path, data), answer in zip(wanted.items(), answers, strict=True):
        assert (answer["status"], answer["sha256"]) == (200, sha256(data)), path


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    ("wanted", "first", "last"),
    [
        ("0-0", 0, 0),
        (f"{MIB - 1}-{MIB}", MIB - 1, MIB),
        ("-20", len(BIG) - 20, len(BIG) - 1),
        (f"{MIB}-", MIB, len(BIG) - 1),
    ],
)
def test_ranges(served: Content, backend: str, wanted: str, first: int, last: int) -> None:
    (answer,) = through(served, backend, (f"/ipfs/{served.cid('big.bin')}", {"Range": f"bytes={wanted}"}))
    assert answer["status"] == 206
    assert answer["headers"]["Content-Range"] == [f"bytes {first}-{last}/{len(BIG)}"]
    assert answer["sha256"] == sha256(BIG[first : last + 1])


@pytest.mark.parametrize("backend", BACKENDS)
def test_folders_nodes_and_archives(served: Content, backend: str) -> None:
    listing = served.cid("listing")
    page, sharded, node, raw, tar = through(
        served,
        backend,
        (f"/ipfs/{listing}/", {"Accept": "text/html"}),
        (f"/ipfs/{served.cid('sharded')}/", {"Accept": "text/html"}),
        (f"/ipfs/{served.cid('dag-cbor')}?format=dag-cbor", {}),
        (f"/ipfs/{served.cid('dag-json')}?format=raw", {}),
        (f"/ipfs/{listing}?format=tar", {}),
    )
    assert [answer["status"] for answer in (page, sharded, node, raw, tar)] == [200] * 5
    assert node["headers"]["Content-Type"] == ["application/vnd.ipld.dag-cbor"]
    assert tar["size"] > len(served.data("listing/picture.png"))


@pytest.mark.parametrize("backend", BACKENDS)
def test_what_is_not_in_a_folder_is_not_found(served: Content, backend: str) -> None:
    """Which boxo says only if it can prove it: from blocks that we sent."""
    answers = through(
        served,
        backend,
        (f"/ipfs/{served.cid('listing')}/nothing", {}),
        (f"/ipfs/{served.cid('listing')}/sub/nothing/at/all", {}),
        (f"/ipfs/{served.cid('sharded')}/nothing", {}),
    )
    assert [answer["status"] for answer in answers] == [404] * 3
