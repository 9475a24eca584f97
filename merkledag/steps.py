"""The traversal seam: generators that ask for blocks, and drivers that answer them from any source."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Iterator
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


def run(steps: Steps[T], get: Callable[[CID], Buffer]) -> T:
    """Drives `steps` to its value; `get` returns a block's bytes or raises, and what it raises passes on."""
    try:
        want = next(steps)
        while True:
            data = inline(want.cid)
            want = steps.send(get(want.cid) if data is None else data)
    except StopIteration as stop:
        return stop.value  # type: ignore[no-any-return]
    finally:
        steps.close()


def iterate(walk: Walk[T], get: Callable[[CID], Buffer]) -> Iterator[T]:
    """Yields the items of `walk`; closes it when the caller stops early."""
    try:
        item = next(walk)
        while True:
            if isinstance(item, Want):
                data = inline(item.cid)
                item = walk.send(get(item.cid) if data is None else data)
            else:
                yield item
                item = walk.send(None)
    except StopIteration:
        return
    finally:
        walk.close()


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


async def aiterate(walk: Walk[T], get: Callable[[CID], Awaitable[Buffer]]) -> AsyncIterator[T]:
    """As `iterate`, with an awaitable `get`."""
    try:
        item = next(walk)
        while True:
            if isinstance(item, Want):
                data = inline(item.cid)
                item = walk.send(await get(item.cid) if data is None else data)
            else:
                yield item
                item = walk.send(None)
    except StopIteration:
        return
    finally:
        walk.close()
