"""What a resolver remembers: for how long, since when, for whom, and what serves when nobody answers."""

from __future__ import annotations

import asyncio
from pathlib import Path

import dns.rcode
import pytest

from merkledag.path import parse_path
from storage_node.errors import NameNotFound, PeerUnreachable
from storage_node.meta import Meta
from storage_node.names import NameStore
from storage_node.names_cache import (
    ABSENT_TTL_S,
    MAX_CACHE_S,
    MAX_CACHED,
    MAX_STALE_S,
    STALE_TTL_S,
    Changes,
    NameCache,
)
from storage_node.names_dns import TextRecords
from storage_node.names_resolver import MAX_LOOKUPS
from tests.storage_node.dns_server import Zone
from tests.storage_node.names_world import ALICE, BOB, ONE, TWO, Clock, World, name_of, record, text_of
from tests.storage_node.router_server import Routed


@pytest.fixture
def world(tmp_path: Path) -> World:
    clock = Clock()
    return World(NameStore(Meta(tmp_path / "meta"), clock.ns), clock)


def test_times_have_bounds() -> None:
    clock = Clock()
    cache: NameCache[str] = NameCache(clock.s)
    for ttl_s, kept_s in ((0, 1), (60, 60), (10**12, MAX_CACHE_S)):
        cache.put("a", "x", ttl_s)
        assert cache.get("a") == ("x", kept_s)
        clock.now_s += kept_s
        assert cache.get("a") is None


def test_the_least_recent_goes_first() -> None:
    cache: NameCache[int] = NameCache(Clock().s)
    for number in range(MAX_CACHED):
        cache.put(str(number), number, 60)
    assert cache.get("0") is not None
    cache.put("one more", 0, 60)
    assert cache.get("0") is not None
    assert cache.get("1") is None


def test_since_when_forgets_nothing_but_the_least_recent() -> None:
    changes = Changes()
    assert changes.since("a", "x", 5) == 5
    assert changes.since("a", "x", 9) == 5
    assert changes.since("a", "y", 10) == 10
    assert changes.since("a", "x", 11) == 11
    for number in range(MAX_CACHED):
        changes.since(str(number), "x", 12)
    assert changes.since("a", "x", 13) == 13


async def test_the_time_of_a_change_is_when_it_was_seen(world: World) -> None:
    async with world:
        zone = Zone(ttl_s=60)
        zone.link("site.example", ONE)
        resolver = world.resolver(links=await world.links(zone))
        start_s = int(world.clock.now_s)
        seen = ((0, ONE, 0), (100, ONE, 0), (200, TWO, 200), (230, ONE, 200), (261, ONE, 261))
        for at_s, target, changed_s in seen:
            world.clock.now_s = start_s + at_s
            zone.link("site.example", target)
            assert (await resolver.resolve("site.example")).changed_s == start_s + changed_s


async def test_a_renewed_record_is_no_change_and_a_chain_changed_last_where_any_did(world: World) -> None:
    start_s = int(world.clock.now_s)
    world.store.publish(ALICE, ONE)
    resolver = world.resolver(static={"site.example": f"/ipns/{text_of(ALICE)}/a"})
    path = parse_path("/ipns/site.example")
    assert (await resolver.follow(path)).changed_s == start_s
    world.clock.now_s += 100
    world.store.renew(ALICE)
    assert (await resolver.follow(path)).changed_s == start_s
    world.store.publish(ALICE, TWO)
    assert (await resolver.follow(path)).changed_s == start_s + 100


async def test_what_is_left_of_a_ttl_is_said(world: World) -> None:
    async with world:
        zone = Zone(ttl_s=77)
        zone.link("site.example", ONE)
        routed = Routed({text_of(BOB): record(BOB, world.clock, ttl_s=60, lifetime_s=100)})
        resolver = world.resolver(await world.router(routed), links=await world.links(zone))
        for name, left in (("site.example", (77, 47)), (text_of(BOB), (60, 30))):
            assert (await resolver.resolve(name)).ttl_s == left[0]
            world.clock.now_s += 30
            assert (await resolver.resolve(name)).ttl_s == left[1]


async def test_an_old_link_serves_while_no_server_answers(world: World) -> None:
    async with world:
        zone = Zone(ttl_s=60)
        zone.link("site.example", ONE)
        resolver = world.resolver(links=await world.links(zone))
        await resolver.resolve("site.example")
        zone.rcode = dns.rcode.SERVFAIL
        world.clock.now_s += 60
        asked = len(zone.asked)
        for _ in range(3):
            target = await resolver.resolve("site.example")
            assert (str(target.path), target.ttl_s) == (ONE, STALE_TTL_S)
        assert len(set(zone.asked[asked:])) == 1  # tried once, then not for a moment
        tried = len(zone.asked)
        world.clock.now_s += STALE_TTL_S
        await resolver.resolve("site.example")
        assert len(zone.asked) > tried
        world.clock.now_s += MAX_STALE_S
        with pytest.raises(PeerUnreachable):
            await resolver.resolve("site.example")


async def test_a_link_that_was_taken_away_serves_no_more(world: World) -> None:
    async with world:
        zone = Zone(ttl_s=60)
        zone.link("site.example", ONE)
        resolver = world.resolver(links=await world.links(zone))
        await resolver.resolve("site.example")
        world.clock.now_s += 60
        zone.texts.clear()
        with pytest.raises(NameNotFound):
            await resolver.resolve("site.example")
        world.clock.now_s += ABSENT_TTL_S
        zone.rcode = dns.rcode.SERVFAIL
        with pytest.raises(PeerUnreachable):
            await resolver.resolve("site.example")


async def test_an_old_record_serves_while_it_is_valid(world: World) -> None:
    async with world:
        routed = Routed({text_of(BOB): record(BOB, world.clock, ttl_s=60, lifetime_s=110)})
        resolver = world.resolver(await world.router(routed))
        await resolver.resolve(text_of(BOB))
        routed.get_status = 503
        world.clock.now_s += 60
        assert str((await resolver.resolve(text_of(BOB))).path) == ONE
        world.clock.now_s += 30
        assert (await resolver.resolve(text_of(BOB))).ttl_s == 20  # its end comes before the next attempt
        world.clock.now_s += 20
        with pytest.raises(PeerUnreachable):
            await resolver.resolve(text_of(BOB))


async def test_many_who_wait_ask_once_and_one_who_leaves_takes_nobody_along(world: World) -> None:
    async with world:
        begun, gate = asyncio.Event(), asyncio.Event()

        class Slow:
            asked = 0

            async def get(self, name: bytes) -> bytes | None:
                self.asked += 1
                begun.set()
                await gate.wait()
                return record(BOB, world.clock)

            async def put(self, name: bytes, raw: bytes) -> None:
                raise AssertionError

        slow = Slow()
        resolver = world.resolver(slow)
        waiting = [asyncio.ensure_future(resolver.resolve(text_of(BOB))) for _ in range(20)]
        await begun.wait()
        waiting[0].cancel()
        gate.set()
        answers = await asyncio.gather(*waiting, return_exceptions=True)
        assert isinstance(answers[0], asyncio.CancelledError)
        assert {str(answer) for answer in answers[1:]} == {str(answers[1])}
        assert slow.asked == 2  # the one who left had asked for all


async def test_strangers_names_do_not_ask_without_bound(world: World) -> None:
    class Counted:
        now = most = 0

        async def texts(self, name: str) -> TextRecords:
            self.now += 1
            self.most = max(self.most, self.now)
            for _ in range(3):
                await asyncio.sleep(0)
            self.now -= 1
            return TextRecords((f"dnslink={ONE}",), 60)

    links = Counted()
    resolver = world.resolver(links=links)
    await asyncio.gather(*(resolver.resolve(f"n{number}.example") for number in range(5 * MAX_LOOKUPS)))
    assert links.most == MAX_LOOKUPS


async def test_a_kept_name_serves_and_dead_routers_are_not_asked_by_everybody(world: World) -> None:
    async with world:
        world.store.keep(name_of(BOB), record(BOB, world.clock))
        routed = Routed(get_status=503)
        resolver = world.resolver(await world.router(routed))
        for _ in range(5):
            assert str((await resolver.resolve(text_of(BOB))).path) == ONE
        assert len(routed.asked) == 1
