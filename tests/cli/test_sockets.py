"""Listening sockets: nobody shares a port by accident, and what a service manager passes is taken over."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from cli.notify import READY, notify
from cli.output import CommandError, ExitCode
from cli.sockets import Bound, address, bind, passed
from tests.cli.conftest import ROOT


def port_of(bound: Bound) -> int:
    return int(bound.url.rpartition(":")[2])


def test_each_process_has_a_socket_of_its_own_at_one_port() -> None:
    with closing(bind("gateway", "127.0.0.1:0", 3)) as bound:
        sockets = [share[0] for share in bound.shares]
        assert {sock.getsockname() for sock in sockets} == {("127.0.0.1", port_of(bound))}
        if sys.platform == "linux":
            assert len({sock.fileno() for sock in sockets}) == 3
        clients = [socket.create_connection(("127.0.0.1", port_of(bound)), 5) for _ in range(60)]
        accepted = 0
        for sock in set(sockets):
            sock.setblocking(False)
            while True:
                try:
                    sock.accept()[0].close()
                except BlockingIOError:
                    break
                accepted += 1
        for client in clients:
            client.close()
        assert accepted == 60


@pytest.mark.parametrize("count", [1, 2])
def test_a_port_of_another_program_is_refused_also_where_it_shares_its_ports(count: int) -> None:
    with closing(bind("gateway", "127.0.0.1:0", count)) as first, socket.socket() as plain:
        plain.bind(("127.0.0.1", 0))
        plain.listen()
        for port in (port_of(first), plain.getsockname()[1]):
            for wanted in (1, 2):
                with pytest.raises(CommandError, match="in use by another program"):
                    bind("gateway", f"127.0.0.1:{port}", wanted)


def test_ipv6_and_names_of_hosts() -> None:
    with closing(bind("gateway", "[::1]:0", 2)) as bound:
        assert bound.url.startswith("http://[::1]:")
        socket.create_connection(("::1", port_of(bound)), 5).close()
    with closing(bind("gateway", "localhost:0", 2)) as bound:
        ports = {sock.getsockname()[1] for share in bound.shares for sock in share}
        assert ports == {port_of(bound)}
    with closing(bind("gateway", "0.0.0.0:0")) as bound:
        assert bound.url.startswith("http://127.0.0.1:")  # as it is reached from here


@pytest.mark.parametrize("listen", ["192.0.2.1:8080", "no-such-host.invalid:80"])
def test_an_address_that_is_not_here(listen: str) -> None:
    with pytest.raises(CommandError, match="the gateway cannot listen at"):
        bind("gateway", listen)


@pytest.mark.parametrize("listen", ["8080", ":8080", "host:", "host:http", "127.0.0.1:70000"])
def test_what_is_no_address_is_a_usage_error(listen: str) -> None:
    with pytest.raises(CommandError, match="write ADDRESS:PORT") as caught:
        address(listen)
    assert caught.value.code is ExitCode.USAGE


def test_sockets_of_a_service_manager_are_taken_over() -> None:
    program = (
        "import os, sys\n"
        "os.dup2(int(sys.argv[1]), 3)\n"
        "from cli.sockets import passed\n"
        "environ = {'LISTEN_FDS': '1', 'LISTEN_PID': str(os.getpid())}\n"
        "bound = passed(2, environ)\n"
        "print(bound.url, len(bound.shares), environ)\n"
    )
    with socket.create_server(("127.0.0.1", 0)) as listening:
        done = subprocess.run(
            [sys.executable, "-c", program, str(listening.fileno())],
            pass_fds=(listening.fileno(),),
            capture_output=True,
            text=True,
            check=True,
            cwd=ROOT,
        )
        assert done.stdout == f"http://127.0.0.1:{listening.getsockname()[1]} 2 {{}}\n"


@pytest.mark.parametrize(
    "environ",
    [{}, {"LISTEN_FDS": "1", "LISTEN_PID": "1"}, {"LISTEN_FDS": "0", "LISTEN_PID": str(os.getpid())}],
)
def test_what_was_passed_to_others_is_left_alone(environ: dict[str, str]) -> None:
    assert passed(1, environ) is None


@pytest.fixture
def manager(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        monkeypatch.chdir(tmp_path)  # the path of a socket is short
        listening.bind("notify")
        listening.settimeout(30)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        yield listening


def test_a_service_manager_hears_how_it_is(manager: socket.socket) -> None:
    notify(READY)
    assert manager.recv(100) == b"READY=1"


def test_no_service_manager_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    for nobody in ("", "relative", "/no/such/socket"):
        monkeypatch.setenv("NOTIFY_SOCKET", nobody)
        notify(READY)
