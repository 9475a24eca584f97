"""`holdfast car`: CAR archives in and out, every block verified on the way in."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from typing import TYPE_CHECKING, Annotated, Final

import typer

from cli import commands_car_commp, commands_car_files
from cli.arguments import path_argument
from cli.commands_car_files import IndexOption, NullPaddingFlag, VersionOption, index_kind
from cli.groups import new_app
from cli.home import Home
from cli.options import JsonFlag, NewFileOption
from cli.output import ExitCode, count_text, emit, not_found, note, size_text, text, usage
from cli.sources import content_source, unixfs_node
from cli.streams import STDIO, check_binary_stdout, is_stdout

if TYPE_CHECKING:
    from cli.car_input import CarInput
    from merkledag.block import Block
    from merkledag.cid import CID
    from merkledag.scope import EntityBytes
    from merkledag.traverse import Scope
    from storage_node.blockstore.interface import PutResult

app = new_app("CAR archives; - is standard input or output.")


@app.command("export")
def export(
    paths: Annotated[list[str], typer.Argument(metavar="PATH…", help="The roots: CIDs or content paths.")],
    output: NewFileOption = "",
    scope: Annotated[
        str, typer.Option("--scope", help="all, entity (a file, a folder's own blocks), block.")
    ] = "",
    entity_bytes: Annotated[
        str, typer.Option("--bytes", metavar="FROM:TO", help="The part of a file: 0:1023, -1024:*, 5:-2.")
    ] = "",
    dups: Annotated[bool, typer.Option("--dups/--no-dups", help="Blocks each time they occur.")] = False,
    version: VersionOption = 1,
    index: IndexOption = "",
    json_output: JsonFlag = False,
) -> None:
    """Write DAGs as a CAR, depth first, each block once."""
    from cli.car_export import Exporter, ExportRequest

    if is_stdout(output):
        check_binary_stdout("the CAR", json_output=json_output)
    kind = index_kind(version, index)
    part = _entity_bytes(entity_bytes, scope)
    wanted_scope = _scope(scope)
    with Home.locate() as home:
        source = content_source(home)
        roots = list(dict.fromkeys(unixfs_node(home, source, path_argument(path)) for path in paths))
        exporter = Exporter(home.open_store(), source, verify=home.hashes_reads())
        request = ExportRequest(roots, wanted_scope, part, dups, version, kind)
        done = exporter.write(request, output, progress=not is_stdout(output))
    if json_output:
        emit(
            {
                "root": str(roots[0]),
                "roots": [str(root) for root in roots],
                "path": output,
                "version": version,
                "blocks": done.blocks,
                "size_bytes": done.size_bytes,
            }
        )
    elif not is_stdout(output):
        note(f"wrote {count_text(done.blocks, 'block')}, {size_text(done.size_bytes)}, to {output}")


SCOPES: Final[dict[str, Scope]] = {"": "all", "all": "all", "entity": "entity", "block": "block"}


def _scope(name: str) -> Scope:
    scope = SCOPES.get(name)
    if scope is None:
        raise usage(f"--scope {name!r} is not known: use all, entity or block")
    return scope


def _entity_bytes(text_of: str, scope: str) -> EntityBytes | None:
    from merkledag.scope import parse_entity_bytes

    if not text_of:
        return None
    if scope not in ("", "entity"):
        raise usage("--bytes needs --scope entity")
    try:
        return parse_entity_bytes(text_of)
    except ValueError as error:
        raise usage(f"--bytes: {error}") from None


@app.command("import")
def import_(
    files: Annotated[
        list[str] | None, typer.Argument(metavar="[FILE…]", help="CAR files, URLs; - or none is stdin.")
    ] = None,
    pin: Annotated[
        bool, typer.Option("--pin-roots/--no-pin-roots", "--pin/--no-pin", help="Pin the roots.")
    ] = True,
    name: Annotated[str, typer.Option("--name", help="Name of the pins.")] = "",
    stats: Annotated[bool, typer.Option("--stats", help="Print how many blocks came.")] = False,
    allow_truncated: Annotated[
        bool, typer.Option("--allow-truncated", help="Keep the whole blocks of an archive that is cut off.")
    ] = False,
    null_padding: NullPaddingFlag = False,
    json_output: JsonFlag = False,
) -> None:
    """Store the blocks of CAR files, each verified, and pin their roots when all files are in."""
    from cli.car_input import ReadOptions, open_car
    from cli.car_opening import check_there

    options = ReadOptions(allow_truncated, null_padding)
    files = files or [STDIO]
    for file in files:  # a name that is wrong is told before hours of work
        check_there(file)
    with Home.locate() as home, home.open_store().lease():
        done: list[_Imported] = []
        for file in files:
            with open_car(file, options) as archive:
                done.append(_Imported(archive))
                done[-1].run(home)
        missing: dict[CID, str] = {}
        if pin:
            for root in dict.fromkeys(root for each in done for root in each.roots):
                _pin(home, root, name, missing)
        _report(done, pinned=pin, missing=missing, stats=stats, json_output=json_output)
        lost = [why for each in done if not each.truncated for r in each.roots if (why := missing.get(r))]
        if lost:
            raise not_found(lost[0])


class _Imported:
    """What came out of one archive."""

    def __init__(self, archive: CarInput) -> None:
        self._archive = archive
        self.file = archive.name
        self.blocks = self.block_bytes = 0
        self.result: PutResult | None = None

    def run(self, home: Home) -> None:
        """Stores every block; what was stored before an error stays."""
        with closing(self._archive.blocks("imported")) as blocks:
            try:
                self.result = home.open_store().put_many(self._counted(blocks))
            except KeyboardInterrupt:
                from cli.adding import KEPT

                note(KEPT)
                raise
        self._archive.drain()

    def _counted(self, blocks: Iterable[Block]) -> Iterator[tuple[bytes, bytes]]:
        for block in blocks:
            self.blocks += 1
            self.block_bytes += len(block.data)
            yield block.cid.multihash, block.data

    @property
    def roots(self) -> list[CID]:
        header = self._archive.header
        return list(dict.fromkeys(header.roots)) if header is not None else []

    @property
    def version(self) -> int:
        return self._archive.header.version if self._archive.header is not None else 0

    @property
    def truncated(self) -> str:
        return self._archive.truncated


def _pin(home: Home, root: CID, name: str, missing: dict[CID, str]) -> None:
    from cli.output import CommandError
    from cli.pinned import pin_complete

    try:
        pin_complete(home, root, recursive=True, name=name)
    except CommandError as error:
        if error.code is not ExitCode.NOT_FOUND:
            raise
        missing[root] = str(error)


def _report(
    done: list[_Imported], *, pinned: bool, missing: Mapping[CID, str], stats: bool, json_output: bool
) -> None:
    for each in done:
        assert each.result is not None
        if each.truncated:
            note(f"{each.file}: {each.truncated}; the {each.blocks} whole blocks before that are kept")
        kept = pinned and not any(root in missing for root in each.roots)
        if json_output:
            emit(
                {
                    "file": each.file,
                    "version": each.version,
                    "roots": [str(root) for root in each.roots],
                    "blocks": each.blocks,
                    "block_bytes": each.block_bytes,
                    "new_blocks": each.result.new,
                    "present_blocks": each.result.present,
                    "new_bytes": each.result.bytes,
                    "pinned": kept,
                    "incomplete_roots": [str(root) for root in each.roots if root in missing],
                    "truncated": bool(each.truncated),
                }
            )
            continue
        note(
            f"{each.file}: {count_text(each.result.new, 'new block')} ({size_text(each.result.bytes)}), "
            f"{each.result.present} here already"
        )
        if stats:
            text(f"imported {each.blocks} blocks ({each.block_bytes} bytes)")
        for root in each.roots:
            if root in missing and each.truncated:
                note(f"not pinned: {missing[root]}")
            elif root not in missing:
                text(f"{'pinned' if pinned else 'root'} {root}")


app.command("inspect")(commands_car_files.inspect)
app.command("verify")(commands_car_files.verify)
app.command("ls")(commands_car_files.ls)
app.command("list", hidden=True)(commands_car_files.ls)
app.command("root")(commands_car_files.root)
app.command("get-block")(commands_car_files.get_block)
app.command("filter")(commands_car_files.filter_)
app.command("index")(commands_car_files.index)
app.command("commp")(commands_car_commp.commp)
