"""What the shard upload protocol says on the wire: paths, the state document, and its limits.

``PUT /v1/deals/{deal}/shards/{shard}`` takes a CAR; ``GET`` on the same path answers a state document::

    {"state": "manifest" | "blocks" | "checking" | "held", "blocks": N, "missing": BITMAP, "error": TEXT |
    null}

``manifest``: the node does not hold the whole erasure manifest yet, so send everything. ``blocks``: bit i of
the bitmap (base64, least significant bit first) is set while block i of the piece is missing, counted over
the metadata part first, then the data part. ``checking``: all bytes are here. ``held``: the node has
accepted on the ledger.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from merkledag.cid import CID
from storage_node.errors import PeerMisbehaved

UPLOAD_TAG = "holdfast-upload"
CAR_TYPE = "application/vnd.ipld.car"
RAW_TYPE = "application/vnd.ipld.raw"
SHARD_ROUTE = "/v1/deals/{deal}/shards/{shard}"
STATUS_ROUTE = "/v1/status"
EARNINGS_ROUTE = "/v1/admin/earnings"
ADMIN_STATUS_ROUTE = "/v1/admin/status"

MAX_PIECE_BLOCKS = 4_194_304
MAX_SHARDS = 64
MAX_STATE_BYTES = 1_048_576
MAX_ERROR_CHARS = 500


class ShardPhase(StrEnum):
    """How far a node is with one shard."""

    MANIFEST = "manifest"
    BLOCKS = "blocks"
    CHECKING = "checking"
    HELD = "held"


@dataclass(frozen=True, slots=True)
class ShardState:
    """A parsed state document. ``missing`` holds the positions of the blocks that are still to be sent."""

    phase: ShardPhase
    blocks: int = 0
    missing: frozenset[int] = frozenset()
    error: str | None = None

    def to_json(self) -> dict[str, Any]:
        """The document as it is sent."""
        return {
            "state": self.phase.value,
            "blocks": self.blocks,
            "missing": bitmap(self.missing, self.blocks),
            "missing_count": len(self.missing),
            "error": self.error,
        }


def shard_path(deal: CID, shard: int) -> str:
    """The URL path of one shard of a deal."""
    return f"/v1/deals/{deal}/shards/{shard}"


def bitmap(positions: Iterable[int], size: int) -> str:
    """Base64 of a bitmap of ``size`` bits with the given positions set."""
    bits = bytearray((size + 7) // 8)
    for position in positions:
        bits[position >> 3] |= 1 << (position & 7)
    return base64.b64encode(bits).decode()


def parse_state(document: Any) -> ShardState:
    """Read a state document from a node; PeerMisbehaved when it makes no sense."""
    try:
        phase = ShardPhase(document["state"])
        blocks = document["blocks"]
        error = document.get("error")
        if type(blocks) is not int or not 0 <= blocks <= MAX_PIECE_BLOCKS:
            raise PeerMisbehaved("the node's state document has an impossible number of blocks")
        if error is not None and not isinstance(error, str):
            raise PeerMisbehaved("the node's state document has an error that is not text")
        bits = base64.b64decode(document["missing"], validate=True)
    except (KeyError, TypeError, ValueError, AttributeError, binascii.Error) as problem:
        raise PeerMisbehaved(f"the node's state document is malformed: {problem!r}") from None
    if len(bits) != (blocks + 7) // 8:
        raise PeerMisbehaved("the node's bitmap does not fit its number of blocks")
    missing = frozenset(
        position
        for index, byte in enumerate(bits)
        if byte
        for position in range(index * 8, index * 8 + 8)
        if byte >> (position & 7) & 1
    )
    if missing and max(missing) >= blocks:
        raise PeerMisbehaved("the node's bitmap does not fit its number of blocks")
    return ShardState(phase, blocks, missing, error[:MAX_ERROR_CHARS] if error else None)
