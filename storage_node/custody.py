"""The pieces in this node's care: those that arrive and those it holds."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path

from ledger.transactions import PieceCommitment
from merkledag import multihash
from merkledag.cid import CID
from proofs.commitment import PieceRow, SumNode
from proofs.erasure.manifest import Manifest
from proofs.errors import BlockChanged
from proofs.kinds import ProofKind
from storage_node import piece_file
from storage_node.blockstore.interface import BlockClass, Blockstore
from storage_node.duties import ShardKey
from storage_node.errors import BlockNotFound, CorruptStore, OtherRelease, PieceLost, UploadRefused
from storage_node.kzg_rows import KzgRows
from storage_node.piece import BlockRow, PieceLayout, Row, piece_tree
from storage_node.piece_file import PieceFile, PieceHead
from storage_node.rows import ProofRows
from storage_node.upload import PieceIntake
from storage_node.upload_file import note_upload, upload_path

# Held pieces of the same content, the latest first, that are searched for rows of small blocks.
MAX_OLDER_PIECES = 4


@dataclass(frozen=True, slots=True)
class ShardTerms:
    """What the ledger says of one shard of a deal. ``client`` is the account that may upload it; the deal
    pays ``price`` units a period for it, ``periods`` times."""

    key: ShardKey
    client: bytes
    content: CID
    manifest: CID
    k: int
    m: int
    replicated: bool
    piece: PieceCommitment
    price: int
    periods: int
    proof: ProofKind = ProofKind.MERKLE

    def check(self, manifest: Manifest) -> None:
        """Raises UploadRefused for a manifest that is not of this deal's content, code and sizes."""
        said = (manifest.content, manifest.k, manifest.m, manifest.replicated)
        if said != (self.content, self.k, self.m, self.replicated):
            raise UploadRefused("the manifest's content root or code is not the deal's")
        if self.key.shard >= manifest.node_count:
            raise UploadRefused("the manifest has no piece for this shard")
        lengths = [length for _, length in manifest.piece(self.key.shard)]
        leaves = sum(map(self.proof.unit_count, lengths))
        if (sum(lengths), leaves) != (self.piece.data_bytes, self.piece.data_leaves):
            raise UploadRefused("the manifest's block lengths are not those of the deal's piece")


@dataclass(frozen=True, slots=True)
class DamagedFile:
    """What is wrong with a piece's file. One that `may_go` is deleted when its shard is not ours any more."""

    reason: str
    may_go: bool

    @classmethod
    def of(cls, error: CorruptStore | OSError) -> DamagedFile:
        """One that the disk did not give, or that another release wrote, may be whole."""
        is_lost = isinstance(error, CorruptStore | FileNotFoundError) and not isinstance(error, OtherRelease)
        return cls(str(error), may_go=is_lost)


class Custody:
    """Piece files in a folder, blocks in the store, unfinished uploads in memory. Safe from any thread."""

    def __init__(self, folder: Path, store: Blockstore, rows: ProofRows, kzg: KzgRows | None = None) -> None:
        """Without ``kzg``, pieces that are proven by KZG cannot be kept."""
        self._folder = folder
        self._store = store
        self._rows = rows
        self._kzg = kzg
        self._lock = threading.Lock()
        self._held: dict[ShardKey, PieceHead] = {}
        self._damaged: dict[ShardKey, DamagedFile] = {}
        self._intakes: dict[ShardKey, PieceIntake] = {}
        # Blobs of pieces that are being prepared for KZG proofs: committed to, and in all.
        self.preparing: dict[ShardKey, tuple[int, int]] = {}

    def load(self) -> None:
        """Learn of every piece file, before anything else. Damaged ones are left alone."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for left in self._folder.glob("*.tmp"):
            left.unlink(missing_ok=True)  # by a process that was killed
        for name in piece_file.names(self._folder):
            try:
                piece = piece_file.load_head(self._folder, name)
            except (CorruptStore, OSError) as error:
                if (named := piece_file.shard_of(name)) is not None:
                    with self._lock:
                        self._damaged[ShardKey(*named)] = DamagedFile.of(error)
                continue
            with self._lock:
                self._held[ShardKey(piece.deal, piece.shard)] = piece

    def damaged(self) -> dict[ShardKey, DamagedFile]:
        """Files that were found damaged and are not made anew yet."""
        with self._lock:
            return dict(self._damaged)

    def held(self) -> dict[ShardKey, PieceHead]:
        """Every piece that is complete, checked and on disk."""
        with self._lock:
            return dict(self._held)

    def piece(self, key: ShardKey) -> PieceHead | None:
        """One held piece."""
        with self._lock:
            return self._held.get(key)

    def deal_with(self, multihash: bytes) -> CID | None:
        """A deal of which a held piece has this block. Reads the pieces' rows, so call it in a thread."""
        for key, piece in self.held().items():
            with suppress(CorruptStore, OSError):
                if piece.may_have(multihash):
                    return key.deal
        return None

    def opened(self, key: ShardKey) -> PieceFile:
        """A held piece's rows and trees. Raises PieceLost if its file is gone or, at a glance, damaged."""
        return self._read(key, PieceHead.open)

    def checked(self, key: ShardKey) -> PieceFile:
        """As `opened`, but reads all of the file, so that no damage is overlooked."""
        return self._read(key, PieceHead.check)

    def roots(self, key: ShardKey) -> tuple[SumNode, SumNode]:
        """The roots of a held piece's metadata and data trees. Raises PieceLost."""
        head = self.piece(key)
        if head is None:
            raise PieceLost(key.deal, key.shard)
        return head.meta, head.data

    def _read(self, key: ShardKey, read: Callable[[PieceHead], PieceFile]) -> PieceFile:
        head = self.piece(key)
        if head is None:
            raise PieceLost(key.deal, key.shard)
        try:
            return read(head)
        except (CorruptStore, OSError) as error:
            with self._lock:
                if self._held.get(key) is head:
                    del self._held[key]  # it counts as not held, and is made anew
                    self._damaged[key] = DamagedFile.of(error)
            raise PieceLost(key.deal, key.shard) from error

    def intake(self, terms: ShardTerms) -> PieceIntake:
        """The upload state of an offered shard, made from what is in the store if there is none yet."""
        with self._lock:
            known = self._intakes.get(terms.key)
        if known is not None:
            return known
        intake = PieceIntake(
            terms.manifest,
            terms.key.shard,
            terms.piece,
            check=terms.check,
            find=self._find,
            has=self._store.has,
            put=partial(self._take, terms.proof),
        )
        intake.resume()
        with self._lock:
            return self._intakes.setdefault(terms.key, intake)

    def note(self, terms: ShardTerms, intake: PieceIntake) -> None:
        """A client has gone, or all is here: no collection takes what came before it is kept as a piece."""
        with self._lock:
            known = self._intakes.get(terms.key) is intake
        if known:
            note_upload(self._upload_path(terms.key), intake.wanted())

    def _upload_path(self, key: ShardKey) -> Path:
        return upload_path(self._folder, key.deal, key.shard)

    def reset(self, key: ShardKey) -> None:
        """Forget an upload's state; what is in the store is found again."""
        with self._lock:
            self._intakes.pop(key, None)

    def reserved_bytes(self, besides: ShardKey) -> int:
        """Bytes that other unfinished uploads may still bring."""
        with self._lock:
            others = [intake for key, intake in self._intakes.items() if key != besides]
        return sum(intake.remaining_bytes() for intake in others)

    def _find(self, multihash: bytes) -> bytes | None:
        found = self._store.find(multihash)
        if found is None:
            return None
        with found as view:
            return bytes(view)

    def can_prove(self, proof: ProofKind) -> bool:
        """Whether pieces that are proven so can be kept."""
        return proof is ProofKind.MERKLE or self._kzg is not None

    def _take(self, proof: ProofKind, items: Iterable[tuple[bytes, bytes]]) -> None:
        """Store blocks, and let their proof rows be made while more come."""
        blocks = list(items)
        self._store.put_many(blocks, BlockClass.DEAL)
        if proof is ProofKind.MERKLE:
            self._rows.begin({multihash: len(data) for multihash, data in blocks})

    async def prepare(self, terms: ShardTerms, layout: PieceLayout) -> None:
        """Make the KZG commitments that a complete piece needs, so that `keep` is quick; hold a lease."""
        if terms.proof is ProofKind.KZG:
            assert self._kzg is not None, "nothing is kept that could not be proven"

            def advance(done: int, total: int) -> None:
                self.preparing[terms.key] = (done, total)

            try:
                await self._kzg.prepare([*layout.meta, *layout.data], advance)
            finally:
                self.preparing.pop(terms.key, None)

    def keep(self, terms: ShardTerms, layout: PieceLayout) -> None:
        """Make the proof rows of a complete piece that are not made yet, compare both trees with the ledger,
        and write its file.

        Raises UploadRefused when they differ, BlockNotFound when a block is gone, OSError.
        """
        absent = self._store.touch_many([*layout.meta, *layout.data], BlockClass.DEAL)
        if absent:
            self.reset(terms.key)
            raise BlockNotFound(
                f"{len(absent)} blocks of the piece went before it was complete: send them again"
            )
        if terms.proof is ProofKind.MERKLE:
            row = self._hashed(terms, layout)
        else:
            assert self._kzg is not None, "nothing is kept that could not be proven"
            row = self._kzg.row
        meta = piece_tree(layout.meta, row, terms.proof)
        data = piece_tree(layout.data, row, terms.proof)
        if meta.root != terms.piece.meta or data.root != terms.piece.data:
            self._check_blocks(terms.proof, layout)
            raise UploadRefused("the piece does not have the commitment that the deal states")
        piece = PieceFile(terms.key.deal, terms.key.shard, terms.content, terms.manifest, meta, data)
        head = piece_file.save(self._folder, piece)
        with self._lock:
            self._held[terms.key] = head
            self._damaged.pop(terms.key, None)
            self._intakes.pop(terms.key, None)
        self._upload_path(terms.key).unlink(missing_ok=True)
        if terms.proof is ProofKind.MERKLE:
            self._rows.leave_to_piece(piece.rows())

    def _check_blocks(self, proof: ProofKind, layout: PieceLayout) -> None:
        """After rows that do not lead to the piece's roots: they are forgotten, to be made anew.

        Those for KZG proofs, which take long, are kept: they were made of blocks that were checked then.
        Raises BlockChanged where it is the blocks that have changed.
        """
        names = [*layout.meta, *layout.data]
        if proof is ProofKind.MERKLE:
            self._rows.forget_hashes(names)
        for name in names:
            with self._store.view(name) as data:
                if not multihash.verify(name, data):
                    raise BlockChanged(name)

    def _hashed(self, terms: ShardTerms, layout: PieceLayout) -> Row:
        """The rows of a piece's blocks: kept ones, those of an older piece of this content, new ones."""
        names = [*layout.meta, *layout.data]
        missing = {name for name in names if self._rows.find(name) is None}
        known: dict[bytes, PieceRow] = {}
        like_it = (piece for piece in reversed(self.held().values()) if _is_like(piece, terms))
        for piece in islice(like_it, MAX_OLDER_PIECES if missing else 0):
            with suppress(CorruptStore, OSError):
                known |= {row.multihash: row for row in piece.check().rows() if row.multihash in missing}
        self._rows.ensure([name for name in names if name not in known], lambda _: None)

        def row(multihash: bytes) -> BlockRow:
            return known.get(multihash) or self._rows.row(multihash)

        return row

    def drop(self, key: ShardKey) -> None:
        """Let go of a piece: its blocks leave with the next garbage collection."""
        with self._lock:
            self._held.pop(key, None)
            self._damaged.pop(key, None)
            self._intakes.pop(key, None)
        self._upload_path(key).unlink(missing_ok=True)
        (self._folder / piece_file.file_name(key.deal, key.shard)).unlink(missing_ok=True)


def _is_like(piece: PieceHead, terms: ShardTerms) -> bool:
    """Whether a held piece is of the same content, and proven in the same manner."""
    return (piece.content, piece.proof) == (terms.content, terms.proof)
