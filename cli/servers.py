"""How commands find the servers they speak to: a flag, then run/, then the configuration; else exit 5."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from cli.home import Home
from cli.output import unreachable, usage
from cli.urls import is_web_url, ledger_urls

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from ledger.engine.client import LedgerClient

T = TypeVar("T")
URL_FORM = "write it as http://HOST:PORT or https://HOST"
UP = "start one with `holdfast up`"


def ledger_url(home: Home, flag: str = "") -> str:
    """The ledger's URL; exit 5 when none is known."""
    from cli.ledger_files import genesis_file

    found = known_ledger(home, flag)
    if found is None:
        if genesis_file(home).exists():
            raise unreachable("this home's ledger does not run: `holdfast ledger start` (or `up`) starts it")
        raise unreachable(
            f"no ledger is known here: {UP}, join one with `holdfast ledger join URL`, or give --ledger URL"
        )
    return found


def known_ledger(home: Home, flag: str = "") -> str | None:
    """The URL of the ledger's server, or those of several, or None when there is none to speak to."""
    if flag:
        return urls_of_ledger(flag)
    running = home.server("ledger")
    return str(running["url"]) if running else home.config.text("ledger.url") or None


def urls_of_ledger(text: str) -> str:
    """The URLs of a ledger's servers as somebody wrote them; exit 2 if they are none."""
    urls = ledger_urls(text)
    if urls is None:
        raise usage(f"{text!r} is no URL of a ledger: {URL_FORM}, several separated by commas")
    return urls


def node_url(home: Home, flag: str = "") -> tuple[str, str]:
    """The storage node's URL and its admin token ("" when unknown); exit 5 when there is no node."""
    running = home.server("node")
    if flag:
        same = running is not None and running["url"] == flag
        return _url(flag), str(running.get("token", "")) if running and same else ""
    if running is not None:
        return str(running["url"]), str(running.get("token", ""))
    url = home.config.text("node.url")
    if not url:
        raise unreachable(
            f"no storage node runs here: {UP} or `holdfast node run`, or name one with --node URL"
        )
    return url, ""


def _url(flag: str) -> str:
    if not is_web_url(flag):
        raise usage(f"{flag!r} is no URL: {URL_FORM}")
    return flag.rstrip("/")


def ask_ledger(home: Home, url: str, question: Callable[[LedgerClient], Awaitable[T]]) -> T:
    """What `question` answers of the ledger at `url`, which must be the one that is pinned."""
    from cli.ledger_pin import pinned_client
    from cli.serve import run_once

    async def asked() -> T:
        async with pinned_client(home, url) as client:
            return await question(client)

    found: T = run_once(asked())
    return found


def ask_found_ledger(flag: str, question: Callable[[LedgerClient], Awaitable[T]]) -> T:
    """The same, of the ledger that is found."""
    home = Home.locate()
    return ask_ledger(home, ledger_url(home, flag), question)
