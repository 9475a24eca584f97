"""Several servers of one ledger as if they were one: which of them is asked, and when another takes over.

With one server this adds nothing: its errors are its own. With several, the one is asked that served last, at
the beginning the first. Another takes over

- at once, where it does not answer, cannot answer now, or answers something that is not a ledger's. The
  request is then sent again, as it was: reading twice is harmless, and so is sending the same signed bytes;
- within `SURVEY_S`, where it still answers, but its chain has stopped or fallen behind what others have;
- for good, where it runs another chain.

What the ledger itself says, a refusal or that there is no such thing, counts: nobody else is asked. Only what
a server no longer keeps, another may still have. No server is asked whose chain ends before a block that was
seen already: nothing seems to go back. The first of the list is taken again once it was well for `BACK_S`.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

from ledger.engine.answers import status_of
from ledger.engine.chain_check import ChainCheck, Tip
from ledger.engine.errors import (
    ChainMismatch,
    LedgerProtocolError,
    LedgerPruned,
    LedgerRefused,
    LedgerUnreachable,
)
from ledger.engine.transport import Transport
from ledger.errors import LedgerError

_log = logging.getLogger(__name__)

PROBE_S = 3.0  # how long each server has to tell how it is
GRACE_S = 0.5  # and how long it is still waited for once another is known to be well
SURVEY_S = 20.0
BACK_S = 60.0
DOUBT_S = 2.0  # an answer that takes so long may be worth it, from a server that tells how it is
REST_S = 10.0  # how long one that failed is taken last
MAX_BEHIND_BLOCKS = 8
LAG_STEP_S = 0.25
MAX_LAG_STEPS = 12
LEAVE = (LedgerUnreachable, LedgerProtocolError, LedgerPruned, ChainMismatch)
T = TypeVar("T")
Check = Callable[[Transport], ChainCheck]


@dataclass(eq=False, slots=True)
class Server:
    """One server: how to ask it, whether it has the right chain, and what was last known of it."""

    http: Transport
    chain: ChainCheck
    why: str = ""  # it is not used
    rests_until: float = 0.0
    well_since: float | None = None
    dropped: bool = False
    told: bool = False  # why it was dropped

    @property
    def url(self) -> str:
        """Its URL."""
        return self.http.url

    def is_ill(self, why: str) -> None:
        """It cannot be used now."""
        self.why, self.well_since = why, None


class _Found(NamedTuple):
    """What a survey found, each in the order of the list: who is well, and who is only behind."""

    well: list[Server]
    behind: list[Server]


class Servers:
    """The servers of one ledger. `get`, `get_bytes` and `post` are those of `Transport`, of any of them.

    Raises what the server asked does. Where none can be used: LedgerUnreachable, or ChainMismatch if all have
    another chain, and it names each and why.
    """

    def __init__(
        self,
        transports: Sequence[Transport],
        check: Check,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._all = tuple(Server(http, check(http)) for http in transports)
        self._sleep = sleep
        self._clock = clock
        self._chain_id: str | None = None
        self._height = max(0 if (tip := each.chain.tip) is None else tip.height for each in self._all)
        self._current: Server | None = None if self.several else self._all[0]
        self._last = self._all[0]
        self._choosing = asyncio.Lock()
        self._survey_at = 0.0
        self._survey: asyncio.Task[None] | None = None

    @property
    def several(self) -> bool:
        """Whether another server could take over."""
        return len(self._all) > 1

    @property
    def url(self) -> str:
        """That of the server that is asked now, or was last."""
        return self._last.url

    @property
    def tip(self) -> Tip | None:
        """The last block known of a chain whose operator is pinned."""
        return max((each.chain.tip for each in self._all if each.chain.tip is not None), default=None)

    @property
    def known_height(self) -> int | None:
        """The last block that is known to be there, whoever is asked; None where nothing is pinned."""
        known = [each.chain.known_height for each in self._all]
        return max((each for each in known if each is not None), default=None)

    @property
    def is_pinned(self) -> bool:
        """Whether something signed can vouch for the state that a server shows."""
        return self._all[0].chain.is_pinned

    @property
    def height(self) -> int:
        """The last block that was seen, or that servers told of."""
        return self._height

    async def close(self) -> None:
        """Closes the connections; harmless twice."""
        if self._survey is not None:
            self._survey.cancel()
            await asyncio.gather(self._survey, return_exceptions=True)
        for each in self._all:
            await each.http.close()

    def saw(self, height: int) -> None:
        """There is a block of this height: from now on no server will do that does not have it."""
        self._height = max(self._height, height)

    # -- requests --------------------------------------------------------------------------------------------

    async def get(self, path: str, query: Mapping[str, str] | None = None) -> Any:
        """The decoded answer."""
        return await self.ask(lambda server: server.http.get(path, query))

    async def get_bytes(self, path: str) -> bytes:
        """The answer as it is."""
        return await self.ask(lambda server: server.http.get_bytes(path))

    async def post(self, path: str, body: bytes) -> Any:
        """The decoded answer to a body, which may come to more than one server."""
        return await self.ask(lambda server: server.http.post(path, body))

    async def ask(self, question: Callable[[Server], Awaitable[T]]) -> T:
        """What one server answers, who has the right chain."""
        for _ in self._all:
            server = await self.pick()
            try:
                return await self._patiently(server, question)
            except LedgerPruned as error:
                return await self._ask_others(server, question, error)
            except (LedgerUnreachable, LedgerProtocolError, ChainMismatch) as error:
                self.leave(server, error)
        raise self._none()

    async def require(self, server: Server, *, again: bool = False) -> None:
        """See `ChainCheck`. Once one is right, it is told which others were dropped.

        Not before: where none is right, the error names all.
        """
        await server.chain.require(again=again)
        for each in self._all:
            if each.dropped and not each.told:
                each.told = True
                _log.warning("a server of the ledger is used no more: %s", each.why)

    async def overrule(self, refusal: LedgerRefused, question: Callable[[Server], Awaitable[T]]) -> T:
        """What another server answers where the one that was asked last refuses for good.

        Raises the refusal, which then says whose word it is, if all refuse that can be asked.
        """
        said = [self._last.url]

        async def noted(other: Server) -> T:
            try:
                return await question(other)
            except LedgerRefused:
                said.append(other.url)
                raise

        try:
            return await self._ask_others(self._last, noted, refusal)
        except LedgerRefused:
            whose = f"the word of {', '.join(said)}"
            raise LedgerRefused(refusal.code, f"{refusal.log} ({whose})") from refusal

    async def pick(self) -> Server:
        """The server to ask now; whoever asks it says by `leave` that it failed."""
        if not self.several:
            return self._all[0]
        if self._current is None:
            async with self._choosing:
                if self._current is None:
                    await self._choose()
        elif self._clock() >= self._survey_at and (self._survey is None or self._survey.done()):
            self._survey = asyncio.create_task(self._look_around())
        assert self._current is not None
        return self._current

    def leave(self, server: Server, error: LedgerError) -> None:
        """Another takes over from a server that failed; with one server its error is raised."""
        if not self.several:
            raise error
        server.is_ill(str(error))
        server.rests_until = self._clock() + REST_S
        if isinstance(error, ChainMismatch):
            self._drop(server, str(error))
        if server is self._current:
            _log.info("the ledger's server %s is left: %s", server.url, error)
            self._current = None

    def goes_on(self, server: Server | None, error: LedgerError, failures: int) -> bool:
        """Whether a stream that broke off is to be taken up again, wherever `pick` says then."""
        passing = isinstance(error, LedgerUnreachable)
        if server is None or not self.several:
            return passing
        if not isinstance(error, LEAVE):
            return False
        self.leave(server, error)
        return passing or isinstance(error, ChainMismatch) or failures < len(self._all)

    async def is_best(self, server: Server) -> bool:
        """Whether to go on with a server that has told of no new block for long."""
        if self.several and server is self._current:
            await self._look_around()
        return not self.several or server is self._current

    async def _look_around(self) -> None:
        """Asks all how they are: goes on from one that stands still, and back to the first that is well."""
        self._survey_at = self._clock() + SURVEY_S
        current = self._current
        found = await self._look(PROBE_S)
        if current is None or current is not self._current or not found.well:
            return
        first = found.well[0]
        since = self._clock() if first.well_since is None else first.well_since
        if current not in found.well or self._clock() - since >= BACK_S:
            self._take(first)

    # -- inside ----------------------------------------------------------------------------------------------

    async def _patiently(self, server: Server, question: Callable[[Server], Awaitable[T]]) -> T:
        """What it answers, as long as it takes; with several, only while it tells meanwhile how it is."""

        async def asked() -> T:
            await self.require(server)
            return await question(server)

        if not self.several:
            return await asked()
        answering = asyncio.create_task(asked())
        try:
            while not (await asyncio.wait({answering}, timeout=DOUBT_S))[0]:
                if await self._probe(server) is None and not answering.done():
                    raise LedgerUnreachable(server.why)
            return answering.result()
        finally:
            answering.cancel()
            await asyncio.gather(answering, return_exceptions=True)

    async def _ask_others(
        self, server: Server, question: Callable[[Server], Awaitable[T]], error: LedgerError
    ) -> T:
        """What one of the others answers; raises `error`, which is this server's answer, if none does."""
        for other in self._all:
            if other is server or other.dropped:
                continue
            try:
                await self.require(other)
                return await question(other)
            except LedgerError as why:
                _log.debug("%s does not say it instead of %s: %s", other.url, server.url, why)
        raise error

    async def _choose(self) -> None:
        """Takes the first that is well, one that rests only if there is no other; raises if none is."""
        self._survey_at = self._clock() + SURVEY_S
        for _ in range(MAX_LAG_STEPS):
            found = await self._look(GRACE_S)
            if found.well:
                now = self._clock()
                self._take(min(found.well, key=lambda each: each.rests_until > now))
                return
            if not found.behind:
                break
            await self._sleep(LAG_STEP_S)
        else:
            if 2 * len(found.behind) > len(self._all):
                _log.warning("most servers have no block %d: what told of it is not believed", self._height)
                self._height = 0
        raise self._none()

    def _take(self, server: Server) -> None:
        if self._last is not server:
            _log.info("the ledger is asked at %s", server.url)
        if (tip := self.tip) is not None:
            self.saw(tip.height)
            server.chain.go_on_from(tip)
        self._current = self._last = server

    async def _look(self, grace_s: float) -> _Found:
        """How all are; who has not answered `grace_s` after another was found well is taken as absent."""
        probes = {asyncio.create_task(self._probe(each)): each for each in self._all if not each.dropped}
        told: dict[Server, dict[str, Any]] = {}
        pending = set(probes)
        limit_s = PROBE_S
        try:
            while pending:
                done, pending = await asyncio.wait(
                    pending, timeout=limit_s, return_when=asyncio.FIRST_COMPLETED
                )
                if not done:
                    break
                told |= {probes[each]: status for each in done if (status := each.result()) is not None}
                if any(status["height"] >= self._height for status in told.values()):
                    limit_s = grace_s
        finally:
            for each in pending:
                each.cancel()
                probes[each].is_ill(f"{probes[each].url} did not answer in time")
            await asyncio.gather(*pending, return_exceptions=True)
        return self._judge(told)

    async def _probe(self, server: Server) -> dict[str, Any] | None:
        """What it says of itself, None if it says nothing."""
        try:
            async with asyncio.timeout(PROBE_S):
                return status_of(await server.http.get("/v1/status"))
        except TimeoutError:
            server.is_ill(f"{server.url} did not answer in time")
        except LedgerError as error:
            server.is_ill(str(error))
        return None

    def _judge(self, told: Mapping[Server, dict[str, Any]]) -> _Found:
        """Who of those that answered is well. One in trouble is, where all are: the chain may have halted."""
        for server in self._all:
            if server in told:
                chain = self._chain_id = self._chain_id or server.chain.chain or told[server]["chain_id"]
                if told[server]["chain_id"] != chain:
                    self._drop(server, f"{server.url} runs chain {told[server]['chain_id']}, not {chain}")
        right = [server for server in self._all if server in told and not server.dropped]
        heights = sorted((told[each]["height"] for each in right), reverse=True)
        best = heights[1 if len(heights) > 2 else 0] if heights else 0  # not what a single one claims
        wanted = max(self._height, best - MAX_BEHIND_BLOCKS)
        behind = [server for server in right if told[server]["height"] < wanted]
        for server in behind:
            server.is_ill(f"{server.url} is at block {told[server]['height']}, behind block {wanted}")
        level = [server for server in right if server not in behind]
        well = [server for server in level if not told[server].get("trouble")]
        for server in level:
            if server not in well:
                server.is_ill(f"{server.url} is in trouble: {told[server]['trouble']!s:.500}")
        for server in well:
            server.why = ""
            server.well_since = self._clock() if server.well_since is None else server.well_since
        return _Found(well or level, behind)

    def _drop(self, server: Server, why: str) -> None:
        server.is_ill(why)
        server.dropped = True

    def _none(self) -> LedgerError:
        told = "; ".join(each.why or f"{each.url} did not answer" for each in self._all)
        if all(each.dropped for each in self._all):
            return ChainMismatch(f"no server runs the chain that is wanted: {told}")
        return LedgerUnreachable(f"none of the ledger's {len(self._all)} servers can be used: {told}")
