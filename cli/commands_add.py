"""`holdfast add`: files, folders, standard input and tar archives into the store."""

from __future__ import annotations

import os
import stat
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from cli import adding_options as flags
from cli.home import Home
from cli.options import JsonFlag
from cli.output import emit, meter, note, printable, size_text, text, usage
from cli.streams import STDIO

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

    from cli.importing import Added, Importer, ImportOptions
    from cli.importing_ignore import Selection
    from merkledag.block import Block
    from merkledag.unixfs import Mtime

LONG_S = 5.0  # what takes longer ends with a summary
MAX_NANOSECONDS = 10**9 - 1


def add(
    paths: flags.Paths = None,
    quieter: flags.Quieter = False,
    quiet: flags.Quiet = False,
    silent: flags.Silent = False,
    progress: flags.Progress = True,
    only_hash: flags.OnlyHash = False,
    wrap: flags.Wrap = False,
    pin: flags.Pin = True,
    name: flags.Name = "",
    tar: flags.Tar = None,
    stdin_name: flags.StdinName = "",
    hidden: flags.Hidden = False,
    ignore: flags.Ignore = None,
    ignore_rules_path: flags.IgnoreRulesPath = None,
    use_ignore_files: flags.UseIgnoreFiles = False,
    empty_dirs: flags.EmptyDirs = True,
    dereference_args: flags.DereferenceArgs = False,
    dereference_symlinks: flags.DereferenceSymlinks = False,
    preserve_mode: flags.PreserveMode = False,
    preserve_mtime: flags.PreserveMtime = False,
    mode: flags.Mode = None,
    mtime: flags.Mtime = None,
    mtime_nsecs: flags.MtimeNsecs = None,
    profile: flags.Profile = None,
    cid_version: flags.CidVersion = None,
    hash_name: flags.HashName = None,
    raw_leaves: flags.RawLeaves = None,
    chunker: flags.Chunker = None,
    layout: flags.Layout = None,
    trickle: flags.Trickle = False,
    max_links: flags.MaxLinks = None,
    max_directory_links: flags.MaxDirectoryLinks = None,
    hamt_fanout: flags.HamtFanout = None,
    hamt_threshold: flags.HamtThreshold = None,
    hamt_estimate: flags.HamtEstimate = None,
    inline: flags.Inline = False,
    inline_limit: flags.InlineLimit = None,
    recursive: flags.Recursive = True,
    json_output: JsonFlag = False,
) -> None:
    """Import files, folders, standard input (-) or a tar archive, durably, and pin them."""
    from cli.importing import ImportOptions
    from cli.profile_options import ProfileOptions, import_profile

    inputs = _inputs(paths or [], tar, use_ignore_files=use_ignore_files)
    if name and (only_hash or not pin):
        raise usage("--name is for the pin: leave out " + ("--only-hash" if only_hash else "--no-pin"))
    given = _mode(mode), _mtime(mtime, mtime_nsecs)
    metadata = preserve_mode or preserve_mtime or given != (None, None)
    home = Home.locate()
    selection = _selection(ignore or [], ignore_rules_path, hidden=hidden, use_files=use_ignore_files)
    shape = ProfileOptions(
        cid_version=cid_version, hash_name=hash_name, raw_leaves=raw_leaves, metadata=metadata,
        chunker=chunker, layout=_layout(layout, trickle=trickle), max_links=max_links,
        max_directory_links=max_directory_links, hamt_fanout=hamt_fanout, hamt_threshold=hamt_threshold,
        hamt_estimate=hamt_estimate, inline=inline, inline_limit=inline_limit,
    )  # fmt: skip
    options = ImportOptions(
        import_profile(home.config.text("import.profile", profile), shape), wrap=wrap, selection=selection,
        preserve_mode=preserve_mode, preserve_mtime=preserve_mtime, mode=given[0], mtime=given[1],
        empty_folders=empty_dirs, follow_arguments=dereference_args, follow_all=dereference_symlinks,
        stdin_name=stdin_name,
    )  # fmt: skip
    printing = Printing(json_output=json_output, quiet=quiet, roots_only=quieter, silent=silent)
    _run(home, options, inputs, printing, pin_name=name if pin else None, only_hash=only_hash, bar=progress)


class _Inputs(NamedTuple):
    """What to import: paths (`-` is standard input), or one archive."""

    paths: list[str]
    tar: str | None = None

    @contextmanager
    def blocks(self, importer: Importer, stdin_name: str) -> Iterator[Generator[Block, None, None]]:
        """The blocks of it. A missing path is found before anything is stored."""
        if self.tar is None:
            for path in self.paths:
                if path != STDIO:
                    Path(path).lstat()
            yield importer.blocks(self.paths)
        elif self.tar == STDIO:
            yield importer.archive_blocks(sys.stdin.buffer, stdin_name)
        else:
            from cli.importing_tar import folder_name

            with open(self.tar, "rb") as archive:  # noqa: PTH123 (a str of any path)
                yield importer.archive_blocks(archive, folder_name(self.tar))


def _run(
    home: Home,
    options: ImportOptions,
    inputs: _Inputs,
    printing: Printing,
    *,
    pin_name: str | None,
    only_hash: bool,
    bar: bool,
) -> None:
    from cli.adding import expect_in_background, take
    from cli.importing import Importer

    progress = meter("hashed" if only_hash else "added", None, wanted=bar)
    importer = Importer(options, on_added=printing.entry, meter=progress)
    if bar and inputs.tar is None and sys.stderr.isatty():
        expect_in_background(progress, options, inputs.paths)
    began_s = time.monotonic()
    try:
        with inputs.blocks(importer, options.stdin_name) as blocks:
            stored = take(home, importer, blocks, pin_name=pin_name, only_hash=only_hash)
    finally:
        progress.finish()
    printing.roots(importer.roots)
    took_s = time.monotonic() - began_s
    if took_s >= LONG_S and not printing.short:
        rate = size_text(stored.all_bytes / took_s)
        here = f", {size_text(stored.here_bytes)} of it here already" if stored.here_bytes else ""
        note(f"{size_text(stored.all_bytes)} in {took_s:.0f} s ({rate}/s){here}")


def _inputs(paths: list[str], tar: str | None, *, use_ignore_files: bool) -> _Inputs:
    """What was named; without that, standard input if it is a pipe or a file."""
    if tar is not None:
        if paths:
            raise usage("--tar takes one archive and no further PATH")
        if use_ignore_files:
            raise usage("--use-ignore-files is for folders: an archive's files come in any order")
        return _Inputs([], tar)
    if not paths:
        if not _stdin_has_data():
            raise usage("name a PATH to add, or - for standard input")
        return _Inputs([STDIO])
    if paths.count(STDIO) > 1:
        raise usage("standard input (-) can be added only once")
    return _Inputs(paths)


def _stdin_has_data() -> bool:
    """Whether somebody sends standard input here: not a terminal, and not /dev/null as daemons have it."""
    try:
        kind = os.fstat(sys.stdin.fileno()).st_mode
    except (AttributeError, OSError):  # closed
        return False
    return stat.S_ISFIFO(kind) or stat.S_ISREG(kind) or stat.S_ISSOCK(kind)


def _layout(layout: str | None, *, trickle: bool) -> str | None:
    if trickle and layout not in (None, "trickle"):
        raise usage(f"--trickle does not go with --layout {layout}")
    return "trickle" if trickle else layout


def _mode(text_mode: str | None) -> int | None:
    """`0644`, `0o644` or 420; 0 is none, as in kubo."""
    if text_mode is None:
        return None
    try:
        old_octal = text_mode[:1] == "0" and text_mode.isdecimal()
        value = int(text_mode, 8 if old_octal else 0)
    except ValueError:
        raise usage(f"--mode {text_mode}: write it as 0644") from None
    if not 0 <= value <= 0o7777:
        raise usage(f"--mode {text_mode}: 0 to 07777 are possible")
    return value or None


def _mtime(seconds: int | None, nanoseconds: int | None) -> Mtime | None:
    """A time, exact to the nanosecond; 0 seconds are none, as in kubo."""
    if not seconds:
        if nanoseconds:
            raise usage("--mtime-nsecs needs --mtime")
        return None
    if not 0 <= (nanoseconds or 0) <= MAX_NANOSECONDS or not -(2**63) <= seconds < 2**63:
        raise usage(f"--mtime has 64 bits and --mtime-nsecs is 0 to {MAX_NANOSECONDS}")
    from merkledag.unixfs import Mtime

    return Mtime(seconds, nanoseconds or 0)


def _selection(rules: list[str], path: str | None, *, hidden: bool, use_files: bool) -> Selection:
    from cli.importing_ignore import Selection, rules_of

    lines = rules_of(path) if path is not None else []
    return Selection(hidden=hidden, lines=[*lines, *rules], use_files=use_files)


class Printing:
    """Prints entries as they are done, and the roots behind what they stand for: stored and pinned."""

    def __init__(self, *, json_output: bool, quiet: bool, roots_only: bool, silent: bool) -> None:
        self._json = json_output
        self._quiet = quiet or roots_only
        self._roots_only = roots_only
        self._silent = silent

    @property
    def short(self) -> bool:
        """Whether no more is wanted than what was asked for."""
        return self._quiet or self._silent

    def entry(self, added: Added) -> None:
        """An entry that is no root."""
        if not self._roots_only:
            self._print(added)

    def roots(self, roots: list[Added]) -> None:
        """The roots, the last one alone if no more was asked for."""
        for root in roots[-1:] if self._roots_only else roots:
            self._print(root)

    def _print(self, added: Added) -> None:
        if self._silent:
            return
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
