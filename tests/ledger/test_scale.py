"""What blocks, openings and questions cost does not grow with the ledger: counted in rows that are read."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from ledger import keys
from ledger.application import Application, BlockInput
from ledger.genesis import HOLD
from ledger.store import MemoryRows
from ledger.transactions import Accept, Transfer
from tests.ledger.world import World, all_of, key

# Rows of the tree are left out: the first look into one of its 512 regions reads 32 of them, once.
TREE_KEY_BYTES = 5


class Meter:
    """Counts the rows that anything reads, by key or in order."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.rows = 0
        get, scan = MemoryRows.get, MemoryRows.scan

        def counting_get(rows: MemoryRows, name: bytes) -> bytes | None:
            self.rows += len(name) != TREE_KEY_BYTES
            return get(rows, name)

        def counting_scan(rows: MemoryRows, start: bytes) -> Iterator[bytes]:
            for name in scan(rows, start):
                self.rows += 1
                yield name

        monkeypatch.setattr(MemoryRows, "get", counting_get)
        monkeypatch.setattr(MemoryRows, "scan", counting_scan)

    def of(self, call: Callable[[], object]) -> int:
        before = self.rows
        call()
        return self.rows - before


def grown(deals: int, nodes: int) -> World:
    """A ledger with so many deals that were accepted, of two clients, and so many nodes."""
    world = World()
    world.fund("client", "other", amount=100_000 * HOLD)
    world.provider(*(f"node-{number}" for number in range(nodes)))
    for number in range(deals):
        holder = f"node-{number % nodes}"
        deal = world.deal("client" if number % 2 else "other", providers=(holder,), blocks=1)
        world.do(holder, Accept(deal, 0))
    return world


def costs(world: World, meter: Meter) -> dict[str, int]:
    """Rows read by each kind of work, each time by an application that remembers nothing."""
    transfer = world.tx("client", Transfer(key("node-0"), HOLD))
    height, beacon = world.app.height + 1, world.beacon()

    def block(app: Application) -> None:
        app.finalize_block(BlockInput(height, world.now + 1, key("operator"), (beacon, transfer)))
        app.abort()

    middle = world.app.deals()[3].id  # four and more come after it
    work: dict[str, Callable[[Application], object]] = {
        "block": block,
        "client's page": lambda app: app.deals_page(client=key("client"), limit=3),
        "node's page": lambda app: app.deals_page(provider=key("node-0"), limit=3),
        "page of all": lambda app: app.deals_page(limit=3),
        "next page": lambda app: app.deals_page(after=bytes(middle), limit=3, active=True),
        "datasets": lambda app: app.datasets_page(key("node-1"), limit=1),
        "providers": lambda app: app.providers_page(limit=1),
        "proof": lambda app: app.prove(keys.account(key("client"))),
        "next due": lambda app: app.next_due(),
    }
    store = world.app._store
    found = {"opening": meter.of(lambda: Application(world.app.genesis, store))}
    for name, do in work.items():
        app = Application(world.app.genesis, store)
        found[name] = meter.of(lambda do=do, app=app: do(app))  # type: ignore[misc]
    return found


def test_nothing_costs_more_in_a_larger_ledger(monkeypatch: pytest.MonkeyPatch) -> None:
    meter = Meter(monkeypatch)
    small, large = costs(grown(8, 2), meter), costs(grown(48, 4), meter)
    for name, rows in large.items():
        assert rows <= small[name] + 2, (name, small[name], rows)


def test_a_draw_costs_no_more_among_more_nodes(monkeypatch: pytest.MonkeyPatch) -> None:
    meter = Meter(monkeypatch)
    reads = []
    for nodes in (3, 24):
        world = World()
        world.fund("client")
        world.provider(*(f"node-{number}" for number in range(nodes)), stake=20 * HOLD)
        world.deal("client")
        app = Application(world.app.genesis, world.app._store)
        block = BlockInput(app.height + 1, world.now + 1, key("operator"), (world.beacon(),))
        before = meter.rows
        drawn = all_of(app.finalize_block(block).events, "shard_assigned")
        reads.append(meter.rows - before)
        assert len(drawn) == 1
        app.abort()
    assert reads[1] <= reads[0] + 4, reads
