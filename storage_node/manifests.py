"""The erasure manifests that a fetching client has read, and what they say about where a block is."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Container
from dataclasses import dataclass

from merkledag.cid import CID
from proofs.erasure.manifest import Manifest

MAX_SHELVED_ROWS = 1_000_000


@dataclass(frozen=True, slots=True)
class Shelved:
    """A manifest with an index of its blocks."""

    manifest: Manifest
    leaves: dict[bytes, int]
    parity: dict[bytes, int]
    interior: frozenset[bytes]

    @classmethod
    def of(cls, manifest: Manifest) -> Shelved:
        """Index a manifest."""
        leaves = {multihash: row for row, multihash in enumerate(manifest.plan.leaves)}
        parity = {multihash: row for row, multihash in enumerate(manifest.parity)}
        return cls(manifest, leaves, parity, frozenset(manifest.interior))

    @property
    def rows(self) -> int:
        """What counts against the shelf's limit."""
        return len(self.leaves) + len(self.parity) + len(self.interior)

    def shards(self, multihash: bytes) -> Container[int]:
        """Which shards of the deal hold a block."""
        manifest = self.manifest
        if multihash in self.interior or (manifest.replicated and multihash in self.leaves):
            return range(manifest.node_count)
        found = set()
        if (row := self.leaves.get(multihash)) is not None:
            found.add(row % manifest.k)
        if (row := self.parity.get(multihash)) is not None:
            found.add(manifest.k + row % (manifest.m - manifest.k))
        return found

    def place(self, multihash: bytes) -> tuple[int, int] | None:
        """(group, share) of a leaf or parity block that the other shares can restore, else None."""
        manifest = self.manifest
        if manifest.replicated:
            return None
        if (row := self.leaves.get(multihash)) is not None:
            return row // manifest.k, row % manifest.k
        if (row := self.parity.get(multihash)) is not None:
            per_group = manifest.m - manifest.k
            return row // per_group, manifest.k + row % per_group
        return None


class ManifestShelf:
    """Manifests by their root, those used last; bounded by the number of blocks that they name."""

    def __init__(self, max_rows: int = MAX_SHELVED_ROWS) -> None:
        self._max_rows = max_rows
        self._shelf: OrderedDict[CID, Shelved] = OrderedDict()
        self._rows = 0

    def __contains__(self, root: CID) -> bool:
        return root in self._shelf

    def put(self, root: CID, manifest: Manifest) -> Shelved:
        """Keep a manifest, and let go of those that were not used for longest. Returns it indexed."""
        shelved = Shelved.of(manifest)
        if root not in self._shelf:
            self._shelf[root] = shelved
            self._rows += shelved.rows
        while self._rows > self._max_rows and len(self._shelf) > 1:
            _, dropped = self._shelf.popitem(last=False)
            self._rows -= dropped.rows
        return shelved

    def get(self, root: CID) -> Shelved | None:
        """A manifest that was read, now the last used."""
        shelved = self._shelf.get(root)
        if shelved is not None:
            self._shelf.move_to_end(root)
        return shelved

    def locate(self, multihash: bytes) -> dict[CID, Container[int]]:
        """For each manifest on the shelf that names the block: which shards hold it."""
        found: dict[CID, Container[int]] = {}
        for root, shelved in self._shelf.items():
            if multihash in shelved.interior or multihash in shelved.leaves or multihash in shelved.parity:
                found[root] = shelved.shards(multihash)
        return found
