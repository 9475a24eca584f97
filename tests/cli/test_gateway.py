"""A gateway as a service: real processes under load, killed, reloaded and stopped."""

from __future__ import annotations

import http.client
import json
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.cli.conftest import ROOT
from tests.cli.processes import Process, environment, is_running

pytestmark = pytest.mark.timeout(300)

HELLO = b"hello from the gateway\n"
ATTEMPTS = 1_000
LARGE = bytes(range(256)) * 4096 * 16  # 16 MiB: more than the kernel holds for a client


class Gateway:
    """One home with two files, and its gateway when it runs."""

    def __init__(self, folder: Path) -> None:
        self.home = folder / "home"
        self.env = environment(self.home, HOLDFAST_MAINTENANCE_ENABLED="false")
        (folder / "hello").write_bytes(HELLO)
        (folder / "large").write_bytes(LARGE)
        self.hello = "/ipfs/" + self.run("add", "-Q", str(folder / "hello"))
        self.large = "/ipfs/" + self.run("add", "-Q", str(folder / "large"))
        self.process: Process | None = None
        self.url = self.control = ""

    def start(self, *arguments: str) -> None:
        self.process = Process(
            self.env, "gateway", "--listen", "127.0.0.1:0", "--control", "127.0.0.1:0", "--json", *arguments
        )
        first = next(self.process.lines(), None)
        assert first is not None, self.process.stderr()
        self.url, self.control = first["gateway"], first["control"]

    @property
    def running(self) -> Process:
        assert self.process is not None
        return self.process

    def run(self, *arguments: str, code: int = 0) -> str:
        done = subprocess.run(
            [sys.executable, "-P", "-m", "cli.main", *arguments],
            env=self.env, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert done.returncode == code, (arguments, done.returncode, done.stderr)
        assert "Traceback" not in done.stderr
        return (done.stdout if code == 0 else done.stderr).strip()

    def announced(self) -> dict[str, Any]:
        document: dict[str, Any] = json.loads((self.home / "run" / "gateway.json").read_bytes())
        return document

    def until(self, found: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        give_up_s = time.monotonic() + 60
        while not found(now := self.announced()):
            assert time.monotonic() < give_up_s, (now, self.running.stderr())
            time.sleep(0.02)
        return now

    def asked(self, address: str) -> tuple[int, bytes]:
        try:
            with urllib.request.urlopen(address, timeout=30) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as error:
            return error.code, error.read()

    def turned_away(self) -> bool:
        try:
            self.asked(self.url + self.hello)
        except ConnectionError:
            return False
        except urllib.error.URLError as error:
            return isinstance(error.reason, ConnectionRefusedError)
        return False

    def answered(self) -> float:
        _, page = self.asked(f"{self.control}/metrics")
        return sum(
            sample.value
            for family in text_string_to_metric_families(page.decode())
            for sample in family.samples
            if sample.name == "holdfast_gateway_requests_total"
        )

    def until_counted(self, answers: int) -> None:
        """A worker counts an answer after it is sent, and tells of it when it gets to it."""
        give_up_s = time.monotonic() + 60
        while (counted := self.answered()) != answers:
            assert time.monotonic() < give_up_s, (counted, answers)
            time.sleep(0.02)

    @contextmanager
    def load(self, kept: bool) -> Iterator[Counter[str]]:
        """Asks for a file all the time, from three clients, while the context lasts."""
        parts = urlsplit(self.url)
        results: Counter[str] = Counter()
        stop = threading.Event()

        def client() -> None:
            connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=60)
            while not stop.wait(0.004):
                try:
                    connection.request("GET", self.hello)
                    answer = connection.getresponse()
                    good = (answer.status, answer.read()) == (200, HELLO)
                    results["good" if good else "bad"] += 1
                except (OSError, http.client.HTTPException) as error:
                    results[repr(error)] += 1
                    connection.close()
                if not kept:
                    connection.close()
            connection.close()

        clients = [threading.Thread(target=client) for _ in range(3)]
        for each in clients:
            each.start()
        try:
            yield results
        finally:
            stop.set()
            for each in clients:
                each.join()

    @contextmanager
    def download(self) -> Iterator[http.client.HTTPResponse]:
        """The large file, of which nothing is read yet."""
        parts = urlsplit(self.url)
        connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=60)
        connection.request("GET", self.large)
        yield connection.getresponse()
        connection.close()


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[Gateway]:
    found = Gateway(tmp_path)
    yield found
    if found.process is not None and found.process.child.poll() is None:
        found.process.end(signal.SIGKILL)


def test_workers_are_replaced_without_a_gap_and_killed_without_harm(gateway: Gateway) -> None:
    gateway.start("--workers", "2")
    first = gateway.announced()["workers"]
    assert len(set(first)) == 2
    assert gateway.running.child.pid not in first
    assert gateway.asked(gateway.url + "/readyz")[0] == gateway.asked(gateway.control + "/readyz")[0] == 200

    with gateway.load(kept=True) as kept, gateway.load(kept=False) as fresh:
        assert gateway.run("gateway", "reload") == "reloaded"
        second = gateway.announced()["workers"]
        gateway.running.child.send_signal(signal.SIGHUP)
        third = gateway.until(lambda now: now["reloads"]["done"] == 2)["workers"]
    assert set(kept) == set(fresh) == {"good"}, (kept, fresh)
    assert kept["good"] + fresh["good"] > 200
    assert len({*first, *second, *third}) == 6
    gateway.until_counted(kept["good"] + fresh["good"])  # of all who ever answered

    with gateway.load(kept=False) as results:
        os.kill(third[0], signal.SIGKILL)
        fourth = gateway.until(lambda now: len(now["workers"]) == 2 and third[0] not in now["workers"])
    assert results["good"] >= 3  # who came to its socket meanwhile waited
    assert results.total() - results["good"] <= 3, results  # at most one of each client was under way
    assert third[1] in fourth["workers"]
    assert f"worker 1 (process {third[0]}) ended: SIGKILL; it starts again" in gateway.running.stderr()
    assert "state    ready" in gateway.run("gateway", "status")

    gateway.running.end(signal.SIGKILL)
    give_up_s = time.monotonic() + 60
    while any(map(is_running, fourth["workers"])):
        assert time.monotonic() < give_up_s, "workers outlived their parent"
        time.sleep(0.02)
    assert "no gateway runs" in gateway.run("gateway", "status", code=5)


def test_a_new_configuration_is_taken_up_or_refused(gateway: Gateway) -> None:
    gateway.start("--subdomain-host", "gw.example", "--subdomain-host", "localhost")
    config = gateway.home / "config.toml"
    with gateway.load(kept=True) as kept, gateway.load(kept=False) as fresh:
        config.write_text("[gateway]\nmax_path_segments = 2\nlisten = '127.0.0.1:1'\ndeserialize = true\n")
        gateway.run("gateway", "reload")
        assert gateway.asked(f"{gateway.url}{gateway.hello}/a")[0] == 400  # three segments
        for bad, why in [
            ("[gateway]\nmax_path_segments = 0\n", "max_path_segments"),
            ("[gateway]\nno_such_thing = 1\n", "no setting is called"),
            ("[gateway", "not TOML"),
            ("[gateway]\ndenylists = ['/no/such/list']\n", "/no/such/list"),
        ]:
            config.write_text(bad)
            assert why in gateway.run("gateway", "reload", code=4)
        request = urllib.request.Request(gateway.control + "/reload", method="POST")
        with pytest.raises(urllib.error.HTTPError) as caught:
            urllib.request.urlopen(request, timeout=30)
        assert caught.value.code == 422
        assert b"/no/such/list" in caught.value.read()
        assert gateway.asked(f"{gateway.url}{gateway.hello}/a")[0] == 400  # the last good one is in force
        config.unlink()
        with urllib.request.urlopen(request, timeout=30) as answer:
            assert answer.read() == b"reloaded\n"
    assert gateway.asked(f"{gateway.url}{gateway.hello}/a")[0] == 404
    assert set(kept) == set(fresh) == {"good"}, (kept, fresh)
    moved = http.client.HTTPConnection(urlsplit(gateway.url).netloc)
    moved.request("GET", gateway.hello, headers={"Host": "gw.example"})  # flags outlive a reload
    assert ".ipfs.gw.example" in str(moved.getresponse().headers["Location"])
    moved.close()


def test_whoever_was_being_answered_is_answered_to_the_end(gateway: Gateway) -> None:
    gateway.start()
    other = urlsplit(gateway.url).netloc
    elsewhere = environment(gateway.home.parent / "other")
    done = subprocess.run(
        [sys.executable, "-P", "-m", "cli.main", "gateway", "--listen", other, "--workers", "2"],
        env=elsewhere, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert f"{other} is in use by another program" in done.stderr
    with gateway.download() as answer:
        gateway.run("gateway", "reload")
        assert answer.read() == LARGE
    with gateway.download() as answer:
        gateway.running.child.send_signal(signal.SIGTERM)
        while gateway.asked(gateway.control + "/readyz")[0] == 200:
            time.sleep(0.01)
        # Not ready is said first; a moment later nobody is let in.
        assert any(gateway.turned_away() for _ in range(ATTEMPTS))
        assert answer.read() == LARGE
    code, said = gateway.running.end()
    assert code == 0, said
    assert not list((gateway.home / "run").glob("*.json"))


def test_a_second_signal_ends_it_at_once_with_its_workers(gateway: Gateway) -> None:
    gateway.start("--workers", "2")
    workers = gateway.announced()["workers"]
    with gateway.download() as answer:
        gateway.running.child.send_signal(signal.SIGTERM)
        while gateway.asked(gateway.control + "/readyz")[0] == 200:
            time.sleep(0.01)
        code, _ = gateway.running.end(signal.SIGTERM)
        assert code == 128 + signal.SIGTERM
        with pytest.raises((http.client.IncompleteRead, ConnectionError)):
            answer.read()
    while any(map(is_running, workers)):
        time.sleep(0.01)
