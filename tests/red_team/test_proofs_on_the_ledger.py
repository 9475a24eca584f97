"""Proofs that cheat, sent through the real ledger: all are refused and change nothing."""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import replace

import pytest

from ledger.genesis import HOLD
from ledger.records import ShardStatus
from ledger.result import Code
from ledger.rules_spot import challenge_of
from ledger.transactions import Accept, Answer, Prove, Spot
from merkledag.cid import CID
from proofs.commitment import PieceTree
from tests.ledger.world import PARAMS, Piece, World, all_of, answer, kinds

# Few leaves a proof, so that it is short enough to have every one of its bytes changed.
SMALL = replace(PARAMS, challenges=2, meta_challenges=1)


@pytest.fixture
def world() -> World:
    world = World(SMALL)
    world.fund("client", "other")
    world.provider("node", "rival")
    return world


def codes(world: World, name: str, proofs: Iterable[Prove | Answer]) -> set[Code]:
    """What one block says to each of them; none may change the state but for the chain's record."""
    before = dict(world.app.items())
    batch = [world.tx(name, proof) for proof in proofs]
    results = world.block(*batch).tx_results[1:]
    assert len(results) == len(batch)
    after = dict(world.app.items())
    assert {k for k in before | after if before.get(k) != after.get(k)} <= {b"chain"}
    return {result.code for result in results}


def test_a_proof_with_any_byte_changed_is_refused(world: World) -> None:
    """Red team 9 and 14: each byte flipped, each prefix, and bytes behind the end."""
    _, dataset = world.active("client", "node", blocks=2)
    world.open_window(dataset)
    right = world.proof(dataset)
    good = right.proof
    rng = random.Random(1)
    forged = [good[:at] + bytes([good[at] ^ rng.randint(1, 255)]) + good[at + 1 :] for at in range(len(good))]
    forged += [good[:at] for at in range(1, len(good), 7)] + [good + b"\x00", good + good]
    for start in range(0, len(forged), 500):
        batch = [replace(right, proof=proof) for proof in forged[start : start + 500]]
        assert codes(world, "node", batch) == {Code.INVALID_PROOF}
    world.do("node", right)
    world.refuses("node", right, Code.ALREADY_PROVEN)


def test_replayed_and_borrowed_proofs_are_refused(world: World) -> None:
    """Red team 3: the last period's proof, another dataset's, and another node's."""
    _, mine = world.active("client", "node", periods=8)
    _, others = world.active("other", "node", periods=8)
    _, rivals = world.active("client", "rival", periods=8)
    proofs: dict[bytes, Prove] = {}
    for name, dataset in (("node", mine), ("node", others), ("rival", rivals)):
        world.open_window(dataset)
        proofs[dataset] = world.proof(dataset)
        world.do(name, proofs[dataset])
    world.open_window(mine)
    period = world.dataset(mine).record.period
    stolen = [replace(proofs[each], dataset=mine, period=period) for each in (mine, others, rivals)]
    assert codes(world, "node", stolen) == {Code.INVALID_PROOF}
    assert codes(world, "node", [proofs[mine]]) == {Code.TOO_LATE}
    assert codes(world, "node", [replace(proofs[mine], period=period + 1)]) == {Code.TOO_EARLY}
    assert codes(world, "rival", [world.proof(mine)]) == {Code.NOT_YOURS}
    world.do("node", world.proof(mine))


def test_a_spot_challenge_takes_no_other_answer_than_its_own(world: World) -> None:
    """Red team 3 and 9: forged bytes, a window's proof, another shard's answer, and the last one's."""
    mine, dataset = world.active("client", "node", periods=8)
    others, _ = world.active("other", "node", periods=8)
    world.open_window(dataset)
    of_window = world.proof(dataset)
    answers: dict[CID, bytes] = {}
    for deal in (mine, others):
        world.do("client", Spot(deal, 0))
        world.block(step=1)
        answers[deal] = spot_answer(world, deal)
    good = answers[mine]
    forged = [good[:at] + bytes([good[at] ^ 1]) + good[at + 1 :] for at in range(0, len(good), 3)]
    wrong = [*forged, good + b"\x00", good[:-1], of_window.proof, answers[others]]
    for start in range(0, len(wrong), 500):
        batch = [Answer(mine, 0, proof) for proof in wrong[start : start + 500]]
        assert codes(world, "node", batch) == {Code.INVALID_PROOF}
    assert codes(world, "node", [replace(of_window, proof=good)]) == {Code.INVALID_PROOF}
    world.do("node", Answer(mine, 0, good))
    assert codes(world, "node", [Answer(mine, 0, good)]) == {Code.NO_SPOT}
    world.do("client", Spot(mine, 0))
    world.block(step=1)
    assert codes(world, "node", [Answer(mine, 0, good)]) == {Code.INVALID_PROOF}
    world.do("node", Answer(mine, 0, spot_answer(world, mine)))


def spot_answer(world: World, deal: CID) -> bytes:
    """The right answer to the open spot challenge of a deal's only shard."""
    info, record = world.app.deal(deal), world.app.spot(deal, 0)
    assert info is not None
    assert record is not None
    challenge = challenge_of(info.record, info.shards[0], record, SMALL)
    return answer(challenge, {0: world.pieces[deal, 0]})


def test_a_proof_before_the_beacon_is_refused(world: World) -> None:
    """Red team 4: the leaves cannot be known, and the ledger does not listen, before the window is open."""
    _, dataset = world.active("client", "node")
    period = world.dataset(dataset).record.period
    guess = Prove(dataset, period, b"\xa0")
    world.refuses("node", guess, Code.TOO_EARLY)
    world.pass_until(world.dataset(dataset).opens_at - 1)
    world.refuses("node", guess, Code.TOO_EARLY)


def test_the_tree_alone_proves_nothing(world: World) -> None:
    """Red team 5: a node that kept every hash and lost every byte invents the leaves."""
    deal, dataset = world.active("client", "node")
    info = world.open_window(dataset)
    assert info.challenge is not None
    piece = world.pieces[deal, 0]
    for filler in (b"\x00", b"\xff"):
        hollow = Piece(type(piece.holder)(), piece.data, piece.meta, piece.commitment)
        hollow.holder.commitments = piece.holder.commitments
        hollow.holder.blocks = {name: filler * len(data) for name, data in piece.holder.blocks.items()}
        proof = answer_carelessly(info.challenge, hollow)
        if proof is not None:
            world.refuses("node", Prove(dataset, info.record.period, proof), Code.INVALID_PROOF)
    world.pass_until(info.closes_at + 1)
    assert all_of(world.events, "fault")[-1]["dataset"] == dataset


def answer_carelessly(challenge: object, piece: Piece) -> bytes | None:
    """What the prover makes of wrong bytes; None where it notices by itself."""
    from proofs.errors import ProofsError

    try:
        return answer(challenge, {0: piece})  # type: ignore[arg-type]
    except ProofsError:
        return None


def test_the_metadata_is_drawn_as_well(world: World) -> None:
    """Red team 2: a node that dropped the manifest and the interior nodes cannot prove the data alone."""
    deal, dataset = world.active("client", "node")
    info = world.open_window(dataset)
    assert info.challenge is not None
    whole = world.pieces[deal, 0]
    substitute = Piece.random(random.Random(9))
    mixed = Piece(whole.holder, whole.data, PieceTree(whole.data.rows), whole.commitment)
    period = info.record.period
    for piece in (mixed, substitute):
        forged = replace(info.challenge, meta=piece.meta.root, data=piece.data.root)
        world.refuses("node", Prove(dataset, period, answer(forged, {0: piece})), Code.INVALID_PROOF)
    world.do("node", world.proof(dataset))


def test_a_removed_piece_is_neither_asked_for_nor_accepted(world: World) -> None:
    """Red team 17: after the end of its deal, a dataset takes no proof, not even the last right one."""
    deal, dataset = world.active("client", "node", periods=1)
    world.open_window(dataset)
    right = world.proof(dataset)
    world.do("node", right)
    world.pass_until(world.dataset(dataset).closes_at + 1)
    assert world.shard(deal).status is ShardStatus.ENDED
    for period in (right.period, right.period + 1):
        world.refuses("node", replace(right, period=period), Code.UNKNOWN_DATASET)


@pytest.mark.parametrize("late_s", [0, 1])
def test_the_window_s_last_second_counts_and_the_next_does_not(world: World, late_s: int) -> None:
    """Red team 23: a proof at the deadline, and one a second later."""
    _, dataset = world.active("client", "node")
    info = world.open_window(dataset)
    right = world.proof(dataset)
    world.pass_until(info.closes_at)
    done = world.block(world.tx("node", right), step=late_s)
    assert done.tx_results[1].code is (Code.TOO_LATE if late_s else Code.OK)
    assert ("fault" in kinds(done.events)) is bool(late_s)


def test_a_deal_of_impossible_pieces_cannot_lock_a_ledger(world: World) -> None:
    """Red team 9 and 22: garbage commitments are the fault of nobody but a node that accepts them."""
    garbage = Piece.random(world.rng)
    garbage.commitment = replace(garbage.commitment, data_root=bytes(32), meta_root=b"\x01" * 32)
    body = world.deal_body([garbage], providers=("node",), price=HOLD // 1_000)
    deal: CID = world.do("client", body)
    world.pass_time(SMALL.accept_timeout_s + 1)
    assert world.shard(deal).status is ShardStatus.REFUNDED
    second = world.do("client", body)
    world.do("node", Accept(second, 0))
    _, kept = world.active("other", "node", periods=6)
    for _ in range(4):
        world.prove("node", kept)
    opened = {event["dataset"] for event in all_of(world.events, "window_opened")}
    assert {event["dataset"] for event in all_of(world.events, "fault")} == opened - {kept}
