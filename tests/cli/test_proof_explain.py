"""`holdfast proof explain` of KZG proofs: which blobs differ here, and of which deal the leaves are."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from merkledag.cid import CID
from proofs.kinds import ProofKind
from proofs.kzg.blobs import BLOB_BYTES
from storage_node.blockstore import lmdb_file
from tests.cli.conftest import Holdfast
from tests.storage_node.content import add_files, some_bytes
from tests.storage_node.network import a_network
from tests.storage_node.test_network import a_client

SEED = "5e" * 32


def test_only_blobs_that_differ_are_called_different(holdfast: Holdfast, tmp_path: Path) -> None:
    """One byte of a block is changed on this disk: the other blob of that block is as it was shown."""
    data = some_bytes(BLOB_BYTES + 1_000)
    (tmp_path / "file").write_bytes(data)
    content, answer = holdfast.add(tmp_path / "file"), tmp_path / "answer"
    holdfast("proof", "make", content, "--proof", "kzg", "--seed", SEED, "-o", answer)
    shard = next(path for path in (holdfast.home / "blocks").glob("shard-*.mdb") if data in path.read_bytes())
    raw = bytearray(shard.read_bytes())
    raw[raw.index(data) + BLOB_BYTES] ^= 1
    shard.write_bytes(raw)
    told = holdfast("proof", "explain", answer, "--json", code=4).json
    assert {leaf["index"]: leaf["local"] for leaf in told["leaves"]} == {0: "same", 1: "differs"}


async def test_leaves_are_of_a_deal_whose_proofs_are_of_that_kind(
    holdfast: Holdfast, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One client keeps the same content at one node twice, proven either way."""
    monkeypatch.setattr(lmdb_file, "MAP_BYTES", 1 << 28)
    async with a_network(tmp_path) as network:
        await network.add_providers(1)
        client = await a_client(network)
        content = add_files(client.store, {"a": some_bytes(9_000), "b": b"tiny"})
        deals: dict[str, CID] = {}
        for kind in ProofKind:
            with await network.plan(client, content, 6, code=(1, 1), proof=kind) as plan:
                deals[kind] = (await network.execute(client, plan)).deal
        await network.steps_until(lambda: len(network.seen("proof_accepted")) >= 2, "a proof of each kind")

        def look() -> None:
            at = ("--ledger", network.ledger.url)
            for kind, deal in deals.items():
                holdfast("proof", "make", "shard", deal, 0, "-o", tmp_path / kind, *at)
                told = holdfast("proof", "explain", tmp_path / kind, "--json", *at).json
                assert {leaf["deal"] for leaf in told["leaves"]} == {str(deal)}
                assert told["untold"] == []

        await asyncio.to_thread(look)
