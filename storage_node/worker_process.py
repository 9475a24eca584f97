"""What a worker process does first: it leaves Ctrl-C to its parent, and ends when that ends, however."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from multiprocessing import connection

PARENT_ENDED = 1


def depend_on_parent() -> None:
    """Bind this process to its parent; does nothing in a process that is nobody's worker.

    A pool's workers outlive a parent that is killed, else: they wait for work on a pipe that they hold open
    themselves.
    """
    parent = multiprocessing.parent_process()
    if parent is not None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        threading.Thread(target=_end_with, args=(parent.sentinel,), daemon=True).start()


def _end_with(sentinel: int) -> None:
    connection.wait([sentinel])
    os._exit(PARENT_ENDED)
