"""Which blocks of a DAG somebody wants: a scope, and a part of a file (trustless gateway spec, IPIP-402)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from merkledag.block import Block
from merkledag.cid import CID
from merkledag.codecs import DAG_PB, RAW
from merkledag.reader import read_file, stat
from merkledag.steps import Walk, Want, need
from merkledag.traverse import IsNew, Scope, walk_dag

MAX_DIGITS = 19  # 2⁶³ − 1 has 19


@dataclass(frozen=True, slots=True)
class EntityBytes:
    """`from:to` of a file's bytes, both inclusive; negative counts from the end, `last` None is the end."""

    first: int
    last: int | None

    def span(self, size_bytes: int) -> tuple[int, int]:
        """(start, end) of the part of `size_bytes` bytes that is meant, end excluded; (0, 0) if outside."""
        start = self.first if self.first >= 0 else max(0, size_bytes + self.first)
        if self.last is None:
            end = size_bytes
        elif self.last >= 0:
            end = self.last + 1
        else:
            end = size_bytes + self.last + 1
        end = min(end, size_bytes)
        return (start, end) if start < end else (0, 0)


def parse_entity_bytes(text: str) -> EntityBytes:
    """Reads `from:to`; `to` may be `*`. Raises ValueError with a line that says what is wrong."""
    first, colon, last = text.partition(":")
    if not colon or not _is_signed(first) or not (last == "*" or _is_signed(last)):
        raise ValueError(f"{text[:64]!r} is not from:to, such as 0:1023, -1024:* or 0:*")
    start, end = int(first), None if last == "*" else int(last)
    if end is not None and (start >= 0) == (end >= 0) and end < start:
        raise ValueError(f"{text[:64]!r} ends before it starts")
    return EntityBytes(start, end)


def _is_signed(text: str) -> bool:
    digits = text.removeprefix("-")
    return 0 < len(digits) <= MAX_DIGITS and digits.isascii() and digits.isdigit()


def walk_scope(
    root: CID,
    scope: Scope = "all",
    entity_bytes: EntityBytes | None = None,
    *,
    skip: Callable[[CID], bool] | None = None,
    dedupe: bool = True,
    is_new: IsNew | None = None,
) -> Walk[Block]:
    """Yields the blocks in `scope` as `traverse.walk_dag` does, or those that a part of a file takes.

    `entity_bytes` asks for the entity whatever `scope` says. It is ignored for what is no file, and a part
    that lies outside the file is the root block alone, which shows why. `skip` and `is_new` apply to whole
    scopes only. Raises what `walk_dag` and `reader.read_file` raise.
    """
    if entity_bytes is None or root.codec not in (RAW, DAG_PB):
        scope = scope if entity_bytes is None else "entity"
        yield from walk_dag(root, scope=scope, skip=skip, dedupe=dedupe, is_new=is_new)
        return
    facts = yield from stat(root)
    if facts.kind in ("file", "raw"):
        yield from file_blocks(root, *entity_bytes.span(facts.size_bytes), dedupe=dedupe)
    else:
        yield from walk_dag(root, scope="entity", skip=skip, dedupe=dedupe, is_new=is_new)


def file_blocks(root: CID, start: int = 0, end: int | None = None, *, dedupe: bool = True) -> Walk[Block]:
    """Yields the blocks that reading bytes start … end − 1 of a file takes, in the order of reading.

    The root is always one of them; blocks inside identity CIDs are not yielded. With `dedupe` each CID comes
    once. Raises what `reader.read_file` raises.
    """
    seen: set[CID] = set()
    reading = read_file(root, start, end)
    try:
        item = next(reading)
        while True:
            if not isinstance(item, Want):
                item = reading.send(None)
                continue
            want = item
            data = need((yield want))
            if not want.cid.is_identity and (not dedupe or want.cid not in seen):
                seen.add(want.cid)
                yield Block(want.cid, bytes(data))
            item = reading.send(data)
    except StopIteration:
        return
    finally:
        reading.close()
