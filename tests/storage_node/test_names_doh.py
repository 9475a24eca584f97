"""DNSLink over DNS over HTTPS, with a server that really listens."""

from __future__ import annotations

from pathlib import Path

import dns.rcode
import pytest

from merkledag.errors import InvalidPath
from merkledag.path import parse_path
from storage_node.errors import NameNotFound, PeerUnreachable
from storage_node.meta import Meta
from storage_node.names import NameStore
from storage_node.names_dns import MAX_CNAME_STEPS, parse_doh_url
from tests.storage_node.dns_server import Zone
from tests.storage_node.doh_server import Doh
from tests.storage_node.names_world import ONE, TWO, Clock, World
from tests.storage_node.router_server import Routed


@pytest.fixture
def world(tmp_path: Path) -> World:
    clock = Clock()
    return World(NameStore(Meta(tmp_path / "meta"), clock.ns), clock)


def linked(name: str = "site.example", target: str = ONE, ttl_s: int = 77) -> Doh:
    doh = Doh(Zone(ttl_s=ttl_s))
    doh.zone.link(name, target)
    return doh


async def test_a_link_and_its_ttl(world: World) -> None:
    async with world:
        doh = linked(target=TWO + "/sub", ttl_s=77)
        resolver = world.resolver(links=await world.doh(doh))
        target = await resolver.resolve("Site.Example")
        assert (str(target.path), target.ttl_s) == (TWO + "/sub", 77)
        await resolver.resolve("site.example")
        assert len(doh.questions) == 1
        with pytest.raises(NameNotFound, match="no TXT record"):
            await resolver.resolve("other.example")


async def test_the_same_question_looks_the_same_to_caches(world: World) -> None:
    async with world:
        doh = linked()
        resolver = world.resolver(links=await world.doh(doh))
        for _ in range(2):
            await resolver.resolve("site.example", fresh=True)
        assert len(doh.questions) == 2
        assert len(set(doh.questions)) == 1


async def test_time_in_caches_counts(world: World) -> None:
    async with world:
        for age, ttl_s in (("30", 47), ("200", 0), ("nonsense", 77), ("9" * 5000, 77)):
            doh = linked(ttl_s=77)
            doh.headers["Age"] = age
            target = await world.resolver(links=await world.doh(doh)).resolve("site.example")
            assert target.ttl_s == ttl_s


@pytest.mark.parametrize("follow", [True, False])
async def test_cnames_are_followed_at_the_same_server(world: World, follow: bool) -> None:
    async with world:
        zone = Zone(aliases={"_dnslink.a.example": "b.example", "b.example": "c.example"}, follow=follow)
        zone.texts["c.example"] = [f"dnslink={ONE}"]
        resolver = world.resolver(links=await world.doh(Doh(zone)))
        assert str((await resolver.resolve("a.example")).path) == ONE
        assert len(zone.asked) == (1 if follow else 3)


async def test_cnames_without_end_are_not(world: World) -> None:
    async with world:
        aliases = {"_dnslink.a.example": "b.example", "b.example": "_dnslink.a.example"}
        zone = Zone(aliases=aliases, follow=False)
        with pytest.raises(NameNotFound):
            await world.resolver(links=await world.doh(Doh(zone))).resolve("a.example")
        assert len(zone.asked) == MAX_CNAME_STEPS


async def test_an_alias_leads_to_no_local_name(world: World) -> None:
    async with world:
        zone = Zone(aliases={"_dnslink.a.example": "printer.LOCAL"}, follow=False)
        zone.texts["printer.local"] = [f"dnslink={ONE}"]
        for links in (await world.doh(Doh(zone)), await world.links(zone)):
            zone.asked.clear()
            with pytest.raises(NameNotFound):
                await world.resolver(links=links).resolve("a.example")
            assert zone.asked == ["_dnslink.a.example"]


@pytest.mark.parametrize(
    "target",
    [
        "/ipns/127.0.0.1",
        "/ipns/169.254.169.254/latest",
        "/ipns/[::1]",
        "/ipns/localhost",
        "/ipns/router.local",
    ],
)
async def test_an_answer_leads_to_no_address(world: World, target: str) -> None:
    async with world:
        doh, routed = linked(target=target), Routed()
        resolver = world.resolver(await world.router(routed), links=await world.doh(doh))
        with pytest.raises((NameNotFound, InvalidPath)):
            await resolver.follow(parse_path("/ipns/site.example"))
        assert (doh.zone.asked, routed.asked) == (["_dnslink.site.example"], [])


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (Doh(status=500), "answered 500"),
        (Doh(status=302, headers={"Location": "http://127.0.0.1:1/"}), "answered 302"),
        (Doh(content_type="text/html"), "text/html"),
        (Doh(body=b""), "did not answer"),
        (Doh(body=b"x" * 70_000), "more than 65535 bytes"),
        (Doh(wrong_question=True), "another question"),
        (Doh(Zone(rcode=dns.rcode.SERVFAIL)), "SERVFAIL"),
        (Doh(Zone(rcode=dns.rcode.REFUSED)), "REFUSED"),
    ],
)
async def test_what_servers_do_wrong_is_no_answer(world: World, wrong: Doh, said: str) -> None:
    async with world:
        resolver = world.resolver(links=await world.doh(wrong))
        with pytest.raises(PeerUnreachable, match=said):
            await resolver.resolve("site.example")
        assert len(wrong.questions) == 1
        # The next server of the list is asked instead.
        second = world.resolver(links=await world.doh(wrong, linked()))
        assert str((await second.resolve("site.example")).path) == ONE


async def test_a_name_that_does_not_exist_is_an_answer(world: World) -> None:
    async with world:
        first, second = Doh(), linked()
        resolver = world.resolver(links=await world.doh(first, second))
        with pytest.raises(NameNotFound):
            await resolver.resolve("site.example")
        assert second.questions == []


async def test_local_names_never_leave(world: World) -> None:
    async with world:
        doh = linked("printer.local")
        with pytest.raises(NameNotFound):
            await world.resolver(links=await world.doh(doh)).resolve("printer.local")
        assert doh.questions == []


@pytest.mark.parametrize(
    "url",
    [
        "https://dns.example/dns-query", "https://dns.example/dns-query{?dns}", "https://192.0.2.1:8443/q",
        "http://127.0.0.1:8053/dns-query", "http://localhost/dns-query", "http://[::1]/dns-query",
    ],
)  # fmt: skip
def test_addresses_of_servers(url: str) -> None:
    assert parse_doh_url(url) == url.removesuffix("{?dns}")


@pytest.mark.parametrize(
    "text",
    [
        "", "dns.example", "https://", "http://dns.example/dns-query", "http://192.0.2.1/", "ftp://dns.example",
        "https://user@dns.example/", "https://dns.example/#x", "https://dns.example:x/", "https://a/{dns}",
        "https://" + "a" * 600,
    ],
)  # fmt: skip
def test_other_texts_are_no_servers(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        parse_doh_url(text)
