"""Key files: Ed25519 and BLS12-381 seeds in keys/, sealed with a passphrase or readable by their owner alone.

One JSON file a key, keys/NAME.key, 0600 in a 0700 folder, written in one step and never overwritten:

    {"format": "holdfast-key-1", "kind": "ed25519" | "bls12-381", "public": TEXT, "seed": HEX}
    {"format": …, "kind": …, "public": …, "sealed": see cli/sealing.py}

The associated data of the cipher is "holdfast-key-1\\0KIND\\0PUBLIC", so a sealed seed cannot be moved under
another name of a key. The passphrase is the first line of the file that HOLDFAST_PASSPHRASE_FILE names, else
it is asked for on a terminal.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from cli.output import CommandError, invalid, not_found, usage
from cli.sealing import seal, unseal

ED25519: Final = "ed25519"
BLS12_381: Final = "bls12-381"
KINDS: Final = (ED25519, BLS12_381)
SEED_BYTES: Final = 32
FORMAT: Final = "holdfast-key-1"
MAX_KEY_FILE_BYTES: Final = 1 << 14
MAX_PASSPHRASE_BYTES: Final = 4096
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}")


@dataclass(frozen=True, slots=True)
class KeyInfo:
    """What can be said of a key without its passphrase.

    `public` is k51… (Ed25519) or 48 bytes in hex (BLS).
    """

    name: str
    kind: str
    public: str
    sealed: bool
    path: Path

    def sentence(self) -> str:
        """How the key is kept, for people."""
        how = (
            "sealed with the passphrase" if self.sealed else "not encrypted: only file permissions protect it"
        )
        return f"made key {self.name} ({self.kind}) in {self.path}, {how}"

    def document(self) -> dict[str, Any]:
        """The same for `--json`."""
        return {"name": self.name, "kind": self.kind, "public": self.public, "encrypted": self.sealed}


def public_text(kind: str, seed: bytes) -> str:
    """The public half of a seed as text."""
    if kind == ED25519:
        from merkledag.ed25519 import Ed25519Signer
        from merkledag.peer import peer_text

        return peer_text(Ed25519Signer.from_seed(seed).public_key)
    from proofs.bls.signatures import BlsSigner

    return BlsSigner.from_seed(seed).public_key.hex()


def is_key_name(text: str) -> bool:
    """Whether a key can be called this."""
    return _NAME.fullmatch(text) is not None


class Keystore:
    """The keys in one folder."""

    def __init__(self, folder: Path, environ: Mapping[str, str] = os.environ) -> None:
        self.folder = folder
        self._environ = environ
        self._passphrase: bytes | None = None

    def path(self, name: str) -> Path:
        """The file of key `name`; CommandError (exit 2) for a name that cannot be a file name."""
        if not is_key_name(name):
            raise usage(f"{name!r} is no name for a key: use letters, digits, dots, dashes; at most 64")
        return self.folder / f"{name}.key"

    def has(self, name: str) -> bool:
        """Whether key `name` exists."""
        return self.path(name).is_file()

    def names(self) -> list[str]:
        """The keys' names, sorted."""
        if not self.folder.is_dir():
            return []
        return sorted(f.stem for f in self.folder.glob("*.key") if _NAME.fullmatch(f.stem))

    def info(self, name: str) -> KeyInfo:
        """What is known of key `name` without a passphrase.

        Exit 3 when absent, 4 when its file is damaged.
        """
        document = self._read(name)
        return KeyInfo(name, document["kind"], document["public"], "sealed" in document, self.path(name))

    def create(
        self, name: str, kind: str, seed: bytes | None = None, *, passphrase: bytes | None = None
    ) -> KeyInfo:
        """Stores `seed` (else a new one) as key `name`, sealed if a passphrase is given or in the file.

        Raises CommandError: exit 4 when the key exists, 2 for a bad name or passphrase file.
        """
        path = self.path(name)
        seed = secrets.token_bytes(SEED_BYTES) if seed is None else seed
        passphrase = self.given_passphrase() if passphrase is None else passphrase
        public = public_text(kind, seed)
        document: dict[str, Any] = {"format": FORMAT, "kind": kind, "public": public}
        if passphrase is None:
            document["seed"] = seed.hex()
        else:
            document["sealed"] = seal(seed, passphrase, _associated(kind, public))
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.folder.chmod(0o700)
        _write_new(path, json.dumps(document, indent=1).encode() + b"\n", name)
        return KeyInfo(name, kind, public, passphrase is not None, path)

    def create_once(self, name: str, kind: str, *, passphrase: bytes | None = None) -> KeyInfo | None:
        """As `create`; None where the key is there already, also if another process was quicker."""
        if not self.has(name):
            try:
                return self.create(name, kind, passphrase=passphrase)
            except CommandError:
                if not self.has(name):
                    raise
        return None

    def seed(self, name: str, kind: str | None = None) -> bytes:
        """The 32-byte private seed of key `name`, unsealed if need be.

        Raises CommandError: exit 3 when absent, 4 for another kind, a damaged file or a wrong passphrase.
        """
        document = self._read(name)
        if kind is not None and document["kind"] != kind:
            raise invalid(f"key {name} is a {document['kind']} key; this needs a {kind} key")
        try:
            if "sealed" in document:
                associated = _associated(document["kind"], document["public"])
                seed = unseal(document["sealed"], self.passphrase(name), associated)
            else:
                seed = bytes.fromhex(document["seed"])
        except (KeyError, TypeError, ValueError):
            raise invalid(f"{self.path(name)} is damaged: restore it from a backup") from None
        if len(seed) != SEED_BYTES:
            raise invalid(f"{self.path(name)} is damaged: its seed has {len(seed)} bytes, not {SEED_BYTES}")
        return seed

    def rename(self, old: str, new: str) -> KeyInfo:
        """Calls key `old` `new`. Exit 3 when there is no `old`, 4 when there is a `new` already."""
        self.info(old)
        source, target = self.path(old), self.path(new)
        try:
            os.link(source, target)  # fails where the name is taken, so no key is ever replaced
        except FileExistsError:
            raise invalid(f"a key called {new} exists already: choose another name") from None
        source.unlink()
        _sync_folder(self.folder)
        return self.info(new)

    def remove(self, name: str) -> None:
        """Deletes key `name` for good; exit 3 when there is none."""
        self.info(name)
        self.path(name).unlink()
        _sync_folder(self.folder)

    def passphrase(self, name: str) -> bytes:
        """The passphrase from HOLDFAST_PASSPHRASE_FILE, else from the terminal.

        Exit 4 when there is neither.
        """
        if self._passphrase is None:
            self._passphrase = self.given_passphrase()
        if self._passphrase is None:
            if not sys.stdin.isatty():
                raise invalid(
                    f"key {name} is encrypted: name a file with the passphrase in HOLDFAST_PASSPHRASE_FILE"
                )
            self._passphrase = ask_passphrase(f"Passphrase of key {name}: ")
        return self._passphrase

    def given_passphrase(self) -> bytes | None:
        """The first line of the file that HOLDFAST_PASSPHRASE_FILE names; None if it names none."""
        named = self._environ.get("HOLDFAST_PASSPHRASE_FILE")
        if not named:
            return None
        try:
            with Path(named).open("rb") as file:
                data = file.read(MAX_PASSPHRASE_BYTES + 1)
        except OSError as error:
            raise usage(f"HOLDFAST_PASSPHRASE_FILE: {named}: {error.strerror}") from None
        passphrase = data.split(b"\n", 1)[0].rstrip(b"\r")
        if not passphrase or len(passphrase) > MAX_PASSPHRASE_BYTES:
            raise usage(f"HOLDFAST_PASSPHRASE_FILE: the first line of {named} is no passphrase")
        return passphrase

    def _read(self, name: str) -> dict[str, Any]:
        path = self.path(name)
        try:
            with path.open("rb") as file:
                data = file.read(MAX_KEY_FILE_BYTES)
        except FileNotFoundError:
            raise not_found(f"no key is called {name}; `holdfast key ls` lists them") from None
        try:
            document = json.loads(data)
        except (ValueError, RecursionError):
            document = None
        if (
            not isinstance(document, dict)
            or document.get("format") != FORMAT
            or document.get("kind") not in KINDS
            or not isinstance(document.get("public"), str)
        ):
            raise invalid(f"{path} is not a key file of this version, or is damaged")
        return document


def ask_passphrase(prompt: str, *, confirm: bool = False) -> bytes:
    """A passphrase typed on the terminal; exit 2 when it is empty or the two entries differ."""
    import getpass

    from cli.streams import interruptible

    with interruptible():
        typed = getpass.getpass(prompt)
        if not typed:
            raise usage("the passphrase is empty")
        if confirm and getpass.getpass("The same again: ") != typed:
            raise usage("the two passphrases differ")
    return typed.encode()


def _associated(kind: str, public: str) -> bytes:
    return "\0".join((FORMAT, kind, public)).encode()


def _write_new(path: Path, data: bytes, name: str) -> None:
    """Writes a 0600 file that did not exist, durably; nobody ever sees half of it."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}.tmp")
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(temporary, path)
        except FileExistsError:
            raise invalid(f"a key called {name} exists already: choose another name") from None
    finally:
        temporary.unlink(missing_ok=True)
    _sync_folder(path.parent)


def _sync_folder(path: Path) -> None:
    """Makes what was linked and unlinked in a folder survive a power cut."""
    folder = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
