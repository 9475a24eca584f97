"""`holdfast gateway`: runs the gateway alone; `reload` and `status` speak to the one that runs."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Mapping
from typing import Annotated, Any, Final

import typer

from cli.config import Config
from cli.groups import new_app
from cli.home import Home
from cli.options import JsonFlag
from cli.output import CommandError, ExitCode, emit, text, unreachable

RELOAD_TIMEOUT_S: Final = 90.0
POLL_S: Final = 0.05
HEALTH_TIMEOUT_S: Final = 4.0

ListenFlag = Annotated[
    str | None, typer.Option("--listen", help="ADDRESS:PORT to listen at; port 0 is any.", show_default=False)
]
WorkersFlag = Annotated[
    int | None, typer.Option("--workers", help="Processes that answer.", show_default=False)
]
ControlFlag = Annotated[
    str | None,
    typer.Option(
        "--control", help="ADDRESS:PORT for metrics, health and reload, for operators.", show_default=False
    ),
]
HostsFlag = Annotated[
    list[str] | None,
    typer.Option(
        "--subdomain-host",
        metavar="NAME",
        help="Host name whose subdomains are content roots; may be repeated.",
        show_default=False,
    ),
]
LedgerFlag = Annotated[str, typer.Option("--ledger", help="URL of the ledger.", show_default=False)]

app = new_app("Run the gateway alone, over the local store and the nodes of a ledger if one is known.")


def home_with(
    listen: str | None, workers: int | None, control: str | None, subdomain_hosts: list[str] | None
) -> Home:
    """The home with these flags in the place of its settings, for this process and for its workers.

    Exit 2 for a bad one.
    """
    home = Home.locate()
    flags: Mapping[str, str | int | list[str] | None] = {
        "gateway.listen": listen,
        "gateway.workers": workers,
        "gateway.control_listen": control,
        "gateway.subdomain_hosts": subdomain_hosts or None,
    }
    return Home(home.path, Config(home.config_file, home.environ).as_variables(flags))


@app.callback(invoke_without_command=True, no_args_is_help=False, subcommand_metavar="[COMMAND]")
def gateway(
    context: typer.Context,
    listen: ListenFlag = None,
    workers: WorkersFlag = None,
    control: ControlFlag = None,
    subdomain_host: HostsFlag = None,
    ledger: LedgerFlag = "",
    json_output: JsonFlag = False,
) -> None:
    """Runs until it is told to stop, unless a subcommand was given."""
    if context.invoked_subcommand is not None:
        return
    from cli.gateway_service import gateway_service
    from cli.serve import Stop, run_forever, until
    from cli.servers import known_ledger

    home = home_with(listen, workers, control, subdomain_host)

    async def main(stop: Stop) -> None:
        async with gateway_service(home, lambda: known_ledger(home, ledger), stop) as running:
            if json_output:
                emit({"gateway": running.url, "control": running.control_url, "workers": running.workers})
            else:
                text(f"gateway  {running.url}")
                if running.control_url is not None:
                    text(f"control  {running.control_url}")
            await until(stop)

    with home:
        raise typer.Exit(run_forever(main))


@app.command("reload")
def reload(json_output: JsonFlag = False) -> None:
    """Have the running gateway take up config.toml, denylists and log files as they are, without a gap."""
    home = Home.locate()
    before = _running(home)
    os.kill(before["pid"], signal.SIGHUP)
    deadline_s = time.monotonic() + RELOAD_TIMEOUT_S
    while time.monotonic() < deadline_s:
        now = _running(home)
        if now["pid"] != before["pid"] or now["reloads"] != before["reloads"]:
            break
        time.sleep(POLL_S)
    else:
        raise CommandError(f"no answer within {RELOAD_TIMEOUT_S:.0f} s", ExitCode.UNREACHABLE)
    if now["reloads"]["refused"] != before["reloads"]["refused"]:
        raise CommandError(now["last_reload"], ExitCode.INVALID)
    if json_output:
        emit(now)
    else:
        text(now["last_reload"])


@app.command("status")
def status(json_output: JsonFlag = False) -> None:
    """Say where the gateway listens, which processes answer, and whether they are ready (exit 5 if not)."""
    found = _running(Home.locate())
    ready, said = _ready(found.get("control") or found["url"])
    if json_output:
        emit({**found, "ready": ready, "said": said})
    else:
        text(f"gateway  {found['url']}  process {found['pid']}")
        text(f"workers  {len(found['workers'])}: {', '.join(map(str, found['workers']))}")
        text(f"control  {found.get('control') or '-'}")
        text(f"ledger   {found.get('ledger') or '-'}")
        text(f"state    {said}")
    if not ready:
        raise typer.Exit(ExitCode.UNREACHABLE)


def _running(home: Home) -> dict[str, Any]:
    """What the gateway of this home says of itself; exit 5 when none runs."""
    found = home.server("gateway")
    if found is None or not isinstance(found.get("workers"), list):
        raise unreachable("no gateway runs in this home: start one with `holdfast gateway` or `holdfast up`")
    return found


def _ready(url: str) -> tuple[bool, str]:
    from urllib.error import HTTPError
    from urllib.request import urlopen

    try:
        with urlopen(f"{url}/readyz", timeout=HEALTH_TIMEOUT_S) as answer:  # noqa: S310 (our own URL)
            return True, answer.read(1000).decode("utf-8", "replace").strip()
    except HTTPError as error:
        return False, error.read(1000).decode("utf-8", "replace").strip()
    except OSError as error:
        return False, f"no answer: {error}"
