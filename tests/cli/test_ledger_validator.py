"""`holdfast ledger validator`: registering, rotating and listing keys, and voting on who validates."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cli import commands_ledger_validator
from cli.comet_init import make_keys
from cli.compose import init_ledger, ledger_service
from cli.home import OPERATOR_KEY, Home
from ledger.engine.client import LedgerClient
from ledger.engine.cometbft.home.keys import validator_signer
from ledger.genesis import DEMO_PARAMS
from ledger.keys import address
from ledger.records_validators import ValidatorRecord
from merkledag.peer import peer_text
from tests.cli.background import serving
from tests.cli.conftest import Holdfast


@pytest.fixture
def operator(tmp_path: Path) -> Home:
    home = Home(tmp_path / "operator", {})
    init_ledger(home, replace(DEMO_PARAMS, period_s=3_600, window_s=60), "town")
    return home


@pytest.fixture
def url(operator: Home) -> Iterator[str]:
    with serving(ledger_service(operator, "127.0.0.1:0", asyncio.Event())) as found:
        yield found


def name_of(home: Home) -> str:
    return peer_text(home.signer(OPERATOR_KEY).public_key)


def test_the_operator_rotates_its_bls_key(
    holdfast: Holdfast, operator: Home, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOLDFAST_HOME", str(operator.path))
    before = holdfast("ledger", "validator", "ls", "--json").json
    assert (before["account"], before["validator"]["power"]) == (name_of(operator), 1)
    assert before["validator"]["bls_key"] == operator.bls_signer().public_key.hex()
    assert "rotate" in holdfast.fails(2, "ledger", "validator", "register", "--yes")
    done = holdfast("ledger", "validator", "rotate", "--yes", "--json").json
    assert done["code"] == 0
    after = holdfast("ledger", "validator", "ls", "--json").json["validator"]
    assert after["bls_key"] == before["validator"]["bls_key"]
    assert after["next_bls_key"] == operator.bls_signer("beacon-next").public_key.hex()
    assert "next BLS key" in holdfast("ledger", "validator", "ls").text
    # Once more: the key that waits is taken for the one in use, so another one is made.
    holdfast("ledger", "validator", "rotate", "--yes", "--json")
    last = holdfast("ledger", "validator", "ls", "--json").json["validator"]
    assert last["next_bls_key"] == operator.bls_signer("beacon-next-2").public_key.hex()
    # Neither the key that counts nor the one that will is deleted; one that nobody waits for is.
    assert "will sign" in holdfast.fails(4, "key", "rm", "beacon-next", "beacon-next-2", "--yes")
    assert operator.keystore().has("beacon-next")
    holdfast("key", "rm", "beacon-next", "--yes")
    operator.keystore().rename("beacon", "mine")
    assert "signs" in holdfast.fails(4, "key", "rm", "mine", "--yes")
    operator.keystore().rename("mine", "beacon")
    file = operator.path / "proof"
    shown = holdfast("ledger", "prove", "validator", name_of(operator), "-o", file, "--json").json
    assert shown["record"]["next_bls_key"] == last["next_bls_key"]


def test_a_beacon_key_is_kept_while_no_ledger_says_that_it_may_go(
    holdfast: Holdfast, operator: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOLDFAST_HOME", str(operator.path))
    holdfast("key", "gen", "old", "--type", "bls12-381")
    assert "does not run" in holdfast.fails(5, "key", "rm", "old", "--yes")
    assert operator.keystore().has("old")
    holdfast("key", "gen", "account")
    holdfast("key", "rm", "account", "--yes")


def test_stake_is_added_to_a_validators_account(
    holdfast: Holdfast, operator: Home, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOLDFAST_HOME", str(operator.path))
    holdfast.fails(2, "ledger", "validator", "stake", "0", "--yes")
    for amount in ("20", "30.5"):
        assert holdfast("ledger", "validator", "stake", amount, "--yes", "--json").json["code"] == 0
    found = holdfast(
        "ledger", "prove", "provider", name_of(operator), "-o", operator.path / "p", "--json"
    ).json
    assert (found["record"]["stake"], found["record"]["open"]) == (50_500_000_000, False)
    # By it the account votes on who validates.
    proposal = holdfast(
        "gov", "propose", "--validator", f"{name_of(operator)}=7", "--key", "operator", "--yes", "--json"
    ).json
    assert (
        holdfast("gov", "vote", proposal["tx_id"], "yes", "--key", "operator", "--yes", "--json").json["code"]
        == 0
    )


def test_a_candidate_registers_and_is_proposed(
    holdfast: Holdfast, operator: Home, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = Home(tmp_path / "candidate", {})
    comet = make_keys(home)
    monkeypatch.setenv("HOLDFAST_HOME", str(operator.path))
    holdfast("wallet", "send", name_of(home), "20", "--key", "operator", "--yes")
    monkeypatch.setenv("HOLDFAST_HOME", str(home.path))
    there = ("--ledger", url)
    holdfast.fails(2, "ledger", "validator", "rotate", "--yes", *there)
    assert holdfast("ledger", "validator", "register", "--yes", "--json", *there).json["code"] == 0
    assert len(holdfast("ledger", "validator", "ls", "--json", *there).json_lines) == 1

    def mine() -> Any:
        found = holdfast("ledger", "validator", "ls", "--all", "--json", *there).json_lines
        return next(each for each in found if each["account"] == name_of(home))

    assert mine()["address"] == address(validator_signer(comet).public_key).hex()
    assert mine()["validator"]["consensus_key"] == validator_signer(comet).public_key.hex()
    other = make_keys(Home(tmp_path / "other", {}))
    swap = ("ledger", "validator", "rotate", "--consensus-key", other.validator_key_file, "--yes", "--json")
    assert holdfast(*swap, *there).json["code"] == 0
    assert mine()["validator"]["consensus_key"] == validator_signer(other).public_key.hex()
    listed = holdfast("ledger", "validator", "ls", "--all", *there).text
    assert f"signs with {validator_signer(other).public_key.hex()}" in listed
    assert mine()["validator"]["next_bls_key"] == home.bls_signer().public_key.hex()
    assert mine()["validator"]["resigned"] is False
    for wrong in ("x=1", f"{name_of(home)}=-1", f"{name_of(home)}=1.5", name_of(home)):
        holdfast.fails(2, "gov", "propose", "--validator", wrong, "--key", "operator", *there)
    right = f"{name_of(home)}=10"
    said = holdfast.fails(7, "gov", "propose", "--validator", right, "--key", "operator", "--yes", *there)
    assert "no provider" in said
    # Who never had power is forgotten as soon as it resigns.
    assert holdfast("ledger", "validator", "resign", "--yes", "--json", *there).json["code"] == 0
    found = holdfast("ledger", "validator", "ls", "--all", *there).text
    assert name_of(home) not in found or "has resigned" in found
    monkeypatch.setenv("HOLDFAST_HOME", str(operator.path))
    assert "nobody else" in holdfast.fails(7, "ledger", "validator", "resign", "--yes")

    async def resigned(client: LedgerClient, account: bytes) -> ValidatorRecord:
        return replace((await client.validator(account)).validator, resigned=True)

    # Until the stake is free: nothing is offered that the ledger would refuse.
    monkeypatch.setattr(commands_ledger_validator, "_registered", resigned)
    again = holdfast("ledger", "validator", "resign", code=2)
    assert "has resigned already" in again.stderr
    assert "power" not in again.text + again.stderr
