"""What a client reads of the ledger's state: proven where the chain is pinned, else as the server says.

Of a pinned chain each record is taken from its proof (`ProvenState`). A list is the server's choice: its
records are proven, what does not belong in it is left out, but what it leaves out itself nothing shows.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any, Generic, NamedTuple, TypeVar

from ledger import keys, limits
from ledger.engine.answers import field, page_of, status_of, typed
from ledger.engine.errors import LedgerNotFound, LedgerProtocolError
from ledger.engine.proven_state import ProvenState, decoded
from ledger.engine.servers import Servers
from ledger.engine.views import (
    ChangeView,
    DatasetView,
    DealView,
    ProposalView,
    SlotView,
    SpotView,
    ValidatorView,
)
from ledger.fields import Wire
from ledger.genesis import Params
from ledger.records import (
    AccountRecord,
    ChainRecord,
    DatasetRecord,
    DealStatus,
    ProviderRecord,
    SlotRecord,
    SpotRecord,
)
from ledger.records_governance import ProposalRecord, VoteRecord
from ledger.records_validators import ValidatorRecord
from merkledag.cid import CID
from merkledag.peer import peer_text

PAGE = 1_000
MAX_PAGES = 10_000  # each has PAGE items, or all that 4,000 rows of the state have of what is asked for
W = TypeVar("W", bound=Wire)
V = TypeVar("V", bound=Wire)


class Standing(NamedTuple):
    """What an account needs to know to sign: its record, the parameters in force, and ledger time."""

    record: AccountRecord
    params: Params
    time: int


@dataclass(frozen=True, slots=True)
class _Item(Generic[V]):
    """The items of a list: the record behind each, its key in the state, and the item with that record."""

    record: type[Wire]
    key: Callable[[V], bytes]
    put: Callable[[V, Any], V]


class StateReads:
    """A base of `LedgerClient`. Methods raise what that says of all its methods."""

    def __init__(self, servers: Servers) -> None:
        self._servers = servers
        self._proven = ProvenState(servers) if servers.is_pinned else None

    @property
    def url(self) -> str:
        """That of the server that is asked now, or was last."""
        return self._servers.url

    # -- the chain -----------------------------------------------------------------------------------------

    async def status(self) -> dict[str, Any]:
        """Chain ID, engine, height, times and totals, as docs/ledger-rpc.md says; hashes as bytes.

        This is what one server says of itself.
        """
        found = status_of(await self._get("/v1/status"))
        self._servers.saw(found["height"])
        return found

    async def params(self, version: int | None = None) -> Params:
        """The chain's parameters in force, or a version of them: a deal's or a dataset's `terms`."""
        if self._proven is not None:
            wanted = (await self._proven.chain()).params_version if version is None else version
            return _found(
                await self._proven.params(wanted), f"there is no version {wanted} of the parameters"
            )
        query = None if version is None else {"version": str(version)}
        return typed(Params, await self._get("/v1/params", query))

    # -- accounts and providers ----------------------------------------------------------------------------

    async def account(self, account: bytes) -> AccountRecord:
        """An account; one that was never used has nothing."""
        path = f"/v1/account/{peer_text(account)}"
        return await self._record(AccountRecord, keys.account(account), path, "record") or AccountRecord()

    async def standing(self, account: bytes) -> Standing:
        """What an account needs to know to sign."""
        if self._proven is None:
            status = await self.status()
            return Standing(await self.account(account), await self.params(), status["time"])
        found = (await self._proven.values([keys.account(account), keys.CHAIN])).by_key
        chain = _found(decoded(ChainRecord, found[keys.CHAIN]), "the state lacks what it says of the chain")
        record = decoded(AccountRecord, found[keys.account(account)]) or AccountRecord()
        return Standing(record, await self.params(chain.params_version), chain.time)

    async def next_nonce(self, account: bytes) -> tuple[int, int]:
        """The height of a block, and which nonce the account has to use next after it.

        Raises ValueError where nothing is pinned that it could be proven by.
        """
        if self._proven is None:
            raise ValueError("without a pinned chain nothing proves a nonce")
        key = keys.account(account)
        found = await self._proven.values([key])
        record = decoded(AccountRecord, found.by_key[key]) or AccountRecord()
        return found.height, record.nonce

    async def history(self, account: bytes) -> AsyncIterator[ChangeView]:
        """Every change of an account's balance or stake, the newest first; pages are fetched as needed."""
        async for page in self._pages(ChangeView, f"/v1/account/{peer_text(account)}/history", {}):
            for view in page:
                yield view

    async def providers(self) -> list[ProviderRecord]:
        """Every registered provider."""
        return await self._list(ProviderRecord, "/v1/providers", {}, _PROVIDER)

    async def provider(self, account: bytes) -> ProviderRecord:
        """One provider; raises LedgerNotFound."""
        path = f"/v1/provider/{peer_text(account)}"
        found = await self._record(ProviderRecord, keys.provider(account), path)
        return _found(found, "no such provider is registered")

    async def validators(self) -> list[ValidatorView]:
        """Everybody who registered keys to validate with, whether it has power or not."""
        return await self._list(ValidatorView, "/v1/validators", {}, _VALIDATOR)

    async def validator(self, account: bytes) -> ValidatorView:
        """One of them; raises LedgerNotFound."""
        path = f"/v1/validator/{peer_text(account)}"
        found = await self._record(ValidatorRecord, keys.validator(account), path, "validator")
        return _validator(account, _found(found, "this account registered no keys to validate with"))

    # -- deals and datasets --------------------------------------------------------------------------------

    async def deal(self, deal: CID) -> DealView:
        """One deal with its shards; raises LedgerNotFound."""
        if self._proven is None:
            return typed(DealView, await self._get(f"/v1/deal/{deal}"))
        (found,) = await self._proven.deals([deal])
        return _found(found, f"no deal {deal}, or it is long over")

    async def deals(
        self,
        client: bytes | None = None,
        provider: bytes | None = None,
        content: CID | None = None,
        active: bool | None = None,
        *,
        limit: int | None = None,
    ) -> list[DealView]:
        """The deals that match all that is given; `provider` holds or is offered a shard of them.

        With `limit`, the first so many.
        """
        return [view async for view in self.each_deal(client, provider, content, active, limit=limit)]

    async def each_deal(
        self,
        client: bytes | None = None,
        provider: bytes | None = None,
        content: CID | None = None,
        active: bool | None = None,
        *,
        limit: int | None = None,
        after: CID | None = None,
    ) -> AsyncIterator[DealView]:
        """As `deals`, but page by page as they are read; `after` is the deal that the list goes on behind."""
        query = {
            "client": None if client is None else peer_text(client),
            "provider": None if provider is None else peer_text(provider),
            "content": None if content is None else str(content),
            "active": None if active is None else str(active).lower(),
        }
        given = {name: text for name, text in query.items() if text is not None}
        cursor = "" if after is None else bytes(after).hex()
        seen: set[CID] = set()
        async for page in self._pages(DealView, "/v1/deals", given, limit, cursor):
            if self._proven is None:
                for view in page:
                    yield view
                continue
            new = dict.fromkeys(view.id for view in page if view.id not in seen)
            seen.update(new)
            for proven in await self._proven.deals(list(new)):
                if proven is not None and _is_listed(proven, client, provider, content, active):
                    yield proven

    async def dataset(self, dataset: bytes) -> DatasetRecord:
        """One dataset; raises LedgerNotFound."""
        path = f"/v1/dataset/{dataset.hex()}"
        found = await self._record(DatasetRecord, keys.dataset(dataset), path, "dataset")
        return _found(found, "no such dataset")

    async def datasets(self, provider: bytes | None = None) -> list[tuple[bytes, DatasetRecord]]:
        """All datasets, or one provider's, each with its ID."""
        given = {} if provider is None else {"provider": peer_text(provider)}
        views = await self._list(DatasetView, "/v1/datasets", given, _DATASET)
        return [(view.id, view.dataset) for view in views if provider in (None, view.dataset.provider)]

    async def dataset_slots(self, dataset: bytes) -> dict[int, SlotRecord]:
        """Which shard each used slot of a dataset holds; raises LedgerNotFound.

        This is the server's word: whether it is right, the roots in the dataset's record show.
        """
        pages = self._pages(SlotView, f"/v1/dataset/{dataset.hex()}/slots", {})
        return {view.slot: SlotRecord(view.deal, view.shard) async for page in pages for view in page}

    async def spots(self, provider: bytes | None = None, deal: CID | None = None) -> list[SpotView]:
        """The open spot challenges, a provider's or a deal's; a seed is b"" until the next block draws it."""
        given = {} if provider is None else {"provider": peer_text(provider)}
        given |= {} if deal is None else {"deal": str(deal)}
        views = await self._list(SpotView, "/v1/spots", given, _SPOT)
        return [
            view for view in views if provider in (None, view.spot.provider) and deal in (None, view.deal)
        ]

    async def spot(self, deal: CID, shard: int) -> SpotRecord | None:
        """The open spot challenge of a shard, if there is one."""
        if self._proven is not None:
            return await self._proven.record(SpotRecord, keys.spot(deal, shard))
        return next((view.spot for view in await self.spots(deal=deal) if view.shard == shard), None)

    # -- governance ----------------------------------------------------------------------------------------

    async def proposals(self) -> list[ProposalView]:
        """The proposals that are open or not long over, in order of their numbers."""
        return await self._list(ProposalView, "/v1/proposals", {}, _PROPOSAL)

    async def proposal(self, proposal: CID) -> ProposalView:
        """One proposal; raises LedgerNotFound."""
        path = f"/v1/proposal/{proposal}"
        found = await self._record(ProposalRecord, keys.proposal(proposal), path, "proposal")
        return ProposalView(proposal, _found(found, f"no proposal {proposal}, or it is long over"))

    async def vote(self, proposal: CID, account: bytes) -> VoteRecord:
        """How a provider voted; raises LedgerNotFound if it did not."""
        path = f"/v1/proposal/{proposal}/vote/{peer_text(account)}"
        found = await self._record(VoteRecord, keys.vote(proposal, account), path)
        return _found(found, f"no vote of this account on {proposal}")

    # -- inside --------------------------------------------------------------------------------------------

    async def _get(self, path: str, query: dict[str, str] | None = None) -> Any:
        return await self._servers.get(path, query)

    async def _record(self, cls: type[W], key: bytes, path: str, part: str = "") -> W | None:
        """One record: what the state has at `key`, or what `path`, in its field `part`, answers."""
        if self._proven is not None:
            return await self._proven.record(cls, key)
        answer = await self._get(path)
        return typed(cls, field(answer, part) if part else answer)

    async def _list(self, cls: type[V], path: str, query: dict[str, str], item: _Item[V]) -> list[V]:
        """A whole list; of a pinned chain with its records as proofs show them, each once."""
        found: dict[bytes, V] = {}
        async for page in self._pages(cls, path, query):
            by_key = {item.key(view): view for view in page}
            if self._proven is not None:
                wanted = [key for key in by_key if key not in found]
                records = await self._proven.records(item.record, wanted)
                pairs = zip(wanted, records, strict=True)
                by_key = {key: item.put(by_key[key], record) for key, record in pairs if record is not None}
            found |= by_key
        return list(found.values())

    async def _pages(
        self, cls: type[V], path: str, query: dict[str, str], most: int | None = None, begin: str = ""
    ) -> AsyncIterator[list[V]]:
        cursor: str | None = begin
        given = pages = 0
        while cursor is not None and (most is None or given < most):
            if pages == MAX_PAGES:
                raise LedgerProtocolError(
                    f"{self.url} gives a list without end: {MAX_PAGES:,} pages, {given:,} items, and yet "
                    "more. Name another server in ledger.url"
                )
            pages += 1
            size = PAGE if most is None else min(PAGE, most - given)
            page = {**query, "limit": str(size), **({"cursor": cursor} if cursor else {})}
            items, following = page_of(await self._get(path, page))
            views = [typed(cls, item) for item in items[:size]]
            given += len(views)
            yield views
            if following is not None and following == cursor:
                raise LedgerProtocolError(f"{self.url} gives the same page again and again")
            cursor = following


def _found(record: W | None, missing: str) -> W:
    if record is None:
        raise LedgerNotFound(missing)
    return record


def _validator(account: bytes, record: ValidatorRecord) -> ValidatorView:
    return ValidatorView(account, keys.address(record.consensus_key), record)


def _is_listed(
    view: DealView, client: bytes | None, provider: bytes | None, content: CID | None, active: bool | None
) -> bool:
    """Whether a deal belongs in the list that was asked for."""
    deal = view.deal
    return (
        client in (None, deal.client)
        and (provider is None or provider in deal.parties)
        and (content is None or content.multihash == deal.content.multihash)
        and active in (None, deal.status is DealStatus.OPEN)
    )


def _spot_key(view: SpotView) -> bytes:
    if view.shard >= limits.MAX_SHARDS:
        raise LedgerProtocolError(f"a spot challenge of shard {view.shard}, which no deal has")
    return keys.spot(view.deal, view.shard)


_PROVIDER: _Item[ProviderRecord] = _Item(
    ProviderRecord, lambda view: keys.provider(view.account), lambda _view, record: record
)
_VALIDATOR: _Item[ValidatorView] = _Item(
    ValidatorRecord,
    lambda view: keys.validator(view.account),
    lambda view, record: _validator(view.account, record),
)
_DATASET: _Item[DatasetView] = _Item(
    DatasetRecord, lambda view: keys.dataset(view.id), lambda view, record: DatasetView(view.id, record)
)
_SPOT: _Item[SpotView] = _Item(
    SpotRecord, _spot_key, lambda view, record: SpotView(view.deal, view.shard, record)
)
_PROPOSAL: _Item[ProposalView] = _Item(
    ProposalRecord, lambda view: keys.proposal(view.id), lambda view, record: ProposalView(view.id, record)
)
