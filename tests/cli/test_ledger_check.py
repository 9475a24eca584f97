"""`holdfast ledger check` finds what the disk changed, and says what to do."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from ledger import keys
from ledger.engine.blocks import node_cid
from ledger.engine.check import find_damage
from ledger.engine.row_keys import HEIGHT, place_key
from ledger.engine.storage import LedgerStorage
from ledger.transactions import decode
from tests.cli.conftest import Holdfast
from tests.ledger.cometbft.application import genesis, signer, transfer
from tests.ledger.cometbft.lone import Setting

PAID = transfer(0)
DAMAGE = [
    (b"state", keys.account(signer("alice").public_key), "not what its tree says"),
    (b"blocks", HEIGHT.pack(1), "block 1: "),
    (b"txs", place_key(1, 1), "block 1: "),
    (b"receipts", place_key(1, 1), "block 1: "),
    (b"events", HEIGHT.pack(1), "block 1: "),
    (b"index", node_cid(PAID).digest, "block 1: "),
    (b"index", decode(PAID).id.digest, "block 1: "),
]


@pytest.fixture
async def ledger(holdfast: Holdfast) -> Path:
    """The folder of a ledger that stopped after two blocks."""
    chain = Setting(holdfast.home, genesis(1_700_000_000))
    await chain.engine.start()
    chain.node.pool = [PAID]
    await chain.node.block()
    await chain.node.block()
    await chain.close()
    return holdfast.home / "ledger"


def change(folder: Path, table: bytes, key: bytes, value: bytes | None) -> None:
    """Puts other bytes into a row, or takes it away."""
    storage = LedgerStorage(folder)
    storage.open()
    with storage._begin(write=True) as txn:
        db = storage._tables[table]
        assert txn.delete(key, db=db) if value is None else txn.replace(key, value, db=db)
    storage.close()


def damage(folder: Path) -> list[str]:
    """What is found."""
    storage = LedgerStorage(folder)
    storage.open()
    try:
        return list(find_damage(storage, lambda _height: None))
    finally:
        storage.close()


def test_every_damage_is_found_and_named(holdfast: Holdfast, ledger: Path, tmp_path: Path) -> None:
    sound = "the state of block 2, and 2 blocks to it, are sound"
    assert holdfast("ledger", "check").text == sound
    shutil.copytree(ledger, kept := tmp_path / "kept")
    for table, key, told in DAMAGE:
        for value in (b"rubbish" * 9, None):
            change(ledger, table, key, value)
            assert any(told in line for line in damage(ledger)), (table, value)
            shutil.rmtree(ledger)
            shutil.copytree(kept, ledger)
    change(ledger, b"blocks", HEIGHT.pack(2), b"rubbish")
    assert [line[:9] for line in damage(ledger)] == ["block 2: "]
    shutil.rmtree(ledger)
    shutil.copytree(kept, ledger)
    change(ledger, b"events", HEIGHT.pack(1), None)
    result = holdfast("ledger", "check", code=4)
    assert result.text == "block 1: its events are missing"
    assert "begin again by state sync" in result.stderr
    found = holdfast("ledger", "check", "--json", code=4).json
    assert found == {"damaged": [result.text], "first": 1, "height": 2}


def test_there_must_be_a_ledger(holdfast: Holdfast) -> None:
    assert "holds no ledger" in holdfast.fails(3, "ledger", "check")
    assert not (holdfast.home / "ledger").exists()
