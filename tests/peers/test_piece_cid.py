"""Piece commitments and piece CIDs are those of Filecoin's own libraries in Go."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from merkledag import varint
from merkledag.cid import CID
from merkledag.codecs import RAW
from proofs.errors import InvalidPieceCID
from proofs.piece_cid.identifier import PADBINTREE, Piece, parse_piece_cid
from proofs.piece_cid.stream import piece_of
from proofs.piece_cid.tree import SEGMENT_BYTES, capacity_bytes
from tests.peers import support

pytestmark = pytest.mark.peers

SEED = 69
RANDOM_SIZES = 30
EDGES = [65, 126, 127, 128, 254, 255, 1016, 1017, 256 * 127, 256 * 127 + 1]
LARGE = [SEGMENT_BYTES - 1, SEGMENT_BYTES, SEGMENT_BYTES + 1, 2 * SEGMENT_BYTES, 5 * SEGMENT_BYTES + 66]
PARSED = 400


@pytest.fixture(scope="module")
def boxo() -> support.Peer:
    return support.find_peer("boxo")


def test_commitments_to_random_bytes(boxo: support.Peer, tmp_path: Path) -> None:
    rng = random.Random(SEED)
    sizes = [*EDGES, *LARGE, *(int(2 ** rng.uniform(6.03, 19)) for _ in range(RANDOM_SIZES))]
    payloads = []
    for number, size in enumerate(sizes):
        zeros = rng.choice([0, 0, size // 2, size // 3])  # at the end, where padding begins
        payloads.append(rng.randbytes(size - zeros) + bytes(zeros))
        (tmp_path / str(number)).write_bytes(payloads[-1])
    jobs = [{"do": "piece", "file": str(tmp_path / str(number))} for number in range(len(sizes))]
    for payload, theirs in zip(payloads, boxo.run(jobs), strict=True):
        piece = piece_of([payload])
        assert theirs["v1"] == str(piece.v1), f"{len(payload)} bytes, seed {SEED}"
        assert theirs["payload"] == piece.payload_bytes
        assert theirs["padded"] == piece.padded_bytes
        if len(payload) >= 127:  # shorter ones have no version 2 in Go
            assert theirs["v2"] == str(piece.v2)


def test_they_take_and_refuse_the_same_cids(boxo: support.Peer) -> None:
    """Any padding in trees that Filecoin has; of the smallest and the largest, Go differs from FRC-0069."""
    rng = random.Random(SEED)
    cids = []
    for _ in range(PARSED):
        height = rng.randrange(3, 32)
        below = capacity_bytes(height - 1)  # as much padding would fit a lower tree
        padding = rng.choice([0, 1, below - 1, below, below + 1, rng.randrange(2 * below)])
        digest = varint.encode(padding) + bytes([height]) + rng.randbytes(32)
        cids.append(CID(1, RAW, varint.encode(PADBINTREE) + varint.encode(len(digest)) + digest))
    (answer,) = boxo.run([{"do": "piece-cid", "cids": [str(cid) for cid in cids]}])
    refused = 0
    for cid, theirs in zip(cids, answer["read"], strict=True):
        if "error" in theirs:
            refused += 1
            with pytest.raises(InvalidPieceCID):
                parse_piece_cid(cid)
            continue
        piece = parse_piece_cid(cid)
        assert isinstance(piece, Piece)
        assert (theirs["v1"], theirs["payload"]) == (str(piece.v1), piece.payload_bytes)
    assert 0 < refused < PARSED
