"""Validators: keys, power, leaving, misbehaviour, and what somebody might try with them."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import replace
from functools import cache

import pytest

from ledger import keys, limits, money
from ledger.application import Application, BlockInput
from ledger.carry import carried_items, successor
from ledger.errors import InvalidBlock, InvalidGenesis
from ledger.forms_validators import RegisterValidator, register_validator
from ledger.genesis import HOLD, Genesis, GenesisValidator, Params
from ledger.ingest import memory_store
from ledger.records_validators import ConsensusKeyRecord, ValidatorRecord
from ledger.result import Code
from ledger.transactions import Beacon, Propose, Register, Vote, Withdraw
from merkledag.cid import CID
from proofs.bls.signatures import BlsSigner
from tests.ledger.naive.twin import TwinWorld
from tests.ledger.world import (
    CHAIN,
    PARAMS,
    START_S,
    World,
    all_of,
    beacon_signer,
    genesis,
    key,
    last,
    seed,
    signer,
)

TERMS = replace(PARAMS, vote_s=20, timelock_s=10, unbonding_s=200, proposal_deposit=HOLD)
TWO_PERIODS_S = 2 * TERMS.period_s


@cache
def bls(name: str) -> BlsSigner:
    return BlsSigner.from_seed(seed(f"bls of {name}"))


def bodies(name: str, consensus: str, beacons: str, chain: str = CHAIN) -> RegisterValidator:
    return register_validator(chain, key(name), signer(consensus), bls(beacons))


class Electorate(TwinWorld):
    """Four people with equal stakes, who decide together; whoever is named registers keys of their own."""

    def __init__(self, *names: str, terms: Params = TERMS) -> None:
        super().__init__(terms)
        for name in ("a", "b", "c", "d", *names):
            self.beacon_signers[bls(name).public_key] = bls(name)
        self.provider("a", "b", "c", "d", stake=100 * HOLD)
        self.fund(*(name for name in names if name not in "abcd"))
        for name in names:
            self.do(name, bodies(name, f"{name}'s", name))
        if names:
            self.pass_time(2 * terms.period_s)

    def grant(self, powers: Mapping[str, int]) -> CID:
        """What all four vote for; it is in force when this returns."""
        granted = {key(name): power for name, power in powers.items()}
        proposal = self.do("a", Propose({}, 0, "", granted))
        self.block(*(self.tx(name, Vote(proposal, True)) for name in "abcd"))
        self.pass_time(TERMS.vote_s + TERMS.timelock_s)
        return proposal

    def move(self) -> None:
        """Blocks until no power moves."""
        while self.block(step=1).validator_updates:
            pass

    def record(self, name: str) -> ValidatorRecord:
        info = self.app.validator(key(name))
        assert info is not None
        return info.record

    def powers(self) -> dict[str, int]:
        names = {key(name): name for name in ("operator", "a", "b", "c", "d", "e", "f", "g")}
        return {names[info.account]: info.record.power for info in self.app.validators()}


# Genesis.


@cache
def founder(name: str, power: int = 10) -> GenesisValidator:
    consensus = signer(f"{name}'s").public_key
    return GenesisValidator(key(name), consensus, bls(name).public_key, bls(name).prove_possession(), power)


def founded(*founders: GenesisValidator) -> Genesis:
    return replace(genesis(TERMS), validators=founders).validated()


def test_a_chain_begins_with_the_validators_of_its_genesis() -> None:
    document = founded(founder("a"), founder("b", 7))
    assert Genesis.loads(document.dumps()) == Genesis.decode(document.encode()) == document
    app = Application(document)
    money.audit(app.items())
    assert {info.account: info.record.power for info in app.validators()} == {key("a"): 10, key("b"): 7}
    address = keys.address(signer("b's").public_key)
    assert app.proposer_of(address) == key("b")
    assert app.proposer_of(bytes(20)) is None
    assert app.validator(key("operator")) is None
    for height, name in enumerate("abba", 1):
        head = Beacon(CHAIN, height, bls(name).sign(app.beacon_transaction_message(height))).encode()
        with pytest.raises(InvalidBlock, match="BLS"):
            app.finalize_block(BlockInput(height, START_S, key("operator"), (head,)))
        with pytest.raises(InvalidBlock):
            app.finalize_block(BlockInput(height, START_S, key("b" if name == "a" else "a"), (head,)))
        result = app.finalize_block(BlockInput(height, START_S, key(name), (head,)))
        assert result.validator_updates == ()
        app.commit()


def test_without_any_named_the_operator_validates() -> None:
    (only,) = Application(genesis()).validators()
    assert (only.account, only.record.consensus_key) == (key("operator"), key("operator"))
    assert (only.record.granted, only.record.power) == (1, 1)


@pytest.mark.parametrize(
    "wrong",
    [
        replace(founder("a"), consensus_key=signer("x").public_key, bls_key=bls("x").public_key),
        replace(founder("b"), consensus_key=founder("a").consensus_key),
        replace(founder("b"), bls_key=founder("a").bls_key, bls_possession=founder("a").bls_possession),
        replace(founder("b"), bls_possession=founder("a").bls_possession),
        replace(founder("b"), consensus_key=bytes(32)),
        replace(founder("b"), power=0),
        replace(founder("b"), power=limits.MAX_POWER + 1),
    ],
)
def test_a_genesis_with_wrong_validators_is_refused(wrong: GenesisValidator) -> None:
    with pytest.raises(InvalidGenesis):
        founded(founder("a"), wrong)


def test_a_hundred_of_the_greatest_power_are_what_cometbft_can_count() -> None:
    many = [founder(f"v{number}", limits.MAX_POWER) for number in range(limits.MAX_VALIDATORS + 1)]
    with pytest.raises(InvalidGenesis, match="at most 100"):
        founded(*many)
    app = Application(founded(*many[:-1]))
    assert 2 * sum(info.record.power for info in app.validators()) < 1 << 60


# Keys.


def test_a_bls_key_counts_two_periods_after_its_registration_and_gives_no_power() -> None:
    world = Electorate()
    world.do("a", bodies("a", "a's", "a"))
    started = world.app.time
    assert world.app.bls_key(key("a")) is None
    world.pass_until(started + TWO_PERIODS_S - 1)
    assert world.app.bls_key(key("a")) is None
    world.pass_until(started + TWO_PERIODS_S)
    assert world.app.bls_key(key("a")) == bls("a").public_key
    assert world.powers() == {"operator": 1}
    assert world.record("a").deposit == TERMS.deposit


def test_who_is_granted_power_before_its_key_counts_waits_for_it() -> None:
    world = Electorate()
    world.do("a", bodies("a", "a's", "a"))
    world.grant({"a": 9})
    assert world.powers() == {"operator": 1}
    world.pass_time(TWO_PERIODS_S)
    world.move()
    assert world.powers() == {"operator": 1, "a": 9}


def test_the_operator_of_an_embedded_ledger_rotates_its_bls_key() -> None:
    world = Electorate()
    new = bls("new")
    world.beacon_signers[new.public_key] = new
    world.do("operator", register_validator(CHAIN, key("operator"), signer("operator"), new))
    old = world.app.bls_key(key("operator"))
    world.pass_time(TWO_PERIODS_S - 1)
    assert world.app.bls_key(key("operator")) == old
    world.pass_time(1)
    assert world.app.bls_key(key("operator")) == new.public_key
    world.block()  # signed with the new key
    height = world.app.height + 1
    stale = beacon_signer().sign(world.app.beacon_transaction_message(height))
    with pytest.raises(InvalidBlock):
        world.app.finalize_block(
            BlockInput(height, world.now, key("operator"), (Beacon(CHAIN, height, stale).encode(),))
        )
    assert world.record("operator").last_bls_key == old
    world.check_restores()


def test_another_registration_starts_the_wait_anew_and_the_present_key_calls_it_off() -> None:
    world = Electorate("a")
    world.do("a", bodies("a", "a's", "second"))
    world.pass_time(TWO_PERIODS_S - 1)
    world.do("a", bodies("a", "a's", "third"))
    world.pass_time(TWO_PERIODS_S - 1)
    assert world.app.bls_key(key("a")) == bls("a").public_key
    world.do("a", bodies("a", "a's", "a"))
    world.refuses("a", bodies("a", "a's", "a"), Code.NOTHING_TO_DO)
    world.pass_time(3 * TWO_PERIODS_S)
    assert world.app.bls_key(key("a")) == bls("a").public_key
    world.do("b", bodies("b", "b's", "second"))  # whose change was called off is anybody's again


def test_an_old_consensus_key_names_its_account_until_evidence_is_too_old() -> None:
    world = Electorate("a")
    world.grant({"a": 3})
    world.move()
    old, new = (keys.address(signer(name).public_key) for name in ("a's", "a's second"))
    result = world.block(world.tx("a", bodies("a", "a's second", "a")))
    assert {(each.consensus_key, each.power) for each in result.validator_updates} == {
        (signer("a's").public_key, 0),
        (signer("a's second").public_key, 3),
    }
    left = world.app.time
    assert world.app.proposer_of(old) == world.app.proposer_of(new) == key("a")
    world.refuses("a", bodies("a", "a's", "a"), Code.KEY_TAKEN)
    world.refuses("b", bodies("b", "a's", "b"), Code.KEY_TAKEN)
    world.pass_until(left + TERMS.unbonding_s - 1)
    assert world.app.proposer_of(old) == key("a")
    world.pass_until(left + TERMS.unbonding_s)
    assert (world.app.proposer_of(old), world.app.proposer_of(new)) == (None, key("a"))
    world.do("b", bodies("b", "a's", "b"))


def test_a_key_that_an_engine_may_still_name_is_not_forgotten_however_time_jumps() -> None:
    world = World(replace(TERMS, unbonding_s=1))
    world.do("operator", register_validator(CHAIN, key("operator"), signer("another"), beacon_signer()))
    left = world.app.height
    while world.app.proposer_of(keys.address(key("operator"))) is not None:
        world.block(step=TERMS.max_step_s)
    assert world.app.height == left + limits.KEY_LEAVES_BLOCKS


def test_rotations_are_bounded_by_account() -> None:
    world = Electorate("a")
    world.grant({"a": 3})
    world.move()
    for number in range(limits.MAX_CONSENSUS_KEYS - 1):
        world.do("a", bodies("a", f"rotated {number}", "a"))
    assert world.record("a").keys == limits.MAX_CONSENSUS_KEYS
    world.refuses("a", bodies("a", "one more", "a"), Code.TOO_MANY_KEYS)
    world.do("a", bodies("a", "rotated 2", "another"))  # its BLS key may change all the same
    world.pass_time(TERMS.unbonding_s)
    assert world.record("a").keys == 1
    world.do("a", bodies("a", "one more", "another"))


def test_registrations_are_bounded_by_block_whether_they_are_right_or_not() -> None:
    world = Electorate()
    wrong = replace(bodies("a", "a's", "a"), bls_possession=bls("b").sign(b"else"))
    nonce = world.app.account(key("a")).nonce
    most = limits.MAX_REGISTRATIONS_PER_BLOCK
    txs = [world.tx("a", wrong, nonce=nonce) for _ in range(most)]
    result = world.block(*txs, world.tx("b", bodies("b", "b's", "b")))
    codes = [each.code for each in result.tx_results[1:]]
    assert codes == [Code.INVALID_POSSESSION] * most + [Code.BLOCK_FULL]


# Attacks.


def test_nobody_binds_a_key_that_is_anothers() -> None:
    """Neither by what the holder showed on this chain or another, nor by a signature over something else."""
    world = Electorate()
    victim = bodies("a", "a's", "a")
    world.refuses("b", victim, Code.INVALID_POSSESSION)  # seen before it came into a block, sent at once
    mine = bodies("b", "b's", "b")
    for stolen in (
        replace(mine, bls_key=victim.bls_key, bls_possession=victim.bls_possession),
        replace(mine, bls_key=victim.bls_key, bls_possession=bls("a").prove_possession()),
        replace(mine, consensus_key=victim.consensus_key, consensus_possession=victim.consensus_possession),
        bodies("b", "b's", "b", chain="other-chain"),
    ):
        world.refuses("b", stolen, Code.INVALID_POSSESSION)
        assert world.restored().check_tx(world.tx("b", stolen)).code is Code.INVALID_POSSESSION
    world.do("a", victim)
    for clash in (bodies("b", "a's", "b"), bodies("b", "b's", "a")):
        world.refuses("b", clash, Code.KEY_TAKEN)
    world.refuses("b", replace(mine, consensus_key=bytes(32)), Code.INVALID_TERMS)


def test_stake_alone_brings_nobody_a_third_and_stays_while_it_counts() -> None:
    world = Electorate("a", "b", "c", "d")
    world.grant({"a": 20, "b": 20, "c": 20, "d": 20, "operator": 0})
    world.move()
    assert world.powers() == {"a": 30, "b": 30, "c": 30, "d": 30}  # 100 HOLD each, capped at 60 // 2
    world.do("operator", Register("http://o", 0, key("operator"), 2 * HOLD))
    world.fund("a", amount=100_000 * HOLD)
    world.do("a", Register("http://a", 0, key("a"), 90_000 * HOLD))
    world.move()
    assert 3 * world.powers()["a"] <= sum(world.powers().values())
    world.refuses("a", Withdraw(1), Code.STAKE_LOCKED)
    world.do("operator", Withdraw(1))


def test_a_validator_that_leaves_answers_with_its_stake_for_a_while() -> None:
    world = Electorate("a", "b")
    world.grant({"a": 6, "b": 6})
    world.move()
    world.grant({"a": 0})
    world.move()
    left_at = world.record("a").left_at
    assert world.powers() == {"operator": 1, "b": 6}
    world.refuses("a", Withdraw(1), Code.STAKE_LOCKED)
    world.pass_until(left_at + TERMS.unbonding_s - 1)
    world.refuses("a", Withdraw(1), Code.STAKE_LOCKED)
    world.pass_until(left_at + TERMS.unbonding_s)
    world.do("a", Withdraw(100 * HOLD))


def test_at_most_a_third_moves_in_a_block() -> None:
    """Each block is checked by `World.check_validators`; here that all comes to where it should be."""
    world = Electorate("a", "b")
    world.grant({"a": 90, "b": 90})
    steps = 0
    while world.powers() != {"operator": 1, "a": 90, "b": 90}:
        before = sum(world.powers().values())
        world.block()
        assert sum(world.powers().values()) - before <= max(1, before // 3)
        steps += 1
    assert steps > 10
    world.grant({"operator": 0, "a": 0})
    world.move()
    assert world.powers() == {"b": 90}


def test_nobody_removes_everybody() -> None:
    world = Electorate("a")
    everybody = Propose({}, 0, "", {key("operator"): 0})
    world.refuses("b", everybody, Code.INVALID_TERMS)
    world.refuses("b", Propose({}, 0, "", {key("stranger"): 5}), Code.INVALID_TERMS)
    world.grant({"a": 5})
    world.move()
    for name, gone in (("a", "a"), ("b", "operator")):
        proposal = world.do(name, Propose({}, 0, "", {key(gone): 0}))
        world.block(*(world.tx(name, Vote(proposal, True)) for name in "abcd"))
    world.pass_time(TERMS.vote_s + TERMS.timelock_s)
    closed = [event["status"] for event in all_of(world.events, "proposal_closed")[-2:]]
    assert closed == ["active", "void"]
    world.move()
    assert len(world.powers()) == 1


def test_who_takes_over_from_the_last_one_does_so_when_its_key_counts() -> None:
    world = Electorate()
    world.do("a", bodies("a", "a's", "a"))
    world.grant({"operator": 0, "a": 4})
    assert world.powers() == {"operator": 1}
    world.pass_time(TWO_PERIODS_S)
    world.move()
    assert world.powers() == {"a": 4}


# Misbehaviour.


def test_misbehaviour_costs_once_and_governance_alone_readmits() -> None:
    world = Electorate("a", "b")
    world.grant({"a": 6, "b": 6, "operator": 0})
    world.move()
    before = world.app.totals()
    world.accused = (key("a"), key("a"))
    world.block()
    world.accused = (key("a"),)
    world.block()
    after = world.app.totals()
    share = 100 * HOLD * TERMS.misbehaviour_percent // 100
    assert after.burned - before.burned == before.collateral - after.collateral == share
    assert len(all_of(world.events, "validator_jailed")) == 1
    assert [(e.why, e.amount) for e in world.entries if e.why == "misbehaviour"] == [("misbehaviour", -share)]
    world.move()
    assert world.powers() == {"b": 6}
    world.do("a", bodies("a", "a's second", "a"))  # another key is no way back
    world.move()
    assert world.powers() == {"b": 6}
    world.grant({"a": 6})
    world.move()
    assert world.powers() == {"a": 6, "b": 6}


def test_evidence_counts_against_who_left_lately_and_nobody_else() -> None:
    world = Electorate("a", "b")
    world.grant({"a": 6})
    world.move()
    world.grant({"a": 0})
    world.move()
    world.accused = (key("b"), key("c"), bytes(32), b"")  # a candidate, a provider, nobody
    assert not all_of(list(world.block().events), "validator_jailed")
    world.pass_until(world.record("a").left_at + TERMS.unbonding_s - 1)
    again = world.restored()
    world.accused = (key("a"),)
    assert last(list(world.block().events), "validator_jailed")["forfeited"] == 5 * HOLD
    height = again.height + 1
    head = Beacon(CHAIN, height, beacon_signer().sign(again.beacon_transaction_message(height))).encode()
    late = BlockInput(height, world.now + 1, key("operator"), (head,), (key("a"),))
    assert not all_of(list(again.finalize_block(late).events), "validator_jailed")


def test_the_last_one_is_jailed_and_goes_on_until_another_can() -> None:
    world = Electorate("a")
    world.accused = (key("operator"),)
    world.block()
    assert world.record("operator").jailed
    assert world.powers() == {"operator": 1}
    world.grant({"a": 2})
    world.move()
    assert world.powers() == {"a": 2}


# Any powers at all.


@pytest.mark.parametrize("number", range(4))
def test_whatever_is_granted_power_comes_to_where_it_should_be(number: int) -> None:
    """Many validators with any grants, powers, stakes and pending keys; each block obeys CometBFT's rules."""
    rng = random.Random(number)
    world = World(TERMS)
    items = dict(world.app.items())
    small = rng.choice([3, 1_000, limits.MAX_POWER])
    for index in range(rng.choice([2, 9, 60])):
        account, consensus = seed(f"account {index}"), signer(f"any {index}").public_key
        following = signer(f"next {index}").public_key if rng.random() < 0.3 else b""
        record = ValidatorRecord(
            consensus,
            next_consensus_key=following,
            keys=2 if following else 1,
            bls_key=bytes(48) if rng.random() < 0.8 else b"",
            granted=rng.choice([0, 1, rng.randint(1, small)]),
            power=rng.choice([0, rng.randint(1, small)]),
        )
        items[keys.validator(account)] = record.encode()
        for each in filter(None, (consensus, following)):
            items[keys.consensus(keys.address(each))] = ConsensusKeyRecord(account, each).encode()
        if record.granted or record.power:
            items[keys.seated(account)] = b""
            items[keys.moving(account)] = b""
    world.stored = items
    world.app = Application(world.app.genesis, memory_store(items.items()))
    for _ in range(400):
        if not world.block().validator_updates:
            break
    records = [info.record for info in world.app.validators()]
    for record in records:
        assert record.power >= record.granted
        assert not record.next_consensus_key
        assert record.power == record.granted or 3 * record.power <= sum(each.power for each in records)
    assert not list(filter(lambda name: name.startswith(keys.MOVING), world.stored))


# Another chain.


def test_a_chain_that_goes_on_has_validators_of_its_own_and_gives_deposits_back() -> None:
    world = Electorate("a", "b")
    world.grant({"a": 5})
    world.do("a", bodies("a", "a's next", "a's next"))
    rows = memory_store(world.app.items()).state
    beacons = bls("of the new chain")
    document = successor(
        "new-chain",
        CID.of(b"the last block", codec=0x71),
        rows,
        world.app.app_hash,
        key("operator"),
        beacons.public_key,
        beacons.prove_possession(),
    )
    items = dict(carried_items(document, rows))
    money.audit(items.items())
    app = Application(document, memory_store(items.items()))
    assert [info.account for info in app.validators()] == [key("operator")]
    assert app.validator(key("a")) is None
    assert app.account(key("a")).balance == world.balance("a") + TERMS.deposit
    assert app.proposer_of(keys.address(signer("a's").public_key)) is None
