"""The gateway as it answers in one process, wired together from the home, its settings and its store."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from cli.compose import block_source
from cli.output import describe, invalid, note
from cli.settings_gateway import gateway_settings
from gateway.app import build_app
from gateway.denylists.files import DenylistError, Denylists
from gateway.operating.access_log import AccessLogFile
from gateway.operating.control import Readiness
from gateway.operating.metrics import Metrics, Snapshot
from gateway.operating.tracing import OpenTelemetryTracer, Tracer, TracingUnavailableError, start_export
from gateway.serving.listener import Listener, listen_on
from gateway.settings import GatewaySettings

if TYPE_CHECKING:
    from cli.home import Home
    from gateway.source import NameRecord, NameTarget
    from storage_node.blockstore.store import Store
    from storage_node.names_resolver import NameResolver as Resolver

_UNREADABLE: Final = "a denylist cannot be read: its rules of before hold"  # strangers see no path
OTHER_DESCRIPTORS: Final = 256  # of a process, beside its clients' connections


class Answering:
    """The gateway as it answers in this process."""

    def __init__(
        self,
        store: Store,
        settings: GatewaySettings,
        metrics: Metrics,
        denylist: Denylists | None,
        listener: Callable[[], Listener],
    ) -> None:
        self._store = store
        self._metrics = metrics
        self._denylist = denylist
        self._listener = listener
        self.settings = settings

    def snapshot(self) -> Snapshot:
        """What it has counted."""
        self._metrics.connections = self._listener().connections
        self._metrics.denylists_unreadable = self._unreadable
        return self._metrics.snapshot()

    async def ready(self) -> Readiness:
        """Not while it drains or cannot read the store; says where a denylist is as it was before."""
        if self._listener().guard.draining_since is not None:
            return Readiness(False, "it is being stopped")
        try:
            await asyncio.to_thread(self._store.stat)
        except Exception as error:
            return Readiness(False, f"the store cannot be read: {describe(error)}")
        return Readiness(True, _UNREADABLE if self._unreadable else "")

    @property
    def _unreadable(self) -> int:
        return 0 if self._denylist is None else len(self._denylist.unreadable)

    async def drain(self, within_s: float, idle_s: float) -> None:
        """As `Listener.drain`."""
        await self._listener().drain(within_s, idle_s)


@asynccontextmanager
async def answering(
    home: Home, ledger_url: str | None, sockets: Sequence[socket.socket]
) -> AsyncIterator[Answering]:
    """Answers on `sockets`, which it closes, over the local store and the nodes of a ledger, if any."""
    from cli.naming import name_resolver

    settings = _fitting(gateway_settings(home.config))
    metrics = Metrics()
    listener: Listener | None = None

    def listening() -> Listener:
        if listener is None:
            raise RuntimeError("it does not listen yet")
        return listener

    async with (
        _watchers(settings) as (access_log, denylist, tracer),
        name_resolver(home) as resolver,
        block_source(home, ledger_url) as source,
    ):
        found = Answering(home.open_store(), settings, metrics, denylist, listening)
        names = GatewayNames(resolver)
        app = build_app(
            source,
            names,
            settings,
            records=names,
            access_log=access_log,
            metrics=metrics,
            denylist=denylist,
            tracer=tracer,
            ready=found.ready,
        )
        listener = await listen_on(app, sockets, settings)
        try:
            yield found
        finally:
            await listener.close()


@asynccontextmanager
async def _watchers(
    settings: GatewaySettings,
) -> AsyncIterator[tuple[AccessLogFile | None, Denylists | None, Tracer | None]]:
    """The access log, the denylists and the tracer that the settings want; exit 4 if one cannot be had."""
    async with AsyncExitStack() as opened:
        access_log, denylist, tracer = None, None, None
        try:
            if settings.denylists:
                denylist = await asyncio.to_thread(Denylists, settings.denylists)
            if settings.access_log:
                access_log = AccessLogFile(settings.access_log, settings.access_log_format)
                opened.callback(access_log.close)
            if settings.tracing:
                export = start_export("holdfast-gateway")
                opened.push_async_callback(export.close)
                tracer = OpenTelemetryTracer(export.provider)
        except (DenylistError, TracingUnavailableError) as error:
            raise invalid(str(error)) from error
        except OSError as error:
            raise invalid(f"the access log cannot be opened: {describe(error)}") from error
        yield access_log, denylist, tracer


def _fitting(settings: GatewaySettings) -> GatewaySettings:
    """The settings with no more connections than this process may have files open, a limit that it raises."""
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    unlimited = resource.RLIM_INFINITY
    wanted = settings.max_connections + OTHER_DESCRIPTORS
    if soft == unlimited or soft >= wanted:
        return settings
    allowed = wanted if hard == unlimited else min(wanted, hard)
    with suppress(ValueError, OSError):  # macOS has a lower limit of its own
        resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
        soft = allowed
    if soft >= wanted:
        return settings
    fitting = max(soft - OTHER_DESCRIPTORS, soft // 2, 1)
    note(
        f"this process may have {soft} files open: it takes {fitting} connections and not the "
        f"{settings.max_connections} of gateway.max_connections (`ulimit -n`, or LimitNOFILE= of systemd)"
    )
    return replace(settings, max_connections=fitting)


class GatewayNames:
    """The home's resolver as the gateway wants it: `NameResolver` and `RecordSource` in one."""

    def __init__(self, resolver: Resolver) -> None:
        self._resolver = resolver

    async def resolve(self, name: str) -> NameTarget:
        """Raises LookupError, or TimeoutError where no router or DNS server answers."""
        from gateway.source import NameTarget
        from merkledag.errors import InvalidPath, RecordValueInvalid
        from storage_node.errors import PeerUnreachable

        try:
            target = await self._resolver.resolve(name)
        except PeerUnreachable as error:
            raise TimeoutError(str(error)) from error
        except (InvalidPath, RecordValueInvalid) as error:
            raise LookupError(str(error)) from error
        return NameTarget(str(target.path), target.ttl_s, target.changed_s)

    async def record(self, name: str) -> NameRecord:
        """Raises as `resolve` does."""
        from gateway.source import NameRecord
        from merkledag.peer import parse_name
        from merkledag.rfc3339 import SECOND_NS
        from storage_node.errors import PeerUnreachable
        from storage_node.names_resolver import DEFAULT_TTL_NS

        try:
            record = await self._resolver.record(parse_name(name))
        except PeerUnreachable as error:
            raise TimeoutError(str(error)) from error
        return NameRecord(record.raw, record.remaining_ttl_ns(time.time_ns(), DEFAULT_TTL_NS) // SECOND_NS)
