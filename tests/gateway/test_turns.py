"""Many pages at once, and many requests of one connection, leave the event loop to others in between."""

from __future__ import annotations

import asyncio

import pytest

from gateway.pages.folder import ListingPage
from gateway.serving import turns
from gateway.serving.turns import PLACE_S, SLICE_S, Turns, Work
from tests.gateway.support import MemorySource, add_file, add_tree, serving

_PAGES = 24


async def test_who_waits_goes_on_in_order_a_few_a_round() -> None:
    line, order, rounds = Turns(2), [], []

    async def one(name: int) -> None:
        await line.turn()
        order.append(name)

    tasks = [asyncio.create_task(one(name)) for name in range(7)]
    await asyncio.sleep(0)
    tasks[2].cancel()
    while not all(task.done() for task in tasks):
        before = len(order)
        await asyncio.sleep(0)
        rounds.append(len(order) - before)
    assert order == [0, 1, 3, 4, 5, 6]
    assert max(rounds) == 2
    await asyncio.wait_for(line.turn(), 5)  # an empty line starts anew


async def test_a_page_goes_on_before_others_begin_but_not_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(turns, "monotonic", lambda: now[0])
    line, order = Turns(), []

    async def page(name: str, slices: int) -> None:
        work = Work(line)
        for _ in range(slices):
            await work.go_on()
            await work.go_on()  # in the same slice: nobody waits
            order.append(name)
            now[0] += SLICE_S * 1.01

    in_a_place = round(PLACE_S / SLICE_S)
    await asyncio.gather(page("long", in_a_place + 5), page("a", 3), page("b", 3))
    text = "".join(name[0] for name in order)
    assert text.startswith("l" * (in_a_place - 1))
    assert text.rstrip("l").endswith("aaabbb")
    assert text.endswith("l")


async def test_of_many_listings_one_is_made_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    source = MemorySource()
    cid, _ = add_tree(source, {f"a file {number}": b"x" for number in range(300)})
    made: set[int] = set()
    rounds: list[int] = []
    rows = ListingPage.rows

    def counted(self: ListingPage, items: object) -> str:
        made.add(id(self))
        return rows(self, items)  # type: ignore[arg-type]

    async def watch() -> None:
        while True:
            made.clear()
            await asyncio.sleep(0)
            rounds.append(len(made))

    monkeypatch.setattr(ListingPage, "rows", counted)
    async with serving(source) as client:
        plain = await client.ask(f"/ipfs/{cid}/")
        watching = asyncio.create_task(watch())
        answers = await asyncio.gather(*(client.ask(f"/ipfs/{cid}/") for _ in range(_PAGES)))
        watching.cancel()
    assert {answer.body for answer in answers} == {plain.body}
    assert max(rounds) <= 2  # one begins a slice, another may end its own


async def test_of_requests_sent_together_a_few_are_answered_before_others() -> None:
    source = MemorySource()
    cid, _ = add_file(source, b"hello")
    connections, each = 30, 12
    rounds: list[int] = []
    request = f"GET /ipfs/{cid} HTTP/1.1\r\nHost: 127.0.0.1\r\n"

    async with serving(source) as client:
        await client.ask(f"/ipfs/{cid}")
        viewed = source.viewed

        async def ask() -> int:
            reader, writer = await asyncio.open_connection("127.0.0.1", client.listener.port)
            last = f"{request}Connection: close\r\n\r\n"
            writer.write((f"{request}\r\n" * (each - 1) + last).encode())
            answers = await reader.read(-1)
            writer.close()
            return answers.count(b"HTTP/1.1 200")

        async def watch() -> None:
            while True:
                before = source.viewed
                await asyncio.sleep(0)
                rounds.append(source.viewed - before)

        watching = asyncio.create_task(watch())
        counts = await asyncio.gather(*(ask() for _ in range(connections)))
        watching.cancel()
    assert counts == [each] * connections
    assert source.viewed - viewed == connections * each
    # The first of each connection waits for nobody; of the others eight a round go on.
    assert sum(max(0, count - 8) for count in rounds) <= connections
