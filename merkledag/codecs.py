"""Codec numbers (multicodec table) and the links that a block of each codec holds."""

from __future__ import annotations

from merkledag.errors import UnsupportedCodec

TYPE_CHECKING = False  # spares the start-up cost of `typing`; type checkers treat the name specially
if TYPE_CHECKING:
    from merkledag.cid import CID
    from merkledag.steps import Buffer

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

WITHOUT_LINKS = frozenset({RAW, CBOR, JSON, LIBP2P_KEY})


def name(codec: int) -> str:
    """The codec's name in the multicodec table, or its number in hexadecimal."""
    return NAMES.get(codec) or f"0x{codec:x}"


def links(cid: CID, data: Buffer) -> list[CID]:
    """The CIDs that the block of `cid` links to, in order, with repetitions.

    Raises DecodeError if the bytes are not what the codec says, UnsupportedCodec for an unknown codec.
    """
    codec = cid.codec
    if codec in WITHOUT_LINKS:
        return []
    if codec == DAG_PB:
        from merkledag import dag_pb

        return dag_pb.links(data)
    if codec == DAG_CBOR:
        from merkledag import dag_cbor  # cbor2 takes 40 ms to import

        return dag_cbor.links(data)
    if codec == DAG_JSON:
        from merkledag import dag_json

        return dag_json.links(data)
    raise UnsupportedCodec(f"cannot read links of codec {name(codec)}")
