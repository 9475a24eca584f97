"""A commit whose very last page cannot be written: LMDB gives the handle up, and nobody notices twice."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.faults.shim import Faults, compiler
from tests.storage_node.processes import TIMEOUT_S, environment

LAST_PAGE = """
import sys
from pathlib import Path
from storage_node.blockstore.store import open_store
from storage_node.errors import StorageNodeError
from storage_node.meta import Meta, Table
from tests.faults.shim import Action, Call, Faults
from tests.storage_node.blockstore_conformance import block
folder = Path(sys.argv[1])
faults = Faults(folder)
meta, store = Meta(folder / "home" / "meta"), open_store(folder / "home" / "blocks", reserve_bytes=0)
one, other = [each for each in (block(number, 5000) for number in range(99)) if each[0][-1] % 4 == 1][:2]
kinds = {
    "records": (lambda: meta.put(Table.RECORDS, b"key", b"value"), lambda: meta.get(Table.RECORDS, b"key")),
    "blocks": (lambda: store.put_many([one]), lambda: store.put_many([other])),
}
for write, again in kinds.values():
    write()
    faults.count(Call.WRITE, folder / "home")
    if write is kinds["records"][0]:
        write()
    else:
        store.delete_many([one[0]])
    calls = faults.seen
    assert calls >= 2, calls  # pages, then the page that makes them count
    faults.arm(Action[sys.argv[2]], Call.WRITE, folder / "home", after=calls - 1, times=1)
    try:
        write() if write is kinds["records"][0] else store.put_many([one, one])
    except StorageNodeError as error:
        assert "MDB_PANIC" not in str(error), error
        again()  # while the error is at hand, and with it the frames that hold the broken handle
    again()
    assert faults.struck == 1, faults.struck
print("fine")
"""


@pytest.mark.skipif(compiler() is None, reason="needs Linux and a C compiler")
@pytest.mark.parametrize("action", ["EIO", "ENOSPC"])
def test_the_file_is_opened_anew_even_while_the_error_is_handled(action: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", LAST_PAGE, str(tmp_path), action],
        env=environment() | Faults(tmp_path).environment(),
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    assert (done.stdout, done.returncode) == ("fine\n", 0), done.stderr
