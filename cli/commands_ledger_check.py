"""`holdfast ledger check`: whether the disk still has what this home's ledger wrote."""

from __future__ import annotations

from typing import Final

from cli.home import Home
from cli.options import JsonFlag
from cli.output import ExitCode, blocks_text, count_text, emit, meter, not_found, note, text

SHOWN: Final = 20
MENDING: Final = (
    "restore ledger/ from a backup; on CometBFT begin again by state sync, with the keys of this home: "
    'docs/operating-validators.md, "When it halts"'
)


def check(json_output: JsonFlag = False) -> int:
    """Read all that a stopped ledger keeps and compare it with its hashes; exit 4 for damage."""
    from cli.ledger_replay import open_storage
    from ledger.engine.check import find_damage

    home = Home.locate()
    if not (home.ledger / "db").is_dir():
        raise not_found(f"{home.ledger} holds no ledger")
    progress = meter("checked", None, as_text=blocks_text)
    with open_storage(home.ledger) as storage:
        height, first = storage.height(), storage.first_height()
        try:
            found = list(find_damage(storage, lambda _height: progress.advance(1)))
        finally:
            progress.finish()
    if json_output:
        emit({"damaged": found, "first": first, "height": height})
    elif found:
        for each in found[:SHOWN]:
            text(each)
        if len(found) > SHOWN:
            text(f"and {len(found) - SHOWN:,} more")
    else:
        text(f"the state of block {height}, and {count_text(height + 1 - first, 'block')} to it, are sound")
    if not found:
        return ExitCode.DONE
    note(f"what to do: {MENDING}")
    return ExitCode.INVALID
