"""The ways of `holdfast get`: into files and folders, into an archive, or down a pipe."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from cli.archiving import write_file, write_tar
from cli.exporting import (
    Exported,
    check_room,
    check_root,
    export,
    make_folder_of,
    refuse_existing,
)
from cli.output import Meter, invalid, meter, raw
from cli.part import Part, full_disk, put_in_place
from cli.streams import STDIO
from merkledag.reader import stat as stat_node
from merkledag.steps import Buffer

if TYPE_CHECKING:
    from cli.reading import Reader
    from merkledag.cid import CID
    from merkledag.reader import NodeStat

BUFFER_BYTES: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Form:
    """What is written: a tree, or with `archive` a TAR of it; gzipped at `level` unless that is 0."""

    archive: bool = False
    level: int = 0

    @property
    def is_stream(self) -> bool:
        """Whether the result is one stream of bytes, not a tree."""
        return self.archive or self.level > 0

    def named(self, output: str) -> str:
        """`output` with the endings that such an archive has, as kubo names it."""
        if self.archive and not output.endswith((".tar", ".tar.gz", ".tgz")):
            output += ".tar"
        if self.level and not output.endswith((".gz", ".tgz")):
            output += ".gz"
        return output


def get_content(
    reader: Reader, cid: CID, name: str, output: str, form: Form, *, force: bool, progress: bool
) -> tuple[Exported, str]:
    """Writes `cid`, called `name`, to `output` (its name, `-` for stdout); returns what, and where it is.

    A file goes into an `output` that ends with a slash. A folder that is to be compressed becomes an archive.
    Raises what `cli.exporting.export` raises.
    """
    node = reader.run(stat_node(cid))
    check_root(cid, node)
    if output.endswith("/") and node.kind != "directory":
        output += name
    if node.kind == "directory" and form.is_stream:
        form = Form(True, form.level)
    bar = meter("wrote", node.size_bytes, wanted=progress)
    try:
        if output == STDIO:
            return _stream(reader, node, name, Form(True, form.level), raw, bar), output
        if not form.is_stream:
            return export(reader, cid, Path(output), force=force, meter=bar), output
        output = form.named(output)
        return _to_file(reader, node, name, Path(output), form, force=force, bar=bar), output
    finally:
        bar.finish()


def _to_file(
    reader: Reader, node: NodeStat, name: str, target: Path, form: Form, *, force: bool, bar: Meter
) -> Exported:
    """Into a file that appears when it is whole; an interruption leaves nothing."""
    target = Path(os.path.abspath(target))  # noqa: PTH100 (must not follow a symlink)
    refuse_existing(target, force)
    if target.is_dir() and not target.is_symlink():
        raise invalid(f"{target} is a folder: name a new file with -o")
    make_folder_of(target)
    if node.kind != "directory" and not form.level:
        check_room(target, node.size_bytes)
    part = Part(target, f"{node.cid} {form}")
    done = Exported()
    try:
        with part.content.open("wb", buffering=BUFFER_BYTES) as file:
            done = _stream(reader, node, name, form, file.write, bar)
        put_in_place(part.content, target)
    except OSError as error:
        raise full_disk(target, error) or error from None
    finally:
        part.discard()
    return done


def _stream(
    reader: Reader, node: NodeStat, name: str, form: Form, write: Callable[[Buffer], object], bar: Meter
) -> Exported:
    with ExitStack() as stack:
        finish = None
        if form.level:
            from cli.gzipping import GzipWriter

            packer = GzipWriter(write, form.level)
            stack.callback(packer.abandon)
            write, finish = packer.write, packer.finish
        if form.archive:
            done = write_tar(reader, node.cid, name, write, bar)
        else:
            done = write_file(reader, node.cid, write, bar)
        if finish is not None:
            finish()
    return done
