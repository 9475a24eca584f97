"""Sizes as people read them."""

from __future__ import annotations


def size_text(size_bytes: float) -> str:
    """`1.5 GiB`: a size for people, in binary units."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size_bytes < 1024:
            return f"{size_bytes:.0f} B" if unit == "B" else f"{size_bytes:.1f} {unit}"
        size_bytes /= 1024
    return f"{size_bytes:.1f} TiB"
