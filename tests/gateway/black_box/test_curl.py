"""curl and wget against a real gateway: what people type, and what scripts rely on."""

from __future__ import annotations

import email
import email.message
import json
import shutil
import socket
import subprocess
import threading
from email.utils import parsedate_to_datetime
from pathlib import Path

import pytest

from merkledag.cid import CID
from tests.gateway.black_box.content import AWKWARD_NAMES, BIG, DIRECTIVES, Content
from tests.gateway.black_box.running import WORKERS

pytestmark = pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
COMMAND_TIMEOUT_S = 60
HTTP_ERROR, TIMED_OUT = 22, 28  # exit codes of curl


def run(*arguments: str | Path, code: int = 0) -> bytes:
    """What curl prints."""
    command = ["curl", "--silent", "--show-error", "--max-time", "30", "--noproxy", "", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, timeout=COMMAND_TIMEOUT_S, check=False)
    assert done.returncode == code, (command, done.returncode, done.stderr)
    return done.stdout


def written(about: str, *arguments: str | Path) -> str:
    """What curl says about the last transfer, by --write-out; the body is thrown away."""
    return run("--write-out", about, "--output", "/dev/null", *arguments).decode()


def head(*arguments: str | Path) -> tuple[int, email.message.Message]:
    """Status and headers of the last answer, asked with HEAD."""
    last = run("--head", *arguments).decode().replace("\r\n", "\n").strip().split("\n\n")[-1]
    line, _, headers = last.partition("\n")
    return int(line.split()[1]), email.message_from_string(headers)


def test_a_download_is_resumed_where_it_broke_off(served: Content, tmp_path: Path) -> None:
    part = tmp_path / "big.bin"
    part.write_bytes(BIG[: len(BIG) // 3])
    url = f"{served.url}/ipfs/{served.cid('big.bin')}"
    left = len(BIG) - len(BIG) // 3
    assert run("-C", "-", "--write-out", "%{http_code} %{size_download}", "-o", part, url) == b"206 %d" % left
    assert part.read_bytes() == BIG
    # The file is whole: curl asks for what lies behind its end, is told so, and leaves it alone.
    run("-C", "-", "-o", part, url)
    assert part.read_bytes() == BIG


@pytest.mark.parametrize(
    ("wanted", "first", "last"),
    [
        ("0-0", 0, 0),
        ("1048575-1048576", 1048575, 1048576),
        ("-17", len(BIG) - 17, len(BIG) - 1),
        ("3000000-", 3000000, len(BIG) - 1),
        ("10-999999999999", 10, len(BIG) - 1),
    ],
)
def test_ranges(served: Content, wanted: str, first: int, last: int) -> None:
    url = f"{served.url}/ipfs/{served.cid('big.bin')}"
    answer = run("--include", "--range", wanted, url)
    top, _, body = answer.partition(b"\r\n\r\n")
    assert body == BIG[first : last + 1]
    assert top.startswith(b"HTTP/1.1 206 ")
    assert f"content-range: bytes {first}-{last}/{len(BIG)}".encode() in top.lower()
    status, headers = head("--range", wanted, url)
    assert status in (200, 206)
    if status == 206:
        assert headers["Content-Length"] == str(last + 1 - first)


def test_several_ranges_come_as_parts(served: Content) -> None:
    answer = run(
        "--include", "--range", "0-9,1048570-1048580,-5", f"{served.url}/ipfs/{served.cid('big.bin')}"
    )
    top, _, body = answer.partition(b"\r\n\r\n")
    assert top.startswith(b"HTTP/1.1 206 ")
    kind = email.message_from_bytes(top.partition(b"\r\n")[2])["Content-Type"]
    assert kind.startswith("multipart/byteranges")
    message = email.message_from_bytes(b"Content-Type: " + kind.encode() + b"\r\n\r\n" + body)
    parts = [(part["Content-Range"], part.get_payload(decode=True)) for part in message.walk()][1:]
    size = len(BIG)
    assert [where for where, _ in parts] == [
        f"bytes 0-9/{size}",
        f"bytes 1048570-1048580/{size}",
        f"bytes {size - 5}-{size - 1}/{size}",
    ]
    assert int(email.message_from_bytes(top.partition(b"\r\n")[2])["Content-Length"]) == len(body)


def test_a_range_behind_the_end_is_refused_with_the_size(served: Content) -> None:
    answer = run("--include", "--range", "99999999-", f"{served.url}/ipfs/{served.cid('big.bin')}")
    assert answer.startswith(b"HTTP/1.1 416 ")
    assert f"content-range: bytes */{len(BIG)}".encode() in answer.lower()


def test_compression_is_offered_and_the_bytes_stay_the_same(served: Content) -> None:
    for path in ("big.bin", "site/app.js", "listing/empty"):
        assert run("--compressed", f"{served.url}/ipfs/{served.cid(path)}") == served.data(path)
    page = run("--compressed", f"{served.url}/ipfs/{served.cid('listing')}/")
    assert b"README.md" in page


def test_awkward_names_are_reached_as_curl_writes_them(served: Content) -> None:
    from urllib.parse import quote

    for name in AWKWARD_NAMES:
        url = f"{served.url}/ipfs/{served.cid('listing')}/{quote(name)}"
        assert run("--fail", url).decode() == f"I am {name}\n"


@pytest.mark.parametrize(
    "path", ["big.bin", "listing/picture.png", "listing/README.md", "listing/empty", "site/app.css"]
)
def test_head_says_what_get_says(served: Content, path: str) -> None:
    url = f"{served.url}/ipfs/{served.cid(path.partition('/')[0])}" + (
        f"/{path.partition('/')[2]}" if "/" in path else ""
    )
    status, headers = head(url)
    got = run("--include", url)
    line, _, top = got.partition(b"\r\n\r\n")[0].decode().partition("\r\n")
    full = email.message_from_string(top)
    assert status == int(line.split()[1]) == 200
    varying = {"date"}
    assert {k.lower(): v for k, v in headers.items() if k.lower() not in varying} == {
        k.lower(): v for k, v in full.items() if k.lower() not in varying
    }
    assert headers["Content-Length"] == str(len(served.data(path)))


@pytest.mark.parametrize("form", ["raw", "car", "tar", "dag-json", "dag-cbor"])
def test_head_of_every_format_ends_at_once(served: Content, form: str) -> None:
    root = served.cid(form if form.startswith("dag-") else "listing")
    status, headers = head(f"{served.url}/ipfs/{root}?format={form}")
    assert status == 200
    assert form.removeprefix("dag-") in headers["Content-Type"] or form in ("tar", "raw", "car")


def test_redirects_across_subdomains_are_followed(served: Content) -> None:
    port = served.home.port
    for cid, expected in ((served.cid("one"), b"secret of one\n"), (served.cid("two"), b"secret of two\n")):
        host = f"dweb.test:{port}"
        to = f"{cid}.ipfs.dweb.test:{port}"
        resolve = ("--resolve", f"{host}:127.0.0.1", "--resolve", f"{to}:127.0.0.1")
        url = f"http://{host}/ipfs/{cid}/secret.txt"
        assert run("--fail", *resolve, url) == b""
        assert run("--fail", "--location", *resolve, url) == expected
        assert written("%{url_effective} %{num_redirects}", "--location", *resolve, url) == (
            f"http://{to}/secret.txt 1"
        )
    # A folder: to its origin, where the slash is.
    url = f"http://dweb.test/ipfs/{served.cid('listing')}/sub"
    answer = written("%{http_code} %{url_effective}", "-L", "--connect-to", f"::127.0.0.1:{port}", url)
    assert answer == f"200 http://{served.cid('listing')}.ipfs.dweb.test/sub/"


def test_names_on_subdomains_and_by_dnslink(served: Content) -> None:
    to_us = ("--connect-to", f"::127.0.0.1:{served.home.port}")
    for url in (
        f"http://dweb.test/ipns/{served.name}/new.html",
        f"http://{served.name}.ipns.dweb.test/new.html",
        "http://dweb.test/ipns/site.example.org/new.html",
        "http://site-example-org.ipns.dweb.test/new.html",
        "http://site.example.org/new.html",
        "http://by-name.example.org/new.html",
    ):
        assert run("--fail", "--location", *to_us, url) == served.data("site/new.html"), url


def test_https_of_a_proxy_in_front_is_kept_in_redirects(served: Content) -> None:
    cid = served.cid("one")
    forwarded = ("-H", "X-Forwarded-Proto: https", "-H", "X-Forwarded-Host: dweb.test")
    where = written("%{redirect_url}", *forwarded, f"{served.url}/ipfs/{cid}/secret.txt")
    assert where == f"https://{cid}.ipfs.dweb.test/secret.txt"


def test_as_an_http_proxy(served: Content) -> None:
    proxy = ("--proxy", served.url)
    assert (
        run("--fail", *proxy, f"http://{served.cid('one')}.ipfs.dweb.test/secret.txt") == b"secret of one\n"
    )
    assert run("--fail", *proxy, "http://site.example.org/new.html") == served.data("site/new.html")
    # Whatever host is asked for: never an open proxy to it.
    with socket.create_server(("127.0.0.1", 0)) as other:
        other.settimeout(0.2)
        run(*proxy, f"http://127.0.0.1:{other.getsockname()[1]}/")
        with pytest.raises(TimeoutError):
            other.accept()


def test_through_a_tunnel(served: Content) -> None:
    tunnel = ("--proxytunnel", "--proxy", served.url)
    url = f"http://{served.cid('two')}.ipfs.dweb.test/secret.txt"
    assert run("--fail", *tunnel, url) == b"secret of two\n"
    proxy1_0 = ("--proxytunnel", "--proxy1.0", served.url.removeprefix("http://"))
    assert run("--fail", *proxy1_0, url) == b"secret of two\n"
    # The tunnel leads to this gateway only.
    with socket.create_server(("127.0.0.1", 0)) as other:
        other.settimeout(0.2)
        run(*tunnel, f"http://127.0.0.1:{other.getsockname()[1]}/ipfs/{served.cid('two')}/secret.txt")
        with pytest.raises(TimeoutError):
            other.accept()


def test_http_1_0(served: Content) -> None:
    for path, expected in (
        (served.cid("big.bin"), BIG),
        (f"{served.cid('one')}/secret.txt", b"secret of one\n"),
    ):
        assert run("--http1.0", f"{served.url}/ipfs/{path}") == expected
    # Nothing tells the length of a CAR: the end of the connection does.
    top, _, body = run(
        "--http1.0", "--include", f"{served.url}/ipfs/{served.cid('one')}?format=car"
    ).partition(b"\r\n\r\n")
    assert b"\r\ntransfer-encoding:" not in top.lower()
    assert body == run(f"{served.url}/ipfs/{served.cid('one')}?format=car")


def test_http_2_in_the_clear_is_declined_without_harm(served: Content) -> None:
    assert run("--http2", f"{served.url}/ipfs/{served.cid('one')}/secret.txt") == b"secret of one\n"


def test_etags_are_compared(served: Content, tmp_path: Path) -> None:
    listing = served.cid("listing")
    for number, path in enumerate(
        (
            served.cid("big.bin"),
            f"{listing}/",
            f"{listing}?format=raw",
            f"{served.cid('dag-cbor')}?format=dag-cbor",
        )
    ):
        saved, url = tmp_path / f"{number}.etag", f"{served.url}/ipfs/{path}"
        run("--fail", "--etag-save", saved, "--output", tmp_path / "body", url)
        assert saved.read_text().strip().strip('"')
        assert written("%{http_code} %{size_download}", "--etag-compare", saved, url) == "304 0"
    assert written("%{http_code}", "-H", 'If-None-Match: "other"', f"{served.url}/ipfs/{listing}/") == "200"
    assert written("%{http_code}", "-H", "If-None-Match: *", f"{served.url}/ipfs/{listing}/") == "304"


def test_times_are_compared_for_names(served: Content) -> None:
    url = f"{served.url}/ipns/{served.name}/new.html"
    _, headers = head(url)
    assert "immutable" not in headers["Cache-Control"]
    # Each worker says since when it has known this: the last of them is the one to go by.
    changed = max((head(url)[1]["Last-Modified"] for _ in range(8 * WORKERS)), key=parsedate_to_datetime)
    # By the header itself: with --time-cond curl says 304 on its own where a server does not.
    since = ("-H", f"If-Modified-Since: {changed}")
    assert written("%{http_code}", *since, url) == "304"
    assert written("%{http_code}", "-H", "If-Modified-Since: Wed, 01 Jan 2020 00:00:00 GMT", url) == "200"
    # A tag, where both are sent, decides alone (RFC 9110, section 13.2.2).
    assert written("%{http_code}", *since, "-H", 'If-None-Match: "other"', url) == "200"
    assert run("--time-cond", changed, url) == b""


def test_a_redirects_file_by_curl(served: Content) -> None:
    assert served.data("site/_redirects").decode() == DIRECTIVES
    host = ("-H", f"Host: {served.cid('site')}.ipfs.dweb.test")
    for path, status, target in (
        ("/old", 301, "/new.html"),
        ("/moved/first", 302, "/posts/first.html"),
        ("/gone/with/the/wind", 410, ""),
        ("/law", 451, ""),
        ("/lost/x", 404, ""),
        ("/any/other", 200, ""),
    ):
        code, where = written("%{http_code} %{redirect_url}", *host, served.url + path).split(" ")
        assert (code, where.removeprefix(served.url)) == (str(status), target), path
    assert run(*host, served.url + "/gone/x") == served.data("site/410.html")
    assert run(*host, served.url + "/any/other") == served.data("site/index.html")
    # On a path gateway all share one origin, and the file does not count.
    assert written("%{http_code}", f"{served.url}/ipfs/{served.cid('site')}/any/other") == "404"


def test_errors_are_told_in_the_form_that_is_asked_for(served: Content) -> None:
    url = f"{served.url}/ipfs/{served.cid('listing')}/nothing"
    run("--fail", url, code=HTTP_ERROR)
    assert run(url).decode().startswith("404 ")
    as_page = run("--include", "-H", "Accept: text/html", url).decode()
    assert "text/html" in as_page
    assert "<html" in as_page
    told = json.loads(run("-H", "Accept: application/json", url))
    assert served.cid("listing") in json.dumps(told)
    assert written("%{http_code}", f"{served.url}/ipfs/{served.absent}") in ("404", "502", "504")
    assert (
        written("%{http_code}", "-H", "Cache-Control: only-if-cached", f"{served.url}/ipfs/{served.absent}")
        == "412"
    )
    assert written("%{http_code}", f"{served.url}/ipfs/not-a-cid") == "400"


def test_what_a_denylist_names_is_gone_in_every_form(served: Content) -> None:
    cid = served.cid("denied.txt")
    for path in (f"/ipfs/{cid}", f"/ipfs/{cid}?format=raw", f"/ipfs/{cid}?format=car"):
        assert written("%{http_code}", served.url + path) == "410"
    assert b"not to be served" not in run(f"{served.url}/ipfs/{cid}")
    told = run("-H", "Accept: text/html", f"{served.url}/ipfs/{cid}").decode()
    assert "<html" in told
    host = ("-H", f"Host: {cid}.ipfs.dweb.test")
    assert written("%{http_code}", *host, served.url) == "410"


def test_several_processes_answer(served: Content) -> None:
    status = json.loads(served.home.run("gateway", "status", "--json"))
    assert len(status["workers"]) == WORKERS


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "TRACE", "PROPFIND"])
def test_other_methods_are_refused_with_those_there_are(served: Content, method: str) -> None:
    answer = run("--include", "-X", method, f"{served.url}/ipfs/{served.cid('one')}/secret.txt")
    assert answer.startswith(b"HTTP/1.1 405 ")
    allowed = email.message_from_bytes(answer.partition(b"\r\n")[2])["Allow"]
    assert {"GET", "HEAD", "OPTIONS"} == {each.strip() for each in allowed.split(",")}


def test_an_upload_is_neither_awaited_nor_taken(served: Content) -> None:
    url = f"{served.url}/ipfs/{served.cid('one')}/secret.txt"
    assert written("%{http_code}", "-T", served.folder / "big.bin", url) in ("405", "413")
    assert written("%{http_code}", "-d", "x=1", url) == "405"
    # A GET with a body: the body is not content of anything, and the connection stays in step.
    two = run("-X", "GET", "-d", "x" * 5000, url, "--next", "--silent", url)
    assert two == b"secret of one\n" * 2


def test_many_requests_on_one_connection(served: Content) -> None:
    urls = [f"{served.url}/ipfs/{served.cid('listing')}/README.md"] * 20
    said = run(
        "--parallel-max",
        "1",
        "--write-out",
        "%{num_connects} ",
        "--output",
        "/dev/null",
        urls[0],
        *[part for url in urls[1:] for part in ("--output", "/dev/null", url)],
    ).decode()
    assert said.split() == ["1"] + ["0"] * 19


def test_slow_and_cut_downloads_leave_others_alone(served: Content) -> None:
    url = f"{served.url}/ipfs/{served.cid('big.bin')}"
    codes: list[int] = []

    def cut() -> None:
        command = ["curl", "-s", "-o", "/dev/null", "--limit-rate", "20k", "--max-time", "1", url]
        codes.append(subprocess.run(command, check=False, timeout=COMMAND_TIMEOUT_S).returncode)

    slow = [threading.Thread(target=cut) for _ in range(8)]
    for thread in slow:
        thread.start()
    assert run(url) == BIG
    for thread in slow:
        thread.join()
    assert codes == [TIMED_OUT] * 8


def test_the_cid_in_every_base(served: Content) -> None:
    cid = CID.parse(served.cid("one"))
    for base in ("base16", "base32", "base36", "base58btc"):
        url = f"{served.url}/ipfs/{cid.encode(base)}/secret.txt"
        assert run("--location", url) == b"secret of one\n"


@pytest.mark.skipif(shutil.which("wget") is None, reason="wget is not installed")
def test_wget_resumes_mirrors_and_names_files(served: Content, tmp_path: Path) -> None:
    def wget(*arguments: str) -> int:
        command = ["wget", "--quiet", "--tries=1", "--timeout=20", *arguments]
        return subprocess.run(command, cwd=tmp_path, timeout=COMMAND_TIMEOUT_S, check=False).returncode

    url = f"{served.url}/ipfs/{served.cid('big.bin')}?filename=big.bin"
    (tmp_path / "big.bin").write_bytes(BIG[:1000])
    assert wget("--continue", "-O", "big.bin", url) == 0
    assert (tmp_path / "big.bin").read_bytes() == BIG
    assert wget("--content-disposition", url + "&download=true") == 0
    folder = f"{served.url}/ipfs/{served.cid('listing')}/"
    assert (
        wget("--recursive", "--no-parent", "--level=3", "--no-host-directories", "--cut-dirs=2", folder) == 0
    )
    got = {path.name for path in tmp_path.rglob("*.txt")}
    assert {"a file.txt", "inner.txt", "100%.txt"} <= got
