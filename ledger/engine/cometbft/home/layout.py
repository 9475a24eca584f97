"""CometBFT's folder: where its files are, and what of its configuration others must know."""

from __future__ import annotations

import json
import os
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from ledger.engine.errors import EngineError
from ledger.engine.wal import sync_folder

MAX_FILE_BYTES: Final = 64 << 20  # of a genesis with a carried state; all others are small
FOLDER_MODE: Final = 0o700
FILE_MODE: Final = 0o600


class CometFilesError(EngineError):
    """A file of CometBFT's is missing, damaged, or not what belongs here: the operator's to mend."""


@dataclass(frozen=True, slots=True)
class CometHome:
    """The folder that `cometbft --home` is given; nothing is read or made before it is asked for."""

    path: Path

    @property
    def config_file(self) -> Path:
        """What CometBFT is told, written once and the operator's from then on."""
        return self.path / "config" / "config.toml"

    @property
    def genesis_file(self) -> Path:
        """The same file on every validator."""
        return self.path / "config" / "genesis.json"

    @property
    def node_key_file(self) -> Path:
        """By which peers know this process."""
        return self.path / "config" / "node_key.json"

    @property
    def validator_key_file(self) -> Path:
        """The consensus key: signs blocks and votes."""
        return self.path / "config" / "priv_validator_key.json"

    @property
    def validator_state_file(self) -> Path:
        """What the consensus key signed last: must never go back (`signing`)."""
        return self.path / "data" / "priv_validator_state.json"

    @property
    def watermark_file(self) -> Path:
        """The last that was signed in this folder on this machine (`signing`)."""
        return self.path / "data" / "holdfast-signed.json"

    @property
    def data(self) -> Path:
        """Blocks, states, the write-ahead log."""
        return self.path / "data"

    @property
    def log_file(self) -> Path:
        """What the process says."""
        return self.path / "cometbft.log"

    def create(self) -> None:
        """Makes the folders (0700) that are missing."""
        for folder in (self.path, self.path / "config", self.data):
            folder.mkdir(mode=FOLDER_MODE, parents=True, exist_ok=True)

    def config(self) -> dict[str, Any]:
        """The configuration as it is; CometFilesError where there is none or it is no TOML."""
        try:
            return tomllib.loads(read_bounded(self.config_file).decode())
        except (ValueError, RecursionError) as error:
            raise CometFilesError(f"{self.config_file} is no TOML file: {error}") from None

    def rpc_url(self) -> str:
        """Where this machine reaches the process's RPC, as its configuration says."""
        listen = self._text("rpc", "laddr")
        scheme, _, address = listen.partition("://")
        host, colon, port = address.rpartition(":")
        if scheme != "tcp" or not colon or not port.isdecimal() or port == "0":
            raise CometFilesError(
                f"{self.config_file}: rpc.laddr is {listen!r}, and must be tcp://ADDRESS:PORT, "
                "the port a fixed one"
            )
        host = {"0.0.0.0": "127.0.0.1", "": "127.0.0.1", "[::]": "[::1]"}.get(host, host)
        return f"http://{host}:{port}"

    def p2p_address(self) -> str:
        """Where peers are told to find it, HOST:PORT."""
        listen = self._text("p2p", "laddr").partition("://")[2]
        return self._text("p2p", "external_address") or listen

    def peers(self) -> tuple[str, ...]:
        """The persistent peers, ID@HOST:PORT."""
        return tuple(filter(None, self._text("p2p", "persistent_peers").split(",")))

    def begins_by_state_sync(self) -> bool:
        """Whether an empty home begins with others' snapshot, and not with the first block."""
        table = self.config().get("statesync")
        return isinstance(table, dict) and table.get("enable") is True

    def _text(self, section: str, name: str) -> str:
        table = self.config().get(section)
        value = table.get(name, "") if isinstance(table, dict) else ""
        return value if isinstance(value, str) else ""


def read_bounded(path: Path) -> bytes:
    """All of a file; CometFilesError where it is missing, cannot be read or is too large."""
    try:
        with path.open("rb") as file:
            data = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise CometFilesError(f"{path}: {error.strerror}") from None
    if len(data) > MAX_FILE_BYTES:
        raise CometFilesError(f"{path} has more than {MAX_FILE_BYTES:,} bytes")
    return data


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object in a file; CometFilesError where there is none."""
    try:
        found = json.loads(read_bounded(path))
    except (ValueError, RecursionError) as error:
        raise CometFilesError(f"{path} is damaged: {error}") from None
    if not isinstance(found, dict):
        raise CometFilesError(f"{path} is damaged: it is no JSON object")
    return found


def write_new(path: Path, data: bytes) -> None:
    """Writes a 0600 file that did not exist, durably and in one step; FileExistsError if it does."""
    _write(path, data, os.link)


def replace(path: Path, data: bytes) -> None:
    """Writes a 0600 file in the place of one that may exist, durably and in one step."""
    _write(path, data, os.replace)


def _write(path: Path, data: bytes, put: Callable[[Path, Path], None]) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.unlink(missing_ok=True)
        handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, FILE_MODE)
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        put(temporary, path)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error  # its name, not the temporary one's
    finally:
        temporary.unlink(missing_ok=True)
    sync_folder(path.parent)
