"""A chain's history out of one ledger, through files and HTTP, and run again somewhere else."""

from __future__ import annotations

import io
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path

import pytest
from aiohttp.test_utils import TestServer

from ledger.engine.archive import KIND, GivenBlock, Manifest, head, section, sections
from ledger.engine.archive_reader import ArchiveReader
from ledger.engine.archive_replay import Replay
from ledger.engine.blocks import node_cid
from ledger.engine.client import LedgerClient
from ledger.engine.embedded import EmbeddedEngine
from ledger.engine.errors import (
    CorruptStore,
    InvalidArchive,
    LedgerNotFound,
    LedgerProtocolError,
    LedgerRefused,
    LedgerUnreachable,
    ReplayMismatch,
)
from ledger.engine.export import fetched_blocks, stored_blocks
from ledger.engine.history import History
from ledger.engine.rpc import build_rpc
from ledger.engine.storage import LedgerStorage
from ledger.genesis import Genesis
from merkledag.car import CarDecoder, header
from merkledag.errors import HashMismatch, MerkledagError, TruncatedCar
from proofs.kinds import ProofKind
from tests.ledger.engine.conftest import Chain, signer
from tests.ledger.engine.test_evidence import StoredWorld

BLOCKS = 5


@pytest.fixture
async def engine(chain: Chain) -> AsyncIterator[EmbeddedEngine]:
    """A running engine whose chain has a few blocks."""
    running = chain.engine()
    await running.start()
    for nonce in range(BLOCKS):
        assert (await running.submit(chain.transfer(nonce))).code == 0
    yield running
    await running.stop()
    chain.close()


def given(chain: Chain) -> list[GivenBlock]:
    """All blocks of the open chain."""
    assert chain.storage is not None
    return list(stored_blocks(History(chain.storage), 1, BLOCKS))


def archive(genesis: Genesis, blocks: list[GivenBlock], /, **changes: object) -> bytes:
    """An archive of these blocks, its manifest changed."""
    last = blocks[-1].block
    manifest = Manifest(
        kind=KIND,
        chain=genesis.chain_id,
        genesis=node_cid(genesis.encode()),
        first=blocks[0].block.height,
        last=last.height,
        tip=node_cid(blocks[-1].raw),
        app_hash=last.app_hash,
        state=None,
        origin=None,
        light=None,
    )
    return head(replace(manifest, **changes), genesis) + b"".join(map(sections, blocks))  # type: ignore[arg-type]


def replay(folder: Path, genesis: Genesis, *, keep_history: bool = True) -> Replay:
    """A replay over a new or existing store in `folder`."""
    storage = LedgerStorage(folder)
    storage.open()
    return Replay(storage, genesis, keep_history=keep_history)


async def test_a_history_from_a_file_leads_to_the_same_state(
    chain: Chain, engine: EmbeddedEngine, tmp_path: Path
) -> None:
    raw = archive(chain.genesis, given(chain))
    reader = ArchiveReader(io.BytesIO(raw))
    again = replay(tmp_path / "again", reader.contents.genesis)
    for block in reader.blocks():
        again.add(block)
    assert reader.offset == len(raw)
    assert (again.height, again.app.app_hash) == (BLOCKS, engine.app.app_hash)
    assert chain.storage is not None
    storage = again._storage
    assert list(storage.state_items()) == list(chain.storage.state_items())
    assert [storage.txs(height) for height in range(1, BLOCKS + 1)] == [
        chain.storage.txs(height) for height in range(1, BLOCKS + 1)
    ]
    storage.close()


async def test_a_replay_goes_on_where_it_was_stopped(
    chain: Chain, engine: EmbeddedEngine, tmp_path: Path
) -> None:
    blocks = given(chain)
    first = replay(tmp_path / "again", chain.genesis, keep_history=False)
    for block in blocks[:3]:
        first.add(block)
    first._storage.abandon()
    then = replay(tmp_path / "again", chain.genesis, keep_history=False)
    assert then.height == 3
    for block in blocks[3:]:
        then.add(block)
    assert then.app.app_hash == engine.app.app_hash
    assert then._storage.txs(BLOCKS) == []
    then._storage.close()


def _forged(chain: Chain, blocks: list[GivenBlock], /, **changes: object) -> GivenBlock:
    """The third block, changed and signed anew by the operator."""
    block = replace(blocks[2].block, **changes).signed(chain.operator)  # type: ignore[arg-type]
    return GivenBlock(block, block.encode(), blocks[2].txs)


@pytest.mark.parametrize(
    ("forge", "error", "says"),
    [
        (lambda c, b: _forged(c, b, app_hash=bytes(32)), ReplayMismatch, "gave app hash"),
        (lambda c, b: _forged(c, b, prev=node_cid(b[0].raw)), InvalidArchive, "does not follow"),
        (lambda c, b: _forged(c, b, chain="other"), InvalidArchive, "not of chain"),
        (lambda c, b: _forged(c, b, time=1), InvalidArchive, "another time"),
        (
            lambda c, b: _forged(c, b, block_time_s=b[2].block.block_time_s + 9),
            ReplayMismatch,
            "gave app hash",
        ),
        (lambda c, b: GivenBlock(b[2].block, b[2].raw, b[2].txs[:1]), CorruptStore, "not what its operator"),
        (
            lambda c, b: GivenBlock(
                signed := replace(b[2].block, account=signer("eve").public_key).signed(signer("eve")),
                signed.encode(),
                b[2].txs,
            ),
            InvalidArchive,
            "signed by its operator",
        ),
    ],
)
async def test_a_forged_block_is_noticed(
    chain: Chain,
    engine: EmbeddedEngine,
    tmp_path: Path,
    forge: Callable[[Chain, list[GivenBlock]], GivenBlock],
    error: type[Exception],
    says: str,
) -> None:
    blocks = given(chain)
    again = replay(tmp_path / "again", chain.genesis)
    for block in blocks[:2]:
        again.add(block)
    with pytest.raises(error, match=says):
        again.add(forge(chain, blocks))
    again._storage.abandon()


async def test_a_damaged_archive_is_refused(chain: Chain, engine: EmbeddedEngine) -> None:
    blocks = given(chain)
    whole = archive(chain.genesis, blocks)

    def read(raw: bytes) -> list[GivenBlock]:
        return list(ArchiveReader(io.BytesIO(raw)).blocks())

    assert [block.raw for block in read(whole)] == [block.raw for block in blocks]
    with pytest.raises(TruncatedCar):
        read(whole[:-1])
    with pytest.raises(InvalidArchive, match="ends before its last block"):
        read(archive(chain.genesis, blocks[:-1], last=BLOCKS))
    with pytest.raises(InvalidArchive, match="more follows"):
        read(whole + section(chain.genesis.encode()))
    with pytest.raises(InvalidArchive, match="not the next transaction"):
        read(
            head(ArchiveReader(io.BytesIO(whole)).contents.manifest, chain.genesis)
            + section(blocks[0].raw) * 2
        )
    with pytest.raises(InvalidArchive, match="not the one that the manifest names"):
        read(archive(chain.genesis, blocks, tip=node_cid(blocks[0].raw)))
    with pytest.raises(InvalidArchive, match="stands where block"):
        read(archive(chain.genesis, blocks, first=2))
    with pytest.raises(InvalidArchive, match="where its genesis belongs"):
        read(archive(chain.genesis, blocks, genesis=node_cid(blocks[0].raw)))
    with pytest.raises(InvalidArchive, match="no archive"):
        read(header([node_cid(b"\xa0")]) + section(b"\xa0"))
    with pytest.raises(MerkledagError):
        read(b"GIF89a")
    for at in range(
        len(head(ArchiveReader(io.BytesIO(whole)).contents.manifest, chain.genesis)), len(whole), 499
    ):
        changed = bytearray(whole)
        changed[at] ^= 1
        with pytest.raises((InvalidArchive, HashMismatch, MerkledagError)):
            read(bytes(changed))


@pytest.fixture
async def client(engine: EmbeddedEngine) -> AsyncIterator[LedgerClient]:
    """A client of the engine's server that does not wait."""
    async with TestServer(build_rpc(engine)) as server:

        async def no_sleep(_seconds: float) -> None:
            return

        async with LedgerClient(str(server.make_url("/")), sleep=no_sleep) as found:
            yield found


async def test_a_history_over_http_is_a_car_of_the_same_blocks(
    chain: Chain, engine: EmbeddedEngine, client: LedgerClient
) -> None:
    blocks = given(chain)
    assert [block async for block in fetched_blocks(client, 2, 4)] == blocks[1:4]
    raw = b"".join([data async for data in client.stream("/v1/blocks", {"from": "5"})])
    decoder = CarDecoder()
    decoder.feed(raw)
    found = decoder.next()
    assert found is not None
    assert found.roots == (node_cid(blocks[-1].raw),)  # type: ignore[union-attr]
    for query in ({"from": "0"}, {"from": "6"}, {"from": "3", "to": "2"}, {"to": "6"}, {"from": "x"}):
        with pytest.raises(LedgerRefused):
            _ = [data async for data in client.stream("/v1/blocks", query)]


async def test_pruned_history_is_said_to_be_so(
    chain: Chain, engine: EmbeddedEngine, client: LedgerClient
) -> None:
    storage = chain.storage
    assert storage is not None
    kept = storage.txs
    storage.txs = lambda height: kept(height)[:1]  # type: ignore[method-assign]
    with pytest.raises(LedgerNotFound, match="no longer kept"):
        _ = [block async for block in fetched_blocks(client, 1, 2)]


class _Breaking(LedgerClient):
    """A client whose streams break off after some bytes, or give others."""

    cut = 0
    change: Callable[[bytes], bytes] = staticmethod(lambda data: data)
    asked: int = 0

    async def stream(self, path: str, query: dict[str, str]) -> AsyncIterator[bytes]:  # type: ignore[override]
        type(self).asked += 1
        whole = b"".join([data async for data in super().stream(path, query)])
        yield type(self).change(whole[: self.cut] if self.cut else whole)
        if self.cut:
            raise LedgerUnreachable("cut")


async def test_a_broken_connection_is_gone_on_with(
    chain: Chain, engine: EmbeddedEngine, client: LedgerClient
) -> None:
    blocks = given(chain)

    async def no_sleep(_seconds: float) -> None:
        return

    async with _Breaking(client.url, sleep=no_sleep) as broken:
        _Breaking.cut = 200 + len(sections(blocks[0]))
        assert [block async for block in fetched_blocks(broken, 1, BLOCKS)] == blocks
        _Breaking.cut = 50
        with pytest.raises(LedgerUnreachable, match="cut"):
            _ = [block async for block in fetched_blocks(broken, 1, BLOCKS)]
        _Breaking.cut = 0
        _Breaking.change = staticmethod(lambda data: data[:-1] + bytes([data[-1] ^ 1]))
        with pytest.raises(LedgerProtocolError, match="gave no history"):
            _ = [block async for block in fetched_blocks(broken, 1, BLOCKS)]
        _Breaking.change = staticmethod(lambda data: data[: -len(sections(blocks[-1]))])
        with pytest.raises(LedgerProtocolError, match="up to 4 of 5 alone"):
            _ = [block async for block in fetched_blocks(broken, 1, BLOCKS)]


def test_a_history_with_proofs_of_both_kinds_leads_to_the_same_state(tmp_path: Path) -> None:
    world = StoredWorld(folder=tmp_path / "ledger")
    world.fund("client")
    world.provider("node")
    datasets = [world.active("client", "node", kind, periods=9)[1] for kind in ProofKind]
    for dataset in datasets:
        world.prove("node", dataset)
    assert [world.dataset(dataset).record.proven_total for dataset in datasets] == [1, 1]
    blocks = list(stored_blocks(world.history, 1, world.app.height))
    again = replay(tmp_path / "again", world.app.genesis)
    for block in blocks:
        again.add(block)
    assert again.app.app_hash == world.app.app_hash
    again._storage.close()
    world.storage.close()
