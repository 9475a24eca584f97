"""`holdfast deal` and `holdfast node` on a network of one machine with short periods."""

from __future__ import annotations

import csv
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cli.compose import init_ledger
from cli.home import Home
from cli.money import HOLD
from cli.servers import ask_ledger, ledger_url
from cli.shard_pay import datasets_of
from ledger.engine.client import LedgerClient
from merkledag.cid import CID
from tests.cli.conftest import Holdfast
from tests.cli.ledgers import PARAMS
from tests.cli.processes import Process, environment

pytestmark = pytest.mark.timeout(300)
PATIENCE_S = 90
VOTE_S = 10  # for what is asked and said during a vote, on a busy machine too


class Net:
    """Commands on the home of an `up` with short periods; `cid` is content in it."""

    def __init__(self, commands: Holdfast) -> None:
        self.commands = commands
        self.cid = commands("add", "-Q", "-", stdin=bytes(range(256)) * 400).text

    def run(self, *arguments: object, code: int = 0) -> str:
        if code:
            return self.commands.fails(code, *arguments)
        return self.commands(*arguments).text

    def json(self, *arguments: object) -> Any:
        return self.commands(*arguments, "--json").json

    def rows(self, *arguments: object) -> list[Any]:
        return self.commands(*arguments, "--json").json_lines

    def deal(self, *options: object) -> str:
        return str(self.json("store", self.cid, "--for", "5h", "--yes", *options)["deal"])

    def until(self, what: Callable[[], Any]) -> Any:
        """Asks until there is an answer: ledger time passes with the clock."""
        end = time.monotonic() + PATIENCE_S
        while not (found := what()):
            assert time.monotonic() < end, "it did not happen"
            time.sleep(0.3)
        return found


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The home of a running `up`."""
    home = tmp_path_factory.mktemp("net") / "home"
    env = environment(home)
    init_ledger(Home(home, env), replace(PARAMS, vote_s=VOTE_S), "short")
    up = Process(env, "up", "--json")
    if next(up.lines(), None) is None:
        raise AssertionError(up.end()[1])
    yield home
    up.end(signal.SIGTERM)


@pytest.fixture
def net(machine: Path, monkeypatch: pytest.MonkeyPatch, capsysbinary: pytest.CaptureFixture[bytes]) -> Net:
    return Net(Holdfast(machine, monkeypatch, capsysbinary))


def test_store_shows_what_it_costs_and_spends_nothing_in_a_dry_run(net: Net) -> None:
    before, deals = net.json("wallet", "balance")["balance"], net.rows("deal", "ls", "--all")
    cid = net.commands("add", "-Q", "-", stdin=b"stored by nobody").text
    plan = net.json("store", cid, "--for", "1h", "--dry-run")
    assert plan["dry_run"]
    assert plan["total"] == plan["escrow"] + plan["deposit"] + plan["fee"]
    assert plan["existing"] is None
    assert net.json("wallet", "balance")["balance"] == before
    assert len(net.rows("deal", "ls", "--all")) == len(deals)


def test_a_deal_is_shown_with_its_proofs_and_costs(net: Net) -> None:
    deal = net.deal()
    shown = net.until(
        lambda: next(
            (
                found
                for found in [net.json("deal", "show", deal)]
                if any(each["proven_total"] for each in found["datasets"].values())
            ),
            None,
        )
    )
    assert shown["ends_at"] > shown["deal"]["created_at"]
    assert set(shown["costs"]) == {"paid", "due", "escrow", "refunded", "deposit"}
    assert shown["spots"] == []
    said = net.run("deal", "show", deal)
    assert {shard["dataset"] for shard in shown["shards"]} == set(shown["datasets"])
    assert "all that the client keeps there: " in said
    assert "ends " in said
    checked = net.json("deal", "show", deal, "--verify")["verified"]
    assert (checked["sound"], checked["problems"]) == (True, [])
    assert "pieces are those of the content" in net.run("deal", "show", deal, "--verify")

    rows = net.rows("deal", "ls")
    assert [row["id"] for row in rows] == [deal]
    assert net.run("deal", "ls", "--content", net.cid).startswith(deal)
    assert net.run("deal", "ls", "--after", deal) == ""
    assert net.run("deal", "ls", "--provider", rows[0]["deal"]["holders"][0], "--limit", "1").startswith(deal)
    net.run("deal", "ls", "--after", "nonsense", code=2)
    net.run("deal", "show", net.cid, code=3)


def test_a_node_changes_its_ask_and_remembers_it(net: Net) -> None:
    before = net.json("node", "ask")
    dry = net.json("node", "ask", "--price", "0.5", "--dry-run")
    assert dry["body"]["price_per_gib_period"] == HOLD // 2
    assert net.json("node", "ask")["price_per_gib_period"] == before["price_per_gib_period"]
    net.run("node", "ask", "--price", "0.000001", "--max-piece", "10G", "--yes")
    after = net.json("node", "ask")
    assert (after["price_per_gib_period"], after["max_piece_bytes"]) == (1000, 10 << 30)
    assert (after["open"], after["min_piece_bytes"]) == (True, before["min_piece_bytes"])
    assert net.json("config", "get", "node.price")["value"] == "0.000001"
    assert "takes new pieces" in net.run("node", "ask")
    net.run("node", "ask", "--min-piece", "1T", "--yes", code=2)
    net.run("node", "ask", "--price", "much", "--yes", code=2)
    net.run("wallet", "new", "stranger")
    assert "no provider" in net.run("node", "ask", "--key", "stranger", "--closed", "--yes", code=7)
    net.run("node", "ask", "--price", "0.000065104", "--max-piece", "1T", "--yes")


def test_stake_that_is_not_locked_can_be_withdrawn(net: Net) -> None:
    before = net.json("node", "ask")
    balance = net.json("wallet", "balance")["balance"]
    plan = net.json("node", "withdraw", "1.5", "--dry-run")
    assert plan["spends"] == -3 * HOLD // 2
    net.run("node", "withdraw", "1.5", "--yes")
    after = net.json("node", "ask")
    assert before["stake"] - after["stake"] == 3 * HOLD // 2
    assert net.json("wallet", "balance")["balance"] > balance
    assert net.json("config", "get", "node.stake")["value"] == "998.5"
    assert "locked" in net.run("node", "withdraw", "999999", "--yes", code=7)
    net.run("node", "withdraw", "some", "--yes", code=2)


def test_a_fault_is_declared_and_a_shard_given_up(net: Net) -> None:
    deal = net.deal()
    (row,) = net.until(
        lambda: [each for each in net.rows("node", "declare-fault") if each["dataset"]["pieces"]]
    )
    assert row["opens_at"] > 0
    assert row["id"] in net.run("node", "declare-fault")
    plan = net.json("node", "declare-fault", row["id"], "--dry-run")
    assert plan["body"]["period"] >= row["dataset"]["period"]
    net.run("node", "declare-fault", "00", "--yes", code=2)
    net.run("node", "declare-fault", "00" * 32, "--yes", code=3)
    assert "leaves after" in net.commands("node", "give-up", deal, "0", "--dry-run").stderr
    net.run("node", "give-up", deal, "7", "--yes", code=3)
    assert "nobody else" in net.commands("node", "stay", deal, "0", "--dry-run").stderr
    net.run("node", "stay", deal, "7", "--yes", code=3)


def test_a_shard_is_challenged_out_of_turn(net: Net) -> None:
    deal = net.deal()
    net.until(lambda: net.json("deal", "show", deal)["shards"][0]["status"] == "active")
    plan = net.json("deal", "spot", deal, "0", "--dry-run")
    assert plan["spends"] == PARAMS.proof_fee
    done = net.commands("deal", "spot", deal, "0", "--wait", "--yes", "--json", code=None)
    receipt, outcome = done.json_lines
    assert (receipt["code"], outcome["deal"], outcome["shard"]) == (0, deal, 0)
    answered = outcome["event"] == "spot_answered"
    assert answered or outcome["event"] == "spot_missed"
    assert done.code == (0 if answered else 1)
    paid = [
        row for row in net.rows("wallet", "history") if row["why"].startswith("spot_") and row["amount"] > 0
    ]
    assert [(row["why"], row["amount"], row["deal"]) for row in paid] == [
        ("spot_answer" if answered else "spot_fee_back", PARAMS.proof_fee, deal)
    ]
    assert net.json("node", "earnings")["spots"] == (PARAMS.proof_fee if answered else 0)
    net.run("deal", "spot", deal, "1", "--yes", code=3)


def test_a_deal_can_be_proven_by_kzg_and_is_told_apart(net: Net) -> None:
    cid = net.commands("add", "-Q", "-", stdin=b"a content of its own").text
    plan = net.json("store", cid, "--for", "5h", "--proof", "kzg", "--dry-run")
    blobs = plan["preparation"]["blobs"]
    assert plan["proof"] == "kzg"
    assert plan["preparation"]["seconds"] > 0
    made = net.json("store", cid, "--for", "5h", "--proof", "kzg", "--yes")
    assert {name: made[name] for name in ("proof", "price", "escrow")} == {
        name: plan[name] for name in ("proof", "price", "escrow")
    }
    again = net.json("store", cid, "--for", "5h", "--proof", "kzg", "--dry-run")
    assert again["existing"] == made["deal"]
    assert (again["preparation"]["blobs"], again["preparation"]["made_before"]) == (0, blobs)
    assert net.json("store", cid, "--for", "5h", "--dry-run")["existing"] is None
    net.run("store", cid, "--proof", "pdp", code=2)

    shown = "deal", "show", made["deal"]
    net.until(lambda: any(each["proven_total"] for each in net.json(*shown)["datasets"].values()))
    assert "proof      kzg" in net.run(*shown)
    assert net.json(*shown, "--verify")["verified"]["sound"]
    assert "(1 by KZG)" in net.run("node", "status")
    kept = {each["deal"]: each["proof"] for each in net.json("node", "earnings")["shards"]}
    assert kept[made["deal"]] == "kzg"
    assert ", kzg, " in net.run("node", "earnings")
    spot = net.json("deal", "spot", made["deal"], "0", "--dry-run")
    assert "the only leaf of its data" in spot["effect"][0]
    net.run("deal", "end", made["deal"], "--yes")


def test_earnings_add_up(net: Net) -> None:
    """Late, for the node collects its pay some 25 s after the first proof."""
    deal = net.deal()

    def paid(found: Any) -> int:
        return sum(row["paid"] for row in found["deals"] if row["deal"] == deal)

    found = net.until(lambda: next(filter(paid, [net.json("node", "earnings")]), None))
    earned = found["paid"] + found["rewards"] + found["bounties"] + found["spots"]
    assert found["net"] == earned - found["fees"] - found["fault_fees"] - found["forfeited"]
    assert sum(row["net"] for row in found["deals"]) == found["net"]
    assert sum(row["paid"] for row in found["deals"]) == found["paid"] >= paid(found) > 0
    assert 0 <= found["due"] <= found["to_come"] > 0
    table = list(csv.DictReader(net.run("node", "earnings", "--csv").splitlines()))
    assert any(row["deal"] == deal and int(row["net_units"]) > 0 for row in table)
    assert net.json("node", "earnings", "--since", "2200-01-01")["net"] == 0
    assert "net " in net.run("node", "earnings")
    net.run("node", "earnings", "--key", "absent", code=3)


def test_a_dataset_that_ended_since_its_deal_was_read_is_left_out(net: Net, machine: Path) -> None:
    deal = net.deal()
    net.until(lambda: net.json("deal", "show", deal)["shards"][0]["status"] == "active")

    async def asked(client: LedgerClient) -> tuple[set[bytes], bytes]:
        shard = (await client.deal(CID.parse(deal))).shards[0]
        return set(await datasets_of(client, [replace(shard, dataset=bytes(32)), shard])), shard.dataset

    with Home(machine, environment(machine)) as home:
        found, dataset = ask_ledger(home, ledger_url(home), asked)
    assert found == {dataset}


def test_a_deal_is_renewed_and_ended(net: Net) -> None:
    deal = net.deal("--code", "1/1", "--key", "self")
    before = net.json("deal", "show", deal)
    price, periods = before["deal"]["price"], before["deal"]["periods"]
    plan = net.json("deal", "renew", deal, "--for", "41s", "--dry-run")
    assert (plan["body"]["periods"], plan["spends"]) == (11, 11 * price)  # whole periods of 4 s
    assert net.json("deal", "show", deal)["deal"]["periods"] == periods
    net.run("deal", "renew", deal, "--periods", "10", "--yes")
    after = net.json("deal", "show", deal)
    assert after["deal"]["periods"] == periods + 10
    net.run("deal", "renew", deal, "--yes", code=2)
    net.run("deal", "renew", deal, "--for", "1d", "--periods", "3", "--yes", code=2)
    net.run("deal", "renew", deal, "--periods", "-3", "--yes", code=2)
    net.run("deal", "renew", net.cid, "--periods", "1", "--yes", code=3)
    net.run("wallet", "new", "other")
    assert "is paid by" in net.run("deal", "end", deal, "--key", "other", "--yes", code=7)
    assert "only a lost shard" in net.run("deal", "top-up", deal, "0", "1", "--dry-run", code=7)
    net.run("deal", "top-up", deal, "9", "1", "--yes", code=3)

    assert "cannot be taken back" in net.commands("deal", "end", deal, "--dry-run").stderr
    net.run("deal", "end", deal, "--yes")
    assert net.json("deal", "show", deal)["deal"]["ending"]
    assert "ending" in net.run("deal", "show", deal)
    assert "ending already" in net.run("deal", "end", deal, "--dry-run", code=7)
    assert "is ending" in net.run("deal", "renew", deal, "--periods", "1", "--dry-run", code=7)
    net.until(lambda: net.json("deal", "show", deal)["deal"]["status"] == "ended")
    ended = net.json("deal", "show", deal)
    assert ended["costs"]["escrow"] == 0
    assert deal not in {row["id"] for row in net.rows("deal", "ls")}
    assert deal in {row["id"] for row in net.rows("deal", "ls", "--all")}
    assert "is over" in net.run("deal", "renew", deal, "--periods", "1", "--yes", code=7)


def test_a_drain_without_other_nodes_goes_on_and_can_be_taken_up_again(net: Net) -> None:
    deal = net.deal()
    net.until(lambda: net.json("deal", "show", deal)["shards"][0]["status"] == "active")
    shards = net.json("node", "drain", "--dry-run")["shards"]
    assert [(row["deal"], row["status"], row["handing_over"]) for row in shards] == [(deal, "active", False)]
    assert net.json("node", "ask")["open"]
    events = net.rows("node", "drain", "--no-wait", "--yes")
    assert [row["event"] for row in events] == ["offered", "left"]
    assert not net.json("node", "ask")["open"]
    assert net.json("config", "get", "node.open")["value"] is False
    again = net.commands("node", "drain", "--no-wait", "--yes", "--json")
    assert [row["event"] for row in again.json_lines] == ["left"]
    assert "1 of them being handed over already" in again.stderr
    assert "handed over to" in net.run("deal", "show", deal)
    following = net.commands.process("node", "drain", "--yes", "--json", stdin=subprocess.DEVNULL)
    assert following.stderr is not None
    assert any(line.startswith(b"balance") for line in following.stderr)
    following.send_signal(signal.SIGINT)
    _, err = following.communicate(timeout=PATIENCE_S)
    assert (following.returncode, b"run this again" in err) == (130, True), err
    net.run("node", "ask", "--open", "--yes")


def test_a_provider_proposes_and_votes(net: Net) -> None:
    """At the end, for it makes everything dearer."""
    before = net.json("ledger", "params")["base_fee"]
    plan = net.json("gov", "propose", "base_fee=0.000005", "--dry-run")
    assert plan["body"]["changes"] == {"base_fee": 5000}
    assert plan["spends"] == PARAMS.proposal_deposit
    made = net.json("gov", "propose", "base_fee=0.000005", "--note", "dearer", "--yes")["tx_id"]
    assert [row["id"] for row in net.rows("gov", "ls")] == [made]
    assert "base_fee=0.000005" in net.run("gov", "ls")
    assert "from 0.000001 HOLD" in net.run("gov", "show", made)
    net.run("gov", "vote", made, "yes", "--yes")
    shown = net.json("gov", "show", made)
    # The whole stake, which is the total but for what a missed window may have burned meanwhile.
    assert (shown["yes"], shown["own_vote"]["approve"]) == (net.json("node", "earnings")["stake"], True)
    net.until(lambda: net.json("gov", "show", made)["status"] == "active")
    assert net.json("ledger", "params")["base_fee"] == 5000 != before
    assert net.rows("gov", "ls") == []
    assert [row["id"] for row in net.rows("gov", "ls", "--all")] == [made]
    net.run("gov", "vote", made, "no", "--yes", code=7)
    net.run("gov", "vote", made, "maybe", "--yes", code=2)
    net.run("gov", "vote", net.cid, "yes", "--yes", code=3)
    for wrong in (["base_fee=0"], ["base_fee"], ["fame=1"], [], ["window_s=3"], ["challenges=many"]):
        net.run("gov", "propose", *wrong, "--yes", code=2)
    net.run("gov", "propose", "--rules", "1", "--yes", code=7)
    net.run("gov", "propose", "base_fee=1", "--note", "x" * 300, "--yes", code=2)
