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
from cli.ledger_files import read_genesis
from ledger.engine.blocks import node_cid
from ledger.genesis import DEMO_PARAMS
from merkledag.peer import peer_text
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
    assert not (holdfast.home / "verify-history").exists()
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


def test_an_interrupted_export_goes_on(holdfast: Holdfast, operator: Home, paid: str, tmp_path: Path) -> None:
    from cli.part import Part

    file = tmp_path / "town.car"
    holdfast("ledger", "export", file, "--ledger", paid)
    whole = file.read_bytes()
    file.unlink()
    genesis = node_cid(read_genesis(operator).encode())
    for cut in (0, 10, len(whole) // 2, len(whole) - 1, len(whole)):
        part = Part(file, f"{genesis} False")
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
    assert "no snapshot yet" in holdfast.fails(3, "ledger", "import", paid, "--snapshot")
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
    assert "unfinished import" in holdfast("ledger", "import", file).stderr
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
    assert "the state" in holdfast.fails(4, "ledger", "verify-history")


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
        deadline = time.monotonic() + 90
        while not (holdfast.home / "ledger" / "db" / "data.mdb").exists() and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(0.3)
        importing.send_signal(signal.SIGKILL)
        importing.communicate()
    holdfast("ledger", "import", file)
    assert holdfast("ledger", "verify-history", "--json").json["height"] >= SENDS


def test_a_state_in_the_archive_makes_the_import_fast(holdfast: Holdfast, paid: str, tmp_path: Path) -> None:
    plain, file = tmp_path / "plain.car", tmp_path / "state.car"
    holdfast("ledger", "export", plain, "--ledger", paid)
    told = holdfast("ledger", "export", file, "--state", "--ledger", paid, "--json").json
    assert holdfast("ledger", "verify-history", file, "--json").json["tip"] == told["tip"]
    assert "holds no state" in holdfast.fails(4, "ledger", "import", plain, "--snapshot")
    holdfast.fails(2, "ledger", "import", "-", "--snapshot", stdin=plain.read_bytes())
    got = holdfast("ledger", "import", file, "--snapshot", "--json").json
    assert got["app_hash"] == told["app_hash"]
    assert "began with a later state" in holdfast.fails(3, "ledger", "export", tmp_path / "x.car")


@pytest.fixture
def snapped(holdfast: Holdfast, operator: Home, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, int]]:
    """The URL of a running ledger that has a snapshot, and the snapshot's height."""
    operator.config.set("ledger.snapshot_blocks", 2)
    with serving(ledger_service(operator, "127.0.0.1:0", asyncio.Event())) as url:
        receiver = holdfast("wallet", "new", "receiver").text
        monkeypatch.setenv("HOLDFAST_HOME", str(operator.path))
        deadline = time.monotonic() + 90
        while not (height := holdfast("ledger", "status", "--json").json["snapshot_height"]):
            assert time.monotonic() < deadline
            holdfast("wallet", "send", receiver, "1", "--key", "operator", "--yes")
        holdfast("wallet", "send", receiver, "1", "--key", "operator", "--yes")
        monkeypatch.setenv("HOLDFAST_HOME", str(holdfast.home))
        yield url, height


def test_a_made_up_history_of_the_chains_name_is_not_called_sound(
    holdfast: Holdfast, paid: str, tmp_path: Path
) -> None:
    """Anybody can make a chain of that name, and whole: it is the operator's signature that tells."""
    home = Home(tmp_path / "impostor", {})
    init_ledger(home, DEMO_PARAMS, "town")
    file = tmp_path / "made-up.car"
    with serving(ledger_service(home, "127.0.0.1:0", asyncio.Event())) as url:
        holdfast("ledger", "export", file, "--ledger", url)
    impostor = peer_text(read_genesis(home).operator)
    assert f"town of {impostor} is sound" in holdfast("ledger", "verify-history", file).text
    holdfast("ledger", "join", paid, "--yes")
    assert impostor in holdfast.fails(4, "ledger", "verify-history", file)


def test_a_running_ledgers_snapshot_spares_running_its_history(
    holdfast: Holdfast, snapped: tuple[str, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url, height = snapped
    file = tmp_path / "town.car"
    exported = holdfast("ledger", "export", file, "--state", "--from", url, "--json")
    assert f"after block {height}," in exported.stderr
    assert not (holdfast.home / "verify-history").exists()
    assert holdfast("ledger", "verify-history", file, "--json").json["tip"] == exported.json["tip"]
    for number, source in enumerate((file, url)):
        monkeypatch.setenv("HOLDFAST_HOME", str(tmp_path / f"new{number}"))
        imported = holdfast("ledger", "import", source, "--snapshot")
        assert f"blocks 1 to {height};" in imported.stderr
        assert exported.json["app_hash"] in imported.text
        holdfast("config", "set", "ledger.keep_days", "0")
        assert "began with a later state" in holdfast.fails(3, "ledger", "export", tmp_path / "x.car")


def test_a_snapshot_that_is_not_the_signed_state_is_refused(
    holdfast: Holdfast, operator: Home, snapped: tuple[str, int], tmp_path: Path
) -> None:
    from ledger.engine.archive import state_manifest, write_state
    from ledger.engine.archive_reader import SnapshotReader
    from merkledag import car

    url, height = snapped
    file = operator.ledger / "snapshots" / f"{height:020d}.car"
    whole = file.read_bytes()
    with file.open("rb") as opened:
        reader = SnapshotReader(opened)
        items = dict(reader.state())
    items[next(iter(items))] += b"\x00"
    lie = state_manifest(items.items(), "town", height, reader.manifest.app_hash)
    with file.open("wb") as forged:
        forged.write(car.header([lie.cid]))
        write_state(forged.write, lie, items.items())
    for command in (["export", tmp_path / "x.car", "--state", "--from", url], ["import", url, "--snapshot"]):
        assert "app hash" in holdfast.fails(4, "ledger", *command)
    assert not list(tmp_path.glob("x.car"))
    elsewhere = state_manifest(items.items(), "town", height, bytes(32))
    file.write_bytes(car.header([elsewhere.cid]) + whole[len(car.header([lie.cid])) :])
    holdfast.fails(5, "ledger", "import", url, "--snapshot")
    file.write_bytes(whole[:-1])
    holdfast.fails(4, "ledger", "import", url, "--snapshot")
    file.write_bytes(whole)
    holdfast("ledger", "import", url, "--snapshot")


def test_a_state_that_the_operator_did_not_sign_is_refused(
    holdfast: Holdfast, paid: str, tmp_path: Path
) -> None:
    from ledger.engine.archive import Manifest, head, sections, state_manifest, write_state
    from ledger.engine.archive_reader import ArchiveReader

    file = tmp_path / "state.car"
    holdfast("ledger", "export", file, "--state", "--ledger", paid)
    with file.open("rb") as opened:
        reader = ArchiveReader(opened)
        items = dict(reader.contents.state())
        blocks = list(reader.blocks())
    manifest, genesis = reader.contents.manifest, reader.contents.genesis
    items[next(iter(items))] += b"\x00"
    state = state_manifest(items.items(), manifest.chain, manifest.last, manifest.app_hash)
    lie = Manifest(**{**manifest.to_map(), "state": state.cid})
    with file.open("wb") as forged:
        forged.write(head(lie, genesis))
        write_state(forged.write, state, items.items())
        forged.write(b"".join(map(sections, blocks)))
    assert "app hash" in holdfast.fails(4, "ledger", "import", file, "--snapshot")
    assert "app hash" in holdfast.fails(4, "ledger", "import", file, "--as-chain", "next")
    holdfast("ledger", "import", file)  # the blocks themselves are sound


@pytest.mark.parametrize("state", [True, False])
def test_a_chain_goes_on_as_another_one(holdfast: Holdfast, paid: str, tmp_path: Path, state: bool) -> None:
    """Lost keys, or another engine: who had money has it, under a new name and a new operator."""
    file, onward = tmp_path / "town.car", tmp_path / "city.car"
    receiver = holdfast("key", "show", "receiver", "--json").json["public"]
    old = holdfast("ledger", "status", "--ledger", paid, "--json").json
    holdfast("ledger", "export", file, *(["--state"] if state else []), "--ledger", paid)
    holdfast.fails(2, "ledger", "import", file, "--as-chain", "town")
    holdfast.fails(2, "ledger", "import", file, "--as-chain", "City Hall")
    made = holdfast("ledger", "import", file, "--as-chain", "city", "--json").json
    assert made["origin"]["app_hash"] == old["app_hash"]
    own = Home(holdfast.home, {})
    with serving(ledger_service(own, "127.0.0.1:0", asyncio.Event())) as url:
        status = holdfast("ledger", "status", "--json").json
        assert (status["height"], status["chain_id"], status["time"]) == (0, "city", old["time"])
        for name in ("issued", "balances", "escrow", "collateral", "burned"):
            assert status[name] == old[name]
        assert status["operator"] != old["operator"]
        assert holdfast("wallet", "balance", "--key", "receiver", "--json").json["balance"] == SENDS * 10**9
        holdfast("wallet", "send", holdfast("wallet", "new", "b").text, "1", "--key", "receiver", "--yes")
        assert holdfast("ledger", "verify-history", "--json").json["height"] == 1
        holdfast("ledger", "export", onward, "--ledger", url)
    assert holdfast("ledger", "verify-history", "--json").json["chain_id"] == "city"
    assert holdfast("ledger", "verify-history", onward, "--json").json["height"] == 1
    assert receiver


def test_a_chain_may_go_on_twice(
    holdfast: Holdfast, paid: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "0.car"
    holdfast("ledger", "export", file, "--ledger", paid)
    for number in (1, 2):
        home = Home(tmp_path / f"home{number}", {})
        monkeypatch.setenv("HOLDFAST_HOME", str(home.path))
        said = holdfast("ledger", "import", file, "--as-chain", f"town-{number}").text
        assert f"ledger join URL --chain town-{number} --operator k51" in said
        with serving(ledger_service(home, "127.0.0.1:0", asyncio.Event())):
            (home.keys / "receiver.key").write_bytes((holdfast.home / "keys" / "receiver.key").read_bytes())
            to = holdfast("wallet", "new", "b").text
            holdfast("wallet", "send", to, "0.1", "--key", "receiver", "--yes")
        file = tmp_path / f"{number}.car"
        holdfast("ledger", "export", file, *(["--state"] if number == 2 else []))
        holdfast("ledger", "verify-history", file)
    monkeypatch.setenv("HOLDFAST_HOME", str(tmp_path / "mirror"))
    holdfast("ledger", "import", file)
    again = tmp_path / "again.car"
    holdfast("ledger", "export", again, "--state")
    assert again.read_bytes() == file.read_bytes()
