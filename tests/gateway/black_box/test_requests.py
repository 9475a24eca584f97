"""Requests that mean harm or nothing, as bytes over a socket: tables of what must come back.

Red team 24, 25, 26 and 28. Where a request is followed by one for /healthz on the same connection, an answer
to that shows that the gateway and the sender agree on where the first one ended.
"""

from __future__ import annotations

import re
import socket

import pytest

from tests.gateway.black_box.content import Content
from tests.gateway.black_box.raw_http import RawAnswer, exchange, read_answers

LAST = b"GET /healthz HTTP/1.1\r\nHost: last\r\nConnection: close\r\n\r\n"
SECRET = b"secret of one\n"
OTHERS_SECRET = b"secret of two"


def ask(served: Content, data: bytes) -> list[RawAnswer]:
    return read_answers(exchange(served.home.host, served.home.port, data))


def fill_in(served: Content, text: str) -> str:
    """L, S, O and T in braces stand for the CIDs of the folders `listing`, `site`, `one` and `two`."""
    for letter, name in (("{L}", "listing"), ("{S}", "site"), ("{O}", "one"), ("{T}", "two")):
        text = text.replace(letter, served.cid(name))
    return text


def get(served: Content, target: str, host: str = "x") -> RawAnswer:
    """The only answer to a request for this target."""
    head = f"GET {target} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"
    (answer,) = ask(served, fill_in(served, head).encode("latin-1"))
    return answer


# ------------------------------------------------------------------------------------------------ paths


@pytest.mark.parametrize(
    "target",
    [
        "/ipfs/{L}/../../../etc/passwd",
        "/ipfs/{L}/%2e%2e/%2e%2e/etc/passwd",
        "/ipfs/{L}/%2E./.%2e/etc/passwd",
        "/ipfs/{L}/..%2f..%2fetc%2fpasswd",
        "/ipfs/{L}/..%5c..%5cetc%5cpasswd",
        "/ipfs/{L}/%252e%252e/etc/passwd",
        "/ipfs/{L}/%c0%ae%c0%ae/etc/passwd",
        "/ipfs/{L}/%e0%80%ae/etc/passwd",
        "/ipfs/{O}/../{T}/secret.txt",
        "/ipfs/{L}/./README.md",
        "/ipfs/..",
        "/ipfs/../ipfs/{T}/secret.txt",
        "/../../etc/passwd",
        "/etc/passwd",
        "/ipfs/{L}/%00",
        "/ipfs/{L}/README.md%00.png",
        "/ipfs/{L}/README.md/x",
        "/ipfs/{L}/%ff%fe",
        "/ipfs/{L}/%",
        "/ipfs/{L}/%zz",
        "/ipfs/{L}/%0d%0aSet-Cookie:%20a=b",
        "/ipfs/{L}\\README.md",
        "/ipfs",
        "/ipfs/",
        "/ipns/",
        "/ipns/x",
        "/ipfs/?uri=https://evil.example/",
        "/ipfs/?uri=javascript:alert(1)",
        "/ipfs/?uri=ipfs://..%2f..%2f",
        "/ipld/{L}",
        "/api/v0/id",
        "/metrics",
        "/reload",
        "/debug/pprof/",
    ],
)
def test_paths_that_lead_nowhere(served: Content, target: str) -> None:
    answer = get(served, target)
    assert answer.status in (400, 404), answer.body[:200]
    assert b"root:" not in answer.body
    assert OTHERS_SECRET not in answer.body
    assert answer.headers["Location"] is None
    assert answer.headers["Set-Cookie"] is None


@pytest.mark.parametrize(
    "target",
    [
        "/ipfs/{T}/secret.txt",
        "/../../ipfs/{T}/secret.txt",
        "/%2e%2e/%2e%2e/ipfs/{T}/secret.txt",
        "//ipfs/{T}/secret.txt",
        "/ipfs/../{T}/secret.txt",
        "/ipns/site.example.org/new.html",
        "/?uri=ipfs://{T}/secret.txt",
        "/ipfs/?uri=ipfs://{T}/secret.txt",
    ],
)
def test_an_origin_serves_its_own_root_alone(served: Content, target: str) -> None:
    for host in ("{O}.ipfs.dweb.test", "site.example.org"):
        answer = get(served, target, host)
        assert OTHERS_SECRET not in answer.body
        assert answer.status in (200, 400, 404)
        if answer.status == 200:  # the site's page for everything else, or the folder's own page
            assert b"<title>app</title>" in answer.body or b"<title>one</title>" in answer.body


@pytest.mark.parametrize(
    ("host", "target"),
    [
        ("dweb.test", "//evil.example/"),
        ("dweb.test", "//evil.example/%2e%2e"),
        ("dweb.test", "/ipfs/{L}//evil.example"),
        ("dweb.test", "/\\evil.example"),
        ("x", "/ipfs/ipfs/{L}/README.md"),
        ("x", "/ipfs/ipfs//evil.example"),
        ("x", "/ipfs/{L}/sub?//evil.example"),
        ("x", "/ipfs/{L}/sub?%0d%0aSet-Cookie:%20a=b"),
        ("x", "/ipns/{L}/%0d%0aSet-Cookie:%20a=b"),
        ("{L}.ipfs.dweb.test", "//evil.example/%2e%2e"),
        ("{L}.ipfs.dweb.test", "/\\evil.example"),
        ("{L}.ipfs.dweb.test", "//sub"),
        ("{S}.ipfs.dweb.test", "/moved/%2f%2fevil.example"),
        ("{S}.ipfs.dweb.test", "/moved/%5cevil.example"),
        ("{S}.ipfs.dweb.test", "/moved/a%0d%0aSet-Cookie:%20a=b"),
        ("{S}.ipfs.dweb.test", "/moved/%00"),
        ("site.example.org", "/moved/https:%2f%2fevil.example"),
    ],
)
def test_redirects_stay_at_home(served: Content, host: str, target: str) -> None:
    answer = get(served, target, host)
    where = answer.headers["Location"]
    assert answer.headers["Set-Cookie"] is None
    if where is None:
        assert answer.status in (200, 400, 404)
        return
    assert "\r" not in where
    assert "\n" not in where
    home = re.match(r"http://([a-z0-9-]+\.ip[fn]s\.)?dweb\.test/|/(?![/\\])", where)
    assert home, where


@pytest.mark.parametrize(
    "name",
    [
        "%0d%0aSet-Cookie:%20a=b",
        "x%22;%20filename=evil.html",
        "../../../../etc/passwd",
        "..%5c..%5cautoexec.bat",
        "a%00b.txt",
        "%ff%fe.txt",
        "%e2%80%aetxt.exe",
        "a" * 3000,
    ],
)
def test_a_file_name_in_the_query_stays_one(served: Content, name: str) -> None:
    for download in ("", "&download=true"):
        answer = get(served, f"/ipfs/{{L}}/README.md?filename={name}{download}")
        assert answer.status in (200, 400)
        assert answer.headers["Set-Cookie"] is None
        said = answer.headers["Content-Disposition"] or ""
        assert not re.search(r"[\x00-\x1f\x7f]", said)
        quoted = re.fullmatch(
            r'(inline|attachment)(; filename="([^"\\/]*)")?(; filename\*=UTF-8\'\'[\w.~%!$&+^`|-]*)?', said
        )
        assert quoted or not said, said


# ------------------------------------------------------------------------------------------------ framing

SECRET_GET = "GET /ipfs/{O}/secret.txt HTTP/1.1\r\nHost: x\r\n"
# Both sides may not agree on where these end: the connection must not be used any further.
AMBIGUOUS = {
    "length and chunked": SECRET_GET + "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunked and length": SECRET_GET + "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
    "two lengths": SECRET_GET + "Content-Length: 5\r\nContent-Length: 6\r\n\r\nabcdef",
    "list of lengths": SECRET_GET + "Content-Length: 5, 6\r\n\r\nabcdef",
    "length with a sign": SECRET_GET + "Content-Length: +5\r\n\r\nabcde",
    "length in hex": SECRET_GET + "Content-Length: 0x5\r\n\r\nabcde",
    "length with _": SECRET_GET + "Content-Length: 1_0\r\n\r\nabcdefghij",
    "negative length": SECRET_GET + "Content-Length: -5\r\n\r\n",
    "length beyond 64 bits": SECRET_GET + "Content-Length: 99999999999999999999\r\n\r\n",
    "length, then space": SECRET_GET + "Content-Length : 5\r\n\r\nabcde",
    "unknown coding": SECRET_GET + "Transfer-Encoding: xchunked\r\n\r\n",
    "identity": SECRET_GET + "Transfer-Encoding: identity\r\n\r\n",
    "chunked not last": SECRET_GET + "Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
    "two codings": SECRET_GET + "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n",
    "vertical tab": SECRET_GET + "Transfer-Encoding:\x0bchunked\r\n\r\n0\r\n\r\n",
    "chunk size no number": SECRET_GET + "Transfer-Encoding: chunked\r\n\r\nzz\r\n",
    "chunk size 0x": SECRET_GET + "Transfer-Encoding: chunked\r\n\r\n0x5\r\nabcde\r\n0\r\n\r\n",
    "chunk size negative": SECRET_GET + "Transfer-Encoding: chunked\r\n\r\n-1\r\nabcde\r\n0\r\n\r\n",
    "chunk by bare LF": SECRET_GET + "Transfer-Encoding: chunked\r\n\r\n5\nabcde\n0\n\n",
    "bare LF in the first line": "GET /ipfs/{O}/secret.txt HTTP/1.1\nHost: x\n\n",
    "bare LF after a header": SECRET_GET + "X: a\nContent-Length: 70\r\n\r\n",
    "bare CR": SECRET_GET + "X: a\rContent-Length: 70\r\n\r\n",
    "folded line": SECRET_GET + "X: a\r\n b\r\n\r\n",
    "folded host": SECRET_GET + " .evil.example\r\n\r\n",
    "space before the first header": "GET /ipfs/{O}/secret.txt HTTP/1.1\r\n X: a\r\nHost: x\r\n\r\n",
    "no colon": SECRET_GET + "nonsense\r\n\r\n",
    "no name": SECRET_GET + ": a\r\n\r\n",
    "space in a name": SECRET_GET + "X Y: a\r\n\r\n",
    "NUL in a header": SECRET_GET + "X: a\x00b\r\n\r\n",
    "two hosts": SECRET_GET + "Host: {T}.ipfs.dweb.test\r\n\r\n",
    "no host": "GET /ipfs/{O}/secret.txt HTTP/1.1\r\n\r\n",
    "tabs in the first line": "GET\t/ipfs/{O}/secret.txt\tHTTP/1.1\r\nHost: x\r\n\r\n",
    "space in the target": "GET /ipfs/{O}/secret.txt x HTTP/1.1\r\nHost: x\r\n\r\n",
    "bytes in the target": "GET /ipfs/{O}/\xff\xfe HTTP/1.1\r\nHost: x\r\n\r\n",
    "control in the target": "GET /ipfs/{O}/a\x01b HTTP/1.1\r\nHost: x\r\n\r\n",
    "small letters": "get /ipfs/{O}/secret.txt HTTP/1.1\r\nHost: x\r\n\r\n",
    "no target": "GET  HTTP/1.1\r\nHost: x\r\n\r\n",
    "no slash": "GET ipfs/{O}/secret.txt HTTP/1.1\r\nHost: x\r\n\r\n",
    "version 1.2": "GET /ipfs/{O}/secret.txt HTTP/1.2\r\nHost: x\r\n\r\n",
    "version 2.0": "GET /ipfs/{O}/secret.txt HTTP/2.0\r\nHost: x\r\n\r\n",
    "no version": "GET /ipfs/{O}/secret.txt\r\n\r\n",
    "preface of HTTP/2": "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "TLS": "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + "\x00" * 64 + "\r\n\r\n",
}


@pytest.mark.parametrize("case", AMBIGUOUS)
def test_what_is_no_clear_request_ends_the_connection(served: Content, case: str) -> None:
    answers = ask(served, fill_in(served, AMBIGUOUS[case]).encode("latin-1") + LAST)
    assert [answer.status for answer in answers] in ([], [400], [501], [505])
    assert all(SECRET not in answer.body for answer in answers)


# These are clear, if unusual: answered, and the next request is the next request.
CLEAR = {
    "pipelined": (SECRET_GET + "\r\n") * 3,
    "a body of a GET": SECRET_GET + "Content-Length: 5\r\n\r\nabcde",
    "a body that looks like a request": SECRET_GET
    + "Content-Length: 29\r\n\r\nGET /evil HTTP/1.1\r\nHost: x\r\n",
    "chunks": SECRET_GET + "Transfer-Encoding: chunked\r\n\r\n5\r\nabcde\r\n0\r\n\r\n",
    "chunks with extensions and a trailer": SECRET_GET
    + "Transfer-Encoding: chunked\r\n\r\n5;a=b\r\nabcde\r\n0\r\nX-Sum: 1\r\n\r\n",
    "absolute form": "GET http://x/ipfs/{O}/secret.txt HTTP/1.1\r\nHost: x\r\n\r\n",
    "absolute form decides over Host": "GET http://{O}.ipfs.dweb.test/secret.txt HTTP/1.1\r\n"
    "Host: {T}.ipfs.dweb.test\r\n\r\n",
    "upgrade to what is not spoken": SECRET_GET
    + "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    "Sec-WebSocket-Version: 13\r\n\r\n",
    "100-continue": SECRET_GET + "Expect: 100-continue\r\nContent-Length: 3\r\n\r\nabc",
    "kept by a client of HTTP/1.0": "GET /ipfs/{O}/secret.txt HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
    "host in capitals, with the root's dot and a port": SECRET_GET.replace(
        "/ipfs/{O}/secret.txt", "/secret.txt"
    ).replace("Host: x", "Host: {O}.IPFS.Dweb.Test.:8080")
    + "\r\n",
}


@pytest.mark.parametrize("case", CLEAR)
def test_what_is_clear_is_answered_and_the_connection_stays_in_step(served: Content, case: str) -> None:
    *answers, last = ask(served, fill_in(served, CLEAR[case]).encode() + LAST)
    assert [answer.body for answer in answers] == [SECRET] * (3 if case == "pipelined" else 1)
    assert (last.status, SECRET in last.body) == (200, False)


def test_a_coding_that_http_1_0_does_not_know_ends_the_connection(served: Content) -> None:
    """RFC 9112 §6.1: a request of HTTP/1.0 with Transfer-Encoding; what follows may be smuggled."""
    head = "GET /ipfs/{O}/secret.txt HTTP/1.0\r\nConnection: keep-alive\r\nTransfer-Encoding: chunked\r\n\r\n"
    assert len(ask(served, fill_in(served, head).encode() + b"0\r\n\r\n" + LAST)) == 1


@pytest.mark.parametrize(
    ("first", "statuses"),
    [
        ("GET ftp://x/ipfs/{O}/secret.txt HTTP/1.1\r\nHost: x\r\n", (400, 404)),
        ("GET ipfs://{O}/secret.txt HTTP/1.1\r\nHost: x\r\n", (400, 404)),
        ("GET http:///secret.txt HTTP/1.1\r\nHost: x\r\n", (400,)),
        ("GET * HTTP/1.1\r\nHost: x\r\n", (400, 404)),
        ("OPTIONS * HTTP/1.1\r\nHost: x\r\n", (200, 204)),
        ("GET /ipfs/{O}/secret.txt HTTP/1.1\r\nHost: x\r\nExpect: tea\r\n", (417,)),
        ("TRACE /ipfs/{O}/secret.txt HTTP/1.1\r\nHost: x\r\nCookie: secret of mine\r\n", (405,)),
    ],
)
def test_odd_targets_and_methods(served: Content, first: str, statuses: tuple[int, ...]) -> None:
    (answer,) = ask(served, fill_in(served, first).encode() + b"Connection: close\r\n\r\n")
    assert answer.status in statuses
    assert b"secret of" not in answer.body


@pytest.mark.parametrize(
    "name", ["Connection", "Range", "If-None-Match", "Accept", "X-Forwarded-Host", "Cookie"]
)
def test_long_and_many_headers_are_refused_by_name_of_the_limit(served: Content, name: str) -> None:
    value = "a" * 70_000
    answers = ask(served, fill_in(served, f"{SECRET_GET}{name}: {value}\r\n\r\n").encode() + LAST)
    assert [answer.status for answer in answers] in ([400], [431])
    assert all(len(answer.body) < 4096 for answer in answers)


@pytest.mark.parametrize(
    ("wanted", "status"),
    [
        ("bytes=" + ",".join(f"{n % 10}-{n % 10}" for n in range(1000)), 416),
        ("bytes=0-,0-,0-,0-,0-", 206),
        ("bytes=5-1", 200),
        ("lines=0-1", 200),
        ("bytes=0-" + "9" * 4000, 206),
        ("bytes=-0", 416),
        ("bytes=99-", 416),
        ("bytes=" + "," * 4000, 416),
        ("bytes= 0-1 , 3-4", 206),
    ],
)
def test_ranges_cost_no_more_than_the_file(served: Content, wanted: str, status: int) -> None:
    head = f"{SECRET_GET}Range: {wanted}\r\nConnection: close\r\n\r\n"
    (answer,) = ask(served, fill_in(served, head).encode())
    assert answer.status in (status, 200), answer.body[:100]
    assert len(answer.body) < 1500


# ------------------------------------------------------------------------------------------------ hosts


@pytest.mark.parametrize(
    "host",
    [
        "169.254.169.254",
        "metadata.google.internal",
        "localhost.evil.example",
        "{O}.ipfs.evil.example",
        "x/../y",
        "user@dweb.test",
        "[::1",
        "..",
        "%2e%2e",
        "a" * 300 + ".test",
        "xn--.test",
        "ex\xe4mple.org",
        "dweb.test:99999",
        "dweb.test:x",
        "<script>alert(1)</script>",
    ],
)
def test_strange_hosts_get_no_content_and_come_back_escaped(served: Content, host: str) -> None:
    head = fill_in(
        served, f"GET / HTTP/1.1\r\nHost: {host}\r\nAccept: text/html\r\nConnection: close\r\n\r\n"
    )
    (answer,) = ask(served, head.encode("latin-1"))
    assert answer.status in (200, 400, 404)
    assert b"<script>alert" not in answer.body
    assert OTHERS_SECRET not in answer.body
    assert b"<title>one</title>" not in answer.body


@pytest.mark.parametrize(
    "label",
    ["{O}.{T}", "a", "{L}-", "-{L}", "{L}.ipns", "k51qzi5uqu5d", "..", "%2e", "{O}%2f{T}"],
)
def test_labels_that_are_no_cid(served: Content, label: str) -> None:
    answer = get(served, "/secret.txt", f"{label}.ipfs.dweb.test")
    assert answer.status in (400, 404)
    assert b"secret" not in answer.body.replace(b"/secret.txt", b"")


def test_a_forwarded_host_is_held_to_the_same_rules(served: Content) -> None:
    two = "{O}.ipfs.dweb.test, {T}.ipfs.dweb.test"
    for host in ("evil.example/<script>alert(1)", "dweb.test\t", two, "[", ""):
        head = f"GET /secret.txt HTTP/1.1\r\nHost: x\r\nX-Forwarded-Host: {host}\r\nAccept: text/html\r\n"
        (answer,) = ask(served, fill_in(served, head).encode() + b"Connection: close\r\n\r\n")
        assert b"<script>alert" not in answer.body
        assert OTHERS_SECRET not in answer.body


# ------------------------------------------------------------------------------------------------ headers


@pytest.mark.parametrize(
    "target",
    [
        "/ipfs/{S}/index.html",
        "/ipfs/{S}/app.js",
        "/ipfs/{L}/",
        "/ipfs/{L}/picture.png",
        "/ipfs/{L}?format=raw",
        "/ipfs/{L}?format=car",
        "/ipfs/{L}?format=tar",
        "/ipfs/{L}/nothing",
        "/",
    ],
)
def test_headers_of_every_kind_of_answer(served: Content, target: str) -> None:
    accept = "text/html" if target.endswith("/") else "*/*"
    head = f"GET {target} HTTP/1.1\r\nHost: x\r\nOrigin: https://evil.example\r\nAccept: {accept}\r\n"
    head += "Cookie: a=b\r\nConnection: close\r\n\r\n"
    (answer,) = ask(served, fill_in(served, head).encode())
    assert answer.headers["Set-Cookie"] is None
    assert answer.headers["Access-Control-Allow-Credentials"] is None
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["Content-Type"]
    if target != "/":
        assert answer.headers["Access-Control-Allow-Origin"] == "*"
    if "format=" in target:
        assert answer.headers["Content-Disposition"].startswith("attachment")
    if target.endswith("/"):  # what the gateway wrote itself
        policy = answer.headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy
        assert "unsafe-inline' 'unsafe-eval" not in policy
        assert b"I am" not in answer.body


def test_markup_in_names_and_paths_is_shown_and_not_run(served: Content) -> None:
    page = get(served, "/ipfs/{L}/").body
    assert b"<img src=x onerror" not in page
    assert b"&lt;img src=x onerror" in page
    for target in ("/ipfs/{L}/%3Cscript%3Ealert(1)%3C/script%3E", "/ipfs/%3Cscript%3Ealert(1)%3C/script%3E"):
        head = f"GET {target} HTTP/1.1\r\nHost: x\r\nAccept: text/html\r\nConnection: close\r\n\r\n"
        (answer,) = ask(served, fill_in(served, head).encode())
        assert b"<script>alert" not in answer.body
        assert "text/html" in answer.headers["Content-Type"]


def test_a_long_address_is_414(served: Content) -> None:
    for length in (9_000, 20_000, 200_000):
        answers = ask(served, f"GET /ipfs/{'a' * length} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        assert [answer.status for answer in answers] == [414], length


@pytest.mark.parametrize("form", ["car", "tar"])
def test_an_empty_file_does_not_end_a_chunked_answer_early(served: Content, form: str) -> None:
    """The folder has an empty one amid others. What followed it would be taken for the next answer."""
    head = f"GET /ipfs/{{L}}?format={form} HTTP/1.1\r\nHost: x\r\n\r\n"
    answer, last = ask(served, fill_in(served, head).encode() + LAST)
    assert answer.headers["Transfer-Encoding"] == "chunked"
    assert b"far down\n" in answer.body
    assert last.status == 200


def test_the_shared_origin_of_a_name_sends_content_to_its_own(served: Content) -> None:
    """Red team 28: on a host that has subdomains no content shares an origin with other content."""
    for target in ("/ipfs/{S}/", "/ipfs/{S}/index.html", "/ipfs/{S}", "/ipns/site.example.org/"):
        answer = get(served, target, "dweb.test")
        assert answer.status in (301, 302)
        assert re.match(r"http://[a-z0-9-]+\.ip[fn]s\.dweb\.test/", answer.headers["Location"])
        assert b"<title>app</title>" not in answer.body


# ------------------------------------------------------------------------------------------------ blocks


def test_blocks_that_are_not_what_they_say(served: Content) -> None:
    """Red team 24: a CID of an identity of megabytes, of an unknown hash, of none: refused, and at once."""
    for cid, statuses in (
        ("bafkqa" + "a" * 8000, (400, 404, 414)),
        ("bafkqaaa", (200,)),
        ("f01551100", (400, 404)),
        ("f0155129999", (400, 404)),
        ("f01559901" + "00" * 4, (400, 404)),
        ("f" + "ff" * 40, (400,)),
        ("bafkreiaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", (400, 404)),
        ("Qm" + "1" * 44, (400, 404)),
        ("z" + "1" * 4000, (400, 404)),
    ):
        answer = get(served, f"/ipfs/{cid}?format=raw")
        assert answer.status in statuses, cid[:20]


def test_many_connections_that_say_nothing_hold_up_nobody(served: Content) -> None:
    """Red team 26: three hundred begun requests, and answers that nobody reads, beside one that is served."""
    address = (served.home.host, served.home.port)
    held = []
    try:
        for number in range(300):
            link = socket.create_connection(address, timeout=60)
            held.append(link)
            if number % 10 == 0:
                link.sendall(
                    fill_in(served, f"GET /ipfs/{served.cid('big.bin')} HTTP/1.1\r\nHost: x\r\n\r\n").encode()
                )
            else:
                link.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nX: "[: number % 30])
        for _ in range(5):
            assert get(served, "/ipfs/{O}/secret.txt").body == SECRET
    finally:
        for link in held:
            link.close()
