"""A proposer that lies: every validator says the same of each of its blocks, whatever it saw before."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import pytest

from ledger import limits, transactions
from ledger.engine.cometbft import proposals, submissions
from ledger.engine.cometbft.abci import messages
from ledger.genesis import HOLD, Genesis
from ledger.keys import address
from ledger.transactions import Beacon
from merkledag import dag_cbor
from proofs.bls.signatures import BlsSigner
from tests.ledger.cometbft.application import CHAIN, genesis, seed, signer, transfer
from tests.ledger.cometbft.lone import init_chain
from tests.ledger.cometbft.mirror import Mirrored, Node
from tests.ledger.test_validators import Electorate, bodies
from tests.ledger.test_validators import bls as validator_bls
from tests.ledger.world import signer as world_signer

START_S = 1_700_000_000
VALIDATORS = 3
SEED = 20_262
ACCEPT = messages.ProposalStatus.ACCEPT


def bls(number: int) -> BlsSigner:
    """Validator `number`'s key for beacons."""
    return BlsSigner.from_seed(seed(f"bls-{number}"))


class Network:
    """Validators who decide whatever they all take; the first one has seen everything, the last one nothing.

    `seen` gets every transaction by CheckTx and is asked about every proposal; `plain` is asked, too;
    `fresh` is a process that has just begun when it is asked.
    """

    def __init__(self, chain: Genesis) -> None:
        keys = {each.public_key: each for each in map(bls, range(VALIDATORS))}
        self.seen, self.plain, self.fresh = self.nodes = [Node(chain, keys) for _ in range(3)]
        self.time_s = chain.time_s
        for node in self.nodes:
            node.ask("init_chain", init_chain(chain))

    @property
    def app(self) -> Any:
        """What all of them have committed."""
        return self.plain.engine.app

    def head(self, number: int = 0, **changes: Any) -> bytes:
        """The next block's beacon by a validator's key, or one with other fields."""
        height = self.app.height + 1
        signature = bls(number).sign(self.app.beacon_transaction_message(height))
        return replace(Beacon(CHAIN, height, signature), **changes).encode()

    def request(self, kind: Any, txs: Sequence[bytes], proposer: int = 0, **more: Any) -> Any:
        """A request about the next block."""
        return kind(
            height=self.app.height + 1,
            time=messages.Timestamp(seconds=self.time_s),
            proposer_address=address(signer(f"consensus-{proposer}").public_key),
            txs=txs,
            **more,
        )

    def judge(self, txs: Sequence[bytes], proposer: int = 0) -> bool:
        """Whether all take a proposal; they must say the same."""
        self.fresh.restart()
        request = self.request(messages.RequestProcessProposal, txs, proposer)
        answers = {node.ask("process_proposal", request).status for node in self.nodes}
        assert len(answers) == 1, "they disagree"
        return answers == {ACCEPT}

    def decide(self, txs: Sequence[bytes], proposer: int = 0) -> Any:
        """A block that all run and commit, alike."""
        request = self.request(messages.RequestFinalizeBlock, txs, proposer)
        answers = [node.ask("finalize_block", request) for node in self.nodes]
        assert answers[0] == answers[1] == answers[2]
        for node in self.nodes:
            node.ask("commit", messages.RequestCommit())
        self.time_s += 1
        return answers[0]

    def close(self) -> None:
        """The end of all."""
        for node in self.nodes:
            node.close()


@pytest.fixture(name="network")
def _network() -> Iterator[Network]:
    made = Network(genesis(START_S, VALIDATORS))
    yield made
    made.close()


def forged(nonce: int) -> bytes:
    """A transfer whose amount was changed after it was signed."""
    tx = transactions.decode(transfer(nonce))
    return replace(tx, body=replace(tx.body, amount=HOLD + 1)).encode()  # type: ignore[arg-type]


def indefinite(raw: bytes) -> bytes:
    """The same map in another form of CBOR."""
    return b"\xbf" + raw[1:] + b"\xff"


def test_what_no_honest_proposer_makes_is_refused_by_all_and_leaves_no_trace(network: Network) -> None:
    good = [network.head(), *map(transfer, range(3))]
    other = network.head(1)
    heads = {
        "another validator's": other,
        "an empty signature": network.head(beacon=bytes(96)),
        "infinity": network.head(beacon=b"\xc0" + bytes(95)),
        "another chain's": network.head(chain="elsewhere"),
        "another height's": network.head(height=network.app.height + 2),
        "a byte more": good[0] + b"\x00",
        "another form of CBOR": indefinite(good[0]),
        "another key in the map": dag_cbor.encode({**dag_cbor.decode(good[0]), "more": 1}),
        "a transaction": good[1],
        "no bytes": b"",
    }
    bodies = {
        "two beacons": good,
        "a beacon in the middle": [good[1], other, *good[2:]],
        "bad order": [good[2], good[1], good[3]],
        "a duplicate": [*good[1:], good[1]],
        "the same with another signature": [good[1], forged(0), *good[2:]],
        "a gap": [*good[1:3], transfer(7)],
        "another form of CBOR": [*good[1:3], indefinite(good[3])],
        "an invalid signature in the middle": [good[1], forged(1), good[3]],
        "no bytes in the middle": [good[1], b"", *good[2:]],
        "more money than there is": [*good[1:], transfer(3, 10**9 * HOLD)],
        "larger than any transaction": [*good[1:], bytes(limits.MAX_TX_BYTES + 1)],
        "too many": [b""] * proposals.MAX_TXS_TAKEN,
    }
    network.seen.check(*(raw for txs in bodies.values() for raw in txs[:9]))
    assert not network.judge([])
    for name, head in heads.items():
        assert not network.judge([head, *good[1:]]), name
    for name, txs in bodies.items():
        assert not network.judge([good[0], *txs]), name
    # The honest block is taken after all that; then another validator's is decided in another round.
    assert network.judge(good)
    decided = [other, *good[1:3]]
    assert network.judge(decided, proposer=1)
    assert [each.code for each in network.decide(decided, proposer=1).tx_results] == [0, 0, 0]
    assert network.app.account(signer("operator").public_key).nonce == 2


def test_a_verdict_follows_from_state_and_proposal_alone(network: Network) -> None:
    """Random rounds; some of what is proposed is known from the mempool, or was run before and dropped."""
    rng = random.Random(SEED)
    taken = refused = 0
    for _ in range(12):
        nonce = network.app.account(signer("operator").public_key).nonce
        pool = [*map(transfer, range(nonce, nonce + 4)), forged(nonce), rng.randbytes(40)]
        network.seen.check(*rng.sample(pool, 3))
        last: tuple[list[bytes], int] = [network.head()], 0
        for _ in range(3):
            proposer = rng.randrange(VALIDATORS)
            count = rng.randrange(5)
            txs = pool[:count] if rng.random() < 0.6 else rng.sample(pool, count)
            proposal = [network.head(proposer if rng.random() < 0.9 else 0), *txs]
            if network.judge(proposal, proposer):
                taken += 1
                last = proposal, proposer
            else:
                refused += 1
        if rng.random() < 0.3:  # run, and forgotten by whoever ends before the commit
            network.plain.ask("finalize_block", network.request(messages.RequestFinalizeBlock, *last))
            network.plain.restart()
        network.decide(*last)
    assert min(taken, refused) > 5, (taken, refused)


def test_a_block_full_of_what_is_no_transaction_costs_no_more_than_one(
    network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded: list[bytes] = []
    plain = transactions.decode

    def decode(raw: bytes) -> transactions.Transaction:
        decoded.append(raw)
        return plain(raw)

    monkeypatch.setattr(transactions, "decode", decode)
    deep = dag_cbor.encode([[]] * 1_000)
    assert not network.judge([network.head(), *[deep] * (proposals.MAX_TXS_TAKEN - 1)])
    assert len(decoded) <= len(network.nodes) * (submissions.BATCHES_AT_ONCE + 1)


class MirroredElectorate(Mirrored, Electorate):
    """People who decide who validates, on both engines."""


def test_at_a_rotation_one_beacon_key_counts_in_each_block_and_either_consensus_key_proposes() -> None:
    world = MirroredElectorate("a")
    world.grant({"a": 3, "operator": 0})
    world.move()
    world.proposer = "a"
    old, new = validator_bls("a"), validator_bls("a's next")
    world.beacon_signers[new.public_key] = new
    addresses = [address(world_signer(name).public_key) for name in ("a's", "a's second")]
    world.block(world.tx("a", bodies("a", "a's second", "a's next")))
    world.pass_until(world.record("a").next_from - 2)
    taken = []
    for _ in range(3):
        given = world.next_block(step=1)
        message = world.app.beacon_transaction_message(given.height)
        heads = [Beacon(world.app.chain_id, given.height, each.sign(message)).encode() for each in (old, new)]
        taken.append([world.mirror.judge(world.app, given, (head,)) for head in heads])
        for proposer in addresses:  # CometBFT goes on with the old one for a block
            request = world.mirror.request(messages.RequestProcessProposal, world.app, given, txs=given.txs)
            request.proposer_address = proposer
            assert world.mirror.node.ask("process_proposal", request).status == ACCEPT
        world.block(step=1)
    assert taken == [[True, False], [True, False], [False, True]]
    world.mirror.node.close()
