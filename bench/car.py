"""CAR archives out of a store and into another, beside hashing, copying and durably writing the same bytes.

Run from the repository's root: `python -m bench.car [--size-mib N] [--files N] [--rounds N] [--folder DIR]
[--ipfs PATH] [--before TREE]`. Prints one JSON document on stdout and a table on stderr. Every command is a
process of its own, so start-up counts; the lines of a round are measured in turn, and every figure is a
median. The machine's own limits (SHA-256 of the archive on one core and on all, a copy within memory, a copy
of the file, a copy made durable) are measured in the same rounds. `--ipfs` names a kubo binary to measure
beside: it exports and imports the same DAG. `--before` is an older source tree of ours: each of its commands
runs right before the one of this tree. Memory is as in `bench/commands.py`.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Final

from bench.commands import (
    HOLDFAST,
    MIB,
    Bench,
    Plan,
    Side,
    copy_file,
    copy_in_memory,
    hash_file,
    hash_on_all_cores,
    make_large,
    make_small,
    plan,
    show,
)

# Its output goes into a pipe that `cat` reads; the process stays the same.
INTO_PIPE: Final = ("sh", "-c", 'cat <"{}/pipe" >/dev/null & exec "$0" "$@" >"{}/pipe"')


def prepare(bench: Bench, work: Path, wanted: Plan) -> dict[str, str]:
    """A home for every side with a large file and a tree of small ones; their roots by name."""
    sources = {
        "large": make_large(work / "large", wanted.size_mib),
        "small": make_small(work / "small", wanted.files),
    }
    roots = {}
    for number, side in enumerate(wanted.sides):
        place = work / str(number)
        place.mkdir()
        os.mkfifo(place / "pipe")
        for name, path in sources.items():
            added = bench.command(
                "prepare", place / "home", *HOLDFAST, "add", "-Q", str(path), root=side.root
            )
            roots[name] = added.strip()
    sources["large"].unlink()
    shutil.rmtree(sources["small"])
    os.sync()
    return roots


def run_round(
    bench: Bench, work: Path, roots: dict[str, str], sides: tuple[Side, ...], ipfs: str | None
) -> None:
    """Everything once, a line on every side before the next line."""

    def each(name: str, *command: str, home: str = "home", piped: bool = False) -> None:
        for number, side in enumerate(sides):
            place = work / str(number)
            words = [*(INTO_PIPE if piped else ()), *HOLDFAST, "car", *command]
            bench.command(
                side.prefix + name, place / home, *(word.replace("{}", str(place)) for word in words),
                root=side.root,
            )  # fmt: skip

    for name, root in roots.items():
        each(f"{name}: export", "export", root, "-o", "{}/made.car")
        each(f"{name}: export to a pipe", "export", root, piped=True)
        each(f"{name}: export as version 2", "export", root, "--version", "2", "-o", "{}/2.car")
        each(f"{name}: import", "import", "{}/made.car", home="other")
        each(f"{name}: import again", "import", "{}/made.car", home="other")
        each(f"{name}: verify", "verify", "{}/made.car")
        each(f"{name}: inspect --quick", "inspect", "--quick", "{}/made.car")
        run_limits(bench, work, name)
        if ipfs is not None:
            run_kubo(bench, work, name, root, ipfs)
        for number in range(len(sides)):
            shutil.rmtree(work / str(number) / "other")
            for leftover in ("made.car", "2.car"):
                (work / str(number) / leftover).unlink()
        os.sync()


def run_limits(bench: Bench, work: Path, name: str) -> None:
    """What the machine can do with the archive that was made."""
    made = work / "0" / "made.car"
    bench.inside(f"{name}: sha2-256, one core", lambda: hash_file(made))
    bench.inside(f"{name}: sha2-256, all cores", lambda: hash_on_all_cores(made))
    bench.inside(f"{name}: copy in memory", lambda: copy_in_memory(made.stat().st_size // MIB))
    bench.inside(f"{name}: copy of the file", lambda: copy_file(made, work / "copy"))
    bench.inside(f"{name}: copy + fsync", lambda: copy_file(made, work / "durable", durably=True))
    for leftover in ("copy", "durable"):
        (work / leftover).unlink()


def run_kubo(bench: Bench, work: Path, name: str, root: str, ipfs: str) -> None:
    """The same DAG into a fresh repository and out of it."""
    kubo = work / "kubo"
    environ = {**os.environ, "IPFS_PATH": str(kubo)}
    subprocess.run([ipfs, "init", "--profile=unixfs-v1-2025"], env=environ, check=True, capture_output=True)
    place = str(work / "0")
    bench.command(f"{name}: kubo dag import", kubo, ipfs, "dag", "import", f"{place}/made.car")
    pipe = (word.replace("{}", place) for word in INTO_PIPE)
    bench.command(f"{name}: kubo dag export", kubo, *pipe, ipfs, "dag", "export", root)
    shutil.rmtree(kubo)


def main() -> None:
    wanted = plan(__doc__)
    with tempfile.TemporaryDirectory(dir=wanted.folder, prefix="holdfast-bench-") as scratch:
        work = Path(scratch)
        bench = Bench(work / "compiled")
        roots = prepare(bench, work, wanted)
        sizes = {}
        for number, side in enumerate(wanted.sides):
            for name, root in roots.items():
                made = work / str(number) / "sized.car"
                export = (*HOLDFAST, "car", "export", root, "-o", str(made))
                bench.command("warm-up", work / str(number) / "home", *export, root=side.root)
                sizes[name] = made.stat().st_size / MIB
                made.unlink()
        bench.forget()
        for _ in range(wanted.rounds):
            run_round(bench, work, roots, wanted.sides, wanted.ipfs)

    def rate(name: str, seconds: float) -> dict[str, float]:
        return {"mib_per_s": sizes["large" if "large" in name else "small"] / seconds}

    show({"size_mib": wanted.size_mib, "files": wanted.files, "rounds": wanted.rounds}, bench.rows(rate))


if __name__ == "__main__":
    main()
