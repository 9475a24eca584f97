"""What all of the gateway's own pages share: their frame, strangers' text, links, sizes and times."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from html import escape

from gateway.addresses.request import ContentRequest, Kind, encode_segment
from gateway.formats import mime
from gateway.pages.style import CSS, ICONS, SCRIPT
from merkledag.cid import CID
from merkledag.codecs import DAG_PB
from merkledag.unixfs import Mtime

_CID_EXPLORER = "https://cid.ipfs.tech/#"
_PERMISSION_BITS = "rwxrwxrwx"

# Characters that show nothing, or change how what stands beside them is shown: controls, bidirectional marks,
# invisible ones. The joiners U+200C and U+200D stay: words and emoji need them. Surrogates are bytes that are
# not UTF-8.
_ODD = re.compile(
    "[\\x00-\\x1f\\x7f-\\x9f\\xad\\u034f\\u061c\\u115f\\u1160\\u17b4\\u17b5\\u180b-\\u180f\\u200b\\u200e\\u200f"
    "\\u2028-\\u202e\\u2060-\\u206f\\u2800\\u3164\\ufe00-\\ufe0e\\ufeff\\uffa0\\ufff0-\\ufffb\\ufffe\\uffff\\ud800-\\udfff"
    "\\U000e0000-\\U000e0fff]"
)
_EDGE = re.compile(r"^\s+|\s+$")

_ICON_OF_TYPE = {"image": "i", "video": "v", "audio": "a", "text": "t", "font": "f", "model": "f"}
_ARCHIVES = ("zip", "gzip", "bzip2", "x-tar", "7z", "xz", "zstd", "vnd.ipld.car")
KIND_LABELS = {
    "d": "Folder", "f": "File", "t": "Text", "i": "Image", "v": "Video", "a": "Audio", "z": "Archive",
    "l": "Symbolic link", "n": "Node",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Links:
    """Where the pages' links lead, per kind of gateway (path, subdomain, DNSLink)."""

    asked: ContentRequest

    @property
    def host(self) -> str:
        """What precedes `/ipfs/…` in a link, not escaped."""
        return f"//{self.asked.gateway_host}" if self.asked.kind is Kind.SUBDOMAIN else ""

    def breadcrumbs(self) -> str:
        """The content path with every part a link."""
        asked = self.asked
        if asked.kind is Kind.DNSLINK:
            base, root_href = f"//{asked.root}", f"//{asked.root}/"
        else:
            base = root_href = f"{self.host}/{asked.namespace}/{encode_segment(asked.root)}"
        parts = [f'/{asked.namespace}/<a href="{escape(root_href)}">{text(asked.root)}</a>']
        for segment in asked.segments:
            base += "/" + encode_segment(segment)
            parts.append(f'<a href="{escape(base)}">{text(segment)}</a>')
        return "/".join(parts)

    def by_cid(self, cid: str, encoded_name: str) -> str:
        """The opening tag of a link to an entry by its CID; the name percent-encoded and escaped."""
        if self.asked.kind is Kind.DNSLINK:
            # A DNSLink site has no /ipfs path of its own.
            href, rest = f"{_CID_EXPLORER}{cid}", ' target="_blank" rel="noreferrer noopener"'
        else:
            # The name is encoded twice, as every gateway does; `Exchange.file_name` reads it back.
            # In a query, & and + mean something else.
            twice = encoded_name.replace("%", "%25").replace("&amp;", "%26").replace("+", "%2B")
            href, rest = f"{escape(self.host)}/ipfs/{cid}?filename={twice}", ""
        return f'<a class="ipfs-hash" translate="no" href="{href}"{rest}>'

    def inspect(self, cid: str) -> str:
        """The address of the page about a node, escaped."""
        if self.asked.kind is Kind.DNSLINK:
            return f"{_CID_EXPLORER}{cid}"
        return f"{escape(self.host)}/ipfs/{cid}?inspect=node"


def visible(value: str) -> str:
    """`value` with everything written out that would not show as itself; not escaped.

    U+202E becomes `⟨U+202E⟩`, a byte that is not UTF-8 `⟨0xFF⟩`.
    """
    return value if value.isascii() and value.isprintable() else _ODD.sub(_written_out, value)


def text(value: str) -> str:
    """A stranger's name or sentence as HTML: visible, escaped, and with `␣` for blanks at its ends."""
    value = visible(value)
    if value[:1].isspace() or value[-1:].isspace():
        value = _EDGE.sub(lambda found: "␣" * len(found[0]), value)
    return escape(value)


def _written_out(found: re.Match[str]) -> str:
    code = ord(found[0])
    return f"⟨0x{code - 0xDC00:02X}⟩" if 0xDC80 <= code <= 0xDCFF else f"⟨U+{code:04X}⟩"


def human_size(size_bytes: int) -> str:
    """1536 → `1.5 KiB`."""
    if size_bytes < 1024:
        return f"{size_bytes} B"
    value = float(size_bytes)
    for unit in ("KiB", "MiB", "GiB", "TiB"):
        value /= 1024
        if value < 1024:
            return f"{value:.0f} {unit}" if value >= 100 else f"{value:.1f} {unit}"
    return f"{value / 1024:.1f} PiB"


def short_cid(cid: str) -> str:
    """The two ends of a CID."""
    return f"{cid[:6]}…{cid[-6:]}" if len(cid) > 16 else cid


def mode_text(mode: int, folder: str = "-") -> str:
    """Permission bits as `ls -l` writes them."""
    bits = "".join(letter if mode >> (8 - at) & 1 else "-" for at, letter in enumerate(_PERMISSION_BITS))
    for bit, at, letter in ((0o4000, 2, "s"), (0o2000, 5, "s"), (0o1000, 8, "t")):
        if mode & bit:
            bits = bits[:at] + (letter if bits[at] == "x" else letter.upper()) + bits[at + 1 :]
    return folder + bits


def time_tag(mtime: Mtime) -> str:
    """A modification time as a `<time>` element, in UTC; seconds since 1970 where no calendar reaches."""
    try:
        moment = datetime.fromtimestamp(mtime.seconds, UTC)
    except (ValueError, OverflowError, OSError):
        return f"{mtime.seconds} s"
    return f'<time datetime="{moment:%Y-%m-%dT%H:%M:%S}Z">{moment:%Y-%m-%d %H:%M}</time>'


def icon(key: str) -> str:
    """One of the drawings of `ICONS`, for the eye only."""
    return f'<svg class="i {key}" width="18" height="18" aria-hidden="true"><use href="#i-{key}"/></svg>'


def kind_icon(key: str) -> str:
    """The drawing of a kind of entry, named for who does not see it."""
    return (
        f'<svg class="i {key}" width="18" height="18" role="img" aria-label="{KIND_LABELS[key]}">'
        f'<use href="#i-{key}"/></svg>'
    )


def guess_icon(name: str, cid: CID) -> str:
    """Which drawing stands for an entry, by name and codec: looking would cost a block read per entry."""
    kind = mime.by_name(name)
    if kind is None:
        return "d" if cid.codec == DAG_PB and "." not in name[1:] else "f"
    return _icon_of_type(kind)


@lru_cache(maxsize=256)
def _icon_of_type(kind: str) -> str:
    main, _, sub = kind.partition("/")
    if any(word in sub for word in _ARCHIVES):
        return "z"
    if main == "application":
        return "t" if any(word in sub for word in ("json", "xml", "pdf", "yaml")) else "f"
    return _ICON_OF_TYPE.get(main, "f")


def copy_button(cid: str, label: str = "Copy CID") -> str:
    """A button that copies a CID, for those who have the script."""
    return (
        f'<button class="copy" type="button" data-copy="{cid}" title="{label}" hidden>'
        '<svg class="i" width="16" height="16" aria-hidden="true"><use href="#i-c"/></svg></button>'
    )


def address_form(typed: str = "") -> str:
    """The field for an address of content; it leads through the first page."""
    return (
        '<form class="hero" role="search" method="get" action="/">'
        '<input type="text" name="path" data-find required autofocus maxlength="2048" autocomplete="off" '
        'autocapitalize="none" spellcheck="false" aria-label="CID, name or address" '
        f'placeholder="CID, name or ipfs:// address" value="{escape(typed)}">'
        '<button class="btn main">Open</button></form>'
    )


def page_start(title: str, heading: str, crumbs: str) -> str:
    """Everything up to the content; `crumbs` is HTML, or nothing."""
    path = f'<nav class="path" aria-label="Path">{crumbs}</nav>' if crumbs else ""
    return (
        '<!DOCTYPE html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="robots" content="noindex"><meta name="color-scheme" content="light dark">'
        f'<link rel="icon" href="data:,"><title>{text(title)}</title><style>{CSS}</style>'
        f"<script>{SCRIPT}</script></head><body>{ICONS}"
        f'<header class="head"><h1><bdi>{text(heading)}</bdi></h1>'
        f"{path}</header><main>"
    )


def page_end(note: str) -> str:
    """The end of every page; `note` is HTML."""
    return f'</main><footer class="foot">{note}</footer></body></html>\n'


def key_help(*keys: tuple[str, str]) -> str:
    """The keys that a page knows: pairs of key names (blanks between them) and what they do."""
    rows = "".join(
        f"<dt>{' '.join(f'<kbd>{escape(key)}</kbd>' for key in names.split(' '))}</dt><dd>{escape(what)}</dd>"
        for names, what in keys
    )
    return f'<details class="keys"><summary>Keyboard <kbd>?</kbd></summary><dl>{rows}</dl></details>'
