"""The ledger's database: one transaction a block, one owner, and clear errors for damaged files."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

import pytest

from ledger import records, records_governance
from ledger.engine import format as ledger_format
from ledger.engine.errors import CorruptStore, EngineStopped, StoreError
from ledger.engine.storage import LedgerStorage, Place
from ledger.engine.stored import StoredBlock, StoredTx
from ledger.engine.witness import Witness
from ledger.state_tree import StateTree
from ledger.store import Writes


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()


def _block(height: int, txs: int = 2, state: dict[bytes, bytes | None] | None = None) -> StoredBlock:
    return StoredBlock(
        height=height,
        block=b"block %d" % height,
        block_digest=_digest(f"block {height}"),
        txs=[
            StoredTx(b"tx %d" % n, _digest(f"s{height}.{n}"), _digest(f"u{height}.{n}"), b"receipt %d" % n)
            for n in range(txs)
        ],
        events=b"events %d" % height,
        journal={b"a" * 32: b"row %d" % height},
        writes=Writes({b"height": b"%d" % height} if state is None else state, {}, {}),
        app_hash=_digest(f"app {height}"),
        log_payload=b"payload %d" % height,
        witness=Witness(),
    )


def commit(store: LedgerStorage, block: StoredBlock) -> None:
    store.log_block(block)
    store.apply(block)


def _created(folder: Path) -> LedgerStorage:
    store = LedgerStorage(folder)
    store.open()
    store.create(b"genesis", [(b"a", b"1"), (b"b", b"2")])
    return store


def test_a_committed_block_is_found_by_height_place_and_digest(tmp_path: Path) -> None:
    store = _created(tmp_path)
    assert (store.height(), store.app_hash()) == (0, StateTree(store.committed().tree).root)
    assert store.genesis() == b"genesis"
    commit(store, _block(1, state={b"a": None, b"c": b"3"}))
    store.close()

    store = LedgerStorage(tmp_path)
    store.open()
    assert (store.height(), store.app_hash()) == (1, _digest("app 1"))
    assert dict(store.state_items()) == {b"b": b"2", b"c": b"3"}
    assert list(store.state_items(b"c")) == [(b"c", b"3")]
    assert store.block(1) == b"block 1"
    assert (store.tx(1, 1), store.receipt(1, 1), store.tx(1, 2)) == (b"tx 1", b"receipt 1", None)
    assert list(store.journal(b"a" * 32, 5)) == [(1, b"row 1")]
    assert list(store.journal(b"a" * 32, 0)) == list(store.journal(b"b" * 32, 5)) == []
    assert store.txs(1) == [b"tx 0", b"tx 1"]
    assert (store.events(1), store.events(2), store.block(-1), store.txs(1 << 64)) == (
        b"events 1",
        None,
        None,
        [],
    )
    assert store.find(_digest("block 1")) == Place(b"B", 1, 0)
    assert store.find(_digest("s1.1")) == Place(b"S", 1, 1)
    assert store.find(_digest("u1.0")) == Place(b"T", 1, 0)
    assert store.find(_digest("nothing")) is None
    assert list(store.pending()) == []
    store.close()
    with pytest.raises(EngineStopped):
        store.height()


def test_a_logged_block_is_pending_until_it_is_applied(tmp_path: Path) -> None:
    store = _created(tmp_path)
    commit(store, _block(1))
    store.log_block(_block(2))
    store.abandon()
    store = LedgerStorage(tmp_path)
    store.open()
    assert [(record.height, record.payload) for record in store.pending()] == [(2, b"payload 2")]
    store.apply(_block(2))
    assert list(store.pending()) == []
    store.close()


def test_blocks_follow_each_other(tmp_path: Path) -> None:
    store = _created(tmp_path)
    with pytest.raises(StoreError, match="does not follow"):
        store.apply(_block(2))
    with pytest.raises(StoreError, match="already holds"):
        store.create(b"genesis", [])
    store.close()


def test_a_store_has_one_owner(tmp_path: Path) -> None:
    store = _created(tmp_path)
    with pytest.raises(StoreError, match="in use"):
        LedgerStorage(tmp_path).open()
    store.close()
    again = LedgerStorage(tmp_path)
    again.open()
    again.close()


def test_a_crash_inside_the_transaction_leaves_the_block_before(tmp_path: Path) -> None:
    class CrashError(Exception):
        pass

    for point in ("db.begin", "db.state", "db.commit"):

        def fault(at: str, point: str = point) -> None:
            if at == point:
                raise CrashError

        folder = tmp_path / point
        _created(folder).close()
        store = LedgerStorage(folder, fault=fault)
        store.open()
        with pytest.raises(CrashError):
            commit(store, _block(1))
        store.abandon()
        store = LedgerStorage(folder)
        store.open()
        assert store.height() == 0
        assert dict(store.state_items()) == {b"a": b"1", b"b": b"2"}
        assert [record.height for record in store.pending()] == [1]
        store.close()


def test_rotation_happens_behind_a_durable_database(tmp_path: Path) -> None:
    _created(tmp_path).close()
    store = LedgerStorage(tmp_path, segment_bytes=1)
    store.open()
    for height in (1, 2, 3):
        commit(store, _block(height))
    assert [path.name for path in (tmp_path / "wal").iterdir()] == [f"{4:020d}.wal"]
    store.close()
    store = LedgerStorage(tmp_path)
    store.open()
    assert (store.height(), list(store.pending())) == (3, [])
    store.close()


def test_a_log_that_starts_behind_the_database_stops_the_opening(tmp_path: Path) -> None:
    store = _created(tmp_path)
    commit(store, _block(1))
    store._log.rotate(2)
    store.log_block(_block(2))
    store.close()
    for file in (tmp_path / "db").iterdir():
        file.unlink()
    with pytest.raises(CorruptStore, match="ends at block 0 and the write-ahead log starts at 2"):
        LedgerStorage(tmp_path).open()


def test_another_format_is_named(tmp_path: Path) -> None:
    store = _created(tmp_path)
    with store._begin(write=True) as txn:
        txn.put(b"format", b"\x00\x00\x00\x09", db=store._tables[b"meta"])
    store.close()
    with pytest.raises(StoreError, match="another format"):
        LedgerStorage(tmp_path).open()


def test_records_of_another_form_are_another_format(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _created(tmp_path).close()
    with monkeypatch.context() as patch:
        patch.setattr(ledger_format, "FORMS", ledger_format.FORMS[1:])
        ledger_format.mark.cache_clear()
        with pytest.raises(StoreError, match="another format"):
            LedgerStorage(tmp_path).open()
    ledger_format.mark.cache_clear()
    store = LedgerStorage(tmp_path)
    store.open()
    store.close()


def test_the_format_covers_every_record() -> None:
    kept = {
        value
        for module in (records, records_governance)
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, records.Record) and value is not records.Record
    }
    assert kept <= set(ledger_format.FORMS)


READ_ALL = """
import sys
from pathlib import Path
from ledger.engine.errors import StoreError
from ledger.engine.storage import LedgerStorage
store = LedgerStorage(Path(sys.argv[1]))
try:
    store.open()
    for height in range(store.height() + 1):
        store.block(height), store.txs(height), store.receipt(height, 0), store.events(height)
    print("items", len(list(store.state_items())))
except StoreError as error:
    print("error", type(error).__name__, error)
finally:
    store.close()
"""


@pytest.mark.parametrize("keep", [0, 100, 4096, 8192, 20_000, 60_000, 200_000])
def test_a_cut_database_is_an_error_and_never_a_dead_process(tmp_path: Path, keep: int) -> None:
    store = _created(tmp_path)
    for height in range(1, 6):
        commit(store, _block(height, 40, {_digest(f"{height}.{n}"): bytes(700) for n in range(60)}))
    store._log.rotate(6)
    store.close()
    data = tmp_path / "db" / "data.mdb"
    assert data.stat().st_size > 200_000
    with data.open("r+b") as file:
        file.truncate(keep)
    done = subprocess.run(
        [sys.executable, "-c", READ_ALL, str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done
    assert done.stdout.startswith("error CorruptStore"), done
    assert "Traceback" not in done.stderr


FILL = """
import resource, sys
from pathlib import Path
from ledger.engine.errors import StoreError
from ledger.engine.storage import LedgerStorage

try:
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), resource.RLIM_INFINITY))
    store = LedgerStorage(Path(sys.argv[1]))
    store.open()
    store.create(b"genesis", [(b"%d" % n, bytes(500)) for n in range(1_000)])
except StoreError as error:
    print("error", error)
"""


def test_a_write_that_is_cut_short_says_that_the_disk_may_be_full(tmp_path: Path) -> None:
    store = LedgerStorage(tmp_path)
    store.open()
    store.close()
    room_bytes = (tmp_path / "db" / "data.mdb").stat().st_size + 100_000
    done = subprocess.run(
        [sys.executable, "-c", FILL, str(tmp_path), str(room_bytes)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stdout.startswith("error "), done
    assert "maybe no space is left on the disk" in done.stdout, done


def test_garbage_in_the_database_is_an_error(tmp_path: Path) -> None:
    _created(tmp_path).close()
    (tmp_path / "db" / "data.mdb").write_bytes(b"garbage!" * 4096)
    with pytest.raises(CorruptStore, match="restore it from a backup"):
        LedgerStorage(tmp_path).open()
