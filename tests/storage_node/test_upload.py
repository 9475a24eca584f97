"""Taking in a piece: any chunking, any interruption, nothing that is not the piece."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ledger.transactions import PieceCommitment
from merkledag import car
from merkledag.block import Block
from merkledag.cid import CID
from proofs.commitment import leaf_count
from storage_node.custody import ShardTerms
from storage_node.duties import ShardKey
from storage_node.errors import BlockNotFound, QuotaExceeded, UploadRefused
from storage_node.placement import commitment_of
from storage_node.upload import CarIntake, PieceIntake
from storage_node.wire import ShardPhase, parse_state
from tests.storage_node.content import Encoded, a_store, add_files, encode, some_bytes

SHARD = 1
DEAL = CID.of(b"a deal")


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Encoded]:
    store = a_store(tmp_path_factory.mktemp("client"))
    content = add_files(store, {"big": some_bytes(90_000), "small": b"hello", "empty": b""})
    yield encode(store, content, 2, 3)
    store.close()


class Receiver:
    """A receiving node's side: a dictionary is all that a piece's intake needs of a store."""

    def __init__(self, source: Encoded, **changes: object) -> None:
        self.blocks: dict[bytes, bytes] = {}
        meta, data = source.trees(SHARD)
        sizes = [source.store.size(row.multihash) or 0 for row in data.rows]
        meta_bytes = sum(source.store.size(row.multihash) or 0 for row in meta.rows)
        self.expected = commitment_of(data, sum(sizes), meta, meta_bytes)
        terms: dict[str, object] = {
            "key": ShardKey(DEAL, SHARD),
            "client": b"c" * 32,
            "content": source.content,
            "manifest": source.root,
            "k": 2,
            "m": 3,
            "replicated": False,
            "piece": self.expected,
            "price": 1,
            "periods": 1,
        }
        self.terms = ShardTerms(**{**terms, **changes})  # type: ignore[arg-type]
        self.intake = self.restart()

    def restart(self) -> PieceIntake:
        self.intake = PieceIntake(
            self.terms.manifest,
            SHARD,
            self.terms.piece,
            check=self.terms.check,
            find=self.blocks.get,
            has=self.blocks.__contains__,
            put=self.blocks.update,
        )
        self.intake.resume()
        return self.intake

    def send(self, data: bytes, portion: int = 1 << 20) -> None:
        upload = CarIntake(self.intake)
        for start in range(0, len(data), portion):
            upload.feed(data[start : start + portion])
        upload.finish()


@given(st.integers(1, 5_000))
@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_chunking_of_the_car_brings_the_whole_piece(source: Encoded, portion: int) -> None:
    receiver = Receiver(source)
    assert receiver.intake.state().phase is ShardPhase.MANIFEST
    receiver.send(source.car(SHARD), portion)
    assert receiver.intake.complete
    layout = source.layout(SHARD)
    assert set(receiver.blocks) == {*layout.meta, *layout.data}
    assert receiver.intake.layout == layout


@given(st.floats(0, 1))
@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_an_interrupted_upload_goes_on_where_it_stopped_also_after_a_restart(
    source: Encoded, share: float
) -> None:
    receiver, whole = Receiver(source), source.car(SHARD)
    first = CarIntake(receiver.intake)
    first.abandon(whole[: int(len(whole) * share)])
    before = set(receiver.blocks)
    state = parse_state(receiver.restart().state().to_json())
    if state.phase is ShardPhase.MANIFEST:
        receiver.send(whole)
    else:
        order = [*source.layout(SHARD).meta, *source.layout(SHARD).data]
        assert {order[position] for position in state.missing} == set(order) - before
        receiver.send(source.car(SHARD, skip=before))
    assert receiver.intake.complete


def test_a_foreign_block_is_refused_and_what_came_before_it_is_kept(source: Encoded) -> None:
    receiver = Receiver(source)
    foreign = Block(CID.of(b"something else"), b"something else")
    with pytest.raises(UploadRefused, match="no part of shard"):
        receiver.send(source.car(SHARD) + car.frame(foreign))
    assert receiver.intake.complete
    assert foreign.cid.multihash not in receiver.blocks


def test_nothing_is_taken_before_the_manifest(source: Encoded) -> None:
    receiver = Receiver(source)
    data_block = source.layout(SHARD).data[0]
    frame = car.frame(Block(CID(1, 0x55, data_block), source.store.get(data_block)))
    with pytest.raises(UploadRefused, match="where the manifest's block"):
        receiver.send(car.header([source.root]) + frame)
    assert not receiver.blocks


def test_wrong_bytes_are_refused(source: Encoded) -> None:
    receiver, whole = Receiver(source), bytearray(source.car(SHARD))
    whole[-1] ^= 1
    with pytest.raises(UploadRefused, match="not valid"):
        receiver.send(bytes(whole))
    assert not receiver.intake.complete


def test_a_cut_off_car_is_refused_and_a_giant_length_too(source: Encoded) -> None:
    receiver = Receiver(source)
    with pytest.raises(UploadRefused, match="cut off"):
        receiver.send(source.car(SHARD)[:-5])
    with pytest.raises(UploadRefused):
        receiver.send(car.header([source.root]) + b"\xff\xff\xff\xff\x7f" + b"x" * 100)


def test_another_shards_blocks_are_refused(source: Encoded) -> None:
    receiver = Receiver(source)
    with pytest.raises(UploadRefused, match="no part of shard"):
        receiver.send(source.car(0))


@pytest.mark.parametrize(
    "change",
    [{"k": 1}, {"m": 4}, {"replicated": True}, {"content": CID.of(b"other")}],
)
def test_a_manifest_that_is_not_the_deals_is_refused_for_good(
    source: Encoded, change: dict[str, object]
) -> None:
    receiver = Receiver(source, **change)
    for _ in range(2):
        with pytest.raises(UploadRefused, match="not the deal's"):
            receiver.send(source.car(SHARD))
    assert "not the deal's" in (receiver.intake.state().error or "")


def test_lengths_that_are_not_the_commitments_are_refused_before_the_data(source: Encoded) -> None:
    right = Receiver(source).expected
    wrong = PieceCommitment(
        right.data_root,
        right.data_leaves + leaf_count(1),
        right.data_bytes,
        right.meta_root,
        right.meta_leaves,
        right.meta_bytes,
    )
    receiver = Receiver(source, piece=wrong)
    with pytest.raises(UploadRefused, match="lengths"):
        receiver.send(source.car(SHARD))
    assert not set(receiver.blocks) & set(source.layout(SHARD).data)


def test_a_full_store_stops_the_upload_and_loses_nothing(source: Encoded, tmp_path: Path) -> None:
    store = a_store(tmp_path / "node", max_bytes=40_000)
    receiver = Receiver(source)

    def find(multihash: bytes) -> bytes | None:
        try:
            return store.get(multihash)
        except BlockNotFound:
            return None

    def intake() -> PieceIntake:
        made = PieceIntake(
            source.root,
            SHARD,
            receiver.expected,
            check=receiver.terms.check,
            find=find,
            has=store.has,
            put=store.put_many,
        )
        made.resume()
        return made

    upload = CarIntake(intake())
    upload.feed(source.car(SHARD))
    with pytest.raises(QuotaExceeded):
        upload.finish()
    state = intake().state()
    assert state.phase in (ShardPhase.MANIFEST, ShardPhase.BLOCKS)
    store.close()
