"""Random requests to a gateway, each from its seed: paths, formats, ranges, conditions, hosts."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import quote

from merkledag.cid import CID
from merkledag.errors import MerkledagError
from tests.peers.gateway_content import BIG, BY_KEY, SITE, UNKNOWN_NAME, Content

SUBDOMAINS = "dweb.test"  # its subdomains are origins
PATHS = "127.0.0.1"
TRUSTLESS = "trustless.test"  # gives only what can be verified
MEDIA_TYPES = {
    "raw": "application/vnd.ipld.raw",
    "car": "application/vnd.ipld.car",
    "tar": "application/x-tar",
    "json": "application/json",
    "cbor": "application/cbor",
    "dag-json": "application/vnd.ipld.dag-json",
    "dag-cbor": "application/vnd.ipld.dag-cbor",
    "ipns-record": "application/vnd.ipfs.ipns-record",
}
FORMATS = tuple(MEDIA_TYPES)
BROWSER = "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8"
DELIMITERS = "!$&'()*+,;=:@"  # may stand in a segment as they are
SLASH = ord("/")


@dataclass(frozen=True, slots=True)
class Request:
    """One request. `{etag}` and `{modified}` in a header stand for what the same server said before."""

    seed: int
    method: str
    target: str
    version: str
    headers: tuple[tuple[str, str], ...]

    @property
    def text(self) -> str:
        """As it is sent, on one line."""
        return " | ".join((f"{self.method} {self.target} HTTP/{self.version}", *map(": ".join, self.headers)))

    def header(self, name: str) -> str:
        """The values of a header, "" if there is none."""
        return ", ".join(value for each, value in self.headers if each.lower() == name.lower())


def random_request(seed: int, content: Content) -> Request:
    return _Maker(random.Random(seed), content).make(seed)


class _Maker:
    """Draws one request."""

    def __init__(self, draw: random.Random, content: Content) -> None:
        self._draw = draw
        self._content = content

    def make(self, seed: int) -> Request:
        host, path = self._place()
        query = "" if "?" in path else self._query()
        headers = [("Host", host), *self._headers()]
        method = self._often("GET", 0.8, lambda: self._one("HEAD", "HEAD", "HEAD", "OPTIONS", "POST", "PUT"))
        version = "1.0" if self._draw.random() < 0.05 else "1.1"
        return Request(seed, method, path + query, version, tuple(headers))

    # -- drawing

    def _one(self, *choices: str) -> str:
        return self._draw.choice(choices)

    def _often(self, usual: str, share: float, otherwise: object) -> str:
        if self._draw.random() < share:
            return usual
        return str(otherwise() if callable(otherwise) else otherwise)

    # -- where

    def _place(self) -> tuple[str, str]:
        """A host and a path."""
        kind = self._draw.random()
        if kind < 0.7:
            return PATHS, self._content_path()
        if kind < 0.73:
            return SUBDOMAINS, self._content_path()
        if kind < 0.76:
            return TRUSTLESS, self._content_path()
        if kind < 0.9:
            root = self._draw.choice(list(self._content.roots))
            label = self._cid_form(self._content.roots[root]) if self._draw.random() < 0.3 else ""
            label = label or subdomain_label(self._content.roots[root])
            port = self._one("", "", ":8080")
            return f"{label}.ipfs.{SUBDOMAINS}{port}", self._below(root) or "/"
        if kind < 0.95:
            name = self._one(*self._content.names, UNKNOWN_NAME)
            label = name.replace("-", "--").replace(".", "-") if self._draw.random() < 0.8 else name
            return f"{label}.ipns.{SUBDOMAINS}", self._below(self._one("tree", "site")) or "/"
        return self._one(SITE, BY_KEY, "deep.example.org"), self._below(self._one("tree", "site")) or "/"

    def _content_path(self) -> str:
        kind = self._draw.random()
        if kind < 0.1:
            name = self._one(*self._content.names, *self._content.key_forms, UNKNOWN_NAME)
            return f"/ipns/{name}{self._below(self._one('tree', 'site', 'sub'))}"
        if kind < 0.13:
            return self._odd_path()
        root = self._draw.choice(list(self._content.roots))
        return f"/ipfs/{self._cid_form(self._content.roots[root])}{self._below(root)}"

    def _odd_path(self) -> str:
        cid = str(self._content.roots["tree"])
        return self._one(
            "/ipfs",
            "/ipfs/",
            "/ipns/",
            "/ipfs//",
            f"/ipfs//{cid}",
            f"/ipfs/ipfs/{cid}/a.txt",
            f"/ipfs/ipns/{SITE}/",
            f"/ipfs/{cid}/ipfs/x",
            "/ipfs/bafy",
            "/ipfs/Qm",
            f"/ipfs/{cid[:-1]}",
            f"/ipfs/{cid.upper()}",
            f"/ipfs/%62{cid[1:]}/a.txt",
            f"/ipfs/?uri=ipfs%3A%2F%2F{cid}%2Fa.txt%3Fq%3D1",
            f"/ipfs/?uri=ipns://{SITE}",
            "/ipfs/?uri=http://example.org/",
            f"/IPFS/{cid}",
            "/ipld/" + cid,
            "/favicon.ico",
            f"/ipfs/{cid}/%",
            f"/ipfs/{cid}/%zz",
            f"/ipfs/{cid}/a%00b",
            f"/ipfs/{cid}/%ff",
            f"/ipfs/{cid}/sub%2Fdeep/x",
            f"/ipfs/{cid}/sub//deep/x",
            f"/ipfs/{cid}/./a.txt",
            f"/ipfs/{cid}/sub/../a.txt",
            f"/ipfs/{cid}/../{cid}/a.txt",
            f"/ipfs/{cid}/..%2f..",
            f"/ipfs/{cid}//",
            f"/ipfs/{cid}/a.txt?",
            f"/ipfs/{cid}/a.txt#part",
        )

    def _cid_form(self, cid: CID) -> str:
        if self._draw.random() < 0.93:
            return str(cid)
        base = self._one("base36", "base58btc", "base16", "base64url", "base32upper", "v1")
        try:
            return str(cid.to_v1()) if base == "v1" else cid.to_v1().encode(base)
        except (MerkledagError, ValueError):
            return str(cid)

    def _below(self, root: str) -> str:
        path = self._draw.choice(self._content.paths.get(root, ("",)))
        if self._draw.random() < 0.12:
            more = self._one(
                "nothing",
                "nothing/at/all",
                "a.txt",
                "index.html",
                "0",
                "old",
                "moved/first",
                "gone/x",
                "law",
                "lost/y",
            )
            path = f"{path}/{more}" if path else more
        quoted = self._quoted(path)
        slash = "/" if self._draw.random() < 0.3 else ""
        return f"/{quoted}{slash}" if quoted else slash

    def _quoted(self, path: str) -> str:
        style = self._draw.random()
        if style < 0.85:
            return quote(path, safe="/" + DELIMITERS)
        if style < 0.95:
            return quote(path, safe="/")
        plain = {byte for byte in range(128) if chr(byte).isalnum()}
        return "".join(
            chr(byte) if byte == SLASH or (byte in plain and self._draw.random() < 0.7) else f"%{byte:02x}"
            for byte in path.encode()
        )

    # -- what of it

    def _query(self) -> str:
        parts: list[str] = []
        wants = self._draw.random()
        if wants < 0.45:
            name = self._often(
                self._one(*FORMATS, "car", "raw"), 0.95, lambda: self._one("zip", "", "RAW", "html")
            )
            parts.append(f"format={name}")
            if name == "car" or self._draw.random() < 0.1:
                parts += self._car_parameters()
        if self._draw.random() < 0.1:
            parts.append(
                "filename="
                + self._one("x.txt", "a%20b.pdf", "%C5%BA%C3%B3.html", "x", "", "..%2Fx", "q%22%27.png")
            )
        if self._draw.random() < 0.08:
            parts.append("download=" + self._one("true", "true", "false", "1"))
        if self._draw.random() < 0.03:
            parts.append(self._one("x=y", "a=%zz", "&", "=", "sort=size", "x=1;y=2"))
        self._draw.shuffle(parts)
        return "?" + "&".join(parts) if parts else ""

    def _car_parameters(self) -> list[str]:
        parts = []
        if self._draw.random() < 0.6:
            parts.append("dag-scope=" + self._one("block", "entity", "all", "all", "entity", "some"))
        if self._draw.random() < 0.3:
            parts.append("entity-bytes=" + self._entity_bytes())
        if self._draw.random() < 0.15:
            parts.append("car-version=" + self._one("1", "1", "2", "x"))
        if self._draw.random() < 0.15:
            parts.append("car-order=" + self._one("dfs", "dfs", "unk", "bfs"))
        if self._draw.random() < 0.3:
            parts.append("car-dups=" + self._one("y", "n", "y", "z"))
        return parts

    def _entity_bytes(self) -> str:
        first = self._one(
            "0",
            "0",
            "10",
            "499",
            "500",
            "501",
            "2500",
            str(len(BIG) - 1),
            str(len(BIG)),
            "99999",
            "-1",
            "-600",
            "-99999",
            "x",
        )
        last = self._one(
            "*", "*", "0", "10", "499", "500", "2600", str(len(BIG)), "99999", "-1", "-500", "-99999", ""
        )
        return f"{first}:{last}"

    def _headers(self) -> list[tuple[str, str]]:
        headers: list[tuple[str, str]] = []
        if self._draw.random() < 0.4:
            headers += [("Accept", accept) for accept in self._accept()]
        if self._draw.random() < 0.2:
            headers.append(("Range", self._range()))
            if self._draw.random() < 0.25:
                headers.append(
                    ("If-Range", self._one("{etag}", '"other"', "{modified}", "W/{etag}", self._date()))
                )
        if self._draw.random() < 0.15:
            headers.append(("If-None-Match", self._tags()))
        if self._draw.random() < 0.06:
            headers.append(("If-Modified-Since", self._one("{modified}", self._date(), "soon")))
        if self._draw.random() < 0.03:
            headers.append(("If-Match", self._one("{etag}", '"other"', "*")))
        if self._draw.random() < 0.03:
            headers.append(("If-Unmodified-Since", self._one("{modified}", self._date())))
        if self._draw.random() < 0.05:
            headers.append(
                ("Cache-Control", self._one("only-if-cached", "only-if-cached", "no-cache", "max-age=0"))
            )
        if self._draw.random() < 0.05:
            headers.append(("X-Forwarded-Proto", self._one("https", "http")))
        if self._draw.random() < 0.03:
            headers.append(("X-Forwarded-Host", self._one(SUBDOMAINS, f"{SUBDOMAINS}:444", SITE)))
        if self._draw.random() < 0.03:
            headers.append(("Origin", "https://example.org"))
            headers.append(("Access-Control-Request-Method", self._one("GET", "PUT")))
        if self._draw.random() < 0.01:
            headers.append(("Service-Worker", "script"))
        return headers

    def _accept(self) -> Sequence[str]:
        kind = self._draw.random()
        if kind < 0.3:
            return [self._one(BROWSER, "text/html", "*/*", "text/plain", "text/html, */*;q=0.1")]
        if kind < 0.75:
            return [self._one(*MEDIA_TYPES.values()) + self._parameters()]
        if kind < 0.95:
            choices = (
                *MEDIA_TYPES.values(),
                "*/*",
                "text/html",
                "text/plain",
                "application/vnd.ipld.other",
                "image/*",
            )
            items = [self._one(*choices) + self._parameters() for _ in range(self._draw.randint(2, 4))]
            return [self._one(", ", ",").join(items)]
        return self._draw.choice(
            [
                ["application/vnd.ipld.zip"],
                [""],
                ["text/html", MEDIA_TYPES["raw"]],
                [MEDIA_TYPES["car"] + ";version"],
            ]
        )

    def _parameters(self) -> str:
        if self._draw.random() < 0.7:
            return ""
        return self._one(
            ";q=0.5",
            "; q=0",
            ";q=1.0",
            "; version=1",
            "; order=dfs; dups=y",
            "; dups=n",
            ";version=2",
            ";order=unk",
            "; version=1; q=0.1",
        )

    def _range(self) -> str:
        at = self._draw.choice((0, 1, 5, 6, 499, 500, 501, 2000, len(BIG) - 1, len(BIG), 10**6))
        end = at + self._draw.choice((0, 1, 5, 500, 10**5))
        return self._one(
            f"bytes={at}-{end}",
            f"bytes={at}-{end}",
            f"bytes={at}-",
            f"bytes=-{at}",
            f"bytes=0-0,{at}-{end}",
            f"bytes={at}-{end}, -3",
            f"bytes={end + 1}-{at}",
            "bytes=",
            "bytes=-",
            "bytes=a-b",
            "items=0-1",
            f"bytes = {at}-{end}",
            f"bytes={at} - {end}",
        )

    def _tags(self) -> str:
        return self._one(
            "{etag}",
            "{etag}",
            "W/{etag}",
            '"other"',
            '"other", {etag}',
            "*",
            "{etag}, *",
            "other",
            '"a",, W/"b"',
        )

    def _date(self) -> str:
        return self._one(
            "Sun, 13 Sep 2020 12:26:40 GMT", "Mon, 01 Jan 2001 00:00:00 GMT", "Thu, 01 Jan 2026 00:00:00 GMT"
        )


def subdomain_label(cid: CID) -> str:
    """The CID as it stands in a host name; the whole of it where it fits in no label."""
    text = str(cid.to_v1())
    return text if len(text) <= 63 else cid.to_v1().encode("base36")
