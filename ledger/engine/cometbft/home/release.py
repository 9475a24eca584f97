"""Which release of CometBFT is built, and with which ones this program works; the one place that says so.

The shell and container files that build it read VERSION from here.
"""

from __future__ import annotations

import re
from typing import Final

VERSION: Final = "0.39.4"
MODULE: Final = "github.com/cometbft/cometbft"
# Of the module's files, as in go.sum: what is fetched must be this, whatever a proxy or a mirror says.
MODULE_SUM: Final = "h1:Bm7xbN18VfNueEd7cZumACbvVE+Lf9N58sz3oBOVPbw="
# Release lines, each with the first release of it that will do.
LINES: Final = ((0, 39, 4), (0, 40, 0))
# What 0.40.0 says of itself (its version/version.go, also over ABCI): nobody can tell it from 0.39.0.
MISNAMED: Final = (0, 39, 0)

_VERSION = re.compile(r"v?(\d{1,6})\.(\d{1,6})\.(\d{1,6})(?:[-+].*)?")


def parse_version(text: str) -> tuple[int, int, int] | None:
    """The numbers of `0.39.4`, `v0.40.0+abc`; None for anything else."""
    found = _VERSION.fullmatch(text.strip())
    return None if found is None else (int(found[1]), int(found[2]), int(found[3]))


def is_known(version: tuple[int, int, int]) -> bool:
    """Whether this program works with a release."""
    return version == MISNAMED or any(version[:2] == line[:2] and version >= line for line in LINES)


def known_text() -> str:
    """`0.39.4 and later of 0.39, 0.40.0 and later of 0.40`."""
    return ", ".join(f"{a}.{b}.{c} and later of {a}.{b}" for a, b, c in LINES)
