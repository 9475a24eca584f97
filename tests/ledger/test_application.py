"""The application as an engine and its clients see it."""

from __future__ import annotations

import pytest

from ledger import keys
from ledger.application import Application, BlockInput
from ledger.genesis import HOLD
from ledger.state_tree import verify
from ledger.transactions import Accept, Transfer
from tests.ledger.world import CONTENT, PARAMS, START_S, World, genesis, key


def test_a_new_chain_gives_all_money_to_the_operator() -> None:
    world = World()
    app = world.app
    assert (app.height, app.time, app.block_time_s) == (0, START_S, START_S)
    assert app.account(key("operator")).balance == app.totals().issued
    assert app.next_due() is None
    raw = world.tx("operator", Transfer(key("a"), HOLD))
    assert app.check_tx(raw).ok
    assert app.prepare_proposal([raw], max_bytes=10**6) == [raw]
    result = world.block(raw)
    assert keys.GENESIS in result.changes  # the first block's changes are the whole state
    world.check_restores()


def test_status_is_what_the_command_prints() -> None:
    world = World()
    status = world.app.status()
    wanted = "chain_id engine height time app_hash issued balances escrow collateral burned"
    assert list(status)[:10] == wanted.split()
    parts = (status[name] for name in ("balances", "escrow", "collateral", "burned"))
    assert sum(parts) == status["issued"]


def test_deals_are_found_by_client_provider_content_and_activity() -> None:
    world = World()
    world.fund("ann", "bob")
    world.provider("node")
    mine = world.deal("ann", providers=("node",))
    other = world.deal("bob")
    world.block()
    world.block()

    def found(**conditions: object) -> set[str]:
        return {str(info.id) for info in world.app.deals(**conditions)}  # type: ignore[arg-type]

    both = {str(mine), str(other)}
    assert found() == found(content=CONTENT) == found(active=True) == both
    assert found(client=key("ann")) == {str(mine)}
    assert found(provider=key("node")) == both
    assert found(provider=key("node"), client=key("bob")) == {str(other)}
    assert found(active=False) == found(client=key("node")) == set()
    world.pass_time(PARAMS.accept_timeout_s + 2)
    assert found(active=False) == {str(mine)}  # refunded
    assert {str(info.id) for info in world.restored().deals(active=False)} == {str(mine)}


def test_queries_answer_from_the_last_commit_while_a_block_waits() -> None:
    world = World()
    world.fund("ann")
    raw = world.tx("operator", Transfer(key("new"), HOLD))
    before = dict(world.app.items())
    status, root = world.app.status(), world.app.app_hash
    block = BlockInput(world.app.height + 1, world.now + 1, key("operator"), (world.beacon(), raw))
    result = world.app.finalize_block(block)
    assert result.app_hash != root
    for name in (keys.account(key("new")), keys.account(key("ann")), keys.CHAIN):
        proof = world.app.prove(name)
        assert proof.value == before.get(name)
        assert verify(proof, root)
    assert world.app.status() == status
    assert world.app.account(key("new")).balance == 0
    world.app.commit()
    assert world.app.app_hash == result.app_hash
    proof = world.app.prove(keys.account(key("new")))
    assert proof.value is not None
    assert verify(proof, result.app_hash)
    assert not verify(proof, root)


def test_the_same_blocks_give_the_same_state() -> None:
    """Run, run again from genesis, and run after a restore in the middle."""
    world = World()
    blocks: list[BlockInput] = []
    finalize = world.app.finalize_block

    def recording(block: BlockInput):  # type: ignore[no-untyped-def]
        blocks.append(block)
        return finalize(block)

    world.app.finalize_block = recording  # type: ignore[method-assign]
    world.fund("client")
    world.provider("node", "other")
    deal = world.deal("client", shards=2, periods=2)
    world.block(step=1)
    for index in range(2):
        holder = next(name for name in ("node", "other") if key(name) == world.shard(deal, index).provider)
        world.do(holder, Accept(deal, index))
    world.pass_time(4 * PARAMS.period_s)
    again = Application(genesis(PARAMS))
    for block in blocks:
        if block.height == len(blocks) // 2:
            again = Application(genesis(PARAMS), again.items())
        again.finalize_block(block)
        again.commit()
    assert again.app_hash == world.app.app_hash
    assert dict(again.items()) == world.stored


def test_cost_of_a_block_does_not_grow_with_the_deals(monkeypatch: pytest.MonkeyPatch) -> None:
    """Counted in state reads, which do not depend on the machine."""
    from ledger.state import State

    world = World()
    world.fund("client", amount=100_000 * HOLD)
    world.provider("node")
    counted = [0]
    find = State._find

    def counting(self: State, name: bytes):  # type: ignore[no-untyped-def]
        counted[0] += 1
        return find(self, name)

    monkeypatch.setattr(State, "_find", counting)

    def reads() -> int:
        counted[0] = 0
        world.block(world.tx("client", Transfer(key("node"), HOLD)), step=1)
        return counted[0]

    few = reads()
    for _ in range(30):
        world.deal("client", providers=("node",), blocks=1)
    assert reads() <= few + 2
