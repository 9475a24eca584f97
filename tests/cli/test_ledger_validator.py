"""`holdfast ledger validator`: registering, rotating and listing keys, and voting on who validates."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cli.comet_init import make_keys
from cli.compose import init_ledger, ledger_service
from cli.home import OPERATOR_KEY, Home
from ledger.engine.cometbft.keys import address_of, validator_signer
from ledger.genesis import DEMO_PARAMS
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
    file = operator.path / "proof"
    shown = holdfast("ledger", "prove", "validator", name_of(operator), "-o", file, "--json").json
    assert shown["record"]["next_bls_key"] == last["next_bls_key"]


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

    assert mine()["address"] == address_of(validator_signer(comet).public_key).hex()
    assert mine()["validator"]["consensus_key"] == validator_signer(comet).public_key.hex()
    other = make_keys(Home(tmp_path / "other", {}))
    swap = ("ledger", "validator", "rotate", "--consensus-key", other.validator_key_file, "--yes", "--json")
    assert holdfast(*swap, *there).json["code"] == 0
    assert mine()["validator"]["consensus_key"] == validator_signer(other).public_key.hex()
    assert mine()["validator"]["next_bls_key"] == home.bls_signer().public_key.hex()
    for wrong in ("x=1", f"{name_of(home)}=-1", f"{name_of(home)}=1.5", name_of(home)):
        holdfast.fails(2, "gov", "propose", "--validator", wrong, "--key", "operator", *there)
    right = f"{name_of(home)}=10"
    said = holdfast.fails(7, "gov", "propose", "--validator", right, "--key", "operator", "--yes", *there)
    assert "no provider" in said
