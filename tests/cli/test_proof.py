"""`holdfast proof`: out of a ledger and between two people; what is checked, told, and refused."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ledger.engine.evidence import Evidence
from ledger.transactions import Spot
from merkledag.cid import CID
from merkledag.peer import peer_text
from proofs import merkle_proof
from proofs.audit import AuditFile, Content
from proofs.commitment import EMPTY, PieceRow, PieceTree, commit_block
from proofs.kinds import ProofKind
from proofs.slot_tree import MemoryNodes, set_slot
from proofs.walk import DatasetView, TreeView
from storage_node.blockstore import lmdb_file
from tests.cli.conftest import Holdfast
from tests.storage_node.content import add_files, some_bytes
from tests.storage_node.network import Network, a_network
from tests.storage_node.test_network import a_client, stored

SEED = "5e" * 32
OTHER = "0f" * 32
Tree = Callable[..., Path]


@pytest.fixture
def content(holdfast: Holdfast, tree: Tree) -> str:
    rng = random.Random(1)
    return holdfast.add(tree({"a": rng.randbytes(90_000), "sub": {"b": rng.randbytes(3_000), "empty": b""}}))


class Friends:
    """One who has the content, and one who has its commitment alone."""

    def __init__(self, holdfast: Holdfast, monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
        self.holdfast = holdfast
        self.file = folder / "answer"
        self._elsewhere = folder / "elsewhere"
        self._monkeypatch = monkeypatch

    def verify(self, *options: object, code: int = 0) -> Any:
        """What the one without the content finds."""
        self._monkeypatch.setenv("HOLDFAST_HOME", str(self._elsewhere))
        found = self.holdfast("proof", "verify", self.file, "--json", *options, code=code)
        self._monkeypatch.setenv("HOLDFAST_HOME", str(self.holdfast.home))
        assert not self._elsewhere.exists(), "checking leaves nothing behind"
        return json.loads(found.stdout)


@pytest.fixture
def friends(holdfast: Holdfast, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Friends:
    return Friends(holdfast, monkeypatch, tmp_path)


def links(document: Any) -> dict[str, bool | None]:
    return {link["link"]: link["holds"] for link in document["links"]}


def test_a_friends_copy_is_audited_with_the_commitment_alone(
    holdfast: Holdfast, friends: Friends, content: str
) -> None:
    commitment = holdfast("proof", "commit", content).text
    asked = holdfast("proof", "challenge", content, "--json").json
    command = asked["make"].replace("answer.proof", str(friends.file)).split()
    assert command[0] == "holdfast"
    holdfast(*command[1:])
    found = friends.verify("--commitment", commitment, "--seed", asked["seed"])
    assert found["verified"] is True
    assert found["against"] == ["commitment", "seed"]
    assert set(links(found).values()) == {True}
    assert (found["cid"], found["k"]) == (content, 30)


def test_nothing_is_called_verified_that_hangs_on_nothing(
    holdfast: Holdfast, friends: Friends, content: str
) -> None:
    made = holdfast("proof", "make", content, "--seed", "random", "-o", friends.file, "--json").json
    assert len(bytes.fromhex(made["seed"])) == 32
    found = friends.verify(code=2)
    assert found["verified"] is False
    assert (links(found)["commitment"], links(found)["seed"]) == (None, None)
    assert friends.verify("--seed", made["seed"], code=2)["verified"] is False
    without_seed = friends.verify("--commitment", made["commitment"])
    assert (without_seed["verified"], links(without_seed)["seed"]) == (True, None)
    here = holdfast("proof", "verify", friends.file, "--commitment", content, "--json").json
    assert (here["verified"], here["against"]) == (True, ["content"])


def test_a_file_does_not_choose_what_it_is_held_against(
    holdfast: Holdfast, friends: Friends, content: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Who is asked for one content does not pass with another that is here, too; nor does such a file pass
    where a proof out of a ledger was expected, and nothing named.
    """
    (tmp_path / "other").write_bytes(b"everybody has this")
    other = holdfast.add(tmp_path / "other")
    holdfast("proof", "make", other, "--seed", SEED, "-o", friends.file)
    for options in ((), ("--seed", SEED)):
        found = holdfast("proof", "verify", friends.file, *options, "--json", code=2).json
        assert (found["verified"], links(found)["commitment"]) == (False, None)
    kept = ("--commitment", content, "--seed", SEED)
    refused = holdfast("proof", "verify", friends.file, *kept, "--json", code=4).json
    assert links(refused)["commitment"] is False
    holdfast("proof", "verify", friends.file, "--commitment", other, "--seed", SEED)
    monkeypatch.setenv("HOLDFAST_HOME", str(tmp_path / "elsewhere"))
    holdfast.fails(3, "proof", "verify", friends.file, "--commitment", other)


def test_an_answer_to_something_else_is_refused(holdfast: Holdfast, friends: Friends, content: str) -> None:
    commitment = holdfast("proof", "commit", content, "--json").json["commitment"]
    holdfast("proof", "make", content, "--seed", SEED, "-k", "5", "-o", friends.file)
    kept = ("--commitment", commitment, "--seed", SEED)
    assert links(friends.verify(*kept, code=4))["draw"] is False  # 30 were to be drawn
    assert friends.verify(*kept, "-k", "5")["verified"] is True
    assert links(friends.verify("--commitment", commitment, "--seed", OTHER, code=4))["seed"] is False
    assert links(friends.verify("--commitment", OTHER, "--seed", SEED, code=4))["commitment"] is False
    good = AuditFile.decode(friends.file.read_bytes())
    friends.file.write_bytes(replace(good, seed=bytes.fromhex(OTHER)).encode())
    assert links(friends.verify("--commitment", commitment, "-k", "5", code=4))["leaves"] is False


def test_every_byte_of_an_answer_counts(holdfast: Holdfast, friends: Friends, content: str) -> None:
    """Flipped, cut off or added: exit 4 and one line, or links of which one fails; never a traceback."""
    commitment = holdfast("proof", "commit", content).text
    holdfast("proof", "make", content, "--seed", SEED, "-k", "2", "-o", friends.file)
    raw = friends.file.read_bytes()
    rng = random.Random(2)
    options = ("--commitment", commitment, "--seed", SEED, "-k", "2")
    for at in rng.sample(range(len(raw)), 25):
        changed = bytearray(raw)
        changed[at] ^= 1 << rng.randrange(8)
        friends.file.write_bytes(changed)
        holdfast("proof", "verify", friends.file, *options, code=4)
    for hostile in (
        b"",
        raw[:-1],
        raw + b"\0",
        b"\xa0",
        b"\x9f" * 1_000,
        b"\x81" * 100_000,
        b"\xbb" + b"\xff" * 8,
    ):
        friends.file.write_bytes(hostile)
        holdfast.fails(4, "proof", "verify", friends.file, *options)
        holdfast.fails(4, "proof", "explain", friends.file, *options)
    for length in (0, 1, len(raw) // 2, len(raw) - 1):
        friends.file.write_bytes(raw[:length])
        assert "is cut short" in holdfast.fails(4, "proof", "verify", friends.file, *options)
    with friends.file.open("wb") as file:
        file.truncate(64 << 20)
    assert "at most" in holdfast.fails(4, "proof", "verify", friends.file, *options)


def test_wrong_arguments_say_what_is_right(holdfast: Holdfast, friends: Friends, content: str) -> None:
    file = friends.file
    holdfast("proof", "make", content, "--seed", SEED, "-o", file)
    assert "exists" in holdfast.fails(4, "proof", "make", content, "--seed", SEED, "-o", file)
    holdfast.fails(2, "proof", "make", content, "-o", file)
    holdfast.fails(2, "proof", "make", content, "--seed", "12", "-o", file)
    holdfast.fails(2, "proof", "make", content, "--seed", SEED, "-k", "0", "-o", file)
    holdfast.fails(2, "proof", "make", "nonsense", "--seed", SEED, "-o", file)
    holdfast.fails(2, "proof", "make", "shard", content, "64", "-o", file)
    holdfast.fails(2, "proof", "make", "dataset", SEED, "--seed", SEED, "-o", file)
    holdfast.fails(2, "proof", "make", "dataset", "12", "-o", file)
    holdfast.fails(2, "proof", "make", "something", "else", "-o", file)
    assert "shard DEAL N" in holdfast.fails(2, "proof", "make", "shard", "-o", file)
    holdfast.fails(2, "proof", "verify", file, "--operator", "k51")
    holdfast.fails(2, "proof", "verify", file, "--app-hash", SEED)
    holdfast.fails(2, "proof", "verify", file, "--commitment", "12")
    for option in (
        "--commitment",
        "--seed",
        "--operator",
        "--app-hash",
    ):  # a shell's variable that is not set
        holdfast.fails(2, "proof", "verify", file, "--commitment", content, option, "")
    holdfast.fails(2, "proof", "verify", file, "--commitment", content, "-k", "0")
    holdfast.fails(2, "proof", "verify", file, "--commitment", content, "-k", "-5")
    holdfast.fails(3, "proof", "verify", file.parent / "absent")
    for command in (("proof", "verify"), ("proof", "explain"), ("ledger", "verify"), ("block", "put")):
        assert "directory" in holdfast.fails(4, *command, file.parent)
    absent = CID.of(b"absent")
    holdfast.fails(3, "proof", "make", absent, "--seed", SEED, "-o", file)
    holdfast.fails(3, "proof", "commit", absent)
    holdfast.fails(5, "proof", "make", "dataset", SEED, "-o", file)
    holdfast.fails(5, "proof", "make", "dataset", SEED, "-o", file, "--ledger", "http://127.0.0.1:9")


def test_the_drawn_bytes_are_those_of_the_files(
    holdfast: Holdfast, friends: Friends, content: str, tmp_path: Path
) -> None:
    holdfast("proof", "make", content, "--seed", SEED, "-k", "20", "-o", friends.file)
    found = holdfast("proof", "explain", friends.file, "-k", "20", "--json").json
    file = AuditFile.decode(friends.file.read_bytes())
    shown = file.verify()
    assert len(found["leaves"]) == len(shown) == 20 + 2
    for leaf, unit in zip(found["leaves"], shown, strict=True):
        assert leaf["local"] == "same"
        assert leaf["to"] - leaf["from"] == len(unit.data)
        if leaf["tree"] == "data":
            path = tmp_path / "tree" / leaf["path"].partition("/")[2]
            assert path.read_bytes()[leaf["file_from"] : leaf["file_to"]] == unit.data
        else:
            assert leaf["what"] == "folder"
    said = holdfast("proof", "explain", friends.file, "-k", "20").text
    assert "file /a bytes" in said
    assert "22 the same as here" in said


def test_without_the_content_it_says_what_it_cannot_tell(
    holdfast: Holdfast, friends: Friends, content: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    holdfast("proof", "make", content, "--seed", SEED, "-o", friends.file)
    commitment = holdfast("proof", "commit", content).text
    monkeypatch.setenv("HOLDFAST_HOME", str(tmp_path / "elsewhere"))
    found = holdfast("proof", "explain", friends.file, "--commitment", commitment, "--json").json
    assert {leaf["local"] for leaf in found["leaves"]} == {"absent"}
    assert {leaf["path"] for leaf in found["leaves"]} == {None}
    assert any("cannot be had" in line for line in found["untold"])


@pytest.mark.parametrize("name", [b"j", b"\x12\x20" + bytes(31), b"\xff" * 139])
def test_a_block_that_has_no_cid_is_told_all_the_same(
    holdfast: Holdfast, tmp_path: Path, name: bytes
) -> None:
    """Whoever makes a piece up may name its blocks by any bytes."""
    data = bytes(3_000)
    made = commit_block(data)
    piece = PieceTree([PieceRow(name, made.leaves, made.root)])
    content = Content(CID.of(b"x"), ProofKind.MERKLE, piece.root, EMPTY)
    one, none = (TreeView(MemoryNodes(), lambda _: piece) for _ in range(2))
    set_slot(one.nodes, 0, 0, piece.root)
    challenge = content.challenge(bytes(32), 3)
    proof = merkle_proof.prove(
        challenge, DatasetView(one, none), lambda _, at, n: data[at : at + n], lambda _: None
    )
    file = tmp_path / "made-up"
    file.write_bytes(AuditFile(content, bytes(32), 3, proof).encode())
    told = holdfast("proof", "explain", file, "--json").json
    assert {leaf["block"] for leaf in told["leaves"]} == {f"0x{name.hex()}"}


def test_other_bytes_here_are_told(holdfast: Holdfast, friends: Friends, content: str) -> None:
    """A proof holds, and the local copy is not what it showed: damage on this disk."""
    from cli.home import Home

    holdfast("proof", "make", content, "--seed", SEED, "-k", "512", "-o", friends.file)
    commitment = holdfast("proof", "commit", content).text
    unit = AuditFile.decode(friends.file.read_bytes()).verify()[0]
    with Home(holdfast.home, {}) as home:
        found = home.open_store().find(unit.multihash)
        assert found is not None
        with found as view:
            at = bytes(view)
    data = next(path for path in (holdfast.home / "blocks").glob("shard-*.mdb") if at in path.read_bytes())
    raw = bytearray(data.read_bytes())
    raw[raw.index(at)] ^= 1
    data.write_bytes(raw)
    said = holdfast("proof", "explain", friends.file, "--commitment", commitment, "-k", "512", code=4)
    assert "1 OTHER than here" in said.text


def test_a_copy_is_audited_by_kzg(holdfast: Holdfast, friends: Friends, tmp_path: Path) -> None:
    (tmp_path / "small").write_bytes(b"kept" * 500)
    content = holdfast.add(tmp_path / "small")
    committed = holdfast("proof", "commit", content, "--proof", "kzg")
    commitment = committed.text
    assert f"holdfast proof challenge {content} --proof kzg" in committed.stderr
    assert commitment != holdfast("proof", "commit", content).text
    asked = holdfast("proof", "challenge", content, "--proof", "kzg", "--json").json["make"]
    made = asked.replace("answer.proof", str(tmp_path / "asked")).split()
    assert holdfast(*made[1:], "--json").json["commitment"] == commitment
    holdfast("proof", "make", content, "--proof", "kzg", "--seed", SEED, "-o", friends.file)
    found = friends.verify("--commitment", commitment, "--seed", SEED)
    assert (found["verified"], found["proof"]) == (True, "kzg")
    assert friends.verify("--commitment", commitment, "--seed", OTHER, code=4)["verified"] is False
    told = holdfast("proof", "explain", friends.file, "--json").json
    [leaf] = told["leaves"]
    assert (leaf["file_from"], leaf["file_to"], leaf["local"]) == (0, 2_000, "same")
    holdfast.fails(2, "proof", "commit", content, "--proof", "other")


# Out of a ledger.


@pytest.fixture
async def network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Network]:
    monkeypatch.setattr(lmdb_file, "MAP_BYTES", 1 << 28)
    async with a_network(tmp_path) as made:
        yield made


async def test_a_proof_of_the_ledger_is_checked_and_explained_elsewhere(
    network: Network, holdfast: Holdfast, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    await network.add_providers(4)
    client = await a_client(network)
    big = some_bytes(150_000)
    content = add_files(client.store, {"a": big, "b": b"tiny"})
    deal = await stored(network, client, content, periods=12)
    await network.steps_until(lambda: len(network.seen("proof_accepted")) >= 3, "the proofs of a period")
    await client.sender.send(Spot(deal, 1))
    await network.steps_until(lambda: bool(network.seen("spot_answered")), "the answer")
    url = network.ledger.url
    operator = peer_text((await client.ledger.status())["operator"])

    def look() -> None:
        at = ("--ledger", url)
        for what, name in (("period", "shard"), ("spot", "spot")):
            file = tmp_path / what
            made = holdfast("proof", "make", name, deal, 1, "-o", file, "--json", *at).json
            assert made["what"] == what
            Evidence.decode(file.read_bytes())
            found = holdfast("proof", "verify", file, "--operator", operator, "--json").json
            assert (found["verified"], found["against"]) == (True, ["operator"])
            assert {name: holds for name, holds in links(found).items() if not holds} == {"chain": None}
            chain = "--chain", found["chain_id"]
            same = holdfast("proof", "verify", file, "--operator", operator, *chain, "--json").json
            assert (same["verified"], same["against"]) == (True, ["operator", "chain"])
            assert not holdfast("proof", "verify", file, *chain, "--json", code=2).json["verified"]
            wrong = holdfast("proof", "verify", file, "--operator", operator, "--chain", "city", code=4)
            assert "the chain ought to be city" in wrong.text
            both = holdfast("proof", "verify", file, "--app-hash", found["app_hash"], *at, "--json").json
            assert set(links(both).values()) == {True}
            assert both["against"] == ["app-hash", "ledger"]
            assert holdfast("proof", "verify", file, code=2).text
            stranger = holdfast("proof", "verify", file, "--operator", found["node"], code=4)
            assert "FAILS        operator" in stranger.text
            told = holdfast("proof", "explain", file, "--json", *at).json
            assert told["untold"] == []
            for leaf in told["leaves"]:
                assert leaf["row"] is not None
                if leaf["path"] == f"{content}/a" and leaf["tree"] == "data":
                    shown = big[leaf["file_from"] : leaf["file_to"]]
                    assert len(shown) == leaf["to"] - leaf["from"]
            assert holdfast("proof", "explain", file, "--json").json["untold"]
        holdfast.fails(3, "proof", "make", "shard", deal, 1, "--period", 1, "-o", tmp_path / "x", *at)
        holdfast.fails(3, "proof", "make", "spot", deal, 0, "-o", tmp_path / "x", *at)
        holdfast.fails(3, "proof", "make", "shard", deal, 63, "-o", tmp_path / "x", *at)
        holdfast.fails(3, "proof", "make", "dataset", OTHER, "-o", tmp_path / "x", *at)

    await asyncio.to_thread(look)
