"""The wiring of a ledger on CometBFT: where it listens, and the keys that its beacons are signed with."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from cli.beacon_keys import BeaconKeys
from cli.comet_abci import CometRun, abci_address
from cli.home import Home
from cli.keystore import BLS12_381, ED25519
from cli.output import CommandError
from ledger.engine.cometbft.abci.listening import listen


def test_a_beacon_key_that_comes_while_the_ledger_runs_is_found(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    home = Home(tmp_path)
    first = home.bls_signer().public_key
    keys = BeaconKeys(home)
    assert list(keys) == [first]
    second = bytes.fromhex(home.keystore().create("beacon-2", BLS12_381).public)
    home.keystore().create("mine", ED25519)
    assert keys[second].public_key == second
    assert keys[first].public_key == first
    assert len(keys) == 2
    assert keys.get(bytes(48)) is None
    # One that is sealed, without its passphrase, is none that can be used: the ledger goes on
    sealed = home.keystore().create("beacon-3", BLS12_381, passphrase=b"a secret that nobody gives")
    capsys.readouterr()
    assert keys.get(bytes.fromhex(sealed.public)) is None
    assert "beacon-3" in capsys.readouterr().err


def test_the_socket_is_in_the_home_unless_its_path_is_too_long(tmp_path: Path) -> None:
    with abci_address(Home(tmp_path), CometRun()) as address:
        assert address == f"unix://{tmp_path}/run/abci.sock"
    with abci_address(Home(tmp_path / ("x" * 100)), CometRun()) as address:
        folder = Path(address.removeprefix("unix://")).parent
        assert folder.stat().st_mode & 0o777 == 0o700
        assert len(address) < 100
    assert not folder.exists()


@pytest.fixture
def temporary(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder for temporary files, with a short path."""
    with tempfile.TemporaryDirectory() as folder:
        monkeypatch.setattr(tempfile, "tempdir", folder)
        yield Path(folder)


def test_a_killed_ledgers_short_folder_is_found_again_and_nobody_elses_is_taken(
    tmp_path: Path, temporary: Path
) -> None:
    home = Home(tmp_path / ("x" * 100))
    killed = abci_address(home, CometRun())
    folder = Path(killed.__enter__().removeprefix("unix://")).parent
    listen(f"unix://{folder}/abci.sock").close()  # and stays, as after a kill
    with abci_address(home, CometRun()) as address:
        assert Path(address.removeprefix("unix://")).parent == folder
        listen(address).close()
        with abci_address(Home(tmp_path / ("y" * 100)), CometRun()) as other:
            assert not other.startswith(f"unix://{folder}/")
    assert not list(temporary.iterdir())

    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir(mode=0o700)

    def linked() -> None:
        folder.symlink_to(elsewhere)

    def entered_by_others() -> None:
        folder.mkdir()
        folder.chmod(0o755)

    for taken in (linked, entered_by_others, folder.touch):
        taken()
        with abci_address(home, CometRun()) as address:
            listen(address).close()
            assert Path(address.removeprefix("unix://")).parent != folder
        assert list(temporary.iterdir()) == [folder]
        if taken == entered_by_others:
            folder.rmdir()
        else:
            folder.unlink()
    assert not list(elsewhere.iterdir())


@pytest.mark.parametrize(
    ("abci", "hosts", "supervised", "refused"),
    [
        ("tcp://127.0.0.1:0", "", True, ""),
        ("tcp://[::1]:26658", "", True, ""),
        ("tcp://127.0.0.1:26658", "", False, ""),
        ("tcp://10.1.2.3:26658", "", False, ""),
        ("tcp://[fd00::1]:26658", "", False, ""),
        ("tcp://0.0.0.0:26658", "10.89.0.0/16,10.1.2.3", False, ""),
        ("tcp://8.8.8.8:26658", "8.8.4.4", False, ""),
        ("tcp://0.0.0.0:26658", "", False, "abci_from"),
        ("tcp://[::]:26658", "", False, "abci_from"),
        ("tcp://8.8.8.8:26658", "", False, "abci_from"),
        ("tcp://[2600::1]:26658", "", False, "abci_from"),
        ("tcp://127.0.0.1:0", "", False, "cannot be 0"),
        ("tcp://10.1.2.3:26658", "10.1.2.4", True, "--no-supervise"),
        ("tcp://127.0.0.1", "", True, "write tcp://ADDRESS:PORT"),
        ("unix:///tmp/socket", "", True, "write tcp://ADDRESS:PORT"),
        ("tcp://127.0.0.1:26658", "10.1.2.3/8", False, "is no address or network"),
    ],
)
def test_a_port_for_cometbft_is_not_opened_to_everybody(
    tmp_path: Path, abci: str, hosts: str, supervised: bool, refused: str
) -> None:
    """Whoever reaches it makes blocks: a public address takes a second word, in the flag or the setting."""
    for flag, variables in ((abci, {}), ("", {"HOLDFAST_LEDGER_ABCI": abci})):
        home = Home(tmp_path, variables | ({"HOLDFAST_LEDGER_ABCI_FROM": hosts} if hosts else {}))
        run = CometRun(supervised=supervised, abci=flag)
        if refused:
            with pytest.raises(CommandError, match=refused), abci_address(home, run):
                pass
        else:
            with abci_address(home, run) as found:
                assert found == abci
