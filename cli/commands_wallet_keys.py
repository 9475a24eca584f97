"""`holdfast wallet backup` and `restore`: all keys of a home in one sealed file, and back."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.home import Home
from cli.options import JsonFlag
from cli.output import count_text, emit, invalid, not_found, note, text, usage
from cli.streams import read_input

if TYPE_CHECKING:
    from cli.key_backup import Backup, SavedKey
    from cli.keystore import Keystore


def backup(
    file: Annotated[str, typer.Argument(help="A new file.")],
    names: Annotated[
        list[str] | None, typer.Argument(metavar="NAME", help="Keys; without any, all of them.")
    ] = None,
    json_output: JsonFlag = False,
) -> None:
    """Save keys to one file, sealed with a passphrase: whoever has both has the money."""
    from cli.key_backup import MAX_KEYS, SavedKey, encode, write_private

    keys = Home.locate().keystore()
    chosen = list(dict.fromkeys(names or keys.names()))
    if not chosen:
        raise not_found(f"there is no key in {keys.folder}: `holdfast wallet new NAME` makes one")
    if len(chosen) > MAX_KEYS:
        raise usage(f"{len(chosen)} keys: a backup holds at most {MAX_KEYS}; name some of them")
    if Path(file).exists():
        raise invalid(f"{file} exists: it is not written over")
    infos = [keys.info(name) for name in chosen]
    saved = [(SavedKey(info.name, info.kind, info.public), keys.seed(info.name)) for info in infos]
    write_private(Path(file), encode(saved, _passphrase(keys, "Passphrase of the backup: ", new=True)))
    note("keep the passphrase too: without it nobody can open the file")
    if json_output:
        emit({"file": file, "keys": [key.document() for key, _ in saved]})
    else:
        text(f"saved {count_text(len(saved), 'key')} to {file}: {', '.join(chosen)}")


def restore(
    file: Annotated[str, typer.Argument(help="What `wallet backup` wrote, or - for stdin.")],
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="NAME[=NEW]", help="Keys, NEW to call one otherwise; without any, all."),
    ] = None,
    encrypt: Annotated[
        bool, typer.Option("--encrypt", help="Seal the restored keys with the same passphrase.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only list what is in the file.")] = False,
    json_output: JsonFlag = False,
) -> None:
    """Bring keys back from a backup; what is here is never replaced."""
    from cli.key_backup import MAX_FILE_BYTES, decode

    home = Home.locate()
    found = decode(read_input(file, MAX_FILE_BYTES, "a backup of keys"))
    wanted = _chosen(found, names)
    keys = home.keystore()
    lacking = [(key, name) for key, name in wanted if not _is_here(keys, key, name)]
    if not dry_run and lacking:
        passphrase = _passphrase(keys, "Passphrase of the backup: ", new=False)
        seeds = found.seeds(passphrase)
        home.ensure()
        for key, name in lacking:
            made = keys.create(name, key.kind, seeds[key.name], passphrase=passphrase if encrypt else None)
            note(made.sentence())
    restored = {name for _, name in lacking} if not dry_run else set()
    for key, name in wanted:
        if json_output:
            emit({**key.document(), "name": name, "restored": name in restored, "here": keys.has(name)})
        else:
            state = "restored" if name in restored else "here already" if keys.has(name) else "in the backup"
            text(f"{key.public}  {name}  {state}")


def _chosen(found: Backup, names: list[str] | None) -> list[tuple[SavedKey, str]]:
    """The keys that are asked for, each with its name from now on."""
    held = {key.name: key for key in found.keys}
    chosen = []
    for name in names or list(held):
        old, _, new = name.partition("=")
        if old not in held:
            raise not_found(f"the backup has no key {old}: it has {', '.join(held)}")
        chosen.append((held[old], new or old))
    if len({name for _, name in chosen}) != len(chosen):
        raise usage("two keys would have the same name")
    return chosen


def _is_here(keys: Keystore, key: SavedKey, name: str) -> bool:
    """Whether this very key has the name already; exit 4 where another one has it."""
    if not keys.has(name):
        return False
    if keys.info(name).public != key.public:
        raise invalid(
            f"another key is called {name} here: restore this one under another name, as {key.name}=NEW"
        )
    return True


def _passphrase(keys: Keystore, prompt: str, *, new: bool) -> bytes:
    """The backup's passphrase: from HOLDFAST_PASSPHRASE_FILE, else typed (twice if `new`)."""
    from cli.keystore import ask_passphrase

    given = keys.given_passphrase()
    if given is not None:
        return given
    if not sys.stdin.isatty():
        raise usage("a backup needs a passphrase: name a file that holds it in HOLDFAST_PASSPHRASE_FILE")
    return ask_passphrase(prompt, confirm=new)
