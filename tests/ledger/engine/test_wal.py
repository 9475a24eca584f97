"""The write-ahead log: what was synced is read back, torn tails are cut, damage stops the opening."""

from __future__ import annotations

import errno
import logging
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ledger.engine import wal
from ledger.engine.errors import CorruptStore, StoreError
from ledger.engine.wal import WriteAheadLog


def _filled(folder: Path, payloads: list[bytes]) -> Path:
    log = WriteAheadLog(folder)
    log.open()
    for height, payload in enumerate(payloads, start=1):
        log.append(height, payload)
    log.close()
    return next(folder.glob("*.wal"))


def _read(folder: Path, above: int = 0) -> list[tuple[int, bytes]]:
    log = WriteAheadLog(folder)
    log.open()
    try:
        return [(record.height, record.payload) for record in log.records(above)]
    finally:
        log.close()


def test_records_come_back_in_order_and_above_a_height(tmp_path: Path) -> None:
    _filled(tmp_path, [b"one", b"", b"three"])
    assert _read(tmp_path) == [(1, b"one"), (2, b""), (3, b"three")]
    assert _read(tmp_path, above=2) == [(3, b"three")]


@settings(max_examples=60, deadline=None)
@given(cut=st.integers(0, 400))
def test_a_file_cut_anywhere_keeps_every_whole_record(
    tmp_path_factory: pytest.TempPathFactory, cut: int
) -> None:
    folder = tmp_path_factory.mktemp("wal")
    payloads = [bytes([n]) * (n * 17) for n in range(1, 6)]
    path = _filled(folder, payloads)
    whole = path.stat().st_size
    os.truncate(path, max(0, whole - cut))
    kept = _read(folder)
    assert kept == list(enumerate(payloads, start=1))[: len(kept)]
    ends = [len(wal.SEGMENT_MAGIC)]
    for payload in payloads:
        ends.append(ends[-1] + wal.HEADER.size + len(payload))
    assert len(kept) == sum(end <= whole - cut for end in ends[1:])
    # and the log goes on where it was cut
    log = WriteAheadLog(folder)
    log.open()
    log.append(len(kept) + 1, b"next")
    log.close()
    assert _read(folder) == [*kept, (len(kept) + 1, b"next")]


def test_a_torn_tail_is_reported(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = _filled(tmp_path, [b"one", b"two"])
    os.truncate(path, path.stat().st_size - 1)
    with caplog.at_level(logging.WARNING):
        assert _read(tmp_path) == [(1, b"one")]
    assert "torn write" in caplog.text


def test_zeros_behind_the_last_record_are_a_torn_tail(tmp_path: Path) -> None:
    path = _filled(tmp_path, [b"one"])
    os.truncate(path, path.stat().st_size + 5000)
    assert _read(tmp_path) == [(1, b"one")]


def test_damage_before_a_valid_record_stops_the_opening(tmp_path: Path) -> None:
    path = _filled(tmp_path, [b"first record", b"second", b"third"])
    data = bytearray(path.read_bytes())
    data[len(wal.SEGMENT_MAGIC) + wal.HEADER.size] ^= 1
    path.write_bytes(data)
    with pytest.raises(CorruptStore, match="damaged at byte 8"):
        _read(tmp_path)


def test_a_gap_in_the_heights_stops_the_opening(tmp_path: Path) -> None:
    log = WriteAheadLog(tmp_path)
    log.open()
    log.append(4, b"four")
    log.append(6, b"six")
    log.close()
    with pytest.raises(CorruptStore, match="block 6 after block 4"):
        _read(tmp_path)


@pytest.mark.parametrize("content", [b"not a log at all", b"HFWAL\x00\x00\x02" + bytes(60)])
def test_another_file_is_not_taken_for_a_log(tmp_path: Path, content: bytes) -> None:
    (tmp_path / f"{1:020d}.wal").write_bytes(content)
    with pytest.raises(CorruptStore, match="not a write-ahead log"):
        _read(tmp_path)


def test_rotation_drops_old_segments_and_survives_a_crash_between(tmp_path: Path) -> None:
    log = WriteAheadLog(tmp_path, segment_bytes=100)
    log.open()
    log.append(1, b"x" * 100)
    full = [log.full]
    log.rotate(2)
    full.append(log.full)
    assert full == [True, False]
    log.append(2, b"two")
    log.close()
    assert [path.name for path in tmp_path.glob("*.wal")] == [f"{2:020d}.wal"]
    assert _read(tmp_path) == [(2, b"two")]

    def crash(point: str) -> None:
        if point == "wal.rotated":
            raise RuntimeError(point)

    log = WriteAheadLog(tmp_path, crash, segment_bytes=1)
    log.open()
    with pytest.raises(RuntimeError):
        log.rotate(3)
    log.close()
    assert _read(tmp_path) == [(2, b"two")]
    log = WriteAheadLog(tmp_path)
    log.open()
    log.append(3, b"three")
    log.close()
    assert _read(tmp_path, above=1) == [(2, b"two"), (3, b"three")]


def test_a_full_disk_is_an_error_that_clears_by_itself(tmp_path: Path) -> None:
    full = True

    def fault(point: str) -> None:
        if full and point == "wal.half":
            raise OSError(errno.ENOSPC, "No space left on device")

    log = WriteAheadLog(tmp_path, fault)
    log.open()
    with pytest.raises(StoreError, match="No space left"):
        log.append(1, b"one")
    full = False
    log.append(1, b"again")
    log.close()
    assert _read(tmp_path) == [(1, b"again")]


def test_a_record_beyond_the_limit_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wal, "MAX_RECORD_BYTES", 10)
    log = WriteAheadLog(tmp_path)
    log.open()
    with pytest.raises(StoreError, match="more than the log takes"):
        log.append(1, b"x" * 11)
    log.close()
