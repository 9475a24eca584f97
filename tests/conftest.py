"""What every test shares: where the vectors are, and which outside material is at hand."""

from __future__ import annotations

import gc
import json
import os
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

ROOT = Path(__file__).resolve().parent.parent
GATEWAY_FIXTURES = ROOT.parent / "shared" / "fixtures" / "gateway"

# A shared machine is slow at times, so no deadline; a failure prints the blob that repeats it.
settings.register_profile(
    "holdfast", deadline=None, print_blob=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("holdfast")


# A shell's background job ignores SIGINT, and so would the programs under test, which inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave out what needs gigabytes or minutes, unless asked for."""
    if os.environ.get("HOLDFAST_SLOW") == "1":
        return
    skip = pytest.mark.skip(reason="slow: set HOLDFAST_SLOW=1 to run it")
    for item in items:
        if item.get_closest_marker("slow"):
            item.add_marker(skip)


def pytest_collection_finish() -> None:
    """Keep the collector of garbage from all that lives as long as this process does.

    That is some 270,000 objects. Tests and product ask for a collection where LMDB must give a file back:
    a fifth of a second a time, else.
    """
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def _no_outside_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """A developer's own HOLDFAST_* settings never reach a test."""
    for name in list(os.environ):
        if name.startswith("HOLDFAST_") and name not in {"HOLDFAST_SLOW", "HOLDFAST_PEERS"}:
            monkeypatch.delenv(name)


@pytest.fixture(scope="session")
def gateway_fixtures() -> Path:
    """The folder of blocks and records that the public gateway test suite uses (another project's files)."""
    if not GATEWAY_FIXTURES.is_dir():
        pytest.skip(f"the gateway fixtures of the public test suite are not at {GATEWAY_FIXTURES}")
    return GATEWAY_FIXTURES


def load_vectors(name: str) -> Any:
    """The parsed file tests/vectors/NAME.json."""
    return json.loads((ROOT / "tests" / "vectors" / f"{name}.json").read_text())


def find_peer(program: str) -> Path | None:
    """The path of another project's program installed by `make peers`, or on PATH; None where absent."""
    folder = Path(os.environ.get("HOLDFAST_PEERS") or Path.home() / ".cache" / "holdfast-peers")
    found = shutil.which(program, path=str(folder / "bin")) or shutil.which(program)
    return Path(found) if found else None
