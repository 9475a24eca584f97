"""What keeps a store well: healing from a real network, and the process that servers start for it."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from cli.home import Home
from cli.maintenance_duties import duties
from merkledag.cid import CID
from merkledag.steps import iterate
from merkledag.traverse import walk_dag
from storage_node.blockstore import lmdb_file
from storage_node.blockstore.interface import BlockClass
from storage_node.daemon_lock import holder
from storage_node.errors import StoreFull
from storage_node.maintenance import GC, INDEX, DutyRecords
from storage_node.meta import Table
from tests.cli.processes import Process, environment, is_running
from tests.storage_node.content import add_files, some_bytes
from tests.storage_node.dags import pairs, tree
from tests.storage_node.network import Network, a_network

pytestmark = pytest.mark.timeout(300)

FILES = {"a": some_bytes(60_000), "b": some_bytes(9_000, 2)}
PATIENCE_S = 90.0
LOOK_S = 0.2


async def holdfast(env: dict[str, str], *arguments: str, code: int = 0) -> Any:
    """What a command in a process of its own says in JSON, while the network goes on in this one."""
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-P", "-m", "cli.main", *arguments, "--json",
        env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    out, err = await child.communicate()
    assert child.returncode == code, err.decode()
    return json.loads(out) if out else None


async def until(happened: Callable[[], bool], what: str) -> None:
    """Waits for what another process does."""
    deadline_s = time.monotonic() + PATIENCE_S
    while not happened():
        assert time.monotonic() < deadline_s, f"did not happen: {what}"
        await asyncio.sleep(LOOK_S)


class Stored:
    """A home whose content four nodes keep for it, and blocks of it that can be spoilt."""

    def __init__(self, network: Network, folder: Path) -> None:
        self.network = network
        self.home = Home(folder / "home", {})
        self.env = environment(self.home.path, HOLDFAST_LEDGER_URL=network.ledger.url)
        self.blocks: dict[bytes, bytes] = {}
        self.leaves: list[bytes] = []

    async def make(self) -> None:
        network = self.network
        await network.add_providers(4)
        client = network.home("client")
        await network.fund(client.account)
        content = add_files(client.store, FILES)
        with await network.plan(client, content, code=(2, 4)) as plan:
            await network.execute(client, plan)
            self.leaves = list(plan.manifest.plan.leaves)
        for block in iterate(walk_dag(content), lambda cid: client.store.get(cid.multihash)):
            self.blocks[block.cid.multihash] = bytes(block.data)
        self.home.create()
        with self.home as home:
            home.open_store().put_many(self.blocks.items())

    def spoil(self, *multihashes: bytes) -> None:
        """What a disk does."""
        with self.home as home:
            for multihash in multihashes:
                home.open_store().replace(multihash, bytes(len(self.blocks[multihash])))

    def forget(self, multihash: bytes) -> None:
        """No node has this block any more: what is left of it is parity."""
        for provider in self.network.providers:
            provider.home.store.delete_many([multihash])

    def is_well(self, *multihashes: bytes) -> bool:
        with self.home as home:
            return all(home.open_store().get(each) == self.blocks[each] for each in multihashes)


@pytest.fixture
async def stored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Stored]:
    monkeypatch.setattr(lmdb_file, "MAP_BYTES", 1 << 28)
    async with a_network(tmp_path) as network:
        made = Stored(network, tmp_path)
        await made.make()
        yield made


async def test_damaged_blocks_are_healed_from_nodes_and_from_parity(stored: Stored) -> None:
    whole, by_parity, *_ = stored.leaves
    stored.forget(by_parity)
    stored.spoil(whole, by_parity)
    found = await holdfast(stored.env, "repo", "verify", code=4)
    assert len(found["damaged"]) == 2
    assert (await holdfast(stored.env, "repo", "stat"))["damaged"] == 2
    healed = await holdfast(stored.env, "repo", "verify", "--heal")
    assert (healed["found"], healed["healed"], healed["damaged"]) == (2, 2, [])
    assert stored.is_well(whole, by_parity)
    assert (await holdfast(stored.env, "repo", "stat"))["damaged"] == 0


async def test_gateways_that_are_named_heal_what_the_ledger_does_not_know(stored: Stored) -> None:
    stored.env.pop("HOLDFAST_LEDGER_URL")
    leaf = stored.leaves[0]
    stored.spoil(leaf)
    assert (await holdfast(stored.env, "repo", "verify", "--heal", code=5)) is None
    absent = "http://127.0.0.1:9"
    nodes = [f"http://127.0.0.1:{provider.port}" for provider in stored.network.providers]
    left = await holdfast(stored.env, "repo", "verify", "--from", absent, code=4)
    assert left["healed"] == 0
    sources = [word for url in (absent, *nodes) for word in ("--from", url)]
    assert (await holdfast(stored.env, "repo", "verify", *sources))["healed"] == 1
    assert stored.is_well(leaf)


async def test_the_worker_of_a_server_finds_and_heals_damage_and_ends_with_it(stored: Stored) -> None:
    leaf = stored.leaves[0]
    stored.spoil(leaf)
    server = Process(stored.env, "gateway", "--json")
    try:
        await until(lambda: stored.is_well(leaf), "the damaged block is healed")
        worker = holder(stored.home.run / "maintenance.lock")
        assert worker is not None
        assert is_running(worker)
        report = await holdfast(stored.env, "repo", "stat")
        assert (report["maintenance_pid"], report["damaged"]) == (worker, 0)
        assert report["last_heal"]["healed"] == 1
        # A collection gets its turn while the worker is there.
        assert (await holdfast(stored.env, "repo", "gc"))["freed_blocks"] == len(stored.blocks)
    finally:
        server.child.kill()
        server.end()
    await until(lambda: not is_running(worker), "the worker ends with its server")


async def test_a_lost_ledger_and_damage_are_noticed(tmp_path: Path) -> None:
    home = Home(tmp_path / "home", {})
    env = environment(home.path, HOLDFAST_MAINTENANCE_ENABLED="false")
    block = some_bytes(1000)
    with home:
        home.open_store().put_many([(CID.of(block).multihash, block)])
        home.open_store().replace(CID.of(block).multihash, bytes(1000))
        DutyRecords(home.open_meta()).problem(GC, int(time.time()), "a pin lacks a block")
    await holdfast(env, "repo", "verify", code=4)
    server = Process(env, "gateway", "--json")
    try:
        url = next(server.lines())["gateway"]
        problems = {"gc": "a pin lacks a block"}
        assert await holdfast(env, "healthcheck") == {"gateway": url, "damaged": 1, "problems": problems}
    finally:
        server.end(15)
    server = Process(env, "gateway", "--json", "--ledger", "http://127.0.0.1:9")
    try:
        assert next(server.lines())
        await holdfast(env, "healthcheck", code=1)
    finally:
        server.end(15)


async def test_no_worker_runs_where_the_settings_want_none(tmp_path: Path) -> None:
    home = Home(tmp_path / "home", {})
    env = environment(home.path, HOLDFAST_MAINTENANCE_ENABLED="false")
    server = Process(env, "gateway", "--json")
    try:
        assert next(server.lines())["gateway"]
        assert (await holdfast(env, "repo", "stat"))["maintenance_pid"] is None
        assert not (home.run / "maintenance.lock").exists()
    finally:
        assert server.end(15)[0] == 0


async def test_the_worker_collects_when_the_room_is_taken(tmp_path: Path) -> None:
    home = Home(tmp_path / "home", {})
    env = environment(home.path, HOLDFAST_STORAGE_MAX_BYTES="200000")
    kept, cached, garbage = some_bytes(10_000, 1), some_bytes(60_000, 2), some_bytes(120_000, 3)
    with home:
        store = home.open_store()
        store.put_many([(CID.of(kept).multihash, kept), (CID.of(garbage).multihash, garbage)])
        store.put_many([(CID.of(cached).multihash, cached)], BlockClass.CACHE)
        home.open_pins().add(CID.of(kept))
    assert (await holdfast(env, "repo", "stat"))["used_percent"] == 95.0
    server = Process(env, "gateway", "--json")
    try:
        # The cache alone is enough to come down from the high mark: garbage stays until it is reached again.
        await until(lambda: not has(home, cached), "the cache is evicted")
        assert has(home, garbage)
    finally:
        assert server.end(15)[0] == 0
    more = some_bytes(60_000, 4)
    with home:
        home.open_store().put_many([(CID.of(more).multihash, more)])
    server = Process(env, "gateway", "--json")
    try:
        await until(lambda: not has(home, garbage) and not has(home, more), "garbage is collected")
        assert has(home, kept)
        assert (await holdfast(env, "repo", "stat"))["last_gc"]["freed_bytes"] == 180_000
    finally:
        assert server.end(15)[0] == 0


def test_cache_goes_where_the_disk_has_no_room_for_the_records(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise StoreFull("no room")

    monkeypatch.setattr("storage_node.rows.ProofRows.forget", full)
    with Home(tmp_path / "home") as home:
        home.config.set("storage.cache_bytes", 1000)
        store = home.open_store()
        cached = (some_bytes(1000, number) for number in range(100))
        store.put_many(((CID.of(data).multihash, data) for data in cached), BlockClass.CACHE)
        gc = next(duty for duty in duties(home, lambda _: None) if duty.name == GC)
        gc.work(lambda: False)
        assert store.stat().cache_bytes <= 1000


def test_new_pins_are_brought_into_the_index_and_those_that_lack_blocks_wait(tmp_path: Path) -> None:
    home = Home(tmp_path / "home", {})
    whole, lacking = tree("whole"), tree("lacking")
    with home:
        home.open_store().put_many(pairs([*whole, *lacking[:4], *lacking[5:]]))
        pins, meta = home.open_pins(), home.open_meta()
        index = next(duty for duty in duties(home, lambda _: None) if duty.name == INDEX)
        pins.add(whole[-1].cid)
        assert index.work(lambda: True) > 0
        assert [key for key, _ in meta.items(Table.PIN_QUEUE)] == [bytes(whole[-1].cid)]
        soon_s = index.work(lambda: False)
        assert not list(meta.items(Table.PIN_QUEUE))
        pins.add(lacking[-1].cid)
        assert index.work(lambda: False) > soon_s
        assert [key for key, _ in meta.items(Table.PIN_QUEUE)] == [bytes(lacking[-1].cid)]


def has(home: Home, data: bytes) -> bool:
    """Whether a block is in the store."""
    with home:
        return home.open_store().has(CID.of(data).multihash)
