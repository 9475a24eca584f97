"""The peers as processes, and our own side of the comparison: folder to CAR, CAR to tree."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from cli.importing import Importer, ImportOptions
from cli.importing_ignore import Selection
from cli.output import meter
from merkledag import car
from merkledag.cid import CID
from merkledag.profile import PROFILES, ImportProfile
from merkledag.reader import entries, read_file, stat
from merkledag.steps import Buffer, iterate, run
from merkledag.traverse import walk_dag
from tests.peers.trees import Case

# Read here, because a fixture takes HOLDFAST_* variables away from the tests themselves.
FOLDER = Path(os.environ.get("HOLDFAST_PEERS") or Path.home() / ".cache" / "holdfast-peers")
REQUIRED = os.environ.get("HOLDFAST_REQUIRE_PEERS") == "1"
PEER_TIMEOUT_S = 120
PIECE_BYTES = 100_003  # archives are fed to our decoder in pieces that end anywhere


@dataclass(frozen=True, slots=True)
class Item:
    """One entry of a tree, as far as every implementation must see it the same."""

    kind: str  # "file", "directory" or "symlink"
    size_bytes: int = 0
    sha256: str = ""
    target: str = ""


@dataclass(frozen=True, slots=True)
class Attributes:
    """Permission bits and time of an entry; 0 and "" where it has none."""

    mode: int
    mtime: str  # "seconds.nanoseconds"


# Both by the path below the root, whose own path is "".
Tree = dict[str, Item]
AttributesByPath = dict[str, Attributes]


@dataclass(frozen=True, slots=True)
class Prepared:
    """A folder, what is in it, and our archive of it by profile."""

    folder: Path
    content: Tree
    roots: dict[str, CID]
    archives: dict[str, Path]


@dataclass(frozen=True, slots=True)
class Peer:
    """Another implementation behind a program that takes a list of jobs and answers with their results."""

    name: str
    command: tuple[str, ...]

    def run(self, jobs: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """One process for all jobs; fails the test if the process itself fails."""
        done = subprocess.run(
            self.command, input=json.dumps(jobs), capture_output=True, text=True, timeout=PEER_TIMEOUT_S
        )
        assert done.returncode == 0, f"{self.name} ended with {done.returncode}: {done.stderr[-2000:]}"
        results: list[dict[str, Any]] = json.loads(done.stdout)
        assert len(results) == len(jobs)
        return results


def find_peer(name: str) -> Peer:
    """The peer "js" or "boxo"; where it is not installed the test is skipped, or fails if it is required."""
    if name == "js":
        node, script = shutil.which("node"), FOLDER / "npm" / "peer.mjs"
        installed = node is not None and script.is_file() and (FOLDER / "npm" / ".stamp").is_file()
        command = [str(node), str(script)]
    else:
        program = FOLDER / "bin" / "boxo-peer"
        installed = os.access(program, os.X_OK)
        command = [str(program)]
    if not installed:
        reason = f"the peer {name} is not in {FOLDER}: make peers puts it there"
        pytest.fail(reason) if REQUIRED else pytest.skip(reason)
    return Peer(name, tuple(command))


def import_blocks(
    folder: Path, profile: ImportProfile, *, attributes: bool = False
) -> tuple[CID, dict[CID, bytes]]:
    """Our importer over a folder: its root, and all blocks."""
    options = ImportOptions(
        profile, selection=Selection(hidden=True), preserve_mode=attributes, preserve_mtime=attributes
    )
    importer = Importer(options, on_added=lambda _: None, meter=meter("", None, wanted=False))
    blocks = {block.cid: block.data for block in importer.blocks([str(folder)])}
    (added,) = importer.roots
    return added.cid, blocks


def write_car(path: Path, root: CID, blocks: dict[CID, bytes]) -> None:
    """The whole DAG as a CARv1."""
    with path.open("wb") as file:
        file.write(car.header([root]))
        for block in iterate(walk_dag(root), blocks.__getitem__):
            file.write(car.frame(block))


def import_folder(folder: Path, profile: str, car_path: Path, *, attributes: bool = False) -> CID:
    """Our importer over a folder; writes the whole DAG as a CARv1 and returns its root."""
    root, blocks = import_blocks(folder, PROFILES[profile], attributes=attributes)
    write_car(car_path, root, blocks)
    return root


def prepare(case: Case, at: Path) -> Prepared:
    """Writes and imports a folder inside `at`."""
    folder = at / "folder"
    folder.mkdir()
    case.write(folder)
    archives = {profile: at / f"{profile}.car" for profile in case.profiles}
    roots = {profile: import_folder(folder, profile, path) for profile, path in archives.items()}
    return Prepared(folder, tree_of_folder(folder), roots, archives)


def read_car(path: Path) -> tuple[car.CarHeader, dict[CID, bytes]]:
    """The header and all blocks of an archive, verified."""
    decoder = car.CarDecoder()
    header: car.CarHeader | None = None
    blocks: dict[CID, bytes] = {}
    with path.open("rb") as file:
        while piece := file.read(PIECE_BYTES):
            decoder.feed(piece)
            while (item := decoder.next()) is not None:
                if isinstance(item, car.CarHeader):
                    header = item
                else:
                    blocks[item.cid] = item.data
    decoder.finish()
    assert header is not None
    return header, blocks


def tree_of_folder(folder: Path) -> Tree:
    """What is in a folder of the file system."""
    tree = {"": Item("directory")}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_symlink():
            tree[name] = Item("symlink", target=os.readlink(path))  # noqa: PTH115 (as it is)
        elif path.is_dir():
            tree[name] = Item("directory")
        else:
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            tree[name] = Item("file", path.stat().st_size, digest)
    return tree


def tree_of_dag(root: CID, blocks: dict[CID, bytes]) -> Tree:
    """What our reader finds below a root."""
    return dict(_walk("", root, blocks))


def _walk(path: str, cid: CID, blocks: dict[CID, bytes]) -> Iterator[tuple[str, Item]]:
    def get(wanted: CID) -> Buffer:
        return blocks[wanted]

    node = run(stat(cid), get)
    if node.kind == "directory":
        yield path, Item("directory")
        for entry in iterate(entries(cid), get):
            yield from _walk(f"{path}/{entry.name}" if path else entry.name, entry.cid, blocks)
    elif node.kind == "symlink":
        yield path, Item("symlink", target=node.target or "")
    else:
        hashed = hashlib.sha256()
        size_bytes = 0
        pieces: Iterator[Buffer] = iterate(read_file(cid), get)
        for piece in pieces:
            hashed.update(piece)
            size_bytes += len(piece)
        assert size_bytes == node.size_bytes
        yield path, Item("file", size_bytes, hashed.hexdigest())


def attributes_of_folder(folder: Path) -> AttributesByPath:
    """Permissions and times in a folder of the file system; a symlink has no permissions of its own."""
    found = {}
    for path in (folder, *folder.rglob("*")):
        status = path.lstat()
        seconds, nanoseconds = divmod(status.st_mtime_ns, 10**9)
        mode = 0 if path.is_symlink() else status.st_mode & 0o7777
        name = "" if path == folder else path.relative_to(folder).as_posix()
        found[name] = Attributes(mode, f"{seconds}.{nanoseconds:09}")
    return found


def attributes_of_result(result: dict[str, Any]) -> AttributesByPath:
    """What a peer says about the permissions and times."""
    return {
        entry["path"]: Attributes(0 if entry["type"] == "symlink" else entry["mode"], entry["mtime"])
        for entry in result["entries"]
    }


def tree_of_result(result: dict[str, Any]) -> Tree:
    """What a peer says it exported."""
    return {
        entry["path"]: Item(entry["type"], entry["size"], entry["sha256"], entry["target"])
        for entry in result["entries"]
    }
