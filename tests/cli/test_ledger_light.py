"""A home that trusts validators: what it pins, takes and refuses, and files that need no ledger."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from cli import ledger_pin
from cli.home import Home
from cli.ledger_pin import SEEN_FILE, pinned_client
from ledger.engine.cometbft.light.block import LightBlock
from ledger.engine.cometbft.light.proof_file import LightProofFile
from ledger.genesis import HOLD
from merkledag.peer import peer_text
from tests.cli.background import serving
from tests.cli.conftest import Holdfast
from tests.ledger.cometbft.application import CHAIN, signer
from tests.ledger.cometbft.served import Running, served

pytestmark = pytest.mark.peers

ALICE = peer_text(signer("alice").public_key)
NOBODY = peer_text(signer("nobody").public_key)


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with serving(served(tmp_path_factory.mktemp("light") / "v")) as running:
        yield running


def header_of(chain: Running) -> str:
    return f"{chain.pin.height}:{chain.pin.hash.hex()}"


def test_a_home_pins_a_header_and_its_trust_moves_on(holdfast: Holdfast, chain: Running) -> None:
    first = header_of(chain)
    assert holdfast("ledger", "light", "1", "--ledger", chain.url).text == first
    assert "trusts validators" in holdfast.fails(2, "ledger", "join", chain.url)
    assert "--operator" in holdfast.fails(
        2, "ledger", "join", chain.url, "--trust", first, "--operator", ALICE
    )
    assert "HEIGHT:HASH" in holdfast.fails(2, "ledger", "join", chain.url, "--trust", "1:abc")
    other = f"1:{'ab' * 32}"
    assert "another header 1" in holdfast.fails(4, "ledger", "join", chain.url, "--trust", other)
    assert "validators sign" in holdfast.fails(4, "ledger", "join", chain.url, "--operator", ALICE, "--yes")
    assert holdfast("config", "get", "ledger.trust").text == ""

    shown = holdfast("ledger", "join", chain.url, "--trust", first, "--json").json
    assert (shown["trust"], shown["chain_id"]) == (first, CHAIN)
    assert holdfast("config", "get", "ledger.trust").text == first
    assert holdfast("config", "get", "ledger.operator").text == ""
    holdfast("ledger", "join", chain.url)  # it is known: nothing is asked

    block = holdfast("ledger", "block", "2", "--json").json
    assert block["block"]["sig"] == ""
    seen = json.loads((holdfast.home / SEEN_FILE).read_text())
    assert seen["height"] >= 2
    told = holdfast("ledger", "light", "--json").json
    assert told["height"] >= seen["height"]
    assert (told["validators"], told["chain_id"]) == (1, CHAIN)
    assert json.loads((holdfast.home / SEEN_FILE).read_text())["height"] >= told["height"]

    # Another chain behind the same URL, as far as this home knows: every command refuses it.
    holdfast("config", "set", "ledger.trust", other)
    (holdfast.home / SEEN_FILE).unlink()
    assert "another header 1" in holdfast.fails(4, "ledger", "status")
    assert "--replace" in holdfast.fails(4, "ledger", "join", chain.url, "--trust", first)
    holdfast("ledger", "join", chain.url, "--trust", first, "--replace")
    assert holdfast("ledger", "status", "--json").json["chain_id"] == CHAIN
    (holdfast.home / SEEN_FILE).write_text("{")  # damaged: begins with the pinned header again
    assert holdfast("ledger", "status", "--json").json["engine"] == "cometbft"
    seen = json.loads((holdfast.home / SEEN_FILE).read_text())
    cut = seen["light_block"][: len(seen["light_block"]) // 8 * 4]
    damages = (
        {"light_block": "AAAA"},
        {"light_block": cut},
        {"light_block": 7},
        {"height": "x"},
        {"genesis": "x"},
    )
    for damage in damages:
        (holdfast.home / SEEN_FILE).write_text(json.dumps(seen | damage))
        assert holdfast("ledger", "status", "--json").json["engine"] == "cometbft"
        healed = json.loads((holdfast.home / SEEN_FILE).read_text())
        assert LightBlock.decode(base64.b64decode(healed["light_block"])).height == healed["height"] >= 2
    holdfast("ledger", "leave")
    assert holdfast("config", "get", "ledger.trust").text == ""
    holdfast("config", "set", "ledger.trust", first)
    assert "which chain" in holdfast.fails(2, "ledger", "status", "--ledger", chain.url)


def test_what_runs_for_long_keeps_up_with_the_headers(
    holdfast: Holdfast, chain: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or the one that it began with would expire while it runs, and it could not start again."""
    holdfast("ledger", "join", chain.url, "--trust", header_of(chain))
    home = Home(holdfast.home)

    def seen() -> int:
        file = holdfast.home / SEEN_FILE
        return int(json.loads(file.read_text())["height"]) if file.exists() else 0

    async def runs() -> int:
        async with asyncio.timeout(20), pinned_client(home, chain.url) as client:
            await client.status()
            began = seen()
            blocks = client.events(1)
            async for _ in blocks:  # nothing that looks at headers
                if seen() > began:
                    break
            await blocks.aclose()
            return seen() - began

    monkeypatch.setattr(ledger_pin, "KEEP_UP_S", 0)
    assert asyncio.run(runs()) > 0


def test_a_proof_is_checked_without_the_ledger(holdfast: Holdfast, chain: Running, tmp_path: Path) -> None:
    first, file = header_of(chain), tmp_path / "proof"
    holdfast("ledger", "join", chain.url, "--trust", first)
    holdfast("ledger", "prove", "account", ALICE, "-o", file)
    shown = holdfast("ledger", "verify", file, "--json").json
    assert shown["record"]["balance"] == HOLD
    assert (shown["against"], shown["operator"], shown["chain_id"]) == ("trust", None, CHAIN)
    assert holdfast("ledger", "verify", file, "--url", chain.url).code == 0
    holdfast("ledger", "prove", "account", NOBODY, "-o", tmp_path / "none")
    assert holdfast("ledger", "verify", tmp_path / "none", "--json").json["present"] is False
    assert "absent" in holdfast("ledger", "verify", tmp_path / "none").text
    holdfast("ledger", "leave")

    assert "--trust would check" in holdfast("ledger", "verify", file, code=2).stderr
    assert holdfast("ledger", "verify", file, "--trust", first, "--json").json["against"] == "trust"
    assert holdfast("ledger", "verify", file, "--trust", shown["header"], "--json").json["against"] == "trust"
    assert holdfast("ledger", "verify", file, "--app-hash", shown["app_hash"]).code == 0
    holdfast.fails(4, "ledger", "verify", file, "--app-hash", "00" * 32)
    height = shown["header"].partition(":")[0]
    assert "not the trusted" in holdfast.fails(
        4, "ledger", "verify", file, "--trust", f"{height}:{'ab' * 32}"
    )
    assert "cannot be told" in holdfast.fails(4, "ledger", "verify", file, "--trust", f"999999:{'ab' * 32}")
    holdfast.fails(2, "ledger", "verify", file, "--operator", ALICE)
    found = LightProofFile.decode(file.read_bytes())
    last = LightBlock.decode(found.lights[-1])
    assert f"{last.height}:{last.hash.hex()}" == shown["header"]
    for at in range(0, len(file.read_bytes()), 211):
        changed = bytearray(file.read_bytes())
        changed[at] ^= 1
        told = holdfast("ledger", "verify", "-", "--trust", first, "--json", stdin=bytes(changed), code=None)
        assert told.code == 4 or told.json["record"] == shown["record"]
