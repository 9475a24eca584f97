"""From an importer into a home's store, for `add`, `store` and `demo`."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from cli.importing import Added, Importer, ImportOptions
from cli.importing_walk import total_bytes
from cli.output import meter, note
from cli.profile_options import named_profile

if TYPE_CHECKING:
    from cli.home import Home
    from cli.output import Meter
    from merkledag.block import Block


KEPT: Final = "holdfast: what came so far stays until the next `repo gc`: repeat this to go on from there"


class Stored(NamedTuple):
    """Bytes of all blocks of an import, and of those that were in the store before or came twice."""

    all_bytes: int
    here_bytes: int


def add_path(home: Home, path: Path, *, name: str = "", label: str = "added") -> Added:
    """Adds a file or folder with the home's profile and pins it; shows progress on a terminal."""
    options = ImportOptions(named_profile(home.config.text("import.profile")))
    bar = meter(label, total_bytes(options, [str(path)]))
    importer = Importer(options, on_added=lambda _: None, meter=bar)
    try:
        store_pinned(home, importer, importer.blocks([str(path)]), pin_name=name)
    finally:
        bar.finish()
    return importer.roots[0]


def take(
    home: Home,
    importer: Importer,
    blocks: Generator[Block, None, None],
    *,
    pin_name: str | None,
    only_hash: bool,
) -> Stored:
    """Stores and pins, or only hashes."""
    if only_hash:
        return Stored(sum(len(block.data) for block in blocks), 0)
    with home:
        return store_pinned(home, importer, blocks, pin_name=pin_name)


def store_pinned(
    home: Home, importer: Importer, blocks: Generator[Block, None, None], *, pin_name: str | None
) -> Stored:
    """Blocks first, the pin last, all under a lease, so that no collection frees a part of it."""
    store = home.open_store()
    all_bytes = 0

    def items() -> Iterator[tuple[bytes, bytes]]:
        nonlocal all_bytes
        for block in blocks:
            if not block.cid.is_identity:  # those are in the CIDs
                all_bytes += len(block.data)
                yield block.cid.multihash, block.data

    with store.lease():
        try:
            result = store.put_many(items())
        except KeyboardInterrupt:
            note(KEPT)
            raise
        finally:
            blocks.close()
        if pin_name is not None:
            pins = home.open_pins()
            for root in importer.roots:
                pins.add(root.cid, recursive=True, name=pin_name)
    return Stored(all_bytes, all_bytes - result.bytes)


def expect_in_background(bar: Meter, options: ImportOptions, paths: Sequence[str]) -> None:
    """Counts what will come while it is already coming."""
    from threading import Thread

    Thread(target=lambda: bar.expect(total_bytes(options, paths)), daemon=True).start()
