"""`holdfast pin verify`: whether everything that is pinned is here and undamaged."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.home import Home
from cli.options import JsonFlag
from cli.output import ExitCode, blocks_text, count_text, emit, meter, not_found, note, text, usage

if TYPE_CHECKING:
    from collections.abc import Iterator

    from storage_node.pin_verify import PinCheck
    from storage_node.pins import Pin


def verify(
    paths: Annotated[list[str] | None, typer.Argument(metavar="[PATH…]", help="Only these pins.")] = None,
    hashed: Annotated[
        bool, typer.Option("--hash", help="Read and hash every block, to find damaged ones too.")
    ] = False,
    quiet: Annotated[
        bool, typer.Option("-q", "--quiet", help="Print the CIDs of broken pins alone.")
    ] = False,
    verbose: Annotated[bool, typer.Option("--verbose", help="Print the pins that are whole too.")] = False,
    json_output: JsonFlag = False,
) -> int:
    """Check that every block of every pin is here (--hash: and is whole); exit 4 when some are not."""
    from storage_node.pin_verify import verify_pins
    from storage_node.scrub import Damaged

    if quiet and verbose:
        raise usage("--quiet does not go with --verbose")
    broken = checked = 0
    with Home.locate() as home:
        pins = _chosen(home, paths) if paths else home.open_pins().ls()
        bar = meter("looked at", None, as_text=blocks_text)
        for check in verify_pins(home.open_store(), pins, hashed=hashed, progress=bar.advance):
            checked += 1
            broken += not check.is_whole
            if json_output:
                if not (quiet and check.is_whole):
                    emit(_document(check, hashed=hashed))
            elif not check.is_whole:
                text(str(check.pin.cid) if quiet else _sentence(check))
            elif verbose:
                text(f"{check.pin.cid} is whole")
        bar.finish()
        known = 0 if hashed else Damaged(home.open_meta()).count()
    if known:
        note(f"{count_text(known, 'damaged block')} known: --hash says which pins have them")
    if not json_output and not quiet and not broken:
        text("every pin is whole" if not paths else f"{count_text(checked, 'pin')}: whole")
    return ExitCode.INVALID if broken else ExitCode.DONE


def _chosen(home: Home, paths: list[str]) -> Iterator[Pin]:
    from cli.sources import cids_at

    pins = home.open_pins()
    for cid in cids_at(home, paths):
        pin = pins.get(cid)
        if pin is None:
            raise not_found(f"{cid} is not pinned")
        yield pin


def _document(check: PinCheck, *, hashed: bool) -> dict[str, Any]:
    document: dict[str, Any] = {
        "cid": str(check.pin.cid),
        "ok": check.is_whole,
        "missing": [str(cid) for cid in check.missing],
    }
    if hashed or check.damaged:
        document["damaged"] = [str(cid) for cid in check.damaged]
    return document


def _sentence(check: PinCheck) -> str:
    parts = []
    if check.missing:
        parts.append(f"lacks {count_text(len(check.missing), 'block')}, for example {check.missing[0]}")
    if check.damaged:
        parts.append(f"has {count_text(len(check.damaged), 'damaged block')}, for example {check.damaged[0]}")
    return f"{check.pin.cid} {' and '.join(parts)}"
