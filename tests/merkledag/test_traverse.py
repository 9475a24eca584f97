"""Walking DAGs, the drivers of steps, and CAR archives."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from merkledag import car, codecs, dag_cbor, traverse, varint
from merkledag.block import Block
from merkledag.builder import build_file
from merkledag.car import CarDecoder, CarHeader
from merkledag.chunker import fixed_chunks
from merkledag.cid import CID
from merkledag.codecs import CBOR, DAG_CBOR, DAG_PB, JSON, LIBP2P_KEY, RAW
from merkledag.directory import DirEntry, build_directory
from merkledag.errors import DecodeError, HashMismatch, LimitExceeded, UnsupportedCodec, UnsupportedHash
from merkledag.multihash import IDENTITY, SHA2_512, wrap
from merkledag.profile import UNIXFS_V0_2015, UNIXFS_V1_2025
from merkledag.steps import Want, adrive_walk, arun, iterate, run
from merkledag.traverse import Scope, walk_dag
from tests.merkledag.support import Blocks

TINY = replace(UNIXFS_V1_2025, max_links=3)


def walk(blocks: Blocks, root: CID, scope: Scope = "all", **options: Any) -> list[CID]:
    return [block.cid for block in iterate(walk_dag(root, scope=scope, **options), blocks.get)]


def a_folder() -> tuple[Blocks, CID, CID, CID]:
    """(blocks, folder, file of several nodes, HAMT)"""
    blocks = Blocks()
    file, made = build_file(TINY, fixed_chunks([bytes(range(50))], 4))
    blocks.add(made)
    hamt, shards = build_directory(
        TINY, [DirEntry(f"f{n}", file.cid, file.tsize) for n in range(300)], hamt="always"
    )
    blocks.add(shards)
    root, flat = build_directory(TINY, [DirEntry("a", file.cid, 1), DirEntry("b", hamt.cid, 1)])
    blocks.add(flat)
    return blocks, root.cid, file.cid, hamt.cid


class TestWalking:
    def test_all_is_every_block_once_parents_first(self) -> None:
        blocks, root, _, _ = a_folder()
        order = walk(blocks, root)
        assert sorted(order) == sorted(blocks.by_cid)
        seen: set[CID] = set()
        for cid in order:
            seen.add(cid)
            if cid != root:
                assert any(cid in codecs.links(p, blocks.by_cid[p]) for p in seen)

    def test_pre_order_follows_the_links(self) -> None:
        blocks = Blocks()
        leaf = [blocks.put(b"%d" % n, RAW) for n in range(4)]
        left = blocks.put(dag_cbor.encode([leaf[0], leaf[1]]), DAG_CBOR)
        right = blocks.put(dag_cbor.encode([leaf[2], leaf[1], leaf[3]]), DAG_CBOR)
        root = blocks.put(dag_cbor.encode([left, right, left]), DAG_CBOR)
        assert walk(blocks, root) == [root, left, leaf[0], leaf[1], right, leaf[2], leaf[3]]
        again = [root, left, leaf[0], leaf[1], right, leaf[2], leaf[1], leaf[3], left, leaf[0], leaf[1]]
        assert walk(blocks, root, dedupe=False) == again

    def test_block_is_the_root_alone(self) -> None:
        blocks, root, file, _ = a_folder()
        assert walk(blocks, root, "block") == [root]
        assert walk(blocks, file, "block") == [file]

    def test_entity_is_a_whole_file_or_what_lists_a_folder(self) -> None:
        blocks, root, file, hamt = a_folder()
        assert walk(blocks, root, "entity") == [root]
        assert walk(blocks, file, "entity") == walk(blocks, file)
        shards = walk(blocks, hamt, "entity")
        assert set(shards) == set(walk(blocks, hamt)) - set(walk(blocks, file))
        assert len(shards) > 1
        value = blocks.put(dag_cbor.encode([root]), DAG_CBOR)
        assert walk(blocks, value, "entity") == [value]
        plain = blocks.put_node([], None)
        assert walk(blocks, plain, "entity") == [plain]

    def test_skip_leaves_out_what_hangs_below_and_fetches_none_of_it(self) -> None:
        blocks, root, file, hamt = a_folder()
        assert walk(blocks, root, skip={file, hamt}.__contains__) == [root]
        assert blocks.asked == [root]

    def test_identity_cids_are_followed_not_yielded(self) -> None:
        blocks = Blocks()
        leaf = blocks.put(b"leaf", RAW)
        inner = CID.of(dag_cbor.encode([leaf]), DAG_CBOR, IDENTITY)
        root = blocks.put(dag_cbor.encode([inner]), DAG_CBOR)
        assert walk(blocks, root) == [root, leaf]

    def test_unknown_codecs_are_leaves_and_broken_blocks_errors(self) -> None:
        blocks = Blocks()
        odd = blocks.put(b"\xff", 0x99)
        root = blocks.put(dag_cbor.encode([odd]), DAG_CBOR)
        assert walk(blocks, root) == [root, odd]
        with pytest.raises(DecodeError):
            walk(blocks, blocks.put(b"\xff", DAG_PB))

    def test_views_are_copied(self) -> None:
        blocks, root, _, _ = a_folder()
        for block in iterate(walk_dag(root), lambda cid: memoryview(blocks.get(cid))):
            assert type(block.data) is bytes

    def test_wants_announce_siblings_in_order(self) -> None:
        blocks = Blocks()
        leaves = [blocks.put(b"%d" % n, RAW) for n in range(30)]
        root = blocks.put(dag_cbor.encode(leaves), DAG_CBOR)
        wants: list[Want] = []
        steps = walk_dag(root)
        item = next(steps)
        while len(wants) < 3:
            assert isinstance(item, Want)
            wants.append(item)
            steps.send(blocks.get(item.cid))
            item = steps.send(None)
        assert [want.cid for want in wants[1:]] == leaves[:2]
        assert wants[1].ahead == tuple(leaves[1:17])

    def test_a_dag_a_million_deep_is_refused_after_a_bounded_part(self) -> None:
        fetched = 0

        def endless(cid: CID) -> bytes:
            # Every node links to yet another one: no real DAG can do it, a lying source can.
            nonlocal fetched
            fetched += 1
            return dag_cbor.encode([CID.of(b"%d" % fetched, DAG_CBOR)])

        with pytest.raises(LimitExceeded, match="deeper than 4096"):
            list(iterate(walk_dag(CID.of(b"", DAG_CBOR)), endless))
        assert fetched == traverse.MAX_DAG_DEPTH

    def test_links_that_pile_up_are_refused(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(traverse, "MAX_PENDING_LINKS", 2**14)
        fetched = 0

        def wide(cid: CID) -> bytes:
            nonlocal fetched
            fetched += 1
            first = CID.of(b"%d" % fetched, DAG_CBOR)
            return dag_cbor.encode([first, *[CID.of(b"leaf")] * 2_500])

        with pytest.raises(LimitExceeded, match="wait to be followed"):
            list(iterate(walk_dag(CID.of(b"", DAG_CBOR)), wide))
        assert fetched <= 8


class TestLinks:
    def test_of_every_codec(self) -> None:
        a, b = CID.of(b"a"), CID.of(b"b")
        assert codecs.links(CID.of(b"", RAW), b"") == []
        assert codecs.links(CID.of(b"", JSON), b"{}") == codecs.links(CID.of(b"", CBOR), b"\xa0") == []
        assert codecs.links(CID.of(b"", LIBP2P_KEY), b"") == []
        data = dag_cbor.encode({"x": [a, b, a]})
        assert codecs.links(CID.of(data, DAG_CBOR), data) == [a, b, a]
        with pytest.raises(UnsupportedCodec, match="0x99"):
            codecs.links(CID.of(b"", 0x99), b"")
        assert (codecs.name(DAG_PB), codecs.name(0x99)) == ("dag-pb", "0x99")


class TestDrivers:
    def steps(self) -> Generator[Want, Any, bytes]:
        first = yield Want(CID.of(b"first"))
        second = yield Want(CID.of(b"second", RAW, IDENTITY))
        return bytes(first) + bytes(second)

    async def test_sync_and_async_agree(self) -> None:
        blocks, root, _, _ = a_folder()
        blocks.put(b"first", RAW)
        assert run(self.steps(), blocks.get) == await arun(self.steps(), blocks.aget) == b"firstsecond"
        there = [block async for block in adrive_walk(walk_dag(root), lambda want: blocks.aget(want.cid))]
        assert there == list(iterate(walk_dag(root), blocks.get))

    async def test_an_error_of_the_source_passes_through_and_closes_the_steps(self) -> None:
        closed = []

        def steps() -> Generator[Want, Any, None]:
            try:
                yield Want(CID.of(b"x"))
            finally:
                closed.append(1)

        with pytest.raises(KeyError):
            run(steps(), Blocks().get)
        with pytest.raises(KeyError):
            await arun(steps(), Blocks().aget)
        with pytest.raises(KeyError):
            list(iterate(steps(), Blocks().get))
        assert len(closed) == 3

    async def test_stopping_early_closes_the_walk(self) -> None:
        blocks, root, _, _ = a_folder()
        for _ in iterate(walk_dag(root), blocks.get):
            break
        items = adrive_walk(walk_dag(root), lambda want: blocks.aget(want.cid))
        async for _ in items:
            break
        await items.aclose()

    def test_a_driver_that_sends_nothing_is_told(self) -> None:
        steps = walk_dag(CID.of(b"x"))
        next(steps)
        with pytest.raises(TypeError, match="sent no block"):
            steps.send(None)


def decode(data: bytes, step: int | None = None) -> list[CarHeader | Block]:
    decoder = CarDecoder()
    found: list[CarHeader | Block] = []
    for start in range(0, len(data), step or max(len(data), 1)):
        decoder.feed(data[start : start + (step or len(data))])
        while (item := decoder.next()) is not None:
            found.append(item)
    decoder.finish()
    assert decoder.next() is None
    return found


some_blocks = st.lists(
    st.builds(
        lambda data, codec, code: Block(CID.of(data, codec, code), data),
        st.binary(max_size=100),
        st.sampled_from([RAW, DAG_PB, DAG_CBOR, 0x99]),
        st.sampled_from([0x12, SHA2_512, IDENTITY]),
    ),
    max_size=6,
)


def archive(blocks: list[Block], roots: list[CID] | None = None) -> bytes:
    return car.header(roots or [CID.of(b"root")]) + b"".join(map(car.frame, blocks))


def version_2(inner: bytes, padding: int = 0, index: bytes = b"") -> bytes:
    head = b"\x0a\xa1gversion\x02" + bytes(16)
    start = 51 + padding
    return (
        head
        + start.to_bytes(8, "little")
        + len(inner).to_bytes(8, "little")
        + bytes(8 + padding)
        + inner
        + index
    )


class TestCar:
    @given(some_blocks, st.none() | st.integers(1, 50))
    @settings(max_examples=100)
    def test_round_trip_in_pieces_of_any_length(self, blocks: list[Block], step: int | None) -> None:
        roots = [CID.of(b"root"), CID.of(b"v0", DAG_PB, version=0)]
        data = archive(blocks, roots)
        assert decode(data, step) == [CarHeader(1, tuple(roots)), *blocks]

    @given(some_blocks, st.none() | st.integers(1, 50), st.integers(0, 90), st.binary(max_size=90))
    @settings(max_examples=100)
    def test_version_2(self, blocks: list[Block], step: int | None, padding: int, index: bytes) -> None:
        data = version_2(archive(blocks), padding, index)
        assert decode(data, step) == [CarHeader(2, (CID.of(b"root"),)), *blocks]

    def test_the_header_of_the_specification(self) -> None:
        """The first bytes of the CARv1 specification's fixture carv1-basic.car."""
        roots = [
            CID.parse("bafyreihyrpefhacm6kkp4ql6j6udakdit7g3dmkzfriqfykhjw6cad5lrm"),
            CID.parse("bafyreidj5idub6mapiupjwjsyyxhyhedxycv4vihfsicm2vt46o7morwlm"),
        ]
        assert car.header(roots).hex() == (
            "63a265726f6f747382d82a58250001711220f88bc853804cf294fe417e4fa83028689fcdb1b1592c5102e1474dbc200fab8b"
            "d82a5825000171122069ea0740f9807a28f4d932c62e7c1c83be055e55072c90266ab3e79df63a365b6776657273696f6e01"
        )

    def test_every_truncation_is_noticed(self) -> None:
        blocks = [Block(CID.of(b"x" * n), b"x" * n) for n in (1, 50)]
        for whole in (archive(blocks), version_2(archive(blocks), 5)):
            ends = set()
            for cut in range(len(whole)):
                try:
                    decode(whole[:cut])
                    ends.add(cut)
                except DecodeError as error:
                    assert "cut off" in str(error)  # noqa: PT017
            assert ends <= {len(car.header([CID.of(b"root")])), len(archive(blocks[:1]))}
            assert not ends or whole[:2] != b"\x0a\xa1"

    def test_a_wrong_hash(self) -> None:
        cid = CID.of(b"right")
        with pytest.raises(HashMismatch):
            decode(archive([Block(cid, b"wrong")]))
        identity = CID.of(b"right", RAW, IDENTITY)
        with pytest.raises(HashMismatch):
            decode(archive([Block(identity, b"wrong")]))
        unknown = CID(1, RAW, wrap(0x99, bytes(32)))
        with pytest.raises(UnsupportedHash):
            decode(archive([Block(unknown, b"x")]))

    def test_ten_gigabytes_announced_are_refused_at_once(self) -> None:
        for start in (b"", archive([])):
            with pytest.raises(LimitExceeded, match="10000000000 bytes"):
                decode(start + varint.encode(10**10))
        with pytest.raises(LimitExceeded, match="at most"):
            decode(archive([]) + varint.encode(2**21 + 161))

    def test_the_block_limit_counts_the_block_alone(self) -> None:
        data = bytes(100)
        decoder = CarDecoder(max_block_bytes=99)
        decoder.feed(archive([Block(CID.of(data), data)]))
        decoder.next()
        with pytest.raises(LimitExceeded, match="100 bytes"):
            decoder.next()

    @pytest.mark.parametrize(
        "data",
        [
            b"\x00",
            b"\xff" * 20,
            b"\x80\x00",
            varint.encode(1) + b"\xa0",
            varint.encode(1) + b"\xff",
            b"\x0a\xa1gversion\x03" + bytes(40),
            b"\x0a\xa1gversion\x01" + bytes(40),
            b"\x0a\xa1gversion\x02" + bytes(40),
            version_2(archive([]))[:27] + (5).to_bytes(8, "little") + bytes(30),
            version_2(version_2(archive([]))),
            archive([]) + b"\x00",
            archive([]) + b"\x01\x01",
            archive([]) + b"\x03\x01\x55\x12",
            archive([]) + b"\x80\x00",
        ],
        ids=lambda data: data[:14].hex(),
    )
    def test_what_is_no_car(self, data: bytes) -> None:
        with pytest.raises(DecodeError):
            decode(data)

    @pytest.mark.parametrize(
        "value",
        [
            {"version": 1, "roots": [1]},
            {"version": 1, "roots": {}},
            {"version": True, "roots": []},
            {"version": 1, "roots": [], "more": 1},
            [],
        ],
    )
    def test_headers_of_the_wrong_shape(self, value: Any) -> None:
        body = dag_cbor.encode(value)
        with pytest.raises(DecodeError):
            decode(varint.encode(len(body)) + body)

    def test_a_section_that_leaves_the_data_of_version_2(self) -> None:
        block = Block(CID.of(b"x" * 50), b"x" * 50)
        whole = version_2(archive([block]))
        size = len(archive([block]))
        with pytest.raises(DecodeError, match="past the end"):
            decode(whole.replace(size.to_bytes(8, "little"), (size - 1).to_bytes(8, "little")))

    def test_nothing_after_finish(self) -> None:
        decoder = CarDecoder()
        decoder.feed(archive([]))
        decoder.next()
        decoder.finish()
        with pytest.raises(ValueError, match="finished"):
            decoder.feed(b"x")

    @given(st.binary(max_size=80))
    @settings(max_examples=200)
    def test_rubbish_is_refused_in_our_words(self, tail: bytes) -> None:
        for start in (b"", archive([])):
            with suppress(DecodeError, LimitExceeded, HashMismatch, UnsupportedHash):
                decode(start + tail)

    def test_an_exported_folder_comes_back(self) -> None:
        blocks, root, _, _ = a_folder()
        data = car.header([root]) + b"".join(
            car.frame(block) for block in iterate(walk_dag(root), blocks.get)
        )
        back = Blocks(item for item in decode(data, 1000) if isinstance(item, Block))
        assert back.by_cid == blocks.by_cid


def test_the_fixtures_of_the_gateway_suite_walk(gateway_fixtures: Path) -> None:
    found = decode((gateway_fixtures / "fixtures.car").read_bytes(), 65_536)
    blocks = Blocks(item for item in found if isinstance(item, Block))
    assert len(blocks.by_cid) > 100
    for cid in blocks.by_cid:
        try:
            walk(blocks, cid)
        except KeyError:
            continue  # blocks left out on purpose


def test_version_0_files_walk_too() -> None:
    link, made = build_file(replace(UNIXFS_V0_2015, max_links=2), fixed_chunks([b"a" * 23 + b"b"], 5))
    blocks = Blocks(made)
    assert set(walk(blocks, link.cid)) == set(blocks.by_cid)
