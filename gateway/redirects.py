"""The `_redirects` file of a site: its syntax and which rule a path meets (Web _redirects File spec)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import parse_qsl, urlencode, urlsplit

from gateway.errors import GatewayError
from gateway.request import encode_path

FILE_NAME = "_redirects"
MAX_BYTES = 64 * 1024
_MAX_SEGMENTS = 64
_STATUSES = frozenset({200, 301, 302, 303, 307, 308, 404, 410, 451})


class InvalidRedirectsError(GatewayError):
    """The site's `_redirects` file is not valid."""

    status = 500
    title = "This site's _redirects file is not valid"

    def __init__(self, reason: str) -> None:
        super().__init__(f"could not parse _redirects: {reason}")


@dataclass(frozen=True, slots=True)
class Rule:
    """One line. `source` are its segments; a last `*` takes the rest of a path as `:splat`."""

    source: tuple[str, ...]
    target: str
    status: int

    def match(self, segments: tuple[str, ...]) -> dict[str, str] | None:
        """The placeholders' values if the path meets this rule."""
        source = self.source
        splat = bool(source) and source[-1] == "*"
        fixed = source[:-1] if splat else source
        if len(segments) < len(fixed) or (not splat and len(segments) != len(fixed)):
            return None
        values: dict[str, str] = {}
        for pattern, segment in zip(fixed, segments, strict=False):
            if pattern.startswith(":"):
                values[pattern[1:]] = segment
            elif pattern != segment:
                return None
        if splat:
            values["splat"] = "/".join(segments[len(fixed) :])
        return values

    def fill(self, values: Mapping[str, str]) -> str:
        """The target with its placeholders replaced, percent-encoded."""
        out, rest = [], self.target
        while True:
            before, colon, after = rest.partition(":")
            out.append(before)
            if not colon:
                return "".join(out)
            # The longest name wins, so that :id does not eat the start of :identity.
            name = max((name for name in values if after.startswith(name)), key=len, default=None)
            if name is None:
                out.append(":")
                rest = after
            else:
                out.append(encode_path(values[name]))
                rest = after[len(name) :]


def parse_redirects(data: bytes) -> list[Rule]:
    """All rules in order; raises InvalidRedirectsError."""
    if len(data) > MAX_BYTES:
        raise InvalidRedirectsError(f"redirects file size cannot exceed {MAX_BYTES} bytes")
    try:
        lines = data.decode().split("\n")
    except UnicodeDecodeError as error:
        raise InvalidRedirectsError("the file is not UTF-8") from error
    rules = []
    for number, line in enumerate(lines, 1):
        fields = line.strip(" \t\r").split()
        if fields and not fields[0].startswith("#"):
            rules.append(_rule(fields, number))
    return rules


def _rule(fields: list[str], number: int) -> Rule:
    if len(fields) not in (2, 3):
        raise InvalidRedirectsError(f"line {number}: expected 'from to [status]'")
    source, target = fields[0], fields[1]
    if not source.startswith("/"):
        raise InvalidRedirectsError(f"line {number}: the 'from' path must start with '/'")
    if not target.startswith("/") and urlsplit(target).scheme not in ("http", "https", "ipfs", "ipns"):
        raise InvalidRedirectsError(f"line {number}: the 'to' must be a path or a URL")
    segments = tuple(segment for segment in source.split("/") if segment)
    names = [segment for segment in segments if segment.startswith(":")]
    if len(segments) > _MAX_SEGMENTS:
        raise InvalidRedirectsError(f"line {number}: more than {_MAX_SEGMENTS} segments")
    if len(set(names)) != len(names) or ":" in names:
        raise InvalidRedirectsError(f"line {number}: placeholders need distinct names")
    if any("*" in segment for segment in segments[:-1]) or (
        segments and "*" in segments[-1] and segments[-1] != "*"
    ):
        raise InvalidRedirectsError(f"line {number}: '*' can only be the last segment")
    status = 301
    if len(fields) == 3:
        if not fields[2].isascii() or not fields[2].isdigit() or int(fields[2]) not in _STATUSES:
            raise InvalidRedirectsError(f"line {number}: unsupported redirect status {fields[2][:16]!r}")
        status = int(fields[2])
    return Rule(segments, target, status)


def find_rule(rules: list[Rule], segments: tuple[str, ...]) -> tuple[Rule, str] | None:
    """The first rule that the path meets, and where it leads."""
    for rule in rules:
        values = rule.match(segments)
        if values is not None:
            return rule, rule.fill(values)
    return None


def with_query(target: str, query_string: str) -> str:
    """`target` with the request's query parameters added; they win over its own."""
    if not query_string:
        return target
    base, mark, fragment = target.partition("#")
    path, _, own = base.partition("?")
    merged = dict(parse_qsl(own, keep_blank_values=True))
    merged.update(parse_qsl(query_string, keep_blank_values=True))
    return f"{path}?{urlencode(merged)}{mark}{fragment}"
