"""All nodes make the same of the same blocks, however their interpreters order sets."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from dataclasses import replace

from ledger.application import BlockResult
from ledger.genesis import HOLD
from ledger.transactions import Propose, Transfer, Vote
from tests.conftest import ROOT
from tests.ledger.test_validators import TERMS, bls, bodies
from tests.ledger.world import World, key, kinds


class Told(World):
    """Hashes all that a block comes to: for consensus, for who listens, and what is written."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.told = hashlib.sha256()
        for name in ("a", "b", "c"):
            self.beacon_signers[bls(name).public_key] = bls(name)

    def block(self, *txs: bytes, step: int = 0) -> BlockResult:
        result = super().block(*txs, step=step)
        writes = replace(result.writes, index={})  # whose order says nothing
        self.told.update(repr(replace(result, writes=writes)).encode())
        return result


def life() -> tuple[str, set[str]]:
    """A hash of some blocks of deals, faults, draws, votes and validators, and what happened in them."""
    world = Told(TERMS)
    world.fund("client", "other")
    world.provider("a", "b", "c")
    for name in ("a", "b", "c"):
        world.do(name, bodies(name, f"{name}'s", name))
    world.deal("client", shards=3, periods=4)
    _, proven = world.active("other", "a", periods=4)
    world.open_window(proven)
    proposal = world.do("a", Propose({"vote_s": 21}, 0, "", {key("b"): 7, key("c"): 9}))
    votes = [world.tx(name, Vote(proposal, True)) for name in "abc"]
    poor = [world.tx("other", Transfer(key("client"), 10**9 * HOLD)), b"noise"]
    world.block(world.tx("client", Transfer(key("a"), HOLD)), *votes, *poor)
    world.pass_time(4 * TERMS.period_s)
    world.accused = key("b"), key("c")
    world.block()
    world.pass_time(TERMS.period_s)
    return world.told.hexdigest(), set(kinds(world.events))


def test_a_process_with_another_order_of_sets_comes_to_the_same() -> None:
    told, happened = life()
    assert {"fault", "validator_jailed", "validator_power", "params_changed"} <= happened, sorted(happened)
    environment = os.environ | {"PYTHONHASHSEED": "7"}
    run = [sys.executable, "-m", "tests.ledger.test_hash_seed"]
    apart = subprocess.run(run, env=environment, cwd=ROOT, capture_output=True, text=True, check=True)
    assert apart.stdout.strip() == told


if __name__ == "__main__":
    sys.stdout.write(life()[0])
