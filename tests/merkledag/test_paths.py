"""Parsing content paths and following them."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from merkledag import dag_cbor
from merkledag.builder import build_file, build_symlink
from merkledag.cid import CID
from merkledag.codecs import DAG_CBOR, DAG_JSON, LIBP2P_KEY, RAW
from merkledag.dag_pb import PBLink
from merkledag.directory import DirEntry, build_directory
from merkledag.errors import DecodeError, InvalidPath, NoSuchLink, NotADirectory, PathError, UnsupportedCodec
from merkledag.path import MAX_PATH_CHARS, MAX_SEGMENTS, ContentPath, parse_path
from merkledag.profile import UNIXFS_V1_2025
from merkledag.resolve import Resolved, resolve
from merkledag.steps import run
from merkledag.unixfs import Data, Kind
from tests.merkledag.support import Blocks

A = "bafkreifzjut3te2nhyekklss27nh3k72ysco7y32koao5eei66wof36n5e"
K51 = "k51qzi5uqu5dhjghbwdvbo6mi40htrq6e2z4pwgp15pgv3ho1azvidttzh8yy2"


class TestParsing:
    @pytest.mark.parametrize(
        ("text", "namespace", "root", "segments"),
        [
            (f"/ipfs/{A}", "ipfs", A, ()),
            (f"/ipfs/{A}/", "ipfs", A, ()),
            (f"/ipfs/{A}/a/b", "ipfs", A, ("a", "b")),
            (f"/ipfs/{A}//a/./b/", "ipfs", A, ("a", "b")),
            (f"/ipfs/{A}/a/../b", "ipfs", A, ("b",)),
            (f"/ipfs/{A}/a%20b?c#d", "ipfs", A, ("a%20b?c#d",)),
            (f"ipfs://{A}/a%20b%3F?c#d", "ipfs", A, ("a b?",)),
            (f"IPFS://{A}", "ipfs", A, ()),
            (f"ipfs://{A}?q", "ipfs", A, ()),
            (f"ipfs://{A}/%ff", "ipfs", A, ("\udcff",)),
            (f"ipfs://{A}/\udcff", "ipfs", A, ("\udcff",)),
            (A, "ipfs", A, ()),
            (f"{A}/ä/b", "ipfs", A, ("ä", "b")),
            ("QmUNLLsPACCz1vLxQVkXqqLX5R1X345qqfHbsf67hvA3Nn/x", "ipfs",
             "QmUNLLsPACCz1vLxQVkXqqLX5R1X345qqfHbsf67hvA3Nn", ("x",)),
            (f"/ipns/{K51}/x", "ipns", K51, ("x",)),
            ("/ipns/docs.ipfs.tech/x", "ipns", "docs.ipfs.tech", ("x",)),
            ("ipns://docs.ipfs.tech", "ipns", "docs.ipfs.tech", ()),
        ],
    )  # fmt: skip
    def test_forms(self, text: str, namespace: Any, root: str, segments: tuple[str, ...]) -> None:
        assert parse_path(text) == ContentPath(namespace, root, segments)

    @pytest.mark.parametrize(
        "text",
        [
            "", "/", "/ipfs", "/ipfs/", "/ipns/", "/ipld/" + A, "ipfs://", "ipns://", "/ipns/..", "/ipns/a b",
            "foo", "/ipfs/foo", f"/{A}", f" /ipfs/{A}", f"https://ipfs.io/ipfs/{A}",
            f"/ipfs/{A}/..", f"/ipfs/{A}/a/../..", f"/ipfs/{A}/a\0", f"ipfs://{A}/a%00", f"ipfs://{A}/a%2Fb",
            f"ipfs://{A}/%2e%2e", f"/ipfs/{A}" + "/a" * 2000, "x" * 20_000,
        ],
    )  # fmt: skip
    def test_refused(self, text: str) -> None:
        with pytest.raises(InvalidPath):
            parse_path(text)

    def test_limits(self) -> None:
        start = f"/ipfs/{A}/"
        assert str(parse_path(start + "a" * (MAX_PATH_CHARS - len(start)))).endswith("aa")
        with pytest.raises(InvalidPath, match="at most 16384"):
            parse_path(start + "a" * (MAX_PATH_CHARS - len(start) + 1))
        assert len(parse_path(start + "/".join("a" * MAX_SEGMENTS)).segments) == MAX_SEGMENTS
        with pytest.raises(InvalidPath, match="at most 1024"):
            parse_path(start + "/".join("a" * (MAX_SEGMENTS + 1)))

    @given(st.text(max_size=60))
    def test_any_text_is_a_path_or_invalid(self, text: str) -> None:
        for candidate in (text, f"/ipfs/{A}/{text}", f"ipfs://{A}/{text}", f"/ipns/{text}"):
            try:
                path = parse_path(candidate)
            except InvalidPath:
                continue
            assert parse_path(str(path)) == path
            assert not {"", ".", ".."} & set(path.segments)

    def test_the_root_as_a_cid(self) -> None:
        assert parse_path(A).cid == CID.parse(A)


class World:
    """A folder with a file, a symlink, a sub-folder, a HAMT, a DAG-CBOR value, and a plain dag-pb node."""

    def __init__(self) -> None:
        self.blocks = Blocks()
        self.file, made = build_file(UNIXFS_V1_2025, [b"hello"])
        self.blocks.add(made)
        self.symlink, block = build_symlink(UNIXFS_V1_2025, "file")
        self.blocks.add([block])
        self.inner = self.folder({"file": self.file.cid})
        self.hamt = self.folder({f"f{n}": self.file.cid for n in range(300)}, "always")
        self.value = self.blocks.put(
            dag_cbor.encode({"a": {"b": [1, self.inner]}, "0": "zero", "here": self.inner}), DAG_CBOR
        )
        self.plain = self.blocks.put_node([PBLink(self.inner, "link", 1)], None)
        self.dag_pb_file = self.blocks.put_file([], b"x")
        self.json = self.blocks.put(b"{}", DAG_JSON)
        self.unknown = self.blocks.put(b"\xa0", LIBP2P_KEY)
        names = ("file", "symlink", "inner", "hamt", "value", "plain", "dag_pb_file", "json", "unknown")
        found = {name: getattr(self, name) for name in names}
        self.root = self.folder({name: getattr(each, "cid", each) for name, each in found.items()})

    def folder(self, entries: dict[str, CID], hamt: Any = "auto") -> CID:
        link, made = build_directory(
            UNIXFS_V1_2025, [DirEntry(n, c, 1) for n, c in entries.items()], hamt=hamt
        )
        self.blocks.add(made)
        return link.cid

    def resolve(self, text: str) -> Resolved:
        self.blocks.asked.clear()
        return run(resolve(self.root, [part for part in text.split("/") if part]), self.blocks.get)


@pytest.fixture(scope="module")
def world() -> World:
    return World()


class TestResolving:
    def test_where_paths_lead(self, world: World) -> None:
        root, inner, value, file = world.root, world.inner, world.value, world.file.cid
        expected = {
            "": Resolved(root),
            "file": Resolved(file, (), (root,)),
            "inner/file": Resolved(file, (), (root, inner)),
            "hamt/f7": Resolved(file, (), (root, world.hamt)),
            "value": Resolved(value, (), (root,)),
            "value/a/b": Resolved(value, ("a", "b"), (root,)),
            "value/a/b/0": Resolved(value, ("a", "b", "0"), (root,)),
            "value/a/b/1": Resolved(inner, (), (root, value)),
            "value/a/b/1/file": Resolved(file, (), (root, value, inner)),
            "value/here/file": Resolved(file, (), (root, value, inner)),
            "plain/link/file": Resolved(file, (), (root, world.plain, inner)),
            "symlink": Resolved(world.symlink.cid, (), (root,)),
        }
        assert {text: world.resolve(text) for text in expected} == expected

    def test_the_last_node_is_not_fetched(self, world: World) -> None:
        world.resolve("inner/file")
        assert world.blocks.asked == [world.root, world.inner]

    @pytest.mark.parametrize(
        ("text", "error", "reason"),
        [
            ("none", NoSuchLink, "no link named 'none'"),
            ("inner/none/x", NoSuchLink, "'none'"),
            ("hamt/none", NoSuchLink, "'none'"),
            ("plain/none", NoSuchLink, "'none'"),
            ("value/none", NoSuchLink, "'none'"),
            ("value/a/b/2", NoSuchLink, "'2'"),
            ("value/a/b/01", NoSuchLink, "'01'"),
            ("value/a/b/-1", NoSuchLink, "'-1'"),
            ("value/a/b/٣", NoSuchLink, "٣"),
            ("value/a/b/" + "9" * 9_000, NoSuchLink, "9999"),
            ("value/a/b/0/x", NoSuchLink, "'x'"),
            ("file/x", NotADirectory, "is a file"),
            ("dag_pb_file/x", NotADirectory, "is a file"),
            ("symlink/x", NotADirectory, "is a symlink"),
            ("json/x", NoSuchLink, "'x'"),
            ("unknown/x", UnsupportedCodec, "libp2p-key"),
        ],
    )
    def test_where_they_do_not(self, world: World, text: str, error: type[Exception], reason: str) -> None:
        with pytest.raises(error, match=reason):
            world.resolve(text)

    def test_a_missing_link_names_itself_and_its_node(self, world: World) -> None:
        with pytest.raises(NoSuchLink) as caught:
            world.resolve("inner/none")
        assert (caught.value.name, caught.value.cid) == ("none", world.inner)
        assert isinstance(caught.value, PathError)

    def test_broken_blocks(self) -> None:
        blocks = Blocks()
        for codec in (0x70, DAG_CBOR):
            with pytest.raises(DecodeError):
                run(resolve(blocks.put(b"\xff", codec), ["x"]), blocks.get)

    def test_a_source_s_own_error_passes_through(self) -> None:
        with pytest.raises(KeyError):
            run(resolve(CID.of(b"x", RAW), ["x"]), Blocks().get)

    def test_unixfs_links_that_share_a_prefix_with_a_shard(self, world: World) -> None:
        """A name that looks like a bucket number is looked up by its hash, never by its text."""
        names = [f"{n:02X}" for n in range(256)]
        cid = world.folder(dict.fromkeys(names, world.file.cid), "always")
        for name in names:
            assert run(resolve(cid, [name]), world.blocks.get).cid == world.file.cid
        with pytest.raises(NoSuchLink):
            run(resolve(cid, ["0A0A"]), world.blocks.get)

    def test_metadata_nodes_have_no_children(self) -> None:
        blocks = Blocks()
        cid = blocks.put_node([], Data(Kind.METADATA))
        with pytest.raises(NotADirectory, match="metadata"):
            run(resolve(cid, ["x"]), blocks.get)
