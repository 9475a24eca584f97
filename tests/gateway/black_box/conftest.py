"""One gateway for all tests here that a process of pytest runs."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.gateway.black_box.content import Content, fill
from tests.gateway.black_box.running import GatewayHome


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Content]:
    """Content behind a real gateway; subdomains of localhost and of dweb.test are origins."""
    folder = tmp_path_factory.mktemp("served")
    home = GatewayHome(folder, HOLDFAST_SUBDOMAIN_HOSTS="localhost,dweb.test")
    content = fill(folder, home)
    with home:
        yield content
