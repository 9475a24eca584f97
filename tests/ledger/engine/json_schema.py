"""A small validator of JSON Schema: the keywords that `ledger.engine.schema` uses, an error for others."""

from __future__ import annotations

import re
from typing import Any

TYPES: dict[str, Any] = {
    "string": str,
    "integer": int,
    "boolean": bool,
    "null": type(None),
    "array": list,
    "object": dict,
}


def problems(value: Any, schema: dict[str, Any], defs: dict[str, Any], at: str = "$") -> list[str]:
    """What of `value` is not as `schema` says, each with the place where it is."""
    found: list[str] = []
    for keyword, says in schema.items():
        found += _KEYWORDS[keyword](value, says, defs, at, schema)
    return found


def _type(value: Any, says: Any, _defs: Any, at: str, _schema: Any) -> list[str]:
    names = [says] if isinstance(says, str) else says
    fits = any(isinstance(value, TYPES[name]) for name in names)
    if isinstance(value, bool) and "boolean" not in names:
        fits = False
    return [] if fits else [f"{at}: {value!r:.60} is no {' or '.join(names)}"]


def _properties(value: Any, says: Any, defs: Any, at: str, schema: Any) -> list[str]:
    found = []
    for name, entry in value.items() if isinstance(value, dict) else ():
        each = says.get(name)
        if each is not None:
            found += problems(entry, each, defs, f"{at}.{name}")
        elif schema.get("additionalProperties") is False:
            found.append(f"{at}.{name}: not foreseen")
    return found


def _additional(value: Any, says: Any, defs: Any, at: str, schema: Any) -> list[str]:
    if says is False or not isinstance(value, dict):
        return []  # `properties` has seen to it
    known = schema.get("properties", {})
    return [
        problem
        for name, entry in value.items()
        if name not in known
        for problem in problems(entry, says, defs, f"{at}.{name}")
    ]


def _any_of(value: Any, says: Any, defs: Any, at: str, _schema: Any) -> list[str]:
    tried = [problems(value, each, defs, at) for each in says]
    return [] if not all(tried) else [f"{at}: none of {len(says)}: {min(tried, key=len)}"]


def _bounded(value: Any, holds: bool, at: str, what: str) -> list[str]:
    return [] if holds else [f"{at}: {value!r:.60} {what}"]


_KEYWORDS: dict[str, Any] = {
    "type": _type,
    "properties": _properties,
    "additionalProperties": _additional,
    "propertyNames": lambda v, s, d, at, _: [
        problem for name in (v if isinstance(v, dict) else ()) for problem in problems(name, s, d, at)
    ],
    "anyOf": _any_of,
    "required": lambda v, s, _d, at, _: [
        f"{at}: lacks {name}" for name in s if isinstance(v, dict) and name not in v
    ],
    "items": lambda v, s, d, at, _: [
        problem
        for number, entry in enumerate(v if isinstance(v, list) else ())
        for problem in problems(entry, s, d, f"{at}[{number}]")
    ],
    "maxItems": lambda v, s, _d, at, _: _bounded(
        v, not isinstance(v, list) or len(v) <= s, at, "is too long"
    ),
    "maxLength": lambda v, s, _d, at, _: _bounded(
        v, not isinstance(v, str) or len(v) <= s, at, "is too long"
    ),
    "maxProperties": lambda v, s, _d, at, _: _bounded(
        v, not isinstance(v, dict) or len(v) <= s, at, "has too many properties"
    ),
    "minimum": lambda v, s, _d, at, _: _bounded(v, not isinstance(v, int) or v >= s, at, f"is below {s}"),
    "maximum": lambda v, s, _d, at, _: _bounded(v, not isinstance(v, int) or v <= s, at, f"is above {s}"),
    "pattern": lambda v, s, _d, at, _: _bounded(
        v, not isinstance(v, str) or re.search(s, v) is not None, at, f"does not match {s}"
    ),
    "const": lambda v, s, _d, at, _: _bounded(v, type(v) is type(s) and v == s, at, f"is not {s!r}"),
    "enum": lambda v, s, _d, at, _: _bounded(v, v in s, at, f"is none of {s}"),
    "$ref": lambda v, s, d, at, _: problems(v, d[s.removeprefix("#/$defs/")], d, at),
}
