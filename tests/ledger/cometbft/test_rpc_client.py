"""The client of CometBFT's RPC against the real program, with its example application."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from ledger.engine.cometbft.rpc.client import CometRpc
from ledger.engine.cometbft.rpc.errors import (
    BadHeight,
    BatchTooLarge,
    CometBusy,
    CometCatchingUp,
    CometProtocolError,
    CometRefused,
    CometUnreachable,
    HeightAhead,
    HeightPruned,
    TxKnown,
    TxTooLarge,
    error_of,
)
from ledger.result import Code
from tests.ledger.cometbft.processes import change_genesis, kvstore, quick_home, until_block
from tests.ports import free_port

pytestmark = [pytest.mark.peers, pytest.mark.asyncio(loop_scope="module")]

FIRST = 10
OTHERS = 150
MAX_TX_BYTES, MAX_POOL_BYTES = 1_500, 2_000
URL = "http://node:26657"


def others(genesis: dict[str, Any], power: int) -> None:
    """As many more validators, who are nowhere."""
    for number in range(OTHERS):
        key = hashlib.sha256(number.to_bytes(2, "big")).digest()
        genesis["validators"].append(
            {
                "address": hashlib.sha256(key).hexdigest()[:40].upper(),
                "pub_key": {"type": "tendermint/PubKeyEd25519", "value": base64.b64encode(key).decode()},
                "power": str(power),
                "name": "",
            }
        )


def small_node(home: Path, power: int) -> int:
    """A node whose own power is `power` beside the others' 1 each; the port of its RPC."""
    port = quick_home(home, {"mempool.max_tx_bytes": MAX_TX_BYTES, "mempool.max_txs_bytes": MAX_POOL_BYTES})

    def change(genesis: dict[str, Any]) -> None:
        genesis["initial_height"] = str(FIRST)
        genesis["validators"][0]["power"] = str(power)
        others(genesis, 1)

    change_genesis(home, change)
    return port


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def rpc(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[CometRpc]:
    """A node that makes blocks alone, from block 10 on."""
    home = tmp_path_factory.mktemp("comet")
    async with kvstore(home, small_node(home, 1_000_000)) as rpc:
        await until_block(rpc, FIRST)
        yield rpc


async def test_a_node_tells_of_itself_and_of_its_blocks(rpc: CometRpc) -> None:
    status = await rpc.status()
    assert status.earliest_height == FIRST <= status.height
    assert not status.catching_up
    assert status.power == 1_000_000
    assert status.address == hashlib.sha256(status.public_key).digest()[:20]
    assert (await rpc.net_info())["n_peers"] == "0"
    assert int((await rpc.consensus_state())["round_state"]["height/round/step"].split("/")[0]) >= FIRST
    block = await rpc.call("block", {"height": str(FIRST)})
    header = (await rpc.commit(FIRST))["signed_header"]["header"]
    assert block["block"]["header"] == header
    assert header["chain_id"] == status.network
    assert int((await rpc.commit())["signed_header"]["header"]["height"]) >= status.height


async def test_validators_come_from_all_pages(rpc: CometRpc) -> None:
    height, found = await rpc.validators(FIRST)
    assert height == FIRST
    assert len(found) == OTHERS + 1
    assert len({each["address"] for each in found}) == OTHERS + 1
    assert found[0]["voting_power"] == "1000000"


@pytest.mark.parametrize(
    ("height", "kind"),
    [(0, BadHeight), (-1, BadHeight), (1 << 40, HeightAhead), (FIRST - 1, HeightPruned)],
)
@pytest.mark.parametrize("method", ["commit", "validators"])
async def test_a_height_that_is_not_there_says_which_way(
    rpc: CometRpc, method: str, height: int, kind: type[Exception]
) -> None:
    with pytest.raises(kind):
        await getattr(rpc, method)(height)


async def test_a_height_or_method_beyond_all_types_is_refused(rpc: CometRpc) -> None:
    with pytest.raises(CometRefused):
        await rpc.commit(1 << 63)
    with pytest.raises(CometRefused, match="Method not found"):
        await rpc.call("no_such_method")


async def test_transactions_are_judged_one_by_one_in_order(rpc: CometRpc) -> None:
    """More than a batch may have, and some of them refused, known, too large or without room in the pool."""
    good = [f"key{number}=value".encode() for number in range(23)]
    large = [b"x" * (MAX_TX_BYTES + 1), b"x" * (MAX_POOL_BYTES + 1)]
    raws = [*good[:11], b"refused", good[0], *large, *good[11:]]
    verdicts = await rpc.broadcast_tx_async(raws)
    assert [verdict.code for verdict in verdicts[:11]] == [Code.OK] * 11
    assert verdicts[11].code == Code.OK  # CheckTx refuses it, which is not waited for
    assert verdicts[12].known
    assert verdicts[12].code == Code.OK
    assert verdicts[13].code == Code.TOO_LARGE
    assert verdicts[14].code == Code.POOL_FULL
    assert [verdict.code for verdict in verdicts[15:]] == [Code.OK] * 12
    again = await rpc.broadcast_tx_async(good)
    assert all(verdict.known and verdict.code == Code.OK for verdict in again)
    assert await rpc.broadcast_tx_async([]) == []


async def test_a_subscription_tells_of_what_it_asks_for(rpc: CometRpc) -> None:
    async with aclosing(rpc.subscribe("tm.event='Tx' AND app.key='asked'")) as events:
        waiting = asyncio.create_task(anext(events))
        sent = 0
        while not waiting.done():
            sent += 1
            await rpc.broadcast_tx_async([b"asked=%d" % sent])
            await asyncio.wait([waiting], timeout=0.1)
        event = await waiting
    assert event.kind == "Tx"
    key, _, told = base64.b64decode(event.value["TxResult"]["tx"]).partition(b"=")
    assert key == b"asked"
    assert "asked" in event.events["app.key"]
    assert 1 <= int(told) <= sent


@asynccontextmanager
async def cut_by_hand(port: int) -> AsyncIterator[tuple[int, list[asyncio.StreamWriter]]]:
    """A port that leads to another; whoever closes the writers cuts the connections."""
    open_now: list[asyncio.StreamWriter] = []

    async def pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65_536):
                writer.write(data)
                await writer.drain()
        except ConnectionError:
            pass
        finally:
            writer.close()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", port)
        open_now.extend((writer, far_writer))
        await asyncio.gather(pipe(reader, far_writer), pipe(far_reader, writer))

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1], open_now
    finally:
        server.close()
        for each in open_now:
            each.close()
        await server.wait_closed()


async def test_a_subscription_that_is_cut_goes_on_and_tells_of_the_gap(rpc: CometRpc) -> None:
    waits: list[float] = []

    async def sleep(seconds: float) -> None:
        waits.append(seconds)
        await asyncio.sleep(0)

    async with (
        cut_by_hand(int(rpc.url.rpartition(":")[2])) as (port, connections),
        CometRpc(f"tcp://127.0.0.1:{port}", sleep=sleep) as cut,
        aclosing(cut.subscribe("tm.event='NewBlockHeader'")) as events,
    ):
        first, second = await anext(events), await anext(events)
        assert (first.kind, first.after_gap, second.after_gap) == ("NewBlockHeader", False, False)
        for each in connections:
            each.transport.abort()
        connections.clear()
        later = await anext(events)
        while not later.after_gap:  # what had come before the cut
            later = await anext(events)
        assert int(later.value["header"]["height"]) > int(second.value["header"]["height"])
        assert not (await anext(events)).after_gap
    assert waits[0] == 0.25


async def test_a_query_of_a_subscription_that_is_none_ends_it(rpc: CometRpc) -> None:
    for query in ("tm.event ==== 'NewBlock'", "x" * 600):
        async with aclosing(rpc.subscribe(query)) as events:
            with pytest.raises(CometRefused, match="query"):
                await anext(events)


async def test_a_node_that_is_behind_takes_nothing(tmp_path: Path) -> None:
    """Its own power is no third, and it has no peers: it waits for blocks."""
    async with kvstore(tmp_path, small_node(tmp_path, 1)) as behind:
        assert (await behind.status()).catching_up
        with pytest.raises(CometCatchingUp):
            await behind.broadcast_tx_async([b"a=b", b"c=d"])
        with pytest.raises(HeightPruned):
            await behind.commit()


async def test_who_does_not_answer_or_is_no_cometbft_is_named(rpc: CometRpc) -> None:
    nobody = free_port()
    async with CometRpc(f"http://127.0.0.1:{nobody}") as gone:
        with pytest.raises(CometUnreachable, match=rf":{nobody} \(Cannot connect .*is it running"):
            await gone.status()
    async with CometRpc(rpc.url + "/other") as other:
        with pytest.raises(CometProtocolError, match="check the URL"):
            await other.status()

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    server = await asyncio.start_server(silent, "127.0.0.1", 0)
    async with (
        server,
        CometRpc(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", timeout_s=0.05) as slow,
    ):
        with pytest.raises(CometUnreachable, match=r"did not answer in 0\.05 s"):
            await slow.health()
    for wrong in ("127.0.0.1:26657", "unix:///tmp/socket", "ftp://host"):
        with pytest.raises(ValueError, match="not a URL"):
            CometRpc(wrong)


async def test_a_hole_in_the_blocks_is_said_to_be_one() -> None:
    answer = (
        b'{"jsonrpc": "2.0", "id": 0, "result": {"last_height": "9", "block_metas": [{"header": {}}, null]}}'
    )

    async def holed(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(
            b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: close\r\n\r\n" % len(answer) + answer
        )
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(holed, "127.0.0.1", 0)
    async with server, CometRpc(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}") as rpc:
        with pytest.raises(CometProtocolError, match="hole in its blocks between 8 and 9: its blockstore"):
            await rpc.headers(8, 9)


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("tx already exists in cache", TxKnown),
        ("Tx too large. Max size is 5, but got 6", TxTooLarge),
        ("tx pre check: tx size is too big: 9, max: 8", TxTooLarge),
        ("mempool is full: number of txs 5 (max: 5), total txs bytes 0 (max: 1)", CometBusy),
        ("mempool is still rechecking after a new committed block, so it is considered as full", CometBusy),
        ("max_subscription_clients 100 reached", CometBusy),
        ("endpoint is closed while node is catching up", CometCatchingUp),
        ("could not find results for height #7", HeightPruned),
        ("node is not persisting finalize block responses", HeightPruned),
        ("appConn mempool: EOF", CometUnreachable),
        ("subscription was canceled (reason: client is not pulling messages fast enough)", CometUnreachable),
    ],
)
async def test_what_a_test_can_not_bring_about_is_told_apart_by_its_text(
    text: str, kind: type[Exception]
) -> None:
    assert type(error_of(URL, {"code": -32603, "message": "Internal error", "data": text})) is kind


async def test_errors_that_are_none_do_no_harm() -> None:
    assert isinstance(error_of(URL, "text"), CometProtocolError)
    assert isinstance(error_of(URL, {"code": "1"}), CometProtocolError)
    told = error_of(
        URL, {"code": -32600, "data": "batch request exceeds maximum (10) allowed number of requests"}
    )
    assert isinstance(told, BatchTooLarge)
    assert told.most == 10
    assert len(str(error_of(URL, json.loads('{"code": 1, "data": "' + "x" * 9_999 + '"}')))) < 1_000
