"""Targets: DAG-CBOR, DAG-JSON, dag-pb and UnixFS."""

from __future__ import annotations

import contextlib
import json
import random
from typing import Any

from merkledag import dag_cbor, dag_json, dag_pb, unixfs
from merkledag.cid import CID
from merkledag.errors import DecodeError
from merkledag.unixfs import Data, Kind, Mtime
from tests.fuzz import mutations, oracle_json, oracle_pb, oracles
from tests.fuzz.target import Refused, Target, Unsure


def plain(value: Any) -> Any:
    """A value with CIDs as the oracles give them."""
    if isinstance(value, CID):
        return oracles.Cid((value.version, value.codec, value.multihash))
    if isinstance(value, list):
        return list(map(plain, value))
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    return value


def _nested(dice: random.Random, opening: bytes, closing: bytes) -> bytes:
    depth = dice.choice((255, 256, 257, 5_000))
    return opening * depth + b"\x01" * (not closing) + closing * depth


def make_cbor(dice: random.Random) -> bytes:
    if dice.random() < 0.01:
        return _nested(dice, dice.choice((b"\x81", b"\xa1\x60")), b"")
    raw = dag_cbor.encode(mutations.random_value(dice))
    draw = dice.random()
    if draw < 0.2:
        return raw
    if draw < 0.3:  # the head of something longer than there is
        at = dice.randrange(len(raw))
        head = bytes([dice.choice((0x1B, 0x5B, 0x7B, 0x9B, 0xBB, 0xDB, 0x9F, 0xBF, 0x5F, 0x7F))])
        return raw[:at] + head + dice.choice(mutations.NUMBERS).to_bytes(8, "big") + raw[at:]
    return mutations.mutate(dice, raw)


def lenient_agrees(data: bytes) -> Any:
    """The strict decoder; the lenient one must then say the same."""
    value = dag_cbor.decode(data)
    assert repr(dag_cbor.decode_lenient(data)) == repr(value)
    return plain(value)


ODD_JSON = (
    b'"', b"\\u", b"\\ud834\\udd1e", b"\\udd1e", b"1e5", b"-0", b"-", b"01", b".5", b"1.", b"NaN", b",",
    b'{"/":"', b'{"/":{"bytes":"AA', b'"/":', b"Infinity", b"\xef\xbb\xbf", b"\xa0", b"1E400",
)  # fmt: skip


def make_json(dice: random.Random) -> bytes:
    if dice.random() < 0.01:
        return _nested(dice, *dice.choice(((b"[", b"]"), (b'{"a":', b"}"))))
    value = mutations.random_value(dice)
    draw = dice.random()
    try:
        text = dag_json.encode(value).encode()
    except ValueError:
        text = b'{"/":{"bytes":"AQID"}}'
    if draw < 0.2:
        return text
    if draw < 0.35:
        return _spread(dice, text)
    if draw < 0.5:
        at = dice.randrange(len(text) + 1)
        return text[:at] + dice.choice(ODD_JSON) + text[at + dice.randrange(4) :]
    return mutations.mutate(dice, text)


def _spread(dice: random.Random, text: bytes) -> bytes:
    """The same with spaces, other escapes, or keys in another order."""
    loaded = json.loads(text)
    if isinstance(loaded, dict) and not set(loaded) & {"/"}:
        loaded = dict(dice.sample(list(loaded.items()), len(loaded)))
    return json.dumps(
        loaded, ensure_ascii=dice.random() < 0.5, indent=dice.choice((None, 0, 2, "\t"))
    ).encode()


def json_round_trip(data: bytes) -> Any:
    """Our decoder; what it gives must have a form that reads back the same."""
    value = dag_json.decode(data)
    try:
        again = dag_json.encode(value)
    except ValueError:
        again = None  # a map whose "/" would be taken for something else
    assert again is None or repr(dag_json.decode(again.encode())) == repr(dag_json.decode(again.encode()))
    return plain(value)


def make_pb(dice: random.Random) -> bytes:
    raw = _random_node(dice)
    return raw if dice.random() < 0.2 else mutations.mutate(dice, raw)


def _random_node(dice: random.Random) -> bytes:
    links = []
    uniform = dice.random() < 0.5
    for _ in range(dice.choice((0, 1, 2, 9))):
        cid = CID(1, 0x55, b"\x12\x20" + dice.randbytes(32)) if uniform else mutations.random_cid(dice)
        name = b"" if uniform else dice.choice((None, b"", b"a", b"\xff", b"x" * 200))
        size = 300 if uniform else dice.choice((None, *mutations.NUMBERS))
        links.append(dag_pb.encode_link(cid, name, size))
    payload = dice.choice((None, b"", b"\x08\x01", make_unixfs(dice)))
    if payload is not None and dice.random() < 0.2:
        return dag_pb.assemble((), payload) + b"".join(links)
    return dag_pb.assemble(links, payload)


def our_pb(data: bytes) -> Any:
    """The decoder; the quicker readers of parts of a node must agree with it."""
    node = dag_pb.decode(data)
    assert dag_pb.payload(data) == node.data
    assert dag_pb.links(data) == [link.cid for link in node.links]
    links = []
    for cid, name, tsize in node.links:
        raw = None if name is None else dag_pb.name_bytes(name)
        links.append(((cid.version, cid.codec, cid.multihash), raw, tsize))
        if raw is not None:
            found, payload = dag_pb.find(data, raw)
            assert found == next(link for link in node.links if link.name == name)
            assert payload == node.data
    return links, node.data


def make_unixfs(dice: random.Random) -> bytes:
    pick = dice.choice
    numbers = (None, *mutations.NUMBERS)
    message = Data(
        pick(tuple(Kind)),
        pick((None, b"", b"content")),
        pick(numbers),
        tuple(pick(mutations.NUMBERS) for _ in range(pick((0, 0, 1, 3, 200)))),
        pick((None, 0x22, 0)),
        pick((None, 256, 8, 1024)),
        pick((None, 0o644, 2**32 - 1)),
        pick((None, Mtime(0), Mtime(-1, 1), Mtime(2**62, 999_999_999))),
    )
    raw = unixfs.encode(message)
    return raw if dice.random() < 0.2 else mutations.mutate(dice, raw)


def our_unixfs(data: bytes) -> Any:
    message = unixfs.decode(data)
    found: dict[str, Any] = {"blocksizes": list(message.blocksizes)}
    names = ("kind", "data", "filesize", "hash_type", "fanout", "mode", "mtime")
    values = [(name, getattr(message, name)) for name in names]
    found |= {name: value for name, value in values if value is not None}
    found["kind"] = int(message.kind)
    if message.mtime is not None:
        found["mtime"] = tuple(message.mtime)
    return dict(sorted(found.items()))


def oracle_unixfs(data: bytes) -> Any:
    return dict(sorted(oracle_pb.unixfs(data).items()))


def our_lenient(data: bytes) -> Any:
    """What others may have written, as DAG-CBOR and as plain CBOR."""
    with contextlib.suppress(DecodeError):
        dag_cbor.decode_plain(data)
    return plain(dag_cbor.decode_lenient(data))


def oracle_lenient(data: bytes) -> Any:
    """All that is canonical is read; of the rest this oracle knows nothing."""
    try:
        return oracles.dag_cbor(data)
    except Refused:
        raise Unsure from None


TARGETS = (
    Target("dag-cbor", make_cbor, lenient_agrees, oracles.dag_cbor, (DecodeError,)),
    Target("dag-json", make_json, json_round_trip, oracle_json.dag_json, (DecodeError,)),
    Target("dag-pb", make_pb, our_pb, oracle_pb.dag_pb, (DecodeError,)),
    Target("unixfs", make_unixfs, our_unixfs, oracle_unixfs, (DecodeError,)),
    Target("cbor-lenient", make_cbor, our_lenient, oracle_lenient, (DecodeError,)),
)
