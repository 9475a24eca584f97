"""Backups and restores of whole homes, beside hashing and copying the same bytes.

Run from the repository's root: `python -m bench.backup [--size-mib N] [--files N] [--rounds N]
[--folder DIR]`. Prints one JSON document on stdout and a table on stderr. Two homes: one with a file of
`--size-mib`, one with ten times `--files` blocks of 1 KiB. Every command is a process of its own, so start-up
counts; every figure is a median. The limits of the machine (SHA-256 of the block files, a durable copy of
them) are measured in the same rounds. Memory is as in `bench/commands.py`.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import Final

from bench.commands import HOLDFAST, MIB, Bench, copy_tree, hash_tree, make_large, plan, show
from merkledag import multihash
from storage_node.blockstore.store import open_store

MORE_MIB: Final = 10  # added between two backups
SMALL_BLOCK_BYTES: Final = 1024
BLOCKS_A_FILE: Final = 10


def make_homes(bench: Bench, work: Path, size_mib: int, blocks: int) -> None:
    """A home with one large file, and one with many small blocks."""
    large, small = work / "large", work / "small"
    made = make_large(work / "file", size_mib)
    bench.command("prepare", large, *HOLDFAST, "add", "-Q", str(made))
    made.unlink()
    bench.command("prepare", small, *HOLDFAST, "init")
    bench.command("prepare", small, *HOLDFAST, "pin", "ls")  # makes the records
    store = open_store(small / "blocks", reserve_bytes=0)
    datas = (os.urandom(SMALL_BLOCK_BYTES) for _ in range(blocks))
    store.put_many((multihash.digest(data), data) for data in datas)
    store.close()


def run_round(bench: Bench, work: Path) -> None:
    """Everything once."""
    backup, restored, more = work / "backup", work / "restored", make_large(work / "more", MORE_MIB)
    for name in ("large", "small"):
        home = work / name
        os.sync()

        def each(line: str, *command: str, name: str = name, home: Path = home) -> None:
            bench.command(f"{name}: {line}", home, *HOLDFAST, "repo", *command)

        each("backup", "backup", str(backup))
        each("backup, nothing new", "backup", str(backup))
        bench.command("prepare", home, *HOLDFAST, "add", "-Q", str(more))
        each(f"backup, {MORE_MIB} MiB new", "backup", str(backup))
        each("verify the backup", "backup", str(backup), "--verify")
        os.sync()
        each("restore", "restore", str(backup), str(restored))
        os.sync()
        bench.inside(f"{name}: sha2-256, one core", lambda home=home: hash_tree(home / "blocks"))  # type: ignore[misc]
        bench.inside(f"{name}: copy + sync", lambda home=home: copy_tree(home / "blocks", work / "copy"))  # type: ignore[misc]
        for folder in (backup, restored, work / "copy"):
            shutil.rmtree(folder)
    more.unlink()


def main() -> None:
    wanted = plan(__doc__)
    with tempfile.TemporaryDirectory(dir=wanted.folder) as name:
        work = Path(name)
        bench = Bench(work / "compiled")
        make_homes(bench, work, wanted.size_mib, wanted.files * BLOCKS_A_FILE)
        bench.forget()
        for _ in range(wanted.rounds):
            run_round(bench, work)
        bench.seconds.pop("prepare", None)

        def rate(line: str, seconds: float) -> dict[str, float]:
            small_mib = wanted.files * BLOCKS_A_FILE * SMALL_BLOCK_BYTES / MIB
            size_mib = wanted.size_mib if line.startswith("large") else small_mib
            return {"MiB_per_s": size_mib / seconds}

        facts: dict[str, object] = {"size_mib": wanted.size_mib, "small_blocks": wanted.files * BLOCKS_A_FILE}
        show({**facts, "rounds": wanted.rounds}, bench.rows(rate))


if __name__ == "__main__":
    main()
