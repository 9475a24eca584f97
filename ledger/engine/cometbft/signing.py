"""The guard against signing twice: a consensus key that comes back with an older memory must not vote.

CometBFT keeps what its key signed last (height, round, step) in priv_validator_state.json and never signs
below that. The file is the only thing between a validator and the loss of its stake: an older copy of it, and
the same key votes again where it voted before. Two traces show that this happened. The *watermark* is the
highest that was seen in the state while the validator ran, so a state below it is an older one. And the
watermark's file says which file of which folder it is (inode numbers): files that were copied, restored or
unpacked are others, and then nobody can tell from here what was signed elsewhere since.

A machine that is set back as a whole (a virtual machine's snapshot) shows neither trace.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Final, NamedTuple

from ledger.engine.cometbft.home import FILE_MODE, CometFilesError, CometHome, read_object
from ledger.limits import MAX_UINT

# With a state that may be old: CometBFT ends where its own signature is in one of so many last blocks.
CHECKED_BLOCKS: Final = 20
MAX_ROUND: Final = 2**31 - 1
MAX_STEP: Final = 3
RECORD_BYTES: Final = 160  # so that a record takes the place of the one before without a gap


class Signed(NamedTuple):
    """Where a vote or proposal stands: what is later is greater."""

    height: int
    round: int
    step: int


NOTHING: Final = Signed(0, 0, 0)


class MayHaveSigned(CometFilesError):
    """The key's memory of what it signed may lack something: starting could sign twice."""


def last_signed(home: CometHome) -> Signed:
    """What priv_validator_state.json says; CometFilesError where it is missing or damaged."""
    return _signed(read_object(home.validator_state_file), home)


def check_memory(home: CometHome) -> None:
    """Raises MayHaveSigned where the state is older than what was signed here, or came from elsewhere.

    Nothing is said of a key that never ran here and signed nothing. A state that is missing is refused: an
    empty one in its place would let the key sign everything again.
    """
    if not home.validator_state_file.exists():
        raise MayHaveSigned(
            f"{home.validator_state_file} is missing: it says what the key signed last, and without it "
            "the key would sign twice. Restore it; only for a key that never ran, write "
            '{"height": "0", "round": 0, "step": 0} into it'
        )
    signed = last_signed(home)
    if not home.watermark_file.exists():
        if signed > NOTHING:
            raise MayHaveSigned(_moved(home, signed))
        return
    document = read_object(home.watermark_file)
    before = _signed(document, home)
    if signed < before:
        raise MayHaveSigned(
            f"{home.validator_state_file} ends at height {signed.height}, round {signed.round}, and this key "
            f"signed at height {before.height}, round {before.round} since: it is an older copy. Put the "
            'newest one back; see "Restore" in operating-validators.md'
        )
    if document.get("place") != _place(home):
        raise MayHaveSigned(_moved(home, signed))


def remember_signed(home: CometHome) -> Signed:
    """Raises the watermark to what the state says by now and returns it; makes it where there is none."""
    signed = last_signed(home)
    path = home.watermark_file
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, FILE_MODE)
    try:
        document = {**signed._asdict(), "place": _place(home)}
        record = json.dumps(document).encode().ljust(RECORD_BYTES)
        if os.pread(handle, RECORD_BYTES + 1, 0) != record:
            os.pwrite(handle, record, 0)  # in place: a new file would be another place
            os.ftruncate(handle, len(record))
            os.fsync(handle)
    finally:
        os.close(handle)
    return signed


def accept_place(home: CometHome) -> None:
    """Takes the state as it is, where it is, on the operator's word."""
    with suppress(FileNotFoundError):
        home.watermark_file.unlink()
    remember_signed(home)


def _place(home: CometHome) -> list[int]:
    """Which files these are. No device number: it may change when a machine starts anew."""
    return [home.data.stat().st_ino, home.watermark_file.stat().st_ino]


def _signed(document: Mapping[str, Any], home: CometHome) -> Signed:
    try:
        found = Signed(int(document["height"]), int(document["round"]), int(document["step"]))
    except (KeyError, TypeError, ValueError):
        found = Signed(-1, 0, 0)
    if not (0 <= found.height <= MAX_UINT and 0 <= found.round <= MAX_ROUND and 0 <= found.step <= MAX_STEP):
        raise CometFilesError(
            f"{home.validator_state_file}, or the watermark beside it, is damaged: restore both"
        )
    return found


def _moved(home: CometHome, signed: Signed) -> str:
    return (
        f"the files in {home.data} were copied or restored, and say that this key signed last at height "
        f"{signed.height}. If it runs, or ran since, anywhere else, starting it here signs twice and loses "
        "stake. Make sure that it runs nowhere else and that these are its newest files, then start with "
        '--moved; see "Restore" in operating-validators.md'
    )
