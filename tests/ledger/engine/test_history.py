"""The journal on disk: an account's changes by page, the newest first, and their sum is what it has."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest

from ledger.engine.client import LedgerClient
from ledger.engine.embedded import EmbeddedEngine
from ledger.engine.views import ChangeView
from ledger.genesis import HOLD
from ledger.transactions import Register
from merkledag.peer import peer_text
from tests.ledger.engine.conftest import Chain, signer
from tests.ledger.engine.test_rpc import Http, served


@pytest.fixture
async def http(engine: EmbeddedEngine) -> AsyncIterator[Http]:
    async with served(engine) as url, aiohttp.ClientSession() as session:
        yield Http(url, session)


async def all_pages(http: Http, path: str, limit: int) -> list[Any]:
    items: list[Any] = []
    cursor = ""
    while True:
        page = await http.get(f"{path}?limit={limit}" + (f"&cursor={cursor}" if cursor else ""))
        assert len(page["items"]) <= limit
        items += page["items"]
        if page["next"] is None:
            return items
        cursor = page["next"]


async def test_an_account_is_told_what_happened_to_its_money(http: Http, chain: Chain) -> None:
    alice = signer("alice").public_key
    await http.post(chain.transfer(0, to="alice", amount=50 * HOLD))
    # Several changes of one account in one block, and in several blocks.
    await asyncio.gather(*(http.post(chain.transfer(n, "bob", HOLD, sender="alice")) for n in range(4)))
    await http.post(chain.tx("alice", 4, Register("http://a.example", 1 << 30, alice, 10 * HOLD)))
    path = f"/v1/account/{peer_text(alice)}/history"
    whole = (await http.get(path))["items"]
    for limit in (1, 3, len(whole), 1_000):
        assert await all_pages(http, path, limit) == whole
    assert [item["height"] for item in whole] == sorted((item["height"] for item in whole), reverse=True)
    assert whole[-1] == {
        "height": 1,
        "time": whole[-1]["time"],
        "account": peer_text(alice),
        "place": "balance",
        "amount": 50 * HOLD,
        "why": "transfer",
        "counterparty": peer_text(chain.operator.public_key),
        "deal": None,
        "tx_id": whole[-1]["tx_id"],
    }
    held = {"balance": 0, "stake": 0}
    for item in whole:
        held[item["place"]] += item["amount"]
    record = (await http.get(f"/v1/account/{peer_text(alice)}"))["record"]
    assert held == {"balance": record["balance"], "stake": 10 * HOLD}
    async with LedgerClient(http.url) as client:
        assert [change async for change in client.history(alice)] == [ChangeView.from_json(i) for i in whole]


async def test_the_operator_begins_with_all_there_is(http: Http, chain: Chain) -> None:
    await http.post(chain.transfer(0))
    operator = peer_text(chain.operator.public_key)
    changes = (await http.get(f"/v1/account/{operator}/history"))["items"]
    assert changes[-1]["why"] == "genesis"
    assert (
        sum(change["amount"] for change in changes)
        == ((await http.get(f"/v1/account/{operator}"))["record"]["balance"])
    )


async def test_a_stranger_has_no_history_and_a_bad_cursor_is_refused(http: Http) -> None:
    path = f"/v1/account/{peer_text(signer('nobody').public_key)}/history"
    assert await http.get(path) == {"items": [], "next": None}
    for cursor in ("ff", "zz", "00" * 13):
        assert "cursor" in (await http.get(f"{path}?cursor={cursor}", 400))["error"]
    assert (await http.get(f"{path}?cursor={'ff' * 12}"))["items"] == []
