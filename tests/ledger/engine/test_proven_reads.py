"""Whoever pins a chain need not believe its server: each answer is altered, bit by bit, and none is taken."""

from __future__ import annotations

import copy
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Collection, Iterator
from contextlib import aclosing
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from ledger.engine.client import LedgerClient
from ledger.engine.embedded import EmbeddedEngine
from ledger.engine.errors import (
    ChainMismatch,
    LedgerNotFound,
    LedgerProtocolError,
    LedgerRefused,
    LedgerUnreachable,
)
from ledger.genesis import HOLD
from ledger.transactions import Propose, Spot, Transfer, Vote
from merkledag.cid import CID
from merkledag.peer import peer_text
from storage_node.duties import ShardKey
from storage_node.ledger_view import my_datasets, my_shards
from tests.ledger.engine.conftest import CHAIN, Chain, ManualClock, signer, until
from tests.ledger.engine.liar import Liar, lying
from tests.ledger.engine.test_block_times import open_deal, send, wake_next

OPERATOR, NODE, NOBODY = (signer(name).public_key for name in ("operator", "node", "nobody"))
ABSENT = CID.of(b"no deal", codec=0x71)
PAGE = Path(__file__).resolve().parents[3] / "docs" / "ledger.md"
CAUGHT = (ChainMismatch, LedgerProtocolError, LedgerUnreachable, LedgerRefused)
CHAIN_ITSELF = {"/v1/genesis", "/v1/block/latest"}
Ask = Callable[[LedgerClient], Awaitable[Any]]


class World(NamedTuple):
    """A ledger with something of each kind, behind a liar."""

    liar: Liar
    deal: CID
    dataset: bytes
    proposal: CID

    def client(self, urls: str = "") -> LedgerClient:
        """One that has pinned the chain and its operator."""
        return LedgerClient(
            urls or self.liar.url, self.liar.session, expect_chain=CHAIN, expect_operator=OPERATOR
        )


@pytest.fixture
async def world(engine: EmbeddedEngine, chain: Chain, clock: ManualClock) -> AsyncIterator[World]:
    await open_deal(engine, chain, periods=3)
    proposal = await send(engine, chain.tx("node", 3, Propose({"base_fee": 1_500}, 0, "dearer")))
    await send(engine, chain.tx("node", 4, Vote(proposal, True)))
    while not engine.app.datasets()[0].record.pieces:
        await wake_next(engine, clock)
    (deal,) = engine.app.deals()
    await send(engine, chain.tx("node", 5, Spot(deal.id, 0)))
    while not engine.app.spots()[0].record.seed:
        await wake_next(engine, clock)
    await until(lambda: clock.next_wake_s is not None)  # nothing more is due: what is read stays as it is
    async with lying(engine) as liar:
        yield World(liar, deal.id, engine.app.datasets()[0].id, proposal)


def asked(world: World) -> dict[str, Ask]:
    """Everything that is read of one thing; what it is of is proven, or that it is not there."""
    return {
        "account": lambda client: client.account(NODE),
        "new account": lambda client: client.account(NOBODY),
        "standing": lambda client: client.standing(OPERATOR),
        "nonce": lambda client: client.next_nonce(OPERATOR),
        "params": lambda client: client.params(),
        "no params": lambda client: client.params(7),
        "provider": lambda client: client.provider(NODE),
        "no provider": lambda client: client.provider(NOBODY),
        "validator": lambda client: client.validator(OPERATOR),
        "deal": lambda client: client.deal(world.deal),
        "no deal": lambda client: client.deal(ABSENT),
        "dataset": lambda client: client.dataset(world.dataset),
        "spot": lambda client: client.spot(world.deal, 0),
        "no spot": lambda client: client.spot(world.deal, 9),
        "proposal": lambda client: client.proposal(world.proposal),
        "vote": lambda client: client.vote(world.proposal, NODE),
    }


def listed(world: World) -> dict[str, Ask]:
    """Lists: what is in them is proven, not that nothing is left out."""
    return {
        "providers": lambda client: client.providers(),
        "validators": lambda client: client.validators(),
        "deals": lambda client: client.deals(provider=NODE, active=True),
        "datasets": lambda client: client.datasets(provider=NODE),
        "spots": lambda client: client.spots(provider=NODE),
        "proposals": lambda client: client.proposals(),
    }


def said(world: World) -> dict[str, Ask]:
    """The server's word, by the route that docs/ledger.md names."""
    return {
        "/v1/status": lambda client: client.status(),
        "/v1/account/{account}/history": lambda client: newest_change(client),
        "/v1/dataset/{id}/slots": lambda client: client.dataset_slots(world.dataset),
    }


async def newest_change(client: LedgerClient) -> Any:
    return [change async for change in client.history(NODE)][:1]


def places(value: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The way to everything in an answer that can be altered; of long bytes to three of them."""
    if isinstance(value, dict | list):
        pairs = value.items() if isinstance(value, dict) else enumerate(value)
        for name, each in list(pairs):
            yield from places(each, (*at, name))
        if isinstance(value, list) and value:
            yield (*at, "all")
    elif isinstance(value, bytes) and len(value) > 64:
        yield from ((*at, place) for place in (0, len(value) // 2, len(value) - 1))
    else:
        yield at


def altered(value: Any, way: tuple[Any, ...]) -> Any:
    """The answer with another thing at this place."""
    if not way:
        return other(value)
    name, *rest = way
    if name == "all":
        return []
    if isinstance(value, bytes):
        return value[:name] + bytes([value[name] ^ 1]) + value[name + 1 :]
    changed = copy.copy(value)
    changed[name] = altered(value[name], tuple(rest))
    return changed


def other(value: Any) -> Any:
    """Another value of the same kind."""
    match value:
        case bool():
            return not value
        case int():
            return value + 1
        case str():
            return value + "x"
        case bytes():
            return bytes([value[0] ^ 1]) + value[1:] if value else b"\x01"
        case CID():
            return CID.of(bytes(value), codec=0x71)
    return 1


async def outcome(client: LedgerClient, ask: Ask) -> Any:
    try:
        return await ask(client)
    except LedgerNotFound:
        return None


async def told(world: World, ask: Ask) -> tuple[Any, list[tuple[str, Any]]]:
    """The truth, and the answers that it took."""
    answers: list[tuple[str, Any]] = []

    def note(path: str, answer: Any) -> Any:
        answers.append((path, answer))
        return answer

    world.liar.lie = note
    async with world.client() as client:
        return await outcome(client, ask), answers


async def under_each_lie(
    world: World, ask: Ask, *, only: Collection[str]
) -> AsyncGenerator[tuple[str, Any], None]:
    """What comes of a question while one thing in one answer is altered; None where that is noticed."""
    _, answers = await told(world, ask)
    for number, (path, answer) in enumerate(answers):
        for way in places(answer) if path in only else ():
            count = iter(range(len(answers) + 8))

            def lie(_path: str, said: Any, number: int = number, way: Any = way, count: Any = count) -> Any:
                return altered(said, way) if next(count) == number else said

            world.liar.lie = lie
            async with world.client() as client:
                try:
                    yield f"{path} {way}", await outcome(client, ask)
                except CAUGHT:
                    yield f"{path} {way}", CAUGHT


async def test_no_altered_answer_about_one_thing_is_taken(world: World, engine: EmbeddedEngine) -> None:
    height = engine.app.height
    for name, ask in asked(world).items():
        truth, answers = await told(world, ask)
        assert {path for path, _ in answers} - {*CHAIN_ITSELF, "/v1/prove"} <= {f"/v1/block/{height}"}
        only = {path for path, _ in answers} if name == "account" else {"/v1/prove"}
        caught = 0
        async for lie, got in under_each_lie(world, ask, only=only):
            assert got in (truth, CAUGHT), f"{name}: {lie}"
            caught += got == CAUGHT
        assert caught > 3, name


async def test_what_a_list_has_is_true(world: World) -> None:
    for name, ask in listed(world).items():
        truth, answers = await told(world, ask)
        assert truth
        # The records in a page do not count, only the names: enough to alter them all in one kind of list.
        only = {path for path, _ in answers} - CHAIN_ITSELF if name == "spots" else {"/v1/prove"}
        async for lie, got in under_each_lie(world, ask, only=only):
            assert got == CAUGHT or all(each in truth for each in got), f"{name}: {lie}"
            assert got == CAUGHT or len(got) <= len(truth), f"{name}: {lie}"


async def test_the_page_names_what_is_the_servers_word(world: World) -> None:
    """It is taken as it comes: a page that promised more would be wrong."""
    table = PAGE.read_text().partition("<!-- not proven -->")[2].partition("\n\n")[2].partition("\n\n")[0]
    named = {line.split("`")[1] for line in table.splitlines() if "`/v1/" in line}
    assert set(said(world)) <= named
    for route, ask in said(world).items():
        truth, answers = await told(world, ask)
        async with aclosing(under_each_lie(world, ask, only={answers[-1][0]})) as lies:
            async for _, got in lies:
                if got not in (truth, CAUGHT):
                    break
            else:
                raise AssertionError(f"{route} is better than the page says")


async def test_a_lie_says_which_server_and_another_one_is_asked(world: World, engine: EmbeddedEngine) -> None:
    def rich(path: str, answer: Any) -> Any:
        if path != "/v1/prove":
            return answer
        return altered(answer, ("proofs", 0, len(answer["proofs"][0]) // 2))

    truth = engine.app.account(NODE)
    world.liar.lie = rich
    async with world.client() as client:
        with pytest.raises((ChainMismatch, LedgerProtocolError)) as refused:
            await client.account(NODE)
        assert world.liar.url in str(refused.value)
    for urls in (f"{world.liar.url},{world.liar.upstream}", f"{world.liar.upstream},{world.liar.url}"):
        async with world.client(urls) as client:
            assert await client.account(NODE) == truth


async def test_an_older_state_than_was_seen_is_not_taken(
    world: World, engine: EmbeddedEngine, chain: Chain
) -> None:
    """Its proofs hold: it is what the account had before it paid."""
    before: dict[str, Any] = {}

    def keep(path: str, answer: Any) -> Any:
        return before.setdefault(path, answer) if path == "/v1/prove" else answer

    world.liar.lie = keep
    async with world.client() as client:
        was = await client.account(NODE)
        nonce = engine.app.account(NODE).nonce
        await client.submit(chain.tx("node", nonce, Transfer(OPERATOR, HOLD)))
        with pytest.raises(LedgerUnreachable, match="there is a block"):
            await client.account(NODE)
        world.liar.lie = lambda _, answer: answer
        now = await client.account(NODE)
    assert (now.nonce, now.balance < was.balance) == (was.nonce + 1, True)


async def test_before_the_first_block_it_is_the_servers_word(chain: Chain) -> None:
    engine = chain.engine()
    await engine.start()
    async with (
        lying(engine) as liar,
        LedgerClient(liar.url, expect_chain=CHAIN, expect_operator=OPERATOR) as client,
    ):
        assert (await client.account(OPERATOR)).balance == chain.genesis.issued
        await client.submit(chain.transfer(0))
        # From now on nobody can say that there is none.
        liar.lie = lambda path, answer: {**answer, "height": 0} if path == "/v1/prove" else answer
        with pytest.raises(LedgerUnreachable):
            await client.account(OPERATOR)
    await engine.stop()
    chain.close()


async def test_without_a_pin_nothing_is_proven_and_nothing_asked_for(world: World) -> None:
    paths: list[str] = []

    def note(path: str, answer: Any) -> Any:
        paths.append(path)
        return answer

    world.liar.lie = note
    async with LedgerClient(world.liar.url, expect_chain=CHAIN) as client:
        assert (await client.account(NODE)).balance
        assert (await client.spot(world.deal, 0)) is not None
        with pytest.raises(ValueError, match="pinned"):
            await client.next_nonce(NODE)
    assert f"/v1/account/{peer_text(NODE)}" in paths
    assert "/v1/prove" not in paths


async def test_a_node_keeps_what_a_list_leaves_out(world: World) -> None:
    """What it has a piece of is asked for by name."""
    key = ShardKey(world.deal, 0)
    world.liar.lie = lambda path, answer: (
        {"items": [], "next": None} if path in ("/v1/deals", "/v1/datasets") else answer
    )
    async with world.client() as client:
        assert await my_shards(client, NODE) == []
        found = await my_shards(client, NODE, [key, ShardKey(ABSENT, 0), ShardKey(world.deal, 5)])
        assert [(mine.key, mine.dataset, mine.is_offer) for mine in found] == [(key, world.dataset, False)]
        assert await my_shards(client, OPERATOR, [key]) == []
        assert set(await my_datasets(client, NODE, [world.dataset, bytes(32)])) == {world.dataset}
