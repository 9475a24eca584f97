"""Piece commitments and CIDs: the published values, the definition bit by bit, and what must be refused."""

from __future__ import annotations

import hashlib
import json
import random
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from merkledag import varint
from merkledag.cid import CID
from merkledag.codecs import DAG_PB, RAW
from proofs.errors import InvalidPieceCID, PieceTooLarge
from proofs.piece_cid import fr32, tree
from proofs.piece_cid.identifier import (
    FIL_COMMITMENT_SEALED,
    FIL_COMMITMENT_UNSEALED,
    PADBINTREE,
    TRUNC254_PADDED,
    Piece,
    is_piece_cid,
    parse_piece_cid,
    v1_of,
)
from proofs.piece_cid.stream import MAX_PAYLOAD_BYTES, MAX_PIECE_HEIGHT, PieceBuilder, piece_of, segments
from proofs.piece_cid.tree import SEGMENT_BYTES, ZERO_ROOTS, height_of, segment_root
from tests.proofs.piece_cid import naive

VECTORS = json.loads(Path("tests/vectors/proofs.json").read_text())["piece_cid"]
FOUR_QUADS = b"".join(bytes([value]) * 127 for value in range(4))
PAYLOADS = {
    "empty": b"",
    "127 zero bytes": bytes(127),
    "128 zero bytes": bytes(128),
    "127 each of 00,01,02,03": FOUR_QUADS,
}


def test_the_vectors() -> None:
    assert VECTORS["v2"].keys() == PAYLOADS.keys()
    for name, text in VECTORS["v2"].items():
        assert str(piece_of([PAYLOADS[name]]).v2) == text
    for name, text in VECTORS["v1"].items():
        assert str(piece_of([b"\xcc" * int(name.split()[0])]).v1) == text


@pytest.mark.parametrize(
    ("payload", "v1", "v2"),
    [
        (
            FOUR_QUADS,
            "baga6ea4seaqes3nobte6ezpp4wqan2age2s5yxcatzotcvobhgcmv5wi2xh5mbi",
            "bafkzcibcaaces3nobte6ezpp4wqan2age2s5yxcatzotcvobhgcmv5wi2xh5mbi",
        ),
        (
            FOUR_QUADS + bytes(4 * 127),
            "baga6ea4seaqn42av3szurbbscwuu3zjssvfwbpsvbjf6y3tukvlgl2nf5rha6pa",
            "bafkzcibcaac542av3szurbbscwuu3zjssvfwbpsvbjf6y3tukvlgl2nf5rha6pa",
        ),
        (
            FOUR_QUADS + bytes(4),
            "baga6ea4seaqn42av3szurbbscwuu3zjssvfwbpsvbjf6y3tukvlgl2nf5rha6pa",
            "bafkzcibd7abqlxticxolgseegik2stpfgkkuwyf6kufex3doorkvmzpjuxwe4dz4",
        ),
        (
            FOUR_QUADS + bytes(5),
            "baga6ea4seaqn42av3szurbbscwuu3zjssvfwbpsvbjf6y3tukvlgl2nf5rha6pa",
            "bafkzcibd64bqlxticxolgseegik2stpfgkkuwyf6kufex3doorkvmzpjuxwe4dz4",
        ),
    ],
)
def test_the_cases_of_the_specification(payload: bytes, v1: str, v2: str) -> None:
    """FRC-0069, "Test Cases": only version 2 tells zeros at the end from padding."""
    piece = piece_of([payload])
    assert (str(piece.v1), str(piece.v2)) == (v1, v2)
    assert parse_piece_cid(CID.parse(v2)) == piece
    assert parse_piece_cid(CID.parse(v1)) == piece.root


@pytest.mark.parametrize(
    ("gib", "v1", "v2"),
    [
        (
            32,
            "baga6ea4seaqao7s73y24kcutaosvacpdjgfe5pw76ooefnyqw4ynr3d2y6x2mpq",
            "bafkzcibcaapao7s73y24kcutaosvacpdjgfe5pw76ooefnyqw4ynr3d2y6x2mpq",
        ),
        (
            64,
            "baga6ea4seaqomqafu276g53zko4k23xzh4h4uecjwicbmvhsuqi7o4bhthhm4aq",
            "bafkzcibcaap6mqafu276g53zko4k23xzh4h4uecjwicbmvhsuqi7o4bhthhm4aq",
        ),
    ],
)
def test_the_largest_pieces_of_zeros(gib: int, v1: str, v2: str) -> None:
    """FRC-0069 again; a builder of so many segments holds one root a level and is done at once."""
    payload_bytes = gib * 2**30 // 128 * 127
    zeros = ZERO_ROOTS[tree.SEGMENT_HEIGHT]
    builder = PieceBuilder()
    for _ in range(payload_bytes // SEGMENT_BYTES):
        builder.add(zeros, SEGMENT_BYTES)
    piece = builder.piece()
    assert (piece.payload_bytes, piece.padded_bytes) == (payload_bytes, gib * 2**30)
    assert (str(piece.v1), str(piece.v2)) == (v1, v2)
    if gib == 64:
        assert (payload_bytes, piece.height) == (MAX_PAYLOAD_BYTES, MAX_PIECE_HEIGHT)
        with pytest.raises(PieceTooLarge, match="64 GiB"):
            builder.add(segment_root(b"x"), 1)


@settings(max_examples=40, deadline=None)
@given(st.binary(max_size=600), st.integers(0, 3))
@example(b"\xff" * 127, 0)
@example(b"\xff" * 128, 0)
@example(b"\xff" * 254, 0)
@example(b"\xff" * 1016, 0)
@example(b"\xff" * 1017, 0)
def test_it_is_what_the_definition_says(payload: bytes, zeros: int) -> None:
    payload += bytes(zeros)
    piece = piece_of([payload])
    assert (piece.root, piece.padded_bytes) == naive.commitment(payload)
    assert bytes(piece.v2) == naive.v2_bytes(payload)


def test_random_bytes_of_sizes_around_every_edge() -> None:
    """The product hashes in batches and segments, of which the definition knows nothing."""
    rng = random.Random(7)
    batch = fr32.BATCH_QUADS * 127
    for size in (batch - 1, batch, batch + 1, 2 * batch + 127, rng.randrange(batch, 3 * batch)):
        payload = rng.randbytes(size)
        piece = piece_of([payload])
        assert (piece.root, piece.padded_bytes) == naive.commitment(payload)


def test_fr32_sets_no_bit_above_254_and_loses_none() -> None:
    quads = random.Random(3).randbytes(127 * fr32.BATCH_QUADS)
    spread = fr32.pad(quads)
    assert not any(byte & 0xC0 for byte in spread[31::32])
    numbers = [int.from_bytes(spread[at : at + 32], "little") for at in range(0, len(spread), 32)]
    bits = "".join(f"{number:0254b}" for number in reversed(numbers))
    assert int(bits, 2).to_bytes(len(quads), "little") == quads
    assert fr32.pad(b"") == b""
    for wrong in (bytes(126), bytes(128), bytes(127 * (fr32.BATCH_QUADS + 1))):
        with pytest.raises(ValueError, match="127"):
            fr32.pad(wrong)


def test_segments_may_be_hashed_in_any_order_by_anybody() -> None:
    """A piece of five segments and a bit, put together by hand from the trees of its parts."""
    rng = random.Random(11)
    zeros = bytes(SEGMENT_BYTES + 5_000)
    payload = rng.randbytes(2 * SEGMENT_BYTES) + zeros + rng.randbytes(2 * SEGMENT_BYTES)
    piece = piece_of([payload])
    parts = list(segments([payload]))
    assert [len(part) for part in parts] == [*[SEGMENT_BYTES] * 5, 5_000]
    roots = [segment_root(part) for part in reversed(parts)][::-1]
    assert roots[2] == ZERO_ROOTS[tree.SEGMENT_HEIGHT]
    roots[5] = tree.lift(roots[5], height_of(5_000), tree.SEGMENT_HEIGHT)
    roots += [ZERO_ROOTS[tree.SEGMENT_HEIGHT]] * 2
    while len(roots) > 1:
        roots = [tree.node(left, right) for left, right in zip(roots[::2], roots[1::2], strict=True)]
    assert piece == Piece(roots[0], len(payload))


@settings(max_examples=12, deadline=None)
@given(st.lists(st.integers(0, 2 * SEGMENT_BYTES), max_size=6), st.integers(0, 3))
def test_how_a_payload_comes_changes_nothing(sizes: list[int], more: int) -> None:
    """Cuts anywhere, empty parts among them; each part's buffer is overwritten when the next one comes."""
    whole = bytes(range(251)) * (3 * SEGMENT_BYTES // 251 + more)
    buffer = bytearray()

    def parts() -> object:
        nonlocal buffer
        rest = memoryview(whole)
        for size in sizes:
            buffer = bytearray(rest[:size])
            yield memoryview(buffer)
            buffer[:] = bytes(len(buffer))
            rest = rest[size:]
        yield rest

    cut = list(segments(parts()))  # type: ignore[arg-type]
    assert b"".join(cut) == whole
    assert {len(part) for part in cut[:-1]} <= {SEGMENT_BYTES}
    assert 0 < len(cut[-1]) <= SEGMENT_BYTES


def test_zeros_cost_no_hashes(monkeypatch: pytest.MonkeyPatch) -> None:
    hashed = 0

    def counting() -> object:
        nonlocal hashed
        hashed += 1
        return hashlib.sha256()

    monkeypatch.setattr(tree, "_new_sha256", counting)
    segment_root(b"\x01" + bytes(SEGMENT_BYTES - 1))
    # One batch of 1,024 leaves, and above it 32 batches' roots.
    assert hashed == 1023 + 31
    hashed = 0
    segment_root(random.Random(1).randbytes(SEGMENT_BYTES))
    assert hashed == 2**tree.SEGMENT_HEIGHT - 1


def test_a_builder_takes_no_segment_after_a_short_one() -> None:
    builder = PieceBuilder()
    assert builder.piece() == piece_of([])
    for wrong in (0, SEGMENT_BYTES + 1):
        with pytest.raises(ValueError, match="segment"):
            builder.add(bytes(32), wrong)
    builder.add(segment_root(b"abc"), 3)
    with pytest.raises(ValueError, match="after 3"):
        builder.add(segment_root(b"abc"), 3)
    assert builder.piece() == piece_of([b"abc"])
    with pytest.raises(ValueError, match="at most"):
        segment_root(bytes(SEGMENT_BYTES + 1))


# --- CIDs ---


@given(st.binary(min_size=32, max_size=32), st.integers(0, tree.capacity_bytes(tree.MAX_HEIGHT)))
@example(bytes(32), 0)
@example(bytes(32), 127)
@example(bytes(32), 128)
@example(bytes(32), 1016)
@example(bytes(32), 1017)
@example(bytes(32), tree.capacity_bytes(tree.MAX_HEIGHT))
@example(bytes(32), tree.capacity_bytes(tree.MAX_HEIGHT - 1) + 1)
def test_a_piece_and_its_cids_say_the_same(root: bytes, payload_bytes: int) -> None:
    piece = Piece(root, payload_bytes)
    assert piece.padding_bytes + payload_bytes == piece.unpadded_bytes
    assert piece.unpadded_bytes * 128 == piece.padded_bytes * 127
    assert piece.padded_bytes == 32 << piece.height
    assert payload_bytes <= 127 or piece.padding_bytes < payload_bytes
    assert parse_piece_cid(CID.parse(str(piece.v2))) == piece
    assert parse_piece_cid(CID.parse(piece.v2.encode("base16"))) == piece
    assert parse_piece_cid(piece.v1) == root == parse_piece_cid(v1_of(root))
    assert str(piece.v2).startswith("bafkzcib")
    assert str(piece.v1).startswith("baga6ea4seaq")
    assert is_piece_cid(piece.v1)
    assert is_piece_cid(piece.v2)


@pytest.mark.parametrize(("root", "size"), [(bytes(31), 1), (b"", 0), (bytes(32), -1), (bytes(32), 2**63)])
def test_pieces_that_cannot_be_are_refused(root: bytes, size: int) -> None:
    with pytest.raises(ValueError, match=r"root|no piece"):
        Piece(root, size)


def padbintree(digest: bytes, *, codec: int = RAW, code: int = PADBINTREE) -> CID:
    return CID(1, codec, varint.encode(code) + varint.encode(len(digest)) + digest)


ROOT = bytes(range(32))


@pytest.mark.parametrize(
    ("cid", "why"),
    [
        (CID.of(b"x"), "no piece CID"),
        (CID.of(b"x", DAG_PB), "no piece CID"),
        (padbintree(b"\x00\x04" + ROOT, codec=DAG_PB), "no piece CID"),
        (padbintree(b"\x00\x04" + ROOT, codec=FIL_COMMITMENT_UNSEALED), "no piece CID"),
        (padbintree(ROOT, codec=RAW, code=TRUNC254_PADDED), "no piece CID"),
        (padbintree(ROOT, codec=FIL_COMMITMENT_SEALED, code=TRUNC254_PADDED), "sealed"),
        (padbintree(ROOT + b"\0", codec=FIL_COMMITMENT_UNSEALED, code=TRUNC254_PADDED), "33 bytes"),
        (padbintree(b"\x00\x04" + ROOT[:-1]), "digest"),
        (padbintree(b"\x00\x04" + ROOT + b"\0"), "digest"),
        (padbintree(b"\x80\x00\x04" + ROOT), "not minimal"),
        (padbintree(b"\xff" * 20), "longer than 9"),
        (padbintree(b"\xff" * 34), "longer than 9"),
        (padbintree(b"\x00\x00" + ROOT), "height 0"),
        (padbintree(b"\x00\x01" + ROOT), "height 1"),
        (padbintree(b"\x00\x3b" + ROOT), "height 59"),
        (padbintree(b"\x00\xff" + ROOT), "height 255"),
        (padbintree(b"\x80\x01\x02" + ROOT), "128 bytes of padding"),
        (padbintree(b"\x7f\x03" + ROOT), "127 bytes of padding"),
        (padbintree(varint.encode(2**63 - 1) + b"\x3a" + ROOT), "padding"),
    ],
)
def test_other_cids_are_refused(cid: CID, why: str) -> None:
    with pytest.raises(InvalidPieceCID, match=why):
        parse_piece_cid(cid)


def test_the_most_padding_that_can_be_is_taken() -> None:
    """One byte less and a lower tree would do; the lowest of all has any number of bytes, also none."""
    for height in range(3, tree.MAX_HEIGHT + 1):
        most = tree.capacity_bytes(height - 1) - 1
        piece = parse_piece_cid(padbintree(varint.encode(most) + bytes([height]) + ROOT))
        assert piece == Piece(ROOT, tree.capacity_bytes(height - 1) + 1)
    assert parse_piece_cid(padbintree(b"\x7f\x02" + ROOT)) == Piece(ROOT, 0)
