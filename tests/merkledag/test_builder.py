"""dag-pb and UnixFS messages, and building files, folders and HAMTs from them."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from merkledag import dag_pb, directory, hamt, unixfs
from merkledag.block import Block
from merkledag.builder import FileTree, Link, build_file, build_symlink, make_leaf
from merkledag.chunker import MAX_CHUNK_BYTES, FixedSize, fixed_chunks
from merkledag.cid import CID
from merkledag.codecs import RAW
from merkledag.dag_pb import PBLink, PBNode
from merkledag.directory import DirectoryBuilder, DirEntry, build_directory
from merkledag.errors import DecodeError, LimitExceeded
from merkledag.layouts import Balanced, Trickle
from merkledag.profile import PROFILES, UNIXFS_V0_2015, UNIXFS_V1_2025, ImportProfile
from merkledag.reader import entries, read_file
from merkledag.steps import iterate
from merkledag.unixfs import Data, Kind, Mtime
from tests.merkledag.support import Blocks

TINY = replace(UNIXFS_V1_2025, chunker=FixedSize(4), max_links=3)
CHILD = CID.of(b"child")

names = st.text(st.characters(codec="utf-8"), max_size=8) | st.builds(
    lambda raw: raw.decode("utf-8", "surrogateescape"), st.binary(max_size=8)
)
links = st.builds(
    PBLink,
    st.builds(CID.of, st.binary(max_size=4), hash_code=st.sampled_from([0, 0x12, 0x13])),
    st.none() | names,
    st.none() | st.integers(0, 2**64 - 1),
)
messages = st.builds(
    Data,
    st.sampled_from(Kind),
    st.none() | st.binary(max_size=300),
    st.none() | st.integers(0, 2**64 - 1),
    st.lists(st.integers(0, 2**40) | st.just(262144), max_size=200).map(tuple),
    st.none() | st.just(0x22),
    st.none() | st.integers(0, 1024),
    st.none() | st.integers(0, 2**32 - 1),
    st.none() | st.builds(Mtime, st.integers(-(2**63), 2**63 - 1), st.integers(0, 999_999_999)),
)


class TestDagPb:
    @given(st.lists(links, max_size=5), st.none() | st.binary(max_size=300))
    def test_round_trip(self, some: list[PBLink], data: bytes | None) -> None:
        node = PBNode(tuple(some), data)
        block = dag_pb.encode(node)
        assert dag_pb.decode(block) == dag_pb.decode(memoryview(block)) == node
        assert dag_pb.payload(block) == data
        assert dag_pb.links(block) == [link.cid for link in some]

    @given(st.lists(links, max_size=5), names)
    def test_find_gives_the_first_of_that_name(self, some: list[PBLink], name: str) -> None:
        block = dag_pb.encode(PBNode((*some, PBLink(CHILD, name, 1)), b"d"))
        expected = next(link for link in (*some, PBLink(CHILD, name, 1)) if link.name == name)
        assert dag_pb.find(block, dag_pb.name_bytes(name)) == (expected, b"d")

    def test_a_name_that_imitates_a_link_is_not_found(self) -> None:
        fake = dag_pb.encode_link(CHILD, b"secret", 1).decode("utf-8", "surrogateescape")
        block = dag_pb.encode(PBNode((PBLink(CHILD, fake, 1),), None))
        assert dag_pb.find(block, b"secret") == (None, None)

    def test_data_before_links_is_read_too(self) -> None:
        block = b"\x0a\x01d" + dag_pb.encode_link(CHILD, b"n", 7)
        assert dag_pb.decode(block) == PBNode((PBLink(CHILD, "n", 7),), b"d")

    @pytest.mark.parametrize(
        "block",
        [
            b"\x12", b"\x0a\x05abc", b"\x12\x00", b"\x1a\x00", b"\x08\x01", b"\x0a\x00\x0a\x00", b"\x12\x80",
            b"\x12" + b"\xff" * 10, b"\x12\x03\x0a\x01\x00",
            b"\x12\x05\x0a\x24\x01\x55\x12",
            dag_pb.encode_link(CHILD, b"n", 1)[:-1],
            b"\x12\x04\x12\x02ab",  # no CID
            b"\x12\x2a\x0a\x24" + bytes(CHILD) + b"\x12\x10ab",  # name runs past the link
        ],
    )  # fmt: skip
    def test_refused(self, block: bytes) -> None:
        with pytest.raises(DecodeError):
            dag_pb.decode(block)

    @given(st.binary(max_size=100))
    @settings(max_examples=300)
    def test_rubbish_is_a_node_or_a_decode_error(self, block: bytes) -> None:
        try:
            dag_pb.decode(block)
        except DecodeError:
            return
        dag_pb.find(block, b"x")


class TestUnixFS:
    @given(messages)
    def test_round_trip(self, message: Data) -> None:
        assert unixfs.decode(unixfs.encode(message)) == message

    def test_unknown_fields_are_passed_over_and_packed_sizes_read(self) -> None:
        base = unixfs.encode(Data(Kind.FILE, None, 3))
        assert unixfs.decode(base + b"\x7a\x02ab\x80\x01\x05") == Data(Kind.FILE, None, 3)
        assert unixfs.decode(base + b"\x22\x02\x01\x02").blocksizes == (1, 2)

    @pytest.mark.parametrize(
        ("text", "reason"),
        [
            ("", "type is missing"),
            ("0806", "unknown type 6"),
            ("1803", "type is missing"),
            ("0802" + "12ff", "number cut off"),
            ("0802" + "1205aa", "5 bytes where 1"),
            ("0805" + "30" + "8110", "at most 1024"),
            ("0802" + "4200", "without seconds"),
            ("0802" + "4207080115" + "00000000", "0 ns"),
            ("0802" + "4207080115" + "00ca9a3b", "1000000000 ns"),
            ("0802" + "0a00", "wire type"),
            ("0802" + "18" + "ff" * 10, "longer than 64 bits"),
            ("0802" + "7f", "wire type 7"),
            ("0802" + "42070801d8ffc99a3b", "cut off|past the end|ends"),
        ],
    )
    def test_refused(self, text: str, reason: str) -> None:
        with pytest.raises(DecodeError, match=reason):
            unixfs.decode(bytes.fromhex(text))

    def test_unknown_fields_in_a_time(self) -> None:
        time = bytes.fromhex("0801" + "800100")  # the second one has a tag of two bytes
        assert unixfs.decode(bytes.fromhex("0802" + "4205") + time).mtime == (1, 0)

    @given(st.binary(max_size=60))
    @settings(max_examples=300)
    def test_rubbish_is_a_message_or_a_decode_error(self, data: bytes) -> None:
        try:
            unixfs.decode(data)
        except DecodeError:
            return

    @pytest.mark.parametrize(
        "message",
        [
            Data(Kind.FILE, mode=2**32),
            Data(Kind.FILE, mode=-1),
            Data(Kind.FILE, mtime=Mtime(2**63)),
            Data(Kind.FILE, mtime=Mtime(0, 10**9)),
            Data(Kind.FILE, mtime=Mtime(0, -1)),
        ],
    )
    def test_what_cannot_be_written(self, message: Data) -> None:
        with pytest.raises(ValueError, match=r".+"):
            unixfs.encode(message)


class TestProfiles:
    def test_the_two_names(self) -> None:
        assert PROFILES == {"unixfs-v1-2025": UNIXFS_V1_2025, "unixfs-v0-2015": UNIXFS_V0_2015}

    @pytest.mark.parametrize(
        ("changes", "reason"),
        [
            ({"cid_version": 2}, "version 2"),
            ({"cid_version": 0, "hash_code": 0x13}, "sha2-256 only"),
            ({"hash_code": 0}, "cannot be used"),
            ({"hash_code": 0x99}, "cannot be used"),
            ({"max_links": 1}, "links a node"),
            ({"max_links": 100_000}, "links a node"),
            ({"hamt_fanout": 100}, "power of two"),
            ({"hamt_fanout": 2048}, "power of two"),
            ({"hamt_threshold_bytes": -1}, "threshold"),
            ({"hamt_estimate": "guess"}, "estimate"),
            ({"layout": "flat"}, "layout"),
            ({"inline_bytes": 129}, "inside a CID"),
            ({"max_directory_links": 0}, "links a folder"),
        ],
    )
    def test_what_cannot_work_is_said(self, changes: dict[str, Any], reason: str) -> None:
        with pytest.raises(ValueError, match=reason):
            ImportProfile(**changes)

    @pytest.mark.parametrize(
        "profile", [UNIXFS_V1_2025, replace(UNIXFS_V0_2015, chunker=FixedSize(MAX_CHUNK_BYTES))]
    )
    def test_the_largest_node_of_a_profile_is_a_lawful_block(self, profile: ImportProfile) -> None:
        leaf = make_leaf(profile, bytes(profile.chunker.max_bytes))
        assert len(leaf.block.data) <= 2**21
        wide = replace(profile, cid_version=1, hash_code=0x13, max_links=8_192)
        row = [dag_pb.encode_link(CID.of(b"", hash_code=0x13), b"", 2**63)] * wide.max_links
        message = unixfs.encode(Data(Kind.FILE, None, 2**63, (2**62,) * wide.max_links))
        assert len(dag_pb.assemble(row, message)) <= 2**21


class TestChunks:
    @given(st.lists(st.binary(max_size=20)), st.integers(1, 9))
    def test_same_bytes_in_full_chunks(self, pieces: list[bytes], size: int) -> None:
        chunks = list(fixed_chunks(pieces, size))
        assert b"".join(chunks) == b"".join(pieces)
        assert all(len(chunk) == size for chunk in chunks[:-1])
        assert 0 < len(chunks[-1]) <= size or (not any(pieces) and chunks == [b""])

    def test_a_piece_that_is_a_chunk_is_not_copied(self) -> None:
        piece = b"12345678"
        assert next(fixed_chunks([piece], 8)) is piece
        assert make_leaf(UNIXFS_V1_2025, piece).block.data is piece

    def test_no_chunks_of_nothing(self) -> None:
        with pytest.raises(ValueError, match="chunks of 0"):
            next(fixed_chunks([], 0))


def balanced(profile: ImportProfile, row: list[Link]) -> CID:
    """The balanced layout by its definition: level upon level, full nodes first."""
    while len(row) > 1:
        above: list[Link] = []
        for start in range(0, len(row), profile.max_links):
            part = row[start : start + profile.max_links]
            sizes = tuple(link.size_bytes for link in part)
            node = PBNode(
                tuple(PBLink(link.cid, "", link.tsize) for link in part),
                unixfs.encode(Data(Kind.FILE, None, sum(sizes), sizes)),
            )
            block = dag_pb.encode(node)
            tsize = len(block) + sum(link.tsize for link in part)
            above.append(Link(CID.of(block, 0x70), sum(sizes), tsize))
        row = above
    return row[0].cid


def trickle(profile: ImportProfile, left: list[Link], depth: int | None) -> Link:
    """The trickle layout by its definition: takes from `left` what belongs into a subtree of this depth."""
    row = [left.pop(0) for _ in range(min(profile.max_links, len(left)))]
    below = 1
    while left and (depth is None or below < depth):
        row += [trickle(profile, left, below) for _ in range(4) if left]
        below += 1
    sizes = tuple(link.size_bytes for link in row)
    node = PBNode(
        tuple(PBLink(link.cid, "", link.tsize) for link in row),
        unixfs.encode(Data(Kind.FILE, None, sum(sizes), sizes)),
    )
    block = dag_pb.encode(node)
    return Link(CID.of(block, 0x70), sum(sizes), len(block) + sum(link.tsize for link in row))


class TestFiles:
    @pytest.mark.parametrize("count", [*range(1, 30), 81, 82, 243, 244])
    def test_the_streamed_tree_is_the_balanced_tree(self, count: int) -> None:
        leaves = [make_leaf(TINY, b"%04d" % n) for n in range(count)]
        tree, blocks = FileTree(TINY), Blocks()
        for leaf in leaves:
            blocks.add(tree.add(leaf))
        link, rest = tree.finish()
        blocks.add(rest)
        assert link.cid == balanced(TINY, [leaf.link for leaf in leaves])
        assert link.tsize == sum(len(data) for data in blocks.by_cid.values())
        assert b"".join(iterate(read_file(link.cid), blocks.get)) == b"".join(
            b"%04d" % n for n in range(count)
        )

    def test_only_the_open_edge_is_kept(self) -> None:
        balanced: Balanced[int] = Balanced(3, len)
        trickle: Trickle[int] = Trickle(3, len)
        for n in range(3_000):
            balanced.append(n)
            trickle.append(n)
            assert sum(map(len, balanced._levels)) <= 3 * len(balanced._levels) <= 3 * 8
            assert sum(len(node.links) for node in trickle._path) <= 8 * 24

    @pytest.mark.parametrize("count", [*range(1, 60), 500])
    @pytest.mark.parametrize("raw_leaves", [True, False])
    def test_the_streamed_tree_is_the_trickle_tree(self, count: int, *, raw_leaves: bool) -> None:
        profile = replace(TINY, layout="trickle", raw_leaves=raw_leaves)
        leaves = [make_leaf(profile, b"%04d" % n) for n in range(count)]
        tree, blocks = FileTree(profile), Blocks()
        for leaf in leaves:
            blocks.add(tree.add(leaf))
        link, rest = tree.finish()
        blocks.add(rest)
        left = [leaf.link for leaf in leaves]
        assert link == trickle(profile, left, None)
        assert not left
        assert link.tsize == sum(len(data) for data in blocks.by_cid.values())
        read = b"".join(iterate(read_file(link.cid), blocks.get))
        assert read == b"".join(b"%04d" % n for n in range(count))

    @pytest.mark.parametrize("raw_leaves", [True, False])
    def test_a_trickle_root_is_never_a_leaf_and_an_empty_file_has_none(self, *, raw_leaves: bool) -> None:
        profile = replace(UNIXFS_V0_2015, layout="trickle", raw_leaves=raw_leaves)
        link, blocks = build_file(profile, [])
        assert (str(link.cid), len(list(blocks))) == ("QmbFMke1KXqnYyBBWxB74N4c5SBnJMVAiMNRcGu6x1AwQH", 1)
        link, blocks = build_file(profile, [b"one"], 0o640)
        leaf, root = blocks
        assert [child.cid for child in dag_pb.decode(root.data).links] == [leaf.cid]
        assert unixfs.decode(dag_pb.payload(root.data) or b"").mode == 0o640

    def test_small_blocks_are_inside_their_cids_if_wanted(self) -> None:
        profile = replace(UNIXFS_V0_2015, inline_bytes=32)
        for content, inlined in ((b"x" * 22, True), (b"x" * 26, False)):  # 10 bytes of dag-pb around it
            cid = build_file(profile, [content])[0].cid
            assert (cid.is_identity, cid.version) == (inlined, int(inlined))
        raw = build_file(replace(profile, raw_leaves=True), [b"x" * 32])[0].cid
        assert (raw.codec, raw.digest) == (RAW, b"x" * 32)
        assert build_directory(profile, [])[0].cid.is_identity
        assert not build_directory(replace(profile, inline_bytes=3), [])[0].cid.is_identity

    @pytest.mark.parametrize("profile", [TINY, replace(TINY, raw_leaves=False)])
    @pytest.mark.parametrize("size", [0, 3, 4, 5, 40])
    def test_metadata_goes_into_the_root_alone(self, profile: ImportProfile, size: int) -> None:
        content = bytes(range(size))
        chunks = list(fixed_chunks([content], 4))
        plain, plain_blocks = build_file(profile, chunks)
        link, more = build_file(profile, chunks, 0o755, Mtime(1, 2))
        blocks = list(more)
        message = unixfs.decode(dag_pb.payload(blocks[-1].data) or b"")
        assert blocks[-1].cid == link.cid != plain.cid
        assert (message.mode, message.mtime) == (0o755, Mtime(1, 2))
        assert len(blocks) == len(list(plain_blocks))
        assert b"".join(iterate(read_file(link.cid), Blocks(blocks).get)) == content

    def test_misuse(self) -> None:
        with pytest.raises(ValueError, match="at least one leaf"):
            FileTree(TINY).finish()
        tree = FileTree(TINY)
        tree.add(make_leaf(TINY, b"x"))
        tree.finish()
        for call in (tree.finish, lambda: tree.add(make_leaf(TINY, b"x"))):
            with pytest.raises(ValueError, match="finished"):
                call()
        with pytest.raises(LimitExceeded, match="chunk of 5"):
            make_leaf(TINY, b"12345")

    def test_raw_leaves_have_version_1_under_version_0(self) -> None:
        leaf = make_leaf(replace(UNIXFS_V0_2015, raw_leaves=True), b"x")
        assert (leaf.link.cid.version, leaf.link.cid.codec) == (1, RAW)

    def test_symlink_targets_are_bounded(self) -> None:
        for target in ("", "x" * 5000):
            with pytest.raises(ValueError, match="target"):
                build_symlink(TINY, target)


class TestFolders:
    def entries(self, count: int, length: int = 8) -> list[DirEntry]:
        return [DirEntry(f"{n:0{length}d}", CHILD, n) for n in range(count)]

    def test_links_are_sorted_by_the_bytes_of_their_names(self) -> None:
        mixed = ["b", "a", "ä", "B", "\udcff", "aa", "😀"]
        _, blocks = build_directory(UNIXFS_V1_2025, [DirEntry(name, CHILD, 1) for name in mixed])
        found = [dag_pb.name_bytes(link.name or "") for link in dag_pb.decode(blocks[-1].data).links]
        assert found == sorted(found)

    @pytest.mark.parametrize("name", ["", ".", "..", "a/b", "a\0b", "x" * 1025])
    def test_impossible_names(self, name: str) -> None:
        with pytest.raises(ValueError, match="cannot be a name"):
            build_directory(UNIXFS_V1_2025, [DirEntry(name, CHILD, 1)])

    def test_repeated_names(self) -> None:
        with pytest.raises(ValueError, match="twice"):
            build_directory(
                UNIXFS_V1_2025, [DirEntry("a", CHILD, 1), DirEntry("b", CHILD, 1), DirEntry("a", CHILD, 2)]
            )

    @settings(max_examples=50)
    @given(
        st.dictionaries(st.text("abc😀", min_size=1), st.integers(0, 2**50), max_size=60),
        st.sampled_from([0, 1, 300, 1000]),
        st.sampled_from([8, 16, 256]),
        st.sampled_from([1, 3, 64]),
        st.sampled_from([None, 0, 128]),
        st.none() | st.just(0o750),
    )
    def test_packed_or_not_a_folder_is_the_same(
        self, sizes: dict[str, int], threshold: int, fanout: int, first_look: int, inline: int | None,
        mode: int | None,
    ) -> None:  # fmt: skip
        profile = replace(
            UNIXFS_V1_2025, hamt_threshold_bytes=threshold, hamt_fanout=fanout, inline_bytes=inline
        )
        some = [
            DirEntry(name, make_leaf(profile, name.encode()).block.cid, size) for name, size in sizes.items()
        ]
        rows = sorted((name.encode(), cid, size) for name, cid, size in some)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(directory, "FIRST_LOOK", first_look)
            assert build_directory(profile, some, mode) == directory.write_folder(profile, rows, mode)
            with pytest.raises(ValueError, match="twice"):
                build_directory(profile, [*some, DirEntry("a", CHILD, 1), *some, DirEntry("a", CHILD, 2)])

    def test_large_folders_take_little_memory(self) -> None:
        """A folder of 10⁶ entries is built in about 100 MB; here their hundredth part is held."""
        builder = DirectoryBuilder(UNIXFS_V1_2025)
        tracemalloc.start()
        try:
            for entry in self.entries(10_000, 20):
                builder.add(entry)
            held, _ = tracemalloc.get_traced_memory()
            tracemalloc.reset_peak()
            for _ in builder.finish():
                pass
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert held < 10_000 * 140
        assert peak < held + 10_000 * 60

    @pytest.mark.parametrize("estimate", ["links", "block"])
    def test_a_hamt_begins_strictly_above_the_threshold(self, estimate: Any) -> None:
        some = self.entries(10)
        flat = build_directory(UNIXFS_V1_2025, some, hamt="never")[1][-1]
        size = len(flat.data) if estimate == "block" else 10 * (8 + 36)
        at = replace(UNIXFS_V1_2025, hamt_threshold_bytes=size, hamt_estimate=estimate)
        assert build_directory(at, some)[0].cid == flat.cid
        below = replace(at, hamt_threshold_bytes=size - 1)
        assert (
            build_directory(below, some)[0].cid
            == build_directory(below, some, hamt="always")[0].cid
            != flat.cid
        )

    def test_metadata_counts_towards_the_block(self) -> None:
        some = self.entries(10)
        size = len(build_directory(UNIXFS_V1_2025, some)[1][-1].data)
        profile = replace(UNIXFS_V1_2025, hamt_threshold_bytes=size)
        _, blocks = build_directory(profile, some, mode=0o755)
        message = unixfs.decode(dag_pb.payload(blocks[-1].data) or b"")
        assert (message.kind, message.mode) == (Kind.HAMT, 0o755)

    def test_a_flat_block_over_the_limit_is_refused(self) -> None:
        with pytest.raises(LimitExceeded, match="use a HAMT"):
            build_directory(UNIXFS_V1_2025, self.entries(30_000, 30), hamt="never")

    @given(
        st.sets(
            names.filter(lambda n: n not in ("", ".", "..") and "/" not in n and "\0" not in n), max_size=60
        ),
        st.sampled_from([8, 16, 256, 1024]),
        st.randoms(use_true_random=False),
    )
    @settings(max_examples=60)
    def test_a_hamt_holds_exactly_its_entries_in_any_order(
        self, some: set[str], fanout: int, random: Any
    ) -> None:
        profile = replace(UNIXFS_V1_2025, hamt_fanout=fanout)
        listed = [DirEntry(name, CHILD, 1) for name in some]
        link, blocks = build_directory(profile, listed, hamt="always")
        random.shuffle(listed)
        assert build_directory(profile, listed, hamt="always")[0] == link
        found = list(iterate(entries(link.cid), Blocks(blocks).get))
        assert {entry.name for entry in found} == some
        assert len(found) == len(some)
        assert link.tsize == sum(len(block.data) for block in blocks) + len(some)

    def test_two_names_with_the_same_hash_are_refused_not_recursed_into(self) -> None:
        items = [hamt.Item(7, name, CHILD, 1) for name in (b"a", b"b")]
        with pytest.raises(LimitExceeded, match="64 bits"):
            list(hamt.build(UNIXFS_V1_2025, [items]))


def test_blocks_are_what_their_cids_say() -> None:
    for profile in (TINY, replace(TINY, hash_code=0x13), replace(TINY, hash_code=0x1E), UNIXFS_V0_2015):
        blocks: list[Block] = list(
            build_file(profile, fixed_chunks([bytes(100)], profile.chunker.max_bytes))[1]
        )
        Blocks(blocks)
