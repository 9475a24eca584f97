"""The beacon: what proposers gain by withholding and by choosing times, and what its signatures cost.

    python -m bench.beacon [--windows N] [--seed N] [--no-speed]

Prints one JSON document on stdout and tables on stderr; docs/proofs.md, "Beacon", and docs/beacon.md explain
both. The models are `bench.beacon_model` and, of CometBFT's rounds and block times, `bench.beacon_rounds`;
the same seed gives the same figures. Speeds are medians of CPU time; of two ways that are compared, each
takes its turn in every round.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict
from itertools import pairwise, product
from pathlib import Path
from typing import Any

from bench.beacon_model import (
    LAGGED,
    LATE,
    TIMELY,
    Order,
    formula,
    leaves_to_draw,
    no_lost_leaf,
    own_shards,
    periods_to_find,
    play,
    share_of_values,
)
from bench.beacon_rounds import Rule, Shift, Timing, moved, turns
from bench.beacon_rounds import detection as against_best_play
from bench.beacon_threshold import dealing_bytes, works
from ledger.application import Application, BlockInput
from ledger.engine.archive import GivenBlock
from ledger.engine.archive_replay import MAX_AHEAD_BLOCKS, Replay
from ledger.engine.assemble import assemble
from ledger.engine.storage import LedgerStorage
from ledger.genesis import DEMO_PARAMS, HOLD, Genesis
from ledger.transactions import Beacon
from merkledag.ed25519 import Ed25519Signer
from proofs.beacon import chain as beacon
from proofs.bls import signatures as bls
from proofs.bls.signatures import BlsSigner
from proofs.challenge import detection

SHARES = {"1/10": 1 / 10, "1/3": 1 / 3, "1/2": 1 / 2}
LEAVES, LOST, K = 100_000, 1_000, 30
DEAL_SHARDS, STAKE = 16, 0.1
VALIDATORS = (4, 7, 10, 25, 100)
BLOCKS = 512
# What a coalition wants, the share of values that have it, and how dear it is to find out.
EVENTS = {
    "one bit": (share_of_values(0.5), 0.5, 1),
    "no lost leaf drawn": (no_lost_leaf(LEAVES, LOST, K), 1 - detection(LEAVES, LOST, K), 4),
    "a shard": (share_of_values(STAKE), STAKE, 1),
}
RULES = {"timely": TIMELY, "late": LATE, "lagged": LAGGED}
# In ticks of 50 ms, and of 100 ms: a block's interval, a failed round, the slowest proposal that is in time.
NETWORKS = {
    "no time": Timing(5, 0),
    "rounds": Timing(5, 11),
    "lan": Timing(5, 11, slow=8),
    "wan": Timing(15, 33, slow=25, own=Shift(1, 1), others=Shift(1, 1)),
}
# Honest, the coalition's, absent.
COALITIONS = ((3, 1, 0), (2, 1, 1), (5, 2, 0), (9, 1, 0), (7, 3, 0), (24, 1, 0), (17, 8, 0))
MOST_TOGETHER = 3  # more in a row take long, and leave nothing to be found
GROUPS = (4, 25, 100)


def rounds() -> list[dict[str, Any]]:
    """How often a loss is found against coalitions that play CometBFT's rounds and times at their best."""
    rows = []
    for honest, coalition, absent in COALITIONS:
        for together in (False, True)[: 1 + (coalition + absent > 1 and coalition <= MOST_TOGETHER)]:
            order = turns(honest, coalition, absent, together=together)
            row: dict[str, Any] = {"turns": order}
            for (name, timing), rule in product(NETWORKS.items(), Rule):
                row[f"{name}, {rule.value}"] = against_best_play(order, timing, LOST / LEAVES, K, rule)
            rows.append(row)
    return rows


def every_order(most: int) -> list[str]:
    """All orders of 4 to `most` validators' turns: a coalition below a third of them, at most one absent."""
    found = set()
    for count in range(4, most + 1):
        for kinds in product("CHA", repeat=count):
            if 0 < 3 * kinds.count("C") < count and kinds.count("A") <= 1:
                found.add(min("".join(kinds[index:] + kinds[:index]) for index in range(count)))
    return sorted(found)


def rules_compared(most: int = 8) -> dict[str, Any]:
    """In how many of all orders a rule finds less than the one before it, and where it is at its worst."""
    found: dict[str, Any] = {}
    orders = every_order(most)
    for (name, timing), (before, after) in product(NETWORKS.items(), pairwise(Rule)):
        rates = {
            order: [against_best_play(order, timing, LOST / LEAVES, K, rule) for rule in (before, after)]
            for order in orders
        }
        worse = {order: pair for order, pair in rates.items() if pair[1] < pair[0] - 0.0005}
        worst = min(worse, key=lambda order: worse[order][1] - worse[order][0], default="")
        found[f"{name}, {after.value} after {before.value}"] = {
            "orders": len(orders),
            "worse": len(worse),
            "worst": [worst, *worse.get(worst, [])],
        }
    return found


def block_times(blocks: int, seed: int) -> dict[str, Any]:
    """How far block times can be moved, of 100 that lie between the first honest precommit and the last."""
    return {f"{c} of {h + c}": asdict(moved(h, c, 100, blocks, seed)) for h, c in ((3, 1), (7, 3), (17, 8))}


def threshold() -> dict[str, Any]:
    """What threshold signatures would cost: milliseconds, and a dealing's bytes, by the number of shares."""
    found: dict[str, Any] = {}
    for count in GROUPS:
        named = works(count)
        found[f"{count} shares"] = dict(zip(named, timed(7, *named.values()), strict=True))
        found[f"{count} shares"]["bytes of a dealing"] = dealing_bytes(count)
    return found


def withholding(windows: int, seed: int) -> list[dict[str, Any]]:
    """Every event, order, share and rule: simulated, and by formula where there is one."""
    rows = []
    for (event, (wanted, q, dear)), order, (name, p) in product(EVENTS.items(), Order, SHARES.items()):
        row: dict[str, Any] = {"wanted": event, "honest": q, "order": order.value, "share": name}
        for title, rule in RULES.items():
            played = play(order, p, wanted, windows // dear, seed, rule)
            row |= {title: played.success, f"{title}, formula": formula(order, p, q, rule)}
            row |= {f"{title}, withheld": played.withheld}
        rows.append(row)
    return rows


def consequences() -> dict[str, Any]:
    """What follows from the formulas: for K, periods, a deal's shards, the number of validators."""
    honest = detection(LEAVES, LOST, K)
    rows = []
    for order, (name, p), title in product((Order.TURNS, Order.ONE_KEY), SHARES.items(), ("timely", "late")):
        missed = formula(order, p, 1 - honest, RULES[title])
        assert missed is not None, "these have a formula"
        rows.append(
            {
                "order": order.value,
                "share": name,
                "rule": title,
                "detection": 1 - missed,
                "periods to 99.99 %": periods_to_find(1 - missed),
                "K for the same": leaves_to_draw(order, p, LOST / LEAVES, K, RULES[title]),
            }
        )
    alone: dict[int, dict[str, float | None]] = {}
    for count in VALIDATORS:
        alone[count] = {}
        for title, rule in RULES.items():
            missed = formula(Order.TURNS, 1 / count, 1 - honest, rule)
            assert missed is not None, "turns have a formula"
            alone[count] |= {f"detection, {title}": 1 - missed}
            alone[count] |= {f"bit, {title}": formula(Order.TURNS, 1 / count, 0.5, rule)}
    return {
        "honest detection": honest,
        "honest periods to 99.99 %": periods_to_find(honest),
        "coalitions": rows,
        "one of equal validators": alone,
        "own shards of 16": {name: own_shards(p, STAKE, DEAL_SHARDS) for name, p in SHARES.items()},
    }


def timed(rounds: int, *works: Callable[[], object]) -> list[float]:
    """The median milliseconds of CPU of each work, all taken in turn in every round."""
    taken: list[list[float]] = [[] for _ in works]
    for _ in range(rounds):
        for work, times in zip(works, taken, strict=True):
            start = time.process_time()
            work()
            times.append((time.process_time() - start) * 1e3)
    return [statistics.median(times) for times in taken]


def signature_speed(rounds: int = 40) -> dict[str, float]:
    """Milliseconds: of one signature, and a block of a history verified one by one and together."""
    signer = BlsSigner.from_seed(bytes(32))
    numbers = iter(range(10**9))

    def fresh() -> bytes:
        return next(numbers).to_bytes(8, "big")

    def sign_and_verify() -> bool:
        message = fresh()
        return bls.verify(signer.public_key, message, signer.sign(message))

    sign, both = timed(rounds, lambda: signer.sign(fresh()), sign_and_verify)
    found = {"sign": sign, "sign, then verify the same": both}
    for count in (1, 4, 16):
        signers = [BlsSigner.from_seed(bytes([index]) * 32) for index in range(count)]
        keys, signatures, value = [], [], bytes(32)
        for height in range(beacon.BATCH):
            keys.append(signers[height % count].public_key)
            signatures.append(signers[height % count].sign(beacon.message("bench", height, value)))
            value = beacon.next_value(value, signatures[-1])

        def one_by_one(keys: list[bytes] = keys, signatures: list[bytes] = signatures) -> None:
            before = bytes(32)
            for height in range(beacon.BATCH // 4):
                before = beacon.verify_step(keys[height], "bench", height, before, signatures[height])

        def together(keys: list[bytes] = keys, signatures: list[bytes] = signatures) -> None:
            assert len(beacon.verify_history(keys, "bench", 0, bytes(32), signatures)) == beacon.BATCH

        single, batch = timed(3, one_by_one, together)
        found[f"{count} keys: one by one"] = single / (beacon.BATCH // 4)
        found[f"{count} keys: together"] = batch / beacon.BATCH
    return found


def import_speed() -> dict[str, float]:
    """Milliseconds a block of `ledger import`, of a chain of empty blocks, with and without batches."""
    operator, signer = Ed25519Signer.from_seed(bytes(32)), BlsSigner.from_seed(bytes(32))
    start_s = 1_700_000_000
    genesis = Genesis.make(
        chain_id="bench",
        time_s=start_s,
        operator=operator.public_key,
        bls_key=signer.public_key,
        bls_possession=signer.prove_possession(),
        issued=HOLD,
        params=DEMO_PARAMS,
    )
    app, tip = Application(genesis), None
    history: list[GivenBlock] = []
    for height in range(1, BLOCKS + 1):
        head = Beacon("bench", height, signer.sign(app.beacon_transaction_message(height))).encode()
        told = BlockInput(height, start_s + height, operator.public_key, (head,))
        block = assemble(app, told, app.finalize_block(told), tip, operator).block
        app.commit()
        tip = block.cid
        history.append(GivenBlock(block, block.encode(), told.txs))

    def run(look_ahead: bool) -> None:
        with tempfile.TemporaryDirectory(prefix="holdfast-bench-") as folder:
            storage = LedgerStorage(Path(folder))
            storage.open()
            replay = Replay(storage, genesis, keep_history=True)
            for first in range(0, BLOCKS, MAX_AHEAD_BLOCKS):
                batch = history[first : first + MAX_AHEAD_BLOCKS]
                if look_ahead:
                    replay.look_ahead(batch)
                for given in batch:
                    replay.add(given)
            storage.close()

    before, now = timed(3, lambda: run(False), lambda: run(True))
    return {"one by one": before / BLOCKS, "together": now / BLOCKS}


def show(document: dict[str, Any]) -> None:
    """Tables on stderr."""

    def line(*cells: object) -> None:
        texts = [f"{cell:.4g}" if isinstance(cell, float) else str(cell) for cell in cells]
        print("  ".join(f"{text:>18}" for text in texts), file=sys.stderr)

    found = document["consequences"]
    for rows in (document["withholding"], found["coalitions"], document["rounds"]):
        line(*rows[0])
        for row in rows:
            line(*row.values())
    alone = found["one of equal validators"]
    line("equal validators", *alone[VALIDATORS[0]])
    for count, row in alone.items():
        line(count, *row.values())
    for name, figure in document.get("speed_ms", {}).items():
        print(f"{name:>40}  {figure:.2f} ms", file=sys.stderr)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--windows", type=int, default=10_000, help="simulated windows a figure")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--no-speed", action="store_true", help="the model alone")
    options = parser.parse_args()
    document: dict[str, Any] = {
        "windows": options.windows,
        "seed": options.seed,
        "withholding": withholding(options.windows, options.seed),
        "consequences": consequences(),
        "rounds": rounds(),
        "rules compared": rules_compared(),
        "block times": block_times(options.windows, options.seed),
    }
    if not options.no_speed:
        imports = {f"import, {name}": figure for name, figure in import_speed().items()}
        document["speed_ms"] = signature_speed() | imports
        document["threshold_ms"] = threshold()
    show(document)
    print(json.dumps(document, indent=2))


if __name__ == "__main__":
    main()
