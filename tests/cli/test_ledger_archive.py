"""`holdfast ledger export`, `import` and `verify-history` on a chain that pays, runs and stops."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from cli.compose import init_ledger, ledger_service
from cli.home import Home
from ledger.genesis import DEMO_PARAMS
from tests.cli.background import serving
from tests.cli.conftest import Holdfast

SENDS = 3


@pytest.fixture
def operator(tmp_path: Path) -> Home:
    """A home with a ledger of its own."""
    home = Home(tmp_path / "operator", {})
    init_ledger(home, DEMO_PARAMS, "town")
    return home


@pytest.fixture
def running(operator: Home) -> Iterator[str]:
    with serving(ledger_service(operator, "127.0.0.1:0", asyncio.Event())) as url:
        yield url


@pytest.fixture
def paid(holdfast: Holdfast, operator: Home, running: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """The running ledger's URL, after a few transfers."""
    receiver = holdfast("wallet", "new", "receiver").text
    monkeypatch.setenv("HOLDFAST_HOME", str(operator.path))
    for _ in range(SENDS):
        holdfast("wallet", "send", receiver, "1", "--key", "operator", "--yes")
    monkeypatch.setenv("HOLDFAST_HOME", str(holdfast.home))
    return running


def test_a_history_is_exported_imported_and_verified(holdfast: Holdfast, paid: str, tmp_path: Path) -> None:
    file = tmp_path / "town.car"
    status = holdfast("ledger", "status", "--ledger", paid, "--json").json
    told = holdfast("ledger", "export", file, "--ledger", paid, "--json").json
    assert (told["last"], told["app_hash"]) == (status["height"], status["app_hash"])
    assert holdfast("ledger", "verify-history", paid, "--json").json["app_hash"] == status["app_hash"]
    assert holdfast("ledger", "verify-history", file, "--json").json["tip"] == told["tip"]
    assert not list((holdfast.home / "verify-history").iterdir())
    assert holdfast("ledger", "import", file, "--json").json["app_hash"] == status["app_hash"]
    assert holdfast("ledger", "verify-history", "--json").json["height"] == status["height"]
    again = tmp_path / "again.car"
    holdfast("ledger", "export", again)
    assert again.read_bytes() == file.read_bytes()
    assert holdfast("ledger", "export", "-", "--from", file).stdout == file.read_bytes()
    assert holdfast("car", "verify", file).code == 0
    assert "already" in holdfast.fails(1, "ledger", "import", file)
    assert "exists" in holdfast.fails(4, "ledger", "export", file)
    assert "operator" in holdfast.fails(3, "ledger", "start")


def test_the_operator_moves_to_another_machine(
    holdfast: Holdfast, operator: Home, paid: str, tmp_path: Path
) -> None:
    holdfast("ledger", "export", tmp_path / "town.car", "--ledger", paid)
    holdfast("ledger", "import", tmp_path / "town.car")
    for name in ("operator", "beacon"):
        (holdfast.home / "keys" / f"{name}.key").write_bytes((operator.keys / f"{name}.key").read_bytes())
    own = Home(holdfast.home, {})
    with serving(ledger_service(own, "127.0.0.1:0", asyncio.Event())):
        before = holdfast("ledger", "status", "--json").json
        holdfast("wallet", "send", holdfast("wallet", "new", "b").text, "2", "--key", "operator", "--yes")
        assert holdfast("ledger", "status", "--json").json["height"] == before["height"] + 1


def test_an_interrupted_export_goes_on(holdfast: Holdfast, paid: str, tmp_path: Path) -> None:
    from cli.part import Part
    from ledger.engine.archive import ArchiveReader

    file = tmp_path / "town.car"
    holdfast("ledger", "export", file, "--ledger", paid)
    whole = file.read_bytes()
    file.unlink()
    with (tmp_path / "copy.car").open("wb+") as copy:
        copy.write(whole)
        copy.seek(0)
        key = str(ArchiveReader(copy).manifest.genesis)
    for cut in (0, 10, len(whole) // 2, len(whole) - 1, len(whole)):
        part = Part(file, key)
        part.content.write_bytes(whole[:cut])
        part.release()
        holdfast("ledger", "export", file, "--ledger", paid)
        assert file.read_bytes() == whole
        file.unlink()
    assert not list(tmp_path.glob(".holdfast-*"))


def test_what_is_no_archive_or_a_damaged_one_is_refused(
    holdfast: Holdfast, paid: str, tmp_path: Path
) -> None:
    file, bad = tmp_path / "town.car", tmp_path / "bad.car"
    holdfast("ledger", "export", file, "--ledger", paid)
    whole = file.read_bytes()
    for raw in (b"", b"GIF89a", whole[:100], whole[:-1], whole + b"x", whole[:-40] + b"x" + whole[-39:]):
        bad.write_bytes(raw)
        holdfast.fails(4, "ledger", "verify-history", bad)
        holdfast.fails(4, "ledger", "import", bad)
        holdfast.fails(5, "ledger", "status")
    holdfast.fails(3, "ledger", "import", tmp_path / "none.car")
    holdfast.fails(4, "ledger", "import", paid)
    holdfast.fails(3, "ledger", "verify-history", tmp_path)
    holdfast.fails(5, "ledger", "verify-history", "http://127.0.0.1:9")
    holdfast("ledger", "import", file)  # what the refused ones left is no hindrance


def test_what_an_import_of_another_chain_left_is_no_hindrance(
    holdfast: Holdfast, paid: str, tmp_path: Path
) -> None:
    file, other = tmp_path / "town.car", tmp_path / "other.car"
    holdfast("ledger", "export", file, "--ledger", paid)
    home = Home(tmp_path / "other", {})
    init_ledger(home, DEMO_PARAMS, "other")
    with serving(ledger_service(home, "127.0.0.1:0", asyncio.Event())) as url:
        holdfast("ledger", "export", other, "--ledger", url)
    other.write_bytes(other.read_bytes() + b"x")
    holdfast.fails(4, "ledger", "import", other)
    assert "another chain" in holdfast("ledger", "import", file).stderr
    assert holdfast("ledger", "verify-history", "--json").json["chain_id"] == "town"


def test_a_changed_state_is_found(holdfast: Holdfast, paid: str, tmp_path: Path) -> None:
    import lmdb

    file = tmp_path / "town.car"
    holdfast("ledger", "export", file, "--ledger", paid)
    holdfast("ledger", "import", file)
    with lmdb.open(str(holdfast.home / "ledger" / "db"), max_dbs=32) as environment:
        table = environment.open_db(b"state")
        with environment.begin(write=True, db=table) as txn:
            key, value = next(iter(txn.cursor().iternext()))
            txn.put(key, value + b"\x00")
    assert "differs at key" in holdfast.fails(4, "ledger", "verify-history")


def test_a_ledger_that_runs_is_not_opened_twice(holdfast: Holdfast, operator: Home, paid: str) -> None:
    assert "in use" in holdfast.fails(1, "ledger", "verify-history", operator.path)
    assert "in use" in holdfast.fails(1, "ledger", "export", "-", "--from", operator.ledger)


def test_a_killed_import_goes_on(holdfast: Holdfast, paid: str, tmp_path: Path) -> None:
    file = tmp_path / "town.car"
    holdfast("ledger", "export", file, "--ledger", paid)
    os.mkfifo(tmp_path / "pipe")
    importing = holdfast.process("ledger", "import", tmp_path / "pipe")
    raw = file.read_bytes()
    with (tmp_path / "pipe").open("wb") as pipe:
        pipe.write(raw[: len(raw) * 3 // 4])
        pipe.flush()
        deadline = time.monotonic() + 20
        while not (holdfast.home / "ledger" / "db" / "data.mdb").exists() and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(0.3)
        importing.send_signal(signal.SIGKILL)
        importing.communicate()
    holdfast("ledger", "import", file)
    assert holdfast("ledger", "verify-history", "--json").json["height"] >= SENDS
