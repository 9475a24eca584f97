"""All fuzz targets by name."""

from __future__ import annotations

from itertools import chain

from tests.fuzz import archives, codecs, identifiers, records, trees
from tests.fuzz.target import Target

TARGETS: dict[str, Target] = {
    target.name: target
    for target in chain(identifiers.TARGETS, codecs.TARGETS, trees.TARGETS, archives.TARGETS, records.TARGETS)
}
