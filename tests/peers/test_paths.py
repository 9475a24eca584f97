"""Paths through directories, HAMTs, DAG-CBOR and DAG-JSON end where boxo's resolver ends them."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

from merkledag import car, dag_cbor, dag_json
from merkledag.block import Block
from merkledag.cid import CID
from merkledag.codecs import DAG_CBOR, DAG_JSON, RAW
from merkledag.directory import DirEntry, build_directory
from merkledag.errors import MerkledagError
from merkledag.profile import ImportProfile
from merkledag.resolve import resolve
from merkledag.steps import run
from tests.peers import support

pytestmark = pytest.mark.peers

# boxo also takes "01" and "+1" for the index 1 of a list; here an index has one form.
NAMES = ("a", "b c", "é", "0", "1", "2", "-1", "1.0", "%41", "x" * 60, "Links")
PATHS = 400


class Dag:
    """A random DAG of mixed nodes; the last one made is the root."""

    def __init__(self, seed: int) -> None:
        self.dice = random.Random(seed)
        self.blocks: dict[CID, bytes] = {}
        self.nodes: list[CID] = [self.put(RAW, b"leaf")]
        for _ in range(12):
            make = self.dice.choice((self.directory, self.directory, self.value, self.value))
            self.nodes.append(make())

    @property
    def root(self) -> CID:
        return self.nodes[-1]

    def put(self, codec: int, data: bytes) -> CID:
        cid = CID.of(data, codec)
        self.blocks[cid] = data
        return cid

    def directory(self) -> CID:
        profile = ImportProfile(hamt_threshold_bytes=self.dice.choice((100, 2_000)), hamt_fanout=8)
        names = self.dice.sample(NAMES, self.dice.randint(1, len(NAMES)))
        link, blocks = build_directory(profile, [DirEntry(name, self.some(), 7) for name in names])
        self.blocks |= {block.cid: block.data for block in blocks}
        return link.cid

    def some(self) -> CID:
        return self.dice.choice(self.nodes[-4:])

    def value(self) -> CID:
        made = {name: self.part(2) for name in self.dice.sample(NAMES, 4)}
        if self.dice.random() < 0.5:
            return self.put(DAG_CBOR, dag_cbor.encode(made))
        return self.put(DAG_JSON, dag_json.encode(made).encode())

    def part(self, depth: int) -> Any:
        kind = self.dice.randrange(6 if depth else 4)
        if kind < 2:
            return self.some()
        if kind < 4:
            return self.dice.choice((None, 5, "text", b"bytes", True, 1.5))
        if kind == 4:
            return [self.part(depth - 1) for _ in range(3)]
        return {name: self.part(depth - 1) for name in self.dice.sample(NAMES, 3)}

    def write(self, path: Path) -> None:
        sections = [car.frame(Block(cid, data)) for cid, data in self.blocks.items()]
        path.write_bytes(car.header([self.root]) + b"".join(sections))

    def ours(self, segments: list[str]) -> tuple[str, list[str]] | None:
        try:
            found = run(resolve(self.root, segments), self.blocks.__getitem__)
        except MerkledagError:
            return None
        return str(found.cid), list(found.remainder)


@pytest.mark.parametrize("seed", range(4))
def test_paths_end_at_the_same_place(seed: int, tmp_path: Path) -> None:
    boxo = support.find_peer("boxo")
    dag = Dag(seed)
    dag.write(tmp_path / "dag.car")
    paths = [[dag.dice.choice(NAMES) for _ in range(dag.dice.randint(0, 5))] for _ in range(PATHS)]
    texts = ["/".join(["/ipfs", str(dag.root), *path]) for path in paths]
    (result,) = boxo.run([{"do": "resolve", "car": str(tmp_path / "dag.car"), "paths": texts}])
    ends = 0
    for path, answer in zip(paths, result["answers"], strict=True):
        theirs = None if "error" in answer else (answer["cid"], answer.get("remainder") or [])
        assert dag.ours(path) == theirs, (path, answer)
        ends += theirs is not None
    assert 5 < ends < PATHS
