"""CAR archives out of a store and into another, beside hashing, copying and durably writing the same bytes.

Run from the repository's root: `python -m bench.car [--size-mib N] [--files N] [--rounds N] [--folder DIR]
[--ipfs PATH]`. Prints one JSON document on stdout and a table on stderr. Every command is a process of its
own, so start-up counts; the lines of a round are measured in turn, and every figure is a median. The
machine's own limits (SHA-256 of the archive on one core and on all, a copy within memory, a copy of the file,
a copy made durable) are measured in the same rounds. `--ipfs` names a kubo binary to measure beside: it
exports and imports the same DAG. Peak memory is anonymous (RssAnon, sampled), as in `bench/add.py`.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from bench.add import Bench, copy_durably, hash_file, hash_on_all_cores, make_input

MIB = 1 << 20


def copy_in_memory(size_mib: int) -> None:
    """As many bytes as the archive has from one buffer to another, a MiB at a time."""
    source, target = bytes(MIB), memoryview(bytearray(MIB))
    for _ in range(size_mib):
        target[:] = source


def copy_file(source: Path, target: Path) -> None:
    """A plain copy through this process, not made durable."""
    with source.open("rb", buffering=0) as reader, target.open("wb", buffering=0) as writer:
        while data := reader.read(MIB):
            writer.write(data)


def prepare(bench: Bench, work: Path, size_mib: int, files: int) -> dict[str, str]:
    """A home with a large file and a tree of small ones; their roots by name."""
    large, small, _ = make_input(work, size_mib, files)
    run = (sys.executable, "-m", "cli.main", "add", "-Q")
    roots = {}
    for name, path in (("large", large), ("small", small)):
        roots[name] = bench.command("prepare", work / "home", *run, str(path)).strip()
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    bench.seconds.clear()
    bench.peak_mib.clear()
    os.sync()
    return roots


def into_pipe(work: Path) -> tuple[str, ...]:
    """The beginning of a command line whose output `cat` reads out of a pipe; the process stays the same."""
    pipe = work / "pipe"
    if not pipe.exists():
        os.mkfifo(pipe)
    return "sh", "-c", f'cat <"{pipe}" >/dev/null & exec "$0" "$@" >"{pipe}"'


def run_round(bench: Bench, work: Path, roots: dict[str, str], ipfs: str | None) -> None:
    """Everything once."""
    run = (sys.executable, "-m", "cli.main", "car")
    home, other, made = work / "home", work / "other", work / "made.car"
    for name, root in roots.items():
        bench.command(f"{name}: export", home, *run, "export", root, "-o", str(made))
        bench.command(f"{name}: export to a pipe", home, *into_pipe(work), *run, "export", root)
        bench.command(f"{name}: export as version 2", home, *run, "export", root, "--version", "2", "-o",
                      str(work / "2.car"))  # fmt: skip
        bench.command(f"{name}: import", other, *run, "import", str(made))
        bench.command(f"{name}: import again", other, *run, "import", str(made))
        bench.command(f"{name}: verify", home, *run, "verify", str(made))
        bench.command(f"{name}: inspect --quick", home, *run, "inspect", "--quick", str(made))
        bench.inside(f"{name}: sha2-256, one core", lambda: hash_file(made))
        bench.inside(f"{name}: sha2-256, all cores", lambda: hash_on_all_cores(made))
        bench.inside(f"{name}: copy in memory", lambda: copy_in_memory(made.stat().st_size // MIB))
        bench.inside(f"{name}: copy of the file", lambda: copy_file(made, work / "copy"))
        bench.inside(f"{name}: copy + fsync", lambda: copy_durably(made, work / "durable"))
        if ipfs is not None:
            run_kubo(bench, work, name, made, root, ipfs)
        shutil.rmtree(other)
        for leftover in ("made.car", "2.car", "copy", "durable"):
            (work / leftover).unlink()
        os.sync()


def run_kubo(bench: Bench, work: Path, name: str, archive: Path, root: str, ipfs: str) -> None:
    """The same DAG into a fresh repository and out of it."""
    kubo = work / "kubo"
    environ = {**os.environ, "IPFS_PATH": str(kubo)}
    subprocess.run([ipfs, "init", "--profile=unixfs-v1-2025"], env=environ, check=True, capture_output=True)
    bench.command(f"{name}: kubo dag import", kubo, ipfs, "dag", "import", str(archive))
    bench.command(f"{name}: kubo dag export", kubo, *into_pipe(work), ipfs, "dag", "export", root)
    shutil.rmtree(kubo)


def report(bench: Bench, size_mib: int, files: int, archive_mib: dict[str, float]) -> dict[str, object]:
    rows: dict[str, dict[str, float | None]] = {}
    for name, taken in bench.seconds.items():
        median = statistics.median(taken)
        rows[name] = {
            "seconds": round(median, 3),
            "cpu_seconds": round(statistics.median(bench.cpu_s[name]), 3),
            "mib_per_s": round(archive_mib[name.partition(":")[0]] / median, 1),
            "peak_anonymous_mib": round(bench.peak_mib[name], 1) if name in bench.peak_mib else None,
        }
    rounds = len(next(iter(bench.seconds.values())))
    return {"size_mib": size_mib, "files": files, "rounds": rounds, "lines": rows}


def table(document: dict[str, object]) -> str:
    lines = [f"{'':28} {'s':>8} {'cpu s':>8} {'MiB/s':>9} {'anon MiB':>9}"]
    rows = document["lines"]
    assert isinstance(rows, dict)
    for name, row in rows.items():
        peak = row["peak_anonymous_mib"]
        shown = f"{'' if peak is None else f'{peak:.1f}':>9}"
        lines.append(
            f"{name:28} {row['seconds']:8.3f} {row['cpu_seconds']:8.3f} {row['mib_per_s']:9.1f} {shown}"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--size-mib", type=int, default=1024)
    parser.add_argument("--files", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", type=Path, default=None, help="on the disk that is of interest")
    parser.add_argument("--ipfs", default=None, help="a kubo binary to measure beside")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.folder, prefix="holdfast-bench-") as name:
        work = Path(name)
        bench = Bench(work / "compiled")
        roots = prepare(bench, work, arguments.size_mib, arguments.files)
        sizes = {}
        for kind, root in roots.items():
            done = bench.command("warm-up", work / "home", sys.executable, "-m", "cli.main", "car", "export",
                                 root, "-o", str(work / "sized.car"), "--json")  # fmt: skip
            sizes[kind] = json.loads(done)["size_bytes"] / MIB
            (work / "sized.car").unlink()
        bench.seconds.clear()
        for _ in range(arguments.rounds):
            run_round(bench, work, roots, arguments.ipfs)
    document = report(bench, arguments.size_mib, arguments.files, sizes)
    sys.stderr.write(table(document) + "\n")
    json.dump(document, sys.stdout, indent=1)
    sys.stdout.write("\n")


if __name__ == "__main__":
    main()
