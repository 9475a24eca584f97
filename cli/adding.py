"""Imports one path into a home's store, pinned: what `store` and `demo` do before they pay."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from cli.importing import Added, Importer, ImportOptions, total_bytes
from cli.output import meter
from cli.profile_options import named_profile

if TYPE_CHECKING:
    from cli.home import Home


def add_path(home: Home, path: Path, *, name: str = "", label: str = "added") -> Added:
    """Adds a file or folder with the home's profile and pins it; shows progress on a terminal."""
    bar = meter(label, total_bytes([str(path)], hidden=False))
    options = ImportOptions(named_profile(home.config.text("import.profile")))
    importer = Importer(options, on_added=lambda _: None, meter=bar)
    try:
        store_pinned(home, importer, [str(path)], pin_name=name)
    finally:
        bar.finish()
    return importer.roots[0]


def store_pinned(home: Home, importer: Importer, paths: list[str], *, pin_name: str | None) -> None:
    """Blocks first, the pin last, all under a lease, so that no collection frees a part of it."""
    store = home.open_store()
    with store.lease():
        blocks = importer.blocks(paths)
        try:
            store.put_many((block.cid.multihash, block.data) for block in blocks)
        finally:
            blocks.close()
        if pin_name is not None:
            pins = home.open_pins()
            for root in importer.roots:
                pins.add(root.cid, recursive=True, name=pin_name)
