"""Blocks that are not here, asked of the gateway that runs in this home: it fetches them from the network."""

from __future__ import annotations

import http.client
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from merkledag.block import MAX_BLOCK_BYTES, verify_block

if TYPE_CHECKING:
    from merkledag.cid import CID

TIMEOUT_S: Final = 60.0


class GatewayClient:
    """One gateway by its URL, over one connection. Blocks are verified here as well."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._url = url
        self._connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=TIMEOUT_S)

    def get(self, cid: CID) -> bytes | None:
        """The block; None when the gateway does not answer, or cannot find it.

        Raises TimeoutError when the network took too long, HashMismatch for wrong bytes.
        """
        try:
            self._connection.request("GET", f"/ipfs/{cid}?format=raw")
            answer = self._connection.getresponse()
            data = answer.read(MAX_BLOCK_BYTES + 1)
        except (OSError, http.client.HTTPException):
            self._connection.close()
            return None
        if answer.status == 504:
            raise TimeoutError(f"the gateway at {self._url} did not find {cid} in time")
        if answer.status != 200:
            return None
        verify_block(cid, data)
        return data
