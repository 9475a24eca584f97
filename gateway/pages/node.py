"""The HTML of the page about one node: its CID in all forms, what it holds, its links."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from gateway.addresses.request import ContentRequest, encode_segment
from gateway.pages.frame import (
    Links,
    copy_button,
    human_size,
    icon,
    key_help,
    mode_text,
    page_end,
    page_start,
    short_cid,
    text,
    time_tag,
)
from gateway.pages.preview import DUMPED_BYTES, dump_page, value_page
from merkledag import codecs, multihash
from merkledag.cid import CID
from merkledag.dag_pb import PBLink
from merkledag.unixfs import Data, Kind

LINKS_A_PAGE = 500

_KINDS = {
    Kind.RAW: "file part (raw)", Kind.DIRECTORY: "folder", Kind.FILE: "file", Kind.METADATA: "metadata",
    Kind.SYMLINK: "symbolic link", Kind.HAMT: "part of a large folder (HAMT)",
}  # fmt: skip
_FIRST = {Kind.DIRECTORY: "d", Kind.HAMT: "d", Kind.SYMLINK: "l"}  # as `ls -l` writes
_KEYS = (("o", "open the content itself"), ("n p", "next and previous page"), ("c", "copy the CID"))


class NodePage:
    """Collects what is told about a node, section by section, and makes the page of it."""

    def __init__(self, asked: ContentRequest, cid: CID, number: int, remainder: tuple[str, ...]) -> None:
        self._asked = asked
        self._cid = cid
        self._number = number
        self._remainder = remainder
        self._links = Links(asked)
        self._base = escape(asked.url_path)
        self._sections: list[str] = []
        self._pages = number
        self._is_content = cid.codec == codecs.RAW

    def cid(self, block_bytes: int) -> None:
        """What the CID says."""
        cid = self._cid
        digest = cid.digest
        rows = [("CID", _copyable(str(cid)))]
        one = cid.to_v1()
        for base in ("base32", "base36", "base58btc"):
            form = one.encode(base)
            if form != str(cid):
                rows.append((f"CIDv1, {base}", _copyable(form)))
        if cid.version == 1 and cid.codec == codecs.DAG_PB and cid.multihash[:2] == b"\x12\x20":
            rows.append(("CIDv0", _copyable(str(CID(0, codecs.DAG_PB, cid.multihash)))))
        rows += [
            ("Version", str(cid.version)),
            ("Codec", f"{escape(codecs.name(cid.codec))} <span class=soft>0x{cid.codec:x}</span>"),
            (
                "Hash",
                f"{escape(multihash.name(cid.hash_code))} <span class=soft>0x{cid.hash_code:x}, "
                f"{len(digest)} bytes</span>",
            ),
            ("Digest", f"<code>{digest.hex()}</code>"),
            ("Block", _bytes_text(block_bytes)),
        ]
        self._list("Identity", rows)

    def unixfs(self, message: Data, links: int) -> None:
        """What a UnixFS message says."""
        self._is_content = True
        rows = [("Type", _KINDS[message.kind])]
        if message.filesize is not None:
            rows.append(("Size", _bytes_text(message.filesize)))
        if message.kind is Kind.SYMLINK:
            target = (message.data or b"").decode("utf-8", "surrogateescape")
            rows.append(("Target", f"<code>{text(target)}</code>"))
        elif message.kind is Kind.HAMT:
            rows.append(("Fanout", f"{message.fanout or 0:,}"))
            rows.append(("Hash of names", f"0x{message.hash_type or 0:x}"))
        elif message.data:
            rows.append(("Data in this block", f"{len(message.data):,} bytes"))
        if message.blocksizes:
            rows.append(("Parts", f"{links:,}"))
        if message.mode is not None:
            rows.append(
                (
                    "Mode",
                    f"<code>{mode_text(message.mode, _FIRST.get(message.kind, '-'))}</code> "
                    f"<span class=soft>0{message.mode & 0o7777:o}</span>",
                )
            )
        if message.mtime is not None:
            rows.append(("Modified", f"{time_tag(message.mtime)} UTC"))
        self._list("UnixFS", rows)

    def links(self, links: Sequence[PBLink]) -> None:
        """The links of a dag-pb node."""
        if not links:
            return
        first = (self._number - 1) * LINKS_A_PAGE
        rows = []
        for at, link in enumerate(links[first : first + LINKS_A_PAGE], first):
            cid = str(link.cid)
            size = "" if link.tsize is None else human_size(link.tsize)
            name = '<span class="soft">–</span>' if link.name is None else f"<bdi>{text(link.name)}</bdi>"
            rows.append(
                f'<tr><td class="s">{at:,}</td><td>{name}</td>'
                f'<td class="c"><a class="ipfs-hash" translate="no" '
                f'href="{self._links.inspect(cid)}">{short_cid(cid)}</a>{copy_button(cid)}</td>'
                f'<td class="s">{size}</td></tr>'
            )
        if rows:
            self._section(
                f"{len(links):,} {'link' if len(links) == 1 else 'links'}",
                '<table class="links"><thead><tr><th class="s" scope="col">#</th><th scope="col">Name</th>'
                '<th class="c" scope="col">CID</th><th class="s" scope="col">Size</th></tr></thead>'
                f"<tbody>{''.join(rows)}</tbody></table>",
            )
        self._pages = max(self._pages, -(-len(links) // LINKS_A_PAGE))

    def value(self, value: object) -> None:
        """The decoded value, or the part of it that the path leads to."""
        lines, more = value_page(value, self._links, self._base, self._number)
        title = "/".join(map(text, self._remainder)) or "Value"
        if lines:
            self._section(title, f"<pre>{lines}</pre>")
        self._pages = max(self._pages, self._number + more)

    def bytes(self, title: str, data: bytes) -> None:
        """Bytes, dumped."""
        if not data:
            return
        dump = dump_page(data, self._number)
        if dump:
            self._section(title, f'<pre class="hex" tabindex="0">{dump}</pre>')
        self._pages = max(self._pages, -(-len(data) // DUMPED_BYTES))

    def problem(self, message: str) -> None:
        """Why something is not shown."""
        self._sections.append(f'<p class="note">{text(message)}</p>')

    def html(self) -> str:
        """The whole page."""
        codec = codecs.name(self._cid.codec)
        title = f"{codec} {self._cid}"
        actions = [
            f'<a class="btn" href="{self._base}?format=raw">{icon("s")}Raw block</a>',
            f'<a class="btn" href="{self._base}?format=car">{icon("s")}CAR</a>',
        ]
        if self._is_content:
            actions.insert(0, f'<a class="btn" data-key="o" href="{self._base}">{icon("f")}Open</a>')
        elif codec in ("dag-json", "dag-cbor", "json", "cbor"):
            saved = f"{self._base}?format={codec}&amp;download=true"
            actions.insert(0, f'<a class="btn" href="{saved}">{icon("s")}{codec}</a>')
        whole = self._whole_value()
        return (
            page_start(title, f"{codec} node", self._links.breadcrumbs())
            + f'<div class="acts">{"".join(actions)}{whole}</div>'
            + "".join(self._sections)
            + self._pager()
            + page_end("<p>Served by Holdfast.</p>" + key_help(*_KEYS))
        )

    def _whole_value(self) -> str:
        if not self._remainder:
            return ""
        segments = self._asked.segments[: len(self._asked.segments) - len(self._remainder)]
        path = escape(self._asked.base + "".join("/" + encode_segment(each) for each in segments))
        return f'<a class="btn" data-key="u" href="{path}?inspect=node">{icon("u")}The whole node</a>'

    def _pager(self) -> str:
        if self._pages == 1:
            return ""
        parts = []
        for key, word, number in (("p", "← Previous", self._number - 1), ("n", "Next →", self._number + 1)):
            if 1 <= number <= self._pages:
                parts.append(
                    f'<a class="btn" data-key="{key}" href="?inspect=node&amp;page={number}">{word}</a>'
                )
        return (
            f'<nav class="pager" aria-label="Pages">{"".join(parts)}<span>Page {self._number:,}</span></nav>'
        )

    def _list(self, title: str, rows: Sequence[tuple[str, str]]) -> None:
        inner = "".join(f"<dt>{name}</dt><dd>{value}</dd>" for name, value in rows)
        self._section(title, f'<div class="box"><dl>{inner}</dl></div>')

    def _section(self, title: str, inner: str) -> None:
        self._sections.append(f'<h2 class="sec">{title}</h2><div class="card">{inner}</div>')


def _copyable(value: str) -> str:
    return f'<code translate="no">{value}</code>{copy_button(value, "Copy")}'


def _bytes_text(size_bytes: int) -> str:
    if size_bytes < 1024:
        return f"{size_bytes} bytes"
    return f"{human_size(size_bytes)} <span class=soft>{size_bytes:,} bytes</span>"
