"""Which format a request is given: `?format=`, Accept, and the parameters of CARs (IPIP-0412, 0523)."""

from __future__ import annotations

import pytest

from gateway.errors import BadRequest, NotAcceptable
from gateway.formats.negotiation import CarParams, Format, Wanted, negotiate


@pytest.mark.parametrize(
    ("name", "accept", "expected"),
    [
        (None, None, Format.DEFAULT),
        (None, "*/*", Format.DEFAULT),
        (None, "image/avif,image/webp,*/*;q=0.8", Format.DEFAULT),
        (None, "text/html,application/xhtml+xml,*/*;q=0.8", Format.HTML),
        (None, "application/vnd.ipld.raw", Format.RAW),
        (None, "Application/vnd.ipld.CAR; version=1", Format.CAR),
        (None, "application/vnd.ipld.raw;q=0.1, */*", Format.DEFAULT),
        (None, "application/vnd.ipld.raw;q=0.5, application/vnd.ipld.car;q=0.9", Format.CAR),
        (None, "application/vnd.ipld.raw;q=x", Format.DEFAULT),
        (None, "application/json, text/plain, */*", Format.JSON),
        (None, "application/vnd.ipld.raw;q=7, application/vnd.ipld.car;q=nan", Format.DEFAULT),
        (None, "text/html;q=0.9, application/vnd.ipld.raw", Format.RAW),
        (None, " , ,", Format.DEFAULT),
        (None, "application/vnd.ipld.unheard-of, */*", Format.DEFAULT),
        ("", None, Format.DEFAULT),
        ("", "application/vnd.ipld.car", Format.CAR),
        ("RAW", "application/vnd.ipld.car", Format.RAW),
        ("raw", "application/vnd.ipld.car", Format.RAW),
        ("raw", "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", Format.RAW),
        ("dag-json", "*/*;q=0", Format.DAG_JSON),
        ("car", "text/html", Format.CAR),
        ("ipns-record", None, Format.IPNS_RECORD),
    ],
)
def test_format_comes_before_accept(name: str | None, accept: str | None, expected: Format) -> None:
    assert negotiate(name, accept, {}).format is expected


def test_car_parameters_of_the_url_come_before_those_of_accept() -> None:
    accept = "application/vnd.ipld.car; version=1; order=unk; dups=n"
    assert negotiate("car", accept, {}).car == CarParams("1", "unk", "n")
    assert negotiate("car", accept, {"car-order": "dfs", "car-dups": "y"}).car == CarParams("1", "dfs", "y")
    with pytest.raises(NotAcceptable):
        negotiate("car", None, {"car-version": "2"})
    with pytest.raises(NotAcceptable):
        negotiate("car", None, {"car-order": "bfs"})
    with pytest.raises(BadRequest):
        negotiate("car", None, {"car-dups": "maybe"})
    with pytest.raises(BadRequest):
        negotiate("gif", None, {})


def test_content_location_is_needed_when_the_url_does_not_say_it_all() -> None:
    assert negotiate(None, "application/vnd.ipld.raw", {}).from_accept
    assert negotiate("raw", "application/vnd.ipld.car", {}).from_accept
    assert negotiate("car", "application/vnd.ipld.car; dups=y", {}).from_accept
    assert not negotiate("raw", "*/*", {}).from_accept


def liking(accept: str, query: dict[str, str] | None = None) -> list[Format]:
    """The formats tried under an Accept header, in their order."""
    wanted: Wanted | None = negotiate(None, accept, query or {})
    formats = []
    while wanted is not None:
        formats.append(wanted.format)
        wanted = wanted.otherwise
    return formats


def test_what_cannot_be_had_gives_way_to_what_is_liked_next() -> None:
    assert liking("application/json, text/plain, */*") == [Format.JSON, Format.DEFAULT]
    assert liking("application/json, text/html;q=0.9") == [Format.JSON, Format.HTML]
    assert liking("application/json") == [Format.JSON]
    assert liking("application/json, application/json;q=0") == [Format.JSON]
    assert liking("application/vnd.ipld.dag-json;q=0.2, application/vnd.ipld.raw;q=0.1") == [
        Format.DAG_JSON,
        Format.RAW,
    ]
    assert liking("application/vnd.ipld.raw;q=0.1, */*") == [Format.DEFAULT, Format.RAW]


def test_a_car_variant_that_is_not_made_gives_way_to_one_that_is() -> None:
    accept = "application/vnd.ipld.car;order=foo, application/vnd.ipld.car;order=dfs;dups=y;q=0.5"
    assert negotiate(None, accept, {}).car == CarParams(None, "dfs", "y")
    assert negotiate("car", accept, {}).car == CarParams(None, "dfs", "y")
    assert liking("application/vnd.ipld.car;version=2, application/vnd.ipld.raw") == [Format.RAW]
    with pytest.raises(NotAcceptable):
        negotiate(None, "application/vnd.ipld.car;version=2", {})
    # What the URL says makes the header's variant one that is made here.
    assert negotiate(None, "application/vnd.ipld.car;version=2", {"car-version": "1"}).car.version == "1"


@pytest.mark.parametrize(
    "accept", ["application/vnd.ipld.unheard-of", "application/vnd.ipfs.x, application/vnd.ipld.y"]
)
def test_an_unknown_ipfs_format_alone_is_no_request(accept: str) -> None:
    with pytest.raises(BadRequest):
        negotiate(None, accept, {})


def test_a_client_that_refuses_everything_is_told() -> None:
    with pytest.raises(NotAcceptable):
        negotiate(None, "*/*;q=0", {})


def test_of_a_thousand_types_the_first_are_read() -> None:
    accept = ",".join(f"text/x{n};q=0.5" for n in range(1000)) + ",application/vnd.ipld.raw"
    assert negotiate(None, accept, {}).format is Format.DEFAULT
