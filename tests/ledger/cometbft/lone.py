"""CometBFT's side of ABCI for one validator, in a test's process: a mempool, and blocks when it says so."""

from __future__ import annotations

import errno
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ledger.engine.cometbft.abci import messages
from ledger.engine.cometbft.engine import CometEngine
from ledger.engine.cometbft.home.genesis_file import genesis_document
from ledger.engine.cometbft.rpc.answers import Verdict
from ledger.engine.errors import EngineError
from ledger.engine.storage import LedgerStorage
from ledger.genesis import Genesis
from ledger.keys import address
from tests.ledger.cometbft.application import make_engine, open_storage, signer

MAX_TX_BYTES = 1 << 20


def init_chain(genesis: Genesis) -> Any:
    """The request that CometBFT makes of the genesis file which belongs to a ledger's genesis."""
    document = genesis_document(genesis)
    params = document["consensus_params"]
    evidence = params["evidence"]
    return messages.RequestInitChain(
        time=messages.Timestamp(seconds=genesis.time_s),
        chain_id=document["chain_id"],
        initial_height=int(document["initial_height"]),
        consensus_params=messages.ConsensusParams(
            block=messages.BlockParams(**{name: int(value) for name, value in params["block"].items()}),
            evidence=messages.EvidenceParams(
                max_age_num_blocks=int(evidence["max_age_num_blocks"]),
                max_age_duration=messages.Duration(seconds=int(evidence["max_age_duration"]) // 10**9),
                max_bytes=int(evidence["max_bytes"]),
            ),
            validator=messages.ValidatorParams(pub_key_types=params["validator"]["pub_key_types"]),
            version=messages.VersionParams(app=int(params["version"]["app"])),
            abci=messages.ABCIParams(),
        ),
        validators=[
            messages.ValidatorUpdate(pub_key=messages.PublicKey(ed25519=each.consensus_key), power=each.power)
            for each in genesis.validators
        ],
        app_state_bytes=json.dumps(document["app_state"]).encode(),
    )


class NoMempool:
    """There is no CometBFT's mempool to hand transactions over to."""

    async def broadcast_tx_async(self, raws: Sequence[bytes]) -> list[Verdict]:
        """Takes all of them, and forgets them."""
        return [Verdict(0, "") for _ in raws]


class LoneNode:
    """A mempool that asks the engine as CometBFT does, and a validator that decides whatever it proposes.

    `failure` is what handing over fails with, `verdict` what its mempool says of everything.
    """

    def __init__(self, genesis: Genesis) -> None:
        self.time_s = genesis.time_s
        self.pool: list[bytes] = []
        self.failure: EngineError | None = None
        self.verdict = Verdict(0, "")
        self.proposer = address(signer("consensus-0").public_key)
        self._engine: CometEngine | None = None

    @property
    def engine(self) -> CometEngine:
        """Whom it asks."""
        assert self._engine is not None
        return self._engine

    def serve(self, engine: CometEngine) -> None:
        """Asks this one from now on."""
        self._engine = engine

    async def broadcast_tx_async(self, raws: Sequence[bytes]) -> list[Verdict]:
        """As `CometRpc`; the answers of CheckTx come at once."""
        if self.failure is not None:
            raise self.failure
        return [self.verdict if self.verdict.code else await self._check(raw) for raw in raws]

    async def _check(self, raw: bytes) -> Verdict:
        if raw in self.pool:
            return Verdict(0, "", known=True)
        answer = await self.engine.check_tx(messages.RequestCheckTx(tx=raw))
        if answer.code == 0:
            self.pool.append(raw)
        return Verdict(0, "")

    def request(self, kind: Any, txs: Sequence[bytes], **more: Any) -> Any:
        """A request about the next block, which is `self.time_s` old."""
        return kind(
            height=self.engine.app.height + 1,
            time=messages.Timestamp(seconds=self.time_s),
            proposer_address=self.proposer,
            txs=txs,
            **more,
        )

    async def propose(self, misbehavior: Sequence[Any] = ()) -> list[bytes]:
        """What the engine makes a block of."""
        prepare = messages.RequestPrepareProposal
        answer = await self.engine.prepare_proposal(
            self.request(prepare, self.pool, max_tx_bytes=MAX_TX_BYTES, misbehavior=misbehavior)
        )
        return list(answer.txs)

    async def finalize(self, txs: Sequence[bytes], misbehavior: Sequence[Any] = ()) -> Any:
        """Has a block run that was decided."""
        return await self.engine.finalize_block(
            self.request(messages.RequestFinalizeBlock, txs, misbehavior=misbehavior)
        )

    async def commit(self, txs: Sequence[bytes]) -> None:
        """Has it written, and what is left in the mempool checked again."""
        await self.engine.commit(messages.RequestCommit())
        recheck = messages.CheckTxType.RECHECK
        left, self.pool = [raw for raw in self.pool if raw not in txs], []
        for raw in left:
            answer = await self.engine.check_tx(messages.RequestCheckTx(tx=raw, type=recheck))
            if answer.code == 0:
                self.pool.append(raw)

    async def block(self, *, seconds: int = 1, misbehavior: Sequence[Any] = ()) -> Any:
        """One whole block of what is in the mempool, `seconds` after the last; what FinalizeBlock said."""
        self.time_s += seconds
        txs = await self.propose(misbehavior)
        judged = await self.engine.process_proposal(
            self.request(messages.RequestProcessProposal, txs, misbehavior=misbehavior)
        )
        assert judged.status == messages.ProposalStatus.ACCEPT
        result = await self.finalize(txs, misbehavior)
        await self.commit(txs)
        return result


class Setting:
    """A store in a folder, an engine over it, and who asks it."""

    def __init__(self, folder: Path, chain: Genesis) -> None:
        self.folder = folder
        self.genesis = chain
        self.node = LoneNode(chain)
        self.left = 0
        self.patience_s = 30.0
        self.now_s = 0.0
        self.open()

    def open(self) -> None:
        """The store and a new engine."""
        self.storage: LedgerStorage = open_storage(self.folder, self._fault)
        self.engine = make_engine(
            self.folder,
            self.storage,
            self.genesis,
            self.node,
            clock=lambda: self.node.time_s + self.now_s,
            monotonic=lambda: self.now_s,
            sleep=self._sleep,
            patience_s=self.patience_s,
        )
        self.node.serve(self.engine)

    async def close(self) -> None:
        """Stops both."""
        await self.engine.stop()
        self.storage.close()

    def _fault(self, point: str) -> None:
        """The disk refuses so many commits."""
        if point == "db.commit" and self.left:
            self.left -= 1
            raise OSError(errno.ENOSPC, "no space left on device")

    async def _sleep(self, seconds: float) -> None:
        assert "no space left" in self.engine.status.trouble
        self.now_s += seconds
