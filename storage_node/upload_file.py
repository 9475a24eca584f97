"""Which blocks unfinished uploads need: a small file for each, so that collections of any process leave them.

While a client is connected the node holds a lease; the file counts from then on, for KEEP_S, whether the node
runs or not. It holds the multihashes, each behind its length (u8). It is a hint: what is lost is uploaded
again. So it is never synced, and a damaged one counts as far as it can be read.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from merkledag.cid import CID

KEEP_S = 86_400
SUFFIX = ".upload"
READ_BYTES = 1 << 20


def upload_path(folder: Path, deal: CID, shard: int) -> Path:
    """The file of a shard's upload inside the folder of pieces."""
    return folder / f"{deal}-{shard}{SUFFIX}"


def note_upload(path: Path, multihashes: Iterable[bytes]) -> None:
    """Keep these blocks for KEEP_S from now on. A disk without room for the note is no error."""
    partial = path.with_name(path.name + ".tmp")
    with suppress(OSError):
        try:
            with partial.open("wb") as file:
                file.writelines(bytes((len(multihash),)) + multihash for multihash in multihashes)
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)


def blocks_of_uploads(folder: Path, now_s: float) -> Iterator[bytes]:
    """The multihashes that unfinished uploads still need; forgets uploads that nobody went on with."""
    for path in sorted(folder.glob(f"*{SUFFIX}")):
        with suppress(OSError):
            if not abs(now_s - path.stat().st_mtime) < KEEP_S:
                path.unlink()
                continue
            yield from _read(path)


def _read(path: Path) -> Iterator[bytes]:
    with path.open("rb", buffering=READ_BYTES) as file:
        while length := file.read(1):
            multihash = file.read(length[0])
            if len(multihash) < length[0] or not multihash:
                return
            yield multihash
