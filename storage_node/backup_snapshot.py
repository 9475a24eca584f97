"""Snapshots: one file each that says what a home was at one moment, by packs, bitmaps and parts.

`snapshots/TIME-HASH.json`: the hash (16 digits of the SHA-256 of the file) tells a damaged one.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from storage_node.backup_folder import MAX_PART_BYTES, PART_NAME, BackupFolder, Part, write_new
from storage_node.backup_pack import MAX_BITMAP_BYTES
from storage_node.blockstore.disk import fsync_folder
from storage_node.blockstore.interface import BlockClass
from storage_node.errors import BackupRefused, DamagedBackup, SnapshotNotFound

FORMAT = "holdfast-snapshot"
VERSION = 1
MAX_SNAPSHOT_BYTES = 256 * 1024 * 1024
PIECES_FOLDER = "pieces"  # in a home's `meta/`, and in the paths of saved files

Progress = Callable[[int], None]  # so many bytes more are done

_NAME = re.compile(r"[0-9]{8}T[0-9]{9}Z-[0-9a-f]{16}")
# Nothing else is ever written into a restored home, whatever a snapshot says.
_PATHS = re.compile(
    r"config\.toml|keys/[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}\.key|pieces/[A-Za-z0-9_-]{1,200}\.piece"
)


@dataclass(frozen=True, slots=True)
class SavedFile:
    """A file of the home, by a path of `config.toml`, `keys/NAME.key` or `pieces/NAME.piece`."""

    path: str
    parts: tuple[Part, ...]

    @property
    def is_secret(self) -> bool:
        """Whether it is a key."""
        return self.path.startswith("keys/")


@dataclass(frozen=True, slots=True)
class PackUse:
    """Which blocks of a pack the home had, by class: bitmaps over the pack's row numbers."""

    pack: str
    blocks: dict[BlockClass, bytes]

    def marks(self) -> bytes:
        """Every block of the home in this pack, whatever its class."""
        whole = 0
        for bitmap in self.blocks.values():
            whole |= int.from_bytes(bitmap, "little")
        return whole.to_bytes(MAX_BITMAP_BYTES, "little")


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What a home was. `damaged` are multihashes, in hex, of blocks that were damaged in the home itself."""

    name: str  # "" as long as it is not written
    created_ms: int  # Unix time
    home: str
    blocks: int
    block_bytes: int
    with_keys: bool
    uses: tuple[PackUse, ...]
    records: tuple[Part, ...]
    files: tuple[SavedFile, ...]
    damaged: tuple[str, ...] = field(default=())

    def save(self, folder: BackupFolder) -> Snapshot:
        """Write it durably and return it with its name. Raises StoreFull."""
        data = json.dumps(_encode(self), separators=(",", ":")).encode() + b"\n"
        name = f"{_time_text(self.created_ms)}-{hashlib.sha256(data).hexdigest()[:16]}"
        write_new(folder.snapshots / f"{name}.json", [data])
        fsync_folder(folder.snapshots)
        return _decode(name, json.loads(data))


def names(folder: BackupFolder) -> list[str]:
    """The names of all snapshots, the oldest first."""
    found = (path.name.removesuffix(".json") for path in folder.snapshots.glob("*.json"))
    return sorted(name for name in found if _NAME.fullmatch(name))


def snapshot_path(folder: BackupFolder, name: str) -> Path:
    """The file of a snapshot."""
    return folder.snapshots / f"{name}.json"


def find(folder: BackupFolder, wanted: str) -> str:
    """The name that begins with `wanted`; "" is the newest. Raises SnapshotNotFound."""
    known = names(folder)
    if not known:
        raise SnapshotNotFound(f"{folder.path} holds no snapshot: no backup was completed")
    if not wanted:
        return known[-1]
    fitting = [name for name in known if name.startswith(wanted)]
    if len(fitting) != 1:
        what = "several snapshots" if fitting else "no snapshot"
        raise SnapshotNotFound(f"{folder.path}: {what} begin with {wanted!r}; `--list` names them")
    return fitting[0]


def load(folder: BackupFolder, name: str) -> Snapshot:
    """Read a snapshot. Raises DamagedBackup naming the file."""
    path = snapshot_path(folder, name)
    try:
        with path.open("rb") as file:
            data = file.read(MAX_SNAPSHOT_BYTES + 1)
    except OSError as error:
        raise DamagedBackup(f"{path} cannot be read ({error.strerror}): choose another snapshot") from error
    if hashlib.sha256(data).hexdigest()[:16] != name.rpartition("-")[2]:
        raise DamagedBackup(f"{path} is damaged: choose another snapshot, and delete this one to go on")
    try:
        document = json.loads(data)
        if document["format"] == FORMAT and document["version"] > VERSION:
            raise BackupRefused(
                f"{path}: version {document['version']}, this program knows {VERSION}: upgrade"
            )
        return _decode(name, document)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, zlib.error) as error:
        raise DamagedBackup(f"{path} is no snapshot of this version: choose another one") from error


def created_text(snapshot: Snapshot) -> str:
    """When it was made, for people and programs (RFC 3339)."""
    return datetime.fromtimestamp(snapshot.created_ms / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _time_text(ms: int) -> str:
    moment = datetime.fromtimestamp(ms // 1000, UTC)
    return f"{moment:%Y%m%dT%H%M%S}{ms % 1000:03d}Z"


def _encode(snapshot: Snapshot) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "version": VERSION,
        "created_ms": snapshot.created_ms,
        "home": snapshot.home,
        "blocks": snapshot.blocks,
        "block_bytes": snapshot.block_bytes,
        "with_keys": snapshot.with_keys,
        "packs": {
            use.pack: {each.name.lower(): _pressed(bits) for each, bits in use.blocks.items()}
            for use in snapshot.uses
        },
        "records": snapshot.records,
        "files": {file.path: file.parts for file in snapshot.files},
        "damaged": snapshot.damaged,
    }


def _decode(name: str, document: dict[str, Any]) -> Snapshot:
    if document["format"] != FORMAT:
        raise ValueError("not a snapshot")
    uses = []
    for pack, blocks in document["packs"].items():
        classes = {BlockClass[each.upper()]: _unpressed(bits) for each, bits in blocks.items()}
        uses.append(PackUse(_checked(PART_NAME, pack), classes))
    files = tuple(
        SavedFile(_checked(_PATHS, path), tuple(map(_part, parts)))
        for path, parts in document["files"].items()
    )
    return Snapshot(
        name=name,
        created_ms=_number(document["created_ms"]),
        home=str(document["home"]),
        blocks=_number(document["blocks"]),
        block_bytes=_number(document["block_bytes"]),
        with_keys=document["with_keys"] is True,
        uses=tuple(uses),
        records=tuple(map(_part, document["records"])),
        files=files,
        damaged=tuple(map(str, document["damaged"])),
    )


def _pressed(bitmap: bytes) -> str:
    return base64.b64encode(zlib.compress(bitmap.rstrip(b"\0"), 1)).decode()


def _unpressed(text: str) -> bytes:
    inflate = zlib.decompressobj()
    bitmap = inflate.decompress(base64.b64decode(text, validate=True), MAX_BITMAP_BYTES)
    if inflate.unconsumed_tail:
        raise ValueError("a bitmap is too long")
    return bitmap.ljust(MAX_BITMAP_BYTES, b"\0")


def _part(value: list[Any]) -> Part:
    sha256, size_bytes = value
    if _number(size_bytes) > MAX_PART_BYTES:
        raise ValueError("a part is too long")
    return Part(_checked(PART_NAME, sha256), size_bytes)


def _checked(pattern: re.Pattern[str], text: object) -> str:
    if not isinstance(text, str) or not pattern.fullmatch(text):
        raise ValueError(f"{text!r} does not belong there")
    return text


def _number(value: object) -> int:
    if type(value) is not int or value < 0:
        raise ValueError(f"{value!r} is no size")
    return value
