"""The table of limits in docs/content.md and the constants of the code say the same."""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
# What formats and other implementations fix: no bound of ours on what others may send.
FACTS = {
    "chunker_buzhash.MIN_BYTES", "dnslink.MAX_LABEL_CHARS", "ipns.MAX_WRITTEN_NUMBER",
    "keys.MAX_INLINE_BYTES", "protobuf.MAX_VARINT64_BYTES", "varint.MAX_VARINT", "varint.MAX_VARINT_BYTES",
}  # fmt: skip


def listed() -> Iterator[tuple[str, str]]:
    """Each constant with its module (in merkledag unless a package is named), and what its row says."""
    page = (ROOT / "docs" / "content.md").read_text()
    table = page.partition("| limit | value | in |\n")[2].partition("\n\n")[0]
    for row in table.splitlines()[1:]:
        _, _, value, names, _ = row.split("|")
        module = ""
        for name in re.findall(r"`([^`]+)`", names):
            module = name.rpartition(".")[0] or module
            yield f"{module}.{name.rpartition('.')[2]}", value


def written(number: int) -> list[str]:
    """The forms in which the table may have a number."""
    forms = [f"{number:,}"]
    forms += [f"{number >> 10:,} KiB"] if number % 1024 == 0 else []
    return forms + ([f"{number >> 20:,} MiB"] if number % 1024**2 == 0 else [])


@pytest.mark.parametrize(("name", "value"), list(listed()))
def test_a_listed_limit_is_what_the_code_has(name: str, value: str) -> None:
    module, _, constant = name.rpartition(".")
    package = "" if module.startswith(("cli.", "storage_node.")) else "merkledag."
    number = getattr(importlib.import_module(package + module), constant)
    assert any(re.search(rf"(?<![\d,]){form}(?![\d,])", value) for form in written(number)), (number, value)


def test_every_limit_is_listed() -> None:
    found: set[str] = set()
    for path in (ROOT / "merkledag").glob("*.py"):
        for names in re.findall(r"^([A-Z0-9_, ]+?)(?:: Final)? = ", path.read_text(), re.MULTILINE):
            limits = (name for name in names.split(", ") if name.startswith(("MAX_", "MIN_")))
            found.update(f"{path.stem}.{name}" for name in limits)
    named = {name for name, _ in listed()}
    assert sorted(found - FACTS - named) == []
