"""A world whose every block CometBFT's engine runs too, asked over its ABCI socket as `cometbft` asks it."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

from ledger.application import Application, BlockInput, BlockResult
from ledger.engine.assemble import load_application
from ledger.engine.cometbft.abci import convert, messages
from ledger.engine.cometbft.abci.messages import ApplySnapshotChunkResult as Applied
from ledger.engine.cometbft.abci.messages import OfferSnapshotResult as Offered
from ledger.engine.cometbft.engine import CometEngine
from ledger.engine.cometbft.sync.snapshots import FORMAT
from ledger.engine.storage import LedgerStorage
from ledger.genesis import Genesis
from ledger.keys import address
from proofs.bls.signatures import BlsSigner
from tests.ledger.cometbft.abci import Connection
from tests.ledger.cometbft.lone import MAX_TX_BYTES, NoMempool, init_chain
from tests.ledger.world import World, beacon_signer, key

T = TypeVar("T")
SNAPSHOT_BLOCKS = 4


class Node:
    """An engine over a store in a folder of its own; two connections, as for consensus and mempool."""

    def __init__(
        self, genesis: Genesis, signers: Mapping[bytes, BlsSigner], items: Mapping[bytes, bytes] | None = None
    ) -> None:
        """`items` is the state of a chain that goes on from another one's end."""
        self._folder = TemporaryDirectory(prefix="holdfast-mirror-")
        self._genesis, self._signers = genesis, signers
        self._loop = asyncio.new_event_loop()
        if items is not None:
            storage = self._storage()
            storage.create(genesis.encode(), items.items())
            storage.close()
        self.open()

    def _storage(self) -> LedgerStorage:
        storage = LedgerStorage(Path(self._folder.name) / "ledger")
        storage.open()
        return storage

    def open(self) -> None:
        """Begins, or goes on, with what is stored."""
        path = Path(self._folder.name)
        self.storage = self._storage()
        app = load_application(self.storage, self._genesis)
        self.engine = CometEngine(
            app,
            self.storage,
            self._signers,
            NoMempool(),
            f"unix://{path}/abci.sock",
            snapshot_blocks=SNAPSHOT_BLOCKS,
        )
        self.run(self.engine.start())
        self.connections = [self.run(self._connect(f"{path}/abci.sock")) for _ in range(2)]

    @staticmethod
    async def _connect(path: str) -> Connection:
        return Connection(*await asyncio.open_unix_connection(path))

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """What a coroutine returns; the engine goes on meanwhile, and only then."""
        return self._loop.run_until_complete(work)

    def ask(self, kind: str, request: Any) -> Any:
        """What it answers to consensus."""
        return self.run(self.connections[0].ask(kind, request))

    def check(self, *txs: bytes) -> None:
        """Gives it transactions as the mempool does; what it says of them changes no block."""
        for raw in txs:
            self.run(self.connections[1].ask("check_tx", messages.RequestCheckTx(tx=raw)))

    def stop(self) -> None:
        """All of it but the store's files ends."""
        for connection in self.connections:
            connection.writer.close()
        self.run(self.engine.stop())
        self.storage.close()

    def restart(self) -> None:
        """Another engine over the same store."""
        self.stop()
        self.open()

    def close(self) -> None:
        """The end."""
        self.stop()
        self._loop.close()
        self._folder.cleanup()


class Mirror:
    """A node that is told each block that a world makes, and must say the same of it."""

    def __init__(self, app: Application, signers: Mapping[bytes, BlsSigner]) -> None:
        """`app` is at height 0."""
        genesis = app.genesis
        self._genesis, self._signers = genesis, signers
        self._items = dict(app.items()) if genesis.origin else None
        self.node = Node(genesis, signers, self._items)
        self.decided: list[tuple[Any, bytes]] = []
        self.restored = 0
        first = self.node.ask("init_chain", init_chain(genesis))
        assert first.app_hash == app.app_hash

    def request(self, kind: Any, app: Application, block: BlockInput, **more: Any) -> Any:
        """A request about the next block."""
        return kind(
            height=block.height,
            time=messages.Timestamp(seconds=block.block_time_s, nanos=999_999_999),
            proposer_address=self._address(app, block.proposer),
            misbehavior=[
                messages.Misbehavior(
                    type=messages.MisbehaviorType.DUPLICATE_VOTE,
                    validator=messages.AbciValidator(address=self._address(app, account), power=1),
                )
                for account in block.misbehaviour
            ],
            **more,
        )

    @staticmethod
    def _address(app: Application, account: bytes) -> bytes:
        found = app.validator(account)
        assert found is not None, "who proposes, or is accused, validates"
        return address(found.record.consensus_key)

    def propose(self, app: Application, block: BlockInput) -> None:
        """Both make the same block of the same transactions, and both take it."""
        request = self.request(
            messages.RequestPrepareProposal, app, block, txs=block.txs[1:], max_tx_bytes=MAX_TX_BYTES
        )
        made = tuple(self.node.ask("prepare_proposal", request).txs)
        chosen = app.prepare_proposal(block, max_bytes=MAX_TX_BYTES // 2, max_txs=len(block.txs))
        assert made == (block.txs[0], *chosen)
        assert self.judge(app, block, made)

    def judge(self, app: Application, block: BlockInput, txs: Sequence[bytes]) -> bool:
        """Whether a proposal is taken, of which both must think alike."""
        request = self.request(messages.RequestProcessProposal, app, block, txs=txs)
        given = BlockInput(block.height, block.block_time_s, block.proposer, tuple(txs), block.misbehaviour)
        taken = self.node.ask("process_proposal", request).status == messages.ProposalStatus.ACCEPT
        assert taken is app.process_proposal(given).ok
        return taken

    def decision(self, app: Application, block: BlockInput) -> Any:
        """The request that runs a block which was decided."""
        return self.request(messages.RequestFinalizeBlock, app, block, txs=block.txs)

    def decide(self, request: Any, result: BlockResult) -> None:
        """The block that a world has made."""
        answer = self.node.ask("finalize_block", request)
        assert answer.app_hash == result.app_hash
        assert [each.code for each in answer.tx_results] == [int(each.code) for each in result.tx_results]
        assert not any(each.data or each.gas_wanted or each.gas_used for each in answer.tx_results)
        # Of each transaction, after the event that names it, what it did; the block's own; no other ones
        of_txs = [each for told in answer.tx_results for each in told.events[1:]]
        assert of_txs == [convert.event(each) for ran in result.tx_results for each in ran.events]
        assert list(answer.events) == list(map(convert.event, result.own_events))
        told = [convert.event(each) for each in result.events]
        assert sorted(map(repr, [*of_txs, *answer.events])) == sorted(map(repr, told))
        assert list(answer.validator_updates) == convert.validator_updates(result.validator_updates)
        self.node.ask("commit", messages.RequestCommit())
        self.decided.append((request, result.app_hash))

    def check_height(self) -> None:
        """What it would tell a CometBFT that connects."""
        info = self.node.ask("info", messages.RequestInfo())
        last = self.decided[-1][1] if self.decided else b""
        assert (info.last_block_height, info.last_block_app_hash) == (len(self.decided), last)

    def move(self) -> bool:
        """A new node takes the old one's place, by state sync and block by block; False if it cannot."""
        self.node.restart()  # so the last snapshot is written
        self.node.engine._sync._tip = lambda: len(self.decided) + SNAPSHOT_BLOCKS
        offered = list(self.node.ask("list_snapshots", messages.RequestListSnapshots()).snapshots)
        if not offered:
            return False
        snapshot = max(offered, key=lambda each: each.height)
        fresh = Node(self._genesis, self._signers, self._items)
        offer = messages.RequestOfferSnapshot(
            snapshot=snapshot, app_hash=self.decided[snapshot.height - 1][1]
        )
        assert fresh.ask("offer_snapshot", offer).result == Offered.ACCEPT
        for index in range(snapshot.chunks):
            load = messages.RequestLoadSnapshotChunk(height=snapshot.height, format=FORMAT, chunk=index)
            chunk = self.node.ask("load_snapshot_chunk", load).chunk
            applied = messages.RequestApplySnapshotChunk(index=index, chunk=chunk, sender="old")
            assert fresh.ask("apply_snapshot_chunk", applied).result == Applied.ACCEPT
        for request, app_hash in self.decided[snapshot.height :]:
            assert fresh.ask("finalize_block", request).app_hash == app_hash
            fresh.ask("commit", messages.RequestCommit())
        old, self.node = self.node, fresh
        tips = [node.storage.block(len(self.decided)) for node in (old, fresh)]
        assert tips[0] == tips[1] or snapshot.height == len(self.decided)
        old.close()
        self.restored += 1
        return True


class Mirrored(World):
    """To be put before a world's class: each of its blocks is told to the mirror."""

    mirror: Mirror

    def __post_init__(self) -> None:
        super().__post_init__()
        self.beacon_signers[beacon_signer().public_key] = beacon_signer()
        self.mirror = Mirror(self.app, self.beacon_signers)

    def first_genesis(self) -> Genesis:
        """The same chain, whose one validator is named, as CometBFT's genesis has it."""
        alone = super().first_genesis()
        return replace(alone, validators=alone.founders())

    def next_block(self, *txs: bytes, step: int = 0) -> BlockInput:
        """What `block` would run."""
        head = self.app.height + 1, self.now + step, key(self.proposer)
        return BlockInput(*head, (self.beacon(), *txs), self.accused)

    def block(self, *txs: bytes, step: int = 0) -> BlockResult:
        """One block, by both."""
        given = self.next_block(*txs, step=step)
        self.mirror.node.check(*txs)
        if given.height % 4 == 0:
            self.mirror.propose(self.app, given)
        if given.height % 4 == 1:
            self.mirror.judge(self.app, given, given.txs)
        request = self.mirror.decision(self.app, given)
        result = super().block(*txs, step=step)
        self.mirror.decide(request, result)
        return result
