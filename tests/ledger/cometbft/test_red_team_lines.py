"""Lines 13 to 18 and 32 of what an attacker tries, on this engine: over its socket, beside the plain rules.

The attacks on the rules are those of `tests.ledger`, with each of their blocks run by this engine as well.
Line 21 is in `test_crash`; proposals that lie are in `test_byzantine`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from ledger import limits, transactions
from ledger.engine.cometbft.abci import messages
from ledger.genesis import HOLD
from ledger.result import Code
from ledger.transactions import Beacon, Spot, Transfer
from merkledag import dag_cbor
from tests.ledger.cometbft.mirror import Mirrored
from tests.ledger.test_pool_attacks import (  # noqa: F401
    test_13_many_signatures_of_one_transaction_take_one_place,
)
from tests.ledger.test_red_team import (  # noqa: F401
    test_13_a_key_of_small_order_signs_nothing,
    test_13_another_signature_is_refused_and_no_other_transaction,
    test_16_deals_cost_a_deposit_and_few_fit_into_a_block,
    test_17_a_challenged_piece_leaves_only_after_the_window,
    test_17_a_long_queue_of_removals_is_worked_off_while_others_prove,
)
from tests.ledger.world import key

PREPARE, PROCESS = messages.RequestPrepareProposal, messages.RequestProcessProposal


@pytest.fixture(name="world")
def _world() -> Iterator[Mirrored]:
    world = Mirrored()
    world.fund("client")
    world.provider("node")
    yield world
    world.mirror.check_height()
    world.mirror.node.close()


def check(world: Mirrored, raw: bytes) -> Code:
    """What CheckTx says of a transaction."""
    node = world.mirror.node
    answer = node.run(node.connections[1].ask("check_tx", messages.RequestCheckTx(tx=raw)))
    return Code(answer.code)


def prepare(world: Mirrored, *txs: bytes, max_tx_bytes: int = 1 << 20) -> list[bytes]:
    """What it proposes of a mempool."""
    request = world.mirror.request(PREPARE, world.app, world.next_block(), txs=txs, max_tx_bytes=max_tx_bytes)
    return list(world.mirror.node.ask("prepare_proposal", request).txs)


def other_forms(raw: bytes) -> dict[str, bytes]:
    """The same transaction in forms that are not its own."""
    value: dict[str, Any] = dag_cbor.decode(raw)
    nonce = value["nonce"]
    at = raw.index(b"\x65nonce") + 6
    assert raw[at] == nonce < 24
    return {
        "a longer number": raw[:at] + bytes([24, nonce]) + raw[at + 1 :],
        "a float": raw[:at] + b"\xf9\x7e\x00" + raw[at + 1 :],
        "an indefinite length": b"\xbf" + raw[1:] + b"\xff",
        "a byte more": raw + b"\x00",
        "a key twice": bytes([raw[0] + 1]) + raw[1:] + b"\x65nonce" + bytes([nonce]),
        "other order": bytes([raw[0]]) + raw[raw.index(b"\x63sig") :] + raw[1 : raw.index(b"\x63sig")],
    }


def test_14_other_forms_come_neither_into_the_mempool_nor_into_a_block(world: Mirrored) -> None:
    raw = world.tx("client", Transfer(key("node"), HOLD))
    for name, other in other_forms(raw).items():
        assert check(world, other) is Code.MALFORMED, name
        assert prepare(world, other) == [world.beacon()], name
        given = world.next_block(other)
        assert not world.mirror.judge(world.app, given, given.txs), name
    assert check(world, raw) is Code.OK


def test_15_gaps_used_nonces_and_floods_are_refused_and_bounded(world: Mirrored) -> None:
    nonce, many = world.app.account(key("client")).nonce, limits.MAX_PENDING_PER_ACCOUNT
    txs = [world.tx("client", Transfer(key("node"), HOLD), nonce=nonce + n) for n in range(many + 1)]
    assert check(world, txs[1]) is Code.NONCE_GAP
    assert [check(world, raw) for raw in txs] == [Code.OK] * many + [Code.POOL_FULL]
    another = world.tx("client", Transfer(key("node"), 2 * HOLD), nonce=nonce)
    assert check(world, another) is Code.NONCE_USED
    assert prepare(world, *reversed(txs)) == [world.beacon(), txs[0]]
    for wrong in ([txs[1]], [txs[0], txs[0]], [txs[0], another], [txs[1], txs[0]]):
        assert not world.mirror.judge(world.app, world.next_block(), (world.beacon(), *wrong))
    world.block(txs[0])
    assert check(world, txs[0]) is Code.NONCE_USED
    assert check(world, txs[-1]) is Code.OK


def test_18_whatever_a_proposer_takes_in_the_beacon_is_one(world: Mirrored) -> None:
    deal, _ = world.active("client", "node", periods=9)
    nonce = world.app.account(key("client")).nonce
    grinding = [world.tx("client", Transfer(key("node"), HOLD + n), nonce=nonce) for n in range(4)]
    grinding.append(world.tx("client", Spot(deal, 0), nonce=nonce))
    proposed = [prepare(world, raw) for raw in grinding]
    assert [txs[1:] for txs in proposed] == [[raw] for raw in grinding]
    assert {txs[0] for txs in proposed} == {world.beacon()}
    head = transactions.decode_beacon(world.beacon())
    for beacon in (bytes(96), head.beacon[:-1] + bytes([head.beacon[-1] ^ 1])):
        forged = Beacon(head.chain, head.height, beacon).encode()
        assert not world.mirror.judge(world.app, world.next_block(), (forged, grinding[0]))
    before = world.beacon()
    world.block(grinding[1])
    assert not world.mirror.judge(world.app, world.next_block(), (before,))  # the last one's again


def test_32_a_flood_neither_runs_time_out_nor_takes_the_proofs_half(world: Mirrored) -> None:
    _, dataset = world.active("client", "node", periods=4, blocks=10)
    world.open_window(dataset)
    proof = world.tx("node", world.proof(dataset))
    nonce = world.app.account(key("client")).nonce
    flood = [world.tx("client", Transfer(key("node"), HOLD), nonce=nonce + n) for n in range(60)]
    assert all(check(world, raw) is Code.OK for raw in (*flood, proof))
    # Given that there is room for the proof and about as many bytes of others, nothing keeps it out
    room = 2 * len(proof) + 5_000
    made = prepare(world, *flood, proof, max_tx_bytes=room)
    assert proof in made
    assert sum(map(len, made)) <= room
    # when the next block says that it is years later, and many follow in one second, time is the rules'
    time = world.app.time
    for raw in (*flood[:3], proof):
        world.block(raw)
    assert world.app.time == time
    assert world.dataset(dataset).record.proven
    world.block(step=10**8)
    assert world.app.time - time == world.params.max_step_s
