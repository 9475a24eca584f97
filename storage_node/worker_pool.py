"""A pool of processes for work that holds the interpreter's lock, on which threads gain nothing."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from concurrent.futures import BrokenExecutor, Future
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

if TYPE_CHECKING:
    from concurrent.futures import ProcessPoolExecutor

MAX_WORKERS = 16
LINGER_S = 10.0  # work that comes in portions does not start the processes again for each

P = ParamSpec("P")
T = TypeVar("T")


def usable_cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class WorkerPool:
    """Started by the first work, ended `LINGER_S` after the last. Safe from any thread."""

    def __init__(self, workers: int | None = None, linger_s: float = LINGER_S) -> None:
        """A worker a core, unless `workers` says how many."""
        self.workers = workers or min(usable_cores(), MAX_WORKERS)
        self._linger_s = linger_s
        self._lock = threading.Lock()
        self._executor: ProcessPoolExecutor | None = None
        self._at_work = 0
        self._timer: threading.Timer | None = None

    def run(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """`work(…)`, a function of a module, in one of the processes.

        The future raises BrokenExecutor when a worker was killed; the next work starts others. Raises that
        too, and OSError when no process can be had.
        """
        with self._lock:
            self._keep_on()
            if self._executor is None:
                self._executor = _started(self.workers)
            executor = self._executor
            self._at_work += 1
        try:
            future = executor.submit(work, *args, **kwargs)
        except BaseException as error:
            self._done(executor, broken=isinstance(error, BrokenExecutor))
            raise
        future.add_done_callback(lambda done: self._done(executor, broken=_is_broken(done)))
        return future

    def close(self) -> None:
        """End the processes; what they have not begun is cancelled."""
        with self._lock:
            self._keep_on()
            executor, self._executor = self._executor, None
        if executor is not None:
            executor.shutdown(wait=True, cancel_futures=True)

    def _done(self, executor: ProcessPoolExecutor, *, broken: bool) -> None:
        with self._lock:
            self._at_work -= 1
            if broken and self._executor is executor:
                self._executor = None
            self._keep_on()
            if self._at_work == 0 and self._executor is not None:
                self._timer = threading.Timer(self._linger_s, self._rest)
                self._timer.daemon = True
                self._timer.start()

    def _keep_on(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _rest(self) -> None:
        with self._lock:
            if self._at_work or self._timer is None:
                return
            executor, self._executor, self._timer = self._executor, None, None
        if executor is not None:
            executor.shutdown(wait=False)


def _started(workers: int) -> ProcessPoolExecutor:
    import multiprocessing  # these take 40 ms, and most commands have no such work
    from concurrent.futures import ProcessPoolExecutor

    from storage_node.worker_process import depend_on_parent

    spawn = multiprocessing.get_context("spawn")  # a fork would inherit locks that threads hold here
    return ProcessPoolExecutor(workers, mp_context=spawn, initializer=depend_on_parent)


def _is_broken(future: Future[Any]) -> bool:
    return not future.cancelled() and isinstance(future.exception(), BrokenExecutor)
