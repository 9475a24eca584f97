"""What the public gateway conformance suite checks of blocks and CARs for clients that verify.

As test_public_suite.py: on the suite's own files, against a gateway here and a real one.
"""

from __future__ import annotations

import pytest

from merkledag.cid import CID
from tests.gateway.public_suite import DAG_CBOR, HAMT, RAW_BLOCK, WITH_FILES, Suite

TWO_FILES = "bafybeietjm63oynimmv5yyqay33nui4y4wx6u3peezwetxgiwvfmelutzu"
MIXED = "bafybeidh6k2vzukelqtrjsmd4p52cpmltd2ufqrdtdg6yigi73in672fwu"
MULTIBLOCK = "bafybeigcisqd7m5nf3qmuvjdbakl5bdnh4ocrmacaqkpuh77qjvggmt2sa"
CHUNKS = (
    "bafkreie5noke3mb7hqxukzcy73nl23k6lxszxi5w3dtmuwz62wnvkpsscm",
    "bafkreih4ephajybraj6wnxsbwjwa77fukurtpl7oj7t7pfq545duhot7cq",
    "bafkreigu7buvm3cfunb35766dn7tmqyh2um62zcio63en2btvxuybgcpue",
    "bafkreicll3huefkc3qnrzeony7zcfo7cr3nbx64hnxrqzsixpceg332fhe",
    "bafkreifst3pqztuvj57lycamoi7z34b4emf7gawxs74nwrc2c7jncmpaqm",
)
HOLED = "QmYhmPjhFjYFyaoiuNzYv8WGavpSRDwdHWe5B4M5du5Rtk"
CBOR_FOLDER = "bafybeia264q44a3kmfc2otctzu4egp2k235o3t7mslz2yjraymp4nv6asi"
CAR = "application/vnd.ipld.car"
RAW = "application/vnd.ipld.raw"
IMMUTABLE = "public, max-age=29030400, immutable"


def way(suite: Suite, root: str, *names: str) -> list[str]:
    """The CIDs on a path, with both ends."""
    return [str(suite.cid(root, *names[:n])) for n in range(len(names) + 1)]


# ------------------------------------------------------------------------------------------------ blocks


async def test_blocks(suite: Suite) -> None:
    folder, file = suite.cid(RAW_BLOCK, "dir"), suite.cid(RAW_BLOCK, "dir", "ascii.txt")
    assert (await suite.ask(f"/ipfs/{folder}?format=raw")).body == suite.block(folder)
    block = await suite.ask(f"/ipfs/{file}", accept=RAW)
    assert block.body == suite.block(file)
    assert block.headers["content-type"] == RAW
    assert block.headers["content-length"] == str(len(block.body))
    assert block.headers["content-disposition"].startswith("attachment;")
    assert block.headers["x-content-type-options"] == "nosniff"
    assert (block.headers["x-ipfs-path"], block.headers["x-ipfs-roots"]) == (f"/ipfs/{file}", str(file))
    assert block.headers["cache-control"] == IMMUTABLE
    assert "etag" in block.headers
    named = await suite.ask(f"/ipfs/{file}?filename=foobar.bin", accept=RAW)
    assert named.headers["content-disposition"].startswith('attachment; filename="foobar.bin"')


async def test_ranges_of_blocks(suite: Suite) -> None:
    file = suite.cid(RAW_BLOCK, "dir", "ascii.txt")
    data = suite.block(file)
    for first, last in ((0, 0), (3, 9), (len(data) - 4, len(data) - 1)):
        part = await suite.ask(f"/ipfs/{file}", accept=RAW, Range=f"bytes={first}-{last}")
        assert (part.status, part.body) == (206, data[first : last + 1])
        assert part.headers["content-range"] == f"bytes {first}-{last}/{len(data)}"
        assert part.headers["content-type"] == RAW
    several = await suite.ask(f"/ipfs/{file}", accept=RAW, Range="bytes=0-1,4-5")
    assert several.status in (200, 206)


# ------------------------------------------------------------------------------------------------ CARs


async def test_paths_in_cars(suite: Suite) -> None:
    path = way(suite, TWO_FILES, "subdir", "ascii.txt")
    assert await suite.car(f"/ipfs/{TWO_FILES}/subdir/ascii.txt?format=car") == path
    file = await suite.car(f"/ipfs/{HAMT}/685.txt?format=car")
    assert (file[0], len(file), file[-6:]) == (HAMT, 8, [MULTIBLOCK, *CHUNKS])
    document = str(suite.cid(CBOR_FOLDER, "document"))
    through = await suite.car(f"/ipfs/{document}/files/single?format=car")
    assert through == [document, str(suite.cid(document, "files", "single"))]


async def test_a_path_that_is_not_there(suite: Suite) -> None:
    """Both 404 and the blocks that prove it are allowed; this gateway proves it."""
    nowhere = f"/ipfs/{TWO_FILES}/subdir/i-do-not-exist?format=car"
    assert await suite.car(nowhere) == way(suite, TWO_FILES, "subdir")


async def test_scope_block(suite: Suite) -> None:
    folder, file = way(suite, TWO_FILES, "subdir"), way(suite, TWO_FILES, "subdir", "ascii.txt")
    assert await suite.car(f"/ipfs/{TWO_FILES}/subdir?format=car&dag-scope=block") == folder
    assert await suite.car(f"/ipfs/{TWO_FILES}/subdir/ascii.txt?format=car&dag-scope=block") == file
    sharded = await suite.car(f"/ipfs/{HAMT}/1.txt?format=car&dag-scope=block")
    assert (sharded[0], sharded[-1]) == (HAMT, str(suite.cid(HAMT, "1.txt")))


async def test_scope_entity(suite: Suite) -> None:
    query = "?format=car&dag-scope=entity"
    folder = way(suite, TWO_FILES, "subdir")
    assert await suite.car(f"/ipfs/{TWO_FILES}/subdir{query}") == folder
    assert await suite.car(f"/ipfs/{TWO_FILES}/subdir/ascii.txt{query}") == way(
        suite, TWO_FILES, "subdir", "ascii.txt"
    )
    assert len(await suite.car(f"/ipfs/{HAMT}{query}")) == 237
    chunked = await suite.car(f"/ipfs/{MIXED}/subdir/multiblock.txt{query}")
    assert chunked == [*way(suite, MIXED, "subdir", "multiblock.txt"), *CHUNKS]
    assert await suite.car(f"/ipfs/{CBOR_FOLDER}/document{query}") == way(suite, CBOR_FOLDER, "document")


async def test_scope_all(suite: Suite) -> None:
    query = "?format=car&dag-scope=all"
    everything = await suite.car(f"/ipfs/{TWO_FILES}/subdir{query}")
    files = [str(suite.cid(TWO_FILES, "subdir", name)) for name in ("ascii.txt", "hello.txt")]
    assert everything == [*way(suite, TWO_FILES, "subdir"), *files]
    chunked = await suite.car(f"/ipfs/{MIXED}/subdir/multiblock.txt{query}")
    assert chunked == [*way(suite, MIXED, "subdir", "multiblock.txt"), *CHUNKS]


@pytest.mark.parametrize(
    ("wanted", "chunks"),
    [
        ("0:*", CHUNKS),
        ("512:*", CHUNKS[2:]),
        ("512:1023", CHUNKS[2:4]),
        ("512:-256", CHUNKS[2:4]),
        ("-5:*", CHUNKS[3:]),
        ("-9999:*", CHUNKS),
        ("-9999:-3", CHUNKS[:4]),
        ("0:0", CHUNKS[:1]),
    ],
)
async def test_entity_bytes(suite: Suite, wanted: str, chunks: tuple[str, ...]) -> None:
    query = f"format=car&dag-scope=entity&entity-bytes={wanted}"
    assert await suite.car(f"/ipfs/{MULTIBLOCK}?{query}") == [MULTIBLOCK, *chunks]
    by_path = await suite.car(f"/ipfs/{MIXED}/subdir/multiblock.txt?{query}")
    assert by_path == [*way(suite, MIXED, "subdir", "multiblock.txt"), *chunks]


async def test_entity_bytes_of_what_has_none_and_around_a_missing_block(suite: Suite) -> None:
    query = "format=car&dag-scope=entity&entity-bytes"
    folder = await suite.car(f"/ipfs/{TWO_FILES}/subdir?{query}=0:*")
    assert folder == way(suite, TWO_FILES, "subdir")
    for wanted, chunk in (
        ("0:1000", "QmPKt7ptM2ZYSGPUc8PmPT2VBkLDK3iqpG9TBJY7PCE9rF"),
        ("2200:*", "QmWXY482zQdwecnfBsj78poUUuPXvyw2JAFAEMw4tzTavV"),
    ):
        assert await suite.car(f"/ipfs/{HOLED}?{query}={wanted}") == [HOLED, chunk]


async def test_order_and_duplicates(suite: Suite) -> None:
    path = f"/ipfs/{WITH_FILES}"
    once = await suite.car(path, f"{CAR}; version=1; order=dfs; dups=n")
    every = await suite.car(path, f"{CAR}; version=1; order=dfs; dups=y")
    assert (len(once), len(set(once)), len(every), every[1]) == (9, 9, 10, every[2])
    assert set(await suite.car(path, f"{CAR}; version=1; order=unk")) == set(once)
    inline = "/ipfs/bafkqaf3imvwgy3zaneqgc3janfxgy2lomvscay3jmqfa"
    assert await suite.car(inline, f"{CAR}; version=1; order=dfs; dups=y") == []
    # The query says which form, Accept may say the rest, and where both do the query decides.
    assert await suite.car(f"{path}?format=car", f"{CAR}; version=1; order=dfs; dups=y") == every
    assert await suite.car(f"{path}?format=car&car-order=dfs", f"{CAR}; order=unk; dups=n") == once
    assert await suite.car(f"{path}?format=car&car-dups=y", f"{CAR}; order=dfs; dups=n") == every


async def test_the_query_before_accept(suite: Suite) -> None:
    as_car = await suite.ask(f"/ipfs/{DAG_CBOR}?format=car", accept=RAW)
    assert as_car.headers["content-type"].startswith(CAR)
    as_block = await suite.ask(f"/ipfs/{DAG_CBOR}?format=raw", accept=CAR)
    assert as_block.headers["content-type"] == RAW
    assert as_block.body == suite.block(CID.parse(DAG_CBOR))
