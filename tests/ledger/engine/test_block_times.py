"""When blocks are made by time alone: at every due instant, and at least every 30 s while a deal lives."""

from __future__ import annotations

import pytest

from ledger.engine.blocks import BlockEvents
from ledger.engine.embedded import EmbeddedEngine
from ledger.genesis import HOLD
from ledger.transactions import Accept, Ask, CreateDeal, PieceCommitment, Register, decode
from merkledag.cid import CID
from tests.ledger.engine.conftest import START_S, Chain, ManualClock, signer, until

PIECE = PieceCommitment(b"\x01" * 32, 10, 10_000, bytes(32), 0, 0)


def deal_body(chain: Chain, *, periods: int, providers: tuple[bytes, ...] = ()) -> CreateDeal:
    params = chain.genesis.params
    return CreateDeal(
        content=CID.of(b"content"),
        manifest=CID.of(b"manifest"),
        k=1,
        m=1,
        replicated=False,
        periods=periods,
        price=10 * params.proof_fee,
        challenges=params.challenges,
        pieces=(PIECE,),
        providers=providers,
    )


async def send(engine: EmbeddedEngine, raw: bytes) -> CID:
    receipt = await engine.submit(raw)
    assert receipt.code == 0, receipt
    return decode(raw).id


async def open_deal(engine: EmbeddedEngine, chain: Chain, *, periods: int) -> None:
    """A deal with one shard that its provider has accepted."""
    me = signer("node").public_key
    await send(engine, chain.transfer(0, to="node", amount=100 * HOLD))
    await send(engine, chain.tx("node", 0, Register("http://node.example", 1 << 30, me, 50 * HOLD)))
    await send(engine, chain.tx("node", 1, Ask(0, 0, 1 << 30, True)))
    deal = await send(engine, chain.tx("operator", 1, deal_body(chain, periods=periods, providers=(me,))))
    await send(engine, chain.tx("node", 2, Accept(deal, 0)))


async def wake_next(engine: EmbeddedEngine, clock: ManualClock) -> BlockEvents:
    """The next block, with as much time passing as the engine waits for, and no more."""
    height = engine.app.height
    await until(lambda: engine.app.height > height or clock.next_wake_s is not None)
    if engine.app.height == height and clock.next_wake_s is not None:
        await clock.advance(clock.next_wake_s)
        await until(lambda: engine.app.height > height)
    events = engine.history.events(height + 1)
    assert events is not None
    return events


async def test_a_block_comes_at_each_due_instant(
    engine: EmbeddedEngine, chain: Chain, clock: ManualClock
) -> None:
    await open_deal(engine, chain, periods=3)
    kinds: list[str] = []
    while engine.app.has_live_deals():
        before, due = engine.app.time, engine.app.next_due()
        assert due is not None
        made = await wake_next(engine, clock)
        # block time reaches the due instant exactly, or 30 s have passed
        assert made.time == min(max(due, before), before + 30)
        block = engine.history.block(made.height)
        assert block is not None
        assert (block.time, block.block_time_s) == (made.time, int(clock.now_s))
        kinds += [event.kind for event in made.events]
    assert kinds.count("window_opened") >= 1
    assert kinds.count("fault") >= 1  # nobody proves here


async def test_a_sleeping_machine_stops_the_ledgers_clock(
    engine: EmbeddedEngine, chain: Chain, clock: ManualClock
) -> None:
    await open_deal(engine, chain, periods=3)
    before = engine.app.time
    height = engine.app.height
    await until(lambda: clock.next_wake_s is not None)
    await clock.advance(100_000)
    await until(lambda: engine.app.height > height)
    made = engine.history.events(height + 1)
    assert made is not None
    assert made.time == before + 30


async def test_a_shard_is_drawn_in_the_block_after_its_deal_without_waiting(
    engine: EmbeddedEngine, chain: Chain, clock: ManualClock
) -> None:
    me = signer("node").public_key
    await send(engine, chain.transfer(0, to="node", amount=100 * HOLD))
    await send(engine, chain.tx("node", 0, Register("http://node.example", 1 << 30, me, 50 * HOLD)))
    await send(engine, chain.tx("node", 1, Ask(0, 0, 1 << 30, True)))
    await send(engine, chain.tx("operator", 1, deal_body(chain, periods=3)))
    height = engine.app.height
    await until(lambda: engine.app.height > height)
    drawn = engine.history.events(height + 1)
    assert drawn is not None
    assert [event.kind for event in drawn.events] == ["shard_assigned"]
    assert drawn.events[0].attributes["provider"] == me


@pytest.mark.parametrize("seconds", [7, 29.5])
async def test_a_restart_goes_on_with_the_next_due_instant(
    chain: Chain, clock: ManualClock, seconds: float
) -> None:
    engine = chain.engine()
    await engine.start()
    await open_deal(engine, chain, periods=3)
    due = engine.app.next_due()
    assert due is not None
    await engine.stop()
    chain.close()
    clock.now_s += seconds
    engine = chain.engine()
    assert engine.app.next_due() == due
    await engine.start()
    while engine.app.time < due:
        await wake_next(engine, clock)
    assert engine.app.time == due or clock.now_s > due
    await engine.stop()
    chain.close()


YEAR_S = 365 * 86_400


async def windows_opened(engine: EmbeddedEngine, clock: ManualClock, count: int) -> list[float]:
    """The monotonic times at which the next windows open, as the engine wakes by itself."""
    times: list[float] = []
    while len(times) < count:
        made = await wake_next(engine, clock)
        times += [clock.passed_s for event in made.events if event.kind == "window_opened"]
    return times


@pytest.mark.parametrize("restart", [False, True])
async def test_a_jump_ahead_that_is_corrected_does_not_stop_the_windows(
    chain: Chain, clock: ManualClock, restart: bool
) -> None:
    engine = chain.engine()
    await engine.start()
    await open_deal(engine, chain, periods=20)
    period_s = chain.genesis.params.period_s
    clock.now_s += YEAR_S
    await send(engine, chain.transfer(2))
    assert engine.app.block_time_s == START_S + YEAR_S
    while engine.app.next_due() == engine.app.time:  # the jump opened a window, whose seed comes at once
        await wake_next(engine, clock)
    clock.now_s -= YEAR_S
    if restart:
        await engine.stop()
        chain.close()
        engine = chain.engine()
        await engine.start()
    first_s, second_s = await windows_opened(engine, clock, 2)
    assert first_s <= 2 * period_s
    assert second_s - first_s == period_s
    assert engine.app.block_time_s == int(START_S + YEAR_S + clock.passed_s)
    # And the wall clock is followed again once it is ahead.
    clock.now_s = engine.app.block_time_s + 5
    await wake_next(engine, clock)
    assert engine.app.block_time_s == clock.now_s
    await engine.stop()
    chain.close()


async def test_fast_blocks_do_not_slow_a_clock_that_goes_on_by_itself(
    engine: EmbeddedEngine, chain: Chain, clock: ManualClock
) -> None:
    clock.now_s = START_S + 50.5
    await send(engine, chain.transfer(0))
    clock.now_s = START_S - 1_000
    for nonce in range(1, 11):
        await clock.advance(0.25)
        await send(engine, chain.transfer(nonce))
    assert engine.app.block_time_s == START_S + 53


async def test_a_small_step_back_is_made_up_for(
    engine: EmbeddedEngine, chain: Chain, clock: ManualClock
) -> None:
    clock.now_s = START_S + 50
    await send(engine, chain.transfer(0))
    clock.now_s -= 3
    for nonce in range(1, 5):
        await clock.advance(10)
        await send(engine, chain.transfer(nonce))
        assert engine.app.block_time_s == clock.now_s
