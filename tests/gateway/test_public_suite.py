"""What the public gateway conformance suite checks of paths, files, folders, codecs, TAR and names.

On the suite's own blocks and records, which belong to another project and are not copied: where they are
absent these tests are skipped. Each is run against a gateway in this process and against a real one.
"""

from __future__ import annotations

import io
import json
import tarfile

import pytest

from merkledag.cid import CID
from tests.gateway.public_suite import CACHE, DAG_CBOR, DAG_JSON, HELLO, LISTED, NOBODYS, WITH_FILES, Suite

CACHE_KEY = "k51qzi5uqu5dlxdsdu5fpuu7h69wu4ohp32iwm9pdt9nq3y5rpn3ln9j12zfhe"
SUBPATH_KEY = "k51qzi5uqu5djokp3m1keo36hoxtd6u3a1d2rg1camf6al7p3huy63dojlm57c"
IMMUTABLE = "public, max-age=29030400, immutable"
LISTING_CACHE = "public, max-age=604800, stale-while-revalidate=2678400"
JSON_CBOR = "bafybeiafyvqlazbbbtjnn6how5d6h6l6rxbqc4qgpbmteaiskjrffmyy4a"
PLAIN_JSON = "bagaaierajjsnhsxqlgfrvknlt7z2heoljcgfv37cn45tu7mhmr23x3ekiboq"
PLAIN_CBOR = "bafireif3aymeikgfbofx533yf5vlx4kimzq6zmzmpra2mnzfsfnmv4hchm"
SYMLINKED = "QmWvY6FaqFMS89YAQ9NAPjVP4WZKA1qbHbicc9HeSKQTgt"
PERCENT = "bafybeig675grnxcmshiuzdaz2xalm6ef4thxxds6o6ypakpghm5kghpc34"
TAR_INSIDE = "bafybeibfevfxlvxp5vxobr5oapczpf7resxnleb7tkqmdorc4gl5cdva3y"
TAR_OUTSIDE = "bafybeicaj7kvxpcv4neaqzwhrqqmdstu4dhrwfpknrgebq6nzcecfucvyu"
UTF8_TEXT = "I am a txt file on path with utf8\n"


async def check_ranges(suite: Suite, path: str, data: bytes, kind: str, accept: str = "") -> None:
    """One range of three kinds, and two at once, of an answer's bytes."""
    size = len(data)
    for first, last, wanted in ((0, size - 1, "0-"), (size - 2, size - 1, "-2"), (1, 3, "1-3")):
        answer = await suite.ask(path, accept=accept, Range=f"bytes={wanted}")
        assert (answer.status, answer.body) == (206, data[first : last + 1])
        assert answer.headers["content-range"] == f"bytes {first}-{last}/{size}"
        assert answer.headers["content-type"] == kind
    both = await suite.ask(path, accept=accept, Range="bytes=0-0,2-3")
    assert both.status == 206
    if both.headers["content-type"].startswith("multipart/byteranges"):
        assert f"bytes 2-3/{size}".encode() in both.body
        assert kind.encode() in both.body
    else:
        assert both.body == data[0:1]


# ------------------------------------------------------------------------------------------------ folders


async def test_folders_are_listed_with_links_and_hashes(suite: Suite) -> None:
    top = await suite.ask(f"/ipfs/{LISTED}/")
    assert f'<a href="/ipfs/{LISTED}/..">..</a>' not in top.text
    moved = await suite.ask(f"/ipfs/{LISTED}/ą/ę")
    assert (moved.status, moved.headers["location"]) == (301, f"/ipfs/{LISTED}/%C4%85/%C4%99/")
    listing = await suite.ask(f"/ipfs/{LISTED}/ą/ę/")
    assert listing.headers["etag"].startswith('"DirIndex-')
    assert "Index of" in listing.text
    assert f'<a href="/ipfs/{LISTED}/%C4%85/%C4%99/..">..</a>' in listing.text
    trail = (f"/ipfs/{LISTED}", f"/ipfs/{LISTED}/%C4%85", f"/ipfs/{LISTED}/%C4%85/%C4%99")
    for link, name in zip(trail, (LISTED, "ą", "ę"), strict=True):
        assert f'<a href="{link}">{name}</a>' in listing.text
    assert f'<a href="/ipfs/{LISTED}/%C4%85/%C4%99/file-%C5%BA%C5%82.txt">file-źł.txt</a>' in listing.text
    file = suite.cid(LISTED, "ą", "ę", "file-źł.txt")
    by_cid = f"/ipfs/{file}?filename=file-%25C5%25BA%25C5%2582.txt"
    assert f'<a class="ipfs-hash" translate="no" href="{by_cid}">' in listing.text
    assert (await suite.ask(f"/ipfs/{LISTED}/i-do-not-exist")).status == 404


async def test_caching_of_immutable_paths(suite: Suite) -> None:
    path = f"/ipfs/{CACHE}/root2/root3"
    roots = [str(suite.cid(CACHE, *("root2", "root3", "root4", "index.html")[:n])) for n in range(5)]
    listing = await suite.ask(f"{path}/")
    assert listing.headers["x-ipfs-path"] == f"{path}/"
    assert listing.headers["x-ipfs-roots"] == ",".join(roots[:3])
    assert listing.headers["etag"].startswith('"DirIndex-')
    assert listing.headers.get("cache-control") in (None, LISTING_CACHE)
    for asked, way, tag in (
        (f"{path}/root4/", roots[:4], roots[3]),
        (f"{path}/root4/index.html", roots, roots[4]),
    ):
        answer = await suite.ask(asked)
        assert (answer.status, answer.body) == (200, b"hello\n")
        assert answer.headers["cache-control"] == IMMUTABLE
        assert answer.headers["x-ipfs-path"] == asked
        assert answer.headers["x-ipfs-roots"] == ",".join(way)
        assert answer.headers["etag"] == f'"{tag}"'
    raw = await suite.ask(f"{path}/root4/?format=raw")
    assert raw.headers["etag"] == f'"{roots[3]}.raw"'
    assert raw.headers["cache-control"] == IMMUTABLE
    assert raw.body == suite.block(CID.parse(roots[3]))


@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_only_if_cached(suite: Suite, method: str) -> None:
    here = f"/ipfs/{CACHE}/root2/root3/root4/?format=raw"
    for path, status in ((here, 200), (f"/ipfs/{NOBODYS}", 412)):
        assert (await suite.ask(path, method=method, Cache_Control="only-if-cached")).status == status


async def test_if_none_match(suite: Suite) -> None:
    way = ("root2", "root3", "root4", "index.html")
    file, folder = suite.cid(CACHE, *way), suite.cid(CACHE, *way[:3])
    path = "/ipfs/" + "/".join((CACHE, *way))
    tags = (f'"{file}"', f'"fake", "other", "{file}"', f'W/"{file}"', "*")
    for tag in tags:
        unchanged = await suite.ask(path, If_None_Match=tag)
        assert (unchanged.status, unchanged.body) == (304, b"")
    assert (await suite.ask(path.removesuffix("index.html"), If_None_Match=f'"{folder}"')).status == 304
    listing = path.removesuffix("root4/index.html")
    tag = (await suite.ask(listing)).headers["etag"]
    for given in (tag, f"W/{tag}"):
        assert (await suite.ask(listing, If_None_Match=given)).status == 304
    assert (await suite.ask(listing, If_None_Match='"fake"')).status == 200
    by_name = f"/ipns/{CACHE_KEY}/" + "/".join(way)
    assert (await suite.ask(by_name, If_None_Match=f'"{file}"')).status == 304


async def test_caching_of_names(suite: Suite) -> None:
    base = f"/ipns/{CACHE_KEY}/root2/root3"
    roots = [str(suite.cid(CACHE, *("root2", "root3", "root4", "index.html")[:n])) for n in range(5)]
    for path, way, tag in (
        (f"{base}/", roots[:3], "DirIndex-"),
        (f"{base}/root4/", roots[:4], f'"{roots[3]}"'),
        (f"{base}/root4/index.html", roots, f'"{roots[4]}"'),
        (f"{base}/root4/?format=raw", roots[:4], f'"{roots[3]}.raw"'),
    ):
        answer = await suite.ask(path)
        assert answer.status == 200
        assert answer.headers["x-ipfs-path"] == path.partition("?")[0]
        assert answer.headers["x-ipfs-roots"] == ",".join(way)
        assert tag in answer.headers["etag"]
        cached = answer.headers.get("cache-control", "public, max-age=")
        assert cached.startswith("public, max-age=")
        assert "immutable" not in cached


# ------------------------------------------------------------------------------------------------ files


async def test_a_symlink_is_its_target(suite: Suite) -> None:
    listing = (await suite.ask(f"/ipfs/{SYMLINKED}/")).text
    assert ">foo<" in listing
    assert ">bar<" in listing
    raw = await suite.ask(f"/ipfs/{SYMLINKED}?format=raw")
    assert raw.body == suite.block(CID.parse(SYMLINKED))
    assert (await suite.ask(f"/ipfs/{SYMLINKED}/bar")).body == b"foo"


async def test_ranges_of_files(suite: Suite) -> None:
    path = f"/ipfs/{WITH_FILES}/ascii.txt"
    whole = await suite.ask(path)
    assert (whole.status, whole.headers["accept-ranges"]) == (200, "bytes")
    assert len(whole.body) == 31
    await check_ranges(suite, path, whole.body, whole.headers["content-type"])
    two = await suite.ask(path, Range="bytes=6-16,0-4")
    assert two.headers["content-type"].startswith("multipart/byteranges")
    assert b"Content-Range: bytes 6-16/31\r\n\r\n" + whole.body[6:17] in two.body
    assert b"Content-Range: bytes 0-4/31\r\n\r\n" + whole.body[:5] in two.body


async def test_ranges_where_a_block_is_nowhere(suite: Suite) -> None:
    holed = "QmYhmPjhFjYFyaoiuNzYv8WGavpSRDwdHWe5B4M5du5Rtk"
    for wanted in ("997-1000", "2200-2201"):
        answer = await suite.ask(f"/ipfs/{holed}", Range=f"bytes={wanted}")
        assert (answer.status, answer.headers["content-range"]) == (206, f"bytes {wanted}/3072")


async def test_percent_signs_in_names(suite: Suite) -> None:
    name = "Portugal%2C+España=Peninsula Ibérica.txt"
    answer = await suite.ask(f"/ipfs/{PERCENT}/Portugal%252C+España=Peninsula Ibérica.txt")
    assert answer.body == suite.block(suite.cid(PERCENT, name))


async def test_others_may_read(suite: Suite) -> None:
    for method in ("GET", "OPTIONS"):
        headers = (await suite.ask("/ipfs/bafkqabtimvwgy3yk/", method=method)).headers
        assert headers["access-control-allow-origin"] == "*"
        for name, wanted in (
            ("methods", {"GET", "HEAD", "OPTIONS"}),
            ("headers", {"Content-Type", "Range", "User-Agent", "X-Requested-With"}),
        ):
            assert wanted <= set(headers[f"access-control-allow-{name}"].split(", "))
        exposed = set(headers["access-control-expose-headers"].split(", "))
        assert {"Content-Range", "Content-Length", "X-Ipfs-Path", "X-Ipfs-Roots"} <= exposed
        assert {"X-Chunked-Output", "X-Stream-Output"} <= exposed


async def test_a_block_as_it_is(suite: Suite) -> None:
    root = "bafybeie72edlprgtlwwctzljf6gkn2wnlrddqjbkxo3jomh4n7omwblxly"
    kind = "application/vnd.ipld.raw"
    folder, file = suite.cid(root, "dir"), suite.cid(root, "dir", "ascii.txt")
    assert (await suite.ask(f"/ipfs/{root}/dir?format=raw")).body == suite.block(folder)
    part = await suite.ask(f"/ipfs/{root}/dir", accept=kind, Range="bytes=6-16")
    assert (part.status, part.body) == (206, suite.block(folder)[6:17])
    assert (part.headers["content-type"], part.headers["content-range"]) == (kind, "bytes 6-16/57")
    path = f"/ipfs/{root}/dir/ascii.txt"
    block = await suite.ask(path, accept=kind)
    assert block.body == suite.block(file)
    assert block.headers["content-type"] == kind
    assert block.headers["content-length"] == str(len(block.body))
    assert block.headers["content-disposition"].startswith("attachment;")
    assert block.headers["x-content-type-options"] == "nosniff"
    assert (block.headers["x-ipfs-path"], block.headers["cache-control"]) == (path, IMMUTABLE)
    assert block.headers["x-ipfs-roots"] == f"{root},{folder},{file}"
    assert "etag" in block.headers
    named = await suite.ask(f"{path}?filename=foobar.bin", accept=kind)
    assert named.headers["content-disposition"].startswith('attachment; filename="foobar.bin"')


# ------------------------------------------------------------------------------------------------ codecs


async def test_json_in_unixfs(suite: Suite) -> None:
    file = suite.cid(JSON_CBOR, "ą", "ę", "t.json")
    for path, accept in (
        (f"/ipfs/{file}", ""),
        (f"/ipfs/{file}", "application/json"),
        (f"/ipfs/{file}?format=json", "application/vnd.ipld.raw"),
    ):
        answer = await suite.ask(path, accept=accept)
        assert (answer.status, answer.headers["content-type"]) == (200, "application/json")
        assert answer.body == suite.block(file)


async def test_nothing_is_converted_to_another_codec(suite: Suite) -> None:
    text = suite.cid(JSON_CBOR, "ą", "ę", "file-źł.txt")
    for cid, form in ((text, "json"), (text, "cbor"), (DAG_JSON, "cbor"), (DAG_CBOR, "json")):
        assert (await suite.ask(f"/ipfs/{cid}?format=dag-{form}")).status == 406
        assert (await suite.ask(f"/ipfs/{cid}", accept=f"application/vnd.ipld.dag-{form}")).status == 406


@pytest.mark.parametrize(
    ("cid", "form", "disposition"), [(PLAIN_JSON, "json", "inline"), (PLAIN_CBOR, "cbor", "attachment")]
)
async def test_plain_codecs(suite: Suite, cid: str, form: str, disposition: str) -> None:
    data, kind = suite.block(CID.parse(cid)), f"application/{form}"
    for path, accept in ((f"/ipfs/{cid}", ""), (f"/ipfs/{cid}?format={form}", ""), (f"/ipfs/{cid}", kind)):
        answer = await suite.ask(path, accept=accept)
        assert (answer.body, answer.headers["content-type"]) == (data, kind)
        assert answer.headers["content-disposition"].startswith(f'{disposition}; filename="{cid}.{form}"')
        await check_ranges(suite, path, data, kind, accept)


@pytest.mark.parametrize(("cid", "form"), [(DAG_JSON, "dag-json"), (DAG_CBOR, "dag-cbor")])
async def test_paths_into_nodes(suite: Suite, cid: str, form: str) -> None:
    assert (await suite.ask(f"/ipfs/{cid}/foo?format={form}")).status == 501
    assert (await suite.ask(f"/ipfs/{cid}/foo/i-do-not-exist")).status == 404
    followed = await suite.ask(f"/ipfs/{cid}/foo/link/bar?format={form}")
    if form == "dag-json":
        assert json.loads(followed.body) == {"hello": "this is not a link"}
    else:
        assert followed.body == b"\xa1ehellorthis is not a link"


@pytest.mark.parametrize(
    ("cid", "form", "disposition"), [(DAG_JSON, "json", "inline"), (DAG_CBOR, "cbor", "attachment")]
)
async def test_native_nodes(suite: Suite, cid: str, form: str, disposition: str) -> None:
    data, dag, plain = suite.block(CID.parse(cid)), f"application/vnd.ipld.dag-{form}", f"application/{form}"
    for path, accept, kind in (
        (f"/ipfs/{cid}", "", dag),
        (f"/ipfs/{cid}?format=dag-{form}", "", dag),
        (f"/ipfs/{cid}", dag, dag),
        (f"/ipfs/{cid}?format={form}", "", plain),
        (f"/ipfs/{cid}", plain, plain),
    ):
        answer = await suite.ask(path, accept=accept)
        assert (answer.status, answer.body, answer.headers["content-type"]) == (200, data, kind)
        assert answer.headers["content-length"] == str(len(data))
        named = f'{disposition}; filename="{cid}.{form}"'
        assert answer.headers["content-disposition"].startswith(named)
        head = await suite.ask(path, accept=accept, method="HEAD")
        assert (head.status, head.headers["content-type"]) == (200, kind)
        await check_ranges(suite, path, data, kind, accept)
    tagged = await suite.ask(f"/ipfs/{cid}", accept=dag)
    assert f"{cid}.dag-{form}" in tagged.headers["etag"]
    assert tagged.headers["cache-control"] == IMMUTABLE
    assert tagged.headers["x-ipfs-path"] == f"/ipfs/{cid}"
    assert tagged.headers["x-ipfs-roots"] == cid
    for query, wanted in (("", disposition), ("&download=true", "attachment")):
        answer = await suite.ask(f"/ipfs/{cid}?filename=foobar.{form}{query}", accept=dag)
        assert answer.headers["content-disposition"].startswith(f'{wanted}; filename="foobar.{form}"')


@pytest.mark.parametrize(
    ("cid", "form", "name"),
    [
        (DAG_JSON, "json", "k51qzi5uqu5dhjghbwdvbo6mi40htrq6e2z4pwgp15pgv3ho1azvidttzh8yy2"),
        (DAG_CBOR, "cbor", "k51qzi5uqu5dghjous0agrwavl8vzl64xckoqzwqeqwudfr74kfd11zcyk3b7l"),
    ],
)
async def test_nodes_by_name_and_as_pages(suite: Suite, cid: str, form: str, name: str) -> None:
    for query in ("", f"?format=dag-{form}"):
        here, there = await suite.ask(f"/ipfs/{cid}{query}"), await suite.ask(f"/ipns/{name}{query}")
        assert here.body == there.body
    named = await suite.ask(f"/ipns/{name}", accept=f"application/vnd.ipld.dag-{form}")
    assert named.headers["content-type"] == f"application/vnd.ipld.dag-{form}"
    assert named.headers["etag"] == f'"{cid}.dag-{form}"'
    assert named.headers["x-ipfs-path"] == f"/ipns/{name}"
    assert named.headers["x-ipfs-roots"] == cid
    for path, cached in ((f"/ipfs/{cid}/", LISTING_CACHE), (f"/ipns/{name}/", "public, max-age=")):
        page = await suite.ask(path, accept="text/html")
        assert "DagIndex-" in page.headers["etag"]
        assert page.headers["content-type"].startswith("text/html")
        assert "content-disposition" not in page.headers
        assert page.headers.get("cache-control", cached).startswith(cached)
        assert "</html>" in page.text


# ------------------------------------------------------------------------------------------------ TAR


async def test_tar(suite: Suite) -> None:
    file = suite.cid(LISTED, "ą", "ę", "file-źł.txt")
    for path, accept in ((f"/ipfs/{file}?format=tar", ""), (f"/ipfs/{file}", "application/x-tar")):
        answer = await suite.ask(path, accept=accept)
        assert answer.headers["content-disposition"].startswith("attachment;")
        assert answer.headers["etag"].startswith(f'W/"{file}.x-tar')
        assert answer.headers["content-type"].startswith("application/x-tar")
        with tarfile.open(fileobj=io.BytesIO(answer.body)) as archive:
            found = archive.extractfile(str(file))
            assert found is not None
            assert found.read().decode() == UTF8_TEXT
    for root, name in ((LISTED, f"{LISTED}/ą/ę/file-źł.txt"), (TAR_INSIDE, f"{TAR_INSIDE}/foobar/file")):
        answer = await suite.ask(f"/ipfs/{root}?format=tar")
        with tarfile.open(fileobj=io.BytesIO(answer.body)) as archive:
            assert name in archive.getnames()
    assert (await suite.ask(f"/ipfs/{TAR_OUTSIDE}?format=tar")).status >= 400
    named = await suite.ask(f"/ipfs/{LISTED}?filename=testтест.tar&format=tar")
    assert named.headers["content-disposition"].startswith(
        "attachment; filename=\"test____.tar\"; filename*=UTF-8''test%D1%82%D0%B5%D1%81%D1%82.tar"
    )


# ------------------------------------------------------------------------------------------------ names


@pytest.mark.parametrize(
    ("name", "good"),
    [
        ("k51qzi5uqu5dm4tm0wt8srkg9h9suud4wuiwjimndrkydqm81cqtlb5ak6p7ku", False),
        ("k51qzi5uqu5dlmit2tuwdvnx4sbnyqgmvbxftl0eo3f33wwtb9gr7yozae9kpw", False),
        ("k51qzi5uqu5diamp7qnnvs1p1gzmku3eijkeijs3418j23j077zrkok63xdm8c", False),
        ("k51qzi5uqu5dilgf7gorsh9vcqqq4myo6jd4zmqkuy9pxyxi5fua3uf7axph4y", True),
        ("k51qzi5uqu5dlkw8pxuw9qmqayfdeh4kfebhmreauqdc6a7c3y7d5i9fi8mk9w", True),
        ("k51qzi5uqu5dit2ku9mutlfgwyz8u730on38kd10m97m36bjt66my99hb6103f", True),
    ],
)
async def test_records_with_good_and_bad_signatures(suite: Suite, name: str, good: bool) -> None:
    answer = await suite.ask(f"/ipns/{name}")
    assert answer.status == 200 if good else answer.status >= 500


async def test_names_are_written_in_one_way(suite: Suite) -> None:
    for given, canonical in (
        (
            "12D3KooWRBy97UB99e3J6hiPesre1MZeuNQvfan4gBziswrRJsNK",
            "k51qzi5uqu5dlvj2baxnqndepeb86cbk3ng7n3i46uzyxzyqj2xjonzllnv0v8",
        ),
        (
            "QmcJM7PRfkSbcM5cf1QugM5R37TLRKyJGgBEhXjLTB8uA2",
            "k2k4r8ol4m8kkcqz509c1rcjwunebj02gcnm5excpx842u736nja8ger",
        ),
    ):
        moved = await suite.ask(f"/ipns/{given}/root2/")
        assert (moved.status, moved.headers["location"]) == (302, f"/ipns/{canonical}/root2/")


async def test_a_record_that_leads_to_a_path(suite: Suite) -> None:
    assert (await suite.ask(f"/ipns/{SUBPATH_KEY}/root3/root4/index.html")).body == b"hello\n"


@pytest.mark.parametrize(
    "name",
    [
        "k51qzi5uqu5dlkw8pxuw9qmqayfdeh4kfebhmreauqdc6a7c3y7d5i9fi8mk9w",
        "k51qzi5uqu5dit2ku9mutlfgwyz8u730on38kd10m97m36bjt66my99hb6103f",
    ],
)
async def test_signed_records(suite: Suite, name: str) -> None:
    kind = "application/vnd.ipfs.ipns-record"
    for path, accept in ((f"/ipns/{name}?format=ipns-record", ""), (f"/ipns/{name}", kind)):
        answer = await suite.ask(path, accept=accept)
        assert (answer.status, answer.headers["content-type"]) == (200, kind)
        assert answer.headers["content-disposition"].startswith("attachment;")
        assert answer.headers["cache-control"] == "public, max-age=1800"
    given = await suite.ask(f"/ipns/{name}?format=ipns-record&filename=testтест.ipns-record")
    assert "filename*=UTF-8''test%D1%82%D0%B5%D1%81%D1%82.ipns-record" in given.headers["content-disposition"]


async def test_hello(suite: Suite) -> None:
    assert (await suite.ask(f"/ipfs/{HELLO}")).body == b"hello\n"
