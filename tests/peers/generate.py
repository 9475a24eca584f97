"""Small random trees and import options, a case for every seed: structure that is deep with few bytes."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from merkledag.chunker import parse_chunker
from merkledag.profile import PROFILES, ImportProfile
from tests.peers.trees import NAMES

# As boxo writes them. SHA-1 and the shortest digests are left out: nobody imports with them.
HASHES = {"sha2-256": 0x12, "sha2-512": 0x13, "blake3": 0x1E, "sha3-256": 0x16, "blake2b-256": 0xB220}
MAX_CHUNKS = 150
CONTENT_DEFINED_BYTES = 4_000
LARGE_BYTES = 2 * 1024 * 1024  # buzhash cuts at 128 to 512 KiB: it needs files of that size
_ALPHABET = "abcXYZ019 ._-äß€日𝄞"


@dataclass(frozen=True, slots=True)
class File:
    """Content, or the target of a symlink."""

    content: bytes
    is_link: bool = False


@dataclass(frozen=True, slots=True)
class Folder:
    """Entries by name, and which permissions and time each gets where attributes are kept."""

    entries: dict[str, File | Folder] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class RandomCase:
    """A tree and options in the form in which the peers take them."""

    seed: int
    tree: Folder
    options: dict[str, Any]

    def write(self, folder: Path) -> None:
        """Makes `folder` hold the tree."""
        folder.mkdir()
        _write(self.tree, folder)
        if self.options.get("attributes"):
            self._set_attributes(folder)

    def _set_attributes(self, folder: Path) -> None:
        dice = random.Random(f"attributes {self.seed}")
        for path in [*sorted(folder.rglob("*"), reverse=True), folder]:  # children first: times stay
            if not path.is_symlink():
                mode = dice.choice((0o644, 0o755, 0o600, 0o700, 0o1777, 0o4711))
                path.chmod(mode | (0o700 if path.is_dir() else 0o400))
            seconds = dice.choice((0, 1, 10**9, dice.randrange(-(2**33), 2**33)))
            time_ns = seconds * 10**9 + dice.choice((0, 0, 1, 999_999_999, dice.randrange(10**9)))
            os.utime(path, ns=(0, time_ns), follow_symlinks=False)


def _write(tree: Folder, folder: Path) -> None:
    for name, entry in tree.entries.items():
        path = folder / name
        if isinstance(entry, Folder):
            path.mkdir()
            _write(entry, path)
        elif entry.is_link:
            path.symlink_to(os.fsdecode(entry.content))
        else:
            path.write_bytes(entry.content)


def random_case(seed: int) -> RandomCase:
    """The case of a seed, always the same."""
    dice = random.Random(seed)
    options = _options(dice)
    return RandomCase(
        seed, _folder(dice, options, depth=dice.randint(0, 3), budget=[_entries(dice)]), options
    )


def random_cases(first: int, count: int) -> Iterator[RandomCase]:
    """The cases of `count` seeds from `first` on."""
    return map(random_case, range(first, first + count))


def _options(dice: random.Random) -> dict[str, Any]:
    options: dict[str, Any] = {"profile": dice.choice(("unixfs-v1-2025", "unixfs-v0-2015"))}
    options["chunker"] = _chunker(dice)
    options["layout"] = dice.choice(("balanced", "balanced", "trickle"))
    options["max_links"] = dice.choice((2, 2, 3, 4, 5, 8, 13, 174))
    options["cid_version"] = dice.choice((0, 1))
    if options["cid_version"] == 1:
        options["hash"] = dice.choice(("sha2-256", "sha2-256", *HASHES))
    options["raw_leaves"] = dice.random() < 0.5
    if dice.random() < 0.3:
        options["inline_limit"] = dice.choice((1, 5, 32, 36, 64, 100, 128))
    options["hamt_threshold"] = dice.choice((50, 150, 400, 1_000, 262_144, dice.randint(8, 600)))
    options["hamt_fanout"] = dice.choice((8, 8, 16, 32, 64, 256, 1024))
    options["hamt_estimate"] = dice.choice(("links", "block"))
    if dice.random() < 0.2:
        options |= {"attributes": True, "raw_leaves": False}
    if dice.random() < 0.15:
        options["directory_links"] = dice.choice((1, 2, 8, dice.randint(1, 30)))
    return options


def _chunker(dice: random.Random) -> str:
    draw = dice.random()
    if draw < 0.005:
        return dice.choice(("rabin", "buzhash", "rabin-100000"))
    if draw < 0.2:
        least = dice.choice((16, 17, 32, dice.randint(16, 100)))
        mean = least + dice.choice((1, 16, dice.randint(1, 200)))
        return f"rabin-{least}-{mean}-{mean + dice.choice((1, 64, dice.randint(1, 400)))}"
    return f"size-{dice.choice((1, 2, 7, 16, 64, 255, 256, dice.randint(1, 300)))}"


def _entries(dice: random.Random) -> int:
    return dice.choice((1, 3, 8, 20, 20, 40, dice.randint(0, 80)))


def _folder(dice: random.Random, options: dict[str, Any], depth: int, budget: list[int]) -> Folder:
    folder = Folder()
    for _ in range(dice.randint(0, max(budget[0], 1))):
        if budget[0] <= 0:
            break
        name = _name(dice)
        if name in folder.entries:
            continue
        budget[0] -= 1
        kind = dice.choices(("file", "folder", "link"), (7, 3 if depth else 0, 1))[0]
        if kind == "folder":
            folder.entries[name] = _folder(dice, options, depth - 1, budget)
        elif kind == "link":
            folder.entries[name] = File(os.fsencode(_name(dice)), is_link=True)
        else:
            folder.entries[name] = File(_content(dice, options))
    return folder


def _name(dice: random.Random) -> str:
    if dice.random() < 0.05:
        return dice.choice(NAMES)
    name = "".join(dice.choices(_ALPHABET, k=dice.choice((1, 2, 5, dice.randint(1, 30)))))
    return "_" if name in (".", "..") else name


def _content(dice: random.Random, options: dict[str, Any]) -> bytes:
    kind, _, numbers = options["chunker"].partition("-")
    if kind == "size":
        size = int(numbers)
        chunks = dice.choice((0, 1, 1, 2, options["max_links"], dice.randint(0, MAX_CHUNKS)))
        most = min(chunks, MAX_CHUNKS) * size
        length = max(0, most + dice.choice((0, 0, 1, -1, dice.randint(-size, size))))
    elif numbers.count("-") == 2:
        length = dice.choice((0, 1, dice.randint(0, CONTENT_DEFINED_BYTES)))
    else:
        length = dice.choice((0, 100, dice.randint(0, LARGE_BYTES)))
    # Repetitive content makes equal chunks, and content-defined cuts that are only there by the largest size.
    if dice.random() < 0.2:
        pattern = dice.randbytes(dice.choice((1, 1, 3, 64)))
        return (pattern * (length // len(pattern) + 1))[:length]
    return dice.randbytes(length)


def profile_of(options: dict[str, Any]) -> ImportProfile:
    """The same options as our importer takes them."""
    return replace(
        PROFILES[options["profile"]],
        cid_version=options["cid_version"],
        hash_code=HASHES[options.get("hash", "sha2-256")],
        chunker=parse_chunker(options["chunker"]),
        layout=options["layout"],
        inline_bytes=options.get("inline_limit"),
        max_directory_links=options.get("directory_links"),
        raw_leaves=options["raw_leaves"],
        max_links=options["max_links"],
        hamt_threshold_bytes=options["hamt_threshold"],
        hamt_fanout=options["hamt_fanout"],
        hamt_estimate=options["hamt_estimate"],
    )
