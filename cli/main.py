"""The `holdfast` program: finds the command in a table, imports its module alone, runs it, reports errors.

`--version` is answered before anything is imported. `COMMANDS` maps each command to the module that holds it:
a function becomes a command, a `typer.Typer` a group of commands. Help lists commands from this table alone.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence


class Entry(NamedTuple):
    """Where a command is: `attribute` of `module` is its function or its `typer.Typer`."""

    module: str
    attribute: str
    help: str


COMMANDS: Final[dict[str, Entry]] = {
    "up": Entry("cli.commands_up", "up", "Run everything on this machine: node, gateway, ledger."),
    "demo": Entry("cli.commands_up", "demo", "Play the whole story on a local network."),
    "init": Entry("cli.commands_repo", "init", "Make the folder, the key and the configuration."),
    "add": Entry("cli.commands_add", "add", "Import files, folders or standard input (-)."),
    "get": Entry("cli.commands_content", "get", "Write content to files and folders."),
    "cat": Entry("cli.commands_content", "cat", "Print files, one after the other."),
    "ls": Entry("cli.commands_content", "ls", "List folders."),
    "stat": Entry("cli.commands_content", "stat", "Say what a path is and how large."),
    "pin": Entry("cli.commands_pin", "app", "Keep content from being collected."),
    "store": Entry("cli.commands_deal", "store", "Pay nodes to keep content."),
    "deal": Entry("cli.commands_deal", "app", "One's deals, their proofs and costs."),
    "node": Entry("cli.commands_node", "app", "A paid storage node."),
    "gateway": Entry("cli.commands_gateway", "app", "Run the gateway alone."),
    "wallet": Entry("cli.commands_wallet", "app", "Accounts and transfers."),
    "ledger": Entry("cli.commands_ledger", "app", "The shared ledger."),
    "gov": Entry("cli.commands_gov", "app", "Votes of the providers on parameters and rules."),
    "block": Entry("cli.commands_block", "app", "Single blocks."),
    "proof": Entry("cli.commands_proof", "app", "Proofs of storage, offline too."),
    "dag": Entry("cli.commands_dag", "app", "Nodes of any codec."),
    "car": Entry("cli.commands_car", "app", "CAR archives."),
    "name": Entry("cli.commands_name", "app", "Names that their key can move (IPNS)."),
    "files": Entry("cli.commands_files", "app", "A mutable tree of folders and files."),
    "key": Entry("cli.commands_key", "app", "Keys."),
    "repo": Entry("cli.commands_repo", "app", "The block store."),
    "healthcheck": Entry(
        "cli.commands_up", "healthcheck", "Ask every server of this home whether it is well."
    ),
    "config": Entry("cli.commands_config", "app", "Settings."),
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command line and exits the process with the contract's exit code."""
    _open_closed_streams()
    try:
        code = run(sys.argv[1:] if arguments is None else arguments)
    except KeyboardInterrupt:  # before there was anybody to report it, or while it was reported
        sys.stderr.write("holdfast: interrupted\n")
        code = 130
    sys.exit(code)


def _open_closed_streams() -> None:
    """Gives whoever closed stdin, stdout or stderr (`>&-`) /dev/null, before another file gets their number.

    What reads a closed stdin fails, as in other programs: an empty file is not what anybody meant.
    """
    for number, name in ((0, "stdin"), (1, "stdout"), (2, "stderr")):
        if getattr(sys, name) is None:
            import os

            null = os.open(os.devnull, os.O_WRONLY)
            if null != number:
                os.dup2(null, number)
                os.close(null)
            how = "w" if number else "r"
            setattr(sys, name, open(number, how, closefd=False))  # noqa: SIM115 (open as long as we run)


def run(arguments: Sequence[str]) -> int:
    """Runs one command line in this process and returns its exit code; never raises for a failed command."""
    if list(arguments) in (["--version"], ["-V"]):
        from cli.version import VERSION

        sys.stdout.write(f"holdfast {VERSION}\n")
        return 0
    from cli.output import report

    try:
        from cli.groups import dispatch

        code = dispatch(COMMANDS, arguments)
        sys.stdout.flush()
    except (Exception, KeyboardInterrupt) as error:
        return report(error)
    return code


if __name__ == "__main__":
    main()
