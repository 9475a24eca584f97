"""`holdfast add`, `get` and CAR archives beside hashing and a plain copy, as a user runs them.

Run from the repository's root: `python -m bench.add [--size-mib N] [--files N] [--rounds N] [--folder DIR]
[--ipfs PATH]`. Prints one JSON document on stdout and a table on stderr. Every command is a process of its
own, so start-up counts; every line of a round is measured in turn with the others, and every figure is a
median. The machine's own limits (SHA-256 of the same files on one core and on all, a plain copy made durable)
are measured in the same rounds. `--ipfs` names a kubo binary to measure too. Processor seconds (user and
system) suffer less than the wall's from what else the machine does. Peak memory is anonymous (RssAnon,
sampled), because the pages of LMDB's files are the system's cache.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from pathlib import Path

MIB = 1 << 20
READ_BYTES = MIB
SAMPLE_S = 0.02
ROOT = Path(__file__).resolve().parents[1]


class Bench:
    """Seconds and peak anonymous memory by name, over all rounds."""

    def __init__(self, compiled: Path) -> None:
        self.compiled = compiled
        self.seconds: dict[str, list[float]] = {}
        self.cpu_s: dict[str, list[float]] = {}
        self.peak_mib: dict[str, float] = {}

    def _note(self, name: str, wall_s: float, cpu_s: float) -> None:
        self.seconds.setdefault(name, []).append(wall_s)
        self.cpu_s.setdefault(name, []).append(cpu_s)

    def inside(self, name: str, work: Callable[[], object]) -> None:
        """Measures `work` in this process."""
        began, cpu_began = time.perf_counter(), time.process_time()
        work()
        self._note(name, time.perf_counter() - began, time.process_time() - cpu_began)

    def command(self, name: str, home: Path, *command: str, wanted: bool = True) -> str:
        """Measures a program from start to exit; returns its output, if `wanted`."""
        environ = {**os.environ, "HOLDFAST_HOME": str(home), "IPFS_PATH": str(home)}
        environ["HOLDFAST_STORAGE_RESERVE_BYTES"] = "0"
        # Compiled modules, as in an installation, wherever this program itself was told to put them.
        environ["PYTHONPYCACHEPREFIX"] = str(self.compiled)
        environ.pop("PYTHONDONTWRITEBYTECODE", None)
        with tempfile.TemporaryFile() as captured:
            out = captured.fileno() if wanted else subprocess.DEVNULL
            began = time.perf_counter()
            process = subprocess.Popen(command, cwd=ROOT, env=environ, stdout=out, stderr=subprocess.DEVNULL)
            sampler = threading.Thread(target=self._sample, args=(name, process))
            sampler.start()
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
            self._note(name, time.perf_counter() - began, usage.ru_utime + usage.ru_stime)
            sampler.join()
            if process.returncode:
                raise SystemExit(f"{' '.join(command)} exited with {process.returncode}")
            captured.seek(0)
            return captured.read().decode()

    def _sample(self, name: str, process: subprocess.Popen[bytes]) -> None:
        status = Path(f"/proc/{process.pid}/status")
        while process.returncode is None:
            try:
                lines = status.read_text().splitlines()
            except OSError:
                return
            for line in lines:
                if line.startswith("RssAnon:"):
                    mib = int(line.split()[1]) / 1024
                    self.peak_mib[name] = max(self.peak_mib.get(name, 0.0), mib)
            time.sleep(SAMPLE_S)


def hash_file(path: Path) -> None:
    with path.open("rb", buffering=0) as file:
        while data := file.read(READ_BYTES):
            sha256(data).digest()


def hash_on_all_cores(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
            offsets = range(0, os.fstat(handle).st_size, READ_BYTES)
            for _ in pool.map(lambda at: sha256(os.pread(handle, READ_BYTES, at)).digest(), offsets):
                pass
    finally:
        os.close(handle)


def hash_tree(folder: Path) -> None:
    for path in folder.rglob("*"):
        if path.is_file():
            sha256(path.read_bytes()).digest()


def copy_durably(source: Path, target: Path) -> None:
    if source.is_dir():
        shutil.copytree(source, target)
        os.sync()
        return
    with source.open("rb", buffering=0) as reader, target.open("wb", buffering=0) as writer:
        while data := reader.read(READ_BYTES):
            writer.write(data)
        os.fsync(writer.fileno())


def make_input(folder: Path, size_mib: int, files: int) -> tuple[Path, Path, Path]:
    """One large random file, a tree of small ones (59 MB in 100 folders at 10,000), and a tiny file."""
    large, small, tiny = folder / "large", folder / "small", folder / "tiny"
    with large.open("wb") as file:
        for _ in range(size_mib):
            file.write(os.urandom(MIB))
    for number in range(files):
        path = small / f"folder{number % 100:02d}" / f"file{number:06d}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(os.urandom(200 + number * 7919 % 11_400))
    tiny.write_bytes(b"hello world")
    os.sync()
    return large, small, tiny


def run_round(bench: Bench, work: Path, inputs: tuple[Path, Path, Path], ipfs: str | None) -> None:
    """Everything once; `inputs` are the large file, the tree of small ones and the tiny file."""
    large, small, tiny = inputs
    run = (sys.executable, "-m", "cli.main")
    work.mkdir()
    home = work / "home"
    bench.command("start: --version", home, *run, "--version")
    bench.command("start: add -n of 11 bytes", home, *run, "add", "-n", "-Q", str(tiny))
    bench.inside("large: sha2-256, one core", lambda: hash_file(large))
    bench.inside("large: sha2-256, all cores", lambda: hash_on_all_cores(large))
    bench.inside("large: copy + fsync", lambda: copy_durably(large, work / "copy"))
    bench.command("large: add -n", home, *run, "add", "-n", "-Q", str(large))
    bench.command("large: add -n, buzhash", home, *run, "add", "-n", "-Q", "-s", "buzhash", str(large))
    bench.command("large: add -n, trickle", home, *run, "add", "-n", "-Q", "--trickle", str(large))
    root = bench.command("large: add", home, *run, "add", "-Q", str(large)).strip()
    bench.command("large: add again", home, *run, "add", "-Q", str(large))
    bench.command("large: cat to nothing", home, *run, "cat", root, wanted=False)
    bench.command("large: get", home, *run, "get", root, "-o", str(work / "got"))
    bench.command("large: car export", home, *run, "car", "export", root, "-o", str(work / "car"))
    bench.command("large: car import", work / "other", *run, "car", "import", str(work / "car"))
    for name in ("copy", "got", "car"):
        (work / name).unlink()
    bench.inside("small: sha2-256, one core", lambda: hash_tree(small))
    bench.inside("small: copy + sync", lambda: copy_durably(small, work / "copies"))
    bench.command("small: add -n", home, *run, "add", "-n", "-Q", str(small))
    bench.command("small: add", home, *run, "add", "-Q", str(small))
    with tarfile.open(work / "tar", "w") as tar:
        tar.add(small, arcname=small.name)
    bench.command("small: add -n --tar", home, *run, "add", "-n", "-Q", "--tar", str(work / "tar"))
    if ipfs is not None:
        kubo = work / "kubo"
        subprocess.run(
            [ipfs, "init", "--profile=unixfs-v1-2025"],
            env={**os.environ, "IPFS_PATH": str(kubo)}, check=True, capture_output=True,
        )  # fmt: skip
        bench.command("large: kubo add", kubo, ipfs, "add", "-Q", str(large))
        bench.command("small: kubo add", kubo, ipfs, "add", "-r", "-Q", str(small))
    shutil.rmtree(work)


def report(bench: Bench, size_mib: int, files: int) -> dict[str, object]:
    rows: dict[str, dict[str, float | None]] = {}
    for name, taken in bench.seconds.items():
        median = statistics.median(taken)
        rate = size_mib / median if name.startswith("large") else None
        rows[name] = {
            "seconds": round(median, 3),
            "cpu_seconds": round(statistics.median(bench.cpu_s[name]), 3),
            "mib_per_s": None if rate is None else round(rate, 1),
            "files_per_s": round(files / median, 1) if name.startswith("small") else None,
            "peak_anonymous_mib": round(bench.peak_mib[name], 1) if name in bench.peak_mib else None,
        }
    return {
        "size_mib": size_mib,
        "files": files,
        "rounds": len(next(iter(bench.seconds.values()))),
        "lines": rows,
    }


def table(document: dict[str, object]) -> str:
    lines = [f"{'':30} {'s':>8} {'cpu s':>8} {'MiB/s':>9} {'files/s':>9} {'anon MiB':>9}"]
    rows = document["lines"]
    assert isinstance(rows, dict)
    for name, row in rows.items():
        cells = (row["seconds"], row["mib_per_s"], row["files_per_s"], row["peak_anonymous_mib"])
        shown = "".join(f" {'' if cell is None else f'{cell:.1f}':>9}" for cell in cells[1:])
        lines.append(f"{name:30} {cells[0]:8.3f} {row['cpu_seconds']:8.3f}{shown}")
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
        folder = Path(name)
        bench = Bench(folder / "compiled")
        inputs = make_input(folder, arguments.size_mib, arguments.files)
        run_round(Bench(bench.compiled), folder / "warm-up", inputs[2:] * 3, None)
        for number in range(arguments.rounds):
            run_round(bench, folder / f"round{number}", inputs, arguments.ipfs)
    document = report(bench, arguments.size_mib, arguments.files)
    sys.stderr.write(table(document) + "\n")
    json.dump(document, sys.stdout, indent=1)
    sys.stdout.write("\n")


if __name__ == "__main__":
    main()
