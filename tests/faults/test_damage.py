"""Pages of the store's files that are flipped, torn, moved or cut off: noticed, and nothing else is lost."""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path

import pytest

from tests.red_team.support import Machine

PAGE_BYTES = 4096
FILE_BYTES = 600_000
ROUNDS = 7
CODES = {0, 1, 3, 4}


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str, bytes]:
    folder = tmp_path_factory.mktemp("pristine")
    data = random.Random("pristine").randbytes(FILE_BYTES)
    (folder / "file").write_bytes(data)
    machine = Machine(folder / "home")
    root = machine.run("add", "-Q", "--chunker=size-4000", str(folder / "file")).out.decode().strip()
    machine.run("files", "write", "-e", "/file", str(folder / "file"))
    machine.run("repo", "gc")
    return folder / "home", root, data


def damage(file: Path, chance: random.Random) -> str:
    """One of the things that disks do to a page (not the two first, which are LMDB's own), or to the end."""
    data = bytearray(file.read_bytes())
    pages = len(data) // PAGE_BYTES
    at = chance.randrange(2, pages) * PAGE_BYTES
    what = chance.choice(("flip", "zero", "tear", "swap", "cut"))
    if what == "flip":
        data[at + chance.randrange(PAGE_BYTES)] ^= 1 << chance.randrange(8)
    elif what == "zero":
        data[at : at + PAGE_BYTES] = bytes(PAGE_BYTES)
    elif what == "tear":
        data[at + 512 : at + PAGE_BYTES] = chance.randbytes(PAGE_BYTES - 512)
    elif what == "swap":
        other = chance.randrange(2, pages) * PAGE_BYTES
        data[at : at + PAGE_BYTES] = data[other : other + PAGE_BYTES]
    else:
        del data[at:]
    file.write_bytes(data)
    return what


@pytest.mark.parametrize("turn", range(ROUNDS))
def test_a_damaged_page_is_an_error_or_found_and_healed(
    turn: int, pristine: tuple[Path, str, bytes], tmp_path: Path
) -> None:
    home, root, data = pristine
    shutil.copytree(home, tmp_path / "home")
    machine = Machine(tmp_path / "home")
    chance = random.Random(f"damage {turn}")
    file = chance.choice(sorted((tmp_path / "home" / "blocks").glob("*.mdb")))
    damage(file, chance)
    got = machine.run("cat", root, code=None)  # the machine refuses tracebacks and signals
    assert got.code in CODES
    verified = machine.run("repo", "verify", "--json", code=None)
    assert verified.code in (0, 4)
    if verified.code == 0:  # what was damaged is no part of the tree of blocks, or all of it is readable
        assert (got.code, got.out == data) == (0, True)
    collected = machine.run("repo", "gc", "--json", code=None)
    assert collected.code in CODES
    if collected.code == 0:
        assert json.loads(collected.out)["freed_blocks"] == 0, "everything here is pinned"
