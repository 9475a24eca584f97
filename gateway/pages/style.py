"""The look of the gateway's own pages: style sheet, script, icons, and the policy that allows no more."""

from __future__ import annotations

import base64
import hashlib
import re
from importlib.resources import files


def _without_margins(source: str) -> str:
    """The script in fewer bytes: no indentation, no comment lines."""
    lines = (line.strip() for line in source.splitlines())
    return "\n".join(line for line in lines if line and not line.startswith("//"))


def _tight(source: str) -> str:
    """The style sheet in fewer bytes."""
    source = re.sub(r"\s+", " ", re.sub(r"/\*.*?\*/", "", source, flags=re.DOTALL)).strip()
    for loose, tight in (
        (" {", "{"),
        ("{ ", "{"),
        ("; }", "}"),
        (" }", "}"),
        ("} ", "}"),
        ("; ", ";"),
        (": ", ":"),
        (", ", ","),
    ):
        source = source.replace(loose, tight)
    return source


def _source_of(content: str) -> str:
    """What a Content-Security-Policy calls an inline style or script."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()}'"


_ASSETS = files("gateway.pages") / "assets"
CSS = _tight((_ASSETS / "page.css").read_text("utf-8"))
SCRIPT = _without_margins((_ASSETS / "page.js").read_text("utf-8"))

# Drawn once, used by reference: no request, no font.
_SHAPES = {
    "d": '<path d="M2.5 15.5v-11h5l2 2h8v9z"/>',
    "f": '<path d="M4.5 2.5h7l4 4v11h-11zM11.5 2.5v4h4"/>',
    "t": '<path d="M4.5 2.5h7l4 4v11h-11zM11.5 2.5v4h4M7 10h6M7 13h6"/>',
    "i": '<path d="M2.5 4h15v12h-15zM2.5 14l4-4 3 3 3-4 5 5"/><circle cx="7" cy="7.5" r="1"/>',
    "v": '<path d="M2.5 4.5h15v11h-15zM8.5 7.5v5l4-2.5z"/>',
    "a": '<path d="M7.5 15v-10l8-1.5v10"/><circle cx="5.5" cy="15" r="2"/>'
    '<circle cx="13.5" cy="13.5" r="2"/>',
    "z": '<path d="M3 3.5h14v4h-14zM4 7.5v9h12v-9M8 11h4"/>',
    "l": '<path d="M8.5 11.5a3 3 0 0 0 4.2 0l3-3a3 3 0 0 0-4.2-4.2l-1 1"/>'
    '<path d="M11.5 8.5a3 3 0 0 0-4.2 0l-3 3a3 3 0 0 0 4.2 4.2l1-1"/>',
    "n": '<circle cx="10" cy="4.5" r="2"/><circle cx="4.5" cy="15" r="2"/><circle cx="15.5" cy="15" r="2"/>'
    '<path d="M9 6.3l-3.6 6.9M11 6.3l3.6 6.9"/>',
    "u": '<path d="M10 16.5v-12M5 9.5l5-5 5 5"/>',
    "s": '<path d="M10 3v10M5.5 8.5l4.5 4.5 4.5-4.5M3.5 16.5h13"/>',
    "c": '<path d="M7 7h9.5v9.5h-9.5zM4.5 13h-1v-9.5h9.5v1"/>',
    "y": '<path d="M4 10.5l4 4 8-9"/>',
}
ICONS = (
    '<svg class="hidden" width="0" height="0" aria-hidden="true">'
    + "".join(f'<symbol id="i-{key}" viewBox="0 0 20 20">{shape}</symbol>' for key, shape in _SHAPES.items())
    + "</svg>"
)

# Nothing comes from elsewhere, nothing is sent anywhere; style and script are named by their hashes. Pictures
# are those of the content itself, on its own origin.
CONTENT_SECURITY_POLICY = (
    f"default-src 'none'; style-src {_source_of(CSS)}; script-src {_source_of(SCRIPT)}; "
    "img-src 'self' data:; base-uri 'none'; form-action 'self'; frame-ancestors 'self'"
)
# The welcome page holds nobody's content, and browsers apply form-action to the redirect to a subdomain, too.
WELCOME_SECURITY_POLICY = CONTENT_SECURITY_POLICY.replace(
    "form-action 'self'", "form-action 'self' http: https:"
)

# Raise it when the HTML of listings or node pages changes.
_LAYOUT = 2

# Changes with the look, so that caches drop old pages (Etag "DirIndex-…").
VERSION = hashlib.sha256(f"{_LAYOUT}{CSS}{ICONS}{SCRIPT}".encode()).hexdigest()[:8]
