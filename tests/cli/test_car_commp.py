"""`car commp`: piece CIDs of files, streams and content, compared with one, and made from one another."""

from __future__ import annotations

import hashlib
import os
import random
from pathlib import Path

import pytest

from cli import car_commp
from proofs.piece_cid.stream import MAX_PAYLOAD_BYTES, piece_of
from proofs.piece_cid.tree import SEGMENT_BYTES, ZERO_ROOTS, node
from tests.cli.conftest import Holdfast
from tests.proofs.piece_cid import naive

ROOT = bytes(range(32))


@pytest.fixture
def payload() -> bytes:
    return random.Random(5).randbytes(3_000)


@pytest.fixture
def file(tmp_path: Path, payload: bytes) -> Path:
    path = tmp_path / "payload"
    path.write_bytes(payload)
    return path


def test_a_file_and_stdin_have_the_piece_of_their_bytes(
    holdfast: Holdfast, file: Path, payload: bytes
) -> None:
    root, padded_bytes = naive.commitment(payload)
    said = holdfast("car", "commp", file, "--json").json
    assert said == {
        "v2": str(piece_of([payload]).v2),
        "v1": str(piece_of([payload]).v1),
        "commitment": root.hex(),
        "payload_bytes": 3000,
        "padding_bytes": padded_bytes // 128 * 127 - 3000,
        "unpadded_piece_bytes": padded_bytes // 128 * 127,
        "padded_piece_bytes": padded_bytes,
        "tree_height": 7,
        "sha256": hashlib.sha256(payload).hexdigest(),
    }
    assert holdfast("car", "commp", "-", "--json", stdin=payload).json == said
    lines = holdfast("car", "commp", file).text.splitlines()
    assert lines == [f"{field}: {value}" for field, value in said.items()]


def test_content_has_the_piece_of_its_archive(holdfast: Holdfast, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    for name in ("a", "b", "the same as b"):
        (folder / name).write_bytes(name[-1].encode() * 300_000)
    cid = holdfast.add(folder)
    holdfast("car", "export", cid, "-o", tmp_path / "exported.car")
    exported = holdfast("car", "commp", tmp_path / "exported.car", "--json").json
    assert holdfast("car", "commp", cid, "--json").json == exported
    holdfast("car", "export", f"{cid}/a", "-o", tmp_path / "a.car")
    below = holdfast("car", "commp", tmp_path / "a.car", "--json").json
    assert holdfast("car", "commp", f"/ipfs/{cid}/a", "--json").json == below
    assert below["payload_bytes"] == (tmp_path / "a.car").stat().st_size


@pytest.mark.parametrize("version", ["v1", "v2"])
def test_verify_tells_equal_from_different(holdfast: Holdfast, file: Path, version: str) -> None:
    named = holdfast("car", "commp", file, "--json").json[version]
    assert holdfast("car", "commp", file, "--verify", named, "--json").json["verified"] == named
    holdfast.fails(2, "car", "commp", file, "--verify", "")  # a shell's variable that is not set
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    assert named in holdfast.fails(4, "car", "commp", "-", "--verify", named, stdin=bytes(data))
    data[-1] ^= 1
    longer = bytes(data) + b"\0"  # the same root, which version 1 takes for the same
    if version == "v1":
        holdfast("car", "commp", "-", "--verify", named, stdin=longer)
    else:
        holdfast.fails(4, "car", "commp", "-", "--verify", named, stdin=longer)


def test_another_size_is_refused_before_all_is_read(
    holdfast: Holdfast, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    named = holdfast("car", "commp", file, "--json").json["v2"]
    larger = file.with_name("larger")
    larger.write_bytes(bytes(3001))
    monkeypatch.setattr(car_commp, "segments", None)  # nothing is to be hashed
    assert "3001 bytes" in holdfast.fails(4, "car", "commp", larger, "--verify", named)
    monkeypatch.undo()
    endless = bytes(3 * SEGMENT_BYTES)
    assert f"{SEGMENT_BYTES} or more" in holdfast.fails(
        4, "car", "commp", "-", "--verify", named, stdin=endless
    )
    assert "2999 bytes" in holdfast.fails(
        4, "car", "commp", "-", "--verify", named, stdin=file.read_bytes()[:-1]
    )


def test_a_piece_padded_further_is_named_as_such(holdfast: Holdfast, file: Path, payload: bytes) -> None:
    piece = piece_of([payload])
    larger = node(node(piece.root, ZERO_ROOTS[piece.height]), ZERO_ROOTS[piece.height + 1])
    said = holdfast.fails(4, "car", "commp", file, "--verify", v1(larger))
    assert f"padded with zeros to a piece of {4 * piece.padded_bytes} bytes" in said


def v1(root: bytes) -> str:
    from proofs.piece_cid.identifier import v1_of

    return str(v1_of(root))


def test_versions_become_each_other(holdfast: Holdfast) -> None:
    made = holdfast("car", "commp", v1(ROOT), "--size", 1017, "--json").json
    assert made["padded_piece_bytes"] == 2048
    back = holdfast("car", "commp", made["v2"], "--json").json
    assert back == made
    assert back["v1"] == v1(ROOT)
    assert holdfast("car", "commp", made["v2"], "--size", 1017, "--json").json == made
    assert "not of 5" in holdfast.fails(2, "car", "commp", made["v2"], "--size", 5)
    assert "--size" in holdfast.fails(2, "car", "commp", v1(ROOT))
    for impossible in (-1, 2**63):
        assert "no piece has" in holdfast.fails(2, "car", "commp", v1(ROOT), "--size", impossible)
    holdfast.fails(2, "car", "commp", made["v2"], "--size", -1)
    assert "--verify" in holdfast.fails(2, "car", "commp", made["v2"], "--verify", made["v2"])


def test_what_cannot_be_is_told(holdfast: Holdfast, file: Path, tmp_path: Path) -> None:
    for wrong in ("bafkqaaa", "nothing"):
        holdfast.fails(2, "car", "commp", file, "--verify", wrong)
    for size in (-1, 3000):
        holdfast.fails(2, "car", "commp", file, "--size", size)
    assert "no such file" in holdfast.fails(3, "car", "commp", tmp_path / "absent")
    assert "no such file" in holdfast.fails(3, "car", "commp", "absent")
    assert "folder" in holdfast.fails(4, "car", "commp", tmp_path)
    huge = tmp_path / "huge"
    with huge.open("wb") as made:
        os.truncate(made.fileno(), MAX_PAYLOAD_BYTES + 1)
    assert "64 GiB" in holdfast.fails(4, "car", "commp", huge)
    few = holdfast("car", "commp", "-", "--json", stdin=bytes(64))
    assert "less than 65" in few.stderr
    assert few.json["payload_bytes"] == 64
    assert "less than" not in holdfast("car", "commp", "-", stdin=bytes(65)).stderr


def test_processes_hash_the_same(holdfast: Holdfast, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Real ones, started for an input that is larger than what is hashed here."""
    monkeypatch.setattr(car_commp, "INLINE_SEGMENTS", 2)
    file = tmp_path / "large"
    data = random.Random(8).randbytes(40_000) * 110
    for size in (2 * SEGMENT_BYTES, 2 * SEGMENT_BYTES + 1, len(data)):
        file.write_bytes(data[:size])
        said = holdfast("car", "commp", file, "--json").json
        assert said["v2"] == str(piece_of([data[:size]]).v2)
        assert said["sha256"] == hashlib.sha256(data[:size]).hexdigest()
