"""What makes KZG commitments in tests: the real work, on threads of this process."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cache
from itertools import count
from pathlib import Path
from typing import ParamSpec, TypeVar

import proofs.kzg
from proofs.kzg.setup import Setup
from storage_node import kzg_worker
from storage_node.kzg_rows import Committer

P = ParamSpec("P")
T = TypeVar("T")

SETUP = Path(proofs.kzg.__file__).parent / "setup.bin"


WORKERS = 2
_threads = ThreadPoolExecutor(WORKERS)


class Threads:
    """Does what it is given, and counts it."""

    workers = WORKERS

    def __init__(self) -> None:
        kzg_worker._blobs = count()  # as workers that have just begun, whatever other tests made
        self.done = 0
        self.on_run: Callable[[], None] = lambda: None

    def run(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        self.done += 1
        self.on_run()
        return _threads.submit(work, *args, **kwargs)


def committer(threads: Threads | None = None) -> Committer:
    return Committer(threads or Threads(), str(SETUP))


@cache
def setup() -> Setup:
    return Setup(SETUP.read_bytes())
