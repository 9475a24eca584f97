"""Checks a file with a proof of storage, link by link: from a signature or app hash down to the shown leaves.

Each link says in words what was compared and how it came out. After one that fails nothing is checked; what
nobody gave anything to compare with is told as not checked. So nothing is said that was not seen.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TypeVar

from ledger import keys, rules_proofs, rules_spot, state_tree, transactions
from ledger.engine.blocks import Block, node_cid
from ledger.engine.evidence import Evidence
from ledger.engine.verdict import About, Anchor, Broken, Link, NotChecked, Verdict
from ledger.errors import CorruptState
from ledger.genesis import Params
from ledger.limits import MAX_SHARDS
from ledger.records import DatasetRecord, DealRecord, Record, ShardRecord, SpotRecord
from ledger.records_validators import ValidatorRecord
from ledger.rules_datasets import Clock
from ledger.transactions import Answer, Prove, Transaction
from merkledag.peer import peer_text
from proofs.beacon import chain as beacon
from proofs.challenge import Challenge, period_seed, spot_seed
from proofs.errors import InvalidBeacon, InvalidProof
from proofs.proof import verify
from proofs.walk import ShownUnit

R = TypeVar("R", bound=Record)


_NOT_REACHED = "not looked at, because one before it does not hold"


def check_evidence(evidence: Evidence, anchor: Anchor) -> Verdict:
    """Every link with its outcome. Raises InvalidProofFile where the transaction in it is no proof at all."""
    tx = evidence.transaction()
    found: Check
    if evidence.lights:
        from ledger.engine.cometbft.light.evidence_check import check_of

        found = check_of(evidence, tx, anchor)
    elif isinstance(tx.body, Prove):
        found = PeriodCheck(evidence, tx, anchor)
    else:
        found = SpotCheck(evidence, tx, anchor)
    verdict = Verdict()
    for name, step in found.steps():
        if not verdict.holds:
            verdict.links.append(Link(name, None, _NOT_REACHED))
            continue
        try:
            link = Link(name, True, step())
        except Broken as error:
            link = Link(name, False, str(error))
        except NotChecked as error:
            link = Link(name, None, str(error))
        verdict.links.append(link)
    if verdict.holds:
        verdict.about, verdict.challenge, verdict.shown = found.about(), found.challenge(), found.shown
    return verdict


class Check:
    """What both kinds of file share. Each link relies on those before it."""

    def __init__(self, evidence: Evidence, tx: Transaction, anchor: Anchor) -> None:
        self.evidence = evidence
        self.tx = tx
        self.anchor = anchor
        self.block = evidence.block
        self.values: dict[bytes, bytes] = {}
        self.beacon_value = b""
        self.shown: list[ShownUnit] = []

    def steps(self) -> list[tuple[str, Callable[[], str]]]:
        """The links by name, in order."""
        return [
            ("signature", self.signature),
            ("operator", self.operator),
            ("chain", self.on_chain),
            ("transaction", self.transaction),
            ("state", self.state),
            ("parties", self.parties),
            ("beacon", self.beacon),
            ("seed", self.seed),
            ("time", self.time),
            ("leaves", self.leaves),
        ]

    # What the kinds differ in.

    def keys(self) -> Iterator[bytes]:
        """The state's keys that have to be shown, in order; `values` has those that came before."""
        raise NotImplementedError

    def parties(self) -> str:
        """Whose proof of what it is."""
        raise NotImplementedError

    def seed(self) -> str:
        """That the seed in the state follows from the beacon."""
        raise NotImplementedError

    def about(self) -> About:
        """What it is a proof of."""
        raise NotImplementedError

    def challenge(self) -> Challenge:
        """What the state asks for; raises ValueError for what no ledger asks."""
        raise NotImplementedError

    # The links.

    def signature(self) -> str:
        block, before = self.block, self.evidence.before
        if before is not None:
            _sign_checked(before)
            links = (before.account, before.chain, before.height + 1, before.cid)
            if links != (block.account, block.chain, block.height, block.prev):
                raise Broken(f"block {before.height} is not the one before block {block.height}")
        _sign_checked(block)
        both = f"block {block.height}" if before is None else f"blocks {before.height} and {block.height}"
        return f"{both} of chain {block.chain} signed by {peer_text(block.account)}"

    def operator(self) -> str:
        block, anchor = self.block, self.anchor
        said = []
        if anchor.operator is not None:
            if anchor.operator != block.account:
                raise Broken(f"the operator ought to be {peer_text(anchor.operator)}")
            which = (
                "" if anchor.chain is not None else "; which chain that ought to be, nobody said (--chain ID)"
            )
            said.append(f"that is the operator's key that you trust{which}")
        if anchor.chain is not None:
            if anchor.chain != block.chain:
                raise Broken(f"the chain ought to be {anchor.chain}")
            said.append("and the chain" if said else f"that is chain {anchor.chain}, as it ought to be")
        if anchor.app_hash is not None:
            found = self.evidence.state_block.app_hash
            if anchor.app_hash != found:
                raise Broken(f"the state has app hash {found.hex()}, not the one that was given")
            said.append("the state has the app hash that you gave")
            if anchor.operator is None:
                said.append("but for the block's time and transactions nobody vouched")
        if anchor.operator is None and anchor.app_hash is None:
            raise NotChecked(", ".join([*said, "nobody said whose key that ought to be"]))
        return ", ".join(said)

    def on_chain(self) -> str:
        asked = self.anchor.ledger_block
        if asked is None:
            raise NotChecked("only a ledger shows whether others see that block too (--ledger URL)")
        if asked(self.block.height) != self.block:
            raise Broken(f"the ledger has another block {self.block.height}")
        return f"the ledger has this very block {self.block.height}"

    def transaction(self) -> str:
        tx, cid = self.tx, node_cid(self.evidence.tx)
        if cid not in self.block.txs:
            raise Broken(f"transaction {cid} is not in block {self.block.height}")
        if tx.chain != self.block.chain or not transactions.verify(tx):
            raise Broken(f"transaction {cid} is not signed, for this chain, by the account that it names")
        return f"transaction {cid} in it is signed by node {peer_text(tx.account)}"

    def state(self) -> str:
        shown, app_hash = iter(self.evidence.state), self.evidence.state_block.app_hash
        for key in self.keys():
            proof = next(shown, None)
            if proof is None or proof.key != key or proof.value is None:
                raise Broken(f"what the state has at key {key.hex()} is not shown")
            if not state_tree.verify(proof, app_hash):
                raise Broken(f"what is shown of key {key.hex()} does not lead to the app hash")
            self.values[key] = proof.value
        if next(shown, None) is not None:
            raise Broken("more of the state is shown than the proof needs")
        return f"{len(self.values)} values of the state lead to app hash {app_hash.hex()}"

    def beacon(self) -> str:
        step = self.evidence.beacon
        self.beacon_value = self._beacon_value()
        at = self.evidence.state_block
        if step.height > at.height:
            raise Broken(f"block {step.height} comes after the state that has the seed")
        if step.height == at.height and at.beacon != self.beacon_value:
            raise Broken(f"block {step.height} has another beacon")
        return (
            f"the beacon of block {step.height} follows from the one before it by the BLS signature of the "
            "key in the state"
        )

    def _beacon_value(self) -> bytes:
        """By the key that counts in the state, or the one before it: it may have changed since the seed."""
        step, chain = self.evidence.beacon, self.block.chain
        proposer = self.record(keys.validator(self.block.account), ValidatorRecord)
        try:
            return beacon.verify_step(proposer.bls_key, chain, step.height, step.previous, step.signature)
        except (InvalidBeacon, ValueError) as error:
            if not proposer.last_bls_key:
                raise Broken(str(error)) from error
        try:
            return beacon.verify_step(
                proposer.last_bls_key, chain, step.height, step.previous, step.signature
            )
        except (InvalidBeacon, ValueError) as error:
            raise Broken(str(error)) from error

    def time(self) -> str:
        about = self.about()
        if not about.drawn_at <= about.proven_at <= about.closes_at:
            raise Broken(f"block {self.block.height} is of ledger time {about.proven_at}: not in time")
        return (
            f"the seed was drawn at ledger time {about.drawn_at}, the proof came at {about.proven_at}; "
            f"it was due by {about.closes_at}"
        )

    def leaves(self) -> str:
        body = self.tx.body
        assert isinstance(body, Prove | Answer), "the file's transaction has a proof"
        try:
            challenge = self.challenge()
            self.shown = verify(challenge, body.proof)
        except (InvalidProof, ValueError) as error:
            raise Broken(str(error)) from error
        data, meta = len(challenge.data_leaves()), len(challenge.meta_leaves())
        return (
            f"the seed draws {data} of {challenge.data.sum} leaves of data and {meta} of "
            f"{challenge.meta.sum} of metadata; a {challenge.kind.value} proof shows all of them below the "
            "dataset's roots"
        )

    def record(self, key: bytes, cls: type[R]) -> R:
        """A record of the state that was shown."""
        try:
            return cls.decode(self.values[key])
        except CorruptState as error:
            raise Broken(f"the state has no record of this release: {error}") from error

    @property
    def proposer_key(self) -> bytes:
        """The key of the operator's BLS key."""
        return keys.validator(self.block.account)


class PeriodCheck(Check):
    """The proof of a dataset's period, against the state after its block."""

    @property
    def _body(self) -> Prove:
        assert isinstance(self.tx.body, Prove), "chosen by it"
        return self.tx.body

    @property
    def _record(self) -> DatasetRecord:
        return self.record(keys.dataset(self._body.dataset), DatasetRecord)

    @property
    def _terms(self) -> Params:
        return self.record(keys.params(self._record.terms), Params)

    def keys(self) -> Iterator[bytes]:
        yield keys.dataset(self._body.dataset)
        yield _params_key(self._record.terms)
        yield self.proposer_key

    def parties(self) -> str:
        body, record = self._body, self._record
        if record.provider != self.tx.account:
            raise Broken(f"the dataset is kept by {peer_text(record.provider)}, not by who signed")
        if record.period != body.period or not record.proven:
            raise Broken(f"the state does not say that period {body.period} is proven")
        return (
            f"the state says that this node keeps dataset {body.dataset.hex()} of client "
            f"{peer_text(record.client)} and has proven period {body.period}"
        )

    def seed(self) -> str:
        body, record = self._body, self._record
        try:
            found = period_seed(
                self.block.chain, body.dataset, record.provider, record.period, self.beacon_value
            )
        except ValueError as error:
            raise Broken(str(error)) from error
        if found != record.seed or self.evidence.beacon.height != record.seed_height:
            raise Broken("the seed in the state does not follow from that beacon")
        return f"seed {found.hex()} follows from it, the chain, dataset, node and period"

    def time(self) -> str:
        clock = Clock.of(self._body.dataset, self._terms)
        opens_at = clock.opens_at(self._record.period)
        if self._record.seed_time < opens_at:
            raise Broken(f"the seed was drawn before the window opened at {opens_at}")
        return super().time()

    def about(self) -> About:
        body, record = self._body, self._record
        return About(
            node=record.provider,
            client=record.client,
            dataset=body.dataset,
            period=record.period,
            deal=None,
            shard=None,
            drawn_at=record.seed_time,
            proven_at=self.block.time,
            closes_at=Clock.of(body.dataset, self._terms).closes_at(record.period),
        )

    def challenge(self) -> Challenge:
        return rules_proofs.challenge_of(self._record, self._terms)


class SpotCheck(Check):
    """The answer to a spot challenge of one shard, against the state before its block, which it changed."""

    @property
    def _body(self) -> Answer:
        assert isinstance(self.tx.body, Answer), "chosen by it"
        return self.tx.body

    @property
    def _record(self) -> SpotRecord:
        return self.record(keys.spot(self._body.deal, self._body.shard), SpotRecord)

    @property
    def _shard(self) -> ShardRecord:
        return self.record(keys.shard(self._body.deal, self._body.shard), ShardRecord)

    @property
    def _deal(self) -> DealRecord:
        return self.record(keys.deal(self._body.deal), DealRecord)

    @property
    def _terms(self) -> Params:
        return self.record(keys.params(self._deal.terms), Params)

    def keys(self) -> Iterator[bytes]:
        deal, shard = self._body.deal, self._body.shard
        if shard >= MAX_SHARDS:
            raise Broken(f"no deal has a shard {shard}")
        yield keys.spot(deal, shard)
        yield keys.shard(deal, shard)
        yield keys.deal(deal)
        yield _params_key(self._deal.terms)
        yield self.proposer_key

    def parties(self) -> str:
        body, record = self._body, self._record
        if not self.tx.account == record.provider == self._shard.provider:
            raise Broken(f"the challenge is for {peer_text(record.provider)}, not for who signed")
        return (
            f"the state says that this node keeps shard {body.shard} of deal {body.deal} of client "
            f"{peer_text(self._deal.client)} and was challenged by {peer_text(record.challenger)}"
        )

    def seed(self) -> str:
        body, record, block = self._body, self._record, self.block
        try:
            found = spot_seed(
                block.chain, bytes(body.deal), body.shard, record.provider, record.height, self.beacon_value
            )
        except ValueError as error:
            raise Broken(str(error)) from error
        if found != record.seed or self.evidence.beacon.height != record.seed_height:
            raise Broken("the seed in the state does not follow from that beacon")
        return f"seed {found.hex()} follows from it, the chain, deal, shard, node and block {record.height}"

    def about(self) -> About:
        record = self._record
        return About(
            node=record.provider,
            client=self._deal.client,
            dataset=self._shard.dataset,
            period=None,
            deal=self._body.deal,
            shard=self._body.shard,
            drawn_at=record.closes_at - self._terms.window_s,
            proven_at=self.block.time,
            closes_at=record.closes_at,
        )

    def challenge(self) -> Challenge:
        return rules_spot.challenge_of(self._deal, self._shard, self._record, self._terms)


def _params_key(version: int) -> bytes:
    if version >= 1 << 32:
        raise Broken(f"there is no version {version} of the parameters")
    return keys.params(version)


def _sign_checked(block: Block) -> None:
    if not block.verify():
        raise Broken(f"block {block.height} is not signed by the account that it names")
