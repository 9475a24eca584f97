"""What a validator's application process tells Prometheus: whether the chain goes on, and its own part."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import groupby
from typing import TYPE_CHECKING, Final, NamedTuple

from cli.sockets import bind
from ledger.engine.cometbft.turns import Share
from merkledag.peer import peer_text

if TYPE_CHECKING:
    from aiohttp import web

    from cli.comet_monitor import Monitor
    from ledger.engine.cometbft.engine import CometEngine

CONTENT_TYPE: Final = "text/plain; version=0.0.4"
PREFIX: Final = "holdfast_ledger_"


class Sample(NamedTuple):
    """One number and what it is; of a validator if it names one's account."""

    name: str
    help: str
    value: float
    proposer: bytes = b""


def samples(engine: CometEngine, monitor: Monitor) -> list[Sample]:
    """What is told, by the application's last block and the monitor's last look."""
    seen, status = monitor.sight, engine.status
    return [
        Sample("height", "Last block that this node committed.", engine.app.height),
        Sample("block_timestamp_seconds", "Time of that block, since 1970.", engine.app.block_time_s),
        Sample("halted", "1 while no block came for longer than ledger.halted_s.", bool(seen.halted)),
        Sample("trouble", "1 while `trouble` in /v1/status says something.", bool(status.trouble)),
        Sample("engine_answers", "1 while the cometbft process answers.", seen.answers),
        Sample("catching_up", "1 while blocks are fetched that others decided.", seen.catching_up),
        Sample("peers", "Connected peers.", seen.peers),
        Sample("power", "This validator's power; 0 for who only follows.", seen.power),
        Sample("signed_height", "Last height that this validator's key signed.", seen.signed_height),
        Sample("waiting", "Transactions that wait for a block here.", status.waiting),
        Sample("subscribers", "Open streams of events.", status.subscribers),
        Sample("failed_rounds_total", "Rounds without a decision, seen so far.", engine.turns.failed_rounds),
        *proposers(engine),
    ]


def proposers(engine: CometEngine) -> list[Sample]:
    """What each validator proposed, as this process has seen: who steers by its turns shows in it."""
    powers = {info.account: info.record.power for info in engine.app.validators()}
    shares = {account: engine.turns.shares.get(account, Share()) for account in powers}
    return [
        *(Sample("proposer_power", "A validator's power.", power, of) for of, power in powers.items()),
        *(Sample("proposed_blocks_total", "Its blocks.", each.blocks, of) for of, each in shares.items()),
        *(
            Sample(
                "first_round_blocks_total",
                "Those decided in a height's first round.",
                each.first_round_blocks,
                of,
            )
            for of, each in shares.items()
        ),
        *(
            Sample("first_round_seconds_total", "What those took.", each.first_round_ns / 1e9, of)
            for of, each in shares.items()
        ),
    ]


def page(engine: CometEngine, monitor: Monitor) -> str:
    """The page in Prometheus's text format."""
    lines: list[str] = []
    for name, same in groupby(samples(engine, monitor), lambda sample: sample.name):
        kind = "counter" if name.endswith("_total") else "gauge"
        found = list(same)
        lines += [f"# HELP {PREFIX}{name} {found[0].help}", f"# TYPE {PREFIX}{name} {kind}"]
        for sample in found:
            label = f'{{proposer="{peer_text(sample.proposer)}"}}' if sample.proposer else ""
            value = f"{sample.value:d}" if isinstance(sample.value, int) else f"{sample.value:.3f}"
            lines.append(f"{PREFIX}{name}{label} {value}")
    return "\n".join(lines) + "\n"


@asynccontextmanager
async def metrics_service(listen: str, engine: CometEngine, monitor: Monitor) -> AsyncIterator[str]:
    """Serves the page at /metrics while the context lasts; yields the URL."""
    from aiohttp import web

    async def metrics(_request: web.Request) -> web.Response:
        return web.Response(body=page(engine, monitor).encode(), headers={"Content-Type": CONTENT_TYPE})

    app = web.Application()
    app.router.add_get("/metrics", metrics)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    bound = bind("ledger's metrics", listen)
    try:
        for sock in bound.shares[0]:
            await web.SockSite(runner, sock).start()
        yield f"{bound.url}/metrics"
    finally:
        await runner.cleanup()
        bound.close()
