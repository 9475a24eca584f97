"""The files of this home's own ledger: its genesis, and how any of them is written in one step."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

from cli.output import CommandError, invalid, not_found
from ledger.errors import InvalidGenesis
from ledger.genesis import Genesis

if TYPE_CHECKING:
    from cli.home import Home

GENESIS_FILE: Final = "genesis.json"


def genesis_file(home: Home) -> Path:
    """Where the genesis of this home's own ledger is."""
    return home.ledger / GENESIS_FILE


def require_no_ledger(home: Home) -> None:
    """Exit 1 when this home has a ledger of its own, or belongs to somebody else's."""
    path = genesis_file(home)
    if path.exists():
        raise CommandError(
            f"{path} exists: this home has a ledger already; start it with `holdfast ledger start`"
        )
    if joined := home.config.text("ledger.url"):
        raise CommandError(
            f"this home belongs to the ledger at {joined}: choose another HOLDFAST_HOME for a new one"
        )


@contextmanager
def in_one_step(path: Path) -> Iterator[Path]:
    """Where to write what then takes the place of `path`."""
    temporary = path.with_suffix(f".{os.getpid()}.tmp")
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_genesis(home: Home, genesis: Genesis) -> None:
    """Makes `genesis` that of this home's own ledger, whose folder may have been moved away."""
    home.ledger.mkdir(mode=0o700, exist_ok=True)
    with in_one_step(genesis_file(home)) as path:
        path.write_text(genesis.dumps(), encoding="utf-8")


def read_genesis(home: Home) -> Genesis:
    """The genesis of this home's own ledger; exit 3 when it has none."""
    try:
        return Genesis.loads(genesis_file(home).read_bytes())
    except InvalidGenesis as error:
        raise invalid(
            f"{genesis_file(home)}: {error}; if another version wrote it, use that one, "
            "or make a new chain in another home"
        ) from None
    except FileNotFoundError:
        raise not_found(
            f"{home.path} has no ledger: `holdfast ledger init` makes one, `holdfast up` everything"
        ) from None
