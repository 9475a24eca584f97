"""Who holds what, learnt from a real ledger: no more of its deals is read than was asked for."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientSession, TraceConfig

from ledger.engine.client import LedgerClient
from ledger.engine.errors import LedgerNotFound
from ledger.engine.sender import Sender
from ledger.genesis import HOLD
from ledger.transactions import Accept, Ask, CreateDeal, PieceCommitment, Register
from merkledag.cid import CID
from merkledag.peer import peer_text
from storage_node.providers import MAX_DEALS, REFRESH_S, ProviderDirectory
from tests.storage_node.network import PARAMS, Home, Network, a_network

PIECE = PieceCommitment(b"\x07" * 32, 10, 10_000, bytes(32), 0, 0)
PRICE = HOLD


@pytest.fixture
async def network(tmp_path: Path) -> AsyncIterator[Network]:
    async with a_network(tmp_path) as network:
        yield network


class Asked:
    """A directory, and the paths that it asked the ledger for."""

    def __init__(self, network: Network, paths: list[str], session: ClientSession) -> None:
        self.paths = paths
        ledger = LedgerClient(network.ledger.url, session, sleep=network.clock.sleep)
        self.directory = ProviderDirectory(ledger, clock=network.clock)

    def clear(self) -> list[str]:
        paths = [*self.paths]
        self.paths.clear()
        return paths


@pytest.fixture
async def asked(network: Network) -> AsyncIterator[Asked]:
    paths: list[str] = []

    async def note(_session: object, _context: object, details: Any) -> None:
        paths.append(details.url.path)

    trace = TraceConfig()
    trace.on_request_start.append(note)
    async with ClientSession(trace_configs=[trace]) as session:
        yield Asked(network, paths, session)


async def a_node(network: Network, name: str) -> Home:
    home = network.home(name)
    await network.fund(home.account)
    await home.sender.send(Register(f"http://{name}.example", 1 << 40, home.account, 500 * HOLD))
    await home.sender.send(Ask(0, 0, 1 << 40, True))
    return home


async def a_deal(client: Sender, content: CID, *nodes: Home) -> CID:
    count = len(nodes)
    body = CreateDeal(
        content=content,
        manifest=CID.of(bytes(content)),
        k=1,
        m=count,
        replicated=False,
        periods=3,
        price=PRICE,
        challenges=PARAMS.challenges,
        pieces=(PIECE,) * count,
        providers=tuple(node.account for node in nodes),
    )
    deal = (await client.send(body)).tx_id
    for index, node in enumerate(nodes):
        await node.sender.send(Accept(deal, index))
    return deal


async def test_a_deal_is_learnt_by_its_content_with_one_request_a_node(
    network: Network, asked: Asked
) -> None:
    one, two = await a_node(network, "one"), await a_node(network, "two")
    wanted, other = CID.of(b"wanted"), CID.of(b"other")
    deal = await a_deal(network.operator, wanted, one, two)
    await a_deal(network.operator, other, one)
    directory = asked.directory
    assert directory.holdings() == ()
    assert await directory.learn_content(wanted)
    assert {(held.deal, held.shard, held.endpoint) for held in directory.holdings()} == {
        (deal, 0, "http://one.example"),
        (deal, 1, "http://two.example"),
    }
    assert len(asked.clear()) == 3
    assert not await directory.learn_content(wanted)
    assert not await directory.learn_content(CID.of(b"nobody's"))
    assert not await directory.learn_content(CID.of(b"nobody's"))
    assert asked.clear() == ["/v1/deals"]


async def test_known_deals_are_read_again_when_they_are_old_or_changed_and_wanted(
    network: Network, asked: Asked
) -> None:
    node = await a_node(network, "one")
    contents = [CID.of(b"%d" % number) for number in range(3)]
    deals = [await a_deal(network.operator, content, node) for content in contents]
    directory = asked.directory
    for content in contents:
        await directory.learn_content(content)
    manifests = [CID.of(bytes(content)) for content in contents]
    asked.clear()
    assert not await directory.refresh(manifests[:1])
    assert asked.clear() == []
    await network.pass_time(REFRESH_S)
    assert not await directory.refresh(manifests[:1])
    assert asked.clear() == [f"/v1/deal/{deals[0]}", f"/v1/provider/{peer_text(node.account)}"]
    await network.steps_until(lambda: bool(network.seen("shard_terminated", deal=deals[0])), "its end")
    for event in network.events:
        directory.note(event)
    assert await directory.refresh(manifests[:1])
    assert {holding.deal for holding in directory.holdings()} == set(deals[1:])


async def test_a_node_s_deals_are_learnt_by_its_endpoint_and_oneself_is_left_out(network: Network) -> None:
    one, two = await a_node(network, "one"), await a_node(network, "two")
    content = CID.of(b"content")
    await a_deal(network.operator, content, one, two)
    directory = ProviderDirectory(one.ledger, clock=network.clock, me=one.account)
    assert not await directory.learn_node("http://two.example")  # nobody that one has heard of
    assert await directory.endpoints() == ("http://two.example",)
    assert await directory.learn_node("http://two.example")
    assert [(held.shard, held.provider) for held in directory.holdings()] == [(1, two.account)]


async def test_a_deal_is_learnt_by_its_id(network: Network) -> None:
    one = await a_node(network, "one")
    content = CID.of(b"content")
    deal = await a_deal(network.operator, content, one)
    directory = ProviderDirectory(one.ledger, clock=network.clock)
    assert await directory.learn_deal(deal) == content
    assert [held.deal for held in directory.holdings()] == [deal]
    with pytest.raises(LedgerNotFound):
        await directory.learn_deal(content)


async def test_what_was_not_asked_for_lately_is_forgotten(
    network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert MAX_DEALS >= 64
    monkeypatch.setattr("storage_node.providers.MAX_DEALS", 2)
    one = await a_node(network, "one")
    deals = [await a_deal(network.operator, CID.of(b"%d" % number), one) for number in range(3)]
    directory = ProviderDirectory(one.ledger, clock=network.clock)
    for deal in deals:
        await directory.learn_deal(deal)
    assert [held.deal for held in directory.holdings()] == [deals[2], deals[1]]
