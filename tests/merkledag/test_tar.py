"""TAR headers, read back by Python's tarfile and by the system's tar."""

from __future__ import annotations

import io
import shutil
import subprocess
import tarfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from merkledag import tar
from merkledag.tar import Member
from merkledag.unixfs import Mtime

NAMES = [
    "a", "ż", "a" * 100, "a" * 101, "d" * 60 + "/" + "f" * 100, "d" * 155 + "/" + "f" * 100, "d" * 156 + "/f",
    "d/" * 300 + "f", "ä" * 120, "\udcff\udcfe", "x" * 200 + "\udcff", "sp ace", "new\nline", "-rf", "a=b",
]  # fmt: skip


def only(data: bytes) -> tarfile.TarInfo:
    with tarfile.open(fileobj=io.BytesIO(data + tar.END)) as archive:
        (member,) = archive.getmembers()
    return member


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kind", list(Member))
def test_names_and_targets_of_every_length_and_alphabet(name: str, kind: Member) -> None:
    target = name[::-1] if kind is Member.SYMLINK else ""
    raw = tar.header(name, kind, target=target)
    assert len(raw) % 512 == 0
    member = only(raw)
    assert (member.name, member.linkname) == (name, target)
    assert (member.isdir(), member.issym(), member.isreg()) == (
        kind is Member.FOLDER, kind is Member.SYMLINK, kind is Member.FILE,
    )  # fmt: skip


def test_what_fits_the_old_fields_needs_no_more() -> None:
    for name in ("a" * 100, "d" * 155 + "/" + "f" * 100, "\udcff"):
        assert len(tar.header(name, size_bytes=8**11 - 1, mtime=Mtime(8**11 - 1))) == 512
    assert len(tar.header("d" * 156 + "/f")) == 3 * 512


@pytest.mark.parametrize(
    ("when", "expected"),
    [
        (Mtime(0), 0), (Mtime(1_600_000_000), 1_600_000_000), (Mtime(5, 500_000_000), 5.5), (Mtime(-3), -3),
        (Mtime(-2, 250_000_000), -1.75), (Mtime(-1, 500_000_000), -0.5), (Mtime(2**40), 2**40),
    ],
)  # fmt: skip
def test_times(when: Mtime, expected: float) -> None:
    assert only(tar.header("f", mtime=when)).mtime == expected


def test_times_keep_their_nanoseconds() -> None:
    assert b" mtime=1600000000.123456789\n" in tar.header("f", mtime=Mtime(1_600_000_000, 123_456_789))
    assert b" mtime=-0.000000001\n" in tar.header("f", mtime=Mtime(-1, 999_999_999))


def test_sizes_beyond_the_field() -> None:
    for size_bytes in (8**11 - 1, 8**11, 2**63):
        with tarfile.open(fileobj=io.BytesIO(tar.header("f", size_bytes=size_bytes)), mode="r|") as archive:
            first = archive.next()
            assert first is not None
            assert first.size == size_bytes


def test_modes_lose_their_special_bits() -> None:
    assert only(tar.header("f", mode=0o104755)).mode == 0o755
    assert [only(tar.header("f", kind)).mode for kind in (Member.FILE, Member.FOLDER)] == [0o644, 0o755]
    assert (only(tar.header("f")).uid, only(tar.header("f")).gid, only(tar.header("f")).uname) == (0, 0, "")


@given(
    st.text(st.characters(exclude_characters="\0/"), min_size=1, max_size=300).filter(
        lambda t: "\ud800" not in t
    ),
    st.integers(0, 2**64),
    st.integers(-(2**40), 2**40),
    st.integers(0, 10**9 - 1),
)
def test_any_header_reads_back(name: str, size_bytes: int, seconds: int, nanoseconds: int) -> None:
    try:
        raw = tar.header(name, size_bytes=size_bytes, mtime=Mtime(seconds, nanoseconds))
    except UnicodeEncodeError:
        return  # lone surrogates stand for no bytes
    with tarfile.open(fileobj=io.BytesIO(raw), mode="r|") as archive:
        member = archive.next()
    assert member is not None
    assert (member.name, member.size) == (name, size_bytes)
    assert abs(member.mtime - (seconds + nanoseconds / 1e9)) < 0.001


@pytest.mark.skipif(shutil.which("tar") is None, reason="no tar program here")
def test_the_system_tar_lists_it_without_a_complaint() -> None:
    long = "d" * 90 + "/" + "é" * 90
    parts = [
        tar.header("top", Member.FOLDER, mtime=Mtime(1)),
        tar.header(f"top/{long}", size_bytes=5, mtime=Mtime(1_600_000_000, 5)) + b"hello" + tar.padding(5),
        tar.header("top/link", Member.SYMLINK, target="x" * 150),
        tar.END,
    ]
    done = subprocess.run(
        ["tar", "-tvf", "-"],
        input=b"".join(parts),
        capture_output=True,
        check=True,
        env={"LC_ALL": "C.UTF-8", "TZ": "UTC"},
    )
    assert done.stderr == b""
    lines = done.stdout.decode().splitlines()
    assert lines[0].startswith("drwxr-xr-x")
    assert lines[1].endswith(f"top/{long}")
    assert "2020-09-13" in lines[1]
    assert lines[2].endswith("top/link -> " + "x" * 150)
