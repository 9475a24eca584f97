"""Whether a server runs the pinned chain, by headers that its validators signed: `ChainCheck`'s second form.

All servers of one ledger share what is trusted (`LightTrust`), and each is a witness against the others.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from functools import partial
from hashlib import sha256
from typing import TypeVar

from ledger import keys, state_tree
from ledger.engine.answers import field, typed
from ledger.engine.blocks import Block
from ledger.engine.chain_check import Behind, ChainCheck, TrustPin
from ledger.engine.cometbft.light.block import LightBlock
from ledger.engine.cometbft.light.block_match import differs
from ledger.engine.cometbft.light.client import LightClient, Source, behind, pinned_block
from ledger.engine.cometbft.light.errors import InvalidLightBlock
from ledger.engine.cometbft.light.header import Header
from ledger.engine.cometbft.light.proof_file import LightProofFile
from ledger.engine.cometbft.light.verify import Rules, verify_alone
from ledger.engine.errors import (
    ChainMismatch,
    LedgerNotFound,
    LedgerProtocolError,
    LedgerPruned,
    LedgerRefused,
    LedgerUnreachable,
)
from ledger.engine.evidence import Evidence
from ledger.engine.transport import Transport
from ledger.errors import LedgerError
from ledger.genesis import Genesis
from ledger.state_tree import StateProof
from merkledag.cid import CID

# The header after a block comes with the next block: within seconds, or the chain stands still.
SETTLE_S = 0.1
SETTLE_STEPS = 9  # doubled each time: 51 s in all
BEHIND_STEPS = 5  # 3 s: the ledger itself comes a moment after its header
BY_OPERATOR = (
    "shows a chain whose blocks its operator signs, not the validators of the header that is pinned: if that "
    "is right, `holdfast ledger join URL --replace` pins the operator"
)
OTHER_GENESIS = "shows a genesis that is not the chain's"
T = TypeVar("T")


async def settled(
    asked: Callable[[], Awaitable[T]],
    url: str,
    height: int,
    sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
) -> T:
    """What is asked of the header after block `height`, once that is there; raises LedgerUnreachable."""
    try:
        return await _again_while(LedgerNotFound, asked, SETTLE_STEPS, sleep)
    except LedgerNotFound:
        raise LedgerUnreachable(
            f"{url} has block {height}, but no header after it that would vouch for its state: does the "
            "chain stand still?"
        ) from None


async def _again_while(
    failure: type[LedgerError],
    asked: Callable[[], Awaitable[T]],
    steps: int,
    sleep: Callable[[float], Awaitable[object]],
) -> T:
    """Asks again after each such failure, waiting twice as long each time; raises the last one."""
    for step in range(steps):
        with suppress(failure):
            return await asked()
        await sleep(SETTLE_S * 2**step)
    return await asked()


class ServerSource:
    """The light blocks that a Holdfast server shows."""

    def __init__(self, http: Transport) -> None:
        self._http = http

    @property
    def url(self) -> str:
        """The server's."""
        return self._http.url

    async def light_block(self, height: int | None) -> LightBlock:
        """See `Source`."""
        answer = await self._http.get(f"/v1/light/{'latest' if height is None else height}")
        raw = field(answer, "light_block")
        if type(raw) is not bytes:
            raise LedgerProtocolError(f"{self.url} gave no light block; is this a ledger's URL?")
        return LightBlock.decode(raw)

    async def accuse(self, block: LightBlock, common_height: int) -> None:
        """See `Source`."""
        await self._http.post(f"/v1/light?common={common_height}", block.encode())


class LightTrust:
    """What one client trusts of a chain: a pin from people, and the header that it led to (`stored`).

    `genesis` is the SHA-256 of the genesis once a proof has shown it.
    """

    def __init__(
        self,
        pin: TrustPin,
        chain: str,
        rules: Rules | None = None,
        *,
        now_ns: Callable[[], int] = time.time_ns,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        self.pin = pin
        self.chain = chain
        self.sources: list[Source] = []
        self.genesis = pin.genesis
        self.sleep = sleep
        self._rules = rules
        self._now_ns = now_ns
        self._light: LightClient | None = None
        self._starting = asyncio.Lock()
        if pin.stored:
            with suppress(InvalidLightBlock):  # damaged: the pinned header is where it begins anew
                stored = LightBlock.decode(pin.stored)
                stored.check(chain)
                if stored.height >= pin.height:
                    self._light = LightClient(stored, rules, now_ns, pin)

    @property
    def newest(self) -> LightBlock | None:
        """The newest trusted light block; None before any server was asked."""
        return None if self._light is None else self._light.newest

    @property
    def moved(self) -> TrustPin:
        """The pin with what it has led to by now."""
        stored = self.pin.stored if self.newest is None else self.newest.encode()
        return self.pin._replace(stored=stored, genesis=self.genesis)

    async def light(self, source: Source) -> LightClient:
        """The light client, begun at the pinned header if at no later one."""
        async with self._starting:
            if self._light is None:
                pinned = await pinned_block(self.pin, self.chain, source)
                self._light = LightClient(pinned, self._rules, self._now_ns, self.pin)
            return self._light


class LightChain(ChainCheck):
    """One server of such a chain."""

    def __init__(self, http: Transport, trust: LightTrust) -> None:
        super().__init__(http, trust.chain, None, None)
        self._trust = trust
        self._began = 0  # the last header when this server was found to have the right chain
        self._source = ServerSource(http)
        trust.sources.append(self._source)

    @property
    def is_pinned(self) -> bool:
        """See `ChainCheck`."""
        return True

    @property
    def known_height(self) -> int:
        """See `ChainCheck`; a pinned header's block may be the one that something is in."""
        newest = self._trust.newest
        return 0 if newest is None else newest.height - 1

    async def require(self, *, again: bool = False) -> None:
        """See `ChainCheck`; every header that the server adds must follow from trusted ones."""
        async with self._checking:
            if self._checked and not again:
                return
            self._genesis = None
            try:
                self._refuse_genesis(await self.genesis())  # first: for another chain's headers nobody waits
                light = await self._trust.light(self._source)
                before = light.newest.height
                last = await light.follow(self._source, self._trust.sources)
                if last.height < before:
                    raise LedgerUnreachable(behind(self._http.url, last.height, before))
                self._checked = await self._require_genesis(last.header)
                self._began = last.height
            except LedgerPruned:
                raise
            except (LedgerNotFound, LedgerRefused) as error:  # of what the pinned chain has, no answer
                raise LedgerUnreachable(
                    f"{self._http.url} does not show that it runs the pinned chain: {error}"
                ) from error

    def require_height(self, height: int) -> None:
        """See `ChainCheck`: blocks up to the newest trusted header's are there."""
        newest = self._trust.newest
        if newest is not None and newest.height < height:
            raise LedgerUnreachable(f"{self._http.url} told of block {height}, but shows no header of it")

    async def block(self, height: int | None) -> Block:
        """The block at a height, or the last whose app hash is signed: as two signed headers have it.

        They vouch for chain, height, block time, transactions and app hash. Ledger time and beacon are in the
        state (`chain`), and so is whose account the proposer's address is.
        """
        if height is None:
            light = await self._trust.light(self._source)
            height = max(1, (await light.follow(self._source, self._trust.sources)).height - 1)
        block = await self._included(height)
        after = await self.app_hash_header(height)
        if block.app_hash != after.app_hash:
            raise self._other(block, "the app hash")
        return block

    async def has_transaction(self, height: int, cid: CID) -> bool:
        """See `ChainCheck`; one header is enough for it."""
        return cid in (await self._included(height)).txs

    async def evidence(self, path: str) -> Evidence:
        """See `ChainCheck`; its last header is the chain's."""
        found = await super().evidence(path)
        if not found.lights:
            raise LedgerProtocolError(f"{self._http.url} gave the file of a proof without headers")
        last = LightBlock.decode(found.lights[-1]).header
        if last.height != found.state_block.height + 1 or await self._header(last.height) != last:
            raise ChainMismatch(f"{self._http.url} gave a proof under a header that is not the chain's")
        return found

    async def app_hash_header(self, height: int) -> Header:
        """The header that has the app hash after a block: that of the next height, waited for."""
        return await settled(lambda: self._header(height + 1), self._http.url, height, self._trust.sleep)

    async def light_block(self, height: int | None) -> LightBlock:
        """See `ChainCheck`; this one is held against all others, and trusted."""
        light = await self._trust.light(self._source)
        if height is None:
            return await light.follow(self._source, self._trust.sources)
        header = await self._header(height)
        kept = light.kept(height)
        if kept is not None:
            return kept
        found = await self._source.light_block(height)  # trusted by its hash alone: not yet its votes
        if found.header != header:
            raise ChainMismatch(f"{self._http.url} shows two headers of height {height}")
        verify_alone(found, self._trust.chain)
        return found

    async def prove(self, key: bytes) -> LightProofFile:
        """See `ChainCheck`: with the light blocks from the first trusted one to that of the app hash."""
        height, proof = await self._shown_proof(key)
        after = await self.app_hash_header(height)
        if not state_tree.verify(proof, after.app_hash):
            raise ChainMismatch(f"{self._http.url} gave a proof that does not lead to the signed app hash")
        light = await self._trust.light(self._source)
        way = light.trace(height + 1) if light.kept(height + 1) else [await self.light_block(height + 1)]
        return LightProofFile.of(tuple(each.encode() for each in way), proof)

    async def _shown_proofs(self, wanted: Sequence[bytes], least: int) -> tuple[int, list[StateProof]]:
        """See `ChainCheck`; a block whose header is there already is waited for."""
        asked = partial(super()._shown_proofs, wanted, max(least, self._began))
        return await _again_while(Behind, asked, BEHIND_STEPS, self._trust.sleep)

    async def _app_hash(self, height: int) -> bytes:
        """See `ChainCheck`: that of the header after the block; the first one's is of the genesis."""
        return (await self.app_hash_header(height)).app_hash

    async def _header(self, height: int) -> Header:
        light = await self._trust.light(self._source)
        return await light.header(height, self._source, self._trust.sources)

    async def _included(self, height: int) -> Block:
        """A block whose time and transactions are those of its header."""
        answer = await self._http.get(f"/v1/block/{height}")
        block = typed(Block, field(answer, "block"))
        if block.height != height:
            raise LedgerProtocolError(f"{self._http.url} gave block {block.height} for block {height}")
        header = await self._header(height)
        if other := differs(block, header):
            raise self._other(block, other)
        return block

    async def _require_genesis(self, last: Header) -> bool:
        """A genesis is public: the state, which signed headers vouch for, must have this very one.

        Not before the second block is there a header of a state, and until then this is not decided.
        """
        raw = (await self.genesis()).encode()
        if sha256(raw).digest() == self._trust.genesis:
            return True
        if last.last_block_id.is_nil:
            return False
        _, (stored,) = await self.proven([keys.GENESIS], 0)
        if stored != raw:
            raise ChainMismatch(f"{self._http.url} {OTHER_GENESIS}")
        self._trust.genesis = sha256(raw).digest()
        return True

    def _refuse_genesis(self, genesis: Genesis) -> None:
        """By what a server says of itself it can be of another chain, and of the pinned one not yet."""
        url = self._http.url
        if genesis.chain_id != self._trust.chain:
            raise ChainMismatch(f"{url} runs chain {genesis.chain_id}, not {self._trust.chain}")
        if not genesis.validators:
            raise ChainMismatch(f"{url} {BY_OPERATOR}")
        if self._trust.genesis not in (b"", sha256(genesis.encode()).digest()):
            raise ChainMismatch(f"{url} {OTHER_GENESIS}")

    def _other(self, block: Block, what: str) -> ChainMismatch:
        return ChainMismatch(
            f"block {block.height} from {self._http.url} has not {what} of the header that validators signed"
        )
