"""Driving traversals for commands: what is here is read at once, what is not is fetched ahead, in threads."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from queue import SimpleQueue
from typing import TYPE_CHECKING, Final, NamedTuple, TypeVar

from merkledag.steps import Buffer, Steps, Walk, Want, drive, drive_walk, inline

if TYPE_CHECKING:
    from cli.home import Home
    from cli.sources import ContentSource
    from merkledag.cid import CID

FETCHERS: Final = 8  # connections to the gateway of this home
MAX_AHEAD_BLOCKS: Final = 32  # fetched and not yet asked for: those of a folder and of a file in it

T = TypeVar("T")


class Far(NamedTuple):
    """Where blocks come from that are not here: `connect` opens a source for one thread's use alone."""

    is_here: Callable[[CID], bool]
    connect: Callable[[], ContentSource]


class Reader:
    """Reads content for one command. With `far`, blocks that a traversal announces are fetched in advance.

    The threads are daemons: a command that is interrupted does not wait for the network.
    """

    def __init__(self, source: ContentSource, far: Far | None = None) -> None:
        self._source = source
        self._far = far
        self._jobs: SimpleQueue[tuple[CID, Future[Buffer]]] = SimpleQueue()
        self._ahead: dict[CID, Future[Buffer]] = {}
        self._threads = 0

    def get(self, cid: CID) -> Buffer:
        """One block; raises what the source raises."""
        return self._get(Want(cid))

    def run(self, steps: Steps[T]) -> T:
        """The value of `steps`."""
        return drive(steps, self._get)

    def iterate(self, walk: Walk[T]) -> Iterator[T]:
        """The items of `walk`; closes it when the caller stops early."""
        return drive_walk(walk, self._get)

    def announce(self, cids: Iterable[CID]) -> None:
        """Says what will be asked for soon; what was announced long ago and never asked for is dropped."""
        far = self._far
        if far is None:
            return
        for cid in cids:
            if cid in self._ahead or cid.is_identity or far.is_here(cid):
                continue
            if len(self._ahead) >= MAX_AHEAD_BLOCKS:
                self._ahead.pop(next(iter(self._ahead))).cancel()
            future: Future[Buffer] = Future()
            self._ahead[cid] = future
            self._jobs.put((cid, future))
            if self._threads < FETCHERS:
                self._threads += 1
                threading.Thread(target=self._fetch, args=(far,), daemon=True).start()

    def _get(self, want: Want) -> Buffer:
        data = inline(want.cid)
        if data is not None:
            return data
        future = self._ahead.pop(want.cid, None)
        if self._far is not None:
            self.announce(want.ahead)
        return self._source.get(want.cid) if future is None else future.result()

    def _fetch(self, far: Far) -> None:
        """One thread's life."""
        source = far.connect()
        while True:
            cid, future = self._jobs.get()
            if not future.set_running_or_notify_cancel():
                continue
            try:
                data = source.get(cid)
            except BaseException as error:
                future.set_exception(error)
            else:
                future.set_result(data)


def content_reader(home: Home) -> Reader:
    """How the content commands of this process read."""
    from cli.sources import content_source

    source = content_source(home)
    if home.server("gateway") is None:
        return Reader(source)
    store = home.open_store()
    return Reader(source, Far(lambda cid: store.has(cid.multihash), lambda: content_source(home)))
