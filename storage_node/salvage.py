"""Damaged files of a home's two stores: found before anything opens them, and salvaged one by one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from storage_node import meta as meta_store
from storage_node.blockstore import store as block_store
from storage_node.blockstore.layout import bases
from storage_node.blockstore.page_survey import Survey
from storage_node.blockstore.pages import PageFile
from storage_node.blockstore.replacing import FileDamage, Replaced, find_damage, replace_file
from storage_node.blockstore.salvage import Salvaged, ShardSalvage, Writer
from storage_node.meta_salvage import MetaSalvaged, salvage_meta

Progress = Callable[[int], None]  # so many blocks of the file at work were found so far


@dataclass(frozen=True, slots=True)
class FileSalvage:
    """What came out of one damaged file: of a shard of blocks, or of the records."""

    damage: FileDamage
    replaced: Replaced
    blocks: Salvaged | None = None
    records: MetaSalvaged | None = None


def damaged_files(blocks: Path, meta: Path) -> list[FileDamage]:
    """The files that LMDB cannot be trusted with, the records first; both folders may be in use.

    Raises CorruptStore for a folder that is none of ours.
    """
    versions = 1 + len(block_store.MIGRATIONS)
    found = [
        *bases(meta, meta_store.FORMAT, meta_store.FILE, 1),
        *bases(blocks, block_store.FORMAT, block_store.FILE, versions),
    ]
    return [damage for base in found if (damage := find_damage(base)) is not None]


def salvage(damage: FileDamage, meta: Path, now_s: int, progress: Progress = lambda _: None) -> FileSalvage:
    """Put a new file with everything that is intact in a damaged one's place, which is kept aside.

    Hold the lock of the maintenance; nobody else, and nothing in this process, may have the file open.
    Raises FileInUse, StoreFull, StoreFailed; then the damaged file stays in force.
    """
    if damage.base.parent == meta:
        replaced, records = salvage_meta(meta, now_s)
        return FileSalvage(damage, replaced, records=records)
    number = int(damage.base.name.rpartition("-")[2])
    shards = len(
        bases(damage.base.parent, block_store.FORMAT, block_store.FILE, 1 + len(block_store.MIGRATIONS))
    )

    def fill(source: PageFile, found: Survey, fresh: Writer, scratch: Writer) -> Salvaged:
        return ShardSalvage(source, found, number, shards, fresh, scratch, progress).run()

    replaced, blocks = replace_file(damage.base, fill)
    return FileSalvage(damage, replaced, blocks=blocks)
