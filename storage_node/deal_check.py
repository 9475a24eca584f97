"""Checks that the pieces that a deal pays for are those of its content, for `deal show --verify`.

The ledger cannot know: it keeps commitments, and a client could have committed to anything. Whoever can read
the content can tell, from the content alone: the DAG below the root has exactly the blocks that the erasure
manifest names, their parity is what the manifest says, and the trees over both have the roots in the deal.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from ledger.engine.views import DealView
from merkledag import multihash
from merkledag.cid import CID
from merkledag.codecs import RAW, links
from merkledag.errors import MerkledagError, UnsupportedCodec
from merkledag.steps import arun
from proofs.commitment import PieceRow, PieceTree, commit_block
from proofs.erasure.code import encode_group
from proofs.erasure.manifest import Group, Manifest, decode_manifest
from proofs.errors import ProofsError
from storage_node.custody import ShardTerms
from storage_node.errors import UploadRefused
from storage_node.kzg_rows import Committer
from storage_node.ledger_view import terms_of
from storage_node.piece import BlockRow, piece_row

# The bytes of a verified block, from here or the network. Raises a LookupError for what is nowhere.
GetBlock = Callable[[CID], Awaitable[bytes]]
# A block's commitment, of the deal's kind of proof, made from its bytes.
Commit = Callable[[bytes], Awaitable[BlockRow]]
# Told of (done, total) in bytes of the content's leaves.
Advance = Callable[[int, int], None]

AT_ONCE = 8


@dataclass(slots=True)
class DealCheck:
    """What was found. `problems` are lines, those of one shard by its number, None for the whole deal."""

    deal: CID
    blocks: int = 0
    size_bytes: int = 0
    problems: list[tuple[int | None, str]] = field(default_factory=list)

    @property
    def is_sound(self) -> bool:
        """Whether every piece is the one that belongs to the content."""
        return not self.problems


class _Stop(Exception):
    """Nothing further can be checked."""


async def check_deal(view: DealView, get: GetBlock, commit: Commit, advance: Advance) -> DealCheck:
    """Read all of the content and compare it with the commitments in the deal. Spends nothing.

    `commit` is `merkle_commit`, or `kzg_commit` for a deal that is proven by KZG. Memory is bounded by one
    erasure group and the names of all blocks. Raises BlockNotFound and what else `get` raises when a block
    cannot be had: then it is not known.
    """
    found = DealCheck(view.id)
    with suppress(_Stop):
        await _Check(view, get, commit, advance, found).run()
    return found


async def merkle_commit(data: bytes) -> BlockRow:
    """The commitment for Merkle proofs."""
    return await asyncio.to_thread(commit_block, data)


def kzg_commit(committer: Committer) -> Commit:
    """What makes the commitments for KZG proofs; not those that are kept are believed."""
    slots = committer.slots()

    async def commit(data: bytes) -> BlockRow:
        return await committer.commit(data, slots)

    return commit


class _Check:
    def __init__(
        self, view: DealView, get: GetBlock, commit: Commit, advance: Advance, found: DealCheck
    ) -> None:
        self._view = view
        self._get = get
        self._commit = commit
        self._advance = advance
        self._found = found
        self._terms: Sequence[ShardTerms] = [terms_of(view, index) for index in range(len(view.shards))]

    async def run(self) -> None:
        manifest, own = await self._manifest()
        meta = await self._metadata(manifest, own)
        for terms, data in zip(self._terms, await self._data(manifest), strict=True):
            self._compare(terms, data, meta)

    def _problem(self, text: str, shard: int | None = None) -> None:
        self._found.problems.append((shard, text))

    async def _manifest(self) -> tuple[Manifest, dict[bytes, BlockRow]]:
        """The manifest and its own blocks in order; stops where it is not this deal's."""
        own: dict[bytes, BlockRow] = {}

        async def get(cid: CID) -> bytes:
            data = await self._get(cid)
            own[cid.multihash] = await self._commit(data)
            return data

        try:
            manifest = await arun(decode_manifest(self._view.deal.manifest), get)
        except (MerkledagError, ProofsError) as error:
            self._problem(f"the deal's erasure manifest is none: {error}")
            raise _Stop from error
        if manifest.node_count != len(self._terms):
            self._problem(f"the manifest has {manifest.node_count} pieces, the deal {len(self._terms)}")
            raise _Stop
        for terms in self._terms:
            try:
                terms.check(manifest)
            except UploadRefused as refusal:
                self._problem(str(refusal), terms.key.shard)
        if self._found.problems:
            raise _Stop
        return manifest, own

    async def _metadata(self, manifest: Manifest, own: dict[bytes, BlockRow]) -> PieceTree:
        """The tree of the metadata part; stops where the DAG's blocks are not those of the manifest."""
        leaves, interior = await self._walk(manifest)
        if list(interior) != list(manifest.interior):
            self._problem("the manifest names other interior nodes than the content has")
        if leaves - interior.keys() != set(manifest.plan.leaves):
            self._problem("the manifest names other leaf blocks than the content has")
        if self._found.problems:
            raise _Stop
        self._found.blocks += len(interior)
        return self._tree([piece_row(name, made) for name, made in (own | interior).items()])

    def _tree(self, rows: list[PieceRow]) -> PieceTree:
        return PieceTree(rows, kind=self._view.deal.proof)

    async def _walk(self, manifest: Manifest) -> tuple[set[bytes], dict[bytes, BlockRow]]:
        """The content's leaves, and its interior nodes in depth-first pre-order; raw leaves are not read.

        As `survey` does it. Stops as soon as there are more blocks than the manifest names.
        """
        most = len(manifest.interior) + len(manifest.plan.leaves)
        leaves: set[bytes] = set()
        interior: dict[bytes, BlockRow] = {}
        seen: set[CID] = set()
        here: dict[CID, bytes] = {}
        stack = [manifest.content]
        while stack:
            cid = stack.pop()
            if cid in seen:
                continue
            seen.add(cid)
            if len(leaves) + len(interior) > most:
                self._problem("the content has more blocks than the manifest names")
                raise _Stop
            below: list[CID] = []
            if cid.codec != RAW:
                data = cid.digest if cid.is_identity else await self._ahead(cid, stack, here)
                below = self._links(cid, data)
            stack.extend(reversed(below))
            if below and not cid.is_identity:
                if cid.multihash not in interior:
                    interior[cid.multihash] = await self._commit(data)
                    self._found.size_bytes += len(data)
            elif not cid.is_identity:
                leaves.add(cid.multihash)
        return leaves, interior

    def _links(self, cid: CID, data: bytes) -> list[CID]:
        try:
            return links(cid, data)
        except UnsupportedCodec:
            return []
        except MerkledagError as error:
            self._problem(f"block {cid} of the content does not decode: {error}")
            raise _Stop from error

    async def _ahead(self, cid: CID, stack: Sequence[CID], here: dict[CID, bytes]) -> bytes:
        """A node's bytes; those that come next are fetched with it."""
        if cid not in here:
            soon = [each for each in stack[-AT_ONCE:] if each.codec != RAW and not each.is_identity]
            wanted = [each for each in dict.fromkeys([cid, *reversed(soon)]) if each not in here]
            here.update(zip(wanted, await asyncio.gather(*map(self._get, wanted)), strict=True))
        return here.pop(cid)

    async def _data(self, manifest: Manifest) -> list[PieceTree]:
        """The tree of each shard's data part, made from the content's leaves alone."""
        total = sum(manifest.plan.lengths)
        done = 0
        self._advance(0, total)
        rows: list[list[PieceRow]] = [[] for _ in self._terms]
        for names, lengths, parity in _portions(manifest):
            blocks = await asyncio.gather(*(self._get(CID(1, RAW, name)) for name in names))
            if [len(block) for block in blocks] != list(lengths):
                self._problem("the manifest gives the content's blocks other lengths than they have")
                raise _Stop
            encoded = await asyncio.to_thread(encode_group, manifest.k, manifest.m, blocks) if parity else []
            made = await asyncio.gather(*map(self._commit, (*blocks, *encoded)))
            for share, (name, row) in enumerate(zip((*names, *parity), made, strict=True)):
                for each in self._holders(manifest, share, len(names)):
                    rows[each].append(piece_row(name, row))
            for shard, (name, block) in enumerate(zip(parity, encoded, strict=True), manifest.k):
                if not multihash.verify(name, block):
                    self._problem("a parity block is not made from the content: it restores nothing", shard)
            done += sum(map(len, blocks))
            self._found.blocks += len(blocks)
            self._found.size_bytes += sum(map(len, blocks))
            self._advance(done, total)
        if self._found.problems:
            raise _Stop
        return [self._tree(each) for each in rows]

    def _holders(self, manifest: Manifest, share: int, members: int) -> Iterable[int]:
        """The shards that hold one share of a group with so many members."""
        if manifest.replicated:
            return range(len(self._terms))
        return (share if share < members else manifest.k + share - members,)

    def _compare(self, terms: ShardTerms, data: PieceTree, meta: PieceTree) -> None:
        piece = terms.piece
        if data.root != piece.data:
            self._problem("its data is committed to other bytes than the content's", terms.key.shard)
        if meta.root != piece.meta:
            self._problem("its metadata is committed to other bytes than the content's", terms.key.shard)


def _portions(manifest: Manifest) -> Iterator[Group]:
    """What is looked at together: each group; without groups, a few leaves at a time."""
    if not manifest.replicated:
        yield from manifest.groups()
        return
    leaves, lengths = list(manifest.plan.leaves), manifest.plan.lengths
    for start in range(0, len(leaves), AT_ONCE):
        rows = slice(start, start + AT_ONCE)
        yield Group(tuple(leaves[rows]), tuple(lengths[rows]), ())
