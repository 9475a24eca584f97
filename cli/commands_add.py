"""`holdfast add`: files, folders and standard input into the store."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.home import Home
from cli.options import JsonFlag
from cli.output import emit, meter, printable, text, usage

if TYPE_CHECKING:
    from cli.importing import Added, ImportOptions

Paths = Annotated[list[str], typer.Argument(metavar="PATH…", help="Files, folders, or - for stdin.")]


def add(
    paths: Paths,
    quieter: Annotated[bool, typer.Option("-Q", "--quieter", help="Print the root CID alone.")] = False,
    quiet: Annotated[bool, typer.Option("-q", "--quiet", help="Print CIDs alone.")] = False,
    only_hash: Annotated[bool, typer.Option("-n", "--only-hash", help="Hash only; store nothing.")] = False,
    wrap: Annotated[bool, typer.Option("-w", "--wrap", help="Put everything into one folder.")] = False,
    hidden: Annotated[bool, typer.Option("--hidden", "-H", help="Take hidden files of folders too.")] = False,
    pin: Annotated[bool, typer.Option("--pin/--no-pin", help="Keep it from being collected.")] = True,
    name: Annotated[str, typer.Option("--name", help="Name of the pin.")] = "",
    profile: Annotated[
        str | None, typer.Option("--profile", help="unixfs-v1-2025 or unixfs-v0-2015.")
    ] = None,
    cid_version: Annotated[int | None, typer.Option("--cid-version", help="0 or 1.")] = None,
    chunker: Annotated[str | None, typer.Option("--chunker", "-s", help="size-N, N in bytes.")] = None,
    raw_leaves: Annotated[
        bool | None, typer.Option("--raw-leaves/--no-raw-leaves", help="File chunks as raw blocks.")
    ] = None,
    layout: Annotated[str | None, typer.Option("--layout", help="balanced.")] = None,
    max_links: Annotated[
        int | None, typer.Option("--max-links", help="Links a file's node has at most.")
    ] = None,
    hash_name: Annotated[str | None, typer.Option("--hash", help="sha2-256, sha2-512 or blake3.")] = None,
    inline: Annotated[bool, typer.Option("--inline", help="Keep small blocks inside CIDs.")] = False,
    inline_limit: Annotated[int | None, typer.Option("--inline-limit", help="Largest such block.")] = None,
    preserve_mode: Annotated[bool, typer.Option("--preserve-mode", help="Store permissions.")] = False,
    preserve_mtime: Annotated[
        bool, typer.Option("--preserve-mtime", help="Store modification times.")
    ] = False,
    recursive: Annotated[bool, typer.Option("-r", "--recursive", hidden=True)] = True,
    json_output: JsonFlag = False,
) -> None:
    """Import files, folders or standard input (-), durably, and pin them."""
    from cli.importing import ImportOptions
    from cli.profile_options import import_profile

    if paths.count("-") > 1:
        raise usage("standard input (-) can be added only once")
    home = Home.locate()
    options = ImportOptions(
        import_profile(
            home.config.text("import.profile", profile),
            cid_version=cid_version,
            chunker=chunker,
            raw_leaves=raw_leaves,
            layout=layout,
            max_links=max_links,
            hash_name=hash_name,
            inline=inline,
            inline_limit=inline_limit,
            metadata=preserve_mode or preserve_mtime,
        ),
        hidden=hidden,
        wrap=wrap,
        preserve_mode=preserve_mode,
        preserve_mtime=preserve_mtime,
    )
    printer = _AddPrinter(json_output=json_output, quiet=quiet or quieter, roots_only=quieter)
    _import(home, options, paths, printer, pin_name=name if pin else None, only_hash=only_hash)


def _import(
    home: Home,
    options: ImportOptions,
    paths: list[str],
    printer: _AddPrinter,
    *,
    pin_name: str | None,
    only_hash: bool,
) -> None:
    from cli.adding import store_pinned
    from cli.importing import Importer, total_bytes

    for path in paths:
        if path != "-":
            Path(path).lstat()  # a missing path is found before anything is stored
    total = total_bytes(paths, hidden=options.hidden) if sys.stderr.isatty() else None
    bar = meter("hashed" if only_hash else "added", total)
    importer = Importer(options, on_added=printer.entry, meter=bar)
    try:
        if only_hash:
            for _ in importer.blocks(paths):
                pass
        else:
            with home:
                store_pinned(home, importer, paths, pin_name=pin_name)
    finally:
        bar.finish()
    printer.finish(importer.roots)


class _AddPrinter:
    """Prints entries as they are done, and the roots behind what they stand for: stored and pinned."""

    def __init__(self, *, json_output: bool, quiet: bool, roots_only: bool) -> None:
        self._json = json_output
        self._quiet = quiet
        self._roots_only = roots_only

    def entry(self, added: Added) -> None:
        if not self._roots_only and "/" in added.name:
            self._print(added)

    def finish(self, roots: list[Added]) -> None:
        for root in roots[-1:] if self._roots_only else roots:
            self._print(root)

    def _print(self, added: Added) -> None:
        if self._json:
            emit(
                {
                    "name": added.name,
                    "cid": str(added.cid),
                    "kind": added.kind,
                    "size_bytes": added.size_bytes,
                    "tsize": added.tsize,
                }
            )
        elif self._quiet:
            text(str(added.cid))
        else:
            text(f"added {added.cid} {printable(added.name)}".rstrip())
