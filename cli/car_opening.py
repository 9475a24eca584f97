"""What CAR archives are read from: files that must be there, pipes, and answers of web servers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

from cli.output import CommandError, invalid, not_found, printable, unreachable, usage
from cli.streams import STDIO
from cli.urls import WEB, is_web_url

if TYPE_CHECKING:
    from http.client import HTTPResponse
    from urllib.error import HTTPError

URL_TIMEOUT_S: Final = 60.0
PIPE_BYTES: Final = 1 << 20  # asked of the system for pipes, whose default is 64 KiB
CAR_MEDIA_TYPE: Final = "application/vnd.ipld.car"
MAX_SAID_CHARS: Final = 200  # of what a server says about an error
BUSY: Final = (408, 429)


def check_there(name: str) -> None:
    """Exit 3 for a file that is not there, 4 for a folder, 2 for other URLs than http and broken ones."""
    path = Path(name)
    if name.startswith(WEB):
        _check_url(name)
    elif path.is_dir():
        raise invalid(f"{name} is a folder, not a CAR file")
    elif name != STDIO and not path.exists():
        if "://" in name:
            raise usage(f"{name}: only http and https URLs are read")
        raise not_found(f"{name}: there is no such file")


def _check_url(url: str) -> None:
    if not is_web_url(url):
        raise usage(
            f"{printable(url)}: this is no URL; spaces and other letters are written as %20 and so on"
        )


def widen_pipe(handle: int) -> None:
    """Lets a pipe hold more, so that writer and reader wait for each other less often."""
    import fcntl

    with suppress(AttributeError, OSError):
        fcntl.fcntl(handle, fcntl.F_SETPIPE_SZ, PIPE_BYTES)


@contextmanager
def open_url(url: str) -> Iterator[HTTPResponse]:
    """The answer to a GET; asks for a CAR, so that a gateway's URL of any content gives one.

    Only http and https, also when redirected. Exit 3 for 404 and 410, 4 where the server refuses, 5 for
    failures and where trying again may help.
    """
    from http.client import HTTPException
    from urllib.error import HTTPError, URLError
    from urllib.request import (
        HTTPDefaultErrorHandler,
        HTTPErrorProcessor,
        HTTPHandler,
        HTTPRedirectHandler,
        HTTPSHandler,
        OpenerDirector,
        ProxyHandler,
        Request,
    )

    opener = OpenerDirector()
    for handler in (
        ProxyHandler(), HTTPHandler(), HTTPSHandler(),
        HTTPDefaultErrorHandler(), HTTPErrorProcessor(), HTTPRedirectHandler(),
    ):  # fmt: skip
        opener.add_handler(handler)
    accept = f"{CAR_MEDIA_TYPE}, application/octet-stream;q=0.5, */*;q=0.1"
    try:
        response = opener.open(Request(url, headers={"Accept": accept}), timeout=URL_TIMEOUT_S)  # noqa: S310
    except HTTPError as error:
        try:
            raise _answered(url, error) from None
        finally:
            error.close()
    except (URLError, HTTPException, ValueError, OSError) as error:
        reason = getattr(error, "reason", error)
        raise unreachable(f"{url}: {getattr(reason, 'strerror', None) or reason}") from None
    if response is None:
        raise CommandError(f"{url}: a redirect to something else than http or https")
    with response:
        yield response


def _answered(url: str, error: HTTPError) -> CommandError:
    """An answer that is no success, with the first line of what the server says about it."""
    said = ""
    if error.headers.get_content_type() == "text/plain":
        with suppress(OSError, ValueError):
            said = error.read(MAX_SAID_CHARS).decode("utf-8", "replace").partition("\n")[0].strip()
    answer = f"{url}: the server answered {error.code} {printable(error.reason)}"
    kind = invalid if 400 <= error.code < 500 and error.code not in BUSY else unreachable
    if error.code in (404, 410):
        kind = not_found
    return kind(f"{answer}: {printable(said)}" if said else answer)
