"""What the tests of polynomial commitments share: the setup, and ckzg that has loaded it."""

from __future__ import annotations

import pytest

from proofs.kzg.backend import Backend
from proofs.kzg.setup import Setup, ceremony_text
from tests.proofs.kzg.polynomials import SETUP_FILE


@pytest.fixture(scope="session")
def setup() -> Setup:
    return Setup(SETUP_FILE.read_bytes())


@pytest.fixture(scope="session")
def ckzg_backend(setup: Setup, tmp_path_factory: pytest.TempPathFactory) -> Backend:
    from proofs.kzg.backend_ckzg import CkzgBackend

    path = tmp_path_factory.mktemp("ckzg") / "trusted_setup.txt"
    path.write_text(ceremony_text(setup))
    return CkzgBackend(str(path))
