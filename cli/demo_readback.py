"""Reads a tree back through a gateway and compares every byte with the disk, in bounded memory."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

from cli.output import CommandError, ExitCode

if TYPE_CHECKING:
    import aiohttp

CONCURRENT: Final = 8
PORTION_BYTES: Final = 1 << 18


@dataclass(slots=True)
class ReadBack:
    """How much was compared, and what had changed on disk meanwhile (then nothing can be said of it)."""

    files: int = 0
    size_bytes: int = 0
    changed: int = 0


def regular_files(path: Path) -> Iterator[tuple[Path, str]]:
    """(file, path below `path` with slashes) as `add` takes them: no hidden ones, no symlinks followed."""
    if not path.is_dir():
        yield path, ""
        return
    for folder, folders, files in os.walk(path):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            found = Path(folder, name)
            if not name.startswith(".") and found.is_file() and not found.is_symlink():
                yield found, found.relative_to(path).as_posix()


async def read_back(
    session: aiohttp.ClientSession, base: str, path: Path, since_s: float, advance: Callable[[int], None]
) -> ReadBack:
    """Compares the files under `path` with `base`/…; `since_s`: when they were imported (Unix time).

    Raises CommandError (exit 4) for a byte that differs in a file that has not changed since.
    """
    done = ReadBack()
    waiting = iter(list(regular_files(path)))

    async def work() -> None:
        for file, name in waiting:
            url = f"{base}/{quote(os.fsencode(name))}" if name else base
            same, size = await _same(session, url, file, advance)
            if not same and file.stat().st_mtime < since_s:
                raise CommandError(f"{name or file} came back different", ExitCode.INVALID)
            done.files += 1
            done.size_bytes += size
            done.changed += not same

    async with asyncio.TaskGroup() as tasks:
        for _ in range(CONCURRENT):
            tasks.create_task(work())
    return done


async def _same(
    session: aiohttp.ClientSession, url: str, file: Path, advance: Callable[[int], None]
) -> tuple[bool, int]:
    size = 0
    same = True
    with file.open("rb") as original:
        async with session.get(url) as response:
            if response.status != 200:
                reason = (await response.text())[:200].strip().splitlines()[:1]
                raise CommandError(f"the gateway answered {response.status} for {url}: {' '.join(reason)}")
            async for portion in response.content.iter_chunked(PORTION_BYTES):
                same = same and original.read(len(portion)) == portion
                size += len(portion)
                advance(len(portion))
        return same and not original.read(1), size
