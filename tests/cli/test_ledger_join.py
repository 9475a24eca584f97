"""`holdfast ledger init`, `join`, `leave`: a home belongs to one chain of one operator."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from cli.compose import init_ledger, ledger_service
from cli.home import Home
from ledger.genesis import DEMO_PARAMS
from merkledag.peer import peer_text
from tests.cli.background import serving
from tests.cli.conftest import Holdfast


class Server:
    """A ledger that runs: its URL, and what one has to know of it."""

    def __init__(self, home: Home, url: str) -> None:
        from cli.ledger_files import read_genesis

        self.home, self.url = home, url
        genesis = read_genesis(home)
        self.chain, self.operator = genesis.chain_id, peer_text(genesis.operator)


def started(folder: Path, chain: str, port: int = 0) -> Any:
    """A ledger of chain `chain` in a home of its own."""
    home = Home(folder, {})
    init_ledger(home, DEMO_PARAMS, chain)
    return ledger_service(home, f"127.0.0.1:{port}", asyncio.Event())


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with serving(started(tmp_path / "operator", "town")) as url:
        yield Server(Home(tmp_path / "operator", {}), url)


def test_a_ledger_without_its_keys_makes_no_others(holdfast: Holdfast) -> None:
    holdfast("ledger", "init", "--chain-id", "town")
    beacon = holdfast.home / "keys" / "beacon.key"
    beacon.unlink()
    said = holdfast.fails(3, "ledger", "start", "--listen", "127.0.0.1:0")
    assert "lacks the operator's keys (beacon): put them there" in said
    assert not beacon.exists()  # the right one can still be restored


def test_a_home_joins_and_finds_its_ledger_from_then_on(holdfast: Holdfast, server: Server) -> None:
    pinned = ("--chain", server.chain, "--operator", server.operator)
    joined = holdfast("ledger", "join", f"{server.url}/", *pinned, "--json").json
    assert joined["chain_id"] == "town"
    assert joined["params"]["period_s"] == DEMO_PARAMS.period_s
    assert holdfast("config", "get", "ledger.url").text == server.url
    assert holdfast("config", "get", "ledger.operator").text == server.operator
    status = holdfast("ledger", "status", "--json").json
    assert (status["chain_id"], status["operator"]) == ("town", server.operator)
    assert server.operator in holdfast("ledger", "status").text
    assert not (holdfast.home / "keys" / "self.key").exists()  # nobody who only reads needs one
    holdfast("ledger", "join", server.url)  # again: nothing to ask
    assert holdfast("ledger", "leave").text == "left town"
    holdfast.fails(5, "ledger", "status")
    holdfast.fails(1, "ledger", "leave")


def test_a_home_may_name_several_servers_of_its_ledger(holdfast: Holdfast, server: Server) -> None:
    gone = "http://127.0.0.1:9"
    pinned = ("--chain", server.chain, "--operator", server.operator)
    holdfast("ledger", "join", f"{gone}, {server.url}/,{gone}", *pinned)
    assert holdfast("config", "get", "ledger.url").text == f"{gone},{server.url}"
    assert holdfast("ledger", "status", "--json").json["chain_id"] == "town"
    assert holdfast("ledger", "status", "--ledger", f"{gone},{server.url}", "--json").json["height"] >= 0
    said = holdfast.fails(5, "ledger", "status", "--ledger", f"{gone},http://127.0.0.1:10")
    assert "none of the ledger's 2 servers can be used" in said
    assert gone in said
    assert "http://127.0.0.1:10" in said
    assert "several separated by commas" in holdfast.fails(2, "ledger", "status", "--ledger", f"{gone},town")


def test_joining_asks_unless_all_is_pinned(holdfast: Holdfast, server: Server) -> None:
    assert "add --yes" in holdfast.fails(2, "ledger", "join", server.url)
    assert "add --yes" in holdfast.fails(2, "ledger", "join", server.url, "--chain", "town")
    assert not holdfast.home.exists()
    shown = holdfast("ledger", "join", server.url, "--yes").text
    assert server.operator in shown
    assert "period_s" in shown


def test_another_chain_or_operator_than_was_told_is_not_joined(holdfast: Holdfast, server: Server) -> None:
    someone = holdfast("wallet", "new", "someone").text
    assert "runs chain town" in holdfast.fails(4, "ledger", "join", server.url, "--chain", "city", "--yes")
    assert "belongs to" in holdfast.fails(4, "ledger", "join", server.url, "--operator", someone, "--yes")
    holdfast.fails(2, "ledger", "join", server.url, "--operator", "me")
    holdfast.fails(2, "ledger", "join", "here:4181")
    holdfast.fails(5, "ledger", "join", "http://127.0.0.1:9")
    holdfast.fails(5, "ledger", "status")


def test_every_command_refuses_an_operator_that_changed(
    holdfast: Holdfast, server: Server, tmp_path: Path
) -> None:
    holdfast("ledger", "join", server.url, "--yes")
    with serving(started(tmp_path / "impostor", "town")) as other:
        holdfast("config", "set", "ledger.url", other)
        own = holdfast("wallet", "new", "mine").text
        for command in (
            ["ledger", "status"],
            ["ledger", "params"],
            ["ledger", "block"],
            ["wallet", "balance"],
            ["wallet", "send", own, "1", "--yes"],
            ["deal", "ls"],
        ):
            assert "not to the operator that was pinned" in holdfast.fails(4, *command)
        assert "--replace" in holdfast.fails(4, "ledger", "join", other, "--yes")
        holdfast("ledger", "join", other, "--yes", "--replace")
        holdfast("ledger", "status")


@contextmanager
def gone_back(server_home: Path, folder: Path, kept: Path | None) -> Iterator[str]:
    """The URL of the same chain, begun anew from its genesis or from a copy of its folder."""
    shutil.copytree(
        server_home, folder, ignore=shutil.ignore_patterns("ledger.json", "db", "wal", "ledger.lock")
    )
    if kept is not None:
        shutil.copytree(kept, folder / "ledger", dirs_exist_ok=True)
    with serving(ledger_service(Home(folder, {}), "127.0.0.1:0", asyncio.Event())) as url:
        yield url


def test_a_chain_that_went_back_or_has_another_history_is_refused(holdfast: Holdfast, tmp_path: Path) -> None:
    """An operator that restores an old copy, or signs two histories, is found out by whoever saw more."""
    folder = tmp_path / "operator"

    def send(url: str, amount: str) -> None:
        shutil.copy(folder / "keys" / "operator.key", holdfast.home / "keys")
        holdfast("wallet", "send", mine, amount, "--key", "operator", "--yes", "--ledger", url)

    mine = holdfast("wallet", "new", "mine").text
    with serving(started(folder, "town")) as url:
        holdfast("ledger", "join", url, "--yes")
        send(url, "1")
        assert holdfast("ledger", "status", "--json").json["height"] == 1
    shutil.copytree(folder / "ledger", tmp_path / "old")
    with serving(ledger_service(Home(folder, {}), "127.0.0.1:0", asyncio.Event())) as url:
        holdfast("config", "set", "ledger.url", url)
        send(url, "1")
        holdfast("ledger", "status")
    with gone_back(folder, tmp_path / "none", None) as url:
        assert "has no block, but had block 2" in holdfast.fails(4, "ledger", "status", "--ledger", url)
    with gone_back(folder, tmp_path / "older", tmp_path / "old") as url:
        holdfast("config", "set", "ledger.url", url)
        assert "ends at block 1, but had block 2" in holdfast.fails(4, "ledger", "status")
        assert "ends at block 1" in holdfast.fails(4, "wallet", "balance", "--key", "mine")
        assert "ends at block 1" in holdfast.fails(4, "ledger", "join", url, "--yes")
        (holdfast.home / "ledger-seen.json").rename(tmp_path / "seen")
        for _ in range(2):
            send(url, "2")
        (tmp_path / "seen").rename(holdfast.home / "ledger-seen.json")
        assert "another block 2 than before" in holdfast.fails(4, "deal", "ls")
        holdfast("ledger", "join", url, "--yes", "--replace")
        assert holdfast("ledger", "status", "--json").json["height"] == 3
        (holdfast.home / "ledger-seen.json").write_text("[" * 5_000)
        holdfast("ledger", "status")  # what cannot be read is made anew
        holdfast("ledger", "leave")
        assert not (holdfast.home / "ledger-seen.json").exists()


def test_a_home_belongs_to_one_ledger(holdfast: Holdfast, server: Server) -> None:
    holdfast("ledger", "join", server.url, "--yes")
    assert "another HOLDFAST_HOME" in holdfast.fails(1, "ledger", "init")
    holdfast("ledger", "leave")
    holdfast("ledger", "init", "--chain-id", "own")
    assert "ledger of its own" in holdfast.fails(1, "ledger", "join", server.url, "--yes")
    assert "`holdfast ledger start`" in holdfast.fails(5, "ledger", "status")


def test_init_takes_every_parameter(holdfast: Holdfast) -> None:
    words = ("--param", "accept_timeout_s=10m", "--param", "base_fee=0.000002", "--param", "challenges=20")
    made = holdfast(
        "ledger", "init", "--period", "1h", "--window", "10m", "--issued", "500", *words, "--json"
    )
    assert made.json["issued"] == 500 * 10**9
    params = made.json["params"]
    assert (params["period_s"], params["window_s"], params["accept_timeout_s"]) == (3_600, 600, 600)
    assert (params["base_fee"], params["challenges"]) == (2_000, 20)


@pytest.mark.parametrize(
    "words",
    [
        ("--param", "period=1"),
        ("--param", "challenges"),
        ("--param", "challenges=many"),
        ("--param", "challenges=65"),
        ("--param", "challenges=9", "--param", "challenges=9"),
        ("--period", "1h", "--param", "period_s=7200"),
        ("--period", "1h", "--window", "1h"),
        ("--chain-id", "Town Hall"),
        ("--issued", "0"),
        ("--engine", "other"),
    ],
)
def test_init_refuses(holdfast: Holdfast, words: tuple[str, ...]) -> None:
    holdfast.fails(2, "ledger", "init", *words)
    assert not (holdfast.home / "ledger" / "genesis.json").exists()


@pytest.mark.parametrize("document", ["", "[]", "{}", '{"chain_id": "town", "time_s": 1}'])
def test_a_genesis_of_another_version_is_refused_with_the_way_on(holdfast: Holdfast, document: str) -> None:
    holdfast("ledger", "init", "--chain-id", "town")
    (holdfast.home / "ledger" / "genesis.json").write_text(document)
    assert "make a new chain in another home" in holdfast.fails(4, "ledger", "start")


def test_a_new_ledger_begins_where_the_old_ones_folder_was_moved_away(holdfast: Holdfast) -> None:
    holdfast("ledger", "init", "--chain-id", "town")
    (holdfast.home / "ledger").rename(holdfast.home / "ledger.old")
    holdfast("ledger", "init", "--chain-id", "village")
    assert b'"village"' in (holdfast.home / "ledger" / "genesis.json").read_bytes()
