"""Governance: proposals, votes by stake that stays, the time lock, and deals that keep their terms."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import replace

import pytest

from ledger import keys, limits, rules_governance
from ledger.application import BlockInput
from ledger.errors import UnknownRules
from ledger.fees import small_fee
from ledger.genesis import HOLD
from ledger.records_governance import ProposalRecord, ProposalStatus
from ledger.result import Code
from ledger.transactions import Propose, Register, Transfer, Vote, Withdraw
from merkledag.cid import CID
from tests.ledger.world import GIB, PARAMS, World, all_of, key, kinds, last

VOTE_S, LOCK_S = 40, 20
TERMS = replace(PARAMS, vote_s=VOTE_S, timelock_s=LOCK_S, proposal_deposit=HOLD, retention_periods=2)
UNKNOWN = CID.of(b"no such proposal", codec=0x71)


@pytest.fixture
def world() -> World:
    """Three providers with 60, 30 and 10 HOLD of stake."""
    world = World(TERMS)
    for name, stake in (("a", 60), ("b", 30), ("c", 10)):
        world.provider(name, stake=stake * HOLD)
    world.fund("client")
    return world


def propose(world: World, name: str = "a", **changes: int) -> CID:
    return world.do(name, Propose(changes, 0, "because"))


def vote(world: World, proposal: CID, **votes: bool) -> None:
    for name, approve in votes.items():
        world.do(name, Vote(proposal, approve))


def record(world: World, proposal: CID) -> ProposalRecord:
    info = world.app.proposal(proposal)
    assert info is not None
    return info.record


def close(world: World, proposal: CID) -> ProposalStatus:
    world.pass_until(record(world, proposal).closes_at)
    return record(world, proposal).status


def settle_all(world: World, **changes: int) -> CID:
    """Makes changes come into force."""
    proposal = propose(world, "a", **changes)
    vote(world, proposal, a=True, b=True)
    world.pass_until(record(world, proposal).activates_at)
    return proposal


def test_a_proposal_passes_waits_and_comes_into_force(world: World) -> None:
    before = world.balance("c")
    proposal = propose(world, "c", base_fee=5_000, terminate_after=9)
    assert world.balance("c") == before - HOLD - small_fee(TERMS)
    made = record(world, proposal)
    assert (made.number, made.total, made.note) == (1, 100 * HOLD, "because")
    assert made.changes == {"base_fee": 5_000, "terminate_after": 9}
    opened = last(world.events, "proposed")
    assert opened == {
        "proposal": proposal,
        "provider": key("c"),
        "number": 1,
        "closes_at": world.app.time + VOTE_S,
    }
    vote(world, proposal, a=True, b=False)
    assert last(world.events, "voted") == {
        "proposal": proposal,
        "provider": key("b"),
        "approve": False,
        "weight": 30 * HOLD,
    }
    world.pass_until(made.closes_at - 1)
    assert record(world, proposal).status is ProposalStatus.OPEN
    world.pass_until(made.closes_at)
    assert record(world, proposal).status is ProposalStatus.PASSED  # 60 of 90 are two thirds
    assert world.balance("c") == before - small_fee(TERMS)  # the deposit is back
    world.pass_until(made.activates_at - 1)
    assert (world.app.params, world.app.params_version) == (TERMS, 1)
    world.pass_until(made.activates_at)
    assert record(world, proposal).status is ProposalStatus.ACTIVE
    changed = replace(TERMS, base_fee=5_000, terminate_after=9)
    assert (world.app.params, world.app.params_version) == (changed, 2)
    assert [world.app.params_of(version) for version in range(4)] == [None, TERMS, changed, None]
    assert all_of(world.events, "params_changed") == [{"proposal": proposal, "version": 2}]
    statuses = [event["status"] for event in all_of(world.events, "proposal_closed")]
    assert statuses == ["passed", "active"]
    world.check_restores()
    assert world.restored().params == changed


def test_a_block_runs_under_one_version_from_its_first_to_its_last_step(world: World) -> None:
    proposal = propose(world, base_fee=5_000)
    vote(world, proposal, a=True, b=True)
    world.pass_until(record(world, proposal).activates_at - 1)
    cheap = world.tx("client", Transfer(key("a"), 1))
    assert world.app.check_tx(cheap).ok
    assert world.block(cheap, step=1).tx_results[1].ok
    assert "params_changed" in kinds(world.events)
    cheap = world.tx("client", Transfer(key("a"), 1))
    assert world.app.check_tx(cheap).code is Code.FEE_TOO_LOW
    assert world.block(cheap).tx_results[1].code is Code.FEE_TOO_LOW


def test_20_a_deal_keeps_the_terms_that_it_was_made_under(world: World) -> None:
    old, dataset = world.active("client", "a", periods=50)
    settle_all(world, terminate_after=1, fault_fee_percent=0, period_s=80)
    world.params = world.app.params
    new = world.deal("client", providers=("a",))
    made = [world.app.deal(deal) for deal in (old, new)]
    assert [info.record.terms for info in made if info] == [1, 2]
    start = len(world.events)
    world.pass_time(2 * PARAMS.period_s)
    faults = all_of(world.events[start:], "fault")
    assert [(each["dataset"], each["fee"], each["in_a_row"]) for each in faults] == [
        (dataset, 100_000, 2),
        (dataset, 100_000, 3),
    ]
    assert len(all_of(world.events[start:], "shard_terminated")) == 1  # after three, as agreed


@pytest.mark.parametrize(
    ("votes", "status"),
    [
        ({}, ProposalStatus.NO_QUORUM),
        ({"b": True}, ProposalStatus.NO_QUORUM),
        ({"d": True}, ProposalStatus.PASSED),
        ({"d": False}, ProposalStatus.REJECTED),
        ({"a": True, "b": False}, ProposalStatus.PASSED),
        ({"a": True, "b": False, "e": False}, ProposalStatus.REJECTED),
    ],
)
def test_a_third_of_all_stake_must_vote_and_two_thirds_of_it_agree(
    world: World, votes: Mapping[str, bool], status: ProposalStatus
) -> None:
    """Of 60 + 30 + 10 + 52 + 4 HOLD d alone is the third, and a two thirds against b, to the unit."""
    world.provider("d", stake=52 * HOLD)
    world.provider("e", stake=4 * HOLD)
    proposal = propose(world, base_fee=5)
    assert record(world, proposal).total == 156 * HOLD == 3 * 52 * HOLD
    before, burned = world.balance("a"), world.app.totals().burned
    vote(world, proposal, **votes)
    fees = small_fee(TERMS) * len(votes)
    assert close(world, proposal) is status
    lost = HOLD if status is ProposalStatus.NO_QUORUM else 0
    assert world.balance("a") == before + HOLD - lost - small_fee(TERMS) * ("a" in votes)
    assert world.app.totals().burned == burned + lost + fees
    world.pass_time(LOCK_S)
    assert world.app.params_version == (2 if status is ProposalStatus.PASSED else 1)


def test_20_stake_that_moves_votes_once(world: World) -> None:
    proposal = propose(world, "b", base_fee=5)
    vote(world, proposal, a=True)
    world.do("c", Withdraw(10 * HOLD))
    world.do("c", Transfer(key("other"), 70 * HOLD))
    world.do("other", Register("http://other", GIB, key("other"), 10 * HOLD))
    world.refuses("other", Vote(proposal, True), Code.NO_STAKE)
    world.refuses("c", Vote(proposal, True), Code.NO_STAKE)
    world.refuses("a", Vote(proposal, True), Code.ALREADY_VOTED)
    assert record(world, proposal).yes == 60 * HOLD


def test_a_vote_weighs_the_least_stake_since_it_began(world: World) -> None:
    """Of stake that is there at its opening, at its end or between alone nothing counts."""
    world.provider("d", stake=HOLD)
    first = propose(world, "b", base_fee=5)
    world.do("a", Withdraw(59 * HOLD))
    second = propose(world, "c", base_fee=6)
    world.do("a", Register("http://a.example", GIB, key("a"), 7 * HOLD))
    third = propose(world, "d", base_fee=7)
    world.do("a", Withdraw(2 * HOLD))
    world.do("a", Register("http://a.example", GIB, key("a"), 50 * HOLD))
    weights = [HOLD, HOLD, 6 * HOLD]
    for proposal, weight in zip((first, second, third), weights, strict=True):
        world.do("a", Vote(proposal, False))
        assert record(world, proposal).no == weight


def test_the_stake_of_who_takes_part_in_a_vote_stays_until_it_ends(world: World) -> None:
    proposal = propose(world, base_fee=5)
    world.refuses("a", Withdraw(1), Code.STAKE_LOCKED)
    world.refuses("a", Withdraw(61 * HOLD), Code.STAKE_LOCKED)
    world.do("b", Withdraw(1))
    vote(world, proposal, b=False)
    world.refuses("b", Withdraw(1), Code.STAKE_LOCKED)
    world.do("c", Withdraw(10 * HOLD))
    world.pass_until(record(world, proposal).closes_at - 1)
    world.refuses("a", Withdraw(60 * HOLD), Code.STAKE_LOCKED)
    txs = [world.tx(name, Withdraw(HOLD)) for name in "ab"]
    assert [result.code for result in world.block(*txs, step=1).tx_results] == [Code.OK] * 3
    # a vote that ends later binds longer, one that ends earlier no shorter
    first = propose(world, "b", base_fee=6)
    world.pass_time(1)
    second = propose(world, "a", base_fee=7)
    vote(world, second, b=True)
    vote(world, first, a=True)
    close(world, first)
    for name in "ab":
        world.refuses(name, Withdraw(1), Code.STAKE_LOCKED)
    close(world, second)
    world.do("b", Withdraw(1))


def test_stake_that_comes_for_the_opening_alone_burns_nobodys_deposit(world: World) -> None:
    world.provider("rich", stake=900 * HOLD)
    proposal = propose(world, base_fee=5)
    assert record(world, proposal).total == 1_000 * HOLD
    world.do("rich", Withdraw(900 * HOLD))
    vote(world, proposal, a=True)
    assert close(world, proposal) is ProposalStatus.PASSED
    assert record(world, proposal).total == 100 * HOLD
    # nor does stake that comes for the end
    proposal = propose(world, base_fee=6)
    world.do("rich", Register("http://rich", GIB, key("rich"), 900 * HOLD))
    vote(world, proposal, a=True)
    assert close(world, proposal) is ProposalStatus.PASSED


def test_what_a_block_moves_before_a_proposal_counts_and_after_it_does_not(world: World) -> None:
    add = Register("http://a.example", GIB, key("a"), HOLD)
    nonce = world.app.account(key("a")).nonce
    txs = [
        world.tx("a", add, nonce=nonce),
        world.tx("b", Propose({"base_fee": 5}, 0, "")),
        world.tx("a", add, nonce=nonce + 1),
    ]
    result = world.block(*txs)
    proposal = result.tx_results[2].tx_id
    assert proposal is not None
    vote(world, proposal, a=True)
    made = record(world, proposal)
    assert (made.total, made.yes) == (101 * HOLD, 61 * HOLD)


@pytest.mark.parametrize("seed", range(4))
def test_weights_are_those_of_a_copy_of_all_stakes_that_falls_with_them(seed: int) -> None:
    rng = random.Random(seed)
    world = World(replace(TERMS, vote_s=rng.randint(5, 40), min_stake=0, proposal_deposit=0))
    names = ["p0", "p1", "p2"]
    world.provider(*names, stake=HOLD)
    copies: dict[CID, dict[str, int]] = {}
    done = 0
    for _ in range(90):
        name = rng.choice(names)
        found = world.app.provider(key(name))
        assert found is not None
        match rng.randint(0, 4):
            case 0:
                world.try_(name, Withdraw(rng.randint(1, 2 * found.stake + 1)))
            case 1:
                world.do(name, Register("http://n", GIB, key(name), rng.randint(0, HOLD)))
            case 2:
                result = world.try_(name, Propose({"base_fee": rng.randint(1, 900)}, 0, ""))
                assert result.code in (Code.OK, Code.TOO_MANY_PROPOSALS, Code.NO_STAKE)
                if result.ok and result.tx_id:
                    copies[result.tx_id] = {
                        each: record_.stake
                        for each in names
                        if (record_ := world.app.provider(key(each))) is not None
                    }
            case 3:
                world.pass_time(rng.randint(0, 15))
            case 4 if copies:
                proposal = rng.choice(list(copies))
                result = world.try_(name, Vote(proposal, rng.random() < 0.5))
                weight = copies[proposal][name]
                if result.ok:
                    done += 1
                    assert last(world.events, "voted")["weight"] == weight
                elif result.code is Code.NO_STAKE:
                    assert weight == 0
        for each in names:
            now = world.app.provider(key(each))
            assert now is not None
            for copy in copies.values():
                copy[each] = min(copy[each], now.stake)
            rows = list(world.app._state.committed_scan(keys.STAKE + key(each)))
            assert len(rows) <= limits.MAX_OPEN_PROPOSALS
    assert done
    world.check_restores()


@pytest.mark.parametrize(
    "body",
    [
        Propose({}, 0, ""),
        Propose({"no_such": 1}, 0, ""),
        Propose({"base_fee": 0}, 0, ""),
        Propose({"window_s": 39}, 0, ""),
        Propose({"fault_limit": 31}, 0, ""),
        Propose({"fault_window": 4}, 0, ""),
        Propose({}, 1, ""),
        Propose({"base_fee": 5, "max_step_s": 301}, 2, ""),
    ],
    ids=str,
)
def test_what_leaves_the_bounds_is_no_proposal(world: World, body: Propose) -> None:
    world.refuses("a", body, Code.INVALID_TERMS)


def test_who_may_propose_and_vote(world: World) -> None:
    world.refuses("client", Propose({"base_fee": 5}, 0, ""), Code.NOT_REGISTERED)
    proposal = propose(world, base_fee=5)
    world.refuses("client", Vote(proposal, True), Code.NOT_REGISTERED)
    world.refuses("a", Vote(UNKNOWN, True), Code.UNKNOWN_PROPOSAL)
    world.do("c", Withdraw(10 * HOLD))
    world.refuses("c", Propose({"base_fee": 5}, 0, ""), Code.NO_STAKE)
    world.do("c", Register("http://c.example", GIB, key("c"), HOLD - 1))
    world.refuses("c", Propose({"base_fee": 5}, 0, ""), Code.NO_STAKE)  # less than a provider begins with
    world.do("c", Register("http://c.example", GIB, key("c"), 1))
    world.do("b", Transfer(key("client"), world.balance("b") - HOLD))
    world.refuses("b", Propose({"base_fee": 5}, 0, ""), Code.INSUFFICIENT_FUNDS)
    world.refuses("c", Vote(proposal, True), Code.NO_STAKE)  # what came back was away
    world.refuses("a", Propose({"base_fee": 6}, 0, ""), Code.TOO_MANY_PROPOSALS)
    propose(world, "c", base_fee=6)
    world.pass_until(record(world, proposal).closes_at)
    world.refuses("b", Vote(proposal, True), Code.VOTE_CLOSED)


def test_a_vote_in_the_second_before_the_end_counts_and_at_the_end_not(world: World) -> None:
    proposal = propose(world, base_fee=5)
    world.pass_until(record(world, proposal).closes_at - 1)
    vote(world, proposal, b=True)
    late = world.tx("a", Vote(proposal, True))
    assert world.block(late, step=1).tx_results[1].code is Code.VOTE_CLOSED


def test_only_so_many_proposals_are_open(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MAX_OPEN_PROPOSALS", 2)
    first = propose(world, base_fee=5)
    propose(world, "c", base_fee=6)
    world.refuses("b", Propose({"base_fee": 7}, 0, ""), Code.TOO_MANY_PROPOSALS)
    close(world, first)
    propose(world, "b", base_fee=7)


def test_what_does_not_fit_any_more_is_void(world: World) -> None:
    """Each alone is within bounds, both together are not."""
    world.provider("d", "e", stake=HOLD)
    one = propose(world, "a", window_s=12)
    other = propose(world, "b", period_s=24, window_s=10)
    third = propose(world, "c", period_s=20, window_s=10)
    shorter = propose(world, "d", period_s=30, window_s=15)
    widest = propose(world, "e", window_s=20)
    for proposal in (one, other, third, shorter, widest):
        vote(world, proposal, a=True, b=True)
    before = [world.balance(name) for name in "abcde"]
    world.pass_until(record(world, widest).activates_at)
    found = [record(world, proposal).status for proposal in (one, other, third, shorter, widest)]
    assert found.count(ProposalStatus.VOID) >= 1
    assert record(world, widest).status is ProposalStatus.VOID or world.app.params.period_s >= 40
    assert world.app.params == world.app.params.check()
    assert world.app.params_version == 1 + found.count(ProposalStatus.ACTIVE)
    # a void proposal was agreed on: its deposit is back
    assert [world.balance(name) for name in "abcde"] == [each + HOLD for each in before]


def test_new_rules_stop_a_program_that_lacks_them_and_one_that_has_them_goes_on(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    proposal = world.do("a", Propose({}, 2, "needs release 9.1"))
    vote(world, proposal, a=True, b=True)
    world.pass_until(record(world, proposal).activates_at)
    assert world.app.rules == 2
    assert all_of(world.events, "rules_changed") == [{"proposal": proposal, "rules": 2}]
    assert world.app.params_version == 1
    root = world.app.app_hash
    block = BlockInput(world.app.height + 1, world.now, key("operator"), (world.beacon(),))
    for use in (
        lambda: world.app.finalize_block(block),
        lambda: world.app.process_proposal(block),
        lambda: world.app.prepare_proposal(block, max_bytes=1_000, max_txs=10),
        lambda: world.restored().finalize_block(block),
    ):
        with pytest.raises(UnknownRules, match=r"install a release .* version 2 .*needs release 9\.1"):
            use()
    assert world.app.app_hash == root  # all there is can still be read
    assert world.app.proposal(proposal) is not None
    monkeypatch.setattr(rules_governance, "KNOWN_RULES", frozenset({1, 2}))
    world.block()
    world.refuses("a", Propose({}, 2, ""), Code.INVALID_TERMS)


def test_of_two_proposals_for_the_same_rules_the_second_is_void(world: World) -> None:
    proposals = [world.do(name, Propose({}, 2, "")) for name in "ab"]
    for proposal in proposals:
        vote(world, proposal, a=True, b=True)
    world.pass_until(record(world, proposals[0]).activates_at)
    statuses = {record(world, proposal).status for proposal in proposals}
    assert statuses == {ProposalStatus.ACTIVE, ProposalStatus.VOID}


def test_proposals_and_votes_are_forgotten_in_bounded_steps(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    voters = [f"v{number}" for number in range(8)]
    world.provider(*voters, stake=HOLD)
    proposal = propose(world, base_fee=5)
    vote(world, proposal, **dict.fromkeys(voters, True))
    close(world, proposal)
    monkeypatch.setattr(limits, "MAX_DUE_PER_BLOCK", 3)
    kept_s = TERMS.retention_periods * TERMS.period_s
    world.pass_until(record(world, proposal).closes_at + kept_s - 1)
    assert world.app.proposal(proposal) is not None

    def votes() -> int:
        return len(list(world.app._state.committed_scan(keys.VOTE)))

    left = [votes()]
    world.block(step=1)
    while world.app.proposal(proposal) is not None:
        left.append(votes())
        world.block()
    assert left == [8, 6, 4, 2]
    assert votes() == 0
    assert world.app.proposals() == []
    assert not [name for name in world.stored if name.startswith((keys.OPEN, keys.PROPOSAL))]
    assert not [name for name in world.stored if name.startswith(keys.DUE)]


def test_opening_a_vote_costs_the_same_however_many_providers_there_are(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Counted in changed keys and record reads."""
    from ledger.state import State

    costs = []
    for count in (2, 30):
        world = World(TERMS)
        world.provider(*(f"n{number}" for number in range(count)), stake=HOLD)
        reads = [0]
        plain = State.record

        def counting(self: State, name: bytes, cls: type, reads=reads, plain=plain):  # type: ignore[no-untyped-def]
            reads[0] += 1
            return plain(self, name, cls)

        with monkeypatch.context() as patched:
            patched.setattr(State, "record", counting)
            result = world.block(world.tx("n0", Propose({"base_fee": 5}, 0, "")))
        assert result.tx_results[1].ok
        costs.append((reads[0], len(result.writes.state)))
    assert costs[0] == costs[1]


def test_a_restored_ledger_goes_on_with_an_open_vote(world: World) -> None:
    proposal = propose(world, base_fee=5)
    vote(world, proposal, a=True)
    world.do("b", Withdraw(29 * HOLD))
    world.app = world.restored()
    vote(world, proposal, b=True)
    assert record(world, proposal).yes == 61 * HOLD
    found = world.app.vote_of(proposal, key("b"))
    assert found is not None
    assert (found.approve, found.weight) == (True, HOLD)
    assert world.app.vote_of(proposal, key("c")) is None
