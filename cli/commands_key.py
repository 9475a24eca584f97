"""`holdfast key`: making, showing, exporting and importing keys."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from cli import keyfiles
from cli.groups import new_app
from cli.home import BEACON_KEY, NODE_KEY, OPERATOR_KEY, Home
from cli.keystore import BLS12_381, ED25519, KINDS, KeyInfo, ask_passphrase
from cli.options import JsonFlag
from cli.output import CommandError, ExitCode, emit, invalid, note, raw, text, usage
from cli.streams import STDIO, read_input, require_yes

app = new_app("Keys: the node's own is called self.")

NameArgument = Annotated[str, typer.Argument(help="The key's name.")]
KindOption = Annotated[str, typer.Option("--type", help="ed25519 or bls12-381.")]
EncryptFlag = Annotated[
    bool, typer.Option("--encrypt", help="Ask for a passphrase and seal the key with it.")
]


def _kind(kind: str) -> str:
    if kind not in KINDS:
        raise usage(f"{kind!r} is no kind of key: choose one of {', '.join(KINDS)}")
    return kind


def new_passphrase(wanted: bool) -> bytes | None:
    """A passphrase typed twice if `wanted`, unless HOLDFAST_PASSPHRASE_FILE gives one to the keystore."""
    if not wanted or os.environ.get("HOLDFAST_PASSPHRASE_FILE"):
        return None  # the keystore takes it from the file
    if not sys.stdin.isatty():
        raise usage("--encrypt asks on a terminal; without one, use HOLDFAST_PASSPHRASE_FILE")
    return ask_passphrase("Passphrase: ", confirm=True)


def _describe(info: KeyInfo) -> dict[str, Any]:
    document = info.document()
    if info.kind == ED25519:
        from merkledag.base import encode_base58
        from merkledag.peer import parse_peer, peer_cid

        document["peer_id"] = encode_base58(peer_cid(parse_peer(info.public)).multihash)
    return document


def _made(info: KeyInfo, json_output: bool) -> None:
    note(info.sentence())
    if json_output:
        emit(_describe(info))
    else:
        text(info.public)


@app.command("gen")
def gen(
    name: NameArgument,
    kind: KindOption = ED25519,
    encrypt: EncryptFlag = False,
    json_output: JsonFlag = False,
) -> None:
    """Make a key and print its public half."""
    home = Home.locate()
    home.keystore().path(name)
    passphrase = new_passphrase(encrypt)
    home.ensure()
    _made(home.keystore().create(name, _kind(kind), passphrase=passphrase), json_output)


@app.command("ls")
@app.command("list", hidden=True)
def ls(
    long: Annotated[bool, typer.Option("-l", hidden=True, help="As it is anyway; kubo has it.")] = False,
    json_output: JsonFlag = False,
) -> int:
    """List the keys; exit 4 when the files of some are damaged."""
    store = Home.locate().keystore()
    infos: list[KeyInfo] = []
    code = ExitCode.DONE
    for name in store.names():
        try:
            infos.append(store.info(name))
        except CommandError as error:
            note(f"holdfast: {error}")
            code = error.code
    if json_output:
        emit([_describe(info) for info in infos])
        return code
    for info in infos:
        text(f"{info.public}  {info.name}  {info.kind}{'  encrypted' if info.sealed else ''}")
    return code


@app.command("show")
def show(
    name: Annotated[str, typer.Argument(help="The key's name.")] = NODE_KEY, json_output: JsonFlag = False
) -> None:
    """Print a key's public half in every form."""
    info = Home.locate().keystore().info(name)
    document = _describe(info)
    if json_output:
        return emit(document)
    for field, value in document.items():
        text(f"{field}: {str(value).lower() if isinstance(value, bool) else value}")
    return None


@app.command("rename")
def rename(
    old: Annotated[str, typer.Argument(help="What the key is called now.")],
    new: Annotated[str, typer.Argument(help="What it shall be called; no other key is replaced.")],
    json_output: JsonFlag = False,
) -> None:
    """Give a key another name; what it signs for stays the same."""
    home = Home.locate()
    _not_needed(old, "renamed")
    info = home.keystore().rename(old, new)
    if json_output:
        return emit({**_describe(info), "was": old})
    return text(f"{info.public}  {old} is called {new} now")


@app.command("rm")
def rm(
    names: Annotated[list[str], typer.Argument(metavar="NAME…", help="The keys' names.")],
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    json_output: JsonFlag = False,
) -> None:
    """Delete keys for good: without a copy (`key export`), names and money of theirs are lost."""
    home = Home.locate()
    store = home.keystore()
    infos = [store.info(name) for name in dict.fromkeys(names)]
    for info in infos:
        _not_needed(info.name, "deleted")
    _not_registered(home, [info for info in infos if info.kind == BLS12_381])
    if not yes:
        _confirm(infos)
    for info in infos:
        document = _describe(info)
        store.remove(info.name)
        note(f"deleted key {info.name}")
        if json_output:
            emit(document)
        else:
            text(info.public)


def _not_needed(name: str, done: str) -> None:
    """The keys that this program looks for by their name stay; exit 4."""
    if name in (NODE_KEY, BEACON_KEY, OPERATOR_KEY):
        raise invalid(f"key {name} is what this home is: it cannot be {done}")


def _not_registered(home: Home, infos: list[KeyInfo]) -> None:
    """A validator's BLS key that counts, or will, stays: without it its blocks would have no beacon.

    Exit 4; 5 where a home belongs to a ledger that does not answer, for then nobody knows.
    """
    from cli.ledger_files import genesis_file
    from cli.servers import ask_found_ledger, known_ledger

    if not infos or not (known_ledger(home) or genesis_file(home).exists()):
        return
    note(f"asking the ledger whether a validator signs with {', '.join(info.name for info in infos)}")
    views = ask_found_ledger("", lambda client: client.validators())
    for info in infos:
        key = bytes.fromhex(info.public)
        for each in (view.validator for view in views):
            if key in (each.bls_key, each.next_bls_key):
                when = "signs" if key == each.bls_key else "will sign"
                raise invalid(f"a validator {when} its beacons with key {info.name}: it cannot be deleted")


def _confirm(infos: list[KeyInfo]) -> None:
    """Asks on a terminal; exit 2 without one, 1 for any answer but yes."""
    listed = ", ".join(f"{info.name} ({info.public})" for info in infos)
    require_yes(
        f"Deletes for good: {listed}. `holdfast key export` makes a copy.\nDelete?",
        without_terminal="deleting a key asks on a terminal; without one, say --yes",
        declined="nothing was deleted",
    )


@app.command("export")
def export(
    name: NameArgument,
    output: Annotated[str, typer.Option("-o", "--output", help="A new file, or - for stdout.")] = "",
    form: Annotated[str, typer.Option("--format", help=", ".join(keyfiles.FORMATS))] = keyfiles.LIBP2P,
    json_output: JsonFlag = False,
) -> None:
    """Write a private key, unencrypted, to a new 0600 file (NAME.key unless -o names another)."""
    store = Home.locate().keystore()
    info = store.info(name)
    if form == keyfiles.LIBP2P and info.kind == BLS12_381:
        form = keyfiles.HEX
    data = keyfiles.encode(store.seed(name), form, ed25519=info.kind == ED25519)
    if output == STDIO:
        return raw(data)
    path = Path(output or f"{name}.key")
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    except FileExistsError:
        raise invalid(f"{path} exists: a key is never written over a file") from None
    with os.fdopen(handle, "wb") as file:
        file.write(data)
    note(f"wrote the private key {name} to {path}: whoever reads that file is {name}")
    if json_output:
        emit({"name": name, "path": str(path), "format": form})
    return None


@app.command("import")
def import_(
    name: NameArgument,
    file: Annotated[str, typer.Argument(help="The private key's file, or - for stdin.")],
    kind: KindOption = ED25519,
    encrypt: EncryptFlag = False,
    json_output: JsonFlag = False,
) -> None:
    """Take over a private key: libp2p protobuf, PEM (PKCS #8) or hex."""
    home = Home.locate()
    home.keystore().path(name)
    seed = keyfiles.decode(read_input(file, keyfiles.MAX_FILE_BYTES, "a key"))
    passphrase = new_passphrase(encrypt)
    home.ensure()
    _made(home.keystore().create(name, _kind(kind), seed, passphrase=passphrase), json_output)
