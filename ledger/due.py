"""Work that falls due at a ledger time, or height: queues in the state; of each a block does a bounded part.

Each kind of work has a queue of its own, so that none waits for what others have to do.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import IntEnum
from itertools import islice, takewhile

from ledger import keys, limits
from ledger.context import Context
from ledger.state import State
from merkledag.cid import CID


class What(IntEnum):
    """The kinds of due work, in the order in which a block does them; one kind by time, then by subject."""

    SEED = 5  # by height: the seed of an opened window is drawn; subject: the dataset
    DATASET = 0  # a dataset's window opens, or its period turns; subject: the dataset
    OFFER = 1  # an offered shard was not accepted; subject: deal ‖ u16 shard
    FORGET = 2  # a finished deal leaves the state; subject: deal
    PROPOSAL = 3  # a vote ends, what was agreed comes into force, or it is forgotten; subject: proposal
    SPOT_SEED = 8  # by height: the seed of a spot challenge is drawn; subject: deal ‖ u16 shard
    SPOT = 4  # the time of a spot challenge is over; subject: deal ‖ u16 shard
    VALIDATOR = 6  # a validator's next BLS key begins to count; subject: its account
    CONSENSUS_KEY = 7  # a consensus key that was rotated away names nobody any more; subject: its address
    RESIGNED = 9  # a validator that resigned need not answer for anything any more; subject: its account


BY_HEIGHT = (What.SEED, What.SPOT_SEED)
Handler = Callable[[Context, bytes], None]

_HEAD = len(keys.DUE)


def key(at: int, what: What, subject: bytes) -> bytes:
    """Where the state has a piece of work that falls due at a time, or height."""
    return _queue(what) + keys.u64(at) + subject


def _queue(what: What) -> bytes:
    return keys.DUE + bytes([what])


def what_of(key: bytes) -> What:
    """Of which kind the work of a key is."""
    return What(key[_HEAD])


def subject_of(key: bytes) -> bytes:
    """What the work of a key is about."""
    return key[_HEAD + 9 :]


def add(state: State, at: int, what: What, subject: bytes) -> None:
    """Puts work in the queue, to be done in the first block whose ledger time (or height) is `at` or more."""
    state.put(key(at, what, subject), b"")


def remove(state: State, at: int, what: What, subject: bytes) -> None:
    """Takes work out of the queue that `add` put there."""
    state.delete(key(at, what, subject))


def _at(key: bytes) -> int:
    """When the work of a key falls due."""
    return int.from_bytes(key[_HEAD + 1 : _HEAD + 9], "big")


def next_time(state: State) -> int | None:
    """When the earliest committed work falls due that waits for a time; None if there is none."""
    firsts = (next(state.committed_scan(_queue(what)), None) for what in What if what not in BY_HEIGHT)
    return min((_at(key) for key in firsts if key is not None), default=None)


def waits_for_blocks(state: State) -> bool:
    """Whether there is committed work that waits for a height."""
    return any(next(state.committed_scan(_queue(what)), None) is not None for what in BY_HEIGHT)


def shard_subject(deal: CID, index: int) -> bytes:
    """The subject that names a shard."""
    return bytes(deal) + keys.u16(index)


def read_shard_subject(subject: bytes) -> tuple[CID, int]:
    """(deal, shard) of a subject."""
    return CID.decode(subject[:-2]), int.from_bytes(subject[-2:], "big")


def run(ctx: Context, handlers: Mapping[What, Handler]) -> None:
    """Does what is due, kind by kind, each while its own budget lasts; the rest stays for the next block.

    A handler takes one from `ctx.budget` here and whatever more it takes itself; it may put work back, and
    take away other work, which is then not done although it was due. One that fails is set aside.
    """
    # One is for looking at a dataset, the other for a piece of it: with less its turn would never end.
    assert limits.MAX_DUE_PER_BLOCK >= 2, "a block does at least two pieces of due work"
    for what in What:
        ctx.budget = limits.MAX_DUE_PER_BLOCK
        _run_queue(ctx, what, handlers[what])


def _run_queue(ctx: Context, what: What, handler: Handler) -> None:
    """Does what is due of one kind, earliest first."""
    now = ctx.height if what in BY_HEIGHT else ctx.time
    while ctx.budget > 0:
        queue = takewhile(lambda key: _at(key) <= now, ctx.state.scan(_queue(what)))
        ready = list(islice(queue, ctx.budget))
        if not ready:
            return
        for key in ready:
            if ctx.budget <= 0:
                return
            if ctx.state.get(key) is None:
                continue  # an earlier handler took it away: what it waited for has ended
            ctx.budget -= 1
            ctx.state.delete(key)
            with ctx.set_aside(key):
                handler(ctx, subject_of(key))
