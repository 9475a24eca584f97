"""A CometBFT header and its hash: the root of a Merkle tree over its fourteen fields."""

from __future__ import annotations

from dataclasses import dataclass

from ledger.engine.cometbft.light import canonical
from ledger.engine.cometbft.light.errors import InvalidLightBlock
from ledger.keys import ADDRESS_BYTES

HASH_BYTES = 32
BLOCK_PROTOCOL = 11
MAX_CHAIN_ID_BYTES = 50  # types.MaxChainIDLen
MAX_APP_HASH_BYTES = 1_024  # CometBFT sets no bound


# Fields of a header that are hashes, in its order: before its proposer's address.
HASHES = (
    "last_commit_hash",
    "data_hash",
    "validators_hash",
    "next_validators_hash",
    "consensus_hash",
    "app_hash",
    "last_results_hash",
    "evidence_hash",
)


@dataclass(frozen=True, slots=True)
class BlockId:
    """What a commit signs: the header's hash, and number and hash of the parts that the block is sent in."""

    hash: bytes
    parts: int
    parts_hash: bytes

    @property
    def is_nil(self) -> bool:
        """Whether it is of no block."""
        return not self.hash and not self.parts and not self.parts_hash

    def encode(self) -> bytes:
        """The message BlockID, which CanonicalBlockID equals."""
        parts = canonical.number(1, self.parts) + canonical.data(2, self.parts_hash)
        return canonical.data(1, self.hash) + canonical.message(2, parts)

    def check(self) -> None:
        """Raises InvalidLightBlock where a hash is of another length."""
        if len(self.hash) not in (0, HASH_BYTES) or len(self.parts_hash) not in (0, HASH_BYTES):
            raise InvalidLightBlock("a block's ID has a hash that is not of 32 bytes")


@dataclass(frozen=True, slots=True)
class Header:
    """A block's header; `time_ns` since 1970. `app_hash` is the state's after the block before."""

    block_version: int
    app_version: int
    chain: str
    height: int
    time_ns: int
    last_block_id: BlockId
    last_commit_hash: bytes
    data_hash: bytes
    validators_hash: bytes
    next_validators_hash: bytes
    consensus_hash: bytes
    app_hash: bytes
    last_results_hash: bytes
    evidence_hash: bytes
    proposer: bytes

    def hash(self) -> bytes:
        """32 bytes (types/block.go, Header.Hash)."""
        version = canonical.number(1, self.block_version) + canonical.number(2, self.app_version)
        return canonical.tree_root(
            [
                version,
                canonical.data(1, self.chain.encode()),
                canonical.number(1, self.height),
                canonical.timestamp(self.time_ns),
                self.last_block_id.encode(),
                *(canonical.data(1, getattr(self, name)) for name in HASHES),
                canonical.data(1, self.proposer),
            ]
        )

    def check(self) -> None:
        """Raises InvalidLightBlock where a field has no possible value (Header.ValidateBasic)."""
        if self.block_version != BLOCK_PROTOCOL:
            raise InvalidLightBlock(f"a header of block protocol {self.block_version}, not {BLOCK_PROTOCOL}")
        if len(self.chain.encode()) > MAX_CHAIN_ID_BYTES:
            raise InvalidLightBlock(f"a header's chain ID has more than {MAX_CHAIN_ID_BYTES} bytes")
        if self.height < 1:
            raise InvalidLightBlock(f"a header of height {self.height}")
        if not canonical.ZERO_TIME_NS <= self.time_ns <= canonical.LAST_TIME_NS:
            raise InvalidLightBlock("a header's time is no time of the years 1 to 9999")
        self.last_block_id.check()
        if len(self.validators_hash) != HASH_BYTES:
            raise InvalidLightBlock("a header names no validators")
        for name in HASHES:
            if name != "app_hash" and len(getattr(self, name)) not in (0, HASH_BYTES):
                raise InvalidLightBlock("a header has a hash that is not of 32 bytes")
        if len(self.app_hash) > MAX_APP_HASH_BYTES:
            raise InvalidLightBlock(f"a header's app hash has more than {MAX_APP_HASH_BYTES} bytes")
        if len(self.proposer) != ADDRESS_BYTES:
            raise InvalidLightBlock(f"a header's proposer is no address of {ADDRESS_BYTES} bytes")


def data_hash(tx_digests: list[bytes]) -> bytes:
    """What a header's `data_hash` is for transactions of these SHA-256 digests (types/tx.go, Txs.Hash)."""
    return canonical.tree_root(tx_digests)
