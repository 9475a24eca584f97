"""A pinned chain's records as proofs show them: no server's word counts.

Each is read from the newest state that a signed block or header vouches for, and none that is older than what
this client has seen of the chain. What is absent is proven as well.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import NamedTuple, TypeVar

from ledger import keys, limits
from ledger.engine.answers import typed
from ledger.engine.errors import LedgerProtocolError
from ledger.engine.servers import Server, Servers
from ledger.engine.views import DealView
from ledger.fields import Wire
from ledger.genesis import Params
from ledger.records import ChainRecord, DealRecord, ShardRecord
from merkledag import dag_cbor
from merkledag.cid import CID
from merkledag.errors import DecodeError

MAX_VERSION = (1 << 32) - 1
W = TypeVar("W", bound=Wire)


class Values(NamedTuple):
    """What keys have, None for nothing, in states of which the last is that after block `height`."""

    height: int
    by_key: dict[bytes, bytes | None]


class ProvenState:
    """Methods raise what `LedgerClient` says of all its methods."""

    def __init__(self, servers: Servers) -> None:
        self._servers = servers
        self._terms: dict[int, Params] = {}  # no version of them ever changes

    async def values(self, wanted: Sequence[bytes]) -> Values:
        """What is at these keys; up to `limits.MAX_PROVEN_KEYS` together are of one state."""
        asked = [key for key in wanted if len(key) <= limits.MAX_KEY_BYTES]
        found: dict[bytes, bytes | None] = dict.fromkeys(wanted)
        height, least = 0, self._servers.height
        for start in range(0, len(asked), limits.MAX_PROVEN_KEYS):
            part = asked[start : start + limits.MAX_PROVEN_KEYS]
            height, values = await self._servers.ask(partial(_proven, part, least))
            self._servers.saw(height)
            found |= zip(part, values, strict=True)
        return Values(height, found)

    async def records(self, cls: type[W], wanted: Sequence[bytes]) -> list[W | None]:
        """The record at each key."""
        by_key = (await self.values(wanted)).by_key
        return [decoded(cls, by_key[key]) for key in wanted]

    async def record(self, cls: type[W], key: bytes) -> W | None:
        """The record at a key."""
        return (await self.records(cls, [key]))[0]

    async def chain(self) -> ChainRecord:
        """Where the chain stands."""
        found = await self.record(ChainRecord, keys.CHAIN)
        if found is None:
            raise LedgerProtocolError("the chain's state says nothing of the chain: use another release")
        return found

    async def params(self, version: int) -> Params | None:
        """A version of the parameters."""
        if version not in self._terms:
            if version > MAX_VERSION:
                return None
            found = await self.record(Params, keys.params(version))
            if found is None:
                return None
            self._terms[version] = found
        return self._terms[version]

    async def deals(self, wanted: Sequence[CID]) -> list[DealView | None]:
        """Deals with their shards, each deal of one state."""
        records = await self.records(DealRecord, [keys.deal(deal) for deal in wanted])
        pairs = zip(wanted, records, strict=True)
        counts = {deal: len(record.holders) for deal, record in pairs if record is not None}
        found: dict[CID, DealView | None] = {}
        for group in _together(counts):
            by_key = (await self.values([key for deal in group for key in _keys(deal, counts[deal])])).by_key
            found |= {deal: _view(deal, counts[deal], by_key) for deal in group}
        return [found.get(deal) for deal in wanted]


async def _proven(wanted: Sequence[bytes], least: int, server: Server) -> tuple[int, list[bytes | None]]:
    return await server.chain.proven(wanted, least)


def decoded(cls: type[W], raw: bytes | None) -> W | None:
    """A record of the state; raises LedgerProtocolError for one that this release does not know."""
    if raw is None:
        return None
    try:
        return typed(cls, dag_cbor.decode(raw, max_items=limits.MAX_RECORD_ITEMS))
    except DecodeError as error:
        raise LedgerProtocolError(f"the state has no {cls.__name__} of this version: {error}") from error


def _keys(deal: CID, shards: int) -> list[bytes]:
    return [keys.deal(deal), *(keys.shard(deal, index) for index in range(shards))]


def _view(deal: CID, shards: int, by_key: dict[bytes, bytes | None]) -> DealView | None:
    first, *rest = _keys(deal, shards)
    record = decoded(DealRecord, by_key[first])
    if record is None:
        return None
    found = [decoded(ShardRecord, by_key[key]) for key in rest]
    return DealView(deal, record, tuple(shard for shard in found if shard is not None))


def _together(counts: dict[CID, int]) -> Iterator[list[CID]]:
    """Deals whose keys, given how many shards each has, go together in one request."""
    group: list[CID] = []
    size = 0
    for deal, shards in counts.items():
        if group and size + 1 + shards > limits.MAX_PROVEN_KEYS:
            yield group
            group, size = [], 0
        group.append(deal)
        size += 1 + shards
    if group:
        yield group
