"""Watches a chain on CometBFT by its height: a process that lives may stand still, and then it says why."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Final

from cli.output import note
from ledger.engine.cometbft.home.layout import CometFilesError, CometHome
from ledger.engine.cometbft.home.signing import Memory
from ledger.engine.cometbft.rpc.client import CometRpc
from ledger.engine.cometbft.rpc.errors import CometRpcError

EVERY_S: Final = 5.0
# Block time is what the validators' clocks say. A block cannot be from later than now; and while a node that
# catches up comes nearer to now, one whose clock is ahead finds all blocks equally old.
BEHIND_S: Final = 5.0
AHEAD_S: Final = 30.0
STEADY_S: Final = 20.0
JITTER_S: Final = 4.0
# `4E1A… prevote 3/4 = 0.75`: "BA{4:x__x} 20/40 = 0.50" in CometBFT's round state.
_VOTED: Final = re.compile(r"BA\{\d+:[x_]*\} (\d+)/(\d+) = ")
_ROUND: Final = re.compile(r"(\d+)/(\d+)/(\d+)")


@dataclass(frozen=True, slots=True)
class Sight:
    """What the monitor saw last. `halted` says why the chain stands still, as far as is known; "" if not.

    `clock` says how wrong this machine's is; "" if it seems right.
    """

    height: int = 0
    catching_up: bool = False
    peers: int = 0
    power: int = 0
    answers: bool = False
    signed_height: int = 0
    halted: str = ""
    clock: str = ""

    @property
    def trouble(self) -> str:
        """What is to be done something about."""
        return self.halted or self.clock


class Monitor:
    """Looks every few seconds; `height` gives the last block that the application committed.

    `wall` gives seconds since 1970, `clock` never jumps.
    """

    def __init__(
        self,
        rpc: CometRpc,
        home: CometHome,
        memory: Memory,
        height: Callable[[], int],
        halted_s: float,
        clock: Callable[[], float] = time.monotonic,
        *,
        block_time_s: Callable[[], int],
        wall: Callable[[], float] = time.time,
    ) -> None:
        self.sight = Sight()
        self._rpc = rpc
        self._home = home
        self._memory = memory
        self._height = height
        self._halted_s = halted_s
        self._clock = clock
        self._moved_s = clock()
        self._block_time_s = block_time_s
        self._wall = wall
        self._steady: tuple[float, float] | None = None  # since when blocks are old, and how old they are

    async def run(self) -> None:
        """Watches until it is cancelled; a line on stderr when the chain halts, and when it goes on."""
        while True:
            await self.look()
            await asyncio.sleep(EVERY_S)

    async def look(self) -> None:
        """Looks once."""
        before, height, now_s = self.sight, self._height(), self._clock()
        if height != before.height:
            self._moved_s = now_s
        # Not in the event loop: the disk may take long over it.
        seen = replace(before, height=height, signed_height=await asyncio.to_thread(self._signed))
        silent_s = now_s - self._moved_s
        is_halted = self._halted_s > 0 and silent_s > self._halted_s
        try:
            status = await self._rpc.status()
            peers = (await self._rpc.net_info()).get("n_peers", "0")
            why = (
                why_halted(await self._rpc.consensus_state()) if is_halted and not status.catching_up else ""
            )
            seen = replace(
                seen, answers=True, catching_up=status.catching_up, power=status.power, peers=_number(peers)
            )
        except CometRpcError as error:
            seen, why = replace(seen, answers=False), str(error)
        halted = self._told(seen, silent_s, why) if is_halted else ""
        if bool(halted) != bool(before.halted):
            note(halted or f"the chain goes on at height {height}")
        wrong = "" if is_halted or not height else self._wrong_clock(now_s)
        if bool(wrong) != bool(before.clock):
            note(wrong or "this machine's clock is right again")
        self.sight = replace(seen, halted=halted, clock=wrong)

    def _wrong_clock(self, now_s: float) -> str:
        old_s = self._wall() - self._block_time_s()
        if old_s < -BEHIND_S:
            return (
                f"this machine's clock is {-old_s:.0f} s behind the chain's time: set it right (NTP); "
                "one that is a minute behind can take no block"
            )
        if old_s <= AHEAD_S:
            self._steady = None
        elif self._steady is None or abs(old_s - self._steady[1]) > JITTER_S:
            self._steady = now_s, old_s
        elif now_s - self._steady[0] >= STEADY_S:
            return (
                f"this machine's clock is {old_s:.0f} s ahead of the chain's time: blocks come at their "
                "usual pace, and are all so old. Set it right (NTP)"
            )
        return ""

    def _told(self, seen: Sight, silent_s: float, why: str) -> str:
        told = f"no block for {silent_s:.0f} s since height {seen.height}"
        if not seen.answers:
            return f"{told}: cometbft does not answer: {why}"
        if not seen.peers and self._home.peers():
            return (
                f"{told}: no peer is connected: look at the network, and at p2p in {self._home.config_file}"
            )
        if not seen.height and self._home.begins_by_state_sync():
            return (
                f"{told}: no snapshot was taken over yet from {seen.peers} peers; one is made "
                "every ledger.snapshot_blocks blocks"
            )
        if seen.catching_up:
            return f"{told}: catching up, and none of {seen.peers} peers gives the next block"
        return f"{told}: {why}" if why else told

    def _signed(self) -> int:
        try:
            return self._memory.note().height
        except (CometFilesError, OSError):
            return self.sight.signed_height  # a full disk; what is damaged is refused at the next start


def why_halted(state: dict[str, Any]) -> str:
    """What a round lacks, from CometBFT's `consensus_state`; "" where that does not tell."""
    found = state.get("round_state")
    if not isinstance(found, dict):
        return ""
    at = _ROUND.fullmatch(str(found.get("height/round/step", "")))
    votes = found.get("height_vote_set")
    if at is None or not isinstance(votes, list):
        return ""
    rounds = [entry for entry in votes if isinstance(entry, dict) and entry.get("round") == int(at[2])]
    if not rounds:
        return ""
    told = []
    for kind in ("prevotes", "precommits"):
        if voted := _VOTED.search(str(rounds[0].get(f"{kind}_bit_array", ""))):
            power, total = int(voted[1]), int(voted[2])
            told.append(f"{power} of {total} power in {kind}")
            if 3 * power <= 2 * total:
                missing = 2 * total // 3 + 1 - power
                return (
                    f"in round {at[2]} of height {at[1]} {told[-1]}: {missing} more must vote, so validators "
                    "of that much power are away or cut off"
                )
    return f"in round {at[2]} of height {at[1]} {' and '.join(told)}, and no block is decided" if told else ""


def _number(text: Any) -> int:
    return int(text) if str(text).isdecimal() else 0
