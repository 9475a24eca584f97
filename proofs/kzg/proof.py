"""The KZG proof of a period: the commitments to the drawn blobs, their Merkle paths, and one short opening.

The opening is of a linear combination of the drawn blobs' polynomials, at a point that follows, as its
coefficients do, from the challenge's seed: nobody who has not every byte of every drawn blob can compute it
when the seed is out, or prepare it before. Format and reasons: docs/proofs.md, "KZG proof".
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence

from merkledag import dag_cbor
from merkledag.multihash import Buffer
from proofs import tags, walk
from proofs.bls.points import G1_INFINITY, R
from proofs.challenge import Challenge
from proofs.commitment import PieceRow
from proofs.errors import BlockChanged, InvalidProof
from proofs.kinds import ProofKind
from proofs.kzg.backend import Backend, Opening, backend
from proofs.kzg.blob_commitments import BlobCommitments, OpenedBlobs, commit_block
from proofs.kzg.blobs import BLOB_BYTES
from proofs.kzg.field import SCALAR_BYTES, is_scalar
from proofs.kzg.polynomial import combine
from proofs.kzg.setup import Setup
from proofs.merkle_proof import Read
from proofs.walk import DatasetView, ShownUnit

VERSION = 1
COEFFICIENT_BYTES = 16
Kept = Callable[[bytes], BlobCommitments | None]
_KEYS = frozenset({"data", "kind", "meta", "pi", "version", "y"})


def point(seed: bytes) -> int:
    """z, the point at which the linear combination is opened: below r."""
    return int.from_bytes(hashlib.sha256(tags.KZG_POINT + seed).digest(), "big") % R


def coefficients(seed: bytes, count: int) -> list[int]:
    """ν₀ … ν_count−1, one for each drawn blob: 128 bits, faster to verify than powers of one number."""
    stream = b"".join(
        hashlib.sha256(tags.KZG_COEFFICIENTS + seed + index.to_bytes(8, "big")).digest()
        for index in range((count + 1) // 2)
    )
    return [
        int.from_bytes(stream[start : start + COEFFICIENT_BYTES], "big")
        for start in range(0, count * COEFFICIENT_BYTES, COEFFICIENT_BYTES)
    ]


def prove(
    challenge: Challenge,
    view: DatasetView,
    read: Read,
    kept: Kept,
    setup: Setup,
    using: Backend,
) -> bytes:
    """The proof that answers `challenge`; about 0.2 s, and one blob at a time in memory.

    `read` is as for `merkle_proof.prove`. `kept(multihash)` returns what `commit_block` gave for the block;
    where that is None, or does not fit, all of the block is committed to again, which takes long. Raises
    ViewMismatch if `view` is not what was challenged, BlockChanged if a block's bytes have changed, and
    ValueError if the challenge is for another kind.
    """
    if challenge.kind is not ProofKind.KZG:
        raise ValueError(f"a challenge for a proof of kind {challenge.kind.value!r}")
    drawn_blobs: list[tuple[bytes, int, bytes]] = []

    def open_block(row: PieceRow, drawn: list[int]) -> OpenedBlobs:
        block = kept(row.multihash)
        if block is None or block.row(row.multihash) != row:
            whole = read(row.multihash, 0, row.leaves * BLOB_BYTES)
            block = commit_block(whole, setup, using)
            if block.row(row.multihash) != row:
                raise BlockChanged(row.multihash)
        opened = OpenedBlobs(block, drawn)
        drawn_blobs.extend(zip([row.multihash] * len(drawn), drawn, opened.shown, strict=True))
        return opened

    def blobs() -> Iterator[Buffer]:
        for multihash, index, _ in drawn_blobs:
            yield read(multihash, index * BLOB_BYTES, BLOB_BYTES)

    data, meta = walk.show(challenge, view, open_block)
    scalars, z = coefficients(challenge.seed, len(drawn_blobs)), point(challenge.seed)
    y, pi = using.open(setup, combine(blobs(), scalars), z)
    points = [commitment for _, _, commitment in drawn_blobs]
    if points and not using.verify(points, scalars, z, y, pi):
        for (multihash, _, commitment), blob in zip(drawn_blobs, blobs(), strict=True):
            if using.commit(setup, blob) != commitment:
                raise BlockChanged(multihash)
        raise AssertionError("the opening of undamaged blobs is valid")
    return dag_cbor.encode(
        {
            "data": data,
            "kind": challenge.kind.value,
            "meta": meta,
            "pi": pi,
            "version": VERSION,
            "y": y.to_bytes(SCALAR_BYTES, "big"),
        }
    )


def verify(challenge: Challenge, proof: bytes, using: Backend | None = None) -> list[ShownUnit]:
    """The commitments that the proof shows, if it answers `challenge`: those of the data tree first.

    Else raises InvalidProof; never anything else, for any bytes. The work is bounded by the challenge: O(k ·
    depth) hashes, then k points and two pairings, and none of these where a hash or a form is wrong already.
    """
    units, opening = _read(challenge, proof)
    if opening is not None and not (using or backend()).verify(*opening):
        raise _not_opened()
    return units


def verify_many(
    claims: Sequence[tuple[Challenge, bytes]], using: Backend | None = None
) -> list[InvalidProof | None]:
    """Why each proof does not answer its challenge, None where it does: what `verify` says of each alone.

    Two pairings for all together where all are valid; each by itself if they are not.
    """
    using = using or backend()
    verdicts: list[InvalidProof | None] = []
    openings: dict[int, Opening] = {}
    for index, (challenge, proof) in enumerate(claims):
        try:
            _, opening = _read(challenge, proof)
        except InvalidProof as error:
            verdicts.append(error)
            continue
        verdicts.append(None)
        if opening is not None:
            openings[index] = opening
    if not using.verify_many(list(openings.values())):
        for index, opening in openings.items():
            if not using.verify(*opening):
                verdicts[index] = _not_opened()
    return verdicts


def _read(challenge: Challenge, proof: bytes) -> tuple[list[ShownUnit], Opening | None]:
    """What the proof shows, and the opening that is left to be verified; None where nothing was drawn.

    Raises InvalidProof for all that is wrong short of curve arithmetic.
    """
    if challenge.kind is not ProofKind.KZG:
        raise InvalidProof(f"a {challenge.kind.value} proof is asked for")
    content = walk.open_envelope(challenge, proof, VERSION, _KEYS)
    written, pi = content["y"], content["pi"]
    if not isinstance(written, bytes) or len(written) != SCALAR_BYTES or not isinstance(pi, bytes):
        raise InvalidProof("y or pi of the proof has another form")
    y = int.from_bytes(written, "big")
    if not is_scalar(y):
        raise InvalidProof("y of the proof is not below the field's order")
    units = walk.check(challenge, content["data"], content["meta"])
    if not units:
        if y or pi != G1_INFINITY:
            raise _not_opened()
        return [], None
    scalars = coefficients(challenge.seed, len(units))
    return units, Opening([unit.data for unit in units], scalars, point(challenge.seed), y, pi)


def _not_opened() -> InvalidProof:
    return InvalidProof("y is not the value of the drawn blobs' combination, or pi does not show it")
