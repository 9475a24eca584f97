"""A file at the end of its map, and a system that maps or lengthens no more files: errors that go by."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.faults.checker import recount
from tests.faults.shim import Action, Call, Faults, compiler
from tests.red_team.support import Machine
from tests.storage_node.processes import run_python

MAP_FULL = """
import sys
from pathlib import Path
from storage_node.blockstore import lmdb_file
from storage_node.blockstore.store import open_store
from storage_node.errors import StoreFull
from tests.storage_node.blockstore_conformance import block
lmdb_file.MAP_BYTES = 2 << 20
store = open_store(Path(sys.argv[1]) / "home" / "blocks", reserve_bytes=0)
stored, refused = [], 0
for number in range(150):
    one = block(number, 100_000)
    try:
        store.put_many([one])
        stored.append(one)
    except StoreFull as error:
        assert "\\n" not in str(error), error
        refused += 1
assert refused > 20 and len(stored) > 20, (refused, len(stored))
assert all(store.get(multihash) == data for multihash, data in stored)
assert store.delete_many([multihash for multihash, _ in stored[::2]]).bytes == 100_000 * len(stored[::2])
again = 0
for number in range(200, 220):
    try:
        again += store.put_many([block(number, 100_000)]).new
    except StoreFull:
        pass
assert again > 5, again
store.close()
print("fine")
"""

NEARLY_FULL = """
import sys
from pathlib import Path
from storage_node.blockstore import lmdb_file
from storage_node.blockstore.store import open_store
from tests.storage_node.blockstore_conformance import block
lmdb_file.MAP_BYTES = 2 << 20
store = open_store(Path(sys.argv[1]) / "blocks", reserve_bytes=0)
number, stored = 0, []
while max(each.environment.file_bytes() for each in store.shards) < lmdb_file.MAP_BYTES - 100_000:
    group = [block(number + each, 900) for each in range(40)]
    store.put_many(group)
    stored += [multihash for multihash, _ in group]
    number += 40
assert number > 4000, number
assert len(store.delete_many(stored).multihashes) == number
assert store.put_many(group).new == store.stat().blocks == 40
store.close()
print("fine")
"""


def test_what_is_deleted_finds_room_in_a_file_that_is_nearly_full(tmp_path: Path) -> None:
    done = run_python(NEARLY_FULL, str(tmp_path))
    assert (done.stdout, done.returncode) == ("fine\n", 0), done.stderr


def test_a_full_map_is_an_error_and_what_is_deleted_makes_room(tmp_path: Path) -> None:
    done = run_python(MAP_FULL, str(tmp_path))
    assert (done.stdout, done.returncode) == ("fine\n", 0), done.stderr
    assert recount(tmp_path / "home", dags=False).findings == ["there are blocks, and no records"]


@pytest.mark.skipif(compiler() is None, reason="needs Linux and a C compiler")
@pytest.mark.parametrize(
    ("action", "calls", "codes"),
    [
        (Action.ENOMEM, Call.MAP, {1}),
        (Action.EIO, Call.TRUNCATE, {1}),
        (Action.ENOSPC, Call.TRUNCATE, {6}),
        (Action.EDQUOT, Call.WRITE, {6}),
        (Action.EIO, Call.SYNC, {1}),
    ],
)
def test_a_command_that_the_system_fails_says_so_and_works_afterwards(
    action: Action, calls: Call, codes: set[int], tmp_path: Path
) -> None:
    (tmp_path / "file").write_bytes(bytes(range(256)) * 500)
    machine, faults = Machine(tmp_path / "home"), Faults(tmp_path)
    command = [sys.executable, "-m", "cli.main", "add", "-Q", str(tmp_path / "file")]

    def add() -> subprocess.CompletedProcess[str]:
        env = machine.env | faults.environment()
        return subprocess.run(command, env=env, capture_output=True, text=True, timeout=60, check=False)

    faults.arm(action, calls, tmp_path / "home")
    failed = add()
    assert faults.struck > 0
    assert failed.returncode in codes, failed
    assert "Traceback" not in failed.stderr
    assert len([line for line in failed.stderr.splitlines() if line.startswith("holdfast: ")]) == 1
    faults.disarm()
    assert add().returncode == 0
    assert recount(tmp_path / "home").findings == []
