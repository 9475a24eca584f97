"""What `holdfast repo stat` says of a home's store; nothing here takes a scan."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from cli.durations import roughly
from cli.output import size_text

if TYPE_CHECKING:
    from cli.home import Home


def sizes(home: Home) -> dict[str, Any]:
    """Blocks by class, files, disk, quota, pins."""
    from storage_node.gc_policy import room_bytes

    store = home.open_store().stat()
    room = room_bytes(store)
    return {
        "path": str(home.blocks),
        "blocks": store.blocks,
        "block_bytes": store.bytes,
        "own_blocks": store.blocks - store.cache_blocks - store.deal_blocks,
        "own_bytes": store.bytes - store.cache_bytes - store.deal_bytes,
        "deal_blocks": store.deal_blocks,
        "deal_bytes": store.deal_bytes,
        "cache_blocks": store.cache_blocks,
        "cache_bytes": store.cache_bytes,
        "file_bytes": store.file_bytes,
        "reusable_bytes": store.reusable_bytes,
        "disk_free_bytes": store.disk_free_bytes,
        "max_bytes": store.max_bytes,
        "reserve_bytes": store.reserve_bytes,
        "room_bytes": room,
        "used_percent": round(100 * store.bytes / room, 1) if room else 100.0,
        "gc_high_percent": home.config.number("storage.gc_high_percent"),
        "gc_low_percent": home.config.number("storage.gc_low_percent"),
        "cache_max_bytes": home.config.number("storage.cache_bytes"),
        "pins": home.open_pins().count(),
        "pin_jobs": sum(1 for _ in home.open_pin_jobs().ls()),
    }


def kept_well(home: Home) -> dict[str, Any]:
    """Damaged blocks, and what maintenance did last or could not do."""
    from cli.maintenance import lock_file
    from storage_node.daemon_lock import holder
    from storage_node.errors import LockHeld
    from storage_node.maintenance import BACKUP, COMPACTION, GC, HEAL, SCRUB, VERIFY, DutyRecords
    from storage_node.scrub import Damaged, Rounds

    meta = home.open_meta()
    records, rounds = DutyRecords(meta), Rounds(meta, SCRUB)
    current, last, verified = rounds.current(), rounds.last(), Rounds(meta, VERIFY).last()
    try:
        pid = holder(lock_file(home))
    except LockHeld:
        pid = None
    return {
        "damaged": Damaged(meta).count(),
        "maintenance_pid": pid,
        "scrub": None if current is None else {"began_s": current.began_s, "size_bytes": current.size_bytes},
        "last_scrub": None
        if last is None
        else {"at_s": last.ended_s, "blocks": last.blocks, "damaged": last.damaged},
        "last_verify": None
        if verified is None
        else {"at_s": verified.ended_s, "blocks": verified.blocks, "damaged": verified.damaged},
        "last_heal": records.last(HEAL),
        "last_gc": records.last(GC),
        "last_compaction": records.last(COMPACTION),
        "last_backup": records.last(BACKUP),
        "problems": records.problems(),
    }


def damaged_blocks(home: Home) -> int:
    """How many blocks of a home are known to be damaged; makes nothing where there is no store yet."""
    return troubles(home)[0]


def troubles(home: Home) -> tuple[int, dict[str, str]]:
    """How many blocks are known to be damaged, and what stands in the way of the maintenance, by duty."""
    from storage_node.maintenance import DutyRecords
    from storage_node.scrub import Damaged

    if not (home.meta / "format.json").exists():
        return 0, {}
    with home:
        meta = home.open_meta()
        problems = DutyRecords(meta).problems()
        return Damaged(meta).count(), {duty: each["problem"] for duty, each in problems.items()}


def shown(document: Mapping[str, Any], *, human: bool = False) -> Iterator[str]:
    """The document as lines; sizes in bytes and for people, or for people alone."""
    for field, value in document.items():
        if field == "problems":
            for duty, problem in value.items():
                yield f"problem: {duty}, {_age(problem['at_s'])}: {problem['problem']}"
        elif isinstance(value, dict):
            facts = [
                _age(each) if name == "at_s" else f"{name.removesuffix('_s')}: {_fact(name, each, human)}"
                for name, each in value.items()
            ]
            yield f"{field}: {', '.join(facts)}"
        else:
            yield f"{field}: {_fact(field, value, human)}"


def _fact(name: str, value: Any, human: bool) -> str:
    if value is None:
        return "none"
    if name == "began_s":
        return _age(value)
    if not name.endswith("_bytes"):
        return str(value)
    return size_text(value) if human else f"{value} ({size_text(value)})"


def _age(at_s: int) -> str:
    """`3 h ago`."""
    return f"{roughly(max(0, int(time.time()) - at_s))} ago"
