"""Which files of a folder are taken: hidden ones or not, and rules as in a .gitignore."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from typing import TYPE_CHECKING, Final, NamedTuple

from cli.importing_rules import parse_rule
from cli.output import invalid

if TYPE_CHECKING:
    from collections.abc import Sequence

IGNORE_FILES: Final = (".gitignore", ".ipfsignore")  # of two in one folder, the second has the last word
MAX_IGNORE_FILE_BYTES: Final = 1 << 20


class Rules:
    """Lines of a .gitignore, for paths relative to its folder. Of several that match, the last counts."""

    def __init__(self, lines: Iterable[str]) -> None:
        self._rules = [rule for rule in map(parse_rule, lines) if rule is not None]
        self._rules.reverse()

    def verdict(self, path: str, *, is_folder: bool) -> bool | None:
        """True: left out; False: taken; None: no rule is about it.

        Folders above are not looked at, because nobody asks about what is in a folder that is left out.
        """
        name = path.rpartition("/")[2]
        for rule in self._rules:
            if rule.folders_only and not is_folder:
                continue
            if rule.pattern.fullmatch(name if rule.by_name else path):
                return rule.left_out
        return None


class Scope(NamedTuple):
    """A folder inside an import: its path below the argument, and the ignore files on the way to it."""

    path: str = ""
    files: tuple[tuple[str, Rules], ...] = ()  # the path of the folder that has the file, outermost first

    def below(self, name: str) -> str:
        """The path of an entry."""
        return f"{self.path}/{name}" if self.path else name


class Selection:
    """Decides on every entry of a folder that is imported; the arguments themselves are always taken.

    Rules of the command line have the first word, then the ignore files, those of inner folders first.
    """

    def __init__(self, *, hidden: bool = False, lines: Sequence[str] = (), use_files: bool = False) -> None:
        self._hidden = hidden
        self.use_files = use_files
        self._rules = Rules(lines) if lines else None

    def takes(self, scope: Scope, name: str, *, is_folder: bool) -> bool:
        """Whether the entry `name` of the folder that `scope` is about is imported."""
        if not self._hidden and name.startswith("."):
            return False
        if self._rules is None and not scope.files:
            return True
        path = scope.below(name)
        verdict = self._rules.verdict(path, is_folder=is_folder) if self._rules is not None else None
        for base, rules in reversed(scope.files):
            if verdict is None:
                verdict = rules.verdict(path[len(base) :], is_folder=is_folder)
        return not verdict

    def enter(self, scope: Scope, name: str | None, folder: str) -> Scope:
        """The scope for the entries of a folder: the argument itself, or `name` inside `scope`."""
        inner = Scope() if name is None else Scope(scope.below(name), scope.files)
        if not self.use_files:
            return inner
        found = inner.files
        for file in IGNORE_FILES:
            lines = _lines_of(f"{folder}/{file}")
            if lines:
                found += ((f"{inner.path}/" if inner.path else "", Rules(lines)),)
        return Scope(inner.path, found)


BUT_HIDDEN: Final = Selection()  # the selection of an `add` without options


def rules_of(path: str) -> list[str]:
    """The lines of a file of rules that the user named; raises OSError."""
    with open(path, "rb") as file:  # noqa: PTH123 (a str of any path)
        return _decoded(file.read(MAX_IGNORE_FILE_BYTES + 1), path)


def _lines_of(path: str) -> list[str]:
    """The lines of a regular file; none where there is no such file (links are not followed)."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return []
    with os.fdopen(handle, "rb") as file:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            return []
        return _decoded(file.read(MAX_IGNORE_FILE_BYTES + 1), path)


def _decoded(data: bytes, path: str) -> list[str]:
    if len(data) > MAX_IGNORE_FILE_BYTES:
        raise invalid(f"{path}: rules have at most {MAX_IGNORE_FILE_BYTES} bytes")
    return os.fsdecode(data.removeprefix(b"\xef\xbb\xbf")).splitlines()
