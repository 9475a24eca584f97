"""Editing trees of UnixFS folders by path: every folder on the way is rewritten, nothing else is read."""

from __future__ import annotations

from collections.abc import Sequence

from merkledag import dag_pb
from merkledag.block import Block
from merkledag.cid import CID
from merkledag.codecs import DAG_PB
from merkledag.directory import DirEntry, build_directory
from merkledag.errors import NoSuchLink, NotADirectory
from merkledag.folder import Entry, directory_message, lookup
from merkledag.mutate import Edited, edit
from merkledag.profile import ImportProfile
from merkledag.steps import Steps, Want


def find(root: CID, segments: Sequence[str]) -> Steps[CID]:
    """The node at a path; raises NoSuchLink, NotADirectory (also for what lies behind a file)."""
    cid = root
    for segment in segments:
        cid = (yield from lookup(cid, segment)).cid
    return cid


def is_directory(cid: CID) -> Steps[bool]:
    """Whether a node is a UnixFS directory, flat or HAMT."""
    if cid.codec != DAG_PB:
        return False
    block = yield Want(cid)
    try:
        directory_message(cid, dag_pb.payload(block))
    except NotADirectory:
        return False
    return True


def put(
    profile: ImportProfile, root: CID, segments: Sequence[str], cid: CID, tsize: int, *, parents: bool = False
) -> Steps[Edited]:
    """The tree with `cid` at a path, in place of what was there; `parents` makes the folders that lack.

    `segments` is not empty. Raises NoSuchLink for a folder that lacks, NotADirectory for one that is none,
    and what `mutate.edit` raises.
    """
    folders: list[CID | None] = [root]
    for segment in segments[:-1]:
        parent = folders[-1]
        entry: Entry | None = None
        if parent is not None:
            try:
                entry = yield from lookup(parent, segment)
            except NoSuchLink:
                if not parents:
                    raise
        folders.append(None if entry is None else entry.cid)
    blocks: list[Block] = []
    for folder, segment in zip(reversed(folders), reversed(segments), strict=True):
        row = DirEntry(segment, cid, tsize)
        if folder is None:
            link, made = build_directory(profile, [row])
        else:
            link, made = yield from edit(profile, folder, [row])
        blocks += made
        cid, tsize = link.cid, link.tsize
    return Edited(link, blocks)


def remove(profile: ImportProfile, root: CID, segments: Sequence[str]) -> Steps[Edited]:
    """The tree without what is at a path (not empty); raises NoSuchLink, NotADirectory."""
    parent = yield from find(root, segments[:-1])
    link, blocks = yield from edit(profile, parent, remove=[segments[-1]])
    if len(segments) == 1:
        return Edited(link, blocks)
    above = yield from put(profile, root, segments[:-1], link.cid, link.tsize)
    return Edited(above.link, [*blocks, *above.blocks])
