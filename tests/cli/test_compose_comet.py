"""The wiring of a ledger on CometBFT: where it listens, and the keys that its beacons are signed with."""

from __future__ import annotations

from pathlib import Path

import pytest

from cli.beacon_keys import BeaconKeys
from cli.compose_comet import abci_address
from cli.home import Home
from cli.keystore import BLS12_381, ED25519


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
    with abci_address(Home(tmp_path)) as address:
        assert address == f"unix://{tmp_path}/run/abci.sock"
    with abci_address(Home(tmp_path / ("x" * 100))) as address:
        folder = Path(address.removeprefix("unix://")).parent
        assert folder.stat().st_mode & 0o777 == 0o700
        assert len(address) < 100
    assert not folder.exists()
