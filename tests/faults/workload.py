"""What a home lives through between two faults: commands by chance, each said before and after.

`live` runs in a process that may end at any of its system calls. What it said to have done must be there
afterwards (`Ledger`); of the one thing that it had only begun, all or nothing.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cli.home import Home
from cli.main import run
from cli.output import exit_code
from storage_node.blockstore.interface import BlockClass
from storage_node.blockstore.store import Store
from storage_node.errors import StorageNodeError
from tests.faults.checker import Recount, split_cid

BACKUP = "disk/backup"
HOME = "disk/home"  # below the folder of the rounds; what is below "disk" is struck
MAX_FILE_BYTES = 300_000
CHUNKERS = ("size-1024", "size-65536", "size-1048576")
FILES = tuple(f"/d{number % 3}/f{number}" for number in range(8))


class Refused(Exception):
    """A command ended with another exit code than 0."""

    def __init__(self, arguments: list[str], code: int, said: str) -> None:
        super().__init__(f"{' '.join(arguments)}: exit {code}: {said}")
        self.code = code
        self.said = said


class Program:
    """Command lines run within this process, which does nothing else; their output goes through a file."""

    def __init__(self, folder: Path, backup: Path | None = None) -> None:
        self._out = os.memfd_create("out")
        self._err = os.memfd_create("err")
        os.dup2(self._out, 1)
        os.dup2(self._err, 2)
        self.folder = folder
        self.backup = folder / BACKUP if backup is None else backup

    def __call__(self, *arguments: str) -> str:
        """What the command prints on stdout. Raises Refused."""
        for handle in (self._out, self._err):
            os.ftruncate(handle, 0)
            os.lseek(handle, 0, os.SEEK_SET)
        code = run(arguments)
        sys.stdout.flush()
        sys.stderr.flush()
        out, err = (os.pread(handle, 1 << 20, 0).decode() for handle in (self._out, self._err))
        if code != 0:
            raise Refused(list(arguments), code, err.strip())
        return out.strip()

    def file(self, data: bytes) -> str:
        """A file with these bytes, for a command to read."""
        path = self.folder / "input"
        path.write_bytes(data)
        return str(path)


@dataclass
class Ledger:
    """What was acknowledged: pins as binary CIDs in hex, and the root of the mutable tree."""

    pins: set[str] = field(default_factory=set)
    tree_root: str | None = None
    saved: list[str] | None = None  # the pins of the last snapshot
    loose: list[str] = field(default_factory=list)  # added without a pin: may go at any time

    def apply(self, said: dict[str, Any]) -> None:
        """Take an acknowledgement in."""
        self.pins |= set(said.get("pinned", ()))
        self.pins -= set(said.get("unpinned", ()))
        self.loose += said.get("loose", ())
        self.saved = said.get("snapshot", self.saved)
        self.tree_root = said.get("tree", self.tree_root)

    def differences(self, seen: Recount, begun: dict[str, Any] | None) -> list[str]:
        """What a recount must not say; `begun` is what was under way when the process ended."""
        there = {cid.hex() for cid in seen.pins}
        lost, extra = self.pins - there, there - self.pins
        found = []
        if begun is not None:
            lost -= set(begun.get("unpins", ()))
            pins = begun.get("pins", ())
            if pins == "new":
                extra = set(list(extra)[1:])
            else:
                extra -= set(pins)
        if lost:
            found.append(f"{len(lost)} acknowledged pins are gone: {min(lost)}")
        if extra:
            found.append(f"{len(extra)} pins that nobody made, or that were removed: {min(extra)}")
        root = None if seen.tree_root is None else seen.tree_root.hex()
        if root != self.tree_root and not (begun and begun.get("tree")):
            found.append(f"the tree's root is {root}, acknowledged was {self.tree_root}")
        return found

    def settle(self, seen: Recount) -> None:
        """Go on from what is there."""
        self.pins = {cid.hex() for cid in seen.pins}
        self.tree_root = None if seen.tree_root is None else seen.tree_root.hex()
        self.loose = [cid for cid in self.loose if not seen.missing(bytes.fromhex(cid))][-20:]


Say = Callable[[str, dict[str, Any]], None]


class Life:
    """One process's doings, by chance from a seed. Its files begin with `mark`, as nobody else's do."""

    def __init__(
        self,
        program: Program,
        chance: random.Random,
        known: Ledger,
        say: Say,
        peer: dict[str, Any] | None,
        mark: bytes = b"",
    ) -> None:
        self._do = program
        self._chance = chance
        self._known = known
        self._say = say
        self._peer = peer
        self._mark = mark

    def turn(self) -> None:
        """One command. Raises Refused."""
        steps, weights = zip(*self._steps(), strict=True)
        self._chance.choices(steps, weights)[0]()

    def every(self) -> None:
        """One of each, as far as they are possible by then. Raises Refused."""
        done: set[str] = set()
        while left := [step for step, _ in self._steps() if step.__name__ not in done]:
            done.add(left[0].__name__)
            left[0]()

    def possible(self) -> set[str]:
        """The names of what can be done now."""
        return {step.__name__ for step, _ in self._steps()} | {"back_up"}

    def _steps(self) -> list[tuple[Callable[[], None], int]]:
        steps = [
            (self.add, 6), (self.add_loose, 3), (self.write, 4), (self.collect, 3), (self.compact, 1),
            (self.make_folder, 1), (self.cache, 2), (self.evict, 1), (self.repair, 1),
        ]  # fmt: skip
        if (self._do.folder / HOME / "blocks" / "format.json").exists():
            steps += [(self.back_up, 1)]
        if self._peer:
            steps += [(self.fetch, 2)]
        if self._known.pins:
            steps += [(self.unpin, 3), (self.name, 1), (self.link, 2)]
        if self._known.loose:
            steps += [(self.pin, 3)]
        if self._known.pins and self._known.loose:
            steps += [(self.update, 2)]
        if self._known.tree_root:
            steps += [(self.remove, 1), (self.move, 1)]
        return steps

    def _told(self, name: str, begun: dict[str, Any], done: Callable[[], dict[str, Any]]) -> None:
        self._say("begun", {"name": name, **begun})
        said = done()
        self._known.apply(said)
        self._say("done", said)

    def _data(self) -> str:
        size = int(MAX_FILE_BYTES * self._chance.random() ** 3)
        return self._do.file(self._mark + self._chance.randbytes(size))

    def _chunker(self) -> str:
        return f"--chunker={self._chance.choice(CHUNKERS)}"

    def add(self) -> None:
        """Adds and pins a file."""
        data = self._data()
        options = [self._chunker(), "--raw-leaves" if self._chance.random() < 0.7 else "--no-raw-leaves"]

        def done() -> dict[str, Any]:
            return {"pinned": [binary(self._do("add", "-Q", *options, data))]}

        self._told("add", {"pins": "new"}, done)

    def add_loose(self) -> None:
        """Adds without a pin."""
        data = self._data()
        self._told(
            "add",
            {},
            lambda: {"loose": [binary(self._do("add", "-Q", "--pin=false", self._chunker(), data))]},
        )

    def unpin(self) -> None:
        """Removes a pin."""
        cid = self._chance.choice(sorted(self._known.pins))

        def done() -> dict[str, Any]:
            self._do("pin", "rm", readable(cid))
            return {"unpinned": [cid], "loose": [cid]}

        self._told("pin rm", {"unpins": [cid]}, done)

    def name(self) -> None:
        """Pins what is pinned again, with a name."""
        cid = self._chance.choice(sorted(self._known.pins))

        def done() -> dict[str, Any]:
            self._do("pin", "add", "--name", f"n{self._chance.randrange(5)}", readable(cid))
            return {}

        self._told("pin add", {}, done)

    def pin(self) -> None:
        """Pins what was added without; it may be gone."""
        cid = self._chance.choice(self._known.loose)

        def done() -> dict[str, Any]:
            try:
                self._do("pin", "add", readable(cid))
            except Refused as refused:
                if refused.code != 3:
                    raise
                return {}
            return {"pinned": [cid]}

        self._told("pin add", {"pins": [cid]}, done)

    def update(self) -> None:
        """Moves a pin to something else."""
        old = self._chance.choice(sorted(self._known.pins))
        new = self._chance.choice(self._known.loose)
        if new in self._known.pins:
            return

        def done() -> dict[str, Any]:
            try:
                self._do("pin", "update", readable(old), readable(new))
            except Refused as refused:
                if refused.code != 3:
                    raise
                return {}
            return {"pinned": [new], "unpinned": [old], "loose": [old]}

        self._told("pin update", {"pins": [new], "unpins": [old]}, done)

    def _silently(self, *arguments: str) -> dict[str, Any]:
        self._do(*arguments)
        return {}

    def collect(self) -> None:
        """Frees what nobody needs."""
        self._told("gc", {}, lambda: self._silently("repo", "gc"))

    def compact(self) -> None:
        """Shrinks the files."""
        self._on_store("compact", lambda store: store.compact())

    def cache(self) -> None:
        """Keeps blocks as a reader's; some are there already."""
        sizes = [self._chance.randrange(1, 50_000) for _ in range(self._chance.randrange(1, 20))]
        blocks = [self._chance.randbytes(size) for size in sizes]
        items = [(b"\x12\x20" + hashlib.sha256(block).digest(), block) for block in blocks]
        self._on_store("cache", lambda store: store.put_many(items, BlockClass.CACHE))

    def evict(self) -> None:
        """Lets the least recently used blocks go."""
        target_bytes = self._chance.randrange(200_000)
        self._on_store("evict", lambda store: store.evict(target_bytes))

    def _on_store(self, name: str, work: Callable[[Store], object]) -> None:
        """What no command does: done with the store itself."""

        def done() -> dict[str, Any]:
            try:
                with Home.locate() as home:
                    work(home.open_store())
            except (StorageNodeError, OSError) as error:
                raise Refused([name], exit_code(error), f"holdfast: {error}") from error
            return {}

        self._told(name, {}, done)

    def back_up(self) -> None:
        """Saves the home."""
        backup = str(self._do.backup)

        def done() -> dict[str, Any]:
            self._do("repo", "backup", "--keep", "3", backup)
            return {"snapshot": sorted(self._known.pins)}

        self._told("backup", {}, done)

    def repair(self) -> None:
        """Looks for damage that is not there."""
        self._told("verify", {}, lambda: self._silently("repo", "verify"))

    def fetch(self) -> None:
        """Pins what a peer has."""
        assert self._peer is not None
        cid, url = self._chance.choice(self._peer["roots"]), self._peer["url"]

        def done() -> dict[str, Any]:
            self._do("pin", "add", "--from", url, readable(cid))
            return {"pinned": [cid]}

        self._told("pin job", {"pins": [cid]}, done)

    # --- the mutable tree: its root is what is acknowledged ---

    def _change(self, *arguments: str) -> None:
        def done() -> dict[str, Any]:
            try:
                self._do("files", *arguments)
            except Refused as refused:
                if refused.code not in (3, 4):
                    raise
            return {"tree": binary(self._do("files", "flush", "/").splitlines()[-1])}

        self._told("files", {"tree": True}, done)

    def write(self) -> None:
        """Writes into a file of the tree."""
        offset = str(self._chance.choice((0, 0, 1000, 70_000)))
        self._change("write", "-e", "-p", "-o", offset, self._chance.choice(FILES), self._data())

    def make_folder(self) -> None:
        """Makes a folder in the tree."""
        self._change("mkdir", "-p", f"/d{self._chance.randrange(4)}/e{self._chance.randrange(3)}")

    def link(self) -> None:
        """Puts what is pinned into the tree."""
        cid = readable(self._chance.choice(sorted(self._known.pins)))
        self._change("cp", "-p", "--force", f"/ipfs/{cid}", self._chance.choice(FILES))

    def remove(self) -> None:
        """Removes a file or a folder of the tree."""
        self._change("rm", "-r", self._chance.choice((*FILES, "/d0", "/d1")))

    def move(self) -> None:
        """Renames within the tree."""
        self._change("mv", self._chance.choice(FILES), self._chance.choice(FILES))


def live(folder: Path, seed: str, known: Ledger, turns: int, ears: int, peer: dict[str, Any] | None) -> None:
    """Take `turns` turns in the home of this process's environment; say to the handle `ears` what was done.

    `peer` is what peer.py printed. No turns means one of each kind.
    """
    program = Program(folder)

    def say(what: str, details: dict[str, Any]) -> None:
        os.write(ears, json.dumps({"what": what, **details}).encode() + b"\n")

    life = Life(program, random.Random(seed), known, say, peer)
    if not turns:
        life.every()
    for _ in range(turns):
        try:
            life.turn()
        except Refused as refused:
            say("refused", {"code": refused.code, "said": str(refused)})


def binary(cid: str) -> str:
    """A CID's binary CIDv1 form in hex."""
    from merkledag.cid import CID

    return bytes(CID.parse(cid).to_v1()).hex()


def readable(cid: str) -> str:
    """A CID in hex as commands take it."""
    from merkledag.cid import CID

    assert split_cid(bytes.fromhex(cid))
    return str(CID.decode(bytes.fromhex(cid)))
