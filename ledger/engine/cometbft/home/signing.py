"""The guard against signing twice: a consensus key that comes back with an older memory must not vote.

CometBFT keeps what its key signed last (height, round, step) in priv_validator_state.json and never signs
below that. The file is the only thing between a validator and the loss of its stake: an older copy of it, and
the same key votes again where it voted before. Two traces show that this happened. The *watermark* is the
highest that was seen in the state while the validator ran, so a state below it is an older one. And the
watermark's file says which file of which folder it is (inode numbers): files that were copied, restored or
unpacked are others, and then nobody can tell from here what was signed elsewhere since. It also says whose
memory it is: a key that was put in the place of another one does not begin with that one's.

A machine that is set back as a whole (a virtual machine's snapshot) shows neither trace.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, Final, NamedTuple

from ledger.engine.cometbft.home.layout import FILE_MODE, CometFilesError, CometHome, read_object, replace
from ledger.limits import MAX_UINT

# With a state that may be old: CometBFT ends where its own signature is in one of so many last blocks.
CHECKED_BLOCKS: Final = 20
MAX_ROUND: Final = 2**31 - 1
MAX_STEP: Final = 3
_MEND_STATE: Final = (
    'write {"height": "H", "round": 0, "step": 0} into it, with the height of the chain and 100 more as H, '
    'so that the key signs nothing again; see "Restore", 3, in operating-validators.md'
)
_MEND_WATERMARK: Final = (
    "if it ran nowhere else, and priv_validator_state.json is its newest, remove this file and start with "
    '--moved; see "Restore" in operating-validators.md'
)
RECORD_BYTES: Final = 256  # so that a record takes the place of the one before without a gap


class Signed(NamedTuple):
    """Where a vote or proposal stands: what is later is greater."""

    height: int
    round: int
    step: int


NOTHING: Final = Signed(0, 0, 0)


class MayHaveSigned(CometFilesError):
    """The key's memory of what it signed may lack something: starting could sign twice."""


def begin(home: CometHome) -> None:
    """Notes that the key which was made in this home signed nothing yet; its place is where it first runs."""
    document = {**NOTHING._asdict(), "key": _key(home)}
    replace(home.watermark_file, json.dumps(document).encode().ljust(RECORD_BYTES))


def last_signed(home: CometHome) -> Signed:
    """What priv_validator_state.json says; CometFilesError where it is missing, damaged, or not CometBFT's.

    CometBFT writes the height as text and reads no number.
    """
    document, signed = _read(home.validator_state_file, _MEND_STATE)
    if not isinstance(document["height"], str):
        raise CometFilesError(
            f'{home.validator_state_file}: the height must be in quotation marks, "height": "{signed.height}"'
        )
    return signed


class Memory:
    """What a validator's key signed, from its start on: refuses to begin with an older or a foreign memory.

    Raises MayHaveSigned where the state is missing, or older than what was signed here: an empty one in its
    place would let the key sign everything again. And where its files came from elsewhere, unless the
    operator says that they were `moved` here: the place counts as theirs once the key has signed in it, as
    CometBFT then found none of its signatures in the last blocks. Nothing is said of a key that never signed,
    unless it is another one than was made here, for it came from somewhere, or the watermark that its making
    left is gone: `cometbft unsafe-reset-all` removes that and empties the state.
    """

    def __init__(self, home: CometHome, *, moved: bool = False) -> None:
        self._home = home
        if not home.validator_state_file.exists():
            raise MayHaveSigned(
                f"{home.validator_state_file} is missing: it says what the key signed last, and without it "
                "the key would sign twice. Restore it; only for a key that never ran, write "
                '{"height": "0", "round": 0, "step": 0} into it'
            )
        self._begun = last_signed(home)
        document: dict[str, Any] = {}
        before = NOTHING
        if home.watermark_file.exists():
            document, before = _read(home.watermark_file, _MEND_WATERMARK)
        is_another = document.get("key", _key(home)) != _key(home)
        if is_another and self._begun == NOTHING:
            raise MayHaveSigned(_exchanged(home))
        if not document and self._begun == NOTHING:
            raise MayHaveSigned(_emptied(home))
        if self._begun < before and not is_another:
            raise MayHaveSigned(
                f"{home.validator_state_file} ends at height {self._begun.height}, round "
                f"{self._begun.round}, and this key signed at height {before.height}, round {before.round} "
                'since: it is an older copy. Put the newest one back; see "Restore" in '
                "operating-validators.md"
            )
        at_home = bool(document) and not is_another and document.get("place") == _place(home)
        if self._begun > NOTHING and not at_home and not moved:
            raise MayHaveSigned(_moved(home, self._begun))
        self.is_foreign = self._begun > NOTHING and not at_home
        self.note()

    def note(self) -> Signed:
        """Raises the watermark to what the state says by now and returns it; makes it where there is none."""
        signed = last_signed(self._home)
        if self.is_foreign and signed <= self._begun:
            return signed
        self.is_foreign = False
        handle = os.open(self._home.watermark_file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, FILE_MODE)
        try:
            document = {**signed._asdict(), "key": _key(self._home), "place": _place(self._home)}
            record = json.dumps(document).encode().ljust(RECORD_BYTES)
            if os.pread(handle, RECORD_BYTES + 1, 0) != record:
                os.pwrite(handle, record, 0)  # in place: a new file would be another place
                os.ftruncate(handle, len(record))
                os.fsync(handle)
        finally:
            os.close(handle)
        return signed


def _place(home: CometHome) -> list[int]:
    """Which files these are. No device number: it may change when a machine starts anew."""
    return [home.data.stat().st_ino, home.watermark_file.stat().st_ino]


def _key(home: CometHome) -> str:
    return str(read_object(home.validator_key_file).get("address", "")).lower()


def _read(path: Path, mend: str) -> tuple[dict[str, Any], Signed]:
    """What a file says, and where the key stands by it; CometFilesError says how to mend it."""
    try:
        document = read_object(path)
    except CometFilesError as error:
        raise CometFilesError(f"{error}; {mend}") from None
    try:
        found = Signed(int(document["height"]), int(document["round"]), int(document["step"]))
    except (KeyError, TypeError, ValueError):
        found = Signed(-1, 0, 0)
    if not (0 <= found.height <= MAX_UINT and 0 <= found.round <= MAX_ROUND and 0 <= found.step <= MAX_STEP):
        raise CometFilesError(f"{path} is damaged; {mend}")
    return document, found


def _exchanged(home: CometHome) -> str:
    return (
        f"the key in {home.validator_key_file} was put in the place of the one that was made here, and "
        f"{home.validator_state_file} says that it never signed: where it did, it would sign twice and lose "
        'stake. Make sure that it runs nowhere else, write as "height" the height of the chain and 100 more '
        'into that file (1 for a key that never ran), then start with --moved; see "Restore" in '
        "operating-validators.md"
    )


def _emptied(home: CometHome) -> str:
    return (
        f"{home.data} was emptied, as `cometbft unsafe-reset-all` does it, and with it went what this key "
        "signed: it would sign all again and lose stake. Put the newest priv_validator_state.json back, or "
        'write the height of the chain and 100 more into it as "height", then start with --moved; see '
        '"Restore" in operating-validators.md. A node that never validated is joined anew, in a new home'
    )


def _moved(home: CometHome, signed: Signed) -> str:
    return (
        f"the files in {home.data} were copied or restored, and say that this key signed last at height "
        f"{signed.height}. If it runs, or ran since, anywhere else, starting it here signs twice and loses "
        "stake. Make sure that it runs nowhere else and that these are its newest files, then start with "
        '--moved; see "Restore" in operating-validators.md'
    )
