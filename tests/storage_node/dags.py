"""Small DAGs for tests: raw leaves under DAG-CBOR nodes."""

from __future__ import annotations

from merkledag import dag_cbor
from merkledag.block import Block
from merkledag.cid import CID
from merkledag.codecs import DAG_CBOR, RAW


def leaf(text: str) -> Block:
    data = text.encode()
    return Block(CID.of(data, RAW), data)


def node(*children: CID, label: str = "") -> Block:
    data = dag_cbor.encode({"label": label, "links": list(children)})
    return Block(CID.of(data, DAG_CBOR), data)


def tree(label: str, width: int = 4) -> list[Block]:
    """A root, `width` nodes and width² leaves, all of them this tree's own; the root comes last."""
    found: list[Block] = []
    middle: list[CID] = []
    for row in range(width):
        leaves = [leaf(f"{label} leaf {row} {column}") for column in range(width)]
        above = node(*(each.cid for each in leaves), label=f"{label} {row}")
        middle.append(above.cid)
        found += [*leaves, above]
    return [*found, node(*middle, label=label)]


def pairs(blocks: list[Block]) -> list[tuple[bytes, bytes]]:
    return [(each.cid.multihash, each.data) for each in blocks]
