"""Nodes under a vote: deals are proven on the terms they were made under, new ones on the new terms."""

from __future__ import annotations

from pathlib import Path

import pytest

from ledger.transactions import Propose, Vote
from storage_node.blockstore import lmdb_file
from tests.storage_node.content import add_files, some_bytes
from tests.storage_node.network import PARAMS, a_network


async def test_old_and_new_deals_are_proven_side_by_side_after_a_vote(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lmdb_file, "MAP_BYTES", 1 << 28)
    async with a_network(tmp_path) as network:
        (node,) = await network.add_providers(1)
        client = network.home("client")
        await network.fund(client.account)
        contents = [add_files(client.store, {"a": some_bytes(30_000, seed)}) for seed in (1, 2)]
        with await network.plan(client, contents[0], periods=6, code=(1, 1)) as plan:
            old = (await network.execute(client, plan)).deal
        changes = {"meta_challenges": 1, "challenges": PARAMS.challenges + 9, "period_s": 80, "window_s": 30}
        proposal = (await node.home.sender.send(Propose(changes, 0, "fewer, larger proofs"))).tx_id
        await node.home.sender.send(Vote(proposal, True))
        await network.steps_until(lambda: bool(network.seen("params_changed")), "the new terms")
        with await network.plan(client, contents[1], periods=2, code=(1, 1)) as plan:
            new = (await network.execute(client, plan)).deal
        views = [await client.ledger.deal(deal) for deal in (old, new)]
        assert [view.deal.terms for view in views] == [1, 2]
        assert views[1].deal.challenges == PARAMS.challenges + 9
        await network.steps_until(lambda: len(network.seen("deal_ended")) == 2, "the end of both deals")
        assert not network.seen("fault")
        first, second = (network.seen("proof_accepted", dataset=view.shards[0].dataset) for view in views)
        assert (len(first), len(second)) == (6, 2)
