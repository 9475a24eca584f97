"""A world on CometBFT's engine whose validators change and misbehave, and what they signed of its blocks."""

from __future__ import annotations

import random
from dataclasses import replace
from functools import cached_property
from hashlib import sha256

from ledger.application import BlockResult
from ledger.block_forms import ValidatorUpdate
from ledger.engine.archive import GivenBlock
from ledger.engine.blocks import node_cid
from ledger.engine.cometbft.light import canonical
from ledger.engine.cometbft.light.block import LightBlock, encode_header
from ledger.engine.cometbft.light.header import BLOCK_PROTOCOL, HASH_BYTES, Header, data_hash
from ledger.engine.cometbft.light.validators import Validator, ValidatorSet
from ledger.engine.export import stored_blocks
from ledger.engine.history import History
from ledger.genesis import HOLD
from ledger.transactions import Propose, Transfer, Vote
from tests.ledger.cometbft.light_chain import NO_BLOCK, voted
from tests.ledger.cometbft.mirror import Mirrored
from tests.ledger.test_validators import Electorate, bodies
from tests.ledger.world import key, signer

VALIDATORS = ("a", "b")
ROTATED = "a's second"


class SignedHistory(Mirrored, Electorate):
    """People who decide who validates; each block is told to the engine too, and who signs from then on."""

    def __post_init__(self) -> None:
        self.updates: list[tuple[ValidatorUpdate, ...]] = []
        super().__post_init__()

    def block(self, *txs: bytes, step: int = 0) -> BlockResult:
        """One block, by both."""
        result = super().block(*txs, step=step)
        self.updates.append(result.validator_updates)
        return result

    def live(self, seed: int) -> None:
        """Validators come, rotate their keys and misbehave, while money moves."""
        rng = random.Random(seed)
        self.grant({name: 5 + number for number, name in enumerate(VALIDATORS)})
        self.fund("client")
        for number in range(12):
            self.proposer = rng.choice(sorted(self.powers()))
            txs = [self.tx("client", Transfer(key("d"), rng.randrange(1, HOLD)))]
            if number == 2:
                txs.append(self.tx("a", bodies("a", ROTATED, "a")))
            if number == 4:
                txs.append(self.tx("d", Propose({}, 0, "", {key("b"): 9})))
            if number == 5:
                open_now = [info.id for info in self.app.proposals()]
                txs += [self.tx(name, Vote(each, True)) for each in open_now for name in "bc"]
            if number == 8:
                self.accused = (key("b"),) if self.proposer != "b" else (key("a"),)
            self.block(*txs, step=rng.choice((0, 1, 3)))
        self.proposer = "operator"
        self.block(step=1)

    @cached_property
    def lights(self) -> list[LightBlock]:
        """What was signed of each height, and of the one that would come next."""
        names = [f"{name}'s" for name in "abcd"]
        keys = [signer(name) for name in ("operator", *names, ROTATED)]
        signers = {each.public_key: each for each in keys}
        powers = {each.consensus_key: each.power for each in self.app.genesis.founders()}
        sets = [_set_of(powers), _set_of(powers)]
        for updates in self.updates:
            powers |= {each.consensus_key: each.power for each in updates}
            sets.append(_set_of(powers))
        made: list[LightBlock] = []
        requests = [request for request, _ in self.mirror.decided]
        hashes = [self.genesis_hash, *(app_hash for _, app_hash in self.mirror.decided)]
        for height, app_hash in enumerate(hashes, 1):
            request = requests[min(height, len(requests)) - 1]
            txs = request.txs if height <= len(requests) else []
            header = Header(
                block_version=BLOCK_PROTOCOL,
                app_version=1,
                chain=self.app.chain_id,
                height=height,
                # each later than the one before, also in one second
                time_ns=(request.time.seconds + height // (len(requests) + 1)) * canonical.SECOND_NS + height,
                last_block_id=made[-1].commit.block_id if made else NO_BLOCK,
                last_commit_hash=sha256(b"votes").digest() if made else b"",
                data_hash=data_hash([node_cid(tx).multihash[-HASH_BYTES:] for tx in txs]),
                validators_hash=sets[height - 1].hash(),
                next_validators_hash=sets[min(height, len(sets) - 1)].hash(),
                consensus_hash=sha256(b"consensus").digest(),
                app_hash=app_hash,
                last_results_hash=sha256(b"results").digest(),
                evidence_hash=canonical.tree_root([b"evidence"] if request.misbehavior else []),
                proposer=request.proposer_address,
            )
            made.append(voted(header, sets[height - 1], signers))
        return made

    @cached_property
    def genesis_hash(self) -> bytes:
        """The app hash before the first block."""
        return type(self.app)(self.app.genesis).app_hash

    def keep_lights(self, last: int) -> None:
        """Notes in the node's store what a `cometbft` beside it would show, up to a height."""
        rows = {light.height: row(light) for light in self.lights[:last]}
        self.mirror.node.storage.keep_lights(rows, self.lights[last - 1].encode())

    def given(self) -> list[GivenBlock]:
        """All blocks as the node's store has them."""
        return list(stored_blocks(History(self.mirror.node.storage), 1, self.app.height))


def _set_of(powers: dict[bytes, int]) -> ValidatorSet:
    return ValidatorSet.of(Validator(key, power) for key, power in powers.items() if power)


def row(light: LightBlock) -> bytes:
    """What is kept of a height that is not the last one."""
    header = light.header
    return encode_header(header) if header.validators_hash == header.next_validators_hash else light.encode()


def forged(light: LightBlock, **changes: object) -> bytes:
    """Another header with the same votes, as a row."""
    return row(replace(light, header=replace(light.header, **changes)))  # type: ignore[arg-type]
