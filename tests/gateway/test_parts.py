"""The gateway's small parts: ranges, formats, content types, names, paths, settings."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.addresses.hosts import cid_label, name_and_label
from gateway.addresses.names import inline_dns_name, key_name, uninline_dns_name
from gateway.addresses.request import encode_path, parse_query, split_path, split_target
from gateway.errors import BadRequest, RangeNotSatisfiable, UriTooLong
from gateway.formats.ranges import Span, parse_range
from gateway.pages.frame import human_size
from gateway.settings import GatewaySettings
from merkledag.cid import CID
from merkledag.dnslink import is_dns_name
from merkledag.multihash import SHA2_512

SETTINGS = GatewaySettings()


@pytest.mark.parametrize(
    ("header", "spans"),
    [
        ("bytes=0-0", [(0, 1)]),
        ("bytes=6-16", [(6, 17)]),
        ("bytes=95-", [(95, 100)]),
        ("bytes=-3", [(97, 100)]),
        ("bytes=-1000", [(0, 100)]),
        ("bytes=90-1000", [(90, 100)]),
        ("BYTES=1-2", [(1, 3)]),
        ("bytes=0-1, 5-6", [(0, 2), (5, 7)]),
        ("bytes=500-600,0-1", [(0, 2)]),
        # No byte is sent twice: what overlaps or touches is one span, where its first part stood.
        ("bytes=0-,0-,0-", [(0, 100)]),
        ("bytes=0-9,5-19,30-39", [(0, 20), (30, 40)]),
        ("bytes=0-9,10-19", [(0, 20)]),
        ("bytes=90-,0-9,95-", [(90, 100), (0, 10)]),
        ("bytes=50-59,0-1,58-70", [(50, 71), (0, 2)]),
        ("bytes=,0-1, ,5-6,", [(0, 2), (5, 7)]),
        # Ignored: other units, wrong syntax, nothing asked.
        ("items=0-1", []),
        ("bytes", []),
        ("bytes=", []),
        ("bytes=a-b", []),
        ("bytes=5-2", []),
        ("bytes=--3", []),
        ("bytes=1-2-3", []),
        ("bytes=²-3", []),
        ("bytes=,", []),
        ("bytes=0-1,x", []),
        ("bytes = 0-1", []),
        ("bytes=0 - 1", []),
    ],
)
def test_range_headers(header: str, spans: list[tuple[int, int]]) -> None:
    assert parse_range(header, 100, 16) == [Span(*span) for span in spans]


@pytest.mark.parametrize("header", ["bytes=100-", "bytes=200-300", "bytes=-0"])
def test_ranges_outside_are_refused_with_the_size(header: str) -> None:
    with pytest.raises(RangeNotSatisfiable) as caught:
        parse_range(header, 100, 16)
    assert caught.value.headers["Content-Range"] == "bytes */100"


def test_thousands_of_ranges_are_refused() -> None:
    with pytest.raises(RangeNotSatisfiable):
        parse_range("bytes=" + ",".join(f"{n}-{n}" for n in range(5000)), 10_000, 16)


@settings(max_examples=200)
@given(st.text(max_size=40), st.integers(0, 10**6))
def test_any_range_header_gives_spans_inside_or_a_refusal(text: str, size: int) -> None:
    try:
        spans = parse_range("bytes=" + text, size, 16)
    except RangeNotSatisfiable:
        return
    assert all(0 <= span.start < span.end <= size for span in spans)
    assert sum(span.length for span in spans) <= size


_RANGES = st.lists(
    st.tuples(st.integers(0, 130), st.integers(0, 130)).map(sorted)
    | st.integers(0, 130).map(lambda first: [first, None])
    | st.integers(1, 130).map(lambda length: [None, length]),
    min_size=1,
    max_size=12,
)


@settings(max_examples=200)
@given(_RANGES)
def test_joined_ranges_hold_what_was_asked_for_and_each_byte_once(ranges: list[list[int | None]]) -> None:
    header = ",".join(
        f"{'' if first is None else first}-{'' if last is None else last}" for first, last in ranges
    )
    wanted: set[int] = set()
    for first, last in ranges:
        if first is None:
            wanted.update(range(max(100 - (last or 0), 0), 100))
        else:
            wanted.update(range(first, 100 if last is None else min(last + 1, 100)))
    if not wanted:
        with pytest.raises(RangeNotSatisfiable):
            parse_range("bytes=" + header, 100, 16)
        return
    spans = parse_range("bytes=" + header, 100, 16)
    sent = [place for span in spans for place in range(span.start, span.end)]
    assert len(sent) == len(wanted)
    assert set(sent) == wanted
    # No two could be one.
    ends = {span.end for span in spans}
    assert len(spans) == 1 or not any(span.start in ends for span in spans)


@pytest.mark.parametrize("header", ["bytes=0-", "bytes=5-9", "bytes=-5", "bytes=0-1,1-2"])
def test_a_range_of_nothing_is_no_error(header: str) -> None:
    assert parse_range(header, 0, 16) == []


def test_paths_are_split_and_decoded_once() -> None:
    assert split_path("/ipfs/cid/Portugal%252C%20x", SETTINGS) == (["ipfs", "cid", "Portugal%2C x"], False)
    assert split_path("/a//b/", SETTINGS) == (["a", "b"], True)
    assert split_path("/%FF", SETTINGS) == (["\udcff"], False)
    assert encode_path("\udcff/é +&") == "%FF/%C3%A9%20+&"


@pytest.mark.parametrize("path", ["/ipfs/cid/..", "/ipfs/cid/%2e%2e/x", "/ipfs/./cid", "/a%00b", "/x" * 200])
def test_path_tricks_are_refused(path: str) -> None:
    with pytest.raises(BadRequest):
        split_path(path, SETTINGS)


def test_long_targets_and_queries_are_refused() -> None:
    with pytest.raises(UriTooLong):
        split_target("/" + "a" * SETTINGS.max_url_bytes, SETTINGS)
    with pytest.raises(BadRequest):
        parse_query("a=1&" * 100)
    assert parse_query("a=1&a=2&b=") == {"a": "1", "b": ""}


def test_dns_names_in_one_label() -> None:
    assert inline_dns_name("en.wikipedia-on-ipfs.org") == "en-wikipedia--on--ipfs-org"
    assert uninline_dns_name("en-wikipedia--on--ipfs-org") == "en.wikipedia-on-ipfs.org"
    assert is_dns_name("a.example")
    assert not is_dns_name("localhost")
    assert not is_dns_name("a..b")
    assert not is_dns_name("x" * 64 + ".org")


def test_keys_in_every_form_have_one_name() -> None:
    name = "k51qzi5uqu5dlvj2baxnqndepeb86cbk3ng7n3i46uzyxzyqj2xjonzllnv0v8"
    assert key_name("12D3KooWRBy97UB99e3J6hiPesre1MZeuNQvfan4gBziswrRJsNK") == name
    assert key_name(name) == name
    assert key_name("QmcJM7PRfkSbcM5cf1QugM5R37TLRKyJGgBEhXjLTB8uA2") == (
        "k2k4r8ol4m8kkcqz509c1rcjwunebj02gcnm5excpx842u736nja8ger"
    )
    assert key_name("example") is None
    assert key_name(str(CID.of(b"x"))) is None


def test_labels_fit_in_dns() -> None:
    assert cid_label(CID.parse("QmbWqxBEKC3P8tqsKc98xmWNzrzDtRLMiMPL8wBuTGsMnR")) == (
        "bafybeigdyrzt5sfp7udm7hu76uh7y26nf3efuylqabf3oclgtqy55fbzdi"
    )
    with pytest.raises(BadRequest, match="label length limit of 63"):
        cid_label(CID.of(b"x", hash_code=SHA2_512))
    assert name_and_label("a-b-example")[0] == "a.b.example"
    with pytest.raises(BadRequest):
        name_and_label("nothing")


def test_settings_refuse_nonsense() -> None:
    with pytest.raises(ValueError, match="max_ranges"):
        GatewaySettings(max_ranges=0)
    with pytest.raises(ValueError, match="subdomain_hosts"):
        GatewaySettings(subdomain_hosts=("Example.COM",))


def test_sizes_for_people() -> None:
    assert [human_size(n) for n in (0, 1023, 1536, 250 * 1024, 3 * 1024**3)] == [
        "0 B",
        "1023 B",
        "1.5 KiB",
        "250 KiB",
        "3.0 GiB",
    ]
