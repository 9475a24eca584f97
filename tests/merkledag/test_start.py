"""Starting must stay cheap: identifiers bring in nothing that takes long to import."""

from __future__ import annotations

import subprocess
import sys

import pytest

SLOW = {"multiformats", "cbor2", "cryptography", "blake3", "mmh3", "dataclasses", "typing", "re", "enum"}


@pytest.mark.parametrize(
    ("module", "slow"),
    [
        ("merkledag.cid", SLOW),
        ("merkledag.peer", SLOW),
        ("merkledag.path", SLOW - {"dataclasses", "typing", "re", "enum"}),
        ("merkledag.reader", {"multiformats", "cbor2", "cryptography", "blake3"}),
        ("merkledag.resolve", {"multiformats", "cbor2", "cryptography", "blake3"}),
        ("merkledag.directory", {"multiformats", "cbor2", "cryptography", "blake3"}),
    ],
)
def test_what_importing_brings_in(module: str, slow: set[str]) -> None:
    script = (
        "import sys; before = set(sys.modules); "
        f"import {module}; print(*(set(sys.modules) - before), sep='\\n')"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert module in done.stdout.split()
    assert not slow & set(done.stdout.split())
