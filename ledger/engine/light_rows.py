"""The rows in which a ledger keeps the light blocks of its chain: who signed what, for its archives."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any

from ledger.engine.environment import translated
from ledger.engine.row_keys import HEIGHT

TABLE = b"lights"
_LAST = b"light"


class LightRows:
    """A part of `LedgerStorage`: table `lights` (u64be height → LightBlock message), and the last one whole.

    Most rows have the header alone: signed are those that the next ones' hashes lead to, and those after
    which other validators sign.
    """

    _tables: dict[bytes, Any]

    @abstractmethod
    def _begin(self, *, write: bool = False) -> AbstractContextManager[Any]: ...

    def light(self, height: int) -> bytes | None:
        """The row of a height."""
        with translated("reading"), self._begin() as txn:
            found: bytes | None = txn.get(HEIGHT.pack(height), db=self._tables[TABLE])
            return found

    def last_light(self) -> bytes | None:
        """The newest light block, with who signed it."""
        with translated("reading"), self._begin() as txn:
            found: bytes | None = txn.get(_LAST, db=self._tables[b"meta"])
            return found

    def lit_height(self) -> int:
        """The highest height that has a row; 0 if none has."""
        with translated("reading"), self._begin() as txn, txn.cursor(self._tables[TABLE]) as cursor:
            return int(HEIGHT.unpack(cursor.key())[0]) if cursor.last() else 0

    def keep_lights(self, rows: Mapping[int, bytes], last: bytes | None = None) -> None:
        """Adds rows, and the newest light block if there is one, all or nothing. Raises StoreError."""
        with translated("keeping headers"), self._begin(write=True) as txn:
            for height, row in sorted(rows.items()):
                txn.put(HEIGHT.pack(height), row, db=self._tables[TABLE])
            if last is not None:
                txn.put(_LAST, last, db=self._tables[b"meta"])
