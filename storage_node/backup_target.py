"""The folder that a home is restored into: empty, or with the marker of a restore that was interrupted."""

from __future__ import annotations

import json
import os
from pathlib import Path

from storage_node.backup_folder import write_new
from storage_node.blockstore.disk import fsync_folder
from storage_node.errors import BackupRefused

MARKER = "restore.json"
MAX_MARKER_BYTES = 4096
HARMLESS = frozenset(("daemon.lock", "daemon.waiting"))  # what waiting for the home's lock leaves


def refuse_used(home: Path, snapshot: str) -> None:
    """Raise BackupRefused unless nothing lives in `home`, or an unfinished restore of this snapshot."""
    if home.exists() and not home.is_dir():
        raise BackupRefused(f"{home} is not a folder: choose another place to restore into")
    marker = home / MARKER
    if not marker.exists():
        living = _first_file(home)
        if living is not None:
            raise BackupRefused(
                f"{home} is in use ({living.relative_to(home)}): restore into a new or empty folder"
            )
        return
    begun = _read(marker)
    if begun != snapshot:
        raise BackupRefused(
            f"{home} holds an unfinished restore of snapshot {begun}: finish it with --snapshot {begun}, "
            "or delete the folder"
        )


def claim(home: Path, snapshot: str) -> bool:
    """Mark a home as being restored; True if it was already. Hold its daemon lock. Raises BackupRefused."""
    refuse_used(home, snapshot)
    marker = home / MARKER
    if marker.exists():
        return True
    write_new(marker, json.dumps({"snapshot": snapshot}).encode() + b"\n")
    fsync_folder(home)
    return False


def is_complete(home: Path) -> bool:
    """Whether a marked home lacks nothing but the removal of its marker."""
    return (home / "meta" / "format.json").exists()


def release(home: Path) -> None:
    """The home is whole."""
    (home / MARKER).unlink()
    fsync_folder(home)


def _first_file(home: Path) -> Path | None:
    for folder, _, names in os.walk(home):
        for name in names:
            if not (name in HARMLESS and Path(folder) == home / "run"):
                return Path(folder) / name
    return None


def _read(marker: Path) -> str:
    try:
        with marker.open("rb") as file:
            begun = json.loads(file.read(MAX_MARKER_BYTES))["snapshot"]
    except (OSError, ValueError, KeyError, TypeError):
        raise BackupRefused(
            f"{marker} is damaged: delete the folder {marker.parent} and restore anew"
        ) from None
    return str(begun)
