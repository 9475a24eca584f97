"""The site that most tests of the gateway ask for."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.gateway.site import CHUNK, HOSTILE, LARGE, Site
from tests.gateway.support import MemorySource, add_file, add_tree, serving


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
