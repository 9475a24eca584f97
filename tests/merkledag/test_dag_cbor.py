"""Strict DAG-CBOR: one value, one encoding (red-team 12 and 14)."""

from __future__ import annotations

import math
from typing import Any

import cbor2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from merkledag import dag_cbor
from merkledag.cid import CID
from merkledag.errors import DecodeError, TruncatedValue

scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**64), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text()
    | st.binary()
    | st.builds(CID.of, st.binary())
)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(), inner, max_size=5),
    max_leaves=20,
)


def same(a: Any, b: Any) -> bool:
    """Equality that tells 0 from False and 0.0 from -0.0."""
    return repr(a) == repr(b) or (type(a) is dict and a == b)


@given(values)
def test_round_trip(value: Any) -> None:
    data = dag_cbor.encode(value)
    assert dag_cbor.decode(data) == value
    assert dag_cbor.decode(memoryview(data)) == value
    assert dag_cbor.encode(dag_cbor.decode(data)) == data
    assert dag_cbor.decode_lenient(data) == value


@given(scalars)
def test_scalars_keep_their_type(value: Any) -> None:
    assert same(dag_cbor.decode(dag_cbor.encode(value)), value)


@given(st.dictionaries(st.text(), st.integers(), max_size=10))
def test_keys_go_shortest_first_then_by_bytes(value: dict[str, int]) -> None:
    keys = [key.encode() for key in cbor2.loads(dag_cbor.encode(dict.fromkeys(value, 0)))]
    assert keys == sorted(keys, key=lambda key: (len(key), key))


@given(values)
@settings(max_examples=50)
def test_an_independent_reader_agrees(value: Any) -> None:
    def plain(item: Any) -> Any:
        if isinstance(item, CID):
            return cbor2.CBORTag(42, b"\0" + bytes(item))
        if isinstance(item, list):
            return [plain(each) for each in item]
        return {key: plain(each) for key, each in item.items()} if isinstance(item, dict) else item

    assert cbor2.loads(dag_cbor.encode(value)) == plain(value)


@given(st.binary(max_size=60))
@settings(max_examples=400)
def test_whatever_decodes_encodes_to_the_same_bytes(data: bytes) -> None:
    try:
        value = dag_cbor.decode(data)
    except DecodeError:
        return
    assert dag_cbor.encode(value) == data


@given(values, st.data())
def test_a_changed_byte_is_another_value_or_refused(value: Any, data: st.DataObject) -> None:
    encoded = bytearray(dag_cbor.encode(value))
    at = data.draw(st.integers(0, len(encoded) - 1))
    encoded[at] ^= data.draw(st.integers(1, 255))
    try:
        other = dag_cbor.decode(bytes(encoded))
    except DecodeError:
        return
    assert dag_cbor.encode(other) == bytes(encoded)


REFUSED = {
    "nothing": "",
    "number not minimal": "1801",
    "number not minimal, 8 bytes": "1b0000000000000001",
    "length not minimal": "580161",
    "repeated key": "a2616101616102",
    "unsorted keys": "a2616201616102",
    "keys sorted as RFC 7049 would not": "a262616101616202",
    "integer key": "a10102",
    "bytes key": "a1410102",
    "trailing byte": "0000",
    "trailing value in a list": "810101",
    "indefinite list": "9f01ff",
    "indefinite map": "bf616101ff",
    "indefinite text": "7f6161ff",
    "indefinite bytes": "5f4101ff",
    "NaN": "fb7ff8000000000000",
    "infinity": "fb7ff0000000000000",
    "half float": "f93e00",
    "single float": "fa3fc00000",
    "half NaN": "f97e00",
    "undefined": "f7",
    "simple value": "e0",
    "simple value, two bytes": "f8ff",
    "false in two bytes": "f814",
    "date": "c11a00000000",
    "bignum": "c249010000000000000000",
    "decimal fraction": "c48221196ab3",
    "rational": "d81e820102",
    "pattern": "d82361" + "61",
    "shared reference": "d81c80",
    "set": "d9010281" + "01",
    "self-described": "d9d9f700",
    "unknown tag": "d81800",
    "CID tag over text": "d82a6161",
    "CID without its zero byte": "d82a5824" + bytes(CID.of(b"x")).hex(),
    "CID cut off": "d82a4400015512",
    "CID tag not minimal": "d9002a5825" + "00" + bytes(CID.of(b"x")).hex(),
    "text that is not UTF-8": "61ff",
    "lone surrogate": "63eda080",
    "cut off": "8201",
    "list of 2⁶⁰": "9b1000000000000000",
    "bytes of 2⁶⁰": "5b1000000000000000",
    "break alone": "ff",
    "reserved": "1c",
    "too deep": "81" * 257 + "00",
    "10⁶ deep": "81" * 10**6,
}


@pytest.mark.parametrize("text", REFUSED.values(), ids=REFUSED)
def test_refused(text: str) -> None:
    with pytest.raises(DecodeError):
        dag_cbor.decode(bytes.fromhex(text))


@given(values, st.data())
@settings(max_examples=100)
def test_what_is_cut_short_is_told_as_such(value: Any, data: st.DataObject) -> None:
    raw = dag_cbor.encode(value)
    with pytest.raises(TruncatedValue):
        dag_cbor.decode(raw[: data.draw(st.integers(0, len(raw) - 1))])


def items(value: Any) -> int:
    """How many values, keys and tags there are."""
    match value:
        case dict():
            return 1 + len(value) + sum(map(items, value.values()))
        case list():
            return 1 + sum(map(items, value))
        case CID():
            return 2
    return 1


@given(values)
@settings(max_examples=150)
def test_the_number_of_values_is_bounded_to_the_last_one(value: Any) -> None:
    raw, count = dag_cbor.encode(value), items(value)
    assert dag_cbor.encode(dag_cbor.decode(raw, max_items=count)) == raw
    if len(raw) >= count > 1:
        with pytest.raises(DecodeError, match="more than"):
            dag_cbor.decode(raw, max_items=count - 1)


@given(st.binary(max_size=60), st.integers(1, 4))
def test_bounding_the_number_of_values_lets_nothing_else_in(data: bytes, most: int) -> None:
    try:
        dag_cbor.decode(data, max_items=most)
    except DecodeError:
        return
    assert items(dag_cbor.decode(data)) <= most


def test_the_deepest_allowed_nesting_works() -> None:
    data = bytes.fromhex("81" * 256 + "00")
    assert dag_cbor.encode(dag_cbor.decode(data)) == data


@pytest.mark.parametrize(
    "value",
    [2**64, -(2**64) - 1, 2**256, 10**5000, math.nan, math.inf, {1: 2}, {b"a": 1}, {1, 2}, object(), "\ud800",
     {"\ud800": 1}, bytearray(b"x"), 1j],
    ids=lambda value: type(value).__name__,
)  # fmt: skip
def test_what_it_will_not_write(value: Any) -> None:
    with pytest.raises(ValueError, match=r".+"):
        dag_cbor.encode(value)
    with pytest.raises(ValueError, match=r".+"):
        dag_cbor.encode({"a": [value]})


def test_a_list_that_holds_itself_is_refused() -> None:
    value: list[Any] = []
    value.append(value)
    with pytest.raises(ValueError, match="nested"):
        dag_cbor.encode(value)


class TestOthersBlocks:
    """Written by laxer encoders: readable and traversable, never taken for canonical."""

    @pytest.mark.parametrize("text", ["a2616201616102", "1801", "fa3fc00000", "f93e00"])
    def test_order_and_number_forms_are_forgiven(self, text: str) -> None:
        dag_cbor.decode_lenient(bytes.fromhex(text))

    @pytest.mark.parametrize(
        "text",
        ["", "0000", "9f01ff", "c11a00000000", "d81800", "d82a6161", "61ff", "81" * 257 + "00", "8201"],
    )
    def test_the_rest_is_not(self, text: str) -> None:
        with pytest.raises(DecodeError):
            dag_cbor.decode_lenient(bytes.fromhex(text))

    def test_links_come_in_block_order(self) -> None:
        a, b, c = (CID.of(bytes((n,))) for n in range(3))
        assert dag_cbor.links(dag_cbor.encode({"z": a, "yy": [b, {"x": c}], "xxx": b})) == [a, b, c, b]
