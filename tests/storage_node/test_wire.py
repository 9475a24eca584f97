"""The state document of uploads, and the addresses we connect to."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage_node.endpoints import parse_endpoint
from storage_node.errors import EndpointRefused, PeerMisbehaved
from storage_node.wire import ShardPhase, ShardState, parse_state


@given(st.integers(0, 200).flatmap(lambda n: st.tuples(st.just(n), st.sets(st.integers(0, max(0, n - 1))))))
def test_the_state_document_survives_the_wire(drawn: tuple[int, set[int]]) -> None:
    blocks, missing = drawn
    state = ShardState(ShardPhase.BLOCKS, blocks, frozenset(missing) if blocks else frozenset(), "no")
    assert parse_state(state.to_json()) == state


GOOD: dict[str, Any] = ShardState(ShardPhase.BLOCKS, 9, frozenset({1, 8})).to_json()


@pytest.mark.parametrize(
    "document",
    [
        None,
        [],
        {},
        {**GOOD, "state": "elsewhere"},
        {**GOOD, "blocks": -1},
        {**GOOD, "blocks": 10**12},
        {**GOOD, "blocks": True},
        {**GOOD, "blocks": 8},
        {**GOOD, "blocks": 17},
        {**GOOD, "missing": "!"},
        {**GOOD, "missing": None},
        {**GOOD, "missing": "//8="},
        {**GOOD, "error": 5},
    ],
)
def test_a_document_that_makes_no_sense_is_refused(document: Any) -> None:
    with pytest.raises(PeerMisbehaved):
        parse_state(document)


@pytest.mark.parametrize(
    "text",
    [
        "http://127.0.0.1:4180",
        "http://localhost:4180",
        "http://node.localhost",
        "http://10.0.0.1",
        "http://192.168.1.1",
        "http://169.254.169.254",
        "http://[::1]:4180",
        "http://[::ffff:127.0.0.1]",
        "http://[2002:7f00:1::]",
        "http://[fe80::1]",
        "http://0.0.0.0",
        "http://2130706433",
        "http://127.1",
        "http://224.0.0.1",
    ],
)
def test_private_addresses_are_refused_unless_allowed(text: str) -> None:
    with pytest.raises(EndpointRefused):
        parse_endpoint(text, allow_private=False)
    assert parse_endpoint(text, allow_private=True)


@pytest.mark.parametrize(
    "address",
    [
        "64:ff9b::7f00:1",
        "64:ff9b::10.0.0.1",
        "64:ff9b::169.254.169.254",
        "64:ff9b::8.8.8.8",
        "64:ff9b:1::7f00:1",
        "64:ff9b:1:ffff::10.0.0.1",
        "::127.0.0.1",
        "::7f00:1",
        "::8.8.8.8",
        "::ffff:0:127.0.0.1",
        "::ffff:0:7f00:1",
        "::ffff:10.0.0.1",
        "::ffff:192.0.0.9",
        "2002:a00:1::",
        "2002:a9fe:a9fe::1",
        "2002:c000:9::",
        "2001::1",
        "2001:0:7f00:1::",
        "2001:0:808:808:0:0:f7f7:f7f7",
        "2001:20::1",
        "2001:1::1",
        "2001:db8::1",
        "3fff::1",
        "100::1",
        "1fff::1",
        "4000::1",
        "fec0::1",
        "ff0e::1",
    ],
)
def test_ipv6_that_leads_to_ipv4_or_nowhere_is_refused(address: str) -> None:
    with pytest.raises(EndpointRefused, match="not a public address"):
        parse_endpoint(f"http://[{address}]:4180", allow_private=False)


@pytest.mark.parametrize(
    "address", ["192.0.0.0", "192.0.0.8", "192.0.0.9", "192.0.0.10", "192.0.0.170", "192.88.99.1"]
)
def test_protocol_assignments_are_no_node_s_address(address: str) -> None:
    with pytest.raises(EndpointRefused, match="not a public address"):
        parse_endpoint(f"http://{address}", allow_private=False)


@pytest.mark.parametrize(
    "address",
    ["8.8.8.8", "192.0.1.1", "[2606:4700::1111]", "[2a00::1]", "[::ffff:8.8.8.8]", "[2002:808:808::]"],
)
def test_public_addresses_are_taken(address: str) -> None:
    assert parse_endpoint(f"http://{address}:4180", allow_private=False).port == 4180


@pytest.mark.parametrize("port", [22, 25, 53, 1023])
def test_ports_of_other_services_are_refused(port: int) -> None:
    with pytest.raises(EndpointRefused, match="port"):
        parse_endpoint(f"http://8.8.8.8:{port}", allow_private=False)
    assert parse_endpoint("https://8.8.8.8", allow_private=False).port == 443


@pytest.mark.parametrize(
    "text",
    [
        "",
        "node:4180",
        "ftp://node",
        "http://",
        "http://u:p@node",
        "http://node/x",
        "http://node?a",
        "http://" + "a" * 300,
    ],
)
def test_what_is_no_endpoint_is_refused(text: str) -> None:
    with pytest.raises(EndpointRefused):
        parse_endpoint(text, allow_private=True)


def test_a_public_endpoint_is_its_origin() -> None:
    assert (
        str(parse_endpoint("https://node.example:8443/", allow_private=False)) == "https://node.example:8443"
    )
