"""The gateway as a service of this home: sockets, workers, control listener, and what it does beside.

With one worker this process answers itself; with several each is a process of its own (`cli.worker`), and
this one holds the sockets, starts workers again that ended, and adds up what they count.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Final

from cli.config import Config
from cli.home import Home
from cli.maintenance import maintenance
from cli.notify import READY, notify, reloading
from cli.output import CommandError, describe, note
from cli.processes import Lifeline
from cli.serve import Stop, refuse_a_second, running, serving
from cli.settings import all_settings
from cli.settings_gateway import gateway_settings
from cli.sockets import Bound, bind, passed
from cli.workers import Worker, Workers
from cli.workers_local import LocalWorker
from cli.workers_process import ProcessWorker
from gateway.operating.control import build_control_app
from gateway.serving.listener import LAST_REQUEST_S

FindLedger = Callable[[], str | None]
# What a reload leaves as it is; in this process also how the store was opened.
AT_START_ONLY: Final = ("gateway.listen", "gateway.control_listen", "gateway.workers")
STORE_OPENED_WITH: Final = ("storage.max_bytes", "storage.reserve_bytes")


class RunningGateway:
    """A gateway that serves at `url`; `problem` is why it ended by itself, if it did."""

    def __init__(self, home: Home, bound: Bound, find_ledger: FindLedger) -> None:
        self.url = bound.url
        self.control_url: str | None = None
        self.problem: str | None = None
        self._home = home
        self._bound = bound
        self._find_ledger = find_ledger
        self._ledger_url = find_ledger()
        self._lifeline = Lifeline()
        self._workers = Workers(self._make, len(bound.shares), changed=self._announce)
        self._beside = AsyncExitStack()
        self._reloading = asyncio.Lock()
        self._announced = False
        self._reloads = {"done": 0, "refused": 0}
        self._last_reload = ""

    @property
    def workers(self) -> int:
        """How many processes answer."""
        return len(self._bound.shares)

    @asynccontextmanager
    async def serving(self, stop: Stop) -> AsyncIterator[None]:
        """Serves while the context lasts; sets `stop` when no worker can be kept running."""
        stop.at_once.append(self._workers.kill)
        try:
            await self._workers.start()
            async with AsyncExitStack() as opened:
                await self._start_control(opened)
                self._beside = await self._start_beside()
                opened.push_async_callback(lambda: self._beside.aclose())
                await opened.enter_async_context(running(self._workers.collect_forever()))
                await opened.enter_async_context(running(self._watch(stop)))
                await opened.enter_async_context(running(self._reload_when_told(stop)))
                self._announced = True
                self._announce()
                try:
                    yield
                finally:
                    self._announced = False
                    (self._home.run / "gateway.json").unlink(missing_ok=True)
                    self._bound.close()  # before the workers look for the last who connected
                    await self._workers.stop(gateway_settings(self._home.config).shutdown_s, LAST_REQUEST_S)
        except BaseException:
            await self._workers.stop(0, 0)
            raise
        finally:
            self._lifeline.cut()

    async def reload(self) -> str:
        """Takes up the configuration as it is now; returns what it did in one line.

        New workers start on the same sockets, then the old ones end with their last answer. Raises ValueError
        with the reason if the new configuration is bad; then everything goes on as it was.
        """
        async with self._reloading:
            notify(reloading())
            try:
                done = await self._reload()
            except Exception as error:
                self._reloads["refused"] += 1
                self._last_reload = f"not reloaded: {describe(error)}"
                raise ValueError(describe(error)) from error
            else:
                self._reloads["done"] += 1
                self._last_reload = done
                return done
            finally:
                self._announce()
                notify(READY)

    async def _reload(self) -> str:
        home, before, ledger_before = self._home, self._home.config, self._ledger_url
        config = Config(home.config_file, home.environ)
        for key in all_settings():
            config.get(key)
        settings = gateway_settings(config)
        home.config = config
        try:
            self._ledger_url = self._find_ledger()
            await self._workers.replace(settings.max_response_s, settings.idle_timeout_s)
        except BaseException:
            home.config, self._ledger_url = before, ledger_before
            raise
        await self._beside.aclose()
        self._beside = await self._start_beside()
        fixed = AT_START_ONLY if self.workers > 1 else AT_START_ONLY + STORE_OPENED_WITH
        left = [key for key in fixed if config.get(key) != before.get(key)]
        return "reloaded" + (f"; taken up at the next start: {', '.join(left)}" if left else "")

    def _make(self, number: int) -> Worker:
        home, sockets = self._home, self._bound.shares[number]
        if self.workers == 1:
            return LocalWorker(home, sockets, self._ledger_url)
        environ = {**os.environ, **home.environ, "HOLDFAST_HOME": str(home.path)}
        return ProcessWorker(number, sockets, self._ledger_url, environ, self._lifeline)

    async def _start_control(self, opened: AsyncExitStack) -> None:
        listen = self._home.config.text("gateway.control_listen")
        if listen:
            app = build_control_app(self._workers.collect, self._workers.ready, self.reload)
            served = serving(app, self._home, "gateway's control listener", listen)
            self.control_url = await opened.enter_async_context(served)

    async def _start_beside(self) -> AsyncExitStack:
        """What one process of a home does for it: renews names, works on pin jobs, keeps the store well."""
        from cli.naming import KeysOfNames, name_resolver, name_store
        from cli.pinned_fetch import pin_runner
        from storage_node.names_renewal import Renewal

        home = self._home
        async with AsyncExitStack() as beside:
            resolver = await beside.enter_async_context(name_resolver(home))
            renewal = Renewal(name_store(home), resolver, KeysOfNames(home), clock=time.monotonic)
            await beside.enter_async_context(running(renewal.run()))
            await beside.enter_async_context(running(pin_runner(home, self._ledger_url).run()))
            await beside.enter_async_context(maintenance(home, self._ledger_url))
            return beside.pop_all()

    async def _watch(self, stop: Stop) -> None:
        self.problem = await self._workers.given_up
        stop.set()

    async def _reload_when_told(self, stop: Stop) -> None:
        """Reloads at SIGHUP; stops if that says that the terminal is gone."""
        told = asyncio.Event()
        on_terminal = sys.stderr.isatty()
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGHUP, told.set)
        try:
            while True:
                await told.wait()
                told.clear()
                if on_terminal and not sys.stderr.isatty():
                    stop.set()
                    continue
                try:
                    note(await self.reload())
                except ValueError as error:
                    note(f"not reloaded, the old settings stay: {error}")
        finally:
            loop.remove_signal_handler(signal.SIGHUP)

    def _announce(self) -> None:
        """Writes run/gateway.json anew: whoever asks for a reload looks there for what came of it."""
        if not self._announced:
            return
        document = {
            "url": self.url,
            "ledger": self._ledger_url,
            "control": self.control_url,
            "workers": [worker.pid for worker in self._workers.serving],
            "reloads": self._reloads,
            "last_reload": self._last_reload,
        }
        self._home.announce("gateway", document)


@asynccontextmanager
async def gateway_service(home: Home, find_ledger: FindLedger, stop: Stop) -> AsyncIterator[RunningGateway]:
    """The gateway of the home's settings over its store and, given a ledger, over the nodes that it names.

    While it runs, published names are renewed, pin jobs are worked on, and the store is kept well.
    """
    refuse_a_second(home, "gateway")
    gateway_settings(home.config)
    count = home.config.number("gateway.workers")
    bound = passed(count) or bind("gateway", home.config.text("gateway.listen"), count)
    try:
        gateway = RunningGateway(home, bound, find_ledger)
        async with gateway.serving(stop):
            yield gateway
    finally:
        bound.close()
    if gateway.problem is not None:
        raise CommandError(f"no worker of the gateway can be kept running: {gateway.problem}")
