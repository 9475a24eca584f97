"""CometBFT's folder as we write it: what the real program takes, and who may read it."""

from __future__ import annotations

import json
import re
import shutil
import stat
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest

from ledger.engine.cometbft.home.chain_params import consensus_params
from ledger.engine.cometbft.home.config import PROFILES, CometConfig, StateSync, is_peer, parse_trust
from ledger.engine.cometbft.home.genesis_file import genesis_bytes, install_genesis
from ledger.engine.cometbft.home.keys import (
    create_node_key,
    create_validator_key,
    node_id,
    node_signer,
    read_public,
    validator_signer,
)
from ledger.engine.cometbft.home.layout import CometFilesError, CometHome
from ledger.engine.cometbft.home.signing import MayHaveSigned, Memory, Signed, last_signed
from ledger.errors import InvalidGenesis
from ledger.genesis import HOLD, Genesis, GenesisValidator, Params
from merkledag.ed25519 import Ed25519Signer
from proofs.bls.signatures import BlsSigner
from tests.ledger.cometbft.processes import find_cometbft

SYNC = StateSync(("http://10.0.0.1:26657",), 1000, "AB" * 32, 3600)
PEER = f"{'0a' * 20}@validator.example:26656"
ODD_NAME = 'ein "Knoten" \\ in Köln\x7f'


def comet_home(folder: Path, seed: bytes = bytes([1]) * 32) -> CometHome:
    home = CometHome(folder / "cometbft")
    home.create()
    create_node_key(home, bytes(32))
    create_validator_key(home, seed)
    return home


def genesis_of(home: CometHome, chain_id: str = "harbour") -> Genesis:
    bls, account = BlsSigner.from_seed(bytes(32)), Ed25519Signer.from_seed(bytes([2]) * 32).public_key
    validator = GenesisValidator(
        account, validator_signer(home).public_key, bls.public_key, bls.prove_possession(), 7
    )
    return Genesis.make(
        chain_id=chain_id,
        time_s=1_800_000_000,
        operator=account,
        bls_key=bls.public_key,
        bls_possession=bls.prove_possession(),
        issued=HOLD,
        params=Params(),
        validators=(validator,),
    )


def sign(home: CometHome, height: int, round_: int = 0, step: int = 3) -> None:
    """What CometBFT writes after it signed."""
    document = {"height": str(height), "round": round_, "step": step, "signature": "AA==", "signbytes": "00"}
    temporary = home.validator_state_file.with_suffix(".tmp")
    temporary.write_text(json.dumps(document))
    temporary.chmod(0o600)
    temporary.replace(home.validator_state_file)


def cometbft(*arguments: str) -> str:
    done = subprocess.run(
        [str(find_cometbft()), *arguments], capture_output=True, text=True, timeout=30, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.strip()


@pytest.mark.peers
@pytest.mark.parametrize("profile", PROFILES.values(), ids=PROFILES)
def test_every_setting_that_we_write_is_one_of_cometbft(tmp_path: Path, profile: Any) -> None:
    """A misspelled one would be passed over in silence, so names and types are compared with its own file."""
    cometbft("init", "--home", str(tmp_path / "theirs"))
    theirs = tomllib.loads((tmp_path / "theirs/config/config.toml").read_text())
    config = CometConfig(ODD_NAME, profile, peers=(PEER,), metrics_listen="127.0.0.1:26660", sync=SYNC)
    ours = tomllib.loads(config.text())

    assert ours["moniker"] == ODD_NAME
    checked = 0
    for section, table in ours.items():
        values = table.items() if isinstance(table, dict) else [("", table)]
        for name, value in values:
            known = theirs[section][name] if name else theirs[section]
            assert type(known) is type(value), (section, name)
            if isinstance(known, str) and re.fullmatch(r"(\d+(ms|s|m|h))+", known):
                assert re.fullmatch(r"\d+(ms|s)", value), (section, name)
            checked += 1
    assert checked > 25


@pytest.mark.peers
def test_cometbft_takes_our_configuration_keys_and_genesis(tmp_path: Path) -> None:
    home = comet_home(tmp_path)
    config = CometConfig(ODD_NAME, PROFILES["laptop"], peers=(PEER,), sync=SYNC)
    home.config_file.write_text(config.text())
    install_genesis(home, genesis_of(home))

    key = json.loads(cometbft("show-validator", "--home", str(home.path)))
    shown = cometbft("show-node-id", "--home", str(home.path))

    assert read_public(key) == validator_signer(home).public_key
    assert shown == node_id(node_signer(home).public_key)
    # `init` on top keeps every file that it takes for its own.
    before = {path: path.read_bytes() for path in home.path.rglob("*.*") if path.is_file()}
    told = cometbft("init", "--home", str(home.path))
    assert "Found private validator" in told
    assert "Found node key" in told
    assert "Found genesis file" in told
    assert {path: path.read_bytes() for path in before} == before
    assert sorted(home.peers()) == [PEER]


def test_keys_are_their_owners_alone_and_never_replaced(tmp_path: Path) -> None:
    home = comet_home(tmp_path)
    files = [home.node_key_file, home.validator_key_file, home.validator_state_file]
    before = [path.read_bytes() for path in files]
    assert [stat.S_IMODE(path.stat().st_mode) for path in files] == [0o600] * 3
    assert stat.S_IMODE(home.data.stat().st_mode) == 0o700

    sign(home, 12)
    create_node_key(home, bytes([8]) * 32)
    create_validator_key(home, bytes([9]) * 32)

    assert [path.read_bytes() for path in files[:2]] == before[:2]
    assert last_signed(home) == Signed(12, 0, 3)
    home.validator_key_file.chmod(0o640)
    with pytest.raises(CometFilesError, match="others may read"):
        validator_signer(home)


def test_a_key_that_is_lost_leaves_its_state_to_nobody(tmp_path: Path) -> None:
    home = comet_home(tmp_path)
    home.validator_key_file.unlink()
    with pytest.raises(CometFilesError, match="its key"):
        create_validator_key(home, bytes([9]) * 32)
    assert not home.validator_key_file.exists()


@pytest.mark.parametrize("damage", ["{", "[]", '{"priv_key": 1}', "{}", "\udcff"])
def test_a_damaged_key_is_said_to_be_one(tmp_path: Path, damage: str) -> None:
    home = comet_home(tmp_path)
    home.node_key_file.write_bytes(damage.encode(errors="surrogateescape"))
    with pytest.raises(CometFilesError, match=re.escape(str(home.node_key_file))):
        node_signer(home)


def test_halves_of_two_keys_are_no_key(tmp_path: Path) -> None:
    home = comet_home(tmp_path)
    document = json.loads(home.validator_key_file.read_text())
    document["pub_key"]["value"] = "A" * 43 + "="
    home.validator_key_file.write_text(json.dumps(document))
    with pytest.raises(CometFilesError, match="do not belong together"):
        validator_signer(home)


def ran(home: CometHome, *signed: int) -> Memory:
    """A validator that signed here, the last time so."""
    memory = Memory(home)
    sign(home, *signed)
    memory.note()
    return memory


def test_a_validator_that_ran_here_goes_on(tmp_path: Path) -> None:
    home = comet_home(tmp_path)
    ran(home, 5)
    sign(home, 6)  # and then its machine lost power
    assert Memory(home).note() == Signed(6, 0, 3)


@pytest.mark.parametrize("moved", [False, True])
@pytest.mark.parametrize("older", [(5, 0, 3), (9, 1, 3), (9, 2, 2)])
def test_an_older_memory_is_refused_whatever_the_operator_says(
    tmp_path: Path, older: tuple[int, int, int], moved: bool
) -> None:
    home = comet_home(tmp_path)
    ran(home, 9, 2, 3)
    sign(home, *older)
    with pytest.raises(MayHaveSigned, match="older copy"):
        Memory(home, moved=moved)


def test_a_copy_is_refused_until_it_signs_where_the_operator_says_that_it_moved(tmp_path: Path) -> None:
    home = comet_home(tmp_path)
    ran(home, 9)
    copy = CometHome(tmp_path / "copy")
    subprocess.run(["cp", "-a", str(home.path), str(copy.path)], check=True)

    with pytest.raises(MayHaveSigned, match=r"copied or restored.*height 9"):
        Memory(copy)
    Memory(home)
    moved = Memory(copy, moved=True)
    assert moved.is_foreign
    moved.note()  # cometbft found signatures of the key in the last blocks, and ended: nothing was signed
    with pytest.raises(MayHaveSigned, match="copied or restored"):
        Memory(copy)
    sign(copy, 30)
    moved.note()
    assert not Memory(copy).is_foreign


def test_files_put_back_over_themselves_are_a_copy(tmp_path: Path) -> None:
    home = comet_home(tmp_path)
    memory = ran(home, 9)
    subprocess.run(["cp", "-a", str(home.path), str(tmp_path / "backup")], check=True)
    sign(home, 50)
    memory.note()
    for path in home.data.iterdir():
        path.rename(path.with_suffix(".old"))
        subprocess.run(["cp", "-a", str(tmp_path / "backup/data" / path.name), str(path)], check=True)
    with pytest.raises(MayHaveSigned, match="copied or restored"):
        Memory(home)


def test_a_key_that_ran_under_another_program_is_asked_about(tmp_path: Path) -> None:
    home = comet_home(tmp_path)
    sign(home, 3)
    with pytest.raises(MayHaveSigned, match="--moved"):
        Memory(home)


@pytest.mark.parametrize("has_run", [False, True])
def test_a_key_in_the_place_of_another_needs_a_memory_of_its_own(tmp_path: Path, has_run: bool) -> None:
    """A follower that was joined to take a lost validator's key: its empty memory would sign all again."""
    home, lost = comet_home(tmp_path / "new"), comet_home(tmp_path / "lost", seed=bytes(range(32)))
    if has_run:
        Memory(home)
    shutil.copy(lost.validator_key_file, home.validator_key_file)
    for moved in (False, True):
        with pytest.raises(MayHaveSigned, match="in the place of the one that was made here"):
            Memory(home, moved=moved)
    sign(home, 130)
    with pytest.raises(MayHaveSigned, match="--moved"):
        Memory(home)
    memory = Memory(home, moved=True)
    assert memory.is_foreign
    sign(home, 131)
    memory.note()
    assert not Memory(home).is_foreign


def test_a_follower_that_never_signed_may_be_copied(tmp_path: Path) -> None:
    home = comet_home(tmp_path)
    Memory(home)
    home.path.rename(tmp_path / "kept")
    subprocess.run(["cp", "-a", str(tmp_path / "kept"), str(home.path)], check=True)
    assert not Memory(home).is_foreign


def test_a_home_that_was_reset_does_not_sign_all_again(tmp_path: Path) -> None:
    home = comet_home(tmp_path)
    ran(home, 9)
    shutil.rmtree(home.data)  # this is `cometbft unsafe-reset-all`
    home.data.mkdir()
    sign(home, 0, step=0)
    for moved in (False, True):
        with pytest.raises(MayHaveSigned, match="unsafe-reset-all"):
            Memory(home, moved=moved)
    sign(home, 109)
    memory = Memory(home, moved=True)
    sign(home, 110)
    memory.note()
    assert not Memory(home).is_foreign


def test_a_memory_that_is_gone_is_refused(tmp_path: Path) -> None:
    home = comet_home(tmp_path)
    home.validator_state_file.unlink()
    for moved in (False, True):
        with pytest.raises(MayHaveSigned, match="is missing"):
            Memory(home, moved=moved)


@pytest.mark.parametrize("damage", ["", "{}", '{"height": "-1", "round": 0, "step": 0}', '{"height": "x"}'])
def test_a_memory_that_is_damaged_is_refused(tmp_path: Path, damage: str) -> None:
    home = comet_home(tmp_path)
    home.validator_state_file.write_text(damage)
    with pytest.raises(
        CometFilesError, match=r"state\.json is damaged.* the height of the chain and 100 more as H"
    ):
        Memory(home)


@pytest.mark.parametrize("damage", ["", "{}", "\0" * 256])
def test_a_watermark_that_is_damaged_may_be_removed_by_who_knows_where_the_key_ran(
    tmp_path: Path, damage: str
) -> None:
    home = comet_home(tmp_path)
    ran(home, 9)
    home.watermark_file.write_text(damage)
    with pytest.raises(CometFilesError, match="remove this file and start with --moved"):
        Memory(home, moved=True)
    home.watermark_file.unlink()
    with pytest.raises(MayHaveSigned, match="copied or restored"):
        Memory(home)
    Memory(home, moved=True)


def test_a_height_that_was_written_as_a_number_is_refused_with_what_to_write(tmp_path: Path) -> None:
    home = comet_home(tmp_path)
    home.validator_state_file.write_text('{"height": 5765, "round": 0, "step": 0}')
    with pytest.raises(CometFilesError, match='"height": "5765"'):
        Memory(home, moved=True)


def test_every_validator_has_the_same_genesis_file(tmp_path: Path) -> None:
    home = comet_home(tmp_path)
    genesis = genesis_of(home)
    install_genesis(home, genesis)
    install_genesis(home, Genesis.loads(genesis.dumps()))
    assert home.genesis_file.read_bytes() == genesis_bytes(genesis)
    assert Genesis.from_json(json.loads(home.genesis_file.read_text())["app_state"]) == genesis

    with pytest.raises(CometFilesError, match="not of the chain"):
        install_genesis(home, genesis_of(home, "another"))
    with pytest.raises(InvalidGenesis, match="50 bytes"):
        genesis_bytes(genesis_of(home, "x" * 51))


def test_a_chain_of_other_consensus_parameters_is_left_as_it_is(tmp_path: Path) -> None:
    """To write its file anew would make it another chain's."""
    home = comet_home(tmp_path)
    genesis = genesis_of(home)
    install_genesis(home, genesis)
    document = json.loads(home.genesis_file.read_text())
    document["consensus_params"]["evidence"]["max_age_num_blocks"] = "7"
    home.genesis_file.write_text(json.dumps(document))
    with pytest.raises(CometFilesError, match="run the release that the chain was made with"):
        install_genesis(home, genesis)


def test_the_consensus_parameters_of_all_chains_stay_as_they_are() -> None:
    """They are in the consensus hash of each header, and follow from the program alone: see chain_params."""
    assert consensus_params() == {
        "block": {"max_bytes": "4194304", "max_gas": "-1"},
        "evidence": {
            "max_age_num_blocks": "100000",
            "max_age_duration": "864000000000000",
            "max_bytes": "1048576",
        },
        "validator": {"pub_key_types": ["ed25519"]},
        "version": {"app": "1"},
        "abci": {"vote_extensions_enable_height": "0"},
    }


@pytest.mark.parametrize(
    ("listen", "url"),
    [
        ("0.0.0.0:26657", "http://127.0.0.1:26657"),
        ("127.0.0.1:9", "http://127.0.0.1:9"),
        ("[::]:80", "http://[::1]:80"),
    ],
)
def test_the_rpc_is_found_by_its_configuration(tmp_path: Path, listen: str, url: str) -> None:
    home = comet_home(tmp_path)
    home.config_file.write_text(CometConfig("m", PROFILES["lan"], rpc_listen=listen).text())
    assert home.rpc_url() == url


@pytest.mark.parametrize(
    "text", ["", "[rpc", "rpc = 1", '[rpc]\nladdr = "unix:///x"', '[rpc]\nladdr = "tcp://a:0"']
)
def test_a_configuration_without_an_rpc_is_refused(tmp_path: Path, text: str) -> None:
    home = comet_home(tmp_path)
    home.config_file.write_text(text)
    with pytest.raises(CometFilesError, match=re.escape(str(home.config_file))):
        home.rpc_url()


@pytest.mark.parametrize(
    "text", ["", "a@b:1", f"{'0a' * 20}@h", f"{'0a' * 20}@h:0", f"{'0a' * 20}@h:99999", f'{"0a" * 20}@a",b:1']
)
def test_what_is_no_peer_is_refused(text: str) -> None:
    assert not is_peer(text)


@pytest.mark.parametrize("text", ["", "12", "0:" + "a" * 64, "1:" + "a" * 63, "-1:" + "a" * 64])
def test_what_is_no_trusted_block_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="HEIGHT:HASH"):
        parse_trust(text)
