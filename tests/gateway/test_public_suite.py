"""What the public gateway conformance suite checks, on its own blocks, records and names.

Its files belong to another project and are not copied: these tests are skipped where they are absent.
"""

from __future__ import annotations

import io
import tarfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gateway.settings import GatewaySettings
from merkledag import car
from merkledag.block import Block
from merkledag.cid import CID
from merkledag.multihash import SHA2_512
from tests.gateway.public_suite import load
from tests.gateway.support import Client, serving

LISTED = "bafybeig6ka5mlwkl4subqhaiatalkcleo4jgnr3hqwvpmsqfca27cijp3i"
LISTED_FILE = "bafkreialihlqnf5uwo4byh4n3cmwlntwqzxxs2fg5vanqdi3d7tb2l5xkm"
CACHED = "bafybeib3ffl2teiqdncv3mkz4r23b5ctrwkzrrhctdbne6iboayxuxk5ui"
CACHED_ROOTS = (
    CACHED,
    "bafybeih2w7hjocxjg6g2ku25hvmd53zj7og4txpby3vsusfefw5rrg5sii",
    "bafybeiawdvhmjcz65x5egzx4iukxc72hg4woks6v6fvgyupiyt3oczk5ja",
    "bafybeifq2rzpqnqrsdupncmkmhs3ckxxjhuvdcbvydkgvch3ms24k5lo7q",
)
CACHED_KEY = "k51qzi5uqu5dlxdsdu5fpuu7h69wu4ohp32iwm9pdt9nq3y5rpn3ln9j12zfhe"
HAMT = "bafybeidbclfqleg2uojchspzd4bob56dqetqjsj27gy2cq3klkkgxtpn4i"
MIXED = "bafybeidh6k2vzukelqtrjsmd4p52cpmltd2ufqrdtdg6yigi73in672fwu"
MULTIBLOCK = "bafybeigcisqd7m5nf3qmuvjdbakl5bdnh4ocrmacaqkpuh77qjvggmt2sa"
CHUNKS = (
    "bafkreie5noke3mb7hqxukzcy73nl23k6lxszxi5w3dtmuwz62wnvkpsscm",
    "bafkreih4ephajybraj6wnxsbwjwa77fukurtpl7oj7t7pfq545duhot7cq",
    "bafkreigu7buvm3cfunb35766dn7tmqyh2um62zcio63en2btvxuybgcpue",
    "bafkreicll3huefkc3qnrzeony7zcfo7cr3nbx64hnxrqzsixpceg332fhe",
    "bafkreifst3pqztuvj57lycamoi7z34b4emf7gawxs74nwrc2c7jncmpaqm",
)
DUPLICATES = "bafybeihchr7vmgjaasntayyatmp5sv6xza57iy2h4xj7g46bpjij6yhrmy"
MISSING_MIDDLE = "QmYhmPjhFjYFyaoiuNzYv8WGavpSRDwdHWe5B4M5du5Rtk"
DAG_CBOR_FOLDER = "bafybeia264q44a3kmfc2otctzu4egp2k235o3t7mslz2yjraymp4nv6asi"
DAG_CBOR = "bafyreibs4utpgbn7uqegmd2goqz4bkyflre2ek2iwv743fhvylwi4zeeim"
DAG_JSON = "baguqeeram5ujjqrwheyaty3w5gdsmoz6vittchvhk723jjqxk7hakxkd47xq"
REDIRECTS = "QmYBhLYDwVFvxos9h8CGU2ibaY66QNgv8hpfewxaQrPiZj"
TAR_INSIDE = "bafybeibfevfxlvxp5vxobr5oapczpf7resxnleb7tkqmdorc4gl5cdva3y"
TAR_OUTSIDE = "bafybeicaj7kvxpcv4neaqzwhrqqmdstu4dhrwfpknrgebq6nzcecfucvyu"
HELLO = "bafkreicysg23kiwv34eg2d7qweipxwosdo2py4ldv42nbauguluen5v6am"


@pytest.fixture
async def client(gateway_fixtures: Path) -> AsyncIterator[Client]:
    source, names = load(gateway_fixtures)
    settings = GatewaySettings(subdomain_hosts=("localhost", "example.com"))
    async with serving(source, names, settings, records=names) as client:
        yield client


def blocks_of(data: bytes) -> list[str]:
    """The CIDs in a CAR, verified, in order."""
    decoder = car.CarDecoder()
    decoder.feed(data)
    decoder.next()
    cids = []
    while isinstance(block := decoder.next(), Block):
        cids.append(str(block.cid))
    decoder.finish()
    return cids


async def car_of(client: Client, path: str, **headers: str) -> list[str]:
    answer = await client.ask(path, headers)
    assert answer.status == 200, answer.text
    return blocks_of(answer.body)


async def test_directory_listing(client: Client) -> None:
    moved = await client.ask(f"/ipfs/{LISTED}/%C4%85/%C4%99")
    assert (moved.status, moved.headers["location"]) == (301, f"/ipfs/{LISTED}/%C4%85/%C4%99/")
    page = (await client.ask(f"/ipfs/{LISTED}/%C4%85/%C4%99/")).text
    assert (
        f'/ipfs/<a href="/ipfs/{LISTED}">{LISTED}</a>/<a href="/ipfs/{LISTED}/%C4%85">ą</a>/'
        f'<a href="/ipfs/{LISTED}/%C4%85/%C4%99">ę</a>'
    ) in page
    assert f'<a href="/ipfs/{LISTED}/%C4%85/%C4%99/file-%C5%BA%C5%82.txt">file-źł.txt</a>' in page
    by_cid = f"/ipfs/{LISTED_FILE}?filename=file-%25C5%25BA%25C5%2582.txt"
    assert f'<a class="ipfs-hash" translate="no" href="{by_cid}">' in page
    name = "dnslink-dir-listing.example.org"
    site = (await client.ask("/%C4%85/%C4%99/", {"Host": name})).text
    assert f'/ipns/<a href="//{name}/">{name}</a>/<a href="//{name}/%C4%85">ą</a>/' in site
    assert f'href="https://cid.ipfs.tech/#{LISTED_FILE}" target="_blank" rel="noreferrer noopener"' in site


async def test_cache_headers(client: Client) -> None:
    path = f"/ipfs/{CACHED}/root2/root3"
    listing = await client.ask(path + "/")
    assert listing.headers["x-ipfs-roots"] == ",".join(CACHED_ROOTS[:3])
    assert listing.headers["etag"].endswith(f'_CID-{CACHED_ROOTS[2]}"')
    index = await client.ask(path + "/root4/")
    assert index.headers["x-ipfs-roots"] == ",".join(CACHED_ROOTS)
    assert index.headers["etag"] == f'"{CACHED_ROOTS[3]}"'
    raw = await client.ask(path + "/root4/?format=raw")
    assert CID.of(raw.body, CID.parse(CACHED_ROOTS[3]).codec) == CID.parse(CACHED_ROOTS[3])
    by_name = await client.ask(f"/ipns/{CACHED_KEY}/root2/root3/root4/index.html")
    assert by_name.body == b"hello\n"
    assert by_name.headers["cache-control"].startswith("public, max-age=")
    assert "immutable" not in by_name.headers["cache-control"]
    absent = "/ipfs/QmYzfKSE55XCjD1MW128RfciAf2DViABhEiXfgVFMabSjN"
    assert (await client.ask(absent, {"Cache-Control": "only-if-cached"})).status == 412


async def test_ranges_of_a_file_with_a_missing_block(client: Client) -> None:
    for wanted in ("997-1000", "2200-2201"):
        answer = await client.ask(f"/ipfs/{MISSING_MIDDLE}", {"Range": f"bytes={wanted}"})
        assert (answer.status, answer.headers["content-range"]) == (206, f"bytes {wanted}/3072")
    query = "format=car&dag-scope=entity&entity-bytes"
    assert await car_of(client, f"/ipfs/{MISSING_MIDDLE}?{query}=0:1000") == [
        MISSING_MIDDLE,
        "QmPKt7ptM2ZYSGPUc8PmPT2VBkLDK3iqpG9TBJY7PCE9rF",
    ]
    assert await car_of(client, f"/ipfs/{MISSING_MIDDLE}?{query}=2200:*") == [
        MISSING_MIDDLE,
        "QmWXY482zQdwecnfBsj78poUUuPXvyw2JAFAEMw4tzTavV",
    ]


async def test_car_paths_and_scopes(client: Client) -> None:
    file = await car_of(client, f"/ipfs/{HAMT}/685.txt?format=car")
    assert file[0] == HAMT
    assert file[-6:] == [MULTIBLOCK, *CHUNKS]
    assert len(file) == 8
    folder = await car_of(client, f"/ipfs/{HAMT}?format=car&dag-scope=entity")
    assert len(folder) == 237
    document = await car_of(client, f"/ipfs/{DAG_CBOR_FOLDER}/document?format=car&dag-scope=entity")
    assert len(document) == 2
    through = await car_of(client, f"/ipfs/{document[1]}/files/single?format=car")
    assert through[0] == document[1]
    assert len(through) == 2


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
async def test_entity_bytes(client: Client, wanted: str, chunks: tuple[str, ...]) -> None:
    path = f"/ipfs/{MULTIBLOCK}?format=car&dag-scope=entity&entity-bytes={wanted}"
    assert await car_of(client, path) == [MULTIBLOCK, *chunks]


async def test_car_order_and_duplicates(client: Client) -> None:
    accept = "application/vnd.ipld.car; version=1; order=dfs; dups="
    once = await car_of(client, f"/ipfs/{DUPLICATES}", Accept=accept + "n")
    every = await car_of(client, f"/ipfs/{DUPLICATES}", Accept=accept + "y")
    assert (len(once), len(set(once)), len(every)) == (9, 9, 10)
    assert every[1] == every[2]
    inline = "/ipfs/bafkqaf3imvwgy3zaneqgc3janfxgy2lomvscay3jmqfa"
    assert await car_of(client, inline, Accept="application/vnd.ipld.car; dups=y") == []


async def test_codecs(client: Client) -> None:
    for cid, form in ((DAG_CBOR, "cbor"), (DAG_JSON, "json")):
        native = await client.ask(f"/ipfs/{cid}")
        assert native.headers["content-type"] == f"application/vnd.ipld.dag-{form}"
        assert (await client.ask(f"/ipfs/{cid}?format={form}")).body == native.body
        page = await client.ask(f"/ipfs/{cid}/", {"Accept": "text/html"})
        assert page.headers["etag"].startswith('"DagIndex-')
    assert (await client.ask(f"/ipfs/{DAG_CBOR}?format=dag-json")).status == 406
    assert (await client.ask(f"/ipfs/{DAG_CBOR}/foo?format=dag-cbor")).status == 501
    assert (await client.ask(f"/ipfs/{DAG_CBOR}/foo/none")).status == 404
    followed = await client.ask(f"/ipfs/{DAG_CBOR}/foo/link/bar?format=dag-cbor")
    assert followed.body == b"\xa1ehellorthis is not a link"


async def test_tar(client: Client) -> None:
    answer = await client.ask(f"/ipfs/{LISTED}?format=tar")
    with tarfile.open(fileobj=io.BytesIO(answer.body)) as archive:
        file = archive.extractfile(f"{LISTED}/ą/ę/file-źł.txt")
        assert file is not None
        assert file.read() == b"I am a txt file on path with utf8\n"
    inside = await client.ask(f"/ipfs/{TAR_INSIDE}?format=tar")
    with tarfile.open(fileobj=io.BytesIO(inside.body)) as archive:
        assert f"{TAR_INSIDE}/foobar/file" in archive.getnames()
    assert (await client.ask(f"/ipfs/{TAR_OUTSIDE}?format=tar")).status >= 400


async def test_ipns_records_good_and_bad(client: Client) -> None:
    good = "k51qzi5uqu5dlkw8pxuw9qmqayfdeh4kfebhmreauqdc6a7c3y7d5i9fi8mk9w"
    record = await client.ask(f"/ipns/{good}?format=ipns-record")
    assert record.headers["content-type"] == "application/vnd.ipfs.ipns-record"
    assert record.headers["cache-control"] == "public, max-age=1800"
    assert (await client.ask(f"/ipns/{good}")).status == 200
    for bad in (
        "k51qzi5uqu5dm4tm0wt8srkg9h9suud4wuiwjimndrkydqm81cqtlb5ak6p7ku",
        "k51qzi5uqu5dlmit2tuwdvnx4sbnyqgmvbxftl0eo3f33wwtb9gr7yozae9kpw",
        "k51qzi5uqu5diamp7qnnvs1p1gzmku3eijkeijs3418j23j077zrkok63xdm8c",
    ):
        assert (await client.ask(f"/ipns/{bad}")).status == 500


async def test_subdomains_and_dnslink(client: Client) -> None:
    moved = await client.ask(f"/ipfs/{HELLO}", {"Host": "example.com"})
    assert moved.headers["location"] == f"http://{HELLO}.ipfs.example.com/"
    assert (await client.ask("/", {"Host": f"{HELLO}.ipfs.example.com"})).body == b"hello\n"
    for host in (
        "dnslink-test.example.org",
        "dnslink--test-example-org.ipns.example.com",
        "dnslink-over-ipns.example.org",
        "dnslink-over-ipns-cidv1.example.org.ipns.example.com",
    ):
        assert (await client.ask("/", {"Host": host})).body == b"hello\n", host
    long = str(CID.of(b"hello\n", hash_code=SHA2_512))
    for path, host in ((f"/ipfs/{long}", "example.com"), ("/", f"{long}.ipfs.example.com")):
        answer = await client.ask(path, {"Host": host})
        assert answer.status == 400
        assert "CID incompatible with DNS label length limit of 63" in answer.text


async def test_redirects_file(client: Client) -> None:
    host = {"Host": f"{CID.parse(REDIRECTS).to_v1()}.ipfs.example.com"}
    for path, status, target in (
        ("/redirect-one", 301, "/one.html"),
        ("/302-redirect-two", 302, "/two.html"),
        ("/posts/2022/01/01/hello-world", 301, "/articles/2022/01/01/hello-world"),
        ("/splat/one.html", 301, "/redirected-splat/one.html"),
    ):
        answer = await client.ask(path, host)
        assert (answer.status, answer.headers["location"]) == (status, target)
    for path, status in (("/not-found/x", 404), ("/gone/x", 410), ("/unavail/x", 451)):
        answer = await client.ask(path, host)
        assert answer.status == status
        assert answer.headers["cache-control"] == "public, max-age=29030400, immutable"
        assert answer.body.startswith(f"my {status}".encode())
    assert b"my index" in (await client.ask("/catch-all", host)).body
    by_name = await client.ask("/not-found/x", {"Host": "dnslink-redirects-examples.example.org"})
    assert by_name.status == 404
    assert "immutable" not in by_name.headers["cache-control"]
