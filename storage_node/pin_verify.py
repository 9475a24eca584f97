"""Whether pins are whole: every block of them is here and, if asked, what its multihash says."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

from merkledag.cid import CID
from storage_node.blockstore.interface import Blockstore
from storage_node.blockstore.verify import GROUP_BLOCKS, VerifyReport, verify_group
from storage_node.errors import DamagedBlock
from storage_node.fingerprints import FingerprintSet
from storage_node.pins import Pin, PinMode, may_link
from storage_node.reach import node_links

MAX_NAMED = 1000  # blocks named for one pin
MAX_GROUPS = 32  # of blocks that wait to be hashed


@dataclass(frozen=True, slots=True)
class PinCheck:
    """What was found of one pin; `missing` and `damaged` name at most MAX_NAMED blocks each."""

    pin: Pin
    missing: list[CID]
    damaged: list[CID]

    @property
    def is_whole(self) -> bool:
        """Whether nothing is wrong with it."""
        return not self.missing and not self.damaged


def verify_pins(
    store: Blockstore,
    pins: Iterable[Pin],
    *,
    hashed: bool = False,
    progress: Callable[[int], None] = lambda _: None,
) -> Iterator[PinCheck]:
    """Check pins one after the other; what several of them share is read once.

    With `hashed` every block's bytes are hashed, on all cores. Blocks of hash functions that are not known
    here count as intact. `progress` is told of so many more blocks.
    """
    with ThreadPoolExecutor(os.cpu_count() or 1, "pin-verify") as threads:
        check = _Check(store, threads if hashed else None, progress)
        waiting: deque[_Walked] = deque()
        for pin in pins:
            waiting.append(check.walk(pin))
            while waiting and (check.groups_waiting > MAX_GROUPS or waiting[0].is_done):
                yield check.result(waiting.popleft())
        while waiting:
            yield check.result(waiting.popleft())


@dataclass(slots=True)
class _Walked:
    """A pin whose DAG was walked, and the groups of blocks that are being hashed for it."""

    pin: Pin
    groups: deque[Future[VerifyReport]] = field(default_factory=deque)

    @property
    def is_done(self) -> bool:
        return all(group.done() for group in self.groups)


class _Check:
    """What is known in the middle of a verification. Pins are walked and answered in the same order."""

    def __init__(
        self, store: Blockstore, threads: ThreadPoolExecutor | None, progress: Callable[[int], None]
    ) -> None:
        self._store = store
        self._threads = threads
        self._progress = progress
        self._seen = FingerprintSet()
        self._missing: set[bytes] = set()
        self._damaged: set[bytes] = set()
        self.groups_waiting = 0

    def walk(self, pin: Pin) -> _Walked:
        """Look at every block of the pin that was not seen with another one."""
        walked = _Walked(pin)
        group: list[bytes] = []
        for cid in self._below(pin, self._seen):
            self._progress(1)
            if not self._store.has(cid.multihash):
                self._missing.add(cid.multihash)
            elif self._threads is not None:
                group.append(cid.multihash)
                if len(group) == GROUP_BLOCKS:
                    self._hash(walked, group)
                    group = []
        if group:
            self._hash(walked, group)
        return walked

    def result(self, walked: _Walked) -> PinCheck:
        """The answer for a pin, as soon as its blocks are hashed."""
        while walked.groups:
            self._await_first(walked)
        pin = walked.pin
        if not self._missing and not self._damaged:
            return PinCheck(pin, [], [])
        missing: list[CID] = []  # a block may be known to be bad from an earlier pin, so all are compared
        damaged: list[CID] = []
        for cid in self._below(pin, FingerprintSet()):
            if cid.multihash in self._missing and len(missing) < MAX_NAMED:
                missing.append(cid)
            elif cid.multihash in self._damaged and len(damaged) < MAX_NAMED:
                damaged.append(cid)
        return PinCheck(pin, missing, damaged)

    def _below(self, pin: Pin, seen: FingerprintSet) -> Iterator[CID]:
        """The blocks of a pin, in depth-first order; identity CIDs are followed, not yielded."""
        pending = [pin.cid]
        while pending:
            cid = pending.pop()
            if not seen.add(bytes(cid.to_v1())):
                continue
            if not cid.is_identity:
                yield cid
            if pin.mode is PinMode.RECURSIVE and may_link(cid):
                try:
                    pending.extend(reversed(node_links(self._store, cid, lambda _: None)))
                except DamagedBlock:
                    self._damaged.add(cid.multihash)

    def _hash(self, walked: _Walked, group: list[bytes]) -> None:
        assert self._threads is not None
        walked.groups.append(self._threads.submit(verify_group, self._store, group))
        self.groups_waiting += 1
        if self.groups_waiting > MAX_GROUPS:
            self._await_first(walked)

    def _await_first(self, walked: _Walked) -> None:
        self._damaged.update(walked.groups.popleft().result().damaged)
        self.groups_waiting -= 1
