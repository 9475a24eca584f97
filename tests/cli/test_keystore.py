"""Keys at rest: sealed or private to their owner, never overwritten, and exchanged with other programs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cli import keyfiles
from cli.keystore import ED25519, Keystore
from cli.output import CommandError
from merkledag.ed25519 import Ed25519Signer
from merkledag.peer import parse_peer
from tests.cli.conftest import Holdfast

SEED = bytes(range(32))


@pytest.fixture
def phrase(tmp_path: Path) -> Path:
    path = tmp_path / "phrase"
    path.write_text("correct horse\nsecond line\n")
    return path


def test_without_a_passphrase_the_file_is_private_and_says_so(tmp_path: Path) -> None:
    store = Keystore(tmp_path / "keys", {})
    info = store.create("self", ED25519, SEED)
    assert info.path.stat().st_mode & 0o777 == 0o600
    assert info.path.parent.stat().st_mode & 0o777 == 0o700
    assert "not encrypted" in info.sentence()
    assert store.seed("self") == SEED
    assert parse_peer(info.public) == Ed25519Signer.from_seed(SEED).public_key
    assert [f.name for f in info.path.parent.iterdir()] == ["self.key"]


def test_with_a_passphrase_the_seed_is_sealed(tmp_path: Path, phrase: Path) -> None:
    environ = {"HOLDFAST_PASSPHRASE_FILE": str(phrase)}
    info = Keystore(tmp_path / "keys", environ).create("self", ED25519, SEED)
    assert SEED.hex() not in info.path.read_text()
    assert "passphrase" in info.sentence()
    assert Keystore(tmp_path / "keys", environ).seed("self") == SEED
    phrase.write_text("wrong\n")
    with pytest.raises(CommandError, match="passphrase is wrong"):
        Keystore(tmp_path / "keys", environ).seed("self")


def test_a_sealed_seed_cannot_be_moved_under_another_public_key(tmp_path: Path, phrase: Path) -> None:
    store = Keystore(tmp_path / "keys", {"HOLDFAST_PASSPHRASE_FILE": str(phrase)})
    other = store.create("other", ED25519, bytes(32))
    mine = store.create("self", ED25519, SEED)
    document = json.loads(mine.path.read_text())
    document["public"] = other.public
    mine.path.write_text(json.dumps(document))
    with pytest.raises(CommandError, match="damaged"):
        store.seed("self")


def test_a_key_is_never_overwritten(tmp_path: Path) -> None:
    store = Keystore(tmp_path / "keys", {})
    store.create("self", ED25519, SEED)
    with pytest.raises(CommandError, match="exists already"):
        store.create("self", ED25519)
    assert store.seed("self") == SEED
    assert len(list((tmp_path / "keys").iterdir())) == 1


def test_whoever_comes_second_finds_the_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two commands make the same home at once: the key appears after the second one looked for it."""
    store = Keystore(tmp_path / "keys", {})
    made = store.create_once("self", ED25519)
    assert made is not None
    answers = iter([False, True])
    monkeypatch.setattr(store, "has", lambda name: next(answers))
    assert store.create_once("self", ED25519) is None
    assert store.info("self") == made


@pytest.mark.parametrize(
    "change",
    [
        {"format": "holdfast-key-2"},
        {"kind": "rsa"},
        {"seed": "00"},
        {"seed": "zz" * 32},
        {"seed": 5},
        {"sealed": {"kdf": "scrypt", "cipher": "chacha20-poly1305", "n": 1 << 40, "r": 8, "p": 1}},
        {"sealed": {"kdf": "scrypt", "cipher": "chacha20-poly1305", "n": True, "r": 8, "p": 1}},
        {"sealed": {"kdf": "md5"}},
        {"sealed": []},
    ],
)
def test_a_damaged_file_is_refused(tmp_path: Path, phrase: Path, change: dict[str, object]) -> None:
    store = Keystore(tmp_path / "keys", {})
    path = store.create("self", ED25519, SEED).path
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(CommandError) as caught:
        Keystore(tmp_path / "keys", {"HOLDFAST_PASSPHRASE_FILE": str(phrase)}).seed("self")
    assert caught.value.code == 4


@pytest.mark.parametrize("name", ["", "../x", "a/b", ".hidden", "x" * 65, "a\0b", "ä"])
def test_names_that_are_no_file_names_are_refused(holdfast: Holdfast, name: str) -> None:
    holdfast.fails(2, "key", "gen", name)


def test_gen_ls_show(holdfast: Holdfast) -> None:
    made = holdfast("key", "gen", "alice").text
    assert made.startswith("k51")
    shown = holdfast("key", "show", "alice", "--json").json
    assert shown["public"] == made
    assert shown["encrypted"] is False
    assert parse_peer(shown["peer_id"]) == parse_peer(made)
    assert shown["peer_id"].startswith("12D3Koo")
    assert [row["name"] for row in holdfast("key", "ls", "--json").json] == ["alice"]
    assert "alice" in holdfast("key", "ls").text
    assert holdfast("key", "list", "-l").text == holdfast("key", "ls").text
    assert "no key is called bob" in holdfast.fails(3, "key", "show", "bob")
    holdfast.fails(4, "key", "gen", "alice")
    holdfast.fails(2, "key", "gen", "x", "--type", "rsa")


@pytest.mark.parametrize("form", keyfiles.FORMATS)
def test_export_and_import_in_every_format(holdfast: Holdfast, tmp_path: Path, form: str) -> None:
    public = holdfast("key", "gen", "alice").text
    target = tmp_path / "out.key"
    holdfast("key", "export", "alice", "--format", form, "-o", target)
    assert target.stat().st_mode & 0o777 == 0o600
    assert holdfast("key", "import", "copy", target).text == public
    holdfast.fails(4, "key", "export", "alice", "-o", target)
    data = holdfast("key", "export", "alice", "--format", form, "-o", "-").stdout
    assert holdfast("key", "import", "again", "-", stdin=data).text == public


def test_the_libp2p_form_is_that_of_other_programs() -> None:
    """The private key of the libp2p specification's peer ID test vectors."""
    data = bytes.fromhex(
        "080112407e0830617c4a7de83925dfb2694556b12936c477a0e1feb2e148ec9da60fee7d"
        "1ed1e8fae2c4a144b8be8fd4b47bf3d3b34b871c3cacf6010f0e42d474fce27e"
    )
    seed = keyfiles.decode(data)
    assert keyfiles.encode(seed, keyfiles.LIBP2P, ed25519=True) == data


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"x",
        b"\x08\x01\x12\x40" + bytes(64),
        b"-----BEGIN PRIVATE KEY-----\nAAAA\n",
        b"zz" * 32,
        bytes(20000),
    ],
)
def test_files_that_are_no_keys_are_invalid_data(holdfast: Holdfast, data: bytes) -> None:
    holdfast.fails(4, "key", "import", "x", "-", stdin=data)


def test_an_encrypted_key_needs_its_passphrase(
    holdfast: Holdfast, phrase: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOLDFAST_PASSPHRASE_FILE", str(phrase))
    assert holdfast("key", "gen", "alice", "--json").json["encrypted"] is True
    assert holdfast("key", "export", "alice", "-o", "-").stdout
    monkeypatch.delenv("HOLDFAST_PASSPHRASE_FILE")
    assert "HOLDFAST_PASSPHRASE_FILE" in holdfast.fails(4, "key", "export", "alice", "-o", "-")
    monkeypatch.setenv("HOLDFAST_PASSPHRASE_FILE", str(phrase.with_name("absent")))
    holdfast.fails(2, "key", "gen", "bob")
    phrase.write_text("\n")
    monkeypatch.setenv("HOLDFAST_PASSPHRASE_FILE", str(phrase))
    holdfast.fails(2, "key", "gen", "bob")
