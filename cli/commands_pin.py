"""`holdfast pin`: what garbage collection leaves alone."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from itertools import islice
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.commands_pin_jobs import (
    BackgroundFlag,
    FromOption,
    TimeoutOption,
    background_job,
    jobs,
    source_urls,
    timeout_seconds,
)
from cli.commands_pin_verify import verify
from cli.groups import new_app
from cli.home import Home
from cli.options import JsonFlag, ProgressFlag
from cli.output import count_text, emit, not_found, printable, text, usage
from cli.pinned import document_of_pin, say_pinned
from cli.sources import cid_at, cids_at

if TYPE_CHECKING:
    from merkledag.cid import CID

app = new_app("Pins: what garbage collection leaves alone.")
app.command("jobs")(jobs)
app.command("verify")(verify)

TYPES = ("all", "recursive", "direct", "indirect")
PINS_PER_WRITE = 8192
Paths = Annotated[
    list[str], typer.Argument(metavar="PATH…", help="Content paths or CIDs; - reads them, one a line.")
]
RecursiveFlag = Annotated[
    bool, typer.Option("--recursive/--direct", help="The whole DAG, or its root block alone.")
]
NameOption = Annotated[str, typer.Option("-n", "--name", help="A name, for people.")]
NamedOption = Annotated[str, typer.Option("--name", help="Those of exactly this name.")]
MetaOption = Annotated[
    list[str] | None, typer.Option("--meta", metavar="KEY=VALUE", help="Anything else to note; repeatable.")
]


def _metadata(pairs: list[str] | None) -> dict[str, str]:
    found: dict[str, str] = {}
    for pair in pairs or ():
        key, equals, value = pair.partition("=")
        if not equals or not key or key in found:
            raise usage(f"--meta {pair}: write KEY=VALUE, each key once")
        found[key] = value
    return found


@app.command("add")
def add(
    paths: Paths,
    recursive: RecursiveFlag = True,
    name: NameOption = "",
    meta: MetaOption = None,
    sources: FromOption = None,
    timeout: TimeoutOption = "",
    background: BackgroundFlag = False,
    fetch: Annotated[
        bool, typer.Option("--fetch/--no-fetch", help="Fetch missing blocks, if somebody is known to ask.")
    ] = True,
    progress: ProgressFlag = True,
    json_output: JsonFlag = False,
) -> None:
    """Pin content; what is missing is fetched from --from, the ledger's nodes or the routers' providers."""
    from cli.pinned import pin_what_is_whole
    from storage_node.pin_jobs import PinJob
    from storage_node.pins import PinMode

    urls, timeout_s, metadata = source_urls(sources), timeout_seconds(timeout), _metadata(meta)
    mode = PinMode.RECURSIVE if recursive else PinMode.DIRECT
    with Home.locate() as home:
        wanted = cids_at(home, paths)
        while group := list(islice(wanted, PINS_PER_WRITE)):
            while group:
                made, lacking = pin_what_is_whole(home, group, mode, name, metadata)
                for pin in made:
                    say_pinned(pin, json_output=json_output)
                if lacking is None:
                    break
                job = PinJob(0, group[len(made)], mode, name, metadata, tuple(urls), timeout_s, background)
                _fetched(home, job, lacking, fetch=fetch, progress=progress, json_output=json_output)
                group = group[len(made) + 1 :]


def _fetched(
    home: Home, job: Any, lacking: list[CID], *, fetch: bool, progress: bool, json_output: bool
) -> None:
    """Fetches what is missing and says what was pinned; exit 3 when there is nobody to ask."""
    from cli.pinned_fetch import has_peers, record_job, run_job

    lacks = f"{job.cid} cannot be pinned: it lacks {count_text(len(lacking), 'block')} here"
    if not fetch:
        raise not_found(f"{lacks}, for example {lacking[0]}")
    if not job.background and not has_peers(home, list(job.sources)):
        raise not_found(f"{lacks}, for example {lacking[0]}; `--from URL` fetches from a gateway or node")
    recorded = record_job(home, job)
    if job.background:
        background_job(home, recorded, json_output=json_output)
        return
    say_pinned(run_job(home, recorded.number, progress=progress), json_output=json_output)


@app.command("rm")
def rm(
    paths: Paths,
    recursive: Annotated[
        bool | None, typer.Option("-r", "--recursive/--direct", help="Only if it is pinned so.")
    ] = None,
    json_output: JsonFlag = False,
) -> None:
    """Remove pins, all or none; the blocks go with the next `repo gc`."""
    with Home.locate() as home:
        cids = dict.fromkeys(cids_at(home, paths))
        removed = home.freeing(lambda: home.open_pins().rm_many(cids, recursive))
        for pin in removed:
            if json_output:
                emit(document_of_pin(pin))
            else:
                text(f"unpinned {pin.cid}")


@app.command("ls")
def ls(
    paths: Annotated[list[str] | None, typer.Argument(metavar="[PATH…]", help="Only these.")] = None,
    kind: Annotated[str, typer.Option("--type", "-t", help=", ".join(TYPES))] = "",
    name: NamedOption = "",
    after: Annotated[str, typer.Option("--after", metavar="CID", help="Go on behind this one.")] = "",
    limit: Annotated[int, typer.Option("--limit", help="At most so many; 0 is all.")] = 0,
    quiet: Annotated[bool, typer.Option("-q", "--quiet", help="Print CIDs alone.")] = False,
    names: Annotated[
        bool, typer.Option("-n", "--names", hidden=True, help="As it is anyway; kubo has it.")
    ] = False,
    stream: Annotated[
        bool, typer.Option("-s", "--stream", hidden=True, help="As it is anyway; kubo has it.")
    ] = False,
    json_output: JsonFlag = False,
) -> None:
    """List pins, one a line, by their CIDs; without --type the recursive and direct ones."""
    if kind and kind not in TYPES:
        raise usage(f"{kind!r} is no type of pin: choose one of {', '.join(TYPES)}")
    if limit < 0:
        raise usage("--limit cannot be negative")
    if (after or limit) and (paths or kind in {"all", "indirect"}):
        raise usage("--after and --limit page through recursive and direct pins alone")
    with Home.locate() as home:
        if not home.exists() and not paths:
            return
        rows = _named(home, paths, kind) if paths else _all(home, kind, name, after)
        for row in islice(rows, min(limit, sys.maxsize) or None):
            if json_output:
                emit(row)
            elif quiet:
                text(row["cid"])
            else:
                text(f"{row['cid']} {row['mode']} {printable(row['name'])}".rstrip())


def _all(home: Home, kind: str, name: str, after: str) -> Iterator[dict[str, Any]]:
    from cli.arguments import cid_argument
    from storage_node.pins import PinMode

    pins = home.open_pins()
    if kind != "indirect":
        mode = PinMode(kind) if kind in {"recursive", "direct"} else None
        for pin in pins.ls(mode, name or None, cid_argument(after) if after else None):
            yield document_of_pin(pin)
    if kind in {"all", "indirect"} and not name:
        yield from _indirect(home)


def _indirect(home: Home) -> Iterator[dict[str, Any]]:
    """What hangs below recursive pins and has no pin of its own, each CID once."""
    from storage_node.fingerprints import FingerprintSet
    from storage_node.pins import PinMode
    from storage_node.reach import reachable

    pins = home.open_pins()
    seen = FingerprintSet()
    roots = (pin.cid for pin in pins.ls(PinMode.RECURSIVE))
    for cid in reachable(home.open_store(), roots, lambda _: None):
        if seen.add(bytes(cid.to_v1())) and pins.get(cid) is None:
            yield _indirect_document(cid, "")


def _indirect_document(cid: CID, name: str) -> dict[str, Any]:
    return {"cid": str(cid), "mode": "indirect", "name": name, "metadata": {}, "created_s": None}


def _named(home: Home, paths: list[str], kind: str) -> Iterator[dict[str, Any]]:
    from cli.pinned import needed_by

    pins = home.open_pins()
    for cid in cids_at(home, paths):
        pin = pins.get(cid)
        if pin is not None and kind in {"", "all", str(pin.mode)}:
            yield document_of_pin(pin)
            continue
        holders = needed_by(home, [cid]) if kind in {"", "all", "indirect"} else iter(())
        through = next((each for _, each in holders if each.cid.multihash != cid.multihash), None)
        if through is None:
            raise not_found(f"{cid} is not pinned" + (f" as {kind}" if kind not in {"", "all"} else ""))
        yield _indirect_document(cid, f"through {through.cid}")


@app.command("update")
def update(
    old: Annotated[str, typer.Argument(help="What is pinned now.")],
    new: Annotated[str, typer.Argument(help="What shall be pinned.")],
    unpin: Annotated[bool, typer.Option("--unpin/--no-unpin", help="Remove the old pin.")] = True,
    sources: FromOption = None,
    timeout: TimeoutOption = "",
    background: BackgroundFlag = False,
    progress: ProgressFlag = True,
    json_output: JsonFlag = False,
) -> None:
    """Move a recursive pin with its name from one content to another; only what differs is looked at."""
    from cli.pinned import move_what_is_whole
    from storage_node.pin_jobs import PinJob

    urls, timeout_s = source_urls(sources), timeout_seconds(timeout)
    with Home.locate() as home:
        before, after = cid_at(home, old), cid_at(home, new)
        pin, lacking = move_what_is_whole(home, before, after, unpin=unpin)
        if pin is not None:
            return say_pinned(pin, json_output=json_output)
        job = PinJob(
            0,
            after,
            sources=tuple(urls),
            timeout_s=timeout_s,
            background=background,
            replaces=before,
            unpin=unpin,
        )
        return _fetched(home, job, lacking, fetch=True, progress=progress, json_output=json_output)
