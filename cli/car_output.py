"""Writing one CAR archive: its header, its sections in order, and the index at its end."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from cli.output import CommandError
from merkledag import car, car_v2
from merkledag.car_index import CarIndex, IndexKind

if TYPE_CHECKING:
    from cli.target import Target
    from merkledag.cid import CID
    from merkledag.steps import Buffer
    from storage_node.blockstore.interface import View


class CarWriter:
    """Writes one archive into a target: header, sections in the order of the calls, and the index at the end.

    Version 2 needs a target that is a file, or the size of its data beforehand.
    """

    def __init__(
        self, target: Target, roots: Sequence[CID], *, version: int = 1, index: IndexKind | None = None,
        data_bytes: int | None = None,
    ) -> None:  # fmt: skip
        self._target = target
        self._kind = index
        self._index = CarIndex() if version == 2 and index is not None else None
        self._version = version
        self._start = target.size_bytes
        self._announced = data_bytes
        self.blocks = 0
        if version == 2:
            target.append(car_v2.wrap(data_bytes or 0, index=index is not None).encode())
        self._data_start = target.size_bytes
        target.append(car.header(roots))

    def add(self, cid: CID, data: Buffer) -> None:
        """One block whose bytes are here."""
        self._head(cid, len(data))
        self._target.append(data)

    def add_view(self, cid: CID, view: View) -> None:
        """One block of the store."""
        self._head(cid, len(view))
        self._target.append_view(view)

    def _head(self, cid: CID, size_bytes: int) -> None:
        if self._index is not None:
            self._index.add(cid, self._target.size_bytes - self._data_start)
        self._target.append(car.frame_head(cid, size_bytes))
        self.blocks += 1

    def finish(self) -> None:
        """Writes the index, and into the header where it is."""
        data_bytes = self._target.size_bytes - self._data_start
        if self._announced is not None and data_bytes != self._announced:
            raise CommandError("blocks came or went while the archive was written: write it again")
        if self._index is not None and self._kind is not None:
            self._target.append(self._index.encode(self._kind))
        if self._version == 2 and self._announced is None:
            header = car_v2.wrap(data_bytes, index=self._index is not None)
            self._target.patch(self._start, header.encode())
