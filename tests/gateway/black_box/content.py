"""What the clients fetch: awkward names, a site with `_redirects`, a file of many blocks, nodes, a name."""

from __future__ import annotations

import random
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path

from tests.gateway.black_box.running import GatewayHome

MIB = 1024 * 1024
BIG = random.Random(6).randbytes(3 * MIB + 17)
SHARDED_ENTRIES = 300
# What a path or a page can get wrong.
AWKWARD_NAMES = (
    "a file.txt",
    "100%.txt",
    "100%25.txt",
    "ąę źł.txt",
    "what?.txt",
    "#hash.txt",
    "a+b&c=d.txt",
    "back\\slash.txt",
    "<img src=x onerror=document.title='broken'>.txt",
    "'quoted' \"twice\".txt",
    "semi;colon:.txt",
)
DIRECTIVES = """\
/old /new.html 301
/moved/:name /posts/:name.html 302
/gone/* /410.html 410
/law /451.html 451
/lost/* /404.html 404
/* /index.html 200
"""
APP_PAGE = """\
<!doctype html><html lang=en><meta charset=utf-8><title>app</title><link rel=stylesheet href=/app.css>
<h1 id=route></h1><nav><a href=/deep/page>deep</a></nav><script src=/app.js></script>
"""
APP_SCRIPT = """\
const show = () => { document.getElementById("route").textContent = location.pathname }
document.querySelector("a").addEventListener("click", (event) => {
  event.preventDefault(); history.pushState(null, "", event.target.href); show()
})
show()
"""
NODE = '{"hello": "world", "deeper": {"list": [1, 2, {"/": "bafkqaaa"}]}, "bytes": {"/": {"bytes": "AAEC"}}}'


def png(width: int, height: int, colour: tuple[int, int, int]) -> bytes:
    """A picture of one colour."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = (b"\0" + bytes(colour) * width) * height
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )


def write_folders(at: Path) -> list[Path]:
    """The folders and files to import."""
    listing, site, one, two = (at / name for name in ("listing", "site", "one", "two"))
    for folder in (listing / "sub" / "below", site / "posts", one, two):
        folder.mkdir(parents=True)
    for name in AWKWARD_NAMES:
        (listing / name).write_text(f"I am {name}\n")
    (listing / "README.md").write_text(
        "# Read me\n\nSome *words* and <script>document.title='broken'</script>.\n"
    )
    (listing / "picture.png").write_bytes(png(64, 48, (200, 30, 40)))
    (listing / "empty").write_bytes(b"")
    (listing / "sub" / "below" / "inner.txt").write_text("far down\n")
    (listing / "sub" / "below" / "false.png").write_text("no picture\n")
    (site / "_redirects").write_text(DIRECTIVES)
    (site / "index.html").write_text(APP_PAGE)
    (site / "app.js").write_text(APP_SCRIPT)
    (site / "app.css").write_text("h1 { color: rgb(1, 2, 3) }\n")
    for name in ("new", "404", "410", "451", "posts/first"):
        (site / f"{name}.html").write_text(f"<title>{name}</title>my {name}\n")
    (at / "denied.txt").write_text("not to be served\n")
    for folder in (one, two):
        (folder / "index.html").write_text(f"<!doctype html><title>{folder.name}</title>{folder.name}\n")
        (folder / "secret.txt").write_text(f"secret of {folder.name}\n")
    (at / "big.bin").write_bytes(BIG)
    return [listing, site, one, two, at / "big.bin", at / "denied.txt"]


def write_sharded(at: Path) -> Path:
    """A folder of many small files."""
    sharded = at / "sharded"
    sharded.mkdir()
    for number in range(SHARDED_ENTRIES):
        (sharded / f"{number:03}.txt").write_text(f"number {number}\n")
    return sharded


@dataclass(frozen=True, slots=True)
class Content:
    """A home with its content, and the CIDs by path ("listing/sub/below/inner.txt"), codec and name."""

    home: GatewayHome
    folder: Path
    cids: dict[str, str]
    name: str  # IPNS, points at `site`
    absent: str  # a CID that nobody has

    @property
    def url(self) -> str:
        return self.home.url

    def cid(self, path: str) -> str:
        return self.cids[path]

    def data(self, path: str) -> bytes:
        return (self.folder / path).read_bytes()


def fill(folder: Path, home: GatewayHome) -> Content:
    """Everything above, by the command line."""
    at = folder / "content"
    at.mkdir()
    cids = home.add(*write_folders(at))
    cids |= home.add(write_sharded(at), options=("--hamt-threshold", "1"))
    node = at / "node.json"
    node.write_text(NODE)
    for codec in ("dag-cbor", "dag-json"):
        cids[codec] = home.run("dag", "put", "--store-codec", codec, node)
    name = home.run("name", "publish", cids["site"], "-Q")
    (at / "absent").write_text("nobody has this")
    (absent,) = home.add(at / "absent", options=("--only-hash",)).values()
    home.deny(f"/ipfs/{cids['denied.txt']}")
    home.link({"site.example.org": f"/ipfs/{cids['site']}", "by-name.example.org": f"/ipns/{name}"})
    return Content(home, at, cids, name, absent)
