"""What waits in CometBFT's mempool after a block: what still may, what leaves, and nothing stays for ever."""

from __future__ import annotations

import pytest

from ledger import limits
from ledger.genesis import HOLD
from ledger.result import Code
from ledger.transactions import Transfer, decode
from tests.ledger.world import World, key


@pytest.fixture(autouse=True)
def _funded(world: World) -> None:
    world.fund("ann", "bob")


def transfers(world: World, count: int, amount: int = HOLD, name: str = "ann") -> list[bytes]:
    first = world.app.account(key(name)).nonce
    return [
        world.tx(name, Transfer(key("cy"), amount + n), nonce=first + n, expiry=world.app.time + 100)
        for n in range(count)
    ]


def recheck(world: World, txs: list[bytes]) -> list[Code]:
    """What CometBFT does after every block with what is left."""
    world.app.forget_unseen()
    return [world.app.recheck_tx(raw).code for raw in txs]


def admit(world: World, txs: list[bytes]) -> None:
    for raw in txs:
        assert world.app.check_tx(raw).ok


def test_what_no_block_took_goes_on_waiting_and_what_follows_it_may_come(world: World) -> None:
    txs = transfers(world, 5)
    admit(world, txs[:4])
    for taken in range(3):
        world.block(txs[taken])
        assert recheck(world, txs[taken + 1 : 4]) == [Code.OK] * (3 - taken)
    assert world.app.check_tx(txs[4]).ok
    assert recheck(world, txs[2:3]) == [Code.NONCE_USED]


def test_when_one_leaves_those_after_it_leave_and_may_come_again(world: World) -> None:
    txs = transfers(world, 4)
    admit(world, txs)
    world.app.forget(txs[1])
    world.block()
    assert recheck(world, [txs[0], txs[2], txs[3]]) == [Code.OK, Code.NONCE_GAP, Code.NONCE_GAP]
    admit(world, txs[1:])


def test_another_transaction_of_the_account_in_a_block_ends_the_waiting(world: World) -> None:
    txs = transfers(world, 2)
    admit(world, txs)
    world.block(world.tx("ann", Transfer(key("dan"), 7 * HOLD)))
    assert recheck(world, txs) == [Code.NONCE_USED, Code.OK]


def test_what_has_expired_leaves(world: World) -> None:
    txs = transfers(world, 2)
    admit(world, txs)
    for codes in ([Code.OK] * 2, [Code.OK] * 2, [Code.OK] * 2, [Code.EXPIRED] * 2):
        world.block(step=30)
        assert recheck(world, txs) == codes


def test_what_the_balance_no_longer_covers_leaves(world: World) -> None:
    txs = transfers(world, 3)
    admit(world, txs)
    fee = decode(txs[0]).fee
    world.block(world.tx("ann", Transfer(key("cy"), world.balance("ann") - 2 * fee), fee=fee))
    assert recheck(world, txs) == [Code.NONCE_USED, Code.OK, Code.FEE_NOT_COVERED]


def test_what_a_proposal_dropped_leaves_with_the_next_block(world: World) -> None:
    poor = transfers(world, 1, amount=10**9 * HOLD)
    admit(world, poor)
    assert world.propose(poor) == []
    world.block()
    assert recheck(world, poor) == [Code.INSUFFICIENT_FUNDS]
    admit(world, transfers(world, 1))


@pytest.mark.parametrize("is_proposer", [True, False])
def test_what_has_failed_does_not_come_in_again_before_it_can_pass(world: World, is_proposer: bool) -> None:
    """It would come and go for ever: CometBFT forgets what it has refused, and peers send it again."""
    poor = transfers(world, 1, amount=2_000 * HOLD)
    admit(world, poor)
    if is_proposer:
        assert world.propose(poor) == []
    for _ in range(1 if is_proposer else limits.TRY_AFTER_BLOCKS):
        world.block()
        left = recheck(world, poor)
    assert left == [Code.INSUFFICIENT_FUNDS]
    for _ in range(3):
        assert world.app.check_tx(poor[0]).code is Code.INSUFFICIENT_FUNDS
        world.block()
    world.fund("ann", amount=2_000 * HOLD)
    assert world.app.check_tx(poor[0]).ok
    assert all(each.ok for each in world.block(*poor).tx_results)


def test_of_what_has_failed_as_much_is_tried_again_as_a_block_has_time_for(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "MAX_TRIED_PER_BLOCK", 2)
    poor = transfers(world, 1, amount=10**9 * HOLD)
    admit(world, poor)
    assert world.propose(poor) == []
    world.block()
    assert recheck(world, poor) == [Code.INSUFFICIENT_FUNDS]
    answers = [world.app.check_tx(poor[0]).code for _ in range(3)]
    assert answers == [Code.INSUFFICIENT_FUNDS, Code.INSUFFICIENT_FUNDS, Code.OK]


def test_what_can_only_fail_leaves_a_node_that_never_proposes(world: World) -> None:
    poor = [*transfers(world, 1, amount=10**9 * HOLD), *transfers(world, 1, amount=10**9 * HOLD, name="bob")]
    waiting = [*transfers(world, 2)[1:]]
    good = world.tx("operator", Transfer(key("dan"), HOLD))
    admit(world, [*poor, *waiting, good])
    for _ in range(limits.TRY_AFTER_BLOCKS - 1):
        world.block()
        assert recheck(world, [*poor, *waiting, good]) == [Code.OK] * 4
    world.block()
    codes = [Code.INSUFFICIENT_FUNDS, Code.INSUFFICIENT_FUNDS, Code.NONCE_GAP, Code.OK]
    assert recheck(world, [*poor, *waiting, good]) == codes


def test_a_flood_of_what_can_only_fail_is_tried_a_part_at_a_time(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "MAX_TRIED_PER_BLOCK", 1)
    poor = [*transfers(world, 1, amount=10**9 * HOLD), *transfers(world, 1, amount=10**9 * HOLD, name="bob")]
    admit(world, poor)
    for _ in range(limits.TRY_AFTER_BLOCKS):
        world.block()
        left = recheck(world, poor)
    assert left == [Code.INSUFFICIENT_FUNDS, Code.OK]
    world.block()
    assert recheck(world, poor[1:]) == [Code.INSUFFICIENT_FUNDS]


def test_trying_one_changes_nothing_while_another_block_is_run(world: World) -> None:
    poor = transfers(world, 1, amount=10**9 * HOLD)
    admit(world, poor)
    for _ in range(limits.TRY_AFTER_BLOCKS):
        world.block()
    others = transfers(world, 2, name="bob")
    assert world.propose(others) == others
    root = world.app.app_hash
    assert world.app.recheck_tx(poor[0]).code is Code.INSUFFICIENT_FUNDS
    assert world.app.app_hash == root
    result = world.block(*others)
    assert all(each.ok for each in result.tx_results)
    assert world.restored().app_hash == world.app.app_hash


def test_what_the_engine_lost_without_a_word_is_forgotten_after_two_blocks(world: World) -> None:
    lost = transfers(world, 2)
    admit(world, lost)
    instead = world.tx("ann", Transfer(key("dan"), HOLD))
    assert world.app.check_tx(instead).code is Code.NONCE_USED
    world.block()
    recheck(world, [])  # it may be on its way into the mempool
    assert world.app.check_tx(instead).code is Code.NONCE_USED
    world.block()
    recheck(world, [])
    assert world.app.check_tx(instead).ok
    assert world.app.recheck_tx(lost[0]).code is Code.NONCE_USED


def test_one_that_was_asked_about_again_is_not_forgotten(world: World) -> None:
    txs = transfers(world, 1)
    admit(world, txs)
    for _ in range(4):
        world.block()
        world.app.forget_unseen()
        assert world.app.check_tx(txs[0]).log == "pending"


def test_32_large_transactions_leave_a_block_room_for_proofs(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, dataset = world.active("client", "node", periods=4, blocks=10)
    world.open_window(dataset)
    proof = world.tx("node", world.proof(dataset))
    txs = transfers(world, 6)
    monkeypatch.setattr(limits, "MAX_PENDING_OTHER_BYTES", sum(map(len, txs[:4])))
    assert [world.app.check_tx(raw).code for raw in txs] == [Code.OK] * 4 + [Code.POOL_FULL, Code.NONCE_GAP]
    assert world.app.check_tx(proof).ok
    world.block(txs[0], proof)
    assert recheck(world, txs[1:4]) == [Code.OK] * 3
    assert world.app.check_tx(txs[4]).ok  # its place is free again
    assert world.app.check_tx(txs[5]).code is Code.POOL_FULL


def test_a_proof_whose_window_is_over_leaves(world: World) -> None:
    _, dataset = world.active("client", "node", periods=4, blocks=10)
    info = world.open_window(dataset)
    proof = world.tx("node", world.proof(dataset))
    assert world.app.check_tx(proof).ok
    world.block()
    assert recheck(world, [proof]) == [Code.OK]
    world.pass_until(info.closes_at + 1)
    assert world.app.recheck_tx(proof).code not in {Code.OK, Code.NONCE_USED}
