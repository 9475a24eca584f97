"""`ledger export`, `import`, `verify-history` of a chain of validators, from a stopped node's folder."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from cli.part import Part
from ledger.engine.blocks import node_cid
from tests.cli.conftest import Holdfast
from tests.ledger.cometbft.signed_history import VALIDATORS, SignedHistory


@pytest.fixture(scope="module")
def world() -> Iterator[SignedHistory]:
    """A chain of which it was noted who signed all blocks but the last."""
    made = SignedHistory(*VALIDATORS)
    made.live(9)
    made.keep_lights(made.app.height - 1)
    yield made
    made.mirror.node.close()


@pytest.fixture(scope="module")
def folder(world: SignedHistory, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The ledger's folder of its node, which stopped."""
    world.mirror.node.stop()
    made = tmp_path_factory.mktemp("stopped") / "ledger"
    shutil.copytree(world.mirror.node.storage.folder, made)
    world.mirror.node.open()
    return made


def pin(world: SignedHistory, height: int, *, is_wrong: bool = False) -> str:
    return f"{height}:{bytes(32).hex() if is_wrong else world.lights[height - 1].hash.hex()}"


def test_a_stopped_nodes_history_is_exported_in_parts_verified_and_imported(
    holdfast: Holdfast, world: SignedHistory, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, last = tmp_path / "town.car", world.app.height - 1
    # given an export that says what nobody is known to have signed
    said = holdfast("ledger", "export", file, "--from", folder)
    assert f"blocks {last + 1} to {last + 1} are left out" in said.stderr
    whole = file.read_bytes()
    # when others were ended before a block, in the middle of one, and after the last
    for cut in (900, len(whole) * 2 // 3, len(whole)):
        part = Part(file := tmp_path / f"{cut}.car", f"{node_cid(world.app.genesis.encode())} False")
        part.content.write_bytes(whole[:cut])
        part.release()
        holdfast("ledger", "export", file, "--from", folder)
        assert file.read_bytes() == whole
    # then it is the chain, of these validators
    verified = holdfast("ledger", "verify-history", file, "--trust", pin(world, 3), "--json").json
    assert (verified["height"], verified["signed_height"]) == (last, last)
    holdfast("ledger", "import", file, "--trust", pin(world, last))
    assert holdfast("ledger", "verify-history", "--json").json == verified
    again = tmp_path / "again.car"
    holdfast("ledger", "export", again)
    assert again.read_bytes() == whole
    # and the folder, whose last block nobody vouches for, is what another chain goes on from
    monkeypatch.setenv("HOLDFAST_HOME", str(tmp_path / "next"))
    made = holdfast("ledger", "import", folder, "--as-chain", "city").text
    assert f"goes on from block {last + 1} of" in made


def test_a_history_of_other_headers_or_no_signatures_is_refused(
    holdfast: Holdfast, world: SignedHistory, folder: Path, tmp_path: Path
) -> None:
    file, bad = tmp_path / "town.car", tmp_path / "bad.car"
    holdfast("ledger", "export", file, "--from", folder)
    for command in ("verify-history", "import"):
        trust = ("--trust", pin(world, 3, is_wrong=True))
        assert "header 3 is not the one that is trusted" in holdfast.fails(4, "ledger", command, file, *trust)
        late = ("--trust", pin(world, world.app.height))
        assert "nothing says whether" in holdfast.fails(4, "ledger", command, file, *late)
    whole = file.read_bytes()
    for raw in (whole[:-1], whole + b"x", whole[:-40] + b"x" + whole[-39:], whole[:1000]):
        bad.write_bytes(raw)
        holdfast.fails(4, "ledger", "verify-history", bad)
    assert "nothing signed vouches" in holdfast.fails(
        4, "ledger", "export", bad.with_name("state.car"), "--from", file, "--state"
    )
