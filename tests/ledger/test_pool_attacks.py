"""Attacks on what waits for a block: many signatures of one transaction, changed bytes of each kind."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import pytest

from ledger import limits, rules_validators
from ledger.forms_validators import RegisterValidator
from ledger.genesis import HOLD
from ledger.result import Code
from ledger.transactions import SIGN_TAG, Body, Transfer, decode, verify
from tests.ledger.test_forms import BODY_EXAMPLES
from tests.ledger.test_validators import bodies
from tests.ledger.world import FAR_S, World, key, seed

P = 2**255 - 19
L = 2**252 + 27742317777372353535851937790883648493
D = -121665 * pow(121666, -1, P) % P
Point = tuple[int, int]
BASE: Point = (
    15112221349535400772501151409588531511454012693041857206046113283949847762202,
    4 * pow(5, -1, P) % P,
)


def add(a: Point, b: Point) -> Point:
    (ax, ay), (bx, by) = a, b
    product = D * ax * bx * ay * by % P
    return (
        (ax * by + ay * bx) * pow(1 + product, -1, P) % P,
        (ay * by + ax * bx) * pow(1 - product, -1, P) % P,
    )


def times(number: int, point: Point) -> Point:
    found: Point = (0, 1)
    for bit in bin(number)[2:]:
        found = add(found, found)
        if bit == "1":
            found = add(found, point)
    return found


def signature(name: str, message: bytes, secret: int) -> bytes:
    """A right signature that is not the one of RFC 8032: its R comes from a number of one's own."""
    digest = bytearray(hashlib.sha512(seed(name)).digest()[:32])
    digest[0] &= 248
    digest[31] = digest[31] & 127 | 64
    x, y = times(secret, BASE)
    commitment = (y | (x & 1) << 255).to_bytes(32, "little")
    challenge = int.from_bytes(hashlib.sha512(commitment + key(name) + message).digest(), "little")
    s = (secret + challenge * int.from_bytes(digest, "little")) % L
    return commitment + s.to_bytes(32, "little")


@pytest.fixture
def world() -> World:
    world = World()
    world.fund("client")
    return world


def test_13_many_signatures_of_one_transaction_take_one_place(world: World) -> None:
    """Whoever has the key can sign without end: else one account would fill the pool for the fee of one."""
    raw = world.tx("client", Transfer(key("operator"), HOLD))
    tx = decode(raw)
    again = [
        replace(tx, sig=signature("client", SIGN_TAG + tx.unsigned_bytes(), secret)) for secret in (7, 8, 9)
    ]
    assert all(verify(each) and each.id == tx.id for each in again)
    assert world.app.check_tx(raw).ok
    assert [world.app.check_tx(each.encode()).code for each in again] == [Code.NONCE_USED] * 3
    assert world.app.check_tx(raw).ok  # the same bytes again are no other transaction
    world.app.forget(again[0].encode())  # which frees nothing: it did not wait
    assert world.app.check_tx(again[1].encode()).code is Code.NONCE_USED
    world.app.forget(raw)
    assert world.app.check_tx(again[1].encode()).ok
    assert world.block(again[2].encode()).tx_results[1].ok


@pytest.mark.parametrize("body", BODY_EXAMPLES, ids=lambda body: body.kind)
def test_13_14_no_byte_of_any_kind_can_be_changed(world: World, body: Body) -> None:
    """Refused as a form or as a signature, and never an error of the ledger's own."""
    raw = world.tx("client", body)
    found = world.app.check_tx(raw).code
    # Of proofs, and of a validator's keys, more is asked.
    assert found in (Code.OK, Code.UNKNOWN_DATASET, Code.UNKNOWN_DEAL, Code.INVALID_TERMS)
    world.app.forget(raw)
    early = {Code.MALFORMED, Code.MISPLACED, Code.WRONG_CHAIN, Code.EXPIRED, Code.FEE_TOO_LOW}
    for at in range(len(raw)):
        for bit in (at % 8, 7):
            changed = bytearray(raw)
            changed[at] ^= 1 << bit
            assert world.app.check_tx(bytes(changed)).code in {*early, Code.BAD_SIGNATURE}
    for cut in range(0, len(raw), 7):
        assert world.app.check_tx(raw[:cut]).code is Code.MALFORMED
        assert world.app.check_tx(raw + raw[:cut] + b"\x00").code is Code.MALFORMED


def test_few_registrations_of_validators_wait_and_each_shows_its_keys_once(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two long verifications each: a mempool full of them, checked again after a block, took 18 s of it."""
    monkeypatch.setattr(limits, "MAX_PENDING_REGISTRATIONS", 3)
    world.fund("b", "c", "d")
    looked_at: list[bytes] = []
    plain = rules_validators.possesses

    def possesses(chain_id: str, account: bytes, body: RegisterValidator) -> bool:
        looked_at.append(account)
        return plain(chain_id, account, body)

    monkeypatch.setattr(rules_validators, "possesses", possesses)
    names = ("client", "b", "c", "d")
    txs = [world.tx(name, bodies(name, f"{name}'s", name)) for name in names]
    first = world.app.account(key("client")).nonce
    again = world.tx("client", bodies("client", "another", "client"), nonce=first + 1)
    codes = [world.app.check_tx(raw).code for raw in (txs[0], again, *txs[1:])]
    assert codes == [Code.OK, Code.POOL_FULL, Code.OK, Code.OK, Code.POOL_FULL]
    assert looked_at == [key(name) for name in names[:3]]
    world.block()
    assert all(world.app.recheck_tx(raw).ok for raw in txs[:3])
    assert len(looked_at) == 3
    world.block(txs[0])
    assert world.app.check_tx(txs[3]).ok
    assert world.app.check_tx(again).code is Code.POOL_FULL
    world.app.forget(txs[1])
    assert world.app.check_tx(again).ok


def test_whose_keys_are_not_its_own_again_and_again_waits(world: World) -> None:
    stolen = bodies("another", "another's", "another")
    txs = [world.tx("client", stolen, expiry=FAR_S + number) for number in range(5)]
    codes = [world.app.check_tx(raw).code for raw in txs]
    assert codes == [Code.INVALID_POSSESSION] * 3 + [Code.POOL_FULL] * 2
    for _ in range(limits.INVALID_PROOF_WAIT_BLOCKS):
        world.block()
    assert world.app.check_tx(world.tx("client", bodies("client", "client's", "client"))).ok
