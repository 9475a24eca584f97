"""Files with a proof whose light blocks lie: an honest header on the way hides nothing."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import pytest

from cli import ledger_pin
from cli.home import Home
from cli.ledger_light import check_trust, trust_text
from ledger.engine.chain_check import TrustPin
from ledger.engine.cometbft.light.block import LightBlock
from ledger.engine.cometbft.light.errors import InvalidLightBlock, NotEnoughTrust, NotLater, TrustExpired
from ledger.engine.cometbft.light.proof_file import LightProofFile, has_header, require_from
from ledger.engine.cometbft.light.verify import Rules
from ledger.engine.errors import InvalidProofFile
from ledger.ingest import memory_store
from ledger.state_tree import StateProof, StateTree
from tests.ledger.cometbft.light_chain import CHAIN, START_NS, block_of, chain_of, set_of

FOUR = {"a": 10, "b": 10, "c": 10, "d": 10}
MALLORY = {"mallory": 1}
NOW_NS = START_NS + 20 * 10**9
RULES = Rules()
KEY = b"account/somebody"


def proof() -> tuple[StateProof, bytes]:
    """A proof of a state of Mallory's own making, and its app hash."""
    tree = StateTree(memory_store([]).tree)
    state = {KEY: b"a fortune"}
    staged = tree.stage(state)
    return tree.prove(KEY, state.get, staged), staged.root


def test_a_header_that_is_not_later_than_an_honest_one_on_the_way_is_verified_as_well() -> None:
    real = chain_of([FOUR] * 9)
    for height in (2, 6, 8):
        forged = block_of(height, MALLORY)
        for way in ([real[0], real[7], forged], [real[7], forged], [real[7], real[7], forged]):
            with pytest.raises(InvalidLightBlock):
                require_from(real[0], way, NOW_NS, RULES)
    require_from(real[0], [real[0], real[3], real[7]], NOW_NS, RULES)
    require_from(real[3], [real[0], real[1], real[7]], NOW_NS, RULES)  # the way began before what is trusted
    with pytest.raises(NotLater):
        require_from(real[3], [real[7], block_of(2, MALLORY)], NOW_NS, RULES)
    with pytest.raises(TrustExpired):
        require_from(real[0], [real[7]], NOW_NS + 10**18, RULES)


def test_a_trusted_header_with_other_validators_leads_nowhere() -> None:
    real = chain_of([FOUR] * 9)
    forged = block_of(6, MALLORY)
    false = replace(real[0], validators=set_of(MALLORY))
    blocks = [false, forged]
    assert has_header(blocks, 1, real[0].header.hash()) == 0
    with pytest.raises(InvalidLightBlock, match="has not one vote"):
        require_from(false, blocks, NOW_NS, RULES)
    padded = {"mallory": 10, "m2": 10, "m3": 10, "m4": 10}  # as many as there are votes
    with pytest.raises(InvalidLightBlock, match="of other validators"):
        require_from(replace(real[0], validators=set_of(padded)), [block_of(6, padded)], NOW_NS, RULES)
    with pytest.raises(NotEnoughTrust):
        require_from(real[0], [real[0], forged], NOW_NS, RULES)


def test_a_home_goes_on_from_what_its_pin_led_to_where_the_pinned_header_has_expired(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    day_ns = 86_400 * 10**9
    old, seen, last = (
        block_of(height, FOUR, time_ns=time.time_ns() - days * day_ns)
        for height, days in ((1, 9), (5, 3), (9, 1))
    )
    pinned = TrustPin(1, old.header.hash())
    home = Home(tmp_path)
    for pin, expected in ((pinned, None), (pinned._replace(stored=seen.encode()), 5)):
        monkeypatch.setattr(ledger_pin, "pin_of", lambda _, pin=pin: ledger_pin.Pin(CHAIN, None, pin))
        if expected is None:
            with pytest.raises(TrustExpired):
                check_trust(home, [old, last], None)
        else:
            assert check_trust(home, [old, last], None) == trust_text(5, seen.header.hash())


def test_a_file_is_of_one_chain_of_rising_height_and_of_the_validators_that_headers_name() -> None:
    shown, app_hash = proof()
    real = chain_of([FOUR] * 9)
    last = block_of(6, MALLORY, app_hash=app_hash)

    def file_of(*blocks: LightBlock) -> LightProofFile:
        return LightProofFile.of(tuple(each.encode() for each in blocks), shown)

    assert [each.height for each in file_of(real[0], last).verified()] == [1, 6]
    for way in (
        (real[7], last),
        (last, last),
        (replace(real[0], validators=set_of(MALLORY)), last),
        (replace(real[0], header=replace(real[0].header, chain="other")), last),
        (replace(real[0], header=replace(real[0].header, app_hash=bytes(32))), last),
    ):
        with pytest.raises(InvalidProofFile):
            file_of(*way).verified()
