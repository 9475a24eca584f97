"""Blocks as values of the IPLD data model, and back: one pair of functions for every codec that has values.

Values are None, bool, int, float, str, bytes, CID, lists, and dicts with str keys.
"""

from __future__ import annotations

from typing import Any, Final

from merkledag import codecs, dag_pb
from merkledag.cid import CID
from merkledag.dag_pb import PBLink, PBNode
from merkledag.errors import UnsupportedCodec
from merkledag.steps import Buffer

CODECS: Final = frozenset(
    {codecs.RAW, codecs.DAG_PB, codecs.DAG_CBOR, codecs.DAG_JSON, codecs.CBOR, codecs.JSON}
)


def decode(codec: int, block: Buffer) -> Any:
    """The value of a block as others may have written it: not necessarily the codec's canonical form.

    Raises DecodeError for bytes that are not what the codec says, UnsupportedCodec for codecs without values.
    """
    if codec == codecs.RAW:
        return bytes(block)
    if codec == codecs.DAG_PB:
        return _from_node(dag_pb.decode(block))
    if codec in (codecs.DAG_CBOR, codecs.CBOR):
        from merkledag import dag_cbor  # cbor2 takes 40 ms to import

        return dag_cbor.decode_lenient(block) if codec == codecs.DAG_CBOR else dag_cbor.decode_plain(block)
    if codec in (codecs.DAG_JSON, codecs.JSON):
        from merkledag import dag_json

        return dag_json.decode(block) if codec == codecs.DAG_JSON else dag_json.decode_plain(block)
    raise UnsupportedCodec(f"codec {codecs.name(codec)} holds no values that are known here")


def encode(codec: int, value: Any) -> bytes:
    """`value` in a codec's canonical form (plain CBOR and JSON: keys in their own order).

    Raises ValueError for values that the codec cannot hold, UnsupportedCodec for a codec without values.
    """
    if codec == codecs.RAW:
        if type(value) is not bytes:
            raise ValueError("a raw block holds bytes and nothing else")
        return value
    if codec == codecs.DAG_PB:
        return dag_pb.encode(_to_node(value))
    if codec in (codecs.DAG_CBOR, codecs.CBOR):
        from merkledag import dag_cbor

        return dag_cbor.encode(value) if codec == codecs.DAG_CBOR else dag_cbor.encode_plain(value)
    if codec in (codecs.DAG_JSON, codecs.JSON):
        from merkledag import dag_json

        text = dag_json.encode(value) if codec == codecs.DAG_JSON else dag_json.encode_plain(value)
        return text.encode()
    raise UnsupportedCodec(f"codec {codecs.name(codec)} holds no values that are known here")


def _from_node(node: PBNode) -> dict[str, Any]:
    """The logical format of the dag-pb specification; absent fields are absent keys."""
    links = []
    for cid, name, tsize in node.links:
        link: dict[str, Any] = {"Hash": cid}
        if name is not None:
            link["Name"] = name
        if tsize is not None:
            link["Tsize"] = tsize
        links.append(link)
    return {"Links": links} if node.data is None else {"Data": node.data, "Links": links}


def _to_node(value: Any) -> PBNode:
    """The node that a value in the logical format stands for, links sorted by name, equal ones in order."""
    fields = _fields(value, "a dag-pb node", {"Data": bytes, "Links": list}, "Links")
    links = []
    for item in fields["Links"]:
        link = _fields(item, "a dag-pb link", {"Hash": CID, "Name": str, "Tsize": int}, "Hash")
        tsize = link.get("Tsize")
        if tsize is not None and not 0 <= tsize < 1 << 64:
            raise ValueError(f"a Tsize of {tsize} does not fit in 64 bits")
        links.append(PBLink(link["Hash"], link.get("Name"), tsize))
    links.sort(key=lambda link: dag_pb.name_bytes(link.name or ""))
    return PBNode(tuple(links), fields.get("Data"))


def _fields(value: Any, what: str, kinds: dict[str, type], required: str) -> dict[str, Any]:
    """A map of certain keys and kinds; ValueError for any other value."""
    if type(value) is not dict:
        raise ValueError(f"{what} is a map with the keys {', '.join(kinds)}")
    for key, item in value.items():
        if key not in kinds:
            raise ValueError(f"{what} has no field {key!r}: only {', '.join(kinds)}")
        if type(item) is not kinds[key]:
            raise ValueError(f"{key} of {what} is no {kinds[key].__name__}")
    if required not in value:
        raise ValueError(f"{what} lacks {required}")
    return value


def check(codec: int, data: bytes) -> None:
    """Raises DecodeError for bytes that are not what their codec says; codecs unknown here hold anything."""
    if codec == codecs.DAG_CBOR:
        from merkledag import dag_cbor

        dag_cbor.decode(data)
    elif codec in CODECS:
        decode(codec, data)
