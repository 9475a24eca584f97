"""What a worker process does for KZG proofs: it reads the setup once, and commits to blobs.

It commits by arkworks, which is ready at once; a worker with much to do goes over to ckzg, where that is
installed: loading it takes 3.8 s of CPU time, and each blob a quarter less from then on. Both give the same
bytes.
"""

from __future__ import annotations

import hashlib
import tempfile
from functools import cache
from itertools import count
from pathlib import Path
from time import perf_counter

from proofs.kzg.backend import Backend, backend
from proofs.kzg.blobs import BLOB_BYTES
from proofs.kzg.setup import Setup, ceremony_text

CKZG_FROM = 128  # blobs of one worker, which ckzg would have spared as much as loading it takes

_blobs = count()


def commit(setup: str, blob: bytes) -> bytes:
    """The commitment, 48 bytes, to at most 126,976 bytes; `setup` is the path of the setup's file."""
    loaded = read_setup(setup)
    tools = backend() if next(_blobs) < CKZG_FROM else _quickest(loaded)
    return tools.commit(loaded, blob)


def pace_s(setup: str) -> float:
    """How long this process takes for a full blob, once all is loaded."""
    loaded, tools = read_setup(setup), backend()
    tools.commit(loaded, b"\x01")  # loads what it needs
    blob = hashlib.shake_128(b"").digest(BLOB_BYTES)
    began_s = perf_counter()
    tools.commit(loaded, blob)
    return perf_counter() - began_s


@cache
def read_setup(path: str) -> Setup:
    """The setup, read and checked once a process. Raises DamagedSetup, OSError."""
    return Setup(Path(path).read_bytes())


@cache
def _quickest(setup: Setup) -> Backend:
    try:
        from proofs.kzg.backend_ckzg import CkzgBackend
    except ImportError:
        return backend()
    with tempfile.NamedTemporaryFile("w", encoding="ascii") as file:  # it reads a path alone
        file.write(ceremony_text(setup))
        file.flush()
        return CkzgBackend(file.name)
