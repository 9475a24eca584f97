"""Every codec's blocks as values and back; what dag-pb refuses; paths through values of all codecs."""

from __future__ import annotations

from typing import Any

import cbor2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from merkledag import codecs, dag_pb, values
from merkledag.cid import CID
from merkledag.codecs import CBOR, DAG_CBOR, DAG_JSON, DAG_PB, JSON, LIBP2P_KEY, RAW
from merkledag.errors import DecodeError, NoSuchLink, UnsupportedCodec
from merkledag.resolve import resolve
from merkledag.steps import run
from tests.merkledag.support import Blocks

LEAF = CID.of(b"leaf", RAW)
LINK = b"\x0a" + bytes([len(bytes(LEAF))]) + bytes(LEAF)
NAME, TSIZE, DATA = b"\x12\x01a", b"\x18\x05", b"\x0a\x01d"


def link_field(*parts: bytes) -> bytes:
    body = b"".join(parts)
    return b"\x12" + bytes([len(body)]) + body


@pytest.mark.parametrize(
    "block",
    [
        link_field(LINK, NAME, TSIZE) + DATA,
        DATA + link_field(LINK, NAME, TSIZE),
        link_field(LINK, TSIZE) * 2,
        link_field(LINK),
        DATA,
        b"",
        b"\x0a\0",
    ],
)  # fmt: skip
def test_dag_pb_in_either_order(block: bytes) -> None:
    """Links stand before or after the data; the canonical order comes out."""
    value = values.decode(DAG_PB, block)
    again = values.encode(DAG_PB, value)
    assert values.decode(DAG_PB, again) == value
    assert dag_pb.decode(again) == dag_pb.decode(block)


@pytest.mark.parametrize(
    "block",
    [
        pytest.param(link_field(NAME, LINK), id="name before CID"),
        pytest.param(link_field(LINK, TSIZE, NAME), id="size before name"),
        pytest.param(link_field(TSIZE, LINK), id="size before CID"),
        pytest.param(link_field(LINK, NAME, NAME), id="two names"),
        pytest.param(link_field(LINK, LINK), id="two CIDs"),
        pytest.param(link_field(LINK, TSIZE, TSIZE), id="two sizes"),
        pytest.param(link_field(NAME, TSIZE), id="no CID"),
        pytest.param(link_field(LINK, b"\x20\1"), id="unknown field"),
        pytest.param(link_field(b"\x0a\2\1\x55"), id="broken CID"),
        pytest.param(link_field(LINK, b"\x12\x05a"), id="name past the end"),
        pytest.param(link_field(LINK) + DATA + link_field(LINK), id="links on both sides of the data"),
        pytest.param(DATA + DATA, id="data twice"),
        pytest.param(b"\x1a\0", id="field 3"),
        pytest.param(b"\x08\1", id="data as a number"),
        pytest.param(b"\x0a\x05a", id="data past the end"),
        pytest.param(b"\x12", id="cut off"),
    ],
)
def test_what_is_no_dag_pb_is_refused(block: bytes) -> None:
    for read in (dag_pb.decode, dag_pb.links, lambda data: values.check(DAG_PB, data)):
        with pytest.raises(DecodeError):
            read(block)


def test_a_value_becomes_a_dag_pb_node() -> None:
    """Links are sorted by the bytes of their names, equal ones stay in order."""
    names = ["b", "é", "", "a", "b"]
    links = [{"Hash": LEAF, "Name": name, "Tsize": n} for n, name in enumerate(names)]
    node = dag_pb.decode(values.encode(DAG_PB, {"Links": [*links, {"Hash": LEAF}], "Data": b""}))
    assert [(link.name, link.tsize) for link in node.links] == [
        ("", 2), (None, None), ("a", 3), ("b", 0), ("b", 4), ("é", 1)
    ]  # fmt: skip
    assert node.data == b""


@pytest.mark.parametrize(
    "value",
    [
        None,
        [],
        {},
        {"Data": b""},
        {"Links": None},
        {"Links": [], "Data": "text"},
        {"Links": [], "Extra": 1},
        {"Links": [{}]},
        {"Links": [{"Hash": "x"}]},
        {"Links": [{"Hash": LEAF, "Name": b"x"}]},
        {"Links": [{"Hash": LEAF, "Tsize": -1}]},
        {"Links": [{"Hash": LEAF, "Tsize": True}]},
        {"Links": [{"Hash": LEAF, "Tsize": 2**64}]},
        {"Links": [{"Hash": LEAF, "Other": 1}]},
    ],
)
def test_values_that_are_no_dag_pb_node(value: object) -> None:
    with pytest.raises(ValueError, match=r".+"):
        values.encode(DAG_PB, value)


anything = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**64), 2**64 - 1) | st.text(max_size=5)
    | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(st.text(max_size=4).filter(lambda key: key != "/"), inner, max_size=3),
    max_leaves=8,
)  # fmt: skip


@given(anything, st.sampled_from([DAG_CBOR, DAG_JSON, CBOR, JSON]))
def test_values_survive_every_codec(value: Any, codec: int) -> None:
    again = values.decode(codec, values.encode(codec, value))
    assert repr(again) == repr(value) or again == value
    assert values.encode(DAG_CBOR, again) == values.encode(DAG_CBOR, value)


def test_plain_codecs_hold_neither_links_nor_sorted_keys() -> None:
    for codec in (CBOR, JSON):
        assert list(values.decode(codec, values.encode(codec, {"b": 1, "a": 2}))) == ["b", "a"]
        with pytest.raises(ValueError, match="CID"):
            values.encode(codec, [LEAF])
    with pytest.raises(ValueError, match="bytes"):
        values.encode(JSON, b"")
    assert values.decode(CBOR, values.encode(CBOR, b"\1")) == b"\1"
    with pytest.raises(ValueError, match="bytes and nothing else"):
        values.encode(RAW, "text")
    with pytest.raises(UnsupportedCodec):
        values.decode(LIBP2P_KEY, b"")
    with pytest.raises(UnsupportedCodec):
        values.encode(0x99, b"")


@pytest.mark.parametrize(
    "block",
    [
        b"",
        b"\x01\x01",
        b"\x81" * 300 + b"\x01",
        b"\x9f" * 100_000,
        cbor2.dumps({1: 2}),
        cbor2.dumps(cbor2.CBORTag(42, b"\0" + bytes(LEAF))),
        cbor2.dumps(2**70),
        b"\x9b\xff\xff\xff\xff\xff\xff\xff\xff",
        b"\x5b\x00\x00\x00\x7f\xff\xff\xff\xff",
    ],
)
def test_plain_cbor_is_lenient_and_bounded(block: bytes) -> None:
    with pytest.raises(DecodeError, match="not CBOR"):
        values.decode(CBOR, block)


def test_plain_cbor_in_any_form() -> None:
    assert values.decode(CBOR, bytes.fromhex("bf6162f93c006161185fff")) == {"b": 1.0, "a": 0x5F}


def test_only_canonical_dag_cbor_passes_the_check() -> None:
    loose = bytes.fromhex("a2616201616102")
    assert values.decode(DAG_CBOR, loose) == {"b": 1, "a": 2}
    with pytest.raises(DecodeError, match="canonical"):
        values.check(DAG_CBOR, loose)
    values.check(0x99, b"anything")


def test_paths_cross_codecs() -> None:
    """From dag-json over dag-cbor into a plain dag-pb node, into plain JSON and CBOR."""
    blocks = Blocks()
    plain = blocks.put(values.encode(JSON, {"/": {"deep": [1, {"x": 5}]}}), JSON)
    cbor = blocks.put(values.encode(CBOR, {"list": [7]}), CBOR)
    node = blocks.put(values.encode(DAG_PB, {"Links": [{"Hash": plain, "Name": "js"}, {"Hash": cbor}]}))
    inner = blocks.put(values.encode(DAG_CBOR, {"pb": node, "": {"a/b": node}}), DAG_CBOR)
    root = blocks.put(values.encode(DAG_JSON, [inner]), DAG_JSON)

    def at(*segments: str, by_name: bool = True) -> tuple[CID, tuple[str, ...]]:
        found = run(resolve(root, segments, by_name=by_name), blocks.get)
        return found.cid, found.remainder

    assert at("0", "pb") == (node, ())
    assert at("0", "pb", "js") == (plain, ())
    assert at("0", "pb", "js", "/", "deep", "1", "x") == (plain, ("/", "deep", "1", "x"))
    assert at("0", "", "a/b") == (node, ())
    assert at("0", "pb", "Links", "0", "Hash", "list", "0", by_name=False) == (cbor, ("list", "0"))
    assert at("0", "pb", "Links", "1", "Name", by_name=False) == (node, ("Links", "1", "Name"))
    for missing, name in (
        (("0", "pb", "Links"), "Links"),
        (("0", "pb", "js", "nope"), "nope"),
        (("01",), "01"),
        (("-1",), "-1"),
        (("1",), "1"),
        (("9" * 30,), "9" * 30),
    ):
        with pytest.raises(NoSuchLink) as caught:
            run(resolve(root, missing), blocks.get)
        assert caught.value.name == name


def test_links_of_every_codec() -> None:
    value = {"z": [LEAF, {"a": LEAF}], "a": 1}
    for codec in (DAG_CBOR, DAG_JSON):
        data = values.encode(codec, value)
        assert codecs.links(CID.of(data, codec), data) == [LEAF, LEAF]
    for codec in (RAW, CBOR, JSON, LIBP2P_KEY):
        assert codecs.links(CID.of(b"{}", codec), b"{}") == []
    with pytest.raises(UnsupportedCodec):
        codecs.links(CID.of(b"", 0x99), b"")
