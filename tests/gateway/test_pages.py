"""What all pages share: policy, colours, strangers' text; the welcome page; pages about nodes; READMEs."""

from __future__ import annotations

import base64
import hashlib
import re
from html import unescape
from urllib.parse import quote_plus

import pytest

from gateway.pages import readme, style
from gateway.pages.frame import human_size, mode_text, text, time_tag
from gateway.pages.preview import DUMPED_BYTES, LINES_A_PAGE
from gateway.source import NameTarget
from merkledag import dag_pb, unixfs, values
from merkledag.block import Block
from merkledag.cid import CID
from merkledag.codecs import CBOR, DAG_CBOR, DAG_JSON, DAG_PB, JSON, RAW
from merkledag.unixfs import Mtime
from tests.gateway.site import KEY, Page, Site, add_node
from tests.gateway.support import MemoryNames, MemorySource, add_tree, serving

HTML = {"Accept": "text/html"}


def policy_of(header: str) -> dict[str, list[str]]:
    return {name: sources for name, *sources in (part.split() for part in header.split(";"))}


async def test_the_policy_names_the_style_and_the_script_of_the_page_and_nothing_else(site: Site) -> None:
    node = await site.get(f"/ipfs/{site.root}?inspect=node")
    for answer in (
        await site.get("/"),
        await site.get(f"/ipfs/{site.root}/"),
        node,
        await site.get("/x", HTML),
    ):
        policy = policy_of(answer.headers["content-security-policy"])
        for tag, directive in (("style", "style-src"), ("script", "script-src")):
            (content,) = re.findall(f"<{tag}>(.*?)</{tag}>", answer.text, re.DOTALL)
            digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
            assert policy[directive] == [f"'sha256-{digest}'"]
        assert policy["default-src"] == ["'none'"]
        assert policy["img-src"] == ["'self'", "data:"]
        assert "connect-src" not in policy
        # Nothing is loaded from elsewhere, and no handler is in the HTML (which the policy would not run).
        assert not re.search(r'(?:src|action)="(?:https?:)?//', answer.text)
        assert "set-cookie" not in answer.headers
        Page(answer.text)


def luminance(colour: str) -> float:
    digits = colour if len(colour) == 6 else "".join(2 * digit for digit in colour)
    parts = [int(digits[at : at + 2], 16) / 255 for at in (0, 2, 4)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("scheme", [0, 1])
def test_text_has_enough_contrast_in_both_schemes(scheme: int) -> None:
    rule = re.findall(r":root\{([^}]*--bg[^}]*)\}", style.CSS)[scheme]
    colours = dict(re.findall(r"--(\w+):#(\w+)", rule))
    for ink in ("ink", "soft", "link", "bad"):
        for paper in ("bg", "card", "hover", "tint", "code"):
            light, dark = sorted((luminance(colours[ink]), luminance(colours[paper])), reverse=True)
            assert (light + 0.05) / (dark + 0.05) >= 4.5, (ink, paper)


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("plain.txt", "plain.txt"),
        ("<b>&\"'", "&lt;b&gt;&amp;&quot;&#x27;"),
        ("cod\u202egpj.exe", "cod⟨U+202E⟩gpj.exe"),
        ("\u2066a\u2069", "⟨U+2066⟩a⟨U+2069⟩"),
        ("a\nb\x00\x7f\x9b", "a⟨U+000A⟩b⟨U+0000⟩⟨U+007F⟩⟨U+009B⟩"),
        ("a\u200bb\ufeff\u00ad", "a⟨U+200B⟩b⟨U+FEFF⟩⟨U+00AD⟩"),
        ("\udcff\udc80", "⟨0xFF⟩⟨0x80⟩"),
        ("\ud800", "⟨U+D800⟩"),
        ("  a  ", "␣␣a␣␣"),
        (" ", "␣"),
        ("\u3164", "⟨U+3164⟩"),
        ("ąę 日本 👩\u200d👧 ❤\ufe0f", "ąę 日本 👩\u200d👧 ❤\ufe0f"),
    ],
)
def test_what_does_not_show_as_itself_is_written_out(name: str, shown: str) -> None:
    assert text(name) == shown


def test_sizes_modes_and_times() -> None:
    sizes = [0, 1023, 1024, 1536, 102_400, 10 * 2**20, 2**40, 2**60]
    assert [human_size(size) for size in sizes] == [
        "0 B", "1023 B", "1.0 KiB", "1.5 KiB", "100 KiB", "10.0 MiB", "1.0 TiB", "1024.0 PiB",
    ]  # fmt: skip
    assert mode_text(0o4754) == "-rwsr-xr--"
    assert mode_text(0o1666, "d") == "drw-rw-rwT"
    assert "1969-12-31 23:59" in time_tag(Mtime(-1))
    assert time_tag(Mtime(2**62)) == f"{2**62} s"


CID_TEXT = "bafybeigdyrzt5sfp7udm7hu76uh7y26nf3efuylqabf3oclgtqy55fbzdi"


@pytest.mark.parametrize(
    ("typed", "location"),
    [
        (CID_TEXT, f"/ipfs/{CID_TEXT}"),
        (f" {CID_TEXT}/a b/ć ", f"/ipfs/{CID_TEXT}/a%20b/%C4%87"),
        (f"/ipfs/{CID_TEXT}/x", f"/ipfs/{CID_TEXT}/x"),
        (f"ipfs/{CID_TEXT}", f"/ipfs/{CID_TEXT}"),
        (f"ipfs://{CID_TEXT}/a%20b?x=1#y", f"/ipfs/{CID_TEXT}/a%20b"),
        (f"dweb:/ipfs/{CID_TEXT}", f"/ipfs/{CID_TEXT}"),
        (f"https://ipfs.io/ipfs/{CID_TEXT}/a%20b?x", f"/ipfs/{CID_TEXT}/a%20b"),
        (f"https://{CID_TEXT}.ipfs.dweb.link/x", f"/ipfs/{CID_TEXT}/x"),
        ("https://en-wikipedia--on--ipfs-org.ipns.dweb.link/wiki", "/ipns/en.wikipedia-on-ipfs.org/wiki"),
        (f"http://{KEY}.ipns.localhost:8080/", f"/ipns/{KEY}"),
        ("https://docs.ipfs.tech/concepts/", "/ipns/docs.ipfs.tech/concepts"),
        ("docs.ipfs.tech/a", "/ipns/docs.ipfs.tech/a"),
        (KEY, f"/ipns/{KEY}"),
        (f"ipns://{KEY}/a", f"/ipns/{KEY}/a"),
        ("12D3KooWLQzUv2FHWGVPXTXSZpdHs7oHbXub2G5WC8Tx4NQhyd2d",
         "/ipns/12D3KooWLQzUv2FHWGVPXTXSZpdHs7oHbXub2G5WC8Tx4NQhyd2d"),
    ],
)  # fmt: skip
async def test_an_address_in_any_form_leads_to_its_path(site: Site, typed: str, location: str) -> None:
    answer = await site.get(f"/?path={quote_plus(typed)}")
    assert (answer.status, answer.headers["location"]) == (302, location)


@pytest.mark.parametrize(
    "typed", ["nonsense", "//evil.example/x", "javascript:alert(1)", "http://[", "/etc/passwd", "a" * 5000]
)
async def test_what_is_no_address_is_refused_and_leads_nowhere(site: Site, typed: str) -> None:
    answer = await site.get(f"/?path={quote_plus(typed)}", HTML)
    assert answer.status == 400
    assert "location" not in answer.headers


async def test_a_mistyped_address_can_be_mended_where_it_is_refused(site: Site) -> None:
    answer = await site.get("/?path=bafy%22%3Coops", HTML)
    assert answer.status == 400
    assert '<form class="hero"' in answer.text
    assert 'value="bafy&quot;&lt;oops"' in answer.text
    assert "form-action 'self' http: https:" in answer.headers["content-security-policy"]
    program = await site.get("/?path=bafyoops")
    assert "not base32: cut off, or with a wrong character" in program.text
    assert "form" not in program.text


async def test_the_welcome_page_asks_for_an_address_without_a_script(site: Site) -> None:
    answer = await site.get("/")
    assert '<form class="hero" role="search" method="get" action="/">' in answer.text
    assert '<input type="text" name="path"' in answer.text
    assert "form-action 'self' http: https:" in answer.headers["content-security-policy"]
    assert (await site.get("/?path=")).status == 200


async def test_a_node_page_tells_all_about_a_folder() -> None:
    source = MemorySource()
    root, _ = add_tree(source, {"a\u202e": b"1", "b": {"c": b"2"}})
    async with serving(source) as client:
        answer = await client.ask(f"/ipfs/{root}?inspect=node")
        listing = Page((await client.ask(f"/ipfs/{root}/")).text)
    assert listing.links["Inspect"] == f"/ipfs/{root}/?inspect=node"
    page = Page(answer.text)
    for form in (
        str(root),
        root.encode("base36"),
        root.encode("base58btc"),
        root.digest.hex(),
        "dag-pb",
        "sha2-256",
    ):
        assert form in answer.text
    assert "a⟨U+202E⟩" in answer.text
    assert f"/ipfs/{CID.of(b'1')}?inspect=node" in page.links.values()
    assert answer.headers["etag"].startswith('"Node-')
    # A format that is asked for wins; so does the content for everybody who does not ask.
    assert listing.links["CAR"].endswith("?format=car")


async def test_the_page_about_a_node_is_only_given_where_a_page_is_asked_for(site: Site) -> None:
    path = f"/ipfs/{site.root}/a.txt"
    raw = await site.get(f"{path}?inspect=node&format=raw")
    assert (raw.body, raw.headers["content-type"]) == (b"hello\n", "application/vnd.ipld.raw")
    assert (await site.get(f"{path}?inspect=other")).body == b"hello\n"
    assert "68 65 6c 6c 6f 0a" in (await site.get(f"{path}?inspect=node")).text


async def test_values_are_shown_with_ways_into_them() -> None:
    target = CID.of(b"target")
    value = {"list": [1, {"deep": "<i>\u202e"}], "link": target, "": 1, "a/b": 2, "bytes": b"\xff" * 200}
    for codec in (DAG_CBOR, DAG_JSON, CBOR, JSON):
        plain = codec in (CBOR, JSON)
        data = values.encode(codec, {"list": value["list"]} if plain else value)
        block = Block(CID.of(data, codec), data)
        async with serving(MemorySource([block])) as client:
            answer = await client.ask(f"/ipfs/{block.cid}?inspect=node")
            inside = await client.ask(f"/ipfs/{block.cid}/list/1?inspect=node")
            nowhere = await client.ask(f"/ipfs/{block.cid}/list/7?inspect=node")
            without = await client.ask(f"/ipfs/{block.cid}/list/1")
        assert (
            f'<a class="q" href="/ipfs/{block.cid}/list?inspect=node">&quot;list&quot;</a>: [' in answer.text
        )
        assert "&lt;i&gt;⟨U+202E⟩" in answer.text
        assert (inside.status, nowhere.status, without.status) == (200, 404, 501)
        assert "bytes(200)" not in inside.text
        assert Page(inside.text).links["The whole node"] == f"/ipfs/{block.cid}?inspect=node"
        if not plain:
            assert f'<a href="/ipfs/{target}?inspect=node">{target}</a>' in answer.text
            assert '<span class="t">bytes(200)</span>' in answer.text


async def test_browsers_get_a_page_of_dag_cbor_and_programs_the_block() -> None:
    data = values.encode(DAG_CBOR, {"a": 1})
    block = Block(CID.of(data, DAG_CBOR), data)
    async with serving(MemorySource([block])) as client:
        page = await client.ask(f"/ipfs/{block.cid}", HTML)
        program = await client.ask(f"/ipfs/{block.cid}")
    assert page.headers["etag"].startswith('"DagIndex-')
    assert page.headers["vary"] == "Accept"
    assert program.body == data


@pytest.mark.parametrize(
    ("codec", "data"), [(DAG_PB, b"\x0a\x05hello"), (0x300000, b"hello"), (0x78, b"tree")]
)
async def test_people_get_a_page_of_what_is_no_file_and_programs_are_refused(codec: int, data: bytes) -> None:
    block = Block(CID.of(data, codec), data)
    async with serving(MemorySource([block])) as client:
        page = await client.ask(f"/ipfs/{block.cid}", HTML)
        program = await client.ask(f"/ipfs/{block.cid}")
        saved = await client.ask(f"/ipfs/{block.cid}?download=true", HTML)
    assert page.status == 200
    assert page.headers["vary"] == "Accept"
    assert ("hello" in page.text) == (codec != 0x78)
    assert "Open</a>" not in page.text  # it leads to this page
    assert (program.status, saved.status) == (406, 406)
    # A CID begins the sentence, and stays as it is.
    assert f"<p>{block.cid} " in saved.text


async def test_large_nodes_are_paged() -> None:
    source = MemorySource()
    long = values.encode(DAG_CBOR, list(range(2 * LINES_A_PAGE)))
    large = bytes(range(256)) * (DUMPED_BYTES // 256 + 1)
    links = [dag_pb.PBLink(CID.of(b""), f"n{n}", 1) for n in range(501)]
    many = add_node(source, unixfs.Data(unixfs.Kind.DIRECTORY), *links)
    blocks = [Block(CID.of(long, DAG_CBOR), long), Block(CID.of(large), large)]
    source.add(blocks)
    async with serving(source) as client:
        for cid, on_first, on_second in (
            (blocks[0].cid, "500,", "1500,"),
            (blocks[1].cid, "00000010", f"{DUMPED_BYTES:08x}"),
            (many, "<bdi>n42</bdi>", "<bdi>n500</bdi>"),
        ):
            first = await client.ask(f"/ipfs/{cid}?inspect=node")
            second = await client.ask(f"/ipfs/{cid}?inspect=node&page=2")
            assert on_first in first.text
            assert on_second not in first.text
            assert on_second in second.text
            assert "?inspect=node&amp;page=2" in first.text
            assert first.headers["etag"] != second.headers["etag"]
            assert (await client.ask(f"/ipfs/{cid}?inspect=node&page=99999999999")).status == 200


@pytest.mark.parametrize("codec", [DAG_CBOR, DAG_JSON, CBOR, JSON, 0x70, 0x90, 0x0129])
async def test_what_is_not_of_its_codec_is_dumped(codec: int) -> None:
    data = b"\xff\x00<script>"
    block = Block(CID.of(data, codec), data)
    async with serving(MemorySource([block])) as client:
        answer = await client.ask(f"/ipfs/{block.cid}?inspect=node")
    assert answer.status == 200
    assert "ff 00 3c 73" in answer.text
    assert "&lt;script&gt;" in answer.text


async def test_deep_values_end_somewhere() -> None:
    data = b"\x81" * 500 + b"\x01"
    block = Block(CID.of(data, CBOR), data)
    async with serving(MemorySource([block])) as client:
        answer = await client.ask(f"/ipfs/{block.cid}?inspect=node")
    assert answer.status == 200
    assert answer.text.count("\n") < 1000


async def test_pages_on_origins_of_their_own_link_to_where_nodes_are() -> None:
    source = MemorySource()
    root, _ = add_tree(source, {"f": b"x"})
    names = MemoryNames({"site.example": NameTarget(f"/ipfs/{root}", 60)})
    label = root.encode("base32")
    async with serving(source, names) as client:
        subdomain = await client.ask("/?inspect=node", {"Host": f"{label}.ipfs.localhost"})
        site = await client.ask("/?inspect=node", {"Host": "site.example"})
    assert f'href="//localhost/ipfs/{CID.of(b"x")}?inspect=node"' in subdomain.text
    assert f'href="https://cid.ipfs.tech/#{CID.of(b"x")}"' in site.text


def rendered(markdown: str) -> str:
    return readme.render(markdown.encode(), "README.md", "/ipfs/R", ("a", "b"))


@pytest.mark.parametrize(
    ("markdown", "html"),
    [
        ("[x](c.md)", 'href="/ipfs/R/a/b/c.md"'),
        ("[x](../c d.md)", None),
        ("[x](<../c d.md#p>)", 'href="/ipfs/R/a/c%20d.md#p"'),
        ("[x](/top/)", 'href="/ipfs/R/top/"'),
        ("[x](../../../../../etc)", 'href="/ipfs/R/etc"'),
        ("[x](?filter=a)", 'href="?filter=a"'),
        ("[x](#Part-One)", 'href="#readme-part-one"'),
        (
            "[x](https://e.example/?a=1&b)",
            'href="https://e.example/?a=1&amp;b" rel="noreferrer noopener nofollow"',
        ),
        ("[x](ipfs://bafy)", 'href="ipfs://bafy"'),
        ("[x](//e.example/x)", 'href="#"'),
        ("[x](file:///etc/passwd)", None),
        ("[x](javascript:alert(1))", None),
        ("[x](JaVaScRiPt:alert(1))", None),
        ("[x](data:text/html,a)", None),
        ("[x](blob:a)", 'href="#"'),
        ("![x](p.png)", '<img src="/ipfs/R/a/b/p.png" alt="x" loading="lazy" />'),
        ("![x](../p.png)", 'src="/ipfs/R/a/p.png"'),
    ],
)
def test_links_of_a_readme_stay_inside_or_are_harmless(markdown: str, html: str | None) -> None:
    shown = rendered(markdown)
    if html is None:
        assert "<a" not in shown
    else:
        assert html in shown


@pytest.mark.parametrize(
    "picture", ["https://e.example/p.png", "//e.example/p.png", "data:image/png;base64,AAAA", "http:p.png"]
)
def test_pictures_from_elsewhere_are_named_only(picture: str) -> None:
    shown = rendered(f"[![badge]({picture})](https://e.example)")
    assert "<img" not in shown
    assert "[badge]" in shown


def test_a_readme_cannot_bring_html_or_turn_text_round() -> None:
    shown = rendered(
        '# A <b onclick="x">b</b>\n\n<script>alert(1)</script>\n\n`a\u202eb` &lt;\n\n## A b\n\n### A b'
    )
    assert "<script>" not in shown
    assert "<b" not in shown
    assert "a⟨U+202E⟩b" in shown
    assert '<h3 id="readme-a-b-onclickxbb">' in shown
    assert '<h4 id="readme-a-b">' in shown
    assert '<h5 id="readme-a-b-1">' in shown


@pytest.mark.parametrize(
    "markdown", ["[" * 5000, "*a " * 20_000, "# a\n" * 10_000, "|" * 500 + "\n" + "|-" * 500 + "\n|" * 100]
)
def test_markdown_that_would_take_long_is_shown_as_it_is_written(markdown: str) -> None:
    assert rendered(markdown).startswith("<pre>")


def test_a_plain_readme_is_plain() -> None:
    shown = readme.render(b"\xef\xbb\xbf  a <b>\r\n\tc \xff", "README.txt", "", ())
    assert unescape(shown) == "<pre>  a <b>\n    c \ufffd</pre>"


async def test_a_raw_block_has_a_page_without_links() -> None:
    block = Block(CID.of(b"abc", RAW), b"abc")
    async with serving(MemorySource([block])) as client:
        answer = await client.ask(f"/ipfs/{block.cid}?inspect=node")
    assert "61 62 63" in answer.text
    assert Page(answer.text).links["Open"] == f"/ipfs/{block.cid}"
