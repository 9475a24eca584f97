"""CAR streams: which blocks, in which form (trustless gateway, IPIP-0402, 0412)."""

from __future__ import annotations

import pytest
from aiohttp import ClientError

from merkledag import dag_cbor, unixfs
from merkledag.block import Block
from merkledag.cid import CID
from merkledag.codecs import DAG_CBOR, RAW
from merkledag.directory import DirEntry, build_directory
from merkledag.multihash import IDENTITY
from merkledag.profile import UNIXFS_V1_2025
from tests.gateway.site import CHUNK, LARGE, Site, add_node, raw_folder, read_car
from tests.gateway.support import add_file, add_tree


async def test_a_car_holds_the_path_and_what_is_in_scope(site: Site) -> None:
    root, large = site.root, site.large
    whole = await site.get(f"/ipfs/{large}?format=car")
    assert whole.headers["content-type"] == "application/vnd.ipld.car; version=1; order=dfs; dups=n"
    assert whole.headers["accept-ranges"] == "none"
    assert whole.headers["etag"].startswith('W/"')
    roots, cids = read_car(whole.body)
    assert roots == [large]
    assert len(cids) == 1 + -(-len(LARGE) // CHUNK)
    block = await site.get(f"/ipfs/{root}/%C4%85%C4%99/deep?format=car&dag-scope=block")
    assert len(read_car(block.body)[1]) == 3
    entity = await site.get(f"/ipfs/{root}?format=car&dag-scope=entity")
    assert read_car(entity.body)[1] == [root]
    part = await site.get(f"/ipfs/{large}?format=car&dag-scope=entity&entity-bytes={CHUNK}:{CHUNK}")
    assert read_car(part.body)[1] == [large, CID.of(LARGE[CHUNK : 2 * CHUNK])]
    assert len({answer.headers["etag"] for answer in (whole, block, entity, part)}) == 4


async def test_car_duplicates_are_sent_on_demand_only(site: Site) -> None:
    twice, _ = add_tree(site.source, {"a": b"same", "b": b"same"})
    once = await site.get(f"/ipfs/{twice}?format=car")
    every = await site.get(f"/ipfs/{twice}", {"Accept": "application/vnd.ipld.car; order=dfs; dups=y"})
    assert (len(read_car(once.body)[1]), len(read_car(every.body)[1])) == (2, 3)
    assert "dups=y" in every.headers["content-type"]


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ("format=car&dag-scope=some", 400),
        ("format=car&entity-bytes=x", 400),
        ("format=car&car-version=2", 406),
        ("format=car&car-order=bfs", 406),
    ],
)
async def test_wrong_car_requests(site: Site, query: str, status: int) -> None:
    assert (await site.get(f"/ipfs/{site.large}?{query}")).status == status


async def test_entity_bytes_outside_the_file_are_refused(site: Site) -> None:
    answer = await site.get(f"/ipfs/{site.large}?format=car&entity-bytes=99999999:*")
    assert answer.status == 400


async def test_a_missing_child_breaks_the_car_visibly(site: Site) -> None:
    missing = CID.of(LARGE[5 * CHUNK : 6 * CHUNK])
    del site.source.here[missing.multihash]
    with pytest.raises(ClientError):
        await site.get(f"/ipfs/{site.large}?format=car")
    with pytest.raises(ClientError):
        await site.get(f"/ipfs/{site.large}")
    before = await site.get(f"/ipfs/{site.large}", {"Range": "bytes=0-99"})
    assert before.body == LARGE[:100]


async def test_the_type_says_all_that_is_known_of_the_stream(site: Site) -> None:
    for query, accept, dups in (
        ("?format=car", "*/*", "n"),
        ("", "application/vnd.ipld.car", "n"),
        ("", "application/vnd.ipld.car; version=1", "n"),
        ("", "application/vnd.ipld.car;version=1;order=unk;dups=n", "n"),
        ("", 'application/vnd.ipld.car; order="dfs"; dups="y"', "y"),
        ("?format=car&car-version=1&car-order=unk&car-dups=y", "*/*", "y"),
        ("?car-dups=y", "application/vnd.ipld.car; dups=n", "y"),
        ("?format=car", "application/vnd.ipld.car; dups=y", "y"),
        ("?format=car", "application/vnd.ipld.raw; dups=y", "n"),
        ("", "application/vnd.ipld.car;order=foo, application/vnd.ipld.car;order=dfs;dups=y;q=0.5", "y"),
    ):
        for method in ("GET", "HEAD"):
            answer = await site.get(f"/ipfs/{site.root}{query}", {"Accept": accept}, method=method)
            assert answer.status == 200
            kind = f"application/vnd.ipld.car; version=1; order=dfs; dups={dups}"
            assert answer.headers["content-type"] == kind


async def test_head_of_a_car_has_the_headers_of_get_and_reads_no_tree(site: Site) -> None:
    path = f"/ipfs/{site.large}?format=car"
    get = await site.get(path)
    before = site.source.viewed
    head = await site.get(path, method="HEAD")
    assert site.source.viewed - before <= 4
    for answer in (get, head):
        answer.headers.pop("date")
        answer.headers.pop("transfer-encoding", None)
    assert (head.body, head.headers) == (b"", get.headers)


SIZE = 10 * CHUNK + 100
LEAVES = [LARGE[at : min(at + CHUNK, SIZE)] for at in range(0, SIZE, CHUNK)]


@pytest.mark.parametrize(
    ("part", "leaves"),
    [
        ("0:*", range(11)),
        ("0:0", [0]),
        (f"{CHUNK - 1}:{CHUNK}", [0, 1]),
        (f"{2 * CHUNK}:{3 * CHUNK - 1}", [2]),
        (f"{9 * CHUNK}:*", [9, 10]),
        ("-1:*", [10]),
        ("-100:*", [10]),
        ("-101:-101", [9]),
        (f"{CHUNK}:-{8 * CHUNK + 101}", [1]),
        # Partly outside: what there is.
        (f"{SIZE - 1}:{SIZE + 999_999}", [10]),
        ("-99999999:5", [0]),
        (f"-{SIZE + 10}:-{SIZE}", [0]),
        # Nothing, but not outside: the root shows why.
        (f"{5 * CHUNK}:-{8 * CHUNK}", []),
        (f"0:-{SIZE + 1}", []),
    ],
)
async def test_entity_bytes_are_the_least_blocks(site: Site, part: str, leaves: list[int]) -> None:
    cid, _ = add_file(site.source, LARGE[:SIZE], CHUNK)
    expected = [cid, *(CID.of(LEAVES[n]) for n in leaves)]
    for scope in ("", "&dag-scope=entity"):
        answer = await site.get(f"/ipfs/{cid}?format=car{scope}&entity-bytes={part}")
        assert answer.status == 200
        assert read_car(answer.body) == ([cid], expected)


@pytest.mark.parametrize("scope", ["all", "block"])
async def test_entity_bytes_imply_their_scope(site: Site, scope: str) -> None:
    part = f"/ipfs/{site.large}?format=car&entity-bytes=0:5"
    named = await site.get(f"{part}&dag-scope={scope}")
    assert (named.status, named.body) == (200, (await site.get(part)).body)


@pytest.mark.parametrize("part", [f"{SIZE}:*", f"{SIZE + 5}:{SIZE + 9}", f"-{SIZE + 9}:-{SIZE + 1}"])
async def test_entity_bytes_wholly_outside_are_refused(site: Site, part: str) -> None:
    cid, _ = add_file(site.source, LARGE[:SIZE], CHUNK)
    for method in ("GET", "HEAD"):
        assert (await site.get(f"/ipfs/{cid}?format=car&entity-bytes={part}", method=method)).status == 400


@pytest.mark.parametrize(
    "part",
    [
        "",
        "5",
        ":",
        "5:",
        ":5",
        "a:b",
        "1:2:3",
        "*:5",
        "5:4",
        "-1:-5",
        "0x1:2",
        "1.5:2",
        "²:3",
        "9" * 30 + ":*",
    ],
)
async def test_entity_bytes_that_are_none(site: Site, part: str) -> None:
    assert (await site.get(f"/ipfs/{site.large}?format=car&entity-bytes={part}")).status == 400


async def test_entity_bytes_mean_nothing_to_what_is_no_file(site: Site) -> None:
    """Then it is the entity: a folder with all of its shards, another node alone."""
    entries = [DirEntry(f"f{n}", CID.of(b"hello\n"), 6) for n in range(2000)]
    link, shards = build_directory(UNIXFS_V1_2025, entries, hamt="always")
    site.source.add(shards)
    data = dag_cbor.encode({"link": CID.of(b"hello\n")})
    node = Block(CID.of(data, DAG_CBOR), data)
    site.source.add([node])
    flat, _ = add_tree(site.source, {"a": b"a"})
    for cid, blocks in ((link.cid, {block.cid for block in shards}), (node.cid, {node.cid}), (flat, {flat})):
        for query in ("entity-bytes=0:5", "entity-bytes=99999999:*", "dag-scope=entity"):
            answer = await site.get(f"/ipfs/{cid}?format=car&{query}")
            assert (answer.status, set(read_car(answer.body)[1])) == (200, blocks)


async def test_entity_bytes_of_an_empty_and_of_a_raw_file(site: Site) -> None:
    empty = add_node(site.source, unixfs.Data(unixfs.Kind.FILE, filesize=0))
    for cid in (empty, CID.of(b"hello\n")):
        answer = await site.get(f"/ipfs/{cid}?format=car&entity-bytes=0:*")
        assert read_car(answer.body)[1] == [cid]


async def test_a_way_through_shards_is_part_of_the_proof(site: Site) -> None:
    entries = [DirEntry(f"f{n}", CID.of(b"hello\n"), 6) for n in range(2000)]
    link, shards = build_directory(UNIXFS_V1_2025, entries, hamt="always")
    site.source.add(shards)
    answer = await site.get(f"/ipfs/{link.cid}/f1234?format=car&dag-scope=block")
    cids = read_car(answer.body)[1]
    assert cids[0] == link.cid
    assert cids[-1] == CID.of(b"hello\n")
    assert 3 <= len(cids) <= 5
    assert set(cids[:-1]) <= {block.cid for block in shards}


async def test_blocks_inside_cids_are_never_sent(site: Site) -> None:
    inside = CID.of(b"inside", RAW, IDENTITY)
    folder = raw_folder(site.source, "x", inside)
    for dups in "yn":
        answer = await site.get(f"/ipfs/{folder}/x?format=car&car-dups={dups}")
        assert read_car(answer.body)[1] == [folder]
        whole = await site.get(f"/ipfs/{folder}?format=car&car-dups={dups}")
        assert read_car(whole.body)[1] == [folder]


async def test_what_is_no_parameter_changes_nothing(site: Site) -> None:
    plain = await site.get(f"/ipfs/{site.root}?format=car")
    for query in ("car-scope=block", "depth=1", "bytes=0:5"):
        answer = await site.get(f"/ipfs/{site.root}?format=car&{query}")
        assert (answer.status, answer.body) == (200, plain.body)


async def test_a_tag_for_every_selection_of_blocks(site: Site) -> None:
    path = f"/ipfs/{site.large}?format=car"
    queries = [
        "",
        "&dag-scope=block",
        "&dag-scope=entity",
        "&entity-bytes=0:5",
        "&entity-bytes=0:6",
        "&car-dups=y",
    ]
    tags = [(await site.get(path + query, method="HEAD")).headers["etag"] for query in queries]
    assert len(set(tags)) == len(queries)
    assert all(tag.startswith('W/"') for tag in tags)
    for query, tag in zip(queries, tags, strict=True):
        assert (await site.get(path + query, {"If-None-Match": tag})).status == 304
        assert (await site.get(path + query)).headers["etag"] == tag


async def test_a_car_has_no_ranges(site: Site) -> None:
    answer = await site.get(f"/ipfs/{site.root}?format=car", {"Range": "bytes=0-5"})
    assert (answer.status, answer.headers["accept-ranges"]) == (200, "none")
    assert "content-range" not in answer.headers


async def test_the_way_to_nowhere_is_proven_in_a_car(site: Site) -> None:
    """By the blocks down to the one that lacks the name, for clients that believe no status."""
    blocks = read_car((await site.get(f"/ipfs/{site.root}/%C4%85%C4%99?format=car&dag-scope=block")).body)[1]
    file = CID.of(b"hello\n")
    for path, way in (
        ("no/way", [site.root]),
        ("%C4%85%C4%99/no", blocks),
        ("a.txt/x", [site.root, file]),
    ):
        url = f"/ipfs/{site.root}/{path}"
        answer = await site.get(f"{url}?format=car")
        assert (answer.status, read_car(answer.body)) == (200, ([site.root], way))
        assert (await site.get(f"{url}?format=car", method="HEAD")).status == 200
        assert (await site.get(url)).status == 404
        assert (await site.get(f"{url}?format=raw")).status == 404
