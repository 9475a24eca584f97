"""`holdfast car`: CAR archives in and out, every block verified on the way in."""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Generator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, BinaryIO, Final

import typer

from cli.arguments import path_argument
from cli.groups import new_app
from cli.home import Home
from cli.options import JsonFlag, PathArgument
from cli.output import emit, invalid, meter, note, raw, size_text, text, usage
from cli.sources import content_source, resolve_path

if TYPE_CHECKING:
    from merkledag.block import Block
    from merkledag.car import CarHeader

app = new_app("CAR archives; - is standard input.")

READ_BYTES: Final = 1 << 20
FileArgument = Annotated[str, typer.Argument(metavar="FILE", help="A CAR file, or - for stdin.")]


class CarReader:
    """The blocks of one CAR file, verified; `header` is known once the first block was asked for."""

    def __init__(self, file: str) -> None:
        self._file = file
        self.header: CarHeader | None = None

    def blocks(self) -> Generator[Block, None, None]:
        """Every block in file order.

        Errors name the file. Raises MerkledagError (exit 4) for damaged data.
        """
        from merkledag.car import CarDecoder, CarHeader
        from merkledag.errors import MerkledagError

        decoder = CarDecoder()
        with ExitStack() as stack:
            stream: BinaryIO = sys.stdin.buffer
            if self._file != "-":
                stream = stack.enter_context(Path(self._file).open("rb"))
                total = os.fstat(stream.fileno()).st_size
            else:
                total = 0
            bar = meter("read", total or None)
            stack.callback(bar.finish)
            try:
                while data := stream.read(READ_BYTES):
                    bar.advance(len(data))
                    decoder.feed(data)
                    while (item := decoder.next()) is not None:
                        if isinstance(item, CarHeader):
                            self.header = item
                        else:
                            yield item
                decoder.finish()
            except MerkledagError as error:
                raise invalid(f"{self._file}: {error}") from None
        if self.header is None:
            raise invalid(f"{self._file}: this is no CAR file: it has no header")


@app.command("export")
def export(
    path: PathArgument,
    output: Annotated[str, typer.Option("-o", "--output", help="A new file; stdout without it.")] = "",
    json_output: JsonFlag = False,
) -> None:
    """Write a whole DAG as a CARv1, depth first, each block once."""
    from merkledag import car
    from merkledag.steps import iterate
    from merkledag.traverse import walk_dag

    if not output and sys.stdout.isatty():
        raise usage("a CAR is binary: write it to a file with -o, or into a pipe")
    if json_output and not output:
        raise usage("--json needs -o FILE: without it the CAR itself goes to stdout")
    with Home.locate() as home:
        source = content_source(home)
        root = resolve_path(source, path_argument(path)).cid
        walk = iterate(walk_dag(root), source.get)
        first = next(walk)  # so that an absent root leaves no file behind
        blocks = 0
        bar = meter("exported", None, wanted=bool(output))
        with _Target(output) as target:
            header = car.header([root])
            target.write(header)
            size_bytes = len(header)
            block: Block | None = first
            while block is not None:
                frame = car.frame(block)
                target.write(frame)
                blocks, size_bytes = blocks + 1, size_bytes + len(frame)
                bar.advance(len(frame))
                block = next(walk, None)
        bar.finish()
    if json_output:
        emit({"root": str(root), "path": output, "blocks": blocks, "size_bytes": size_bytes})
    elif output:
        note(f"wrote {blocks} blocks, {size_text(size_bytes)}, to {output}")


class _Target:
    """Stdout, or a file that appears under its name when it is whole."""

    def __init__(self, output: str) -> None:
        self._path = Path(output) if output else None
        self._file: BinaryIO | None = None
        self._temporary: Path | None = None

    def __enter__(self) -> _Target:
        if self._path is not None:
            if os.path.lexists(self._path):
                raise invalid(f"{self._path} exists: choose another name with -o")
            self._temporary = self._path.with_name(f".holdfast-{os.getpid()}.part")
            self._file = self._temporary.open("xb")
        return self

    def write(self, data: bytes) -> None:
        if self._file is None:
            raw(data)
        else:
            self._file.write(data)

    def __exit__(self, kind: object, *_: object) -> None:
        if self._file is None or self._temporary is None or self._path is None:
            return
        self._file.close()
        if kind is None:
            self._temporary.rename(self._path)
        else:
            self._temporary.unlink(missing_ok=True)


@app.command("import")
def import_(
    files: Annotated[list[str], typer.Argument(metavar="FILE…", help="CAR files, or - for stdin.")],
    pin: Annotated[
        bool, typer.Option("--pin-roots/--no-pin-roots", "--pin/--no-pin", help="Pin the roots.")
    ] = True,
    name: Annotated[str, typer.Option("--name", help="Name of the pins.")] = "",
    json_output: JsonFlag = False,
) -> None:
    """Store the blocks of CAR files, each verified, and pin their roots."""
    from cli.pinned import pin_complete

    with Home.locate() as home:
        store = home.open_store()
        for file in files:
            reader = CarReader(file)
            with store.lease():
                with closing(reader.blocks()) as blocks:
                    result = store.put_many((block.cid.multihash, block.data) for block in blocks)
                roots = list(dict.fromkeys(reader.header.roots)) if reader.header else []
                for root in roots if pin else []:
                    pin_complete(home, root, recursive=True, name=name)
            if json_output:
                emit(
                    {
                        "file": file,
                        "roots": [str(root) for root in roots],
                        "new_blocks": result.new,
                        "present_blocks": result.present,
                        "new_bytes": result.bytes,
                        "pinned": pin,
                    }
                )
                continue
            note(
                f"{file}: {result.new} new blocks ({size_text(result.bytes)}), {result.present} here already"
            )
            for root in roots:
                text(f"{'pinned' if pin else 'root'} {root}")


@app.command("inspect")
def inspect(file: FileArgument, json_output: JsonFlag = False) -> None:
    """Say what is in a CAR file: roots, blocks, sizes, codecs and hash functions."""
    from merkledag import codecs

    reader = CarReader(file)
    by_codec: Counter[str] = Counter()
    by_hash: Counter[str] = Counter()
    sizes: list[int] = [0, 0, 0]  # blocks, bytes, the largest
    for block in reader.blocks():
        by_codec[codecs.name(block.cid.codec)] += 1
        by_hash[f"0x{block.cid.hash_code:x}"] += 1
        sizes = [sizes[0] + 1, sizes[1] + len(block.data), max(sizes[2], len(block.data))]
    roots = [str(root) for root in reader.header.roots] if reader.header else []
    document = {
        "roots": roots,
        "blocks": sizes[0],
        "block_bytes": sizes[1],
        "largest_block_bytes": sizes[2],
        "codecs": dict(sorted(by_codec.items())),
        "hashes": dict(sorted(by_hash.items())),
    }
    if json_output:
        return emit(document)
    for field, value in document.items():
        text(f"{field}: {', '.join(roots) if field == 'roots' else value}")
    return None


@app.command("verify")
def verify(
    file: FileArgument,
    partial: Annotated[bool, typer.Option("--partial", help="Blocks may be missing.")] = False,
    json_output: JsonFlag = False,
) -> None:
    """Check every block's hash, and that nothing below the roots is missing."""
    from merkledag import codecs

    reader = CarReader(file)
    here: set[bytes] = set()
    linked: set[bytes] = set()
    for block in reader.blocks():
        here.add(block.cid.multihash)
        if not partial and block.cid.codec != codecs.RAW:
            linked.update(cid.multihash for cid in codecs.links(block.cid, block.data) if not cid.is_identity)
    roots = reader.header.roots if reader.header else ()
    linked.update(root.multihash for root in roots if not root.is_identity)
    missing = 0 if partial else len(linked - here)
    if missing:
        raise invalid(f"{file}: {missing} blocks that it links to are not in it (--partial allows that)")
    if json_output:
        return emit({"file": file, "blocks": len(here), "roots": [str(root) for root in roots], "ok": True})
    return text(f"{file}: {len(here)} blocks, all good")
