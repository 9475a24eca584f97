"""Names: what the store keeps, what resolving asks and believes, and how names stay alive."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import dns.rcode
import pytest
from aiohttp import ClientSession, web
from aiohttp.test_utils import TestServer

from merkledag import ipns, peer, protobuf
from merkledag.ed25519 import Ed25519Signer
from merkledag.errors import InvalidPath, RecordError, RecordValueInvalid
from merkledag.path import parse_path
from merkledag.rfc3339 import SECOND_NS
from storage_node.endpoints import open_session
from storage_node.errors import (
    CorruptStore,
    NameLoop,
    NameNotFound,
    PeerMisbehaved,
    PeerUnreachable,
    RecordOutdated,
)
from storage_node.meta import Meta, Table
from storage_node.names import NameStore
from storage_node.names_cache import ABSENT_TTL_S
from storage_node.names_dns import MAX_CNAME_STEPS, parse_server
from storage_node.names_renewal import HAND_OUT_EVERY_S, Renewal
from storage_node.names_resolver import MAX_STEPS
from storage_node.names_routing import DelegatedRouter
from storage_node.names_server import add_routing_routes
from tests.storage_node.dns_server import Zone
from tests.storage_node.names_world import (
    ALICE,
    BOB,
    HOUR_S,
    ONE,
    TWO,
    Clock,
    World,
    name_of,
    record,
    text_of,
)
from tests.storage_node.processes import start_python
from tests.storage_node.router_server import Routed


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def meta(tmp_path: Path) -> Meta:
    return Meta(tmp_path / "meta")


@pytest.fixture
def store(meta: Meta, clock: Clock) -> NameStore:
    return NameStore(meta, clock.ns)


class TestStore:
    def test_the_sequence_grows_with_the_value_alone(self, store: NameStore, clock: Clock) -> None:
        sequences = []
        for value in (ONE, ONE, TWO, TWO, ONE):
            clock.now_s += 1
            sequences.append(store.publish(ALICE, value).record.sequence)
        assert sequences == [0, 0, 1, 1, 2]

    def test_a_record_that_would_not_count_gets_the_next_number(self, store: NameStore) -> None:
        assert store.publish(ALICE, ONE, lifetime_s=HOUR_S).record.sequence == 0
        assert store.publish(ALICE, ONE, lifetime_s=60).record.sequence == 1

    def test_a_sequence_of_ones_own_has_to_grow(self, store: NameStore) -> None:
        assert store.publish(ALICE, ONE, sequence=5).record.sequence == 5
        for sequence in (0, 5):
            with pytest.raises(RecordOutdated, match="not above 5"):
                store.publish(ALICE, TWO, sequence=sequence)
        assert store.publish(ALICE, TWO, sequence=9).record.sequence == 9

    def test_what_is_published_is_valid_and_listed(self, store: NameStore, clock: Clock) -> None:
        kept = store.publish(ALICE, ONE, lifetime_s=60, ttl_ns=7 * SECOND_NS, legacy=False)
        ipns.verify(kept.record, name_of(ALICE), clock.ns())
        assert (kept.record.ttl_ns, kept.record.is_legacy) == (7 * SECOND_NS, False)
        assert kept.record.eol_ns == clock.ns() + 60 * SECOND_NS
        store.keep(name_of(BOB), record(BOB, clock))
        assert {each.name: each.lifetime_s for each in store} == {name_of(ALICE): 60, name_of(BOB): None}

    def test_a_newer_record_takes_the_place_and_an_older_one_does_not(
        self, store: NameStore, clock: Clock
    ) -> None:
        newer = record(BOB, clock, TWO, sequence=2)
        store.keep(name_of(BOB), newer)
        store.keep(name_of(BOB), newer)
        for older in (record(BOB, clock, sequence=1), record(BOB, clock, TWO, sequence=2, lifetime_s=60)):
            with pytest.raises(RecordOutdated, match="sequence 2"):
                store.keep(name_of(BOB), older)
        store.keep(name_of(BOB), record(BOB, clock, sequence=3))
        kept = store.get(name_of(BOB))
        assert kept is not None
        assert kept.record.sequence == 3

    def test_a_record_from_elsewhere_raises_the_next_number(self, store: NameStore, clock: Clock) -> None:
        store.keep(name_of(ALICE), record(ALICE, clock, sequence=40))
        assert store.publish(ALICE, TWO).record.sequence == 41

    def test_bad_records_are_not_kept(self, store: NameStore, clock: Clock) -> None:
        good = record(BOB, clock)
        for name, bad in (
            (name_of(ALICE), good),
            (name_of(BOB), good[:-1]),
            (name_of(BOB), record(BOB, clock, lifetime_s=-1)),
            (name_of(BOB), b""),
        ):
            with pytest.raises(RecordError):
                store.keep(name, bad)
        assert list(store) == []

    def test_renewing_says_the_same_for_longer(self, store: NameStore, clock: Clock) -> None:
        first = store.publish(ALICE, ONE, lifetime_s=HOUR_S, ttl_ns=9, legacy=False).record
        clock.now_s += HOUR_S * 2  # expired meanwhile
        renewed = store.renew(ALICE).record
        assert renewed.eol_ns == clock.ns() + HOUR_S * SECOND_NS
        assert (renewed.value, renewed.sequence, renewed.ttl_ns, renewed.is_legacy) == (
            first.value, first.sequence, 9, False,
        )  # fmt: skip
        assert ipns.order(renewed) > ipns.order(first)
        assert store.renew(ALICE).record == renewed
        with pytest.raises(NameNotFound):
            store.renew(BOB)

    def test_repeating_a_record_costs_no_write(
        self, store: NameStore, clock: Clock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Anybody may send a record again and again, and each write waits for the disk."""
        older, newer = (record(BOB, clock, sequence=number) for number in (1, 2))
        store.keep(name_of(BOB), newer)
        monkeypatch.setattr(Meta, "write", lambda self: pytest.fail("this writes"))
        assert store.keep(name_of(BOB), newer).record.raw == newer
        with pytest.raises(RecordOutdated):
            store.keep(name_of(BOB), older)

    def test_renewing_keeps_fields_of_ones_own(self, store: NameStore, clock: Clock) -> None:
        made = ipns.create(
            ALICE, ONE, sequence=3, eol_ns=clock.ns() + SECOND_NS, ttl_ns=1, extra={"_note": "x"}
        )
        store.keep(name_of(ALICE), made.raw)
        assert store.renew(ALICE).record.extra == {"_note": "x"}

    def test_a_damaged_row_is_named(self, store: NameStore, meta: Meta) -> None:
        meta.put(Table.RECORDS, b"ipns/" + name_of(ALICE), b"\xa0")
        with pytest.raises(CorruptStore, match="damaged"):
            store.get(name_of(ALICE))

    def test_kill_9_loses_nothing_and_repeats_no_number(self, tmp_path: Path) -> None:
        code = """
import sys, time
from pathlib import Path
from merkledag.ed25519 import Ed25519Signer
from merkledag.rfc3339 import SECOND_NS
from storage_node.meta import Meta
from storage_node.names import NameStore
store = NameStore(Meta(Path(sys.argv[1])), time.time_ns)
signer = Ed25519Signer.from_seed(b"a" * 32)
while True:
    kept = store.publish(signer, "/ipfs/bafkqaaa/%d" % time.time_ns())
    print(kept.record.sequence, kept.record.raw.hex(), flush=True)
"""
        last, said = -1, {}
        for _ in range(4):
            child = start_python(code, str(tmp_path / "meta"))
            assert child.stdout is not None
            for line in (child.stdout.readline() for _ in range(5)):
                number, raw = line.split()
                assert int(number) == last + 1
                last, said[int(number)] = int(number), raw
            child.send_signal(signal.SIGKILL)
            for line in child.communicate()[0].splitlines(keepends=True):
                if line.endswith("\n"):  # else it was being said
                    number, raw = line.split()
                    last, said[int(number)] = int(number), raw
            kept = NameStore(Meta(tmp_path / "meta"), lambda: 0).get(name_of(ALICE))
            assert kept is not None
            assert kept.record.sequence in (last, last + 1)  # the last one may not have been said
            assert kept.record.sequence > last or kept.record.raw.hex() == said[last]
            last = kept.record.sequence


@pytest.fixture
async def world(store: NameStore, clock: Clock) -> World:
    return World(store, clock)


class TestRouters:
    async def test_records_go_out_and_come_back(self, world: World) -> None:
        async with world:
            routed = Routed()
            router = await world.router(routed)
            raw = record(ALICE, world.clock)
            await router.put(name_of(ALICE), raw)
            assert routed.records == {text_of(ALICE): raw}
            assert await router.get(name_of(ALICE)) == raw
            assert await router.get(name_of(BOB)) is None
            routed.get_status = 404
            assert await router.get(name_of(ALICE)) is None

    async def test_what_routers_do_wrong(self, world: World) -> None:
        async with world:
            routed = Routed({text_of(ALICE): bytes(20_000)})
            router = await world.router(routed)
            with pytest.raises(PeerMisbehaved, match="more than 10240"):
                await router.get(name_of(ALICE))
            routed.content_type = "text/html"
            assert await router.get(name_of(ALICE)) is None
            routed.get_status = 503
            with pytest.raises(PeerUnreachable, match="503"):
                await router.get(name_of(ALICE))
            routed.location = "http://127.0.0.1:1/"
            with pytest.raises(PeerUnreachable, match="302"):
                await router.get(name_of(ALICE))
            routed.put_status = 400
            with pytest.raises(PeerMisbehaved, match="400 to the record: not this one"):
                await router.put(name_of(ALICE), b"x")
            with pytest.raises(PeerUnreachable, match="cannot be reached"):
                await world.dead_router().get(name_of(ALICE))

    async def test_the_best_valid_answer_counts(self, world: World) -> None:
        async with world:
            clock = world.clock
            answers = [
                record(BOB, clock, ONE, sequence=1),
                record(BOB, clock, TWO, sequence=2),
                record(BOB, clock, ONE, sequence=3, lifetime_s=-1),
                record(ALICE, clock, ONE, sequence=9),
                b"noise",
            ]
            routers = [await world.router(Routed({text_of(BOB): raw})) for raw in answers]
            target = await world.resolver(*routers, world.dead_router()).resolve(text_of(BOB))
            assert str(target.path) == TWO
            assert target.ttl_s == 60

    async def test_an_answer_is_remembered_for_its_ttl(self, world: World) -> None:
        async with world:
            routed = Routed({text_of(BOB): record(BOB, world.clock, ttl_s=60)})
            resolver = world.resolver(await world.router(routed))
            await asyncio.gather(*(resolver.resolve(text_of(BOB)) for _ in range(20)))
            assert len(routed.asked) == 1
            world.clock.now_s += 59
            routed.records[text_of(BOB)] = record(BOB, world.clock, TWO, sequence=1)
            target = await resolver.resolve(text_of(BOB))
            assert (str(target.path), len(routed.asked)) == (ONE, 1)
            world.clock.now_s += 1
            assert str((await resolver.resolve(text_of(BOB))).path) == TWO
            await resolver.resolve(text_of(BOB), fresh=True)
            assert len(routed.asked) == 3

    async def test_that_there_is_none_is_remembered_briefly(self, world: World) -> None:
        async with world:
            routed = Routed()
            resolver = world.resolver(await world.router(routed))
            for _ in range(3):
                with pytest.raises(NameNotFound, match="no router"):
                    await resolver.resolve(text_of(BOB))
            assert len(routed.asked) == 1
            world.clock.now_s += ABSENT_TTL_S
            routed.records[text_of(BOB)] = record(BOB, world.clock)
            assert str((await resolver.resolve(text_of(BOB))).path) == ONE

    async def test_a_kept_name_follows_the_routers_and_never_goes_back(self, world: World) -> None:
        async with world:
            world.store.keep(name_of(BOB), record(BOB, world.clock, ONE, sequence=5))
            routed = Routed({text_of(BOB): record(BOB, world.clock, TWO, sequence=4)})
            resolver = world.resolver(await world.router(routed))
            assert str((await resolver.resolve(text_of(BOB))).path) == ONE
            routed.records[text_of(BOB)] = record(BOB, world.clock, TWO, sequence=6)
            assert str((await resolver.resolve(text_of(BOB), fresh=True)).path) == TWO
            kept = world.store.get(name_of(BOB))
            assert kept is not None
            assert kept.record.sequence == 6

    async def test_a_kept_name_is_answered_when_no_router_is_there(self, world: World) -> None:
        async with world:
            world.store.keep(name_of(BOB), record(BOB, world.clock))
            resolver = world.resolver(world.dead_router())
            assert str((await resolver.resolve(text_of(BOB))).path) == ONE
            with pytest.raises(PeerUnreachable):
                await resolver.resolve(text_of(ALICE))

    async def test_ones_own_name_needs_no_router(self, world: World) -> None:
        async with world:
            routed = Routed({text_of(ALICE): record(ALICE, world.clock, TWO, sequence=9)})
            resolver = world.resolver(await world.router(routed))
            world.store.publish(ALICE, ONE)
            assert str((await resolver.resolve(text_of(ALICE))).path) == ONE
            assert routed.asked == []
            assert str((await resolver.resolve(text_of(ALICE), fresh=True)).path) == TWO


class TestServing:
    """This node as a router, with our own client at the other end."""

    async def test_what_is_kept_is_given_and_brought_up_to_date(self, store: NameStore, clock: Clock) -> None:
        async with serving_names(store) as (router, session, url):
            store.keep(name_of(BOB), record(BOB, clock, ttl_s=60))
            assert await router.get(name_of(ALICE)) is None
            assert await router.get(name_of(BOB)) == record(BOB, clock, ttl_s=60)
            newer = record(BOB, clock, TWO, sequence=1)
            await router.put(name_of(BOB), newer)
            assert await router.get(name_of(BOB)) == newer
            with pytest.raises(PeerMisbehaved, match="403"):
                await router.put(name_of(ALICE), record(ALICE, clock))
            for bad in (record(BOB, clock), record(ALICE, clock), b"", bytes(20_000)):
                with pytest.raises(PeerMisbehaved, match="400"):
                    await router.put(name_of(BOB), bad)
            assert await router.get(name_of(BOB)) == newer
            clock.now_s += HOUR_S
            assert await router.get(name_of(BOB)) is None
            for path, headers, status in (
                (text_of(BOB), {"Accept": "application/json"}, 406),
                ("nonsense", {}, 400),
            ):
                async with session.get(f"{url}/{path}", headers=headers) as answer:
                    assert answer.status == status

    async def test_caches_are_told_how_long_it_holds(self, store: NameStore, clock: Clock) -> None:
        async with serving_names(store) as (_, session, url):
            store.keep(name_of(BOB), record(BOB, clock, ttl_s=60))
            async with session.get(f"{url}/{text_of(BOB)}") as answer:
                assert answer.headers["Cache-Control"] == (
                    "public, max-age=60, stale-while-revalidate=3600, stale-if-error=3600"
                )
                assert answer.headers["Expires"] == "Fri, 15 Jan 2027 09:00:00 GMT"
                assert answer.headers["Vary"] == "Accept"

    async def test_pages_of_every_origin_may_ask(self, store: NameStore, clock: Clock) -> None:
        async with serving_names(store) as (_, session, url):
            store.keep(name_of(BOB), record(BOB, clock, ttl_s=60))
            kept, unknown = f"{url}/{text_of(BOB)}", f"{url}/{text_of(ALICE)}"
            for method, where, status in (
                ("OPTIONS", kept, 204), ("GET", kept, 200), ("HEAD", kept, 200), ("GET", unknown, 200),
                ("GET", f"{url}/nonsense", 400), ("PUT", unknown, 406),
            ):  # fmt: skip
                async with session.request(method, where, headers={"Origin": "https://a.example"}) as answer:
                    assert answer.status == status
                    assert answer.headers["Access-Control-Allow-Origin"] == "*"
                    assert "GET" in answer.headers["Access-Control-Allow-Methods"]

    async def test_a_record_that_the_client_has_is_not_sent_again(
        self, store: NameStore, clock: Clock
    ) -> None:
        async with serving_names(store) as (_, session, url):
            store.keep(name_of(BOB), record(BOB, clock, ttl_s=60))
            async with session.get(f"{url}/{text_of(BOB)}") as answer:
                etag = answer.headers["Etag"]
            for known, status in ((etag, 304), (f'"x", W/{etag}', 304), ('"x"', 200)):
                async with session.get(f"{url}/{text_of(BOB)}", headers={"If-None-Match": known}) as answer:
                    assert (answer.status, answer.headers["Etag"]) == (status, etag)


@asynccontextmanager
async def serving_names(store: NameStore) -> AsyncIterator[tuple[DelegatedRouter, ClientSession, str]]:
    app = web.Application()
    add_routing_routes(app, store)
    server = TestServer(app, host="127.0.0.1")
    await server.start_server()
    try:
        async with open_session(allow_private=True) as session:
            url = str(server.make_url("")).rstrip("/")
            yield DelegatedRouter(session, url), session, f"{url}/routing/v1/ipns"
    finally:
        await server.close()


class TestResolving:
    async def test_every_form_of_a_name(self, world: World) -> None:
        world.store.publish(ALICE, TWO)
        cid = peer.peer_cid(ALICE.public_key)
        forms = [cid.encode(base) for base in ("base36", "base32", "base58btc", "base64url")]
        for form in forms:
            assert str((await world.resolver().resolve(form)).path) == TWO

    @pytest.mark.parametrize("name", ["self", "localhost", "bafkqaaa", "192.0.2.1", "a..b", "k51"])
    async def test_what_is_no_name(self, world: World, name: str) -> None:
        with pytest.raises(InvalidPath):
            await world.resolver().resolve(name)

    async def test_an_expired_record_is_none(self, world: World) -> None:
        world.store.publish(ALICE, ONE, lifetime_s=60)
        world.clock.now_s += 60
        with pytest.raises(NameNotFound, match="expired at"):
            await world.resolver().resolve(text_of(ALICE))

    async def test_the_ttl_ends_with_the_record(self, world: World) -> None:
        world.store.publish(ALICE, ONE, lifetime_s=30)
        assert (await world.resolver().resolve(text_of(ALICE))).ttl_s == 30

    async def test_a_value_that_is_no_path(self, world: World) -> None:
        made = ipns.create(ALICE, ONE, sequence=0, eol_ns=world.clock.ns() * 2, ttl_ns=0)
        data = made.data.replace(ONE.encode(), b"x" * len(ONE))
        raw = b"".join(
            protobuf.varint(number << 3 | 2) + protobuf.varint(len(value)) + value
            for number, value in ((8, ALICE.sign(b"ipns-signature:" + data)), (9, data))
        )
        world.store.keep(name_of(ALICE), raw)
        with pytest.raises(RecordValueInvalid):
            await world.resolver().resolve(text_of(ALICE))

    async def test_chains_join_their_paths_and_take_the_shortest_ttl(self, world: World) -> None:
        world.store.publish(ALICE, f"/ipns/{text_of(BOB)}/b", ttl_ns=50 * SECOND_NS)
        world.store.keep(name_of(BOB), record(BOB, world.clock, ONE + "/a", ttl_s=20))
        path = parse_path(f"/ipns/{text_of(ALICE)}/c")
        target = await world.resolver().follow(path)
        assert (str(target.path), target.ttl_s) == (ONE + "/a/b/c", 20)
        once = await world.resolver().follow(path, max_steps=1)
        assert (str(once.path), once.ttl_s) == (f"/ipns/{text_of(BOB)}/b/c", 50)

    async def test_a_loop_is_seen(self, world: World) -> None:
        world.store.publish(ALICE, f"/ipns/{text_of(BOB)}/b")
        cid = peer.peer_cid(ALICE.public_key).encode("base32")
        world.store.keep(name_of(BOB), record(BOB, world.clock, f"/ipns/{cid}/a"))
        with pytest.raises(NameLoop, match="back to itself"):
            await world.resolver().follow(parse_path(f"/ipns/{text_of(ALICE)}"))

    async def test_a_chain_has_an_end(self, world: World) -> None:
        static = {f"n{i}.example": f"/ipns/n{i + 1}.example" for i in range(MAX_STEPS)}
        static[f"n{MAX_STEPS}.example"] = ONE
        resolver = world.resolver(static=static)
        assert str((await resolver.follow(parse_path("/ipns/n1.example"))).path) == ONE
        with pytest.raises(NameLoop, match="more than 32"):
            await resolver.follow(parse_path("/ipns/n0.example"))


class TestDns:
    async def test_a_link_and_its_ttl(self, world: World) -> None:
        async with world:
            zone = Zone(ttl_s=77)
            zone.link("site.example", TWO + "/sub")
            zone.texts["_dnslink.site.example"] += ["v=spf1 -all", "dnslink=/hyper/x", "dnslink=/ipfs/none"]
            resolver = world.resolver(links=await world.links(zone))
            for _ in range(3):
                target = await resolver.resolve("Site.Example.")
                assert (str(target.path), target.ttl_s) == (TWO + "/sub", 77)
            assert zone.asked == ["_dnslink.site.example"]
            world.clock.now_s += 77
            zone.link("site.example", ONE)
            assert str((await resolver.resolve("site.example")).path) == ONE

    @pytest.mark.parametrize("follow", [True, False])
    async def test_cnames_are_followed(self, world: World, follow: bool) -> None:
        async with world:
            zone = Zone(aliases={"_dnslink.a.example": "b.example", "b.example": "c.example"}, follow=follow)
            zone.texts["c.example"] = [f"dnslink={ONE}"]
            resolver = world.resolver(links=await world.links(zone))
            assert str((await resolver.resolve("a.example")).path) == ONE

    async def test_a_loop_of_cnames_ends(self, world: World) -> None:
        async with world:
            aliases = {"_dnslink.a.example": "b.example", "b.example": "_dnslink.a.example"}
            resolver = world.resolver(links=await world.links(Zone(aliases=aliases, follow=False)))
            with pytest.raises(NameNotFound):
                await resolver.resolve("a.example")

    async def test_a_long_chain_of_cnames_is_not_followed(self, world: World) -> None:
        async with world:
            aliases = {f"n{at}.example": f"n{at + 1}.example" for at in range(MAX_CNAME_STEPS)}
            aliases["_dnslink.a.example"] = "n0.example"
            texts = {f"n{MAX_CNAME_STEPS}.example": [f"dnslink={ONE}"]}
            zone = Zone(texts=texts, aliases=aliases, follow=False)
            resolver = world.resolver(links=await world.links(zone))
            with pytest.raises(NameNotFound):
                await resolver.resolve("a.example")
            assert len(zone.asked) == MAX_CNAME_STEPS

    async def test_the_domain_itself_is_not_asked(self, world: World) -> None:
        async with world:
            zone = Zone(texts={"site.example": [f"dnslink={ONE}"]})
            resolver = world.resolver(links=await world.links(zone))
            with pytest.raises(NameNotFound, match=r"no TXT record at _dnslink\.site\.example"):
                await resolver.resolve("site.example")
            with pytest.raises(NameNotFound):
                await resolver.resolve("site.example")
            assert zone.asked == ["_dnslink.site.example"]

    async def test_links_that_contradict_each_other_are_refused(self, world: World) -> None:
        async with world:
            zone = Zone()
            zone.link("two.example", ONE, TWO)
            zone.link("none.example", "/hyper/x")
            zone.link("bare.example", "bafkqaaa")
            resolver = world.resolver(links=await world.links(zone))
            with pytest.raises(NameNotFound, match="contradict"):
                await resolver.resolve("two.example")
            with pytest.raises(NameNotFound, match="no DNSLink among"):
                await resolver.resolve("none.example")
            assert str((await resolver.resolve("bare.example")).path) == ONE

    async def test_long_and_many_records(self, world: World) -> None:
        async with world:
            long = TWO + "/" + "x" * 600
            zone = Zone()
            zone.link("long.example", long)
            zone.link("many.example", ONE)
            zone.texts["_dnslink.many.example"] += ["filler " + str(i) * 200 for i in range(20)]  # over TCP
            resolver = world.resolver(links=await world.links(zone))
            assert str((await resolver.resolve("long.example")).path) == long
            assert str((await resolver.resolve("many.example")).path) == ONE

    async def test_a_server_that_fails_is_not_an_answer(self, world: World) -> None:
        async with world:
            zone = Zone(rcode=dns.rcode.SERVFAIL)
            resolver = world.resolver(links=await world.links(zone))
            for _ in range(2):  # the second time from memory, and still as what it was
                with pytest.raises(PeerUnreachable, match=r"DNS did not answer for site\.example"):
                    await resolver.resolve("site.example")
            assert len(set(zone.asked)) == 1

    @pytest.mark.parametrize("name", ["a.localhost", "printer.local", "x.onion", "x.invalid"])
    async def test_local_names_never_leave(self, world: World, name: str) -> None:
        async with world:
            zone = Zone()
            with pytest.raises(NameNotFound):
                await world.resolver(links=await world.links(zone)).resolve(name)
            assert zone.asked == []

    async def test_static_answers_come_first_and_off_is_off(self, world: World) -> None:
        async with world:
            zone = Zone()
            zone.link("site.example", TWO)
            resolver = world.resolver(links=await world.links(zone), static={"site.example": ONE})
            assert str((await resolver.resolve("site.example")).path) == ONE
            assert zone.asked == []
            with pytest.raises(NameNotFound, match="no DNSLink"):
                await world.resolver().resolve("site.example")

    @pytest.mark.parametrize(
        ("text", "server"),
        [
            ("192.0.2.1", ("192.0.2.1", 53)),
            ("192.0.2.1:5353", ("192.0.2.1", 5353)),
            ("2001:db8::1", ("2001:db8::1", 53)),
            ("[2001:db8::1]:5353", ("2001:db8::1", 5353)),
            ("[2001:db8::1]", ("2001:db8::1", 53)),
        ],
    )
    def test_addresses_of_servers(self, text: str, server: tuple[str, int]) -> None:
        assert parse_server(text) == server

    @pytest.mark.parametrize("text", ["", "dns.example", "192.0.2.1:0", "192.0.2.1:x", "192.0.2.1:99999"])
    def test_other_texts_are_no_servers(self, text: str) -> None:
        with pytest.raises(ValueError, match=r"."):
            parse_server(text)


class TestRenewal:
    @pytest.fixture
    def keys(self) -> dict[bytes, Ed25519Signer]:
        return {name_of(ALICE): ALICE}

    def renewal(self, world: World, keys: dict[bytes, Ed25519Signer], *routers: DelegatedRouter) -> Renewal:
        return Renewal(world.store, world.resolver(*routers), keys.get, clock=world.clock.s)

    def eol_s(self, store: NameStore, clock: Clock) -> float:
        kept = store.get(name_of(ALICE))
        assert kept is not None
        assert kept.record.eol_ns is not None
        return kept.record.eol_ns / SECOND_NS - clock.now_s

    async def test_a_name_is_signed_again_half_way(
        self, world: World, keys: dict[bytes, Ed25519Signer]
    ) -> None:
        world.store.publish(ALICE, ONE, lifetime_s=HOUR_S)
        renewal = self.renewal(world, keys)
        world.clock.now_s += HOUR_S / 2 - 1
        await renewal.check()
        assert self.eol_s(world.store, world.clock) == HOUR_S / 2 + 1
        world.clock.now_s += 1
        await renewal.check()
        assert self.eol_s(world.store, world.clock) == HOUR_S
        world.clock.now_s += 9 * HOUR_S  # the machine slept
        await renewal.check()
        assert self.eol_s(world.store, world.clock) == HOUR_S

    async def test_names_of_others_and_lost_keys_are_left_alone(
        self, world: World, caplog: pytest.LogCaptureFixture
    ) -> None:
        world.store.keep(name_of(BOB), record(BOB, world.clock))
        published = world.store.publish(ALICE, ONE, lifetime_s=10)
        world.clock.now_s += 9
        renewal = self.renewal(world, {name_of(BOB): BOB})
        await renewal.check()
        await renewal.check()
        assert world.store.get(name_of(ALICE)) == published
        assert caplog.text.count("its key is not at hand") == 1

    async def test_routers_are_reminded(self, world: World, keys: dict[bytes, Ed25519Signer]) -> None:
        async with world:
            routed = Routed(put_status=503)
            renewal = self.renewal(world, keys, await world.router(routed))
            world.store.publish(ALICE, ONE, lifetime_s=100 * HOUR_S)
            await renewal.check()
            assert routed.taken == []
            routed.put_status = 200
            await renewal.check()
            await renewal.check()
            assert routed.taken == [text_of(ALICE)]
            world.clock.now_s += HAND_OUT_EVERY_S
            await renewal.check()
            assert len(routed.taken) == 2
            world.clock.now_s += 60 * HOUR_S
            await renewal.check()
            kept = world.store.get(name_of(ALICE))
            assert kept is not None
            assert routed.records[text_of(ALICE)] == kept.record.raw

    async def test_the_task_goes_on_until_it_is_cancelled(
        self, world: World, keys: dict[bytes, Ed25519Signer]
    ) -> None:
        world.store.publish(ALICE, ONE, lifetime_s=30)
        naps: list[float] = []
        third = asyncio.Event()

        async def sleep(seconds: float) -> None:
            naps.append(seconds)
            world.clock.now_s += seconds
            if len(naps) == 3:
                third.set()
                await asyncio.Event().wait()

        renewal = Renewal(world.store, world.resolver(), keys.get, clock=world.clock.s, sleep=sleep)
        task = asyncio.create_task(renewal.run())
        await asyncio.wait_for(third.wait(), 10)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert naps == [15, 15, 15]
        assert self.eol_s(world.store, world.clock) == 15
