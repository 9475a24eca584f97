"""`holdfast init` and `holdfast repo`: the node's folder and its block store."""

from __future__ import annotations

from typing import Annotated

import typer

from cli.commands_repo_gc import gc
from cli.groups import new_app
from cli.home import NODE_KEY, Home
from cli.keystore import ED25519
from cli.options import JsonFlag
from cli.output import ExitCode, count_text, emit, meter, note, size_text, text

app = new_app("The block store.")
app.command("gc")(gc)


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
def stat(json_output: JsonFlag = False) -> None:
    """Print how much is stored, and how much room there is."""
    with Home.locate() as home:
        store = home.open_store().stat()
        document = {
            "path": str(home.blocks),
            "blocks": store.blocks,
            "block_bytes": store.bytes,
            "cache_blocks": store.cache_blocks,
            "cache_bytes": store.cache_bytes,
            "file_bytes": store.file_bytes,
            "reusable_bytes": store.reusable_bytes,
            "disk_free_bytes": store.disk_free_bytes,
            "max_bytes": store.max_bytes,
            "reserve_bytes": store.reserve_bytes,
            "pins": home.open_pins().count(),
        }
    if json_output:
        return emit(document)
    for field, value in document.items():
        if isinstance(value, int) and field.endswith("_bytes"):
            text(f"{field}: {value} ({size_text(value)})")
        else:
            text(f"{field}: {'none' if value is None else value}")
    return None


@app.command("verify")
def verify(
    drop: Annotated[
        bool,
        typer.Option("--drop", help="Delete damaged blocks, so that they can be added or fetched again."),
    ] = False,
    json_output: JsonFlag = False,
) -> int:
    """Hash every stored block again; exit 4 when some are damaged."""
    from merkledag.cid import CID
    from merkledag.codecs import RAW
    from storage_node.blockstore.verify import verify as verify_store

    with Home.locate() as home:
        store = home.open_store()
        bar = meter("verified", store.stat().bytes)
        done = 0

        def progress(_blocks: int, size_bytes: int) -> None:
            nonlocal done
            bar.advance(size_bytes - done)
            done = size_bytes

        report = verify_store(store, progress=progress)
        bar.finish()
        dropped = len(store.delete_many(report.damaged).multihashes) if drop and report.damaged else 0
    damaged = [str(CID(1, RAW, multihash)) for multihash in report.damaged]
    if json_output:
        emit(
            {
                "blocks": report.blocks,
                "size_bytes": report.size_bytes,
                "damaged": damaged,
                "unverifiable": report.unverifiable,
                "dropped": dropped,
            }
        )
    else:
        count = count_text(report.blocks, "block")
        text(f"{count}, {size_text(report.size_bytes)}: {len(damaged) or 'none'} damaged")
    if damaged and not dropped:
        for cid in damaged[:10]:
            note(f"damaged: {cid}")
        note("holdfast: `repo verify --drop` deletes damaged blocks; then add or fetch the content again")
        return ExitCode.INVALID
    return ExitCode.DONE
