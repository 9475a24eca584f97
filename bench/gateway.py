"""How fast the gateway serves: real `holdfast gateway` processes over a real store, beside bare aiohttp.

Run from the repository's root: `python -m bench.gateway [--workers N] [--size-mib N] [--files N] [--rounds N]
[--seconds S] [--lines A,B] [--before TREE] [--ipfs PATH] [--folder DIR]`. Prints one JSON document on stdout
and a table on stderr. Every round starts every server anew; each line is measured on all of them in turn
before the next line; every figure is a median over the rounds. Limits: aiohttp (`web.Server`) with a handler
of fixed bytes and as many processes, and a thread that writes the large file's pages to a socket. `--before`
names an older source tree, `--ipfs` a kubo binary, to be measured in the same rounds. The client is a thread
of this process and shares the machine; what it costs is a line of its own. `…_server_us` is the processor
time of the server's processes for one answer: it says more than the rate on a machine that others use.
Memory is RssAnon of a server's processes together, sampled over all lines.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Final, NamedTuple
from urllib.request import urlopen

from bench.commands import ROOT, make_large, make_small
from bench.gateway_load import MIB, download, rate, request
from bench.gateway_servers import Bare, Files, Kubo, Ours, Server, Side, Store, processor_s, watched

SMALL_BYTES: Final = 4096
CONNECTIONS: Final = 32
START_S: Final = 30.0
COLD_S: Final = 60.0
LARGE_LINES: Final = ("large", "large_car", "large_tar")
CLIENT: Final = "client_us_per_request"


class Content(NamedTuple):
    """What every server has: CIDs of a 4 KB file, a large file and a folder of folders, and their paths."""

    small: str
    large: str
    root: str
    paths: tuple[str, ...]
    size_bytes: int


class Line(NamedTuple):
    """One kind of request, in the order in which they are sent."""

    requests: Callable[[Content], list[bytes]]
    status: int = 200
    once: bool = False
    passes: int = 0  # of all requests before the clock starts, for each worker: each remembers for itself


def _folder(content: Content) -> str:
    return content.paths[0].rpartition("/")[0]


def _by_path(content: Content) -> list[bytes]:
    return [request(path) for path in random.Random(1).sample(content.paths, len(content.paths))]


def _ranges(content: Content) -> list[bytes]:
    chance = random.Random(2)
    starts = [chance.randrange(content.size_bytes - 100) for _ in range(5_000)]
    return [request(f"/ipfs/{content.large}", f"Range: bytes={at}-{at + 99}") for at in starts]


LINES: Final = {
    "paths_first_time": Line(_by_path, once=True),
    "one_small": Line(lambda content: [request(f"/ipfs/{content.small}")]),
    "paths": Line(_by_path, passes=1),
    "ranges_100_bytes": Line(_ranges, status=206),
    "head": Line(lambda content: [request(f"/ipfs/{content.small}", method="HEAD")]),
    "not_modified": Line(
        lambda content: [request(f"/ipfs/{content.small}", f'If-None-Match: "{content.small}"')], status=304
    ),
    "raw_block": Line(lambda content: [request(f"/ipfs/{content.small}?format=raw")]),
    "small_car": Line(lambda content: [request(f"{path}?format=car") for path in content.paths[:500]]),
    "folder_tar": Line(lambda content: [request(f"{_folder(content)}?format=tar")]),
    "listing": Line(lambda content: [request(f"{_folder(content)}/")]),
}


# --- the measurement ---


class Figures:
    """All rounds: by line and server."""

    def __init__(self) -> None:
        self._all: dict[str, dict[str, list[float]]] = {}

    def add(self, line: str, server: str, value: float) -> None:
        """Notes one figure."""
        self._all.setdefault(line, {}).setdefault(server, []).append(value)

    def medians(self) -> dict[str, dict[str, float]]:
        """The median of each."""
        return {
            line: {server: round(statistics.median(values), 2) for server, values in by_server.items()}
            for line, by_server in self._all.items()
        }


def measure_large(line: str, server: Server, content: Content, figures: Figures) -> None:
    """Seconds of one download of the large file; the bare server has only one kind."""
    path = f"/ipfs/{content.large}" + {"large_car": "?format=car", "large_tar": "?format=tar"}.get(line, "")
    total, seconds = download(server.file_port or server.port, path)
    if total < content.size_bytes:
        raise SystemExit(f"{server.name} {line}: {total} bytes only")
    figures.add(f"{line}_s", server.name, seconds)


def measure_rate(
    name: str, server: Server, content: Content, seconds: float, workers: int, figures: Figures
) -> None:
    """Answers a second of one line, and what the client's part of it costs."""
    line = LINES[name]
    if server.name == Bare.name:
        requests, status, once = [request("/")], 200, False
    else:
        requests, status, once = line.requests(content), line.status, line.once
        for _ in range(workers * line.passes):
            rate(server.port, requests, status=status, seconds=COLD_S, connections=CONNECTIONS, once=True)
    seconds = COLD_S if once else seconds
    cpu_s = processor_s(server.pid)
    load = rate(server.port, requests, status=status, seconds=seconds, connections=CONNECTIONS, once=once)
    figures.add(f"{name}_per_s", server.name, load.per_s)
    figures.add(f"{name}_server_us", server.name, (processor_s(server.pid) - cpu_s) / load.answers * 1e6)
    if name == "one_small":
        figures.add(CLIENT, server.name, load.client_us)


def one_round(
    sides: Sequence[Side],
    wanted: argparse.Namespace,
    content: Content,
    figures: Figures,
    peaks: dict[str, float],
) -> None:
    """Every line on every server, in turn."""
    with ExitStack() as stack:
        servers = [stack.enter_context(side.start()) for side in sides]
        with watched(servers, peaks):
            for name in wanted.lines:
                for server in servers:
                    if name not in LARGE_LINES:
                        measure_rate(name, server, content, wanted.seconds, wanted.workers, figures)
                    elif not (server.name == Kubo.name and name == "large_tar"):
                        measure_large(name, server, content, figures)


def read_content(stores: list[Store], files: Files, size_bytes: int) -> Content:
    """Imports the files everywhere."""
    found = {store.name: store.add(files) for store in stores}
    small, large, root = next(iter(found.values()))
    if any(each != (small, large, root) for each in found.values()):
        raise SystemExit(f"the CIDs differ: {found}")
    paths = sorted(path for path in files.tree.rglob("*") if path.is_file())
    return Content(
        small,
        large,
        root,
        tuple(f"/ipfs/{root}/{path.relative_to(files.tree)}" for path in paths),
        size_bytes,
    )


def check_sameness(stores: list[Store], content: Content) -> None:
    """Every server gives the same bytes, or the figures compare nothing."""
    path = content.paths[-1]
    with ExitStack() as stack:
        servers = [stack.enter_context(store.start()) for store in stores]
        bodies = set()
        for server in servers:
            url = f"http://127.0.0.1:{server.port}{path}"
            with urlopen(url, timeout=START_S) as answer:
                bodies.add(answer.read())
        if len(bodies) != 1:
            raise SystemExit(f"the servers differ in {path}")


def options() -> argparse.Namespace:
    """Reads the command line."""
    names = (*LINES, *LARGE_LINES)
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--workers", type=int, default=1, help="processes of each server, at most 16")
    parser.add_argument("--size-mib", type=int, default=1024, help="of the large file, 1 to 4096")
    parser.add_argument("--files", type=int, default=10_000, help="small ones, 100 to 100,000")
    parser.add_argument("--rounds", type=int, default=3, help="1 to 20")
    parser.add_argument("--seconds", type=float, default=1.5, help="of each line in a round, at most 60")
    parser.add_argument("--lines", default=",".join(names), help="which, by commas")
    parser.add_argument("--folder", type=Path, default=None, help="for the stores")
    parser.add_argument("--before", type=Path, default=None, help="an older source tree to measure beside")
    parser.add_argument("--ipfs", default=None, help="a kubo binary to measure beside")
    wanted = parser.parse_args()
    wanted.lines = wanted.lines.split(",")
    if unknown := set(wanted.lines).difference(names):
        parser.error(f"unknown lines {sorted(unknown)}; known are {', '.join(names)}")
    if not (1 <= wanted.workers <= 16 and 1 <= wanted.size_mib <= 4096 and 100 <= wanted.files <= 100_000):
        parser.error("workers, size or files out of bounds; see --help")
    if not (1 <= wanted.rounds <= 20 and 0 < wanted.seconds <= 60):
        parser.error("rounds or seconds out of bounds; see --help")
    return wanted


def show(facts: dict[str, object], medians: dict[str, dict[str, float]]) -> None:
    """The table on stderr, the document on stdout."""
    servers = list(dict.fromkeys(server for row in medians.values() for server in row))
    width = max(map(len, medians)) + 1
    lines = [" " * width + "".join(f"{server:>12}" for server in servers)]
    for name, row in medians.items():
        places = 0 if name.endswith("_per_s") else 3 if name.endswith("_s") else 1
        cells = (f"{row[server]:,.{places}f}" if server in row else "" for server in servers)
        lines.append(f"{name:{width}}" + "".join(f"{cell:>12}" for cell in cells))
    sys.stderr.write("\n".join(lines) + "\n")
    json.dump({**facts, "medians": medians}, sys.stdout, indent=1)
    sys.stdout.write("\n")


def main() -> None:
    wanted = options()
    began = time.perf_counter()
    with tempfile.TemporaryDirectory(dir=wanted.folder, prefix="holdfast-bench-") as name:
        folder = Path(name)
        (folder / "small").write_bytes(random.Random(3).randbytes(SMALL_BYTES))
        files = Files(
            folder / "small",
            make_large(folder / "large", wanted.size_mib),
            make_small(folder / "tree", wanted.files),
        )
        stores: list[Store] = [Ours("now", ROOT, folder, wanted.workers)]
        if wanted.before is not None:
            stores.insert(0, Ours("before", wanted.before.resolve(), folder, wanted.workers))
        if wanted.ipfs is not None:
            stores.append(Kubo(wanted.ipfs, folder))
        content = read_content(stores, files, wanted.size_mib * MIB)
        check_sameness(stores, content)
        sides: list[Side] = [*stores, Bare(wanted.workers, files.large)]
        figures, peaks = Figures(), dict[str, float]()
        for _ in range(wanted.rounds):
            one_round(sides, wanted, content, figures, peaks)
    medians = figures.medians()
    medians["peak_anonymous_mib"] = {server: round(mib, 1) for server, mib in peaks.items()}
    facts = {"workers": wanted.workers, "size_mib": wanted.size_mib, "files": wanted.files}
    show({**facts, "rounds": wanted.rounds, "took_s": round(time.perf_counter() - began)}, medians)


if __name__ == "__main__":
    main()
