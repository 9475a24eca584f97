"""Line 18 of what an attacker tries: a proposer that grinds, withholds, or signs what it should not."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from itertools import islice

import pytest

from ledger import keys
from ledger.application import Application, BlockInput, BlockResult
from ledger.errors import InvalidBlock, InvalidGenesis
from ledger.events import Attribute
from ledger.genesis import HOLD
from ledger.ingest import memory_store
from ledger.records_validators import ValidatorRecord
from ledger.transactions import Beacon, Register, Spot, Transfer
from merkledag.cid import CID
from proofs.beacon import chain as beacon
from proofs.bls.signatures import BlsSigner
from tests.ledger.world import CHAIN, Piece, World, all_of, beacon_signer, genesis, key, seed

RIVALS = ("operator", "second", "third")


@cache
def bls_signer(name: str) -> BlsSigner:
    return beacon_signer() if name == "operator" else BlsSigner.from_seed(seed(f"beacon of {name}"))


def with_rivals(world: World) -> Application:
    """The world's application with more proposers, as an engine with validators would have them."""
    items = dict(world.stored)
    for name in RIVALS:
        record = ValidatorRecord(key(name), bls_key=bls_signer(name).public_key, granted=1, power=1)
        items[keys.validator(key(name))] = record.encode()
    return Application(world.app.genesis, memory_store(items.items()))


def head(app: Application, name: str) -> bytes:
    """The beacon transaction of a proposer's next block."""
    height = app.height + 1
    return Beacon(CHAIN, height, bls_signer(name).sign(app.beacon_transaction_message(height))).encode()


def before_a_window() -> tuple[World, CID]:
    """A ledger a second before a window of the deal opens."""
    world = World()
    world.fund("client", "eve")
    world.provider("node", "other", "third")
    deal, dataset = world.active("client", "node", periods=6)
    world.pass_until(world.dataset(dataset).opens_at - 1)
    return world, deal


@pytest.fixture(scope="module")
def eve_of_window() -> World:
    """A ledger whose next block, of a second later, opens a window."""
    world, _ = before_a_window()
    world.now += 1
    return world


@pytest.fixture(scope="module")
def eve_of_draws() -> World:
    """A ledger whose next block draws a period's seed, a spot challenge's and two providers."""
    world, deal = before_a_window()
    pieces = [Piece.random(world.rng) for _ in range(2)]
    world.block(world.tx("eve", Spot(deal, 0)), world.tx("client", world.deal_body(pieces)), step=1)
    return world


def contents(world: World) -> Iterator[list[bytes]]:
    """What a block can have in it, without end: transfers of any sums, registrations, rubbish, any order."""
    rng = random.Random(18)
    while True:
        txs = [
            world.tx("client", Transfer(key("eve"), rng.randrange(1, HOLD)), nonce=None),
            world.tx("eve", Transfer(key("client"), rng.randrange(1, HOLD))),
            world.tx("node", Register(f"http://{rng.random()}.example", 1 << 30, key("node"), 0)),
            world.tx("stranger", Transfer(key("eve"), rng.randrange(1, HOLD)), fee=rng.randrange(10**6)),
            rng.randbytes(rng.randrange(200)),
        ]
        rng.shuffle(txs)
        yield txs[: rng.randrange(6)]


def drawn(result: BlockResult) -> list[tuple[str, object]]:
    """Everything that a block drew by its beacon."""
    kinds = ("window_opened", "spot_opened", "shard_assigned")
    return [(each.kind, dict(each.attributes)) for each in result.events if each.kind in kinds]


def test_18_no_content_moves_the_beacon_or_what_is_drawn_by_it(eve_of_draws: World) -> None:
    world = eve_of_draws
    values, draws, states = set(), [], set()
    for txs in islice(contents(world), 16):
        app = world.restored()
        result = app.finalize_block(
            BlockInput(app.height + 1, world.now, key("operator"), (head(app, "operator"), *txs))
        )
        app.commit()
        values.add(app.beacon)
        draws.append(drawn(result))
        states.add(result.app_hash)
    assert len(values) == 1
    assert len(states) > 8  # the contents did differ
    assert {kind for kind, _ in draws[0]} == {"window_opened", "spot_opened", "shard_assigned"}
    assert all(each == draws[0] for each in draws)


def opened(result: BlockResult) -> set[Attribute]:
    """The seeds of the windows that a block told to be open."""
    return {event["seed"] for event in all_of(list(result.events), "window_opened")}


def test_18_who_chooses_a_block_time_chooses_no_seed(eve_of_window: World) -> None:
    """Whoever makes a window's first block, or is late, or hurries: the value is that of the one after it."""
    world, times, half = eve_of_window, set(), 10
    for time in range(world.app.block_time_s, world.now + half + 2):
        app = with_rivals(world)
        first = BlockInput(app.height + 1, time, key("operator"), (head(app, "operator"),))
        result = app.finalize_block(first)
        app.commit()
        assert app.beacon == beacon.next_value(
            world.app.beacon, bls_signer("operator").sign(world.app.beacon_transaction_message(first.height))
        )
        assert opened(result) == set()
        seeds = {}
        for name in RIVALS:
            after = Application(app.genesis, memory_store(app.items()))
            following = BlockInput(after.height + 1, time, key(name), (head(after, name),))
            seeds[name] = opened(after.finalize_block(following))
            after.commit()
        if world.now <= time <= world.now + half:
            times.add(time)
            assert len(set.union(*seeds.values())) == len(RIVALS)
        else:
            assert seeds == {name: set() for name in RIVALS}  # it has not opened yet, or is void
    assert len(times) == half + 1


def test_18_who_withholds_leaves_the_value_to_others_and_has_one_of_its_own(eve_of_draws: World) -> None:
    """As many values as proposers, whatever anybody puts into a block."""
    world = eve_of_draws
    values: dict[str, set[bytes]] = {name: set() for name in RIVALS}
    for name in RIVALS:
        for txs in islice(contents(world), 5):
            app = with_rivals(world)
            app.finalize_block(BlockInput(app.height + 1, world.now, key(name), (head(app, name), *txs)))
            app.commit()
            values[name].add(app.beacon)
    assert [len(each) for each in values.values()] == [1, 1, 1]
    assert len(set.union(*values.values())) == 3


def wrong_heads(app: Application) -> dict[str, bytes]:
    """What the operator might say in place of its one signature."""
    height, before, own = app.height + 1, app.beacon, bls_signer("operator")

    def made(signature: bytes, chain: str = CHAIN, at: int = height) -> bytes:
        return Beacon(chain, at, signature).encode()

    def signed(signer: BlsSigner = own, chain: str = CHAIN, at: int = height, value: bytes = before) -> bytes:
        return signer.sign(beacon.message(chain, at, value))

    right = signed()
    return {
        "another proposer's": made(signed(bls_signer("second"))),
        "a stranger's": made(signed(bls_signer("stranger"))),
        "of another value": made(signed(value=bytes(32))),
        "of the height before": made(signed(at=height - 1)),
        "the last block's, replayed": made(signed(at=height - 1, value=app.genesis.beacon)),
        "of the next height": made(signed(at=height + 1)),
        "another chain's": made(signed(chain="other")),
        "another chain's, as such": made(signed(chain="other"), chain="other"),
        "right, for another height": made(right, at=height + 1),
        "a proof of possession": made(own.prove_possession()),
        "the other sign": made(bytes([right[0] ^ 0x20]) + right[1:]),
        "infinity": made(b"\xc0" + bytes(95)),
        "zeros": made(bytes(96)),
        "halves exchanged": made(right[48:] + right[:48]),
        "trailing bytes": made(right) + b"\x00",
        "none": b"",
    }


def test_18_no_other_signature_makes_a_block(eve_of_draws: World) -> None:
    world = eve_of_draws
    app = with_rivals(world)
    before = (app.height, app.beacon, app.app_hash)
    for name, raw in wrong_heads(app).items():
        block = BlockInput(app.height + 1, world.now, key("operator"), (raw,))
        assert not app.process_proposal(block).ok, name
        with pytest.raises(InvalidBlock):
            app.finalize_block(block)
        assert (app.height, app.beacon, app.app_hash) == before, name
    for proposer in ("second", "third", "stranger"):
        stolen = BlockInput(app.height + 1, world.now, key(proposer), (head(app, "operator"),))
        assert not app.process_proposal(stolen).ok
        with pytest.raises(InvalidBlock):
            app.finalize_block(stolen)
    assert app.process_proposal(
        BlockInput(app.height + 1, world.now, key("operator"), (head(app, "operator"),))
    ).ok


def test_18_a_key_without_its_secret_begins_no_chain() -> None:
    """A rogue key, made of others': nobody can prove to possess it."""
    from py_arkworks_bls12381 import G1Point, Scalar

    victim = G1Point.from_compressed_bytes(bls_signer("second").public_key)
    rogue = bytes((G1Point() * Scalar(7) - victim).to_compressed_bytes())
    for possession in (BlsSigner(7).prove_possession(), bls_signer("second").prove_possession()):
        with pytest.raises(InvalidGenesis, match="possession"):
            replace(genesis(), bls_key=rogue, bls_possession=possession).validated()
    with pytest.raises(InvalidGenesis, match="possession"):
        replace(genesis(), bls_key=bls_signer("second").public_key).validated()


def test_18_an_operator_alone_knows_every_value_ahead(eve_of_draws: World) -> None:
    """No attack but what is trusted (docs/proofs.md, "Beacon"): it foresees them, and cannot change them."""
    world = eve_of_draws
    app, foreseen, value = world.restored(), [], world.app.beacon
    for height in range(app.height + 1, app.height + 8):
        value = beacon.next_value(value, bls_signer("operator").sign(beacon.message(CHAIN, height, value)))
        foreseen.append(value)
    came = []
    for second, txs in enumerate(islice(contents(world), 7)):
        block = (head(app, "operator"), *txs)
        app.finalize_block(BlockInput(app.height + 1, world.now + second, key("operator"), block))
        app.commit()
        came.append(app.beacon)
    assert came == foreseen


def test_18_an_operator_alone_has_a_seed_for_every_number_of_blocks_before(eve_of_window: World) -> None:
    """Nor is this an attack that anything prevents: blocks that nobody needed give other seeds."""
    world = eve_of_window
    seeds = set()
    for more in range(5):
        app = world.restored()
        for time in [world.app.block_time_s] * more + [world.now] * 2:
            block = BlockInput(app.height + 1, time, key("operator"), (head(app, "operator"),))
            result = app.finalize_block(block)
            app.commit()
        seeds |= opened(result)
    assert len(seeds) == 5
