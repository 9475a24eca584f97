"""Whether a deal's pieces belong to its content: honest deals pass, and each way to lie is told apart."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from ledger.genesis import HOLD
from ledger.transactions import Ask, CreateDeal, PieceCommitment, Register
from merkledag.cid import CID
from proofs.erasure.manifest import Manifest, build_manifest, encode_manifest, metadata_piece
from storage_node.blockstore.interface import BlockClass
from storage_node.deal_check import DealCheck, check_deal, merkle_commit
from storage_node.errors import BlockNotFound
from storage_node.piece import piece_tree
from storage_node.placement import StorePlan, commitment_of
from storage_node.source import LocalSource
from tests.storage_node.content import add_files, some_bytes
from tests.storage_node.network import PARAMS, Home, Network, a_network

FILES = {"a": some_bytes(40_000), "b": some_bytes(11_000, 2), "c": b"tiny"}


@pytest.fixture
async def network(tmp_path: Path) -> AsyncIterator[Network]:
    async with a_network(tmp_path) as network:
        yield network


@dataclass
class Client:
    """Somebody with content that fits into three shards, and a plan for it."""

    network: Network
    home: Home
    content: CID
    plan: StorePlan

    async def deal(
        self, manifest: CID, pieces: tuple[PieceCommitment, ...], content: CID | None = None
    ) -> CID:
        """A deal on these terms; the ledger takes what it cannot check."""
        plan = self.plan.manifest
        body = CreateDeal(
            content=content or self.content,
            manifest=manifest,
            k=plan.k,
            m=plan.m,
            replicated=plan.replicated,
            periods=3,
            price=HOLD,
            challenges=PARAMS.challenges,
            pieces=pieces,
            providers=(),
        )
        return (await self.home.sender.send(body)).tx_id

    async def check(self, deal: CID) -> DealCheck:
        view = await self.home.ledger.deal(deal)
        told: list[tuple[int, int]] = []
        get = LocalSource(self.home.store).get
        found = await check_deal(view, get, merkle_commit, lambda *each: told.append(each))
        assert told == sorted(told)
        return found

    def committed(self, manifest: Manifest) -> tuple[CID, tuple[PieceCommitment, ...]]:
        """A manifest of one's own making, and pieces that are committed to just what it says."""
        root, blocks = encode_manifest(manifest)
        self.home.store.put_many((block.cid.multihash, block.data) for block in blocks)
        names = list(dict.fromkeys(metadata_piece(manifest, blocks)))
        rows = self.home.rows
        shards = [list(manifest.piece(shard)) for shard in range(manifest.node_count)]
        rows.ensure([*names, *(name for shard in shards for name, _ in shard)], lambda _: None)
        meta_bytes = sum(self.home.store.size(name) or 0 for name in names)
        return root, tuple(
            commitment_of(
                piece_tree((name for name, _ in shard), rows.row),
                sum(length for _, length in shard),
                piece_tree(names, rows.row),
                meta_bytes,
            )
            for shard in shards
        )


@pytest.fixture
async def client(network: Network) -> AsyncIterator[Client]:
    """With three providers that are registered and no more."""
    for number in range(3):
        node = network.home(f"node{number}")
        await network.fund(node.account)
        await node.sender.send(Register(f"http://n{number}.example", 1 << 40, node.account, 500 * HOLD))
        await node.sender.send(Ask(0, 0, 1 << 40, True))
    home = network.home("client")
    await network.fund(home.account)
    content = add_files(home.store, FILES)
    with await network.plan(home, content, code=(2, 3)) as plan:
        yield Client(network, home, content, plan)


async def test_an_honest_deal_is_sound(client: Client) -> None:
    plan = client.plan
    found = await client.check(await client.deal(plan.manifest_root, plan.pieces))
    assert (found.problems, found.is_sound) == ([], True)
    leaves, interior = plan.manifest.plan.leaves, plan.manifest.interior
    assert found.blocks == len(leaves) + len(interior)
    assert found.size_bytes == sum(client.home.store.size(name) or 0 for name in [*leaves, *interior])


async def test_copies_of_small_content_are_sound_and_a_wrong_one_is_not(client: Client) -> None:
    content = add_files(client.home.store, {"only": b"one leaf"})
    with await client.network.plan(client.home, content, code=(2, 3)) as plan:
        assert plan.manifest.replicated
        client.plan = plan
        deal = await client.deal(plan.manifest_root, plan.pieces, content)
        assert (await client.check(deal)).is_sound
        lie = (plan.pieces[0], replace(plan.pieces[1], data_root=bytes(32)))
        found = await client.check(await client.deal(plan.manifest_root, lie, content))
    assert [shard for shard, _ in found.problems] == [1]


def other_data(pieces: tuple[PieceCommitment, ...]) -> tuple[PieceCommitment, ...]:
    return (pieces[0], replace(pieces[1], data_root=b"\x01" * 32), pieces[2])


def other_meta(pieces: tuple[PieceCommitment, ...]) -> tuple[PieceCommitment, ...]:
    return (pieces[0], replace(pieces[1], meta_root=b"\x01" * 32), pieces[2])


def other_size(pieces: tuple[PieceCommitment, ...]) -> tuple[PieceCommitment, ...]:
    return (pieces[0], replace(pieces[1], data_bytes=pieces[1].data_bytes - 1), pieces[2])


@pytest.mark.parametrize(
    ("lie", "told"),
    [(other_data, "its data is"), (other_meta, "its metadata is"), (other_size, "block lengths")],
)
async def test_a_commitment_to_something_else_is_told_with_its_shard(
    client: Client, lie: Callable[[tuple[PieceCommitment, ...]], tuple[PieceCommitment, ...]], told: str
) -> None:
    found = await client.check(await client.deal(client.plan.manifest_root, lie(client.plan.pieces)))
    ((shard, line),) = found.problems
    assert (shard, found.is_sound) == (1, False)
    assert told in line


async def test_parity_that_restores_nothing_is_told(client: Client) -> None:
    honest = client.plan.manifest
    parity = list(honest.parity)
    junk = some_bytes(honest.plan.lengths[0], 9)
    parity[0] = CID.of(junk).multihash
    client.home.store.put_many([(parity[0], junk)], BlockClass.CACHE)
    built = build_manifest(honest.content, honest.plan, parity, honest.interior)
    found = await client.check(await client.deal(*client.committed(built)))
    ((shard, line),) = found.problems
    assert shard == 2
    assert "restores nothing" in line


@pytest.mark.parametrize("which", ["fewer leaves", "more interior", "another order"])
async def test_a_manifest_of_another_dag_is_told(client: Client, which: str) -> None:
    honest = client.plan.manifest
    interior = list(honest.interior)
    content = honest.content
    if which == "another order":
        interior = [*interior[1:], interior[0]]
    elif which == "more interior":
        interior = [*interior, CID.of(b"tiny").multihash]
    else:
        content = add_files(client.home.store, {**FILES, "d": some_bytes(5_000, 7)})
    built = build_manifest(content, honest.plan, honest.parity, interior)
    found = await client.check(await client.deal(*client.committed(built), content))
    assert found.problems
    assert {shard for shard, _ in found.problems} == {None}


async def test_what_is_no_manifest_or_another_content_s_is_told(client: Client) -> None:
    plan = client.plan
    found = await client.check(await client.deal(client.content, plan.pieces))
    assert [shard for shard, _ in found.problems] == [None]
    other = add_files(client.home.store, {"x": some_bytes(9_000, 3)})
    found = await client.check(await client.deal(plan.manifest_root, plan.pieces, other))
    assert {shard for shard, _ in found.problems} == {0, 1, 2}
    assert all("content root" in line for _, line in found.problems)


async def test_what_cannot_be_read_cannot_be_told(client: Client) -> None:
    deal = await client.deal(client.plan.manifest_root, client.plan.pieces)
    client.home.store.delete_many([client.plan.manifest.plan.leaves[0]])
    with pytest.raises(BlockNotFound):
        await client.check(deal)
