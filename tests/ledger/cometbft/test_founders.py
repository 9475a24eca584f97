"""Several founders make one chain: what each hands in, what all get back, and what none can slip in."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cli.comet_init import FOUNDING_FILE, Places, init_comet_ledger, own_founder, take_founding
from cli.comet_service import comet_home
from cli.home import Home
from cli.ledger_files import genesis_file, read_genesis
from cli.output import CommandError, ExitCode
from ledger.engine.cometbft.home.chain_params import EVIDENCE_S
from ledger.engine.cometbft.home.founders import Founder, Founding, read_founder
from ledger.engine.cometbft.home.genesis_file import genesis_bytes
from ledger.engine.cometbft.home.keys import validator_signer
from ledger.errors import InvalidGenesis
from ledger.genesis import DEMO_PARAMS, Params
from merkledag.ed25519 import Ed25519Signer

NAMES = ("alice", "bob", "carol")


class Ceremony:
    """Three homes and their founders' files."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.homes = {name: Home(folder / name, {}) for name in NAMES}
        self.places = {name: Places("lan", external=f"{name}.example:26656") for name in NAMES}
        self.files = [self.hand_in(name) for name in NAMES]

    def hand_in(self, name: str) -> Path:
        founder = own_founder(self.homes[name], "harbour", self.places[name])
        path = self.folder / f"{name}.json"
        path.write_text(json.dumps(founder.to_json()))
        return path

    def collect(self) -> Path:
        alice = self.homes["alice"]
        init_comet_ledger(alice, Params(), places=self.places["alice"], founders=self.files)
        return alice.ledger / FOUNDING_FILE


@pytest.fixture
def ceremony(tmp_path: Path) -> Ceremony:
    return Ceremony(tmp_path)


def test_all_founders_come_to_the_same_genesis_and_know_each_other(ceremony: Ceremony) -> None:
    founding = ceremony.collect()
    for name in NAMES[1:]:
        take_founding(ceremony.homes[name], founding, ceremony.places[name])

    genesis = read_genesis(ceremony.homes["alice"])
    assert genesis.chain_id == "harbour"
    assert len(genesis.validators) == 3
    for name, home in ceremony.homes.items():
        comet = comet_home(home)
        assert read_genesis(home) == genesis
        assert comet.genesis_file.read_bytes() == genesis_bytes(genesis)
        peers = sorted(peer.partition("@")[2] for peer in comet.peers())
        assert peers == [f"{other}.example:26656" for other in NAMES if other != name]
        assert home.config.text("ledger.engine") == "cometbft"


def test_handing_in_again_changes_no_key(ceremony: Ceremony) -> None:
    before = ceremony.files[1].read_text()
    ceremony.hand_in("bob")
    assert ceremony.files[1].read_text() == before


def changed(change: Callable[[dict[str, Any]], object], document: dict[str, Any]) -> bytes:
    change(document)
    return json.dumps(document).encode()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda d: d.update(peer=d["peer"].replace("bob", "eve")), "not signed by the account"),
        (lambda d: d.update(chain_id="another"), "not signed by the account"),
        (lambda d: d["validator"].update(power=10**6), "not signed by the account"),
        (lambda d: d.update(consensus_signature="00" * 64), "not signed by the consensus key"),
        (lambda d: d.update(account_signature="zz"), "not a founder's file"),
        (lambda d: d.update(format="holdfast-founder-2"), "of this version"),
        (lambda d: d.update(chain_id=7), "not a founder's file"),
        (lambda d: d.update(validator=[]), "not a founder's file"),
        (lambda d: d.pop("peer"), "not a founder's file"),
    ],
)
def test_a_founders_file_that_was_changed_is_refused(
    ceremony: Ceremony, change: Callable[[dict[str, Any]], object], said: str
) -> None:
    raw = changed(change, json.loads(ceremony.files[1].read_text()))
    with pytest.raises(InvalidGenesis, match=re.escape(said)):
        read_founder(raw)


@pytest.mark.parametrize("raw", [b"", b"[]", b"null", b"7", b"[" * 100_000, b"\xff", b'"holdfast-founder-1"'])
def test_bytes_that_are_no_founding_are_refused(raw: bytes) -> None:
    for parse in (read_founder, Founding.loads):
        with pytest.raises(InvalidGenesis):
            parse(raw)


def test_nobody_founds_with_anothers_consensus_key(ceremony: Ceremony) -> None:
    """It would take that key's votes for its own account."""
    founders = [read_founder(path.read_bytes()) for path in ceremony.files]
    eve = Ed25519Signer.from_seed(bytes([7]) * 32)
    stolen = replace(founders[1], validator=replace(founders[1].validator, account=eve.public_key))
    with pytest.raises(InvalidGenesis, match="consensus key"):
        stolen.signed(eve, eve).check()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda d: d["founders"].pop(), "other validators than the founders"),
        (lambda d: d["founders"].reverse(), "other validators than the founders"),
        (lambda d: d["genesis"]["validators"].pop(), "other validators than the founders"),
        (lambda d: d["genesis"].update(chain_id="another"), "signed for chain harbour"),
        (lambda d: d["genesis"].update(issued=0), "issued"),
        (lambda d: d.update(founders={}), "founding file"),
    ],
)
def test_a_founding_that_the_collector_changed_is_refused(
    ceremony: Ceremony, change: Callable[[dict[str, Any]], object], said: str
) -> None:
    path = ceremony.collect()
    path.write_bytes(changed(change, json.loads(path.read_text())))
    bob = ceremony.homes["bob"]
    with pytest.raises(CommandError, match=re.escape(said)) as caught:
        take_founding(bob, path, ceremony.places["bob"])
    assert caught.value.code is ExitCode.INVALID
    assert not genesis_file(bob).exists()


def test_who_is_not_among_the_founders_gets_no_ledger(ceremony: Ceremony, tmp_path: Path) -> None:
    del ceremony.files[2]
    founding = ceremony.collect()
    with pytest.raises(InvalidGenesis, match="not among the founders"):
        take_founding(ceremony.homes["carol"], founding, ceremony.places["carol"])
    with pytest.raises(CommandError, match="holdfast ledger founder"):
        take_founding(Home(tmp_path / "dave", {}), founding, Places("lan", external="dave.example:1"))


def test_a_collector_must_be_a_founder(ceremony: Ceremony, tmp_path: Path) -> None:
    dave = Home(tmp_path / "dave", {})
    with pytest.raises(InvalidGenesis, match="not among the founders"):
        init_comet_ledger(dave, DEMO_PARAMS, founders=ceremony.files)
    assert not genesis_file(dave).exists()


def test_founders_of_two_chains_are_no_chain(ceremony: Ceremony, tmp_path: Path) -> None:
    other = own_founder(Home(tmp_path / "dave", {}), "other", Places("lan", external="dave.example:1"))
    path = tmp_path / "dave.json"
    path.write_text(json.dumps(other.to_json()))
    with pytest.raises(InvalidGenesis, match="signed for chain other"):
        init_comet_ledger(ceremony.homes["alice"], DEMO_PARAMS, founders=[*ceremony.files, path])


@pytest.mark.parametrize(
    ("chain", "external", "said"),
    [
        ("har bour", "dave.example:26656", "--chain-id har bour: .* are allowed"),
        ("c" * 51, "dave.example:26656", "at most 50 bytes"),
        ("harbour", "http://dave.example:26656", "--external-address .*: write HOST:PORT"),
        ("harbour", "dave example:26656", "--external-address"),
        ("harbour", "dave.example", "--external-address"),
        ("harbour", "dave.example:0", "--external-address"),
    ],
)
def test_what_no_chain_can_begin_with_is_refused_before_there_are_keys(
    tmp_path: Path, chain: str, external: str, said: str
) -> None:
    dave = Home(tmp_path / "dave", {})
    with pytest.raises(CommandError, match=said) as refused:
        own_founder(dave, chain, Places("lan", external=external))
    assert refused.value.code == ExitCode.USAGE
    assert not dave.path.exists()


def test_the_same_founder_twice_is_refused(ceremony: Ceremony) -> None:
    with pytest.raises(InvalidGenesis, match="the same"):
        init_comet_ledger(ceremony.homes["alice"], DEMO_PARAMS, founders=[*ceremony.files, ceremony.files[0]])


def test_a_home_has_one_ledger(ceremony: Ceremony) -> None:
    founding = ceremony.collect()
    with pytest.raises(CommandError, match="has a ledger already"):
        take_founding(ceremony.homes["alice"], founding, ceremony.places["alice"])


def test_keys_in_a_founding_must_be_this_homes(ceremony: Ceremony, tmp_path: Path) -> None:
    """The collector signs for keys of its own under bob's name, but cannot have bob take them for his."""
    bob, comet = ceremony.homes["bob"], comet_home(ceremony.homes["bob"])
    founders = [read_founder(path.read_bytes()) for path in ceremony.files]
    eve = Ed25519Signer.from_seed(bytes([7]) * 32)
    validator = replace(founders[1].validator, account=eve.public_key)
    forged = Founder("harbour", validator, founders[1].peer).signed(eve, validator_signer(comet))
    ceremony.files[1].write_text(json.dumps(forged.to_json()))
    with pytest.raises(CommandError, match="under another account"):
        take_founding(bob, ceremony.collect(), ceremony.places["bob"])


def test_a_founder_refuses_a_chain_whose_stakes_are_free_before_evidence_ends(ceremony: Ceremony) -> None:
    short = replace(Params(), unbonding_s=EVIDENCE_S - 1)
    init_comet_ledger(
        ceremony.homes["alice"], short, places=ceremony.places["alice"], founders=ceremony.files
    )
    founding = ceremony.homes["alice"].ledger / FOUNDING_FILE
    bob = ceremony.homes["bob"], founding, ceremony.places["bob"]
    with pytest.raises(CommandError, match="evidence of misbehaviour counts for 10"):
        take_founding(*bob)
    assert take_founding(*bob, test_network=True).params == short
