"""`holdfast add`, `get` and CAR archives beside hashing and a plain copy, as a user runs them.

Run from the repository's root: `python -m bench.add [--size-mib N] [--files N] [--rounds N] [--folder DIR]
[--ipfs PATH] [--before TREE]`. Prints one JSON document on stdout and a table on stderr. Every command is a
process of its own, so start-up counts; every line of a round is measured in turn with the others, and every
figure is a median. The machine's own limits (SHA-256 of the same files on one core and on all, a plain copy
made durable) are measured in the same rounds. `--ipfs` names a kubo binary to measure too, `--before` an
older source tree of ours: each of its commands runs right before the one of this tree. Memory is as in
`bench/commands.py`.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path
from typing import NamedTuple

from bench.commands import (
    HOLDFAST,
    Bench,
    Side,
    copy_file,
    copy_tree,
    hash_file,
    hash_on_all_cores,
    hash_tree,
    make_large,
    make_small,
    plan,
    show,
)


class Inputs(NamedTuple):
    """A large file, a tree of small ones, the same as a tar, and a tiny file."""

    large: Path
    small: Path
    tar: Path
    tiny: Path


def make_inputs(folder: Path, size_mib: int, files: int) -> Inputs:
    """All of them, on the disk."""
    inputs = Inputs(
        make_large(folder / "large", size_mib),
        make_small(folder / "small", files),
        folder / "tar",
        folder / "tiny",
    )
    with tarfile.open(inputs.tar, "w") as tar:
        tar.add(inputs.small, arcname="small")
    inputs.tiny.write_bytes(b"hello world")
    os.sync()
    return inputs


def run_round(bench: Bench, work: Path, inputs: Inputs, sides: tuple[Side, ...]) -> None:
    """Everything once, a line on every side before the next line."""
    large, small, tar, tiny = inputs
    work.mkdir()

    def each(name: str, *command: str, home: str = "home", wanted: bool = True, drops: str = "") -> str:
        """One line on every side; `{}` in an argument is the side's folder."""
        output = ""
        for number, side in enumerate(sides):
            place = work / str(number)
            words = [word.replace("{}", str(place)) for word in command]
            output = bench.command(
                side.prefix + name, place / home, *HOLDFAST, *words, wanted=wanted, root=side.root
            )
            if drops:
                (place / drops).unlink()
        return output.strip()

    each("start: --version", "--version")
    each("start: add -n of 11 bytes", "add", "-n", "-Q", str(tiny))
    bench.inside("large: sha2-256, one core", lambda: hash_file(large))
    bench.inside("large: sha2-256, all cores", lambda: hash_on_all_cores(large))
    bench.inside("large: copy + fsync", lambda: copy_file(large, work / "copy", durably=True))
    (work / "copy").unlink()
    each("large: add -n", "add", "-n", "-Q", str(large))
    each("large: add -n, buzhash", "add", "-n", "-Q", "-s", "buzhash", str(large))
    each("large: add -n, trickle", "add", "-n", "-Q", "--trickle", str(large))
    root = each("large: add", "add", "-Q", str(large))
    each("large: add again", "add", "-Q", str(large))
    each("large: cat to nothing", "cat", root, wanted=False)
    each("large: get", "get", root, "-o", "{}/got", drops="got")
    each("large: car export", "car", "export", root, "-o", "{}/car")
    each("large: car import", "car", "import", "{}/car", home="other", drops="car")
    bench.inside("small: sha2-256, one core", lambda: hash_tree(small))
    bench.inside("small: copy + sync", lambda: copy_tree(small, work / "copies"))
    each("small: add -n", "add", "-n", "-Q", str(small))
    each("small: add", "add", "-Q", str(small))
    each("small: add -n --tar", "add", "-n", "-Q", "--tar", str(tar))


def run_kubo(bench: Bench, work: Path, inputs: Inputs, ipfs: str) -> None:
    """The same files into a fresh repository of kubo's."""
    kubo = work / "kubo"
    subprocess.run(
        [ipfs, "init", "--profile=unixfs-v1-2025"],
        env={**os.environ, "IPFS_PATH": str(kubo)}, check=True, capture_output=True,
    )  # fmt: skip
    bench.command("large: kubo add", kubo, ipfs, "add", "-Q", str(inputs.large))
    bench.command("small: kubo add", kubo, ipfs, "add", "-r", "-Q", str(inputs.small))


def main() -> None:
    wanted = plan(__doc__)

    def rate(name: str, seconds: float) -> dict[str, float]:
        if "large" in name:
            return {"mib_per_s": wanted.size_mib / seconds}
        return {"files_per_s": wanted.files / seconds} if "small" in name else {}

    with tempfile.TemporaryDirectory(dir=wanted.folder, prefix="holdfast-bench-") as name:
        folder = Path(name)
        bench = Bench(folder / "compiled")
        (folder / "warm-up").mkdir()
        run_round(bench, folder / "warm-up" / "work", make_inputs(folder / "warm-up", 1, 2), wanted.sides)
        bench.forget()
        inputs = make_inputs(folder, wanted.size_mib, wanted.files)
        for _ in range(wanted.rounds):
            run_round(bench, folder / "round", inputs, wanted.sides)
            if wanted.ipfs is not None:
                run_kubo(bench, folder / "round", inputs, wanted.ipfs)
            shutil.rmtree(folder / "round")
    show({"size_mib": wanted.size_mib, "files": wanted.files, "rounds": wanted.rounds}, bench.rows(rate))


if __name__ == "__main__":
    main()
