"""Single blocks out of a folder of backups, whatever snapshot they are of: to heal a store with."""

from __future__ import annotations

import os
from collections.abc import Sequence

from storage_node.backup_folder import BackupFolder
from storage_node.backup_pack import Pack, Window, pack_names, read_window, section_head
from storage_node.errors import DamagedBackup


def find_blocks(folder: BackupFolder, multihashes: Sequence[bytes]) -> dict[bytes, bytes]:
    """The bytes of those blocks that some pack has whole. Hold the folder's lock.

    A block whose hash function is unknown is taken for whole: compare before you rely on it.
    """
    found: dict[bytes, bytes] = {}
    for name in pack_names(folder):
        missing = [each for each in multihashes if each not in found]
        if not missing:
            break
        try:
            found |= _read(Pack(folder, name), missing)
        except (DamagedBackup, OSError):
            continue  # another pack may have them
    return found


def _read(pack: Pack, multihashes: Sequence[bytes]) -> dict[bytes, bytes]:
    found: dict[bytes, bytes] = {}
    handle = os.open(pack.path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        for wanted in multihashes:
            for number, row in pack.between(wanted, wanted):
                end = row.offset + len(section_head(row.multihash, row.length)) + row.length
                for _, multihash, block in read_window(handle, Window(row.offset, end, [(number, row)])):
                    if block is not None:
                        found[multihash] = bytes(block)
    finally:
        os.close(handle)
    return found
