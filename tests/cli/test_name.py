"""`holdfast name`, names in content paths, and names through the gateway."""

from __future__ import annotations

import base64
import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.error import HTTPError

import pytest

from cli.home import Home
from cli.naming import KeysOfNames
from merkledag import ipns, peer
from merkledag.cid import CID
from merkledag.ed25519 import Ed25519Signer
from tests.cli.background import serving
from tests.cli.conftest import Holdfast
from tests.cli.processes import Process, environment
from tests.storage_node.dags import leaf
from tests.storage_node.dns_server import Zone, dns_server
from tests.storage_node.doh_server import Doh, doh_server
from tests.storage_node.pin_servers import gateway
from tests.storage_node.router_server import Routed, router_server

Tree = Callable[..., Path]
BOB = Ed25519Signer.from_seed(b"b" * 32)
BOBS = peer.peer_text(BOB.public_key)
BOBS_HASH = peer.peer_cid(BOB.public_key).multihash
HOUR_NS = 3600 * 10**9
EMPTY = "/ipfs/bafkqaaa"


def bobs(value: str = EMPTY, *, sequence: int = 0, lifetime_ns: int = HOUR_NS) -> bytes:
    eol_ns = time.time_ns() + lifetime_ns
    return ipns.create(BOB, value, sequence=sequence, eol_ns=eol_ns, ttl_ns=60 * 10**9).raw


@pytest.fixture
def routed(monkeypatch: pytest.MonkeyPatch) -> Iterator[Routed]:
    """A router that the commands use."""
    with serving(router_server(Routed())) as running:
        monkeypatch.setenv("HOLDFAST_NAMES_ROUTERS", running.url)
        yield running


@pytest.fixture
def zone(monkeypatch: pytest.MonkeyPatch) -> Iterator[Zone]:
    """A DNS server that the commands use."""
    with serving(dns_server(Zone())) as running:
        monkeypatch.setenv("HOLDFAST_NAMES_DNS", f"127.0.0.1:{running.port}")
        yield running


class TestPublishing:
    def test_a_name_points_at_content_and_moves(self, holdfast: Holdfast, tree: Tree) -> None:
        first, second = holdfast.add(tree({"a": b"1"}, "one")), holdfast.add(tree({"a": b"2"}, "two"))
        holdfast("init")
        name = holdfast("key", "show", "--json").json["public"]
        assert holdfast("name", "publish", first).text == f"Published to {name}: /ipfs/{first}"
        assert holdfast("cat", "/ipns/self/a").stdout == b"1"
        done = holdfast(
            "name", "publish", f"/ipfs/{second}", "--ttl", "90s", "--lifetime", "1h30m", "--json"
        ).json
        assert done["name"] == name
        assert (done["value"], done["sequence"], done["key"]) == (f"/ipfs/{second}", 1, "self")
        assert (done["ttl_s"], done["lifetime_s"]) == (90, 5400)
        assert holdfast("cat", f"/ipns/{name}/a").stdout == b"2"
        assert holdfast("name", "publish", "-Q", second).text == name

    def test_every_command_follows_names(self, holdfast: Holdfast, tree: Tree, tmp_path: Path) -> None:
        root = holdfast.add(tree({"sub": {"a": b"abc"}}))
        name = holdfast("name", "publish", "-Q", f"/ipfs/{root}/sub").text
        peer_id = holdfast("key", "show", "--json").json["peer_id"]
        for form in (f"/ipns/{name}", f"ipns://{name}", f"/ipns/{peer_id}", "/ipns/self"):
            assert holdfast("cat", f"{form}/a").stdout == b"abc"
        assert holdfast("ls", f"/ipns/{name}").text.endswith(" 3 a")
        cid = holdfast("stat", f"/ipns/{name}", "--json").json["cid"]
        assert holdfast("dag", "resolve", f"/ipns/{name}").text.endswith(cid)
        assert holdfast("pin", "add", f"/ipns/{name}").text == f"pinned {cid} recursive"
        holdfast("get", f"/ipns/{name}", "-o", tmp_path / "got")
        assert (tmp_path / "got" / "a").read_bytes() == b"abc"
        holdfast("car", "export", f"/ipns/{name}", "-o", tmp_path / "x.car")
        assert holdfast("car", "inspect", tmp_path / "x.car", "--json").json["roots"] == [cid]
        holdfast.fails(3, "cat", f"/ipns/{name}/nothing")

    def test_other_keys_and_names_of_names(self, holdfast: Holdfast) -> None:
        blog = holdfast("key", "gen", "blog").text
        holdfast("name", "publish", EMPTY)
        assert holdfast("name", "publish", "/ipns/self", "--key", "blog", "-Q").text == blog
        assert holdfast("name", "publish", "/ipns/self", "-k", blog, "-Q").text == blog
        assert holdfast("name", "resolve", "blog").text == EMPTY
        own = holdfast("key", "show", "--json").json["public"]
        assert holdfast("name", "resolve", f"/ipns/{blog}/x", "--no-recursive").text == f"/ipns/{own}/x"
        assert holdfast("name", "resolve", "--json").json == {
            "name": own, "path": EMPTY, "ttl_s": 300,
        }  # fmt: skip
        holdfast("name", "publish", "/ipns/blog", "--no-resolve")
        assert "back to itself" in holdfast.fails(4, "cat", "/ipns/blog")

    def test_what_is_not_there_is_not_published_unless_asked_for(self, holdfast: Holdfast) -> None:
        absent = "/ipfs/bafkreicysg23kiwv34eg2d7qweipxwosdo2py4ldv42nbauguluen5v6am"
        assert "--no-resolve" in holdfast.fails(3, "name", "publish", absent)
        holdfast.fails(3, "name", "resolve")
        holdfast("name", "publish", "--no-resolve", absent)
        assert holdfast("name", "resolve").text == absent

    def test_sequences(self, holdfast: Holdfast) -> None:
        assert holdfast("name", "publish", EMPTY, "--sequence", "7", "--json").json["sequence"] == 7
        assert "not above 7" in holdfast.fails(4, "name", "publish", EMPTY, "--sequence", "7")
        holdfast.fails(2, "name", "publish", EMPTY, "--sequence", "-5")
        holdfast.fails(2, "name", "publish", EMPTY, "--sequence", str(2**63))

    @pytest.mark.parametrize(
        ("option", "text"),
        [
            ("--lifetime", "soon"),
            ("--lifetime", "0"),
            ("--lifetime", "10"),
            ("--ttl", "-5m"),
            ("--ttl", "5m1"),
        ],
    )
    def test_spans_that_are_none(self, holdfast: Holdfast, option: str, text: str) -> None:
        holdfast.fails(2, "name", "publish", EMPTY, option, text)

    def test_a_lifetime_beyond_the_calendar(self, holdfast: Holdfast) -> None:
        holdfast("name", "publish", EMPTY, "--lifetime", "106751d")  # 292 years
        holdfast.fails(2, "name", "publish", EMPTY, "--lifetime", "106752d")

    def test_old_readers_may_be_left_out(self, holdfast: Holdfast) -> None:
        holdfast("name", "publish", EMPTY)
        assert holdfast(
            "name", "inspect", "-", "--json", stdin=holdfast("name", "export", "self").stdout
        ).json["signature_v1"]
        holdfast("name", "publish", EMPTY, "--no-v1compat")
        shown = holdfast(
            "name", "inspect", "-", "--json", stdin=holdfast("name", "export", "self").stdout
        ).json
        assert shown["signature_v1"] is None

    def test_renewing(self, holdfast: Holdfast) -> None:
        before = holdfast("name", "publish", EMPTY, "--json").json
        assert holdfast("name", "renew").text.startswith(f"renewed {before['name']} until ")
        after = holdfast("name", "renew", "self", "--json").json
        assert after["valid_until"] > before["valid_until"]
        assert (after["sequence"], after["value"]) == (0, EMPTY)
        holdfast("key", "gen", "blog")
        assert "nothing was published" in holdfast.fails(3, "name", "renew", "blog")

    @pytest.mark.parametrize("text", ["nosuchkey", "a b", "", "/ipfs/bafkqaaa", "k51qqq"])
    def test_what_is_no_name(self, holdfast: Holdfast, text: str) -> None:
        holdfast("init")
        result = holdfast("name", "export", text, code=None)
        assert result.code in (2, 3)

    def test_in_an_empty_home(self, holdfast: Holdfast) -> None:
        assert holdfast("name", "ls", "--json").stdout == b""
        assert "no key yet" in holdfast.fails(3, "name", "resolve")


class TestRecords:
    def test_a_record_is_carried_to_another_home(
        self, holdfast: Holdfast, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        name = holdfast("name", "publish", EMPTY, "-Q").text
        file = tmp_path / "record"
        holdfast("name", "export", "self", "-o", file)
        assert holdfast("name", "export", "self").stdout == file.read_bytes()
        assert "exists" in holdfast.fails(4, "name", "export", "self", "-o", file)
        document = holdfast("name", "export", "self", "--json").json
        assert base64.b64decode(document["base64"]) == file.read_bytes()
        monkeypatch.setenv("HOLDFAST_HOME", str(tmp_path / "other"))
        holdfast.fails(3, "name", "resolve", name)
        kept = holdfast("name", "import", name, file, "--json").json
        assert (kept["name"], kept["value"], kept["key"], kept["lifetime_s"]) == (name, EMPTY, None, None)
        assert holdfast("name", "resolve", name).text == EMPTY
        assert holdfast("name", "ls").text.startswith(f"{name}  {EMPTY}  until ")
        assert holdfast("name", "renew").text == ""
        holdfast.fails(3, "name", "renew", name)

    def test_only_valid_and_newer_records_are_kept(self, holdfast: Holdfast) -> None:
        newer = bobs("/ipfs/bafkqaaa/new", sequence=2)
        holdfast("name", "import", BOBS, "-", stdin=newer)
        assert "newer record" in holdfast.fails(4, "name", "import", BOBS, "-", stdin=bobs(sequence=1))
        assert "expired at" in holdfast.fails(4, "name", "import", BOBS, "-", stdin=bobs(lifetime_ns=-1))
        for bad in (b"", b"noise", newer[:-1], newer + bytes(10_240)):
            holdfast.fails(4, "name", "import", BOBS, "-", stdin=bad)
        holdfast("key", "gen", "blog")
        assert "not signed" in holdfast.fails(4, "name", "import", "blog", "-", stdin=newer)
        assert holdfast("name", "resolve", BOBS).text == "/ipfs/bafkqaaa/new"
        assert "DNS name" in holdfast.fails(2, "name", "import", "example.org", "-", stdin=newer)
        holdfast.fails(3, "name", "import", BOBS, "absent.file")

    def test_inspecting(self, holdfast: Holdfast, tmp_path: Path) -> None:
        file = tmp_path / "record"
        eol_ns = 1_900_000_000 * 10**9
        file.write_bytes(
            ipns.create(BOB, EMPTY, sequence=3, eol_ns=eol_ns, ttl_ns=1, extra={"_a": "\x1b[31m"}).raw
        )
        shown = holdfast("name", "inspect", file, "--json").json
        assert (shown["value"], shown["sequence"], shown["valid_until"]) == (EMPTY, 3, "2030-03-17T17:46:40Z")
        assert shown["data"]["_a"] == "\x1b[31m"
        assert "verified" not in shown
        good = holdfast("name", "inspect", file, "--verify", BOBS, "--json").json["verified"]
        assert good == {"name": BOBS, "valid": True, "reason": None}
        holdfast("key", "gen", "blog")
        bad = holdfast("name", "inspect", file, "--verify", "blog", "--json", code=4).json["verified"]
        assert (bad["valid"], bad["reason"]) == (False, "the record is not signed by the name's key")
        lines = holdfast("name", "inspect", file, "--verify", f"/ipns/{BOBS}").text.splitlines()
        assert "sequence: 3" in lines
        assert lines[-1] == "valid: yes"
        assert not any("\x1b" in line for line in lines)
        holdfast.fails(4, "name", "inspect", "-", stdin=b"noise")

    def test_a_record_of_before_2021_is_shown_and_counts_for_nothing(self, holdfast: Holdfast) -> None:
        """Its fields are in the order of their numbers; those of the second signature are the last two."""
        new = bobs(sequence=7)
        old = new[: new.index(ipns.decode(new).signature) - 2]
        shown = holdfast("name", "inspect", "-", "--json", stdin=old, code=4)
        assert "first signature alone" in shown.stderr
        assert (shown.json["value"], shown.json["sequence"]) == (EMPTY, 7)
        assert shown.json["signature_v1"] == base64.b64encode(ipns.decode(new).legacy_signature).decode()
        assert "first signature alone" in holdfast.fails(4, "name", "import", BOBS, "-", stdin=old)


class TestDamagedKeys:
    """A key file that is damaged or gone concerns its own name alone."""

    @pytest.fixture
    def names(self, holdfast: Holdfast) -> dict[str, str]:
        for key in ("blog", "other"):
            holdfast("key", "gen", key)
            holdfast("name", "publish", EMPTY, "--key", key)
        return {row["key"]: row["name"] for row in holdfast("name", "ls", "--json").json_lines}

    def test_the_other_names_go_on(self, holdfast: Holdfast, names: dict[str, str]) -> None:
        (holdfast.home / "keys" / "blog.key").write_text("garbage")
        assert "blog.key" in holdfast.fails(4, "key", "ls")
        assert [row["name"] for row in holdfast("key", "ls", "--json", code=4).json] == ["other"]
        assert len(holdfast("name", "ls", "--json").json_lines) == 2
        done = holdfast("name", "renew", "--json", code=3)
        assert [row["name"] for row in done.json_lines] == [names["other"]]
        assert names["blog"] in done.stderr
        with Home.locate() as home:
            keys = KeysOfNames(home)
            assert keys(peer.parse_name(names["blog"])) is None
            assert keys(peer.parse_name(names["other"])) is not None


class TestNetwork:
    def test_records_go_to_routers_and_come_from_them(
        self, holdfast: Holdfast, routed: Routed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        name = holdfast("name", "publish", EMPTY, "-Q").text
        assert routed.taken == [name]
        monkeypatch.setenv("HOLDFAST_HOME", str(tmp_path / "other"))
        assert holdfast("name", "resolve", name).text == EMPTY
        assert holdfast("cat", f"/ipns/{name}").stdout == b""
        holdfast.fails(3, "name", "resolve", name, "--offline")
        assert holdfast("name", "export", name).stdout == routed.records[name]

    def test_a_key_that_published_elsewhere_counts_on_from_there(
        self, holdfast: Holdfast, routed: Routed, tmp_path: Path
    ) -> None:
        (tmp_path / "bob.key").write_text((b"b" * 32).hex())
        holdfast("key", "import", "bob", tmp_path / "bob.key")
        routed.records[BOBS] = bobs("/ipfs/bafkqaaa/old", sequence=41)
        assert holdfast("name", "publish", EMPTY, "-k", "bob", "--json").json["sequence"] == 42

    def test_when_no_router_takes_it(self, holdfast: Holdfast, routed: Routed) -> None:
        routed.put_status = 500
        failed = holdfast("name", "publish", EMPTY, code=5)
        assert "no router took it" in failed.stderr
        assert holdfast("name", "resolve").text == EMPTY
        holdfast("name", "publish", EMPTY, "--allow-offline")
        holdfast("name", "renew", code=5)
        routed.put_status = 200
        holdfast("name", "renew")
        assert len(routed.taken) == 1

    def test_unreachable_routers_are_5(self, holdfast: Holdfast, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("HOLDFAST_NAMES_ROUTERS", "http://127.0.0.1:1")
        assert "cannot be reached" in holdfast.fails(5, "name", "resolve", BOBS)
        holdfast("name", "import", BOBS, "-", stdin=bobs())
        assert holdfast("name", "resolve", BOBS).text == EMPTY

    def test_dnslink(self, holdfast: Holdfast, zone: Zone, tree: Tree) -> None:
        root = holdfast.add(tree({"a": b"1"}))
        name = holdfast("name", "publish", root, "-Q").text
        zone.link("site.example", f"/ipns/{name}")
        assert holdfast("name", "resolve", "site.example").text == f"/ipfs/{root}"
        assert holdfast("name", "resolve", "site.example", "--no-recursive", "--json").json == {
            "name": "site.example", "path": f"/ipns/{name}", "ttl_s": 77,
        }  # fmt: skip
        assert holdfast("cat", "/ipns/site.example/a").stdout == b"1"
        assert holdfast("cat", "ipns://Site.Example/a").stdout == b"1"
        assert "no DNSLink" in holdfast.fails(3, "cat", "/ipns/other.example/a")
        holdfast.fails(3, "name", "resolve", "site.example", "--offline")

    def test_dnslink_over_https(self, holdfast: Holdfast, monkeypatch: pytest.MonkeyPatch) -> None:
        with serving(doh_server(Doh())) as doh:
            monkeypatch.setenv("HOLDFAST_NAMES_DNS", doh.url)
            doh.zone.link("site.example", EMPTY)
            assert holdfast("name", "resolve", "site.example").text == EMPTY
            assert len(doh.questions) == 1
        holdfast.fails(5, "name", "resolve", "site.example")

    @pytest.mark.parametrize(
        "value",
        [
            "dns.example",
            "off,system",
            "127.0.0.1:99999",
            "http://dns.example/",
            "https://dns.example/,192.0.2.1",
        ],
    )
    def test_settings_that_are_no_dns(
        self, holdfast: Holdfast, monkeypatch: pytest.MonkeyPatch, value: str
    ) -> None:
        monkeypatch.delenv("HOLDFAST_NAMES_DNS")
        holdfast.fails(2, "config", "set", "names.dns", value)
        holdfast.fails(2, "config", "set", "names.routers", "ftp://x.example")


class Server:
    """A gateway in a process of its own."""

    def __init__(self, folder: Path, **env: str) -> None:
        self.env = environment(folder / "home", **env)
        self.process = Process(self.env, "gateway", "--json")
        self.url = next(self.process.lines())["gateway"]

    def run(self, *arguments: str) -> str:
        done = subprocess.run(
            [sys.executable, "-P", "-m", "cli.main", *arguments],
            env=self.env, capture_output=True, text=True, timeout=60, check=True, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        return done.stdout.strip()

    def fetch(self, path: str, **headers: str) -> tuple[int, dict[str, str], bytes]:
        request = urllib.request.Request(self.url + path, headers=headers)
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return answer.status, dict(answer.headers), answer.read()
        except HTTPError as error:
            with error:
                return error.code, dict(error.headers), error.read()


class TestGateway:
    def test_names_over_http(self, tmp_path: Path) -> None:
        far = leaf("kept by somebody else")
        with (
            serving(router_server(Routed())) as routed,
            serving(dns_server(Zone())) as zone,
            serving(gateway([far])) as provider,
        ):
            routed.records[BOBS] = bobs("/ipfs/bafkqadtwgiww63tmpeqhezldn5zgi")
            port = provider.url.rpartition(":")[2]
            routed.providers[str(far.cid)] = [{"Addrs": [f"/ip4/127.0.0.1/tcp/{port}/http"]}]
            server = Server(
                tmp_path,
                HOLDFAST_NAMES_ROUTERS=routed.url,
                HOLDFAST_NAMES_DNS=f"127.0.0.1:{zone.port}",
                HOLDFAST_NETWORK_ALLOW_PRIVATE="true",
            )
            try:
                # The same routers say who has content that is not here.
                assert server.fetch(f"/ipfs/{far.cid}")[2] == far.data
                assert server.fetch(f"/ipfs/{CID.of(b'nobody has it')}")[0] == 404
                zone.link("site.example", f"/ipns/{BOBS}")
                status, headers, body = server.fetch(f"/ipns/{BOBS}")
                assert (status, body) == (200, b"v2-only record")
                assert 0 < int(headers["Cache-Control"].removeprefix("public, max-age=")) <= 60
                assert server.fetch("/ipns/site.example")[2] == b"v2-only record"
                assert server.fetch("/", Host="site.example")[2] == b"v2-only record"
                assert server.fetch("/", Host="other.example")[0] == 404
                record = server.fetch(f"/ipns/{BOBS}", Accept="application/vnd.ipfs.ipns-record")[2]
                assert record == routed.records[BOBS]
                # What is published while it runs is seen at once.
                name = server.run("name", "publish", "/ipfs/bafkqaddwgevxmmraojswg33smq", "-Q")
                assert server.fetch(f"/ipns/{name}")[2] == b"v1+v2 record"
                server.run("name", "publish", EMPTY)
                assert server.fetch(f"/ipns/{name}")[2] == b""
                # Commands without routers of their own ask it for names they do not know.
                del server.env["HOLDFAST_NAMES_ROUTERS"]
                assert server.run("name", "resolve", BOBS) == "/ipfs/bafkqadtwgiww63tmpeqhezldn5zgi"
            finally:
                code, said = server.process.end(signal.SIGTERM)
            assert (code, "Traceback" in said) == (0, False)

    def test_it_renews_names_before_they_expire(self, tmp_path: Path) -> None:
        env = environment(tmp_path / "home")
        command = ["name", "publish", EMPTY, "--lifetime", "2s", "--json"]
        publish = [sys.executable, "-P", "-m", "cli.main", *command]
        done = subprocess.run(publish, env=env, capture_output=True, check=True, timeout=60)
        before = json.loads(done.stdout)
        server = Server(tmp_path)
        try:
            deadline = time.monotonic() + 90
            after: dict[str, Any] = before
            while after["valid_until"] == before["valid_until"] and time.monotonic() < deadline:
                after = json.loads(server.run("name", "ls", "--json"))
        finally:
            server.process.end(signal.SIGTERM)
        assert after["valid_until"] > before["valid_until"]
        assert (after["sequence"], after["value"]) == (before["sequence"], EMPTY)


def test_a_daemon_asks_nobody_for_a_passphrase(
    holdfast: Holdfast, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    phrase = tmp_path / "phrase"
    phrase.write_text("open sesame\n")
    monkeypatch.setenv("HOLDFAST_PASSPHRASE_FILE", str(phrase))
    name = peer.parse_name(holdfast("key", "gen", "blog").text)
    signer = KeysOfNames(Home(holdfast.home))(name)
    assert signer is not None
    assert peer.peer_cid(signer.public_key).multihash == name
    closed = KeysOfNames(Home(holdfast.home, {}))
    assert closed(name) is None
    assert closed(name) is None
    assert KeysOfNames(Home(holdfast.home))(BOBS_HASH) is None


class TestKeys:
    def test_renaming(self, holdfast: Holdfast) -> None:
        public = holdfast("key", "gen", "alice").text
        holdfast("key", "gen", "bob")
        assert "exists already" in holdfast.fails(4, "key", "rename", "alice", "bob")
        renamed = holdfast("key", "rename", "alice", "carol", "--json").json
        assert (renamed["name"], renamed["was"], renamed["public"]) == ("carol", "alice", public)
        holdfast.fails(3, "key", "rename", "alice", "dave")
        holdfast.fails(2, "key", "rename", "carol", "../x")
        assert [row["name"] for row in holdfast("key", "ls", "--json").json] == ["bob", "carol"]

    def test_removing_is_asked_about(self, holdfast: Holdfast) -> None:
        public = holdfast("key", "gen", "alice").text
        assert "--yes" in holdfast.fails(2, "key", "rm", "alice")
        holdfast.fails(3, "key", "rm", "alice", "bob", "--yes")
        assert holdfast("key", "rm", "alice", "--yes").text == public
        holdfast.fails(3, "key", "show", "alice")

    @pytest.mark.parametrize("command", [("rm", "self", "--yes"), ("rename", "self", "x")])
    def test_the_home_keeps_its_own(self, holdfast: Holdfast, command: tuple[str, ...]) -> None:
        holdfast("init")
        holdfast.fails(4, "key", *command)

    def test_a_terminal_is_asked(self, tmp_path: Path) -> None:
        env = environment(tmp_path / "home")
        main = [sys.executable, "-P", "-m", "cli.main"]
        subprocess.run([*main, "key", "gen", "alice"], env=env, check=True, capture_output=True, timeout=60)
        for answer, code in ((b"n\n", 1), (b"\n", 1), (b"y\n", 0)):
            ours, theirs = os.openpty()
            os.write(ours, answer)
            command = [*main, "key", "rm", "alice"]
            done = subprocess.run(
                command, env=env, stdin=theirs, capture_output=True, timeout=60, check=False
            )
            os.close(ours)
            os.close(theirs)
            assert done.returncode == code, done.stderr
            assert (tmp_path / "home" / "keys" / "alice.key").exists() == (code != 0)
