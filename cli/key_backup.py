"""Backups of keys: one file, sealed with a passphrase, that holds the seeds of some or all keys of a home.

    {"format": "holdfast-keys-1", "keys": [{"name", "kind", "public"}, …], "sealed": see cli/sealing.py}

What is sealed is the JSON object {NAME: SEED in hex}. Names, kinds and public halves can be read without the
passphrase; they are associated data of the seal, and each public half must be what its seed gives.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from cli.keystore import KINDS, SEED_BYTES, is_key_name, public_text
from cli.output import invalid
from cli.sealing import seal, unseal

FORMAT: Final = "holdfast-keys-1"
MAX_KEYS: Final = 1_000
MAX_FILE_BYTES: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class SavedKey:
    """A key in a backup, without its seed. `public` as in `KeyInfo`."""

    name: str
    kind: str
    public: str

    def document(self) -> dict[str, Any]:
        """For the file and for `--json`."""
        return {"name": self.name, "kind": self.kind, "public": self.public}


@dataclass(frozen=True, slots=True)
class Backup:
    """A backup that was read; its seeds are still sealed."""

    keys: tuple[SavedKey, ...]
    sealed: Any

    def seeds(self, passphrase: bytes) -> dict[str, bytes]:
        """The seed of each key by name, each checked against its public half. Raises CommandError, exit 4."""
        try:
            found = json.loads(unseal(self.sealed, passphrase, _associated(self.keys)))
            seeds = {key.name: bytes.fromhex(found[key.name]) for key in self.keys}
        except (KeyError, TypeError, ValueError, RecursionError):
            raise invalid("the backup is damaged: what is sealed in it is not what its list says") from None
        for key in self.keys:
            seed = seeds[key.name]
            if len(seed) != SEED_BYTES or public_text(key.kind, seed) != key.public:
                raise invalid(f"the backup is damaged: the seed of {key.name} is not that of {key.public}")
        return seeds


def encode(keys: Sequence[tuple[SavedKey, bytes]], passphrase: bytes) -> bytes:
    """The file for these keys and their 32-byte seeds."""
    saved = tuple(key for key, _ in keys)
    secret = json.dumps({key.name: seed.hex() for key, seed in keys}).encode()
    document = {
        "format": FORMAT,
        "keys": [key.document() for key in saved],
        "sealed": seal(secret, passphrase, _associated(saved)),
    }
    return json.dumps(document, indent=1).encode() + b"\n"


def decode(data: bytes) -> Backup:
    """A backup from its file's bytes; CommandError (exit 4) for anything else."""
    try:
        document = json.loads(data)
        if document["format"] != FORMAT or not 0 < len(document["keys"]) <= MAX_KEYS:
            raise ValueError("another format")
        keys = tuple(SavedKey(key["name"], key["kind"], key["public"]) for key in document["keys"])
        whole = all(is_key_name(key.name) and key.kind in KINDS and type(key.public) is str for key in keys)
        if not whole or len({key.name for key in keys}) != len(keys):
            raise ValueError("names or kinds")
        return Backup(keys, document["sealed"])
    except (KeyError, TypeError, ValueError, RecursionError):
        raise invalid("this is no backup of keys of this version, or it is damaged") from None


def write_private(path: Path, data: bytes) -> None:
    """Writes a new file that its owner alone may read, durably; exit 4 where there is one already."""
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except FileExistsError:
        raise invalid(f"{path} exists: it is not written over") from None
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
    except BaseException:
        path.unlink(missing_ok=True)
        raise


def _associated(keys: Sequence[SavedKey]) -> bytes:
    return json.dumps([FORMAT, *([key.name, key.kind, key.public] for key in keys)]).encode()
