"""Proofs of storage as files: what the engine keeps for them, what is taken out, and what holds of it."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from ledger import limits, state_proof, state_tree
from ledger.application import BlockInput, BlockResult
from ledger.engine.assemble import assemble, load_application
from ledger.engine.blocks import Block
from ledger.engine.errors import InvalidProofFile, LedgerNotFound, PrunedHistory
from ledger.engine.evidence import Evidence
from ledger.engine.evidence_check import check_evidence
from ledger.engine.evidence_maker import EvidenceMaker
from ledger.engine.history import History
from ledger.engine.proof_file import ProofFile
from ledger.engine.pruning import Keep, Pruner
from ledger.engine.storage import LedgerStorage
from ledger.engine.verdict import Anchor
from ledger.errors import CorruptState, InvalidStateProof
from ledger.forms_validators import register_validator
from ledger.ingest import memory_store
from ledger.records import DatasetRecord
from ledger.state_tree import LeafProof, StateProof, StateTree
from ledger.transactions import Transfer
from merkledag import dag_cbor
from merkledag.cid import CID
from merkledag.ed25519 import Ed25519Signer
from proofs.audit import AuditFile
from proofs.bls.signatures import BlsSigner
from proofs.errors import InvalidProof
from proofs.kinds import ProofKind
from tests.ledger.test_spot import ask, proof_of
from tests.ledger.world import PARAMS, World, beacon_signer, genesis, key, seed, signer
from tests.proofs import simple_files

OPERATOR = Anchor(operator=key("operator"), chain="test-chain")


@dataclass
class StoredWorld(World):
    """A ledger whose blocks are signed and kept in a folder, as the engine does it."""

    folder: Path = Path()
    keep: Keep = Keep()  # noqa: RUF009 (frozen)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.storage = LedgerStorage(self.folder)
        self.storage.open()
        self.app = load_application(self.storage, genesis(self.params))
        self.history = History(self.storage)
        self.pruner = Pruner(self.storage, self.keep)
        self.maker = EvidenceMaker(self.history, self.app.genesis)

    def block(self, *txs: bytes, step: int = 0) -> BlockResult:
        self.now += step
        given = BlockInput(self.app.height + 1, self.now, key("operator"), (self.beacon(), *txs))
        result = self.app.finalize_block(given)
        tip = self.history.block(self.app.height)
        made = assemble(self.app, given, result, tip.cid if tip else None, signer("operator"))
        self.storage.log_block(made.stored)
        self.storage.apply(made.stored, self.pruner.step(self.now))
        self.app.commit()
        self.events += result.events
        return result


@pytest.fixture
def world(tmp_path: Path) -> Iterator[StoredWorld]:
    with_store = StoredWorld(folder=tmp_path / "ledger")
    with_store.fund("client", "eve")
    with_store.provider("node")
    yield with_store
    with_store.storage.close()


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[StoredWorld, Evidence, Evidence]]:
    """A chain with a period's proof and the answer to a spot challenge, and both as files."""
    world = StoredWorld(folder=tmp_path_factory.mktemp("evidence") / "ledger")
    world.fund("client", "eve")
    world.provider("node")
    deal, dataset = world.active("client", "node")
    world.prove("node", dataset)
    ask(world, deal)
    world.do("node", proof_of(world, deal))
    yield world, world.maker.of_period(dataset, None), world.maker.of_spot(deal, 0, None)
    world.storage.close()


Made = tuple[StoredWorld, Evidence, Evidence]


def broken_at(evidence: Evidence, anchor: Anchor = OPERATOR) -> str:
    """The first link that does not hold, "" if all do: then, and only then, the second verifier says yes."""
    broken = next((link.name for link in check_evidence(evidence, anchor).links if link.holds is False), "")
    if anchor == OPERATOR:
        assert simple_files.ledger_file(evidence.encode(), key("operator"), "test-chain") is not bool(broken)
    return broken


def test_a_proof_holds_whose_seed_was_signed_with_the_key_before(world: StoredWorld) -> None:
    """The operator's next BLS key began to count between the seed and the proof."""
    _, dataset = world.active("client", "node", periods=6)
    new = BlsSigner.from_seed(seed("the next beacon"))
    world.beacon_signers[new.public_key] = new
    world.open_window(dataset)
    world.block(step=4)
    rotation = register_validator("test-chain", key("operator"), signer("operator"), new)
    world.do("operator", rotation)  # counts in the window after the next one
    world.do("node", world.proof(dataset))
    world.prove("node", dataset)
    world.open_window(dataset)
    seeded, old = world.app.height, world.app.bls_key(key("operator"))
    world.pass_time(5)
    assert (old, world.app.bls_key(key("operator"))) == (beacon_signer().public_key, new.public_key)
    world.do("node", world.proof(dataset))
    evidence = world.maker.of_period(dataset, None)
    assert evidence.beacon.height <= seeded < evidence.block.height
    assert not broken_at(evidence)
    wrong = replace(evidence.beacon, signature=new.sign(b"something else"))
    assert broken_at(replace(evidence, beacon=wrong)) == "beacon"


def test_a_proof_is_taken_out_and_every_link_holds(made: Made) -> None:
    world, period, spot = made
    for evidence in (period, spot):
        again = Evidence.decode(evidence.encode())
        assert again == evidence
        assert not broken_at(again)
        verdict = check_evidence(again, replace(OPERATOR, ledger_block=lambda h: _block(world, h)))
        assert [(link.name, link.holds) for link in verdict.links if not link.holds] == []
        assert verdict.about is not None
        assert (verdict.about.node, verdict.about.client) == (key("node"), key("client"))
        assert verdict.challenge is not None
        drawn = len(verdict.challenge.data_leaves()) + len(verdict.challenge.meta_leaves())
        assert len(verdict.shown) == drawn > 0


def _block(world: StoredWorld, height: int) -> Block:
    found = world.history.block(height)
    assert found is not None
    return found


def test_what_nobody_gave_a_measure_for_is_told_as_not_checked(made: Made) -> None:
    _, period, spot = made
    for evidence in (period, spot):
        outcomes = {link.name: link.holds for link in check_evidence(evidence, Anchor()).links}
        assert (outcomes["operator"], outcomes["chain"]) == (None, None)
        by_hash = check_evidence(evidence, Anchor(app_hash=evidence.state_block.app_hash))
        assert {link.name: link.holds for link in by_hash.links}["operator"] is True
        by_key, by_chain = (
            check_evidence(evidence, anchor).links[1]
            for anchor in (Anchor(operator=key("operator")), Anchor(chain="test-chain"))
        )
        assert (by_key.holds, by_chain.holds) == (True, None), "anybody can name a chain of their own so"
        assert "which chain that ought to be, nobody said" in by_key.says
        assert "whose key that ought to be" in by_chain.says


def test_it_is_held_against_what_was_given(made: Made) -> None:
    world, period, spot = made
    other = _block(world, 1)
    for evidence in (period, spot):
        assert broken_at(evidence, Anchor(operator=key("node"))) == "operator"
        assert broken_at(evidence, Anchor(operator=key("operator"), chain="other")) == "operator"
        assert broken_at(evidence, Anchor(app_hash=bytes(32))) == "operator"
        assert broken_at(evidence, Anchor(ledger_block=lambda _height: other)) == "chain"
        links = check_evidence(evidence, Anchor(operator=key("node"))).links
        assert all(link.holds is None for link in links[2:])


def test_every_byte_is_bound(made: Made) -> None:
    """No byte can be changed unnoticed: a sample of them, those of a proof's leaves seldom among them."""
    _, *files = made
    rng = random.Random(5)
    for evidence in files:
        raw = evidence.encode()
        start = raw.index(evidence.tx)
        outside = [at for at in range(len(raw)) if not start + 200 <= at < start + len(evidence.tx) - 200]
        for at in [*rng.sample(outside, 200), *rng.sample(range(len(raw)), 50)]:
            changed = bytearray(raw)
            changed[at] ^= 1 << rng.randrange(8)
            try:
                found = Evidence.decode(bytes(changed))
                assert broken_at(found), f"byte {at} of {len(raw)} is free"
            except InvalidProofFile:
                assert not simple_files.ledger_file(bytes(changed), key("operator"), "test-chain")


def test_nothing_can_be_cut_off_or_added(made: Made) -> None:
    _, *files = made
    for evidence in files:
        raw = evidence.encode()
        for changed in (
            b"",
            raw[:-1],
            raw + b"\0",
            raw * 2,
            b"\xa0",
            dag_cbor.encode([1]),
            b"\x9b" + b"\xff" * 8,
        ):
            with pytest.raises(InvalidProofFile):
                Evidence.decode(changed)
            assert not simple_files.ledger_file(changed, key("operator"), "test-chain")
        assert broken_at(replace(evidence, state=evidence.state[:-1])) == "state"
        assert broken_at(replace(evidence, state=(*evidence.state[1:], evidence.state[0]))) == "state"
        with pytest.raises(InvalidProofFile):
            Evidence.decode(b"\0" * ((4 << 20) + 1))


def test_a_value_is_shown_without_neighbours(made: Made) -> None:
    """What only a proof of absence has would be bytes that nothing binds."""
    _, *files = made
    for evidence in files:
        shown, neighbour = evidence.state[0], LeafProof(b"key", bytes(32), 0, 1, ())
        for beside in (replace(shown, left=neighbour), replace(shown, right=neighbour)):
            raw = replace(evidence, state=(beside, *evidence.state[1:])).encode()
            assert not simple_files.ledger_file(raw, key("operator"), "test-chain")
            with pytest.raises(InvalidProofFile):
                Evidence.decode(raw)


def test_the_blocks_of_a_spot_proof_say_what_the_rest_says(made: Made) -> None:
    """Signed by the operator, and yet refused: another height, or a beacon that is not the seed's."""
    _, _, spot = made
    assert spot.before is not None
    operator = signer("operator")
    higher = replace(spot.block, height=spot.block.height + 1, sig=b"").signed(operator)
    assert broken_at(replace(spot, block=higher)) == "signature"
    assert spot.beacon.height == spot.before.height
    other = replace(spot.before, beacon=bytes(32), sig=b"").signed(operator)
    after = replace(spot.block, prev=other.cid, sig=b"").signed(operator)
    assert broken_at(replace(spot, before=other, block=after)) == "beacon"


def test_parts_of_different_proofs_do_not_go_together(world: StoredWorld) -> None:
    _, dataset = world.active("client", "node")
    world.prove("node", dataset)
    first = world.maker.of_period(dataset, None)
    world.prove("node", dataset)
    second = world.maker.of_period(dataset, None)
    assert first.transaction().body != second.transaction().body
    assert broken_at(replace(first, tx=second.tx)) == "transaction"
    assert broken_at(replace(first, block=second.block)) == "transaction"
    assert broken_at(replace(first, block=second.block, tx=second.tx)) == "state"
    assert broken_at(replace(first, block=second.block, tx=second.tx, state=second.state)) == "seed"
    again = world.maker.of_period(dataset, first.transaction().to_json()["body"]["period"])
    assert again == first


def test_an_operator_that_signs_anything_still_cannot_choose_the_seed(made: Made) -> None:
    """Whoever holds the operator's key, not its BLS key, signs a block of its own with the same state."""
    _, period, _ = made
    forged = replace(period.block, beacon=bytes(32), sig=b"").signed(signer("operator"))
    step = replace(period.beacon, previous=bytes(32))
    assert broken_at(replace(period, block=forged, beacon=step)) == "beacon"
    stranger = Ed25519Signer.from_seed(seed("stranger"))
    theirs = replace(period.block, account=stranger.public_key, sig=b"").signed(stranger)
    assert broken_at(replace(period, block=theirs)) == "operator"
    assert broken_at(replace(period, block=theirs), Anchor()) == "state"
    late = replace(period.block, time=period.block.time + 100, sig=b"").signed(signer("operator"))
    assert broken_at(replace(period, block=late)) == "time"
    other = replace(period.block, txs=(CID.of(b"", codec=0x71),), sig=b"").signed(signer("operator"))
    assert broken_at(replace(period, block=other)) == "transaction"


def test_a_spot_proof_needs_the_block_before(made: Made) -> None:
    world, period, spot = made
    assert spot.before is not None
    earlier = _block(world, spot.block.height - 2)
    assert broken_at(replace(spot, before=earlier)) == "signature"
    with pytest.raises(InvalidProofFile):
        check_evidence(replace(spot, before=None), OPERATOR)
    with pytest.raises(InvalidProofFile):
        check_evidence(replace(period, before=earlier), OPERATOR)


def test_what_the_state_says_of_a_hostile_chain_raises_nothing(made: Made) -> None:
    """Records with numbers out of this world, under an app hash of their own, signed by their operator."""
    _, period, _ = made
    record = dag_cbor.decode(period.state[0].value or b"")
    for change in (
        {"terms": 2**40},
        {"challenges": 2**62},
        {"depth": 21},
        {"data_leaves": 2**63 - 1},
        {"period": 2**63 - 1},
        {"phase": "none"},  # which the second verifier does not look at
    ):
        value = dag_cbor.encode(record | change)
        state = {proof.key: proof.value or b"" for proof in period.state} | {period.state[0].key: value}
        tree = StateTree(memory_store([]).tree)
        staged = tree.stage(state)
        shown = tuple(state_proof.least(tree.prove(key_, state.get, staged)) for key_ in state)
        block = replace(period.block, app_hash=staged.root, sig=b"").signed(signer("operator"))
        forged = replace(period, block=block, state=shown)
        anchor = Anchor(operator=key("operator")) if "phase" in change else OPERATOR
        assert broken_at(Evidence.decode(forged.encode()), anchor), change


def test_thousands_of_values_are_refused_before_any_is_made(made: Made) -> None:
    """4 MiB of empty maps took 50 s and 1.2 GB to refuse."""
    _, period, _ = made
    most = 100_000
    junk = b"\x9a" + most.to_bytes(4, "big") + b"\xa0" * most
    for decode in (
        Evidence.decode,
        ProofFile.decode,
        AuditFile.decode,
        state_proof.decode,
        DatasetRecord.decode,
    ):
        with pytest.raises(
            (InvalidProofFile, InvalidProof, InvalidStateProof, CorruptState), match="more than"
        ):
            decode(junk)
    txs = tuple(CID.of(b"%d" % number, codec=0x71) for number in range(limits.MAX_BLOCK_TXS))
    full = replace(period, block=replace(period.block, txs=txs))
    assert Evidence.decode(replace(full, before=full.block).encode()).block.txs == txs


def test_a_kzg_proof_is_taken_out_as_well(world: StoredWorld) -> None:
    deal, dataset = world.active("client", "node", proof=ProofKind.KZG)
    world.prove("node", dataset)
    ask(world, deal)
    world.do("node", proof_of(world, deal))
    for evidence in (world.maker.of_period(dataset, None), world.maker.of_spot(deal, 0, None)):
        verdict = check_evidence(evidence, OPERATOR)
        assert verdict.holds
        assert not broken_at(evidence)
        assert verdict.challenge is not None
        assert verdict.challenge.kind is ProofKind.KZG
        assert {len(unit.data) for unit in verdict.shown} == {48}


def test_proofs_leave_with_what_shows_them(tmp_path: Path) -> None:
    keep = Keep(proofs_s=3 * PARAMS.period_s)
    world = StoredWorld(folder=tmp_path / "ledger", keep=keep)
    world.fund("client", "eve")
    world.provider("node")
    deal, dataset = world.active("client", "node", periods=12)
    world.prove("node", dataset)
    ask(world, deal)
    world.do("node", proof_of(world, deal))
    first = world.dataset(dataset).record.period
    while world.dataset(dataset).record.period < first + 4:
        world.prove("node", dataset)
    last = world.dataset(dataset).record.period
    world.block()
    with pytest.raises(LedgerNotFound, match=f"last one of it is of period {last}"):
        world.maker.of_period(dataset, first)
    with pytest.raises(LedgerNotFound, match="nor is any other"):
        world.maker.of_spot(deal, 0, None)
    assert broken_at(world.maker.of_period(dataset, last)) == ""
    with world.storage._begin() as txn:
        rows = txn.stat(db=world.storage._tables[b"proofs"])["entries"]
    kept = [period for period, _ in world.history.proofs(b"P" + dataset, 2**63 - 1)]
    assert rows == 2 * len(kept)
    with pytest.raises(PrunedHistory):
        world.history.witness(1)
    world.storage.close()


def test_a_block_without_proofs_costs_nothing(world: StoredWorld) -> None:
    world.do("client", Transfer(key("eve"), 1))
    with world.storage._begin() as txn:
        assert txn.stat(db=world.storage._tables[b"proofs"])["entries"] == 0


def test_what_was_kept_is_kept_by_a_replay_too(tmp_path: Path) -> None:
    world = StoredWorld(folder=tmp_path / "ledger")
    world.fund("client")
    world.provider("node")
    _, dataset = world.active("client", "node")
    world.open_window(dataset)
    apply = world.storage.apply
    world.storage.apply = lambda *_: None  # type: ignore[method-assign] # the log has it, the database not
    made = world.app.height
    world.do("node", world.proof(dataset))
    world.storage.apply = apply  # type: ignore[method-assign]
    world.storage.abandon()
    storage = LedgerStorage(tmp_path / "ledger")
    storage.open()
    app = load_application(storage, genesis(PARAMS))
    assert app.height == made + 1
    assert broken_at(EvidenceMaker(History(storage), app.genesis).of_period(dataset, None)) == ""
    storage.close()


@pytest.mark.parametrize("total", [1, 2, 3, 5, 8, 13, 40])
def test_the_least_place_of_a_path_leads_the_same_way(total: int) -> None:
    for index in range(total):
        leaf = LeafProof(b"key", bytes(32), index, total, ())
        found = state_proof.least(StateProof(b"key", b"", leaf, None, None, ())).leaf
        assert found is not None
        assert found.total <= total
        way = state_tree.sides(index, total)
        assert state_tree.sides(found.index, found.total) == way
        smaller = [(i, n) for n in range(1, found.total) for i in range(n) if state_tree.sides(i, n) == way]
        assert smaller == []
