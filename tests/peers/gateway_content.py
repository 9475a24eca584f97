"""What both gateways serve when they are compared: every kind of content, the same at every call."""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path

from merkledag import base, car, dag_cbor, dag_json, dag_pb, ipns, rfc3339, unixfs
from merkledag.block import Block
from merkledag.builder import build_file, build_symlink
from merkledag.chunker import FixedSize
from merkledag.cid import CID
from merkledag.codecs import CBOR, DAG_CBOR, DAG_JSON, DAG_PB, JSON, RAW
from merkledag.directory import DirEntry, build_directory
from merkledag.ed25519 import Ed25519Signer
from merkledag.multihash import IDENTITY, SHA2_512
from merkledag.peer import name_text, peer_cid
from merkledag.profile import UNIXFS_V0_2015, UNIXFS_V1_2025, ImportProfile
from tests.gateway.black_box.content import AWKWARD_NAMES, DIRECTIVES, png

GIT_RAW = 0x78
SMALL = replace(UNIXFS_V1_2025, chunker=FixedSize(500), max_links=4)  # deep trees of little data
SHARDED = replace(SMALL, hamt_threshold_bytes=1, hamt_fanout=16)
OLD = replace(UNIXFS_V0_2015, chunker=FixedSize(500), max_links=4)
BIG = random.Random(8).randbytes(6_003)
HAMT_ENTRIES = 60
TTL_S = 300
SITE, BY_KEY, UNKNOWN_NAME = "site.example.org", "by-key.example.org", "nothing.example.org"
RECORD_ENDS_NS = rfc3339.parse("2100-01-01T00:00:00Z")

Tree = dict[str, "Tree | bytes | str | CID"]

FILES: Tree = {
    "a.txt": b"hello\n",
    "data.json": b'{"a": [1, 2]}\n',
    "data": b'{"a": [1, 2]}\n',
    "page.html": b"<!doctype html><p>hi",
    "page": b"<!doctype html><p>hi",
    "picture.png": png(4, 3, (200, 30, 40)),
    "picture": png(4, 3, (200, 30, 40)),
    "empty": b"",
    "big.bin": BIG,
    "binary": bytes(range(256)),
    "archive.tar.gz": b"\x1f\x8b\x08\0no archive",
    "link": "a.txt",
    "dangling": "../nowhere",
}


@dataclass(slots=True)
class Content:
    """Blocks, and what to ask for: roots by kind, paths that lead somewhere, names."""

    blocks: dict[CID, bytes] = field(default_factory=dict)
    roots: dict[str, CID] = field(default_factory=dict)
    paths: dict[str, tuple[str, ...]] = field(default_factory=dict)  # below a root, unquoted, "" is the root
    names: dict[str, str] = field(default_factory=dict)  # to content paths
    records: dict[str, bytes] = field(default_factory=dict)  # by key
    key_forms: tuple[str, ...] = ()  # of the one key

    def add(self, data: bytes, codec: int, hash_code: int | None = None) -> CID:
        cid = CID.of(data, codec) if hash_code is None else CID.of(data, codec, hash_code)
        if not cid.is_identity:
            self.blocks[cid] = data
        return cid

    def keep(self, blocks: Iterable[Block]) -> None:
        self.blocks.update((block.cid, block.data) for block in blocks if not block.cid.is_identity)

    def root(self, name: str, cid: CID, *paths: str) -> CID:
        self.roots[name] = cid
        self.paths[name] = ("", *paths)
        return cid

    def write(self, path: Path) -> None:
        """All blocks in one CAR."""
        with path.open("wb") as file:
            file.write(car.header([self.roots["tree"]]))
            for cid, data in self.blocks.items():
                file.write(car.frame(Block(cid, data)))


def make_content() -> Content:
    """The same at every call."""
    content = Content()
    _add_nodes(content)
    _add_trees(content)
    _add_single_blocks(content)
    _add_names(content)
    return content


def _add_tree(content: Content, tree: Tree, profile: ImportProfile) -> DirEntry:
    """A folder; bytes are files, str links, dicts folders, CIDs what they are. An entry without a name."""
    entries = []
    for name, item in tree.items():
        if isinstance(item, CID):
            entries.append(DirEntry(name, item, len(content.blocks.get(item, b""))))
        elif isinstance(item, dict):
            below = _add_tree(content, item, SHARDED if name == "hamt" else profile)
            entries.append(below._replace(name=name))
        elif isinstance(item, str):
            link, block = build_symlink(profile, item)
            content.keep([block])
            entries.append(DirEntry(name, link.cid, link.tsize))
        else:
            link, blocks = build_file(profile, [item[at : at + 500] for at in range(0, len(item), 500)])
            content.keep(blocks)
            entries.append(DirEntry(name, link.cid, link.tsize))
    link, folders = build_directory(profile, entries)
    content.keep(folders)
    return DirEntry("", link.cid, link.tsize)


def _paths(tree: Tree, above: str = "") -> list[str]:
    found = []
    for name, item in tree.items():
        found.append(above + name)
        if isinstance(item, dict):
            found += _paths(item, f"{above}{name}/")
    return found


def _add_trees(content: Content) -> None:
    site: Tree = {
        "_redirects": DIRECTIVES.encode(),
        "index.html": b"<!doctype html><title>site</title>",
        "style.css": b"p { color: red }",
        "posts": {"first.html": b"<p>first"},
    }
    for name in ("new", "404", "410", "451"):
        site[f"{name}.html"] = f"<title>{name}</title>my {name}\n".encode()
    lacking = CID.of(b"nobody has this", RAW)
    half, blocks = build_file(SMALL, [b"here" * 100, b"gone" * 100])
    content.keep(block for block in blocks if block.data != b"gone" * 100)
    tree: Tree = {
        **FILES,
        **{name: f"I am {name}\n".encode() for name in AWKWARD_NAMES},
        "site": site,
        "nothing": {},
        "sub": {"deep": {"x": b"x"}, "README.md": b"# Read me\n"},
        "hamt": {f"{number:02}.txt": f"number {number}\n".encode() for number in range(HAMT_ENTRIES)},
        "lacking": {"file": lacking, "half.bin": half.cid},
        "node": content.roots["dag-cbor"],
        "number.json": content.roots["dag-json"],
    }
    below = _paths(tree)
    content.root("tree", _add_tree(content, tree, SMALL).cid, *below, "node/deep/list/1", "node/tree/a.txt")
    content.root("hamt", _add_tree(content, tree["hamt"], SHARDED).cid, *_paths(tree["hamt"]))  # type: ignore[arg-type]
    content.root("site", _add_tree(content, site, SMALL).cid, *_paths(site))
    content.root("lacking", _add_tree(content, tree["lacking"], SMALL).cid, "file", "half.bin")  # type: ignore[arg-type]
    content.root("old", _add_tree(content, {**FILES, "sub": {"x": b"x"}}, OLD).cid, *FILES, "sub", "sub/x")
    timed, blocks = build_file(SMALL, [BIG[:100]], mode=0o640, mtime=unixfs.Mtime(1_600_000_000, 5))
    content.keep(blocks)
    content.root("timed", timed.cid)
    dated, folders = build_directory(
        SMALL, [DirEntry("timed.txt", timed.cid, timed.tsize)], mode=0o750, mtime=unixfs.Mtime(1_500_000_000)
    )
    content.keep(folders)
    content.root("dated", dated.cid, "timed.txt")
    for name in ("big.bin", "a.txt", "link", "empty", "data"):
        content.root(name, _entry(content, "tree", name))
        content.root(f"old {name}", _entry(content, "old", name))


def _entry(content: Content, root: str, name: str) -> CID:
    """An entry of a flat folder."""
    (link,) = (link for link in dag_pb.decode(content.blocks[content.roots[root]]).links if link.name == name)
    return link.cid


def _add_nodes(content: Content) -> None:
    file = content.add(b"linked file\n", RAW)
    inner = content.add(dag_cbor.encode({"inner": True, "file": file}), DAG_CBOR)
    small = _add_tree(content, {"a.txt": b"hello\n", "below": {"b": b"b"}}, SMALL).cid
    value = {
        "deep": {"list": [1, file, {"x": inner}], "text": "words"},
        "file": file,
        "inner": inner,
        "tree": small,
        "bytes": b"\x00\x01",
        "nothing": None,
        "number": 3.5,
        "ąę /": 1,
        "": 2,
    }
    paths = (
        "deep",
        "deep/list",
        "deep/list/0",
        "deep/list/1",
        "deep/list/2/x/inner",
        "deep/list/2/x/file",
        "deep/text",
        "file",
        "file/more",
        "inner",
        "inner/file",
        "tree",
        "tree/a.txt",
        "tree/below/b",
        "bytes",
        "nothing",
        "number",
        "deep/list/9",
        "deep/list/-1",
        "deep/list/01",
    )
    content.root("dag-cbor", content.add(dag_cbor.encode(value), DAG_CBOR), *paths)
    content.root("dag-json", content.add(dag_json.encode(value).encode(), DAG_JSON), *paths)
    plain = b'{"a": {"b": [1, "two"]}, "/": "x"}'
    content.root("json", content.add(plain, JSON), "a", "a/b", "a/b/1", "a/c")
    content.root("cbor", content.add(dag_cbor.encode_plain({"a": {"b": [1]}}), CBOR), "a", "a/b/0", "c")
    content.root("scalar", content.add(dag_cbor.encode(5), DAG_CBOR), "a")
    content.root("broken dag-cbor", content.add(b"\xff\xff", DAG_CBOR), "a")
    content.root("broken dag-json", content.add(b"{", DAG_JSON), "a")


def _add_single_blocks(content: Content) -> None:
    content.root("raw", content.add(BIG[:1000], RAW), "below")
    content.root("raw text", content.add(b"some words\n", RAW))
    content.root("raw json", content.add(b'{"some": "words"}', RAW))
    content.root("empty block", content.add(b"", RAW))
    content.root("sha2-512", content.add(b"a longer hash\n", RAW, SHA2_512))
    content.root("git", content.add(b"blob 3\0abc", GIT_RAW), "below")
    content.root("broken dag-pb", content.add(b"\xff\xff\xff", DAG_PB), "a")
    link = dag_pb.encode_link(content.roots["raw"], b"raw", 1000)
    content.root(
        "dag-pb without UnixFS", content.add(dag_pb.assemble([link], None), DAG_PB), "raw", "0", "Links"
    )
    content.root("dag-pb of words", content.add(dag_pb.assemble([], b"\xffwords"), DAG_PB), "a")
    content.root("missing raw", CID.of(b"nobody has it", RAW), "below")
    content.root("missing dag-pb", CID.of(b"nobody has it", DAG_PB), "below")
    content.root("missing dag-cbor", CID.of(b"nobody has it", DAG_CBOR), "below")
    content.root("identity raw", content.add(b"inline\n", RAW, IDENTITY), "below")
    content.root("identity dag-cbor", content.add(dag_cbor.encode({"a": 1}), DAG_CBOR, IDENTITY), "a")
    entry = dag_pb.encode_link(content.roots["identity raw"], b"in.txt", 7)
    folder = dag_pb.assemble([entry], unixfs.encode(unixfs.Data(unixfs.Kind.DIRECTORY)))
    content.root("identity folder", content.add(folder, DAG_PB, IDENTITY), "in.txt", "nothing")
    content.root("identity empty", content.add(b"", RAW, IDENTITY))


def _add_names(content: Content) -> None:
    signer = Ed25519Signer.from_seed(bytes(32))
    key_cid = peer_cid(signer.public_key)
    key = name_text(key_cid.multihash)
    tree = f"/ipfs/{content.roots['tree']}"
    content.names = {
        SITE: f"/ipfs/{content.roots['site']}",
        BY_KEY: tree,
        key: tree,
        "gone.example.org": f"/ipfs/{content.roots['missing dag-pb']}",
        "deep.example.org": f"{tree}/sub",
    }
    record = ipns.create(signer, tree, sequence=1, eol_ns=RECORD_ENDS_NS, ttl_ns=TTL_S * 10**9)
    content.records[key] = record.raw
    content.key_forms = (
        key,
        str(key_cid),
        key_cid.encode("base58btc"),
        base.encode_base58(key_cid.multihash),
        str(CID(1, DAG_PB, key_cid.multihash)),
    )
    content.root("key", key_cid)
