"""Whether the blocks of a history follow from each other, and are signed as their chain's are.

An operator signs each of its blocks, which names the one before. Blocks that validators decided are named by
their headers, which do; `light.header_chain` counts who signed those.
"""

from __future__ import annotations

from ledger.engine.archive import GivenBlock
from ledger.engine.blocks import Block, node_cid
from ledger.engine.chain_check import TrustPin
from ledger.engine.cometbft.light import canonical
from ledger.engine.cometbft.light.block import LightBlock
from ledger.engine.cometbft.light.block_match import differs
from ledger.engine.cometbft.light.errors import InvalidLightBlock
from ledger.engine.cometbft.light.header import Header
from ledger.engine.cometbft.light.header_chain import HeaderChain
from ledger.engine.errors import InvalidArchive
from ledger.genesis import Genesis
from merkledag.cid import CID


def check_operator(block: Block, genesis: Genesis) -> None:
    """Raises InvalidArchive for a block that is not of this chain, signed by its operator."""
    is_its = block.chain == genesis.chain_id and block.account == genesis.operator
    if not is_its or block.misbehaviour or not block.verify():
        raise InvalidArchive(
            f"block {block.height} is not of chain {genesis.chain_id}, signed by its operator"
        )


class Links:
    """Takes a chain's blocks in their order, and says whether they are its own. Raises InvalidArchive.

    It begins at the genesis, or goes on after a block: `tip` is that one's CID, `app_hash` what it led to
    (None: not known), `last` its header. `light` is the light block that a chain of validators leads to.
    """

    def __init__(
        self,
        genesis: Genesis,
        light: LightBlock | None,
        pin: TrustPin | None = None,
        *,
        tip: CID | None = None,
        app_hash: bytes | None = None,
        last: Header | None = None,
    ) -> None:
        self.tip = tip
        self._genesis = genesis
        self._app_hash = app_hash
        self._headers: HeaderChain | None = None
        if light is not None:
            try:
                self._headers = HeaderChain(genesis, light, pin, last)
            except InvalidLightBlock as error:
                raise InvalidArchive(f"its last light block does not hold: {error}") from error

    def add(self, given: GivenBlock) -> Header | None:
        """The next block; returns its header if it has one. What it leads to is for a replay to say."""
        block = given.block
        header = None
        if self._headers is None and self._genesis.validators:
            raise InvalidArchive(f"nothing shows who signed the blocks of chain {self._genesis.chain_id}")
        if self._headers is None:
            check_operator(block, self._genesis)
            if block.prev != self.tip:
                raise InvalidArchive(f"block {block.height} does not follow the block that came before it")
        else:
            header = self._check_decided(block, given.light, self._headers)
        self.tip = node_cid(given.raw)
        self._app_hash = block.app_hash
        return header

    def finish(self) -> None:
        """There are no more blocks."""
        if self._headers is None or self.tip is None:
            return
        try:
            self._headers.finish()
        except InvalidLightBlock as error:
            raise InvalidArchive(str(error)) from error
        if self._headers.end.header != self._headers.last:
            self._check_app_hash(self._headers.end.header)

    def _check_decided(self, block: Block, light: bytes, headers: HeaderChain) -> Header:
        if not light:
            raise InvalidArchive(f"who signed block {block.height} is not known there")
        try:
            header = headers.add(light)
        except InvalidLightBlock as error:
            raise InvalidArchive(f"block {block.height}: {error}") from error
        if (block.prev, block.sig) != (None, b""):
            raise InvalidArchive(f"block {block.height} is none that validators decided")
        if block.height != header.height:
            raise InvalidArchive(f"block {block.height} has the header of height {header.height}")
        if other := differs(block, header):
            raise InvalidArchive(f"block {block.height} has not {other} of its header")
        if block.misbehaviour and header.evidence_hash in (b"", canonical.tree_root([])):
            raise InvalidArchive(f"block {block.height} accuses validators, its header has no evidence")
        self._check_app_hash(header)
        return header

    def _check_app_hash(self, header: Header) -> None:
        if self._app_hash is not None and header.app_hash != self._app_hash:
            raise InvalidArchive(
                f"block {header.height - 1} states app hash {self._app_hash.hex()}, the header after it "
                f"{header.app_hash.hex()}"
            )
