"""The journal says of every unit that an account gained or lost why, and what it says is as stored.

That the entries of all accounts sum to what they have is checked by `World.block`, after every block.
"""

from __future__ import annotations

from collections import Counter

import pytest

from ledger.genesis import HOLD
from ledger.journal import Entry, reason
from ledger.money import Place
from ledger.transactions import Transfer, Withdraw
from tests.ledger.test_faults import terminated
from tests.ledger.world import World, key


def reasons(entries: list[Entry], account: str) -> Counter[tuple[str, str]]:
    return Counter((entry.place, entry.why) for entry in entries if entry.account == key(account))


def test_the_life_of_a_deal_is_told_to_both_sides(world: World) -> None:
    deal, dataset = world.active("client", "node", periods=2)
    world.prove("node", dataset)
    paid = world.settle("node", deal)
    [payment] = [entry for entry in world.entries if entry.why == "payment"]
    assert (payment.account, payment.amount, payment.deal) == (key("node"), paid, deal)
    assert payment.tx_id is not None
    world.pass_time(10 * world.params.period_s)
    client, node = reasons(world.entries, "client"), reasons(world.entries, "node")
    assert client["balance", "escrow"] == 1
    assert client["balance", "refund"] == 1
    assert client["balance", "deal_deposit"] == client["balance", "deal_deposit_back"] == 1
    assert node["balance", "dataset_deposit"] == node["balance", "dataset_deposit_back"] == 1
    assert node["balance", "stake"] == node["stake", "stake"] == 1
    [refund] = [entry for entry in world.entries if entry.why == "refund"]
    assert refund.deal == deal
    assert refund.tx_id is None  # nobody sent it: the deal was over


def test_faults_and_what_is_forfeited_are_told(world: World) -> None:
    terminated(world)
    told = reasons(world.entries, "node")
    assert told["stake", "fault_fee"] == world.params.terminate_after
    assert told["stake", "forfeit"] >= 1
    assert all(entry.amount < 0 for entry in world.entries if entry.why in ("fault_fee", "forfeit"))


def test_a_transfer_names_the_other_side_and_a_refused_one_leaves_no_entry(world: World) -> None:
    world.fund("alice")
    seen = len(world.entries)
    sent = world.do("alice", Transfer(key("bob"), HOLD))
    fee, out, into = world.entries[seen:]
    assert (fee.why, fee.counterparty, fee.tx_id) == ("fee", b"", sent)
    assert (out.account, out.amount, out.counterparty) == (key("alice"), -HOLD, key("bob"))
    assert out.why == into.why == "transfer"
    assert (into.account, into.amount, into.counterparty) == (key("bob"), HOLD, key("alice"))
    seen = len(world.entries)
    assert not world.try_("alice", Transfer(key("bob"), 10_000 * HOLD)).ok
    assert not world.try_("alice", Withdraw(1)).ok
    assert world.entries[seen:] == []


def test_an_entry_survives_its_encoding(world: World) -> None:
    world.active("client", "node")
    for entry in world.entries:
        assert Entry.from_map(entry.to_map()) == entry
        assert Entry.from_json(entry.to_json()) == entry


@pytest.mark.parametrize("place", [place for place in Place if place not in (Place.BURNED, Place.BALANCE)])
def test_there_is_a_word_for_every_way(place: Place) -> None:
    there, back = reason(Place.BALANCE, place), reason(place, Place.BALANCE)
    assert there.islower()
    assert back.islower()
