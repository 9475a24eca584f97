"""What the gateway needs from others: a source of blocks, and a resolver of names."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from merkledag.cid import CID


class Provider(Protocol):
    """One who was asked for a block. `name` is a host or URL that strangers may see."""

    @property
    def name(self) -> str: ...

    @property
    def outcome(self) -> str:
        """What came of it, in a few words: `does not have it`, `did not answer`, …"""
        ...

    @property
    def seconds(self) -> float:
        """How long it took."""
        ...


@runtime_checkable
class Retrieval(Protocol):
    """An error of a source that knows who was asked."""

    @property
    def asked(self) -> Sequence[Provider]: ...

    @property
    def unsure(self) -> bool:
        """Whether some of them gave no answer, so that asking again may help."""
        ...


@runtime_checkable
class Asking(Protocol):
    """A source that can tell of a fetch that did not end in time."""

    def asked(self, cid: CID) -> Sequence[Provider]:
        """Who has been asked for a block that is being fetched, or was a moment ago."""
        ...


class BlockSource(Protocol):
    """Blocks by CID, already verified: the gateway never checks a hash."""

    def view(self, cid: CID) -> AbstractContextManager[memoryview] | None:
        """The block's bytes if they are here now, without waiting; else None.

        The view is valid inside the context only. The gateway enters it at once, so that a transaction may
        be open already, and leaves it within a second.
        """
        ...

    async def get(self, cid: CID) -> bytes:
        """The block, from here or fetched and verified.

        Raises a LookupError of any class where it cannot be found, TimeoutError where it takes too long.
        """
        ...

    async def has(self, cid: CID) -> bool:
        """Whether `get` would answer without fetching."""
        ...


@dataclass(frozen=True, slots=True)
class NameTarget:
    """What a name points at now: `/ipfs/…` or `/ipns/…`, for `ttl_s` more seconds (0 = unknown).

    `changed_s` is when the name began to point there, as far as the resolver saw it, in whole seconds since
    1970 (None = unknown): the Last-Modified of what is behind the name.
    """

    path: str
    ttl_s: int
    changed_s: int | None = None


@dataclass(frozen=True, slots=True)
class NameRecord:
    """A signed IPNS record as it came (protobuf), valid for `ttl_s` more seconds."""

    data: bytes
    ttl_s: int


class NameResolver(Protocol):
    """IPNS keys (`k51…`) and DNSLink names, one step at a time: the gateway follows chains itself."""

    async def resolve(self, name: str) -> NameTarget:
        """Raises LookupError where there is no valid record, TimeoutError where it takes too long."""
        ...


class RecordSource(Protocol):
    """Signed IPNS records, for clients that verify them (`?format=ipns-record`)."""

    async def record(self, name: str) -> NameRecord:
        """Raises LookupError where there is no valid record, TimeoutError where it takes too long."""
        ...
