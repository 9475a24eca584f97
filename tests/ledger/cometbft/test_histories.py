"""The history of a chain of validators: out of a node's store, into an archive, and run again elsewhere."""

from __future__ import annotations

import io
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import aiohttp
import pytest

from ledger.engine.archive import KIND, GivenBlock, Manifest, head, light_node, sections
from ledger.engine.archive_reader import ArchiveReader
from ledger.engine.archive_replay import Replay
from ledger.engine.blocks import node_cid
from ledger.engine.chain_check import TrustPin
from ledger.engine.cometbft.light.block import LightBlock
from ledger.engine.cometbft.light.votes import CommitSig, Flag
from ledger.engine.errors import InvalidArchive, StoreError
from ledger.engine.storage import LedgerStorage
from ledger.genesis import Genesis
from merkledag import car
from merkledag.errors import MerkledagError
from tests.ledger.cometbft.application import genesis
from tests.ledger.cometbft.lone import Setting
from tests.ledger.cometbft.signed_history import VALIDATORS, SignedHistory, forged, row
from tests.ledger.engine.test_rpc import Http, served
from tests.ledger.world import key


@pytest.fixture(scope="module")
def world() -> Iterator[SignedHistory]:
    made = SignedHistory(*VALIDATORS)
    made.live(9)
    made.keep_lights(made.app.height)
    yield made
    made.mirror.node.close()


@pytest.fixture(scope="module")
def blocks(world: SignedHistory) -> list[GivenBlock]:
    return world.given()


@pytest.fixture(scope="module")
def half(
    world: SignedHistory, blocks: list[GivenBlock], tmp_path_factory: pytest.TempPathFactory
) -> tuple[int, Path]:
    """A height, and a store whose history was run up to it."""
    folder, height = tmp_path_factory.mktemp("half"), accused_at(blocks)
    run(folder, archive(world.app.genesis, world.lights[len(blocks) - 1], blocks), height)
    return height, folder


def archive(
    genesis: Genesis, light: LightBlock | None, blocks: Sequence[GivenBlock], /, **changes: object
) -> bytes:
    last = blocks[-1].block
    raw = b"" if light is None else light.encode()
    manifest = Manifest(
        kind=KIND,
        chain=genesis.chain_id,
        genesis=node_cid(genesis.encode()),
        first=1,
        last=last.height,
        tip=node_cid(blocks[-1].raw),
        app_hash=last.app_hash,
        state=None,
        origin=None,
        light=node_cid(light_node(raw)) if raw else None,
    )
    changed = replace(manifest, **changes)  # type: ignore[arg-type]
    return head(changed, genesis, raw) + b"".join(map(sections, blocks))


def run(
    folder: Path, raw: bytes, upto: int | None = None, pin: TrustPin | None = None
) -> tuple[int, bytes, list[tuple[bytes, bytes]]]:
    """Runs an archive, or goes on with it, up to a block, or to its end; where that led to."""
    storage = LedgerStorage(folder)
    storage.open()
    try:
        reader = ArchiveReader(io.BytesIO(raw))
        replay = Replay(storage, reader.contents.genesis, reader.contents.light, pin, keep_history=True)
        for given in reader.blocks():
            if given.block.height > replay.height and (upto is None or given.block.height <= upto):
                replay.add(given)
        if upto is None:
            replay.finish()
        return replay.height, replay.app.app_hash, list(storage.state_items())
    finally:
        storage.close()


@pytest.mark.parametrize("after", [0, 1])
def test_a_history_with_misbehaviour_leads_to_the_same_state_again(
    world: SignedHistory, blocks: list[GivenBlock], tmp_path: Path, after: int
) -> None:
    # Given blocks of which one accuses a validator, and validators that changed several times
    last = len(blocks)
    assert any(each.block.misbehaviour for each in blocks)
    assert len({light.header.validators_hash for light in world.lights}) > 3
    light = world.lights[last - 1 + after]
    raw = archive(world.app.genesis, light, blocks)
    # when they are run, and ended in the middle once
    assert run(tmp_path, raw, last // 2)[0] == last // 2
    height, app_hash, items = run(tmp_path, raw, pin=TrustPin(3, world.lights[2].hash))
    # then state, blocks and headers are those of the node
    node = world.mirror.node.storage
    assert (height, app_hash, items) == (last, world.app.app_hash, list(node.state_items()))
    storage = LedgerStorage(tmp_path)
    storage.open()
    try:
        for each in range(1, last + 1):
            assert storage.block(each) == node.block(each)
            assert storage.light(each) == node.light(each)
        assert storage.last_light() == light.encode()
    finally:
        storage.close()


def block(given: GivenBlock, **changes: object) -> GivenBlock:
    changed = replace(given.block, **changes)  # type: ignore[arg-type]
    return given._replace(block=changed, raw=changed.encode())


def accused_at(blocks: Sequence[GivenBlock]) -> int:
    return next(index for index, each in enumerate(blocks) if each.block.misbehaviour)


def changed_at(world: SignedHistory) -> int:
    """Where others sign the next block."""
    return next(index for index, each in enumerate(world.lights) if row(each) == each.encode())


Changed = list[GivenBlock]
TAMPERED: dict[str, tuple[Callable[[SignedHistory, Changed], GivenBlock], str]] = {
    "misbehaviour left out": (
        lambda w, b: block(b[accused_at(b)], misbehaviour=()),
        "gave app hash",
    ),
    "misbehaviour made up": (
        lambda w, b: block(b[5], misbehaviour=(key("a"),)),
        "accuses validators, its header has no evidence",
    ),
    "another accused": (
        lambda w, b: block(b[accused_at(b)], misbehaviour=(key("operator"),)),
        "gave app hash",
    ),
    "another proposer": (lambda w, b: block(b[5], account=key("d")), "another proposer"),
    "another time": (lambda w, b: block(b[5], block_time_s=1), "not the time or the chain of its header"),
    "another ledger time": (lambda w, b: block(b[5], time=1), "another time or beacon than it led to"),
    "another beacon": (lambda w, b: block(b[5], beacon=bytes(32)), "another time or beacon than it led to"),
    "another app hash": (lambda w, b: block(b[5], app_hash=bytes(32)), "gave app hash"),
    "another chain": (lambda w, b: block(b[5], chain="other"), "not the time or the chain of its header"),
    "a signature": (lambda w, b: block(b[5], sig=bytes(64)), "none that validators decided"),
    "a transaction fewer": (
        lambda w, b: block(b[-2], txs=b[-2].block.txs[:1])._replace(txs=b[-2].txs[:1]),
        "not the transactions of its header",
    ),
    "another header": (
        lambda w, b: b[5]._replace(light=forged(w.lights[5], last_commit_hash=bytes(32))),
        "header 7 follows another header 6",
    ),
    "a header of others": (
        lambda w, b: b[5]._replace(light=forged(w.lights[5], validators_hash=bytes(32))),
        "is of other validators than header 5 named",
    ),
    "the last header": (
        lambda w, b: b[-1]._replace(light=forged(w.lights[len(b) - 1], last_results_hash=bytes(32))),
        "is not the one that was signed",
    ),
    "who hands over unsigned": (
        lambda w, b: b[changed_at(w)]._replace(light=forged_votes(w.lights[changed_at(w)])),
        "signed header",
    ),
    "no header": (lambda w, b: b[5]._replace(light=b"\x0a\x00"), "header 5 is not the one before 0"),
    "rubbish": (lambda w, b: b[5]._replace(light=b"\xff"), "this is no light block"),
}


def forged_votes(light: LightBlock) -> bytes:
    """Nobody voted."""
    votes = tuple(CommitSig(Flag.ABSENT) for _ in light.commit.signatures)
    return replace(light, commit=replace(light.commit, signatures=votes)).encode()


@pytest.mark.parametrize("what", TAMPERED)
def test_a_tampered_history_is_refused(
    world: SignedHistory, blocks: list[GivenBlock], half: tuple[int, Path], tmp_path: Path, what: str
) -> None:
    change, why = TAMPERED[what]
    made = change(world, blocks)
    if made.block.height > half[0]:  # what comes before is as it was
        shutil.copytree(half[1], tmp_path, dirs_exist_ok=True)
    changed = [made if each.block.height == made.block.height else each for each in blocks]
    with pytest.raises((InvalidArchive, StoreError), match=why):
        run(tmp_path, archive(world.app.genesis, world.lights[len(blocks) - 1], changed))


def test_a_tampered_head_is_refused(world: SignedHistory, blocks: list[GivenBlock], tmp_path: Path) -> None:
    genesis, light, last = world.app.genesis, world.lights[len(blocks) - 1], len(blocks)
    others = replace(genesis, validators=(replace(genesis.validators[0], power=2),))
    unsigned = LightBlock.decode(forged_votes(light))
    lately = world.lights[last]
    other = replace(lately, header=replace(lately.header, app_hash=bytes(32)))
    for raw, why in (
        (archive(genesis, None, [each._replace(light=b"") for each in blocks]), "nothing shows who signed"),
        (archive(genesis, light, blocks, light=None), "has another node where|is none|no snapshot"),
        (archive(replace(genesis, validators=()), light, blocks), "where no validator has to"),
        (archive(genesis, unsigned, blocks), "signed header"),
        (archive(genesis, world.lights[0], blocks), "signs no archive that ends at"),
        (archive(genesis, other, blocks), "signs another header"),
        (archive(others, light, blocks), "other validators than the genesis"),
        (archive(genesis, light, blocks)[:-200], "cut|ends|short"),
    ):
        with pytest.raises((InvalidArchive, MerkledagError), match=why):
            run(tmp_path / why[:9], raw)


def test_a_pinned_header_must_be_in_it(
    world: SignedHistory, blocks: list[GivenBlock], tmp_path: Path
) -> None:
    raw = archive(world.app.genesis, world.lights[len(blocks) - 1], blocks)
    for height in (1, 7, len(blocks)):
        with pytest.raises(InvalidArchive, match=f"header {height} is not the one that is trusted"):
            run(tmp_path / str(height), raw, pin=TrustPin(height, bytes(32)))
    # also where it was passed before the history was gone on with
    run(tmp_path / "half", raw, 7)
    with pytest.raises(InvalidArchive, match="header 3 is not the one that is trusted"):
        run(tmp_path / "half", raw, pin=TrustPin(3, bytes(32)))


async def test_a_server_hands_out_the_blocks_of_which_it_knows_who_signed(tmp_path: Path) -> None:
    setting = Setting(tmp_path, genesis(1_700_000_000))
    await setting.engine.start()
    for _ in range(3):
        await setting.node.block()
    async with served(setting.engine) as url, aiohttp.ClientSession() as session:
        http = Http(url, session)
        assert "after 0 is not known" in (await http.get("/v1/blocks", 404))["error"]
        setting.storage.keep_lights({1: b"header 1", 2: b"header 2"})
        assert (await http.get("/v1/status"))["signed_height"] == 2
        async with session.get(url + "/v1/blocks") as response:
            raw = await response.read()
        given = [setting.engine.history.given(height) for height in (1, 2)]
        assert [each.light for each in given] == [b"header 1", b"header 2"]
        assert raw == car.header([given[1].block.cid]) + b"".join(map(sections, given))
        assert "after 2 is not known" in (await http.get("/v1/blocks?from=3", 404))["error"]
        assert "after 2 is not known" in (await http.get("/v1/blocks?to=3", 404))["error"]
        await http.get("/v1/blocks?from=4", 400)
    await setting.close()
