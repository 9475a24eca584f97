"""The folder that a home is restored into: empty, or with the marker of a restore that was interrupted."""

from __future__ import annotations

import json
import os
from pathlib import Path

from storage_node.backup_folder import write_new
from storage_node.blockstore.disk import fsync_folder
from storage_node.errors import BackupRefused

MARKER = "restore.json"
ASIDE = "meta.restoring"  # the records, before they get their name
MAX_MARKER_BYTES = 4096
HARMLESS = frozenset(("daemon.lock", "daemon.waiting"))  # what waiting for the home's lock leaves


def refuse_used(home: Path, snapshot: str) -> None:
    """Raise BackupRefused unless nothing lives in `home`, or an unfinished restore of this snapshot."""
    if os.path.lexists(home) and not home.is_dir():
        raise BackupRefused(f"{home} is not a folder: choose another place to restore into")
    marker = home / MARKER
    if not marker.exists():
        living = _first_file(home)
        if living is not None:
            raise BackupRefused(
                f"{home} is not empty ({living.relative_to(home)}): restore into a new or empty folder"
            )
        return
    begun = _read(marker)["snapshot"]
    if begun != snapshot:
        raise BackupRefused(
            f"{home} holds an unfinished restore of snapshot {begun}: finish it with --snapshot {begun}, "
            "or delete the folder"
        )


def claim(home: Path, snapshot: str) -> bool:
    """Mark a home as being restored; True if it was already. Hold its daemon lock. Raises BackupRefused."""
    refuse_used(home, snapshot)
    if (home / MARKER).exists():
        return True
    _mark(home, {"snapshot": snapshot})
    return False


def announce_records(home: Path, snapshot: str) -> None:
    """Say that the next step is the renaming of `meta.restoring`, the last one of a restore."""
    _mark(home, {"snapshot": snapshot, "records": "ready"})


def is_complete(home: Path) -> bool:
    """Whether a marked home lacks nothing but the removal of its marker.

    Raises BackupRefused if records are in it that no restore has put there.
    """
    if not (home / "meta" / "format.json").exists():
        return False
    if _read(home / MARKER).get("records") != "ready" or (home / ASIDE).exists():
        raise BackupRefused(
            f"{home} was used before its restore was complete: delete the folder and restore anew"
        )
    return True


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


def _mark(home: Path, content: dict[str, str]) -> None:
    write_new(home / MARKER, [json.dumps(content).encode(), b"\n"])
    fsync_folder(home)


def _read(marker: Path) -> dict[str, str]:
    try:
        with marker.open("rb") as file:
            content = json.loads(file.read(MAX_MARKER_BYTES))
        return {"snapshot": str(content["snapshot"]), "records": str(content.get("records"))}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise BackupRefused(
            f"{marker} is damaged: delete the folder {marker.parent} and restore anew"
        ) from None
