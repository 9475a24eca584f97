"""Denied content, names and paths through a real gateway: in every format, and nothing fetched for it."""

from __future__ import annotations

import asyncio
import hashlib
from dataclasses import replace
from pathlib import Path

import pytest

from gateway.denylists.files import Denylists
from gateway.operating.metrics import Metrics
from gateway.source import NameRecord, NameTarget
from merkledag.builder import build_file
from merkledag.cid import CID
from merkledag.codecs import RAW
from merkledag.peer import peer_text
from merkledag.profile import UNIXFS_V1_2025
from tests.gateway.operating import operated, received_until_cut
from tests.gateway.support import MemoryNames, MemorySource, Tree, add_file, add_tree
from tests.gateway.test_hostile_clients import until

BAD = b"what nobody shall see"
KEY = peer_text(hashlib.sha256(b"a key of nobody").digest())


def lists_of(folder: Path, *rules: str, header: str = "name: The list\n---\n") -> Denylists:
    file = folder / "own.deny"
    file.write_text(header + "".join(f"{rule}\n" for rule in rules))
    return Denylists([file])


@pytest.fixture
def source() -> MemorySource:
    return MemorySource()


async def test_a_denied_block_is_not_served_in_any_format_and_nothing_is_fetched(
    source: MemorySource, tmp_path: Path
) -> None:
    bad, _ = add_file(source, BAD)
    source.move_to_remote()
    async with operated(source, denylist=lists_of(tmp_path, f"/ipfs/{bad}")) as client:
        for query in ("", "?format=raw", "?format=car", "?format=tar", "?format=dag-json"):
            answer = await client.ask(f"/ipfs/{bad}{query}")
            assert answer.status == 410, query
            assert "The list" in answer.text
            assert (await client.ask(f"/ipfs/{bad}{query}", method="HEAD")).status == 410
        inlined = CID.of(BAD, RAW, hash_code=0)
        for form in (bad.encode("base36"), bad.encode("base58btc"), CID(1, 0x70, bad.multihash), inlined):
            assert (await client.ask(f"/ipfs/{form}")).status == 410
        page = await client.ask(f"/ipfs/{bad}", {"Accept": "text/html"})
        assert page.status == 410
        assert "<html" in page.text
    assert source.fetched == []


async def test_a_folder_shows_a_denied_entry_that_leads_nowhere_and_streams_stop_before_it(
    source: MemorySource, tmp_path: Path
) -> None:
    bad, _ = add_file(source, BAD)
    root, _ = add_tree(source, {"a": b"fine", "b": {"bad": BAD}, "c": b"fine too"})
    async with operated(source, denylist=lists_of(tmp_path, f"/ipfs/{bad}")) as client:
        listing = await client.ask(f"/ipfs/{root}/b/", {"Accept": "text/html"})
        assert listing.status == 200
        assert "bad" in listing.text
        for path in ("b/bad", "b/bad?format=raw", "b/bad?format=car"):
            assert (await client.ask(f"/ipfs/{root}/{path}")).status == 410
        assert (await client.ask(f"/ipfs/{root}/a")).body == b"fine"
        for query in ("format=car", "format=tar"):
            received = await received_until_cut(client, f"/ipfs/{root}?{query}")
            assert BAD not in received
        assert (await client.ask(f"/ipfs/{root}?format=car&dag-scope=block")).status == 200


async def test_paths_are_denied_from_every_root_that_leads_to_them(
    source: MemorySource, tmp_path: Path
) -> None:
    site: Tree = {"open": b"1", "shut": {"x": b"2", "fine": b"3"}, "index.html": b"home"}
    root, _ = add_tree(source, site)
    above, _ = add_tree(
        source, {"site": {"open": b"1", "shut": {"x": b"2", "fine": b"3"}, "index.html": b"home"}}
    )
    rules = (f"/ipfs/{root}/shut*", f"!/ipfs/{root}/shut/fine")
    async with operated(source, denylist=lists_of(tmp_path, *rules)) as client:
        for base in (f"/ipfs/{root}", f"/ipfs/{above}/site"):
            assert (await client.ask(f"{base}/open")).body == b"1"
            assert (await client.ask(f"{base}/shut/x")).status == 410
            assert (await client.ask(f"{base}/shut/fine")).body == b"3"
    async with operated(
        source, denylist=lists_of(tmp_path, f"/ipfs/{root}/*", f"!/ipfs/{root}/open")
    ) as client:
        assert (await client.ask(f"/ipfs/{root}/open")).body == b"1"
        for path in ("", "/", "/index.html", "/shut/x", "?format=car"):
            assert (await client.ask(f"/ipfs/{root}{path}")).status == 410
    async with operated(source, denylist=lists_of(tmp_path, f"/ipfs/{root}/index.html")) as client:
        assert (await client.ask(f"/ipfs/{root}/")).status == 410
        assert (await client.ask(f"/ipfs/{root}/open")).status == 200


async def test_names_are_denied_in_every_form_and_through_other_names(
    source: MemorySource, tmp_path: Path
) -> None:
    root, _ = add_tree(source, {"a": b"1"})
    names = MemoryNames(
        {
            KEY: NameTarget(f"/ipfs/{root}", 60),
            "bad.example": NameTarget(f"/ipfs/{root}", 60),
            "over.example": NameTarget("/ipns/bad.example", 60),
            "part.example": NameTarget(f"/ipfs/{root}", 60),
        },
        {KEY: NameRecord(b"record", 60)},
    )
    rules = (f"/ipns/{KEY}", "/ipns/bad.example", "/ipns/part.example/a")
    async with operated(source, names, records=names, denylist=lists_of(tmp_path, *rules)) as client:
        for path in (
            f"{KEY}/a",
            f"{KEY}?format=ipns-record",
            "bad.example/a",
            "over.example/a",
            "part.example/a",
        ):
            assert (await client.ask(f"/ipns/{path}")).status == 410, path
        assert (await client.ask("/a", {"Host": "bad.example"})).status == 410
        assert (await client.ask("/a", {"Host": "part.example"})).status == 410
        assert (await client.ask("/ipns/part.example/")).status == 200
    async with operated(source, names, denylist=lists_of(tmp_path, f"/ipfs/{root}/a")) as client:
        assert (await client.ask("/ipns/part.example/a")).status == 410  # where a name leads counts too


async def test_a_list_says_that_the_law_demands_it(source: MemorySource, tmp_path: Path) -> None:
    bad, _ = add_file(source, BAD)
    rule = f"/ipfs/{bad} status:451 blocked-by:https://court.example/1 reason:court"
    async with operated(source, denylist=lists_of(tmp_path, rule)) as client:
        answer = await client.ask(f"/ipfs/{bad}")
    assert answer.status == 451
    assert answer.headers["link"] == '<https://court.example/1>; rel="blocked-by"'
    assert "court" in answer.text
    header = "name: x\nhints:\n  status: 451\n  blocked-by: 'https://a.example/>evil'\n---\n"
    async with operated(source, denylist=lists_of(tmp_path, f"/ipfs/{bad}", header=header)) as client:
        answer = await client.ask(f"/ipfs/{bad}")
    assert answer.status == 451
    assert "link" not in answer.headers


async def test_lines_appended_while_running_are_taken_up(
    source: MemorySource, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.denylists.files.REFRESH_S", 0.01)
    cid, _ = add_file(source, BAD)
    lists = lists_of(tmp_path)
    async with operated(source, denylist=lists) as client:
        for _ in range(2):  # the second answer is remembered
            assert (await client.ask(f"/ipfs/{cid}")).status == 200
        with (tmp_path / "own.deny").open("a") as out:
            out.write(f"/ipfs/{cid}\n")
        async with asyncio.timeout(60):
            while (await client.ask(f"/ipfs/{cid}")).status == 200:
                pass
        assert (await client.ask(f"/ipfs/{cid}")).status == 410


async def test_a_name_that_leads_through_a_denied_one_opens_what_a_rule_allows_there_and_no_more(
    source: MemorySource, tmp_path: Path
) -> None:
    root, _ = add_tree(source, {"open": b"1", "shut": b"2"})
    names = MemoryNames(
        {
            "over.example": NameTarget("/ipns/bad.example", 60),
            "deep.example": NameTarget("/ipns/bad.example/open", 60),
            "bad.example": NameTarget(f"/ipfs/{root}", 60),
        }
    )
    rules = ("/ipns/bad.example", "!/ipns/bad.example/open")
    async with operated(source, names, denylist=lists_of(tmp_path, *rules)) as client:
        for name in ("bad.example", "over.example"):
            assert (await client.ask(f"/ipns/{name}/open")).body == b"1"
            for path in ("/shut", "/", "", "/shut?format=raw"):
                assert (await client.ask(f"/ipns/{name}{path}")).status == 410, path
            assert (await client.ask("/shut", {"Host": name})).status == 410
            assert (await client.ask("/open", {"Host": name})).body == b"1"
        assert (await client.ask("/ipns/deep.example")).body == b"1"


async def test_no_rule_of_a_site_leads_around_a_denied_path(source: MemorySource, tmp_path: Path) -> None:
    redirects = b"/around /shut 200\n/folder /sub/ 200\n/* /gone 404\n"
    site: Tree = {"_redirects": redirects, "shut": b"2", "gone": b"3", "sub": {"index.html": b"4"}}
    root, _ = add_tree(source, site)
    names = MemoryNames({"site.example": NameTarget(f"/ipfs/{root}", 60)})
    base32 = root.encode("base32")
    for stem in (f"/ipfs/{root}", "/ipns/site.example"):
        rules = [f"{stem}/{path}" for path in ("shut", "gone", "sub/index.html")]
        async with operated(source, names, denylist=lists_of(tmp_path, *rules)) as client:
            for path in ("/shut", "/around", "/folder", "/nowhere", "/sub/", "/sub/index.html"):
                assert (await client.ask(path, {"Host": "site.example"})).status == 410, path
                if stem.startswith("/ipfs"):
                    host = {"Host": f"{base32}.ipfs.localhost"}
                    assert (await client.ask(path, host)).status == 410, path


async def test_a_denied_index_page_is_shown_under_no_address(source: MemorySource, tmp_path: Path) -> None:
    site: Tree = {"index.html": b"home", "a": b"1"}
    root, _ = add_tree(source, site)
    above, _ = add_tree(source, {"site": {"index.html": b"home", "a": b"1"}})
    async with operated(source, denylist=lists_of(tmp_path, f"/ipfs/{root}/index.html")) as client:
        for path in (f"{root}/", f"{root}/index.html", f"{above}/site/", f"{above}/site/index.html"):
            for _ in range(2):
                assert (await client.ask(f"/ipfs/{path}")).status == 410, path
        assert (await client.ask(f"/ipfs/{above}/site/a")).body == b"1"


async def test_blocks_inside_files_and_cids_are_denied(source: MemorySource, tmp_path: Path) -> None:
    """A leaf of a file may be in the store, or in its CID: then no store is asked for it."""
    leaf = CID.of(BAD, RAW)
    inlined = CID.of(BAD, RAW, hash_code=0)
    for part, profile in ((leaf, UNIXFS_V1_2025), (inlined, replace(UNIXFS_V1_2025, inline_bytes=len(BAD)))):
        file, blocks = build_file(profile, [BAD, BAD])
        source.add(blocks)
        async with operated(source) as client:
            assert (await client.ask(f"/ipfs/{file.cid}")).body == 2 * BAD
        for rule in (leaf, inlined):
            passes = part == leaf and rule == inlined
            async with operated(source, denylist=lists_of(tmp_path, f"/ipfs/{rule}")) as client:
                for headers in ({}, {"Range": "bytes=1-4"}):
                    answer = await client.ask(f"/ipfs/{file.cid}", headers)
                    assert (answer.status < 300) == passes
                    assert passes or answer.status == 410
                assert (await client.ask(f"/ipfs/{file.cid}?format=raw")).status == 200


async def test_a_large_file_is_cut_before_a_denied_part(source: MemorySource, tmp_path: Path) -> None:
    fine = bytes(100_000)
    root, _ = add_file(source, fine + BAD, len(fine))
    bad = CID.of(BAD, RAW)
    async with operated(source, denylist=lists_of(tmp_path, f"/ipfs/{bad}")) as client:
        assert await received_until_cut(client, f"/ipfs/{root}") == fine
        assert (await client.ask(f"/ipfs/{root}", {"Range": "bytes=5-99999"})).status == 206


async def test_a_denied_readme_is_not_shown_in_its_folder(source: MemorySource, tmp_path: Path) -> None:
    root, _ = add_tree(source, {"README.md": b"what it is about", "a": b"1"})
    html = {"Accept": "text/html"}
    async with operated(source, denylist=lists_of(tmp_path, f"/ipfs/{root}/a")) as client:
        assert "what it is about" in (await client.ask(f"/ipfs/{root}/", html)).text
    async with operated(source, denylist=lists_of(tmp_path, f"/ipfs/{root}/README.md")) as client:
        page = await client.ask(f"/ipfs/{root}/", html)
        assert page.status == 200
        assert "what it is about" not in page.text


async def test_what_old_rules_let_pass_while_new_ones_came_is_looked_at_again(
    source: MemorySource, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.denylists.files.REFRESH_S", 0.01)
    root, _ = add_tree(source, {"sub": {"file": b"fine until now"}})
    sub, _ = add_tree(source, {"file": b"fine until now"})
    source.move_to_remote()
    source.arrive.clear()
    lists = lists_of(tmp_path, "/ipns/other.example")
    metrics = Metrics()
    async with operated(source, denylist=lists, metrics=metrics) as client:
        asked = asyncio.create_task(client.ask(f"/ipfs/{root}/sub/file"))
        await until(lambda: source.waiting > 0)
        (tmp_path / "own.deny").write_text(f"name: Another list\n---\n/ipfs/{sub}/file\n/ipns/a.example\n")
        await until(lambda: metrics.denylist_rules == 2)
        source.arrive.set()
        assert (await asked).status == 200
        source.here = source.remote
        assert (await client.ask(f"/ipfs/{root}/sub/file")).status == 410
