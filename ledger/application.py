"""The ledger's application: what an engine drives, in the shape of ABCI 2.0."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from types import MappingProxyType

from ledger import (
    due,
    execute,
    index,
    journal,
    keys,
    limits,
    rules_draw,
    rules_governance,
    rules_offers,
    rules_periods,
    rules_powers,
    rules_resigning,
    rules_settlement,
    rules_spot,
    rules_validators,
    transactions,
    weights,
)
from ledger.beacon_steps import RememberingBeacons
from ledger.block_forms import BlockInput as BlockInput
from ledger.block_forms import BlockResult as BlockResult
from ledger.block_forms import ValidatorUpdate as ValidatorUpdate
from ledger.cache import RecentCache
from ledger.context import Context
from ledger.errors import CorruptState, InvalidBlock, InvalidTransaction, Refusal, UnknownRules
from ledger.genesis import Genesis, Params
from ledger.genesis_state import genesis_items
from ledger.ingest import memory_store
from ledger.mempool import Pending, Reader
from ledger.pool_checks import PASSING as PASSING
from ledger.pool_checks import PoolChecks
from ledger.proof_checker import KnownProofs, RememberingChecker
from ledger.proposal_room import Room
from ledger.records import ChainRecord
from ledger.result import Code, TxResult
from ledger.state import State
from ledger.state_tree import Staged, StateProof, StateTree
from ledger.store import Store, Writes
from ledger.views_governance import GovernanceQueries
from ledger.views_validators import ValidatorQueries
from merkledag.cid import CID
from proofs.beacon import chain as beacon
from proofs.errors import InvalidBeacon

HANDLERS: Mapping[due.What, due.Handler] = MappingProxyType(
    {
        due.What.SEED: rules_periods.on_seed_due,
        due.What.DATASET: rules_periods.on_due,
        due.What.OFFER: rules_offers.on_offer_due,
        due.What.FORGET: rules_settlement.forget,
        due.What.PROPOSAL: rules_governance.on_due,
        due.What.SPOT_SEED: rules_spot.on_seed_due,
        due.What.SPOT: rules_spot.on_due,
        due.What.VALIDATOR: rules_validators.on_bls_due,
        due.What.CONSENSUS_KEY: rules_validators.on_key_due,
        due.What.RESIGNED: rules_resigning.on_due,
    }
)


@dataclass(frozen=True, slots=True)
class _Unfinished:
    """A block that was run and waits for commit or abort, or to be decided."""

    block: BlockInput
    result: BlockResult
    chain: ChainRecord
    tree: Staged


class Application(PoolChecks, GovernanceQueries, ValidatorQueries):
    """A chain's state and its rules; queries (`views.Queries`) answer from the last committed block.

    One thread drives it: perhaps proposals, then finalize_block, then commit or abort. A proposal is run in
    full, so that `finalize_block` has nothing left to do if that very block is decided.

    All of the state is read through `store`. Without one the chain is new, at height 0 and in memory.
    `beacons` verifies those of many blocks ahead.
    """

    def __init__(self, genesis: Genesis, store: Store | None = None) -> None:
        """Raises InvalidGenesis, and CorruptState if the store does not hold a state of this genesis."""
        self.genesis = genesis if store is not None else genesis.validated()
        self._store = memory_store(genesis_items(genesis).items()) if store is None else store
        self._tree = StateTree(self._store.tree)
        self._state = State(self._store.state, self._tree.check_value)
        self._chain = self._restored_chain()
        self._params = self._params_in_force()
        self._index = self._store.index
        self._reader = Reader(genesis.chain_id)
        self._pending = Pending()
        self._proofs = RememberingChecker()
        self.beacons = RememberingBeacons()
        self._dropped: dict[bytes, TxResult] = {}
        self._failed: RecentCache[CID, Code] = RecentCache(limits.MAX_REMEMBERED_FAILED // 2)
        self._tries = self._new_tries = limits.MAX_TRIED_PER_BLOCK
        self._unfinished: _Unfinished | None = None
        self._is_decided = False

    def _restored_chain(self) -> ChainRecord:
        chain = self._state.committed(keys.CHAIN, ChainRecord)
        if chain is None or self._state.committed_bytes(keys.GENESIS) != self.genesis.encode():
            raise CorruptState("the stored state belongs to another genesis, or is incomplete")
        return chain

    def _params_in_force(self) -> Params:
        found = self._state.committed(keys.params(self._chain.params_version), Params)
        if found is None:
            raise CorruptState("the stored state lacks the parameters in force")
        return found

    # Proposals.

    def beacon_transaction_message(self, height: int) -> bytes:
        """What the proposer signs with BLS for the next block; ValueError for another height."""
        if height != self.height + 1:
            raise ValueError(f"the next block is {self.height + 1}, not {height}")
        return beacon.message(self.chain_id, height, self.beacon)

    def beacon_check(self, proposer: bytes) -> Callable[[bytes], bytes]:
        """What gives the next block's beacon value for the proposer's signature, or raises InvalidBeacon.

        It may run in another thread; `finalize_block` then need not verify that signature again. Raises
        InvalidBlock for who proposes no blocks.
        """
        bls_key = self.bls_key(proposer)
        if bls_key is None:
            raise InvalidBlock("the proposer has no BLS key on this chain")
        return partial(self.beacons.verify_step, bls_key, self.chain_id, self.height + 1, self.beacon)

    def prepare_proposal(
        self,
        block: BlockInput,
        *,
        max_bytes: int,
        max_txs: int,
        clock_ns: Callable[[], int] = lambda: 0,
    ) -> list[bytes]:
        """Those of the candidates, in their order, that pass when this very block is run, and fit.

        `block` is the next one, with all candidates after its beacon transaction, which neither the result
        nor `max_bytes` and `max_txs` count. Half of both is for proofs first, and of the time by `clock_ns`
        that a proposer has; of KZG proofs that nobody has looked at few are, the others wait. What was
        dropped for good is in `dropped`; what is in neither may wait for a later block. Raises as
        `finalize_block` does.
        """
        self._forget_unfinished()
        self._check_rules()
        self._dropped = {}
        candidates, chosen = block.txs[1:], [*block.txs[:1]]
        results = [TxResult(Code.OK)]
        self._state.begin()
        try:
            ctx = self._begun(block, limits.MAX_NEW_KZG_POINTS)
            ctx.proofs = KnownProofs(self._proofs)
            room = Room.for_candidates(candidates, self.is_proof, max_bytes, max_txs, clock_ns)
            for raw in candidates:
                is_kept_for = self.is_proof(raw)
                if not room.has_for(raw, is_kept_for):
                    continue
                room.count_try(is_kept_for)
                result = self._run_tx(ctx, raw)
                if result.ok:
                    chosen.append(raw)
                    results.append(result)
                    room.take(raw, is_kept_for)
                elif result.code not in PASSING:
                    self._dropped[raw] = result
            self._finish(ctx, replace(block, txs=tuple(chosen)), tuple(results))
        except BaseException:
            self._state.drop()
            raise
        for raw, result in self._dropped.items():
            found = self.find(raw)
            if found is not None:
                self._pending.note_result(found, result.code, self.height)
        return chosen[1:]

    @property
    def dropped(self) -> Mapping[bytes, TxResult]:
        """What the last `prepare_proposal` dropped for good (raw bytes → why); those nonces are free."""
        return MappingProxyType(self._dropped)

    def process_proposal(self, block: BlockInput) -> TxResult:
        """Whether another proposer's block is acceptable: height, time, size, beacon; and all of it passes.

        An honest proposer has run the block on the same state (`prepare_proposal`), so that nothing in it
        fails; what does would be in the chain for nothing.
        """
        self._check_rules()
        refused = self._check_shape(block)
        if refused is not None:
            return refused
        try:
            self._run(block, self._run_passing, ahead=0)  # the first invalid proof ends it
        except InvalidBlock as error:
            return TxResult(Code.MISPLACED, str(error))
        except Refusal as refusal:
            return TxResult(refusal.code, refusal.log)
        return TxResult(Code.OK)

    def _run_passing(self, ctx: Context, raw: bytes) -> TxResult:
        result = self._run_tx(ctx, raw)
        if not result.ok:
            raise Refusal(result.code, result.log)
        return result

    def _check_shape(self, block: BlockInput) -> TxResult | None:
        """Refuses what shows without running the block."""
        if block.block_time_s < self.block_time_s:
            return TxResult(Code.MALFORMED, "the block's time is before the last one's")
        if len(block.txs) > limits.MAX_BLOCK_TXS or sum(map(len, block.txs)) > limits.MAX_BLOCK_BYTES:
            return TxResult(Code.TOO_LARGE, f"at most {limits.MAX_BLOCK_TXS} transactions belong in a block")
        others = []
        for raw in block.txs[1:]:
            found = self._reader.read(raw)
            if isinstance(found, TxResult):
                return found  # one is enough: of a block full of such each would cost time
            if not transactions.is_proof(found.tx.body):
                others.append(len(raw))
        if sum(others) > limits.MAX_BLOCK_BYTES // 2 or len(others) > limits.MAX_BLOCK_TXS // 2:
            return TxResult(Code.TOO_LARGE, "half of a block's bytes and places are kept for proofs")
        return None

    # Blocks.

    def finalize_block(self, block: BlockInput) -> BlockResult:
        """Runs a block on top of the committed state; nothing is kept until `commit`.

        The beacon comes first, then what is due, then draws, then the transactions. One that fails leaves no
        trace but its result. A block that was run already, as a proposal or because it was not committed, is
        not run again. Raises InvalidBlock if the height does not follow, or the first transaction is not a
        valid beacon, and UnknownRules if this program lacks the rules in force.
        """
        self._check_rules()
        result = self._run(block, self._run_tx)
        self._is_decided = True
        return result

    def _run_tx(self, ctx: Context, raw: bytes) -> TxResult:
        return execute.run(ctx, raw, self._reader)

    def _run(
        self,
        block: BlockInput,
        run: Callable[[Context, bytes], TxResult],
        ahead: int = limits.MAX_KZG_POINTS_PER_BLOCK,
    ) -> BlockResult:
        done = self._unfinished
        if done is not None and done.block == block:
            return done.result
        self._forget_unfinished()
        self._state.begin()
        try:
            ctx = self._begun(block, ahead)
            results = (TxResult(Code.OK), *(run(ctx, raw) for raw in block.txs[1:]))
            return self._finish(ctx, block, results)
        except BaseException:
            self._state.drop()
            raise

    def _begun(self, block: BlockInput, ahead: int) -> Context:
        """What a block's transactions run on: its beacon is checked, and what is due is done.

        Of its KZG proofs that nobody has looked at those of `ahead` points are verified together.
        """
        value = self._check_head(block)
        step_s = max(0, block.block_time_s - self.block_time_s)
        moved_s = min(step_s, self.params.max_step_s)
        chain = replace(
            self._chain,
            height=block.height,
            time=self.time + moved_s,
            stalled_s=self._chain.stalled_s + (moved_s if self._is_late(step_s) else 0),
            block_time_s=self.block_time_s + step_s,
            beacon=value,
        )
        ctx = self._context(chain)
        for account in block.misbehaviour:
            with ctx.set_aside(keys.validator(account)):
                rules_validators.punish(ctx, account)
        due.run(ctx, HANDLERS)
        rules_draw.run_draws(ctx)
        self._proofs.verify_ahead(execute.claims(ctx, block.txs[1:], self._reader), ahead)
        return ctx

    def _finish(self, ctx: Context, block: BlockInput, results: tuple[TxResult, ...]) -> BlockResult:
        """What a block whose transactions were run changes."""
        updates: tuple[ValidatorUpdate, ...] = ()
        last = len(ctx.events)  # of what its transactions did: they were run one after the other
        first = last - sum(len(each.events) for each in results)
        with ctx.set_aside(keys.MOVING):
            updates = rules_powers.settle(ctx)
        weights.reweigh(self._state)
        chain = ctx.chain
        self._state.put(keys.CHAIN, chain)
        self._state.put(keys.TOTALS, ctx.totals.record())
        changes = self._state.changes()
        tree = self._tree.stage(changes)
        writes = Writes(changes, tree.rows, index.changes(changes, self._state.committed_bytes))
        entries = tuple(journal.entries(ctx.moves))
        if self.height == 0:
            entries = (*journal.genesis_entries(self.items()), *entries)
        events, own = tuple(ctx.events), (*ctx.events[:first], *ctx.events[last:])
        result = BlockResult(
            block.height, chain.time, results, events, own, entries, tree.root, writes, updates
        )
        self._unfinished = _Unfinished(block, result, chain, tree)
        return result

    def _is_late(self, step_s: int) -> bool:
        """Whether a block `step_s` after the last one ought to have come earlier, by more than is usual.

        Blocks are made at every due instant, and every `max_step_s` while a deal is open. A second is usual,
        and where windows are long as many as consensus takes over a block or some failed rounds: else a busy
        chain would always seem to stall, and fault nobody. What waits for a height has no such instant.
        """
        due_at = due.next_time(self._state)
        if due_at is None:
            return False
        usual_s = max(1, min(limits.MAX_USUAL_BLOCK_S, self.params.window_s // 16))
        return step_s >= usual_s + max(1, min(due_at - self.time, self.params.max_step_s))

    def commit(self) -> None:
        """Keeps what `finalize_block` did; a store on disk has been given its writes by now."""
        done = self._unfinished
        assert done is not None, "there is no block to commit"
        assert self._is_decided, "the block was proposed only"
        self._unfinished, self._is_decided = None, False
        self._tries = self._new_tries = limits.MAX_TRIED_PER_BLOCK
        self._store.commit(done.result.writes)
        self._state.commit(done.result.writes.state)
        self._tree.commit(done.tree)
        self._chain = done.chain
        self._params = self._params_in_force()
        for raw, result in zip(done.block.txs[1:], done.result.tx_results[1:], strict=True):
            found = self.find(raw)
            if found is not None:
                self._pending.note_result(found, result.code, self.height)
                self._pending.forget_below(found.tx.account, self.account(found.tx.account).nonce)

    def abort(self) -> None:
        """Forgets what `finalize_block` did."""
        assert self._unfinished is not None, "there is no block to abort"
        self._forget_unfinished()

    def _forget_unfinished(self) -> None:
        if self._unfinished is not None:
            self._unfinished, self._is_decided = None, False
            self._state.drop()

    def prove_next(self, key: bytes) -> StateProof:
        """As `prove`, but of the state that the block that waits for `commit` leads to."""
        done = self._unfinished
        assert done is not None, "there is no block to commit"
        assert self._is_decided, "the block was proposed only"
        return self._tree.prove(key, done.result.writes.over(self._state.committed_bytes), done.tree)

    def items(self) -> Iterable[tuple[bytes, bytes]]:
        """Every key and value of the committed state, keys in order; for small states and tests."""
        return self._state.items()

    def _check_rules(self) -> None:
        """Raises UnknownRules, with the note of the proposal that brought the rules while that is kept."""
        rules = self._chain.rules
        if rules not in rules_governance.KNOWN_RULES:
            notes = [info.record.note for info in self.proposals() if info.record.rules == rules]
            raise UnknownRules(rules, max(rules_governance.KNOWN_RULES), self.height + 1, "".join(notes[-1:]))

    def _check_head(self, block: BlockInput) -> bytes:
        """The beacon value that the block adds; raises InvalidBlock."""
        if block.height != self.height + 1:
            raise InvalidBlock(f"the next block is {self.height + 1}, not {block.height}")
        if not 0 <= block.block_time_s <= limits.MAX_TIME_S:
            raise InvalidBlock(f"a block can not be made at {block.block_time_s}")
        if not block.txs:
            raise InvalidBlock("the block has no beacon transaction")
        try:
            head = transactions.decode_beacon(block.txs[0])
        except InvalidTransaction as error:
            raise InvalidBlock(f"the block does not begin with a beacon transaction: {error}") from None
        if head.chain != self.chain_id or head.height != block.height:
            raise InvalidBlock("the beacon transaction is another block's")
        try:
            return self.beacon_check(block.proposer)(head.beacon)
        except InvalidBeacon as error:
            raise InvalidBlock(str(error)) from None
