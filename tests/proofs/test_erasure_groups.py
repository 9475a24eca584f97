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
from proofs.erasure import backend_tables
from proofs.erasure.code import Backend, backend, encode_group, encode_joined, restore_joined, restore_shares
from proofs.erasure.groups import (
    BATCH_BYTES,
    BATCH_GROUPS,
    GroupRestore,
    encode_plan,
    restore_groups,
)
from proofs.erasure.manifest import Manifest, build_manifest, plan
from proofs.erasure.room import Room
from proofs.errors import UndecodableGroup

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


@pytest.mark.parametrize("k", [1, backend_tables._MANY - 1, backend_tables._MANY, 20])
def test_the_built_in_backend_works_in_slices(k: int) -> None:
    """Blocks end within, with and behind a slice; by tables and by Horner's rule, all as zfec."""
    zfec = pytest.importorskip("zfec")
    rng = random.Random(k)
    edge = backend_tables._SLICE_BYTES
    blocks = [rng.randbytes(rng.choice([0, 5, edge - 1, edge, edge + 1])) for _ in range(k - 1)]
    blocks = [*blocks, rng.randbytes(2 * edge + 77)]
    padded = tuple(block.ljust(2 * edge + 77, b"\0") for block in blocks)
    m = k + 3
    plain = zfec.Encoder(k, m).encode(padded, tuple(range(k, m)))
    assert encode_group(k, m, blocks, using=backend("tables")) == plain


def test_room_is_made_once_and_never_shows_through() -> None:
    """What a longer group left in the buffers must not become part of a shorter one's padding."""
    rng = random.Random(4)
    room = Room()
    for longest in (900, 20, 500, 900, 1, 0):
        blocks = [rng.randbytes(size) for size in (longest, longest // 2, longest // 3, longest)]
        parity = encode_group(4, 6, blocks, room=room)
        assert parity == encode_group(4, 6, blocks, using=backend("tables"))
        shares = {0: blocks[0], 1: blocks[1], 4: parity[0], 5: parity[1]}
        lengths = [len(block) for block in blocks]
        assert restore_shares(4, 6, shares, lengths, [2, 3], room=room) == blocks[2:]
    if backend().NAME == "zfec":
        assert [len(buffer) for buffer in room.buffers] == [900, 900]


def test_only_what_is_lost_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    """The built-in backend makes the one wanted share in one go, though other members lack as well."""
    blocks = [bytes([n]) * 50 for n in range(4)]
    shares = dict(enumerate([*blocks, *encode_group(4, 8, blocks)]))
    rows: list[int] = []
    plain = backend_tables.combine

    def counting(given_: list[bytes], factors: list[tuple[int, ...]], length: int) -> list[bytes]:
        rows.append(len(factors))
        return plain(given_, factors, length)

    monkeypatch.setattr(backend_tables, "combine", counting)
    kept = {index: shares[index] for index in (0, 5, 6, 7)}
    tables: Backend = backend("tables")
    for wanted in (1, 4):
        assert restore_shares(4, 8, kept, [50] * 4, [wanted], using=tables) == [shares[wanted]]
    assert rows == [1, 1]


# --- small groups, coded together ---


@pytest.mark.parametrize("name", ["zfec", "tables"])
def test_joined_groups_are_coded_as_each_by_itself(name: str) -> None:
    """Any lengths, longest member anywhere; any shares of which as many are there as there are members."""
    if name == "zfec":
        pytest.importorskip("zfec")
    using = backend(name)
    rng = random.Random(9)
    room = Room()
    for _ in range(40):
        m = rng.randint(1, 7)
        k = rng.randint(1, m)
        members, longest = rng.randint(1, k), rng.choice([0, 1, 50, 5000])
        groups = [
            [rng.randbytes(rng.randint(0, longest)) for _ in range(members)] for _ in range(rng.randint(1, 6))
        ]
        full = [max(map(len, group)) for group in groups]
        parity = [encode_group(k, m, group, using=using) for group in groups]
        joined = encode_joined(k, m, list(zip(*groups, strict=True)), full, using=using, room=room)
        assert joined == [block for made in parity for block in made]
        shares = {share: [group[share] for group in groups] for share in range(members)}
        shares |= {k + row: [made[row] for made in parity] for row in range(m - k)}
        lengths = [list(map(len, shares[share])) for share in range(members)]
        kept = {share: shares[share] for share in rng.sample(sorted(shares), members)}
        for wanted in (range(members), rng.sample(sorted(shares), len(shares))):
            restored = restore_joined(k, m, kept, lengths, wanted, using=using, room=room)
            assert list(map(list, restored)) == [shares[share] for share in wanted]


@pytest.mark.parametrize("hashes", [[multihash.SHA2_256], [multihash.SHA2_256, multihash.SHA2_512]])
def test_plans_of_small_blocks_are_coded_as_group_by_group(hashes: list[int]) -> None:
    rng = random.Random(10)
    sizes = [*(rng.randint(0, 4000) for _ in range(400)), 0, 100_000, 70_000, 70_000, 1]
    blocks = {multihash.digest(block, rng.choice(hashes)): block for block in map(rng.randbytes, sizes)}
    planned = plan([(name, len(block)) for name, block in blocks.items()], 3, 5)
    parity = [
        made
        for group in planned.groups()
        for made in encode_group(3, 5, [blocks[name] for name in group.members])
    ]
    portions = list(encode_plan(planned, blocks.__getitem__))
    assert len(portions) < planned.group_count / 5
    assert [block for _, made in portions for block in made] == parity
    assert sum(protected_bytes for protected_bytes, _ in portions) == sum(sizes)
    blocks |= {multihash.digest(made): made for made in parity}
    manifest = build_manifest(ROOT, planned, map(multihash.digest, parity), [])
    for node in range(5):
        rebuilt = restore_groups(manifest, [node], lambda _, name: blocks[name], lost=[node])
        assert list(rebuilt) == [(name, blocks[name]) for name, _ in manifest.piece(node)]


@pytest.mark.parametrize(("size", "most"), [(0, BATCH_GROUPS), (100, BATCH_GROUPS), (9_000, 7), (90_000, 1)])
def test_what_is_coded_together_is_bounded(size: int, most: int) -> None:
    """Counted by the blocks that are read from one portion to the next."""
    names = [multihash.digest(bytes([n % 256, n // 256])) for n in range(1000)]
    planned = plan([(name, size) for name in names], 2, 4)
    read: Counter[int] = Counter()
    portions = 0

    def get(name: bytes) -> bytes:
        read[portions] += 1
        return bytes(size)

    for _, parity in encode_plan(planned, get):
        assert len(parity) == read[portions]  # two for each two
        portions += 1
    assert max(read.values()) == 2 * most
    assert 4 * size * most <= BATCH_BYTES or most == 1


def test_a_block_of_another_length_than_planned_is_not_encoded() -> None:
    blocks = [bytes([n]) * 50 for n in range(8)]
    planned = plan([(multihash.digest(block), 50) for block in blocks], 2, 3)
    for wrong in (b"", bytes(49), bytes(51)):
        kept = {name: bytes(50) for name in planned.leaves} | {planned.leaves[5]: wrong}
        with pytest.raises(ValueError, match="another length"):
            list(encode_plan(planned, kept.__getitem__))


def test_one_bad_share_among_joined_groups_costs_one_more_read() -> None:
    """The others of the groups that were read with it are not read again."""
    kept = Stored(random.Random(11), 3, 6, 60, 50)
    group = kept.manifest.group(7)
    right = dict(restore_groups(kept.manifest, range(3), kept.get, lost=[0]))
    for bad in (None, b"", bytes(group.lengths[1])):
        kept.read.clear()

        def get(share: int, name: bytes, bad: bytes | None = bad) -> bytes | None:
            data = kept.get(share, name)
            return bad if name == group.members[1] else data

        assert dict(restore_groups(kept.manifest, range(3), get, lost=[0])) == right
        assert kept.read.total() == len(kept.leaves) + 1


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
