"""Group commit: operations that wait for a shard's write lock together share one transaction and one sync."""

from __future__ import annotations

import struct
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Generic, TypeVar

from storage_node.blockstore.environment import STATE, Environment, Txn
from storage_node.blockstore.interface import BlockClass
from storage_node.errors import StorageNodeError

MAX_GROUP_OPERATIONS = 256
MAX_GROUP_BYTES = 8 * 1024 * 1024  # LMDB holds a transaction's new pages in memory until it commits

_COUNTERS = STATE + b"counters"
_LAYOUT = struct.Struct(">QQQQ")

T = TypeVar("T")


@dataclass(slots=True)
class Counters:
    """Number and bytes of a shard's blocks, by class; kept in the transaction that changes them."""

    own_blocks: int = 0
    own_bytes: int = 0
    cache_blocks: int = 0
    cache_bytes: int = 0

    @classmethod
    def read(cls, txn: Txn) -> Counters:
        """As last committed, or as this write transaction has them."""
        value = txn.get(_COUNTERS)
        return cls() if value is None else cls(*_LAYOUT.unpack(value))

    def write(self, txn: Txn) -> None:
        """Into the write transaction `txn`."""
        value = _LAYOUT.pack(self.own_blocks, self.own_bytes, self.cache_blocks, self.cache_bytes)
        txn.put(_COUNTERS, value)

    def add(self, blocks: int, size_bytes: int, block_class: BlockClass) -> None:
        """Count blocks in (or, negative, out)."""
        if block_class is BlockClass.OWN:
            self.own_blocks += blocks
            self.own_bytes += size_bytes
        else:
            self.cache_blocks += blocks
            self.cache_bytes += size_bytes

    @property
    def bytes(self) -> int:
        """Bytes of all blocks."""
        return self.own_bytes + self.cache_bytes


class Work:
    """What an operation works with: the open write transaction and the counters to keep in step."""

    __slots__ = ("counters", "txn")

    def __init__(self, txn: Txn) -> None:
        self.txn = txn
        self.counters = Counters.read(txn)


@dataclass(slots=True)
class _Ticket(Generic[T]):
    operation: Callable[[Work], T]
    size_bytes: int
    done: bool = False
    result: list[T] = field(default_factory=list)
    error: BaseException | None = None


class GroupCommit:
    """The one way to write to a shard's environment within this process.

    Whoever gets the turn runs everybody's waiting operations in one transaction. An operation that
    refuses with one of our errors must do so before its first change; any other failure undoes the group.
    """

    def __init__(self, environment: Environment, settle: Callable[[], None]) -> None:
        self._environment = environment
        self._settle = settle  # called when a transaction has ended, either way
        self._turn = threading.Lock()
        self._waiting: deque[_Ticket[Any]] = deque()

    def run(self, operation: Callable[[Work], T], size_bytes: int = 0) -> T:
        """Run `operation` and return its result once it is durable, or raise what it raised.

        `size_bytes` is about what it writes. Raises StoreFull, CorruptStore, StoreFailed too.
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
            with self._environment.write() as txn:
                work = Work(txn)
                before = replace(work.counters)
                for ticket in group:
                    try:
                        ticket.result.append(ticket.operation(work))
                    except StorageNodeError as refusal:
                        ticket.error = refusal
                if work.counters != before:
                    work.counters.write(txn)
        except BaseException as error:
            for ticket in group:
                ticket.error = ticket.error or error
            if not isinstance(error, Exception):
                raise
        finally:
            self._settle()
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
