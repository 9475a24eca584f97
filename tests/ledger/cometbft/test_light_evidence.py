"""Proofs of storage out of a ledger whose validators sign headers: what holds, and what is refused."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import replace

import pytest

from ledger.engine.blocks import Block
from ledger.engine.cometbft.light.block import LightBlock
from ledger.engine.cometbft.light.canonical import SECOND_NS
from ledger.engine.cometbft.light.header import data_hash
from ledger.engine.errors import InvalidProofFile
from ledger.engine.evidence import KIND, LIGHT_KIND, Evidence
from ledger.engine.evidence_check import check_evidence
from ledger.engine.verdict import Anchor, Broken, Verdict
from tests.ledger.cometbft.light_chain import NO_BLOCK, block_of, signed
from tests.ledger.engine.test_evidence import StoredWorld
from tests.ledger.test_spot import ask, proof_of

FOUR = {"a": 10, "b": 10, "c": 10, "d": 10}
TRUSTED = "that follows from a header that you trust"


def unsigned(block: Block) -> Block:
    """As CometBFT's engine keeps it."""
    return replace(block, sig=b"", prev=None)


def headers_of(evidence: Evidence) -> tuple[bytes, ...]:
    """The light blocks of the headers that such blocks would have."""
    made: list[LightBlock] = []
    block, state_block = evidence.block, evidence.state_block
    for height in sorted({block.height, state_block.height + 1}):
        last = made[-1].commit.block_id if made else NO_BLOCK
        header = replace(
            block_of(height, FOUR).header,
            chain=block.chain,
            time_ns=(block.block_time_s + height - block.height) * SECOND_NS + 5,
            last_block_id=last,
            data_hash=data_hash([cid.multihash[-32:] for cid in block.txs]),
            app_hash=state_block.app_hash if height == state_block.height + 1 else bytes(32),
        )
        made.append(signed(header, FOUR))
    return tuple(each.encode() for each in made)


def on_comet(evidence: Evidence) -> Evidence:
    before = None if evidence.before is None else unsigned(evidence.before)
    bare = replace(evidence, block=unsigned(evidence.block), before=before)
    return replace(bare, kind=LIGHT_KIND, lights=headers_of(bare))


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Evidence, Evidence]]:
    """Of a period and of a spot challenge."""
    world = StoredWorld(folder=tmp_path_factory.mktemp("evidence") / "ledger")
    world.fund("client", "eve")
    world.provider("node")
    deal, dataset = world.active("client", "node")
    world.prove("node", dataset)
    ask(world, deal)
    world.do("node", proof_of(world, deal))
    yield on_comet(world.maker.of_period(dataset, None)), on_comet(world.maker.of_spot(deal, 0, None))
    world.storage.close()


def trusting(*wanted: bytes) -> Anchor:
    """Trusts these light blocks alone."""

    def follows(lights: Sequence[bytes]) -> str:
        if lights[-1] not in wanted:
            raise Broken("another header")
        return TRUSTED

    return Anchor(chain="test-chain", follows=follows)


def broken_at(evidence: Evidence, anchor: Anchor) -> str:
    return next((link.name for link in check_evidence(evidence, anchor).links if link.holds is False), "")


def link(verdict: Verdict, name: str) -> bool | None:
    return next(each.holds for each in verdict.links if each.name == name)


def test_a_file_holds_by_its_headers(files: tuple[Evidence, Evidence]) -> None:
    for evidence, count in zip(files, (2, 1), strict=True):
        again = Evidence.decode(evidence.encode())
        assert again == evidence
        assert len(again.lights) == count
        verdict = check_evidence(again, trusting(evidence.lights[-1]))
        assert verdict.holds, verdict.links
        assert link(verdict, "signature") is link(verdict, "validators") is link(verdict, "leaves") is True
        assert link(verdict, "beacon") is None, "that is not in the file, and the file says so"
        assert verdict.shown


def test_whose_headers_they_are_is_for_others_to_say(files: tuple[Evidence, Evidence]) -> None:
    for evidence in files:
        assert link(check_evidence(evidence, Anchor()), "validators") is None
        assert broken_at(evidence, trusting()) == "validators"
        assert broken_at(evidence, Anchor(chain="other")) == "validators"
        by_hash = check_evidence(evidence, Anchor(app_hash=evidence.state_block.app_hash))
        assert link(by_hash, "validators") is True
        assert broken_at(evidence, Anchor(app_hash=bytes(32))) == "validators"


def test_what_the_headers_do_not_have_is_refused(files: tuple[Evidence, Evidence]) -> None:
    period, spot = files
    for evidence in files:
        anchor = trusting(evidence.lights[-1])
        block = evidence.block
        for changed in (
            replace(block, txs=block.txs[:-1]),
            replace(block, block_time_s=block.block_time_s + 1),
            replace(block, chain="other"),
            replace(block, height=block.height + 1),
        ):
            assert broken_at(replace(evidence, block=changed), anchor) == "signature"
        two = LightBlock.decode(evidence.lights[-1])
        weak = signed(two.header, FOUR, absent={"a"}, nil={"b"}).encode()
        assert broken_at(replace(evidence, lights=(*evidence.lights[:-1], weak)), anchor) == "signature"
    forged = replace(period.block, app_hash=bytes(32))
    assert broken_at(replace(period, block=forged), trusting(period.lights[-1])) == "signature"
    assert spot.before is not None
    forged = replace(spot.before, app_hash=bytes(32))
    assert broken_at(replace(spot, before=forged), trusting(spot.lights[-1])) == "signature"
    for lights in (period.lights[:1], period.lights[1:], period.lights[::-1]):
        assert broken_at(replace(period, lights=lights), trusting(*period.lights)) == "signature"


def test_the_two_kinds_of_file_are_not_mixed_up(files: tuple[Evidence, Evidence]) -> None:
    for evidence in files:
        bare = replace(evidence, lights=())
        for wrong in (bare, replace(evidence, kind=KIND)):
            with pytest.raises(InvalidProofFile, match="kind"):
                Evidence.decode(wrong.encode())
        posed = Evidence.decode(replace(bare, kind=KIND).encode())
        assert broken_at(posed, Anchor(operator=evidence.block.account)) == "signature"


def test_no_changed_byte_makes_another_proof(files: tuple[Evidence, Evidence]) -> None:
    rng = random.Random(9)
    for evidence in files:
        raw = evidence.encode()
        for at in rng.sample(range(len(raw)), 120):
            changed = bytearray(raw)
            changed[at] ^= 1 << rng.randrange(8)
            try:
                found = Evidence.decode(bytes(changed))
                if broken_at(found, trusting(evidence.lights[-1])):
                    continue
            except InvalidProofFile:
                continue
            # What no header has of a block: whose account proposed it, ledger time, beacon.
            told = replace(
                found.block,
                account=evidence.block.account,
                time=evidence.block.time,
                beacon=evidence.block.beacon,
                app_hash=evidence.block.app_hash,
            )
            assert (told.txs, found.tx, found.state) == (evidence.block.txs, evidence.tx, evidence.state)
