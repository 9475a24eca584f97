"""The erasure code: both backends make the same bytes, and any k shares restore a group."""

from __future__ import annotations

import itertools
import random
import sys
from collections.abc import Mapping

import pytest

from merkledag.multihash import Buffer
from proofs.erasure import backend_tables
from proofs.erasure import code as erasure
from proofs.erasure.code import Backend, backend, encode_group, restore_shares
from proofs.errors import UndecodableGroup

TABLES = backend("tables")


@pytest.fixture(scope="module")
def zfec() -> Backend:
    pytest.importorskip("zfec")
    return backend("zfec")


def random_group(rng: random.Random, k: int, longest: int) -> list[bytes]:
    return [rng.randbytes(rng.randint(0, longest)) for _ in range(rng.randint(1, k))]


def members(
    k: int, m: int, shares: Mapping[int, Buffer], lengths: list[int], using: Backend | None = None
) -> list[bytes]:
    """A group's data blocks, in order."""
    return restore_shares(k, m, shares, lengths, range(len(lengths)), using=using)


def test_both_backends_make_the_same_parity(zfec: Backend) -> None:
    rng = random.Random(1)
    for _ in range(120):
        m = rng.choice([1, 2, 3, 6, 16, 40, 100])
        k = rng.randint(1, m)
        blocks = random_group(rng, k, rng.choice([1, 20, 300]))
        assert encode_group(k, m, blocks, using=zfec) == encode_group(k, m, blocks, using=TABLES)


@pytest.mark.parametrize(("k", "m"), [(255, 256), (128, 256), (1, 256), (256, 256)])
def test_both_backends_agree_at_the_limits(zfec: Backend, k: int, m: int) -> None:
    rng = random.Random(k)
    blocks = [rng.randbytes(16) for _ in range(k)]
    parity = encode_group(k, m, blocks, using=zfec)
    assert parity == encode_group(k, m, blocks, using=TABLES)
    shares = dict(enumerate([*blocks, *parity]))
    kept = {index: shares[index] for index in rng.sample(range(m), k)}
    for using in (zfec, TABLES):
        assert members(k, m, kept, [16] * k, using=using) == blocks


def test_the_tables_are_plain_zfec(zfec: Backend) -> None:
    """Not only our own wrapper: zfec itself, given padded blocks."""
    import zfec as library

    assert zfec.NAME == "zfec"
    rng = random.Random(2)
    for k, m in ((2, 3), (4, 6), (10, 16), (20, 40)):
        blocks = [rng.randbytes(50) for _ in range(k)]
        plain = library.Encoder(k, m).encode(tuple(blocks), tuple(range(k, m)))
        assert encode_group(k, m, blocks, using=TABLES) == plain


@pytest.mark.parametrize("name", ["zfec", "tables"])
def test_any_shares_restore_a_group_of_mixed_lengths(name: str) -> None:
    if name == "zfec":
        pytest.importorskip("zfec")
    using = backend(name)
    rng = random.Random(3)
    for _ in range(60):
        m = rng.choice([2, 3, 6, 16])
        k = rng.randint(1, m)
        blocks = random_group(rng, k, 200)
        lengths = [len(block) for block in blocks]
        parity = encode_group(k, m, blocks, using=using)
        shares: dict[int, Buffer] = dict(enumerate(blocks))
        shares |= {k + index: memoryview(block) for index, block in enumerate(parity)}
        kept = {
            index: shares[index]
            for index in rng.sample(sorted(shares), rng.randint(len(blocks), len(shares)))
        }
        assert members(k, m, kept, lengths, using=using) == blocks


def test_every_choice_of_4_out_of_6_restores() -> None:
    blocks = [b"one", b"two!", b"", b"three"]
    shares = dict(enumerate([*blocks, *encode_group(4, 6, blocks)]))
    for chosen in itertools.combinations(range(6), 4):
        assert members(4, 6, {index: shares[index] for index in chosen}, [3, 4, 0, 5]) == blocks
    for few in itertools.combinations(range(6), 3):
        with pytest.raises(UndecodableGroup, match="4 are needed"):
            members(4, 6, {index: shares[index] for index in few}, [3, 4, 0, 5])


def test_absent_members_count_as_known() -> None:
    blocks = [b"alone"]
    parity = encode_group(4, 6, blocks)
    padded = encode_group(4, 6, [b"alone", b"", bytes(5), b"\0"])
    assert parity == padded
    for share in (4, 5):
        assert members(4, 6, {share: parity[share - 4]}, [5]) == blocks


def test_parity_is_as_long_as_the_longest_block() -> None:
    assert [len(block) for block in encode_group(3, 5, [b"a" * 70, b"b" * 10])] == [70, 70]
    assert encode_group(3, 5, [b""]) == [b"", b""]
    assert members(3, 5, {3: b""}, [0]) == [b""]
    assert encode_group(3, 3, [b"abc"]) == []


def test_one_of_m_is_a_copy() -> None:
    assert encode_group(1, 3, [b"copy"]) == [b"copy", b"copy"]


@pytest.mark.parametrize(("k", "m"), [(0, 3), (4, 3), (3, 257), (-1, 2)])
def test_codes_that_cannot_be_are_refused(k: int, m: int) -> None:
    with pytest.raises(ValueError, match="code"):
        encode_group(k, m, [b"x"])
    with pytest.raises(ValueError, match="code"):
        members(k, m, {}, [1])


def test_groups_that_cannot_be_are_refused() -> None:
    for blocks in ([], [b"x"] * 5):
        with pytest.raises(ValueError, match="1 to 4"):
            encode_group(4, 6, blocks)
        with pytest.raises(ValueError, match="1 to 4"):
            members(4, 6, {}, [1] * len(blocks))


@pytest.mark.parametrize("shares", [{0: b"four"}, {4: b"12"}, {3: b"zero"}, {6: b"abc"}, {-1: b"abc"}])
def test_shares_of_another_group_are_refused(shares: dict[int, bytes]) -> None:
    with pytest.raises(UndecodableGroup):
        members(4, 6, shares, [3, 3])


def test_the_backend_is_a_choice(monkeypatch: pytest.MonkeyPatch) -> None:
    assert backend("tables") is backend_tables
    with pytest.raises(ValueError, match="no erasure backend"):
        backend("other")
    backend.cache_clear()
    monkeypatch.setitem(sys.modules, "zfec", None)
    monkeypatch.delitem(sys.modules, "proofs.erasure.backend_zfec", raising=False)
    monkeypatch.delattr("proofs.erasure.backend_zfec", raising=False)
    try:
        assert erasure.backend() is backend_tables
        with pytest.raises(ImportError):
            backend("zfec")
    finally:
        backend.cache_clear()
