"""A worker process of the gateway (`python -m cli.worker`): answers on sockets that its parent listens at.

It speaks to its parent over the descriptor `--channel`, and ends when that end is gone.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import socket
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from cli.output import describe, exit_code
from cli.serve import LIFELINE, fast_runner, running
from cli.worker_channel import Channel

if TYPE_CHECKING:
    from cli.compose_gateway import Answering


class Order(NamedTuple):
    """To end: see `gateway.listener.Listener.drain`."""

    within_s: float
    idle_s: float


async def serve(descriptor: int, sockets: Sequence[socket.socket], ledger_url: str | None) -> int:
    """Answers until it is told to end, gets SIGTERM, or its parent ends; returns the exit code."""
    channel = await Channel.over(socket.socket(fileno=descriptor))
    try:
        return await _answer(channel, sockets, ledger_url)
    except Exception as error:
        channel.send({"failed": describe(error), "code": exit_code(error)})
        return exit_code(error)
    finally:
        await channel.aclose()


async def _answer(channel: Channel, sockets: Sequence[socket.socket], ledger_url: str | None) -> int:
    from cli.compose_gateway import answering
    from cli.home import Home
    from gateway.serving.listener import LAST_REQUEST_S

    orders: asyncio.Queue[Order] = asyncio.Queue()
    loop = asyncio.get_running_loop()
    with Home.locate() as home:
        async with answering(home, ledger_url, sockets) as found:
            by_itself = Order(found.settings.shutdown_s, LAST_REQUEST_S)
            loop.add_signal_handler(signal.SIGTERM, orders.put_nowait, by_itself)
            for number in (signal.SIGINT, signal.SIGHUP):  # these are for the parent
                loop.add_signal_handler(number, lambda: None)
            lifeline = int(os.environ.get(LIFELINE, "-1"))
            if lifeline >= 0:
                loop.add_reader(lifeline, _parent_ended, lifeline, orders, by_itself)
            channel.send({"serving": True})
            async with running(_obey(channel, found, orders, by_itself)):
                await _drained(found, orders)
            channel.send({"last": found.snapshot()})
    return 0


def _parent_ended(lifeline: int, orders: asyncio.Queue[Order], order: Order) -> None:
    asyncio.get_running_loop().remove_reader(lifeline)
    orders.put_nowait(order)


async def _obey(channel: Channel, found: Answering, orders: asyncio.Queue[Order], at_end: Order) -> None:
    """Does what the parent says, and answers what it asks; its end is an order to end, too."""
    while (said := await channel.receive()) is not None:
        if said.get("ask") == "snapshot":
            channel.send({"answer": "snapshot", "snapshot": found.snapshot()})
        elif said.get("ask") == "ready":
            answer = await found.ready()
            channel.send({"answer": "ready", "ready": answer.ready, "reason": answer.reason})
        elif said.get("do") == "drain":
            orders.put_nowait(Order(said["within_s"], said["idle_s"]))
    orders.put_nowait(at_end)


async def _drained(found: Answering, orders: asyncio.Queue[Order]) -> None:
    """Returns when it has ended as ordered; a later order takes the place of an earlier one."""
    order = await orders.get()
    while True:
        tasks = draining, other = (
            asyncio.create_task(found.drain(order.within_s, order.idle_s)),
            asyncio.create_task(orders.get()),
        )
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            if draining.done():
                return draining.result()
            order = other.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


def main() -> int:
    """Runs a worker; returns its exit code."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--channel", type=int, required=True)
    parser.add_argument("--sockets", required=True)
    parser.add_argument("--ledger")
    told = parser.parse_args()
    sockets = [socket.socket(fileno=int(number)) for number in told.sockets.split(",")]
    with fast_runner() as runner:
        return runner.run(serve(told.channel, sockets, told.ledger))


if __name__ == "__main__":
    sys.exit(main())
