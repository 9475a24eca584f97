"""What benchmarks of whole commands share: measuring programs, the machine's limits, input, the report."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from pathlib import Path
from typing import Final, NamedTuple

MIB: Final = 1 << 20
READ_BYTES: Final = MIB
SAMPLE_S: Final = 0.02
ROOT: Final = Path(__file__).resolve().parents[1]
HOLDFAST: Final = (sys.executable, "-m", "cli.main")


class Side(NamedTuple):
    """A source tree whose commands are measured, and what its lines and its homes are called by."""

    root: Path
    prefix: str = ""


class Bench:
    """Seconds and peak anonymous memory by name, over all rounds. Bytecode goes to `compiled`.

    Processor seconds (user and system) suffer less than the wall's from what else the machine does. Memory
    is what no file stands behind (RssAnon and RssShmem, sampled): the pages of LMDB's files are the
    system's cache.
    """

    def __init__(self, compiled: Path) -> None:
        self._compiled = compiled
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

    def command(self, name: str, home: Path, *command: str, wanted: bool = True, root: Path = ROOT) -> str:
        """Measures a program from start to exit, run in `root`; returns its output, if `wanted`."""
        environ = self.environ(home)
        with tempfile.TemporaryFile() as captured:
            out = captured.fileno() if wanted else subprocess.DEVNULL
            began = time.perf_counter()
            process = subprocess.Popen(command, cwd=root, env=environ, stdout=out, stderr=subprocess.DEVNULL)
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

    def environ(self, home: Path) -> dict[str, str]:
        """What a command gets to see that is to work on `home`."""
        environ = {**os.environ, "HOLDFAST_HOME": str(home), "IPFS_PATH": str(home)}
        environ["HOLDFAST_STORAGE_RESERVE_BYTES"] = "0"
        # Compiled modules, as in an installation, wherever this program itself was told to put them.
        environ["PYTHONPYCACHEPREFIX"] = str(self._compiled)
        environ.pop("PYTHONDONTWRITEBYTECODE", None)
        return environ

    def _sample(self, name: str, process: subprocess.Popen[bytes]) -> None:
        status = Path(f"/proc/{process.pid}/status")
        while process.returncode is None:
            try:
                lines = status.read_text().splitlines()
            except OSError:
                return
            kinds = ("RssAnon:", "RssShmem:")
            mib = sum(int(line.split()[1]) for line in lines if line.startswith(kinds)) / 1024
            self.peak_mib[name] = max(self.peak_mib.get(name, 0.0), mib)
            time.sleep(SAMPLE_S)

    def forget(self) -> None:
        """Starts anew, after a warm-up."""
        for figures in (self.seconds, self.cpu_s, self.peak_mib):
            figures.clear()

    def rows(self, rate: Callable[[str, float], dict[str, float]]) -> dict[str, dict[str, float | None]]:
        """Medians by line; `rate` adds what follows from a line's name and seconds."""
        return {
            name: {
                "seconds": round(statistics.median(taken), 3),
                "cpu_seconds": round(statistics.median(self.cpu_s[name]), 3),
                **{unit: round(value, 1) for unit, value in rate(name, statistics.median(taken)).items()},
                "peak_anonymous_mib": round(self.peak_mib[name], 1) if name in self.peak_mib else None,
            }
            for name, taken in self.seconds.items()
        }


# --- the machine's limits ---


def hash_file(path: Path) -> None:
    """SHA-256 on one core."""
    with path.open("rb", buffering=0) as file:
        while data := file.read(READ_BYTES):
            sha256(data).digest()


def hash_on_all_cores(path: Path) -> None:
    """SHA-256 of every MiB by itself."""
    handle = os.open(path, os.O_RDONLY)
    try:
        with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
            offsets = range(0, os.fstat(handle).st_size, READ_BYTES)
            for _ in pool.map(lambda at: sha256(os.pread(handle, READ_BYTES, at)).digest(), offsets):
                pass
    finally:
        os.close(handle)


def hash_tree(folder: Path) -> None:
    """SHA-256 of every file on one core."""
    for path in folder.rglob("*"):
        if path.is_file():
            sha256(path.read_bytes()).digest()


def copy_file(source: Path, target: Path, *, durably: bool = False) -> None:
    """A plain copy through this process."""
    with source.open("rb", buffering=0) as reader, target.open("wb", buffering=0) as writer:
        while data := reader.read(READ_BYTES):
            writer.write(data)
        if durably:
            os.fsync(writer.fileno())


def copy_tree(source: Path, target: Path) -> None:
    """A plain copy of a folder, made durable."""
    shutil.copytree(source, target)
    os.sync()


def copy_in_memory(size_mib: int) -> None:
    """So many bytes from one buffer to another, a MiB at a time."""
    source, target = bytes(MIB), memoryview(bytearray(MIB))
    for _ in range(size_mib):
        target[:] = source


# --- input ---


def make_large(path: Path, size_mib: int) -> Path:
    """A file of random bytes."""
    with path.open("wb") as file:
        for _ in range(size_mib):
            file.write(os.urandom(MIB))
    return path


def make_small(folder: Path, files: int) -> Path:
    """A tree of small files: 59 MB in 100 folders at 10,000."""
    for number in range(files):
        path = folder / f"folder{number % 100:02d}" / f"file{number:06d}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(os.urandom(200 + number * 7919 % 11_400))
    return folder


# --- the program ---


class Plan(NamedTuple):
    """What the command line of a benchmark asks for. `sides` has the source trees to measure in turn."""

    size_mib: int
    files: int
    rounds: int
    folder: Path | None
    sides: tuple[Side, ...]
    ipfs: str | None


def plan(description: str | None) -> Plan:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=(description or "").splitlines()[0])
    parser.add_argument("--size-mib", type=int, default=1024)
    parser.add_argument("--files", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", type=Path, default=None, help="on the disk that is of interest")
    parser.add_argument("--ipfs", default=None, help="a kubo binary to measure beside")
    parser.add_argument("--before", type=Path, default=None, help="an older source tree to measure beside")
    wanted = parser.parse_args()
    before = () if wanted.before is None else (Side(wanted.before.resolve(), "before: "),)
    return Plan(
        wanted.size_mib, wanted.files, wanted.rounds, wanted.folder, (*before, Side(ROOT)), wanted.ipfs
    )


def show(facts: dict[str, object], rows: dict[str, dict[str, float | None]]) -> None:
    """The table on stderr, the document on stdout."""
    columns = list(dict.fromkeys(unit for row in rows.values() for unit in row))
    heads = {"seconds": "s", "cpu_seconds": "cpu s", "peak_anonymous_mib": "anon MiB"}
    width = max(map(len, rows)) + 1
    lines = [" " * width + "".join(f" {heads.get(each, each.replace('_per_', '/')):>9}" for each in columns)]
    for name, row in rows.items():
        cells = []
        for column in columns:
            value = row.get(column)
            cells.append("" if value is None else f"{value:.{3 if 'seconds' in column else 1}f}")
        lines.append(f"{name:{width}}" + "".join(f" {cell:>9}" for cell in cells))
    sys.stderr.write("\n".join(lines) + "\n")
    json.dump({**facts, "lines": rows}, sys.stdout, indent=1)
    sys.stdout.write("\n")
