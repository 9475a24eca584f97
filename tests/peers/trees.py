"""Folders to import: the cases in which implementations of UnixFS have come apart, and random ones."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from merkledag.profile import PROFILES

KIB = 1024
MIB = 1024 * KIB
HAMT_THRESHOLD_BYTES = 256 * KIB

# The last two of the first line have another order as UTF-8 bytes than as UTF-16 words.
NAMES = [
    "a", "B", "ab", "a b", "a.b", "é", "e\u0301", "\uff5e", "\U0001f600",
    " leading and trailing ", ".hidden", "..dots", "...", "-rf", "~", "#?&=+;", "100%", "%41", "*[!]",
    "'\"`$", "back\\slash", "line\nbreak", "tab\t", "\x01", "عربى", "漢字", "\U0001f469\u200d\U0001f467",
    "x" * 255, "é" * 127, "0", "00", "FF", "FFa", "__proto__", "constructor",
]  # fmt: skip


def borders(folder: Path) -> None:
    """Files around the chunk sizes of both profiles, and of several chunks."""
    noise = random.Random(499)
    edges = [1, 256 * KIB, 2 * 256 * KIB, MIB, 2 * MIB, 3 * MIB + 17]
    for size in [near for edge in edges for near in (edge - 1, edge, edge + 1)]:
        (folder / f"{size} bytes").write_bytes(noise.randbytes(size))
    (folder / "zeros").write_bytes(bytes(2 * MIB))  # all chunks the same


def names(folder: Path) -> None:
    """Every strange name, once for a file and once for a folder."""
    for index, name in enumerate(NAMES):
        (folder / name).write_text(f"{index}")
    (folder / "folders").mkdir()
    for name in NAMES:
        (folder / "folders" / name).mkdir()
        (folder / "folders" / name / name).write_bytes(b"")


def nothing(_folder: Path) -> None:
    """The empty folder."""


def empties(folder: Path) -> None:
    """Empty files and folders, some of them deep."""
    (folder / "empty file").write_bytes(b"")
    (folder / "empty folder").mkdir()
    (folder.joinpath(*"abcdefghij" * 3)).mkdir(parents=True)
    (folder / "a" / "b" / "beside").write_bytes(b"")


def symlinks(folder: Path) -> None:
    """Links to files, folders, nowhere and outside; never followed."""
    (folder / "file").write_text("content")
    (folder / "folder").mkdir()
    targets = ["file", "folder", "./folder/", "../..", "nowhere", "/absolute", "日本 語", "loop", "t" * 1000]
    for index, target in enumerate(targets):
        (folder / f"link {index}").symlink_to(target)
    (folder / "loop").symlink_to("loop")


def wide_file(folder: Path) -> None:
    """The most chunks of 256 KiB that one node of 174 links takes, and one more. The files are holes."""
    for extra in (0, 1):
        with (folder / f"{extra} more").open("wb") as file:
            file.truncate(174 * 256 * KIB + extra)


def very_wide_file(folder: Path) -> None:
    """The same for chunks of 1 MiB and 1,024 links."""
    for extra in (0, 1):
        with (folder / f"{extra} more").open("wb") as file:
            file.truncate(1024 * MIB + extra)


def many(folder: Path) -> None:
    """So many entries that a HAMT of 256 buckets has three levels; files, symlinks and folders among them."""
    for index in range(1_200):
        (folder / f"{index:0200d}").write_bytes(b"")
    for index in range(20):
        (folder / f"folder {index}").mkdir()
        (folder / f"link {index}").symlink_to(f"{index}")
    (folder / "folder 7" / "inside").write_text("inside")


def many_folders(folder: Path) -> None:
    """A folder that is too large for one node through its folders, each with something in it."""
    for index in range(1_200):
        inner = folder / f"{index:0200d}"
        inner.mkdir()
        (inner / "file").write_bytes(b"")


def attributes(folder: Path) -> None:
    """Permissions and times of all kinds, also the ones that stand for unspecified ones."""
    (folder / "inner").mkdir()
    modes = {"inner/file": 0o644, "inner/raw": 0o600, "program": 0o755, "setuid": 0o4711, "": 0o755}
    times_ns = {"inner/file": 0, "inner/raw": 1, "program": -1_500_000_000, "setuid": 10**18 + 999_999_999}
    for name in times_ns:
        (folder / name).write_text(name)
    (folder / "several chunks").write_bytes(bytes(2 * MIB + 1))
    (folder / "empty").write_bytes(b"")
    (folder / "link").symlink_to("program")
    for name, mode in (modes | {"inner": 0o1777, "several chunks": 0o400, "empty": 0o640}).items():
        (folder / name).chmod(mode)
    for name, time_ns in (times_ns | {"link": 5 * 10**17, "inner": 10**9, "": 10**18}).items():
        os.utime(folder / name, ns=(0, time_ns), follow_symlinks=False)


def _fill(folder: Path, entries: int, last_name_bytes: int) -> None:
    folder.mkdir()
    for index in range(entries):
        (folder / f"{index:0200d}").write_bytes(b"")
    (folder / ("x" * last_name_bytes)).write_bytes(b"")


def threshold_of_links(folder: Path) -> None:
    """Names and CIDv0s (34 bytes) that sum up to the threshold, 1,120 × 234 + 64 bytes, and one more."""
    for name, last_name_bytes in (("at", 30), ("above", 31)):
        _fill(folder / name, 1_120, last_name_bytes)


def threshold_of_block(folder: Path) -> None:
    """A node with CIDv1s (36 bytes) as long as the threshold, 4 + 1,065 × 246 + 150 bytes, and one more."""
    for name, last_name_bytes in (("at", 105), ("above", 106)):
        _fill(folder / name, 1_065, last_name_bytes)


def random_tree(seed: int) -> Callable[[Path], None]:
    """A writer of folders, files and symlinks by the dice; the same ones for a seed."""

    def write(folder: Path) -> None:
        dice = random.Random(seed)
        folders = [folder]
        for _ in range(60):
            path = dice.choice(folders) / _random_name(dice)
            if os.path.lexists(path):
                continue
            kind = dice.choices(("file", "folder", "symlink"), (6, 3, 1))[0]
            if kind == "folder":
                path.mkdir()
                folders.append(path)
            elif kind == "symlink":
                path.symlink_to(_random_name(dice))
            else:
                path.write_bytes(dice.randbytes(_random_size(dice)))

    return write


def _random_name(dice: random.Random) -> str:
    if dice.random() < 0.3:
        return dice.choice(NAMES)
    alphabet = "abcXYZ019 ._-äß€日𝄞"
    name = "".join(dice.choices(alphabet, k=dice.randint(1, 20)))
    return "_" if name in (".", "..") else name


def _random_size(dice: random.Random) -> int:
    chunk = dice.choice((256 * KIB, MIB))
    return dice.choice((0, dice.randint(1, 100), dice.randint(1, 3 * MIB), chunk * dice.randint(1, 2)))


@dataclass(frozen=True, slots=True)
class Case:
    """A folder to import: by which profiles, and with which peers it must agree."""

    write: Callable[[Path], None]
    profiles: tuple[str, ...] = tuple(PROFILES)
    peers: tuple[str, ...] = ("js", "boxo")
    is_slow: bool = False


CASES = {
    "nothing": Case(nothing),
    "empties": Case(empties),
    "names": Case(names),
    "symlinks": Case(symlinks),
    "borders": Case(borders),
    "wide_file": Case(wide_file),
    "very_wide_file": Case(very_wide_file, ("unixfs-v1-2025",), is_slow=True),
    "many": Case(many),
    # ipfs-unixfs-importer 17.1.1 leaves folders that are not empty out of the size that IPIP-499 compares.
    "many_folders": Case(many_folders, peers=("boxo",)),
    "threshold_of_links": Case(threshold_of_links, ("unixfs-v0-2015",)),
    "threshold_of_block": Case(threshold_of_block, ("unixfs-v1-2025",)),
} | {f"random_{seed}": Case(random_tree(seed)) for seed in (1, 2, 3)}
