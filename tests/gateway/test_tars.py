"""TAR streams of UnixFS trees (IPIP-0288)."""

from __future__ import annotations

import io
import re
import tarfile

import pytest
from aiohttp import ClientError

from merkledag import dag_cbor, dag_pb, unixfs
from merkledag.block import Block
from merkledag.cid import CID
from merkledag.codecs import DAG_CBOR, DAG_PB
from merkledag.unixfs import Mtime
from tests.gateway.site import CHUNK, LARGE, Site, add_node, raw_folder
from tests.gateway.support import add_tree


async def test_a_tree_as_tar(site: Site) -> None:
    answer = await site.get(f"/ipfs/{site.root}?format=tar&filename=%D1%82%D0%B5%D1%81%D1%82.tar")
    assert answer.headers["content-type"] == "application/x-tar"
    assert answer.headers["content-disposition"].startswith('attachment; filename="____.tar"')
    with tarfile.open(fileobj=io.BytesIO(answer.body)) as archive:
        names = archive.getnames()
        assert names[0] == str(site.root)
        assert f"{site.root}/ąę/file-źł.txt" in names
        assert archive.getmember(f"{site.root}/link").linkname == "a.txt"
        file = archive.extractfile(f"{site.root}/a.txt")
        assert file is not None
        assert file.read() == b"hello\n"
    large = await site.get(f"/ipfs/{site.large}?format=tar")
    with tarfile.open(fileobj=io.BytesIO(large.body)) as archive:
        file = archive.extractfile(str(site.large))
        assert file is not None
        assert file.read() == LARGE


@pytest.mark.parametrize("name", ["../x", "a/../../x", "/etc/passwd", "..", "a\0b"])
async def test_a_tar_never_leaves_its_folder(site: Site, name: str) -> None:
    folder = raw_folder(site.source, name, CID.of(b"hello\n"))
    answer = await site.get(f"/ipfs/{folder}?format=tar")
    assert answer.status == 406
    listing = await site.get(f"/ipfs/{folder}/")
    assert listing.status == 200


@pytest.mark.parametrize("target", ["/etc", "../../x", "a/../../.."])
async def test_a_tar_holds_no_link_out_of_its_folder(site: Site, target: str) -> None:
    folder, _ = add_tree(site.source, {"link": target})
    assert (await site.get(f"/ipfs/{folder}?format=tar")).status == 406


def members(body: bytes) -> dict[str, tarfile.TarInfo]:
    with tarfile.open(fileobj=io.BytesIO(body)) as archive:
        return {info.name: info for info in archive.getmembers()}


async def test_one_file_in_a_tar_has_its_name(site: Site) -> None:
    hello = CID.of(b"hello\n")
    for path, name in (
        (f"{site.root}/a.txt", "a.txt"),
        (str(hello), str(hello)),
        (f"{site.root}/%C4%85%C4%99/deep", "deep"),
    ):
        answer = await site.get(f"/ipfs/{path}?format=tar")
        assert next(iter(members(answer.body))) == name
    named = await site.get(f"/ipfs/{site.root}/a.txt?format=tar&filename=x.tar")
    assert list(members(named.body)) == ["a.txt"]


async def test_a_tar_keeps_modes_and_times(site: Site) -> None:
    file = add_node(
        site.source, unixfs.Data(unixfs.Kind.FILE, b"x", 1, mode=0o751, mtime=Mtime(1_600_000_000))
    )
    folder = raw_folder(site.source, "f", file)
    info = members((await site.get(f"/ipfs/{folder}?format=tar")).body)[f"{folder}/f"]
    assert (info.mode, int(info.mtime), info.size) == (0o751, 1_600_000_000, 1)


async def test_empty_files_and_folders_are_in_a_tar(site: Site) -> None:
    root, _ = add_tree(site.source, {"none": b"", "empty": {}})
    found = members((await site.get(f"/ipfs/{root}?format=tar")).body)
    assert found[f"{root}/none"].size == 0
    assert found[f"{root}/empty"].isdir()


async def test_only_unixfs_is_packed(site: Site) -> None:
    data = dag_cbor.encode({"a": 1})
    other = dag_pb.encode(dag_pb.PBNode((), b"no UnixFS"))
    for block in (Block(CID.of(data, DAG_CBOR), data), Block(CID.of(other, DAG_PB), other)):
        site.source.add([block])
        for method in ("GET", "HEAD"):
            answer = await site.get(f"/ipfs/{block.cid}?format=tar", method=method)
            assert answer.status == 406
        assert (await site.get(f"/ipfs/{raw_folder(site.source, 'x', block.cid)}?format=tar")).status == 406


async def test_head_of_a_tar_has_the_headers_of_get(site: Site) -> None:
    for path in (f"/ipfs/{site.root}?format=tar", f"/ipfs/{site.root}/a.txt?format=tar"):
        get, head = await site.get(path), await site.get(path, method="HEAD")
        for answer in (get, head):
            answer.headers.pop("date")
            answer.headers.pop("transfer-encoding", None)
        assert (head.status, head.body, head.headers) == (200, b"", get.headers)
        assert get.headers["accept-ranges"] == "none"
        assert re.fullmatch('W/"[a-z0-9]+.x-tar"', get.headers["etag"])


async def test_a_missing_block_breaks_the_tar_visibly(site: Site) -> None:
    del site.source.here[CID.of(LARGE[5 * CHUNK : 6 * CHUNK]).multihash]
    with pytest.raises(ClientError):
        await site.get(f"/ipfs/{site.large}?format=tar")
