"""Light blocks of a made-up chain, signed with real keys: for what no honest network would show."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from hashlib import sha256
from itertools import count

from ledger.engine.cometbft.light.block import LightBlock
from ledger.engine.cometbft.light.canonical import SECOND_NS
from ledger.engine.cometbft.light.header import BLOCK_PROTOCOL, BlockId, Header
from ledger.engine.cometbft.light.validators import Validator, ValidatorSet
from ledger.engine.cometbft.light.votes import Commit, CommitSig, Flag
from merkledag.ed25519 import Ed25519Signer

CHAIN = "made-up"
START_NS = 1_780_000_000 * SECOND_NS
NO_BLOCK = BlockId(b"", 0, b"")


def signer(name: str) -> Ed25519Signer:
    """A key of its own for each name."""
    return Ed25519Signer.from_seed(sha256(name.encode()).digest())


def set_of(powers: dict[str, int]) -> ValidatorSet:
    """Validators by name, in CometBFT's order."""
    return ValidatorSet.of(Validator(signer(name).public_key, power) for name, power in powers.items())


def block_of(
    height: int,
    now: dict[str, int],
    following: dict[str, int] | None = None,
    *,
    last: BlockId = NO_BLOCK,
    time_ns: int | None = None,
    app_hash: bytes = b"",
    data_hash: bytes = b"",
    absent: Collection[str] = (),
    nil: Collection[str] = (),
) -> LightBlock:
    """A block of the validators `now`, signed by all but those named; `following` come after it."""
    own, after = set_of(now), set_of(now if following is None else following)
    header = Header(
        block_version=BLOCK_PROTOCOL,
        app_version=1,
        chain=CHAIN,
        height=height,
        time_ns=START_NS + height * SECOND_NS if time_ns is None else time_ns,
        last_block_id=last,
        last_commit_hash=b"",
        data_hash=data_hash,
        validators_hash=own.hash(),
        next_validators_hash=after.hash(),
        consensus_hash=sha256(b"consensus").digest(),
        app_hash=app_hash,
        last_results_hash=b"",
        evidence_hash=b"",
        proposer=own.validators[0].address,
    )
    return signed(header, now, absent=absent, nil=nil)


def signed(
    header: Header, now: dict[str, int], *, absent: Collection[str] = (), nil: Collection[str] = ()
) -> LightBlock:
    """Any header with the votes of those validators."""
    signers = {signer(name).public_key: signer(name) for name in now}
    keys = [[signer(name).public_key for name in names] for names in (absent, nil)]
    return voted(header, set_of(now), signers, absent=keys[0], nil=keys[1])


def voted(
    header: Header,
    own: ValidatorSet,
    signers: Mapping[bytes, Ed25519Signer],
    *,
    absent: Collection[bytes] = (),
    nil: Collection[bytes] = (),
) -> LightBlock:
    """Any header with the votes of any validators, by their keys."""
    commit = Commit(header.height, 0, BlockId(header.hash(), 1, sha256(b"parts").digest()), ())
    votes = []
    for each in own.validators:
        if each.public_key in absent:
            votes.append(CommitSig(Flag.ABSENT))
            continue
        flag = Flag.NIL if each.public_key in nil else Flag.COMMIT
        vote = CommitSig(flag, each.address, header.time_ns + SECOND_NS)
        signature = signers[each.public_key].sign(commit.sign_bytes(header.chain, vote))
        votes.append(replace(vote, signature=signature))
    return LightBlock(header, replace(commit, signatures=tuple(votes)), own)


def chain_of(sets: Sequence[dict[str, int]], *, fork: bytes = b"", fork_at: int = 0) -> list[LightBlock]:
    """Blocks 1 and up, of these validators each; from `fork_at` on `fork` makes it another history."""
    blocks: list[LightBlock] = []
    for height, now, following in zip(count(1), sets, [*sets[1:], sets[-1]], strict=False):
        app_hash = sha256(b"%d" % height + (fork if height >= fork_at else b"")).digest()
        last = blocks[-1].commit.block_id if blocks else NO_BLOCK
        blocks.append(block_of(height, now, following, last=last, app_hash=app_hash))
    return blocks
