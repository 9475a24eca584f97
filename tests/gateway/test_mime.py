"""Content types: by a file's name, and by how its content begins (WHATWG MIME Sniffing)."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.formats import mime
from gateway.formats.mime_names import BY_ENDING


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("a.txt", "text/plain; charset=utf-8"),
        ("a.JSON", "application/json"),
        ("x.svg", "image/svg+xml"),
        ("m.mjs", "text/javascript; charset=utf-8"),
        ("v.mp4", "video/mp4"),
        ("archive.tar.gz", "application/gzip"),
        ("a.HTM", "text/html; charset=utf-8"),
        ("x.wasm", "application/wasm"),
        ("x.avif", "image/avif"),
        ("film.mkv", "video/x-matroska"),
        ("list.m3u8", "application/vnd.apple.mpegurl"),
        ("a.b.webmanifest", "application/manifest+json"),
        ("x.car", "application/vnd.ipld.car"),
        ("main.rs", "text/plain; charset=utf-8"),
        (".json", "application/json"),
        # TypeScript or a part of a film: only the content tells.
        ("part.ts", None),
        ("no-ending", None),
        ("ending.", None),
        ("strange.ending", None),
    ],
)
def test_types_by_name(name: str, kind: str | None) -> None:
    assert mime.by_name(name) == kind


@pytest.mark.parametrize(
    ("start", "kind"),
    [
        (b"", "text/plain; charset=utf-8"),
        (b"\x89PNG\r\n\x1a\n....", "image/png"),
        (b"RIFF\0\0\0\0WEBPVP8 ", "image/webp"),
        (b"\0\0\0\x20ftypavif", "image/avif"),
        (b"\0\0\0\x20ftypisom", "video/mp4"),
        (b"  <!DOCTYPE HTML><title>", "text/html; charset=utf-8"),
        (b"<?xml version='1.0'?><svg xmlns=", "image/svg+xml"),
        (b"<?xml version='1.0'?><a/>", "text/xml; charset=utf-8"),
        (b' {"a": 1}', "application/json"),
        (b"[[{}]]", "application/json"),
        (b"[1] a footnote", "text/plain; charset=utf-8"),
        ("grüße".encode(), "text/plain; charset=utf-8"),
        (b"a" * 511 + "ü".encode()[:1], "text/plain; charset=utf-8"),
        (b"a" * 510 + b"\xc3a", "text/plain"),
        (b"<p>x", "text/html; charset=utf-8"),
        (b"<pre>x", "text/plain; charset=utf-8"),
        (b"<!-- a page --><title>x", "text/html; charset=utf-8"),
        (b"<!-- a picture --><svg xmlns='x'>", "image/svg+xml"),
        (b"<svg viewBox='0 0 1 1'>", "image/svg+xml"),
        (b"a <script>alert(1)</script>", "text/plain; charset=utf-8"),
        (b"[" * 2000, "text/plain; charset=utf-8"),
        (b"[[[1", "text/plain; charset=utf-8"),
        (b"BMW is a maker of cars", "text/plain; charset=utf-8"),
        (b"BM" + bytes(4) + bytes(4) + b"\x36\0", "image/bmp"),
        (b"BZh91AY&SY", "application/x-bzip2"),
        (b"\x1aE\xdf\xa3....B\x82\x84webm", "video/webm"),
        (b"\x1aE\xdf\xa3....B\x82\x88matroska", "video/x-matroska"),
        (b"OggS\0" + bytes(23) + b"\x01vorbis", "audio/ogg"),
        (b"OggS\0" + bytes(23) + b"\x80theora", "video/ogg"),
        (b"\0\0\0\x20ftypM4A ", "audio/mp4"),
        (b"PK\x03\x04" + bytes(26) + b"x", "application/zip"),
        (
            b"PK\x03\x04" + bytes(18) + b"\x14\0\0\0\x08\0\0\0mimetypeapplication/epub+zipPK",
            "application/epub+zip",
        ),
        (b"G" + bytes(187) + b"G" + bytes(100), "video/mp2t"),
        (b"#EXTM3U\n#EXT-X-VERSION:3", "application/vnd.apple.mpegurl"),
        (b"WEBVTT\n\n00:00", "text/vtt; charset=utf-8"),
        (b"\x3a\xa2eroots\x81", "application/vnd.ipld.car"),
        (b"\x7fELF\x02\x01\x01\0", "application/octet-stream"),
        ("Größe".encode("latin-1"), "text/plain"),
        (b"\xff\xfea\0", "text/plain; charset=utf-16"),
        (b"a\0b", "application/octet-stream"),
    ],
)
def test_types_by_content(start: bytes, kind: str) -> None:
    assert mime.by_content(start) == kind


@pytest.mark.parametrize(
    ("page", "kind"),
    [
        (b"<h1>plain", "text/html; charset=utf-8"),
        (b"<meta charset=utf-8><p>\xc3\xbc", "text/html; charset=utf-8"),
        # The header would win over what the page says of itself, so it says nothing there.
        (b"<meta charset='windows-1251'><p>\xe0", "text/html"),
        (b'<META http-equiv=content-type content="text/html; charset=Shift_JIS">', "text/html"),
        (b"<p>gr\xfc\xdfe", "text/html"),
        (b"", "text/html; charset=utf-8"),
    ],
)
def test_pages_in_old_encodings_are_left_to_say_so(page: bytes, kind: str) -> None:
    assert mime.html_type(page) == kind


def test_the_table_is_well_formed() -> None:
    for ending, kind in BY_ENDING.items():
        assert ending == ending.lower().strip(".")
        main, slash, sub = kind.partition("/")
        assert main in ("application", "audio", "font", "image", "message", "model", "text", "video")
        assert slash
        assert sub
    assert len(BY_ENDING) > 250


@settings(max_examples=200)
@given(st.binary(max_size=300))
def test_any_content_has_a_type(start: bytes) -> None:
    assert "/" in mime.by_content(start)
