"""Group commit: operations that wait for a shard's write lock together share one transaction and one sync."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from storage_node.blockstore.tables import Counters, Work
from storage_node.errors import StorageNodeError

MAX_GROUP_OPERATIONS = 256
MAX_GROUP_BYTES = 8 * 1024 * 1024  # LMDB holds a transaction's new pages in memory until it commits

Writing = Callable[[bool], AbstractContextManager[Work]]  # told whether bytes may be added
T = TypeVar("T")


@dataclass(slots=True)
class _Ticket(Generic[T]):
    operation: Callable[[Work], T]
    size_bytes: int
    done: bool = False
    result: list[T] = field(default_factory=list)
    error: BaseException | None = None


class GroupCommit:
    """The one way to write to a shard within this process; `writing` opens its durable transactions.

    Whoever gets the turn runs everybody's waiting operations in one transaction. An operation that
    refuses with one of our errors must do so before its first change; any other failure undoes the group.
    """

    def __init__(self, writing: Writing) -> None:
        self._writing = writing
        self._turn = threading.Lock()
        self._waiting: deque[_Ticket[Any]] = deque()

    def run(self, operation: Callable[[Work], T], size_bytes: int = 0) -> T:
        """Run `operation` and return its result once it is durable, or raise what it raised.

        `size_bytes` is the most it adds, at most MAX_GROUP_BYTES. Raises StoreFull, CorruptStore and
        StoreFailed too.
        """
        ticket = _Ticket(operation, size_bytes)
        self._waiting.append(ticket)
        with self._turn:
            while not ticket.done:
                self._commit_group()
        if ticket.error is not None:
            raise ticket.error
        return ticket.result[0]

    def _commit_group(self) -> None:
        group = self._next_group()
        try:
            with self._writing(any(ticket.size_bytes for ticket in group)) as work:
                before = Counters.read(work.txn)
                for ticket in group:
                    try:
                        ticket.result.append(ticket.operation(work))
                    except StorageNodeError as refusal:
                        ticket.error = refusal
                if work.counters != before:
                    work.counters.write(work.txn)
        except BaseException as error:
            for ticket in group:
                ticket.error = ticket.error or error
            if not isinstance(error, Exception):
                raise
        finally:
            for ticket in group:
                ticket.done = True

    def _next_group(self) -> list[_Ticket[Any]]:
        group, size_bytes = [self._waiting.popleft()], 0
        while self._waiting and len(group) < MAX_GROUP_OPERATIONS:
            size_bytes += group[-1].size_bytes
            if size_bytes + self._waiting[0].size_bytes > MAX_GROUP_BYTES:
                break
            group.append(self._waiting.popleft())
        return group
