"""TAR archives, written: headers in the pax format of POSIX, which every tar program reads."""

from __future__ import annotations

from enum import Enum

from merkledag.unixfs import Mtime

BLOCK_BYTES = 512
END = bytes(2 * BLOCK_BYTES)

_NAME_BYTES = 100
_PREFIX_BYTES = 155
_MAX_OCTAL = 8**11  # of the size and time fields
_PAX_NAME = b"././@PaxHeader"


class Member(Enum):
    """What an entry of an archive is, by its type flag."""

    FILE = b"0"
    SYMLINK = b"2"
    FOLDER = b"5"


def header(
    name: str,
    kind: Member = Member.FILE,
    size_bytes: int = 0,
    *,
    mode: int | None = None,
    mtime: Mtime | None = None,
    target: str = "",
) -> bytes:
    """The header of one entry, a multiple of 512 bytes; a file's content and `padding` follow it.

    `mode` has nine bits (default 0755 for folders, 0644 for files), no `mtime` is 1970, `target` is where a
    symlink leads. What the old fields cannot hold goes into a pax header before: names that are longer or
    not ASCII, sizes of 8 GiB and more, times before 1970, after 2242, or with fractions. Names that are not
    UTF-8 (surrogate escapes) stay raw bytes. Owner and group are root's and have no names.
    """
    raw_name = name.encode("utf-8", "surrogateescape") + (b"/" if kind is Member.FOLDER else b"")
    raw_target = target.encode("utf-8", "surrogateescape")
    pax: list[tuple[bytes, bytes]] = []
    prefix, short = _split(raw_name)
    if short is None or (not raw_name.isascii() and _is_utf8(raw_name)):
        pax.append((b"path", raw_name))
        prefix, short = b"", _plain(raw_name)
    if len(raw_target) > _NAME_BYTES or (not raw_target.isascii() and _is_utf8(raw_target)):
        pax.append((b"linkpath", raw_target))
        raw_target = _plain(raw_target)
    if size_bytes >= _MAX_OCTAL:
        pax.append((b"size", b"%d" % size_bytes))
    when = mtime or Mtime(0)
    if when.nanoseconds or not 0 <= when.seconds < _MAX_OCTAL:
        pax.append((b"mtime", when.decimal.rstrip("0").rstrip(".").encode()))
    if not all(_is_utf8(value) for _, value in pax):
        pax.insert(0, (b"hdrcharset", b"BINARY"))
    if mode is None:
        mode = {Member.FOLDER: 0o755, Member.SYMLINK: 0o777}.get(kind, 0o644)
    main = _ustar(short, kind.value, size_bytes, mode & 0o777, when.seconds, raw_target, prefix)
    if not pax:
        return main
    body = b"".join(_record(key, value) for key, value in pax)
    return _ustar(_PAX_NAME, b"x", len(body), 0o644, 0, b"", b"") + body + padding(len(body)) + main


def padding(size_bytes: int) -> bytes:
    """The zeros after a content of `size_bytes`."""
    return bytes(-size_bytes % BLOCK_BYTES)


def _ustar(
    name: bytes, kind: bytes, size_bytes: int, mode: int, seconds: int, target: bytes, prefix: bytes
) -> bytes:
    """The 512 bytes of POSIX.1-1988; numbers that do not fit are 0 (the pax header has them)."""
    fields = (
        name.ljust(_NAME_BYTES, b"\0"),
        b"%07o\0" % mode,
        b"0000000\0" * 2,
        b"%011o\0" % (size_bytes if size_bytes < _MAX_OCTAL else 0),
        b"%011o\0" % (seconds if 0 <= seconds < _MAX_OCTAL else 0),
        b"        ",  # the checksum counts itself as blanks
        kind,
        target.ljust(_NAME_BYTES, b"\0"),
        b"ustar\x0000",
        bytes(64),  # names of owner and group
        b"0000000\0" * 2,
        prefix.ljust(_PREFIX_BYTES, b"\0"),
        bytes(12),
    )
    block = b"".join(fields)
    return block[:148] + b"%06o\0 " % sum(block) + block[156:]


def _split(name: bytes) -> tuple[bytes, bytes | None]:
    """(prefix, name) as the two fields for a path hold it; the second is None where it does not fit."""
    if len(name) <= _NAME_BYTES:
        return b"", name
    # The name begins after a slash that leaves it at most 100 bytes, and is not empty.
    cut = name.find(b"/", len(name) - _NAME_BYTES - 1, len(name) - 1)
    if 0 < cut <= _PREFIX_BYTES:
        return name[:cut], name[cut + 1 :]
    return b"", None


def _plain(name: bytes) -> bytes:
    """The first bytes of a name in ASCII, for programs that do not know pax headers."""
    return bytes(byte if byte < 0x80 else 0x3F for byte in name[:_NAME_BYTES])


def _is_utf8(raw: bytes) -> bool:
    try:
        raw.decode()
    except UnicodeDecodeError:
        return False
    return True


def _record(key: bytes, value: bytes) -> bytes:
    """`length key=value`, where the length counts its own digits."""
    rest = b" " + key + b"=" + value + b"\n"
    length = len(rest)
    while len(b"%d" % length) + len(rest) != length:
        length = len(b"%d" % length) + len(rest)
    return b"%d" % length + rest
