"""Bytes on disk that change by themselves: nothing that they say is taken for true, or told to anybody."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path

import aiohttp
import pytest

from ledger import keys
from ledger.engine.blocks import node_cid
from ledger.engine.cometbft.abci import messages
from ledger.engine.cometbft.errors import Disagreement
from ledger.engine.cometbft.state_query import DAMAGED
from ledger.engine.errors import CorruptStore, EngineStopped
from ledger.engine.row_keys import place_key
from ledger.records import AccountRecord
from ledger.transactions import decode
from merkledag.peer import peer_text
from tests.ledger.cometbft.application import genesis, open_storage, signer, transfer
from tests.ledger.cometbft.lone import Setting
from tests.ledger.engine.test_rpc import Http, served

ALICE = keys.account(signer("alice").public_key)


@pytest.fixture
async def setting(tmp_path: Path) -> AsyncIterator[Setting]:
    """A chain of one validator, on which alice was paid; stopped."""
    made = Setting(tmp_path, genesis(1_700_000_000))
    await made.engine.start()
    made.node.pool = [transfer(0)]
    await made.node.block()
    await made.close()
    yield made
    await made.close()


def damage(folder: Path, table: bytes, key: bytes, change: Callable[[bytes], bytes]) -> None:
    """Changes a row past everything else."""
    storage = open_storage(folder)
    with storage._begin(write=True) as txn:
        found = txn.get(key, db=storage._tables[table])
        assert txn.put(key, change(bytes(found)), db=storage._tables[table])
    storage.close()


def one_more(raw: bytes) -> bytes:
    """An account with a unit more than it had."""
    record = AccountRecord.decode(raw)
    return AccountRecord(record.balance + 1, record.nonce).encode()


async def test_a_coin_that_nobody_paid_is_never_spent(setting: Setting) -> None:
    damage(setting.folder, b"state", ALICE, one_more)
    setting.open()
    await setting.engine.start()
    height, app_hash = setting.storage.height(), setting.storage.app_hash()
    setting.node.time_s += 1
    beacon = (await setting.node.propose())[0]
    with pytest.raises(Disagreement, match=r"state is damaged .*not what its tree says"):
        await setting.node.finalize([beacon, transfer(1)])
    assert (setting.storage.height(), setting.storage.app_hash()) == (height, app_hash)


@pytest.mark.parametrize("ask", ["propose", "process"])
async def test_no_proposal_is_made_or_judged_on_a_damaged_state(setting: Setting, ask: str) -> None:
    """An empty one instead would leave the chain of one validator without transactions for ever."""
    damage(setting.folder, b"state", ALICE, one_more)
    setting.open()
    await setting.engine.start()
    setting.node.time_s += 1
    beacon = (await setting.node.propose())[0]
    setting.node.pool = [transfer(1)]
    request = setting.node.request(messages.RequestProcessProposal, [beacon, transfer(1)])
    asked = setting.node.propose() if ask == "propose" else setting.engine.process_proposal(request)
    with pytest.raises(Disagreement, match=r"state is damaged .*begin again by state sync"):
        await asked


async def test_who_sends_from_a_damaged_account_is_not_told_a_lie(setting: Setting) -> None:
    operator = keys.account(signer("operator").public_key)
    damage(setting.folder, b"state", operator, one_more)
    setting.open()
    await setting.engine.start()
    for _ in range(2):  # the second one when it has stopped
        with pytest.raises(EngineStopped, match=r"state is damaged .*begin again by state sync"):
            await setting.engine.submit(transfer(1))
    with pytest.raises(EngineStopped, match=r"state is damaged .*begin again by state sync"):
        await setting.engine.wait_ended()


async def test_a_damaged_balance_is_not_served(setting: Setting) -> None:
    damage(setting.folder, b"state", ALICE, one_more)
    setting.open()
    await setting.engine.start()
    async with served(setting.engine) as url, aiohttp.ClientSession() as session:
        http = Http(url, session)
        alice, operator = (peer_text(signer(name).public_key) for name in ("alice", "operator"))
        told = await http.get(f"/v1/account/{alice}", 503)
        assert "not what its tree says" in told["error"]
        assert (await http.get(f"/v1/account/{operator}"))["account"] == operator
    for prove in (False, True):
        asked = messages.RequestQuery(path=b"/store", data=ALICE, height=1, prove=prove)
        answer = await setting.engine.query(asked)
        assert (answer.code, answer.value) == (DAMAGED, b"")
        assert "not what its tree says" in answer.log


async def test_what_an_id_names_is_what_is_served(setting: Setting) -> None:
    """Not another's transaction, of which a payer would believe that it was the own one."""
    setting.open()
    block = setting.engine.history.block(1)
    assert block is not None
    await setting.close()
    cids = [node_cid(transfer(0)), decode(transfer(0)).id, block.cid]
    for cid in cids[:2]:  # the one before it is the beacon's
        damage(setting.folder, b"index", cid.digest, lambda row: row[:-1] + bytes([row[-1] ^ 1]))
    damage(setting.folder, b"index", block.cid.digest, lambda row: b"S" + row[1:])
    setting.open()
    for cid in cids:
        with pytest.raises(CorruptStore, match=f"where {cid} should be"):
            setting.engine.get_node(cid)
    for cid in cids[:2]:
        with pytest.raises(CorruptStore, match=f"where {cid} should be is another transaction"):
            setting.engine.history.tx(cid)


async def test_damaged_transactions_are_not_said_to_be_pruned(setting: Setting) -> None:
    damage(setting.folder, b"txs", place_key(1, 1), lambda raw: raw[:-1] + bytes([raw[-1] ^ 1]))
    setting.open()
    with pytest.raises(CorruptStore, match="the transactions of block 1 are not those that it names"):
        setting.engine.history.given(1)
