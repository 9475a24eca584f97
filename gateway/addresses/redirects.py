"""The `_redirects` file of a site: its syntax and which rule a path meets (Web _redirects File spec)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from urllib.parse import parse_qsl, quote, unquote, urlsplit

from gateway.addresses.request import encode_path
from gateway.errors import GatewayError, UriTooLong

FILE_NAME = "_redirects"
MAX_BYTES = 64 * 1024
_MAX_SEGMENTS = 64
_MAX_TARGET_CHARS = 8 * 1024  # of `to` as it is written ...
_MAX_FILLED_CHARS = 32 * 1024  # ... and with what its placeholders stand for, percent-encoded
_MAX_COLONS = 64  # each may be a placeholder, which stands for as much as a whole address
_REMEMBERED_FILES = 4  # of up to 3 MB each when parsed
_STATUSES = {str(status): status for status in (200, 301, 302, 303, 307, 308, 404, 410, 451)}
_SCHEMES = ("http", "https", "ipfs", "ipns")
_SPLAT = "splat"
_VALUE_SAFE = "/!$'()*,;:@~-._"  # of a value within a query: nothing that ends it


class InvalidRedirectsError(GatewayError):
    """The site's `_redirects` file is not valid."""

    status = 500
    title = "This site's _redirects file is not valid"

    def __init__(self, reason: str) -> None:
        super().__init__(f"could not parse _redirects: {reason}")


@dataclass(frozen=True, slots=True)
class Rule:
    """One line. `source` are its segments; `:name` takes a segment as the placeholder `name`.

    `rest` is None, or what stands before an asterisk in the last segment: that many letters more have to be
    there, and what follows is the placeholder `splat`.
    """

    source: tuple[str, ...]
    rest: str | None
    target: str
    status: int

    def match(self, segments: tuple[str, ...], *, slash: bool) -> dict[str, str] | None:
        """The placeholders' values if the path meets this rule; `slash` tells whether one ends it."""
        fixed = len(self.source)
        if len(segments) < fixed or (self.rest is None and len(segments) != fixed):
            return None
        values: dict[str, str] = {}
        for pattern, segment in zip(self.source, segments, strict=False):
            if pattern.startswith(":"):
                values[pattern[1:]] = segment
            elif segment not in (pattern, _decoded(pattern)):
                return None
        if self.rest is None:
            return values
        if len(segments) == fixed:
            # `/a/*` is met by `/a/` and not by `/a`.
            if self.rest or not slash:
                return None
            values[_SPLAT] = ""
            return values
        behind = "/".join(segments[fixed:])
        for prefix in (self.rest, _decoded(self.rest)):
            if behind.startswith(prefix):
                values[_SPLAT] = behind[len(prefix) :]
                return values
        return None

    def fill(self, values: Mapping[str, str]) -> str:
        """The target with its placeholders replaced, percent-encoded; raises UriTooLong."""
        out, rest, in_query = [], self.target, False
        while True:
            before, colon, after = rest.partition(":")
            out.append(before)
            in_query = in_query or "?" in before
            if not colon:
                filled = "".join(out)
                if len(filled) > _MAX_FILLED_CHARS:
                    raise UriTooLong(f"_redirects leads to an address of {len(filled)} bytes")
                return filled
            # The longest name wins, so that :id does not eat the start of :identity.
            name = max((name for name in values if after.startswith(name)), key=len, default=None)
            if name is None:
                out.append(":")
                rest = after
            else:
                out.append(_encoded(values[name], in_query))
                rest = after[len(name) :]


def _encoded(value: str, in_query: bool) -> str:
    return quote(value, safe=_VALUE_SAFE, errors="surrogateescape") if in_query else encode_path(value)


def _decoded(pattern: str) -> str:
    """A pattern that is written percent-encoded, as it appears in a decoded path."""
    return unquote(pattern, errors="surrogateescape") if "%" in pattern else pattern


@lru_cache(maxsize=_REMEMBERED_FILES)
def parse_redirects(data: bytes) -> tuple[Rule, ...]:
    """All rules in order; raises InvalidRedirectsError."""
    if len(data) > MAX_BYTES:
        raise InvalidRedirectsError(f"redirects file size cannot exceed {MAX_BYTES} bytes")
    try:
        lines = data.decode().split("\n")
    except UnicodeDecodeError as error:
        raise InvalidRedirectsError("the file is not UTF-8") from error
    rules = []
    for number, line in enumerate(lines, 1):
        fields = line.removesuffix("\r").replace("\t", " ").split(" ")
        fields = [field for field in fields if field]
        if fields and not fields[0].startswith("#"):
            try:
                rules.append(_rule(fields))
            except ValueError as error:
                raise InvalidRedirectsError(f"line {number}: {error}") from error
    return tuple(rules)


def _rule(fields: list[str]) -> Rule:
    """Raises ValueError with the reason."""
    if len(fields) not in (2, 3):
        raise ValueError("it must be 'from to [status]'")
    source, target = fields[0], fields[1]
    for field in (source, target):
        if not field.isprintable():
            raise ValueError("it contains control characters")
    if not source.startswith("/"):
        raise ValueError("the 'from' path must start with '/'")
    scheme = "" if _is_path(target) else urlsplit(target).scheme
    if not target.startswith("/") and scheme not in _SCHEMES:
        raise ValueError("the 'to' must be a path or an address with http, https, ipfs or ipns")
    if len(target) > _MAX_TARGET_CHARS:
        raise ValueError(f"the 'to' has more than {_MAX_TARGET_CHARS} characters")
    if target.count(":") > _MAX_COLONS:
        raise ValueError(f"the 'to' has more than {_MAX_COLONS} colons")
    rest = None
    if "*" in source:
        if source.index("*") != len(source) - 1:
            raise ValueError("'*' can only end the 'from' path, and only once")
        source, _, rest = source[:-1].rpartition("/")
    segments = tuple(segment for segment in source.split("/") if segment)
    if len(segments) > _MAX_SEGMENTS:
        raise ValueError(f"more than {_MAX_SEGMENTS} segments")
    names = [segment[1:] for segment in segments if segment.startswith(":")]
    names += [] if rest is None else [_SPLAT]
    if len(set(names)) != len(names):
        raise ValueError("the same placeholder is used twice in the 'from' path")
    if "" in names:
        raise ValueError("a placeholder has no name")
    return Rule(segments, rest, target, _status(fields[2]) if len(fields) == 3 else 301)


def _is_path(target: str) -> bool:
    return target.startswith("/") and not target.startswith("//")


def _status(text: str) -> int:
    if text.endswith("!"):
        raise ValueError("forced redirects (a status with '!') are not supported")
    if text not in _STATUSES:
        raise ValueError(f"unsupported redirect status {text[:16]!r}")
    return _STATUSES[text]


def find_rule(rules: Sequence[Rule], segments: tuple[str, ...], *, slash: bool) -> tuple[Rule, str] | None:
    """The first rule that the path meets, and where it leads."""
    for rule in rules:
        values = rule.match(segments, slash=slash)
        if values is not None:
            return rule, rule.fill(values)
    return None


def with_query(target: str, query_string: str) -> str:
    """`target` with the request's query parameters, which take the place of its own ones of the same name."""
    if not query_string:
        return target
    base, mark, fragment = target.partition("#")
    path, _, own = base.partition("?")
    asked = {key for key, _ in parse_qsl(query_string, keep_blank_values=True)}
    parts = [
        part
        for part in own.split("&")
        if part and not asked.intersection(key for key, _ in parse_qsl(part, keep_blank_values=True))
    ]
    return f"{path}?{'&'.join([*parts, query_string])}{mark}{fragment}"
