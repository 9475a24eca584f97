"""Content types: by file name, else by the first bytes (after the WHATWG MIME Sniffing Standard)."""

from __future__ import annotations

import re

from gateway.formats.mime_names import BY_ENDING

SNIFF_BYTES = 512
OCTETS = "application/octet-stream"
HTML = "text/html"
_UTF8 = "; charset=utf-8"

_MAGIC: tuple[tuple[int, bytes, str], ...] = (
    (0, b"\x89PNG\r\n\x1a\n", "image/png"),
    (0, b"\xff\xd8\xff", "image/jpeg"),
    (0, b"GIF87a", "image/gif"),
    (0, b"GIF89a", "image/gif"),
    (0, b"II*\x00", "image/tiff"),
    (0, b"MM\x00*", "image/tiff"),
    (0, b"8BPS", "image/vnd.adobe.photoshop"),
    (0, b"\x00\x00\x01\x00", "image/x-icon"),
    (0, b"\x00\x00\x02\x00", "image/x-icon"),
    (0, b"\x00\x00\x00\x0cJXL \r\n\x87\n", "image/jxl"),
    (0, b"\xff\x0a", "image/jxl"),
    (0, b"\x00\x00\x00\x0cjP  \r\n\x87\n", "image/jp2"),
    (0, b"%PDF-", "application/pdf"),
    (0, b"%!PS-Adobe-", "application/postscript"),
    (0, b"{\\rtf", "application/rtf"),
    (0, b"\x1f\x8b\x08", "application/gzip"),
    (0, b"\x28\xb5\x2f\xfd", "application/zstd"),
    (0, b"7z\xbc\xaf\x27\x1c", "application/x-7z-compressed"),
    (0, b"\xfd7zXZ\x00", "application/x-xz"),
    (0, b"Rar!\x1a\x07", "application/vnd.rar"),
    (257, b"ustar", "application/x-tar"),
    (0, b"\x00asm", "application/wasm"),
    (0, b"SQLite format 3\x00", "application/vnd.sqlite3"),
    (0, b"PAR1", "application/vnd.apache.parquet"),
    (1, b"\xa2eroots", "application/vnd.ipld.car"),
    (2, b"\xa2eroots", "application/vnd.ipld.car"),
    (0, b"\x0a\xa1gversion\x02", "application/vnd.ipld.car"),
    (0, b"wOFF", "font/woff"),
    (0, b"wOF2", "font/woff2"),
    (0, b"OTTO", "font/otf"),
    (0, b"ttcf", "font/collection"),
    (0, b"\x00\x01\x00\x00\x00", "font/ttf"),
    (0, b"fLaC", "audio/flac"),
    (0, b"MThd", "audio/midi"),
    (0, b"ID3", "audio/mpeg"),
    (0, b"\xff\xfb", "audio/mpeg"),
    (0, b"\xff\xf3", "audio/mpeg"),
    (0, b"\xff\xf2", "audio/mpeg"),
    (0, b"\xff\xf1", "audio/aac"),
    (0, b"\xff\xf9", "audio/aac"),
    (0, b"#!AMR", "audio/amr"),
    (0, b"\x00\x00\x01\xba", "video/mpeg"),
    (0, b"\x00\x00\x01\xb3", "video/mpeg"),
    (0, b"FLV\x01", "video/x-flv"),
    (0, b"\x30\x26\xb2\x75\x8e\x66\xcf\x11", "video/x-ms-asf"),
    (0, b"glTF", "model/gltf-binary"),
)
# Those that a file with a certain first byte can begin with, in their order; most bytes begin few.
_MAGIC_ELSEWHERE = tuple(each for each in _MAGIC if each[0])
_MAGIC_BY_BYTE = {
    first: tuple(each for each in _MAGIC if each[0] or each[1][0] == first)
    for first in {magic[0] for offset, magic, _ in _MAGIC if not offset}
}
# Four bytes at 0, then four at 8.
_CONTAINERS = {
    (b"RIFF", b"WEBP"): "image/webp",
    (b"RIFF", b"WAVE"): "audio/wav",
    (b"RIFF", b"AVI "): "video/x-msvideo",
    (b"FORM", b"AIFF"): "audio/aiff",
    (b"FORM", b"AIFC"): "audio/aiff",
}
_FTYP = {
    b"avif": "image/avif",
    b"avis": "image/avif",
    b"heic": "image/heic",
    b"heix": "image/heic",
    b"mif1": "image/heif",
    b"msf1": "image/heif",
    b"M4A ": "audio/mp4",
    b"M4B ": "audio/mp4",
    b"qt  ": "video/quicktime",
    b"3gp4": "video/3gpp",
    b"3gp5": "video/3gpp",
}
_OGG_AUDIO = (b"\x01vorbis", b"OpusHead", b"\x7fFLAC", b"Speex   ")
_TS_PACKET_BYTES = 188

_HTML_START = re.compile(
    rb"<(?:!doctype html|html|head|script|iframe|h1|div|font|table|a|style|title|b|body|br|p|!--)"
    rb"[ \t\n\x0c\r>]",
    re.IGNORECASE,
)
_META_CHARSET = re.compile(
    rb"<meta\s[^>]{0,200}?charset\s{0,8}=\s{0,8}[\"']?\s{0,8}([\w.:-]{1,40})", re.IGNORECASE
)
_BINARY = re.compile(rb"[\x00-\x08\x0b\x0e-\x1a\x1c-\x1f]")  # what the standard calls binary data bytes


def by_name(name: str) -> str | None:
    """The type that a file name's ending says, with a charset for text; None if it says nothing."""
    _, dot, ending = name.rpartition(".")
    found = BY_ENDING.get(ending.lower()) if dot else None
    return with_charset(found) if found is not None else None


def with_charset(kind: str) -> str:
    """Text types say that they are UTF-8; all others stay."""
    return kind + _UTF8 if kind.startswith("text/") else kind


def html_type(start: bytes) -> str:
    """The type of an HTML file: its charset is left to the page where that says one, or is not UTF-8."""
    head = start[:SNIFF_BYTES]
    declared = _META_CHARSET.search(head)
    if declared is not None and declared[1].lower() not in (b"utf-8", b"utf8"):
        return HTML
    return HTML + _UTF8 if _is_utf8(head) else HTML


def by_content(start: bytes) -> str:
    """The type that the first `SNIFF_BYTES` bytes look like."""
    head = start[:SNIFF_BYTES]
    if not head:
        return "text/plain; charset=utf-8"
    for offset, magic, kind in _MAGIC_BY_BYTE.get(head[0], _MAGIC_ELSEWHERE):
        if head.startswith(magic, offset):
            return kind
    return _container(head) or _text_type(head)


def _container(head: bytes) -> str | None:
    """Types that more than a few fixed bytes tell."""
    found = _CONTAINERS.get((head[:4], head[8:12]))
    if found is not None:
        return found
    if head[4:8] == b"ftyp":
        return _FTYP.get(head[8:12], "video/mp4")
    if head.startswith(b"PK\x03\x04"):
        return _zip_type(head)
    if head.startswith(b"\x1aE\xdf\xa3"):
        return "video/x-matroska" if b"matroska" in head[:64] else "video/webm"
    if head.startswith(b"OggS\x00"):
        if b"\x80theora" in head[:128]:
            return "video/ogg"
        return "audio/ogg" if head[28:].startswith(_OGG_AUDIO) else "application/ogg"
    if head.startswith(b"BM") and head[6:10] == b"\0\0\0\0":
        return "image/bmp"
    if head.startswith(b"BZh") and head[4:10] == b"1AY&SY":
        return "application/x-bzip2"
    if len(head) > _TS_PACKET_BYTES and head[0] == 0x47 == head[_TS_PACKET_BYTES]:
        return "video/mp2t"
    return "application/vnd.ms-fontobject" if head[34:36] == b"LP" and head[8:11] == b"\x01\0\x02" else None


def _zip_type(head: bytes) -> str:
    """EPUB and OpenDocument begin with a stored entry that names their type."""
    size = int.from_bytes(head[22:26], "little")
    if head[30:38] == b"mimetype" and size <= 128:
        kind = head[38 : 38 + size]
        if re.fullmatch(rb"application/[a-z0-9.+-]+", kind):
            return kind.decode()
    return "application/zip"


def _text_type(head: bytes) -> str:
    if head.startswith((b"\xfe\xff", b"\xff\xfe")):
        return "text/plain; charset=utf-16"
    if _BINARY.search(head):
        return OCTETS
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip(b" \t\n\x0c\r")
    if text.startswith(b"<"):
        if b"<svg" in text and text.startswith((b"<svg", b"<?xml", b"<!--", b"<!DOCTYPE svg")):
            return "image/svg+xml"
        if _HTML_START.match(text):
            return html_type(head)
        if text.startswith(b"<?xml"):
            return "text/xml; charset=utf-8" if _is_utf8(head) else "text/xml"
    # A text in another encoding is text all the same; which one, nobody said.
    if not _is_utf8(head):
        return "text/plain"
    if looks_like_json(text):
        return "application/json"
    if text.startswith(b"#EXTM3U"):
        return "application/vnd.apple.mpegurl"
    return "text/vtt; charset=utf-8" if text.startswith(b"WEBVTT") else "text/plain; charset=utf-8"


def _is_utf8(head: bytes) -> bool:
    try:
        head.decode()
    except UnicodeDecodeError as error:
        # Only a character cut off by the end of what was read may be incomplete.
        return len(head) >= SNIFF_BYTES and error.end >= len(head)
    return True


def looks_like_json(text: bytes) -> bool:
    """Whether the start of a text can only be a JSON object or array."""
    text = text.lstrip()
    if text[:1] == b"{":
        return text[1:].lstrip()[:1] in (b'"', b"}")
    rest = text.lstrip(b"[ \t\n\r")
    return text[:1] == b"[" and rest[:1] in (b"{", b'"', b"]")
