"""Folders get the same CIDs and archives read the same in other implementations of UnixFS and CAR."""

from __future__ import annotations

import functools
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from merkledag import dag_pb, unixfs
from merkledag.cid import CID
from merkledag.codecs import RAW
from merkledag.errors import HashMismatch
from merkledag.profile import PROFILES
from merkledag.resolve import resolve
from merkledag.steps import run
from merkledag.unixfs import Kind
from tests.peers import support, trees
from tests.peers.support import (
    Prepared,
    import_folder,
    read_car,
    tree_of_dag,
    tree_of_folder,
    tree_of_result,
)
from tests.peers.trees import CASES, HAMT_THRESHOLD_BYTES, MIB

pytestmark = pytest.mark.peers

ROOT = Path(__file__).resolve().parent.parent.parent


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An empty folder to fill and import."""
    path = tmp_path / "folder"
    path.mkdir()
    return path


@pytest.fixture(params=["js", "boxo"])
def peer(request: pytest.FixtureRequest) -> support.Peer:
    """Each other implementation in turn."""
    return support.find_peer(request.param)


@pytest.fixture
def boxo() -> support.Peer:
    """The library inside kubo, with go-car."""
    return support.find_peer("boxo")


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Prepared]:
    """Folders by the name of their case, written and imported once; nobody changes them."""
    return functools.cache(lambda name: support.prepare(CASES[name], tmp_path_factory.mktemp(name)))


# One process of a peer takes all cases together; what needs gigabytes goes alone.
BATCHES = [
    pytest.param(peer, names, id=f"{peer}-{label}", marks=marks)
    for peer in ("js", "boxo")
    for label, is_slow, marks in (("usual", False, []), ("slow", True, [pytest.mark.slow]))
    if (names := [n for n, case in CASES.items() if peer in case.peers and case.is_slow is is_slow])
]


def importing(profile: str, folder: Path, car: Path, **more: object) -> dict[str, Any]:
    """A job for a peer: make a folder into an archive."""
    return {
        "do": "import",
        "profile": profile,
        "folder": str(folder),
        "car": str(car),
        "car_version": 1,
    } | more


def exporting(car: Path) -> dict[str, Any]:
    """A job for a peer: say what is in an archive."""
    return {"do": "export", "car": str(car)}


@pytest.mark.parametrize(("peer_name", "cases"), BATCHES)
def test_a_folder_has_one_root_and_reads_back(
    peer_name: str, cases: list[str], prepared: Callable[[str], Prepared], tmp_path: Path
) -> None:
    peer = support.find_peer(peer_name)
    jobs: list[dict[str, Any]] = []
    todo = [(case, prepared(case), profile) for case in cases for profile in CASES[case].profiles]
    for case, ours, profile in todo:
        theirs = tmp_path / f"{case} {profile}.car"
        jobs += [importing(profile, ours.folder, theirs), exporting(ours.archives[profile])]
    results = iter(peer.run(jobs))
    for (case, ours, profile), imported, exported in zip(todo, results, results, strict=True):
        root, about = ours.roots[profile], f"{case}, {profile}, {peer_name}"
        assert imported == {"root": str(root)}, about
        assert (exported.get("error"), exported.get("root")) == (None, str(root)), about
        assert tree_of_result(exported) == ours.content, f"our archive, read by the peer: {about}"
        header, blocks = read_car(tmp_path / f"{case} {profile}.car")
        assert (header.version, header.roots) == (1, (root,)), about
        assert tree_of_dag(root, blocks) == ours.content, f"their archive, read by us: {about}"
        assert read_car(ours.archives[profile])[1].items() <= blocks.items(), about


@pytest.mark.parametrize("profile", PROFILES)
def test_permissions_and_times_read_back(
    profile: str, peer: support.Peer, folder: Path, tmp_path: Path
) -> None:
    trees.attributes(folder)
    import_folder(folder, profile, tmp_path / "ours.car", attributes=True)
    (result,) = peer.run([exporting(tmp_path / "ours.car")])
    assert support.attributes_of_result(result) == support.attributes_of_folder(folder)
    assert tree_of_result(result) == tree_of_folder(folder)


# The JavaScript importer gives none to the root, and leaves out 0644 and 0755: that is left open.
@pytest.mark.parametrize("profile", PROFILES)
def test_permissions_and_times_have_one_root(
    profile: str, boxo: support.Peer, folder: Path, tmp_path: Path
) -> None:
    """Not with the JavaScript importer, which leaves out the root's, 0644 and 0755: no rule forbids it."""
    trees.attributes(folder)
    root = import_folder(folder, profile, tmp_path / "ours.car", attributes=True)
    results = boxo.run([importing(profile, folder, tmp_path / "theirs.car", attributes=True)])
    assert results == [{"root": str(root)}]


def test_permissions_and_times_count_for_the_threshold(
    boxo: support.Peer, prepared: Callable[[str], Prepared], tmp_path: Path
) -> None:
    """What is a flat folder without attributes is a HAMT with them."""
    profile, folder = "unixfs-v1-2025", prepared("threshold_of_block").folder
    root = import_folder(folder, profile, tmp_path / "ours.car", attributes=True)
    results = boxo.run([importing(profile, folder, tmp_path / "theirs.car", attributes=True)])
    assert results == [{"root": str(root)}]
    blocks = read_car(tmp_path / "ours.car")[1]
    at = blocks[run(resolve(root, ("at",)), blocks.__getitem__).cid]
    assert unixfs.decode(dag_pb.payload(at) or b"").kind is Kind.HAMT


@pytest.mark.parametrize("profile", PROFILES)
def test_a_second_version_archive_is_read(
    profile: str, boxo: support.Peer, folder: Path, tmp_path: Path
) -> None:
    trees.random_tree(5)(folder)
    archive = tmp_path / "archive.car"
    (result,) = boxo.run([importing(profile, folder, archive, car_version=2)])
    header, blocks = read_car(archive)
    assert header.version == 2
    assert [str(root) for root in header.roots] == [result["root"]]
    assert tree_of_dag(header.roots[0], blocks) == tree_of_folder(folder)


@pytest.mark.parametrize("case", ["threshold_of_links", "threshold_of_block"])
def test_the_thresholds_are_met_exactly(case: str, prepared: Callable[[str], Prepared]) -> None:
    """The folders around the HAMT thresholds are where they claim to be: else agreeing means nothing."""
    ours = prepared(case)
    ((profile, root),) = ours.roots.items()
    by_links = PROFILES[profile].hamt_estimate == "links"
    _, blocks = read_car(ours.archives[profile])
    at, above = (blocks[run(resolve(root, (name,)), blocks.__getitem__).cid] for name in ("at", "above"))
    node = dag_pb.decode(at)
    assert unixfs.decode(node.data or b"").kind is Kind.DIRECTORY
    links_bytes = sum(len((link.name or "").encode()) + len(bytes(link.cid)) for link in node.links)
    assert (links_bytes if by_links else len(at)) == HAMT_THRESHOLD_BYTES
    assert unixfs.decode(dag_pb.payload(above) or b"").kind is Kind.HAMT


def test_an_archive_is_all_that_a_peer_has(peer: support.Peer, folder: Path, tmp_path: Path) -> None:
    """A block that is missing is an error: nobody fetches it from elsewhere."""
    (folder / "file").write_bytes(bytes(MIB) + b"second chunk")
    archive = tmp_path / "archive.car"
    root = import_folder(folder, "unixfs-v1-2025", archive)
    missing = CID.of(b"second chunk", RAW)
    section = bytes([len(bytes(missing)) + 12]) + bytes(missing) + b"second chunk"
    whole = archive.read_bytes()
    assert whole.endswith(section)
    archive.write_bytes(whole.removesuffix(section))
    (result,) = peer.run([exporting(archive)])
    assert result.keys() == {"error"}
    assert {"js": "NotFoundError", "boxo": "failed to fetch"}[peer.name] in result["error"]
    _, blocks = read_car(archive)
    with pytest.raises(KeyError):
        tree_of_dag(root, blocks)


def test_a_changed_byte_is_refused(boxo: support.Peer, folder: Path, tmp_path: Path) -> None:
    (folder / "file").write_text("content")
    archive = tmp_path / "archive.car"
    import_folder(folder, "unixfs-v1-2025", archive)
    whole = archive.read_bytes()
    assert whole.count(b"content") == 1
    archive.write_bytes(whole.replace(b"content", b"cOntent"))
    (result,) = boxo.run([exporting(archive)])
    assert "mismatch" in result["error"]
    with pytest.raises(HashMismatch):
        read_car(archive)


OFFLINE = """
import sys
from pathlib import Path

opened = []
sys.addaudithook(lambda event, _: opened.append(event) if event.startswith("socket.") else None)

from tests.peers.support import import_folder, read_car, tree_of_dag, tree_of_folder

folder, archive = map(Path, sys.argv[1:])
for profile in ("unixfs-v1-2025", "unixfs-v0-2015"):
    root = import_folder(folder, profile, archive)
    assert tree_of_dag(root, read_car(archive)[1]) == tree_of_folder(folder)
assert not opened, opened
parts = {"gateway", "storage_node", "ledger", "proofs", "aiohttp"}
loaded = {name for name in sys.modules if name.partition(".")[0] in parts}
assert loaded <= {"storage_node", "storage_node.sizes"}, loaded  # how sizes are written
"""


def test_content_needs_neither_gateway_nor_exchange(folder: Path, tmp_path: Path) -> None:
    """Importing, archiving and reading open no socket and load none of the parts that speak to a network."""
    trees.random_tree(6)(folder)
    done = subprocess.run(
        [sys.executable, "-c", OFFLINE, str(folder), str(tmp_path / "archive.car")],
        cwd=ROOT, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
