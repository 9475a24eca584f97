"""`holdfast repo gc`: frees the blocks that nothing needs."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Annotated

import typer

from cli.home import Home
from cli.options import JsonFlag
from cli.output import count_text, emit, size_text, text


def gc(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would go; free nothing.")] = False,
    json_output: JsonFlag = False,
) -> None:
    """Free every block that no pin, no file of the mutable tree and no deal of this home's node needs."""
    from cli.pinned import held_for_others
    from merkledag.cid import CID
    from merkledag.codecs import RAW
    from storage_node import mfs
    from storage_node.gc import collect

    with Home.locate() as home, home.daemon_lock():
        rows = home.open_rows()

        def held() -> Iterator[CID]:
            """Looked up when the collection asks, which is after its epoch began."""
            yield from mfs.whole_roots(home.open_meta(), home.open_store())
            for multihash in held_for_others(home):
                yield CID(1, RAW, multihash)

        began_s = time.monotonic()
        report = collect(
            home.open_store(), home.open_pins(), partial_roots=held(), dry_run=dry_run, on_freed=rows.forget
        )
        took_s = time.monotonic() - began_s
    if json_output:
        return emit(
            {
                "freed_blocks": report.blocks,
                "freed_bytes": report.bytes,
                "kept_blocks": report.kept,
                "dry_run": dry_run,
                "seconds": round(took_s, 3),
            }
        )
    verb = "would free" if dry_run else "freed"
    return text(f"{verb} {count_text(report.blocks, 'block')}, {size_text(report.bytes)}; {report.kept} stay")
