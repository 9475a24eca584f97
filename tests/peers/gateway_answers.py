"""Asks two gateways over sockets, and says in which fields their answers differ."""

from __future__ import annotations

import hashlib
import http.client
import io
import re
import socket
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass
from html.parser import HTMLParser
from http import HTTPStatus
from itertools import groupby
from urllib.parse import parse_qsl, unquote, urlencode, urljoin, urlsplit

from merkledag import car
from merkledag.block import Block
from merkledag.errors import MerkledagError
from tests.peers.gateway_requests import Request

TIMEOUT_S = 60
UNKNOWN_DATE = "Tue, 02 Jan 2024 00:00:00 GMT"  # where no Last-Modified was sent
# What specifications name; the rest is each gateway's own affair.
HEADERS = (
    "Accept-Ranges",
    "Access-Control-Allow-Headers",
    "Access-Control-Allow-Methods",
    "Access-Control-Allow-Origin",
    "Access-Control-Expose-Headers",
    "Allow",
    "Cache-Control",
    "Content-Disposition",
    "Content-Length",
    "Content-Location",
    "Content-Range",
    "Content-Type",
    "Etag",
    "Last-Modified",
    "Location",
    "Vary",
    "X-Content-Type-Options",
    "X-Ipfs-Path",
    "X-Ipfs-Roots",
)
REDIRECT, NOT_MODIFIED, ERROR = 300, 304, 400
OF_REDIRECTS = ("Access-Control-Allow-Origin", "Location")
OF_UNCHANGED = ("Access-Control-Allow-Origin", "Cache-Control", "Content-Location", "Etag")
OF_ERRORS = ("Access-Control-Allow-Origin", "Allow", "Content-Range")  # the rest is about a page or message
# Of these we may name more than they do, not less.
SETS = (
    "Access-Control-Allow-Headers",
    "Access-Control-Allow-Methods",
    "Access-Control-Expose-Headers",
    "Allow",
    "Vary",
    "X-Content-Type-Options",
)
STREAMED = (
    "application/vnd.ipld.car",
    "application/x-tar",
    "multipart/byteranges",
)  # of a length not known before
OPAQUE_TAGS = (
    "application/vnd.ipld.car",
    "application/vnd.ipfs.ipns-record",
)  # made in each gateway's own way
OWN_TAG = re.compile(r'^"(Dir|Dag)Index-.*CID-([^"]*)"$')


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back; `whole` is False where the body ended before its end."""

    status: int
    headers: Mapping[str, str]  # names in lower case
    body: bytes
    whole: bool

    def header(self, name: str) -> str:
        return self.headers.get(name.lower(), "")

    @property
    def media_type(self) -> str:
        """Without parameters."""
        return self.header("Content-Type").partition(";")[0].strip().lower()


Headers = tuple[tuple[str, str], ...]


class Server:
    """A connection to one gateway, kept open.

    With `may_hang_up`, it may be closed between two requests without a word, as boxo's is at times.
    """

    def __init__(self, url: str, *, may_hang_up: bool = False) -> None:
        address = urlsplit(url)
        self._address = (address.hostname or "", address.port or 0)
        self._link: socket.socket | None = None
        self._may_hang_up = may_hang_up

    def ask(self, request: Request) -> Answer:
        """The answer, with what the conditions of the request stand for asked before."""
        headers = request.headers
        if any("{" in value for _, value in headers):
            plain = tuple(
                header for header in headers if not header[0].startswith("If-") and header[0] != "Range"
            )
            before = self._send(request.method, request.target, "1.1", plain)
            known = {
                "{etag}": before.header("Etag") or '"none"',
                "{modified}": before.header("Last-Modified") or UNKNOWN_DATE,
            }
            headers = tuple((name, _filled(value, known)) for name, value in headers)
        return self._send(request.method, request.target, request.version, headers)

    def close(self) -> None:
        if self._link is not None:
            self._link.close()
            self._link = None

    def _send(self, method: str, target: str, version: str, headers: Headers) -> Answer:
        lines = [f"{method} {target} HTTP/{version}", *(f"{name}: {value}" for name, value in headers)]
        data = "\r\n".join((*lines, "", "")).encode("latin-1")
        kept = self._link is not None
        try:
            return self._exchange(data, method)
        except (http.client.RemoteDisconnected, ConnectionError):
            self.close()
            if not (kept and self._may_hang_up):
                raise
            return self._exchange(data, method)

    def _exchange(self, data: bytes, method: str) -> Answer:
        if self._link is None:
            self._link = socket.create_connection(self._address, timeout=TIMEOUT_S)
        self._link.sendall(data)
        with http.client.HTTPResponse(self._link, method=method) as response:
            response.begin()
            whole = True
            try:
                body = response.read()
            except (http.client.IncompleteRead, ConnectionError) as error:
                body, whole = getattr(error, "partial", b""), False
            fields: dict[str, str] = {}
            for name, value in response.getheaders():
                fields[name.lower()] = f"{fields[name.lower()]}, {value}" if name.lower() in fields else value
            if response.will_close or not whole:
                self.close()
            return Answer(response.status, fields, body, whole)


def _filled(value: str, known: Mapping[str, str]) -> str:
    for name, told in known.items():
        value = value.replace(name, told)
    return value.replace("W/W/", "W/")


Differences = dict[str, tuple[str, str]]  # ours and theirs, by field


def differences(request: Request, ours: Answer, theirs: Answer) -> Differences:
    """Where two answers to a request are not the same; of two statuses only those."""
    if ours.status != theirs.status:
        return {"status": (str(ours.status), str(theirs.status))}
    fields = {"whole": (str(ours.whole), str(theirs.whole))}
    names: tuple[str, ...] = HEADERS
    if ours.status >= ERROR:
        names = OF_ERRORS
    elif ours.status == NOT_MODIFIED:
        names = tuple(name for name in OF_UNCHANGED if theirs.header(name))  # which it leaves out at times
    elif ours.status >= REDIRECT:
        names = OF_REDIRECTS
    else:
        fields |= {kind: (mine, yours) for kind, mine, yours in _bodies(request, ours, theirs)}
    for name in names:
        if name == "Content-Length" and (_is_page(ours) or ours.media_type in STREAMED):
            continue
        mine, yours = _canonical(name, ours), _canonical(name, theirs)
        if name in SETS:
            mine, yours = _missing(mine, yours), ""
        fields[name] = (mine, yours)
    return {name: pair for name, pair in fields.items() if pair[0] != pair[1]}


def _missing(ours: str, theirs: str) -> str:
    """What the others name in a list and we do not."""
    mine = {item.strip().lower() for item in ours.split(",")}
    return ", ".join(sorted(item.strip() for item in theirs.split(",") if item.strip().lower() not in mine))


def _canonical(name: str, answer: Answer) -> str:
    value = answer.header(name)
    if name == "Etag":
        if value and (answer.media_type in OPAQUE_TAGS or ".car." in value):
            return "a tag"
        return OWN_TAG.sub(r'"\1Index \2"', value)
    if name == "Content-Disposition":
        kind, _, rest = value.partition(";")
        extended = re.search(r"filename\*=UTF-8''([^;]*)", rest)
        quoted = re.search(r'filename="((?:[^"\\]|\\.)*)"', rest)
        if extended:
            return f"{kind} {unquote(extended[1])}"
        return f"{kind} {re.sub(chr(92) * 2 + '(.)', chr(92) + '1', quoted[1])}" if quoted else kind
    if name == "Content-Type":
        return answer.media_type
    if name == "Accept-Ranges" and value == "none":
        return ""
    if name in ("Content-Location", "Location"):
        path, _, query = value.partition("?")
        return f"{path}?{urlencode(sorted(parse_qsl(query, keep_blank_values=True)))}"
    if name == "X-Ipfs-Roots":  # which names a block once, or once for every segment that leads on in it
        return ",".join(cid for cid, _ in groupby(value.split(",")))
    return value


def _is_page(answer: Answer) -> bool:
    return "Index" in answer.header("Etag")


def _bodies(request: Request, ours: Answer, theirs: Answer) -> list[tuple[str, str, str]]:
    """Fields that stand for the bodies."""
    kind = ours.media_type
    if request.method == "HEAD" or kind != theirs.media_type or kind == "multipart/byteranges":
        return []
    if kind == "application/vnd.ipld.car" and ours.status == HTTPStatus.OK:
        mine, yours = _blocks(ours.body), _blocks(theirs.body)
        same = sorted(mine[1:]) == sorted(yours[1:])
        return [("order" if same else "blocks", " ".join(mine), " ".join(yours))]
    if kind == "application/x-tar":
        return [("entries", str(_entries(ours.body)), str(_entries(theirs.body)))]
    if _is_page(ours):
        return [("links", str(_links(request, ours.body)), str(_links(request, theirs.body)))]
    return [("body", _digest(ours.body), _digest(theirs.body))]


def _digest(body: bytes) -> str:
    return f"{len(body)} bytes {hashlib.sha256(body).hexdigest()[:8]}"


def _blocks(body: bytes) -> list[str]:
    """Roots and blocks of a CAR, each verified; how it ends where that is not well."""
    decoder = car.CarDecoder()
    decoder.feed(body)
    found = []
    try:
        while (item := decoder.next()) is not None:
            found.append(str(item.cid) if isinstance(item, Block) else "header")  # whose roots mean nothing
        decoder.finish()
    except MerkledagError as error:
        found.append(type(error).__name__)
    return found


def _entries(body: bytes) -> list[tuple[object, ...]]:
    """Names, kinds, contents of a TAR; how it ends where that is not well."""
    found: list[tuple[object, ...]] = []
    try:
        with tarfile.open(fileobj=io.BytesIO(body)) as archive:
            for entry in archive:
                file = archive.extractfile(entry) if entry.isreg() else None
                content = _digest(file.read()) if file else entry.linkname
                found.append(
                    (
                        entry.name,
                        entry.type,
                        content,
                        entry.mode,
                        int(entry.mtime) if entry.mtime < 1.7e9 else "now",
                    )
                )
    except (tarfile.TarError, EOFError) as error:
        found.append((type(error).__name__,))
    return found


class _Links(HTMLParser):
    """The targets of all links of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found += [value for name, value in attrs if tag == "a" and name == "href" and value]


def _links(request: Request, body: bytes) -> list[str]:
    """Where a page leads below its own path: the entries of a folder."""
    parser = _Links()
    parser.feed(body.decode(errors="replace"))
    here = "//host" + request.target.partition("?")[0]
    places = [urlsplit(urljoin(here, link)) for link in parser.found]
    paths = {unquote(place.path).rstrip("/") for place in places if place.netloc == "host"}
    base = unquote(urlsplit(here).path).rstrip("/") + "/"
    return sorted(path for path in paths if path.startswith(base) and "/" not in path.removeprefix(base))
