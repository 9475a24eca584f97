"""`holdfast pin`: what garbage collection leaves alone."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.arguments import path_argument
from cli.groups import new_app
from cli.home import Home
from cli.options import JsonFlag
from cli.output import ExitCode, count_text, emit, not_found, printable, text, usage

if TYPE_CHECKING:
    from merkledag.cid import CID
    from storage_node.pins import Pin

app = new_app("Pins: what garbage collection leaves alone.")

TYPES = ("all", "recursive", "direct", "indirect")
Paths = Annotated[list[str], typer.Argument(metavar="PATH…", help="Content paths or CIDs.")]
RecursiveFlag = Annotated[
    bool, typer.Option("--recursive/--direct", help="The whole DAG, or its root block alone.")
]
NameOption = Annotated[str, typer.Option("--name", help="A name, for people.")]


def _cid(home: Home, path: str) -> CID:
    """The CID at a path; a bare CID need not be here."""
    parsed = path_argument(path)
    if parsed.namespace == "ipfs" and not parsed.segments:
        return parsed.cid
    from cli.sources import content_source, unixfs_node

    return unixfs_node(home, content_source(home), parsed)


def _document(pin: Pin) -> dict[str, Any]:
    return {"cid": str(pin.cid), "mode": str(pin.mode), "name": pin.name, "created_s": pin.created_s}


@app.command("add")
def add(
    paths: Paths, recursive: RecursiveFlag = True, name: NameOption = "", json_output: JsonFlag = False
) -> None:
    """Pin content whose blocks are all here."""
    from cli.pinned import pin_complete

    with Home.locate() as home:
        for cid in [_cid(home, path) for path in paths]:
            pin = pin_complete(home, cid, recursive=recursive, name=name)
            if json_output:
                emit(_document(pin))
            else:
                text(f"pinned {pin.cid} {pin.mode}")


@app.command("rm")
def rm(paths: Paths, json_output: JsonFlag = False) -> None:
    """Remove pins; the blocks go with the next `repo gc`."""
    with Home.locate() as home:
        pins = home.open_pins()
        cids = [_cid(home, path) for path in paths]
        for cid in cids:
            if pins.get(cid) is None:
                raise not_found(f"{cid} is not pinned; nothing was changed")
        for cid in cids:
            pin = pins.rm(cid)
            if json_output:
                emit(_document(pin))
            else:
                text(f"unpinned {pin.cid}")


@app.command("ls")
def ls(
    paths: Annotated[list[str] | None, typer.Argument(metavar="[PATH…]", help="Only these.")] = None,
    kind: Annotated[str, typer.Option("--type", "-t", help=", ".join(TYPES))] = "",
    name: NameOption = "",
    quiet: Annotated[bool, typer.Option("-q", "--quiet", help="Print CIDs alone.")] = False,
    names: Annotated[
        bool, typer.Option("-n", "--names", hidden=True, help="As it is anyway; kubo has it.")
    ] = False,
    json_output: JsonFlag = False,
) -> None:
    """List pins, one a line; without --type the recursive and direct ones."""
    if kind and kind not in TYPES:
        raise usage(f"{kind!r} is no type of pin: choose one of {', '.join(TYPES)}")
    with Home.locate() as home:
        if not home.exists() and not paths:
            return
        rows = _named(home, paths, kind) if paths else _all(home, kind, name)
        for row in rows:
            if json_output:
                emit(row)
            elif quiet:
                text(row["cid"])
            else:
                text(f"{row['cid']} {row['mode']} {printable(row['name'])}".rstrip())


def _all(home: Home, kind: str, name: str) -> Iterator[dict[str, Any]]:
    from storage_node.pins import PinMode

    pins = home.open_pins()
    direct: set[bytes] = set()
    if kind != "indirect":
        mode = PinMode(kind) if kind in {"recursive", "direct"} else None
        for pin in pins.ls(mode, name or None):
            direct.add(bytes(pin.cid.to_v1()))
            yield _document(pin)
    if kind in {"all", "indirect"} and not name:
        yield from _indirect(home, direct or {bytes(pin.cid.to_v1()) for pin in pins.ls()})


def _indirect(home: Home, pinned: set[bytes]) -> Iterator[dict[str, Any]]:
    """What hangs below recursive pins and has no pin of its own, each CID once."""
    from storage_node.fingerprints import FingerprintSet
    from storage_node.pins import PinMode
    from storage_node.reach import reachable

    seen = FingerprintSet()
    roots = (pin.cid for pin in home.open_pins().ls(PinMode.RECURSIVE))
    for cid in reachable(home.open_store(), roots, lambda _: None):
        key = bytes(cid.to_v1())
        if key not in pinned and seen.add(key):
            yield {"cid": str(cid), "mode": "indirect", "name": "", "created_s": None}


def _named(home: Home, paths: list[str], kind: str) -> Iterator[dict[str, Any]]:
    from cli.pinned import needed_by

    pins = home.open_pins()
    for path in paths:
        cid = _cid(home, path)
        pin = pins.get(cid)
        if pin is not None and kind in {"", "all", str(pin.mode)}:
            yield _document(pin)
            continue
        holders = needed_by(home, [cid]) if kind in {"", "all", "indirect"} else iter(())
        through = next((each for _, each in holders if each.cid.multihash != cid.multihash), None)
        if through is None:
            raise not_found(f"{cid} is not pinned" + (f" as {kind}" if kind not in {"", "all"} else ""))
        yield {"cid": str(cid), "mode": "indirect", "name": f"through {through.cid}", "created_s": None}


@app.command("verify")
def verify(json_output: JsonFlag = False) -> int:
    """Check that every block of every pin is here; exit 4 when some are not."""
    from cli.pinned import missing_of

    broken = 0
    with Home.locate() as home:
        for pin in home.open_pins().ls():
            missing = missing_of(home, pin)
            broken += bool(missing)
            if json_output:
                emit({"cid": str(pin.cid), "ok": not missing, "missing": [str(cid) for cid in missing]})
            elif missing:
                text(f"{pin.cid} lacks {count_text(len(missing), 'block')}, for example {missing[0]}")
    if not json_output and not broken:
        text("every pin is whole")
    return ExitCode.INVALID if broken else ExitCode.DONE


@app.command("update")
def update(
    old: Annotated[str, typer.Argument(help="What is pinned now.")],
    new: Annotated[str, typer.Argument(help="What shall be pinned; all of it must be here.")],
    unpin: Annotated[bool, typer.Option("--unpin/--no-unpin", help="Remove the old pin.")] = True,
    json_output: JsonFlag = False,
) -> None:
    """Move a recursive pin with its name from one content to another in one step."""
    from cli.pinned import require_complete

    with Home.locate() as home:
        before, after = _cid(home, old), _cid(home, new)
        with home.open_store().lease():
            require_complete(home, after, recursive=True)
            pin = home.open_pins().update(before, after, unpin=unpin)
    if json_output:
        emit(_document(pin))
    else:
        text(f"pinned {pin.cid} {pin.mode}")
