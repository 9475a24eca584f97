"""Deals of either kind of proof: their datasets, their proofs, and what a block has time to verify."""

from __future__ import annotations

import random
from collections.abc import Collection, Sequence
from dataclasses import replace
from itertools import islice

import pytest

from ledger import limits, proof_checker, rules_spot
from ledger.application import Application, BlockInput, BlockResult
from ledger.genesis import Params
from ledger.proof_checker import Claim, RememberingChecker, cost_of, look, points_of
from ledger.result import Code
from ledger.rules_datasets import Clock, identify
from ledger.transactions import Accept, Answer, Beacon, CreateDeal, PieceCommitment, Prove, Spot, Transfer
from merkledag import dag_cbor
from merkledag.cid import CID
from proofs.bls.points import G1_INFINITY
from proofs.challenge import Challenge
from proofs.commitment import EMPTY
from proofs.errors import InvalidProof
from proofs.kinds import ProofKind
from proofs.kzg import proof as kzg_proof
from tests.ledger.world import CHAIN, PARAMS, Piece, World, answer, beacon_signer, key

KINDS = pytest.mark.parametrize("kind", list(ProofKind))


def deal_of(world: World, kind: ProofKind) -> CID:
    return world.do("client", body_of(world, kind))


def body_of(world: World, kind: ProofKind, **changes: int) -> CreateDeal:
    piece = Piece.random(random.Random(3))
    piece.commitment = PieceCommitment.from_map(piece.commitment.to_map() | changes)
    return world.deal_body([piece], providers=["node"], proof=kind)


@KINDS
def test_a_deal_and_its_dataset_are_of_the_kind_that_was_asked_for(world: World, kind: ProofKind) -> None:
    deal = deal_of(world, kind)
    world.do("node", Accept(deal, 0))
    info = world.app.deal(deal)
    assert info is not None
    assert info.record.proof is kind
    dataset = info.shards[0].dataset
    assert dataset == identify(key("client"), key("node"), kind, PARAMS.challenges, 1)
    assert world.dataset(dataset).record.proof is kind


def test_deals_of_two_kinds_share_no_dataset(world: World) -> None:
    for kind in ProofKind:
        world.do("node", Accept(deal_of(world, kind), 0))
    assert {info.record.proof for info in world.app.datasets()} == set(ProofKind)


@KINDS
def test_bytes_that_do_not_fit_into_their_leaves_are_refused(world: World, kind: ProofKind) -> None:
    most = kind.rules.unit_bytes
    for part in ("data", "meta"):
        counts = {f"{part}_leaves": 3, f"{part}_bytes": 3 * most}
        world.do("client", body_of(world, kind, **counts))
        counts[f"{part}_bytes"] += 1
        world.refuses("client", body_of(world, kind, **counts), Code.INVALID_TERMS)


@KINDS
def test_a_deal_of_either_kind_is_proven_challenged_and_paid(world: World, kind: ProofKind) -> None:
    world.fund("eve")
    deal, dataset = world.active("client", "node", kind, periods=2)
    world.prove("node", dataset)
    world.do("eve", Spot(deal, 0))
    world.block()
    info, spot = world.app.deal(deal), world.app.spot(deal, 0)
    assert info is not None
    assert spot is not None
    challenge = rules_spot.challenge_of(info.record, info.shards[0], spot, PARAMS)
    assert challenge.kind is kind
    world.do("node", Answer(deal, 0, answer(challenge, {0: world.pieces[deal, 0]})))
    assert world.settle("node", deal) == 100_000
    world.check_restores()


def test_a_proof_of_the_other_kind_or_of_other_data_is_refused(world: World) -> None:
    _, by_kzg = world.active("client", "node", ProofKind.KZG, periods=9)
    _, by_merkle = world.active("client", "node", periods=9)
    world.provider("second")
    _, others = world.active("client", "second", ProofKind.KZG, periods=9)
    wrong: dict[bytes, list[bytes]] = {by_kzg: [], by_merkle: []}
    for dataset, other in ((by_kzg, by_merkle), (by_merkle, by_kzg), (by_kzg, others)):
        world.open_window(other)
        wrong[dataset].append(world.proof(other).proof)
    for dataset, proofs in wrong.items():
        period = world.open_window(dataset).record.period
        for proof in proofs:
            world.refuses("node", Prove(dataset, period, proof), Code.INVALID_PROOF)
        world.do("node", world.proof(dataset))


def begins_early(name: str, params: Params) -> bool:
    """Whether the periods of the client's dataset on this node begin in a certain eighth of the others'."""
    return Clock.of(identify(key("client"), key(name), ProofKind.KZG, 2, 1), params).offset_s < 5


class Several:
    """Datasets of one client on several nodes, all proven by KZG, with windows open at the same time.

    The blocks are of zeros, which are quickly proven: y is 0.
    """

    def __init__(self, count: int) -> None:
        params = Params(period_s=40, window_s=20, accept_timeout_s=15, challenges=2)
        self.world = world = World(params)
        world.fund("client")
        names = (f"node{number}" for number in range(1_000))
        self.nodes = list(islice((name for name in names if begins_early(name, params)), count))
        world.provider(*self.nodes)
        self.datasets = []
        for name in self.nodes:
            piece = Piece.of([bytes(200), bytes(300)], [bytes(9)], ProofKind.KZG)
            body = world.deal_body([piece], providers=(name,), proof=ProofKind.KZG, periods=9)
            deal = world.do("client", body)
            world.pieces[deal, 0] = piece
            world.do(name, Accept(deal, 0))
            self.datasets.append(world.shard(deal).dataset)
        world.pass_until(max(world.dataset(dataset).closes_at for dataset in self.datasets) + 1)
        world.pass_until(max(world.dataset(dataset).opens_at for dataset in self.datasets))

    def txs(self, *, spoiled: Collection[int] = ()) -> list[bytes]:
        """The right proofs, but for those of `spoiled`: their y is 1."""
        made = []
        for number, (name, dataset) in enumerate(zip(self.nodes, self.datasets, strict=True)):
            body = self.world.proof(dataset)
            if number in spoiled:
                content = dag_cbor.decode(body.proof)
                body = replace(body, proof=dag_cbor.encode({**content, "y": bytes(31) + b"\x01"}))
            made.append(self.world.tx(name, body))
        return made


def codes_of(result: BlockResult) -> list[Code]:
    return [each.code for each in result.tx_results[1:]]


def proposed(several: Several, txs: list[bytes]) -> list[bytes]:
    for raw in txs:
        assert several.world.app.check_tx(raw).ok
    return several.world.propose(txs, max_bytes=limits.MAX_BLOCK_BYTES)


def points_of_one(several: Several) -> int:
    info = several.world.dataset(several.datasets[0])
    assert info.challenge is not None
    return cost_of(info.challenge)


def test_a_block_verifies_only_so_many_kzg_proofs_and_the_others_wait(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What one costs: 16 points and one for each leaf shown. The invalid one has taken its time, too."""
    several = Several(4)
    assert points_of_one(several) == 16 + 2 + 1
    monkeypatch.setattr(limits, "MAX_KZG_POINTS_PER_BLOCK", 2 * 19 + 18)
    txs = several.txs(spoiled=[0])
    assert proposed(several, txs) == [txs[1]]
    assert list(several.world.app.dropped) == [txs[0]]
    result = several.world.block(*txs)
    assert codes_of(result) == [Code.INVALID_PROOF, Code.OK, Code.BLOCK_FULL, Code.BLOCK_FULL]
    assert codes_of(several.world.block(*txs[2:])) == [Code.OK, Code.OK]


def test_the_bound_of_a_block_lets_a_hundred_default_proofs_in_and_any_single_one() -> None:
    most = limits.MAX_KZG_POINTS_PER_BLOCK
    default = points_of(ProofKind.KZG, 30, 10**6, 4, 10**6)
    largest = points_of(ProofKind.KZG, limits.MAX_CHALLENGES, 10**6, limits.MAX_META_CHALLENGES, 10**6)
    assert 100 < most // default < 200
    assert largest <= limits.MAX_NEW_KZG_POINTS < most
    assert points_of(ProofKind.MERKLE, 30, 10**6, 4, 10**6) == 0


def test_whose_proofs_are_invalid_again_and_again_waits_and_takes_no_time_of_others() -> None:
    """An invalid proof costs its sender nothing and others a verification: so three in a row, then one in 16
    blocks; a valid one begins anew."""
    several = Several(2)
    world, app = several.world, several.world.app
    for _ in range(limits.MAX_INVALID_PROOFS):
        assert proposed(several, several.txs(spoiled=[0])[:1]) == []
    spoiled, right = several.txs(spoiled=[0])
    refused = app.check_tx(spoiled)
    assert refused.code is Code.POOL_FULL
    assert app.check_tx(several.txs()[0]).code is Code.POOL_FULL
    assert app.check_tx(world.tx(several.nodes[0], Transfer(key("client"), 1))).ok  # of its other business
    assert proposed(several, [right]) == [right]
    for _ in range(limits.INVALID_PROOF_WAIT_BLOCKS):
        world.block()
    again = several.txs()[0]
    assert app.check_tx(again).code is Code.NONCE_USED  # the transfer waits under that nonce
    world.block(again)
    assert world.dataset(several.datasets[0]).record.proven


def test_what_one_account_sends_after_an_invalid_proof_is_not_verified(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its nonce cannot come. With datasets of 64 clients it had 64 of them verified in one block."""
    nothing = {"data": b"", "kind": "kzg", "meta": b"", "pi": G1_INFINITY, "version": 1, "y": bytes(32)}
    good = dag_cbor.encode(nothing)
    challenge = Challenge(bytes(32), EMPTY, 0, EMPTY, 0, kind=ProofKind.KZG)
    looked_at: list[list[bytes]] = []

    def verify_many(claims: Sequence[Claim]) -> list[InvalidProof | None]:
        looked_at.append([proof for _, proof in claims])
        return kzg_proof.verify_many(claims)

    monkeypatch.setattr(proof_checker, "verify_many", verify_many)
    flood = [(b"bad", (challenge, bytes([number]))) for number in range(64)]
    mixed = [(b"half", (replace(challenge, k=number + 1), good)) for number in range(3)]
    spoiled = [(b"half", (challenge, b"no" + bytes([number]))) for number in range(60)]
    right = [(b"good", (replace(challenge, k=number + 4), good)) for number in range(40)]
    checker, most = RememberingChecker(), limits.MAX_KZG_POINTS_PER_BLOCK
    checker.verify_ahead([*flood, *mixed, *spoiled, *right], most)
    invalid = [proof for batch in looked_at for proof in batch if proof != good]
    assert (invalid.count(bytes(1)), len(invalid)) == (1, 1 + 1)
    assert sum(batch.count(good) for batch in looked_at) == 3 + 40
    assert len(looked_at) == 7  # 1, 1, 2, 4, 8, 16, 8 of who sends right ones, together with the others'
    looked_at.clear()
    checker.verify_ahead([*flood, *mixed, *right], most)
    assert looked_at == []  # nothing twice, and what was refused then is so still


def test_a_proposer_looks_at_few_proofs_itself_and_the_others_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else it would let everybody wait for its proposal: proofs are looked at in a thread meanwhile."""
    several = Several(3)
    app, txs = several.world.app, several.txs()
    [claims] = app.unverified_proofs(txs)
    monkeypatch.setattr(limits, "MAX_NEW_KZG_POINTS", cost_of(claims[0][0]))
    assert proposed(several, txs) == txs[:1]
    assert not app.dropped
    [left] = app.unverified_proofs(txs)
    assert left == claims[1:]
    app.note_proofs(left, look(left))
    assert proposed(several, txs) == txs


@pytest.mark.parametrize("spoiled", [[], [1], [0, 2]])
def test_a_blocks_kzg_proofs_are_verified_together_with_the_verdict_of_each(
    spoiled: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    several = Several(3)
    txs = several.txs(spoiled=spoiled)
    alone = several.world.restored()
    calls: list[int] = []

    def verify_many(claims: Sequence[Claim]) -> list[InvalidProof | None]:
        calls.append(len(claims))
        return kzg_proof.verify_many(claims)

    def never(challenge: Challenge, proof: bytes) -> None:
        raise AssertionError("verified by itself once more")

    monkeypatch.setattr(proof_checker, "verify_many", verify_many)
    right = [raw for number, raw in enumerate(txs) if number not in spoiled]
    with monkeypatch.context() as patch:
        patch.setattr(proof_checker, "verify", never)
        assert proposed(several, txs) == right  # verified here, known when the block runs
        result = several.world.block(*txs)
    wanted = [Code.INVALID_PROOF if number in spoiled else Code.OK for number in range(3)]
    assert codes_of(result) == wanted
    assert calls == [3]
    monkeypatch.setattr(limits, "KZG_BATCH", 1)  # each alone: the same codes, events and root
    world = several.world
    head = beacon_of(alone)
    again = alone.finalize_block(BlockInput(alone.height + 1, world.now, key("operator"), (head, *txs)))
    assert codes_of(again) == wanted
    assert (again.app_hash, again.events) == (result.app_hash, result.events)


def beacon_of(app: Application) -> bytes:
    height = app.height + 1
    signature = beacon_signer().sign(app.beacon_transaction_message(height))
    return Beacon(CHAIN, height, signature).encode()
