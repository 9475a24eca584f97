"""Runs typer commands out of a table of modules, importing only the one that was asked for.

Two things are done here for the sake of start-up. The group imports a command's module when that command
runs. And texts, numbers and truth values are converted without pydantic, whose import (0.3 s) newer typer
versions need for every option; other types, and other typer versions, take typer's own way.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import typer
from typer import core
from typer.main import get_command

from cli.output import ExitCode, note, usage
from cli.version import VERSION

if TYPE_CHECKING:
    from cli.main import Entry

PROGRAM = "holdfast"
_COMPLETE = "_HOLDFAST_COMPLETE"


class _Command(core.TyperCommand):
    """A command with plain names of arguments in its help: `NAME`, `[NAME]` for one that may be left out.

    Its switches may also be given a value, as in `--pin=false`: kubo writes them so.
    """

    def __init__(self, *args: Any, **settings: Any) -> None:
        super().__init__(*args, **settings)
        for param in self._of_kind("argument"):
            param.metavar = (param.metavar or param.name.upper()).strip("[]")

    def _of_kind(self, kind: str) -> list[Any]:
        return [param for param in self.params if param.param_type_name == kind]

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        arguments = self._of_kind("argument")
        return ["[OPTIONS]", *(p.metavar if p.required else f"[{p.metavar}]" for p in arguments)]

    def format_options(self, ctx: Any, formatter: Any) -> None:
        records = [(param, param.get_help_record(ctx)) for param in self.get_params(ctx)]
        options = [record for param, record in records if record and param.param_type_name == "option"]
        arguments = [
            (param.metavar, record[1].removesuffix("[required]").rstrip())
            for param, record in records
            if record and param.param_type_name == "argument"
        ]
        for title, rows in (("Arguments", arguments), ("Options", options)):
            if rows:
                with formatter.section(title):
                    formatter.write_dl(rows)

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        end = args.index("--") if "--" in args else len(args)
        plain = [word for arg in args[:end] if (word := self._as_switch(arg)) is not None]
        return super().parse_args(ctx, plain + args[end:])

    def _as_switch(self, arg: str) -> str | None:
        """`--pin=false` as `--no-pin`; None for a switch that is off anyway; all else as it is, also what
        cannot be switched off."""
        name, _, value = arg.partition("=")
        if value not in ("true", "false") or not name.startswith("--"):
            return arg
        for param in self.params:
            if getattr(param, "is_flag", False) and name in (*param.opts, *param.secondary_opts):
                if value == "true":
                    return name
                others = param.secondary_opts if name in param.opts else param.opts
                return others[0] if others else arg if param.default else None
        return arg


class _Group(core.TyperGroup):
    """A group that lists its commands with their whole first sentence."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        shown = [command for command in self.commands.values() if not command.hidden]
        with formatter.section("Commands"):
            formatter.write_dl([(str(command.name), command.get_short_help_str(1000)) for command in shown])


class _App(typer.Typer):
    def command(self, name: str | None = None, **settings: Any) -> Any:
        return super().command(name, cls=_Command, **settings)


def new_app(help_text: str) -> typer.Typer:
    """A group of commands for a module of commands."""
    return _App(
        cls=_Group,
        help=help_text,
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
    )


class LazyGroup(core.TyperGroup):
    """A group whose commands are rows of a table until one of them runs."""

    table: Mapping[str, Entry]

    def list_commands(self, ctx: Any) -> list[str]:
        return list(self.table)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        command = self.commands.get(cmd_name)
        entry = self.table.get(cmd_name)
        if command is None and entry is not None:
            command = self.commands[cmd_name] = _load(cmd_name, entry)
        return command

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        name = args[0]
        if name not in self.table and not name.startswith("-"):
            from difflib import get_close_matches

            near = get_close_matches(name, self.table, n=1)
            hint = f"did you mean {near[0]}?" if near else f"`{PROGRAM} --help` lists them"
            raise usage(f"no command is called {name!r}; {hint}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, entry.help) for name, entry in self.table.items()])


def _load(name: str, entry: Entry) -> Any:
    found = getattr(importlib.import_module(entry.module), entry.attribute)
    if isinstance(found, typer.Typer):
        return get_command(found)
    single = new_app("")
    single.command(name, help=found.__doc__)(found)
    return get_command(single)


def _root(
    version: bool = typer.Option(False, "--version", "-V", help="Print the version and exit."),
) -> None:
    """Content-addressed storage that pays the people who keep the data, and proves that they do."""
    if version:
        sys.stdout.write(f"{PROGRAM} {VERSION}\n")
        raise typer.Exit(0)


def root_command(table: Mapping[str, Entry]) -> Any:
    """The whole command line as one click command."""
    _convert_without_pydantic()
    app = new_app("")
    app.callback(cls=LazyGroup, invoke_without_command=False, no_args_is_help=True, help=_root.__doc__)(_root)
    group = get_command(app)
    group.table = table  # type: ignore[attr-defined]
    group.name = PROGRAM
    return group


def dispatch(table: Mapping[str, Entry], arguments: Sequence[str]) -> int:
    """Runs one command line and returns its exit code; errors of commands pass through."""
    command = root_command(table)
    if os.environ.get(_COMPLETE):
        command.main(args=list(arguments), prog_name=PROGRAM, complete_var=_COMPLETE)
    try:
        with command.make_context(PROGRAM, list(arguments)) as context:
            result = command.invoke(context)
    except typer.Exit as stop:
        return stop.exit_code
    except typer.Abort:
        raise KeyboardInterrupt from None
    except Exception as error:
        if hasattr(error, "format_message") and hasattr(error, "exit_code"):
            return _usage_error(error)
        raise
    return result if isinstance(result, int) else ExitCode.DONE


def _usage_error(error: Any) -> int:
    """One line for what typer refused; the help text when no command was given."""
    context = getattr(error, "ctx", None)
    message = " ".join(error.format_message().split())
    if context is not None and type(error).__name__ == "NoArgsIsHelpError":
        sys.stderr.write(context.get_help() + "\n")
        return ExitCode.USAGE
    hint = f" (see `{context.command_path} --help`)" if context is not None else ""
    note(f"{PROGRAM}: {message}{hint}")
    return ExitCode.USAGE


class _Plain:
    """Converts an option of a simple type by calling it."""

    def __init__(self, convert: type) -> None:
        self._convert = convert

    def coerce(self, value: Any, param: Any, ctx: Any) -> Any:
        many = param.multiple or param.nargs == -1
        if value is None:
            return () if many else None
        return [self._one(v, param, ctx) for v in value] if many else self._one(value, param, ctx)

    def _one(self, value: Any, param: Any, ctx: Any) -> Any:
        if isinstance(value, self._convert):
            return value
        try:
            return self._convert(value)
        except ValueError:
            kind = {int: "a whole number", float: "a number"}.get(self._convert, self._convert.__name__)
            raise typer.BadParameter(f"{value!r} is not {kind}.", ctx=ctx, param=param) from None


_SIMPLE: dict[Any, type] = {
    str: str, int: int, float: float, bool: bool, list[str]: str, list[int]: int,
}  # fmt: skip


def _convert_without_pydantic() -> None:
    """Answers `get_runtime_param` of typer's parameters for simple types, where this typer version has it."""
    parameter = getattr(core, "_TyperParameter", None)
    original = getattr(parameter, "get_runtime_param", None)
    if parameter is None or original is None or getattr(original, "is_quick", False):
        return

    def get_runtime_param(self: Any) -> Any:
        descriptor = self.type_descriptor
        info = descriptor.parameter_info
        simple = _SIMPLE.get(descriptor.annotation)
        if simple is None or info.min is not None or info.max is not None or info.parser is not None:
            return original(self)
        return _Plain(simple)

    get_runtime_param.is_quick = True  # type: ignore[attr-defined]
    parameter.get_runtime_param = get_runtime_param
