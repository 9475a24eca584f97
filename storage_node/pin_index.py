"""Which pins need a block: an index of the links inside pinned DAGs, climbed from the block to the pins.

For every link inside a DAG that was walked the index holds *child ‖ parent*. Links of a block never change,
so what the index says stays true whatever is pinned, unpinned, collected or fetched again; only what it does
not know yet can be missing. Pinning leaves the root in a queue and costs nothing more; the next look-up (or a
daemon) walks the DAGs in the queue first, without what was walked before. Everything here can be made again
from pins and blocks.

Keys: a block is known by 16 bytes of the BLAKE2b of its multihash, its codec stands apart. An edge is
`child ‖ parent ‖ child's codec ‖ parent's codec` (varints), a node `digest ‖ codec` with its CID and whether
the whole DAG below it is in the index.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from hashlib import blake2b
from typing import NamedTuple

from merkledag import varint
from merkledag.cid import CID
from storage_node.blockstore.interface import Blockstore
from storage_node.errors import DamagedBlock
from storage_node.meta import Meta, Table
from storage_node.pins import Pin, PinMode, Pins, may_link, pin_key
from storage_node.reach import node_links

ROWS_PER_WRITE = 100_000  # of the index, in one transaction: others who write to the meta store wait for it
_DIGEST_BYTES = 16
_PARTLY, _WHOLE = b"\0", b"\1"
_CLEANED = b"pin-index-cleaned"  # in Table.RECORDS: how often something was removed from the index


class CaughtUp(NamedTuple):
    """How many pins lack blocks, or have damaged ones, and are tried again next time.

    `after` is where to go on if it was stopped, None at the end.
    """

    unfinished: int
    after: bytes | None


class PinIndex:
    """The index of one home's pins."""

    def __init__(self, meta: Meta, pins: Pins, store: Blockstore) -> None:
        self._meta = meta
        self._pins = pins
        self._store = store

    def holders(self, cid: CID) -> Iterator[Pin]:
        """The pins that keep the block of `cid`: of itself under any codec, or of a DAG around it.

        Each once; catches up first. Costs a few look-ups for every node that holds the block.
        """
        self.catch_up()
        digest = _digest(cid.multihash)
        seen = set()
        for codec in {cid.codec, *self._codecs(digest)}:
            pin = self._pins.get(CID(1, codec, cid.multihash))
            if pin is not None:
                seen.add(pin_key(pin.cid))
                yield pin
        for above in self._above(digest):
            pin = self._pins.get(above)
            if pin is not None and pin.mode is PinMode.RECURSIVE and pin_key(above) not in seen:
                seen.add(pin_key(above))
                yield pin

    def catch_up(self, stop: Callable[[], bool] = lambda: False, after: bytes = b"") -> CaughtUp:
        """Walk the DAGs of pins that are not in the index yet, from where an earlier call said.

        `stop` is asked between nodes; what was walked until then is kept.
        """
        self._pins.counts()  # a store from before there was an index queues all its pins now
        walk = _Walk(self._meta, self._store, stop)
        unfinished, go_on = 0, None
        for key, _ in self._meta.items(Table.PIN_QUEUE, after=after):
            if stop():
                go_on = after
                break
            if walk.whole(CID.decode(key)):
                walk.finished.append(key)
            elif stop():
                go_on = after  # this one was left in the middle
                break
            else:
                unfinished += 1
            after = key
        walk.flush()
        return CaughtUp(unfinished, go_on)

    def clean(self, stop: Callable[[], bool] = lambda: False) -> int:
        """Forget the links of nodes that no pin needs any more and whose blocks were collected.

        Returns the rows removed. Runs beside look-ups and pinning; worth it after a collection.
        """
        gone: set[bytes] = set()
        for key, value in self._meta.items(Table.PIN_NODES):
            cid = CID.decode(value[1:])
            if not cid.is_identity and not self._store.has(cid.multihash):
                gone.add(key)
                if stop():
                    return 0
        return 0 if not gone else self._forget(gone, stop)

    # --- climbing ---

    def _above(self, digest: bytes) -> Iterator[CID]:
        """Every node that holds the block, at any distance; parents before theirs."""
        pending = [(digest, b"")]
        seen = set()
        while pending:
            below, codec = pending.pop()
            for parent in self._parents(below, codec):
                if parent in seen:
                    continue
                seen.add(parent)
                row = self._meta.get(Table.PIN_NODES, parent)
                if row is not None:
                    yield CID.decode(row[1:])
                pending.append((parent[:_DIGEST_BYTES], parent[_DIGEST_BYTES:]))

    def _parents(self, digest: bytes, codec: bytes) -> Iterator[bytes]:
        """The keys of nodes that link to a block, under one codec or (with b"") any."""
        for key, _ in self._meta.items(Table.PIN_EDGES, digest):
            of_child, of_parent = _codecs_of(key)
            if not codec or of_child == codec:
                yield key[_DIGEST_BYTES : 2 * _DIGEST_BYTES] + of_parent

    def _codecs(self, digest: bytes) -> set[int]:
        found = {key[_DIGEST_BYTES:] for key, _ in self._meta.items(Table.PIN_NODES, digest)}
        found |= {_codecs_of(key)[0] for key, _ in self._meta.items(Table.PIN_EDGES, digest)}
        return {varint.decode(each)[0] for each in found}

    # --- cleaning ---

    def _forget(self, gone: set[bytes], stop: Callable[[], bool]) -> int:
        """Remove nodes and the edges from them; what lies above them is no longer known to be whole."""
        removed = 0
        pending = list(gone)
        partly: set[bytes] = set()
        while pending:
            node = pending.pop()
            for parent in self._parents(node[:_DIGEST_BYTES], node[_DIGEST_BYTES:]):
                if parent not in gone and parent not in partly:
                    partly.add(parent)
                    pending.append(parent)
        with self._meta.write() as write:
            write.put(Table.RECORDS, _CLEANED, (1 + _cleaned(write.get(Table.RECORDS, _CLEANED))).to_bytes(8))
            for key in partly:
                row = write.get(Table.PIN_NODES, key)
                if row is not None:
                    write.put(Table.PIN_NODES, key, _PARTLY + row[1:])
                    if write.get(Table.PINS, row[1:]) is not None:
                        write.put(Table.PIN_QUEUE, row[1:], b"")
            for key in gone:
                removed += write.delete(Table.PIN_NODES, key)
        doomed: list[bytes] = []
        for key, _ in self._meta.items(Table.PIN_EDGES):
            if key[_DIGEST_BYTES : 2 * _DIGEST_BYTES] + _codecs_of(key)[1] in gone:
                doomed.append(key)
            if len(doomed) >= ROWS_PER_WRITE:
                removed += self._delete_edges(doomed)
                doomed = []
                if stop():
                    return removed
        return removed + self._delete_edges(doomed)

    def _delete_edges(self, doomed: list[bytes]) -> int:
        """Remove edges, but not those whose parent somebody has walked again meanwhile."""
        removed = 0
        with self._meta.write() as write:
            for key in doomed:
                parent = key[_DIGEST_BYTES : 2 * _DIGEST_BYTES] + _codecs_of(key)[1]
                if write.get(Table.PIN_NODES, parent) is None:
                    removed += write.delete(Table.PIN_EDGES, key)
        return removed


class _Frame:
    """A node in the middle of a walk: what of its children is still to be walked."""

    __slots__ = ("children", "cid", "whole")

    def __init__(self, cid: CID, children: list[CID], whole: bool) -> None:
        self.cid = cid
        self.children = children
        self.whole = whole


class _Walk:
    """Walks DAGs into the index. A node's row goes into the file with its edges, or before them."""

    def __init__(self, meta: Meta, store: Blockstore, stop: Callable[[], bool]) -> None:
        self._meta = meta
        self._store = store
        self._stop = stop
        self._edges: set[bytes] = set()
        self._rows: dict[bytes, bytes] = {}
        self._partly: set[bytes] = set()
        self._cleaned = _cleaned(meta.get(Table.RECORDS, _CLEANED))
        self.finished: list[bytes] = []  # keys of the queue

    def whole(self, root: CID) -> bool:
        """Bring the DAG of `root` into the index; False if something of it is missing or damaged."""
        found = self._known(root)
        if found is not None:
            return found
        stack = [self._enter(root)]
        while True:
            frame = stack[-1]
            if frame.children and not self._stop():
                child = frame.children.pop()
                found = self._known(child)
                if found is None:
                    stack.append(self._enter(child))
                else:
                    frame.whole &= found
                continue
            stack.pop()
            whole = self._leave(frame)
            if not stack:
                return whole
            stack[-1].whole &= whole

    def flush(self) -> None:
        """Write what was found, in one transaction."""
        if not (self._edges or self._rows or self.finished):
            return
        with self._meta.write() as write:
            unspoilt = self._cleaned == _cleaned(write.get(Table.RECORDS, _CLEANED))
            for key in sorted(self._edges):
                write.put(Table.PIN_EDGES, key, b"")
            for key, row in self._rows.items():
                write.put(Table.PIN_NODES, key, row if unspoilt else _PARTLY + row[1:])
            for key in self.finished if unspoilt else ():
                write.delete(Table.PIN_QUEUE, key)
        self._edges.clear()
        self._rows.clear()
        self.finished.clear()

    def _known(self, cid: CID) -> bool | None:
        """Whether the node was walked whole, in this walk or an earlier one; None if it must be walked."""
        key = _node_key(cid)
        if key in self._partly:
            return False
        row = self._rows.get(key) or self._meta.get(Table.PIN_NODES, key)
        return True if row is not None and row[:1] == _WHOLE else None

    def _enter(self, cid: CID) -> _Frame:
        missing: list[CID] = []
        try:
            links = node_links(self._store, cid, missing.append)
        except DamagedBlock:
            return _Frame(cid, [], whole=False)
        if missing:
            return _Frame(cid, [], whole=False)
        parent, codec = _digest(cid.multihash), varint.encode(cid.codec)
        self._rows[parent + codec] = _PARTLY + bytes(cid.to_v1())
        nodes: dict[CID, None] = {}
        for child in links:
            linking = may_link(child)
            if linking:
                nodes[child.to_v1()] = None
            elif child.is_identity:
                continue
            self._edges.add(_digest(child.multihash) + parent + varint.encode(child.codec) + codec)
        if len(self._edges) + len(self._rows) >= ROWS_PER_WRITE:
            self.flush()
        return _Frame(cid, list(nodes), whole=True)

    def _leave(self, frame: _Frame) -> bool:
        key = _node_key(frame.cid)
        if frame.whole and not frame.children:
            self._rows[key] = _WHOLE + bytes(frame.cid.to_v1())
            return True
        self._partly.add(key)
        return False


def _digest(multihash: bytes) -> bytes:
    return blake2b(multihash, digest_size=_DIGEST_BYTES).digest()


def _node_key(cid: CID) -> bytes:
    return _digest(cid.multihash) + varint.encode(cid.codec)


def _codecs_of(edge: bytes) -> tuple[bytes, bytes]:
    """The codecs of child and parent in the key of an edge, as varints."""
    _, end = varint.decode(edge, 2 * _DIGEST_BYTES)
    return edge[2 * _DIGEST_BYTES : end], edge[end:]


def _cleaned(value: bytes | None) -> int:
    return 0 if value is None else int.from_bytes(value)
