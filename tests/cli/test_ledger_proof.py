"""`holdfast ledger prove` and `verify`: what a ledger says of its state, checked where no ledger is."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from cli.compose import init_ledger, ledger_service
from cli.home import OPERATOR_KEY, Home
from ledger import keys
from ledger.engine.proof_file import ProofFile, record_of
from ledger.genesis import DEMO_PARAMS
from ledger.state_proof import cometbft_ops
from merkledag.peer import peer_text
from tests.cli.background import serving
from tests.cli.conftest import Holdfast


@pytest.fixture
def operator(tmp_path: Path) -> Home:
    home = Home(tmp_path / "operator", {})
    init_ledger(home, DEMO_PARAMS, "town")
    return home


@pytest.fixture
def url(operator: Home) -> Iterator[str]:
    with serving(ledger_service(operator, "127.0.0.1:0", asyncio.Event())) as found:
        yield found


@pytest.fixture
def receiver(holdfast: Holdfast, operator: Home, url: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """An account that has 1 HOLD on a chain with a block."""
    made = holdfast("wallet", "new", "receiver").text
    monkeypatch.setenv("HOLDFAST_HOME", str(operator.path))
    holdfast("wallet", "send", made, "1", "--key", "operator", "--yes")
    monkeypatch.setenv("HOLDFAST_HOME", str(holdfast.home))
    return made


def test_a_proof_needs_no_ledger(
    holdfast: Holdfast, operator: Home, url: str, receiver: str, tmp_path: Path
) -> None:
    owner = peer_text(operator.signer(OPERATOR_KEY).public_key)
    file = tmp_path / "proof"
    status = holdfast("ledger", "status", "--ledger", url, "--json").json
    holdfast("ledger", "prove", "account", receiver, "-o", file, "--ledger", url)
    shown = holdfast("ledger", "verify", file, "--operator", owner, "--json").json
    assert shown["record"] == {"balance": 10**9, "nonce": 0}
    assert (shown["app_hash"], shown["chain_id"]) == (status["app_hash"], "town")
    assert shown["against"] == "operator"
    assert holdfast("ledger", "verify", file, "--app-hash", status["app_hash"]).code == 0
    assert holdfast("ledger", "verify", file, "--url", url).code == 0
    assert shown["verified"] is True
    unsure = holdfast("ledger", "verify", file, code=2)
    assert "right one" in unsure.stderr
    assert "1 HOLD (1000000000 units)" in unsure.text
    piped = holdfast("ledger", "prove", "account", receiver, "--ledger", url).stdout
    unsure = holdfast("ledger", "verify", "-", "--json", stdin=piped, code=2)
    assert (unsure.json["record"], unsure.json["verified"]) == (shown["record"], False)


def test_a_proof_comes_in_cometbfts_form_too(holdfast: Holdfast, url: str, receiver: str) -> None:
    proof = ProofFile.decode(holdfast("ledger", "prove", "account", receiver, "--ledger", url).stdout).proof
    ops = holdfast("ledger", "prove", "account", receiver, "--cometbft", "--ledger", url).stdout
    assert ops == cometbft_ops(proof)
    holdfast.fails(3, "ledger", "prove", "params", "9", "--cometbft", "--ledger", url)


def test_what_is_absent_is_proven_too(holdfast: Holdfast, url: str, receiver: str, tmp_path: Path) -> None:
    nobody = holdfast("wallet", "new", "nobody").text
    holdfast("ledger", "prove", "account", nobody, "-o", tmp_path / "none", "--ledger", url)
    assert holdfast("ledger", "verify", tmp_path / "none", "--url", url, "--json").json["present"] is False
    assert "absent" in holdfast("ledger", "verify", tmp_path / "none", "--url", url).text


def test_whatever_is_changed_does_not_hold(
    holdfast: Holdfast, operator: Home, url: str, receiver: str, tmp_path: Path
) -> None:
    raw = holdfast("ledger", "prove", "account", receiver, "--ledger", url).stdout
    good, signer = ProofFile.decode(raw), operator.signer(OPERATOR_KEY)
    record = record_of(good.proof)
    assert record is not None
    lies = [
        replace(good, proof=replace(good.proof, value=None)),
        replace(good, proof=replace(good.proof, value=replace(record, balance=5).encode())),  # type: ignore[attr-defined,call-arg]
        replace(good, proof=replace(good.proof, key=keys.account(bytes(32)))),
        replace(good, proof=replace(good.proof, aunts=good.proof.aunts[:-1])),
        replace(good, block=replace(good.block, app_hash=bytes(32))),
        replace(good, block=replace(good.block, app_hash=bytes(32)).signed(signer)),
        replace(good, block=replace(good.block, height=9)),
        replace(good, kind="other"),
    ]
    for lie in lies:
        holdfast.fails(4, "ledger", "verify", "-", stdin=lie.encode())
    for at in range(0, len(raw), 41):
        changed = bytearray(raw)
        changed[at] ^= 1
        holdfast.fails(4, "ledger", "verify", "-", stdin=bytes(changed))
    for garbage in (b"", b"\xa0", raw[:-1], raw + b"\x00", b"x" * (4 << 20) + b"x"):
        holdfast.fails(4, "ledger", "verify", "-", stdin=garbage)


def test_another_operator_or_chain_is_refused(
    holdfast: Holdfast, operator: Home, url: str, receiver: str, tmp_path: Path
) -> None:
    holdfast("ledger", "prove", "totals", "-o", tmp_path / "proof", "--ledger", url)
    assert "signed by" in holdfast.fails(4, "ledger", "verify", tmp_path / "proof", "--operator", receiver)
    assert "leads to" in holdfast.fails(4, "ledger", "verify", tmp_path / "proof", "--app-hash", "00" * 32)
    holdfast.fails(2, "ledger", "verify", tmp_path / "proof", "--app-hash", "00")
    holdfast.fails(3, "ledger", "verify", tmp_path / "none")
    holdfast.fails(4, "ledger", "prove", "totals", "-o", tmp_path / "proof", "--ledger", url)
    holdfast("ledger", "join", url, "--yes")
    assert holdfast("ledger", "verify", tmp_path / "proof", "--json").json["against"] == "operator"
    good = ProofFile.decode((tmp_path / "proof").read_bytes())
    other = replace(good.block, chain="city").signed(operator.signer(OPERATOR_KEY))
    renamed = replace(good, block=other).encode()
    assert "of chain city" in holdfast.fails(4, "ledger", "verify", "-", stdin=renamed)
    assert "is cut short" in holdfast.fails(4, "ledger", "verify", "-", stdin=renamed[:-1])


@pytest.mark.parametrize(
    "words",
    [
        ("account",), ("account", "me"), ("deal", "x"), ("shard", "bafyaaaaa"), ("zz",), ("dataset", "00"),
        ("params", "-1"), ("totals", "now"), ("chain", "1"), ("00" * 513,),
    ],
)  # fmt: skip
def test_what_is_no_key_is_refused(holdfast: Holdfast, words: tuple[str, ...]) -> None:
    holdfast.fails(2, "ledger", "prove", *words, "-o", "proof")


def test_a_chain_without_blocks_proves_nothing(holdfast: Holdfast, url: str) -> None:
    assert "no block yet" in holdfast.fails(3, "ledger", "prove", "chain", "--ledger", url)
