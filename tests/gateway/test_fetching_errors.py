"""What a client is told where content cannot be had: which block, at which step, who was asked."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from gateway.settings import GatewaySettings
from merkledag.cid import CID
from tests.gateway.support import MemorySource, add_tree, serving


@dataclass(frozen=True)
class Asked:
    """One who was asked."""

    name: str
    outcome: str
    seconds: float


class NowhereError(LookupError):
    """A lookup that says whom it asked."""

    def __init__(self, asked: Sequence[Asked], *, unsure: bool = False) -> None:
        super().__init__("nobody has it")
        self.asked = asked
        self.unsure = unsure


class AskingSource(MemorySource):
    """Fails with the list of who was asked."""

    unsure = False
    providers = (Asked("https://a.example", "does not have it", 0.25), Asked("<b>", "did not answer", 1.0))

    async def get(self, cid: CID) -> bytes:
        try:
            return await super().get(cid)
        except LookupError:
            raise NowhereError(self.providers * 20, unsure=self.unsure) from None

    def asked(self, cid: CID) -> Sequence[Asked]:
        return self.providers[:1]


async def test_an_error_says_which_block_at_which_step_and_who_was_asked() -> None:
    source = AskingSource()
    root, _ = add_tree(source, {"a": {"b": b"text"}})
    inner, _ = add_tree(MemorySource(), {"b": b"text"})
    del source.here[inner.multihash]
    path = f"/ipfs/{root}/a/b"
    async with serving(source) as client:
        answer = await client.ask(path, {"Accept": "application/json"})
        document = json.loads(answer.body)
        assert (answer.status, answer.headers["content-type"]) == (404, "application/json")
        assert (document["cid"], document["step"]) == (str(inner), "path segment 2 of 2")
        assert document["asked"][0] == {
            "provider": "https://a.example",
            "outcome": "does not have it",
            "seconds": 0.25,
        }
        assert len(document["asked"]) == 16

        page = await client.ask(path, {"Accept": "text/html"})
        assert f"<code>{inner}</code>" in page.text
        assert "path segment 2 of 2" in page.text
        assert "https://a.example" in page.text
        assert "<b>" not in page.text

        line = await client.ask(path)
        assert line.text.count("\n") == 1
        assert "https://a.example does not have it (0.2 s)" in line.text


async def test_where_somebody_did_not_answer_the_client_may_try_again() -> None:
    source = AskingSource()
    source.unsure = True
    async with serving(source) as client:
        answer = await client.ask(f"/ipfs/{CID.of(b'far away')}")
    assert answer.status == 502
    assert int(answer.headers["retry-after"]) > 0


async def test_a_block_that_does_not_come_in_time_says_who_has_been_asked() -> None:
    source = AskingSource()
    source.arrive.clear()
    async with serving(source, settings=GatewaySettings(retrieval_timeout_s=0.05)) as client:
        answer = await client.ask(f"/ipfs/{CID.of(b'far away')}", {"Accept": "application/json"})
    document = json.loads(answer.body)
    assert (answer.status, document["step"]) == (504, "root block")
    assert [each["provider"] for each in document["asked"]] == ["https://a.example"]
    assert source.waiting == 0
