"""The gateway behind nginx and Caddy with the sample configurations, as curl sees it through TLS."""

from __future__ import annotations

import email
import email.message
import json
import os
import re
import select
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from gateway.settings import GatewaySettings
from tests.gateway.black_box.proxies import (
    GATEWAY,
    PROGRAMS,
    SAMPLES,
    SITE,
    installed,
    proxy,
    write_certificates,
)
from tests.gateway.black_box.running import GatewayHome
from tests.ports import free_port

BIG = os.urandom(3_000_017)
CUT = {18, 92}  # exit codes of curl: less than was promised, HTTP/2 stream not closed cleanly
CURL_TIMEOUT_S = 60
LOG_TIMEOUT_S = 60
CLIENT = "127.0.0.2"  # an address of this machine that is no trusted proxy here


@dataclass(frozen=True, slots=True)
class Answer:
    """The last answer that curl got, and how it ended."""

    code: int
    status: int
    headers: email.message.Message
    body: bytes


@dataclass(frozen=True, slots=True)
class Behind:
    """A program in front of the gateway. `alone` is the status that it gave while there was no gateway."""

    program: str
    tls: int
    plain: int
    certificate: Path
    cids: dict[str, str]
    log: int  # what the gateway writes into its access log
    alone: int

    def ask(self, url: str, *options: str) -> Answer:
        """By curl, from a client's address; a host of any name is this program."""
        to = self.tls if url.startswith("https:") else self.plain
        command = ["curl", "--silent", "--noproxy", "*", "--max-time", "30", "--interface", CLIENT]
        command += ["--cacert", str(self.certificate), "--connect-to", f"::127.0.0.1:{to}", "--include"]
        done = subprocess.run(
            [*command, *options, url], capture_output=True, timeout=CURL_TIMEOUT_S, check=False
        )
        head, _, body = done.stdout.partition(b"\r\n\r\n")
        line, _, fields = head.decode("latin-1").replace("\r\n", "\n").partition("\n")
        return Answer(
            done.returncode, int((line.split() or ["", "0"])[1]), email.message_from_string(fields), body
        )

    def logged(self) -> Iterator[dict[str, str]]:
        """What comes into the gateway's access log; fails when nothing does."""
        data = b""
        while select.select([self.log], [], [], LOG_TIMEOUT_S)[0]:
            data += os.read(self.log, 1 << 16)
            *lines, data = data.split(b"\n")
            yield from map(json.loads, lines)
        raise AssertionError("there is no such line in the access log")

    def root(self, name: str) -> str:
        """The URL of an import's own origin."""
        return f"https://{self.cids[name]}.ipfs.{GATEWAY}"


def status_alone(tls: int, certificate: Path) -> int:
    """What the program says while there is nothing behind it."""
    return Behind("", tls, 0, certificate, {}, 0, 0).ask(f"https://{GATEWAY}/").status


@pytest.fixture(scope="module")
def all_behind(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Behind]]:
    """Every program that is installed here before one gateway, which starts after them."""
    found = [program for program in PROGRAMS if installed(program)]
    if sys.platform != "linux" or not found or shutil.which("curl") is None:
        yield {}
        return
    folder = tmp_path_factory.mktemp("proxies")
    certificates = folder / "certificates"
    certificate = write_certificates(certificates)
    port = free_port()
    os.mkfifo(folder / "access.log")
    log = os.open(folder / "access.log", os.O_RDWR | os.O_CLOEXEC)
    deny = folder / "deny"
    home = GatewayHome(
        folder,
        HOLDFAST_GATEWAY_LISTEN=f"127.0.0.1:{port}",
        HOLDFAST_GATEWAY_SUBDOMAIN_HOSTS=GATEWAY,
        HOLDFAST_GATEWAY_TRUSTED_PROXIES="127.0.0.1/32",
        HOLDFAST_GATEWAY_ACCESS_LOG=str(folder / "access.log"),
        HOLDFAST_GATEWAY_ACCESS_LOG_FORMAT="json",
        HOLDFAST_GATEWAY_DENYLISTS=str(deny),
    )
    site = folder / "site"
    (site / "sub").mkdir(parents=True)
    (site / "index.html").write_text("<h1>my site</h1>\n")
    (site / "404.html").write_text("my 404\n")
    (site / "_redirects").write_text("/old /new 301\n/* /404.html 404\n")
    (site / "sub" / "denied").write_bytes(b"denied\n" * 50_000)
    (folder / "big").write_bytes(BIG)
    cids = home.add(site, folder / "big")
    deny.write_text(f"version: 1\n---\n/ipfs/{cids['site/sub/denied']}\n")
    home.link({SITE: f"/ipfs/{cids['site']}"})
    with ExitStack() as running:
        running.callback(os.close, log)
        ports = {
            name: running.enter_context(proxy(name, folder / name, certificates, port)) for name in found
        }
        alone = {name: status_alone(ports[name][0], certificate) for name in found}
        running.enter_context(home)
        yield {name: Behind(name, *ports[name], certificate, cids, log, alone[name]) for name in found}


@pytest.fixture(params=PROGRAMS)
def behind(request: pytest.FixtureRequest, all_behind: dict[str, Behind]) -> Behind:
    if request.param not in all_behind:
        pytest.skip(f"needs Linux, curl and {request.param} (Debian's package is enough)")
    return all_behind[request.param]


def test_without_a_gateway_it_says_so_and_goes_on_when_there_is_one(behind: Behind) -> None:
    assert behind.alone == 502
    assert behind.ask(f"{behind.root('site')}/").body == b"<h1>my site</h1>\n"


def test_paths_lead_to_origins_by_tls_whatever_a_stranger_says_of_host_and_scheme(behind: Behind) -> None:
    spoofed = (
        "X-Forwarded-Host: evil.example",
        "X-Forwarded-Proto: http",
        "Forwarded: host=evil.example;proto=http",
    )
    options = [option for line in spoofed for option in ("--header", line)]
    answer = behind.ask(f"https://{GATEWAY}/ipfs/{behind.cids['site']}/sub?a=%2F", *options)
    assert (answer.status, answer.headers["Location"]) == (301, f"{behind.root('site')}/sub?a=%2F")
    plain = behind.ask(f"http://{GATEWAY}/ipfs/CID?a=%2F")
    assert plain.status in (301, 308)
    assert plain.headers["Location"].startswith(f"https://{GATEWAY}")
    assert plain.headers["Location"].endswith("/ipfs/CID?a=%2F")


def test_a_dnslink_host_is_a_site_with_redirects_and_a_page_of_its_own_for_what_is_missing(
    behind: Behind,
) -> None:
    assert behind.ask(f"https://{SITE}/").body == b"<h1>my site</h1>\n"
    assert behind.ask(f"https://{SITE}/old").headers["Location"] == "/new"
    missing = behind.ask(f"https://{SITE}/a%20b%25")
    assert (missing.status, missing.body) == (404, b"my 404\n")


def test_lengths_ranges_and_tags_pass_unchanged(behind: Behind) -> None:
    url = f"{behind.root('big')}/"
    whole = behind.ask(url, "--compressed")
    assert (whole.status, whole.body, whole.headers["Content-Length"]) == (200, BIG, str(len(BIG)))
    tag = whole.headers["Etag"]
    assert tag == f'"{behind.cids["big"]}"'
    part = behind.ask(url, "--range", "1000000-2000000")
    assert (part.status, part.body) == (206, BIG[1_000_000:2_000_001])
    assert part.headers["Content-Range"] == f"bytes 1000000-2000000/{len(BIG)}"
    assert behind.ask(url, "--header", f"If-None-Match: {tag}").status == 304
    head = behind.ask(url, "--head")
    assert (head.status, head.headers["Content-Length"], head.body) == (200, str(len(BIG)), b"")
    assert behind.ask(url, "--data", "x").status == 405


def test_what_is_too_long_is_refused_by_the_gateway_as_it_does(behind: Behind) -> None:
    long = "a" * 9000
    assert behind.ask(f"{behind.root('big')}/{long}").status == 414
    assert behind.ask(f"{behind.root('big')}/", "--header", f"X-Long: {long}").status == 431


def test_metrics_are_not_there(behind: Behind) -> None:
    for host in (f"https://{GATEWAY}", behind.root("site"), f"https://{SITE}"):
        answer = behind.ask(f"{host}/metrics")
        assert answer.status == 404
        assert b"holdfast_gateway" not in answer.body


def test_hosts_that_nobody_set_up_get_no_answer(behind: Behind) -> None:
    assert behind.ask("https://stranger.example.com/", "--insecure").status == 0


def test_the_client_is_who_asked_and_not_who_a_stranger_says(behind: Behind) -> None:
    agent = f"client-of-{behind.program}"
    behind.ask(
        f"{behind.root('site')}/",
        "-A",
        agent,
        "-H",
        "X-Forwarded-For: 192.0.2.1",
        "-H",
        "X-Real-IP: 192.0.2.2",
    )
    record = next(record for record in behind.logged() if record["user_agent"] == agent)
    assert record["client"] == CLIENT


def test_what_is_cut_off_arrives_as_cut_off(behind: Behind) -> None:
    for version in ("--http1.1", "--http2"):
        answer = behind.ask(f"{behind.root('site')}/?format=car", version)
        assert answer.status == 200
        if behind.program == "caddy" and answer.code == 0:
            pytest.skip("this Caddy ends it as if it were whole: github.com/caddyserver/caddy/pull/5952")
        assert answer.code in CUT


def seconds(sample: str, name: str) -> float:
    found = re.search(rf"\b{name} +([0-9]+)s", (SAMPLES / sample).read_text())
    assert found is not None, f"{sample} has no {name}"
    return float(found[1])


def test_times_of_the_samples_agree_with_the_gateways_own() -> None:
    settings = GatewaySettings()
    for sample, keepalive, read in (
        ("nginx.conf", "keepalive_timeout", ""),
        ("nginx-proxy.conf", "", "proxy_read_timeout"),
        ("Caddyfile", "keepalive", "response_header_timeout"),
    ):
        if keepalive:  # a proxy must not send over what the gateway is about to close
            assert seconds(sample, keepalive) < settings.idle_timeout_s
        if read:  # nor give up before the gateway can say what failed
            assert seconds(sample, read) > settings.retrieval_timeout_s
