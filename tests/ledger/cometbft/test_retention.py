"""What CometBFT is told to keep: all that whoever joins, lags, checks or accuses needs, and no more."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ledger.engine.blocks import Block
from ledger.engine.cometbft.home.chain_params import consensus_params
from ledger.engine.cometbft.light.verify import Rules
from ledger.engine.cometbft.retention import Needs, Retention
from ledger.engine.pruning import Keep, Pruner
from ledger.engine.snapshots import FOLDER, Snapshots
from ledger.engine.storage import LedgerStorage
from ledger.engine.stored import StoredBlock
from ledger.engine.witness import Witness
from ledger.genesis import Params
from ledger.store import Writes

CHAIN = "retention"
NEEDS = Needs(trusting_s=30, evidence_s=20, evidence_blocks=10, lagging_blocks=5)


@dataclass
class Chain:
    """A store of empty blocks, and files in the place of its snapshots."""

    storage: LedgerStorage
    snapshots: Snapshots
    pruner: Pruner

    @classmethod
    def opened(cls, folder: Path, keep_s: int | None = 1, every_blocks: int = 1) -> Chain:
        storage = LedgerStorage(folder)
        storage.open()
        storage.create(b"genesis", [])
        (folder / FOLDER).mkdir()
        return cls(storage, Snapshots(storage, CHAIN, every_blocks), Pruner(storage, Keep(blocks_s=keep_s)))

    def block(self, time_s: int) -> None:
        """Writes one, with the step of pruning that goes with it."""
        height = self.storage.height() + 1
        block = Block(bytes(32), bytes(32), bytes(32), time_s, CHAIN, height, (), None, time_s, ())
        raw = block.encode()
        nothing = Writes({}, {}, {})
        digest = hashlib.sha256(raw).digest()
        stored = StoredBlock(height, raw, digest, [], b"", {}, nothing, bytes(32), b"", Witness())
        self.storage.apply(stored, self.pruner.step(time_s))

    def snapshot(self, height: int) -> None:
        self.snapshots.path(height).touch()


def test_who_lies_to_light_clients_is_accused_in_time_and_has_a_stake_to_lose() -> None:
    """The order that CometBFT's light clients rely on; a stake stays bound longer than evidence counts."""
    needs = Needs()
    assert Rules().trusting_period_s == needs.trusting_s
    assert needs.trusting_s + 2 * 86_400 < needs.evidence_s < Params().unbonding_s
    age = consensus_params()["evidence"]["max_age_duration"]
    assert int(age) == needs.evidence_s * 10**9


@pytest.fixture
def chain(tmp_path: Path) -> Chain:
    return Chain.opened(tmp_path)


def needed(times: Sequence[int], snapshots: Sequence[int], keep_s: int, needs: Needs) -> int:
    """The lowest block, counted from 1, that somebody needs; said as plainly as possible."""
    tip, now = len(times), times[-1]
    return min(
        height
        for height, time in enumerate(times, 1)
        if time >= now - keep_s
        or time >= now - needs.trusting_s
        or time >= now - needs.evidence_s
        or height >= tip - needs.evidence_blocks
        or height >= tip - needs.lagging_blocks
        or height >= min(snapshots)
        or height >= tip - 1  # which the ledger's own pruning never reaches
    )


@given(
    steps=st.lists(st.integers(0, 9), min_size=1, max_size=60),
    every=st.integers(1, 12),
    keep_s=st.integers(1, 60),
    needs=st.builds(Needs, *[st.integers(0, 40)] * 4),
    restarts=st.sets(st.integers(1, 60), max_size=4),
)
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_what_is_let_go_of_is_needed_by_nobody(
    tmp_path_factory: pytest.TempPathFactory,
    steps: list[int],
    every: int,
    keep_s: int,
    needs: Needs,
    restarts: set[int],
) -> None:
    chain = Chain.opened(tmp_path_factory.mktemp("chain"), keep_s)
    says = Retention(chain.storage, chain.snapshots, needs)
    times: list[int] = []
    snapshots: list[int] = []
    before = 0
    for step in steps:
        times.append((times[-1] if times else 1_000) + step)
        chain.block(times[-1])
        tip = len(times)
        if tip % every == 0:
            chain.snapshot(tip)
            snapshots.append(tip)
            for old in snapshots[:-2]:
                chain.snapshots.drop(old)
            del snapshots[:-2]
        if tip in restarts:
            says = Retention(chain.storage, chain.snapshots, needs)
            before = 0
        found = says.step(tip, times[-1])
        assert found == says.height >= before
        if not snapshots or tip <= max(needs.evidence_blocks, needs.lagging_blocks):
            assert found == 0
        else:
            assert found == max(1, needed(times, snapshots, keep_s, needs))
        before = found
    chain.storage.close()


@pytest.mark.parametrize(("keep_s", "every", "made"), [(None, 1, True), (1, 0, True), (1, 1, False)], ids=str)
def test_where_nobody_could_begin_anew_nothing_is_let_go_of(
    tmp_path: Path, keep_s: int | None, every: int, made: bool
) -> None:
    """A node that keeps for ever, one that makes no snapshots, and one that has none yet."""
    chain = Chain.opened(tmp_path, keep_s, every)
    for time in range(1_000, 1_040, 2):
        chain.block(time)
    if made:
        chain.snapshot(15)
    assert Retention(chain.storage, chain.snapshots, Needs(1, 1, 1, 1)).step(20, 1_040) in (0, 1)
    chain.storage.close()


def test_it_goes_no_faster_than_the_ledgers_own_pruning(chain: Chain) -> None:
    """Which takes small steps: CometBFT deletes what it is told to before the next block."""
    chain.pruner = Pruner(chain.storage, Keep())
    for _ in range(60):
        chain.block(1_000)
    chain.snapshot(50)
    says = Retention(chain.storage, chain.snapshots, NEEDS)
    assert says.step(60, 2_000) == 1
    chain.pruner = Pruner(chain.storage, Keep(blocks_s=1))
    chain.block(2_000)
    assert says.step(61, 2_000) == 50
    chain.storage.close()


def test_damage_keeps_what_there_is_and_stops_no_block(
    chain: Chain, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    says = Retention(chain.storage, chain.snapshots, NEEDS)
    for time in range(1_000, 1_060):
        chain.block(time)
    chain.snapshot(60)
    kept = says.step(60, 1_059)
    assert kept > 1
    with monkeypatch.context() as patch:
        patch.setattr(LedgerStorage, "block", lambda _self, _height: b"no block")
        stays = says.step(60, 2_000)
    assert stays <= kept + 1  # as far as it had read already
    assert "lets go of no more" in caplog.text
    assert says.step(60, 2_000) == stays
    chain.storage.close()


def test_a_node_that_began_with_a_snapshot_keeps_what_it_has(tmp_path: Path) -> None:
    storage = LedgerStorage(tmp_path)
    storage.open()
    storage.restore(
        b"genesis",
        [],
        100,
        Block(bytes(32), bytes(32), bytes(32), 1_000, CHAIN, 100, (), None, 0, ()).encode(),
        b"name",
        root(tmp_path),
    )
    chain = Chain(storage, Snapshots(storage, CHAIN, 1), Pruner(storage, Keep(blocks_s=5)))
    (tmp_path / FOLDER).mkdir()
    for time in range(1_001, 1_021):
        chain.block(time)
    chain.snapshot(110)
    says = Retention(storage, chain.snapshots, NEEDS)
    assert says.step(120, 1_020) == 100
    assert says.step(120, 1_036) == 106
    storage.close()


def root(folder: Path) -> bytes:
    """The app hash of a state that is empty."""
    chain = Chain.opened(folder / "empty")
    found = chain.storage.app_hash()
    chain.storage.close()
    assert found is not None
    return found
