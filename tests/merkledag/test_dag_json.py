"""DAG-JSON blocks are part of a DAG: their links are followed, by paths, walks and collections alike."""

from __future__ import annotations

import pytest

from merkledag import codecs, dag_json
from merkledag.block import Block
from merkledag.cid import CID
from merkledag.codecs import DAG_JSON, RAW
from merkledag.errors import DecodeError, NoSuchLink
from merkledag.resolve import resolve
from merkledag.steps import iterate, run
from merkledag.traverse import walk_dag

LEAF = Block(CID.of(b"leaf", codec=RAW), b"leaf")
OTHER = Block(CID.of(b"other", codec=RAW), b"other")


def node(value: object) -> Block:
    data = dag_json.encode(value).encode()
    return Block(CID.of(data, codec=DAG_JSON), data)


INNER = node({"x": [LEAF.cid, {"deep": OTHER.cid}], "y": LEAF.cid})
ROOT = node({"inner": INNER.cid, "n": 1})
STORE = {block.cid: block.data for block in (LEAF, OTHER, INNER, ROOT)}


def test_links_are_in_order_with_repetitions() -> None:
    assert codecs.links(INNER.cid, INNER.data) == [LEAF.cid, OTHER.cid, LEAF.cid]
    assert codecs.links(ROOT.cid, memoryview(ROOT.data)) == [INNER.cid]


def test_a_walk_reaches_what_they_link_to() -> None:
    walked = [block.cid for block in iterate(walk_dag(ROOT.cid), STORE.__getitem__)]
    assert walked == [ROOT.cid, INNER.cid, LEAF.cid, OTHER.cid]


def test_paths_lead_through_them() -> None:
    found = run(resolve(ROOT.cid, ("inner", "x", "1", "deep")), STORE.__getitem__)
    assert found.cid == OTHER.cid
    assert run(resolve(ROOT.cid, ("n",)), STORE.__getitem__).remainder == ("n",)
    with pytest.raises(NoSuchLink):
        run(resolve(ROOT.cid, ("inner", "z")), STORE.__getitem__)


@pytest.mark.parametrize(
    "data", [b"", b"{", b'{"/":"no"}', b'{"/":{"bytes":1}}', b"[" * 5000, b"\xff", b"NaN"]
)
def test_what_is_no_dag_json_is_refused(data: bytes) -> None:
    with pytest.raises(DecodeError):
        dag_json.links(data)
