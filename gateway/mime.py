"""Content types: by file name, else by the first bytes."""

from __future__ import annotations

import mimetypes

SNIFF_BYTES = 512
OCTETS = "application/octet-stream"

# The system's tables differ from machine to machine; these are settled here. Text has its charset.
_FIXED = {
    ".7z": "application/x-7z-compressed",
    ".aac": "audio/aac",
    ".apng": "image/apng",
    ".avif": "image/avif",
    ".bmp": "image/bmp",
    ".bz2": "application/x-bzip2",
    ".c": "text/plain",
    ".car": "application/vnd.ipld.car",
    ".cbor": "application/cbor",
    ".cfg": "text/plain",
    ".conf": "text/plain",
    ".css": "text/css",
    ".csv": "text/csv",
    ".epub": "application/epub+zip",
    ".flac": "audio/flac",
    ".geojson": "application/geo+json",
    ".gif": "image/gif",
    ".glb": "model/gltf-binary",
    ".gz": "application/gzip",
    ".htm": "text/html",
    ".html": "text/html",
    ".ico": "image/x-icon",
    ".ini": "text/plain",
    ".ipynb": "application/x-ipynb+json",
    ".jpeg": "image/jpeg",
    ".jpg": "image/jpeg",
    ".js": "text/javascript",
    ".json": "application/json",
    ".jsonld": "application/ld+json",
    ".jxl": "image/jxl",
    ".log": "text/plain",
    ".m4a": "audio/mp4",
    ".m4v": "video/mp4",
    ".md": "text/markdown",
    ".mjs": "text/javascript",
    ".mkv": "video/x-matroska",
    ".mov": "video/quicktime",
    ".mp3": "audio/mpeg",
    ".mp4": "video/mp4",
    ".ogg": "audio/ogg",
    ".ogv": "video/ogg",
    ".opus": "audio/ogg",
    ".otf": "font/otf",
    ".pdf": "application/pdf",
    ".png": "image/png",
    ".py": "text/x-python",
    ".rs": "text/plain",
    ".rst": "text/plain",
    ".sh": "text/x-sh",
    ".srt": "text/plain",
    ".svg": "image/svg+xml",
    ".tar": "application/x-tar",
    ".toml": "text/plain",
    ".ts": "text/plain",
    ".tsv": "text/tab-separated-values",
    ".ttf": "font/ttf",
    ".txt": "text/plain",
    ".vtt": "text/vtt",
    ".wasm": "application/wasm",
    ".wav": "audio/wav",
    ".webm": "video/webm",
    ".webmanifest": "application/manifest+json",
    ".webp": "image/webp",
    ".woff": "font/woff",
    ".woff2": "font/woff2",
    ".xhtml": "application/xhtml+xml",
    ".xml": "text/xml",
    ".yaml": "application/yaml",
    ".yml": "application/yaml",
    ".zip": "application/zip",
    ".zst": "application/zstd",
}

_MAGIC: tuple[tuple[int, bytes, str], ...] = (
    (0, b"\x89PNG\r\n\x1a\n", "image/png"),
    (0, b"\xff\xd8\xff", "image/jpeg"),
    (0, b"GIF87a", "image/gif"),
    (0, b"GIF89a", "image/gif"),
    (0, b"%PDF-", "application/pdf"),
    (0, b"PK\x03\x04", "application/zip"),
    (0, b"\x1f\x8b\x08", "application/gzip"),
    (0, b"\x28\xb5\x2f\xfd", "application/zstd"),
    (0, b"BZh", "application/x-bzip2"),
    (0, b"7z\xbc\xaf\x27\x1c", "application/x-7z-compressed"),
    (0, b"\xfd7zXZ\x00", "application/x-xz"),
    (0, b"\x00asm", "application/wasm"),
    (0, b"wOFF", "font/woff"),
    (0, b"wOF2", "font/woff2"),
    (0, b"OTTO", "font/otf"),
    (0, b"\x00\x01\x00\x00\x00", "font/ttf"),
    (0, b"OggS\x00", "audio/ogg"),
    (0, b"fLaC", "audio/flac"),
    (0, b"ID3", "audio/mpeg"),
    (0, b"\xff\xfb", "audio/mpeg"),
    (0, b"\x00\x00\x01\x00", "image/x-icon"),
    (0, b"BM", "image/bmp"),
    (0, b"\x1aE\xdf\xa3", "video/webm"),
    (0, b"\xff\x0a", "image/jxl"),
    (0, b"glTF", "model/gltf-binary"),
    (257, b"ustar", "application/x-tar"),
)

_RIFF = {b"WEBP": "image/webp", b"WAVE": "audio/wav", b"AVI ": "video/x-msvideo"}
_FTYP_IMAGES = {b"avif": "image/avif", b"avis": "image/avif", b"heic": "image/heic", b"mif1": "image/heic"}

_HTML_TAGS = (b"<!doctype html", b"<html", b"<head", b"<body", b"<script", b"<title", b"<h1", b"<div", b"<p>")
_TEXT_CONTROL = frozenset(b"\t\n\x0c\r\x1b")


def by_name(name: str) -> str | None:
    """The type that a file name's ending says, with a charset for text; None if it says nothing."""
    dot = name.rfind(".")
    if dot < 0:
        return None
    ending = name[dot:].lower()
    found = _FIXED.get(ending)
    if found is None:
        found, encoding = mimetypes.types_map.get(ending), mimetypes.encodings_map.get(ending)
        if encoding is not None or found is None:
            return None
    return with_charset(found)


def with_charset(kind: str) -> str:
    """Text types say that they are UTF-8; all others stay."""
    return kind + "; charset=utf-8" if kind.startswith("text/") else kind


def by_content(start: bytes | memoryview) -> str:
    """The type that the first `SNIFF_BYTES` bytes look like (after the WHATWG MIME Sniffing Standard)."""
    head = bytes(start[:SNIFF_BYTES])
    if not head:
        return "text/plain; charset=utf-8"
    for offset, magic, kind in _MAGIC:
        if head.startswith(magic, offset):
            return kind
    if head[:4] == b"RIFF" and head[8:12] in _RIFF:
        return _RIFF[head[8:12]]
    if head[4:8] == b"ftyp":
        return _FTYP_IMAGES.get(head[8:12], "video/quicktime" if head[8:10] == b"qt" else "video/mp4")
    return _text_type(head)


def _text_type(head: bytes) -> str:
    if head.startswith((b"\xfe\xff", b"\xff\xfe")):
        return "text/plain; charset=utf-16"
    if any(byte < 0x20 and byte not in _TEXT_CONTROL for byte in head):
        return OCTETS
    try:
        head.decode()
    except UnicodeDecodeError as error:
        # Only a character cut off by the end of what was read may be incomplete.
        if error.end < len(head) or len(head) < SNIFF_BYTES:
            return OCTETS
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    lower = text[:64].lower()
    if lower.startswith(_HTML_TAGS):
        return "text/html; charset=utf-8"
    if lower.startswith(b"<svg") or (lower.startswith((b"<?xml", b"<!--")) and b"<svg" in text):
        return "image/svg+xml"
    if lower.startswith(b"<?xml"):
        return "text/xml; charset=utf-8"
    if looks_like_json(text):
        return "application/json"
    return "text/plain; charset=utf-8"


def looks_like_json(text: bytes) -> bool:
    """Whether the start of a text can only be a JSON object or array."""
    text = text.lstrip()
    if text[:1] == b"{":
        return text[1:].lstrip()[:1] in (b'"', b"}")
    if text[:1] == b"[":
        rest = text[1:].lstrip()
        return rest[:1] in (b"{", b'"', b"]") or (rest[:1] == b"[" and looks_like_json(rest))
    return False
