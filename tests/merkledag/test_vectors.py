"""Every case of vectors/unixfs.json that needs what is built: the CIDs all IPFS implementations give."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms

from merkledag import dag_cbor, dag_pb
from merkledag.builder import FileTree, Link, build_file, build_symlink, make_leaf
from merkledag.chunker import FixedSize
from merkledag.cid import CID
from merkledag.codecs import DAG_CBOR, DAG_PB
from merkledag.directory import DirEntry, Sharding, build_directory
from merkledag.profile import UNIXFS_V0_2015, UNIXFS_V1_2025, ImportProfile
from merkledag.unixfs import Mtime

MIB = 1024 * 1024
CASES = json.loads((Path(__file__).parents[1] / "vectors" / "unixfs.json").read_text())["cases"]
V0, V1 = UNIXFS_V0_2015, UNIXFS_V1_2025
ALPHABET = b"abcdefghijklmnopqrstuvwxyz01234567890-_"


def rnd(size: int, seed: str) -> Iterator[bytes]:
    """The vectors' generator: a ChaCha20 key stream, in pieces of 1 MiB."""
    stream = Cipher(algorithms.ChaCha20(sha256(seed.encode()).digest(), bytes(16)), None).encryptor()
    for start in range(0, size, MIB):
        yield stream.update(bytes(min(MIB, size - start)))


def file(profile: ImportProfile, pieces: Iterator[bytes] | list[bytes]) -> Link:
    """Streams a file through the tree, as an importer does: nothing but the open edge stays in memory."""
    tree = FileTree(profile)
    for chunk in profile.chunker.split(pieces):
        tree.add(make_leaf(profile, chunk))
    return tree.finish()[0]


def folder(profile: ImportProfile, entries: dict[str, Link], hamt: Sharding = "auto") -> Link:
    named = [DirEntry(name, link.cid, link.tsize) for name, link in entries.items()]
    return build_directory(profile, named, hamt=hamt)[0]


def named_folder(profile: ImportProfile, seed: str, lengths: list[int]) -> Link:
    text = bytes(ALPHABET[byte % 39] for byte in next(rnd(MIB, seed)))
    x = file(profile, [b"x"])
    entries: dict[str, Link] = {}
    position = 0
    for length in lengths:
        entries[text[position : position + length].decode()] = x
        position += length
    assert len(entries) == len(lengths)
    return folder(profile, entries)


def numbered(hamt: Sharding) -> Link:
    return folder(V0, {f"file{i}": file(V0, [b"%d\n" % i]) for i in range(1, 2001)}, hamt)


def nested(profile: ImportProfile) -> Link:
    index = file(profile, [b"hello\n"])
    return folder(
        profile,
        {
            "root2": folder(
                profile, {"root3": folder(profile, {"root4": folder(profile, {"index.html": index})})}
            )
        },
    )


def empty_file(mode: int | None = None, mtime: Mtime | None = None) -> CID:
    return build_file(V0, [], mode, mtime)[0].cid


def block(codec: int, text: str) -> CID:
    """A block that must survive decoding and encoding unchanged."""
    data = base64.b64decode(text)
    again = (
        dag_cbor.encode(dag_cbor.decode(data)) if codec == DAG_CBOR else dag_pb.encode(dag_pb.decode(data))
    )
    assert again == data
    return CID.of(again, codec)


V0_NAMES, V1_NAMES = "hamt-unixfs-v0-2015", "hamt-unixfs-v1-2025"
SYMLINK = build_symlink(V0, "foo")[0]

# One builder for each expected CID; the test below insists that no case is forgotten.
BUILD: dict[str, Callable[[], CID]] = {
    "Qmf412jQZiuVUtdgnB36FXFX7xg5V6KEbSJ4dpQuhkLyfD": lambda: file(V0, [b"hello world"]).cid,
    "bafkreifzjut3te2nhyekklss27nh3k72ysco7y32koao5eei66wof36n5e": lambda: file(V1, [b"hello world"]).cid,
    "QmWmRj3dFDZdb6ABvbmKhEL6TmPbAfBZ1t5BxsEyJrcZhE": lambda: file(V0, rnd(262144, "chunk-v0-seed")).cid,
    "QmYyLxtzZyW22zpoVAtKANLRHpDjZtNeDjQdJrcQNWoRkJ": lambda: file(V0, rnd(262145, "chunk-v0-seed")).cid,
    "bafkreiacndfy443ter6qr2tmbbdhadvxxheowwf75s6zehscklu6ezxmta": lambda: (
        file(V1, rnd(MIB, "chunk-v1-seed")).cid
    ),
    "bafybeigmix7t42i6jacydtquhet7srwvgpizfg7gjbq7627d35mjomtu64": lambda: (
        file(V1, rnd(MIB + 1, "chunk-v1-seed")).cid
    ),
    "QmUbBALi174SnogsUzLpYbD4xPiBSFANF4iztWCsHbMKh2": lambda: file(V0, rnd(174 * 262144, "v0-seed")).cid,
    "QmV81WL765sC8DXsRhE5fJv2rwhS4icHRaf3J9Zk5FdRnW": lambda: file(V0, rnd(174 * 262144 + 1, "v0-seed")).cid,
    "bafybeihmf37wcuvtx4hpu7he5zl5qaf2ineo2lqlfrapokkm5zzw7zyhvm": lambda: (
        file(V1, rnd(1024 * MIB, "v1-2025-seed")).cid
    ),
    "bafybeibdsi225ugbkmpbdohnxioyab6jsqrmkts3twhpvfnzp77xtzpyhe": lambda: (
        file(V1, rnd(1024 * MIB + 1, "v1-2025-seed")).cid
    ),
    "QmX5GtRk3TSSEHtdrykgqm4eqMEn3n2XhfkFAis5fjyZmN": lambda: named_folder(V0, V0_NAMES, [30] * 4096).cid,
    "QmeMiJzmhpJAUgynAcxTQYek5PPKgdv3qEvFsdV3XpVnvP": lambda: named_folder(V0, V0_NAMES, [31] * 4033).cid,
    "bafybeic3h7rwruealwxkacabdy45jivq2crwz6bufb5ljwupn36gicplx4": lambda: (
        named_folder(V1, V1_NAMES, [11] * 4765 + [21]).cid
    ),
    "bafybeiegvuterwurhdtkikfhbxcldohmxp566vpjdofhzmnhv6o4freidu": lambda: (
        named_folder(V1, V1_NAMES, [11] * 4765 + [22]).cid
    ),
    "QmUNLLsPACCz1vLxQVkXqqLX5R1X345qqfHbsf67hvA3Nn": lambda: folder(V0, {}).cid,
    "bafybeiczsscdsbs7ffqz55asqdf3smv6klcw3gofszvwlyarci47bgf354": lambda: folder(V1, {}).cid,
    "QmbFMke1KXqnYyBBWxB74N4c5SBnJMVAiMNRcGu6x1AwQH": lambda: file(V0, []).cid,
    "bafybeihykld7uyxzogax6vgyvag42y7464eywpf55gxi5qpoisibh3c5wa": lambda: (
        file(replace(V1, raw_leaves=False), [b"hello world"]).cid
    ),
    "QmbBftNHWmjSWKLC49dMVrfnY8pjrJYntiAXirFJ7oJrNk": lambda: (
        file(replace(V0, max_links=1024), rnd(256 * MIB, "hello world")).cid
    ),
    "QmavrTrQG4VhoJmantURAYuw3bowq3E2WcvP36NRQDAC1N": lambda: numbered("never").cid,
    "QmSCJD1KYLhVVHqBK3YyXuoEqHt7vggyJhzoFYbT8v1XYL": lambda: numbered("always").cid,
    "QmZQWnfcqJ6hNkkPvrY9Q5X39GP3jUnUbAV4AbmbbR3Cb1": lambda: (
        folder(V0, {"hey": file(V0, [b"Hey\n"]), "hello": folder(V0, {"world": file(V0, [b"World\n"])})}).cid
    ),
    "QmdocmZeF7qwPT9Z8SiVhMSyKA2KKoA2J7jToW6z6WBmxR": lambda: build_symlink(V0, "files/foo/baz")[0].cid,
    "QmWvY6FaqFMS89YAQ9NAPjVP4WZKA1qbHbicc9HeSKQTgt": lambda: (
        folder(V0, {"foo": file(V0, [b"content\n"]), "bar": SYMLINK}).cid
    ),
    "QmQLgxypSNGNFTuUPGCecq6dDEjb6hNB5xSyVmP3cEuNtq": lambda: empty_file(mode=0o640),
    "QmQ6kErEW8kztQFV8vbwNU8E4dmtGsYpRiboiLxUEwibvj": lambda: empty_file(mtime=Mtime(1604320482)),
    "QmUkxrtBA8tPjwCYz1HrsoRfDz6NgKut3asVeHVQNH4C8L": lambda: empty_file(0o764, Mtime(1603539720, 54321)),
    "bafyreieculsmrexh3ty5jentbvuku452o27mst4h2tq2rb2zntqhgcstji": lambda: block(
        DAG_CBOR, "omREYXRhRQABAgMEZUxpbmtzgA=="
    ),
    "bafybeibazl2z4vqp2tmwcfag6wirmtpnomxknqcgrauj7m2yisrz3qjbom": lambda: block(DAG_PB, "CgUAAQIDBA=="),
    "bafybeib3ffl2teiqdncv3mkz4r23b5ctrwkzrrhctdbne6iboayxuxk5ui": lambda: (
        nested(replace(V1, chunker=FixedSize(262144))).cid
    ),
    "QmbqR6g7YCpndLcCZZXkGyj13uMcSrwDYUvZ47vJqBVjUH": lambda: (
        file(replace(V0, layout="trickle"), rnd(45 * MIB, "trickle-test")).cid
    ),
}


def test_every_case_is_covered() -> None:
    assert {case["cid"] for case in CASES} == set(BUILD)


@pytest.mark.parametrize(
    "case",
    [
        pytest.param(
            case,
            marks=pytest.mark.slow if case.get("slow") else (),
            id=f"{case['profile']}: {case['input'][:60]}",
        )
        for case in CASES
    ],
)
def test_the_cid_is_everyone_elses(case: dict[str, str]) -> None:
    cid = BUILD[case["cid"]]()
    assert str(cid) == case["cid"]
    assert CID.parse(case["cid"]) == cid
