"""The site that most tests of the gateway ask for, and what the public suite asks for."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from tests.gateway import public_suite
from tests.gateway.black_box.running import GatewayHome
from tests.gateway.public_suite import Suite
from tests.gateway.site import CHUNK, HOSTILE, LARGE, Site
from tests.gateway.support import MemoryNames, MemorySource, add_file, add_tree, serving


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    source = MemorySource()
    large, _ = add_file(source, LARGE, CHUNK)
    root, _ = add_tree(
        source,
        {
            "a.txt": b"hello\n",
            "data": b'{"a": [1, 2]}',
            "page": b"<!doctype html><p>hi",
            "ąę": {"file-źł.txt": b"utf8", "deep": {"x": b"x"}},
            "site": {"index.html": b"<h1>index</h1>", "style.css": b"p{}"},
            "link": "a.txt",
            HOSTILE: b"hostile",
            "empty": {},
        },
    )
    async with serving(source) as client:
        yield Site(client, source, root, large)


@pytest.fixture(scope="session")
def suite_process(gateway_fixtures: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a real gateway over what the public suite asks for."""
    home = GatewayHome(tmp_path_factory.mktemp("suite"), HOLDFAST_SUBDOMAIN_HOSTS="localhost,example.com")
    public_suite.fill(home, gateway_fixtures)
    with home:
        yield home.url


@pytest.fixture(scope="session")
def suite_content(gateway_fixtures: Path) -> tuple[MemorySource, MemoryNames]:
    return public_suite.load(gateway_fixtures)


@pytest.fixture(params=["here", "process"])
async def suite(
    request: pytest.FixtureRequest, suite_content: tuple[MemorySource, MemoryNames]
) -> AsyncIterator[Suite]:
    """A gateway over what the public suite asks for: in this process, and as one of its own."""
    source, names = suite_content
    async with public_suite.new_session() as session, AsyncExitStack() as stack:
        if request.param == "process":
            yield Suite(request.getfixturevalue("suite_process"), source, session)
        else:
            client = await stack.enter_async_context(serving(source, names, public_suite.SETTINGS, names))
            yield Suite(client.listener.url, source, session)
