"""A ledger to play on: keys, blocks with real beacons, providers that hold real pieces and prove them."""

from __future__ import annotations

import hashlib
import random
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache

from ledger import keys, money
from ledger.application import Application, BlockInput, BlockResult
from ledger.events import Attribute, Event
from ledger.fees import small_fee, with_least_fee
from ledger.genesis import HOLD, Genesis, Params
from ledger.ingest import memory_store
from ledger.journal import Entry
from ledger.records import AccountRecord, ChainRecord, Phase, ProviderRecord, ShardRecord
from ledger.result import Code, TxResult
from ledger.transactions import (
    Accept,
    Ask,
    Beacon,
    Body,
    CreateDeal,
    PieceCommitment,
    Prove,
    Register,
    Settle,
    Transaction,
    Transfer,
    sign,
)
from ledger.views_datasets import DatasetInfo
from merkledag.cid import CID
from merkledag.ed25519 import Ed25519Signer
from proofs import merkle_proof
from proofs.bls.signatures import BlsSigner
from proofs.challenge import Challenge
from proofs.commitment import EMPTY, PieceTree
from proofs.kinds import ProofKind
from proofs.kzg import proof as kzg_proof
from proofs.kzg.backend import backend
from proofs.slot_tree import MemoryNodes, set_slot
from proofs.walk import DatasetView, TreeView
from tests.proofs.datasets import Holder
from tests.proofs.kzg.datasets import Holder as KzgHolder
from tests.proofs.kzg.datasets import setup

CHAIN = "test-chain"
START_S = 1_700_000_000
FAR_S = 4_000_000_000
GIB = 1 << 30
PARAMS = Params(period_s=40, window_s=20, accept_timeout_s=15, min_stake=HOLD)
FEE = small_fee(PARAMS)
CONTENT = CID.of(b"content")
MANIFEST = CID.of(b"manifest", codec=0x71)


def seed(name: str) -> bytes:
    return hashlib.sha256(name.encode()).digest()


@cache
def signer(name: str) -> Ed25519Signer:
    return Ed25519Signer.from_seed(seed(name))


def key(name: str) -> bytes:
    return signer(name).public_key


@cache
def beacon_signer() -> BlsSigner:
    return BlsSigner.from_seed(seed("beacon"))


@cache
def genesis(params: Params = PARAMS, issued: int = 1_000_000 * HOLD) -> Genesis:
    bls = beacon_signer()
    return Genesis.make(
        chain_id=CHAIN,
        time_s=START_S,
        operator=key("operator"),
        bls_key=bls.public_key,
        bls_possession=bls.prove_possession(),
        issued=issued,
        params=params,
    )


@dataclass
class Piece:
    """One shard's bytes, and what its node keeps to prove them."""

    holder: Holder | KzgHolder
    data: PieceTree
    meta: PieceTree
    commitment: PieceCommitment

    @classmethod
    def random(
        cls,
        rng: random.Random,
        blocks: int = 3,
        max_bytes: int = 5_000,
        meta: int = 1,
        kind: ProofKind = ProofKind.MERKLE,
    ) -> Piece:
        """A piece of `blocks` blocks of data and `meta` of metadata."""
        data = [rng.randbytes(rng.randint(1, max_bytes)) for _ in range(blocks)]
        return cls.of(data, [rng.randbytes(rng.randint(1, 900)) for _ in range(meta)], kind)

    @classmethod
    def of(cls, data: Sequence[bytes], more: Sequence[bytes], kind: ProofKind) -> Piece:
        """A piece of these blocks of data and metadata."""
        holder = Holder() if kind is ProofKind.MERKLE else KzgHolder()
        data_tree = PieceTree([holder.add(block) for block in data], kind=kind)
        meta_tree = PieceTree([holder.add(block) for block in more], kind=kind)
        root = meta_tree.root if more else EMPTY
        commitment = PieceCommitment(
            data_root=data_tree.root.hash,
            data_leaves=data_tree.root.sum,
            data_bytes=sum(map(len, data)),
            meta_root=root.hash,
            meta_leaves=root.sum,
            meta_bytes=sum(map(len, more)),
        )
        return cls(holder, data_tree, meta_tree, commitment)


def answer(challenge: Challenge, pieces: Mapping[int, Piece]) -> bytes:
    """The proof of a dataset whose slots hold these pieces."""

    def view(trees: Mapping[int, PieceTree]) -> TreeView:
        nodes = MemoryNodes()
        for slot, tree in trees.items():
            set_slot(nodes, challenge.data_depth, slot, tree.root)
        return TreeView(nodes, trees.__getitem__)

    both = DatasetView(
        view({slot: piece.data for slot, piece in pieces.items()}),
        view({slot: piece.meta for slot, piece in pieces.items()}),
    )
    if challenge.kind is ProofKind.KZG:
        kept = KzgHolder()
        for piece in pieces.values():
            assert isinstance(piece.holder, KzgHolder)
            kept.blocks.update(piece.holder.blocks)
            kept.commitments.update(piece.holder.commitments)
        return kzg_proof.prove(challenge, both, kept.read, kept.commitments.get, setup(), backend())
    holder = Holder()
    for piece in pieces.values():
        assert isinstance(piece.holder, Holder)
        holder.blocks.update(piece.holder.blocks)
        holder.commitments.update(piece.holder.commitments)
    return merkle_proof.prove(challenge, both, holder.read, holder.subtrees)


@dataclass
class World:
    """An application and everyone on it. `now` is the wall clock; `proposer` makes every block, audited."""

    params: Params = PARAMS
    app: Application = field(init=False)
    now: int = START_S
    events: list[Event] = field(default_factory=list)
    stored: dict[bytes, bytes] = field(default_factory=dict)
    pieces: dict[tuple[CID, int], Piece] = field(default_factory=dict)
    rng: random.Random = field(default_factory=lambda: random.Random(1))

    without_mistakes: bool = True
    entries: list[Entry] = field(default_factory=list)
    held: Counter[tuple[bytes, str]] = field(default_factory=Counter)
    beacon_signers: dict[bytes, BlsSigner] = field(default_factory=dict)
    accused: tuple[bytes, ...] = ()
    proposer: str = "operator"

    def __post_init__(self) -> None:
        self.app = Application(self.first_genesis())
        self.stored = dict(self.app.items())

    def first_genesis(self) -> Genesis:
        """What the chain begins with."""
        return genesis(self.params)

    # Blocks.

    def beacon(self) -> bytes:
        """The head of the next block."""
        height = self.app.height + 1
        signer = self.beacon_signers.get(self.app.bls_key(key(self.proposer)) or b"", beacon_signer())
        return Beacon(CHAIN, height, signer.sign(self.app.beacon_transaction_message(height))).encode()

    def block(self, *txs: bytes, step: int = 0) -> BlockResult:
        """One block `step` seconds later, committed and audited; there is evidence against the accused."""
        self.now += step
        accused, self.accused = self.accused, ()
        before = powers_by_key(self.app)
        txs = (self.beacon(), *txs)
        result = self.app.finalize_block(
            BlockInput(self.app.height + 1, self.now, key(self.proposer), txs, accused)
        )
        self.app.commit()
        self.check_validators(before, result)
        for name, value in result.writes.state.items():
            if value is None:
                del self.stored[name]
            else:
                self.stored[name] = value
        self.events += result.events
        money.audit(self.app.items())
        self.check_journal(result)
        if self.without_mistakes:
            assert "work_stuck" not in kinds(result.events)
            assert Code.NOT_POSSIBLE not in [each.code for each in result.tx_results]
        return result

    def propose(self, txs: Sequence[bytes], *, max_bytes: int = 10**6, max_txs: int = 10**5) -> list[bytes]:
        """What of these the next block would have beside its beacon, proposed now."""
        height = self.app.height + 1
        block = BlockInput(height, self.now, key(self.proposer), (self.beacon(), *txs))
        return self.app.prepare_proposal(block, max_bytes=max_bytes, max_txs=max_txs)

    def check_validators(self, before: Mapping[bytes, int], result: BlockResult) -> None:
        """CometBFT would take the updates, little enough has moved, and both know the same validators.

        Its rules: `validateValidatorUpdates` (state/execution.go), `updateWithChangeSet` and what that calls
        (types/validator_set.go).
        """
        told = result.validator_updates
        assert len({each.consensus_key for each in told}) == len(told), "a key is named twice"
        after = dict(before)
        for each in told:
            assert 0 <= each.power < 1 << 60
            assert each.power or each.consensus_key in before, "CometBFT does not know the key to be removed"
            assert before.get(each.consensus_key) != each.power, "nothing new"
            after[each.consensus_key] = each.power
        assert sum(after.values()) + sum(before.values()) < 1 << 60
        after = {consensus: power for consensus, power in after.items() if power}
        assert after, "CometBFT has no validators"
        taken = [power - after.get(each, 0) for each, power in before.items() if power > after.get(each, 0)]
        alone = taken[1:] == [] and "consensus_key_changed" in kinds(result.events)
        assert sum(taken) <= max(1, sum(before.values()) // 3) or alone, "more than a third is taken"
        assert powers_by_key(self.app) == after

    def check_journal(self, result: BlockResult) -> None:
        """The journal's entries so far sum to what every account has."""
        self.entries += result.entries
        for entry in result.entries:
            self.held[entry.account, entry.place] += entry.amount
        has: dict[tuple[bytes, str], int] = {}
        for name, raw in self.app.items():
            if name.startswith(keys.ACCOUNT):
                has[name[len(keys.ACCOUNT) :], "balance"] = AccountRecord.decode(raw).balance
            elif name.startswith(keys.PROVIDER):
                has[name[len(keys.PROVIDER) :], "stake"] = ProviderRecord.decode(raw).stake
        assert {each: n for each, n in self.held.items() if n} == {each: n for each, n in has.items() if n}

    def restored(self) -> Application:
        """Another application from what an engine would have stored."""
        return Application(self.app.genesis, memory_store(self.stored.items()))

    def pass_time(self, seconds: int) -> list[Event]:
        """Blocks at every due instant, and at least every `max_step_s`; returns what happened."""
        end, start = self.app.time + seconds, len(self.events)
        while True:
            due = self.app.next_due()
            at = min(end, self.app.time + self.params.max_step_s, end if due is None else due)
            if at >= end and due != self.app.time and self.app.time >= end:
                return self.events[start:]
            self.block(step=at - self.app.time)

    def pass_until(self, time: int) -> list[Event]:
        """`pass_time` up to a ledger time."""
        return self.pass_time(time - self.app.time)

    def govern(self, params: Params) -> None:
        """Puts another version of the parameters in force, as a vote would; not a block's doing."""
        items = dict(self.app.items())
        chain = ChainRecord.decode(items[keys.CHAIN])
        version = chain.params_version + 1
        items[keys.CHAIN] = replace(chain, params_version=version).encode()
        items[keys.params(version)] = params.check().encode()
        self.stored, self.params = items, params
        self.app = Application(self.app.genesis, memory_store(items.items()))

    # Transactions.

    def tx(
        self, name: str, body: Body, *, nonce: int | None = None, fee: int | None = None, expiry: int = FAR_S
    ) -> bytes:
        account = key(name)
        made = Transaction(
            chain=CHAIN,
            account=account,
            nonce=self.app.account(account).nonce if nonce is None else nonce,
            fee=0,
            expiry=expiry,
            body=body,
        )
        made = with_least_fee(made, self.params) if fee is None else replace(made, fee=fee)
        return sign(made, signer(name)).encode()

    def try_(self, name: str, body: Body, *, fee: int | None = None) -> TxResult:
        """Sends one transaction in a block of its own; the clock stands still."""
        return self.block(self.tx(name, body, fee=fee)).tx_results[1]

    def do(self, name: str, body: Body) -> CID:
        """`try_` what must succeed; returns the transaction's ID."""
        result = self.try_(name, body)
        assert result.ok, result
        assert result.tx_id is not None
        return result.tx_id

    def refuses(self, name: str, body: Body, code: Code) -> None:
        """A transaction is refused with a code, and has no effect at all."""
        before = dict(self.app.items())
        result = self.try_(name, body)
        assert result.code is code, result
        after = dict(self.app.items())
        assert {k for k in before | after if before.get(k) != after.get(k)} <= {b"chain"}

    def fund(self, *names: str, amount: int = 1_000 * HOLD) -> None:
        for name in names:
            self.do("operator", Transfer(key(name), amount))

    def provider(
        self,
        *names: str,
        stake: int = 100 * HOLD,
        capacity: int = GIB,
        price: int = 0,
        payout: str | None = None,
    ) -> None:
        """Funded providers that take pieces of any size."""
        for name in names:
            self.fund(name)
            self.do(name, Register(f"http://{name}.example", capacity, key(payout or name), stake))
            self.do(name, Ask(price, 0, GIB, True))

    # Deals.

    def deal_body(
        self,
        pieces: Iterable[Piece],
        *,
        k: int = 1,
        periods: int = 3,
        price: int = 100_000,
        providers: Iterable[str] = (),
        proof: ProofKind = ProofKind.MERKLE,
    ) -> CreateDeal:
        commitments = tuple(piece.commitment for piece in pieces)
        return CreateDeal(
            content=CONTENT,
            manifest=MANIFEST,
            k=k,
            m=len(commitments),
            replicated=False,
            periods=periods,
            price=price,
            challenges=self.params.challenges,
            pieces=commitments,
            providers=tuple(key(name) for name in providers),
            proof=proof,
        )

    def deal(
        self,
        client: str,
        *,
        shards: int = 1,
        periods: int = 3,
        price: int = 100_000,
        providers: Iterable[str] = (),
        blocks: int = 3,
        proof: ProofKind = ProofKind.MERKLE,
    ) -> CID:
        """A new deal of random pieces, which `pieces` remembers."""
        most = 5_000 if proof is ProofKind.MERKLE else 300  # each 31 bytes cost a commitment's time
        pieces = [Piece.random(self.rng, blocks, most, kind=proof) for _ in range(shards)]
        body = self.deal_body(pieces, periods=periods, price=price, providers=providers, proof=proof)
        deal = self.do(client, body)
        self.pieces |= {(deal, index): piece for index, piece in enumerate(pieces)}
        return deal

    def active(
        self, client: str, provider: str, proof: ProofKind = ProofKind.MERKLE, **terms: int
    ) -> tuple[CID, bytes]:
        """A deal of one shard with a named provider, joined to its dataset; returns both IDs."""
        deal = self.deal(client, providers=(provider,), proof=proof, **terms)
        self.do(provider, Accept(deal, 0))
        dataset = self.shard(deal).dataset
        self.pass_until(self.dataset(dataset).closes_at + 1)
        assert self.shard(deal).first
        return deal, dataset

    def shard(self, deal: CID, index: int = 0) -> ShardRecord:
        info = self.app.deal(deal)
        assert info is not None
        return info.shards[index]

    def dataset(self, dataset: bytes) -> DatasetInfo:
        info = self.app.dataset(dataset)
        assert info is not None
        return info

    def open_window(self, dataset: bytes) -> DatasetInfo:
        """Lets time pass until the dataset's next window is open."""
        info = self.dataset(dataset)
        if info.record.phase in (Phase.OPEN, Phase.RESTING, Phase.VOID):
            self.pass_until(info.closes_at + 1)
        self.pass_until(self.dataset(dataset).opens_at)
        info = self.dataset(dataset)
        assert info.challenge is not None, info.record
        return info

    def proof(self, dataset: bytes) -> Prove:
        """The right answer to a dataset's open window."""
        info = self.dataset(dataset)
        assert info.challenge is not None
        pieces = {
            slot.slot: self.pieces[slot.deal, slot.shard]
            for slot in self.app.dataset_slots(dataset)
            if slot.slot is not None
        }
        return Prove(dataset, info.record.period, answer(info.challenge, pieces))

    def prove(self, provider: str, dataset: bytes) -> None:
        """Waits for the next window and proves it."""
        self.open_window(dataset)
        self.do(provider, self.proof(dataset))

    def settle(self, name: str, deal: CID, index: int = 0) -> int:
        """Settles a shard; returns what it paid."""
        self.do(name, Settle(deal, index))
        paid = last(self.events, "paid")["amount"]
        assert isinstance(paid, int)
        return paid

    def balance(self, name: str) -> int:
        return self.app.account(key(name)).balance

    def check_restores(self) -> None:
        """What was stored gives the same state."""
        assert self.stored == dict(self.app.items())
        again = self.restored()
        assert again.app_hash == self.app.app_hash
        assert (again.height, again.time, again.next_due()) == (
            self.app.height,
            self.app.time,
            self.app.next_due(),
        )


def powers_by_key(app: Application) -> dict[bytes, int]:
    """What the engine should know."""
    return {info.record.consensus_key: info.record.power for info in app.validators()}


def kinds(events: Iterable[Event]) -> list[str]:
    return [event.kind for event in events]


def all_of(events: Iterable[Event], kind: str) -> list[Mapping[str, Attribute]]:
    return [event.attributes for event in events if event.kind == kind]


def last(events: Iterable[Event], kind: str) -> Mapping[str, Attribute]:
    return all_of(events, kind)[-1]
