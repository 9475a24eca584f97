"""Deals of either kind of proof: what they may promise, and that their datasets are kept apart."""

from __future__ import annotations

import random

import pytest

from ledger.result import Code
from ledger.rules_datasets import identify
from ledger.transactions import Accept, CreateDeal, PieceCommitment
from merkledag.cid import CID
from proofs.kinds import ProofKind
from tests.ledger.world import PARAMS, Piece, World, key

KINDS = pytest.mark.parametrize("kind", list(ProofKind))


@pytest.fixture
def world() -> World:
    world = World()
    world.fund("client")
    world.provider("node")
    return world


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
