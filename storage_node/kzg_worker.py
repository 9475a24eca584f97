"""What a worker process does for KZG proofs: it reads the setup once, and commits to blobs."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from proofs.kzg.backend import backend
from proofs.kzg.setup import Setup


def commit(setup: str, blob: bytes) -> bytes:
    """The commitment, 48 bytes, to at most 126,976 bytes; `setup` is the path of the setup's file."""
    return backend().commit(_read(setup), blob)


@cache
def _read(path: str) -> Setup:
    return Setup(Path(path).read_bytes())
