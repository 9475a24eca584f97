"""Codec numbers (multicodec table) and the links that a block of each codec holds."""

from __future__ import annotations

CBOR = 0x51
RAW = 0x55
DAG_PB = 0x70
DAG_CBOR = 0x71
LIBP2P_KEY = 0x72
DAG_JSON = 0x0129
JSON = 0x0200

NAMES: dict[int, str] = {
    CBOR: "cbor",
    RAW: "raw",
    DAG_PB: "dag-pb",
    DAG_CBOR: "dag-cbor",
    LIBP2P_KEY: "libp2p-key",
    DAG_JSON: "dag-json",
    JSON: "json",
}

_WITHOUT_LINKS = frozenset({RAW, CBOR, JSON, LIBP2P_KEY})


def name(codec: int) -> str:
    """The codec's name in the multicodec table, or its number in hexadecimal."""
    return NAMES.get(codec) or f"0x{codec:x}"
