"""`holdfast config`: the settings of this home."""

from __future__ import annotations

from typing import Annotated

import typer

from cli.groups import new_app
from cli.home import Home
from cli.options import JsonFlag
from cli.output import emit, text, usage
from cli.settings import Value, all_settings, parse_value, setting_for

app = new_app("Settings: a flag beats HOLDFAST_* beats config.toml beats the default.")


def shown_value(value: Value) -> str:
    """A value as `config set` takes it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return ",".join(value) if isinstance(value, list) else str(value)


@app.command("get")
def get(
    key: Annotated[str, typer.Argument(help="One setting; all of them without it.")] = "",
    json_output: JsonFlag = False,
) -> None:
    """Print a setting, or all of them with where each comes from."""
    config = Home.locate().config
    if key and not json_output:
        return text(shown_value(config.get(key)))
    keys = [setting_for(key).key] if key else list(all_settings())
    rows = [{"key": k, "value": config.get(k), "origin": config.origin(k)} for k in keys]
    if json_output:
        return emit(rows[0] if key else rows)
    for k in keys:
        setting = setting_for(k)
        text(f"{k} = {shown_value(config.get(k))}  ({config.origin(k)}; {setting.help}; {setting.env})")
    return None


@app.command("set")
def set_(
    key: Annotated[str, typer.Argument(help="The setting.")],
    value: Annotated[str, typer.Argument(help="Its value; lists are separated by commas.")],
    json_output: JsonFlag = False,
) -> None:
    """Change a setting in config.toml; setting the default removes the line."""
    home = Home.locate()
    setting = setting_for(key)
    try:
        parsed = parse_value(setting, value)
    except ValueError as error:
        raise usage(str(error)) from None
    home.ensure()
    home.config.set(key, parsed)
    home.config.save()
    if json_output:
        emit({"key": key, "value": parsed, "origin": home.config.origin(key)})
