"""Archives out of archives: the sections of one, or some of them, in another version."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from cli.car_input import ReadOptions, open_car
from cli.car_output import CarWriter
from cli.output import count_text, emit, note, size_text, usage
from cli.streams import check_binary_stdout, is_stdout
from cli.target import Target

if TYPE_CHECKING:
    from merkledag.car_index import IndexKind
    from merkledag.cid import CID


@dataclass(slots=True)
class Rewritten:
    """What came of it; `seen` are the multihashes of all blocks of the first archive."""

    roots: list[CID]
    blocks: int = 0
    size_bytes: int = 0
    seen: set[bytes] = field(default_factory=set)


def rewrite(
    file: str,
    output: str,
    version: int,
    kind: IndexKind | None,
    *,
    keep: Callable[[CID], bool] | None = None,
    null_padding: bool = False,
    json_output: bool = False,
) -> Rewritten:
    """Writes the sections of `file` that `keep` wants, in their order, each verified; says what was done.

    Roots that are not kept go. Exit 2 for a CARv2 that is not to become a file: its header tells sizes that
    are known at the end.
    """
    if is_stdout(output):
        check_binary_stdout("the CAR", json_output=json_output)
    with open_car(file, ReadOptions(null_padding=null_padding)) as archive:
        header = archive.read_header()
        done = Rewritten([root for root in header.roots if keep is None or keep(root)])
        with Target(output) as target, closing(archive.blocks("written")) as blocks:
            if version == 2 and not target.is_file:
                raise usage("version 2 cannot be written into a pipe: name a file with -o")
            writer = CarWriter(target, done.roots, version=version, index=kind)
            for block in blocks:
                if keep is not None:
                    done.seen.add(block.cid.multihash)
                    if not keep(block.cid):
                        continue
                writer.add(block.cid, block.data)
            writer.finish()
        done.blocks, done.size_bytes = writer.blocks, target.size_bytes
        archive.drain()
    if json_output:
        emit(
            {
                "file": file,
                "path": output,
                "version": version,
                "roots": [str(root) for root in done.roots],
                "blocks": done.blocks,
                "size_bytes": done.size_bytes,
            }
        )
    elif not is_stdout(output):
        note(f"wrote {count_text(done.blocks, 'block')}, {size_text(done.size_bytes)}, to {output}")
    return done
