"""`holdfast dag`: every codec in and out, paths of both kinds, counting and comparing."""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cbor2
import pytest

from merkledag import dag_pb, values
from merkledag.cid import CID
from merkledag.codecs import DAG_CBOR, DAG_JSON, DAG_PB
from tests.cli.conftest import Holdfast

Tree = Callable[..., Path]

LEAF = "bafkqaaa"
NODE = '{"Data":{"/":{"bytes":"CAE"}},"Links":[{"Hash":{"/":"' + LEAF + '"},"Name":"f","Tsize":3}]}'


def test_dag_pb_from_dag_json_and_back(holdfast: Holdfast) -> None:
    cid = holdfast("dag", "put", "--store-codec", "dag-pb", stdin=NODE.encode()).text
    assert CID.parse(cid).codec == DAG_PB
    assert holdfast("dag", "get", cid).text == NODE
    block = holdfast("dag", "get", "--output-codec", "dag-pb", cid).stdout
    assert [link.name for link in dag_pb.decode(block).links] == ["f"]
    again = holdfast("dag", "put", "--input-codec", "dag-pb", "--store-codec", "dag-pb", stdin=block).text
    assert again == cid
    cbor = holdfast("dag", "get", "--output-codec", "dag-cbor", cid).stdout
    assert values.decode(DAG_CBOR, cbor) == values.decode(DAG_PB, block)


@pytest.mark.parametrize("source", ["dag-json", "dag-cbor", "json", "cbor"])
@pytest.mark.parametrize("target", ["dag-json", "dag-cbor", "json", "cbor"])
def test_every_pair_of_codecs(holdfast: Holdfast, source: str, target: str) -> None:
    value = {"b": [1, -1.5, None, True, "é"], "a": {}}
    if source.endswith("json"):
        data = json.dumps(value).encode()
    else:
        data = cbor2.dumps(value, canonical=source == "dag-cbor")
        data = values.encode(DAG_CBOR, value) if source == "dag-cbor" else data
    cid = holdfast("dag", "put", "--input-codec", source, "--store-codec", target, stdin=data).text
    shown = holdfast("dag", "get", "--output-codec", "json", cid).json
    assert shown == value
    assert holdfast("dag", "get", cid + "/b/4").text == '"é"'


def test_raw_is_bytes(holdfast: Holdfast) -> None:
    cid = holdfast("dag", "put", "--store-codec", "raw", stdin=b'{"/":{"bytes":"AQI"}}').text
    assert cid == str(CID.of(b"\1\2", codec=0x55))
    assert holdfast("dag", "get", "--output-codec", "raw", cid).stdout == b"\1\2"
    assert holdfast("dag", "get", cid).json == {"/": {"bytes": "AQI"}}
    inner = holdfast("dag", "put", stdin=b'{"x":{"/":{"bytes":"AQI"}}}').text
    assert holdfast("dag", "get", "--output-codec", "raw", inner + "/x").stdout == b"\1\2"
    assert holdfast("dag", "get", "--json", "--output-codec", "raw", inner + "/x").json == {
        "cid": inner, "codec": "raw", "base64": "AQI="
    }  # fmt: skip


def test_what_a_codec_cannot_hold_is_4(holdfast: Holdfast) -> None:
    cid = holdfast("dag", "put", stdin=b'{"l":{"/":"bafkqaaa"},"b":{"/":{"bytes":"AQ"}}}').text
    assert "plain JSON has no" in holdfast.fails(4, "dag", "get", "--output-codec", "json", cid)
    assert "Links" in holdfast.fails(4, "dag", "get", "--output-codec", "dag-pb", cid)
    holdfast.fails(4, "dag", "get", "--output-codec", "raw", cid)
    holdfast.fails(4, "dag", "get", "--output-codec", "libp2p-key", cid)
    holdfast.fails(2, "dag", "get", "--output-codec", "nonsense", cid)
    big = json.dumps("é" * 1_200_000, ensure_ascii=True).encode()
    holdfast.fails(4, "dag", "put", stdin=big)


def test_ipfs_paths_take_names_and_ipld_paths_take_fields(holdfast: Holdfast, tree: Tree) -> None:
    cid = holdfast.add(tree({"Links": b"named", "f": b"hello"}))
    named = holdfast("dag", "resolve", f"{cid}/Links").text
    assert holdfast("dag", "get", "--output-codec", "raw", named).stdout == b"named"
    assert holdfast("dag", "resolve", f"/ipld/{cid}/Links/0/Hash").text == named
    assert holdfast("dag", "get", f"/ipld/{cid}/Links/1/Tsize").text == "5"
    assert holdfast("dag", "resolve", "--json", f"/ipld/{cid}/Links/1/Name").json == {
        "cid": cid, "remainder": "Links/1/Name"
    }  # fmt: skip
    assert "no link named 'Hash'" in holdfast.fails(3, "dag", "get", f"/ipld/{cid}/Links/Hash")
    assert "not a content path" in holdfast.fails(2, "dag", "get", "/ipld/nonsense")
    assert "file" in holdfast.fails(3, "dag", "resolve", f"{cid}/f/deeper")
    key = "bafzaajaiaejca4syrpdu6gdx4wsdnokxkprgzxf4wrstuc34gxw5k5jrag2so5gk"
    assert "libp2p-key" in holdfast.fails(4, "dag", "get", f"{key}/x")


def test_identity_cids_are_nodes(holdfast: Holdfast) -> None:
    inner = CID.of(values.encode(DAG_CBOR, {"x": 7}), DAG_CBOR, hash_code=0)
    assert holdfast("dag", "get", f"{inner}/x").text == "7"
    root = holdfast("dag", "put", stdin=b'{"in":{"/":"%s"}}' % str(inner).encode()).text
    assert holdfast("dag", "get", f"{root}/in/x").text == "7"


def test_stat_counts_what_several_dags_share(holdfast: Holdfast, tree: Tree) -> None:
    first = holdfast.add(tree({"same": b"12345", "a": b"1"}, "first"))
    second = holdfast.add(tree({"same": b"12345", "b": b"22"}, "second"))
    one = holdfast("dag", "stat", "--json", first).json
    other = holdfast("dag", "stat", "--json", second).json
    assert (one["blocks"], one["shared_size_bytes"], one["ratio"]) == (3, 0, 1.0)
    both = holdfast("dag", "stat", "--json", first, second).json
    assert [root["blocks"] for root in both["roots"]] == [3, 3]
    assert (both["unique_blocks"], both["shared_size_bytes"]) == (5, 5)
    assert both["total_size_bytes"] == one["size_bytes"] + other["size_bytes"] - 5
    assert both["ratio"] == (both["total_size_bytes"] + 5) / both["total_size_bytes"]
    lines = holdfast("dag", "stat", first, second).text.splitlines()
    assert lines[0].split() == ["CID", "Blocks", "Size"]
    assert lines[1].split() == [first, "3", str(one["size_bytes"])]
    assert [line.partition(":")[0] for line in lines[4:]] == [
        "Summary", "Total Size", "Unique Blocks", "Shared Size", "Ratio"
    ]  # fmt: skip
    holdfast.fails(3, "dag", "stat", first, str(CID.of(b"absent")))
    value = holdfast("dag", "put", stdin=b'{"a":1}').text
    assert "ends inside" in holdfast.fails(3, "dag", "stat", f"{value}/a")


def test_diff_names_what_differs(holdfast: Holdfast, tree: Tree) -> None:
    same: dict[str, Any] = {f"{n}": b"%d" % n for n in range(20)}
    before = holdfast.add(tree({**same, "gone": b"x", "sub": {"deep": b"1"}, "t": b"file"}, "a"))
    after = holdfast.add(tree({**same, "new": {"n": b""}, "sub": {"deep": b"2"}, "t": {}}, "b"))
    changes = holdfast("dag", "diff", "--json", before, after).json_lines
    assert [(change["change"], change["path"]) for change in changes] == [
        ("removed", "gone"), ("added", "new"), ("changed", "sub/deep"), ("changed", "t")
    ]  # fmt: skip
    assert changes[0]["after"] is None
    assert changes[1]["before"] is None
    deep = [holdfast("dag", "resolve", f"{root}/sub/deep").text for root in (before, after)]
    assert [changes[2]["before"], changes[2]["after"]] == deep
    lines = holdfast("dag", "diff", before, f"/ipfs/{after}").text.splitlines()
    assert [line[0] for line in lines] == ["-", "+", "~", "~"]
    assert lines[2] == f'~ {deep[0]} {deep[1]} "sub/deep"'
    assert holdfast("dag", "diff", before, before).stdout == b""
    assert holdfast("dag", "diff", f"{before}/sub", f"{after}/sub", "--json").json["path"] == "deep"
    holdfast.fails(3, "dag", "diff", before, str(CID.of(b"absent", DAG_PB)))
    holdfast.fails(2, "dag", "diff", before, "nonsense")


def test_nodes_can_be_hashed_and_pinned_as_asked(holdfast: Holdfast) -> None:
    cid = holdfast("dag", "put", "--hash", "blake3", "--pin", "--store-codec", "dag-json", stdin=b"[2]").text
    assert CID.parse(cid).codec == DAG_JSON
    assert cid in holdfast("pin", "ls").text
    assert base64.b64decode(holdfast("block", "get", "--json", cid).json["base64"]) == b"[2]"
    assert holdfast("block", "put", stdin=b"from stdin").text == str(CID.of(b"from stdin", 0x55))


def test_archives_go_by_kubos_names_too(holdfast: Holdfast, tree: Tree, tmp_path: Path) -> None:
    cid = holdfast.add(tree({"f": b"hello"}))
    archive = tmp_path / "x.car"
    archive.write_bytes(holdfast("dag", "export", cid).stdout)
    assert cid in holdfast("dag", "import", archive).text


def test_text_that_is_not_unicode_has_no_place_in_values(holdfast: Holdfast, tmp_path: Path) -> None:
    """But the names of a folder may be any bytes."""
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / os.fsdecode(b"\xff")).write_bytes(b"x")
    cid = holdfast.add(folder)
    for codec in ("dag-json", "dag-cbor"):
        assert "not Unicode" in holdfast.fails(4, "dag", "get", cid, "--output-codec", codec)
    assert holdfast("dag", "get", cid, "--output-codec", "dag-pb").stdout
    for text in (b'"\\ud800"', b'"\xff"'):
        assert "not Unicode" in holdfast.fails(4, "dag", "put", "-", stdin=text)
