"""HTML for people: the frame of every page, folder listings, node previews and errors."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from html import escape

from gateway import mime
from gateway.request import ContentRequest, Kind, encode_segment
from gateway.style import CSS, ICONS
from merkledag.cid import CID
from merkledag.codecs import DAG_PB

# An HTML page names its own characters; a name from a stranger must not be able to end an attribute or tag.
_CID_EXPLORER = "https://cid.ipfs.tech/#"

_ICON_OF_TYPE = {"image": "i", "video": "v", "audio": "a", "text": "t", "font": "f", "model": "f"}
_ARCHIVES = ("zip", "gzip", "bzip2", "x-tar", "7z", "xz", "zstd", "vnd.ipld.car")


@dataclass(frozen=True, slots=True)
class Links:
    """Where the pages' links lead, per kind of gateway (path, subdomain, DNSLink)."""

    asked: ContentRequest

    def breadcrumbs(self) -> str:
        """The content path with every part a link."""
        asked = self.asked
        if asked.kind is Kind.DNSLINK:
            base, root_href = f"//{asked.root}", f"//{asked.root}/"
        else:
            host = f"//{asked.gateway_host}" if asked.kind is Kind.SUBDOMAIN else ""
            base = root_href = f"{host}/{asked.namespace}/{encode_segment(asked.root)}"
        parts = [f'/{asked.namespace}/<a href="{escape(root_href)}">{text(asked.root)}</a>']
        for segment in asked.segments:
            base += "/" + encode_segment(segment)
            parts.append(f'<a href="{escape(base)}">{text(segment)}</a>')
        return "/".join(parts)

    def by_cid(self, cid: str, name: str) -> str:
        """The opening tag of a link to an entry by its CID."""
        asked = self.asked
        if asked.kind is Kind.DNSLINK:
            # A DNSLink site has no /ipfs path of its own.
            href, rest = f"{_CID_EXPLORER}{cid}", ' target="_blank" rel="noreferrer noopener"'
        else:
            host = f"//{escape(asked.gateway_host)}" if asked.kind is Kind.SUBDOMAIN else ""
            # The name is encoded twice, as every gateway does; `file_name` reads it back.
            twice = encode_segment(encode_segment(name))
            href, rest = f"{host}/ipfs/{cid}?filename={escape(twice)}", ""
        return f'<a class="ipfs-hash" translate="no" href="{href}"{rest}>'


def text(value: str) -> str:
    """A stranger's text as HTML: escaped; what is not Unicode becomes U+FFFD."""
    return escape(value.encode("utf-8", "surrogateescape").decode("utf-8", "replace"))


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


def page_start(title: str, heading: str, crumbs: str) -> str:
    """Everything up to the content; `crumbs` is HTML."""
    return (
        '<!DOCTYPE html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="robots" content="noindex"><link rel="icon" href="data:,">'
        f"<title>{text(title)}</title><style>{CSS}</style></head><body>"
        f'<header><h1>{text(heading)}</h1><p class="path">{crumbs}</p></header><main>'
    )


def page_end(note: str) -> str:
    """The end of every page; `note` is HTML."""
    return f"</main><footer>{note}</footer></body></html>\n"


def listing_start(asked: ContentRequest, cid: CID) -> str:
    """A folder's page up to its first entry."""
    links = Links(asked)
    name = asked.segments[-1] if asked.segments else asked.root
    here = escape(asked.url_path + "/")
    facts = (
        f'<p class="facts"><span>Folder <code title="{cid}">{short_cid(str(cid))}</code></span>'
        f'<a href="{here}?format=tar">Download as TAR</a><a href="{here}?format=car">Download as CAR</a>'
        f'<a href="{here}?format=raw">Folder block</a></p>'
    )
    head = (
        '<div class="card" role="table" aria-label="Folder entries"><div class="row head" role="row">'
        '<span role="columnheader">Name</span><span role="columnheader">CID</span>'
        '<span role="columnheader" class="size">Size</span></div>'
    )
    up = ""
    if asked.segments:
        up = (
            '<div class="row" role="row"><span class="name" role="cell"><svg aria-hidden="true">'
            f'<use href="#i-u"/></svg><a href="{escape(asked.url_path)}/..">..</a></span>'
            '<span role="cell"></span><span role="cell"></span></div>'
        )
    title = f"Index of {asked.content_path}"
    heading = f"Index of {name if asked.segments else short_cid(name) if asked.namespace == 'ipfs' else name}"
    return page_start(title, heading, links.breadcrumbs()) + ICONS + facts + head + up


def listing_rows(asked: ContentRequest, entries: Iterable[tuple[str, CID, int | None]]) -> str:
    """One part of a folder's rows: (name, CID, DAG size in bytes)."""
    links = Links(asked)
    base = escape(asked.url_path)
    rows = ['<div class="part" role="rowgroup">']
    for name, cid, tsize in entries:
        kind = icon(name, cid)
        cid_text = str(cid)
        size = "" if tsize is None else human_size(tsize)
        rows.append(
            f'<div class="row" role="row"><span class="name" role="cell"><svg class="{kind}" '
            f'aria-hidden="true"><use href="#i-{kind}"/></svg>'
            f'<a href="{base}/{escape(encode_segment(name))}">{text(name)}</a></span>'
            f'<span role="cell">{links.by_cid(cid_text, name)}{short_cid(cid_text)}</a></span>'
            f'<span class="size" role="cell">{size}</span></div>'
        )
    rows.append("</div>")
    return "".join(rows)


def listing_end(count: int, *, complete: bool) -> str:
    """The end of a folder's page."""
    empty = '<p class="empty">This folder is empty.</p>' if count == 0 else ""
    if complete:
        note = f"{count:,} {'entry' if count == 1 else 'entries'}. "
    else:
        note = f"The first {count:,} entries. Download the folder to see the rest. "
    return f"{empty}</div>" + page_end(note + "Sizes are those of the stored blocks. Served by Holdfast.")


def icon(name: str, cid: CID) -> str:
    """Which picture stands before a name. A guess: looking would cost a block read per entry."""
    kind = mime.by_name(name)
    if kind is None:
        return "d" if cid.codec == DAG_PB and "." not in name[1:] else "f"
    main, _, sub = kind.partition("/")
    if any(word in sub for word in _ARCHIVES):
        return "z"
    if main == "application":
        return "t" if any(word in sub for word in ("json", "xml", "pdf", "yaml")) else "f"
    return _ICON_OF_TYPE.get(main, "f")


def preview(asked: ContentRequest, cid: CID, codec_name: str, size_bytes: int, shown: str) -> str:
    """A dag-json or dag-cbor node; `shown` is HTML with its links."""
    here = escape(asked.url_path)
    facts = (
        f'<p class="facts"><span>{escape(codec_name)} node, {human_size(size_bytes)}</span>'
        f'<a href="{here}?format={escape(codec_name)}&amp;download=true">Download as {escape(codec_name)}</a>'
        f'<a href="{here}?format=raw">Block</a><a href="{here}?format=car">CAR</a></p>'
    )
    start = page_start(f"{codec_name} {cid}", f"{codec_name} node", Links(asked).breadcrumbs())
    return f'{start}{facts}<div class="card"><pre>{shown}</pre></div>{page_end("Served by Holdfast.")}'


def welcome() -> str:
    """The page at `/`."""
    return (
        page_start("Holdfast gateway", "Holdfast gateway", "Content by its own address")
        + '<div class="card error"><p>This server gives content by its CID. Put one behind '
        "<code>/ipfs/</code>, or a name behind <code>/ipns/</code>:</p>"
        "<ul><li><code>/ipfs/CID</code></li><li><code>/ipfs/CID/path/to/file</code></li>"
        "<li><code>/ipns/NAME</code></li></ul></div>" + page_end("Served by Holdfast.")
    )
