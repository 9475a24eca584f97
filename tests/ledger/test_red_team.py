"""What an attacker tries on the ledger, and what must happen (numbers as in the list of attacks)."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import pytest

from ledger import limits
from ledger.application import Application, BlockInput
from ledger.errors import InvalidBlock
from ledger.genesis import HOLD
from ledger.records import Phase, ShardStatus
from ledger.result import Code
from ledger.transactions import Accept, Beacon, Prove, Register, Settle, Transaction, Transfer, Withdraw, sign
from merkledag import dag_cbor
from proofs.challenge import period_seed
from tests.ledger.world import (
    CHAIN,
    FAR_S,
    FEE,
    PARAMS,
    START_S,
    Piece,
    World,
    all_of,
    answer,
    beacon_signer,
    genesis,
    key,
    kinds,
    last,
    signer,
)

L = 2**252 + 27742317777372353535851937790883648493


def test_3_a_proof_is_good_for_its_own_period_node_dataset_and_chain_alone(world: World) -> None:
    deal, dataset = world.active("client", "node", periods=9, blocks=20)
    world.prove("node", dataset)
    old = last_proof = world.proof(dataset)
    world.refuses("node", old, Code.ALREADY_PROVEN)
    info = world.open_window(dataset)
    period, beacon = info.record.period, world.app.beacon
    world.refuses("node", old, Code.TOO_LATE)
    world.refuses("node", replace(last_proof, period=period), Code.INVALID_PROOF)
    piece = {0: world.pieces[deal, 0]}
    assert info.challenge is not None
    seed = info.challenge.seed
    assert seed == period_seed(CHAIN, dataset, key("node"), period, beacon)
    strangers = [
        period_seed("other", dataset, key("node"), period, beacon),
        period_seed(CHAIN, bytes(32), key("node"), period, beacon),
        period_seed(CHAIN, dataset, key("client"), period, beacon),
    ]
    for other in strangers:
        proof = answer(replace(info.challenge, seed=other), piece)
        world.refuses("node", Prove(dataset, period, proof), Code.INVALID_PROOF)
    world.provider("other")
    right = world.proof(dataset)
    world.refuses("other", right, Code.NOT_YOURS)
    world.refuses("node", replace(right, dataset=bytes(32)), Code.UNKNOWN_DATASET)
    world.do("node", right)


def test_4_nothing_can_be_proven_before_the_beacon_is_out(world: World) -> None:
    deal, dataset = world.active("client", "node", periods=9, blocks=20)
    info = world.dataset(dataset)
    world.pass_until(info.opens_at - 1)
    guess = replace(
        _challenge(world, dataset),
        seed=period_seed(CHAIN, dataset, key("node"), info.record.period, world.app.beacon),
    )
    early = Prove(dataset, info.record.period, answer(guess, {0: world.pieces[deal, 0]}))
    world.refuses("node", early, Code.TOO_EARLY)
    world.refuses("node", replace(early, period=info.record.period + 1), Code.TOO_EARLY)
    world.pass_until(info.opens_at)
    world.refuses("node", early, Code.INVALID_PROOF)
    world.do("node", world.proof(dataset))


def _challenge(world: World, dataset: bytes) -> Any:
    from ledger.rules_proofs import challenge_of

    record = replace(world.dataset(dataset).record, seed=bytes(32))
    return challenge_of(record, world.params)


def test_10_settling_twice_pays_once_and_an_open_period_pays_nothing(world: World) -> None:
    deal, dataset = world.active("client", "node", periods=5)
    world.prove("node", dataset)
    world.prove("node", dataset)
    assert world.settle("node", deal) == 200_000
    world.refuses("node", Settle(deal, 0), Code.NOTHING_DUE)
    world.open_window(dataset)
    world.refuses("client", Settle(deal, 0), Code.NOTHING_DUE)
    both = world.block(world.tx("client", Settle(deal, 0)), world.tx("node", world.proof(dataset)), step=0)
    assert [result.code for result in both.tx_results] == [Code.OK, Code.NOTHING_DUE, Code.OK]
    assert world.settle("node", deal) == 100_000


def test_11_locked_escrow_and_collateral_stay(world: World) -> None:
    deal, _ = world.active("client", "node", price=5 * HOLD)  # locks 100, all of the stake
    world.refuses("node", Withdraw(1), Code.STAKE_LOCKED)
    world.refuses("client", Withdraw(1), Code.NOT_REGISTERED)
    world.refuses("client", Transfer(key("node"), world.balance("client") + 1), Code.INSUFFICIENT_FUNDS)
    world.refuses("client", Withdraw(0), Code.AMOUNT_OUT_OF_RANGE)  # the smallest code comes first
    assert world.shard(deal).escrow == 15 * HOLD


AMOUNTS: list[Any] = [-1, 2**63, 2**64, 2**256, 1.0, True, False, None, "1", b"1", [1]]


@pytest.mark.parametrize("amount", AMOUNTS, ids=repr)
@pytest.mark.parametrize("field", ["amount", "nonce", "fee", "expiry"])
def test_12_amounts_that_are_none_are_refused(world: World, amount: Any, field: str) -> None:
    tx = Transaction(CHAIN, key("client"), 0, FEE, FAR_S, Transfer(key("node"), HOLD)).unsigned_map()
    (tx["body"] if field == "amount" else tx)[field] = amount
    try:
        unsigned = dag_cbor.encode(tx)
    except Exception:  # what strict DAG-CBOR can not even say
        return
    tx["sig"] = signer("client").sign(b"holdfast/transaction/1\x00" + unsigned)
    raw = dag_cbor.encode(tx)
    assert world.app.check_tx(raw).code is Code.MALFORMED
    before = _without_chain(world.app)
    assert world.block(raw).tx_results[1].code is Code.MALFORMED
    assert _without_chain(world.app) == before


def _without_chain(app: Application) -> dict[bytes, bytes]:
    return {name: value for name, value in app.items() if name != b"chain"}


def test_12_sums_that_overflow_are_refused(world: World) -> None:
    most = limits.MAX_UINT
    world.refuses("client", Transfer(key("node"), most), Code.INSUFFICIENT_FUNDS)
    world.refuses("client", Transfer(key("client"), most), Code.INSUFFICIENT_FUNDS)  # not to oneself either
    body = world.deal_body([Piece.random(world.rng)], periods=limits.MAX_DEAL_PERIODS, price=most)
    world.refuses("client", body, Code.INSUFFICIENT_FUNDS)
    world.refuses("node", Register("http://node.example", most, key("node"), most), Code.INSUFFICIENT_FUNDS)


def test_13_another_signature_is_refused_and_no_other_transaction(world: World) -> None:
    raw = world.tx("client", Transfer(key("node"), HOLD))
    tx = dag_cbor.decode(raw)
    assert isinstance(tx, dict)
    sig = tx["sig"]
    s = int.from_bytes(sig[32:], "little")
    malleable = dag_cbor.encode({**tx, "sig": sig[:32] + (s + L).to_bytes(32, "little")})
    flipped = dag_cbor.encode({**tx, "sig": bytes([sig[0] ^ 1]) + sig[1:]})
    for other in (malleable, flipped):
        result = world.app.check_tx(other)
        assert result.code is Code.BAD_SIGNATURE
        assert result.tx_id == world.app.check_tx(raw).tx_id  # the ID leaves the signature out
    done = world.block(raw, raw, malleable)
    assert [each.code for each in done.tx_results] == [
        Code.OK,
        Code.OK,
        Code.NONCE_USED,
        Code.BAD_SIGNATURE,
    ]
    assert world.block(raw).tx_results[1].code is Code.NONCE_USED


SMALL_ORDER = [bytes(32), b"\x01" + bytes(31), bytes.fromhex("ecff" + "ff" * 29 + "7f")]


@pytest.mark.parametrize("account", SMALL_ORDER, ids=bytes.hex)
def test_13_a_key_of_small_order_signs_nothing(world: World, account: bytes) -> None:
    world.refuses("operator", Transfer(account, HOLD), Code.INVALID_TERMS)  # it would be lost
    tx = Transaction(CHAIN, account, 0, FEE, FAR_S, Transfer(key("node"), 1))
    for sig in (bytes(64), account + bytes(32), b"\x01" + bytes(63)):
        assert world.app.check_tx(replace(tx, sig=sig).encode()).code is Code.BAD_SIGNATURE


def _not_canonical(raw: bytes) -> dict[str, bytes]:
    tx = dag_cbor.decode(raw)
    assert isinstance(tx, dict)
    keys = sorted(tx, key=lambda name: (len(name), name))
    encoded = [dag_cbor.encode(name) + dag_cbor.encode(tx[name]) for name in keys]
    assert bytes([0xA0 + len(keys)]) + b"".join(encoded) == raw
    return {
        "non-minimal length": b"\xb8" + bytes([len(keys)]) + b"".join(encoded),
        "unsorted keys": bytes([0xA0 + len(keys)]) + b"".join(reversed(encoded)),
        "duplicate key": bytes([0xA1 + len(keys)]) + b"".join([encoded[0], *encoded]),
        "trailing byte": raw + b"\x00",
        "indefinite length": b"\xbf" + b"".join(encoded) + b"\xff",
        "NaN": dag_cbor.encode({**tx, "fee": 0}).replace(b"\x63fee\x00", b"\x63fee\xfb\x7f\xf8" + bytes(6)),
        "an extra key": dag_cbor.encode({**tx, "memo": ""}),
        "a missing key": dag_cbor.encode({name: tx[name] for name in keys if name != "fee"}),
        "an extra key of the body": dag_cbor.encode({**tx, "body": {**tx["body"], "memo": ""}}),
        "an unknown kind": dag_cbor.encode({**tx, "body": {**tx["body"], "kind": "mint"}}),
        "no map": dag_cbor.encode([1]),
        "nothing": b"",
    }


@pytest.mark.parametrize("how", list(_not_canonical(World().tx("client", Transfer(key("node"), 1)))))
def test_14_bytes_that_are_not_canonical_are_refused(how: str) -> None:
    world = World()
    world.fund("client")
    raw = _not_canonical(world.tx("client", Transfer(key("node"), HOLD)))[how]
    assert world.app.check_tx(raw).code is Code.MALFORMED
    assert world.block(raw).tx_results[1].code is Code.MALFORMED


def test_15_nonces_come_in_order_and_few_are_pending(world: World) -> None:
    def tx(nonce: int, amount: int = HOLD) -> bytes:
        return world.tx("client", Transfer(key("node"), amount), nonce=nonce)

    assert world.app.check_tx(tx(1)).code is Code.NONCE_GAP
    assert world.app.check_tx(tx(0)).ok
    assert world.app.check_tx(tx(0)).ok  # the same again
    assert world.app.check_tx(tx(0, 1)).code is Code.NONCE_USED
    for nonce in range(1, limits.MAX_PENDING_PER_ACCOUNT):
        assert world.app.check_tx(tx(nonce)).ok
    assert world.app.check_tx(tx(limits.MAX_PENDING_PER_ACCOUNT)).code is Code.POOL_FULL
    world.block(*(tx(nonce) for nonce in range(3)))
    assert world.app.check_tx(tx(2)).code is Code.NONCE_USED
    assert world.app.check_tx(tx(limits.MAX_PENDING_PER_ACCOUNT)).ok
    world.app.forget(tx(3))
    assert world.app.check_tx(tx(3, 1)).ok  # its place is free


def test_15_pending_fees_are_covered(world: World) -> None:
    world.do("operator", Transfer(key("poor"), PARAMS.account_minimum))
    fee = PARAMS.account_minimum // 2 + 1
    first, second = (world.tx("poor", Transfer(key("node"), 1), nonce=nonce, fee=fee) for nonce in (0, 1))
    assert world.app.check_tx(first).ok
    assert world.app.check_tx(second).code is Code.FEE_NOT_COVERED


def test_15_what_is_proven_is_not_proven_again_in_the_pool(world: World) -> None:
    _, dataset = world.active("client", "node")
    world.open_window(dataset)
    body = world.proof(dataset)
    raw = world.tx("node", body)
    assert world.app.check_tx(raw).ok
    assert world.block(raw).tx_results[1].ok
    assert world.app.check_tx(raw).code is Code.NONCE_USED  # by which its sender finds the receipt
    assert world.app.check_tx(world.tx("node", body)).code is Code.ALREADY_PROVEN


def test_16_deals_cost_a_deposit_and_few_fit_into_a_block(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "MAX_SHARDS_PER_BLOCK", 2)
    body = world.deal_body([Piece.random(world.rng)])
    before = world.balance("client")
    txs = [world.tx("client", body, nonce=nonce) for nonce in range(3)]
    assert world.propose(txs) == txs[:2]
    assert not world.app.dropped  # the third waits
    codes = [result.code for result in world.block(*txs).tx_results]
    assert codes == [Code.OK, Code.OK, Code.OK, Code.BLOCK_FULL]
    each = 300_000 + 2 * PARAMS.deposit + FEE
    assert world.balance("client") == before - 2 * each
    assert world.try_("client", body).ok


def test_17_a_long_queue_of_removals_is_worked_off_while_others_prove(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.fund("other")
    deals = [world.deal("client", providers=("node",), periods=1, blocks=1) for _ in range(7)]
    for deal in deals:
        world.do("node", Accept(deal, 0))
    dataset = world.shard(deals[0]).dataset
    _, others = world.active("other", "node", periods=9)
    world.open_window(dataset)
    world.do("node", world.proof(dataset))
    monkeypatch.setattr(limits, "MAX_DUE_PER_BLOCK", 3)
    world.pass_until(world.dataset(dataset).closes_at)
    world.block(step=1)
    assert 0 < world.dataset(dataset).record.pieces < 7
    assert world.dataset(dataset).record.phase is Phase.TURNING
    assert world.app.next_due() == world.app.time
    blocks = 0
    while world.app.dataset(dataset) is not None:
        world.block()
        blocks += 1
        world.check_restores()
    assert blocks >= 2
    assert [world.shard(deal).status for deal in deals] == [ShardStatus.ENDED] * 7
    world.prove("node", others)


def test_17_a_block_without_room_for_two_pieces_of_due_work_is_a_mistake(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "MAX_DUE_PER_BLOCK", 1)
    with pytest.raises(AssertionError, match="at least two"):
        world.block()


def test_17_a_challenged_piece_leaves_only_after_the_window(world: World) -> None:
    _, dataset = world.active("client", "node", periods=1)
    info = world.open_window(dataset)
    world.pass_until(info.closes_at)
    assert world.dataset(dataset).record.data == info.record.data
    world.do("node", world.proof(dataset))


def test_18_content_does_not_move_the_beacon(world: World) -> None:
    other = world.restored()
    message = world.app.beacon_transaction_message(world.app.height + 1)
    head = Beacon(CHAIN, world.app.height + 1, beacon_signer().sign(message)).encode()
    raw = world.tx("client", Transfer(key("node"), HOLD))
    for app, txs in ((world.app, (head,)), (other, (head, raw))):
        app.finalize_block(BlockInput(app.height + 1, world.now, key("operator"), txs))
        app.commit()
    assert world.app.beacon == other.beacon
    assert world.app.app_hash != other.app_hash


def test_18_the_beacon_heads_its_block_and_is_nowhere_else(world: World) -> None:
    head, height = world.beacon(), world.app.height + 1

    def block(*txs: bytes, proposer: str = "operator") -> BlockInput:
        return BlockInput(height, world.now, key(proposer), txs)

    raw = world.tx("client", Transfer(key("node"), HOLD))
    wrong = [
        block(),
        block(raw, head),
        block(head, proposer="client"),
        block(Beacon("other", height, bytes(96)).encode()),
        block(Beacon(CHAIN, height + 1, bytes(96)).encode()),
        block(Beacon(CHAIN, height, bytes(96)).encode()),
        block(Beacon(CHAIN, height, beacon_signer().sign(b"other")).encode()),
        replace(block(head), height=height + 1),
        replace(block(head), block_time_s=-1),
        replace(block(head), block_time_s=2**62),
    ]
    for each in wrong:
        assert not world.app.process_proposal(each).ok
        with pytest.raises(InvalidBlock):
            world.app.finalize_block(each)
    assert world.app.process_proposal(block(head, raw)).ok
    assert world.app.process_proposal(block(head, raw, head)).code is Code.MISPLACED
    assert world.app.check_tx(head).code is Code.MISPLACED
    assert world.app.process_proposal(replace(block(head), block_time_s=START_S - 1)).code is Code.MALFORMED
    assert world.app.process_proposal(block(head, raw + b"\x00")).code is Code.MALFORMED
    with pytest.raises(ValueError, match="next block"):
        world.app.beacon_transaction_message(height + 1)


def test_19_a_deal_with_oneself_costs_the_fees_and_mints_nothing() -> None:
    world = World()
    world.provider("self")
    before = world.balance("self")
    deal, dataset = world.active("self", "self", periods=2)
    world.prove("self", dataset)
    world.prove("self", dataset)
    world.pass_time(PARAMS.period_s)
    assert world.shard(deal).status is ShardStatus.ENDED
    fees = 2 * FEE + 2 * PARAMS.proof_fee
    assert world.balance("self") == before - fees


def test_19_a_client_that_knocks_its_node_offline_gains_nothing(world: World) -> None:
    before = world.balance("client")
    deal, dataset = world.active("client", "node", periods=9)
    for _ in range(3):
        world.open_window(dataset)
        world.pass_until(world.dataset(dataset).closes_at + 1)
    while world.app.has_live_deals():
        world.pass_time(PARAMS.accept_timeout_s)
    assert world.shard(deal).status is ShardStatus.TERMINATED
    assert world.balance("client") == before - FEE


def test_22_no_fault_can_arise_before_acceptance(world: World) -> None:
    before = world.app.provider(key("node"))
    deal = world.deal("client")
    world.pass_time(3 * PARAMS.period_s)
    assert "fault" not in kinds(world.events)
    assert world.app.provider(key("node")) == before
    assert world.shard(deal).status is ShardStatus.OFFERED


@pytest.mark.parametrize("late_s", [0, 1])
def test_23_the_last_second_counts_and_the_next_does_not(world: World, late_s: int) -> None:
    _, dataset = world.active("client", "node", periods=4)
    info = world.open_window(dataset)
    proof = world.tx("node", world.proof(dataset))
    world.pass_until(info.closes_at - 1)
    result = world.block(proof, step=1 + late_s)
    assert result.tx_results[1].code is (Code.TOO_LATE if late_s else Code.OK)
    assert bool(all_of(result.events, "fault")) is bool(late_s)


def test_23_a_proof_in_the_block_of_its_seed_counts(world: World) -> None:
    """Only a proposer could send one, who knows the beacon before its block is out."""
    _, dataset = world.active("client", "node", periods=4)
    info = world.open_window(dataset)
    assert info.record.seed_time == info.opens_at
    world.do("node", world.proof(dataset))
    assert last(world.events, "proof_accepted")["period"] == info.record.period


def test_32_half_of_a_block_is_reserved_for_proofs(world: World) -> None:
    _, dataset = world.active("client", "node", periods=4, blocks=10)
    world.open_window(dataset)
    proof = world.tx("node", world.proof(dataset))
    flood = [world.tx("client", Transfer(key("node"), HOLD), nonce=nonce) for nonce in range(1, 200)]
    size = 2 * max(len(proof), 10 * len(flood[0]))
    chosen = world.propose([*flood, proof], max_bytes=size)
    assert chosen[-1] == proof
    assert sum(map(len, chosen[:-1])) <= size // 2
    assert len(chosen) > 5
    assert not world.app.dropped


def test_32_no_flood_of_small_transactions_takes_the_places_of_proofs(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, dataset = world.active("client", "node", periods=4, blocks=10)
    world.open_window(dataset)
    proof = world.tx("node", world.proof(dataset))
    flood = [world.tx("client", Transfer(key("node"), 1), nonce=nonce) for nonce in range(1, 9)]
    monkeypatch.setattr(limits, "MAX_BLOCK_TXS", 12)
    assert world.propose([*flood, proof]) == [*flood[:6], proof]
    height, head = world.app.height + 1, world.beacon()
    crowded = BlockInput(height, world.now, key("operator"), (head, *flood[:7]))
    assert world.app.process_proposal(crowded).code is Code.TOO_LARGE
    assert world.app.process_proposal(replace(crowded, txs=(head, *flood[:6], proof))).ok
    monkeypatch.setattr(limits, "MAX_PENDING", 12)
    codes = [world.app.check_tx(raw).code for raw in flood[:7]]
    assert codes == [Code.OK] * 6 + [Code.POOL_FULL]
    assert world.app.check_tx(proof).ok
    world.block(*flood[:1], proof)
    assert world.app.check_tx(flood[6]).ok  # its place is free again


def test_32_time_moves_by_the_clock_and_at_most_a_step_a_block(world: World) -> None:
    time = world.app.time
    for _ in range(5):
        world.block(world.tx("client", Transfer(key("node"), HOLD)))
    assert world.app.time == time
    world.block(step=10_000)
    assert world.app.time == time + PARAMS.max_step_s


def test_a_proposal_drops_what_would_fail_and_frees_its_nonce(world: World) -> None:
    too_much = world.tx("client", Transfer(key("node"), 10**6 * HOLD))
    assert world.app.check_tx(too_much).ok
    after = world.tx("client", Transfer(key("node"), HOLD), nonce=1)
    assert world.app.check_tx(after).ok
    assert world.propose([too_much, after]) == []
    assert world.app.dropped[too_much].code is Code.INSUFFICIENT_FUNDS
    assert after not in world.app.dropped
    assert world.app.check_tx(world.tx("client", Transfer(key("node"), 1))).ok


def test_random_bytes_never_pass_and_never_raise(world: World) -> None:
    rng = random.Random(3)
    raw = bytearray(world.tx("client", Transfer(key("node"), HOLD)))
    for _ in range(300):
        mutant = bytearray(raw)
        for _ in range(rng.randint(1, 3)):
            mutant[rng.randrange(len(mutant))] = rng.randrange(256)
        if mutant != raw:
            assert not world.app.check_tx(bytes(mutant)).ok


def test_a_signature_for_another_chain_is_refused(world: World) -> None:
    tx = Transaction("other", key("client"), 0, FEE, FAR_S, Transfer(key("node"), HOLD))
    assert world.app.check_tx(sign(tx, signer("client")).encode()).code is Code.WRONG_CHAIN
    renamed = replace(sign(tx, signer("client")), chain=CHAIN)
    assert world.app.check_tx(renamed.encode()).code is Code.BAD_SIGNATURE


def test_genesis_is_what_a_stored_state_belongs_to(world: World) -> None:
    from ledger.errors import CorruptState
    from ledger.ingest import memory_store

    other = genesis(replace(PARAMS, base_fee=7))
    with pytest.raises(CorruptState):
        Application(other, memory_store(world.stored.items()))
    with pytest.raises(CorruptState):
        Application(genesis(PARAMS), memory_store([(b"account/", b"")]))
