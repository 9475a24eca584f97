"""Plans encoded and restored group by group: any k nodes give all, k rebuild one, garbled ones are found."""

from __future__ import annotations

import itertools
import random
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from merkledag import multihash
from merkledag.cid import CID
from proofs import erasure, rs_tables
from proofs.erasure import Backend, backend, encode_group, restore_shares
from proofs.erasure_groups import GroupRestore, encode_plan, restore_groups
from proofs.errors import UndecodableGroup
from proofs.manifest import Manifest, build_manifest, plan

ROOT = CID.of(b"content")


class Stored:
    """Random blocks of mixed sizes, encoded; by multihash, as one node a share would have them."""

    def __init__(self, rng: random.Random, k: int, m: int, leaves: int, longest: int) -> None:
        sizes = [rng.choice([longest, rng.randint(0, longest)]) for _ in range(leaves)]
        blocks = [rng.randbytes(size) for size in sizes]
        self.leaves = {multihash.digest(block): block for block in blocks}
        self.blocks = dict(self.leaves)
        planned = plan([(name, len(block)) for name, block in self.leaves.items()], k, m)
        parity = []
        for _, made in encode_plan(planned, self.blocks.__getitem__):
            parity += made
        self.blocks |= {multihash.digest(block): block for block in parity}
        names = [multihash.digest(block) for block in parity]
        self.manifest: Manifest = build_manifest(ROOT, planned, names, [])
        self.read: Counter[int] = Counter()

    def get(self, share: int, name: bytes) -> bytes:
        self.read[share] += 1
        return self.blocks[name]


@st.composite
def stored(draw: st.DrawFn) -> Stored:
    m = draw(st.integers(1, 12))
    k = draw(st.integers(1, m))
    leaves = draw(st.integers(0, 4 * k + 1))
    longest = draw(st.sampled_from([0, 1, 40, 9_000]))
    return Stored(random.Random(draw(st.integers(0, 2**32))), k, m, leaves, longest)


@settings(max_examples=60, deadline=None)
@given(stored(), st.data())
def test_any_k_nodes_give_all_content(kept: Stored, data: st.DataObject) -> None:
    manifest = kept.manifest
    gone = data.draw(st.sets(st.integers(0, manifest.m - 1), max_size=manifest.m - manifest.k))
    restored = list(restore_groups(manifest, range(manifest.k), kept.get, lost=gone))
    if manifest.replicated:
        assert restored == []
        return
    assert [name for name, _ in restored] == list(manifest.plan.leaves)
    assert dict(restored) == kept.leaves
    assert not kept.read.keys() & gone
    members = len(kept.leaves)  # absent ones are known without being read
    assert kept.read.total() == members


@settings(max_examples=60, deadline=None)
@given(stored(), st.data())
def test_one_node_is_rebuilt_from_exactly_k_shares_of_each_group(kept: Stored, data: st.DataObject) -> None:
    manifest = kept.manifest
    if manifest.replicated or manifest.m == manifest.k:
        return
    node = data.draw(st.integers(0, manifest.m - 1))
    more = [other for other in range(manifest.m) if other != node]
    spare = manifest.m - manifest.k - 1
    gone = {node, *data.draw(st.sets(st.sampled_from(more), max_size=spare))}
    rebuilt = list(restore_groups(manifest, [node], kept.get, lost=gone))
    assert [(name, len(block)) for name, block in rebuilt] == list(manifest.piece(node))
    assert all(kept.blocks[name] == block for name, block in rebuilt)
    assert not kept.read.keys() & gone
    without = len(kept.leaves) % manifest.k if node < manifest.k else 0
    last_is_skipped = without and node >= without
    assert kept.read.total() == len(kept.leaves) - (without if last_is_skipped else 0)


@pytest.mark.parametrize("name", ["zfec", "tables"])
@pytest.mark.parametrize(("k", "m"), [(k, m) for m in range(1, 6) for k in range(1, m + 1)])
def test_every_pattern_of_small_codes(k: int, m: int, name: str) -> None:
    """Every share from every k others, and from more, for groups of 1 to k members."""
    if name == "zfec":
        pytest.importorskip("zfec")
    using = backend(name)
    rng = random.Random(100 * k + m)
    for members in range(1, k + 1):
        blocks = [rng.randbytes(rng.randint(0, 30)) for _ in range(members)]
        lengths = [len(block) for block in blocks]
        parity = encode_group(k, m, blocks, using=using)
        shares = dict(zip([*range(members), *range(k, m)], [*blocks, *parity], strict=True))
        for size in range(members, len(shares) + 1):
            for chosen in itertools.combinations(shares, size):
                given_ = {index: shares[index] for index in chosen}
                restored = restore_shares(k, m, given_, lengths, list(shares), using=using)
                assert restored == list(shares.values())
        for few in itertools.combinations(shares, members - 1):
            with pytest.raises(UndecodableGroup):
                restore_shares(k, m, {index: shares[index] for index in few}, lengths, [0], using=using)


@pytest.mark.parametrize(("k", "m"), [(255, 256), (128, 256), (200, 230)])
def test_both_backends_restore_the_same_of_large_codes(k: int, m: int) -> None:
    pytest.importorskip("zfec")
    rng = random.Random(k)
    blocks = [rng.randbytes(24) for _ in range(k)]
    shares = dict(enumerate([*blocks, *encode_group(k, m, blocks)]))
    lost = sorted(rng.sample(range(m), m - k))
    kept = {index: share for index, share in shares.items() if index not in lost}
    for name in ("zfec", "tables"):
        restored = restore_shares(k, m, kept, [24] * k, lost[:4], using=backend(name))
        assert restored == [shares[index] for index in lost[:4]]


@pytest.mark.parametrize("k", [1, rs_tables._MANY - 1, rs_tables._MANY, 20])
def test_the_built_in_backend_works_in_slices(k: int) -> None:
    """Blocks end within, with and behind a slice; by tables and by Horner's rule, all as zfec."""
    zfec = pytest.importorskip("zfec")
    rng = random.Random(k)
    edge = rs_tables._SLICE_BYTES
    blocks = [rng.randbytes(rng.choice([0, 5, edge - 1, edge, edge + 1])) for _ in range(k - 1)]
    blocks = [*blocks, rng.randbytes(2 * edge + 77)]
    padded = tuple(block.ljust(2 * edge + 77, b"\0") for block in blocks)
    m = k + 3
    plain = zfec.Encoder(k, m).encode(padded, tuple(range(k, m)))
    assert encode_group(k, m, blocks, using=backend("tables")) == plain


def test_room_is_made_once_and_never_shows_through() -> None:
    """What a longer group left in the buffers must not become part of a shorter one's padding."""
    rng = random.Random(4)
    room: erasure.Room = []
    for longest in (900, 20, 500, 900, 1, 0):
        blocks = [rng.randbytes(size) for size in (longest, longest // 2, longest // 3, longest)]
        parity = encode_group(4, 6, blocks, room=room)
        assert parity == encode_group(4, 6, blocks, using=backend("tables"))
        shares = {0: blocks[0], 1: blocks[1], 4: parity[0], 5: parity[1]}
        lengths = [len(block) for block in blocks]
        assert restore_shares(4, 6, shares, lengths, [2, 3], room=room) == blocks[2:]
    if backend().NAME == "zfec":
        assert [len(buffer) for buffer in room] == [900, 900]


def test_only_what_is_lost_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    """The built-in backend makes the one wanted share in one go, though other members lack as well."""
    blocks = [bytes([n]) * 50 for n in range(4)]
    shares = dict(enumerate([*blocks, *encode_group(4, 8, blocks)]))
    rows: list[int] = []
    plain = rs_tables.combine

    def counting(given_: list[bytes], factors: list[tuple[int, ...]], length: int) -> list[bytes]:
        rows.append(len(factors))
        return plain(given_, factors, length)

    monkeypatch.setattr(rs_tables, "combine", counting)
    kept = {index: shares[index] for index in (0, 5, 6, 7)}
    tables: Backend = backend("tables")
    for wanted in (1, 4):
        assert restore_shares(4, 8, kept, [50] * 4, [wanted], using=tables) == [shares[wanted]]
    assert rows == [1, 1]


# --- shares that are not what they should be ---


def group_of(kept: Stored) -> GroupRestore:
    return GroupRestore(kept.manifest.group(0), kept.manifest.k, kept.manifest.m, [0], lost=[0])


def test_garbled_shares_are_found_and_others_read_instead() -> None:
    kept = Stored(random.Random(5), 3, 7, 6, 50)
    right = dict(restore_groups(kept.manifest, range(3), kept.get, lost=[1]))
    for bad in itertools.combinations(range(7), 3):

        def get(share: int, name: bytes, bad: tuple[int, ...] = bad) -> bytes:
            data = kept.get(share, name)
            if share not in bad:
                return data
            return {0: data[:-1], 1: b"\x00" + data}.get(share % 3, bytes([data[0] ^ 1]) + data[1:])

        assert dict(restore_groups(kept.manifest, range(3), get, lost=[1])) == right, bad


def test_too_many_garbled_shares_are_named() -> None:
    kept = Stored(random.Random(6), 3, 5, 3, 50)

    def get(share: int, name: bytes) -> bytes:
        data = kept.get(share, name)
        return data if share in (0, 1) else bytes(len(data))

    with pytest.raises(UndecodableGroup, match=r"2 of the 3 .* garbled: member 2, parity 0, parity 1"):
        list(restore_groups(kept.manifest, range(3), get))
    with pytest.raises(UndecodableGroup, match=r"2 of the 3 .* can be had$"):
        list(restore_groups(kept.manifest, range(3), kept.get, lost=[2, 3, 4]))


def test_parity_that_was_made_wrong_is_told_from_garbled_shares() -> None:
    kept = Stored(random.Random(7), 2, 4, 2, 50)
    group = kept.manifest.group(0)
    wrong = [bytes(max(group.lengths)), b"\1" * max(group.lengths)]
    kept.blocks |= {multihash.digest(block): block for block in wrong}
    manifest = build_manifest(ROOT, kept.manifest.plan, [multihash.digest(block) for block in wrong], [])
    assert dict(restore_groups(manifest, range(2), kept.get)) == kept.leaves
    with pytest.raises(UndecodableGroup, match="made wrong"):
        list(restore_groups(manifest, [0], kept.get, lost=[0]))


def test_each_share_is_asked_for_once() -> None:
    kept = Stored(random.Random(8), 2, 5, 2, 50)
    work = group_of(kept)
    assert work.ask() == [1, 2]
    work.give(1, None)
    work.give(2, kept.blocks[work.share_hash(2)])
    assert work.ask() == [3]
    work.give(3, kept.blocks[work.share_hash(3)])
    assert work.ask() == []
    assert work.result() == [kept.blocks[work.share_hash(0)]]


def test_members_are_restored_and_what_is_no_share_is_refused() -> None:
    blocks = [b"one", b"", b"three"]
    parity = encode_group(3, 5, blocks)
    shares = {1: b"", 3: parity[0], 4: parity[1]}
    assert restore_shares(3, 5, shares, [3, 0, 5], [0, 1, 2]) == blocks
    with pytest.raises(ValueError, match="shares are 0 to 2 and 3 to 4"):
        restore_shares(3, 5, shares, [3, 0, 5], [5])


def test_a_plan_without_parity_is_not_read() -> None:
    planned = plan([(multihash.digest(b"x"), 1)], 1, 1)
    assert list(encode_plan(planned, lambda _: pytest.fail("read"))) == []
