"""Folder pages: order, filter, pages, facts about entries, folders of any size (path gateway)."""

from __future__ import annotations

import re
from html import unescape
from itertools import chain
from urllib.parse import quote

import pytest

from gateway.formats.disposition import disposition
from gateway.pages import listing
from gateway.pages.listing_query import ListingQuery, Sort, matcher, natural, read_listing_query
from gateway.settings import GatewaySettings
from merkledag import dag_pb, unixfs
from merkledag.block import Block
from merkledag.builder import build_file, build_symlink
from merkledag.cid import CID
from merkledag.directory import DirEntry, build_directory
from merkledag.hamt import hash_name
from merkledag.profile import UNIXFS_V1_2025
from merkledag.unixfs import Mtime
from tests.gateway.site import HOSTILE, Page, Site, add_node
from tests.gateway.support import Client, MemorySource, add_tree, serving

# Folders of more than 20 entries are large here.
SMALL = GatewaySettings(sorted_listing_entries=20, listing_page_entries=10, max_listing_entries=650)


def folder_of(source: MemorySource, names: list[str], *, flat: bool = False) -> CID:
    """A folder whose entries are nowhere; sizes count up."""
    entries = [
        DirEntry(name, CID.of(name.encode("utf-8", "surrogateescape")), n) for n, name in enumerate(names)
    ]
    link, blocks = build_directory(UNIXFS_V1_2025, entries, hamt="never" if flat else "always")
    source.add(blocks)
    return link.cid


def names_on(text: str) -> list[str]:
    return [unescape(name) for name in re.findall(r"<bdi><a href=[^>]*>(.*?)</a></bdi>", text)]


def next_page(text: str) -> str | None:
    found = re.search(r'data-key="n"[^>]* href="([^"]*)"', text)
    return None if found is None else unescape(found[1])


async def walk(client: Client, path: str) -> list[list[str]]:
    """The names on each page, following `Next`."""
    pages: list[list[str]] = []
    while True:
        answer = await client.ask(path)
        assert answer.status == 200
        pages.append(names_on(answer.text))
        following = next_page(answer.text)
        if following is None:
            return pages
        assert len(pages) < 1000
        path = path.partition("?")[0] + following


async def test_a_listing_names_and_links_every_entry_safely(site: Site) -> None:
    answer = await site.get(f"/ipfs/{site.root}/")
    page = Page(answer.text)
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert re.fullmatch(rf'"DirIndex-\w+_CID-{site.root}"', answer.headers["etag"])
    assert "immutable" not in answer.headers["cache-control"]
    assert not {"iframe", "base", "object", "embed"} & set(page.tags)
    assert page.tags.count("script") == page.tags.count("style") == 1
    assert page.links["a.txt"] == f"/ipfs/{site.root}/a.txt"
    assert page.links["ąę"] == f"/ipfs/{site.root}/%C4%85%C4%99"
    assert HOSTILE in page.links
    assert (await site.get(page.links[HOSTILE])).body == b"hostile"
    assert "8 entries" in answer.text
    assert ".." not in page.links


async def test_a_listing_reads_no_block_of_an_entry(site: Site) -> None:
    names = [f"f{n}" for n in range(5000)]
    folder = folder_of(site.source, names)
    pages = await walk(site.client, f"/ipfs/{folder}/")
    assert site.source.fetched == []
    # Sorted as people count, although the blocks hold them in the order of their hashes.
    assert [len(page) for page in pages] == [1000] * 5
    assert [*chain(*pages)] == names


async def test_a_folder_is_sorted_as_asked(site: Site) -> None:
    names = ["b.txt", "a10.png", "a2.png", "C.txt", "sub"]
    folder = folder_of(site.source, names)

    async def order(query: str) -> str:
        return " ".join(names_on((await site.get(f"/ipfs/{folder}/?{query}")).text))

    assert await order("") == "a2.png a10.png b.txt C.txt sub"
    assert await order("order=desc") == "sub C.txt b.txt a10.png a2.png"
    assert await order("sort=size") == "sub C.txt a2.png a10.png b.txt"
    assert await order("sort=size&order=asc") == "b.txt a10.png a2.png C.txt sub"
    assert await order("sort=type") == "sub a2.png a10.png b.txt C.txt"
    assert await order("sort=colour&order=up&page=-1&per=x&after=zz") == await order("")
    page = Page((await site.get(f"/ipfs/{folder}/?sort=size")).text)
    assert page.links["Name"] == "?"
    assert page.links["Size "] == "?sort=size&order=asc"


@pytest.mark.parametrize(
    ("filter_", "found"),
    [
        ("PNG", {"Photo.png", "x[1].png"}),
        ("*.png", {"Photo.png", "x[1].png"}),
        ("photo", {"Photo.png", "photo.txt"}),
        ("photo.???", {"Photo.png", "photo.txt"}),
        ("[1]", {"x[1].png"}),
        ("x[1]*", {"x[1].png"}),
        ("*", {"Photo.png", "photo.txt", "x[1].png", "żó", "z\u0307\u00f3x"}),
        ("ŻÓ", {"żó", "z\u0307\u00f3x"}),
        ("nothing", set()),
    ],
)
def test_a_filter_is_a_part_of_a_name_or_a_pattern(filter_: str, found: set[str]) -> None:
    names = ["Photo.png", "photo.txt", "x[1].png", "żó", "z\u0307\u00f3x"]
    assert set(filter(matcher(filter_), names)) == found


async def test_a_filtered_page_says_how_much_it_left_out(site: Site) -> None:
    folder = folder_of(site.source, [f"f{n}.txt" for n in range(30)] + ["a b&c.png"])
    some = await site.get(f"/ipfs/{folder}/?filter=*.png&view=grid")
    assert names_on(some.text) == []  # tiles, not rows
    assert "1 of 31 names match" in some.text
    assert 'value="*.png"' in some.text
    assert '<input type="hidden" name="view" value="grid">' in some.text
    none = await site.get(f"/ipfs/{folder}/?filter=%22%3E%3Cscript%3E")
    assert "&quot;&gt;&lt;script&gt;" in none.text
    assert none.text.count("<script>") == 1


def test_names_are_sorted_as_people_do() -> None:
    wanted = ["eau", "\u00c9clair", "e\u0301t\u00e9", "Ethan", "F2", "f10", "zebra", "\u0434\u043e\u043c"]
    found = wanted[::-1]
    found.sort(key=natural)
    assert found == wanted


def test_a_query_has_one_form() -> None:
    query = read_listing_query({"sort": "size", "filter": "a&b=c *", "per": "50", "page": "3", "x": "y"}, 100)
    assert query == ListingQuery(sort=Sort.SIZE, descending=True, filter="a&b=c *", per=50, page=3)
    assert query.query() == "sort=size&order=desc&filter=a%26b%3Dc%20*&per=50&page=3"
    assert query.url(filter="") == "?sort=size&amp;order=desc&amp;per=50"
    assert read_listing_query({"per": "1000000"}, 100).per == 100
    assert read_listing_query({"filter": "x" * 1000}, 100).filter == "x" * 256
    assert read_listing_query({"page": "9" * 500, "after": "-1"}, 100) == ListingQuery()


async def test_a_large_hamt_is_walked_from_page_to_page() -> None:
    source = MemorySource()
    names = [f"f{n}" for n in range(700)]
    folder = folder_of(source, names)
    async with serving(source, settings=SMALL) as client:
        pages = await walk(client, f"/ipfs/{folder}/")
        assert [len(page) for page in pages[:-1]] == [10] * (len(pages) - 1)
        assert sorted([*chain(*pages)]) == sorted(names)
        first = await client.ask(f"/ipfs/{folder}/")
        assert "too large to be sorted" in first.text
        # The way on leads straight to its place in the tree.
        before = source.viewed
        middle = await client.ask(f"/ipfs/{folder}/?after=8000000000000000")
        assert source.viewed - before < 60
        shown = names_on(middle.text)
        following = sorted((name for name in names if hash_name(name.encode()) > 1 << 63), key=_hash)
        assert set(shown) == set(following[:10])
        assert shown == sorted(shown, key=natural)
        behind = await client.ask(f"/ipfs/{folder}/?after=ffffffffffffffff")
        assert "Nothing comes behind this place." in behind.text
        whole = await client.ask(f"/ipfs/{folder}/?per=all")
        assert len(names_on(whole.text)) == 650
        assert "The first 650 entries." in whole.text
    assert source.fetched == []


def _hash(name: str) -> int:
    return hash_name(name.encode())


async def test_a_name_in_a_large_hamt_is_found_at_once_and_patterns_in_stretches(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    source = MemorySource()
    names = [f"f{n}" for n in range(700)]
    folder = folder_of(source, names)
    monkeypatch.setattr(listing, "SCANNED_ENTRIES", 100)
    last = max(names, key=_hash)
    async with serving(source, settings=SMALL) as client:
        assert names_on((await client.ask(f"/ipfs/{folder}/?filter={last}")).text) == [last]
        exact_first = await walk(client, f"/ipfs/{folder}/?filter=f69")
        pages = await walk(client, f"/ipfs/{folder}/?filter=f69*")
    assert sorted([*chain(*pages)]) == sorted(name for name in names if name.startswith("f69"))
    assert exact_first[0] == ["f69"]
    assert sorted([*chain(*exact_first[1:])]) == sorted([*chain(*pages)])
    assert len(pages) == len(exact_first) - 1 >= 7


async def test_a_large_flat_folder_is_paged_in_its_own_order() -> None:
    source = MemorySource()
    folder = folder_of(source, [f"f{n:03}" for n in range(64)], flat=True)
    async with serving(source, settings=SMALL) as client:
        pages = await walk(client, f"/ipfs/{folder}/")
        beyond = await client.ask(f"/ipfs/{folder}/?page=99&filter=1")
    assert [*chain(*pages)] == [f"f{n:03}" for n in range(64)]
    assert "64 entries" in beyond.text
    assert "in the order they are stored in" in beyond.text


def folder_with_facts(source: MemorySource) -> tuple[CID, list[Block]]:
    mtime = Mtime(1_000_000_000, 5)
    script, blocks = build_file(UNIXFS_V1_2025, [b"x" * 100, b"y" * 100], mode=0o755, mtime=mtime)
    link, block = build_symlink(UNIXFS_V1_2025, "a\u202e/b")
    inner, inner_blocks = build_directory(UNIXFS_V1_2025, [])
    entries = [
        DirEntry("script", script.cid, script.tsize),
        DirEntry("link", link.cid, link.tsize),
        DirEntry("v1.2", inner.cid, inner.tsize),
    ]
    root, root_blocks = build_directory(UNIXFS_V1_2025, entries, mode=0o1777, mtime=Mtime(0))
    source.add(root_blocks)
    return root.cid, [*blocks, block, *inner_blocks]


async def test_a_small_folder_tells_what_the_roots_of_its_entries_say() -> None:
    source = MemorySource()
    root, blocks = folder_with_facts(source)
    async with serving(source) as client:
        without = await client.ask(f"/ipfs/{root}/")
        source.add(blocks)
        known = await client.ask(f"/ipfs/{root}/")
    assert source.fetched == []
    # What may tell more another time is not kept for long, and cannot be confirmed.
    assert without.headers["cache-control"] == "public, max-age=300"
    assert "etag" not in without.headers
    assert known.headers["cache-control"].startswith("public, max-age=604800")
    assert known.headers["etag"].startswith('"DirIndex-')
    assert "2001-09-09 01:46" not in without.text
    assert "drwxrwxrwt" in without.text  # of the folder itself
    assert "1970-01-01 00:00" in without.text
    assert '<time datetime="2001-09-09T01:46:40Z">2001-09-09 01:46</time>' in known.text
    assert "-rwxr-xr-x" in known.text
    assert '<td class="s">200 B</td>' in known.text  # the file's size, not its DAG's
    assert "→ <bdi>a⟨U+202E⟩/b</bdi>" in known.text
    assert known.text.count('aria-label="Folder"') == 1
    assert known.text.count('aria-label="Symbolic link"') == 1


async def test_names_that_no_path_can_name_lead_by_cid() -> None:
    source = MemorySource()
    cids = {name: CID.of(name.encode()) for name in ("", "..", "a/b", "nul\0")}
    links = [dag_pb.PBLink(cid, name, 1) for name, cid in cids.items()]
    folder = add_node(source, unixfs.Data(unixfs.Kind.DIRECTORY), *links)
    async with serving(source) as client:
        answer = await client.ask(f"/ipfs/{folder}/")
    page = Page(answer.text)
    assert page.links["(no name)"] == f"/ipfs/{cids['']}"
    assert page.links[".."] == f"/ipfs/{cids['..']}"
    assert page.links["a/b"] == f"/ipfs/{cids['a/b']}"
    nul = cids["nul\0"]
    assert page.links["nul⟨U+0000⟩"] == f"/ipfs/{nul}"


@pytest.mark.parametrize(
    "name",
    ["a+b&c;d=e#f?.txt", "100%&amp;.txt", "\U0001f468\u200d\U0001f469\u200d\U0001f467.txt", "\u202exe.txt"],
)
async def test_an_entry_keeps_its_name_where_it_is_opened_by_its_cid(name: str) -> None:
    source = MemorySource()
    root, _ = add_tree(source, {name: b"text"})
    async with serving(source) as client:
        listed = await client.ask(f"/ipfs/{root}/")
        (href,) = re.findall(r'class="ipfs-hash"[^>]* href="([^"]*)"', listed.text)
        opened = await client.ask(unescape(href))
    assert opened.body == b"text"
    # Names that turn text round stay as they are written in the address.
    shown = quote(name) if "\u202e" in name else name
    assert opened.headers["content-disposition"] == disposition("inline", shown)


async def test_each_variant_of_a_listing_has_its_own_tag(site: Site) -> None:
    path = f"/ipfs/{site.root}/"
    queries = ["", "?sort=size", "?order=desc", "?filter=a", "?view=grid", "?per=2", "?per=2&page=2"]
    tags = [(await site.get(path + query)).headers["etag"] for query in queries]
    assert len(set(tags)) == len(queries)
    for query, tag in zip(queries, tags, strict=True):
        assert (await site.get(path + query, {"If-None-Match": tag})).status == 304
        head = await site.get(path + query, method="HEAD")
        assert (head.status, head.headers["etag"], head.body) == (200, tag, b"")
    # What does not change the page does not change its name either.
    assert (await site.get(path + "?utm=1&sort=nonsense")).headers["etag"] == tags[0]


async def test_a_folder_with_an_index_is_listed_on_demand(site: Site) -> None:
    assert (await site.get(f"/ipfs/{site.root}/site/")).body == b"<h1>index</h1>"
    listed = await site.get(f"/ipfs/{site.root}/site/?inspect=list")
    assert names_on(listed.text) == ["..", "index.html", "style.css"][1:]
    assert "?inspect=list&amp;sort=size" in listed.text


async def test_a_subfolder_links_up_and_empty_says_so(site: Site) -> None:
    answer = await site.get(f"/ipfs/{site.root}/%C4%85%C4%99/deep/")
    assert f'<a href="/ipfs/{site.root}/%C4%85%C4%99/deep/..">..</a>' in answer.text
    assert "This folder is empty." in (await site.get(f"/ipfs/{site.root}/empty/")).text


async def test_pictures_are_of_the_folder_itself_and_not_large() -> None:
    source = MemorySource()
    small, large = b"\x89PNG" + bytes(100), b"\x89PNG" + bytes(300_000)
    root, _ = add_tree(source, {"p.png": small, "q.png": large, "x.tiff": small, "v.mp4": small})
    async with serving(source) as client:
        rows = (await client.ask(f"/ipfs/{root}/")).text
        tiles = (await client.ask(f"/ipfs/{root}/?view=grid")).text
    assert re.findall(r'<img [^>]*src="([^"]*)"', rows) == [f"/ipfs/{root}/p.png"]
    assert re.findall(r'<img src="([^"]*)"', tiles) == [f"/ipfs/{root}/p.png", f"/ipfs/{root}/q.png"]
    assert tiles.count('loading="lazy"') == 2


async def test_a_readme_is_shown_below_the_list() -> None:
    source = MemorySource()
    readme = b"# Title\n\n[up](../x) <b>no</b> ![p](p.png)"
    root, _ = add_tree(source, {"sub": {"README.md": readme, "a": b""}})
    async with serving(source) as client:
        shown = await client.ask(f"/ipfs/{root}/sub/")
        filtered = await client.ask(f"/ipfs/{root}/sub/?filter=a")
    assert f'<a href="/ipfs/{root}/x">up</a> &lt;b&gt;no&lt;/b&gt;' in shown.text
    assert f'<img src="/ipfs/{root}/sub/p.png"' in shown.text
    assert "Title" not in filtered.text


async def test_a_readme_that_is_not_here_makes_the_page_a_passing_one() -> None:
    source = MemorySource()
    root, _ = add_tree(source, {"README.md": b"# Far away", "a": b""})
    readme = CID.of(b"# Far away")
    source.remote[readme.multihash] = source.here.pop(readme.multihash)
    async with serving(source) as client:
        passing = await client.ask(f"/ipfs/{root}/")
        assert passing.headers["cache-control"] == "no-cache"
        assert "Far away" in passing.text
        source.here[readme.multihash] = source.remote.pop(readme.multihash)
        lasting = await client.ask(f"/ipfs/{root}/", {"If-None-Match": passing.headers["etag"]})
        assert lasting.status == 200
        assert "max-age" in lasting.headers["cache-control"]
        del source.here[readme.multihash]
        gone = await client.ask(f"/ipfs/{root}/")
    assert "It could not be fetched" in gone.text


async def test_a_folder_that_arrives_slowly_is_shown_as_far_as_it_came(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    source = MemorySource()
    folder = folder_of(source, [f"f{n}" for n in range(700)])
    monkeypatch.setattr(listing, "PATIENCE_S", 0.0)
    async with serving(source) as client:
        hasty = await client.ask(f"/ipfs/{folder}/")
        assert "still being fetched" in hasty.text
        assert "etag" not in hasty.headers
        assert 0 < len(names_on(hasty.text)) < 700
        pages = await walk(client, f"/ipfs/{folder}/")
    assert len([*chain(*pages)]) == 700
