"""Settings: flag, then HOLDFAST_*, then config.toml, then the default.

`cli.settings` lists every key. A key `table.name` is `name` under `[table]` in config.toml and
HOLDFAST_TABLE_NAME in the environment; a few have a shorter variable, too, which wins. config.toml holds only
what differs from the defaults.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final, cast

from cli.output import CommandError, ExitCode, invalid, usage
from cli.settings import Setting, Value, check_value, parse_value, setting_for, variable_by_rule

MAX_CONFIG_BYTES: Final = 1 << 20


class Config:
    """The settings of one home. Reads config.toml once, when it is first needed; `save` writes it whole."""

    def __init__(self, path: Path, environ: Mapping[str, str] = os.environ) -> None:
        self.path = path
        self._environ = environ
        self._loaded: dict[str, Value] | None = None

    @property
    def _file(self) -> dict[str, Value]:
        if self._loaded is None:
            self._loaded = _read(self.path)
        return self._loaded

    def get(self, key: str, flag: Value | None = None) -> Value:
        """The value of `key`: `flag` if given, else HOLDFAST_*, else config.toml, else the default.

        Raises CommandError: exit 2 for an unknown key or a bad flag or variable, exit 4 for a bad
        config.toml.
        """
        setting = setting_for(key)
        try:
            if flag is not None:
                return check_value(setting, flag)
            variable = self._variable(setting)
            if variable is not None:
                return parse_value(setting, self._environ[variable])
        except ValueError as error:
            raise usage(str(error)) from None
        return self._file.get(key, setting.default)

    def text(self, key: str, flag: str | None = None) -> str:
        """`get` for a setting that is a text."""
        return cast(str, self.get(key, flag))

    def number(self, key: str, flag: int | None = None) -> int:
        """`get` for a setting that is a whole number."""
        return cast(int, self.get(key, flag))

    def truth(self, key: str, flag: bool | None = None) -> bool:
        """`get` for a setting that is true or false."""
        return cast(bool, self.get(key, flag))

    def texts(self, key: str, flag: list[str] | None = None) -> list[str]:
        """`get` for a setting that is a list."""
        return cast("list[str]", self.get(key, flag or None))

    def origin(self, key: str) -> str:
        """Where `get(key)` comes from without a flag: the variable's name, `config.toml` or `default`."""
        variable = self._variable(setting_for(key))
        return variable or ("config.toml" if key in self._file else "default")

    def _variable(self, setting: Setting) -> str | None:
        """The variable that is there for a setting: its own, or by the rule for those with another name."""
        by_rule = variable_by_rule(setting.key)
        return next((name for name in (setting.env, by_rule) if name in self._environ), None)

    def as_variables(self, flags: Mapping[str, Value | None]) -> dict[str, str]:
        """The environment with these values in it, for other processes to find the same settings.

        None is no value. Raises CommandError (exit 2) for a bad one.
        """
        checked = {key: self.get(key, flag) for key, flag in flags.items() if flag is not None}
        return {**self._environ} | {
            setting_for(key).env: ",".join(value) if isinstance(value, list) else str(value)
            for key, value in checked.items()
        }

    def set(self, key: str, value: Value) -> None:
        """Sets `key` for `save`; the default value removes it from the file. Raises CommandError (exit 2)."""
        setting = setting_for(key)
        try:
            checked = check_value(setting, value)
        except ValueError as error:
            raise usage(str(error)) from None
        if checked == setting.default:
            self._file.pop(key, None)
        else:
            self._file[key] = checked

    def save(self) -> None:
        """Writes config.toml in one step: readers see the old file or the new one."""
        temporary = self.path.with_name(f".{self.path.name}.{os.getpid()}.tmp")
        temporary.write_text(_toml(self._file), encoding="utf-8")
        temporary.replace(self.path)


def _read(path: Path) -> dict[str, Value]:
    try:
        with path.open("rb") as file:
            data = file.read(MAX_CONFIG_BYTES + 1)
    except FileNotFoundError:
        return {}
    if len(data) > MAX_CONFIG_BYTES:
        raise invalid(f"{path} is larger than 1 MiB: it is no configuration")
    if not data.strip():
        return {}
    import tomllib

    try:
        document = tomllib.loads(data.decode())
    except (ValueError, RecursionError) as error:
        raise invalid(f"{path} is not TOML: {error}") from None
    values: dict[str, Value] = {}
    for table, content in document.items():
        for name, value in content.items() if isinstance(content, dict) else ((None, content),):
            key = f"{table}.{name}" if name is not None else table
            try:
                setting = setting_for(key)
                by_hand = setting.parse is not None and isinstance(value, str)
                values[key] = parse_value(setting, value) if by_hand else check_value(setting, value)
            except (ValueError, CommandError) as error:
                raise CommandError(f"{path}: {error}", ExitCode.INVALID) from None
    return values


def _toml(values: Mapping[str, Value]) -> str:
    lines: list[str] = []
    table = ""
    for key in sorted(values):
        head, _, name = key.partition(".")
        if head != table:
            lines += ["", f"[{head}]"] if lines else [f"[{head}]"]
            table = head
        lines.append(f"{name} = {_toml_value(values[key])}")
    return "".join(line + "\n" for line in lines)


def _toml_value(value: Value) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list):
        return "[" + ", ".join(_toml_value(part) for part in value) + "]"
    if isinstance(value, (int, float)):
        return str(value)
    # TOML's basic strings share JSON's escapes for all that JSON escapes; DEL is TOML's only addition.
    import json

    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
