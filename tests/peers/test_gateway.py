"""Random requests: our gateway answers as boxo's, except where docs/gateway.md says otherwise.

`python -m tests.peers.compare_gateway` goes on for as long as it is wanted.
"""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from tests.peers import support
from tests.peers.compare_gateway import compare
from tests.peers.gateway_answers import Answer, differences
from tests.peers.gateway_content import make_content
from tests.peers.gateway_known import KNOWN, Case, explain
from tests.peers.gateway_requests import PATHS, Request

pytestmark = pytest.mark.peers
SEED, CASES = 1, 500
DOCS = Path(__file__).parents[2] / "docs" / "gateway.md"
REQUEST = Request(0, "GET", "/ipfs/bafkqaaa", "1.1", (("Host", PATHS),))
PLAIN = Answer(
    200, {"content-type": "text/plain", "etag": '"bafkqaaa"', "content-length": "5"}, b"hello", True
)


async def test_random_requests_have_one_answer() -> None:
    support.find_peer("boxo")
    mismatches, known = await compare(range(SEED, SEED + CASES))
    assert not mismatches, "\n".join(map(str, mismatches[:5]))
    assert known.total() < CASES  # most answers are the same in every field


def test_every_known_difference_is_described() -> None:
    _, _, section = DOCS.read_text().partition("\n## Differences from boxo\n")
    table, _, _ = section.partition("\n## ")
    described = re.findall(r"^\| ([^|]+?) \|", table, re.MULTILINE)
    assert len(described) == len(set(described))
    assert {known.row for known in KNOWN} <= set(described)


@pytest.mark.parametrize(
    ("changed", "field"),
    [
        (replace(PLAIN, status=206), "status"),
        (replace(PLAIN, body=b"hullo"), "body"),
        (replace(PLAIN, whole=False), "whole"),
        (replace(PLAIN, headers={**PLAIN.headers, "etag": '"other"'}), "Etag"),
        (replace(PLAIN, headers={**PLAIN.headers, "content-type": "text/html"}), "Content-Type"),
        (replace(PLAIN, headers={**PLAIN.headers, "cache-control": "no-cache"}), "Cache-Control"),
    ],
)
def test_what_nothing_explains_is_reported(changed: Answer, field: str) -> None:
    assert not differences(REQUEST, PLAIN, PLAIN)
    assert field in differences(REQUEST, changed, PLAIN)
    assert explain(Case(make_content(), REQUEST, changed, PLAIN), field) is None
