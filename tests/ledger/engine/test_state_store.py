"""The state in LMDB: the same as in memory, of one block at any moment, and whole after a crash."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import lmdb
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ledger import keys
from ledger.application import Application, BlockInput, BlockResult
from ledger.engine.errors import CorruptStore, EngineStopped
from ledger.engine.pruned_rows import Pruned
from ledger.engine.state_store import STATE, LmdbRows, Reading
from ledger.engine.storage import LedgerStorage
from ledger.engine.stored import StoredBlock
from ledger.engine.witness import Witness
from ledger.genesis_state import genesis_items
from ledger.state_tree import verify
from ledger.store import Changes, MemoryStore, Rows, Writes
from tests.ledger.naive.crowd import Crowd
from tests.ledger.world import key

KEYS = st.binary(min_size=1, max_size=3)
CHANGES = st.dictionaries(KEYS, st.one_of(st.none(), st.binary(max_size=4)), max_size=300)


@contextmanager
def opened(folder: Path, **options: int) -> Iterator[LedgerStorage]:
    storage = LedgerStorage(folder, **options)  # type: ignore[arg-type]
    storage.open()
    try:
        yield storage
    finally:
        storage.close()


def stored(height: int, writes: Writes, app_hash: bytes) -> StoredBlock:
    digest = hashlib.sha256(b"block %d" % height).digest()
    return StoredBlock(height, b"block", digest, [], b"", {}, writes, app_hash, b"payload", Witness())


def all_rows(rows: Rows) -> dict[bytes, bytes | None]:
    return {key: rows.get(key) for key in rows.scan(b"")}


@given(st.lists(CHANGES, min_size=1, max_size=4), st.lists(st.binary(max_size=4), max_size=4))
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_rows_in_lmdb_are_those_in_memory(
    tmp_path_factory: pytest.TempPathFactory, blocks: list[Changes], starts: list[bytes]
) -> None:
    memory = MemoryStore()
    with opened(tmp_path_factory.mktemp("ledger")) as storage:
        storage.create(b"genesis", [])
        store = storage.committed()
        for height, changes in enumerate(blocks, 1):
            before = all_rows(store.tree)
            writes = Writes(changes, changes, changes)
            storage.apply(stored(height, writes, b""))
            assert all_rows(store.tree) == before  # still the block before, until it is committed
            store.commit(writes)
            memory.commit(writes)
            for ours, theirs in zip((store.state, store.tree, store.index), tables(memory), strict=True):
                assert all_rows(ours) == all_rows(theirs)
                for start in [*starts, bytes(600), b"\xff" * 600]:
                    assert list(ours.scan(start)) == list(theirs.scan(start))
        assert store.state.get(b"") is None
        assert store.state.get(bytes(512)) is None
    with pytest.raises(EngineStopped):
        store.state.get(b"a")


def tables(store: MemoryStore) -> tuple[Rows, Rows, Rows]:
    return store.state, store.tree, store.index


@pytest.mark.parametrize("seed", [1, 2])
def test_random_blocks_lead_to_the_same_app_hash_on_both_stores(
    seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With blocks that are given up, proofs taken in between, and openings anew on the way."""
    blocks: list[tuple[BlockInput, BlockResult]] = []
    finalize = Application.finalize_block

    def recording(self: Application, block: BlockInput) -> BlockResult:
        result = finalize(self, block)
        blocks.append((block, result))
        return result

    with monkeypatch.context() as patch:
        patch.setattr(Application, "finalize_block", recording)
        crowd, rng = Crowd(seed), random.Random(seed)
        for _ in range(40):
            crowd.step()
    genesis = crowd.world.app.genesis
    with opened(tmp_path / "ledger") as storage:
        storage.create(genesis.encode(), genesis_items(genesis).items())
        app = Application(genesis, storage.committed())
        for block, expected in blocks:
            if rng.random() < 0.2:  # another block first, which is given up
                app.finalize_block(
                    BlockInput(block.height, block.block_time_s + 7, block.proposer, block.txs)
                )
                app.abort()
            before, shown = app.app_hash, keys.account(key("operator"))
            result = app.finalize_block(block)
            assert result.app_hash == expected.app_hash
            assert result.writes == expected.writes
            assert verify(app.prove(shown), before)
            storage.apply(stored(block.height, result.writes, result.app_hash))
            assert verify(app.prove(shown), before)  # written, not yet committed
            app.commit()
            assert app.app_hash == result.app_hash
            assert verify(app.prove(shown), result.app_hash)
            if rng.random() < 0.1:
                app = Application(genesis, storage.committed())
        storage.check_state()
        assert dict(storage.state_items()) == dict(app.items()) == dict(crowd.world.app.items())
        assert app.deals() == crowd.world.app.deals()
        assert app.datasets() == crowd.world.app.datasets()
        assert app.providers() == crowd.world.app.providers() != []
        for name in ("ann", "bob"):
            for active in (None, True, False):
                found = app.deals(client=key(name), active=active)
                assert found == crowd.world.app.deals(client=key(name), active=active)


def test_a_block_that_was_not_written_as_a_whole_leaves_the_one_before(tmp_path: Path) -> None:
    """Killed between the state and its tree, or before the transaction ends: all of it is of one block."""

    class KilledError(Exception):
        pass

    genesis = Crowd(3).world.app.genesis
    with opened(tmp_path / "ledger") as storage:
        storage.create(genesis.encode(), genesis_items(genesis).items())
    for point in ("db.begin", "db.state", "db.commit"):

        def fault(at: str, point: str = point) -> None:
            if at == point:
                raise KilledError

        killed = LedgerStorage(tmp_path / "ledger", fault=fault)
        killed.open()
        with pytest.raises(KilledError):
            killed.apply(stored(1, Writes({keys.account(b"x"): b"y"}, {b"b": b""}, {b"c": b""}), bytes(32)))
        killed.abandon()
        with opened(tmp_path / "ledger") as storage:
            storage.check_state()
            assert storage.height() == 0
            assert Application(genesis, storage.committed()).app_hash == storage.app_hash()


def test_a_restored_state_is_that_of_its_block(tmp_path: Path) -> None:
    crowd = Crowd(4)
    for _ in range(10):
        crowd.step()
    app = crowd.world.app
    with opened(tmp_path / "wrong") as storage:
        items = {**dict(app.items()), b"more": b""}
        with pytest.raises(CorruptStore, match="the state has app hash"):
            storage.restore(app.genesis.encode(), items.items(), app.height, b"block", b"name", app.app_hash)
        assert storage.genesis() is None
    with opened(tmp_path / "right") as storage:
        storage.restore(app.genesis.encode(), app.items(), app.height, b"block", b"name", app.app_hash)
        again = Application(app.genesis, storage.committed())
        assert (again.height, again.app_hash, storage.height()) == (app.height, app.app_hash, app.height)
        assert storage.pruned() == Pruned(app.height, app.height)
        storage.check_state()
        assert again.deals() == app.deals()


def test_damage_is_named_by_every_read_that_meets_it(tmp_path: Path) -> None:
    """The first read that meets a bad page spoils its transaction, and the next ones fail for that alone."""
    environment = lmdb.open(str(tmp_path), max_dbs=1)
    table = environment.open_db(STATE)
    with environment.begin(write=True) as write:
        for number in range(2000):
            write.put(b"%d" % number, bytes(100), db=table)
    page_bytes = environment.stat()["psize"]
    environment.close()
    file = tmp_path / "data.mdb"
    raw = file.read_bytes()
    pages = [raw[start : start + page_bytes] for start in range(0, len(raw), page_bytes)]
    # The table's own pages hold many rows. A page's header: flags (2: a leaf), then where its room begins.
    of_rows = [page[10] & 2 and int.from_bytes(page[12:14], "little") > 64 for page in pages[2:]]
    assert any(of_rows)
    kept = [bytes(page_bytes) if hit else page for hit, page in zip(of_rows, pages[2:], strict=True)]
    file.write_bytes(b"".join([*pages[:2], *kept]))
    environment = lmdb.open(str(tmp_path), max_dbs=1)
    reading = Reading(environment)
    rows = LmdbRows(reading, environment.open_db(STATE, txn=reading.txn, create=False))
    for _ in range(2):
        with pytest.raises(CorruptStore, match="database is damaged"):
            rows.get(b"7")
    reading.close()
    environment.close()
