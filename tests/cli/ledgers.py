"""A real embedded ledger in a thread of the test process, with short periods, and homes that know it."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from cli.compose import init_ledger, ledger_service
from cli.home import OPERATOR_KEY, Home
from ledger.genesis import DEMO_PARAMS, Params
from tests.cli.background import serving

PARAMS = replace(DEMO_PARAMS, vote_s=2, timelock_s=1, collateral_periods=2, renewal_periods=10_000)


@dataclass(frozen=True)
class Ledger:
    """A ledger that runs: its URL, and the home that has the operator's key."""

    url: str
    home: Path

    def lend_operator(self, home: Path) -> None:
        """Gives the operator's key, which owns all money, to another home."""
        (home / "keys").mkdir(mode=0o700, parents=True, exist_ok=True)
        shutil.copy(self.home / "keys" / f"{OPERATOR_KEY}.key", home / "keys")


@contextmanager
def a_ledger(folder: Path, params: Params = PARAMS) -> Iterator[Ledger]:
    """Starts a ledger in a folder of its own, and ends it."""
    home = Home(folder, {k: v for k, v in os.environ.items() if not k.startswith("HOLDFAST_")})
    init_ledger(home, params, "cli-test")
    with home, serving(ledger_service(home, "127.0.0.1:0", asyncio.Event())) as url:
        yield Ledger(url, folder)
