"""CARv2 archives and indexes: ours and go-car's are the same bytes, and either finds the other's blocks."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

from merkledag import car, car_v2
from merkledag.block import Block
from merkledag.car_index import IndexKind, read_index
from merkledag.car_sections import CarHeader
from merkledag.car_seek import find_block, read_header, run_reads
from merkledag.cid import CID
from merkledag.codecs import DAG_CBOR, DAG_PB, RAW
from merkledag.multihash import BLAKE3, IDENTITY, SHA1, SHA2_256, SHA2_512
from tests.merkledag.support import index_of
from tests.peers import support

pytestmark = pytest.mark.peers

KINDS = {"sorted": IndexKind.SORTED, "multihash-sorted": IndexKind.MULTIHASH_SORTED}
CODES = {"car-index-sorted": IndexKind.SORTED, "car-multihash-index-sorted": IndexKind.MULTIHASH_SORTED}


@pytest.fixture
def boxo() -> support.Peer:
    return support.find_peer("boxo")


def random_blocks(seed: int, *, repeats: bool = True) -> list[Block]:
    """Blocks of several hash functions, codecs and sizes.

    With `repeats`, some come twice and some under two CIDs.
    """
    dice = random.Random(seed)
    blocks: list[Block] = []
    for _ in range(dice.choice((0, 1, 2, 30, 100))):
        data = dice.randbytes(dice.choice((0, 1, 30, 300)))
        hash_code = dice.choice((SHA2_256, SHA2_256, SHA2_256, SHA2_512, BLAKE3, SHA1, IDENTITY))
        if hash_code == IDENTITY:
            data = data[:100]
        block = Block(CID.of(data, dice.choice((RAW, DAG_PB, DAG_CBOR)), hash_code), data)
        blocks.append(block)
        if repeats and dice.random() < 0.2:
            blocks.append(dice.choice(blocks))
        if repeats and dice.random() < 0.2:
            other = Block(CID(1, DAG_CBOR, block.cid.multihash), data)
            blocks.insert(dice.randrange(len(blocks) + 1), other)
    return blocks if repeats else list({block.cid.digest: block for block in blocks}.values())


def write_v1(path: Path, blocks: list[Block]) -> None:
    roots = [block.cid for block in blocks[:2]] or [CID.of(b"")]
    path.write_bytes(car.header(roots) + b"".join(map(car.frame, blocks)))


def seekable(path: Path) -> Any:
    """Reads `length` bytes at an offset of a file, fewer at its end."""
    whole = path.read_bytes()
    return lambda offset, length: whole[offset : offset + length]


def our_v2(v1: Path, kind: IndexKind, *, identity: bool) -> bytes:
    """Our CARv2 around an archive of version 1."""
    data = v1.read_bytes()
    index = index_of(data, identity=identity)
    head = car_v2.wrap(len(data), index=True, fully_indexed=identity)
    return head.encode() + data + index.encode(kind)


@pytest.mark.parametrize("kind", KINDS)
def test_an_archive_with_its_index_is_the_same_bytes(kind: str, boxo: support.Peer, tmp_path: Path) -> None:
    """Without repeated blocks: go-car leaves the order of their entries to an unstable sort."""
    jobs, ours, paths = [], [], []
    for seed in range(40):
        v1, v2 = tmp_path / f"{seed}.car", tmp_path / f"{seed}.v2"
        write_v1(v1, random_blocks(seed, repeats=False))
        jobs.append({"do": "wrap", "from": str(v1), "to": str(v2), "index": kind})
        ours.append(our_v2(v1, KINDS[kind], identity=False))
        paths.append(v2)
    assert boxo.run(jobs) == [{}] * len(jobs)
    for seed, (mine, path) in enumerate(zip(ours, paths, strict=True)):
        assert mine == path.read_bytes(), f"seed {seed}"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("identity", [False, True])
def test_go_car_reads_our_indexes(kind: str, identity: bool, boxo: support.Peer, tmp_path: Path) -> None:
    jobs, contents = [], []
    for seed in range(100, 120):
        blocks = random_blocks(seed)
        v1, v2 = tmp_path / "v1.car", tmp_path / f"{seed}.car"
        write_v1(v1, blocks)
        v2.write_bytes(our_v2(v1, KINDS[kind], identity=identity))
        jobs.append({"do": "index", "car": str(v2)})
        contents.append(blocks)
    for seed, (blocks, result) in enumerate(zip(contents, boxo.run(jobs), strict=True), 100):
        assert "error" not in result, (seed, result)
        assert CODES[result["kind"]] is KINDS[kind]
        assert result["inspected"] == len(blocks)
        assert result["found"] == sum(not block.cid.is_identity for block in blocks)
        if kind == "multihash-sorted":
            listed = sorted(entry[0] for entry in result["entries"])
            expected = [block for block in blocks if identity or not block.cid.is_identity]
            assert listed == sorted(block.cid.multihash.hex() for block in expected)


@pytest.mark.parametrize("kind", KINDS)
def test_blocks_are_found_by_go_cars_index(kind: str, boxo: support.Peer, tmp_path: Path) -> None:
    for seed in (200, 201, 202):
        blocks = random_blocks(seed)
        v1, v2 = tmp_path / "v1.car", tmp_path / "v2.car"
        write_v1(v1, blocks)
        assert boxo.run([{"do": "wrap", "from": str(v1), "to": str(v2), "index": kind}]) == [{}]
        read = seekable(v2)
        header: CarHeader = run_reads(read_header(), read)
        assert header.v2 is not None
        index = v2.read_bytes()[header.v2.require_index() :]
        assert read_index(index)[0] is KINDS[kind]
        for block in blocks:
            assert run_reads(find_block(header, block.cid), read) == block
        assert run_reads(find_block(header, CID.of(b"not there")), read) is None


@pytest.mark.parametrize("kind", KINDS)
def test_indexes_of_repeated_blocks_hold_the_same(kind: str, boxo: support.Peer, tmp_path: Path) -> None:
    for seed in range(300, 306):
        v1, v2 = tmp_path / "v1.car", tmp_path / "v2.car"
        write_v1(v1, random_blocks(seed))
        assert boxo.run([{"do": "wrap", "from": str(v1), "to": str(v2), "index": kind}]) == [{}]
        ours, theirs = our_v2(v1, KINDS[kind], identity=False), v2.read_bytes()
        start = car_v2.START_BYTES + v1.stat().st_size
        assert ours[:start] == theirs[:start]
        assert entries_of(ours[start:]) == entries_of(theirs[start:])


def entries_of(index: bytes) -> list[tuple[int | None, int, list[bytes]]]:
    """Hash function, width and sorted entries of each bucket."""
    return [(bucket.code, bucket.width, sorted(bucket.records())) for bucket in read_index(index)[1]]
