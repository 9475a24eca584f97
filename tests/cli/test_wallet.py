"""`holdfast wallet` on a real ledger: amounts, transfers, offline signing, backups of keys."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cli import key_backup
from cli.home import NODE_KEY, OPERATOR_KEY
from cli.keystore import ED25519, Keystore
from cli.money import HOLD, MAX_UNITS, amount_text, decimal_text, parse_amount
from cli.output import CommandError
from ledger.engine.errors import LedgerUnreachable
from merkledag.peer import parse_peer
from tests.cli.conftest import Holdfast
from tests.cli.ledgers import Ledger, a_ledger
from tests.cli.processes import environment, on_terminal

STRANGER = "12D3KooWGzxzKZYveHXtpG6AsrUJBcWxHBFS2HsEoGTxrMLvKXtf"


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ledger]:
    with a_ledger(tmp_path_factory.mktemp("ledger")) as running:
        yield running


@pytest.fixture
def wallet(holdfast: Holdfast, chain: Ledger, monkeypatch: pytest.MonkeyPatch) -> Holdfast:
    """A home whose own account has 100 HOLD, and which has the operator's key besides."""
    monkeypatch.setenv("HOLDFAST_LEDGER_URL", chain.url)
    chain.lend_operator(holdfast.home)
    holdfast("wallet", "new", NODE_KEY)
    holdfast("wallet", "send", account(holdfast), "100", "--key", OPERATOR_KEY, "--yes")
    return holdfast


def account(holdfast: Holdfast, key: str = NODE_KEY) -> str:
    return str(holdfast("key", "show", key, "--json").json["public"])


def balance(holdfast: Holdfast, whose: str = "") -> int:
    return int(holdfast("wallet", "balance", *([whose] if whose else []), "--json").json["balance"])


# -- amounts -----------------------------------------------------------------------------------------------


@given(st.integers(0, MAX_UNITS))
def test_what_is_printed_is_read_again_exactly(units: int) -> None:
    assert parse_amount(amount_text(units)) == units
    assert parse_amount(f"{units} units") == units
    assert parse_amount(f"{units:_} units") == units
    assert parse_amount(decimal_text(units)) == units
    assert decimal_text(-units) == ("-" if units else "") + decimal_text(units)


@pytest.mark.parametrize(
    ("text", "units"),
    [
        ("1.5", 1_500_000_000), ("0.000000001", 1), ("1_000 units", 1000), ("1 unit", 1),
        ("7 HOLD", 7 * HOLD),
        ("1_000.25hold", 1_000 * HOLD + HOLD // 4), ("9223372036.854775807", MAX_UNITS), (" 2 ", 2 * HOLD),
    ],
)  # fmt: skip
def test_amounts_that_people_write(text: str, units: int) -> None:
    assert parse_amount(text) == units


@pytest.mark.parametrize(
    "text",
    ["", "-1", "+1", "1,5", "1,000", "1.", ".5", "1e3", "1.0000000001", "9223372036.854775808", "inf", "nan",
     "1_", "_1", "1__0", "1.5 units", "1.5_0", "1 BTC", "0x10", "٣", "1" * 5000, "9223372036854775808 units"],
)  # fmt: skip
def test_what_is_no_amount_is_2(text: str) -> None:
    with pytest.raises(CommandError) as refused:
        parse_amount(text)
    assert refused.value.code == 2


# -- transfers -----------------------------------------------------------------------------------------------


def test_a_transfer_shows_what_it_does_first(wallet: Holdfast) -> None:
    before, friend = balance(wallet), wallet("wallet", "new", "friend").text
    dry = wallet("wallet", "send", friend, "1.5", "--dry-run", "--json")
    plan = dry.json
    assert (plan["spends"], plan["balance"]) == (1_500_000_000, before)
    assert plan["balance_after"] == before - plan["spends"] - plan["fee"]
    assert "new account" in dry.stderr
    assert balance(wallet) == before  # nothing was sent

    assert "--yes" in wallet.fails(2, "wallet", "send", friend, "1.5")
    sent = wallet("wallet", "send", friend, "1.5", "--yes")
    assert amount_text(plan["balance_after"]) in sent.stderr
    assert sent.text.startswith("sent in block ")
    assert balance(wallet) == plan["balance_after"]
    assert balance(wallet, friend) == 1_500_000_000


def test_an_account_without_money_is_told_what_to_do(wallet: Holdfast) -> None:
    poor = wallet("wallet", "new", "poor").text
    said = wallet.fails(7, "wallet", "send", STRANGER, "1", "--key", "poor", "--yes")
    assert f"holdfast wallet send {poor}" in said
    assert "--dry-run" not in said
    assert "has 0 HOLD" in wallet.fails(7, "wallet", "send", STRANGER, "1", "--key", "poor", "--dry-run")
    assert "moves nothing" in wallet.fails(7, "wallet", "send", poor, "0", "--dry-run")
    assert "at least 0.00001 HOLD" in wallet.fails(7, "wallet", "send", poor, "1 units", "--dry-run")
    wallet.fails(3, "wallet", "send", poor, "1", "--key", "absent", "--yes")
    wallet.fails(2, "wallet", "send", "nobody", "1", "--yes")
    wallet.fails(2, "wallet", "send", poor, "1", "--key", "beacon-of-old", "--nonce", "1", "--yes")


def test_a_node_without_money_is_told_how_much_it_needs(
    wallet: Holdfast, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = wallet("config", "get", "ledger.url").text
    monkeypatch.setenv("HOLDFAST_HOME", str(tmp_path / "node"))
    said = wallet.fails(7, "node", "run", "--ledger", url, "--listen", "127.0.0.1:0", "--stake", "5")
    assert "has 0 HOLD; a stake of 5 HOLD" in said
    assert f"holdfast wallet send {account(wallet)} AMOUNT" in said


def test_ctrl_c_at_a_question_ends_the_command(wallet: Holdfast, chain: Ledger, tmp_path: Path) -> None:
    before = balance(wallet)
    env = environment(wallet.home, HOLDFAST_LEDGER_URL=chain.url)
    code, seen = on_terminal(env, "wallet", "send", STRANGER, "1.5", interrupt_at=b"[y/N]", reading_s=0.2)
    assert (code, b"holdfast: interrupted" in seen) == (130, True), seen
    assert balance(wallet) == before

    passphrase = tmp_path / "passphrase"
    passphrase.write_text("open sesame")
    env = environment(tmp_path / "operator")
    command = [sys.executable, "-P", "-m", "cli.main", "ledger", "init"]
    sealed = env | {"HOLDFAST_PASSPHRASE_FILE": str(passphrase)}
    subprocess.run(command, env=sealed, check=True, capture_output=True, timeout=60)
    code, seen = on_terminal(env, "ledger", "start", interrupt_at=b"Passphrase of key", reading_s=0.2)
    assert (code, b"holdfast: interrupted" in seen, b"stopping" in seen) == (130, True, False), seen


def test_who_has_no_stake_has_no_say(wallet: Holdfast) -> None:
    assert "from 0.000000001 HOLD to 1 HOLD" in wallet.fails(2, "gov", "propose", "base_fee=5", "--dry-run")
    said = wallet.fails(7, "gov", "propose", "base_fee=0.000002", "--dry-run")
    assert "is no provider" in said
    assert "validator stake" in said


def test_what_is_sent_to_oneself_stays(wallet: Holdfast) -> None:
    own = account(wallet)
    plan = wallet("wallet", "send", own, "1.5", "--dry-run", "--json").json
    assert (plan["spends"], plan["balance_after"]) == (0, plan["balance"] - plan["fee"])
    assert "nothing but the fee" in wallet("wallet", "send", own, "1.5", "--yes").stderr
    assert balance(wallet) == plan["balance_after"]


def test_the_accounts_of_a_home_are_listed(wallet: Holdfast) -> None:
    wallet("wallet", "new", "second")
    wallet("key", "gen", "other", "--type", "bls12-381")
    rows = {row["name"]: row for row in wallet("wallet", "ls", "--json").json_lines}
    assert sorted(rows) == [OPERATOR_KEY, "second", NODE_KEY]
    assert rows["second"]["balance"] == 0
    assert rows[NODE_KEY]["balance"] == 100 * HOLD
    assert "100 HOLD" in wallet("wallet", "ls").text


def test_accounts_are_listed_without_a_ledger(holdfast: Holdfast) -> None:
    made = holdfast("wallet", "new", "mine").text
    shown = holdfast("wallet", "ls", "--json")
    assert shown.json_lines == [{"name": "mine", "account": made, "encrypted": False}]
    assert "no ledger is known" in shown.stderr
    assert "holdfast up" in holdfast.fails(5, "wallet", "balance", "--key", "mine")


def test_the_history_of_an_account_sums_to_its_balance(wallet: Holdfast, tmp_path: Path) -> None:
    wallet("wallet", "send", STRANGER, "1.25", "--yes")
    rows = wallet("wallet", "history", "--json").json_lines
    assert sum(row["amount"] for row in rows if row["place"] == "balance") == balance(wallet)
    assert [row["height"] for row in rows] == sorted((row["height"] for row in rows), reverse=True)
    (out,) = [row for row in rows if row["why"] == "transfer" and row["amount"] < 0]
    assert (out["amount"], parse_peer(out["counterparty"])) == (-1_250_000_000, parse_peer(STRANGER))

    table = list(csv.DictReader(wallet("wallet", "history", "--csv").text.splitlines()))
    assert [int(row["units"]) for row in table] == [row["amount"] for row in rows]
    assert sum(Decimal(row["hold"]) for row in table) * HOLD == balance(wallet)
    assert all(row["time"].endswith("Z") for row in table)
    assert "+100 HOLD" in wallet("wallet", "history").text
    assert len(wallet("wallet", "history", "--limit", "1", "--json").json_lines) == 1
    assert len(wallet("wallet", "history", "--since", "1h", "--json").json_lines) == len(rows)
    assert wallet("wallet", "history", "--since", "2200-01-01", "--csv").text.count("\n") == 0
    wallet.fails(2, "wallet", "history", "--since", "2026-13-01")
    wallet.fails(2, "wallet", "history", "--since", "yesterday")
    wallet.fails(2, "wallet", "history", "--csv", "--json")


# -- offline signing -----------------------------------------------------------------------------------------


@pytest.fixture
def vault(wallet: Holdfast, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Runs commands on a second home that has a key of its own and knows no ledger."""

    def run(*arguments: object, code: int = 0) -> Any:
        with monkeypatch.context() as patch:
            patch.setenv("HOLDFAST_HOME", str(tmp_path / "vault"))
            patch.delenv("HOLDFAST_LEDGER_URL")
            return wallet(*arguments, code=code)

    return run


def test_a_key_signs_on_a_machine_without_a_network(
    wallet: Holdfast, vault: Callable[..., Any], tmp_path: Path
) -> None:
    cold = vault("wallet", "new", "cold").text
    wallet("wallet", "send", cold, "5", "--yes")
    unsigned = tmp_path / "tx.json"
    prepared = wallet("wallet", "send", STRANGER, "2", "--key", cold, "--unsigned", unsigned, "--json").json
    assert (prepared["nonce"], balance(wallet, cold)) == (0, 5 * HOLD)
    assert "not signed yet" in wallet.fails(4, "wallet", "submit", unsigned)
    assert "is not in" in wallet.fails(3, "wallet", "sign", unsigned, "--yes")
    wallet.fails(
        4, "wallet", "send", STRANGER, "2", "--key", cold, "--unsigned", unsigned
    )  # not written over

    signed = vault("wallet", "sign", unsigned, "--yes")
    assert signed.text == f"{unsigned}.signed"
    assert "2 HOLD" in signed.stderr
    assert "12D3" not in signed.text
    file = tmp_path / "tx.json.signed"
    first = wallet("wallet", "submit", file, "--json").json
    assert first["tx_id"] == prepared["tx_id"]
    assert wallet("wallet", "submit", file, "--json").json["height"] == first["height"]  # once, however often
    assert balance(wallet, cold) == 3 * HOLD - prepared["fee"]

    changed = json.loads(file.read_text())
    changed["body"]["amount"] += 1
    file.write_text(json.dumps(changed))
    assert "changed" in wallet.fails(4, "wallet", "submit", file)


def test_several_transactions_are_prepared_ahead(
    wallet: Holdfast, vault: Callable[..., Any], tmp_path: Path
) -> None:
    cold = vault("wallet", "new", "cold").text
    wallet("wallet", "send", cold, "5", "--yes")
    for nonce in (0, 1):
        options = ("--key", cold, "--nonce", nonce, "--valid-for", "30d")
        wallet("wallet", "send", STRANGER, "1", *options, "--unsigned", tmp_path / f"{nonce}.json")
        vault("wallet", "sign", tmp_path / f"{nonce}.json", "--yes", "-o", tmp_path / f"{nonce}.signed")
    wallet.fails(7, "wallet", "submit", tmp_path / "1.signed")  # not before the first
    wallet("wallet", "submit", tmp_path / "0.signed")
    wallet("wallet", "submit", tmp_path / "1.signed")
    assert balance(wallet, cold) < 3 * HOLD


@pytest.mark.parametrize(
    "data",
    [b"", b"[]", b"{}", b"\xff", b"[" * 100_000, b'{"format": "holdfast-transaction-1"}'],
)
def test_what_is_no_transaction_is_4(holdfast: Holdfast, tmp_path: Path, data: bytes) -> None:
    (tmp_path / "tx").write_bytes(data)
    for command in ("sign", "submit"):
        holdfast.fails(4, "wallet", command, tmp_path / "tx")
        holdfast.fails(3, "wallet", command, tmp_path / "absent")


@pytest.mark.parametrize(
    ("field", "value"),
    [("nonce", -1), ("nonce", "1"), ("fee", 2**64), ("expiry", 1.5), ("account", "nobody"),
     ("chain", "x" * 99),
     ("body", {"kind": "transfer"}), ("body", {"kind": "bribe"}), ("body", []), ("sig", "zz"), ("sig", "00")],
)  # fmt: skip
def test_a_transaction_of_impossible_fields_is_4(
    wallet: Holdfast, tmp_path: Path, field: str, value: object
) -> None:
    wallet("wallet", "send", STRANGER, "1", "--unsigned", tmp_path / "tx")
    document = json.loads((tmp_path / "tx").read_text())
    (tmp_path / "tx").write_text(json.dumps({**document, field: value}))
    wallet.fails(4, "wallet", "sign", tmp_path / "tx", "--yes")


# -- backups -----------------------------------------------------------------------------------------------


@pytest.fixture
def phrase(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "phrase"
    path.write_text("correct horse\n")
    monkeypatch.setenv("HOLDFAST_PASSPHRASE_FILE", str(path))
    return path


def test_keys_come_back_from_a_backup(
    holdfast: Holdfast, tmp_path: Path, phrase: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = {name: holdfast("wallet", "new", name).text for name in ("self", "second")}
    seeds = {name: Keystore(holdfast.home / "keys").seed(name) for name in made}
    file = tmp_path / "keys.backup"
    assert "2 keys" in holdfast("wallet", "backup", file).text
    assert file.stat().st_mode & 0o777 == 0o600
    assert not any(seed.hex() in file.read_text() for seed in seeds.values())
    holdfast.fails(4, "wallet", "backup", file)  # not written over
    assert "here already" in holdfast("wallet", "restore", file).text

    monkeypatch.setenv("HOLDFAST_HOME", str(tmp_path / "other"))
    assert "in the backup" in holdfast("wallet", "restore", file, "--dry-run").text
    assert not (tmp_path / "other").exists()
    holdfast("wallet", "restore", file, "second", "self=main")
    rows = {row["name"]: row["account"] for row in holdfast("wallet", "ls", "--json").json_lines}
    assert rows == {"second": made["second"], "main": made["self"]}

    monkeypatch.setenv("HOLDFAST_HOME", str(tmp_path / "third"))
    other = holdfast("wallet", "new", "self").text
    said = holdfast.fails(4, "wallet", "restore", file)
    assert "self=NEW" in said
    assert [row["account"] for row in holdfast("wallet", "ls", "--json").json_lines] == [other]
    holdfast.fails(3, "wallet", "restore", file, "absent")
    holdfast.fails(2, "wallet", "restore", file, "self=a", "second=a")
    phrase.write_text("wrong\n")
    assert "passphrase is wrong" in holdfast.fails(4, "wallet", "restore", file, "second")


def test_a_backup_needs_a_passphrase_and_keys(holdfast: Holdfast, tmp_path: Path) -> None:
    holdfast.fails(3, "wallet", "backup", tmp_path / "b")
    holdfast("wallet", "new", "self")
    assert "HOLDFAST_PASSPHRASE_FILE" in holdfast.fails(2, "wallet", "backup", tmp_path / "b")
    assert not (tmp_path / "b").exists()
    holdfast.fails(3, "wallet", "restore", tmp_path / "absent")
    for data in (b"", b"{}", b"\xff", b"[" * 100_000, b'{"format": "holdfast-keys-1", "keys": 1}'):
        holdfast.fails(4, "wallet", "restore", "-", stdin=data)


def test_a_backup_that_was_changed_is_refused() -> None:
    from merkledag.ed25519 import Ed25519Signer
    from merkledag.peer import peer_text

    seed = bytes(range(32))
    public = peer_text(Ed25519Signer.from_seed(seed).public_key)
    document = json.loads(key_backup.encode([(key_backup.SavedKey("a", ED25519, public), seed)], b"phrase"))
    assert key_backup.decode(json.dumps(document).encode()).seeds(b"phrase") == {"a": seed}
    renamed = {**document, "keys": [{**document["keys"][0], "name": "b"}]}
    with pytest.raises(CommandError, match="damaged"):
        key_backup.decode(json.dumps(renamed).encode()).seeds(b"phrase")
    twice = {**document, "keys": document["keys"] * 2}
    with pytest.raises(CommandError, match="damaged"):
        key_backup.decode(json.dumps(twice).encode())


def test_what_may_still_be_done_is_not_to_be_done_again(
    wallet: Holdfast, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def waiting(*_: object, **__: object) -> None:
        raise LedgerUnreachable("no block has taken it")

    monkeypatch.setattr("ledger.engine.sender.Sender.send", waiting)
    told = wallet.fails(5, "wallet", "send", account(wallet), "1", "--yes")
    assert "`holdfast wallet history` before you do it again, or it is done twice (no block has" in told
