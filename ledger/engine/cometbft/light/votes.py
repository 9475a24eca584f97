"""A commit: the precommits of a height's validators, and the bytes that each of them signed."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

from ledger.engine.cometbft.light import canonical
from ledger.engine.cometbft.light.errors import InvalidLightBlock
from ledger.engine.cometbft.light.header import BlockId
from ledger.keys import ADDRESS_BYTES
from merkledag import protobuf

MAX_SIGNATURE_BYTES = 96
PRECOMMIT = 2


class Flag(IntEnum):
    """What a validator's vote was for."""

    ABSENT = 1
    COMMIT = 2
    NIL = 3


@dataclass(frozen=True, slots=True)
class CommitSig:
    """One validator's part of a commit; of one that was absent, only that."""

    flag: Flag
    address: bytes = b""
    time_ns: int = canonical.ZERO_TIME_NS
    signature: bytes = b""

    def check(self) -> None:
        """Raises InvalidLightBlock (CommitSig.ValidateBasic)."""
        if self.flag is Flag.ABSENT:
            if self.address or self.signature or self.time_ns != canonical.ZERO_TIME_NS:
                raise InvalidLightBlock("a commit has a vote of a validator that it calls absent")
            return
        if len(self.address) != ADDRESS_BYTES or not 0 < len(self.signature) <= MAX_SIGNATURE_BYTES:
            raise InvalidLightBlock("a commit has a vote without an address or a signature of its length")
        if not canonical.ZERO_TIME_NS <= self.time_ns <= canonical.LAST_TIME_NS:
            raise InvalidLightBlock("a commit has a vote of no possible time")


@dataclass(frozen=True, slots=True)
class Commit:
    """The votes by which a block was decided, one for each validator of its height in their order."""

    height: int
    round: int
    block_id: BlockId
    signatures: tuple[CommitSig, ...]

    def check(self) -> None:
        """Raises InvalidLightBlock (Commit.ValidateBasic)."""
        if self.height < 1 or self.round < 0:
            raise InvalidLightBlock(f"a commit of height {self.height} and round {self.round}")
        if self.block_id.is_nil or not self.signatures:
            raise InvalidLightBlock("a commit for no block, or without votes")
        self.block_id.check()
        for each in self.signatures:
            each.check()

    def sign_bytes(self, chain: str, vote: CommitSig) -> bytes:
        """What a validator signed with this vote: a CanonicalVote with its length in front.

        Source: types/vote.go, VoteSignBytes; types/canonical.go. A vote for nil names no block.
        """
        voted = (
            canonical.message(4, self.block_id.encode())
            if vote.flag is Flag.COMMIT and not self.block_id.is_nil
            else b""
        )
        body = (
            canonical.number(1, PRECOMMIT)
            + canonical.fixed(2, self.height)
            + canonical.fixed(3, self.round)
            + voted
            + canonical.message(5, canonical.timestamp(vote.time_ns))
            + canonical.data(6, chain.encode())
        )
        return protobuf.varint(len(body)) + body

    def hash(self) -> bytes:
        """What the next header's `last_commit_hash` is (types/block.go, Commit.Hash)."""
        return canonical.tree_root(
            [
                canonical.number(1, each.flag)
                + canonical.data(2, each.address)
                + canonical.message(3, canonical.timestamp(each.time_ns))
                + canonical.data(4, each.signature)
                for each in self.signatures
            ]
        )
