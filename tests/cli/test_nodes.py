"""`block`, `dag` and `car`: blocks and nodes of any codec, in and out."""

from __future__ import annotations

import base64
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from merkledag import car, dag_cbor, dag_json
from merkledag.block import MAX_BLOCK_BYTES, Block
from merkledag.cid import CID
from merkledag.codecs import DAG_CBOR
from merkledag.errors import DecodeError
from tests.cli.conftest import Holdfast
from tests.conftest import load_vectors

Tree = Callable[..., Path]


def vector(profile: str) -> tuple[bytes, str]:
    for case in load_vectors("unixfs")["cases"]:
        if case["profile"] == profile and "base64" in case["input"]:
            return base64.b64decode(case["input"].split("base64 ")[1]), str(case["cid"])
    raise AssertionError(profile)


def test_blocks_in_and_out(holdfast: Holdfast) -> None:
    cid = holdfast("block", "put", "-", stdin=b"hello world").text
    assert cid == "bafkreifzjut3te2nhyekklss27nh3k72ysco7y32koao5eei66wof36n5e"
    assert holdfast("block", "get", cid).stdout == b"hello world"
    assert holdfast("block", "get", "--json", cid).json["size_bytes"] == 11
    assert holdfast("block", "stat", "--json", cid).json == {"cid": cid, "size_bytes": 11}
    assert holdfast("block", "stat", "bafkqabtimvwgy3yk").text.endswith("size_bytes: 6")
    data, expected = vector("dag-cbor")
    assert holdfast("block", "put", "--cid-codec", "dag-cbor", "-", stdin=data).text == expected
    data, expected = vector("dag-pb, CIDv1")
    assert holdfast("block", "put", "--cid-codec", "dag-pb", "-", stdin=data).text == expected
    blake = holdfast("block", "put", "--mhtype", "blake3", "-", stdin=b"x").text
    assert holdfast("block", "get", blake).stdout == b"x"


def test_blocks_that_are_refused(holdfast: Holdfast, tmp_path: Path) -> None:
    holdfast.fails(4, "block", "put", "-", stdin=bytes(MAX_BLOCK_BYTES + 1))
    holdfast.fails(4, "block", "put", "--cid-codec", "dag-pb", "-", stdin=b"\xff")
    holdfast.fails(2, "block", "put", "--cid-codec", "nonsense", "-", stdin=b"")
    holdfast.fails(2, "block", "put", "--mhtype", "md5", "-", stdin=b"")
    holdfast.fails(3, "block", "put", tmp_path / "absent")
    holdfast.fails(3, "block", "stat", str(CID.of(b"absent")))


def test_dag_put_get_resolve(holdfast: Holdfast) -> None:
    leaf = holdfast("block", "put", "-", stdin=b"leaf").text
    link = '{"/":"' + leaf + '"}'
    document = '{"list":[1,' + link + '],"bytes":{"/":{"bytes":"AAEC"}},"deep":{"x":-1.5}}'
    cid = holdfast("dag", "put", "-", "--pin", stdin=document.encode()).text
    assert CID.parse(cid).codec == DAG_CBOR
    shown = holdfast("dag", "get", cid)
    assert shown.text == '{"bytes":{"/":{"bytes":"AAEC"}},"deep":{"x":-1.5},"list":[1,' + link + "]}"
    assert holdfast("dag", "get", f"{cid}/deep/x").text == "-1.5"
    assert holdfast("dag", "get", f"{cid}/list/1").json == {
        "/": {"bytes": base64.b64encode(b"leaf").decode()[:-2]}
    }
    assert holdfast("dag", "resolve", f"{cid}/list/1").text == leaf
    assert holdfast("dag", "resolve", "--json", f"{cid}/deep/x").json == {"cid": cid, "remainder": "deep/x"}
    holdfast.fails(3, "dag", "get", f"{cid}/deep/y")
    raw = holdfast("dag", "get", "--output-codec", "dag-cbor", cid).stdout
    assert holdfast("dag", "put", "--input-codec", "dag-cbor", "-", stdin=raw).text == cid
    assert holdfast("dag", "stat", "--json", cid).json["blocks"] == 2
    assert "Unique Blocks: 2" in holdfast("dag", "stat", cid).text
    as_json = holdfast("dag", "put", "--store-codec", "dag-json", "-", stdin=document.encode()).text
    assert holdfast("dag", "get", as_json).text == shown.text
    holdfast.fails(4, "dag", "get", "--output-codec", "dag-pb", cid)


def test_dag_get_of_a_folder_shows_its_links(holdfast: Holdfast, tree: Tree) -> None:
    cid = holdfast.add(tree({"f": b"hello"}))
    shown = holdfast("dag", "get", cid).json
    assert [link["Name"] for link in shown["Links"]] == ["f"]
    assert shown["Data"] == {"/": {"bytes": "CAE"}}


@pytest.mark.parametrize(
    "text",
    [b"", b"{", b'{"a":1,"a":2}', b"[NaN]", b"[1e999]", b'{"/":"nonsense"}', b'{"/":{"bytes":"A==="}}',
     b'{"/":"x","y":1}', b"\xff", b"[18446744073709551616]", b"[" * 300 + b"]" * 300, b"[" * 100_000],
)  # fmt: skip
def test_bad_dag_json_is_4(holdfast: Holdfast, text: bytes) -> None:
    holdfast.fails(4, "dag", "put", "-", stdin=text)


@pytest.mark.parametrize(
    ("options", "data", "code"),
    [
        (("--input-codec", "dag-cbor"), b"\x1b\0\0\0\0\0\0\0\1", 4),
        (("--input-codec", "dag-pb"), b"\xff", 4),
        (("--input-codec", "dag-pb", "--store-codec", "dag-pb"), b"\xff", 4),
        (("--input-codec", "nonsense"), b"", 2),
        (("--store-codec", "raw"), b"1", 4),
        (("--store-codec", "libp2p-key"), b"1", 2),
        (("--store-codec", "dag-pb"), b"{}", 4),
        (("--store-codec", "json"), b'{"/":"bafkqaaa"}', 4),
        (("--input-codec", "json", "--store-codec", "json"), b"[NaN]", 4),
        (("--input-codec", "cbor"), b"\x81", 4),
    ],
)
def test_bad_nodes_are_refused(holdfast: Holdfast, options: tuple[str, ...], data: bytes, code: int) -> None:
    holdfast.fails(code, "dag", "put", *options, "-", stdin=data)


values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.text(max_size=5) | st.binary(max_size=8)
    | st.floats(allow_nan=False, allow_infinity=False) | st.binary(max_size=4).map(CID.of),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(st.text(max_size=4).filter(lambda key: key != "/"), inner, max_size=3),
    max_leaves=8,
)  # fmt: skip


@given(values)
def test_dag_json_says_what_dag_cbor_says(value: Any) -> None:
    again = dag_json.decode(dag_json.encode(value).encode())
    assert dag_cbor.encode(again) == dag_cbor.encode(value)


def test_dag_json_keeps_the_slash_key_for_cids_and_bytes() -> None:
    with pytest.raises(ValueError, match="would be read as a CID"):
        dag_json.encode({"/": "1"})
    with pytest.raises(DecodeError):
        dag_json.decode(b'{"/":{"bytes":"AA"},"x":1}')


def test_a_car_carries_a_dag_to_another_home(
    holdfast: Holdfast, tree: Tree, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = os.urandom(2_500_000)
    cid = holdfast.add(tree({"f": data, "g": data, "h": b"x"}))
    archive = tmp_path / "a.car"
    done = holdfast("car", "export", cid, "-o", archive, "--json").json
    assert done["size_bytes"] == archive.stat().st_size
    holdfast.fails(4, "car", "export", cid, "-o", archive)
    shown = holdfast("car", "inspect", "--json", archive).json
    assert (shown["roots"], shown["blocks"], shown["codecs"]) == (
        [cid],
        done["blocks"],
        {"dag-pb": 2, "raw": 4},
    )
    assert f"roots: {cid}" in holdfast("car", "inspect", archive).text
    assert holdfast("car", "verify", "--json", archive).json["ok"] is True
    assert "all good" in holdfast("car", "verify", "-", stdin=archive.read_bytes()).text

    monkeypatch.setenv("HOLDFAST_HOME", str(tmp_path / "other"))
    result = holdfast("car", "import", "--json", "--name", "moved", archive).json
    assert (result["roots"], result["new_blocks"], result["pinned"]) == ([cid], done["blocks"], True)
    assert holdfast("cat", f"{cid}/g").stdout == data
    assert holdfast("pin", "ls", "--json").json["name"] == "moved"
    assert holdfast("car", "import", "--json", archive).json["new_blocks"] == 0
    assert f"pinned {cid}" in holdfast("car", "import", "-", stdin=archive.read_bytes()).text


def test_a_car_goes_to_standard_output(holdfast: Holdfast, tree: Tree) -> None:
    cid = holdfast.add(tree({"f": b"hello"}))
    process = holdfast.process("car", "export", cid)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, b"")
    assert holdfast("car", "verify", "--json", "-", stdin=out).json["roots"] == [cid]
    holdfast.fails(2, "car", "export", cid, "--json")


@pytest.fixture
def archive(holdfast: Holdfast, tree: Tree, tmp_path: Path) -> bytes:
    cid = holdfast.add(tree({"f": os.urandom(5000), "g": b"y" * 3000}), "--no-pin")
    holdfast("car", "export", cid, "-o", tmp_path / "x.car")
    holdfast("repo", "gc")
    return (tmp_path / "x.car").read_bytes()


@pytest.mark.parametrize("command", ["import", "inspect", "verify"])
def test_damaged_archives_are_4(holdfast: Holdfast, archive: bytes, command: str) -> None:
    flipped = bytearray(archive)
    flipped[-1] ^= 1
    for data in (
        b"",
        b"not a car",
        archive[:-1],
        bytes(flipped),
        archive + b"\xff" * 9 + b"\x01",
        archive[:20],
    ):
        holdfast.fails(4, "car", command, "-", stdin=data)
    holdfast.fails(3, "car", command, "absent.car")
    assert holdfast("pin", "ls", "--json").json_lines == []


def test_an_incomplete_archive_is_told_from_a_whole_one(holdfast: Holdfast) -> None:
    leaf = Block(CID.of(b"leaf"), b"leaf")
    data = dag_cbor.encode({"a": leaf.cid, "b": CID.of(b"missing")})
    root = Block(CID.of(data, DAG_CBOR), data)
    partial = car.header([root.cid]) + car.frame(root) + car.frame(leaf)
    assert "lacks 1 block " in holdfast.fails(4, "car", "verify", "-", stdin=partial)
    holdfast("car", "verify", "--partial", "-", stdin=partial)
    assert str(CID.of(b"missing")) in holdfast.fails(3, "car", "import", "-", stdin=partial)
    assert holdfast("pin", "ls", "--json").json_lines == []
    holdfast("car", "import", "--no-pin-roots", "-", stdin=partial)
    assert holdfast("block", "get", leaf.cid).stdout == b"leaf"


def test_a_reader_of_an_archive_may_go_away(holdfast: Holdfast, tree: Tree) -> None:
    cid = holdfast.add(tree({"f": os.urandom(3 << 20)}))
    process = holdfast.process("car", "export", cid)
    assert isinstance(process, subprocess.Popen)
    assert process.stdout is not None
    process.stdout.read(10)
    process.stdout.close()
    assert process.stderr is not None
    assert process.stderr.read() == b""
    process.stderr.close()
    assert process.wait(60) == 1
