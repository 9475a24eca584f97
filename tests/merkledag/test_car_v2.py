"""CARv2: its header, its two kinds of index, random access, and sections that are verified elsewhere."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from merkledag import car, car_v2, varint
from merkledag.block import Block
from merkledag.car_index import MAX_MATCHES, CarIndex, IndexKind, look_up, read_index
from merkledag.car_sections import (
    HEADS_ONLY,
    MAX_HEADER_BYTES,
    CarHeader,
    CarSections,
    ReadAt,
    Section,
    SectionHead,
    scan,
)
from merkledag.car_seek import Reads, find_block, read_header, run_reads
from merkledag.cid import CID
from merkledag.codecs import DAG_CBOR, DAG_PB, RAW
from merkledag.errors import DecodeError, HashMismatch, LimitExceeded, MerkledagError, TruncatedCar
from merkledag.multihash import BLAKE3, IDENTITY, SHA2_256, SHA2_512
from tests.merkledag.support import index_of

ROOT = CID.of(b"root")
KINDS = list(IndexKind)

some_blocks = st.lists(
    st.builds(
        lambda data, codec, code: Block(CID.of(data, codec, code), data),
        st.binary(max_size=100),
        st.sampled_from([RAW, DAG_PB, DAG_CBOR]),
        st.sampled_from([SHA2_256, SHA2_512, BLAKE3, IDENTITY]),
    ),
    max_size=8,
)


def reader(data: bytes) -> Callable[[int, int], bytes]:
    return lambda offset, length: data[offset : offset + length]


def version_1(blocks: list[Block]) -> bytes:
    return car.header([ROOT]) + b"".join(map(car.frame, blocks))


def version_2(blocks: list[Block], kind: IndexKind, *, identity: bool = False) -> bytes:
    data = version_1(blocks)
    head = car_v2.wrap(len(data), index=True, fully_indexed=identity)
    return head.encode() + data + index_of(data, identity=identity).encode(kind)


def lookup(whole: bytes, cid: CID) -> Block | None:
    return run_reads(find_block(run_reads(read_header(), reader(whole)), cid), reader(whole))


def fixed_blocks() -> list[Block]:
    """Blocks of several hash functions and digest lengths, the same ones for ever."""
    codes = [SHA2_256, SHA2_512, BLAKE3, IDENTITY, 0x11, 0xB220]
    return [Block(CID.of(b"%d" % n, RAW, codes[n % 6]), b"%d" % n) for n in range(60)]


@pytest.mark.parametrize(
    ("kind", "identity", "digest"),
    [
        (IndexKind.SORTED, False, "9aaa477de9b2567ed133c68d6355c62a84ee28b033ada63aa369d99e2ade1778"),
        (IndexKind.SORTED, True, "f925271dd7b994b11de314a1ba394687d72a19087edc47e33d9706a2471b2198"),
        (
            IndexKind.MULTIHASH_SORTED,
            False,
            "a4689e4ce8a75904125d348544bb0c7c5703a8930cc4f2a9d6dea0c4398ef0bd",
        ),
        (
            IndexKind.MULTIHASH_SORTED,
            True,
            "86523b29b8057275d19f68d5a7000be9622eb723fd4db36ea434d82164aba994",
        ),
    ],
)
def test_the_index_of_go_car(kind: IndexKind, identity: bool, digest: str) -> None:
    """SHA-256 of what go-car v2.17.0 (`WrapV1`) appends to the CARv1 of `fixed_blocks`."""
    encoded = index_of(version_1(fixed_blocks()), identity=identity).encode(kind)
    assert hashlib.sha256(encoded).hexdigest() == digest


class TestHeader:
    def test_round_trip(self) -> None:
        for header in (
            car_v2.wrap(100, index=True, fully_indexed=True),
            car_v2.wrap(1, index=False),
            car_v2.V2Header(1000, 5, 2000),
        ):
            encoded = header.encode()
            assert len(encoded) == car_v2.START_BYTES
            assert encoded.startswith(car_v2.PRAGMA)
            assert car_v2.decode(encoded[len(car_v2.PRAGMA) :]) == header

    def test_the_first_bit_is_fully_indexed(self) -> None:
        assert car_v2.wrap(1, index=True, fully_indexed=True).encode()[11:27] == b"\x80" + bytes(15)

    @pytest.mark.parametrize(("start", "size"), [(50, 10), (0, 10), (51, 0), (2**63, 10), (51, 2**63)])
    def test_data_that_cannot_be_there(self, start: int, size: int) -> None:
        encoded = car_v2.V2Header(start, size, 0).encode()
        with pytest.raises(DecodeError, match="cannot be"):
            car_v2.decode(encoded[11:])

    def test_an_index_inside_the_data(self) -> None:
        with pytest.raises(DecodeError, match="the data ends at 151"):
            car_v2.V2Header(51, 100, 150).require_index()
        with pytest.raises(DecodeError, match="no index"):
            car_v2.V2Header(51, 100, 0).require_index()


class TestIndex:
    @given(some_blocks, st.sampled_from(KINDS), st.booleans())
    @settings(max_examples=80)
    def test_every_block_is_found(self, blocks: list[Block], kind: IndexKind, identity: bool) -> None:
        whole = version_2(blocks, kind, identity=identity)
        header = run_reads(read_header(), reader(whole))
        assert header.v2 is not None
        encoded = whole[header.v2.require_index() :]
        assert index_of(whole, identity=identity).check(encoded) is kind
        for block in blocks:
            assert lookup(whole, block.cid) == block
            assert lookup(version_1(blocks), block.cid) == block
            if identity or not block.cid.is_identity:
                places = run_reads(look_up(0, block.cid.multihash), reader(encoded))
                assert len(places) >= [each.cid.multihash for each in blocks].count(block.cid.multihash)
        assert lookup(whole, CID.of(b"absent")) is None
        assert lookup(version_1(blocks), CID.of(b"absent")) is None

    @given(some_blocks, st.sampled_from(KINDS), st.booleans())
    @settings(max_examples=40)
    def test_an_honest_index_keeps_within_the_bound(
        self, blocks: list[Block], kind: IndexKind, identity: bool
    ) -> None:
        index = index_of(version_1(blocks), identity=identity)
        assert len(index.encode(kind)) <= index.max_encoded_bytes()

    def test_duplicates_stand_by_offset(self) -> None:
        block = Block(CID.of(b"twice"), b"twice")
        whole = version_1([block, block])
        _, (bucket,) = read_index(index_of(whole).encode(IndexKind.SORTED))
        first, second = bucket.records()
        assert first[:-8] == second[:-8] == block.cid.digest
        assert first < second
        index_of(whole).check(index_of(whole).encode(IndexKind.SORTED))

    def test_an_index_may_list_one_of_two_duplicates(self) -> None:
        block = Block(CID.of(b"twice"), b"twice")
        once = index_of(version_1([block]))
        assert index_of(version_1([block, block])).check(once.encode(KINDS[0])) is KINDS[0]

    def test_a_digest_of_another_hash_function_is_passed_over(self) -> None:
        """IndexSorted knows digests alone."""
        data = b"x" * 50
        right = Block(CID.of(data), data)
        digest = right.cid.digest
        posed = CID(1, RAW, varint.encode(BLAKE3) + bytes([32]) + digest)
        whole = version_2([Block(posed, data), right], IndexKind.SORTED)
        assert lookup(whole, right.cid) == right
        with pytest.raises(HashMismatch):
            lookup(whole, posed)

    @pytest.mark.parametrize("kind", KINDS)
    def test_what_is_wrong_is_named(self, kind: IndexKind) -> None:
        blocks = [Block(CID.of(b"%d" % n), b"%d" % n) for n in range(3)]
        ours = index_of(version_1(blocks))
        good = ours.encode(kind)
        entries = len(good) - 3 * 40
        moved = good[:-1] + bytes([good[-1] ^ 1])
        with pytest.raises(DecodeError, match="which is not there"):
            ours.check(moved)
        swapped = good[:entries] + good[entries + 40 : entries + 80] + good[entries : entries + 40]
        with pytest.raises(DecodeError, match="not sorted"):
            ours.check(swapped + good[entries + 80 :])
        with pytest.raises(DecodeError, match="is not in it"):
            ours.check(index_of(version_1(blocks[:2])).encode(kind))
        with pytest.raises(DecodeError, match="after its end"):
            ours.check(good + b"\0")
        for cut in range(len(good)):
            with pytest.raises(DecodeError):
                ours.check(good[:cut])
        with pytest.raises(DecodeError, match="0x300000"):
            ours.check(varint.encode(0x300000))

    @pytest.mark.parametrize(
        ("data", "message"),
        [
            ("800801000000" "07000000" "0000000000000000", "7 bytes cannot be"),
            ("800801000000" "ffffffff" "0000000000000000", "cannot be"),
            ("800801000000" "28000000" "2900000000000000" + "00" * 41, "no whole number"),
            ("800801000000" "28000000" "00e40b5402000000", "cut off"),
            ("800802000000" + "280000000000000000000000" * 2, "out of order"),
            ("810802000000" + "120000000000000000000000" * 2, "out of order"),
        ],
    )  # fmt: skip
    def test_malformed_ones(self, data: str, message: str) -> None:
        with pytest.raises(DecodeError, match=message):
            read_index(bytes.fromhex(data))

    @pytest.mark.parametrize("head", ["800801100000", "810801100000"])  # 4,097
    def test_too_many_buckets_are_refused(self, head: str) -> None:
        with pytest.raises(LimitExceeded, match="at most 4096"):
            read_index(bytes.fromhex(head) + bytes(1000))

    def test_a_block_in_very_many_places_is_looked_for_in_some(self) -> None:
        index = CarIndex()
        for place in range(MAX_MATCHES + 10):
            index.add(ROOT, 100 * place)
        encoded = index.encode(IndexKind.SORTED)
        places = run_reads(look_up(0, ROOT.multihash), reader(encoded))
        assert places == [100 * place for place in range(MAX_MATCHES)]

    @given(st.binary(max_size=120), st.sampled_from(["8008", "8108", ""]))
    @settings(max_examples=150)
    def test_rubbish_is_refused_in_our_words(self, data: bytes, start: str) -> None:
        encoded = bytes.fromhex(start) + data
        for look in (
            lambda: read_index(encoded),
            lambda: run_reads(look_up(0, ROOT.multihash), reader(encoded)),
        ):
            try:
                look()
            except MerkledagError:
                continue

    def test_a_lying_index_hands_out_nothing(self) -> None:
        blocks = [Block(CID.of(b"%d" % n), b"%d" % n) for n in range(2)]
        whole = version_2(blocks, IndexKind.SORTED)
        for at in range(len(whole) - 80, len(whole)):
            for cid in (blocks[0].cid, blocks[1].cid):
                changed = whole[:at] + bytes([whole[at] ^ 0x41]) + whole[at + 1 :]
                try:
                    found = lookup(changed, cid)
                except MerkledagError:
                    continue
                assert found is None or found in blocks


class TestSections:
    @given(some_blocks, st.lists(st.integers(1, 60), max_size=30), st.booleans())
    @settings(max_examples=60)
    def test_offsets_and_bytes(self, blocks: list[Block], steps: list[int], as_version_2: bool) -> None:
        data = version_1(blocks)
        whole = version_2(blocks, IndexKind.SORTED) if as_version_2 else data
        sections, found, at = CarSections(), list[CarHeader | Section](), 0
        for step in [*steps, len(whole)]:
            sections.feed(whole[at : at + step])
            at += step
            while (item := sections.next()) is not None:
                found.append(item)
        sections.finish()
        assert found[0] == CarHeader(1 + as_version_2, (ROOT,))
        offset = len(car.header([ROOT]))
        for item, block in zip(found[1:], blocks, strict=True):
            assert item == Section(block.cid, offset, block.data)
            offset += len(car.frame(block))
        assert sections.ended == as_version_2
        assert sections.data_position >= len(data)

    @given(some_blocks, st.integers(HEADS_ONLY, 60), st.booleans())
    @settings(max_examples=60)
    def test_scanning_reads_only_what_is_wanted(
        self, blocks: list[Block], inline_bytes: int, as_version_2: bool
    ) -> None:
        whole = version_2(blocks, IndexKind.SORTED) if as_version_2 else version_1(blocks)
        scanning = scan(CarSections(), inline_bytes)
        found: list[Block] = []
        item = next(scanning, None)
        while item is not None:
            answer = None
            if isinstance(item, ReadAt):
                answer = whole[item.offset : item.offset + item.length]
            elif isinstance(item, SectionHead):
                assert item.size_bytes > inline_bytes
                found.append(Block(item.cid, whole[item.data_start : item.data_start + item.size_bytes]))
            elif isinstance(item, Section):
                assert len(item.data) <= inline_bytes
                found.append(item.verified())
            try:
                item = scanning.send(answer)
            except StopIteration:
                break
        assert found == blocks

    def test_a_wrong_block_is_given_but_not_verified(self) -> None:
        sections = CarSections()
        sections.feed(version_1([Block(ROOT, b"wrong")]))
        sections.next()
        section = sections.next()
        assert isinstance(section, Section)
        with pytest.raises(HashMismatch):
            section.verified()

    def test_a_piece_that_is_a_block_is_not_copied(self) -> None:
        data = bytes(1000)
        sections = CarSections()
        sections.feed(car.header([ROOT]) + car.frame_head(CID.of(data), len(data)))
        sections.feed(data)
        sections.next()
        section = sections.next()
        assert isinstance(section, Section)
        assert section.data is data

    def test_what_is_fed_may_change_afterwards(self) -> None:
        buffer = bytearray(version_1([Block(CID.of(b"x"), b"x")]))
        sections = CarSections()
        sections.feed(buffer)
        buffer[:] = bytes(len(buffer))
        assert sections.next() == CarHeader(1, (ROOT,))

    def test_null_padding_ends_the_data_only_when_asked(self) -> None:
        block = Block(CID.of(b"x"), b"x")
        padded = version_1([block]) + bytes(500)
        for sections, padding in ((CarSections(), False), (CarSections(null_padding=True), True)):
            sections.feed(padded)
            assert isinstance(sections.next(), CarHeader)
            assert isinstance(sections.next(), Section)
            if padding:
                assert sections.next() is None
                assert sections.ended
                sections.finish()
            else:
                with pytest.raises(DecodeError, match="empty section"):
                    sections.next()

    def test_every_cut_is_a_truncation(self) -> None:
        blocks = [Block(CID.of(b"x" * n), b"x" * n) for n in (0, 1, 50)]
        for whole in (version_1(blocks), version_2(blocks, IndexKind.SORTED)):
            end = car_v2.START_BYTES * (whole[:2] == b"\x0a\xa1") + len(version_1(blocks))
            borders = {len(version_1(blocks[:n])) for n in range(4)} if end == len(whole) else set()
            for cut in range(end):
                for read_all in (self._read_all, self._scan_all):
                    try:
                        read_all(whole[:cut])
                    except TruncatedCar:
                        continue
                    assert cut in borders

    @staticmethod
    def _read_all(data: bytes) -> None:
        sections = CarSections()
        sections.feed(data)
        while sections.next() is not None:
            continue
        sections.finish()

    @staticmethod
    def _scan_all(data: bytes) -> None:
        run_reads(scan_checked(len(data)), reader(data))

    def test_hostile_portions_take_linear_time(self) -> None:
        data = bytes(200_000)
        whole = version_1([Block(CID.of(data), data)])
        sections = CarSections()
        for at in range(len(whole)):
            sections.feed(whole[at : at + 1])
            if sections.next() is not None and at > 1000:
                break
        assert at == len(whole) - 1

    def test_a_header_over_the_limit_is_refused_before_it_comes(self) -> None:
        sections = CarSections()
        sections.feed(varint.encode(MAX_HEADER_BYTES))
        assert sections.next() is None
        sections = CarSections()
        sections.feed(varint.encode(MAX_HEADER_BYTES + 1))
        with pytest.raises(LimitExceeded, match="header of 1048577 bytes"):
            sections.next()

    def test_skipping_needs_a_head(self) -> None:
        with pytest.raises(ValueError, match="no section"):
            CarSections().skip()

    def test_padding_is_skipped_in_a_stream_too(self) -> None:
        inner = version_1([Block(CID.of(b"x"), b"x")])
        head = car_v2.V2Header(1000, len(inner), 0).encode().ljust(1000, b"\xff")
        sections = CarSections()
        for before, after in pairwise([0, 30, 500, 999, 1010, 5000]):
            sections.feed((head + inner)[before:after])
            while (item := sections.next()) is not None:
                assert isinstance(item, CarHeader) or item.data == b"x"
        sections.finish()


def scan_checked(size_bytes: int) -> Reads[None]:
    """Goes through an archive by its heads and minds blocks that are cut off, as whoever scans must."""
    scanning = scan(CarSections(), HEADS_ONLY)
    item = next(scanning, None)
    while item is not None:
        answer = None
        if isinstance(item, ReadAt):
            answer = yield item
        elif isinstance(item, SectionHead) and item.data_start + item.size_bytes > size_bytes:
            raise TruncatedCar("cut off inside a block")
        try:
            item = scanning.send(answer)
        except StopIteration:
            return
