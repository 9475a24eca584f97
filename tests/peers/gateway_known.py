"""The differences from boxo's gateway that are meant: the rows of the table in docs/gateway.md.

Each says by request and answers where it explains a difference. What none explains is a fault of either.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from urllib.parse import parse_qs, unquote

from tests.peers.gateway_answers import HEADERS, Answer
from tests.peers.gateway_content import UNKNOWN_NAME, Content
from tests.peers.gateway_requests import (
    FORMATS,
    MEDIA_TYPES,
    PATHS,
    SUBDOMAINS,
    TRUSTLESS,
    Request,
    subdomain_label,
)

DATA = ("json", "cbor", "dag-json", "dag-cbor")
BASES = ("base32", "base36", "base58btc", "base16", "base64url", "base32upper")
UNREADABLE = (
    "broken dag-pb",
    "broken dag-cbor",
    "broken dag-json",
    "git",
    "key",
    "dag-pb of words",
    "dag-pb without UnixFS",
)
NODES = ("dag-cbor", "dag-json", "json", "cbor", "scalar", "identity dag-cbor")
MISSING = ("lacking", "missing raw", "missing dag-pb", "missing dag-cbor")
RANGE = re.compile(r"(?i)bytes=(?:\d+-\d*|-\d+)(?:, *(?:\d+-\d*|-\d+))*")
BACKWARDS = re.compile(r"(\d+)-(\d+)")
CONDITIONS = ("If-None-Match", "If-Modified-Since", "If-Match", "If-Unmodified-Since")
STATUS = ("status",)
BODY = ("body", "whole", "Content-Type", "Content-Range", "Content-Length", "Accept-Ranges")
ALL = (*BODY, *STATUS, *HEADERS, "blocks", "order", "entries", "links")


@dataclass(frozen=True)
class Case:
    """What was asked, of what, and both answers."""

    content: Content
    request: Request
    ours: Answer
    theirs: Answer

    @property
    def statuses(self) -> tuple[int, int]:
        return self.ours.status, self.theirs.status

    @cached_property
    def query(self) -> Mapping[str, list[str]]:
        return parse_qs(self.request.target.partition("?")[2], keep_blank_values=True)

    @cached_property
    def path(self) -> str:
        return unquote(self.request.target.partition("?")[0])

    @property
    def host(self) -> str:
        return self.request.header("X-Forwarded-Host") or self.request.header("Host")

    @property
    def format(self) -> str:
        return self.query.get("format", [""])[0]

    @property
    def accept(self) -> str:
        return self.request.header("Accept")

    @property
    def range(self) -> str:
        return self.request.header("Range")

    @property
    def is_range(self) -> bool:
        """Whether the Range is one by its grammar."""
        backwards = any(int(first) > int(last) for first, last in BACKWARDS.findall(self.range))
        return RANGE.fullmatch(self.range) is not None and not backwards

    @property
    def mutable(self) -> bool:
        """Whether it is content behind a name."""
        return ".ipfs." not in self.host if self.is_site else self.path.startswith("/ipns/")

    @property
    def is_site(self) -> bool:
        """Whether the host is the origin of what it serves, where `_redirects` counts."""
        return self.host.partition(":")[0] not in (PATHS, SUBDOMAINS, TRUSTLESS)

    def asks_for(self, *names: str) -> bool:
        """Whether the URL names one of these formats, or Accept does where it names none."""
        if self.format in FORMATS:
            return self.format in names
        return any(kind in self.accept for name, kind in MEDIA_TYPES.items() if name in names)

    @property
    def repeats(self) -> bool:
        """Whether a CAR with a block at every place where it is met is asked for."""
        return self.query.get("car-dups") == ["y"] or "dups=y" in self.accept

    @property
    def weighs(self) -> bool:
        """Whether Accept decides, and says more than one type."""
        return (
            self.format not in FORMATS
            and "application/" in self.accept
            and any(mark in self.accept for mark in (",", ";", "other", "zip"))
        )

    @cached_property
    def root(self) -> str:
        """Which of the roots is asked for, "" for none of them or a name."""
        label, _, namespace = self.host.partition(".")
        text = label if namespace.startswith("ipfs.") else "".join(self.path.split("/")[2:3])
        for name, cid in self.content.roots.items():
            if text == str(cid) or text in (cid.to_v1().encode(base) for base in BASES):
                return name
        return ""


@dataclass(frozen=True, slots=True)
class Known:
    """A row, the fields that it may explain, and when it does."""

    row: str
    fields: tuple[str, ...]
    when: Callable[[Case], bool]


def _is_other_form(case: Case) -> bool:
    label = case.host.partition(".")[0]
    if ".ipfs." in case.host and case.root:
        return label != subdomain_label(case.content.roots[case.root])
    return case.path.startswith("/ipns/")


KNOWN = (
    Known("methods", STATUS, lambda case: case.ours.status in (204, 405)),
    Known("two faults", STATUS, lambda case: 400 <= case.ours.status < 500 and case.theirs.status >= 400),
    Known("Service workers", STATUS, lambda case: case.request.header("Service-Worker") != ""),
    Known("no Range", STATUS, lambda case: case.range != "" and not case.is_range),
    Known("several ranges", ALL, lambda case: "," in case.range and case.statuses[0] in (200, 206)),
    Known(
        "the last bytes",
        STATUS,
        lambda case: (
            case.range.startswith("bytes=-")
            and case.ours.status in (200, 206, 416)
            and case.theirs.status in (206, 400, 500)
        ),
    ),
    Known(
        "If-Range", (*BODY, *STATUS), lambda case: case.request.header("If-Range") != "" and case.range != ""
    ),
    Known(
        "conditions",
        STATUS,
        lambda case: (
            any(map(case.request.header, CONDITIONS))
            and case.theirs.status in (304, 412)
            and case.ours.status >= 300
        ),
    ),
    Known(
        "If-Match of a CAR",
        STATUS,
        lambda case: case.ours.status == 412 and case.request.header("If-Match") != "",
    ),
    Known("only-if-cached", ALL, lambda case: "only-if-cached" in case.request.header("Cache-Control")),
    Known(
        "a stray %",
        STATUS,
        lambda case: "%" in case.path and case.theirs.status == 400,
    ),
    Known("a stray %", ("Access-Control-Allow-Origin",), lambda case: "%" in case.path),
    Known("`/ipfs/?uri=`", STATUS, lambda case: "?uri=" in case.request.target and case.is_site),
    Known("two slashes", (*STATUS, "Location"), lambda case: "//" in case.path),
    Known("fragments", ALL, lambda case: "#" in case.request.target),
    Known("Accept", ALL, lambda case: case.weighs),
    Known("Accept", STATUS, lambda case: ";version" in case.accept),
    Known("unknown formats", ALL, lambda case: case.format != "" and case.format not in FORMATS),
    Known("JSON and CBOR", STATUS, lambda case: case.ours.status == 406 and case.asks_for(*DATA)),
    Known("JSON and CBOR", ("Etag", "Content-Type"), lambda case: case.asks_for("json")),
    Known(
        "entity-bytes",
        (*STATUS, "blocks"),
        lambda case: "entity-bytes" in case.query and case.ours.status in (200, 400),
    ),
    Known(
        "CARs of what is missing", STATUS, lambda case: case.asks_for("car") and case.statuses == (404, 200)
    ),
    Known("repeats in CARs", ("blocks",), lambda case: case.repeats and case.root in NODES),
    Known("names of CARs", ("Content-Disposition",), lambda case: case.asks_for("car")),
    Known("names in TARs", ("entries",), lambda case: case.asks_for("tar") and case.ours.whole),
    Known(
        "symbolic links",
        (*STATUS, *BODY),
        lambda case: (
            "inode/symlink" in (case.ours.media_type, case.theirs.media_type)
            or (case.statuses == (406, 200) and case.asks_for("tar"))
        ),
    ),
    Known(
        "pages of nodes",
        ("links", "Cache-Control", *STATUS),
        lambda case: (
            "text/html" in case.accept and case.ours.status == 200 and case.root in (*NODES, *UNREADABLE)
        ),
    ),
    Known("Last-Modified", ("Last-Modified",), lambda case: case.mutable),
    Known(
        "Last-Modified",
        STATUS,
        lambda case: (
            case.mutable
            and any(case.request.header(f"If-{state}-Since") for state in ("Modified", "Unmodified"))
            and case.theirs.status in (304, 412)
        ),
    ),
    Known(
        "download",
        ("Content-Disposition",),
        lambda case: "download" in case.query or "/" in "".join(case.query.get("filename", ())),
    ),
    Known("Content-Location", ("Content-Location",), lambda case: case.accept != ""),
    Known("X-Ipfs-Roots", ("X-Ipfs-Roots",), lambda case: case.mutable),
    Known("X-Ipfs-Path", ("X-Ipfs-Path",), lambda case: not case.path.isascii()),
    Known("Location", ("Location",), lambda case: "%25" in case.theirs.header("Location")),
    Known("types", ("Content-Type",), lambda case: case.range != "" or case.is_site),
    Known(
        "dots and NUL",
        STATUS,
        lambda case: (
            case.ours.status == 400
            and (not {".", ".."}.isdisjoint(case.path.split("/")) or "\0" in case.path)
        ),
    ),
    Known("unreadable blocks", ALL, lambda case: case.root in UNREADABLE),
    Known("paths into values", STATUS, lambda case: case.ours.status in (404, 501) and case.root in NODES),
    Known("places in lists", ALL, lambda case: not {"01", "-1"}.isdisjoint(case.path.split("/"))),
    Known("places in lists", STATUS, lambda case: "/list/" in case.path and case.theirs.status == 500),
    Known(
        "missing blocks",
        STATUS,
        lambda case: case.ours.status == 404 and (case.root in MISSING or "/lacking" in case.path),
    ),
    Known(
        "streams that fail",
        ("whole", "entries", "blocks", "order"),
        lambda case: not case.ours.whole and case.asks_for("car", "tar"),
    ),
    Known(
        "other forms of CIDs and keys",
        ALL,
        lambda case: case.ours.status in (301, 302) and _is_other_form(case),
    ),
    Known("other forms of CIDs and keys", ("X-Ipfs-Path",), lambda case: case.host != case.host.lower()),
    Known(
        "the first page", STATUS, lambda case: case.host.startswith(SUBDOMAINS) and case.theirs.status == 404
    ),
    Known("names without a DNSLink", ("Location",), lambda case: UNKNOWN_NAME in case.path),
)


def explain(case: Case, field: str) -> str | None:
    """The row that says why a field differs; None if none does."""
    return next((known.row for known in KNOWN if field in known.fields and known.when(case)), None)
