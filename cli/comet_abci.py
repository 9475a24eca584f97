"""How an application and its `cometbft` find each other: by a unix socket of their own, or by TCP."""

from __future__ import annotations

import ipaddress
import os
import socket
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Final

from cli.output import CommandError, usage
from cli.settings import ABCI_SCHEME
from cli.sockets import address

if TYPE_CHECKING:
    from cli.home import Home
    from ledger.engine.cometbft.abci.listening import Network

SOCKET: Final = "abci.sock"
MAX_SOCKET_PATH: Final = 100  # of sun_path, 104 bytes where it is shortest
DANGER: Final = (
    "whoever reaches it can have this ledger take blocks and sign with its beacon key, unencrypted"
)


@dataclass(frozen=True, slots=True)
class CometRun:
    """How a ledger on CometBFT is started.

    `moved`: its validator's files were brought here, and its key runs nowhere else. `supervised`: cometbft is
    started beside the application, and the end of one is the end of both. `abci`: tcp://HOST:PORT instead of
    the unix socket; "" is what the setting says.
    """

    moved: bool = False
    supervised: bool = True
    abci: str = ""


@contextmanager
def abci_address(home: Home, run: CometRun) -> Iterator[str]:
    """Where the application listens: at a socket that its owner alone can open, unless TCP is asked for.

    Where the socket's path would be too long it is in a folder for temporary files, and never a port by
    itself: whoever has an account on this machine could make blocks there. Exit 2 for a TCP address that is
    not this machine's or a private network's, unless it is said a second time who may come.
    """
    chosen = home.config.text("ledger.abci", run.abci or None)
    if chosen:
        _require_safe(chosen, abci_hosts(home, run), supervised=run.supervised)
        yield chosen
        return
    path = home.run / SOCKET
    if len(bytes(path)) <= MAX_SOCKET_PATH:
        yield f"unix://{path}"
        return
    if not run.supervised:
        raise CommandError(f"{path} is too long for a socket: choose a shorter HOLDFAST_HOME, or --abci")
    with _short_folder(home) as folder:
        yield f"unix://{folder}/{SOCKET}"


@contextmanager
def _short_folder(home: Home) -> Iterator[Path]:
    """A folder of this home's with a short path, which a ledger finds again that was killed.

    What is there already is taken only if it is a folder of ours that nobody else may enter; where it is not,
    somebody was faster, and there is another one, for this time alone.
    """
    digest = sha256(os.fsencode(home.path.resolve())).hexdigest()[:16]
    folder = Path(tempfile.gettempdir()) / f"holdfast-{os.geteuid()}-{digest}"
    with suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    status = folder.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid() or status.st_mode & 0o077:
        with tempfile.TemporaryDirectory(prefix="holdfast-") as other:
            yield Path(other)
        return
    try:
        yield folder
    finally:
        (folder / SOCKET).unlink(missing_ok=True)
        with suppress(OSError):
            folder.rmdir()


def abci_hosts(home: Home, run: CometRun) -> tuple[Network, ...]:
    """Whence `cometbft` may come over TCP; nothing is from everywhere, as one does that is started here."""
    hosts = home.config.texts("ledger.abci_from")
    return () if run.supervised else tuple(map(ipaddress.ip_network, hosts))


def _require_safe(abci: str, hosts: tuple[Network, ...], *, supervised: bool) -> None:
    host, port = address(abci.removeprefix(ABCI_SCHEME))
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError as error:
        raise usage(f"--abci {abci}: {error.strerror or error}") from None
    places = [ipaddress.ip_address(str(place[0]).partition("%")[0]) for *_, place in found]
    if supervised and not all(place.is_loopback for place in places):
        raise usage(
            f"--abci {abci}: the cometbft that is started here needs no other address than "
            "tcp://127.0.0.1:PORT; for one elsewhere add --no-supervise"
        )
    if not supervised and not port:
        raise usage(f"--abci {abci}: cometbft must know the port, so it cannot be 0")
    if not hosts and any(place.is_unspecified or not place.is_private for place in places):
        raise usage(
            f"--abci {abci} is not in a private network: {DANGER}. If that is meant, say also from where "
            "cometbft comes: `holdfast config set ledger.abci_from 10.1.2.3`"
        )
