"""From an archive to a store: a history run again, block by block, or a state put there as it is."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterable, Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from itertools import islice

from ledger.carry import carried_items, check_origin
from ledger.engine.archive import GivenBlock
from ledger.engine.archive_links import Links, check_operator
from ledger.engine.archive_reader import Contents
from ledger.engine.assemble import load_application, run_again
from ledger.engine.blocks import Block, node_cid
from ledger.engine.chain_check import TrustPin
from ledger.engine.cometbft.light.block import LightBlock, decode_header
from ledger.engine.cometbft.light.errors import InvalidLightBlock
from ledger.engine.cometbft.light.header import Header
from ledger.engine.errors import CorruptStore, InvalidArchive
from ledger.engine.storage import LedgerStorage
from ledger.engine.witness import Witness
from ledger.errors import InvalidTransaction
from ledger.genesis import Genesis
from ledger.transactions import decode_beacon
from merkledag.cid import CID

MAX_AHEAD_BLOCKS = 256  # whose beacons are verified together
MAX_AHEAD_BYTES = 16 << 20  # of blocks that wait to be run, and one block more


class Replay:
    """A chain run again from its genesis over `storage`, going on after the last block that is in it.

    With `keep_history` the store becomes that of the ledger; without, it has headers and state alone. `light`
    is the light block that a chain of validators leads to, `pin` a header of it that people told. Raises what
    `load_application` does, and InvalidArchive.
    """

    def __init__(
        self,
        storage: LedgerStorage,
        genesis: Genesis,
        light: LightBlock | None = None,
        pin: TrustPin | None = None,
        *,
        keep_history: bool,
    ) -> None:
        self.app = load_application(storage, genesis)
        self._storage = storage
        self._keep_history = keep_history
        self._light = light
        raw = storage.block(self.app.height) if self.app.height else None
        last = None if raw is None or light is None else _kept_header(storage, self.app.height)
        if pin is not None and raw is not None and storage.first_height() <= pin.height <= self.app.height:
            _require_pinned(storage, pin)
        tip = None if raw is None else node_cid(raw)
        self._links = Links(genesis, light, pin, tip=tip, app_hash=self.app.app_hash, last=last)

    @property
    def tip(self) -> CID | None:
        """The CID of the last block that was run."""
        return self._links.tip

    @property
    def height(self) -> int:
        """The last block that was run."""
        return self.app.height

    def look_ahead(self, following: Sequence[GivenBlock]) -> None:
        """Verifies the beacons of the blocks that `add` is given next together, in two fifths of the time.

        Judges nothing: a beacon that does not verify, or does not follow, is left to `add`.
        """
        if self._light is not None:
            return  # validators have beacon keys of their own, and take turns
        key = self.app.bls_key(self.app.genesis.operator)
        if key is None:
            return
        signatures = []
        for given in following:
            try:
                signatures.append(decode_beacon(given.txs[0]).beacon)
            except (IndexError, InvalidTransaction):
                break
        self.app.beacons.look_ahead(key, self.app.chain_id, self.height + 1, self.app.beacon, signatures)

    def add(self, given: GivenBlock) -> None:
        """Runs the next block and keeps it.

        Raises InvalidArchive when it is not the chain's or does not follow the last one, CorruptStore when it
        is not what was signed, ReplayMismatch when it does not lead to the app hash of its header.
        """
        block, height = given.block, self.app.height + 1
        header = self._links.add(given)
        if header is not None and self.app.proposer_of(header.proposer) != block.account:
            raise InvalidArchive(f"block {height} states another proposer than its header")
        made = run_again(self.app, given.raw, given.txs, height, "of the history")
        stored = replace(made.stored, light=given.light)
        if not self._keep_history:
            stored = replace(stored, txs=(), events=b"", witness=Witness())
        self._storage.apply(stored)
        self.app.commit()
        if (self.app.time, self.app.beacon) != (block.time, block.beacon):
            raise InvalidArchive(f"block {height} states another time or beacon than it led to")

    def finish(self) -> None:
        """There are no more blocks; raises InvalidArchive where they are not what was signed in the end."""
        self._links.finish()
        if self._light is not None:
            raw = self._light.encode()
            after = {self._light.height: raw} if self._light.height > self.height else {}
            self._storage.keep_lights(after, raw)


def _kept_header(storage: LedgerStorage, height: int) -> Header:
    raw = storage.light(height)
    if raw is None:
        raise InvalidArchive(f"the header of block {height}, after which to go on, is missing: begin anew")
    try:
        return decode_header(raw)[0]
    except InvalidLightBlock as error:
        raise CorruptStore(f"header {height} does not decode: {error}") from error


def _require_pinned(storage: LedgerStorage, pin: TrustPin) -> None:
    if _kept_header(storage, pin.height).hash() != pin.hash:
        raise InvalidArchive(f"header {pin.height} is not the one that is trusted ({pin.hash.hex()})")


async def in_batches(blocks: AsyncIterable[GivenBlock]) -> AsyncGenerator[list[GivenBlock], None]:
    """The blocks in lists that `Replay.look_ahead` takes; what came before an error comes before it."""
    batch: list[GivenBlock] = []
    size_bytes = 0
    try:
        async for given in blocks:
            batch.append(given)
            size_bytes += given.size_bytes
            if len(batch) == MAX_AHEAD_BLOCKS or size_bytes >= MAX_AHEAD_BYTES:
                yield batch
                batch, size_bytes = [], 0
    except Exception:
        if batch:
            yield batch
        raise
    if batch:
        yield batch


Fresh = Callable[[], AbstractContextManager[Contents]]
"""Opens an archive's contents anew, from their beginning."""


def restore_state(
    storage: LedgerStorage, genesis: Genesis, block: Block, items: Iterable[tuple[bytes, bytes]]
) -> None:
    """Puts the state after a block into an empty store; there is nothing before that block in the store then.

    Who signed the block is for the caller to know. Raises CorruptStore where the state has another app hash
    than it says.
    """
    storage.restore(genesis.encode(), items, block.height, block.encode(), block.cid.digest, block.app_hash)


def restore_archived(storage: LedgerStorage, fresh: Fresh, pin: TrustPin | None = None) -> GivenBlock:
    """Puts an archive's state into an empty store, and returns the block that led to it.

    Its operator signed that block; or validators the header after it, to which all headers of the archive
    lead. Raises as `restore_state`, and InvalidArchive where it is not so, or there is no state in it.
    """
    with fresh() as contents:
        manifest, genesis = contents.read_state_manifest(), contents.genesis
        if manifest is None:
            raise InvalidArchive("the archive holds no state")
        tip = _signed_block(contents, manifest.height, pin)
    if tip.light:
        storage.keep_lights({manifest.height: tip.light})
    with fresh() as contents:
        restore_state(storage, genesis, tip.block, contents.state())
    return tip


def _signed_block(contents: Contents, height: int, pin: TrustPin | None) -> GivenBlock:
    """The block of that height, of whose app hash an archive shows who signed it."""
    if contents.light is None:
        tip = next(given for given in contents.blocks() if given.block.height == height)
        check_operator(tip.block, contents.genesis)
        return tip
    if contents.light.height <= height:
        raise InvalidArchive(f"it shows no header after block {height}, which would vouch for its state")
    links = Links(contents.genesis, contents.light, pin)
    for given in contents.blocks():
        links.add(given)
        if given.block.height == height:
            tip = given
    links.finish()
    return tip


def begin_after(storage: LedgerStorage, scratch: LedgerStorage, genesis: Genesis, origin: Fresh) -> None:
    """Makes an empty store that of a chain that goes on from the end in `origin`; `scratch` is empty too.

    That end is the one which the new chain's genesis names, whoever signed it. Raises as `restore_state`,
    InvalidArchive where it is none, CorruptState where `genesis` does not go on from there.
    """
    with origin() as contents:
        ended = contents.genesis
        blocks = list(islice(contents.blocks(), 2))
    if len(blocks) != 1:
        raise InvalidArchive("the end of the chain that it goes on from is not one block")
    (tip,) = blocks
    if not ended.validators:
        check_operator(tip.block, ended)
    with origin() as contents:
        restore_state(scratch, ended, tip.block, contents.state())
    rows = scratch.committed().state
    check_origin(genesis, rows, tip.block.app_hash, node_cid(tip.raw))
    storage.create(genesis.encode(), carried_items(genesis, rows))
