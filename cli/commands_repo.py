"""`holdfast init` and `holdfast repo`: the node's folder and its block store."""

from __future__ import annotations

from typing import Annotated

import typer

from cli.commands_backup import backup, restore
from cli.commands_repo_fsck import fsck
from cli.commands_repo_gc import gc
from cli.commands_repo_store import compact, migrate, version
from cli.commands_repo_verify import verify
from cli.groups import new_app
from cli.home import NODE_KEY, Home
from cli.keystore import ED25519
from cli.options import JsonFlag
from cli.output import emit, text

app = new_app("The block store.")
app.command("backup")(backup)
app.command("restore")(restore)


def init(
    encrypt: Annotated[
        bool, typer.Option("--encrypt", help="Ask for a passphrase and seal the key with it.")
    ] = False,
    json_output: JsonFlag = False,
) -> None:
    """Make the folder, the node's key and the configuration; what exists stays as it is."""
    from cli.commands_key import new_passphrase

    home = Home.locate()
    keys = home.keystore()
    passphrase = None if keys.has(NODE_KEY) else new_passphrase(encrypt)
    made = [str(path) for path in home.create()]
    if made:
        home.open_meta()  # so that blocks without records, whoever put them, mean that the records were lost
    own = keys.create_once(NODE_KEY, ED25519, passphrase=passphrase)
    if own is not None:
        made.append(str(own.path))
    info = keys.info(NODE_KEY)
    if not home.config_file.exists():
        home.config.save()
        made.append(str(home.config_file))
    how = "sealed with a passphrase" if info.sealed else "not encrypted; file permissions protect it"
    if json_output:
        emit({"home": str(home.path), "key": info.public, "encrypted": info.sealed, "made": made})
        return
    text(f"{'made' if made else 'found'} {home.path}")
    text(f"{'found' if own is None else 'made'} the key {info.public} ({how})")


@app.command("stat")
def stat(
    size_only: Annotated[
        bool, typer.Option("--size-only", "-s", help="Only the store's size and quota.")
    ] = False,
    human: Annotated[bool, typer.Option("-H", "--human", help="Sizes for people alone: 1.5 GiB.")] = False,
    json_output: JsonFlag = False,
) -> None:
    """Print how much is stored, how much room there is, and how the store was kept; instant."""
    from cli.repo_report import kept_well, shown, sizes

    with Home.locate() as home:
        document = sizes(home)
        if size_only:
            document = {name: document[name] for name in ("block_bytes", "file_bytes", "max_bytes")}
        else:
            document |= kept_well(home)
    if json_output:
        return emit(document)
    for line in shown(document, human=human):
        text(line)
    return None


@app.command("ls")
def ls(json_output: JsonFlag = False) -> None:
    """List every block of the store as a raw CID; --json tells its size and class (own, cache, deal) too."""
    from merkledag.cid import CID
    from merkledag.codecs import RAW

    with Home.locate() as home:
        for multihash, row in home.open_store().rows() if home.exists() else ():
            cid = str(CID(1, RAW, multihash))
            if json_output:
                kept_as = None if row.is_damaged else row.block_class.name.lower()
                emit({"cid": cid, "size_bytes": None if row.is_damaged else row.length, "class": kept_as})
            else:
                text(cid)


app.command("gc")(gc)
app.command("verify")(verify)
app.command("fsck")(fsck)
app.command("compact")(compact)
app.command("migrate")(migrate)
app.command("version")(version)
