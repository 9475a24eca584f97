"""The traversal seam: generators that ask for blocks, and drivers that answer them from any source."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Iterator
from typing import NamedTuple, TypeVar

from merkledag import multihash
from merkledag.cid import CID

Buffer = bytes | memoryview


class Want(NamedTuple):
    """A request for the block of `cid`; `ahead` names blocks that will likely be wanted next (a hint)."""

    cid: CID
    ahead: tuple[CID, ...] = ()


T = TypeVar("T")

# A computation that yields what it wants, is sent the bytes, and returns one value.
Steps = Generator[Want, Buffer, T]

# A computation that also yields items. It is sent bytes after a Want and None after an item.
Walk = Generator[Want | T, Buffer | None, None]


def need(data: Buffer | None) -> Buffer:
    """What a driver sent in answer to a Want; TypeError if it sent nothing."""
    if data is None:
        raise TypeError("the driver sent no block for a Want")
    return data


def inline(cid: CID) -> bytes | None:
    """The block that an identity CID carries itself; None for every other CID."""
    return multihash.split(cid.multihash)[1] if cid.is_identity else None


def drive(steps: Steps[T], answer: Callable[[Want], Buffer]) -> T:
    """The value of `steps`; `answer` returns the bytes that are wanted, and what it raises passes on."""
    try:
        want = next(steps)
        while True:
            want = steps.send(answer(want))
    except StopIteration as stop:
        return stop.value  # type: ignore[no-any-return]
    finally:
        steps.close()


def drive_walk(walk: Walk[T], answer: Callable[[Want], Buffer]) -> Iterator[T]:
    """Yields the items of `walk`; closes it when the caller stops early."""
    try:
        item = next(walk)
        while True:
            if isinstance(item, Want):
                item = walk.send(answer(item))
            else:
                yield item
                item = walk.send(None)
    except StopIteration:
        return
    finally:
        walk.close()


async def adrive_walk(
    walk: Walk[T], answer: Callable[[Want], Awaitable[Buffer | None]]
) -> AsyncGenerator[T, None]:
    """As `drive_walk`, with an awaitable `answer`; it may be None where the walk says that it takes that."""
    try:
        item = next(walk)
        while True:
            if isinstance(item, Want):
                item = walk.send(await answer(item))
            else:
                yield item
                item = walk.send(None)
    except StopIteration:
        return
    finally:
        walk.close()


def run(steps: Steps[T], get: Callable[[CID], Buffer]) -> T:
    """As `drive`; `get` returns the block of a CID, and is not asked for identity CIDs."""
    return drive(steps, _answering(get))


def iterate(walk: Walk[T], get: Callable[[CID], Buffer]) -> Iterator[T]:
    """As `drive_walk`; `get` returns the block of a CID, and is not asked for identity CIDs."""
    return drive_walk(walk, _answering(get))


def _answering(get: Callable[[CID], Buffer]) -> Callable[[Want], Buffer]:
    def answer(want: Want) -> Buffer:
        data = inline(want.cid)
        return get(want.cid) if data is None else data

    return answer


async def arun(steps: Steps[T], get: Callable[[CID], Awaitable[Buffer]]) -> T:
    """As `run`, with an awaitable `get`."""
    try:
        want = next(steps)
        while True:
            data = inline(want.cid)
            want = steps.send(await get(want.cid) if data is None else data)
    except StopIteration as stop:
        return stop.value  # type: ignore[no-any-return]
    finally:
        steps.close()
