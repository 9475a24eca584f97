"""`holdfast ledger import --as-chain ID --engine cometbft`: an embedded ledger goes on with validators."""

from __future__ import annotations

import asyncio
import json
import shutil
import signal
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from cli.comet_service import own_peer
from cli.home import Home
from ledger.engine.storage import LedgerStorage
from tests.cli.conftest import Holdfast, Result
from tests.cli.ledgers import a_ledger
from tests.cli.processes import Process, environment
from tests.ledger.cometbft.application import genesis, transfer
from tests.ledger.cometbft.lone import Setting
from tests.ledger.cometbft.processes import find_cometbft
from tests.ports import free_ports

AS_CITY = ("--as-chain", "city", "--engine", "cometbft", "--test-network")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the tests share."""
    return tmp_path_factory.mktemp("shared")


@pytest.fixture
def town(holdfast: Holdfast, folder: Path) -> Path:
    """An archive of a ledger on which key "me", now of this home too, has money; no ledger runs."""
    file, keys = folder / "town.car", holdfast.home / "keys"
    if file.exists():
        keys.mkdir(mode=0o700, parents=True)
        shutil.copy(folder / "me.key", keys)
        return file
    with a_ledger(folder / "town") as ledger:
        holdfast("ledger", "join", ledger.url, "--yes")
        ledger.lend_operator(holdfast.home)
        me = holdfast("wallet", "new", "me").text
        holdfast("wallet", "send", me, "25", "--key", "operator", "--yes")
        holdfast("ledger", "export", file, "--ledger", ledger.url)
    holdfast("ledger", "leave")
    (keys / "operator.key").unlink()
    shutil.copy(keys / "me.key", folder)
    return file


class At:
    """The same command line in another home."""

    def __init__(self, holdfast: Holdfast, monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
        self._holdfast, self._here, self.home = holdfast, partial(monkeypatch.setenv, "HOLDFAST_HOME"), home

    def __call__(self, *arguments: object) -> Result:
        self._here(str(self.home))
        return self._holdfast(*arguments)

    def fails(self, code: int, *arguments: object) -> str:
        self._here(str(self.home))
        return self._holdfast.fails(code, *arguments)


@pytest.fixture
def at(holdfast: Holdfast, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[str], At]:
    """Other homes by name."""
    return lambda name: At(holdfast, monkeypatch, tmp_path / name)


def app_hash(home: Path) -> bytes | None:
    storage = LedgerStorage(home / "ledger")
    storage.open()
    try:
        return storage.app_hash()
    finally:
        storage.close()


@pytest.mark.peers
def test_one_validator_goes_on_with_everybodys_money(
    holdfast: Holdfast, town: Path, at: Callable[[str], At]
) -> None:
    p2p, rpc = free_ports(2)
    holdfast("config", "set", "ledger.cometbft", find_cometbft())
    said = holdfast(
        "ledger", "import", town, *AS_CITY,
        "--p2p-listen", f"127.0.0.1:{p2p}", "--rpc-listen", f"127.0.0.1:{rpc}",
    ).text  # fmt: skip
    assert "goes on from block" in said
    assert "ledger join URL --chain city --trust HEIGHT:HASH --replace" in said
    config = holdfast.home / "ledger/cometbft/config/config.toml"
    config.write_text(config.read_text().replace('timeout_commit = "200ms"', 'timeout_commit = "5ms"'))
    assert '"5ms"' in config.read_text()  # nobody has to wait for blocks here
    process = Process(environment(holdfast.home), "ledger", "start", "--json", "--listen", "127.0.0.1:0")
    try:
        first = next(process.lines(), None)
        assert first is not None, process.stderr()
        url = str(first["ledger"])
        status = holdfast("ledger", "status", "--ledger", url, "--json").json
        assert (status["chain_id"], status["engine"]) == ("city", "cometbft")
        # who joins it as a node needs the state that it began with, or a later one
        peer = own_peer(Home(holdfast.home))
        joins = ("ledger", "join", url, "--engine", "cometbft", "--peer", peer, "--yes")
        assert "goes on from cli-test" in at("node").fails(2, *joins)
        # a wallet elsewhere, which knew the old chain, goes on with its key
        other = at("wallet")
        (other.home / "keys").mkdir(mode=0o700, parents=True)
        shutil.copy(holdfast.home / "keys" / "me.key", other.home / "keys")
        other("ledger", "join", url, "--chain", "city", "--yes", "--replace")
        assert other("wallet", "balance", "--key", "me", "--json").json["balance"] == 25 * 10**9
        other("wallet", "send", other("wallet", "new", "b").text, "1", "--key", "me", "--yes")
    finally:
        code, messages = process.end(signal.SIGINT)
    assert code == 0, messages


async def halted(folder: Path, blocks: int) -> None:
    """What a chain of validators leaves at one of them, whose account has paid something in each block."""
    chain = Setting(folder, genesis(1_800_000_000, validators=4))
    await chain.engine.start()
    for nonce in range(blocks):
        chain.node.pool = [transfer(nonce)]
        await chain.node.block()
    await chain.close()


def test_a_chain_of_validators_that_is_lost_goes_on_from_its_nodes_own_folders(
    at: Callable[[str], At], tmp_path: Path
) -> None:
    for name, blocks in (("one", 2), ("two", 2), ("three", 1)):
        asyncio.run(halted(tmp_path / name, blocks))
    founder, other, file = at("founder"), at("other"), tmp_path / "founder.json"
    address = ("--external-address", "10.0.0.0:26656")
    founder("ledger", "founder", "--chain-id", "city", *address, "-o", file)
    nowhere = tmp_path / "no" / "such"
    said = founder.fails(3, "ledger", "founder", "--chain-id", "city", *address, "-o", nowhere)
    assert said == f"holdfast: {nowhere}: No such file or directory"
    said = founder("ledger", "import", tmp_path / "one", *AS_CITY, "--founder", file, *address).text
    assert "goes on from block 2 of one-validator" in said
    founding = founder.home / "ledger" / "founding.json"
    other("ledger", "import", tmp_path / "two", *AS_CITY, "--founding", founding)
    assert app_hash(founder.home) == app_hash(other.home)
    refused = at("behind").fails(4, "ledger", "import", tmp_path / "three", *AS_CITY, "--founding", founding)
    assert "all founders go on from the same archive" in refused
    # no cometbft ever showed who signed its blocks: that is enough to go on from, alone too, but no archive
    why = founder.fails(4, "ledger", "export", tmp_path / "x", "--from", tmp_path / "one")
    assert "it was not noted who signed its blocks" in why
    alone = at("embedded")
    said = alone("ledger", "import", tmp_path / "one", "--as-chain", "c").text
    assert "goes on from block 2 of one-validator" in said
    # and whoever has the history of that one finds the same end in it
    alone("ledger", "export", tmp_path / "c.car")
    verified = at("judge")("ledger", "verify-history", tmp_path / "c.car", "--json").json
    assert verified["app_hash"] == (app_hash(alone.home) or b"").hex()


def test_founders_make_the_same_chain_of_the_same_archive(
    town: Path, at: Callable[[str], At], tmp_path: Path
) -> None:
    homes = [at(f"founder-{number}") for number in range(2)]
    files = []
    for number, founder in enumerate(homes):
        files.append(tmp_path / f"founder-{number}.json")
        founder(
            "ledger", "founder", "--chain-id", "city", "--external-address", f"10.0.0.{number}:26656",
            "-o", files[-1],
        )  # fmt: skip
    named = [each for file in files for each in ("--founder", file)]
    addresses = ("--external-address", "10.0.0.0:26656")
    homes[0]("ledger", "import", town, *AS_CITY, *named, *addresses)
    founding = homes[0].home / "ledger" / "founding.json"
    homes[1]("ledger", "import", town, *AS_CITY, "--founding", founding)
    assert not any((each.home / "verify-history").exists() for each in homes)
    # who is no founder has the same chain, and follows
    follower = at("follower")
    said = follower("ledger", "import", town, *AS_CITY, "--founding", founding)
    assert "it follows the chain" in said.stderr
    every = [*homes, follower]
    assert len({app_hash(each.home) for each in every}) == 1
    assert len({(each.home / "ledger" / "genesis.json").read_bytes() for each in every}) == 1
    assert len({(each.home / "ledger/cometbft/config/genesis.json").read_bytes() for each in every}) == 1
    configs = [(each.home / "ledger/cometbft/config/config.toml").read_text() for each in every]
    assert ["@10.0.0.0:26656" in text for text in configs] == [False, True, True]
    assert ["@10.0.0.1:26656" in text for text in configs] == [True, False, True]
    assert Home(homes[1].home, {}).config.text("ledger.engine") == "cometbft"
    # and nothing of another state passes for it
    document = json.loads(founding.read_text())
    document["genesis"]["issued"] += 1
    forged = tmp_path / "forged.json"
    forged.write_text(json.dumps(document))
    stranger = at("stranger")
    assert "same archive" in stranger.fails(4, "ledger", "import", town, *AS_CITY, "--founding", forged)
    assert not (stranger.home / "ledger" / "genesis.json").exists()
    late = at("late")
    late("ledger", "founder", "--chain-id", "city", "--external-address", "10.0.0.9:1", "-o", forged)
    why = late.fails(4, "ledger", "init", "--engine", "cometbft", "--founding", founding)
    assert "ledger import ARCHIVE --as-chain" in why


def test_stakes_that_are_free_before_evidence_ends_are_for_test_networks(
    holdfast: Holdfast, town: Path
) -> None:
    """The archive's chain has demo parameters; a new chain's can be chosen."""
    said = holdfast.fails(2, "ledger", "import", town, *AS_CITY[:-1])
    assert "unbonding_s is 1 min" in said
    init = ("ledger", "init", "--engine", "cometbft", "--param")
    assert "unbonding_s is 9 days" in holdfast.fails(2, *init, "unbonding_s=9d")
    assert not (holdfast.home / "ledger" / "genesis.json").exists()
    holdfast(*init, "unbonding_s=9d", "--test-network")


@pytest.mark.parametrize(
    "wrong",
    [
        ("--engine", "cometbft"),
        ("--as-chain", "city", "--peer", f"{'a' * 40}@10.0.0.1:26656"),
        (*AS_CITY, "--profile", "moon"),
        ("--as-chain", "city", "--engine", "paper"),
        ("--founding", "x.json", "--founder", "y.json", *AS_CITY),
    ],
)
def test_options_that_do_not_go_together_are_refused(
    holdfast: Holdfast, town: Path, wrong: tuple[str, ...]
) -> None:
    holdfast.fails(2, "ledger", "import", town, *wrong)
    assert not (holdfast.home / "ledger" / "genesis.json").exists()


@pytest.mark.parametrize(
    "command",
    [
        ("init", "--profile", "lan"),
        ("init", "--founding", "x.json"),
        ("join", "http://127.0.0.1:9", "--profile", "lan"),
        ("join", "http://127.0.0.1:9", "--sync-from", "http://127.0.0.1:10"),
    ],
)
def test_what_only_a_node_on_cometbft_has_is_refused_without_it(
    holdfast: Holdfast, command: tuple[str, ...]
) -> None:
    assert "need --engine cometbft" in holdfast.fails(2, "ledger", *command)
