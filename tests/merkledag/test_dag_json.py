"""DAG-JSON blocks are part of a DAG: their links are followed, by paths, walks and collections alike."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from merkledag import codecs, dag_json
from merkledag.block import Block
from merkledag.cid import CID
from merkledag.codecs import DAG_JSON, RAW
from merkledag.errors import DecodeError, NoSuchLink
from merkledag.resolve import resolve
from merkledag.steps import iterate, run
from merkledag.traverse import walk_dag

LEAF = Block(CID.of(b"leaf", codec=RAW), b"leaf")
OTHER = Block(CID.of(b"other", codec=RAW), b"other")


def node(value: object) -> Block:
    data = dag_json.encode(value).encode()
    return Block(CID.of(data, codec=DAG_JSON), data)


INNER = node({"x": [LEAF.cid, {"deep": OTHER.cid}], "y": LEAF.cid})
ROOT = node({"inner": INNER.cid, "n": 1})
STORE = {block.cid: block.data for block in (LEAF, OTHER, INNER, ROOT)}


def test_links_are_in_order_with_repetitions() -> None:
    assert codecs.links(INNER.cid, INNER.data) == [LEAF.cid, OTHER.cid, LEAF.cid]
    assert codecs.links(ROOT.cid, memoryview(ROOT.data)) == [INNER.cid]


def test_a_walk_reaches_what_they_link_to() -> None:
    walked = [block.cid for block in iterate(walk_dag(ROOT.cid), STORE.__getitem__)]
    assert walked == [ROOT.cid, INNER.cid, LEAF.cid, OTHER.cid]


def test_paths_lead_through_them() -> None:
    found = run(resolve(ROOT.cid, ("inner", "x", "1", "deep")), STORE.__getitem__)
    assert found.cid == OTHER.cid
    assert run(resolve(ROOT.cid, ("n",)), STORE.__getitem__).remainder == ("n",)
    with pytest.raises(NoSuchLink):
        run(resolve(ROOT.cid, ("inner", "z")), STORE.__getitem__)


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(data, id=name)
        for name, data in {
            "nothing": b"",
            "cut off": b"{",
            "two values": b"1 2",
            "deep": b"[" * 5000,
            "deep and closed": b"[" * 300 + b"]" * 300,
            "no UTF-8": b"\xff",
            "byte order mark": b"\xef\xbb\xbf1",
            "lone surrogate": b'["\\ud800"]',
            "lone surrogate in a key": b'{"\\udfff":1}',
            "NaN": b"NaN",
            "infinity": b"-Infinity",
            "too large a float": b"1e999",
            "65 bits": b"18446744073709551616",
            "65 bits below": b"-18446744073709551617",
            "endless digits": b"9" * 10_000,
            "repeated key": b'{"a":1,"a":1}',
            "repeated key in bytes": b'{"/":{"bytes":"aa","bytes":"aa"}}',
            "no CID": b'{"/":"no"}',
            "CID and more": b'{"/":"bafkqaaa","a":1}',
            "string in the reserved place": b'{"/":"foo","bar":"baz"}',
            "bytes and more": b'{"/":{"bytes":"AQI","x":1}}',
            "more beside bytes": b'{"/":{"bytes":"AQI"},"x":1}',
            "padding": b'{"/":{"bytes":"AQ=="}}',
            "no base64": b'{"/":{"bytes":"A*I"}}',
            "base64 of no length": b'{"/":{"bytes":"A"}}',
            "URL base64": b'{"/":{"bytes":"_-"}}',
        }.items()
    ],
)
def test_what_is_no_dag_json_is_refused(data: bytes) -> None:
    with pytest.raises(DecodeError):
        dag_json.links(data)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('{"/":true,"bar":"baz"}', {"/": True, "bar": "baz"}),
        ('{".bar":"baz","/":"foo"}', {".bar": "baz", "/": "foo"}),
        ('{".bar":"baz","/":{"bytes":"foo"}}', {".bar": "baz", "/": {"bytes": "foo"}}),
        ('{"/":{"abar":"baz","bytes":"foo"}}', {"/": {"abar": "baz", "bytes": "foo"}}),
        ('{"/":{"bytes":true},"bar":"baz"}', {"/": {"bytes": True}, "bar": "baz"}),
        ('{"/":{"/":"bafkqaaa"}}', {"/": CID.parse("bafkqaaa")}),
        ('{"/":{}}', {"/": {}}),
        (' [1 ,-18446744073709551616, 18446744073709551615]\n', [1, -(2**64), 2**64 - 1]),
        ('{"b":1,"a":1.0,"\\u00e4":1e2}', {"b": 1, "a": 1.0, "ä": 100.0}),
        ('"\\ud83d\\ude00"', "😀"),
        ('{"/":{"bytes":""}}', b""),
        ('{"/":{"bytes":"AQI"}}', b"\1\2"),
    ],
)  # fmt: skip
def test_what_the_reserved_key_leaves_free_is_read(text: str, value: object) -> None:
    """The examples of the specification, and order, spaces and numbers that only a writer is bound in."""
    decoded = dag_json.decode(text.encode())
    assert decoded == value
    assert dag_json.decode(dag_json.encode(decoded).encode()) == value


def test_a_map_that_was_not_sorted_is_read_by_its_first_key() -> None:
    """It has no canonical text: sorted, its first key would be "/"."""
    value = dag_json.decode(b'{"0bar":"baz","/":"foo"}')
    assert value == {"0bar": "baz", "/": "foo"}
    with pytest.raises(ValueError, match="would be read as"):
        dag_json.encode(value)


def test_one_value_has_one_text() -> None:
    """Keys sort by their bytes, nothing but the necessary is escaped."""
    value: dict[str, Any] = {
        "b": 1,
        "a": None,
        "aa": [],
        "é": "\u2028\n\x7f",
        "Z": [True, 2**64 - 1],
        "😀": {},
        "\uffff": "",
    }
    expected = (
        '{"Z":[true,18446744073709551615],"a":null,"aa":[],"b":1,"é":"\u2028\\n\x7f","\uffff":"","😀":{}}'
    )
    assert dag_json.encode(value) == expected
    assert dag_json.encode_plain({"b": 1, "a": {"/": "x"}}) == '{"b":1,"a":{"/":"x"}}'


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (1.0, "1.0"),
        (-0.0, "-0.0"),
        (0.1, "0.1"),
        (1e16, "10000000000000000.0"),
        (1.5e20, "150000000000000000000.0"),
        (1e21, "1e+21"),
        (1.25e300, "1.25e+300"),
        (0.000001, "0.000001"),
        (1.5e-5, "0.000015"),
        (1e-7, "1e-7"),
        (-8.940696716308594e-8, "-8.940696716308594e-8"),
        (5e-324, "5e-324"),
    ],
)
def test_floats_are_written_as_other_implementations_write_them(number: float, text: str) -> None:
    assert dag_json.encode(number) == text
    assert dag_json.decode(text.encode()) == number


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_every_float_survives(number: float) -> None:
    again = dag_json.decode(dag_json.encode(number).encode())
    assert (type(again), repr(again)) == (float, repr(number))


@pytest.mark.parametrize(
    "value",
    [
        {"/": "text"},
        {"/": "text", "a": 1},
        {"/": {"bytes": "AQ"}},
        {"/": {"bytes": "AQ", "c": 1}, "x": 1},
        float("nan"),
        float("inf"),
        2**64,
        -(2**64) - 1,
        {1: 2},
        "\ud800",
        {"\udfff": 1},
        {1, 2},
    ],
)
def test_what_has_no_dag_json_form_is_not_written(value: object) -> None:
    with pytest.raises(ValueError, match=r".+"):
        dag_json.encode(value)


def test_plain_json_knows_no_links() -> None:
    assert dag_json.decode_plain(b'{"/":"bafkqaaa","a":[1.5]}') == {"/": "bafkqaaa", "a": [1.5]}
    for data in (b"NaN", b'{"a":1,"a":2}', b"[" * 5000, b"1e999"):
        with pytest.raises(DecodeError, match="not JSON"):
            dag_json.decode_plain(data)
