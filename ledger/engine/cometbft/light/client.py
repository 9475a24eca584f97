"""Follows a chain from one trusted header on: what servers show is verified, and compared among them.

Forward from the newest trusted header not above the wanted one: directly where enough of the trusted power
signed the wanted header, else over headers in between (at 9/16 of the way, as CometBFT does it). Backward by
the hashes that headers carry. What is older than all that is kept is reached from the pinned header too,
where that is nearer, or the way back too long. A later header is kept only after every other server that has
one of that height showed the same; where one shows another that is signed as well, nothing is kept and
`Divergence` says so. The newest trusted header moves forward alone.
"""

from __future__ import annotations

import asyncio
import logging
import time
from bisect import bisect_right
from collections.abc import Callable, Sequence
from contextlib import suppress
from itertools import pairwise
from typing import Protocol

from ledger.engine.chain_check import TrustPin
from ledger.engine.cometbft.light.block import LightBlock
from ledger.engine.cometbft.light.canonical import SECOND_NS
from ledger.engine.cometbft.light.errors import (
    Divergence,
    InvalidLightBlock,
    NotEnoughTrust,
    TrustExpired,
)
from ledger.engine.cometbft.light.header import Header
from ledger.engine.cometbft.light.verify import Rules, verify, verify_alone, verify_backwards
from ledger.engine.errors import (
    ChainMismatch,
    LedgerNotFound,
    LedgerProtocolError,
    LedgerPruned,
    LedgerUnreachable,
)
from ledger.errors import LedgerError
from merkledag import rfc3339

_log = logging.getLogger(__name__)

MAX_KEPT = 64
MAX_BETWEEN = 2_000  # headers that one step forward may need; changes of validators that nobody makes
MAX_BACK = 1_000
WITNESS_TIMEOUT_S = 5.0
RENEW = (
    "ask people who run validators for the height and hash of a new header (`holdfast ledger light` shows "
    "them), then: holdfast ledger join URL --trust HEIGHT:HASH --replace"
)


class Source(Protocol):
    """A server that shows light blocks."""

    @property
    def url(self) -> str:
        """Its URL, for messages."""

    async def light_block(self, height: int | None) -> LightBlock:
        """That of a height, or the last; raises LedgerNotFound, LedgerUnreachable, LedgerProtocolError."""

    async def accuse(self, block: LightBlock, common_height: int) -> None:
        """Gives it as evidence a signed block that it does not have; it has the common one before it.

        Raises LedgerError where it takes none.
        """


class LightClient:
    """The trusted headers of one chain. `trusted` has been verified, or is of the hash that people pinned.

    Methods raise what `verify` raises, Divergence, and what a source does.
    """

    def __init__(
        self,
        trusted: LightBlock,
        rules: Rules | None = None,
        now_ns: Callable[[], int] = time.time_ns,
        pin: TrustPin | None = None,
    ) -> None:
        self.rules = rules or Rules()
        self.newest = trusted
        self._pin = pin
        self._pinned: LightBlock | None = None
        self._now_ns = now_ns
        self._kept: dict[int, LightBlock] = {trusted.height: trusted}
        self._moving = asyncio.Lock()

    @property
    def chain(self) -> str:
        """The chain's ID."""
        return self.newest.header.chain

    async def follow(self, source: Source, witnesses: Sequence[Source] = ()) -> LightBlock:
        """Trusts the last header that `source` has, which may be the newest trusted one; returns it."""
        shown = await source.light_block(None)
        return await self._trust(shown, source, witnesses)

    async def header(self, height: int, source: Source, witnesses: Sequence[Source] = ()) -> Header:
        """The chain's header at a height, trusted before or now."""
        kept = self._kept.get(height)
        if kept is not None:
            return kept.header
        if height < self.newest.height:
            before = self._nearest(height)
            if before is None or self._is_expired(before):
                return await self._older(height, source, witnesses)
        shown = await self._shown(height, source)
        return (await self._trust(shown, source, witnesses)).header

    def kept(self, height: int) -> LightBlock | None:
        """The trusted block of a height, if it is still kept."""
        return self._kept.get(height)

    def trace(self, height: int) -> list[LightBlock]:
        """The trusted blocks by which the one at a height is trusted, itself the last; it has been asked for.

        The first is where this client began, or the oldest that it still keeps.
        """
        return [self._kept[each] for each in sorted(self._kept) if each <= height]

    # -- inside --------------------------------------------------------------------------------------------

    def _nearest(self, height: int) -> LightBlock | None:
        """The newest trusted header up to a height."""
        heights = sorted(self._kept)
        at = bisect_right(heights, height)
        return self._kept[heights[at - 1]] if at else None

    def _is_expired(self, block: LightBlock) -> bool:
        until_ns = block.header.time_ns + self.rules.trusting_period_s * SECOND_NS
        return until_ns <= self._now_ns()

    async def _trust(self, shown: LightBlock, source: Source, witnesses: Sequence[Source]) -> LightBlock:
        async with self._moving:
            kept = self._kept.get(shown.height)
            if kept is not None and kept.header.hash() == shown.header.hash():
                return kept
            root = self._nearest(shown.height - 1)
            if shown.height < self.newest.height and (root is None or self._is_expired(root)):
                raise LedgerUnreachable(behind(source.url, shown.height, self.newest.height))
            if root is None:
                raise InvalidLightBlock(
                    f"{source.url} shows a header {shown.height} that no older trusted one leads to"
                )
            if shown.header.time_ns >= self._now_ns() + self.rules.clock_drift_s * SECOND_NS:
                # Of one or of all servers: most likely it is our clock, and nobody is dropped for that.
                raise LedgerUnreachable(
                    f"{source.url} shows header {shown.height} of a time in the future: is the clock of this "
                    "machine right?"
                )
            try:
                way = await self._way(root, shown, source)
            except TrustExpired as error:
                raise TrustExpired(f"{error}; {RENEW}") from error
            if kept is not None:
                raise Divergence(_differ(shown.height, "trusted before", kept, source.url, shown))
            await self._compare([root, *way], source, witnesses)
            for each in way:
                self._keep(each)
            return shown

    async def _way(self, root: LightBlock, target: LightBlock, source: Source) -> list[LightBlock]:
        """The blocks by which `target` is trusted because `root` is, itself the last."""
        way: list[LightBlock] = []
        trusted, ahead = root, [target]
        asked = 0
        while ahead:
            try:
                verify(trusted, ahead[-1], self._now_ns(), self.rules)
            except NotEnoughTrust:
                asked += 1
                if asked > MAX_BETWEEN:
                    raise
                between = trusted.height + max(1, (ahead[-1].height - trusted.height) * 9 // 16)
                ahead.append(await self._shown(between, source))
                continue
            trusted = ahead.pop()
            way.append(trusted)
        return way

    async def _shown(self, height: int, source: Source) -> LightBlock:
        shown = await source.light_block(height)
        if shown.height != height:
            raise LedgerProtocolError(f"{source.url} gave header {shown.height} for header {height}")
        return shown

    def _keep(self, block: LightBlock) -> None:
        self._kept[block.height] = block
        if block.height > self.newest.height:
            self.newest = block
        while len(self._kept) > MAX_KEPT:
            del self._kept[min(self._kept)]

    async def _compare(self, trace: list[LightBlock], source: Source, witnesses: Sequence[Source]) -> None:
        """Raises Divergence where another server shows another header that stands as well as this one.

        `trace` leads from a trusted block to the one that `source` shows. Each server is given the evidence
        against what the other shows: whichever is of the chain has those punished who signed the other one.
        """
        others = [each for each in witnesses if each.url != source.url]
        for found in await asyncio.gather(*(self._other(trace, each) for each in others)):
            if found is not None:
                witness, other = found
                differ = _differ(trace[-1].height, source.url, trace[-1], witness.url, other[-1])
                said = [await _accuse(trace, witness), await _accuse(other, source)]
                raise Divergence(f"{differ}. {'; '.join(said)}")

    async def _other(
        self, trace: list[LightBlock], witness: Source
    ) -> tuple[Source, list[LightBlock]] | None:
        """The witness, and what leads to its header, if that is another one and holds.

        No answer says nothing.
        """
        shown = trace[-1]
        try:
            async with asyncio.timeout(WITNESS_TIMEOUT_S):
                found = await self._shown(shown.height, witness)
                if found.header.hash() == shown.header.hash():
                    return None
                way = await self._way(trace[0], found, witness)
        except (InvalidLightBlock, LedgerProtocolError) as error:
            _log.warning("%s shows a header %d that does not hold: %s", witness.url, shown.height, error)
            return None
        except (LedgerError, TimeoutError) as error:  # whatever it says instead: it must hinder nobody
            _log.debug("%s does not tell of header %d: %s", witness.url, shown.height, error)
            return None
        return witness, [trace[0], *way]

    async def _older(self, height: int, source: Source, witnesses: Sequence[Source]) -> Header:
        """A header to which no kept one leads forward. What leads to it is not kept."""
        above = self._kept[min(each for each in self._kept if each > height)]
        far = above.height - height
        if self._pin is not None and (far > MAX_BACK or abs(self._pin.height - height) < far):
            with suppress(LedgerPruned):
                pinned = await self._pinned_block(self._pin, source)
                if pinned.height >= height:
                    return await self._back_to(height, pinned, source)
                if not self._is_expired(pinned):
                    shown = await self._shown(height, source)
                    way = await self._way(pinned, shown, source)
                    await self._compare([pinned, *way], source, witnesses)
                    return shown.header
        return await self._back_to(height, above, source)

    async def _pinned_block(self, pin: TrustPin, source: Source) -> LightBlock:
        if self._pinned is None:
            self._pinned = await pinned_block(pin, self.chain, source)
        return self._pinned

    async def _back_to(self, height: int, block: LightBlock, source: Source) -> Header:
        """A header older than a trusted block, by the hash in the one after it, and so on."""
        if block.height - height > MAX_BACK:
            raise LedgerNotFound(
                f"header {height} is {block.height - height} blocks before the nearest trusted one, "
                f"{block.height}: at most {MAX_BACK} are followed back"
            )
        while block.height > height:
            older = await self._shown(block.height - 1, source)
            verify_backwards(older.header, block.header)
            block = older
        return block.header


async def pinned_block(pin: TrustPin, chain: str, source: Source) -> LightBlock:
    """The block of a pinned header; raises LedgerPruned where the server does not have it, ChainMismatch."""
    try:
        found = await source.light_block(pin.height)
    except LedgerNotFound as error:
        raise LedgerPruned(
            f"{source.url} does not have header {pin.height}, which is pinned ({error}): name another URL, "
            "or pin a newer header: holdfast ledger join URL --trust HEIGHT:HASH --replace"
        ) from error
    if found.header.hash() != pin.hash or found.height != pin.height:
        raise ChainMismatch(
            f"{source.url} has another header {pin.height} than is pinned: {found.header.hash().hex()}"
        )
    verify_alone(found, chain)
    return found


async def _accuse(trace: list[LightBlock], judge: Source) -> str:
    """Gives a server the first block of a trace that it does not have; what became of it, in words.

    The block before that one is in both histories (light/detector.go, examineConflictingHeaderAgainstTrace).
    """
    try:
        async with asyncio.timeout(WITNESS_TIMEOUT_S):
            for common, block in pairwise(trace):
                own = await judge.light_block(block.height)
                if own.header.hash() != block.header.hash():
                    await judge.accuse(block, common.height)
                    return f"{judge.url} took the evidence against those who signed {block.hash.hex()}"
    except (LedgerError, TimeoutError) as error:
        return f"{judge.url} took no evidence ({str(error) or 'it does not answer'})"
    return f"{judge.url} shows now what it denied"


def behind(url: str, shown: int, newest: int) -> str:
    """What is said of a server whose last header is older than one that is trusted."""
    return f"{url} ends at header {shown}, but there is a header {newest}: it is behind, or hides blocks"


def _differ(height: int, one: str, block: LightBlock, other: str, other_block: LightBlock) -> str:
    return (
        f"two headers of height {height} are signed: {block.header.hash().hex()} ({one}, "
        f"{rfc3339.format_ns(block.header.time_ns)}) and {other_block.header.hash().hex()} ({other}, "
        f"{rfc3339.format_ns(other_block.header.time_ns)}). Somebody attacks the chain or you: trust neither "
        "server, and tell the people who run validators"
    )
