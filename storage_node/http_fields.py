"""Structured HTTP fields (RFC 8941) as far as message signatures use them; the rest is refused.

What we do not understand must not be believed, so nothing unknown is skipped.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from storage_node.errors import SignatureRefused

MAX_COMPONENTS = 16

TOKEN = re.compile(r"[a-z*][a-z0-9_\-.*]*")
STRING = re.compile(r'"((?:[ !#-\[\]-~]|\\["\\])*)"')
INTEGER = re.compile(r"-?[0-9]{1,15}")
BYTES = re.compile(r":([A-Za-z0-9+/]*={0,2}):")


@dataclass(frozen=True, slots=True)
class SignatureParams:
    """The ordered covered components and parameters of one ``Signature-Input`` member."""

    components: tuple[str, ...]
    params: tuple[tuple[str, int | str], ...]

    def serialise(self) -> str:
        """The strict serialisation of RFC 8941 section 4.1.1.1, which is also the last line of the base."""
        inner = " ".join(quote(name) for name in self.components)
        tail = "".join(
            f";{name}={quote(value) if isinstance(value, str) else value}" for name, value in self.params
        )
        return f"({inner}){tail}"

    def integer(self, name: str) -> int:
        """A required integer parameter, or SignatureRefused."""
        value = dict(self.params).get(name)
        if not isinstance(value, int):
            raise SignatureRefused(f"the signature lacks the parameter {name}")
        return value

    def text(self, name: str) -> str:
        """A required string parameter, or SignatureRefused."""
        value = dict(self.params).get(name)
        if not isinstance(value, str) or not value:
            raise SignatureRefused(f"the signature lacks the parameter {name}")
        return value


class FieldReader:
    """A cursor over one structured field value (RFC 8941), only as much of it as the profile uses."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0

    def match(self, pattern: re.Pattern[str], what: str) -> str:
        """The next piece of text that has this shape; SignatureRefused when it has another."""
        found = pattern.match(self._text, self._at)
        if found is None:
            raise SignatureRefused(
                f"the signature headers are malformed: {what} expected at character {self._at}"
            )
        self._at = found.end()
        return found.group(1) if pattern.groups else found.group(0)

    def peek(self, text: str) -> bool:
        """Whether the text follows."""
        return self._text.startswith(text, self._at)

    def literal(self, text: str) -> None:
        """Step over the text, which must follow."""
        if not self.peek(text):
            raise SignatureRefused(
                f"the signature headers are malformed: {text!r} expected at character {self._at}"
            )
        self._at += len(text)

    def end(self) -> None:
        """Nothing may be left."""
        if self._at != len(self._text):
            raise SignatureRefused(
                "the signature headers carry more than one signature, or something unknown"
            )

    def inner_list(self) -> SignatureParams:
        """A list of component names with its parameters."""
        self.literal("(")
        components: list[str] = []
        while not self.peek(")"):
            if components:
                self.literal(" ")
            # Component parameters (;req, ;sf, …) end here: `"` must be followed by a space or a bracket.
            name = self.match(STRING, "a component name")
            if name in components or len(components) >= MAX_COMPONENTS:
                raise SignatureRefused("the signature covers a component twice, or too many")
            components.append(name)
        self.literal(")")
        params: list[tuple[str, int | str]] = []
        while self.peek(";"):
            self.literal(";")
            name = self.match(TOKEN, "a parameter name")
            self.literal("=")
            if any(name == other for other, _ in params) or len(params) >= MAX_COMPONENTS:
                raise SignatureRefused("the signature has a parameter twice, or too many")
            if self.peek('"'):
                params.append((name, _unescape(self.match(STRING, "a string"))))
            else:
                params.append((name, int(self.match(INTEGER, "an integer"))))
        return SignatureParams(tuple(components), tuple(params))


def quote(text: str) -> str:
    """A structured-field string."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _unescape(text: str) -> str:
    return re.sub(r"\\(.)", r"\1", text)
